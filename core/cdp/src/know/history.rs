//! Features from history: what the stream answers, computed anew from the events themselves.
//!
//! This is the second implementation. It shares no aggregation code with the stream: windows are cut as instants by the calendar and
//! not as numbered steps, and events are sorted and walked instead of joined. Both must agree at every instant and position.

use super::expression::{Aggregation, Condition, Fold, Step, Window};
use super::state::Happening;
use super::value::{Number, Value};
use heyuan_contract::Timestamp;
use heyuan_kernel::Zone;

/// A feature as of an instant T and a position P: a pure function of the events with a position up to P and an own time in the window
/// that ends with the step of T. `seconds_since` is answered as the moment that it counts from.
pub fn compute<'a>(
    events: impl IntoIterator<Item = &'a dyn Happening>,
    fold: &Fold,
    zone: &Zone,
    at: Timestamp,
    position: i64,
) -> Option<Value> {
    let (from_ms, until_ms) = bounds(fold.window, zone, at);
    let mut counted: Vec<&dyn Happening> = events
        .into_iter()
        .filter(|event| event.position() <= position && event.at_ms() < until_ms)
        .filter(|event| from_ms.is_none_or(|from_ms| event.at_ms() >= from_ms))
        .filter(|event| fold.filter.iter().all(|condition| passes(*event, condition)))
        .collect();
    counted.sort_by(|a, b| (a.at_ms(), a.message_id()).cmp(&(b.at_ms(), b.message_id())));
    let values: Vec<Value> = match &fold.property {
        Some(property) => counted.iter().filter_map(|event| event.property(property)).collect(),
        None => Vec::new(),
    };
    let numbers: Vec<Number> = values.iter().filter_map(Value::number).collect();
    match fold.aggregation {
        Aggregation::Count => {
            let count = if fold.property.is_some() { values.len() } else { counted.len() };
            Some(Value::whole(i64::try_from(count).unwrap_or(i64::MAX)))
        }
        Aggregation::Sum if numbers.is_empty() => None,
        Aggregation::Sum => Some(Value::Number(Number::from_billionths(numbers.iter().map(|number| number.billionths()).sum()))),
        Aggregation::Min => numbers.into_iter().reduce(|a, b| if b < a { b } else { a }).map(Value::Number),
        Aggregation::Max => numbers.into_iter().reduce(|a, b| if b > a { b } else { a }).map(Value::Number),
        Aggregation::Last => values.last().cloned(),
        Aggregation::SecondsSince => counted.last().map(|event| Value::Moment(event.at_ms())),
    }
}

fn passes(event: &dyn Happening, condition: &Condition) -> bool {
    condition.comparison.holds(event.property(&condition.property).as_ref(), &condition.value)
}

/// The first instant that counts, and the first after the last.
fn bounds(window: Option<Window>, zone: &Zone, at: Timestamp) -> (Option<i64>, i64) {
    let civil = zone.civil(at);
    let into_minute = i64::from(civil.second()) * 1000 + i64::from(civil.millisecond());
    let into_hour = i64::from(civil.minute()) * 60_000 + into_minute;
    let Some(window) = window else { return (None, at.ms() - into_minute + 60_000) };
    match window.step() {
        Step::Minute => {
            let end = at.ms() - into_minute + 60_000;
            (Some(end - window.steps() * 60_000), end)
        }
        Step::Hour => {
            let end = at.ms() - into_hour + 3_600_000;
            (Some(end - window.steps() * 3_600_000), end)
        }
        Step::Day => {
            let days = i32::try_from(window.steps()).unwrap_or(i32::MAX);
            (Some(zone.day_start_after(at, 1 - days).ms()), zone.day_start_after(at, 1).ms())
        }
    }
}
