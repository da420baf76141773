//! The one reader of features: as of an instant and a position, from the stream's state where that still knows, else from history.

use super::Know;
use super::catalogue::{Catalogue, Feature, FeatureState, Reference};
use super::evaluate::lookup;
use super::history;
use super::knowing::{anchors_of, told};
use super::memory::{read_standings, read_states};
use super::standing::Standing;
use super::state::{AnchorState, Happening, fold_at, read_at};
use super::value::Value;
use heyuan_contract::{AnchorId, CustomerId, Timestamp};
use heyuan_kernel::{Problem, sql};

/// The stream answers instants from this long ago on.
const STREAM_KNOWS_MS: i64 = 3_600_000;

/// Values of features, and as of when and which event they hold.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureValues {
    /// One for each name asked for, in that order; `None` is absent.
    pub values: Vec<Option<Value>>,
    /// The instant.
    pub at: Timestamp,
    /// The events that were taken into account.
    pub position: i64,
}

impl Know {
    /// Features of a customer as of an instant (now) and a position (the latest).
    ///
    /// # Errors
    /// `feature_missing`; the database's and the history's.
    pub async fn features_at(
        &self,
        customer: &CustomerId,
        names: &[String],
        at: Option<Timestamp>,
        position: Option<i64>,
    ) -> Result<FeatureValues, Problem> {
        let anchors = anchors_of(self.db().near(), std::slice::from_ref(customer)).await?;
        let anchors: Vec<AnchorId> = anchors.into_values().flatten().collect();
        self.features_of(customer, &anchors, names, at, position).await
    }

    /// The same for a customer whose identifiers the caller knows.
    ///
    /// # Errors
    /// `feature_missing`; the database's and the history's.
    pub async fn features_of(
        &self,
        customer: &CustomerId,
        anchors: &[AnchorId],
        names: &[String],
        at: Option<Timestamp>,
        position: Option<i64>,
    ) -> Result<FeatureValues, Problem> {
        let (catalogue, counters) = self.fresh_view().await?;
        let now_ms = self.now_ms();
        let at_ms = at.map_or(now_ms, Timestamp::ms);
        let stream = position.is_none_or(|position| position >= counters.position) && at_ms >= now_ms - STREAM_KNOWS_MS;
        let position = position.map_or(counters.position, |position| position.min(counters.position));
        let past = if stream {
            Past::Stream(self.states(anchors).await?)
        } else {
            Past::History(self.inner.history.events_of(anchors, position).await?)
        };
        let standing = self.standing(customer).await?;
        let mut values = Vec::with_capacity(names.len());
        for name in names {
            let reference = catalogue.resolve(name).ok_or_else(|| {
                Problem::new(super::codes::FEATURE_MISSING, format!("the feature {name} is not declared; declare it at /v1/features first"))
            })?;
            values.push(match (&reference, &past) {
                (Reference::Feature(index), past) => self.fold_past(&catalogue.features[*index], past, at_ms, position),
                (Reference::Tag(_), Past::Stream(_)) => self.tag_now(&catalogue, &reference, standing.as_ref(), at_ms),
                (Reference::Tag(tag), Past::History(_)) => self.tag_then(customer, tag, at_ms, position).await?,
            });
        }
        Ok(FeatureValues { values, at: Timestamp::clamped(at_ms), position })
    }

    async fn states(&self, anchors: &[AnchorId]) -> Result<Vec<AnchorState>, Problem> {
        let states = read_states(self.db().near(), &anchors.iter().collect::<Vec<_>>()).await?;
        Ok(states.into_iter().map(|(_, state)| state).collect())
    }

    async fn standing(&self, customer: &CustomerId) -> Result<Option<Standing>, Problem> {
        Ok(read_standings(self.db().near(), &[customer]).await?.pop().map(|(_, standing)| standing))
    }

    fn fold_past(&self, feature: &Feature, past: &Past, at_ms: i64, position: i64) -> Option<Value> {
        let fold = feature.fold.as_ref().filter(|_| feature.state == FeatureState::Ready)?;
        let value = match past {
            Past::Stream(states) => fold_at(self.grid(), feature.id, fold, states.iter(), at_ms)?.value,
            Past::History(events) => {
                let told: Vec<_> = events.iter().flat_map(told).filter(|(name, _)| *name == fold.event).map(|(_, told)| told).collect();
                let events = told.iter().map(|told| told as &dyn Happening);
                history::compute(events, fold, &self.kernel().zone, Timestamp::clamped(at_ms), position)?
            }
        };
        Some(read_at(self.grid(), Some(fold), &value, at_ms))
    }

    fn tag_now(&self, catalogue: &Catalogue, reference: &Reference, standing: Option<&Standing>, at_ms: i64) -> Option<Value> {
        lookup(catalogue, self.grid(), reference, standing?, at_ms)
    }

    async fn tag_then(&self, customer: &CustomerId, tag: &str, at_ms: i64, position: i64) -> Result<Option<Value>, Problem> {
        let row = sql::one(
            self.db().reader(),
            "SELECT value FROM cdp_tag_change WHERE customer = $1 AND tag = $2 AND at <= $3 AND position <= $4 ORDER BY id DESC LIMIT 1",
            [customer.as_str().into(), tag.into(), at_ms.into(), position.into()],
        )
        .await?;
        let value: Option<String> = row.map_or(Ok(None), |row| sql::get(&row, "value"))?;
        Ok(value.map(|value| Value::text(&value)))
    }
}

/// Where values come from.
enum Past {
    Stream(Vec<AnchorState>),
    History(Vec<crate::event::Known>),
}
