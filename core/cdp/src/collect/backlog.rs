//! Back-pressure: senders are told to wait before the backlog or the disk has no room left.

use crate::error::codes;
use crate::settings::Collect;
use heyuan_kernel::time::now_ms;
use heyuan_kernel::{Error, Kernel, Problem, sql};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// How old a judgement may be: at 100,000 events/s the backlog grows by 50,000 events meanwhile.
const JUDGED_EVERY_MS: i64 = 500;

/// Judges whether more events can be taken.
#[derive(Clone)]
pub(crate) struct Backlog {
    kernel: Kernel,
    settings: Arc<Collect>,
    /// The folders whose disks must not run full.
    folders: Arc<RwLock<Vec<PathBuf>>>,
    judged_at: Arc<AtomicI64>,
    full: Arc<Mutex<Option<&'static str>>>,
}

/// What waits to be processed, or for the lake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Events.
    pub events: i64,
    /// Compressed bytes.
    pub bytes: i64,
    /// Arrival of the oldest, or when it became known.
    pub oldest: Option<i64>,
}

impl Backlog {
    pub(crate) fn new(kernel: Kernel, settings: Arc<Collect>, data: PathBuf) -> Backlog {
        Backlog {
            kernel,
            settings,
            folders: Arc::new(RwLock::new(vec![data])),
            judged_at: Arc::new(AtomicI64::new(0)),
            full: Arc::default(),
        }
    }

    /// Looks at the disk of this folder as well.
    pub(crate) fn watch(&self, folder: &Path) {
        self.folders.write().unwrap_or_else(PoisonError::into_inner).push(folder.to_owned());
    }

    /// Bytes of rejected events that may be kept.
    pub(crate) fn rejected_bytes_max(&self) -> i64 {
        self.settings.rejected_bytes_max
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
        let (inbox, known) = (self.waiting().await?, self.waiting_for_lake().await?);
        if inbox.events + known.events >= self.settings.backlog_rows_max {
            return Ok(Some("as many events wait to be processed, or for the lake, as collect.backlog_rows_max allows"));
        }
        if inbox.bytes + known.bytes >= self.settings.backlog_bytes_max {
            return Ok(Some("as many bytes wait to be processed, or for the lake, as collect.backlog_bytes_max allows"));
        }
        // Arrivals are told by the system's clock, what is known by the kernel's.
        let ages = [inbox.oldest.map(|at| now - at), known.oldest.map(|at| self.kernel.clock.now().ms() - at)];
        if ages.into_iter().flatten().any(|age| age > self.settings.backlog_age_ms_max) {
            return Ok(Some("events have waited longer to be processed, or for the lake, than collect.backlog_age_ms_max allows"));
        }
        Ok(self.disk_is_short().then_some("the free disk is down to collect.disk_reserve_bytes, which flushing, refunds and erasure need"))
    }

    /// Whether a disk is down to what flushing, refunds and erasure need.
    pub(crate) fn disk_is_short(&self) -> bool {
        self.folders.read().unwrap_or_else(PoisonError::into_inner).iter().any(|folder| self.is_short(folder))
    }

    fn is_short(&self, folder: &Path) -> bool {
        match rustix::fs::statvfs(folder) {
            Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize) < self.settings.disk_reserve_bytes,
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "the free disk space could not be read");
                false
            }
        }
    }

    /// What waits to be processed.
    pub(crate) async fn waiting(&self) -> Result<Waiting, Error> {
        let text = "SELECT CAST(COALESCE(SUM(events), 0) AS BIGINT) AS events, CAST(COALESCE(SUM(bytes), 0) AS BIGINT) AS bytes,
            MIN(arrived_at) AS oldest FROM cdp_inbox_block";
        self.sum(text).await
    }

    /// What is processed and still in the database: it waits for the lake, or to be removed once it is there.
    pub(crate) async fn waiting_for_lake(&self) -> Result<Waiting, Error> {
        let text = "SELECT CAST(COALESCE(SUM(events), 0) AS BIGINT) AS events,
            CAST(COALESCE(SUM(LENGTH(payload)), 0) AS BIGINT) AS bytes, MIN(written_at) AS oldest FROM cdp_known_block";
        self.sum(text).await
    }

    async fn sum(&self, text: &str) -> Result<Waiting, Error> {
        let row = sql::one(self.kernel.db.reader(), text, []).await?;
        let row = row.ok_or(Error::Corrupt { what: "backlog", why: "no row".into() })?;
        Ok(Waiting { events: sql::get(&row, "events")?, bytes: sql::get(&row, "bytes")?, oldest: sql::get(&row, "oldest")? })
    }
}
