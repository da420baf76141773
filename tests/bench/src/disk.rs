//! The disk's own speed, which every figure of a durable write is read beside.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::report::{Bar, Report, Row, percentile};

const WRITES: usize = 500;

/// About what a group commit of a database's log writes.
const WRITE_BYTES: usize = 8 * 1024;

/// Appends to a file on the file system of the test databases, with an fdatasync after each write.
pub(crate) fn measure(report: &mut Report) {
    let mut file = tempfile::tempfile().expect("the temporary folder is writable");
    let block = vec![7; WRITE_BYTES];
    let mut once = || -> std::io::Result<Duration> {
        file.write_all(&block)?;
        let start = Instant::now();
        file.sync_data()?;
        Ok(start.elapsed())
    };
    let mut durations: Vec<Duration> = (0..WRITES).map(|_| once().expect("the disk takes a few megabytes")).collect();
    let method = format!("{WRITES} appends of {WRITE_BYTES} B to a file in the temporary folder, fdatasync after each");
    for (name, share) in [("disk: fdatasync p50", 0.5), ("disk: fdatasync p99", 0.99)] {
        let micros = percentile(&mut durations, share).as_secs_f64() * 1e6;
        report.add(Row::new(name, micros, "us", Bar::None, &method));
    }
}
