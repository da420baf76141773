//! Hostile plugins cost one bounded call each: what the caller sees, and that the next call is unharmed.

use std::time::{Duration, Instant};

use heyuan_plugin_host::{CallError, Digest, FeatureValue, Host, NumberColumn, Stop, TagValue, Tagger, TaggerBatch, TextColumn};
use tempfile::TempDir;

use crate::{
    determinism::input,
    setup::{component, config, host_with},
};

/// More than any search here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn batch(behaviours: &[f64]) -> TaggerBatch {
    TaggerBatch {
        now_ms: 0,
        utc_offset_seconds: 0,
        rows: behaviours.len(),
        numbers: vec![behaviours.iter().map(|&behaviour| Some(behaviour)).collect::<NumberColumn>()],
        texts: vec![behaviours.iter().map(|_| Some("小院")).collect::<TextColumn>()],
    }
}

fn tagger() -> (TempDir, Host, Tagger) {
    let (dir, host, digest) = host_with("hostile-tagger");
    let tagger = host.tagger(&digest).expect("it is a tagger");
    (dir, host, tagger)
}

/// One row misbehaves; the call fails as expected within its time, and a good call follows at once.
fn check(behaviour: f64, expected: impl Fn(&CallError) -> bool) {
    let (_dir, _host, tagger) = tagger();
    check_with(&tagger, behaviour, expected);
}

fn check_with(tagger: &Tagger, behaviour: f64, expected: impl Fn(&CallError) -> bool) {
    let start = Instant::now();
    let error = tagger.evaluate(&batch(&[behaviour])).expect_err("the row misbehaves");
    assert!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
    assert!(expected(&error), "{error:?}");
    let answer = tagger.evaluate(&batch(&[0.0])).expect("the next call is unharmed");
    assert_eq!(answer.columns[0].value(0), Some(TagValue::Text("小院")));
    assert_eq!(answer.columns[1].value(0), Some(TagValue::Number(0.0)));
    assert_eq!(answer.columns[2].value(0), Some(TagValue::Flag(true)));
}

fn stopped_by(stop: Stop) -> impl Fn(&CallError) -> bool {
    move |error| matches!(error, CallError::Stopped { stop: by, .. } if *by == stop)
}

#[test]
fn an_endless_loop_runs_out_of_fuel() {
    check(1.0, stopped_by(Stop::Fuel));
}

/// Filling memory costs fuel by the byte, so with the usual fuel a bomb never gets far.
fn tagger_with_much_fuel() -> (TempDir, Tagger) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut config = config(dir.path());
    config.tagger.fuel_base = 1_000_000_000;
    config.tagger.deadline_ms = 10_000;
    let host = Host::new(config).expect("the host starts");
    let digest = host.install(&component("hostile-tagger")).expect("it is installed");
    (dir, host.tagger(&digest).expect("it is a tagger"))
}

#[test]
fn a_memory_bomb_is_stopped_at_its_limit() {
    let (_dir, tagger) = tagger_with_much_fuel();
    check_with(&tagger, 2.0, stopped_by(Stop::Memory));
}

#[test]
fn a_huge_answer_is_not_copied() {
    let (_dir, tagger) = tagger_with_much_fuel();
    check_with(&tagger, 3.0, |error| matches!(error, CallError::OutputTooLarge { .. }));
}

#[test]
fn the_allocator_of_the_sdk_keeps_blocks_apart() {
    let (_dir, tagger) = tagger_with_much_fuel();
    let answer = tagger.evaluate(&batch(&[10.0])).expect("no assertion inside fails");
    // Every block that was made was found whole; the generator's start is fixed.
    let Some(TagValue::Number(blocks)) = answer.columns[1].value(0) else { panic!("the row has a number") };
    assert!(blocks > 1_900.0, "{blocks} blocks");
}

#[test]
fn with_the_usual_fuel_neither_gets_that_far() {
    check(2.0, stopped_by(Stop::Fuel));
    check(3.0, stopped_by(Stop::Fuel));
}

#[test]
fn deep_recursion_runs_out_of_stack() {
    check(4.0, stopped_by(Stop::Stack));
}

#[test]
fn a_panic_tells_its_message() {
    check(5.0, |error| matches!(error, CallError::Trapped { message, .. } if message.contains("the row asked for a panic")));
}

#[test]
fn an_error_of_the_guest_is_told_as_it_is() {
    check(6.0, |error| matches!(error, CallError::Guest { message, .. } if message == "the row asked for an error"));
}

#[test]
fn a_number_that_is_none_is_refused() {
    check(7.0, |error| matches!(error, CallError::InvalidAnswer { message, .. } if message.contains("hostile_number")));
}

#[test]
fn a_text_that_no_database_keeps_is_refused() {
    check(12.0, |error| matches!(error, CallError::InvalidAnswer { message, .. } if message.contains("NUL")));
}

#[test]
fn a_flood_of_log_lines_is_cut() {
    let (_dir, _host, tagger) = tagger();
    let log = match tagger.evaluate(&batch(&[8.0])) {
        Ok(answer) => answer.log,
        Err(error) => error.log().to_owned(),
    };
    assert!(log.starts_with("a line that nobody needs"), "{log}");
    assert!(log.len() <= 8 << 10, "{} bytes", log.len());
}

#[test]
fn the_deadline_stops_what_fuel_does_not() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut config = config(dir.path());
    config.tagger.fuel_base = u64::MAX / 2;
    config.tagger.deadline_ms = 50;
    let host = Host::new(config).expect("the host starts");
    let digest = host.install(&component("hostile-tagger")).expect("it is installed");
    for behaviour in [1.0, 9.0] {
        let start = Instant::now();
        let error = host.tagger(&digest).expect("it is a tagger").evaluate(&batch(&[behaviour])).expect_err("it never ends");
        assert!(stopped_by(Stop::Deadline)(&error), "{error:?}");
        assert!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
    }
}

#[test]
fn one_bad_row_costs_its_own_answer_only() {
    let (_dir, _host, tagger) = tagger();
    let mut behaviours = vec![0.0; 300];
    behaviours[17] = 5.0;
    behaviours[211] = 1.0;
    let answer = tagger.evaluate_isolating(&batch(&behaviours), PATIENCE).expect("the rows are told apart");
    let failed: Vec<usize> = answer.failed.iter().map(|failed| failed.row).collect();
    assert_eq!(failed, [17, 211]);
    assert!(matches!(answer.failed[0].error, CallError::Trapped { .. }));
    assert!(answer.failed[1].error.is_stop());
    for row in 0..300 {
        let expected = (row != 17 && row != 211).then_some(TagValue::Text("小院"));
        assert_eq!(answer.columns[0].value(row), expected, "row {row}");
    }
}

#[test]
fn a_batch_of_bad_rows_costs_a_bounded_number_of_calls() {
    let (_dir, _host, tagger) = tagger();
    let answer = tagger.evaluate_isolating(&batch(&vec![5.0; 5_000]), PATIENCE).expect("every row fails");
    assert_eq!(answer.failed.len(), 5_000);
    assert!(answer.failed.iter().enumerate().all(|(place, failed)| failed.row == place));
    assert!(answer.calls <= 256, "{} calls", answer.calls);
}

#[test]
fn without_patience_a_failing_batch_fails_together_after_one_call() {
    let (_dir, _host, tagger) = tagger();
    let answer = tagger.evaluate_isolating(&batch(&[0.0, 5.0, 0.0]), Duration::ZERO).expect("the row is not looked for");
    assert_eq!((answer.calls, answer.failed.len()), (1, 3));
    let answer = tagger.evaluate_isolating(&batch(&[0.0, 0.0]), Duration::ZERO).expect("nothing fails");
    assert!(answer.failed.is_empty());
}

#[test]
fn patience_ends_a_search_that_burns_fuel() {
    let (_dir, _host, tagger) = tagger();
    let (start, patience) = (Instant::now(), Duration::from_millis(20));
    let answer = tagger.evaluate_isolating(&batch(&vec![1.0; 4_096]), patience).expect("every row fails");
    assert_eq!(answer.failed.len(), 4_096);
    // One call more than patience lasts, and that call has its own deadline.
    assert!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
    assert!(answer.failed.iter().all(|failed| failed.error.is_stop()));
}

#[test]
fn a_batch_that_is_too_much_together_is_answered_in_parts() {
    let (_dir, _host, tagger) = tagger();
    let heavy = batch(&vec![11.0; 4_096]);
    assert!(stopped_by(Stop::Fuel)(&tagger.evaluate(&heavy).expect_err("all together have too little fuel")));
    let answer = tagger.evaluate_isolating(&heavy, PATIENCE).expect("parts of it have enough");
    assert_eq!(answer.failed, []);
    assert!((0..4_096).all(|row| answer.columns[1].value(row) == Some(TagValue::Number(11.0))));
}

#[test]
fn asking_again_gets_to_rows_that_the_bound_left_untried() {
    let (_dir, _host, tagger) = tagger();
    // Every fourth row is bad: far more than the bound can tell apart in one batch.
    let behaviours: Vec<f64> = (0..2_000).map(|row| if row % 4 == 0 { 5.0 } else { 0.0 }).collect();
    let mut left: Vec<bool> = behaviours.iter().map(|behaviour| *behaviour == 0.0).collect();
    for minute in 1..=400 {
        let asked = TaggerBatch { now_ms: minute * 60_000, ..batch(&behaviours) };
        let answer = tagger.evaluate_isolating(&asked, PATIENCE).expect("rows are told apart");
        (0..2_000).filter(|&row| answer.columns[2].value(row).is_some()).for_each(|row| left[row] = false);
        if !left.contains(&true) {
            return;
        }
    }
    panic!("{} good rows never got an answer", left.iter().filter(|left| **left).count());
}

#[test]
fn a_batch_that_is_not_what_was_declared_is_refused_before_the_call() {
    let (_dir, _host, tagger) = tagger();
    let mut short = batch(&[0.0, 0.0]);
    short.numbers[0].values.pop();
    let mut foreign_code = batch(&[0.0]);
    foreign_code.texts[0].codes[0] = 9;
    let mut no_texts = batch(&[0.0]);
    no_texts.texts.clear();
    for wrong in [short, foreign_code, no_texts] {
        assert!(matches!(tagger.evaluate(&wrong), Err(CallError::InvalidInput(_))));
    }
}

fn decide(host: &Host, digest: &Digest, amount_fen: i64) -> Result<Vec<u8>, CallError> {
    let rule = host.benefit_rule(digest).expect("it is a rule");
    rule.decide(&input(amount_fen, 0, Vec::new()).canonical_bytes()).map(|decision| decision.output_bytes)
}

#[test]
fn a_rule_that_breaks_its_promise_decides_nothing() {
    let (_dir, host, digest) = host_with("hostile-rule");
    let decide = |amount_fen| decide(&host, &digest, amount_fen).expect_err("the rule breaks a promise");
    assert!(stopped_by(Stop::Fuel)(&decide(1)));
    for (amount_fen, words) in [(2, "never declared"), (3, "above zero"), (4, "64 are allowed"), (8, "NUL")] {
        match decide(amount_fen) {
            CallError::InvalidAnswer { message, .. } => assert!(message.contains(words), "{message}"),
            CallError::OutputTooLarge { .. } if amount_fen == 4 => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(decide(5), CallError::OutputTooLarge { .. } | CallError::Stopped { stop: Stop::Fuel, .. }));
    assert!(matches!(decide(6), CallError::Trapped { message, .. } if message.contains("the transaction asked for a panic")));
    assert!(matches!(decide(7), CallError::Guest { message, .. } if message == "the transaction asked for an error"));
}

#[test]
fn a_rule_is_not_asked_with_features_that_it_did_not_declare() {
    let (_dir, host, digest) = host_with("hostile-rule");
    let rule = host.benefit_rule(&digest).expect("it is a rule");
    let bytes = input(0, 0, vec![FeatureValue::Integer(1)]).canonical_bytes();
    assert!(matches!(rule.decide(&bytes), Err(CallError::InvalidInput(_))));
    assert!(matches!(rule.decide(b"{}"), Err(CallError::InvalidInput(_))));
    assert!(matches!(rule.decide(&[0xff; 100]), Err(CallError::InvalidInput(_))));
}

#[test]
fn more_calls_than_slots_are_stopped_and_not_queued() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut config = config(dir.path());
    config.concurrent_calls = 1;
    config.tagger.fuel_base = u64::MAX / 2;
    config.tagger.deadline_ms = 300;
    let host = Host::new(config).expect("the host starts");
    let digest = host.install(&component("hostile-tagger")).expect("it is installed");
    let tagger = host.tagger(&digest).expect("it is a tagger");
    let outcomes: Vec<CallError> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..4).map(|_| scope.spawn(|| tagger.evaluate(&batch(&[1.0])).expect_err("it never ends"))).collect();
        running.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(outcomes.iter().any(stopped_by(Stop::Busy)), "{outcomes:?}");
    assert!(outcomes.iter().any(stopped_by(Stop::Deadline)), "{outcomes:?}");
    tagger.evaluate(&batch(&[0.0])).expect("the slot is free again");
}
