//! From what customers were and what they are to what is written: changes of tags, of segments, of bitmaps, and their events.

use super::bitmap::{ChunkKey, LIVING, chunk_of, of_segment, of_unit};
use super::catalogue::Catalogue;
use super::evaluate::Subject;
use super::memory::{TagChange, Writes};
use super::standing::Standing;
use heyuan_contract::{Cause, CustomerId, DomainEvent, SegmentId, TagName, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Numbers to put into and take out of chunks of bitmaps.
pub(crate) type Bits = BTreeMap<ChunkKey, Vec<(u32, bool)>>;

/// Gathers what a step writes.
pub(crate) struct Gathering<'a> {
    pub(crate) catalogue: &'a Catalogue,
    pub(crate) writes: Writes,
    pub(crate) bits: Bits,
}

impl Gathering<'_> {
    /// Takes one customer's change in.
    pub(crate) fn add(&mut self, subject: &Subject, after: Standing) {
        let before = &subject.before;
        self.tags(subject, &after);
        self.segments(subject, &after);
        self.set(before, &after, LIVING, !before.gone && before.position > 0, !after.gone);
        let were: BTreeSet<&str> = before.units.iter().map(|unit| unit.as_str()).collect();
        let are: BTreeSet<&str> = after.units.iter().map(|unit| unit.as_str()).collect();
        for unit in were.symmetric_difference(&are) {
            self.set(before, &after, &of_unit(unit), were.contains(unit), are.contains(unit));
        }
        self.writes.standings.push((subject.customer.clone(), Arc::new(after)));
    }

    fn set(&mut self, before: &Standing, after: &Standing, name: &str, was: bool, is: bool) {
        debug_assert!(before.number == after.number, "a customer keeps its number");
        if was != is {
            self.bits.entry((name.to_owned(), chunk_of(after.number))).or_default().push((after.number, is));
        }
    }

    fn tags(&mut self, subject: &Subject, after: &Standing) {
        let before = &subject.before;
        let names: BTreeSet<&String> = before.tags.keys().chain(after.tags.keys()).collect();
        for name in names {
            let (was, is) = (before.tags.get(name), after.tags.get(name));
            if was.map(|tag| &tag.value) == is.map(|tag| &tag.value) {
                continue;
            }
            // What a vanished tag was last said by names who took it away as well as anything can.
            let version = is.or(was).map_or_else(String::new, |tag| tag.version.clone());
            let change = TagChange {
                customer: subject.customer.clone(),
                tag: name.clone(),
                value: is.map(|tag| tag.value.clone()),
                previous: was.map(|tag| tag.value.clone()),
                version,
                cause: subject.cause,
            };
            if let Ok(tag) = TagName::new(name.clone()) {
                let event = DomainEvent::TagChanged {
                    customer: change.customer.clone(),
                    tag,
                    value: change.value.clone(),
                    previous: change.previous.clone(),
                    version: change.version.clone(),
                    cause: change.cause,
                    position: self.writes.position,
                    occurred_at: Timestamp::clamped(self.writes.at_ms),
                };
                self.writes.events.push((subject.customer.to_string(), event));
            }
            self.writes.changes.push(change);
        }
    }

    fn segments(&mut self, subject: &Subject, after: &Standing) {
        let were: BTreeSet<&str> = subject.before.segments.iter().map(String::as_str).collect();
        let are: BTreeSet<&str> = after.segments.iter().map(String::as_str).collect();
        for id in were.symmetric_difference(&are) {
            let entered = are.contains(id);
            self.set(&subject.before, after, &of_segment(id), !entered, entered);
            let Some(segment) = self.catalogue.segments.iter().find(|segment| segment.id == **id) else { continue };
            if segment.cursor.is_some_and(|cursor| i64::from(after.number) > cursor) {
                let (came, went) = self.writes.rebuilt.entry((*id).to_owned()).or_default();
                if entered {
                    *came += 1
                } else {
                    *went += 1
                };
            } else if let Ok(segment) = SegmentId::new(*id) {
                self.writes.events.push(segment_event(segment, &subject.customer, entered, subject.cause, self.writes.at_ms));
            }
        }
    }
}

fn segment_event(segment: SegmentId, customer: &CustomerId, entered: bool, cause: Cause, at_ms: i64) -> (String, DomainEvent) {
    let occurred_at = Timestamp::clamped(at_ms);
    (customer.to_string(), DomainEvent::SegmentChanged { segment, customer: customer.clone(), entered, cause, occurred_at })
}
