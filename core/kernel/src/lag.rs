//! How far domain events and their consumers are behind, as an operator sees it in the metrics.

use crate::database::Database;
use crate::error::Error;
use crate::{outbox, sql, telemetry, time};
use opentelemetry::KeyValue;
use opentelemetry::metrics::Gauge;
use std::collections::HashMap;

/// The instruments, read from the tables when the metrics are asked for.
#[derive(Debug, Clone)]
pub struct Lag {
    behind: Gauge<i64>,
    parked: Gauge<i64>,
    unnumbered_ms: Gauge<i64>,
}

impl Default for Lag {
    fn default() -> Self {
        Lag::new()
    }
}

impl Lag {
    /// Makes the instruments.
    pub fn new() -> Lag {
        let meter = telemetry::meter();
        let gauge = |name: &'static str, what: &'static str| meter.i64_gauge(name).with_description(what).build();
        Lag {
            behind: gauge("heyuan_consumer_behind_events", "Domain events that a consumer has not applied yet"),
            parked: gauge("heyuan_consumer_parked_events", "Domain events that a consumer could not apply, and those of their keys"),
            unnumbered_ms: gauge("heyuan_outbox_unnumbered_ms", "Age of the oldest domain event that is committed and has no position yet"),
        }
    }

    /// Reads how far each of these consumers is: as its written position says, or its pump in this process, which may have looked at events
    /// of which it wants none.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn observe(&self, db: &Database, consumers: &[(&'static str, i64)]) -> Result<(), Error> {
        let reader = db.reader();
        let last = outbox::last_position(db).await?;
        let positions = numbers(sql::all(reader, "SELECT name, position AS number FROM kernel_consumer", []).await?)?;
        let parked =
            numbers(sql::all(reader, "SELECT consumer AS name, COUNT(*) AS number FROM kernel_parked GROUP BY consumer", []).await?)?;
        for (consumer, looked_at) in consumers {
            let labels = [KeyValue::new("consumer", *consumer)];
            let position = positions.get(*consumer).copied().unwrap_or(0).max(*looked_at);
            self.behind.record((last - position).max(0), &labels);
            self.parked.record(parked.get(*consumer).copied().unwrap_or(0), &labels);
        }
        let oldest = sql::one(reader, "SELECT MIN(written_at) AS oldest FROM kernel_outbox WHERE position IS NULL", []).await?;
        let oldest: Option<i64> = oldest.map_or(Ok(None), |row| sql::get(&row, "oldest"))?;
        self.unnumbered_ms.record(oldest.map_or(0, |oldest| (time::now_ms() - oldest).max(0)), &[]);
        Ok(())
    }
}

fn numbers(rows: Vec<sql::Row>) -> Result<HashMap<String, i64>, Error> {
    rows.iter().map(|row| Ok((sql::get(row, "name")?, sql::get(row, "number")?))).collect()
}
