//! The two databases behind one door, and the unit of work: decide first, then write in one transaction with its events.

use crate::error::{CommitFailure, Error, Failure};
use crate::guard;
use crate::notices::{self, Notices, Question};
use crate::outbox;
use crate::postgres::{Connections, Logins, Pace, Source};
use crate::rest::Rest;
use crate::sql::{self, NearConnection, UnitConnection};
use crate::sqlite::{BUSY_TIMEOUT, Direct, Pragmas};
use crate::statistics::Statistics;
use crate::units::Units;
use crate::wake::{Notice, Telling, Told, Topic, Wakes};
use crate::write_queue::WriteQueue;
use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_contract::{DomainEvent, Timestamp};
use sea_orm::{ConnectOptions, DatabaseConnection, DatabaseTransaction, DbBackend, TransactionTrait};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often a unit is run again after losing a race for rows, before the caller hears of it.
const CONTENTION_RETRIES_MAX: u32 = 8;
/// How often a use case starts again from reading when what it decided on has changed.
const STALE_RETRIES_MAX: u32 = 16;
/// SQLite readers; the writer has a connection of its own.
const SQLITE_READERS_MAX: u32 = 4;
/// Pages that the writer keeps while it works: rows of one batch lie all over the file.
const SQLITE_WRITER_CACHE_KIB: u32 = 32_768;
/// Pages that each reader keeps.
const SQLITE_READER_CACHE_KIB: u32 = 2_048;
/// How often a task looks at rest in any case. Nothing is expected to be found: others are heard, and what is due has its own time.
const LOOK_AT_REST: Duration = Duration::from_secs(3600);
/// The same on SQLite, where a command that writes beside the server is not heard, and a look costs microseconds.
const SQLITE_LOOK_AT_REST: Duration = Duration::from_secs(60);
/// Rows that a reader's thread reads ahead.
const SQLITE_ROWS_AHEAD: usize = 1_024;
/// Pages in the write-ahead log from which on a commit copies them into the file itself.
const SQLITE_LOG_PAGES_MAX: &str = "16384";

/// Where the tenant's tables live.
#[derive(Debug, Clone)]
pub enum Location {
    /// `heyuan.db` in this folder.
    Sqlite(std::path::PathBuf),
    /// A PostgreSQL URL.
    Postgres(String),
    /// A file with a PostgreSQL URL, whose content may change while the process runs.
    PostgresFile(std::path::PathBuf),
}

impl Location {
    /// The embedded default in a data folder, or the server that a URL names.
    pub fn new(data: &Path, database_url: Option<&str>) -> Location {
        match database_url {
            Some(url) => Location::Postgres(url.to_owned()),
            None => Location::Sqlite(data.join("heyuan.db")),
        }
    }
}

/// A handle on the tenant's database; cheap to clone.
#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

struct Inner {
    reader: DatabaseConnection,
    /// Where short reads go, taken in turn: on PostgreSQL the pool alone.
    near: Vec<NearConnection>,
    turn: AtomicUsize,
    writer: Writer,
    wakes: Wakes,
    rest: Rest,
    units: Units,
    /// Which login connections use; none on SQLite.
    logins: Option<Arc<Logins>>,
    /// What hears the other processes; nobody is there on SQLite.
    notices: Notices,
}

enum Writer {
    /// All writes pass one queue.
    Queue(WriteQueue),
    /// Each unit has its own transaction.
    Pool(Statistics),
}

/// An open write transaction, as a unit of work sees it.
pub struct Tx {
    connection: UnitConnection,
    telling: Telling,
}

impl Tx {
    pub(crate) fn new(connection: UnitConnection) -> Tx {
        Tx { connection, telling: Telling::default() }
    }

    /// The connection to run statements on.
    pub fn conn(&self) -> &UnitConnection {
        &self.connection
    }

    /// Writes a domain event that is published when, and only when, the unit commits. Events with one `key` are seen in order.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn emit(&self, key: &str, event: &DomainEvent) -> Result<(), Error> {
        self.emit_all(&[(key, event.clone())]).await
    }

    /// The same for several events, each with its key, in their order.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn emit_all(&self, events: &[(&str, DomainEvent)]) -> Result<(), Error> {
        outbox::append(self, events).await
    }

    /// Says that the unit wrote what tasks wait for under this topic: they look again once it has committed.
    pub fn wake(&self, topic: Topic) {
        self.telling.add(topic);
    }

    /// Says how other processes hear of the unit.
    pub(crate) fn notice(&self, notice: Notice) {
        self.telling.notice(notice);
    }

    /// What the unit said of itself; the connection is whoever's made it.
    pub(crate) fn into_parts(self) -> (UnitConnection, Told) {
        (self.connection, self.telling.take())
    }
}

impl Database {
    /// Opens the database; a SQLite file is made when it is not there.
    ///
    /// # Errors
    /// [`Error::Database`] when it can't be reached.
    pub async fn open(location: &Location) -> Result<Database, Error> {
        Database::open_at(location, Pace::Served).await
    }

    /// The same for a command that walks whole books: on PostgreSQL its statements run as long as they need.
    ///
    /// # Errors
    /// [`Error::Database`] when it can't be reached.
    pub async fn open_unhurried(location: &Location) -> Result<Database, Error> {
        Database::open_at(location, Pace::Unhurried).await
    }

    async fn open_at(location: &Location, pace: Pace) -> Result<Database, Error> {
        let (wakes, units) = (Wakes::default(), Units::new());
        let notices = Notices::default();
        let inner = match location {
            Location::Sqlite(path) => {
                // These first: they wait for whoever else turns a fresh file to WAL, which the pool's connections do not.
                let near = || Direct::open(path, &pragmas(SQLITE_READER_CACHE_KIB)).map(|direct| NearConnection::Direct(Arc::new(direct)));
                let near = (0..SQLITE_READERS_MAX).map(|_| near()).collect::<Result<_, _>>()?;
                let reader = sea_orm::Database::connect(sqlite_options(path)).await?;
                let rest = Rest::new(SQLITE_LOOK_AT_REST);
                let (path, pragmas) = (path.clone(), pragmas(SQLITE_WRITER_CACHE_KIB));
                let queue = WriteQueue::start(path, pragmas, reader.clone(), wakes.clone(), rest.clone(), units.clone())?;
                let writer = Writer::Queue(queue);
                Inner { reader, near, turn: AtomicUsize::new(0), writer, wakes, rest, units, logins: None, notices }
            }
            Location::Postgres(url) => on_postgres(Source::Url(url), pace, wakes, units, notices).await?,
            Location::PostgresFile(file) => on_postgres(Source::File(file), pace, wakes, units, notices).await?,
        };
        Ok(Database { inner: Arc::new(inner) })
    }

    /// A connection for reading outside units of work.
    pub fn reader(&self) -> &DatabaseConnection {
        &self.inner.reader
    }

    /// A connection for reads of few rows, by their keys. SQLite is called on the caller's own thread, which takes microseconds; the way
    /// to a reader's thread and back would take longer than the read.
    pub fn near(&self) -> &NearConnection {
        let turn = self.inner.turn.fetch_add(1, Ordering::Relaxed);
        &self.inner.near[turn % self.inner.near.len()]
    }

    /// Which database it is.
    pub fn backend(&self) -> DbBackend {
        sea_orm::ConnectionTrait::get_database_backend(&self.inner.reader)
    }

    /// The connections to PostgreSQL as the server counts them; `None` on SQLite.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn connections(&self) -> Result<Option<Connections>, Error> {
        match &self.inner.logins {
            Some(logins) => logins.connections(&self.inner.reader).await.map(Some),
            None => Ok(None),
        }
    }

    /// The login to PostgreSQL, with no counts, known while the server is away; `None` on SQLite.
    pub fn login(&self) -> Option<Connections> {
        self.inner.logins.as_ref().map(|logins| logins.known())
    }

    /// Follows the file that the URL was read from until it is told to stop; returns at once where there is none. A content that leads to
    /// the same tenant is used for new connections; those of the login before end when they are idle, at the latest after `drain`.
    pub async fn follow_login(&self, drain: Duration, stopped: watch::Receiver<bool>) {
        if let Some(logins) = &self.inner.logins {
            logins.clone().follow(self.inner.reader.clone(), drain, stopped).await;
        }
    }

    /// Hears what the other processes commit, and lets this one rest while nobody commits anything, until it is told to stop. A process
    /// that does not call this never rests.
    pub async fn follow_others(&self, mut stopped: watch::Receiver<bool>) {
        let rest = &self.inner.rest;
        let following = async {
            match &self.inner.logins {
                _ if rest.is_never() => std::future::pending().await,
                Some(logins) => self.inner.notices.follow(logins, self.inner.reader.get_postgres_connection_pool(), rest).await,
                None => rest.keep().await,
            }
        };
        tokio::select! {
            never = following => match never {},
            _ = stopped.wait_for(|stop| *stop) => {}
        }
        rest.stir();
    }

    /// Whether this process rests.
    pub fn rest(&self) -> &Rest {
        &self.inner.rest
    }

    /// Asks PostgreSQL by one statement without a transaction around it: at rest on the connection that is there anyway.
    pub(crate) async fn ask(&self, question: Question) -> Result<Option<i64>, Error> {
        let pool = self.inner.reader.get_postgres_connection_pool();
        self.inner.notices.ask(question, pool, &self.inner.rest).await
    }

    /// What units of this process have committed, by topic.
    pub fn wakes(&self) -> &Wakes {
        &self.inner.wakes
    }

    /// Runs a unit of work: everything in one transaction, with the events that it emits, or nothing.
    ///
    /// `unit` may run several times and must have no effect outside the database. It must not wait for anything but its own
    /// statements. `name` stands in logs and metrics.
    ///
    /// # Errors
    /// What `unit` answered, or [`Error::Database`] when the commit failed; [`Error::Unconfirmed`] when nobody heard whether it did.
    pub async fn write<T, E, F>(&self, name: &'static str, unit: F) -> Result<T, E>
    where
        F: for<'c> Fn(&'c Tx) -> BoxFuture<'c, Result<T, E>> + Send + Sync + 'static,
        T: Send + 'static,
        E: Failure,
    {
        guard::outside_unit("a second unit of work");
        match &self.inner.writer {
            Writer::Queue(queue) => queue.run(name, unit).await,
            Writer::Pool(statistics) => {
                let result = self.write_pooled(name, &unit).await;
                statistics.committed(&self.inner.reader);
                result
            }
        }
    }

    async fn write_pooled<T, E, F>(&self, name: &'static str, unit: &F) -> Result<T, E>
    where
        F: for<'c> Fn(&'c Tx) -> BoxFuture<'c, Result<T, E>> + Send + Sync,
        E: Failure,
    {
        let mut attempt = 0;
        loop {
            let result = self.write_once(name, unit).await;
            let lost = result.as_ref().err().and_then(Failure::kernel).is_some_and(Error::is_contention);
            if !lost || attempt == CONTENTION_RETRIES_MAX {
                return result;
            }
            attempt += 1;
            tokio::time::sleep(back_off(attempt)).await;
        }
    }

    async fn write_once<T, E, F>(&self, name: &'static str, unit: &F) -> Result<T, E>
    where
        F: for<'c> Fn(&'c Tx) -> BoxFuture<'c, Result<T, E>> + Send + Sync,
        E: Failure,
    {
        let begun = Instant::now();
        let tx = Tx::new(UnitConnection::Pooled(self.inner.reader.begin().await.map_err(Error::from)?));
        let result = AssertUnwindSafe(guard::inside_unit(name, unit(&tx))).catch_unwind().await;
        let (UnitConnection::Pooled(transaction), told) = tx.into_parts() else { return Err(Error::Broken(name).into()) };
        let result = match result {
            Ok(Ok(value)) => {
                self.commit(transaction, &told).await?;
                Ok(value)
            }
            failed => {
                transaction.rollback().await.map_err(Error::from)?;
                failed.unwrap_or_else(|_| Err(Error::Broken(name).into()))
            }
        };
        self.inner.units.took(name, begun.elapsed());
        result
    }

    /// Commits, and wakes who waits for it: the tasks of this process, and the other processes by a notice in the transaction itself.
    async fn commit(&self, transaction: DatabaseTransaction, told: &Told) -> Result<(), Error> {
        let Inner { rest, logins, wakes, .. } = &*self.inner;
        let tells = match told.notice {
            Notice::Still => false,
            Notice::Usual => rest.must_tell(),
            Notice::AtOnce => true,
        };
        if let Some(logins) = logins.as_ref().filter(|_| tells) {
            sql::execute(&transaction, notices::TELL, [notices::CHANNEL.into(), logins.process().into()]).await?;
        }
        let stirs = told.notice != Notice::Still;
        if stirs {
            // Also where nobody stays to hear how the commit went: it may have gone well.
            rest.stir();
        }
        let begun = Instant::now();
        transaction.commit().await.map_err(|error| Error::from(CommitFailure::of_commit(error)))?;
        if tells {
            rest.told(begun);
        }
        if stirs {
            rest.stir();
        }
        wakes.raise(&told.topics);
        Ok(())
    }

    /// Runs a use case from its reading on, and starts it again while what it decided on changes under it.
    ///
    /// # Errors
    /// What the use case answered; [`Error::Stale`] when it kept changing.
    pub async fn settle<T, E, F, Fut>(&self, attempt: F) -> Result<T, E>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Failure,
    {
        let mut count = 0;
        loop {
            let result = attempt().await;
            let stale = result.as_ref().err().and_then(Failure::kernel).is_some_and(|e| matches!(e, Error::Stale(_)));
            if !stale || count == STALE_RETRIES_MAX {
                return result;
            }
            count += 1;
            tokio::time::sleep(back_off(count)).await;
        }
    }
}

/// Grows to about a quarter of a second; the spread comes from the task's own address, which differs between racers.
fn back_off(attempt: u32) -> Duration {
    let spread = rand::random_range(0..4u64);
    Duration::from_millis((1 << attempt.min(6)) + spread * u64::from(attempt))
}

/// What every connection to the file is set to.
fn pragmas(cache_kib: u32) -> Pragmas {
    [
        ("journal_mode", "WAL"),
        ("synchronous", "FULL"),
        ("foreign_keys", "ON"),
        ("secure_delete", "ON"),
        ("temp_store", "MEMORY"),
        ("journal_size_limit", "67108864"),
        ("wal_autocheckpoint", SQLITE_LOG_PAGES_MAX),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into_iter()
    .chain([("cache_size", format!("-{cache_kib}"))])
    .collect()
}

fn sqlite_options(path: &Path) -> ConnectOptions {
    let mut options = ConnectOptions::new(format!("sqlite://{}?mode=rwc", path.display()));
    options.max_connections(SQLITE_READERS_MAX).min_connections(1);
    options.sqlx_logging(false).record_stmt_in_spans(false).test_before_acquire(false);
    options.idle_timeout(None).max_lifetime(None).acquire_timeout(Duration::from_secs(30));
    options.map_sqlx_sqlite_opts(|sqlite| {
        let sqlite = sqlite.busy_timeout(BUSY_TIMEOUT).row_buffer_size(SQLITE_ROWS_AHEAD);
        pragmas(SQLITE_READER_CACHE_KIB).into_iter().fold(sqlite, |sqlite, (name, value)| sqlite.pragma(name, value))
    });
    options
}

async fn on_postgres(source: Source<'_>, pace: Pace, wakes: Wakes, units: Units, notices: Notices) -> Result<Inner, Error> {
    let (reader, logins) = Logins::connect(source, pace).await?;
    let near = vec![NearConnection::Pooled(reader.clone())];
    let (rest, logins) = (Rest::new(LOOK_AT_REST), Some(logins));
    Ok(Inner { reader, near, turn: AtomicUsize::new(0), writer: Writer::Pool(Statistics::default()), wakes, rest, units, logins, notices })
}

/// The expression of the database's own clock in milliseconds: the one that leases are measured by, since the clocks of two processes
/// differ.
pub(crate) fn database_clock(backend: DbBackend) -> &'static str {
    match backend {
        DbBackend::Postgres => "(extract(epoch from clock_timestamp()) * 1000)::bigint",
        _ => "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
    }
}

/// The database's own clock.
///
/// # Errors
/// [`Error::Database`].
pub async fn database_now<C: sql::Connection>(conn: &C) -> Result<Timestamp, Error> {
    let text = format!("SELECT {} AS now_ms", database_clock(conn.backend()));
    let row = sql::one(conn, &text, []).await?.ok_or(Error::Corrupt { what: "clock", why: "no row".into() })?;
    Ok(Timestamp::clamped(sql::get(&row, "now_ms")?))
}
