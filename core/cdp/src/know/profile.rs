//! The profile: everything that is known of one customer, in one look-up.

use super::Know;
use super::evaluate::value_of;
use super::knowing::anchors_of;
use super::memory::read_standings;
use super::standing::{Standing, cause_text};
use super::value::Value;
use crate::identity::change;
use crate::identity::resolve::{customer_of_root, root_of_customer};
use heyuan_contract::{AnchorId, CustomerId, Timestamp};
use heyuan_kernel::{Actor, Problem, Reach, Rfc3339, Scope, sql};
use serde::Serialize;
use utoipa::ToSchema;

/// How often an id is resolved anew when what it stands for changes between two reads.
const RESOLVE_TRIES_MAX: usize = 3;

/// What is known of a customer.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ProfileView {
    /// The customer; another one than asked for when that was merged.
    #[schema(value_type = String)]
    pub customer: CustomerId,
    /// Declared features that have a value.
    pub features: Vec<FeatureStandingView>,
    /// Tags.
    pub tags: Vec<TagStandingView>,
    /// Segments that the key sees.
    pub segments: Vec<SegmentRef>,
    /// When it was true.
    #[schema(value_type = String, format = DateTime)]
    pub as_of: Rfc3339,
    /// The last event that is taken into account.
    pub position: i64,
}

/// A feature's value.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct FeatureStandingView {
    /// The feature.
    pub name: String,
    /// A whole number, a decimal as text, a text, or a flag.
    #[schema(value_type = Object)]
    pub value: Value,
    /// The position from which it holds: the last event that it took into account.
    pub position: i64,
}

/// A tag of the customer.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct TagStandingView {
    /// The tag.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Rfc3339,
    /// The version of the rule or plugin that says so.
    pub version: String,
    /// Why it got this value: `event`, `time`, `late`, `merge`, `unmerge` or `redefined`.
    pub cause: String,
    /// The position up to which events were taken into account then.
    pub position: i64,
}

/// A segment of the customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SegmentRef {
    /// Its id.
    pub id: String,
    /// The name people know.
    pub name: String,
}

impl Know {
    /// Everything that is known of a customer, under any id that it ever had.
    ///
    /// # Errors
    /// `forbidden`; `not_found` for nobody, and for somebody outside the key's units.
    pub async fn profile(&self, actor: &Actor, customer: &CustomerId) -> Result<ProfileView, Problem> {
        actor.require_any(&[Scope::App, Scope::Admin])?;
        let missing = || Problem::not_found("customer", customer);
        let found = match self.standing_row(customer).await? {
            Some(found) => found,
            None => self.current(customer).await?.ok_or_else(missing)?,
        };
        let seen = match actor.reach() {
            Reach::Everything => true,
            reach => found.1.units.iter().any(|unit| reach.covers(unit)),
        };
        if !seen {
            return Err(missing());
        }
        self.profile_view(actor, found.0, &found.1).await
    }

    async fn standing_row(&self, customer: &CustomerId) -> Result<Option<(CustomerId, Standing)>, Problem> {
        let found = read_standings(self.db().near(), &[customer]).await?.pop();
        Ok(found.filter(|(_, standing)| !standing.gone))
    }

    /// Who an id stands for today, with what is known; `None` for nobody.
    async fn current(&self, customer: &CustomerId) -> Result<Option<(CustomerId, Standing)>, Problem> {
        // Between two reads its first events may arrive, or another customer may take it in: then the id resolves anew.
        for _ in 0..RESOLVE_TRIES_MAX {
            let Some(current) = self.resolve(customer).await? else { return Ok(None) };
            match read_standings(self.db().near(), &[&current]).await?.pop() {
                Some((_, standing)) if standing.gone => return Ok(None),
                Some(found) => return Ok(Some(found)),
                None => {}
            }
            if let Some(newcomer) = self.newcomer(&current).await? {
                return Ok(Some((current, newcomer)));
            }
        }
        Ok(None)
    }

    /// Somebody who is identified and whose first events are on their way to here: nothing is known yet. `None` for who was erased.
    async fn newcomer(&self, customer: &CustomerId) -> Result<Option<Standing>, Problem> {
        let conn = self.db().near();
        let Some(anchors) = anchors_of(conn, std::slice::from_ref(customer)).await?.remove(customer) else { return Ok(None) };
        let units = change::units_of(conn, &anchors).await?;
        Ok(Some(Standing { units, as_of_ms: self.now_ms(), ..Standing::default() }))
    }

    /// The customer that an id resolves to today.
    async fn resolve(&self, customer: &CustomerId) -> Result<Option<CustomerId>, Problem> {
        let Some(root) = root_of_customer(customer) else { return Ok(None) };
        let row = sql::one(self.db().near(), "SELECT cluster FROM cdp_node WHERE id = $1", [root.as_str().into()]).await?;
        let Some(row) = row else { return Ok(None) };
        let cluster =
            AnchorId::new(sql::get::<String>(&row, "cluster")?).map_err(|_| super::internal("a stored identifier is not valid"))?;
        Ok(Some(customer_of_root(&cluster)))
    }

    async fn profile_view(&self, actor: &Actor, customer: CustomerId, standing: &Standing) -> Result<ProfileView, Problem> {
        let catalogue = self.view().await?;
        let at_ms = self.now_ms();
        let mut features: Vec<FeatureStandingView> = catalogue
            .features
            .iter()
            .filter_map(|feature| {
                let value = value_of(self.grid(), feature, standing, at_ms)?;
                let position = standing.values.get(&feature.id).map_or(0, |held| held.position);
                Some(FeatureStandingView { name: feature.name.clone(), value, position })
            })
            .collect();
        features.sort_by(|a, b| a.name.cmp(&b.name));
        let tags = standing.tags.iter().map(|(name, tag)| TagStandingView {
            name: name.clone(),
            value: tag.value.clone(),
            since: Rfc3339(Timestamp::clamped(tag.since_ms)),
            version: tag.version.clone(),
            cause: cause_text(tag.cause).into(),
            position: tag.position,
        });
        let sees = |id: &&String| {
            catalogue
                .segments
                .iter()
                .find(|segment| segment.id == **id && segment.unit.as_ref().is_none_or(|unit| actor.reach().covers(unit)))
        };
        let segments = standing.segments.iter().filter_map(|id| sees(&id)).map(|s| SegmentRef { id: s.id.clone(), name: s.name.clone() });
        Ok(ProfileView {
            customer,
            features,
            tags: tags.collect(),
            segments: segments.collect(),
            as_of: Rfc3339(Timestamp::clamped(standing.as_of_ms)),
            position: standing.position,
        })
    }
}
