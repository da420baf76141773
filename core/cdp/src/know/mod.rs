//! What is known of a customer: features, tags, segments, audiences, portraits and the profile.
//!
//! This part owns the definitions of features, tags and segments, the state that the stream keeps of every anchor, and the standing of
//! every customer. It promises that a feature at an instant and a position is a pure function of events, whichever way it is reckoned;
//! that state, standings, bitmaps and their events commit with the batch that caused them; and that what turns by time turns without an
//! event. It emits `tag.changed`, `segment.changed` and `segment.redefined`, takes batches of known events and changes of identity from
//! the pipeline, and reacts to erasures.

#[cfg(test)]
mod agreement;
mod audience;
mod bitmap;
mod catalogue;
mod codec;
mod column;
mod decide;
mod define;
mod demo;
mod erase;
mod evaluate;
mod expression;
mod fill;
pub mod history;
pub mod http;
mod knowing;
mod memory;
mod parse;
mod portrait;
mod predicate;
mod profile;
mod reader;
mod segment;
mod standing;
mod state;
mod tagger;
mod upkeep;
mod value;
mod window;
mod writes;

pub use audience::AudienceView;
pub use catalogue::{FeatureState, TagCase};
pub use define::{FeatureView, TagView};
pub use demo::{DemoDefinitions, demo_definitions};
pub use expression::{Aggregation, Comparison, Condition, Expression, Fold, Step, Window};
pub use fill::{EventPages, History, NoHistory};
pub use parse::{ParseError, parse};
pub use portrait::{BucketView, FeaturePortrait, PortraitRequest, PortraitView, Tgi};
pub use predicate::{Edge, Predicate, Test};
pub use profile::{FeatureStandingView, ProfileView, SegmentRef, TagStandingView};
pub use reader::FeatureValues;
pub use segment::{SegmentDefinition, SegmentView};
pub use state::{FeatureId, Happening};
pub use tagger::{
    ActiveTagger, Column, ColumnValues, FeatureKind, NoTaggers, TAGGER_ROWS_MAX, TagColumn, TaggerAnswer, TaggerBatch, TaggerFeature,
    Taggers,
};
pub use value::{Number, Value};
pub use window::Grid;

use catalogue::Catalogue;
use heyuan_contract::CustomerId;
use heyuan_kernel::processor::Task;
use heyuan_kernel::pump::Reaction;
use heyuan_kernel::{Database, Error, Kernel, Problem, Tx, sql};
use memory::{Counters, Memory};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Reads may follow definitions this much behind.
const VIEW_AGE_MAX: Duration = Duration::from_millis(500);

/// The stable codes of this part.
pub mod codes {
    use heyuan_kernel::{Code, Kind};

    /// The text is no feature definition.
    pub const BAD_EXPRESSION: Code = Code::new(Kind::Invalid, "bad_expression", "The feature definition can't be read", "特征定义无法解析");
    /// The predicate is no condition over declared features.
    pub const BAD_PREDICATE: Code = Code::new(Kind::Invalid, "bad_predicate", "The condition is not valid", "条件无效");
    /// Tags would read each other in a circle.
    pub const TAG_CIRCLE: Code = Code::new(Kind::Conflict, "tag_circle", "Tags would read each other in a circle", "标签之间存在循环依赖");
    /// The tag is written by something else.
    pub const TAG_TAKEN: Code =
        Code::new(Kind::Conflict, "tag_taken", "The tag is written by something else", "该标签已由其他规则或插件写入");
    /// A tagger reads what is not declared.
    pub const FEATURE_MISSING: Code =
        Code::new(Kind::Invalid, "feature_missing", "A feature that is read is not declared", "读取的特征尚未声明");
    /// No room for another definition.
    pub const DEFINITIONS_FULL: Code =
        Code::new(Kind::Conflict, "definitions_full", "There are as many definitions as a tenant may have", "定义数量已达上限");
    /// A tagger's answer does not fit what it was asked.
    pub const BAD_TAGGER_ANSWER: Code =
        Code::new(Kind::Internal, "bad_tagger_answer", "A tagger's answer does not fit the question", "标签插件返回结果不符");

    /// Every code.
    pub const ALL: &[Code] = &[BAD_EXPRESSION, BAD_PREDICATE, TAG_CIRCLE, TAG_TAKEN, FEATURE_MISSING, DEFINITIONS_FULL, BAD_TAGGER_ANSWER];
}

pub(crate) fn internal(why: &str) -> Problem {
    tracing::error!(why, "an internal error was answered");
    Problem::new(heyuan_kernel::error::codes::INTERNAL, "this is our fault; the log has the cause")
}

/// The door to what is known of customers.
#[derive(Clone)]
pub struct Know {
    inner: Arc<Inner>,
}

struct Inner {
    kernel: Kernel,
    grid: Grid,
    taggers: Arc<dyn Taggers>,
    history: Arc<dyn History>,
    memory: Arc<Mutex<Memory>>,
    /// Set when this process becomes the processor: what an earlier term remembered no longer counts.
    new_term: AtomicBool,
    view: RwLock<View>,
    index: audience::Index,
}

struct View {
    catalogue: Arc<Catalogue>,
    active: Vec<ActiveTagger>,
    counters: Counters,
    checked: Option<Instant>,
}

impl Know {
    /// Over a kernel, the taggers of the tenant, and the history that new features are filled from.
    pub fn new(kernel: Kernel, taggers: Arc<dyn Taggers>, history: Arc<dyn History>) -> Know {
        let catalogue = Arc::new(Catalogue::unread());
        let view = RwLock::new(View { catalogue, active: Vec::new(), counters: Counters::default(), checked: None });
        let grid = Grid::new(kernel.zone.clone());
        let memory = Arc::new(Mutex::new(Memory::new()));
        let inner = Inner { kernel, grid, taggers, history, memory, new_term: AtomicBool::new(false), view, index: audience::Index::new() };
        Know { inner: Arc::new(inner) }
    }

    /// What the processor runs beside the pipeline.
    pub fn tasks(&self) -> Vec<Arc<dyn Task>> {
        vec![Arc::new(upkeep::Upkeep::new(self.clone())), Arc::new(fill::Fill::new(self.clone()))]
    }

    /// What this part does about the events of others.
    pub fn reactions(&self) -> Vec<Arc<dyn Reaction>> {
        vec![Arc::new(erase::Erasure)]
    }

    /// Has customers looked at again soon, in the caller's transaction: consent or something else beside events has changed.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn look_again(tx: &Tx, customers: &[CustomerId]) -> Result<(), Error> {
        for some in customers.chunks(500) {
            let text = format!("UPDATE cdp_standing SET due_at = 0 WHERE customer IN ({})", sql::placeholders(1, some.len()));
            sql::execute(tx.conn(), &text, some.iter().map(|customer| customer.as_str().into()).collect::<Vec<_>>()).await?;
        }
        Ok(())
    }

    pub(crate) fn db(&self) -> &Database {
        &self.inner.kernel.db
    }

    pub(crate) fn kernel(&self) -> &Kernel {
        &self.inner.kernel
    }

    pub(crate) fn grid(&self) -> &Grid {
        &self.inner.grid
    }

    pub(crate) fn taggers(&self) -> &dyn Taggers {
        &*self.inner.taggers
    }

    pub(crate) fn history(&self) -> &dyn History {
        &*self.inner.history
    }

    pub(crate) fn index(&self) -> &audience::Index {
        &self.inner.index
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.inner.kernel.clock.now().ms()
    }

    pub(crate) fn begin_term(&self) {
        self.inner.new_term.store(true, Ordering::SeqCst);
    }

    /// The taggers in force; those last seen when they can't be asked.
    async fn active(&self, seen: &[ActiveTagger]) -> Vec<ActiveTagger> {
        match self.inner.taggers.active().await {
            Ok(active) => active,
            Err(problem) => {
                tracing::warn!(%problem, "the taggers in force could not be read; those last seen stay");
                seen.to_vec()
            }
        }
    }

    /// The processor's memory, brought up to what is committed. Whoever holds it is alone in changing what is known.
    pub(crate) async fn lock(&self) -> Result<OwnedMutexGuard<Memory>, Problem> {
        let mut memory = self.inner.memory.clone().lock_owned().await;
        if self.inner.new_term.swap(false, Ordering::SeqCst) {
            memory.forget();
        }
        let counters = memory::counters(self.db().near()).await?;
        memory.settle(counters);
        let active = self.active(&memory.active).await;
        if memory.catalogue.version != counters.definitions || memory.active != active {
            let catalogue = Catalogue::load(self.db().reader(), counters.definitions, active.clone()).await?;
            memory.catalogue = Arc::new(catalogue);
            memory.active = active;
        }
        Ok(memory)
    }

    /// What is defined, at most half a second old.
    pub(crate) async fn view(&self) -> Result<Arc<Catalogue>, Problem> {
        {
            let view = self.inner.view.read().unwrap_or_else(PoisonError::into_inner);
            if view.checked.is_some_and(|checked| checked.elapsed() < VIEW_AGE_MAX) {
                return Ok(view.catalogue.clone());
            }
        }
        Ok(self.fresh_view().await?.0)
    }

    /// What is defined, and how far everything has come, as committed now.
    pub(crate) async fn fresh_view(&self) -> Result<(Arc<Catalogue>, Counters), Problem> {
        let counters = memory::counters(self.db().near()).await?;
        let (known, seen) = {
            let view = self.inner.view.read().unwrap_or_else(PoisonError::into_inner);
            (view.catalogue.clone(), view.active.clone())
        };
        let active = self.active(&seen).await;
        let catalogue = if known.version == counters.definitions && seen == active {
            known
        } else {
            Arc::new(Catalogue::load(self.db().reader(), counters.definitions, active.clone()).await?)
        };
        let mut view = self.inner.view.write().unwrap_or_else(PoisonError::into_inner);
        *view = View { catalogue: catalogue.clone(), active, counters, checked: Some(Instant::now()) };
        Ok((catalogue, counters))
    }

    /// The last event that answers take into account, at most half a second old.
    pub(crate) fn position_seen(&self) -> i64 {
        self.inner.view.read().unwrap_or_else(PoisonError::into_inner).counters.position
    }

    pub(crate) async fn is_rebuilding(&self) -> Result<bool, Problem> {
        Ok(self.fresh_view().await?.0.rebuilding_from().is_some())
    }
}
