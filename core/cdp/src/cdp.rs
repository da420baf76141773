//! The facade: collecting, identifying, and what other wings ask.

use crate::collect::backlog::{Backlog, Waiting};
use crate::collect::message_ids::MessageIds;
use crate::collect::{Arrival, Collector, rejected};
use crate::event_type::EventTypes;
use crate::history::{Flush, KnownTail};
use crate::identity::identifier::Identifier;
use crate::identity::plan::{Plan, Sighting};
use crate::identity::resolve::{customer_of_root, root_of_customer};
use crate::identity::{Rules, store};
use crate::pipeline::Knowing;
use crate::pipeline::retention::Retention;
use crate::pipeline::task::Pipeline;
use crate::settings::Collect;
use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_contract::{AnchorId, CustomerId, OrgUnitId};
use heyuan_kernel::lease::Fence;
use heyuan_kernel::processor::Task;
use heyuan_kernel::pump::Reaction;
use heyuan_kernel::{Actor, Error, Kernel, Problem};
use heyuan_lake::{Lake, Tail};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicUsize};
use std::sync::{Arc, OnceLock};
use tokio::sync::broadcast;

/// What else is known of a customer, shown beside its identifiers.
pub trait ProfileSource: Send + Sync {
    /// Members of `profile` in the answer of `GET /v1/customers/{id}`; only what this actor may see, personal values masked.
    fn profile<'a>(
        &'a self,
        actor: &'a Actor,
        customer: &'a CustomerId,
        anchors: &'a [AnchorId],
    ) -> BoxFuture<'a, Result<Map<String, Value>, Problem>>;
}

/// Collects, identifies, and answers who is who. Cheap to clone.
#[derive(Clone)]
pub struct Cdp {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub kernel: Kernel,
    pub settings: Arc<Collect>,
    pub types: EventTypes,
    pub rules: Arc<Rules>,
    pub collector: Collector,
    pub lake: OnceLock<Lake>,
    pub profile: OnceLock<Arc<dyn ProfileSource>>,
}

impl Cdp {
    /// Opens the room on migrated tables. `data` is the folder whose disk must not run full.
    ///
    /// # Errors
    /// [`Error::Setting`] for a setting that makes no sense; [`Error::Database`].
    pub async fn open(kernel: Kernel, settings: Collect, data: &Path) -> Result<Cdp, Error> {
        settings.check()?;
        let settings = Arc::new(settings);
        let types = EventTypes::open(kernel.db.clone()).await?;
        let ids = MessageIds::open(kernel.db.clone(), settings.generation_ids).await?;
        let backlog = Backlog::new(kernel.clone(), settings.clone(), data.to_owned());
        let collector = Collector::start(kernel.clone(), types.clone(), ids, backlog);
        let rules = Arc::new(Rules::built_in());
        let inner = Inner { kernel, settings, types, rules, collector, lake: OnceLock::new(), profile: OnceLock::new() };
        Ok(Cdp { inner: Arc::new(inner) })
    }

    /// Gives the lake from which timelines are read: one that was opened with [`Cdp::tail`].
    pub fn use_lake(&self, lake: Lake) {
        // A second lake would be a wiring mistake; the first stays.
        let _ = self.inner.lake.set(lake);
    }

    /// Takes nothing in either while the disk of this folder is down to the reserve.
    pub fn watch_disk(&self, folder: &Path) {
        self.inner.collector.backlog().watch(folder);
    }

    /// Says who tells more about a customer.
    pub fn use_profile(&self, source: Arc<dyn ProfileSource>) {
        let _ = self.inner.profile.set(source);
    }

    /// Known events that the lake does not hold yet.
    pub fn tail(&self) -> Arc<dyn Tail> {
        Arc::new(KnownTail)
    }

    /// What the processor runs: the pipeline with the rooms that it lets know, the flush to the lake, retention.
    pub fn tasks(&self, knowing: Vec<Arc<dyn Knowing>>) -> Vec<Arc<dyn Task>> {
        let (kernel, settings) = (self.inner.kernel.clone(), self.inner.settings.clone());
        let mut tasks: Vec<Arc<dyn Task>> = vec![Arc::new(Pipeline {
            kernel: kernel.clone(),
            types: self.inner.types.clone(),
            rules: self.inner.rules.clone(),
            settings: settings.clone(),
            knowing,
            portion: AtomicUsize::new(500),
        })];
        if let Some(lake) = self.inner.lake.get() {
            tasks.push(Arc::new(Flush { kernel: kernel.clone(), lake: lake.clone(), settings: settings.clone() }));
        }
        tasks.push(Arc::new(Retention { kernel, ids: self.inner.collector.ids().clone(), settings, looked_at: AtomicI64::new(0) }));
        tasks
    }

    /// What this room does when something happens in another.
    pub fn reactions(&self) -> Vec<Arc<dyn Reaction>> {
        vec![Arc::new(crate::reactions::Facts { kernel: self.inner.kernel.clone() })]
    }

    /// Gives every known event to the lake at once, however few they are.
    ///
    /// # Errors
    /// The lake's and the database's.
    pub async fn flush(&self, fence: &Fence) -> Result<bool, Problem> {
        let Some(lake) = self.inner.lake.get() else { return Ok(false) };
        let flush = Flush { kernel: self.inner.kernel.clone(), lake: lake.clone(), settings: self.inner.settings.clone() };
        flush.flush(fence, true).await
    }

    /// The event types in force.
    pub fn event_types(&self) -> &EventTypes {
        &self.inner.types
    }

    /// The rules by which identifiers are matched.
    pub fn rules(&self) -> &Rules {
        &self.inner.rules
    }

    /// What arrives from now on, with its fate.
    pub fn subscribe(&self) -> broadcast::Receiver<Arrival> {
        self.inner.collector.subscribe()
    }

    /// Whether a disk of the tenant's is down to its reserve, so that events are refused.
    pub fn disk_is_short(&self) -> bool {
        self.inner.collector.backlog().disk_is_short()
    }

    /// What waits to be processed.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn waiting(&self) -> Result<Waiting, Error> {
        self.inner.collector.backlog().waiting().await
    }

    /// What is processed and waits for the lake.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn waiting_for_lake(&self) -> Result<Waiting, Error> {
        self.inner.collector.backlog().waiting_for_lake().await
    }

    /// Bytes of the rejected events that are kept, and how many were not kept because there were too many bytes of them.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn rejected_totals(&self) -> Result<(i64, i64), Error> {
        let conn = self.inner.kernel.db.near();
        Ok((crate::batch_sql::position(conn, rejected::BYTES).await?, crate::batch_sql::position(conn, rejected::UNKEPT).await?))
    }

    /// The position up to which events are known.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn position(&self) -> Result<i64, Error> {
        crate::batch_sql::position(self.inner.kernel.db.near(), crate::pipeline::task::PROCESSED).await
    }

    /// Records identifiers (`phone`, `openid@APP`, `member`, …, with their values) that were seen together just now, and answers the
    /// strongest. Other wings call it for an actor whose right they have checked.
    ///
    /// # Errors
    /// `invalid_request` for an unknown type or a value that can't be one of it; the database's.
    pub async fn observe(&self, actor: &Actor, unit: Option<&OrgUnitId>, identifiers: &[(&str, &str)]) -> Result<AnchorId, Problem> {
        let at = self.inner.kernel.clock.now().ms();
        let sighting = Sighting { identifiers: read(identifiers)?, at, unit: unit.cloned(), source: actor.name().to_owned() };
        let anchor = self.inner.kernel.db.settle(|| self.observe_once(&sighting)).await?;
        anchor.ok_or_else(|| Problem::new(heyuan_kernel::error::codes::ERASED, "the person was erased just now"))
    }

    /// The anchors of those of these identifiers that are known, strongest first. Values that mean nobody count only where nothing else is
    /// named. Nothing is recorded: the look-up of other wings.
    ///
    /// # Errors
    /// As [`Cdp::observe`].
    pub async fn find_anchors(&self, identifiers: &[(&str, &str)]) -> Result<Vec<AnchorId>, Problem> {
        let kernel = &self.inner.kernel;
        let at = kernel.clock.now().ms();
        let mut identifiers = read(identifiers)?;
        let means_nobody = |identifier: &Identifier| match identifier {
            Identifier::Value { kind, value, .. } => self.inner.rules.is_blocked(*kind, value),
            Identifier::Anchor(_) => false,
        };
        if !identifiers.iter().all(means_nobody) {
            identifiers.retain(|identifier| !means_nobody(identifier));
        }
        let sighting = Sighting { identifiers, at, unit: None, source: String::new() };
        let plan = Plan::look_up(kernel.db.near(), kernel, std::slice::from_ref(&sighting)).await?;
        Ok(plan.seen.into_iter().next().unwrap_or_default())
    }

    async fn observe_once(&self, sighting: &Sighting) -> Result<Option<AnchorId>, Error> {
        let kernel = &self.inner.kernel;
        let plan = Plan::make(kernel.db.near(), kernel, &self.inner.rules, std::slice::from_ref(sighting)).await?;
        let anchor = plan.seen.first().and_then(|ids| ids.first()).cloned();
        if plan.tells_nothing() {
            return Ok(anchor);
        }
        self.write_plan("observe identifiers", plan, |_| async { Ok(()) }.boxed()).await?;
        Ok(anchor)
    }

    /// Writes a plan outside the pipeline: later rooms hear of its changes with the next batch.
    pub(crate) async fn write_plan<F>(&self, name: &'static str, plan: Plan, also: F) -> Result<(), Error>
    where
        F: for<'c> Fn(&'c heyuan_kernel::Tx) -> BoxFuture<'c, Result<(), Error>> + Send + Sync + 'static,
    {
        let (plan, rules, now) = (Arc::new(plan), self.inner.rules.clone(), self.inner.kernel.clock.now());
        let also = Arc::new(also);
        self.inner
            .kernel
            .db
            .write(name, move |tx| {
                let (plan, rules, also) = (plan.clone(), rules.clone(), also.clone());
                async move {
                    plan.write(tx, &rules, now).await?;
                    also(tx).await
                }
                .boxed()
            })
            .await
    }

    /// The customers behind anchors; unknown ones are left out.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn customers_of(&self, anchors: &[AnchorId]) -> Result<HashMap<AnchorId, CustomerId>, Error> {
        let rows = store::nodes_by_id(self.inner.kernel.db.near(), anchors).await?;
        Ok(rows.into_iter().map(|row| (row.node.id.clone(), customer_of_root(&row.cluster))).collect())
    }

    /// The customer behind an anchor.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn customer_of(&self, anchor: &AnchorId) -> Result<Option<CustomerId>, Error> {
        Ok(self.customers_of(std::slice::from_ref(anchor)).await?.remove(anchor))
    }

    /// The anchors of a customer, earliest first. Any id ever handed out resolves; an unknown one has none.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn anchors_of(&self, customer: &CustomerId) -> Result<Vec<AnchorId>, Error> {
        let Some(root) = root_of_customer(customer) else { return Ok(Vec::new()) };
        let reader = self.inner.kernel.db.near();
        let rows = store::nodes_of_customer(reader, &root).await?;
        Ok(rows.into_iter().map(|row| row.node.id).collect())
    }

    /// The kernel that this room stands on.
    pub fn kernel(&self) -> &Kernel {
        &self.inner.kernel
    }
}

/// Identifiers that other wings name, each in its one spelling.
fn read(identifiers: &[(&str, &str)]) -> Result<Vec<Identifier>, Problem> {
    let max = crate::identity::identifier::MAX;
    if identifiers.is_empty() || identifiers.len() > max {
        return Err(Problem::invalid("identifiers", format!("1 to {max} identifiers are seen together")));
    }
    let one = |(place, (kind, value)): (usize, &(&str, &str))| {
        let words = format!("expected a type of identifier that we know and a value of it, not {kind}");
        Identifier::read(kind, value, None).ok_or_else(|| Problem::invalid(&format!("identifiers[{place}]"), words))
    };
    identifiers.iter().enumerate().map(one).collect()
}
