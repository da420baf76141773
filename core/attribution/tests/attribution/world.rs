//! A small group for the tests: two projects, customers whose anchors are told by a table, a clock that stands.

use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_attribution::{
    Advance, Attribution, Basis, Customers, FullChain, GroupBy, ImportSpend, Imported, Lead, Model, Platform, ReportQuery, SubmitLead,
};
use heyuan_contract::{AnchorId, CustomerId, DomainEvent, LeadId, LeadStage, Line, OrgUnitId, Timestamp, Touch, UnitKind};
use heyuan_harness::TestDatabase;
use heyuan_kernel::lease;
use heyuan_kernel::org::OrgUnit;
use heyuan_kernel::outbox::{self, Envelope};
use heyuan_kernel::secret::{Key, TenantKeys};
use heyuan_kernel::{Actor, Clock, Database, Kernel, Location, Problem, Reach, Scope, Zone, sql};
use sea_orm_migration::MigratorTrait;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

/// 2026-11-01T00:00:00+08:00
pub(crate) const START: i64 = 1_793_462_400_000;
pub(crate) const DAY: i64 = 86_400_000;

/// Anchors are `a-<value>`; who they belong to is told by the test.
#[derive(Default)]
struct Told {
    customers: Mutex<HashMap<String, String>>,
}

impl Customers for Told {
    fn anchor_for<'a>(
        &'a self,
        _: &'a Actor,
        _: &'a OrgUnitId,
        identifiers: &'a [(String, String)],
    ) -> BoxFuture<'a, Result<AnchorId, Problem>> {
        async move { Ok(AnchorId::new(format!("a-{}", identifiers[0].1)).expect("a valid id")) }.boxed()
    }

    fn customers_of<'a>(&'a self, anchors: &'a [AnchorId]) -> BoxFuture<'a, Result<HashMap<AnchorId, CustomerId>, Problem>> {
        async move {
            let known = self.customers.lock().expect("not poisoned");
            let found = anchors.iter().filter_map(|anchor| Some((anchor.clone(), CustomerId::new(known.get(anchor.as_str())?).ok()?)));
            Ok(found.collect())
        }
        .boxed()
    }
}

pub(crate) struct World {
    pub(crate) kernel: Kernel,
    pub(crate) attribution: Attribution,
    pub(crate) clock: Clock,
    told: Arc<Told>,
    _place: TestDatabase,
}

impl World {
    pub(crate) async fn new(place: TestDatabase) -> World {
        let db = Database::open(&Location::new(place.data_dir(), place.database_url())).await.expect("the database opens");
        let connection = sea_orm::Database::connect(match place.database_url() {
            Some(url) => url.to_owned(),
            None => format!("sqlite://{}?mode=rwc", place.data_dir().join("heyuan.db").display()),
        });
        let connection = connection.await.expect("the database opens for migrations");
        heyuan_kernel::migration::Migrator::up(&connection, None).await.expect("the kernel migrates");
        heyuan_attribution::migration::Migrator::up(&connection, None).await.expect("attribution migrates");
        connection.close().await.expect("the connection closes");
        let clock = Clock::standing(Timestamp::clamped(START + 20 * DAY));
        let keys = TenantKeys::new(&Key::from_bytes([7; 32]));
        let zone = Zone::named("Asia/Shanghai").expect("the zone is known");
        let kernel = Kernel::open(db, keys, clock.clone(), zone).await.expect("the kernel opens");
        let told = Arc::new(Told::default());
        let attribution = Attribution::new(kernel.clone(), told.clone());
        let unit = |id: &str, parent: Option<&str>, kind, line| OrgUnit {
            id: unit(id),
            parent: parent.map(|parent| OrgUnitId::new(parent).expect("a valid id")),
            name: id.to_owned(),
            kind,
            line,
        };
        let tree = vec![
            unit("group", None, UnitKind::Group, None),
            unit("river", Some("group"), UnitKind::Project, Some(Line::Residential)),
            unit("hill", Some("group"), UnitKind::Project, Some(Line::Residential)),
        ];
        kernel.org.put(tree).await.expect("the units are put");
        World { kernel, attribution, clock, told, _place: place }
    }

    /// From now on these anchors belong to one customer.
    pub(crate) fn same_customer(&self, customer: &str, anchors: &[&str]) {
        let mut known = self.told.customers.lock().expect("not poisoned");
        known.extend(anchors.iter().map(|anchor| (format!("a-{anchor}"), customer.to_owned())));
    }

    pub(crate) async fn import(&self, platform: Platform, at: &str, text: &str) -> Result<Imported, Problem> {
        self.import_bytes(&admin(), platform, at, text.as_bytes().to_vec()).await
    }

    pub(crate) async fn import_bytes(&self, actor: &Actor, platform: Platform, at: &str, bytes: Vec<u8>) -> Result<Imported, Problem> {
        let import = ImportSpend { platform, unit: unit(at), bytes, charset: None };
        Ok(self.attribution.import_spend(actor, import).await?)
    }

    /// A visit that an ad brought: `day` days after the start.
    pub(crate) async fn touched(&self, message: &str, anchor: &str, day: i64, touch: Touch) {
        let event = DomainEvent::CampaignTouched {
            anchor: AnchorId::new(format!("a-{anchor}")).expect("a valid id"),
            message_id: message.to_owned(),
            unit: Some(unit("river")),
            touch,
            occurred_at: at(day),
        };
        self.hear(event).await;
    }

    /// Runs every reaction that wants the event, twice, as a retry would.
    pub(crate) async fn hear(&self, event: DomainEvent) {
        let envelope = Envelope { position: 1, key: "k".into(), event, written_at: at(0) };
        for reaction in self.attribution.reactions().into_iter().filter(|reaction| reaction.wants(envelope.event.name())) {
            for _ in 0..2 {
                let apply = Arc::new(reaction.react(&envelope).await.expect("decided"));
                let write = self.kernel.db.write("hear", move |tx| {
                    let apply = apply.clone();
                    async move { apply(tx).await }.boxed()
                });
                write.await.expect("applied");
            }
        }
    }

    pub(crate) async fn lead(&self, id: &str, phone: &str, day: i64, click_id: Option<&str>) -> Lead {
        let lead = lead(id, phone, day, click_id);
        self.attribution.submit_lead(&app(), Some(&format!("key-{id}")), lead).await.expect("submitted")
    }

    pub(crate) async fn advance(&self, id: &str, stage: LeadStage, day: i64, contract: Option<&str>) -> Result<Lead, Problem> {
        let advance = Advance { stage, occurred_at: at(day), amount: None, contract: contract.map(str::to_owned) };
        Ok(self.attribution.advance_lead(&app(), &LeadId::new(id).expect("a valid id"), advance).await?)
    }

    pub(crate) async fn report(&self, query: ReportQuery) -> FullChain {
        self.attribution.full_chain(&admin(), query).await.expect("a report")
    }

    pub(crate) async fn told_of(&self, name: &str) -> usize {
        let fence = lease::acquire(&self.kernel.db, "processor", "test").await.expect("the lease is read").expect("nobody else holds it");
        while outbox::sequence(&self.kernel.db, &fence).await.expect("the outbox is numbered") > 0 {}
        let told = outbox::read_after(&self.kernel.db, 0, 10_000, |_| true).await.expect("the outbox is read").events;
        told.iter().filter(|envelope| envelope.event.name() == name).count()
    }

    pub(crate) async fn number(&self, text: &str) -> i64 {
        let row = sql::one(self.kernel.db.reader(), text, []).await.expect("the statement runs").expect("a row");
        sql::get(&row, "n").expect("a number n")
    }
}

pub(crate) fn at(day: i64) -> Timestamp {
    Timestamp::clamped(START + day * DAY)
}

pub(crate) fn lead(id: &str, phone: &str, day: i64, click_id: Option<&str>) -> SubmitLead {
    SubmitLead {
        id: LeadId::new(id).expect("a valid id"),
        unit: unit("river"),
        identifiers: vec![("phone".into(), phone.into())],
        submitted_at: at(day),
        click_id: click_id.map(str::to_owned),
        touch: None,
        adviser: Some("adviser-7".into()),
    }
}

/// A report over November by platform and event date, last touch, everything shown.
pub(crate) fn november() -> ReportQuery {
    ReportQuery {
        from: "2026-11-01".parse().expect("a day"),
        to: "2026-11-30".parse().expect("a day"),
        group_by: GroupBy::Platform,
        basis: Basis::Event,
        model: Model::Last,
        window_days: 30,
        min_sample: 1,
    }
}

pub(crate) fn ad(platform: &str, plan: &str, click_id: Option<&str>) -> Touch {
    Touch {
        platform: Some(platform.to_owned()),
        source: Some(platform.to_owned()),
        medium: Some("cpc".into()),
        campaign: Some(plan.to_owned()),
        click_id: click_id.map(str::to_owned),
        ..Touch::default()
    }
}

pub(crate) fn app() -> Actor {
    Actor::key("key:app".into(), vec![Scope::App], None, Reach::Everything)
}

pub(crate) fn admin() -> Actor {
    Actor::key("key:admin".into(), vec![Scope::Admin], None, Reach::Everything)
}

/// A key of one unit with every scope that attribution asks for.
pub(crate) fn key_of(id: &str) -> Actor {
    let reach = Reach::Units(Arc::new(HashSet::from([unit(id)])));
    Actor::key(format!("key:{id}"), vec![Scope::App, Scope::Admin], Some(unit(id)), reach)
}

pub(crate) fn unit(id: &str) -> OrgUnitId {
    OrgUnitId::new(id).expect("a valid id")
}

/// The code of a refusal.
pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, impl Into<Problem>>) -> &'static str {
    result.expect_err("a refusal").into().code().code
}
