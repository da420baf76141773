//! The `collect` section of the configuration, with the reason of every bound.

use serde::Deserialize;

/// Settings of the `collect` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Collect {
    /// Events that may wait to be processed, or for the lake; beyond it senders get 429. At 10,000 events/s this is worked off in half an hour.
    pub backlog_rows_max: i64,
    /// Bytes (compressed) that may wait: what a default volume can spare beside its lake.
    pub backlog_bytes_max: i64,
    /// Age of the oldest waiting event in milliseconds: three days, a long weekend with nobody on duty.
    pub backlog_age_ms_max: i64,
    /// Free bytes that must remain on the data volume, so that flushing, refunds and erasure go on.
    pub disk_reserve_bytes: u64,
    /// How long a sender waits after 429.
    pub retry_after_s: u32,
    /// Days for which message ids are remembered: retries come later than that only from broken clients.
    pub message_id_days: i64,
    /// Days for which rejected events are kept for a replay.
    pub rejected_days: i64,
    /// Bytes of rejected events that are kept; beyond it the oldest go before their days are over. A public browser key must not fill
    /// the disk, so it is no more than `disk_reserve_bytes` by default.
    pub rejected_bytes_max: i64,
    /// Days by which an own time may lie before the arrival; older ones count by their arrival. Keys with `import` have no such limit.
    pub own_time_days_max: i64,
    /// Events that one flush gives to the lake at least, unless they grow old.
    pub flush_rows: i64,
    /// Age in milliseconds at which known events go to the lake, however few they are.
    pub flush_age_ms: i64,
    /// Message ids of one generation on SQLite: what is held in memory as a plain set, about 20 bytes each.
    pub generation_ids: usize,
}

impl Default for Collect {
    fn default() -> Self {
        Collect {
            backlog_rows_max: 20_000_000,
            backlog_bytes_max: 8 << 30,
            backlog_age_ms_max: 3 * 86_400_000,
            disk_reserve_bytes: 1 << 30,
            retry_after_s: 5,
            message_id_days: 7,
            rejected_days: 30,
            rejected_bytes_max: 1 << 30,
            own_time_days_max: 31,
            flush_rows: 50_000,
            flush_age_ms: 60_000,
            generation_ids: 524_288,
        }
    }
}

impl Collect {
    /// Names the first setting that makes no sense.
    ///
    /// # Errors
    /// [`heyuan_kernel::Error::Setting`].
    pub fn check(&self) -> Result<(), heyuan_kernel::Error> {
        let refuse = |key: &str, why: &str| Err(heyuan_kernel::Error::Setting { key: format!("collect.{key}"), why: why.to_owned() });
        for (key, value) in [
            ("backlog_rows_max", self.backlog_rows_max),
            ("backlog_bytes_max", self.backlog_bytes_max),
            ("backlog_age_ms_max", self.backlog_age_ms_max),
            ("message_id_days", self.message_id_days),
            ("rejected_days", self.rejected_days),
            ("rejected_bytes_max", self.rejected_bytes_max),
            ("own_time_days_max", self.own_time_days_max),
            ("flush_rows", self.flush_rows),
            ("flush_age_ms", self.flush_age_ms),
        ] {
            if value < 1 {
                return refuse(key, "it must be at least 1");
            }
        }
        if !(1024..=16_777_216).contains(&self.generation_ids) {
            return refuse("generation_ids", "it must lie between 1024 and 16777216");
        }
        Ok(())
    }
}
