//! Growth is bounded: every table states how long its rows stay, and what is said to remove them does.

use crate::place::{Place, Schema};
use crate::rooms::Rooms;
use crate::settings::Settings;
use futures::FutureExt;
use heyuan_contract::Timestamp;
use heyuan_harness::{TestDatabase, for_both_databases, workspace_root};
use heyuan_kernel::lease::{self, Fence};
use heyuan_kernel::processor::{Progress, Task};
use heyuan_kernel::pump::Sequencer;
use heyuan_kernel::{Actor, Clock, Error, Kernel, audit, sql};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the clock shows: 2026-11-22T00:00:00Z.
const NOW_MS: i64 = 1_795_305_600_000;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Steps that a task may take until it has nothing to do; each test removes a row or two.
const STEPS_MAX: usize = 20;

/// What staff's housekeeping removes, with its keys.
const STAFF_ROWS: [(&str, &str); 3] = [("staff_used_state", "state"), ("staff_seen_log_out", "token"), ("staff_provider_session", "id")];

/// A row of the table in the operations page.
struct Stated {
    tables: Vec<String>,
    stays: String,
    goes_by: String,
}

fn stated() -> Vec<Stated> {
    let page = std::fs::read_to_string(workspace_root().join("docs/operations.md")).expect("the page is there");
    let (_, section) = page.split_once("\n## What grows, and what goes\n").expect("the page has the section");
    let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 3, "three cells in {line}");
        Stated { tables: quoted(cells[0]), stays: cells[1].to_owned(), goes_by: cells[2].to_owned() }
    })
    .collect()
}

fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The days that the page states for a table.
fn stated_days(table: &str) -> i64 {
    let all = stated();
    let row = all.iter().find(|row| row.tables.iter().any(|name| name == table)).expect("the table is stated");
    let (days, _) = row.stays.split_once(" days").unwrap_or_else(|| panic!("{table} states days: {}", row.stays));
    days.parse().expect("a number of days")
}

/// A tenant whose clock stands, with every room open.
struct Ground {
    kernel: Kernel,
    rooms: Rooms,
    fence: Fence,
}

impl Ground {
    async fn open(database: &TestDatabase) -> Ground {
        let url = database.database_url().map(str::to_owned);
        let place = Place { data: database.data_dir().to_owned(), database_url: url, database_url_file: None, config: None };
        let settings = Settings::default();
        let mut kernel = place.open(&settings, Schema::Prepare).await.expect("the tenant opens");
        kernel.clock = Clock::standing(Timestamp::clamped(NOW_MS));
        let rooms = Rooms::open(&kernel, &place, &settings).await.expect("the rooms open");
        let fence = lease::acquire(&kernel.db, "processor", "test").await.expect("the lease is read").expect("it is free");
        Ground { kernel, rooms, fence }
    }

    fn tasks(&self) -> BTreeMap<&'static str, Arc<dyn Task>> {
        let sequencer: Arc<dyn Task> = Arc::new(Sequencer::new(self.kernel.db.clone(), Vec::new()));
        self.rooms.tasks().into_iter().chain([sequencer]).map(|task| (task.name(), task)).collect()
    }

    /// Runs a task until it has nothing to do.
    async fn run(&self, name: &str) {
        let tasks = self.tasks();
        let task = tasks.get(name).unwrap_or_else(|| panic!("there is a task {name}"));
        for _ in 0..STEPS_MAX {
            if task.step(&self.fence).await.expect("a step succeeds") == Progress::Idle {
                return;
            }
        }
        panic!("{name} finds no end");
    }

    async fn execute(&self, text: &str, values: Vec<sea_orm::Value>) {
        let owned = text.to_owned();
        let done = self.kernel.db.write("plant", move |tx| {
            let (text, values) = (owned.clone(), values.clone());
            async move { sql::execute(tx.conn(), &text, values).await }.boxed()
        });
        assert_eq!(Result::<u64, Error>::expect(done.await, text), 1);
    }

    async fn count(&self, table: &str) -> i64 {
        let row = sql::one(self.kernel.db.reader(), &format!("SELECT COUNT(*) AS n FROM {table}"), []).await;
        sql::get(&row.expect("the table is read").expect("a row"), "n").expect("a number")
    }

    async fn tables(&self) -> BTreeSet<String> {
        let text = match self.kernel.db.backend() {
            sea_orm::DbBackend::Postgres => {
                "SELECT table_name::text AS name FROM information_schema.tables
                 WHERE table_schema = current_schema() AND table_type = 'BASE TABLE'"
            }
            _ => "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
        };
        let rows = sql::all(self.kernel.db.reader(), text, []).await.expect("the schema is read");
        let names = rows.iter().map(|row| sql::get::<String>(row, "name").expect("a name"));
        names.filter(|name| !name.ends_with("_migration")).collect()
    }
}

#[tokio::test]
async fn every_table_states_how_long_its_rows_stay() {
    for_both_databases(async |database| {
        let ground = Ground::open(&database).await;
        let rows = stated();
        let names: Vec<String> = rows.iter().flat_map(|row| row.tables.clone()).collect();
        let once: BTreeSet<String> = names.iter().cloned().collect();
        assert_eq!(once.len(), names.len(), "no table is stated twice");
        assert_eq!(once, ground.tables().await, "left: what docs/operations.md states; right: the tables");
        let tasks = ground.tasks();
        for row in &rows {
            for task in quoted(&row.goes_by) {
                assert!(tasks.contains_key(task.as_str()), "{:?} go by {task}, which is no task", row.tables);
            }
            assert!(!row.stays.contains(" days") || !quoted(&row.goes_by).is_empty(), "{:?} have days and no task", row.tables);
        }
    })
    .await;
}

/// One planted row: the table, its task, and an insert whose `$1` is its time and `$2` its key.
async fn goes_when_its_days_are_over(ground: &Ground, table: &str, task: &str, insert: &str) {
    let days = stated_days(table);
    for (key, age_ms) in [(1i64, days * DAY_MS + HOUR_MS), (2, days * DAY_MS - HOUR_MS), (3, 0)] {
        ground.execute(insert, vec![(NOW_MS - age_ms).into(), key.into()]).await;
    }
    assert_eq!(ground.count(table).await, 3, "{table} holds what was planted");
    ground.run(task).await;
    assert_eq!(ground.count(table).await, 2, "{table}: the row older than {days} days has gone, the younger ones stay");
    ground.kernel.clock.set(Timestamp::clamped(NOW_MS + 2 * HOUR_MS));
    ground.run(task).await;
    assert_eq!(ground.count(table).await, 1, "{table}: two hours later the next one has gone");
    ground.kernel.clock.set(Timestamp::clamped(NOW_MS));
}

#[tokio::test]
async fn what_stays_for_days_goes_when_they_are_over() {
    for_both_databases(async |database| {
        let ground = Ground::open(&database).await;
        let bytes = if database.is_postgres() { "'\\x00'::bytea" } else { "x'00'" };
        let rejected = format!(
            "INSERT INTO cdp_rejected (message_hash, reason, detail, app, arrived_at, sealed)
             SELECT {bytes}, 'r', CAST($2 AS TEXT), 'a', CAST($1 AS BIGINT), {bytes}"
        );
        goes_when_its_days_are_over(&ground, "cdp_rejected", "inbox retention", &rejected).await;
        // PostgreSQL keeps ids one by one, SQLite in generations.
        if database.is_postgres() {
            let insert =
                "INSERT INTO cdp_message_id (id, seen_at) SELECT decode(lpad(CAST($2 AS TEXT), 32, '0'), 'hex'), CAST($1 AS BIGINT)";
            goes_when_its_days_are_over(&ground, "cdp_message_id", "inbox retention", insert).await;
        } else {
            for key in 1i64..=3 {
                let chunk = "INSERT INTO cdp_message_chunk (generation, prefix, ids) VALUES ($1, 0, x'00')";
                ground.execute(chunk, vec![key.into()]).await;
            }
            let insert = "INSERT INTO cdp_message_generation (generation, ids, newest_at, filter) VALUES ($2, 1, $1, x'00')";
            goes_when_its_days_are_over(&ground, "cdp_message_generation", "inbox retention", insert).await;
            assert_eq!(ground.count("cdp_message_chunk").await, 1);
        }
        let insert = "INSERT INTO cdp_tag_change (customer, tag, version, cause, position, at)
                      SELECT 'cus_1', CAST($2 AS TEXT), '1', 'event', 1, CAST($1 AS BIGINT)";
        goes_when_its_days_are_over(&ground, "cdp_tag_change", "know upkeep", insert).await;
        let insert = "INSERT INTO attribution_touch (message_id, occurred_at) SELECT CAST($2 AS TEXT), CAST($1 AS BIGINT)";
        goes_when_its_days_are_over(&ground, "attribution_touch", "attribution retention", insert).await;
    })
    .await;
}

#[tokio::test]
async fn what_waits_goes_once_it_is_done() {
    for_both_databases(async |database| {
        let ground = Ground::open(&database).await;
        ground
            .kernel
            .db
            .write("act", |tx| async move { audit::record(tx, &audit::Entry::new(&Actor::system("test"), "look", "thing")).await }.boxed())
            .await
            .expect("it is audited");
        ground.run("audit sealer").await;
        assert_eq!((ground.count("kernel_audit_unsealed").await, ground.count("kernel_audit").await), (0, 1));
        assert_eq!((ground.count("kernel_audit_seal").await, ground.count("kernel_audit_head").await), (1, 1));
        // A pin that nobody released goes even while no file waits for it.
        for (pin, expires_at) in [("gone", NOW_MS), ("held", NOW_MS + 1)] {
            let text = "INSERT INTO lake_pin (id, reason, generation, expires_at) VALUES ($1, 'test', 0, $2)";
            ground.execute(text, vec![pin.into(), expires_at.into()]).await;
        }
        ground.run("lake sweep").await;
        assert_eq!(ground.count("lake_pin").await, 1);
        for (state, expires_at) in [("over", NOW_MS), ("open", NOW_MS + 1)] {
            for (table, key) in STAFF_ROWS {
                let text = format!("INSERT INTO {table} ({key}, expires_at) VALUES ($1, $2)");
                ground.execute(&text, vec![state.into(), expires_at.into()]).await;
            }
        }
        ground.run("staff housekeeping").await;
        for (table, _) in STAFF_ROWS {
            assert_eq!(ground.count(table).await, 1, "{table}");
        }
    })
    .await;
}
