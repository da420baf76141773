//! A migrated database with a table to write to, and a kernel on it.

use heyuan_contract::{Cause, DomainEvent, SegmentId, Timestamp};
use heyuan_harness::TestDatabase;
use heyuan_kernel::secret::{Key, TenantKeys};
use heyuan_kernel::{Clock, Database, Error, Kernel, Location, Tx, Zone, sql};
use sea_orm_migration::MigratorTrait;

/// What a test's clock shows at first: 2026-11-22T00:00:00Z.
pub(crate) const NOW_MS: i64 = 1_795_305_600_000;

pub(crate) async fn open(database: &TestDatabase) -> Kernel {
    open_with(database, Clock::standing(Timestamp::clamped(NOW_MS))).await
}

pub(crate) async fn open_with(database: &TestDatabase, clock: Clock) -> Kernel {
    let location = Location::new(database.data_dir(), database.database_url());
    let db = Database::open(&location).await.expect("the test database opens");
    heyuan_kernel::migration::Migrator::up(db.reader(), None).await.expect("the kernel's tables are made");
    sql::execute(db.reader(), "CREATE TABLE IF NOT EXISTS test_mark (name TEXT PRIMARY KEY, value BIGINT NOT NULL)", [])
        .await
        .expect("the test's table is made");
    let keys = TenantKeys::new(&Key::from_bytes([7; 32]));
    let zone = Zone::named("Asia/Shanghai").expect("the zone is known");
    Kernel::open(db, keys, clock, zone).await.expect("the kernel opens")
}

pub(crate) async fn mark(tx: &Tx, name: &str, value: i64) -> Result<(), Error> {
    sql::execute(tx.conn(), "INSERT INTO test_mark (name, value) VALUES ($1, $2)", [name.into(), value.into()]).await?;
    Ok(())
}

pub(crate) async fn marks(db: &Database) -> Vec<(String, i64)> {
    let rows = sql::all(db.reader(), "SELECT name, value FROM test_mark ORDER BY name", []).await.expect("the marks are read");
    rows.iter().map(|row| (sql::get(row, "name").expect("a name"), sql::get(row, "value").expect("a value"))).collect()
}

/// An event that differs by its number.
pub(crate) fn event(number: u64) -> DomainEvent {
    let segment = SegmentId::new(format!("seg_{number}")).expect("a valid id");
    DomainEvent::SegmentRedefined { segment, entered: number, left: 0, occurred_at: Timestamp::clamped(NOW_MS) }
}

/// A merge, which no consumer of the tests wants.
pub(crate) fn other_event() -> DomainEvent {
    DomainEvent::IdentityChanged {
        before: Vec::new(),
        after: Vec::new(),
        anchors: Vec::new(),
        cause: Cause::Merge,
        occurred_at: Timestamp::clamped(NOW_MS),
    }
}
