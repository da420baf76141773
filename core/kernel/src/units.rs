//! Which units of work the writer's time goes to, as an operator sees it in the metrics.

use crate::telemetry;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;
use std::time::Duration;

/// The instruments: how many units ran, and how long they held their transaction, by name.
#[derive(Debug, Clone)]
pub(crate) struct Units {
    count: Counter<u64>,
    seconds: Counter<f64>,
}

impl Units {
    /// Makes the instruments.
    pub(crate) fn new() -> Units {
        let meter = telemetry::meter();
        Units {
            count: meter.u64_counter("heyuan_units_of_work").with_description("Units of work that ran, kept or rolled back").build(),
            seconds: meter
                .f64_counter("heyuan_unit_of_work_seconds")
                .with_description("How long units of work held their transaction; on SQLite this is the one writer's time")
                .build(),
        }
    }

    /// Counts a unit that ran.
    pub(crate) fn took(&self, name: &'static str, time: Duration) {
        let labels = [KeyValue::new("unit", name)];
        self.count.add(1, &labels);
        self.seconds.add(time.as_secs_f64(), &labels);
    }
}
