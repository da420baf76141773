//! A small group with fake customers and fake rules, and short words for what tests do.

use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_contract::{
    AnchorId, CustomerId, DomainEvent, Fen, Line, MemberId, OrderLine, OrgUnitId, ProductId, Timestamp, TransactionId, UnitKind,
};
use heyuan_harness::TestDatabase;
use heyuan_kernel::error::codes;
use heyuan_kernel::keys::Credentials;
use heyuan_kernel::org::OrgUnit;
use heyuan_kernel::outbox::Envelope;
use heyuan_kernel::plugin::{Active, Installed, PluginKind, Plugins, Runtime};
use heyuan_kernel::secret::{Key, TenantKeys, sha256_hex};
use heyuan_kernel::{Actor, Clock, Database, Kernel, Location, Problem, Reach, Scope, Zone, sql};
use heyuan_ledger::Ledger;
use heyuan_membership::{
    BenefitRules, Change, Customers, Effect, Error, FeatureValue, Features, Identifier, Join, Membership, Report, RuleAnswer, RuleError,
    RuleInput, SessionFor, Spend, SpendView, TransactionKind, TransactionView, Vouchers, Who,
};
use sea_orm_migration::MigratorTrait;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

pub(crate) const DAY_MS: i64 = 86_400_000;
/// 2026-11-10, 08:00 in Shanghai.
pub(crate) const NOW_MS: i64 = 1_793_491_200_000 + 9 * DAY_MS;

pub(crate) fn at(days: i64) -> Timestamp {
    Timestamp::clamped(NOW_MS + days * DAY_MS)
}

pub(crate) fn unit(id: &str) -> OrgUnitId {
    OrgUnitId::new(id).expect("a unit's id")
}

/// Who is who: an anchor for each value, one customer an anchor unless linked.
#[derive(Default)]
pub(crate) struct People {
    links: Mutex<HashMap<String, String>>,
    /// Anchors that were named when a person asked to be erased.
    pub(crate) erased: Mutex<Vec<AnchorId>>,
    /// Sightings that were recorded.
    pub(crate) seen: AtomicUsize,
    /// Whether nobody can be looked up.
    pub(crate) away: AtomicBool,
    /// Anchors whose person has been erased, which membership has not heard of yet.
    pub(crate) gone: Mutex<HashSet<String>>,
}

impl People {
    pub(crate) fn link(&self, values: &[&str], customer: &str) {
        let mut links = self.links.lock().expect("nobody panics with it");
        links.extend(values.iter().map(|value| (format!("anc_{value}"), customer.to_owned())));
    }
}

impl Customers for People {
    fn anchor_for<'a>(&'a self, _: &'a Actor, _: &'a OrgUnitId, list: &'a [Identifier]) -> BoxFuture<'a, Result<AnchorId, Problem>> {
        self.seen.fetch_add(1, Ordering::Relaxed);
        let anchor = AnchorId::new(format!("anc_{}", list[0].value)).map_err(|e| Problem::invalid("value", e.to_string()));
        async move { anchor }.boxed()
    }

    fn find_anchors<'a>(&'a self, list: &'a [Identifier]) -> BoxFuture<'a, Result<Vec<AnchorId>, Problem>> {
        if self.away.load(Ordering::Relaxed) {
            return async { Err(Problem::new(codes::UNAVAILABLE, "the database is away")) }.boxed();
        }
        let anchor = |one: &Identifier| AnchorId::new(format!("anc_{}", one.value)).map_err(|e| Problem::invalid("value", e.to_string()));
        let anchors = list.iter().map(anchor).collect();
        async move { anchors }.boxed()
    }

    fn customer_of<'a>(&'a self, anchor: &'a AnchorId) -> BoxFuture<'a, Result<CustomerId, Problem>> {
        if self.gone.lock().expect("nobody panics with it").contains(anchor.as_str()) {
            return async { Err(Problem::new(codes::ERASED, "the person was erased")) }.boxed();
        }
        let links = self.links.lock().expect("nobody panics with it");
        let customer = links.get(anchor.as_str()).cloned().unwrap_or_else(|| anchor.as_str().replace("anc", "cus"));
        async move { Ok(CustomerId::new(customer).expect("an id")) }.boxed()
    }

    fn anchors_of<'a>(&'a self, customer: &'a CustomerId) -> BoxFuture<'a, Result<Vec<AnchorId>, Problem>> {
        let links = self.links.lock().expect("nobody panics with it");
        let linked = links.iter().filter(|(_, other)| *other == customer.as_str()).map(|(anchor, _)| anchor.clone());
        let anchors = linked.map(|anchor| AnchorId::new(anchor).expect("an id")).collect();
        async move { Ok(anchors) }.boxed()
    }

    fn erase<'a>(&'a self, _: &'a Actor, proven: &'a [AnchorId], unclaimed: &'a [AnchorId]) -> BoxFuture<'a, Result<(), Problem>> {
        let named: BTreeSet<AnchorId> = proven.iter().chain(unclaimed).cloned().collect();
        self.erased.lock().expect("nobody panics with it").extend(named);
        async move { Ok(()) }.boxed()
    }

    fn features<'a>(&'a self, _: &'a AnchorId, names: &'a [String]) -> BoxFuture<'a, Result<Features, Problem>> {
        async move { Ok(Features { values: names.iter().map(|_| FeatureValue::Integer(7)).collect(), position: 42 }) }.boxed()
    }
}

/// The mall's vouchers, each with the unit that redeems it.
pub(crate) struct Shelf(pub(crate) Mutex<HashMap<String, OrgUnitId>>);

impl Default for Shelf {
    fn default() -> Shelf {
        Shelf(Mutex::new(HashMap::from([("prd_tea".to_owned(), unit("mall-1"))])))
    }
}

impl Vouchers for Shelf {
    fn unit_of<'a>(&'a self, product: &'a ProductId) -> BoxFuture<'a, Result<Option<OrgUnitId>, Problem>> {
        let found = self.0.lock().expect("nobody panics with it").get(product.as_str()).cloned();
        async move { Ok(found) }.boxed()
    }
}

type Hook = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Rules in plain code; the module's text is the behaviour.
#[derive(Default)]
pub(crate) struct Sandbox {
    behaviours: Mutex<HashMap<String, String>>,
    pub(crate) during: Mutex<Option<Hook>>,
}

impl Runtime for Sandbox {
    fn install(&self, module: Vec<u8>) -> BoxFuture<'_, Result<Installed, Problem>> {
        let digest = sha256_hex(&module);
        let behaviour = String::from_utf8(module).expect("tests write text");
        self.behaviours.lock().expect("nobody panics with it").insert(digest.clone(), behaviour);
        let description = serde_json::json!({"reads": [{"name": "rule.points_this_month", "kind": "integer"}, {"name": "visits"}]});
        async move { Ok(Installed { digest, kind: PluginKind::BenefitRule, description }) }.boxed()
    }
}

impl BenefitRules for Sandbox {
    fn canonical(&self, _: &Active, input: &RuleInput) -> Result<Vec<u8>, Problem> {
        Ok(serde_json::to_vec(input).expect("plain data"))
    }

    fn decide<'a>(&'a self, digest: &'a str, input: &'a [u8]) -> BoxFuture<'a, Result<RuleAnswer, RuleError>> {
        async move {
            let hook = self.during.lock().expect("nobody panics with it").take();
            if let Some(hook) = hook {
                hook().await;
            }
            let behaviour = self.behaviours.lock().expect("nobody panics with it").get(digest).cloned().expect("it is installed");
            let input: RuleInput = serde_json::from_slice(input).map_err(|e| RuleError::Failed(e.to_string()))?;
            let base = input.transaction.base_points;
            let effects = match behaviour.split_once(' ').map_or((behaviour.as_str(), ""), |parts| parts) {
                ("double", _) => vec![Change::Points(base)],
                ("growth", number) => vec![Change::Growth(number.parse().expect("a number"))],
                ("points", number) => vec![Change::Points(number.parse().expect("a number"))],
                ("benefit", code) => vec![Change::Benefit(code.to_owned())],
                ("voucher", code) => vec![Change::Voucher(code.to_owned())],
                ("stop", _) => return Err(RuleError::Stopped("out of fuel".into())),
                ("fail", _) => return Err(RuleError::Failed("it trapped".into())),
                _ => vec![],
            };
            let effects: Vec<Effect> = effects.into_iter().map(|change| Effect { change, reason: "because".into() }).collect();
            Ok(RuleAnswer { output: serde_json::to_vec(&effects).expect("plain data"), effects, fuel: 1 })
        }
        .boxed()
    }
}

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) membership: Membership,
    pub(crate) kernel: Kernel,
    pub(crate) ledger: Ledger,
    pub(crate) plugins: Plugins,
    pub(crate) people: Arc<People>,
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) app: Actor,
    pub(crate) admin: Actor,
}

pub(crate) async fn world(database: &TestDatabase) -> World {
    let location = match database.database_url() {
        Some(url) => Location::Postgres(url.to_owned()),
        None => Location::Sqlite(database.data_dir().join("test.sqlite")),
    };
    let connection = sea_orm::Database::connect(database.connection_url()).await.expect("the place opens");
    heyuan_kernel::migration::Migrator::up(&connection, None).await.expect("the kernel migrates");
    heyuan_ledger::Migrator::up(&connection, None).await.expect("the ledger migrates");
    heyuan_membership::Migrator::up(&connection, None).await.expect("membership migrates");
    let db = Database::open(&location).await.expect("the database opens");
    let keys = TenantKeys::new(&Key::from_bytes([7; 32]));
    let zone = Zone::named("Asia/Shanghai").expect("a zone");
    let kernel = Kernel::open(db.clone(), keys.clone(), Clock::standing(at(0)), zone).await.expect("the kernel opens");
    let node = |id: &str, parent: Option<&str>, kind, line| OrgUnit { id: unit(id), parent: parent.map(unit), name: id.into(), kind, line };
    let units = vec![
        node("group", None, UnitKind::Group, None),
        node("mall-1", Some("group"), UnitKind::Mall, Some(Line::Mall)),
        node("hotel-1", Some("group"), UnitKind::Hotel, Some(Line::Hotel)),
        node("community-1", Some("group"), UnitKind::Community, Some(Line::Community)),
    ];
    kernel.org.put(units).await.expect("the tree is put");
    let ledger = Ledger::new(kernel.clone());
    let credentials = Credentials::new(db.clone(), kernel.org.clone(), keys, kernel.clock.clone());
    let (people, sandbox) = (Arc::new(People::default()), Arc::new(Sandbox::default()));
    let plugins = Plugins::new(db, sandbox.clone());
    let shelf = Arc::new(Shelf::default());
    let membership =
        Membership::new(kernel.clone(), ledger.clone(), credentials, plugins.clone(), people.clone(), sandbox.clone(), shelf.clone());
    membership.prepare().await.expect("accounts open");
    membership.prepare().await.expect("and stay open");
    let app = Actor::key("key:app".into(), vec![Scope::App], None, Reach::Everything);
    let admin = Actor::key("key:admin".into(), vec![Scope::App, Scope::Admin], None, Reach::Everything);
    World { membership, kernel, ledger, plugins, people, sandbox, shelf, app, admin }
}

pub(crate) fn phone(value: &str) -> (Identifier, bool) {
    (Identifier { kind: "phone".into(), value: value.into(), app: None }, true)
}

pub(crate) fn purchase(id: &str, place: &str, fen: i64, member: &MemberId) -> Report {
    Report {
        id: TransactionId::new(id).expect("an id"),
        unit: unit(place),
        kind: TransactionKind::Purchase,
        refund_of: None,
        occurred_at: at(0),
        amount: Fen(fen),
        currency: "CNY".into(),
        who: Some(Who::Member(member.clone())),
        lines: vec![OrderLine { sku: "tea".into(), category: "food".into(), quantity: 1, amount: Fen(fen) }],
    }
}

pub(crate) fn refund(id: &str, of: &str, place: &str, fen: i64) -> Report {
    Report {
        id: TransactionId::new(id).expect("an id"),
        unit: unit(place),
        kind: TransactionKind::Refund,
        refund_of: Some(TransactionId::new(of).expect("an id")),
        occurred_at: at(0),
        amount: Fen(fen),
        currency: "CNY".into(),
        who: None,
        lines: Vec::new(),
    }
}

pub(crate) fn code(error: Error) -> &'static str {
    Problem::from(error).code().code
}

impl World {
    pub(crate) async fn join(&self, value: &str) -> MemberId {
        let join = Join { unit: unit("mall-1"), identifiers: vec![phone(value)], session: SessionFor::NewMembers };
        self.membership.join(&self.app, &join).await.expect("it joins").id
    }

    pub(crate) async fn report(&self, report: &Report) -> Result<TransactionView, Error> {
        let key = format!("key-{}-{}", report.unit, report.id);
        self.membership.report(&self.app, report, Some(&key)).await
    }

    pub(crate) async fn spend(&self, member: &MemberId, amount: i64, key: &str) -> Result<SpendView, Error> {
        let spend = Spend { amount, unit: unit("hotel-1"), reference: "late check-out".into() };
        self.membership.spend(&self.app, member, &spend, Some(key)).await
    }

    pub(crate) async fn activate(&self, name: &str, behaviour: &str) -> String {
        let version = self.plugins.upload(&self.admin, name, behaviour.as_bytes().to_vec()).await.expect("it is taken");
        self.plugins.activate(&self.admin, name, &version.digest, 10, &version.reads).await.expect("it counts").digest
    }

    /// Growth, points that can be spent, points owed.
    pub(crate) async fn holds(&self, member: &MemberId) -> (i64, i64, i64) {
        let view = self.membership.member(&self.app, member).await.expect("it is a member");
        (view.growth, view.points, view.points_owed)
    }

    /// Hands an event to whoever of membership wants it, as the pump does.
    pub(crate) async fn tell(&self, event: DomainEvent) {
        for reaction in self.membership.reactions() {
            if !reaction.wants(event.name()) {
                continue;
            }
            let envelope = Envelope { position: 1, key: "k".into(), event: event.clone(), written_at: at(0) };
            let db = &self.kernel.db;
            let applied = db.settle(|| async {
                let apply = Arc::new(reaction.react(&envelope).await.map_err(heyuan_kernel::Error::Problem)?);
                db.write("react", move |tx| {
                    let apply = apply.clone();
                    async move { apply(tx).await }.boxed()
                })
                .await
            });
            applied.await.expect("it is applied");
        }
    }

    /// An admin key of the whole group that somebody makes, as whoever holds it acts.
    pub(crate) async fn made_by(&self, maker: &Actor) -> Actor {
        let kernel = &self.kernel;
        let credentials = Credentials::new(kernel.db.clone(), kernel.org.clone(), kernel.keys.clone(), kernel.clock.clone());
        let made = credentials.create(maker, &[Scope::Admin], None).await.expect("it may");
        credentials.authenticate(Some(&format!("Bearer {}", made.secret))).await.expect("it is known")
    }

    pub(crate) async fn run(&self, text: &str) {
        let text = text.to_owned();
        self.kernel
            .db
            .write("test", move |tx| {
                let text = text.clone();
                async move { sql::execute(tx.conn(), &text, []).await }.boxed()
            })
            .await
            .expect("the statement runs");
    }

    pub(crate) async fn count(&self, text: &str) -> i64 {
        let row = sql::one(self.kernel.db.reader(), text, []).await.expect("it is read").expect("a row");
        sql::get(&row, "n").expect("a number")
    }

    pub(crate) async fn sound(&self) {
        let report = self.ledger.verify().await.expect("the book can be read");
        assert!(report.is_sound(), "{:?}", report.findings);
    }
}
