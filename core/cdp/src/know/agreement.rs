//! Properties: the stream and history agree at any instant and position, whatever the order of arrival, the anchors and the merges.

use super::expression::Fold;
use super::history;
use super::parse::parse;
use super::state::{AnchorState, Happening, fold_at, turns_at};
use super::value::{Number, Value};
use super::window::Grid;
use heyuan_contract::Timestamp;
use heyuan_kernel::Zone;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// 2026-11-01T00:00:00Z
const BASE_MS: i64 = 1_793_491_200_000;
const MINUTE_MS: i64 = 60_000;
const FEATURE: u32 = 7;
const ANCHORS: usize = 3;

const EXPRESSIONS: [&str; 14] = [
    "count(viewed)",
    "count(viewed) over 30m",
    "count(viewed.price) over 7d",
    "count(viewed) over 90d",
    "sum(viewed.price) over 24h",
    "sum(viewed.price) over 31d",
    "sum(viewed.price where kind = '3br') over 60d",
    "min(viewed.price) over 2d",
    "max(viewed.price where price < 100) over 45d",
    "max(viewed.price)",
    "last(viewed.kind)",
    "last(viewed.kind where price >= -3) over 10d",
    "seconds_since(viewed)",
    "seconds_since(viewed where kind != '3br') over 5d",
];

#[derive(Debug, Clone)]
struct Event {
    at_ms: i64,
    id: String,
    position: i64,
    anchor: usize,
    price: Option<i64>,
    kind: Option<&'static str>,
}

impl Happening for Event {
    fn at_ms(&self) -> i64 {
        self.at_ms
    }

    fn message_id(&self) -> &str {
        &self.id
    }

    fn position(&self) -> i64 {
        self.position
    }

    fn property(&self, name: &str) -> Option<Value> {
        match name {
            // Quarters: sums of fractions are exact as well.
            "price" => self.price.map(|price| Value::Number(Number::from_decimal(price * 25, 2))),
            "kind" => self.kind.map(Value::text),
            _ => None,
        }
    }
}

/// Events of a hundred days in the order of arrival; many share their own time, many come late.
fn events() -> impl Strategy<Value = Vec<Event>> {
    let at = prop_oneof![
        (0..100 * 24 * 60i64).prop_map(|minute| BASE_MS - minute * MINUTE_MS),
        (0..3 * 24 * 60i64).prop_map(|minute| BASE_MS - minute * MINUTE_MS),
        (0..200i64).prop_map(|second| BASE_MS - second * 1000),
        Just(BASE_MS - 5 * MINUTE_MS),
    ];
    let kind = prop_oneof![Just(None), Just(Some("3br")), Just(Some("2br"))];
    let event = (at, 0..1000u32, 0..ANCHORS, proptest::option::of(-20..500i64), kind);
    proptest::collection::vec(event, 0..40).prop_map(|list| {
        let with_position = list.into_iter().enumerate();
        let event = |(place, (at_ms, id, anchor, price, kind)): (usize, (i64, u32, usize, _, _))| {
            let id = format!("m{id}-{place}");
            Event { at_ms, id, position: place as i64 + 1, anchor, price, kind }
        };
        with_position.map(event).collect()
    })
}

fn stream(grid: &Grid, fold: &Fold, events: &[Event]) -> Vec<AnchorState> {
    let mut states = vec![AnchorState::default(); ANCHORS];
    for event in events {
        states[event.anchor].observe(grid, FEATURE, fold, event);
        // What is stored and read again goes on like what was remembered.
        if event.position % 5 == 0 {
            states[event.anchor] = AnchorState::decode(&states[event.anchor].encode()).expect("it reads what it wrote");
        }
    }
    states
}

fn check(zone: &str, expression: &str, events: &[Event], at_ms: i64, members: u8, filled: usize) -> Result<(), TestCaseError> {
    let zone = Zone::named(zone).expect("the zone exists");
    let grid = Grid::new(zone.clone());
    let fold = parse(expression).expect("it parses").fold().expect("it folds");
    let is_member = |anchor: usize| members & (1 << anchor) != 0;
    let mine: Vec<&dyn Happening> = events.iter().filter(|event| is_member(event.anchor)).map(|event| event as &dyn Happening).collect();
    let position = events.len() as i64;
    let expected = |at_ms| history::compute(mine.iter().copied(), &fold, &zone, Timestamp::clamped(at_ms), position);
    let states = stream(&grid, &fold, events);
    let members = || states.iter().enumerate().filter(|(anchor, _)| is_member(*anchor)).map(|(_, state)| state);
    let folded = |at_ms| fold_at(&grid, FEATURE, &fold, members(), at_ms).map(|held| held.value);
    prop_assert_eq!(folded(at_ms), expected(at_ms), "{} at {}", expression, at_ms);

    // Nothing turns before the instant that is foretold.
    let quiet_until = turns_at(&grid, FEATURE, &fold, members(), at_ms).unwrap_or(at_ms + 400 * 24 * 60 * MINUTE_MS);
    prop_assert!(quiet_until > at_ms);
    prop_assert_eq!(folded(quiet_until - 1), folded(at_ms), "{} turned before {}", expression, quiet_until);
    prop_assert_eq!(folded(quiet_until), expected(quiet_until));

    // A feature that was filled from history up to a position and carried on by the stream is what it would always have been.
    let (before, after) = events.split_at(filled.min(events.len()));
    let (past, mut carried) = (stream(&grid, &fold, before), stream(&grid, &fold, after));
    for (carried, past) in carried.iter_mut().zip(&past) {
        carried.absorb(&grid, FEATURE, &fold, past);
    }
    let carried = carried.iter().enumerate().filter(|(anchor, _)| is_member(*anchor)).map(|(_, state)| state);
    prop_assert_eq!(fold_at(&grid, FEATURE, &fold, carried, at_ms).map(|held| held.value), expected(at_ms), "filled {}", expression);
    Ok(())
}

fn runner(seed: u8) -> TestRunner {
    let config = Config { cases: 3_000, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]))
}

#[test]
fn stream_and_history_agree_at_any_instant_and_position() {
    let later = prop_oneof![0..50 * MINUTE_MS, 0..48 * 60 * MINUTE_MS, 0..120 * 24 * 60 * MINUTE_MS];
    let zone = prop_oneof![Just("Asia/Shanghai"), Just("Asia/Kolkata"), Just("America/New_York")];
    let case = (zone, 0..EXPRESSIONS.len(), events(), later, 1..8u8, 0..40usize);
    runner(20)
        .run(&case, |(zone, expression, events, later, members, filled)| {
            // The stream answers from fifty minutes before the newest event on.
            check(zone, EXPRESSIONS[expression], &events, BASE_MS - 50 * MINUTE_MS + later, members, filled)
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn the_order_of_arrival_does_not_matter() {
    let case = (0..EXPRESSIONS.len(), events(), any::<u64>());
    runner(21)
        .run(&case, |(expression, events, shuffle)| {
            let grid = Grid::new(Zone::named("Asia/Shanghai").expect("the zone exists"));
            let fold = parse(EXPRESSIONS[expression]).expect("it parses").fold().expect("it folds");
            let mut other = events.clone();
            other.sort_by_key(|event| (event.position as u64).wrapping_mul(shuffle | 1).rotate_left(17));
            let at = |events: &[Event]| {
                let states = stream(&grid, &fold, events);
                fold_at(&grid, FEATURE, &fold, states.iter(), BASE_MS).map(|held| held.value)
            };
            prop_assert_eq!(at(&events), at(&other));
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}
