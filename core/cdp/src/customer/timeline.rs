//! A customer's timeline: events of all anchors, newest first, masked and cut to the actor's units.

use super::find::at;
use crate::cdp::Cdp;
use crate::collect::rejected::within;
use crate::event::{Known, PropertyValue};
use crate::event_type::{EventType, PROFILE, typing};
use crate::history::{json_of, known_of};
use crate::identity::sealing::Sealing;
use heyuan_contract::{AnchorId, CustomerId, Touch};
use heyuan_kernel::http::Page;
use heyuan_kernel::{Actor, Error, Problem, Rfc3339, Scope};
use heyuan_lake::EventRow;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use utoipa::ToSchema;

/// How often a page is filled up with rows from further back, for keys of a unit that sees few of them; then the page ends as it is.
const READS_MAX: usize = 10;

/// An event of a timeline.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TimelineEvent {
    /// Its place in the order of arrival; the page's cursor.
    pub position: i64,
    /// The sender's id of the message.
    pub message_id: String,
    /// `track`, `identify`, `page`, …
    pub kind: String,
    /// The event type.
    pub name: String,
    /// Its own time.
    pub occurred_at: Rfc3339,
    /// When it arrived.
    pub arrived_at: Rfc3339,
    /// The unit that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The app that it came from.
    pub app: String,
    /// The anchor that it belongs to.
    pub anchor: String,
    /// Declared properties: money in fen; personal values as `{"ref", "masked"}`.
    #[schema(value_type = Object)]
    pub properties: Map<String, Value>,
    /// Declared traits.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    pub traits: Map<String, Value>,
    /// What brought the visitor.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub touch: Option<Touch>,
}

/// A personal value, masked.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct PersonalView {
    /// The reference for a reveal.
    r#ref: String,
    /// The value with its middle hidden; absent once it is erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    masked: Option<String>,
}

/// Undeclared properties as they were sealed.
#[derive(Deserialize)]
struct Undeclared<'a> {
    #[serde(borrow)]
    properties: &'a serde_json::value::RawValue,
    #[serde(borrow)]
    traits: &'a serde_json::value::RawValue,
}

impl Cdp {
    /// Events of a customer below a position, newest first. A page may have fewer than `limit`, none even, and still a next one: a key
    /// of a unit looks through a bounded number of other units' events.
    ///
    /// # Errors
    /// `forbidden`; `not_found`; `erased`; the lake's.
    pub async fn timeline(
        &self,
        actor: &Actor,
        customer: &CustomerId,
        before: Option<i64>,
        limit: u64,
    ) -> Result<Page<TimelineEvent>, Problem> {
        actor.require_any(&[Scope::App, Scope::Admin])?;
        let found = self.found(actor, customer).await?;
        let Some(lake) = self.inner.lake.get() else { return Ok(Page::before(Vec::new(), None)) };
        let anchors: Vec<String> = found.rows.iter().map(|row| row.node.id.as_str().to_owned()).collect();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let wanted = limit.saturating_add(1);
        let (mut rows, mut below, mut whole) = (Vec::new(), before, false);
        for _ in 0..READS_MAX {
            let page: Vec<EventRow> = lake.events_of(&anchors, below, wanted).await.map_err(Problem::from)?;
            whole = page.len() < wanted;
            below = page.last().map(|row| row.position).or(below);
            rows.extend(page.into_iter().filter(|row| within(actor.reach(), row.unit.as_deref())));
            if whole || rows.len() >= wanted {
                break;
            }
        }
        if rows.len() >= wanted {
            rows.truncate(limit);
            below = rows.last().map(|row| row.position);
            whole = false;
        }
        let next = if whole { None } else { below.map(|position| position.to_string()) };
        let events = self.open_events(&rows).await?;
        let mut views = Vec::with_capacity(events.len());
        for event in events {
            views.push(self.view(event).await?);
        }
        Ok(Page::before(views, next))
    }

    /// Events of the lake by the schemas in force: what was undeclared when they came and is declared now is read too. Personal
    /// properties that were declared only later stay sealed.
    ///
    /// # Errors
    /// The database's; [`Error::Corrupt`].
    pub async fn open_events(&self, rows: &[EventRow]) -> Result<Vec<Known>, Error> {
        let types = self.inner.types.types();
        let mut events: Vec<Known> = rows.iter().map(|row| known_of(row, &types)).collect::<Result<_, _>>()?;
        let sealed: BTreeSet<AnchorId> = events.iter().filter(|event| event.sealed.is_some()).map(|event| event.anchor.clone()).collect();
        let mut keys = Sealing::default();
        keys.load(self.inner.kernel.db.reader(), &self.inner.kernel.keys, &sealed).await?;
        for event in &mut events {
            let plain = event.sealed.as_ref().and_then(|sealed| keys.open(&event.anchor, sealed, &event.message_id));
            if let Some(plain) = plain {
                declare_later(event, &plain, &types);
            }
        }
        Ok(events)
    }

    async fn view(&self, event: Known) -> Result<TimelineEvent, Error> {
        let properties = self.masked(&event.properties).await?;
        let traits = self.masked(&event.traits).await?;
        Ok(TimelineEvent {
            position: event.position,
            message_id: event.message_id,
            kind: event.kind.as_str().to_owned(),
            name: event.name,
            occurred_at: Rfc3339(event.occurred_at),
            arrived_at: at(event.arrived_at.ms()),
            unit: event.unit.map(String::from),
            app: event.app,
            anchor: String::from(event.anchor),
            properties,
            traits,
            touch: event.touch,
        })
    }

    async fn masked(&self, values: &BTreeMap<String, PropertyValue>) -> Result<Map<String, Value>, Error> {
        let mut object = Map::new();
        for (name, value) in values {
            let shown = match value {
                PropertyValue::Personal(reference) => {
                    let masked = self.inner.kernel.vault.masked(reference).await?;
                    let view = PersonalView { r#ref: reference.as_str().to_owned(), masked };
                    serde_json::to_value(view).unwrap_or(Value::Null)
                }
                other => json_of(other),
            };
            object.insert(name.clone(), shown);
        }
        Ok(object)
    }
}

fn declare_later(event: &mut Known, plain: &[u8], types: &BTreeMap<String, Arc<EventType>>) {
    let Ok(undeclared) = serde_json::from_slice::<Undeclared<'_>>(plain) else { return };
    let own = typing::type_members(types.get(&event.name).map(Arc::as_ref), Some(undeclared.properties));
    let traits = typing::type_members(types.get(PROFILE).map(Arc::as_ref), Some(undeclared.traits));
    for (name, value) in own.values {
        event.properties.entry(name).or_insert(value);
    }
    for (name, value) in traits.values {
        event.traits.entry(name).or_insert(value);
    }
}
