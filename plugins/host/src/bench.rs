//! The measures of the plugin bars, as one function that the bench calls; peers and baselines run in the same invocation.

use std::{
    hint::black_box,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Instant,
};

use serde::Deserialize;

use crate::{BenefitInput, BenefitRule, Bits, FeatureValue, Host, LocalTime, NumberColumn, OrderLines, Tagger, TaggerBatch, Transaction};

/// What `plugins/build.sh` built.
#[derive(Clone, Debug)]
pub struct BenchPlugins {
    pub home_upgrader: PathBuf,
    pub member_day: PathBuf,
    /// The same sources built natively: a program that prints its measures as JSON.
    pub native_baseline: PathBuf,
}

impl BenchPlugins {
    /// In the folder that `plugins/build.sh` fills.
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            home_upgrader: folder.join("home-upgrader.wasm"),
            member_day: folder.join("member-day.wasm"),
            native_baseline: folder.join("native-baseline"),
        }
    }
}

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    pub name: &'static str,
    pub value: f64,
    pub unit: &'static str,
    pub method: &'static str,
}

#[derive(Deserialize)]
struct Native {
    tagger_ns_1000: u64,
    tagger_ns_10000: u64,
    decisions_one_thread: f64,
    decisions_two_threads: f64,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Takes half a minute. Installs the example plugins into `host`, whose limits are all on.
pub fn measure(host: &Host, plugins: &BenchPlugins) -> Result<Vec<Measure>, Failure> {
    let tagger = host.tagger(&host.install(&std::fs::read(&plugins.home_upgrader)?)?)?;
    let rule = host.benefit_rule(&host.install(&std::fs::read(&plugins.member_day)?)?)?;
    let native = Command::new(&plugins.native_baseline).output()?;
    let native: Native = serde_json::from_slice(&native.stdout)?;
    let mut measures = Vec::new();
    let mut add = |name, value, unit, method| measures.push(Measure { name, value, unit, method });

    let instantiate = timed(20_000, || tagger.instantiate_only())?;
    add("instantiate a Rust component, p50", micros(&instantiate, 50), "us", "home-upgrader, store and limits included");
    let empty = batch(0);
    let call = timed(20_000, || tagger.evaluate(&empty).map(drop))?;
    add("fresh instance + one empty call, p50", micros(&call, 50), "us", "home-upgrader, batch of no rows");

    for (rows, calls, native_ns, names) in [
        (1_000, 5_000, native.tagger_ns_1000, ["tagger rows/s a core, batch 1,000", "tagger to native, batch 1,000"]),
        (10_000, 1_000, native.tagger_ns_10000, ["tagger rows/s a core, batch 10,000", "tagger to native, batch 10,000"]),
    ] {
        let batch = batch(rows);
        let times = timed(calls, || tagger.evaluate(&batch).map(drop))?;
        let median_ns = percentile(&times, 50) as f64;
        add(names[0], rows as f64 * 1e9 / median_ns, "rows/s", "five numeric features, fresh instance, all limits on, median call");
        let ratio = median_ns / native_ns as f64;
        add(names[1], ratio, "x", "median call to median call of the same source built natively, same run");
    }

    let input = input().canonical_bytes();
    let decision = timed(20_000, || rule.decide(&input).map(drop))?;
    add("benefit decision, 10 order lines, p50", micros(&decision, 50), "us", "member-day, from canonical bytes to effects");
    add("benefit decision, 10 order lines, p99", micros(&decision, 99), "us", "member-day, from canonical bytes to effects");

    let one = evaluations_per_second(&tagger, &rule, 1)?;
    let two = evaluations_per_second(&tagger, &rule, 2)?;
    add("isolated evaluations/s, one thread", one, "1/s", "member-day decisions, a fresh instance each");
    add("isolated evaluations/s, two threads", two, "1/s", "member-day decisions, a fresh instance each");
    add("two threads to one", two / one, "x", "isolated evaluations");
    let (bytes, plugins_installed) = resident_bytes_of_many(host, &std::fs::read(&plugins.home_upgrader)?)?;
    add("memory of 50 active Rust plugins", bytes / f64::from(plugins_installed) * 50.0 / 1e6, "MB", "resident, each called once");
    let native_gain = native.decisions_two_threads / native.decisions_one_thread;
    add("two threads to one, native rule", native_gain, "x", "the same source natively, same run");
    Ok(measures)
}

/// The same values as in the native baseline.
fn batch(rows: usize) -> TaggerBatch {
    let column = |column: u64| {
        let values = (0..rows as u64).map(|row| ((row * 7_919 + column * 104_729) % 1_000) as f64).collect();
        let mut present = Bits::none(rows);
        (0..rows).filter(|row| (row / 64) % 2 == 0 || ![0, 4, 8, 12].contains(&(row % 64))).for_each(|row| present.set(row));
        NumberColumn { values, present }
    };
    TaggerBatch { now_ms: 1_767_225_600_000, utc_offset_seconds: 28_800, rows, numbers: (0..5).map(column).collect(), texts: Vec::new() }
}

fn input() -> BenefitInput {
    let mut order_lines = OrderLines::default();
    for line in 0..10 {
        order_lines.push(Some(&format!("product-{line}")), Some("category"), Some("merchant"), 1, 12_800);
    }
    BenefitInput {
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
            order_lines,
        },
        member: None,
        features: vec![FeatureValue::Integer(100)],
    }
}

/// Nanoseconds of each call, sorted, after a warm-up of a tenth.
fn timed<E>(calls: usize, mut call: impl FnMut() -> Result<(), E>) -> Result<Vec<u64>, E> {
    for _ in 0..calls / 10 {
        call()?;
    }
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        let start = Instant::now();
        black_box(call())?;
        times.push(start.elapsed().as_nanos() as u64);
    }
    times.sort_unstable();
    Ok(times)
}

fn percentile(sorted: &[u64], percent: usize) -> u64 {
    sorted.get(sorted.len() * percent / 100).copied().unwrap_or(0)
}

fn micros(sorted: &[u64], percent: usize) -> f64 {
    percentile(sorted, percent) as f64 / 1_000.0
}

/// Resident memory that further plugins add, and how many these were: the same component under other digests.
fn resident_bytes_of_many(host: &Host, component: &[u8]) -> Result<(f64, u8), Failure> {
    const PLUGINS: u8 = 20;
    let before = resident_bytes()?;
    for number in 0..PLUGINS {
        // A custom section of one byte and a name of one letter changes the digest and nothing else.
        let other = [component, &[0, 3, 1, b'n', number]].concat();
        host.tagger(&host.install(&other)?)?.evaluate(&batch(1_000))?;
    }
    let after = resident_bytes()?;
    Ok((after.saturating_sub(before) as f64, PLUGINS))
}

fn resident_bytes() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1_024)
}

fn evaluations_per_second(tagger: &Tagger, rule: &BenefitRule, threads: usize) -> Result<f64, Failure> {
    const CALLS: usize = 50_000;
    let input = input().canonical_bytes();
    // Another plugin in between, so that slots are not warm for one component only.
    tagger.evaluate(&batch(64))?;
    let start = Instant::now();
    let run = || (0..CALLS).try_for_each(|_| rule.decide(black_box(&input)).map(drop));
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        for thread in running {
            thread.join().map_err(|_| "a measuring thread panicked")??;
        }
        Ok::<_, Failure>(())
    })?;
    Ok((threads * CALLS) as f64 / start.elapsed().as_secs_f64())
}
