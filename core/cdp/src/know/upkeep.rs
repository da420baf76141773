//! What the processor does between batches: what turns by time, what was defined anew, and what has been kept long enough.

use super::Know;
use super::catalogue::{Catalogue, DEFINITIONS, FeatureState};
use super::knowing::Touched;
use super::memory::{Writes, read_standing};
use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_contract::{Cause, CustomerId, DomainEvent, SegmentId, Timestamp};
use heyuan_kernel::lease::Fence;
use heyuan_kernel::processor::{Progress, Task, Waits};
use heyuan_kernel::{Error, Problem, Tx, sql};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Customers of one step: bounds how long it holds the writer.
const STEP_CUSTOMERS_MAX: u64 = 500;
/// How long a change of a tag is kept.
const TAG_CHANGE_DAYS: i64 = 730;
/// Old changes removed in one step.
const SWEEP_ROWS_MAX: i64 = 1_000;
/// How often old changes are looked for.
const SWEEP_EVERY_MS: i64 = 3_600_000;

/// The processor's task for time and definitions.
pub(crate) struct Upkeep {
    know: Know,
    swept_ms: AtomicI64,
}

impl Upkeep {
    pub(crate) fn new(know: Know) -> Upkeep {
        Upkeep { know, swept_ms: AtomicI64::new(i64::MIN) }
    }

    async fn run(&self, fence: &Fence) -> Result<Progress, Problem> {
        let turned = self.turn(fence).await?;
        let rebuilt = self.rebuild(fence).await?;
        let swept = self.sweep(fence).await?;
        let busy = [turned, rebuilt, swept].contains(&Progress::Busy);
        Ok(if busy { Progress::Busy } else { Progress::Idle })
    }

    /// Looks at customers who are due.
    async fn turn(&self, fence: &Fence) -> Result<Progress, Problem> {
        let know = &self.know;
        let now_ms = know.now_ms();
        let text = "SELECT customer, due_at FROM cdp_standing WHERE due_at <= $1 ORDER BY due_at LIMIT $2";
        let due = sql::all(know.db().reader(), text, [now_ms.into(), STEP_CUSTOMERS_MAX.into()]).await?;
        if due.is_empty() {
            return Ok(Progress::Idle);
        }
        let mut memory = know.lock().await?;
        // Read again: a batch may have looked at them while the memory was waited for.
        let due = sql::all(know.db().reader(), text, [now_ms.into(), STEP_CUSTOMERS_MAX.into()]).await?;
        let mut touched = Touched::default();
        for row in &due {
            let customer = customer(sql::get(row, "customer")?)?;
            // Due since for ever is how others ask for a look: something beside events and time has changed.
            let cause = if sql::get::<i64>(row, "due_at")? == 0 { Cause::Event } else { Cause::Time };
            touched.causes.insert(customer, cause);
        }
        let position = memory.counters.position;
        let writes = Arc::new(know.decide(&mut memory, touched, position).await?);
        memory.stage(writes.clone());
        self.write(fence, "turn customers", writes, None).await?;
        Ok(Progress::Busy)
    }

    /// Looks at the next customers for whom some definition is new.
    async fn rebuild(&self, fence: &Fence) -> Result<Progress, Problem> {
        let know = &self.know;
        if !know.is_rebuilding().await? {
            return Ok(Progress::Idle);
        }
        let mut memory = know.lock().await?;
        let catalogue = memory.catalogue.clone();
        let Some(from) = catalogue.rebuilding_from() else { return Ok(Progress::Idle) };
        let text = "SELECT customer, standing FROM cdp_standing WHERE number > $1 ORDER BY number LIMIT $2";
        let rows = sql::all(know.db().reader(), text, [from.into(), STEP_CUSTOMERS_MAX.into()]).await?;
        let mut touched = Touched::default();
        let mut until = from;
        for row in &rows {
            let (customer, standing) = read_standing(row)?;
            until = until.max(i64::from(standing.number));
            if !standing.gone {
                touched.causes.insert(customer, Cause::Redefined);
            }
        }
        let ended = (rows.len() as u64) < STEP_CUSTOMERS_MAX;
        let position = memory.counters.position;
        let writes = Arc::new(know.decide(&mut memory, touched, position).await?);
        memory.stage(writes.clone());
        let cursor = Cursor { catalogue, until: if ended { None } else { Some(until) }, at_ms: writes.at_ms };
        self.write(fence, "reckon customers anew", writes, Some(cursor)).await?;
        Ok(Progress::Busy)
    }

    async fn write(&self, fence: &Fence, name: &'static str, writes: Arc<Writes>, cursor: Option<Cursor>) -> Result<(), Error> {
        let (fence, cursor) = (fence.clone(), cursor.map(Arc::new));
        self.know
            .db()
            .write(name, move |tx| {
                let (fence, writes, cursor) = (fence.clone(), writes.clone(), cursor.clone());
                async move {
                    fence.check(tx).await?;
                    writes.apply(tx).await?;
                    match cursor {
                        Some(cursor) => cursor.advance(tx, &writes).await,
                        None => Ok(()),
                    }
                }
                .boxed()
            })
            .await
    }

    async fn sweep(&self, fence: &Fence) -> Result<Progress, Problem> {
        let now_ms = self.know.now_ms();
        if now_ms.saturating_sub(self.swept_ms.load(Ordering::Relaxed)) < SWEEP_EVERY_MS {
            return Ok(Progress::Idle);
        }
        let before = now_ms - TAG_CHANGE_DAYS * 86_400_000;
        let old = sql::one(self.know.db().reader(), "SELECT id FROM cdp_tag_change WHERE at < $1 LIMIT 1", [before.into()]).await?;
        if old.is_none() {
            self.swept_ms.store(now_ms, Ordering::Relaxed);
            return Ok(Progress::Idle);
        }
        let fence = fence.clone();
        self.know
            .db()
            .write("remove old changes of tags", move |tx| {
                let fence = fence.clone();
                async move {
                    fence.check(tx).await?;
                    let text = "DELETE FROM cdp_tag_change WHERE id IN (SELECT id FROM cdp_tag_change WHERE at < $1 ORDER BY at LIMIT $2)";
                    sql::execute(tx.conn(), text, [before.into(), SWEEP_ROWS_MAX.into()]).await
                }
                .boxed()
            })
            .await?;
        Ok(Progress::Busy)
    }
}

fn customer(text: String) -> Result<CustomerId, Error> {
    CustomerId::new(text).map_err(|error| Error::Corrupt { what: "customer", why: error.to_string() })
}

/// How far a pass over all customers has come.
struct Cursor {
    catalogue: Arc<Catalogue>,
    /// `None` when the pass has ended.
    until: Option<i64>,
    at_ms: i64,
}

impl Cursor {
    /// Moves every definition that takes part in the pass; what has ended is announced once.
    async fn advance(&self, tx: &Tx, writes: &Writes) -> Result<(), Error> {
        // A definition that came meanwhile has not taken part: begin again with it.
        let moved = sql::execute(
            tx.conn(),
            "UPDATE cdp_know_counter SET value = value + 1 WHERE name = 'definitions' AND value = $1",
            [self.catalogue.version.into()],
        )
        .await?;
        if moved != 1 {
            return Err(Error::Stale("what is defined"));
        }
        tx.wake(DEFINITIONS);
        let next = |cursor: i64| self.until.map(|until| until.max(cursor));
        for feature in self.catalogue.features.iter().filter(|feature| feature.state == FeatureState::Ready) {
            if let Some(cursor) = feature.cursor {
                set_cursor(tx, "UPDATE cdp_feature SET cursor = $2 WHERE name = $1", &feature.name, next(cursor)).await?;
            }
        }
        for rule in &self.catalogue.rules {
            if let Some(cursor) = rule.cursor {
                set_cursor(tx, "UPDATE cdp_tag_rule SET cursor = $2 WHERE name = $1", &rule.name, next(cursor)).await?;
            }
        }
        for tagger in &self.catalogue.taggers {
            if let Some(cursor) = tagger.cursor {
                sql::execute(
                    tx.conn(),
                    "INSERT INTO cdp_tagger (name, generation, cursor) VALUES ($1, $2, $3)
                     ON CONFLICT (name) DO UPDATE SET generation = excluded.generation, cursor = excluded.cursor",
                    [tagger.plugin.name.as_str().into(), tagger.plugin.generation.into(), next(cursor).into()],
                )
                .await?;
            }
        }
        for (name, cursor) in &self.catalogue.retired {
            match next(*cursor) {
                Some(until) => {
                    set_cursor(tx, "UPDATE cdp_tagger SET generation = -1, cursor = $2 WHERE name = $1", name, Some(until)).await?
                }
                None => {
                    sql::execute(tx.conn(), "DELETE FROM cdp_tagger WHERE name = $1", [name.as_str().into()]).await?;
                }
            }
        }
        self.segments(tx, writes).await
    }

    async fn segments(&self, tx: &Tx, writes: &Writes) -> Result<(), Error> {
        for segment in &self.catalogue.segments {
            let Some(cursor) = segment.cursor else { continue };
            let until = self.until.map(|until| until.max(cursor));
            set_cursor(tx, "UPDATE cdp_segment SET cursor = $2 WHERE id = $1", &segment.id, until).await?;
            if until.is_some() {
                continue;
            }
            let (entered, gone) = writes.rebuilt.get(&segment.id).copied().unwrap_or_default();
            let count = |stored: i64, more: i64| u64::try_from(stored.saturating_add(more)).unwrap_or(0);
            if let Ok(id) = SegmentId::new(segment.id.clone()) {
                let event = DomainEvent::SegmentRedefined {
                    segment: id,
                    entered: count(segment.entered, entered),
                    left: count(segment.gone, gone),
                    occurred_at: Timestamp::clamped(self.at_ms),
                };
                tx.emit(&segment.id, &event).await?;
            }
        }
        Ok(())
    }
}

async fn set_cursor(tx: &Tx, text: &str, name: &str, cursor: Option<i64>) -> Result<(), Error> {
    sql::execute(tx.conn(), text, [name.into(), cursor.into()]).await?;
    Ok(())
}

impl Task for Upkeep {
    fn name(&self) -> &'static str {
        "know upkeep"
    }

    fn waits(&self) -> Waits {
        Waits::topics(&[DEFINITIONS], Duration::from_millis(500))
    }

    fn due(&self) -> BoxFuture<'_, Result<Option<Timestamp>, Problem>> {
        async move {
            let text = "SELECT MIN(due_at) AS due FROM cdp_standing WHERE due_at IS NOT NULL";
            let row = sql::one(self.know.db().reader(), text, []).await?;
            let due: Option<i64> = row.map_or(Ok(None), |row| sql::get(&row, "due"))?;
            Ok(due.map(Timestamp::clamped))
        }
        .boxed()
    }

    fn step<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<Progress, Problem>> {
        self.run(fence).boxed()
    }

    fn begin_term(&self) {
        self.know.begin_term();
    }
}
