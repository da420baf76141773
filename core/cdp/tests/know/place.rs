//! A tenant small enough for a test: the tables, a clock that stands, and batches as the pipeline hands them over.

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::StreamExt;
use heyuan_cdp::know::{ActiveTagger, EventPages, History, Know, ProfileView, TagCase, TaggerAnswer, TaggerBatch, Taggers};
use heyuan_cdp::{Batch, EventKind, IdentityChange, Knowing, Known, PropertyValue, customer_of_root};
use heyuan_contract::{AnchorId, Cause, CustomerId, DomainEvent, OrgUnitId, Timestamp};
use heyuan_harness::TestDatabase;
use heyuan_kernel::lease;
use heyuan_kernel::processor::Progress;
use heyuan_kernel::secret::{Key, TenantKeys};
use heyuan_kernel::{Actor, Clock, Database, Error, Kernel, Location, Problem, Reach, Scope, Zone, sql};
use sea_orm_migration::MigratorTrait;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

/// 2026-11-01T08:00:00+08:00
pub(crate) const BEGIN_MS: i64 = 1_793_491_200_000;
pub(crate) const HOUR_MS: i64 = 3_600_000;
pub(crate) const DAY_MS: i64 = 24 * HOUR_MS;

/// How a made-up tagger answers.
pub(crate) type Answer = fn(&TaggerBatch) -> Result<TaggerAnswer, Problem>;

/// Taggers and their answers as a test sets them.
#[derive(Default)]
pub(crate) struct Fakes {
    pub active: Mutex<Vec<ActiveTagger>>,
    pub answer: Mutex<Option<Answer>>,
    pub asked_rows: Mutex<usize>,
    pub past: Mutex<Vec<Known>>,
}

impl Taggers for Fakes {
    fn active(&self) -> BoxFuture<'_, Result<Vec<ActiveTagger>, Problem>> {
        let active = self.active.lock().expect("no test panics in here").clone();
        async move { Ok(active) }.boxed()
    }

    fn evaluate<'a>(&'a self, _: &'a ActiveTagger, batch: TaggerBatch) -> BoxFuture<'a, Result<TaggerAnswer, Problem>> {
        *self.asked_rows.lock().expect("no test panics in here") += batch.rows;
        let answer = *self.answer.lock().expect("no test panics in here");
        async move { answer.map_or_else(|| Err(Problem::not_found("tagger", "x")), |answer| answer(&batch)) }.boxed()
    }
}

impl History for Fakes {
    fn events<'a>(&'a self, names: &'a [String], after: i64, until: i64) -> BoxFuture<'a, Result<EventPages, Problem>> {
        let past = self.past.lock().expect("no test panics in here").clone();
        let wanted = |event: &Known| after < event.position && event.position <= until && (names.is_empty() || names.contains(&event.name));
        let events: Vec<Known> = past.into_iter().filter(wanted).collect();
        let pages: Vec<_> = events.chunks(3).map(|page| Ok(page.to_vec())).collect();
        async move { Ok(futures::stream::iter(pages).boxed()) }.boxed()
    }

    fn events_of<'a>(&'a self, anchors: &'a [AnchorId], until: i64) -> BoxFuture<'a, Result<Vec<Known>, Problem>> {
        let past = self.past.lock().expect("no test panics in here").clone();
        let events = past.into_iter().filter(|event| event.position <= until && anchors.contains(&event.anchor)).collect();
        async move { Ok(events) }.boxed()
    }
}

pub(crate) struct Place {
    pub know: Know,
    pub fakes: Arc<Fakes>,
    pub db: Database,
    clock: Clock,
    position: Mutex<i64>,
    map: Mutex<HashMap<AnchorId, CustomerId>>,
}

pub(crate) fn admin() -> Actor {
    Actor::system("test")
}

/// A key of one unit alone.
pub(crate) fn key_of(unit: &str, scope: Scope) -> Actor {
    let unit = OrgUnitId::new(unit).expect("valid");
    Actor::key("key_test".into(), vec![scope], Some(unit.clone()), Reach::Units(Arc::new([unit].into())))
}

pub(crate) fn anchor(name: &str) -> AnchorId {
    AnchorId::new(format!("anc_{name}")).expect("valid")
}

pub(crate) fn customer(name: &str) -> CustomerId {
    customer_of_root(&anchor(name))
}

pub(crate) fn case(value: &str, when: serde_json::Value) -> TagCase {
    TagCase { value: value.into(), when }
}

/// An event of an anchor that happened so long before it arrives.
pub(crate) fn event(name: &str, who: &str, ago_ms: i64, properties: &[(&str, PropertyValue)]) -> Known {
    Known {
        position: 0,
        message_id: String::new(),
        kind: if name == "profile" { EventKind::Identify } else { EventKind::Track },
        name: name.into(),
        anchor: anchor(who),
        identifiers: vec![anchor(who)],
        unit: Some(OrgUnitId::new("mall-a").expect("valid")),
        app: "test".into(),
        occurred_at: Timestamp::clamped(-ago_ms),
        arrived_at: Timestamp::clamped(0),
        properties: if name == "profile" { BTreeMap::new() } else { values(properties) },
        traits: if name == "profile" { values(properties) } else { BTreeMap::new() },
        touch: None,
        sealed: None,
    }
}

fn values(properties: &[(&str, PropertyValue)]) -> BTreeMap<String, PropertyValue> {
    properties.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

impl Place {
    pub(crate) async fn new(database: &TestDatabase) -> Place {
        let location = Location::new(database.data_dir(), database.database_url());
        let db = Database::open(&location).await.expect("the database opens");
        heyuan_kernel::migration::Migrator::up(db.reader(), None).await.expect("the kernel's tables are made");
        heyuan_cdp::Migrator::up(db.reader(), None).await.expect("the tables are made");
        let clock = Clock::standing(Timestamp::clamped(BEGIN_MS));
        let zone = Zone::named("Asia/Shanghai").expect("the zone exists");
        let keys = TenantKeys::new(&Key::from_bytes([7; 32]));
        let kernel = Kernel::open(db.clone(), keys, clock.clone(), zone).await.expect("the kernel opens");
        let fakes = Arc::new(Fakes::default());
        let know = Know::new(kernel, fakes.clone(), fakes.clone());
        Place { know, fakes, db, clock, position: Mutex::new(0), map: Mutex::new(HashMap::new()) }
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.now().ms()
    }

    pub(crate) fn pass(&self, ms: i64) {
        self.clock.set(self.clock.now().plus_ms(ms));
    }

    /// Hands events over as one batch, each anchor a customer of its own until told otherwise.
    pub(crate) async fn deliver(&self, events: Vec<Known>) {
        self.deliver_with(events, Vec::new()).await;
    }

    pub(crate) async fn deliver_with(&self, events: Vec<Known>, changes: Vec<IdentityChange>) {
        let batch = self.batch(events, changes);
        self.fakes.past.lock().expect("no test panics in here").extend(batch.events.clone());
        self.db.settle(|| self.write(&batch)).await.expect("the batch is written");
    }

    fn batch(&self, mut events: Vec<Known>, changes: Vec<IdentityChange>) -> Batch {
        let mut position = self.position.lock().expect("no test panics in here");
        let mut map = self.map.lock().expect("no test panics in here");
        let from = *position + 1;
        let mut identity = Vec::new();
        for event in &mut events {
            *position += 1;
            event.position = *position;
            event.message_id = format!("m{}", *position);
            event.occurred_at = Timestamp::clamped(self.now_ms() + event.occurred_at.ms());
            event.arrived_at = Timestamp::clamped(self.now_ms());
            if !map.contains_key(&event.anchor) {
                let after = customer_of_root(&event.anchor);
                map.insert(event.anchor.clone(), after.clone());
                identity.push(IdentityChange { anchor: event.anchor.clone(), before: None, after, cause: Cause::Event });
            }
        }
        for change in changes {
            map.insert(change.anchor.clone(), change.after.clone());
            identity.push(change);
        }
        let named = events.iter().map(|event| &event.anchor).chain(identity.iter().map(|change| &change.anchor));
        let customers = named.map(|anchor| (anchor.clone(), map[anchor].clone())).collect();
        Batch { events, identity, customers, from, to: *position }
    }

    async fn write(&self, batch: &Batch) -> Result<(), Error> {
        let prepared = self.know.prepare(batch).await.map_err(Error::Problem)?;
        let (know, batch, prepared) = (self.know.clone(), batch.clone(), Arc::new(prepared));
        self.db
            .write("test batch", move |tx| {
                let (know, batch, prepared) = (know.clone(), batch.clone(), prepared.clone());
                async move {
                    for change in &batch.identity {
                        let root = change.after.as_str().replace("cus_", "anc_");
                        sql::execute(
                            tx.conn(),
                            "INSERT INTO cdp_node (id, kind, blocked, shared, oversized, first_seen, last_seen, cluster, revision)
                             VALUES ($1, 'device', 0, 0, 0, 0, 0, $2, 0) ON CONFLICT (id) DO UPDATE SET cluster = excluded.cluster",
                            [change.anchor.as_str().into(), root.into()],
                        )
                        .await?;
                    }
                    know.apply(tx, &batch, &**prepared).await
                }
                .boxed()
            })
            .await
    }

    /// Runs the processor's tasks until none finds anything to do.
    pub(crate) async fn settle(&self) {
        for _ in 0..1000 {
            let fence = lease::acquire(&self.db, "processor", "test").await.expect("the lease is read").expect("nobody else holds it");
            let mut busy = false;
            for task in self.know.tasks() {
                busy |= task.step(&fence).await.expect("the step works") == Progress::Busy;
            }
            if !busy {
                return;
            }
        }
        panic!("the tasks never come to rest");
    }

    pub(crate) async fn feature(&self, name: &str, expression: &str) {
        self.know.put_feature(&admin(), name, expression).await.expect("the feature is declared");
        self.settle().await;
    }

    pub(crate) async fn tag(&self, name: &str, cases: Vec<TagCase>) {
        self.know.put_tag(&admin(), name, cases).await.expect("the rule is written");
        self.settle().await;
    }

    pub(crate) async fn profile(&self, who: &str) -> ProfileView {
        self.know.profile(&admin(), &customer(who)).await.expect("the customer is known")
    }

    /// A tag's value and the cause of it.
    pub(crate) async fn tag_of(&self, who: &str, tag: &str) -> Option<(String, String)> {
        self.profile(who).await.tags.into_iter().find(|found| found.name == tag).map(|found| (found.value, found.cause))
    }

    /// A feature's value as JSON.
    pub(crate) async fn value_of(&self, who: &str, feature: &str) -> Option<serde_json::Value> {
        let found = self.profile(who).await.features.into_iter().find(|found| found.name == feature);
        found.map(|found| serde_json::to_value(found.value).expect("a value is JSON"))
    }

    /// The events emitted so far, which are taken out.
    pub(crate) async fn emitted(&self) -> Vec<DomainEvent> {
        let rows = sql::all(self.db.reader(), "SELECT body FROM kernel_outbox ORDER BY id", []).await.expect("the outbox is read");
        let events = rows.iter().map(|row| serde_json::from_str(&sql::get::<String>(row, "body").expect("text")).expect("an event"));
        let events = events.collect();
        self.db
            .write("empty the outbox", |tx| async { sql::execute(tx.conn(), "DELETE FROM kernel_outbox", []).await }.boxed())
            .await
            .expect("the outbox is emptied");
        events
    }

    /// Tag changes emitted so far: customer, tag, value, cause.
    pub(crate) async fn tag_changes(&self) -> Vec<(String, String, Option<String>, Cause)> {
        let changes = self.emitted().await.into_iter().filter_map(|event| match event {
            DomainEvent::TagChanged { customer, tag, value, cause, .. } => Some((customer.to_string(), tag.to_string(), value, cause)),
            _ => None,
        });
        changes.collect()
    }
}

pub(crate) fn moved(who: &str, before: &str, after: &str, cause: Cause) -> IdentityChange {
    IdentityChange { anchor: anchor(who), before: Some(customer(before)), after: customer(after), cause }
}

pub(crate) fn text(text: &str) -> PropertyValue {
    PropertyValue::Text(text.into())
}

pub(crate) fn whole(value: i64) -> PropertyValue {
    PropertyValue::Integer(value)
}
