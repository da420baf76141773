//! The sweep: replaced files after their grace, files that were never registered, pins that have run out.

use crate::{Error, Lake, catalog};
use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_kernel::lease::Fence;
use heyuan_kernel::processor::{Progress, Task, Waits};
use heyuan_kernel::{Problem, sql, time};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Files forgotten in one transaction.
const FILES_MAX: i64 = 100;

/// Looks from time to time while this process is the processor.
pub(crate) struct Sweep {
    lake: Lake,
    swept: Mutex<Option<Instant>>,
}

impl Sweep {
    pub(crate) fn new(lake: Lake) -> Sweep {
        Sweep { lake, swept: Mutex::new(None) }
    }

    fn is_due(&self) -> bool {
        let every = Duration::from_millis(self.lake.inner.config.sweep_every_ms);
        self.swept.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|swept| swept.elapsed() >= every)
    }

    fn set_swept(&self, at: Option<Instant>) {
        *self.swept.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    async fn sweep_once(&self, fence: &Fence) -> Result<Progress, Error> {
        if !self.is_due() {
            return Ok(Progress::Idle);
        }
        if self.sweep_replaced(fence).await? {
            return Ok(Progress::Busy);
        }
        self.sweep_unregistered().await?;
        self.set_swept(Some(Instant::now()));
        Ok(Progress::Idle)
    }

    /// Forgets files first and removes them then: a crash in between leaves an unregistered file.
    async fn sweep_replaced(&self, fence: &Fence) -> Result<bool, Error> {
        let kernel = &self.lake.inner.kernel;
        let now = kernel.clock.now();
        let grace = i64::try_from(self.lake.inner.config.replaced_grace_ms).unwrap_or(i64::MAX);
        let before = now.plus_ms(grace.saturating_neg()).ms();
        let pin = sql::one(kernel.db.reader(), "SELECT id FROM lake_pin WHERE expires_at <= $1 LIMIT 1", [now.ms().into()]).await?;
        if pin.is_none() && catalog::removable(kernel.db.reader(), before, now.ms(), 1).await?.is_empty() {
            return Ok(false);
        }
        let fence = fence.clone();
        let forgotten = kernel
            .db
            .write("forget replaced files of the lake", move |tx| {
                let fence = fence.clone();
                async move {
                    fence.check(tx).await?;
                    sql::execute(tx.conn(), "DELETE FROM lake_pin WHERE expires_at <= $1", [now.ms().into()]).await?;
                    let files = catalog::removable(tx.conn(), before, now.ms(), FILES_MAX).await?;
                    if !files.is_empty() {
                        catalog::forget(tx, &files).await?;
                    }
                    Ok::<_, heyuan_kernel::Error>(files)
                }
                .boxed()
            })
            .await?;
        for file in &forgotten {
            self.lake.inner.store.remove(&file.path).await?;
        }
        Ok(!forgotten.is_empty())
    }

    /// The order matters: what is listed, is not being written and then is not in the catalogue either was given up.
    async fn sweep_unregistered(&self) -> Result<(), Error> {
        let grace = i64::try_from(self.lake.inner.config.orphan_grace_ms).unwrap_or(i64::MAX);
        // The store's clock stamped these files, so it is the real time that counts, not the tenant's.
        let before = time::now_ms().saturating_sub(grace);
        let listed = self.lake.inner.store.list().await?;
        let old = listed.into_iter().filter(|file| file.last_modified.timestamp_millis() <= before);
        let claimed = self.lake.inner.store.claimed();
        let old: Vec<String> = old.map(|file| file.location.to_string()).filter(|path| !claimed.contains(path)).collect();
        let known = catalog::known(self.lake.inner.kernel.db.reader(), &old).await?;
        for path in old.iter().filter(|path| !known.contains(path)) {
            tracing::info!(file.path = path, "a file that was never registered is removed");
            self.lake.inner.store.remove(path).await?;
        }
        Ok(())
    }
}

impl Task for Sweep {
    fn name(&self) -> &'static str {
        "lake sweep"
    }

    fn waits(&self) -> Waits {
        // At rest about once an hour: all that is late is free disk.
        Waits::time(Duration::from_secs(1))
    }

    fn step<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<Progress, Problem>> {
        async move { Ok(self.sweep_once(fence).await?) }.boxed()
    }

    fn begin_term(&self) {
        self.set_swept(None);
    }
}
