//! Fills a feature that was declared while events flow: history up to a position, from there on the stream.

use super::Know;
use super::catalogue::{Catalogue, DEFINITIONS, Feature, FeatureState};
use super::knowing::told;
use super::memory::{Writes, advance_revision};
use super::state::AnchorState;
use crate::event::Known;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use heyuan_contract::AnchorId;
use heyuan_kernel::lease::Fence;
use heyuan_kernel::processor::{Progress, Task, Waits};
use heyuan_kernel::{Error, Problem, sql};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// Anchors whose history is written at a time.
const STEP_ANCHORS_MAX: usize = 2_000;
/// Events read at most before what they come to is written.
const STEP_EVENTS_MAX: usize = 100_000;

/// Pages of events in the order of their positions.
pub type EventPages = BoxStream<'static, Result<Vec<Known>, Problem>>;

/// Where events of the past are read: files and what has not got there yet, as one.
pub trait History: Send + Sync {
    /// Events of these names (of every name when empty) with a position above `after` and up to `until`, in order.
    fn events<'a>(&'a self, names: &'a [String], after: i64, until: i64) -> BoxFuture<'a, Result<EventPages, Problem>>;
    /// All events of these anchors up to a position, in any order.
    fn events_of<'a>(&'a self, anchors: &'a [AnchorId], until: i64) -> BoxFuture<'a, Result<Vec<Known>, Problem>>;
}

/// A tenant whose past can't be read: features begin when they are declared.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHistory;

impl History for NoHistory {
    fn events<'a>(&'a self, _: &'a [String], _: i64, _: i64) -> BoxFuture<'a, Result<EventPages, Problem>> {
        async { Ok(futures::stream::empty().boxed()) }.boxed()
    }

    fn events_of<'a>(&'a self, _: &'a [AnchorId], _: i64) -> BoxFuture<'a, Result<Vec<Known>, Problem>> {
        async { Ok(Vec::new()) }.boxed()
    }
}

/// The processor's task that fills features.
pub(crate) struct Fill {
    know: Know,
    open: Mutex<Option<Open>>,
}

/// A pass over history that is under way.
struct Open {
    feature: u32,
    cursor: i64,
    pages: EventPages,
}

impl Fill {
    pub(crate) fn new(know: Know) -> Fill {
        Fill { know, open: Mutex::new(None) }
    }

    async fn run(&self, fence: &Fence) -> Result<Progress, Problem> {
        let catalogue = self.know.view().await?;
        let with = |state| catalogue.features.iter().find(|feature| feature.state == state);
        if with(FeatureState::Declared).is_some() {
            self.take_up(fence).await?;
            return Ok(Progress::Busy);
        }
        match with(FeatureState::Filling) {
            Some(_) => self.fill_one(fence).await.map(|()| Progress::Busy),
            None => Ok(Progress::Idle),
        }
    }

    /// Lets the stream carry declared features on from here; what lies before is history's.
    async fn take_up(&self, fence: &Fence) -> Result<(), Problem> {
        let memory = self.know.lock().await?;
        let (expected, catalogue) = (memory.counters, memory.catalogue.clone());
        let fence = fence.clone();
        self.know
            .db()
            .write("take up features", move |tx| {
                let (fence, catalogue) = (fence.clone(), catalogue.clone());
                async move {
                    fence.check(tx).await?;
                    advance_revision(tx, expected.revision).await?;
                    move_definitions(tx, &catalogue).await?;
                    // Nothing has happened yet, or nothing that events could say: there is no history to read.
                    let begin = if expected.position == 0 { "ready" } else { "filling" };
                    for feature in catalogue.features.iter().filter(|feature| feature.state == FeatureState::Declared) {
                        let state = if feature.fold.is_some() { begin } else { "ready" };
                        sql::execute(
                            tx.conn(),
                            "UPDATE cdp_feature SET state = $2, history_until = $3, history_cursor = 0, cursor = 0 WHERE id = $1",
                            [i64::from(feature.id).into(), state.into(), expected.position.into()],
                        )
                        .await?;
                    }
                    Ok::<(), Error>(())
                }
                .boxed()
            })
            .await?;
        drop(memory);
        self.know.fresh_view().await?;
        Ok(())
    }

    async fn fill_one(&self, fence: &Fence) -> Result<(), Problem> {
        let (catalogue, _) = self.know.fresh_view().await?;
        let Some(feature) = catalogue.features.iter().find(|feature| feature.state == FeatureState::Filling) else { return Ok(()) };
        let mut slot = self.open.lock().await;
        let mut open = match slot.take().filter(|open| open.feature == feature.id && open.cursor == feature.history_cursor) {
            Some(open) => open,
            None => self.open(feature).await?,
        };
        let (states, ended) = gather(&self.know, feature, &mut open).await?;
        self.write(fence, feature, states, open.cursor, ended).await?;
        if !ended {
            *slot = Some(open);
        }
        drop(slot);
        self.know.fresh_view().await?;
        Ok(())
    }

    async fn open(&self, feature: &Feature) -> Result<Open, Problem> {
        let event = feature.fold.as_ref().map(|fold| fold.event.clone()).unwrap_or_default();
        // Traits come with events of any name.
        let names = if event == super::expression::PROFILE { Vec::new() } else { vec![event] };
        let pages = self.know.history().events(&names, feature.history_cursor, feature.history_until).await?;
        Ok(Open { feature: feature.id, cursor: feature.history_cursor, pages })
    }

    async fn write(
        &self,
        fence: &Fence,
        feature: &Feature,
        filled: BTreeMap<AnchorId, AnchorState>,
        cursor: i64,
        ended: bool,
    ) -> Result<(), Problem> {
        let mut memory = self.know.lock().await?;
        let catalogue = memory.catalogue.clone();
        let anchors: BTreeSet<AnchorId> = filled.keys().cloned().collect();
        let known = memory.states(self.know.db().reader(), &anchors).await?;
        let Some(fold) = feature.fold.clone() else { return Ok(()) };
        let states = filled.into_iter().map(|(anchor, filled)| {
            let mut state = known.get(&anchor).map(|state| AnchorState::clone(state)).unwrap_or_default();
            state.absorb(self.know.grid(), feature.id, &fold, &filled);
            (anchor, Arc::new(state))
        });
        let (expected, states) = (memory.counters, states.collect());
        let writes = Writes {
            expected,
            position: expected.position,
            number: expected.number,
            at_ms: self.know.now_ms(),
            states,
            ..Writes::default()
        };
        let writes = Arc::new(writes);
        memory.stage(writes.clone());
        let (fence, id) = (fence.clone(), i64::from(feature.id));
        let state = if ended { "ready" } else { "filling" };
        self.know
            .db()
            .write("fill a feature", move |tx| {
                let (fence, writes, catalogue) = (fence.clone(), writes.clone(), catalogue.clone());
                async move {
                    fence.check(tx).await?;
                    writes.apply(tx).await?;
                    move_definitions(tx, &catalogue).await?;
                    let text = "UPDATE cdp_feature SET state = $2, history_cursor = $3, cursor = 0 WHERE id = $1";
                    sql::execute(tx.conn(), text, [id.into(), state.into(), cursor.into()]).await?;
                    Ok::<(), Error>(())
                }
                .boxed()
            })
            .await?;
        Ok(())
    }
}

async fn move_definitions(tx: &heyuan_kernel::Tx, catalogue: &Catalogue) -> Result<(), Error> {
    let text = "UPDATE cdp_know_counter SET value = value + 1 WHERE name = 'definitions' AND value = $1";
    let moved = sql::execute(tx.conn(), text, [catalogue.version.into()]).await?;
    tx.wake(DEFINITIONS);
    if moved == 1 { Ok(()) } else { Err(Error::Stale("what is defined")) }
}

/// Reads on until enough has come together; also tells whether history has ended.
async fn gather(know: &Know, feature: &Feature, open: &mut Open) -> Result<(BTreeMap<AnchorId, AnchorState>, bool), Problem> {
    let mut states: BTreeMap<AnchorId, AnchorState> = BTreeMap::new();
    let Some(fold) = &feature.fold else { return Ok((states, true)) };
    let mut read = 0;
    while states.len() < STEP_ANCHORS_MAX && read < STEP_EVENTS_MAX {
        let Some(page) = open.pages.next().await else { return Ok((states, true)) };
        for event in page? {
            if event.position <= open.cursor || event.position > feature.history_until {
                continue;
            }
            read += 1;
            for (_, told) in told(&event).filter(|(name, _)| *name == fold.event) {
                states.entry(event.anchor.clone()).or_default().observe(know.grid(), feature.id, fold, &told);
            }
            open.cursor = event.position;
        }
    }
    Ok((states, false))
}

impl Task for Fill {
    fn name(&self) -> &'static str {
        "know fill"
    }

    fn waits(&self) -> Waits {
        Waits::topics(&[DEFINITIONS], Duration::from_millis(500))
    }

    fn step<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<Progress, Problem>> {
        self.run(fence).boxed()
    }
}
