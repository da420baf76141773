//! The first units of a group, as its `Tenant` names them.

use actix_web::{put, web};
use heyuan_contract::{Line, OrgUnitId, UnitKind};
use heyuan_kernel::http::{Authenticated, Body};
use heyuan_kernel::org::{OrgUnit, Tree};
use heyuan_kernel::problems::{Invalid, Stranger};
use heyuan_kernel::{Kernel, Problem, Scope};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A unit as it should be there.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WantedUnit {
    /// The group's own code.
    #[schema(value_type = String)]
    id: OrgUnitId,
    /// The name that people know.
    name: String,
    /// residential, mall, office, hotel or community; null for group and city.
    #[schema(value_type = Option<String>)]
    line: Option<Line>,
    /// The unit above; null for the group itself.
    #[schema(value_type = Option<String>)]
    parent: Option<OrgUnitId>,
}

/// Units that should be there, parents before their children.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PutOrg {
    units: Vec<WantedUnit>,
}

/// What became of them.
#[derive(Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
struct OrgResult {
    /// Ids of units that were made now.
    made: Vec<String>,
    /// Ids of units that were there as wanted.
    present: Vec<String>,
    /// Where units that were there differ from what is wanted; they stay as they are.
    different: Vec<Difference>,
}

/// A field that differs.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
struct Difference {
    /// The unit.
    id: String,
    /// `name`, `line` or `parent`.
    field: &'static str,
}

impl WantedUnit {
    fn differences(&self, present: &OrgUnit) -> Vec<Difference> {
        let fields = [("name", present.name == self.name), ("line", present.line == self.line), ("parent", present.parent == self.parent)];
        let differ = fields.into_iter().filter(|(_, same)| !same);
        differ.map(|(field, _)| Difference { id: self.id.to_string(), field }).collect()
    }

    /// The kind follows from the line: what is above all is the group, what has no line is a city company.
    fn into_unit(self) -> OrgUnit {
        let kind = match (&self.parent, self.line) {
            (None, _) => UnitKind::Group,
            (_, None) => UnitKind::City,
            (_, Some(Line::Residential)) => UnitKind::Project,
            (_, Some(Line::Mall)) => UnitKind::Mall,
            (_, Some(Line::Office)) => UnitKind::Office,
            (_, Some(Line::Hotel)) => UnitKind::Hotel,
            (_, Some(Line::Community)) => UnitKind::Community,
        };
        OrgUnit { id: self.id, parent: self.parent, name: self.name, kind, line: self.line }
    }
}

/// What of the wanted units is missing, and how those that are there compare.
fn compared(tree: &Tree, wanted: Vec<WantedUnit>) -> (Vec<OrgUnit>, OrgResult) {
    let (mut missing, mut result) = (Vec::new(), OrgResult::default());
    for unit in wanted {
        match tree.get(&unit.id).map(|present| unit.differences(present)) {
            None => {
                result.made.push(unit.id.to_string());
                missing.push(unit.into_unit());
            }
            Some(differences) if differences.is_empty() => result.present.push(unit.id.to_string()),
            Some(differences) => result.different.extend(differences),
        }
    }
    (missing, result)
}

#[utoipa::path(tag = "Operator", summary = "Make the units that are missing; those that are there stay as they are",
    security(("operator" = [])), request_body = PutOrg,
    responses((status = 200, body = OrgResult), Invalid, Stranger))]
#[put("/v1/operator/org")]
pub(super) async fn put_org(
    Authenticated(actor): Authenticated,
    kernel: web::Data<Kernel>,
    body: Body<PutOrg>,
) -> Result<web::Json<OrgResult>, Problem> {
    actor.require(Scope::Operator)?;
    kernel.org.refresh().await?;
    let (missing, result) = compared(&kernel.org.tree(), body.0.units);
    if !missing.is_empty() {
        kernel.org.add(missing).await?;
    }
    Ok(web::Json(result))
}
