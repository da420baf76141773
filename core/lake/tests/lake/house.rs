//! A lake over an inbox whose events follow from their positions.

use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_contract::Timestamp;
use heyuan_harness::TestDatabase;
use heyuan_kernel::lease::{self, Fence};
use heyuan_kernel::processor::{Progress, Task};
use heyuan_kernel::secret::{Key, TenantKeys};
use heyuan_kernel::{Actor, Clock, Database, Error, Kernel, Location, Zone, sql};
use heyuan_lake::{EventRow, Lake, LakeConfig, QueryOptions, Table, Tail};
use sea_orm::{ConnectionTrait, DatabaseTransaction};
use sea_orm_migration::MigratorTrait;
use std::path::PathBuf;
use std::sync::Arc;

/// 2026-11-01T00:00:00+08:00
pub(crate) const START_MS: i64 = 1_793_462_400_000;
const HOUR_MS: i64 = 3_600_000;

/// Event number `position`: 50 anchors, 5 names, 3 units, own times over four months that do not follow the positions.
pub(crate) fn event(position: i64) -> EventRow {
    let anchor = format!("idn_{}", position * 7 % 50);
    let occurred_at = START_MS - (position * 37 % 2_880) * HOUR_MS;
    EventRow {
        position,
        message_id: format!("msg-{position}"),
        kind: "track".to_owned(),
        name: ["unit_viewed", "visit", "order_paid", "lead", "login"][usize::try_from(position % 5).unwrap_or(0)].to_owned(),
        identifiers: vec![anchor.clone(), format!("dev_{}", position % 9)],
        anchor,
        unit: [None, Some("prj_1"), Some("mall_1")][usize::try_from(position % 3).unwrap_or(0)].map(str::to_owned),
        app: "key_1".to_owned(),
        occurred_at,
        arrived_at: START_MS + position,
        properties: format!(r#"{{"amount":{},"unit_type":"三居"}}"#, 9_007_199_254_740_993 + position),
        sealed: (position % 10 == 0).then(|| position.to_be_bytes().to_vec()),
    }
}

struct Inbox;

impl Tail for Inbox {
    fn rows_after<'a>(
        &'a self,
        snapshot: &'a DatabaseTransaction,
        watermark: i64,
        rows_max: usize,
    ) -> BoxFuture<'a, Result<Vec<EventRow>, Error>> {
        async move {
            let limit = i64::try_from(rows_max).unwrap_or(i64::MAX);
            let text = "SELECT position FROM test_inbox WHERE position > $1 ORDER BY position LIMIT $2";
            let rows = sql::all(snapshot, text, [watermark.into(), limit.into()]).await?;
            rows.iter().map(|row| Ok(event(sql::get(row, "position")?))).collect()
        }
        .boxed()
    }
}

/// A tenant with a lake.
pub(crate) struct House {
    pub(crate) kernel: Kernel,
    pub(crate) clock: Clock,
    pub(crate) lake: Lake,
    pub(crate) fence: Fence,
    pub(crate) folder: PathBuf,
    _place: TestDatabase,
}

impl House {
    pub(crate) async fn new(place: TestDatabase, change: impl FnOnce(&mut LakeConfig)) -> House {
        let location = Location::new(place.data_dir(), place.database_url());
        let db = Database::open(&location).await.expect("the database opens");
        heyuan_kernel::migration::Migrator::up(db.reader(), None).await.expect("the kernel migrates");
        heyuan_lake::Migrator::up(db.reader(), None).await.expect("the lake migrates");
        db.reader().execute_unprepared("CREATE TABLE test_inbox (position BIGINT PRIMARY KEY)").await.expect("the inbox is made");
        let keys = TenantKeys::new(&Key::from_bytes([7; 32]));
        let clock = Clock::standing(Timestamp::clamped(START_MS));
        let zone = Zone::named("Asia/Shanghai").expect("the zone exists");
        let kernel = Kernel::open(db, keys, clock.clone(), zone).await.expect("the kernel opens");
        let mut config = LakeConfig { dir: place.data_dir().join("lake"), ..LakeConfig::default() };
        change(&mut config);
        let folder = config.dir.join("events");
        let lake = Lake::open(kernel.clone(), config).await.expect("the lake opens").with_tail(Arc::new(Inbox));
        let fence = lease::acquire(&kernel.db, "processor", "test").await.expect("the lease is read").expect("nobody holds it");
        House { kernel, clock, lake, fence, folder, _place: place }
    }

    /// Puts events into the inbox, in one commit.
    pub(crate) async fn receive(&self, positions: std::ops::RangeInclusive<i64>) {
        let positions: Vec<i64> = positions.collect();
        let result: Result<(), Error> = self
            .kernel
            .db
            .write("receive", move |tx| {
                let positions = positions.clone();
                async move {
                    for chunk in positions.chunks(1_000) {
                        let text = format!("INSERT INTO test_inbox (position) VALUES {}", sql::rows(chunk.len(), 1));
                        sql::execute(tx.conn(), &text, chunk.iter().map(|p| (*p).into()).collect::<Vec<sea_orm::Value>>()).await?;
                    }
                    Ok(())
                }
                .boxed()
            })
            .await;
        result.expect("the inbox takes events");
    }

    /// Flushes up to a position, then removes what no longer counts from the inbox.
    pub(crate) async fn flush(&self, to: i64) {
        let from = Lake::watermark(self.kernel.db.reader()).await.expect("the watermark is read");
        self.lake.flush(&self.fence, from, to, (from + 1..=to).map(event).collect()).await.expect("the flush succeeds");
        let result: Result<u64, Error> = self
            .kernel
            .db
            .write("clear", move |tx| {
                async move { sql::execute(tx.conn(), "DELETE FROM test_inbox WHERE position <= $1", [to.into()]).await }.boxed()
            })
            .await;
        result.expect("the inbox is cleared");
    }

    pub(crate) fn task(&self, name: &str) -> Arc<dyn Task> {
        self.lake.tasks().into_iter().find(|task| task.name() == name).expect("the lake has the task")
    }

    /// Runs a task until it finds nothing more; tells how often it found something.
    pub(crate) async fn settle(&self, name: &str) -> usize {
        let task = self.task(name);
        for step in 0..1_000 {
            if task.step(&self.fence).await.expect("the step succeeds") == Progress::Idle {
                return step;
            }
        }
        panic!("{name} never comes to rest");
    }

    pub(crate) async fn ask(&self, sql: &str) -> Table {
        self.lake.query(&Actor::system("test"), sql, QueryOptions::default()).await.expect("the query is answered")
    }

    /// Rows as one line of JSON each.
    pub(crate) async fn lines(&self, sql: &str) -> Vec<String> {
        self.ask(sql).await.rows.into_iter().map(|row| serde_json::Value::Array(row).to_string()).collect()
    }

    /// Names of the files that lie in the folder.
    pub(crate) fn stored(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.folder).expect("the folder is there");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("the folder is readable").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// `(files that count, files that were replaced)`
    pub(crate) async fn catalogued(&self) -> (i64, i64) {
        let text = "SELECT count(*) AS files, count(replaced_at) AS replaced FROM lake_file";
        let row = sql::one(self.kernel.db.reader(), text, []).await.expect("the catalogue is read").expect("a count has a row");
        let (files, replaced): (i64, i64) = (sql::get(&row, "files").expect("a count"), sql::get(&row, "replaced").expect("a count"));
        (files - replaced, replaced)
    }
}
