//! A login that changes while units of work run: none fails, and nothing of the one before stays.

use crate::tenant;
use futures::FutureExt;
use futures::future::join_all;
use heyuan_harness::{TestDatabase, until};
use heyuan_kernel::{Database, Error, Location, sql};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(60);
const DRAIN: Duration = Duration::from_secs(30);
/// Units at work at once: more than the pool has connections.
const WORKERS: usize = 20;
/// Units between two changes.
const UNITS_MIN: u64 = 50;
const CHANGES: usize = 3;

/// Reads and writes until it is told to end.
async fn work(db: &Database, done: &AtomicU64, end: &AtomicBool) -> Result<(), Error> {
    while !end.load(Ordering::Relaxed) {
        db.write("a test's unit", |tx| async move { sql::execute(tx.conn(), "UPDATE test_mark SET value = value + 1", []).await }.boxed())
            .await?;
        sql::one(db.near(), "SELECT value FROM test_mark", []).await?;
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

#[tokio::test]
async fn no_unit_fails_while_logins_take_turns() {
    let database = TestDatabase::postgres().await;
    let kernel = tenant::open(&database).await;
    kernel.db.write("a test's mark", |tx| tenant::mark(tx, "units", 0).boxed()).await.expect("it is written");
    drop(kernel);
    let url = database.database_url().expect("it is on PostgreSQL");
    let name = url.rsplit('/').next().expect("a database has a name").to_owned();
    let roles = ["a", "b"].map(|letter| format!("{name}_{letter}"));
    for role in &roles {
        database.execute(&format!("CREATE ROLE {role} LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")).await;
    }
    let file = database.data_dir().join("url");
    let put = |role: &str| fs::write(&file, url.replacen("heyuan@", &format!("{role}@"), 1)).expect("the folder is writable");
    put(&roles[0]);
    let db = Database::open(&Location::PostgresFile(file.clone())).await.expect("the database opens");
    let (stop, stopped) = watch::channel(false);
    let (done, end) = (AtomicU64::new(0), AtomicBool::new(false));
    let workers = join_all((0..WORKERS).map(|_| work(&db, &done, &end)));
    let changes = async {
        for change in 1..=CHANGES {
            let (next, before) = (&roles[change % 2], &roles[(change + 1) % 2]);
            put(next);
            let left = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{before}'");
            until("nobody is logged in as the role before", PATIENCE, || async {
                let now = db.connections().await.expect("connections are counted").expect("it is on PostgreSQL");
                (now.role == *next && now.draining == 0 && database.count(&left).await == 0).then_some(())
            })
            .await;
            let so_far = done.load(Ordering::Relaxed);
            until("units go on", PATIENCE, || async { (done.load(Ordering::Relaxed) >= so_far + UNITS_MIN).then_some(()) }).await;
        }
        end.store(true, Ordering::Relaxed);
        stop.send_replace(true);
    };
    let (results, (), ()) = futures::join!(workers, changes, db.follow_login(DRAIN, stopped));
    assert_eq!(results.into_iter().filter_map(Result::err).map(|error| format!("{error:?}")).collect::<Vec<_>>(), Vec::<String>::new());
}
