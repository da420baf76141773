//! The same input gives the same bytes, and a row's answer depends on that row alone.

use heyuan_plugin_host::{
    BenefitInput, Change, FeatureValue, LocalTime, Member, NumberColumn, OrderLines, TagValue, TaggerBatch, Transaction,
};

use crate::setup::{component, config, host_with};

/// Values of five features that reach every branch, absent ones included, from a small generator with a fixed start.
fn rows(count: usize) -> Vec<[Option<f64>; 5]> {
    let mut state = 42_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64
    };
    (0..count)
        .map(|_| {
            let dwell = |value: f64| (value % 5.0 != 0.0).then_some(value % 900.0);
            let (two, three, four) = (dwell(next()), dwell(next()), dwell(next()));
            let household = next();
            let income = next();
            [two, three, four, (household % 4.0 != 0.0).then_some(household % 6.0), (income % 3.0 != 0.0).then_some(income % 900_000.0)]
        })
        .collect()
}

fn batch(rows: &[[Option<f64>; 5]]) -> TaggerBatch {
    let numbers = (0..5).map(|column| rows.iter().map(|row| row[column]).collect::<NumberColumn>()).collect();
    TaggerBatch { now_ms: 1_767_225_600_000, utc_offset_seconds: 28_800, rows: rows.len(), numbers, texts: Vec::new() }
}

#[test]
fn split_and_shuffled_batches_answer_the_same_rows() {
    let (_dir, host, digest) = host_with("home-upgrader");
    let tagger = host.tagger(&digest).expect("it is a tagger");
    let rows = rows(1_000);
    let whole = tagger.evaluate(&batch(&rows)).expect("it answers");
    let value = |row: usize| (whole.columns[0].value(row), whole.columns[1].value(row));
    let kinds: std::collections::BTreeSet<String> = (0..rows.len()).map(|row| format!("{:?}", value(row).0)).collect();
    assert_eq!(kinds.len(), 4, "absent, none, warm and hot all occur: {kinds:?}");

    for start in (0..rows.len()).step_by(77) {
        let part = &rows[start..(start + 77).min(rows.len())];
        let answer = tagger.evaluate(&batch(part)).expect("it answers");
        for row in 0..part.len() {
            assert_eq!((answer.columns[0].value(row), answer.columns[1].value(row)), value(start + row), "row {}", start + row);
        }
    }

    // 7 and 1,000 have no common factor, so this visits every row once.
    let order: Vec<usize> = (0..rows.len()).map(|place| place * 7 % rows.len()).collect();
    let shuffled: Vec<_> = order.iter().map(|&row| rows[row]).collect();
    let answer = tagger.evaluate(&batch(&shuffled)).expect("it answers");
    for (place, &row) in order.iter().enumerate() {
        assert_eq!((answer.columns[0].value(place), answer.columns[1].value(place)), value(row), "row {row}");
    }
}

#[test]
fn a_repeated_batch_answers_the_same_columns_for_the_same_fuel() {
    let (_dir, host, digest) = host_with("home-upgrader");
    let tagger = host.tagger(&digest).expect("it is a tagger");
    let batch = batch(&rows(333));
    let first = tagger.evaluate(&batch).expect("it answers");
    assert!(first.fuel_used > 0);
    assert_eq!(tagger.evaluate(&batch).expect("it answers"), first);
}

#[test]
fn an_empty_batch_has_empty_columns() {
    let (_dir, host, digest) = host_with("home-upgrader");
    let answer = host.tagger(&digest).expect("it is a tagger").evaluate(&batch(&[])).expect("it answers");
    assert_eq!(answer.columns.len(), 2);
    assert_eq!(answer.columns[0].value(0), None::<TagValue<'_>>);
}

pub(crate) fn input(amount_fen: i64, base_points: i64, features: Vec<FeatureValue>) -> BenefitInput {
    let mut order_lines = OrderLines::default();
    order_lines.push(Some("silk scarf"), Some("apparel"), Some("merchant-7"), 1, 30);
    order_lines.push(Some("tea"), None, Some("merchant-7"), 2, 12);
    BenefitInput {
        now_ms: 1_767_830_400_000,
        transaction: Transaction {
            line: "mall".to_owned(),
            unit: "mall-01".to_owned(),
            kind: "order".to_owned(),
            amount_fen,
            currency: "CNY".to_owned(),
            occurred_at_ms: 1_767_830_400_000,
            local_time: LocalTime { year: 2026, month: 1, day: 8, weekday: 4, minute_of_day: 480 },
            base_growth: base_points,
            base_points,
            order_lines,
        },
        member: Some(Member { tier: "gold".to_owned(), joined_at_ms: 0, growth: 5_000, points: 700 }),
        features,
    }
}

#[test]
fn a_repeated_decision_gives_the_same_bytes_also_on_a_host_that_loads_the_code() {
    let (dir, host, digest) = host_with("member-day");
    let bytes = input(128_000, 1_280, vec![FeatureValue::Integer(1_000)]).canonical_bytes();
    let first = host.benefit_rule(&digest).expect("it is a rule").decide(&bytes).expect("it decides");
    assert_eq!(
        String::from_utf8(first.output_bytes.clone()).expect("JSON is UTF-8"),
        r#"[{"change":{"points":1000},"reason":"member day, up to this month's limit"}]"#
    );
    let again = host.benefit_rule(&digest).expect("it is a rule").decide(&bytes).expect("it decides");
    assert_eq!(again, first);

    let restarted = heyuan_plugin_host::Host::new(config(dir.path())).expect("the host starts");
    let loaded = restarted.install(&component("member-day")).expect("it is installed");
    assert_eq!(restarted.benefit_rule(&loaded).expect("it is a rule").decide(&bytes).expect("it decides"), first);
}

#[test]
fn canonical_bytes_have_one_spelling() {
    let input = input(1, 2, vec![FeatureValue::Absent]);
    let bytes = input.canonical_bytes();
    assert_eq!(BenefitInput::from_canonical_bytes(&bytes).expect("they are canonical"), input);
    let spaced = String::from_utf8(bytes).expect("JSON is UTF-8").replacen(':', ": ", 1);
    assert!(BenefitInput::from_canonical_bytes(spaced.as_bytes()).is_err());
}

#[test]
fn a_rule_sees_the_parts_that_it_declared() {
    let (_dir, host, digest) = host_with("hostile-rule");
    let rule = host.benefit_rule(&digest).expect("it is a rule");
    let decision = rule.decide(&input(0, 0, Vec::new()).canonical_bytes()).expect("it decides");
    // 30 + 12 fen on the lines, 700 points of the member, and the first product's name.
    assert_eq!(decision.effects[0].change, Change::Growth(742));
    assert_eq!(decision.effects[0].reason, "silk scarf");
}

/// A rule can't answer for somebody else: what it answers has no place for a member, and what it is shown tells none apart.
#[test]
fn no_effect_of_a_rule_names_whom_it_is_for() {
    let contract = include_str!("../../../wit/plugins.wit");
    let block = |head: &str| {
        let body = contract.split_once(&format!("  {head} {{\n")).expect("the contract has it").1.split_once("\n  }\n").expect("it ends").0;
        let code = body.lines().map(str::trim).filter(|line| !line.starts_with("//"));
        code.map(|line| line.trim_end_matches(',').to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(block("record effect"), ["change: change", "reason: string"]);
    assert_eq!(block("variant change"), ["growth(s64)", "points(s64)", "benefit(string)", "voucher(string)", "discount(s64)"]);
    assert_eq!(block("record member"), ["tier: string", "joined-at-ms: s64", "growth: s64", "points: s64"]);
}
