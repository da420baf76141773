//! The lake's facade: opening, flushing, and the one snapshot that every reader starts from.

use crate::catalog::{self, LakeFile};
use crate::compaction::Compaction;
use crate::isolation::Isolated;
use crate::meters::Meters;
use crate::store::{Store, Written};
use crate::sweep::Sweep;
use crate::table::Snapshot;
use crate::{Error, EventRow, LakeConfig, Tail, batch};
use arrow::array::RecordBatch;
use futures::FutureExt;
use heyuan_kernel::lease::Fence;
use heyuan_kernel::processor::Task;
use heyuan_kernel::{Kernel, guard};
use sea_orm::{AccessMode, DatabaseTransaction, DbBackend, IsolationLevel, TransactionTrait};
use std::sync::{Arc, OnceLock};
use tokio::sync::Semaphore;

/// Rows of the tail that are turned into columns at a time.
const TAIL_PAGE_ROWS: usize = 8_192;

/// The event history of a tenant; cheap to clone.
#[derive(Clone)]
pub struct Lake {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) kernel: Kernel,
    pub(crate) config: LakeConfig,
    pub(crate) store: Store,
    pub(crate) query_slots: Arc<Semaphore>,
    pub(crate) scan_slots: Arc<Semaphore>,
    pub(crate) meters: Meters,
    tail: OnceLock<Arc<dyn Tail>>,
}

impl Lake {
    /// Opens the lake on its folder, which is made when it is not there.
    ///
    /// # Errors
    /// [`Error::Kernel`] for a setting or a folder that can't be used, [`Error::Store`].
    pub async fn open(kernel: Kernel, config: LakeConfig) -> Result<Lake, Error> {
        config.check()?;
        let store = Store::open(&config)?;
        let query_slots = Arc::new(Semaphore::new(config.query_slots));
        let scan_slots = Arc::new(Semaphore::new(config.scan_slots));
        let inner = Inner { kernel, config, store, query_slots, scan_slots, meters: Meters::new(), tail: OnceLock::new() };
        Ok(Lake { inner: Arc::new(inner) })
    }

    /// Names who knows the events that are not in files yet; the first one named stays.
    #[must_use]
    pub fn with_tail(self, tail: Arc<dyn Tail>) -> Lake {
        let _ = self.inner.tail.set(tail);
        self
    }

    /// The position up to which events are in files; rows at or below it no longer count where they came from.
    ///
    /// # Errors
    /// [`heyuan_kernel::Error::Database`].
    pub async fn watermark<C: heyuan_kernel::sql::Connection>(conn: &C) -> Result<i64, heyuan_kernel::Error> {
        catalog::watermark(conn).await
    }

    /// Writes rows into a durable file, then in one fenced transaction registers it and moves the watermark from `from` to `to`.
    /// The rows are all that there is above `from` and up to `to`; none at all just moves the watermark. Cancelled or failed, it
    /// leaves the catalogue as it was, and at most an unregistered file that is swept away.
    ///
    /// # Errors
    /// [`Error::Rows`] for positions outside the range, `Stale` when the watermark does not stand at `from`, `LeaseLost`, and what
    /// the store answers.
    pub async fn flush(&self, fence: &Fence, from: i64, to: i64, mut rows: Vec<EventRow>) -> Result<(), Error> {
        guard::outside_unit("a flush to the lake");
        let refuse = |why| Err(Error::Rows { from, to, why });
        if to <= from {
            return refuse("the watermark only moves forward");
        }
        if rows.iter().any(|row| row.position <= from || row.position > to) {
            return refuse("a row lies outside the range");
        }
        let mut written = Vec::new();
        let count = u64::try_from(rows.len()).unwrap_or(0);
        if !rows.is_empty() {
            let lake = self.clone();
            let threads = Isolated::new("lake-flush", 1)?;
            let work = threads.spawn(async move {
                let zone = &lake.inner.kernel.zone;
                batch::sort(&mut rows, zone);
                let mut writer = lake.inner.store.create()?;
                for chunk in rows.chunks(TAIL_PAGE_ROWS) {
                    writer.write(&batch::from_rows(chunk, zone).map_err(Error::arrow("turn events into columns"))?).await?;
                }
                writer.finish().await
            });
            written.push(work.await.map_err(|_| heyuan_kernel::Error::Broken("flush to the lake"))??);
        }
        self.commit(fence, "flush to the lake", written, Change::Advance { from, to }).await?;
        self.inner.meters.flushed_events.add(count, &[]);
        self.inner.meters.watermark.record(to, &[]);
        Ok(())
    }

    /// Makes written files count, in one fenced transaction; removes them when that fails.
    pub(crate) async fn commit(&self, fence: &Fence, name: &'static str, written: Vec<Written>, change: Change) -> Result<(), Error> {
        let files: Vec<LakeFile> = written.iter().map(|written| written.file.clone()).collect();
        let fence = fence.clone();
        let now = self.inner.kernel.clock.now().ms();
        let change = Arc::new(change);
        let added = files.clone();
        let result = self
            .inner
            .kernel
            .db
            .write(name, move |tx| {
                let (fence, files, change) = (fence.clone(), added.clone(), change.clone());
                async move {
                    fence.check(tx).await?;
                    match &*change {
                        Change::Advance { from, to } => catalog::advance(tx, *from, *to).await?,
                        Change::Replace { ids } => catalog::replace(tx, ids, now).await?,
                    }
                    catalog::add(tx, &files, now).await
                }
                .boxed()
            })
            .await;
        if let Err(error) = &result
            && !uncertain(error)
        {
            for file in &files {
                if let Err(error) = self.inner.store.remove(&file.path).await {
                    tracing::warn!(file.path, %error, "a file that was not registered stays until it is swept");
                }
            }
        }
        drop(written);
        Ok(result?)
    }

    /// The files that count and every event above the watermark, as one transaction sees them.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, Error> {
        let transaction = self.begin_reading().await?;
        let watermark = catalog::watermark(&transaction).await?;
        let files = catalog::current(&transaction).await?;
        let tail = self.read_tail(&transaction, watermark).await?;
        transaction.rollback().await.map_err(heyuan_kernel::Error::from)?;
        Ok(Snapshot { files, tail })
    }

    async fn read_tail(&self, transaction: &DatabaseTransaction, watermark: i64) -> Result<Vec<RecordBatch>, Error> {
        let Some(tail) = self.tail() else { return Ok(Vec::new()) };
        let mut batches = Vec::new();
        let mut after = watermark;
        let (mut count, mut bytes) = (0, 0);
        loop {
            let rows = tail.rows_after(transaction, after, TAIL_PAGE_ROWS).await?;
            let Some(last) = rows.last() else { break };
            after = last.position;
            count += rows.len();
            if count > self.inner.config.tail_rows_max {
                return Err(Error::TailTooLong(self.inner.config.tail_rows_max));
            }
            let batch = batch::from_rows(&rows, &self.inner.kernel.zone).map_err(Error::arrow("turn events into columns"))?;
            bytes += batch.get_array_memory_size();
            if bytes > self.inner.config.query_memory_bytes_max {
                return Err(Error::Memory("the events that wait to be written to files need more than lake.query_memory_bytes_max".into()));
            }
            batches.push(batch);
        }
        Ok(batches)
    }

    /// A transaction in which every statement sees the same state. On SQLite a deferred one is: its first read fixes it.
    pub(crate) async fn begin_reading(&self) -> Result<DatabaseTransaction, Error> {
        let reader = self.inner.kernel.db.reader();
        let begun = match self.inner.kernel.db.backend() {
            DbBackend::Postgres => reader.begin_with_config(Some(IsolationLevel::RepeatableRead), Some(AccessMode::ReadOnly)).await,
            _ => reader.begin().await,
        };
        Ok(begun.map_err(heyuan_kernel::Error::from)?)
    }

    pub(crate) fn tail(&self) -> Option<&Arc<dyn Tail>> {
        self.inner.tail.get()
    }

    /// What the processor does for the lake: compaction, and the sweep of replaced and unregistered files.
    pub fn tasks(&self) -> Vec<Arc<dyn Task>> {
        vec![Arc::new(Compaction::new(self.clone())), Arc::new(Sweep::new(self.clone()))]
    }
}

/// What happens to the catalogue beside the new files.
#[derive(Debug)]
pub(crate) enum Change {
    /// The watermark moves.
    Advance { from: i64, to: i64 },
    /// Older files are replaced by the new ones.
    Replace { ids: Vec<String> },
}

/// Whether the transaction may have been committed although we heard of an error: then its files must stay.
fn uncertain(error: &heyuan_kernel::Error) -> bool {
    use heyuan_kernel::Error;
    matches!(error, Error::Database(_) | Error::Unconfirmed(_) | Error::Broken(_))
}
