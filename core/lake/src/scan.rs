//! An ordered pass over history in bounded memory, for backtests and recomputation.

use crate::isolation::Isolated;
use crate::pin::Pin;
use crate::query::{Memory, session};
use crate::table::EventsTable;
use crate::{Error, EventRow, Lake, batch};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, SortExpr, lit};
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::prelude::ident;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use heyuan_kernel::guard;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Batches that wait for the reader.
const BATCHES_WAITING_MAX: usize = 2;

/// Batches of events, in the order asked for; an error ends it.
pub type EventStream = BoxStream<'static, Result<Vec<EventRow>, Error>>;

/// Which events a scan gives, and how they are ordered.
#[derive(Debug, Clone)]
pub struct Scan {
    /// Events up to this position, inclusive.
    pub position_max: i64,
    /// Own times from here, in milliseconds, inclusive.
    pub occurred_from: i64,
    /// Own times up to here, in milliseconds, exclusive.
    pub occurred_until: i64,
    /// Only events of these names; of every name when empty.
    pub names: Vec<String>,
    /// The order.
    pub order: ScanOrder,
}

/// The order of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanOrder {
    /// As they were accepted: by position.
    Position,
    /// Anchor by anchor, each by own time, then message id.
    Anchor,
}

/// What a running scan holds; it ends when the stream is dropped.
struct Running {
    batches: mpsc::Receiver<Result<Vec<EventRow>, Error>>,
    _threads: Isolated,
    _pin: Pin,
    _slot: OwnedSemaphorePermit,
}

impl Lake {
    /// Begins a scan over files and tail as one snapshot sees them. What does not fit into its memory is sorted on disk inside
    /// the lake's folder; its files are pinned until the stream ends.
    ///
    /// # Errors
    /// [`Error::TailTooLong`], and what database and store answer.
    pub async fn scan(&self, scan: Scan) -> Result<EventStream, Error> {
        guard::outside_unit("a scan of the lake");
        let slots = self.inner.scan_slots.clone();
        let slot = slots.acquire_owned().await.map_err(|_| heyuan_kernel::Error::Broken("scan of the lake"))?;
        let pin = self.pin("scan", self.inner.config.scan_ms_max).await?;
        let snapshot = self.snapshot().await?;
        let threads = Isolated::new("lake-scan", self.inner.config.query_threads)?;
        let (sender, batches) = mpsc::channel(BATCHES_WAITING_MAX);
        let lake = self.clone();
        let work = async move {
            let mut rows = match lake.ordered(EventsTable::new(snapshot), &scan).await {
                Ok(rows) => rows,
                Err(error) => return drop(sender.send(Err(error)).await),
            };
            loop {
                let next = match rows.try_next().await {
                    Ok(Some(batch)) => batch::to_rows(&batch).map_err(Error::from),
                    Ok(None) => break,
                    Err(error) => Err(Error::Engine { doing: "scan the event history", source: error }),
                };
                let failed = next.is_err();
                if sender.send(next).await.is_err() || failed {
                    break;
                }
            }
        };
        let watched = threads.spawn(work);
        let running = Running { batches, _threads: threads, _pin: pin, _slot: slot };
        let stream = futures::stream::unfold((running, Some(watched)), |(mut running, mut watched)| async move {
            if let Some(next) = running.batches.recv().await {
                return Some((next, (running, watched)));
            }
            // The work is over; a panic must not look like the end of history.
            match watched.take()?.await {
                Ok(()) => None,
                Err(_) => Some((Err(heyuan_kernel::Error::Broken("scan of the lake").into()), (running, None))),
            }
        });
        Ok(stream.boxed())
    }

    async fn ordered(&self, events: EventsTable, scan: &Scan) -> Result<SendableRecordBatchStream, Error> {
        let engine = Error::engine("scan the event history");
        let memory = Memory::Spilling { bytes: self.inner.config.scan_memory_bytes_max, folder: self.inner.store.spill() };
        let context = session(self, memory)?;
        let events = context.read_table(Arc::new(events)).map_err(&engine)?;
        let ordered = events.filter(wanted(scan)).and_then(|events| events.select_columns(&batch::ROW));
        let ordered = ordered.and_then(|events| events.sort(order(scan.order))).map_err(&engine)?;
        ordered.execute_stream().await.map_err(&engine)
    }
}

fn wanted(scan: &Scan) -> Expr {
    let time = |ms: i64| lit(ScalarValue::TimestampMillisecond(Some(ms), Some("+00:00".into())));
    let mut wanted = ident("position").lt_eq(lit(scan.position_max));
    wanted = wanted.and(ident("occurred_at").gt_eq(time(scan.occurred_from)));
    wanted = wanted.and(ident("occurred_at").lt(time(scan.occurred_until)));
    if !scan.names.is_empty() {
        let names = scan.names.iter().map(|name| lit(ScalarValue::Utf8View(Some(name.clone()))));
        wanted = wanted.and(ident("name").in_list(names.collect(), false));
    }
    wanted
}

fn order(order: ScanOrder) -> Vec<SortExpr> {
    let columns: &[&str] = match order {
        ScanOrder::Position => &["position"],
        ScanOrder::Anchor => &["anchor", "occurred_at", "message_id"],
    };
    columns.iter().map(|name| ident(*name).sort(true, false)).collect()
}
