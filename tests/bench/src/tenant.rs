//! What an empty tenant costs: time to start again, and memory while nothing happens.

use std::fs;
use std::time::Instant;

use heyuan_harness::{Tenant, TestDatabase};

use crate::report::{Bar, Report, Row, percentile};

const STARTS: usize = 20;

pub(crate) async fn measure(report: &mut Report) {
    let database = TestDatabase::sqlite();
    let mut tenant = Tenant::start(&database).await;
    let mut durations = Vec::with_capacity(STARTS);
    for _ in 0..STARTS {
        tenant.stop().await;
        let start = Instant::now();
        tenant.restart().await;
        durations.push(start.elapsed());
    }
    let milliseconds = percentile(&mut durations, 0.5).as_secs_f64() * 1e3;
    let method = format!("p50 of {STARTS} starts on an empty SQLite tenant, from exec to /readyz 200, asked every 20 ms");
    report.add(Row::new("tenant: start to ready, empty", milliseconds, "ms", Bar::AtMost(300.0), &method));
    let method = "VmRSS of the process after these starts, no request since";
    report.add(Row::new("tenant: resident memory, empty", resident_mib(tenant.process_id()), "MiB", Bar::AtMost(64.0), method));
}

/// Resident memory of a process in MiB, from /proc.
fn resident_mib(process: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel says VmRSS");
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse().expect("VmRSS is a number");
    kibibytes / 1024.0
}
