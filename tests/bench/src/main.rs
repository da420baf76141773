//! Measures Heyuan against its bars, prints a table and writes it as JSON.
//!
//! `heyuan-bench [AREA...]` measures the named areas, or all. An area is a module that adds rows to the [`Report`]; each row says by
//! which method its figure came about. Durability settings are production's, and the disk's own speed is measured in the same run,
//! since no figure of a durable write means anything without it. `HEYUAN_BENCH_SECONDS` is the time of each row that measures a
//! rate, `HEYUAN_BENCH_STORED` the number of events that a tenant holds before.

mod collect;
mod connection;
mod disk;
mod report;
mod tenant;

use std::process::ExitCode;

use crate::report::Report;

/// The areas in the order in which they run; the disk comes first, as the measure of the others.
const AREAS: &[&str] = &["disk", "tenant", "collect"];

#[tokio::main]
async fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = wanted.iter().find(|area| !AREAS.contains(&area.as_str())) {
        eprintln!("no area is called {unknown}; there are: {}", AREAS.join(", "));
        return ExitCode::FAILURE;
    }
    let mut report = Report::default();
    for area in AREAS.iter().filter(|area| wanted.is_empty() || wanted.iter().any(|name| name == *area)) {
        eprintln!("measuring {area}");
        match *area {
            "disk" => disk::measure(&mut report),
            "tenant" => tenant::measure(&mut report).await,
            "collect" => collect::measure(&mut report).await,
            _ => unreachable!("every area has its arm"),
        }
    }
    let path = heyuan_harness::cache_dir().join("bench.json");
    match report.print().and_then(|()| report.write(&path)) {
        Ok(()) => {
            eprintln!("written to {}", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("the report could not be written to {}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}

/// A whole number from the environment, or what a run of a few minutes wants.
fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a whole number, not {text}")),
        Err(_) => default,
    }
}
