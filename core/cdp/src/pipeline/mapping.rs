//! From an accepted message to a typed event whose personal values are still in the open: a pure function, run apart from everything.

use crate::collect::message::{self, Message};
use crate::collect::sender::{Sender, Spelling};
use crate::event::{EventKind, PropertyValue};
use crate::event_type::faults::Counts;
use crate::event_type::typing::{self, Fault, Typed};
use crate::event_type::{EventType, PROFILE};
use crate::identity::plan::Sighting;
use crate::inbox::block::Entry;
use heyuan_contract::{OrgUnitId, Timestamp, Touch};
use heyuan_kernel::Personal;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How far ahead of its arrival an own time may lie: clocks differ.
const AHEAD_MS_MAX: i64 = 5 * 60_000;

/// An event before its identifiers are nodes.
pub(crate) struct Mapped {
    pub position: i64,
    pub message_id: String,
    pub kind: EventKind,
    pub name: String,
    pub app: String,
    pub unit: Option<OrgUnitId>,
    pub occurred_at: Timestamp,
    pub arrived_at: Timestamp,
    pub properties: BTreeMap<String, PropertyValue>,
    pub traits: BTreeMap<String, PropertyValue>,
    /// Personal properties, and whether each is a trait.
    pub personal: Vec<(bool, String, Personal, String)>,
    /// Undeclared properties as a JSON object.
    pub undeclared: Option<String>,
    pub touch: Option<Touch>,
    pub sighting: Sighting,
}

/// What mapping needs to know beside the event.
pub(crate) struct Ground {
    pub types: Arc<BTreeMap<String, Arc<EventType>>>,
    pub own_time_ms_max: i64,
}

/// Maps an entry; `None` when this release can't read it any more, which the caller logs.
pub(crate) fn map(ground: &Ground, sender: &Sender, position: i64, entry: Entry, counts: &mut Counts) -> Option<Mapped> {
    let message = message::read(sender.spelling, entry.path_kind, &entry.raw, sender.context.as_deref()).ok()?;
    let occurred_at = own_time(ground, sender, &message);
    let schema = ground.types.get(&message.name).map(Arc::as_ref);
    let mut properties = typing::type_members(schema.filter(|_| message.kind != EventKind::Identify), message.properties);
    let mut traits = typing::type_members(ground.types.get(PROFILE).map(Arc::as_ref), message.traits);
    if message.kind == EventKind::Identify {
        // Properties of an identify belong to no event type.
        properties.faults.clear();
    }
    if schema.is_some() {
        properties.faults.extend(message.context_faults.iter().map(|part| ((*part).to_owned(), Fault::WrongType)));
        count(counts, &message.name, &mut properties);
    }
    count(counts, PROFILE, &mut traits);
    if let (EventKind::Page | EventKind::Screen, Some(page)) = (message.kind, &message.page)
        && page.len() <= message_name_max()
    {
        properties.values.entry("name".to_owned()).or_insert_with(|| PropertyValue::Text(page.to_string()));
    }
    let undeclared = undeclared_json(&properties, &traits);
    let personal = properties.personal.drain(..).map(|(name, class, value)| (false, name, class, value));
    let personal = personal.chain(traits.personal.drain(..).map(|(name, class, value)| (true, name, class, value))).collect();
    let app = message.app.as_deref().unwrap_or(&sender.key).chars().take(64).collect();
    let sighting =
        Sighting { identifiers: message.identifiers, at: occurred_at.ms(), unit: sender.unit.clone(), source: sender.key.clone() };
    Some(Mapped {
        position,
        message_id: entry.message_id,
        kind: message.kind,
        name: message.name,
        app,
        unit: sender.unit.clone(),
        occurred_at,
        arrived_at: sender.arrived_at,
        properties: properties.values,
        traits: traits.values,
        personal,
        undeclared,
        touch: message.touch,
        sighting,
    })
}

const fn message_name_max() -> usize {
    crate::collect::ID_BYTES_MAX
}

fn count(counts: &mut Counts, event_type: &str, typed: &mut Typed<'_>) {
    for (property, fault) in typed.faults.drain(..) {
        *counts.entry((event_type.to_owned(), property, fault)).or_default() += 1;
    }
}

/// `{"properties": {…}, "traits": {…}}` of what no schema declares.
fn undeclared_json(properties: &Typed<'_>, traits: &Typed<'_>) -> Option<String> {
    if properties.undeclared.is_empty() && traits.undeclared.is_empty() {
        return None;
    }
    let object = |typed: &Typed<'_>| {
        let members: Vec<String> = typed
            .undeclared
            .iter()
            .map(|(name, value)| format!("{}:{}", serde_json::Value::String(name.to_string()), value.get()))
            .collect();
        format!("{{{}}}", members.join(","))
    };
    Some(format!("{{\"properties\":{},\"traits\":{}}}", object(properties), object(traits)))
}

/// The own time that counts: corrected by how wrong the sender's clock is, and the arrival where it can't be believed.
fn own_time(ground: &Ground, sender: &Sender, message: &Message<'_>) -> Timestamp {
    let arrived = sender.arrived_at.ms();
    let Some(own) = message.own_time else { return sender.arrived_at };
    if sender.spelling == Spelling::Internal {
        return own;
    }
    let sent = message.sent_at.or(sender.sent_at);
    let own = match sent {
        // History is sent long after it happened, by a clock that was not there: it is taken at its word.
        Some(sent) if !sender.import => arrived.saturating_sub(sent.ms().saturating_sub(own.ms())),
        _ => own.ms(),
    };
    let oldest = if sender.import { i64::MIN } else { arrived.saturating_sub(ground.own_time_ms_max) };
    if own < oldest || own > arrived.saturating_add(AHEAD_MS_MAX) { sender.arrived_at } else { Timestamp::clamped(own) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARRIVED: i64 = 1_793_491_200_000;
    const HOUR: i64 = 3_600_000;

    fn check(raw: &str, import: bool) -> i64 {
        let sender = Sender {
            key: "key:1".into(),
            unit: None,
            import,
            spelling: Spelling::Segment,
            arrived_at: Timestamp::clamped(ARRIVED),
            sent_at: None,
            context: None,
        };
        let ground = Ground { types: Arc::default(), own_time_ms_max: 31 * 24 * HOUR };
        let raw = format!(r#"{{"type":"track","event":"A","anonymousId":"x"{raw}}}"#);
        let entry = Entry { path_kind: None, message_id: "m".into(), raw };
        map(&ground, &sender, 1, entry, &mut Counts::new()).map_or(0, |mapped| mapped.occurred_at.ms() - ARRIVED)
    }

    #[test]
    fn own_times_count_where_they_can_be_believed() {
        let at = |hours: i64| heyuan_kernel::time::format_rfc3339(Timestamp::clamped(ARRIVED + hours * HOUR));
        assert_eq!(check("", false), 0);
        assert_eq!(check(&format!(r#","timestamp":"{}""#, at(-1)), false), -HOUR);
        // A clock three days ahead, corrected by its own word of when it sent.
        assert_eq!(check(&format!(r#","timestamp":"{}","sentAt":"{}""#, at(71), at(72)), false), -HOUR);
        assert_eq!(check(&format!(r#","timestamp":"{}""#, at(-24 * 60)), false), 0);
        assert_eq!(check(&format!(r#","timestamp":"{}""#, at(-24 * 60)), true), -24 * 60 * HOUR);
        assert_eq!(check(&format!(r#","timestamp":"{}""#, at(2)), true), 0);
        assert_eq!(check(r#","timestamp":"9999-01-01T00:00:00Z""#, false), 0);
    }
}
