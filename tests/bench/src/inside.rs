//! A look into a tenant's database, beside the running process: for seeding, and for what no route tells.

use futures::FutureExt;
use heyuan_harness::TestDatabase;
use heyuan_kernel::secret::TenantKeys;
use heyuan_kernel::{Clock, Kernel, Location, Zone};
use heyuan_ledger::{Account, Ledger, Transfer};
use sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend, Statement, TryGetable, Value};
use sea_orm_migration::MigratorTrait;

/// Opens the database that the tenant itself has, on one connection.
pub(crate) async fn open(database: &TestDatabase) -> DatabaseConnection {
    let url = match database.database_url() {
        Some(url) => url.to_owned(),
        None => format!("sqlite://{}/heyuan.db?mode=rw", database.data_dir().display()),
    };
    let mut options = ConnectOptions::new(url);
    options.max_connections(1).sqlx_logging(false);
    Database::connect(options).await.expect("the tenant's database opens beside it")
}

pub(crate) async fn execute(connection: &DatabaseConnection, text: &str, values: Vec<Value>) {
    let statement = Statement::from_sql_and_values(connection.get_database_backend(), text, values);
    connection.execute_raw(statement).await.unwrap_or_else(|error| panic!("{text}: {error}"));
}

/// The first column of every row.
pub(crate) async fn column<T: TryGetable>(connection: &DatabaseConnection, text: &str) -> Vec<T> {
    let statement = Statement::from_string(connection.get_database_backend(), text);
    let rows = connection.query_all_raw(statement).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    rows.iter().map(|row| row.try_get_by_index(0).unwrap_or_else(|error| panic!("{text}: {error}"))).collect()
}

pub(crate) async fn number(connection: &DatabaseConnection, text: &str) -> i64 {
    column(connection, text).await.first().copied().unwrap_or(0)
}

/// What stands in the inbox and is not processed yet.
pub(crate) async fn backlog(connection: &DatabaseConnection) -> i64 {
    number(connection, "SELECT CAST(COALESCE(SUM(events), 0) AS BIGINT) FROM cdp_inbox_block").await
}

/// The durability that stands beside a figure, asked of the server where it can be asked.
pub(crate) async fn durability(connection: &DatabaseConnection) -> String {
    if connection.get_database_backend() == DbBackend::Sqlite {
        return "SQLite WAL, synchronous=FULL".into();
    }
    let settings: Vec<String> =
        column(connection, "SELECT name || '=' || setting FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit') ORDER BY name")
            .await;
    format!("PostgreSQL {}", settings.join(", "))
}

/// The ledger's own door to a tenant's database, with its tables and the tenant's key made where they are missing.
pub(crate) async fn ledger(database: &TestDatabase) -> Ledger {
    let location = Location::new(database.data_dir(), database.database_url());
    let db = heyuan_kernel::Database::open(&location).await.expect("the database opens");
    heyuan_kernel::migration::Migrator::up(db.reader(), None).await.expect("the kernel migrates");
    heyuan_ledger::Migrator::up(db.reader(), None).await.expect("the ledger migrates");
    let zone = Zone::named("Asia/Shanghai").expect("the zone is known");
    let keys = TenantKeys::load(&database.data_dir().join("tenant.key"), true).expect("the tenant's key is there or made");
    let kernel = Kernel::open(db, keys, Clock::system(), zone).await.expect("the kernel opens");
    Ledger::new(kernel)
}

/// Opens accounts in a unit of work of their own.
pub(crate) async fn open_accounts(ledger: &Ledger, accounts: &[Account]) {
    let (inner, accounts) = (ledger.clone(), accounts.to_vec());
    let opened = ledger.database().write("open accounts", move |tx| {
        let (ledger, accounts) = (inner.clone(), accounts.clone());
        async move { ledger.open(tx, &accounts).await }.boxed()
    });
    opened.await.expect("the accounts open");
}

/// Posts transfers in a unit of work of their own.
pub(crate) async fn post(ledger: &Ledger, transfers: Vec<Transfer>) {
    let db = ledger.database();
    let posted = db.settle(|| {
        let (ledger, transfers) = (ledger.clone(), transfers.clone());
        db.write("post", move |tx| {
            let (ledger, transfers) = (ledger.clone(), transfers.clone());
            async move { ledger.post(tx, &transfers).await }.boxed()
        })
    });
    posted.await.expect("the transfers are posted");
}
