//! A small mall for the tests: two merchants, goods and a voucher, a clock that stands, and notifications signed as the gateway does.

use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_contract::{Fen, Line, MemberId, OrgUnitId, ProductId, Ratio, Timestamp, UnitKind};
use heyuan_harness::TestDatabase;
use heyuan_kernel::config::Secret;
use heyuan_kernel::lease::{self, Fence};
use heyuan_kernel::org::OrgUnit;
use heyuan_kernel::outbox::{self, Envelope};
use heyuan_kernel::processor::Progress;
use heyuan_kernel::secret::{Key, TenantKeys};
use heyuan_kernel::{Actor, Clock, Database, Kernel, Location, Problem, Reach, Scope, Zone, sql};
use heyuan_mall::{
    Checkout, CheckoutLine, Mall, Members, PlaceOrder, PointsWanted, ProductKind, PutMerchant, PutProduct, Settings, StockChange, sign,
};
use sea_orm_migration::MigratorTrait;
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

pub(crate) const SECRET: &str = "a secret of tests";
pub(crate) const MEMBER: &str = "mbr_1";
/// 2026-11-01T08:00:00+08:00
pub(crate) const START: i64 = 1_793_491_200_000;
pub(crate) const MINUTE: i64 = 60_000;

/// Who is a member, and the points that are set aside: by the name of the hold.
#[derive(Default)]
pub(crate) struct Everybody {
    aside: Mutex<BTreeMap<String, i64>>,
}

/// Points that every member has.
pub(crate) const POINTS: i64 = 10_000;

impl Members for Everybody {
    fn exists<'a>(&'a self, member: &'a MemberId) -> BoxFuture<'a, Result<bool, Problem>> {
        async move { Ok(member.as_str().starts_with("mbr_")) }.boxed()
    }

    fn set_aside<'a>(&'a self, _: &'a Actor, wanted: &'a PointsWanted) -> BoxFuture<'a, Result<String, Problem>> {
        let mut aside = self.aside.lock().expect("nobody panics with it");
        let others: i64 = aside.iter().filter(|(name, _)| **name != wanted.name).map(|(_, points)| points).sum();
        let answer = if others + wanted.points > POINTS {
            Err(Problem::invalid("points", "the member has fewer"))
        } else {
            aside.insert(wanted.name.clone(), wanted.points);
            Ok(wanted.name.clone())
        };
        async move { answer }.boxed()
    }

    fn set_free<'a>(&'a self, _: &'a MemberId, hold: &'a str) -> BoxFuture<'a, Result<(), Problem>> {
        self.aside.lock().expect("nobody panics with it").remove(hold);
        async move { Ok(()) }.boxed()
    }
}

impl Everybody {
    /// Points that are set aside now.
    pub(crate) fn aside(&self) -> i64 {
        self.aside.lock().expect("nobody panics with it").values().sum()
    }
}

pub(crate) struct World {
    pub(crate) kernel: Kernel,
    pub(crate) mall: Mall,
    pub(crate) clock: Clock,
    pub(crate) members: Arc<Everybody>,
    keys: AtomicU64,
    _place: TestDatabase,
}

impl World {
    pub(crate) async fn new(place: TestDatabase) -> World {
        World::with(place, Settings { payment_secret: Some(Secret::new(SECRET)), ..Settings::default() }).await
    }

    pub(crate) async fn with(place: TestDatabase, settings: Settings) -> World {
        let db = Database::open(&Location::new(place.data_dir(), place.database_url())).await.expect("the database opens");
        let connection = sea_orm::Database::connect(match place.database_url() {
            Some(url) => url.to_owned(),
            None => format!("sqlite://{}?mode=rwc", place.data_dir().join("heyuan.db").display()),
        });
        let connection = connection.await.expect("the database opens for migrations");
        heyuan_kernel::migration::Migrator::up(&connection, None).await.expect("the kernel migrates");
        heyuan_ledger::Migrator::up(&connection, None).await.expect("the ledger migrates");
        heyuan_mall::migration::Migrator::up(&connection, None).await.expect("the mall migrates");
        connection.close().await.expect("the connection closes");
        let clock = Clock::standing(Timestamp::clamped(START));
        let keys = TenantKeys::new(&Key::from_bytes([7; 32]));
        let zone = Zone::named("Asia/Shanghai").expect("the zone is known");
        let kernel = Kernel::open(db, keys, clock.clone(), zone).await.expect("the kernel opens");
        let members = Arc::new(Everybody::default());
        let mall = Mall::new(kernel.clone(), members.clone(), settings);
        let world = World { kernel, mall, clock, members, keys: AtomicU64::new(0), _place: place };
        world.furnish().await;
        world
    }

    async fn furnish(&self) {
        let unit = |id: &str, parent: Option<&str>, kind, line| OrgUnit {
            id: unit(id),
            parent: parent.map(|parent| OrgUnitId::new(parent).expect("a valid id")),
            name: id.to_owned(),
            kind,
            line,
        };
        let tree = vec![
            unit("group", None, UnitKind::Group, None),
            unit("mall-hz", Some("group"), UnitKind::Mall, Some(Line::Mall)),
            unit("mall-cd", Some("group"), UnitKind::Mall, Some(Line::Mall)),
        ];
        self.kernel.org.put(tree).await.expect("the units are put");
        for (id, at, rate) in [("books", "mall-hz", 8), ("tea", "mall-hz", 5), ("toys", "mall-cd", 0)] {
            let commission_rate = Ratio::new(rate, 100).expect("a ratio");
            let put = PutMerchant { name: id.to_owned(), unit: self::unit(at), commission_rate };
            self.mall.put_merchant(&admin(), id.parse().expect("a valid id"), put).await.expect("the merchant is put");
        }
        self.product("book", "books", ProductKind::Goods, 1000, 100).await;
        self.product("pen", "books", ProductKind::Goods, 333, 100).await;
        self.product("tea-voucher", "tea", ProductKind::Voucher, 1999, 100).await;
        self.product("robot", "toys", ProductKind::Goods, 50_000, 1).await;
    }

    pub(crate) async fn product(&self, id: &str, merchant: &str, kind: ProductKind, price: i64, stock: i64) {
        let put = PutProduct {
            merchant: merchant.parse().expect("a valid id"),
            name: id.to_owned(),
            category: "retail".into(),
            kind,
            price: Fen(price),
            voucher_valid_days: None,
        };
        self.mall.put_product(&admin(), product(id), put).await.expect("the product is put");
        let change = StockChange { change: stock, reason: "opening".into() };
        self.mall.change_stock(&admin(), Some(&self.key()), &product(id), change).await.expect("the stock is set");
    }

    /// A fresh idempotency key.
    pub(crate) fn key(&self) -> String {
        format!("key-{}", self.keys.fetch_add(1, Ordering::SeqCst))
    }

    pub(crate) async fn stock(&self, id: &str) -> i64 {
        self.mall.product(&admin(), &product(id)).await.expect("the product is there").stock
    }

    pub(crate) async fn place(&self, lines: &[(&str, i64)], discount: i64) -> Result<Checkout, Problem> {
        Ok(self.mall.place(&app(), Some(&self.key()), cart(lines, discount)).await?)
    }

    /// Places a cart and has it paid.
    pub(crate) async fn buy(&self, lines: &[(&str, i64)], discount: i64) -> Checkout {
        let checkout = self.place(lines, discount).await.expect("the cart is placed");
        let event = format!("evt-{}", checkout.payment.id);
        self.notify(&event, "payment.succeeded", &checkout.payment.id, checkout.payment.amount.0).await.expect("the payment is taken");
        checkout
    }

    pub(crate) async fn notify(&self, event: &str, kind: &str, reference: &str, amount: i64) -> Result<(), Problem> {
        self.notify_charge(event, kind, reference, amount, "0001").await
    }

    pub(crate) async fn notify_charge(&self, event: &str, kind: &str, reference: &str, amount: i64, charge: &str) -> Result<(), Problem> {
        let body = format!(
            r#"{{"event_id":"{event}","kind":"{kind}","reference":"{reference}","transaction":"{charge}","amount":{amount},"currency":"CNY","timestamp":"2026-11-01T08:00:00+08:00"}}"#
        );
        Ok(self.mall.receive(body.as_bytes(), Some(&sign(&Secret::new(SECRET), body.as_bytes()))).await?)
    }

    pub(crate) async fn payment_state(&self, id: &str) -> String {
        self.mall.payment(&admin(), id).await.expect("the payment is there").state
    }

    pub(crate) fn pass(&self, ms: i64) {
        self.clock.set(self.clock.now().plus_ms(ms));
    }

    pub(crate) async fn fence(&self) -> Fence {
        lease::acquire(&self.kernel.db, "processor", "test").await.expect("the lease is read").expect("nobody else holds it")
    }

    /// Runs the task of this name until it is idle.
    pub(crate) async fn work(&self, name: &str) {
        let fence = self.fence().await;
        let task = self.mall.tasks().into_iter().find(|task| task.name() == name).expect("a task of this name");
        while task.step(&fence).await.expect("the step succeeds") == Progress::Busy {}
    }

    /// Every domain event so far.
    pub(crate) async fn told(&self) -> Vec<Envelope> {
        let fence = self.fence().await;
        while outbox::sequence(&self.kernel.db, &fence).await.expect("the outbox is numbered") > 0 {}
        outbox::read_after(&self.kernel.db, 0, 10_000, |_| true).await.expect("the outbox is read").events
    }

    pub(crate) async fn told_of(&self, name: &str) -> usize {
        self.told().await.iter().filter(|envelope| envelope.event.name() == name).count()
    }

    pub(crate) async fn number(&self, text: &str) -> i64 {
        let row = sql::one(self.kernel.db.reader(), text, []).await.expect("the statement runs").expect("a row");
        sql::get(&row, "n").expect("a number n")
    }
}

pub(crate) fn app() -> Actor {
    Actor::key("key:app".into(), vec![Scope::App], None, Reach::Everything)
}

pub(crate) fn admin() -> Actor {
    Actor::key("key:admin".into(), vec![Scope::Admin], None, Reach::Everything)
}

/// An app key of one unit.
pub(crate) fn app_of(id: &str) -> Actor {
    Actor::key(format!("key:{id}"), vec![Scope::App, Scope::Admin], Some(unit(id)), Reach::Units(Arc::new(HashSet::from([unit(id)]))))
}

pub(crate) fn unit(id: &str) -> OrgUnitId {
    OrgUnitId::new(id).expect("a valid id")
}

pub(crate) fn product(id: &str) -> ProductId {
    ProductId::new(id).expect("a valid id")
}

pub(crate) fn member() -> MemberId {
    MemberId::new(MEMBER).expect("a valid id")
}

pub(crate) fn cart(lines: &[(&str, i64)], discount: i64) -> PlaceOrder {
    let lines = lines.iter().map(|(id, quantity)| CheckoutLine { product: product(id), quantity: *quantity }).collect();
    PlaceOrder { member: member(), lines, discount: Fen(discount), points: 0 }
}

/// The code of a refusal.
pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, impl Into<Problem>>) -> &'static str {
    result.expect_err("a refusal").into().code().code
}
