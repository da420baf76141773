//! A ledger on an empty database, at a moment that stands.

use futures::FutureExt;
use heyuan_contract::Timestamp;
use heyuan_harness::TestDatabase;
use heyuan_kernel::secret::{Key, TenantKeys};
use heyuan_kernel::{Clock, Database, Kernel, Location, Zone};
use heyuan_ledger::{Account, Ledger};
use sea_orm_migration::MigratorTrait;

pub(crate) const NOW_MS: i64 = 1_793_491_200_000;

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
