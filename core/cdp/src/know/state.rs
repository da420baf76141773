//! What the stream keeps of each anchor, and how it is folded over the anchors of a customer.
//!
//! A slot is one feature's share of one anchor: parts by step, and for features without a window a base that older steps were put
//! into. Parts form a commutative monoid (counts and exact sums add, least and greatest win, the latest wins by own time, then
//! message id), so the order of arrival does not matter and folding over anchors needs nothing recomputed after a merge or a split.

use super::codec::{Reader, Writer};
use super::expression::{Aggregation, Condition, Fold};
use super::value::{Number, Value};
use super::window::{Grid, age_seconds};
use heyuan_contract::OrgUnitId;
use std::collections::BTreeMap;

/// What a feature is known by in stored state: a number that no other definition ever gets, even under the same name.
pub type FeatureId = u32;

/// The stream answers instants from this long before the newest own time on; for earlier ones history answers.
const KEPT_BACK_MS: i64 = 3_600_000;
/// Units remembered an anchor: a customer of more is one of all of them.
const UNITS_MAX: usize = 64;
const VERSION: u8 = 1;

/// An event as the fold sees it.
pub trait Happening {
    /// Its own time.
    fn at_ms(&self) -> i64;
    /// The sender's id of the message.
    fn message_id(&self) -> &str;
    /// Its place in the inbox.
    fn position(&self) -> i64;
    /// The value of a property, when it is declared, not personal, and there.
    fn property(&self, name: &str) -> Option<Value>;
}

/// What the events of one step come to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Count(i64),
    Sum(Number),
    Least(Number),
    Greatest(Number),
    Latest { at_ms: i64, message_id: Box<str>, value: Value },
    Newest(i64),
}

impl Part {
    /// What one event comes to; `None` when it does not count.
    fn of(fold: &Fold, event: &dyn Happening) -> Option<Part> {
        let value = fold.property.as_ref().map(|property| event.property(property));
        let number = || value.as_ref().and_then(Option::as_ref).and_then(Value::number);
        Some(match fold.aggregation {
            Aggregation::Count if matches!(value, Some(None)) => return None,
            Aggregation::Count => Part::Count(1),
            Aggregation::Sum => Part::Sum(number()?),
            Aggregation::Min => Part::Least(number()?),
            Aggregation::Max => Part::Greatest(number()?),
            Aggregation::Last => Part::Latest { at_ms: event.at_ms(), message_id: event.message_id().into(), value: value?? },
            Aggregation::SecondsSince => Part::Newest(event.at_ms()),
        })
    }

    fn join(&mut self, other: &Part) {
        match (self, other) {
            (Part::Count(mine), Part::Count(more)) => *mine = mine.saturating_add(*more),
            (Part::Sum(mine), Part::Sum(more)) => *mine = mine.plus(*more),
            (Part::Least(mine), Part::Least(more)) => *mine = (*mine).min(*more),
            (Part::Greatest(mine), Part::Greatest(more)) => *mine = (*mine).max(*more),
            (Part::Newest(mine), Part::Newest(more)) => *mine = (*mine).max(*more),
            (mine @ Part::Latest { .. }, more @ Part::Latest { .. }) if more.rank() > mine.rank() => {
                *mine = more.clone();
            }
            // Parts of one slot come from one definition, so two kinds never meet.
            _ => {}
        }
    }

    fn rank(&self) -> Option<(i64, &str)> {
        match self {
            Part::Latest { at_ms, message_id, .. } => Some((*at_ms, message_id)),
            _ => None,
        }
    }

    fn write(&self, writer: &mut Writer) {
        match self {
            Part::Count(count) => {
                writer.size(0);
                writer.int(*count);
            }
            Part::Sum(number) | Part::Least(number) | Part::Greatest(number) => {
                writer.size(match self {
                    Part::Sum(_) => 1,
                    Part::Least(_) => 2,
                    _ => 3,
                });
                writer.value(&Value::Number(*number));
            }
            Part::Latest { at_ms, message_id, value } => {
                writer.size(4);
                writer.int(*at_ms);
                writer.text(message_id);
                writer.value(value);
            }
            Part::Newest(at_ms) => {
                writer.size(5);
                writer.int(*at_ms);
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Part> {
        Some(match reader.size()? {
            0 => Part::Count(reader.int()?),
            1 => Part::Sum(reader.value()?.number()?),
            2 => Part::Least(reader.value()?.number()?),
            3 => Part::Greatest(reader.value()?.number()?),
            4 => Part::Latest { at_ms: reader.int()?, message_id: reader.text()?.into(), value: reader.value()? },
            5 => Part::Newest(reader.int()?),
            _ => return None,
        })
    }
}

/// One feature's share of one anchor.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Slot {
    /// The last event that counted.
    position: i64,
    /// The newest own time that counted.
    newest_ms: i64,
    /// The step up to which parts went into the base, and what they came to. Only without a window.
    base: Option<(i64, Part)>,
    /// By step, ascending.
    parts: Vec<(i64, Part)>,
}

impl Slot {
    fn is_empty(&self) -> bool {
        self.base.is_none() && self.parts.is_empty()
    }

    fn add(&mut self, grid: &Grid, fold: &Fold, event: &dyn Happening, part: Part) {
        let first = self.is_empty();
        self.position = self.position.max(event.position());
        let step = grid.step_of(fold.step(), event.at_ms());
        match &mut self.base {
            Some((until, base)) if step <= *until => base.join(&part),
            _ => match self.parts.binary_search_by_key(&step, |(step, _)| *step) {
                Ok(index) => self.parts[index].1.join(&part),
                Err(index) => self.parts.insert(index, (step, part)),
            },
        }
        self.newest_ms = if first { event.at_ms() } else { self.newest_ms.max(event.at_ms()) };
        self.drop_old(grid, fold);
    }

    /// Drops parts that no instant can see any more, or puts them into the base.
    fn drop_old(&mut self, grid: &Grid, fold: &Fold) {
        let (before_first, last) = grid.range(fold.window, self.newest_ms - KEPT_BACK_MS);
        let old_until = if fold.window.is_some() { before_first } else { last };
        let old = self.parts.partition_point(|(step, _)| *step <= old_until);
        if old == 0 {
            return;
        }
        let removed = self.parts.drain(..old);
        if fold.window.is_none() {
            for (_, part) in removed {
                match &mut self.base {
                    Some((until, base)) => {
                        *until = old_until;
                        base.join(&part);
                    }
                    None => self.base = Some((old_until, part)),
                }
            }
        }
    }

    fn fold_into(&self, total: &mut Option<Part>, before_first: i64, last: i64) {
        let base = self.base.as_ref().filter(|(until, _)| *until <= last).map(|(_, part)| part);
        let parts = self.parts.iter().filter(|(step, _)| before_first < *step && *step <= last).map(|(_, part)| part);
        for part in base.into_iter().chain(parts) {
            match total {
                Some(total) => total.join(part),
                None => *total = Some(part.clone()),
            }
        }
    }
}

/// What the stream keeps of one anchor.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct AnchorState {
    slots: BTreeMap<FeatureId, Slot>,
    units: Vec<OrgUnitId>,
}

/// A feature's value, and since which position and until when it stands if nothing happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    /// The value; a `seconds_since` is kept as the moment that it counts from.
    pub(crate) value: Value,
    /// The position of the last event that it took into account.
    pub(crate) position: i64,
}

impl AnchorState {
    /// Takes one event into account for one feature.
    pub(crate) fn observe(&mut self, grid: &Grid, feature: FeatureId, fold: &Fold, event: &dyn Happening) {
        let passes = |c: &Condition| c.comparison.holds(event.property(&c.property).as_ref(), &c.value);
        if !fold.filter.iter().all(passes) {
            return;
        }
        if let Some(part) = Part::of(fold, event) {
            self.slots.entry(feature).or_default().add(grid, fold, event, part);
        }
    }

    /// Remembers the unit of an event.
    pub(crate) fn seen_in(&mut self, unit: &OrgUnitId) {
        if self.units.len() < UNITS_MAX && !self.units.contains(unit) {
            self.units.push(unit.clone());
        }
    }

    /// The units whose events belong to the anchor.
    pub(crate) fn units(&self) -> &[OrgUnitId] {
        &self.units
    }

    /// Forgets features that are no longer defined.
    pub(crate) fn retain(&mut self, defined: impl Fn(FeatureId) -> bool) {
        self.slots.retain(|feature, _| defined(*feature));
    }

    /// Takes over one feature's share that was filled from history while the stream went on.
    pub(crate) fn absorb(&mut self, grid: &Grid, feature: FeatureId, fold: &Fold, filled: &AnchorState) {
        for unit in &filled.units {
            self.seen_in(unit);
        }
        let Some(theirs) = filled.slots.get(&feature) else { return };
        let mine = self.slots.entry(feature).or_default();
        mine.position = mine.position.max(theirs.position);
        mine.newest_ms = if mine.is_empty() { theirs.newest_ms } else { mine.newest_ms.max(theirs.newest_ms) };
        mine.base = match (mine.base.take(), theirs.base.clone()) {
            (Some((until, mut part)), Some((more_until, more))) => {
                part.join(&more);
                Some((until.max(more_until), part))
            }
            (mine, theirs) => mine.or(theirs),
        };
        for (step, part) in &theirs.parts {
            match mine.parts.binary_search_by_key(step, |(step, _)| *step) {
                Ok(index) => mine.parts[index].1.join(part),
                Err(index) => mine.parts.insert(index, (*step, part.clone())),
            }
        }
        if let Some(until) = mine.base.as_ref().map(|(until, _)| *until) {
            let under = mine.parts.partition_point(|(step, _)| *step <= until);
            for (_, part) in mine.parts.drain(..under).collect::<Vec<_>>() {
                if let Some((_, base)) = &mut mine.base {
                    base.join(&part);
                }
            }
        }
        mine.drop_old(grid, fold);
    }

    /// The compact form.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(VERSION);
        writer.size(self.units.len());
        self.units.iter().for_each(|unit| writer.text(unit.as_str()));
        writer.size(self.slots.len());
        for (feature, slot) in &self.slots {
            writer.size(*feature as usize);
            writer.int(slot.position);
            writer.int(slot.newest_ms);
            writer.size(usize::from(slot.base.is_some()));
            if let Some((until, part)) = &slot.base {
                writer.int(*until);
                part.write(&mut writer);
            }
            writer.size(slot.parts.len());
            let mut before = 0;
            for (step, part) in &slot.parts {
                // Steps lie close together: differences are short.
                writer.int(step - before);
                before = *step;
                part.write(&mut writer);
            }
        }
        writer.done()
    }

    /// Reads the compact form.
    pub(crate) fn decode(bytes: &[u8]) -> Option<AnchorState> {
        let mut reader = Reader::new(VERSION, bytes)?;
        let units = reader.list(|reader| OrgUnitId::new(reader.text()?).ok())?;
        let slots = reader.list(|reader| {
            let feature = FeatureId::try_from(reader.size()?).ok()?;
            let (position, newest_ms) = (reader.int()?, reader.int()?);
            let base = if reader.size()? == 1 { Some((reader.int()?, Part::read(reader)?)) } else { None };
            let mut before = 0;
            let parts = reader.list(|reader| {
                before += reader.int()?;
                Some((before, Part::read(reader)?))
            })?;
            Some((feature, Slot { position, newest_ms, base, parts }))
        })?;
        Some(AnchorState { slots: slots.into_iter().collect(), units })
    }
}

/// Folds one feature over the anchors of a customer.
pub(crate) fn fold_at<'a>(
    grid: &Grid,
    feature: FeatureId,
    fold: &Fold,
    anchors: impl Iterator<Item = &'a AnchorState>,
    at_ms: i64,
) -> Option<Held> {
    let (before_first, last) = grid.range(fold.window, at_ms);
    let (mut total, mut position) = (None, 0);
    for slot in anchors.filter_map(|anchor| anchor.slots.get(&feature)) {
        position = position.max(slot.position);
        slot.fold_into(&mut total, before_first, last);
    }
    let value = match total {
        None if fold.aggregation == Aggregation::Count => Value::whole(0),
        None => return None,
        Some(Part::Count(count)) => Value::whole(count),
        Some(Part::Sum(number) | Part::Least(number) | Part::Greatest(number)) => Value::Number(number),
        Some(Part::Latest { value, .. }) => value,
        Some(Part::Newest(at_ms)) => Value::Moment(at_ms),
    };
    Some(Held { value, position })
}

/// The next instant after `at_ms` at which the fold can change by time alone: a step enters or leaves.
pub(crate) fn turns_at<'a>(
    grid: &Grid,
    feature: FeatureId,
    fold: &Fold,
    anchors: impl Iterator<Item = &'a AnchorState>,
    at_ms: i64,
) -> Option<i64> {
    let (before_first, last) = grid.range(fold.window, at_ms);
    let mut next: Option<i64> = None;
    for slot in anchors.filter_map(|anchor| anchor.slots.get(&feature)) {
        for (step, _) in &slot.parts {
            let turn = if *step > last {
                grid.start_of(fold.step(), *step)
            } else if let Some(window) = fold.window.filter(|_| *step > before_first) {
                grid.start_of(fold.step(), step + window.steps())
            } else {
                continue;
            };
            next = Some(next.map_or(turn, |next| next.min(turn)));
        }
    }
    next
}

/// A held value as it reads at an instant: moments that `seconds_since` counts from become seconds.
pub(crate) fn read_at(grid: &Grid, fold: Option<&Fold>, value: &Value, at_ms: i64) -> Value {
    match (fold.map(|fold| fold.aggregation), value) {
        (Some(Aggregation::SecondsSince), Value::Moment(since_ms)) => Value::whole(age_seconds(grid, *since_ms, at_ms)),
        _ => value.clone(),
    }
}
