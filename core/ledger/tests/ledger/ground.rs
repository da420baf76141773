//! A ledger on an empty database, at a moment that stands.

use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_contract::Timestamp;
use heyuan_harness::TestDatabase;
use heyuan_kernel::secret::{Key, TenantKeys};
use heyuan_kernel::{Clock, Database, Kernel, Location, Tx, Zone, sql};
use heyuan_ledger::{Account, Error, Ledger, Lots, Period, Posted, Transfer};
use sea_orm_migration::MigratorTrait;

pub(crate) const NOW_MS: i64 = 1_793_491_200_000;
pub(crate) const DAY_MS: i64 = 86_400_000;

pub(crate) fn at(days: i64) -> Timestamp {
    Timestamp::clamped(NOW_MS + days * DAY_MS)
}

/// The month of [`NOW_MS`].
pub(crate) fn month() -> Period {
    Period::parse("2026-11").expect("a month")
}

/// A transfer of points of today.
pub(crate) fn transfer(key: &str, debit: &str, credit: &str, amount: i64, lots: Lots) -> Transfer {
    Transfer {
        key: key.into(),
        unit: "points".into(),
        debit: debit.into(),
        credit: credit.into(),
        amount,
        occurred_at: at(0),
        period: month(),
        kind: "move".into(),
        reference: "test".into(),
        lots,
    }
}

pub(crate) async fn ledger(database: &TestDatabase) -> Ledger {
    let location = match database.database_url() {
        Some(url) => Location::Postgres(url.to_owned()),
        None => Location::Sqlite(database.data_dir().join("test.sqlite")),
    };
    let db = Database::open(&location).await.expect("an empty database opens");
    let connection = sea_orm::Database::connect(database.connection_url()).await.expect("the same place opens");
    heyuan_kernel::migration::Migrator::up(&connection, None).await.expect("the kernel migrates");
    heyuan_ledger::Migrator::up(&connection, None).await.expect("the ledger migrates");
    let keys = TenantKeys::new(&Key::from_bytes([7; 32]));
    let clock = Clock::standing(Timestamp::clamped(NOW_MS));
    let zone = Zone::named("Asia/Shanghai").expect("the zone is known");
    Ledger::new(Kernel::open(db, keys, clock, zone).await.expect("the kernel opens"))
}

pub(crate) fn db(ledger: &Ledger) -> Database {
    ledger.database().clone()
}

pub(crate) async fn open(ledger: &Ledger, accounts: Vec<Account>) {
    let inner = ledger.clone();
    db(ledger)
        .write("open", move |tx| {
            let (ledger, accounts) = (inner.clone(), accounts.clone());
            async move { ledger.open(tx, &accounts).await }.boxed()
        })
        .await
        .expect("accounts open");
}

/// One unit of work, settled as a use case would.
pub(crate) async fn write<T, F>(ledger: &Ledger, work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: for<'a> Fn(Ledger, &'a Tx) -> BoxFuture<'a, Result<T, Error>> + Clone + Send + Sync + 'static,
{
    let db = db(ledger);
    db.settle(|| {
        let (ledger, work) = (ledger.clone(), work.clone());
        db.write("test", move |tx| work(ledger.clone(), tx))
    })
    .await
}

/// Posts in a unit of its own.
pub(crate) async fn post(ledger: &Ledger, transfers: Vec<Transfer>) -> Result<Vec<Posted>, Error> {
    write(ledger, move |ledger, tx| {
        let transfers = transfers.clone();
        async move { ledger.post(tx, &transfers).await }.boxed()
    })
    .await
}

/// Runs a statement past the ledger; answers how many rows it changed.
pub(crate) async fn run(ledger: &Ledger, text: &str) -> u64 {
    let text = text.to_owned();
    write(ledger, move |_, tx| {
        let text = text.clone();
        async move { Ok(sql::execute(tx.conn(), &text, []).await?) }.boxed()
    })
    .await
    .expect("the statement runs")
}

/// Seals what is there, and looks at every promise of the book.
pub(crate) async fn sealed_and_sound(ledger: &Ledger) {
    write(ledger, |ledger, tx| async move { ledger.seal(tx).await }.boxed()).await.expect("the sealer seals");
    let report = ledger.verify().await.expect("the book can be read");
    assert!(report.is_sound(), "{:?}", report.findings);
    assert_eq!(report.tail, 0);
}
