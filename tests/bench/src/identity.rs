//! Who is who against the truth: a generated group is loaded through the public API, and its customers are read back by identifier.

use std::process::Command;

use heyuan_harness::{Tenant, TestDatabase, Truth, cache_dir, heyuan_binary};

use crate::report::{Bar, Row};

/// Look-ups on the wire at once.
const AT_ONCE: usize = 32;

/// Loads a group of `HEYUAN_BENCH_IDENTITY_CUSTOMERS` people with 180 days and judges its customers.
pub(crate) async fn rows() -> Vec<Row> {
    let customers = crate::setting("HEYUAN_BENCH_IDENTITY_CUSTOMERS", 2_000).to_string();
    let seed = crate::setting("HEYUAN_BENCH_IDENTITY_SEED", 1).to_string();
    let database = TestDatabase::sqlite();
    let folder = database.data_dir().join("group");
    let from = folder.to_str().expect("the temporary folder has a plain name");
    run(Command::new(heyuan_binary()).args(["demo", "generate", "--customers", &customers, "--seed", &seed, "--out", from]));
    let tenant = Tenant::start(&database).await;
    let plugins = cache_dir().join("plugins");
    let plugins = plugins.to_str().expect("the cache has a plain name");
    let mut load = tenant.command(&["demo", "load", "--url", &tenant.url(), "--from", from, "--plugins", plugins]);
    tokio::task::spawn_blocking(move || run(&mut load)).await.expect("the load was waited for");
    let truth = Truth::read(&folder);
    let found = truth.met(&tenant.caller("app"), AT_ONCE).await;
    let (ours, plain) = (truth.judge(&found), truth.judge(&truth.union_find()));
    let method = format!(
        "{customers} customers, 180 days, seed {seed}, SQLite: all pairs of the {} identifiers met; same person = one owns both",
        ours.identifiers
    );
    let row = |name: &str, value: f64, unit: &str, bar: Bar, baseline: f64| {
        Row::new(name, value, unit, bar, &format!("{method}; baseline is plain union-find")).beside(baseline, None)
    };
    vec![
        row("identity: pairwise precision", ours.precision, "", Bar::AtLeast(0.99), plain.precision),
        row("identity: pairwise recall", ours.recall, "", Bar::AtLeast(0.90), plain.recall),
        Row::new("identity: customers beyond one household", count(ours.beyond_household), "customers", Bar::AtMost(0.0), &method),
        Row::new("identity: the same by plain union-find", count(plain.beyond_household), "customers", Bar::None, &method),
        row("identity: largest customer", count(ours.largest), "identifiers", Bar::None, count(plain.largest)),
    ]
}

fn run(command: &mut Command) {
    let output = command.output().expect("heyuan runs");
    assert!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
}

#[expect(clippy::cast_precision_loss, reason = "a count of identifiers is far below 2^52")]
fn count(number: usize) -> f64 {
    number as f64
}
