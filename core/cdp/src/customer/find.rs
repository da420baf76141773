//! Finding a customer and showing it, masked and cut to what the actor may see.

use crate::Error as CdpError;
use crate::cdp::Cdp;
use crate::customer::Consent;
use crate::identity::change;
use crate::identity::identifier::{Identifier, Kind};
use crate::identity::plan::hash_of;
use crate::identity::resolve::{customer_of_root, root_of_customer};
use crate::identity::store::{self, Row};
use heyuan_contract::{AnchorId, CustomerId, OrgUnitId, PersonalRef, Timestamp};
use heyuan_kernel::error::codes;
use heyuan_kernel::{Actor, Error, Problem, Reach, Rfc3339, Scope, Vault, sql};
use serde::Serialize;
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// Identifiers of one report.
const REPORT_MAX: i64 = 1_000;

/// A customer as an actor may see it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CustomerView {
    /// The id in force; an older id resolves to it.
    #[schema(value_type = String)]
    pub id: CustomerId,
    /// The earliest own time of its events.
    pub first_seen: Rfc3339,
    /// About when it was last seen.
    pub last_seen: Rfc3339,
    /// What it is known by, masked, earliest first.
    pub identifiers: Vec<IdentifierView>,
    /// What holds them together: pairs that were seen together.
    pub evidence: Vec<Evidence>,
    /// Units within reach where it was seen.
    #[schema(value_type = Vec<String>)]
    pub units: Vec<OrgUnitId>,
    /// Consent by purpose and legal entity.
    pub consents: Vec<Consent>,
    /// Features, tags and segments.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub profile: Option<serde_json::Map<String, serde_json::Value>>,
}

/// An identifier, masked.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct IdentifierView {
    /// The anchor.
    #[schema(value_type = String)]
    pub anchor: AnchorId,
    /// Its type.
    pub r#type: Kind,
    /// The app of an openid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// The value with its middle hidden.
    pub masked: String,
    /// The reference for a reveal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#ref: Option<String>,
    /// Whether several people share it.
    pub shared: bool,
    /// Whether it stands for nobody, so that it never matches.
    pub blocked: bool,
    /// The earliest own time of an event that carried it.
    pub first_seen: Rfc3339,
}

/// Two identifiers that were seen together.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Evidence {
    /// One anchor.
    #[schema(value_type = String)]
    pub a: AnchorId,
    /// The other.
    #[schema(value_type = String)]
    pub b: AnchorId,
    /// When first.
    pub first_seen: Rfc3339,
    /// When last.
    pub last_seen: Rfc3339,
    /// In how many events.
    pub count: i64,
    /// Which key said so first.
    pub source: String,
}

/// Identifiers that matching took out.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct IdentityReport {
    /// Identifiers that several people share, at most 1,000.
    pub shared: Vec<SharedIdentifier>,
    /// Identifiers that hang together in numbers that only a mistake explains, at most 1,000.
    pub oversized: Vec<SharedIdentifier>,
}

/// An identifier of the report.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SharedIdentifier {
    /// The anchor.
    #[schema(value_type = String)]
    pub anchor: AnchorId,
    /// Its type.
    pub r#type: Kind,
    /// How many others it was seen with.
    pub neighbours: i64,
}

/// A customer that was found: its identifiers, the earliest first.
pub(crate) struct Found {
    pub customer: CustomerId,
    pub rows: Vec<Row>,
}

impl Found {
    pub(crate) fn anchors(&self) -> Vec<AnchorId> {
        self.rows.iter().map(|row| row.node.id.clone()).collect()
    }
}

impl Cdp {
    /// A customer by an identifier's value.
    ///
    /// # Errors
    /// `forbidden`; `invalid_request` for an unknown type; `not_found`.
    pub async fn find(&self, actor: &Actor, kind: &str, value: &str, app: Option<&str>) -> Result<CustomerView, Problem> {
        actor.require_any(&[Scope::App, Scope::Admin])?;
        if !Identifier::is_kind(kind) {
            return Err(Problem::invalid("identifier", "the type is one of those at /v1/identity/rules"));
        }
        let missing = || Problem::new(codes::NOT_FOUND, "there is no customer with this identifier that this key may see");
        let identifier = Identifier::read(kind, value, app).ok_or_else(missing)?;
        let kernel = &self.inner.kernel;
        let hash = hash_of(kernel, &identifier).ok_or_else(missing)?;
        let row = store::nodes_by_hash(kernel.db.near(), &[hash]).await?.pop().ok_or_else(missing)?;
        match self.customer(actor, &customer_of_root(&row.cluster)).await {
            Err(problem) if problem.code() == codes::NOT_FOUND => Err(missing()),
            other => other,
        }
    }

    /// A customer by any id that was ever handed out.
    ///
    /// # Errors
    /// `forbidden`; `not_found`, also for one that was never seen within reach; `erased`.
    pub async fn customer(&self, actor: &Actor, customer: &CustomerId) -> Result<CustomerView, Problem> {
        actor.require_any(&[Scope::App, Scope::Admin])?;
        let found = self.found(actor, customer).await?;
        let anchors = found.anchors();
        let mut view = self.show(actor, &found).await?;
        if let Some(source) = self.inner.profile.get() {
            view.profile = Some(source.profile(actor, &found.customer, &anchors).await?);
        }
        Ok(view)
    }

    /// Reads a customer and checks that the actor may see it.
    pub(crate) async fn found(&self, actor: &Actor, customer: &CustomerId) -> Result<Found, Problem> {
        let missing = || Problem::not_found("customer", customer);
        let reader = self.inner.kernel.db.near();
        let root = root_of_customer(customer).ok_or_else(missing)?;
        let rows = store::nodes_of_customer(reader, &root).await?;
        let row = rows.iter().find(|row| row.node.id == root).ok_or_else(missing)?;
        let (current, erased) = (customer_of_root(&row.cluster), row.erased);
        let found = Found { customer: current, rows };
        if *actor.reach() != Reach::Everything && self.units_within(actor, &found.anchors()).await?.is_empty() {
            return Err(missing());
        }
        if erased {
            return Err(Problem::new(codes::ERASED, format!("customer {customer} was erased")));
        }
        Ok(found)
    }

    /// A customer that the actor may change for good: one whose every unit is within reach, since it is theirs as well.
    pub(crate) async fn found_to_change(&self, actor: &Actor, customer: &CustomerId) -> Result<Found, Problem> {
        let found = self.found(actor, customer).await?;
        let units = change::units_of(self.inner.kernel.db.near(), &found.anchors()).await?;
        if units.iter().all(|unit| actor.reach().covers(unit)) {
            return Ok(found);
        }
        Err(Problem::new(
            codes::FORBIDDEN,
            "other units know this customer as well; a key that covers them all, or the whole group, may do this",
        ))
    }

    /// The units within reach where any of the anchors was seen.
    pub(crate) async fn units_within(&self, actor: &Actor, anchors: &[AnchorId]) -> Result<Vec<OrgUnitId>, Error> {
        let mut units = change::units_of(self.inner.kernel.db.near(), anchors).await?;
        units.retain(|unit| actor.reach().covers(unit));
        Ok(units)
    }

    async fn show(&self, actor: &Actor, found: &Found) -> Result<CustomerView, CdpError> {
        let kernel = &self.inner.kernel;
        let anchors = found.anchors();
        let mut identifiers = Vec::with_capacity(found.rows.len());
        for row in &found.rows {
            let reference = row.reference.clone().and_then(|text| PersonalRef::new(text).ok());
            let masked = match &reference {
                Some(reference) => kernel.vault.masked(reference).await?,
                None => None,
            };
            identifiers.push(IdentifierView {
                anchor: row.node.id.clone(),
                r#type: row.node.kind,
                app: row.node.app.clone(),
                masked: masked.unwrap_or_else(|| "****".to_owned()),
                r#ref: reference.map(String::from),
                shared: row.node.shared,
                blocked: row.node.blocked,
                first_seen: at(row.node.first_seen),
            });
        }
        let inside: BTreeSet<&AnchorId> = anchors.iter().collect();
        let evidence = store::edges_of(kernel.db.near(), &anchors)
            .await?
            .into_iter()
            .filter(|edge| inside.contains(&edge.a) && inside.contains(&edge.b))
            .map(|edge| Evidence {
                a: edge.a,
                b: edge.b,
                first_seen: at(edge.first_seen),
                last_seen: at(edge.last_seen),
                count: edge.count,
                source: edge.source,
            })
            .collect();
        Ok(CustomerView {
            id: found.customer.clone(),
            first_seen: at(found.rows.iter().map(|row| row.node.first_seen).min().unwrap_or(0)),
            last_seen: at(found.rows.iter().map(|row| row.last_seen).max().unwrap_or(0)),
            identifiers,
            evidence,
            units: self.units_within(actor, &anchors).await?,
            consents: self.consents_of(&anchors).await?,
            profile: None,
        })
    }

    /// Identifiers that matching took out, for people who look after the data.
    ///
    /// # Errors
    /// `forbidden`, also for a key of one unit: the report speaks of the whole group.
    pub async fn identity_report(&self, actor: &Actor) -> Result<IdentityReport, Problem> {
        actor.require(Scope::Admin)?;
        if *actor.reach() != Reach::Everything {
            return Err(Problem::new(codes::FORBIDDEN, "the report speaks of the whole group; this key is of one unit"));
        }
        let mut report = IdentityReport { shared: Vec::new(), oversized: Vec::new() };
        for (flag, target) in [("shared", &mut report.shared), ("oversized", &mut report.oversized)] {
            let text = format!(
                "SELECT n.id, n.kind, (SELECT COUNT(*) FROM cdp_edge e WHERE e.a = n.id) + (SELECT COUNT(*) FROM cdp_edge e WHERE e.b = n.id) AS neighbours
                 FROM cdp_node n WHERE n.{flag} = 1 AND (n.shared = 1 OR n.oversized = 1) ORDER BY n.id LIMIT $1"
            );
            for row in sql::all(self.inner.kernel.db.reader(), &text, [REPORT_MAX.into()]).await? {
                let kind: String = sql::get(&row, "kind")?;
                let kind = Kind::parse(&kind).ok_or(Error::Corrupt { what: "identifier", why: kind.clone() })?;
                target.push(SharedIdentifier {
                    anchor: store::anchor(sql::get(&row, "id")?)?,
                    r#type: kind,
                    neighbours: sql::get(&row, "neighbours")?,
                });
            }
        }
        Ok(report)
    }

    /// The value behind a reference of this customer, for an actor with the `reveal` scope; audited.
    ///
    /// # Errors
    /// `forbidden`; `not_found`; `erased`; `invalid_request` without a reason.
    pub async fn reveal(&self, actor: &Actor, customer: &CustomerId, reference: &PersonalRef, reason: &str) -> Result<String, Problem> {
        Vault::check_reveal(actor, reason)?;
        let found = self.found(actor, customer).await?;
        let text = "SELECT subject FROM kernel_vault_value WHERE ref = $1";
        let row = sql::one(self.inner.kernel.db.near(), text, [reference.as_str().into()]).await?;
        let subject: Option<String> = row.map(|row| sql::get(&row, "subject")).transpose()?;
        let own = subject.is_some_and(|subject| found.rows.iter().any(|row| row.node.id.as_str() == subject));
        if !own {
            return Err(Problem::not_found("personal value", reference));
        }
        self.inner.kernel.vault.reveal(actor, reference, reason).await
    }
}

pub(crate) fn at(ms: i64) -> Rfc3339 {
    Rfc3339(Timestamp::clamped(ms))
}
