//! Segments: defining them, counting them, and who belongs to them.

use super::catalogue::Segment;
use super::define::{Change, check_name, check_text, checked, full};
use super::{Know, bitmap};
use heyuan_contract::{CustomerId, OrgUnitId, SegmentId, Timestamp};
use heyuan_kernel::{Actor, Error, Problem, Reach, Rfc3339, Scope, audit, sql};
use sea_orm::Value as Parameter;
use serde::Serialize;
use utoipa::ToSchema;

/// What a segment is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentDefinition {
    /// The name people know.
    pub name: String,
    /// Who belongs to it.
    pub predicate: serde_json::Value,
    /// For what it is used: customers without consent for it are left out.
    pub purpose: Option<String>,
}

/// A segment.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct SegmentView {
    /// Its id.
    pub id: String,
    /// The name people know.
    pub name: String,
    /// Who belongs to it.
    #[schema(value_type = Object)]
    pub predicate: serde_json::Value,
    /// For what it is used: customers without consent for it are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// The unit whose segment it is; absent for one of the whole group.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub unit: Option<OrgUnitId>,
    /// Counts up with every redefinition.
    pub version: i64,
    /// Members that the key sees.
    pub count: u64,
    /// Whether customers are still being looked at anew.
    pub rebuilding: bool,
    /// When the count was true.
    #[schema(value_type = String, format = DateTime)]
    pub as_of: Rfc3339,
    /// The last event that is taken into account.
    pub position: i64,
}

impl Know {
    /// Defines a segment, or an existing one anew; it belongs to the key's unit.
    ///
    /// # Errors
    /// `forbidden`; `bad_predicate` with the place; `not_found` for a segment of another unit; `definitions_full`.
    pub async fn put_segment(&self, actor: &Actor, id: &SegmentId, definition: SegmentDefinition) -> Result<SegmentView, Problem> {
        Ok(self.db().settle(|| self.try_segment(actor, id, &definition)).await?)
    }

    async fn try_segment(&self, actor: &Actor, id: &SegmentId, definition: &SegmentDefinition) -> Result<SegmentView, Error> {
        actor.require(Scope::Admin)?;
        check_text("name", &definition.name)?;
        if let Some(purpose) = &definition.purpose {
            check_name("purpose", purpose)?;
        }
        let (catalogue, _) = self.fresh_view().await?;
        let predicate = checked(&catalogue, &definition.predicate, "predicate")?;
        let known = catalogue.segments.iter().find(|segment| segment.id == id.as_str());
        if let Some(known) = known {
            may_change(actor, known)?;
        }
        let same = |known: &&Segment| known.predicate == predicate && known.purpose == definition.purpose && known.name == definition.name;
        if known.filter(same).is_some() {
            return Ok(self.segment(actor, id).await?);
        }
        full(catalogue.segments.len())?;
        let version = known.map_or(1, |segment| segment.version + 1);
        let unit = known.map_or_else(|| actor.unit().cloned(), |segment| segment.unit.clone());
        let change = Change {
            statement: "INSERT INTO cdp_segment (id, name, predicate, purpose, unit, version, cursor, entered, gone, defined_at, defined_by)
               VALUES ($1, $2, $3, $4, $5, $6, 0, 0, 0, $7, $8)
               ON CONFLICT (id) DO UPDATE SET name = excluded.name, predicate = excluded.predicate, purpose = excluded.purpose,
                 version = excluded.version, cursor = 0, entered = 0, gone = 0, defined_at = excluded.defined_at, defined_by = excluded.defined_by",
            values: vec![
                id.as_str().into(),
                definition.name.clone().into(),
                definition.predicate.to_string().into(),
                definition.purpose.clone().into(),
                unit.map(|unit| unit.to_string()).into(),
                version.into(),
                self.now_ms().into(),
                actor.name().into(),
            ],
            entry: audit::Entry::new(actor, "define segment", id.as_str()).detail("version", version.to_string()),
            takes_feature_id: false,
        };
        self.change(catalogue.version, change).await?;
        Ok(self.segment(actor, id).await?)
    }

    /// The segments that the key sees, after an id.
    ///
    /// # Errors
    /// `forbidden`; the database's.
    pub async fn segments(&self, actor: &Actor, after: Option<String>, limit: usize) -> Result<Vec<SegmentView>, Problem> {
        actor.require_any(&[Scope::Admin, Scope::App])?;
        let (catalogue, _) = self.fresh_view().await?;
        let after = after.unwrap_or_default();
        let mut views = Vec::new();
        for segment in catalogue.segments.iter().filter(|segment| sees(actor, segment) && segment.id > after).take(limit) {
            views.push(self.segment_view(actor, segment).await?);
        }
        Ok(views)
    }

    /// One segment.
    ///
    /// # Errors
    /// `forbidden`; `not_found`.
    pub async fn segment(&self, actor: &Actor, id: &SegmentId) -> Result<SegmentView, Problem> {
        actor.require_any(&[Scope::Admin, Scope::App])?;
        let (catalogue, _) = self.fresh_view().await?;
        let segment = catalogue.segments.iter().find(|segment| segment.id == id.as_str() && sees(actor, segment));
        self.segment_view(actor, segment.ok_or_else(|| Problem::not_found("segment", id))?).await
    }

    async fn segment_view(&self, actor: &Actor, segment: &Segment) -> Result<SegmentView, Problem> {
        let reader = self.db().reader();
        let name = bitmap::of_segment(&segment.id);
        let count = match actor.reach() {
            Reach::Everything => bitmap::count(reader, &name).await?,
            Reach::Units(_) => (bitmap::whole(reader, &name).await? & self.visible(actor).await?).len(),
        };
        Ok(SegmentView {
            id: segment.id.clone(),
            name: segment.name.clone(),
            predicate: segment.written.clone(),
            purpose: segment.purpose.clone(),
            unit: segment.unit.clone(),
            version: segment.version,
            count,
            rebuilding: segment.cursor.is_some(),
            as_of: Rfc3339(Timestamp::clamped(self.now_ms())),
            position: self.position_seen(),
        })
    }

    /// The customers that an actor sees.
    pub(crate) async fn visible(&self, actor: &Actor) -> Result<roaring::RoaringBitmap, Problem> {
        let reader = self.db().reader();
        match actor.reach() {
            Reach::Everything => Ok(bitmap::whole(reader, bitmap::LIVING).await?),
            Reach::Units(units) => {
                let mut seen = roaring::RoaringBitmap::new();
                for unit in units.iter() {
                    seen |= bitmap::whole(reader, &bitmap::of_unit(unit.as_str())).await?;
                }
                Ok(seen)
            }
        }
    }

    /// A page of a segment's members that the key sees, in a fixed order, after a customer; one more than `limit` tells of a next page.
    ///
    /// # Errors
    /// `forbidden`; `not_found`; `invalid_request` for a place that is none; the database's.
    pub async fn members(&self, actor: &Actor, id: &SegmentId, after: Option<String>, limit: u64) -> Result<Vec<CustomerId>, Problem> {
        actor.require_any(&[Scope::Admin, Scope::App])?;
        let (catalogue, _) = self.fresh_view().await?;
        let known = catalogue.segments.iter().any(|segment| segment.id == id.as_str() && sees(actor, segment));
        if !known {
            return Err(Problem::not_found("segment", id));
        }
        let reader = self.db().reader();
        let from = match after {
            None => 0,
            Some(customer) => {
                let row = sql::one(reader, "SELECT number FROM cdp_standing WHERE customer = $1", [customer.into()]).await?;
                let row = row.ok_or_else(|| Problem::invalid("cursor", "expected the `next` of an earlier page"))?;
                sql::get::<i64>(&row, "number")? + 1
            }
        };
        let mut members = bitmap::whole(reader, &bitmap::of_segment(id.as_str())).await?;
        if let Reach::Units(_) = actor.reach() {
            members &= self.visible(actor).await?;
        }
        let from = u32::try_from(from).unwrap_or(u32::MAX);
        let numbers: Vec<i64> = members.range(from..).take(usize::try_from(limit).unwrap_or(0) + 1).map(i64::from).collect();
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let text = format!("SELECT customer FROM cdp_standing WHERE number IN ({}) ORDER BY number", sql::placeholders(1, numbers.len()));
        let rows = sql::all(reader, &text, numbers.into_iter().map(Parameter::from).collect::<Vec<_>>()).await?;
        let customer = |text: String| CustomerId::new(text).map_err(|_| super::internal("a stored customer id is not valid"));
        rows.iter().map(|row| customer(sql::get(row, "customer")?)).collect()
    }
}

/// A segment of the whole group is everybody's to see; one of a unit is seen from that unit and from above.
fn sees(actor: &Actor, segment: &Segment) -> bool {
    segment.unit.as_ref().is_none_or(|unit| actor.reach().covers(unit))
}

fn may_change(actor: &Actor, segment: &Segment) -> Result<(), Problem> {
    let own = match (&segment.unit, actor.reach()) {
        (_, Reach::Everything) => true,
        (Some(unit), reach) => reach.covers(unit),
        (None, Reach::Units(_)) => false,
    };
    if own { Ok(()) } else { Err(Problem::not_found("segment of this key's unit", &segment.id)) }
}
