//! Back-pressure: senders are told to wait before the backlog or the disk has no room left.

use crate::error::codes;
use crate::settings::Collect;
use heyuan_kernel::time::now_ms;
use heyuan_kernel::{Error, Kernel, Problem, sql};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How old a judgement may be: at 100,000 events/s the backlog grows by 50,000 events meanwhile.
const JUDGED_EVERY_MS: i64 = 500;

/// Judges whether more events can be taken.
#[derive(Clone)]
pub(crate) struct Backlog {
    kernel: Kernel,
    settings: Arc<Collect>,
    data: Arc<PathBuf>,
    judged_at: Arc<AtomicI64>,
    full: Arc<Mutex<Option<&'static str>>>,
}

/// What waits to be processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Events.
    pub events: i64,
    /// Compressed bytes.
    pub bytes: i64,
    /// Arrival of the oldest.
    pub oldest: Option<i64>,
}

impl Backlog {
    pub(crate) fn new(kernel: Kernel, settings: Arc<Collect>, data: PathBuf) -> Backlog {
        Backlog { kernel, settings, data: Arc::new(data), judged_at: Arc::new(AtomicI64::new(0)), full: Arc::default() }
    }

    /// Refuses with `Retry-After` while there is no room.
    pub(crate) async fn check(&self) -> Result<(), Problem> {
        let now = now_ms();
        let judged = self.judged_at.load(Ordering::Relaxed);
        let due = now - judged >= JUDGED_EVERY_MS;
        if due && self.judged_at.compare_exchange(judged, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let verdict = self.judge(now).await?;
            *self.full.lock().unwrap_or_else(PoisonError::into_inner) = verdict;
        }
        match *self.full.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(why) => Err(Problem::new(codes::COLLECT_FULL, why).retry_after_s(self.settings.retry_after_s)),
        }
    }

    async fn judge(&self, now: i64) -> Result<Option<&'static str>, Error> {
        let waiting = self.waiting().await?;
        if waiting.events >= self.settings.backlog_rows_max {
            return Ok(Some("as many events wait to be processed as collect.backlog_rows_max allows"));
        }
        if waiting.bytes >= self.settings.backlog_bytes_max {
            return Ok(Some("as many bytes wait to be processed as collect.backlog_bytes_max allows"));
        }
        if waiting.oldest.is_some_and(|oldest| now - oldest > self.settings.backlog_age_ms_max) {
            return Ok(Some("events have waited longer to be processed than collect.backlog_age_ms_max allows"));
        }
        let free = rustix::fs::statvfs(self.data.as_path()).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        match free {
            Ok(free) if free < self.settings.disk_reserve_bytes => {
                Ok(Some("the free disk is down to collect.disk_reserve_bytes, which flushing, refunds and erasure need"))
            }
            Ok(_) => Ok(None),
            Err(error) => {
                tracing::warn!(%error, "the free disk space could not be read");
                Ok(None)
            }
        }
    }

    /// What waits.
    pub(crate) async fn waiting(&self) -> Result<Waiting, Error> {
        let row = sql::one(
            self.kernel.db.reader(),
            "SELECT CAST(COALESCE(SUM(events), 0) AS BIGINT) AS events, CAST(COALESCE(SUM(bytes), 0) AS BIGINT) AS bytes,
               MIN(arrived_at) AS oldest FROM cdp_inbox_block",
            [],
        )
        .await?
        .ok_or(Error::Corrupt { what: "backlog", why: "no row".into() })?;
        Ok(Waiting { events: sql::get(&row, "events")?, bytes: sql::get(&row, "bytes")?, oldest: sql::get(&row, "oldest")? })
    }
}
