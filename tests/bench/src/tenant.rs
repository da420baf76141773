//! What an empty tenant costs: time to start again, and memory while nothing happens.

use std::time::Instant;

use heyuan_harness::{Tenant, TestDatabase};

use crate::report::{Bar, Report, Row, percentile};
use crate::run::{Size, resident_mib};

/// Starts of an empty tenant on SQLite, and its memory after them.
pub(crate) async fn measure(report: &mut Report, size: Size) {
    let starts = size.pick(20, 3);
    let database = TestDatabase::sqlite();
    let mut tenant = Tenant::start(&database).await;
    let mut durations = Vec::with_capacity(starts);
    for _ in 0..starts {
        tenant.stop().await;
        let start = Instant::now();
        tenant.restart().await;
        durations.push(start.elapsed());
    }
    let milliseconds = percentile(&mut durations, 0.5).as_secs_f64() * 1e3;
    let method = format!("p50 of {starts} starts on an empty SQLite tenant, from exec to /readyz 200, asked every 20 ms");
    report.add(Row::new("tenant: start to ready, empty", milliseconds, "ms", Bar::AtMost(300.0), &method));
    let method = "VmRSS of the process after these starts, no request since";
    report.add(Row::new("tenant: resident memory, empty", resident_mib(tenant.process_id()), "MiB", Bar::AtMost(64.0), method));
}
