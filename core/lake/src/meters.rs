//! What an operator sees of the lake in the metrics.

use heyuan_kernel::telemetry;
use opentelemetry::metrics::{Counter, Gauge, Histogram};

/// The lake's instruments.
#[derive(Debug, Clone)]
pub(crate) struct Meters {
    /// Events written to files.
    pub(crate) flushed_events: Counter<u64>,
    /// Position up to which events are in files.
    pub(crate) watermark: Gauge<i64>,
    /// Files that compaction replaced.
    pub(crate) replaced_files: Counter<u64>,
    /// How long queries ran, refused ones included.
    pub(crate) query_ms: Histogram<u64>,
}

impl Meters {
    pub(crate) fn new() -> Meters {
        let meter = telemetry::meter();
        Meters {
            flushed_events: meter.u64_counter("heyuan_lake_flushed_events").with_description("Events written to files").build(),
            watermark: meter.i64_gauge("heyuan_lake_watermark").with_description("Position up to which events are in files").build(),
            replaced_files: meter.u64_counter("heyuan_lake_replaced_files").with_description("Files replaced by compaction").build(),
            query_ms: meter.u64_histogram("heyuan_lake_query").with_unit("ms").with_description("Running time of queries").build(),
        }
    }
}
