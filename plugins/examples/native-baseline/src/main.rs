//! The example plugins' own sources, built natively and timed: what the sandbox is compared with. Prints one JSON object.

use std::{hint::black_box, thread, time::Instant};

use heyuan_benefit_rule::{
    FeatureValue, Input, LocalTime, OrderLines, Transaction, bindings::exports::heyuan::plugins::benefits::Guest as _,
};
use heyuan_tagger::{Batch, NumberColumn, bindings::exports::heyuan::plugins::tagging::Guest as _};
use home_upgrader::HeyuanTagger;
use member_day::HeyuanBenefitRule;

/// The same values as in the host's bench.
fn batch(rows: usize) -> Batch {
    let numbers = (0..5_u64)
        .map(|column| NumberColumn {
            values: (0..rows as u64).map(|row| ((row * 7_919 + column * 104_729) % 1_000) as f64).collect(),
            present: (0..rows.div_ceil(64)).map(|word| if word % 2 == 0 { u64::MAX } else { !0x1111 }).collect(),
        })
        .collect();
    Batch { now_ms: 1_767_225_600_000, utc_offset_seconds: 28_800, rows: rows as u32, numbers, texts: Vec::new() }
}

/// Nanoseconds of the median call at this batch size.
fn tagger_ns(rows: usize, calls: usize) -> u64 {
    let original = batch(rows);
    let mut times: Vec<u64> = (0..calls)
        .map(|_| {
            let batch = black_box(batch_of(&original));
            let start = Instant::now();
            black_box(HeyuanTagger::evaluate(batch)).expect("the example answers");
            start.elapsed().as_nanos() as u64
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn batch_of(original: &Batch) -> Batch {
    Batch {
        now_ms: original.now_ms,
        utc_offset_seconds: original.utc_offset_seconds,
        rows: original.rows,
        numbers: original.numbers.clone(),
        texts: Vec::new(),
    }
}

fn input() -> Input {
    Input {
        now_ms: 1_767_830_400_000,
        transaction: Transaction {
            line: "mall".to_owned(),
            unit: "mall-01".to_owned(),
            kind: "order".to_owned(),
            amount_fen: 128_000,
            currency: "CNY".to_owned(),
            occurred_at_ms: 1_767_830_400_000,
            local_time: LocalTime { year: 2026, month: 1, day: 8, weekday: 4, minute_of_day: 480 },
            base_growth: 1_280,
            base_points: 1_280,
            order_lines: OrderLines {
                products: (1..=10).collect(),
                categories: vec![11; 10],
                merchants: vec![12; 10],
                quantities: vec![1; 10],
                amounts_fen: vec![12_800; 10],
                dictionary: (1..=12).map(|place| format!("code-{place}")).collect(),
            },
        },
        member: None,
        features: vec![FeatureValue::Integer(100)],
    }
}

/// Decisions a second over all threads.
fn decisions_per_second(threads: usize, calls: usize) -> f64 {
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..calls {
                    black_box(HeyuanBenefitRule::decide(black_box(input()))).expect("the example decides");
                }
            });
        }
    });
    (threads * calls) as f64 / start.elapsed().as_secs_f64()
}

fn main() {
    let (at_1000, at_10000) = (tagger_ns(1_000, 4_000), tagger_ns(10_000, 1_000));
    let (one, two) = (decisions_per_second(1, 200_000), decisions_per_second(2, 200_000));
    println!(
        "{{\"tagger_ns_1000\":{at_1000},\"tagger_ns_10000\":{at_10000},\"decisions_one_thread\":{one:.0},\"decisions_two_threads\":{two:.0}}}"
    );
}
