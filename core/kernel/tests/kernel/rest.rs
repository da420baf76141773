//! At rest a process holds one connection to PostgreSQL and asks next to nothing; what others commit and what is due wakes it all the same.

use crate::tenant::{event, mark, marks, open_with};
use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_contract::{DomainEvent, Timestamp};
use heyuan_harness::{Postgres, TestDatabase, until};
use heyuan_kernel::lease::Fence;
use heyuan_kernel::outbox::Envelope;
use heyuan_kernel::processor::{Processor, Progress, Task, Waits};
use heyuan_kernel::pump::{Apply, Pump, Reaction, Sequencer, nothing};
use heyuan_kernel::rest::RestTimes;
use heyuan_kernel::{Clock, Database, Error, Kernel, Location, Problem, sql};
use sea_orm::{ConnectOptions, ConnectionTrait, DatabaseConnection, DbBackend, Statement};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Generous: other tests run beside these.
const PATIENCE: Duration = Duration::from_secs(60);
/// A process killed at rest is replaced within ten seconds, and a slow machine.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(20);
/// Long enough for the bell to be set before it rings, and for a process to go to rest in between.
const BELL_IN_MS: i64 = 6_000;

fn times() -> RestTimes {
    RestTimes::new(Duration::from_secs(1), Duration::from_millis(100)).expect("they fit")
}

/// Marks each event that it sees.
struct Marker;

impl Reaction for Marker {
    fn consumer(&self) -> &'static str {
        "test marker"
    }

    fn wants(&self, name: &str) -> bool {
        name == "segment.redefined.v1"
    }

    fn react<'a>(&'a self, envelope: &'a Envelope) -> BoxFuture<'a, Result<Apply, Problem>> {
        async move {
            let DomainEvent::SegmentRedefined { entered, .. } = &envelope.event else { return Ok(nothing()) };
            let number = i64::try_from(*entered).expect("tests count to a few");
            let apply: Apply = Box::new(move |tx| async move { mark(tx, "event", number).await }.boxed());
            Ok(apply)
        }
        .boxed()
    }
}

/// Rings once when the time that a unit has set comes, and marks whether the process was at rest.
struct Bell(Kernel);

impl Bell {
    async fn rings_at(&self) -> Result<Option<Timestamp>, Error> {
        let row = sql::one(self.0.db.reader(), "SELECT value FROM test_mark WHERE name = 'rings at'", []).await?;
        row.map(|row| Ok(Timestamp::clamped(sql::get(&row, "value")?))).transpose()
    }
}

impl Task for Bell {
    fn name(&self) -> &'static str {
        "test bell"
    }

    fn waits(&self) -> Waits {
        Waits::time(Duration::from_millis(100))
    }

    fn due(&self) -> BoxFuture<'_, Result<Option<Timestamp>, Problem>> {
        async move { Ok(self.rings_at().await?) }.boxed()
    }

    fn step<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<Progress, Problem>> {
        async move {
            if self.rings_at().await?.is_none_or(|at| at > self.0.clock.now()) {
                return Ok(Progress::Idle);
            }
            let (fence, rested) = (fence.clone(), i64::from(self.0.db.rest().since().is_some()));
            let rung = self.0.db.write("ring", move |tx| {
                let fence = fence.clone();
                async move {
                    fence.check(tx).await?;
                    sql::execute(tx.conn(), "DELETE FROM test_mark WHERE name = 'rings at'", []).await?;
                    mark(tx, "rung at rest", rested).await
                }
                .boxed()
            });
            rung.await?;
            Ok(Progress::Busy)
        }
        .boxed()
    }
}

/// A process of the tenant that works in the background, or waits to.
struct Process {
    kernel: Kernel,
    holds: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    running: Vec<JoinHandle<()>>,
}

impl Process {
    async fn start(database: &TestDatabase, holder: &str) -> Process {
        let kernel = open_with(database, Clock::system()).await;
        kernel.db.rest().set(times());
        let (stop, stopped) = watch::channel(false);
        let tasks: Vec<Arc<dyn Task>> = vec![
            Arc::new(Sequencer::new(kernel.db.clone(), vec!["test marker"])),
            Arc::new(Pump::new(kernel.db.clone(), Arc::new(Marker))),
            Arc::new(Bell(kernel.clone())),
        ];
        let processor = Processor::new(kernel.db.clone(), kernel.clock.clone(), holder.to_owned(), tasks);
        let (holds, db, following) = (processor.holds(), kernel.db.clone(), stopped.clone());
        let running = vec![tokio::spawn(processor.run(stopped)), tokio::spawn(async move { db.follow_others(following).await })];
        Process { kernel, holds, stop, running }
    }

    async fn rests(&self) {
        until("the process rests", PATIENCE, || async { self.kernel.db.rest().since().map(drop) }).await;
    }

    async fn works(&self, limit: Duration) {
        until("it is the processor", limit, || async { self.holds.load(Ordering::Relaxed).then_some(()) }).await;
    }

    /// As `kill -9`: nothing is given up.
    fn kill(&self) {
        self.running.iter().for_each(JoinHandle::abort);
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        for running in self.running {
            running.await.expect("it ends by itself");
        }
    }
}

/// Counts of PostgreSQL about a database, asked for beside it.
struct Counts {
    connection: DatabaseConnection,
    name: String,
}

impl Counts {
    async fn of(database: &TestDatabase) -> Counts {
        let mut options = ConnectOptions::new(Postgres::shared().url("postgres"));
        options.max_connections(1).sqlx_logging(false);
        let connection = sea_orm::Database::connect(options).await.expect("the server accepts connections");
        let url = database.database_url().expect("it is on PostgreSQL");
        Counts { connection, name: url.rsplit('/').next().expect("a database has a name").to_owned() }
    }

    async fn number(&self, what: &str, from: &str) -> i64 {
        let question = format!("SELECT CAST({what} AS BIGINT) FROM {from} WHERE datname = '{}'", self.name);
        let row = self.connection.query_one_raw(Statement::from_string(DbBackend::Postgres, question)).await;
        row.expect("the role may read statistics").expect("there is one row").try_get_by_index(0).expect("a whole number")
    }

    async fn connections(&self) -> i64 {
        self.number("count(*) FILTER (WHERE backend_type = 'client backend')", "pg_stat_activity").await
    }

    async fn transactions(&self) -> i64 {
        self.number("xact_commit + xact_rollback", "pg_stat_database").await
    }
}

async fn emit(db: &Database, number: u64) {
    let emitted: Result<(), Error> = db.write("emit", move |tx| async move { tx.emit("k", &event(number)).await }.boxed()).await;
    emitted.expect("the event is written");
}

/// Waits until a mark stands, and answers it.
async fn marked(db: &Database, name: &str) -> i64 {
    until(name, PATIENCE, || async { marks(db).await.into_iter().find_map(|(found, value)| (found == name).then_some(value)) }).await
}

/// What is committed through `writer` reaches a process at rest, and what it makes due is done when it is, at rest.
async fn wakes_and_rings(process: &Process, writer: &Database) {
    process.rests().await;
    emit(writer, 1).await;
    assert_eq!(marked(writer, "event").await, 1);
    process.rests().await;
    let rings_at = process.kernel.clock.now().plus_ms(BELL_IN_MS);
    writer.write("set the bell", move |tx| async move { mark(tx, "rings at", rings_at.ms()).await }.boxed()).await.expect("it is set");
    assert_eq!(marked(writer, "rung at rest").await, 1);
    assert!(process.kernel.clock.now() >= rings_at, "it rang before its time");
}

#[tokio::test]
async fn at_rest_on_sqlite_a_commit_wakes_and_what_is_due_is_done() {
    let database = TestDatabase::sqlite();
    let process = Process::start(&database, "one").await;
    wakes_and_rings(&process, &process.kernel.db).await;
    process.stop().await;
}

#[tokio::test]
async fn at_rest_on_postgres_other_processes_are_heard_and_what_is_due_is_done() {
    let database = TestDatabase::postgres().await;
    let process = Process::start(&database, "one").await;
    let location = Location::new(database.data_dir(), database.database_url());
    let other = Database::open(&location).await.expect("the database opens");
    other.rest().set(times());
    wakes_and_rings(&process, &other).await;
    process.stop().await;
}

#[tokio::test]
async fn at_rest_there_is_one_connection_and_less_than_a_transaction_in_five_seconds() {
    let database = TestDatabase::postgres().await;
    let process = Process::start(&database, "one").await;
    process.rests().await;
    let counts = Counts::of(&database).await;
    until("one connection is left", PATIENCE, || async { (counts.connections().await == 1).then_some(()) }).await;
    // Statistics come late, and the server's own upkeep counts as well: one quiet stretch is enough, which who polls never has.
    let stretch = Mutex::new((Instant::now(), counts.transactions().await));
    until("two transactions take five seconds or more", PATIENCE, || async {
        let now = counts.transactions().await;
        let mut stretch = stretch.lock().expect("nobody panics while it holds this");
        let (begun, before) = *stretch;
        if now < before + 2 {
            return None;
        }
        *stretch = (Instant::now(), now);
        (begun.elapsed() >= Duration::from_secs(5)).then_some(())
    })
    .await;
    assert!(process.kernel.db.rest().since().is_some(), "nobody woke it");
    assert_eq!(counts.connections().await, 1);
    process.stop().await;
}

#[tokio::test]
async fn a_processor_killed_at_rest_is_replaced_by_one_that_rests() {
    let database = TestDatabase::postgres().await;
    let first = Process::start(&database, "first").await;
    first.works(PATIENCE).await;
    let second = Process::start(&database, "second").await;
    first.rests().await;
    second.rests().await;
    first.kill();
    second.works(TAKEOVER_LIMIT).await;
    emit(&second.kernel.db, 1).await;
    assert_eq!(marked(&second.kernel.db, "event").await, 1);
    let third = Process::start(&database, "third").await;
    second.stop().await;
    third.works(TAKEOVER_LIMIT).await;
    third.stop().await;
}
