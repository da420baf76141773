//! Connections to PostgreSQL: which login new ones use, and how those of an earlier login come to their end.

use crate::error::Error;
use crate::secret::{TENANT_MARK, sha256_hex};
use sea_orm::sqlx::pool::PoolConnectionMetadata;
use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::sqlx::{self, ConnectOptions as _, Connection, PgConnection, PgPool};
use sea_orm::{ConnectOptions, DatabaseConnection};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Connections of the pool: readers, a few writers, the processor. With the one that hears other processes they are ten, what a class's size
/// gives a process unless it says otherwise.
const CONNECTIONS_MAX: u32 = 9;
/// How long opening a connection may take, and waiting for one of the pool.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A connection that rested this long is asked whether it still lives before it is used.
const RESTED: Duration = Duration::from_secs(5);
/// A connection that nobody needed this long is closed.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// A transaction that waits for us longer than this is ended by PostgreSQL, so that it can't hold up readers of the outbox.
const IDLE_IN_TRANSACTION_MS: &str = "10000";
/// No statement of a request or of the processor runs longer.
const STATEMENT_MS: &str = "60000";
/// That of a command that walks whole books: it holds nobody up, and ends when its caller does.
const UNHURRIED_MS: &str = "0";
/// Statements that a connection keeps prepared: more than the product has hot ones.
const PREPARED_MAX: usize = 256;
/// How often the file with the URL is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest pause before a URL that was refused is tried again: the server may learn of a password after its file does.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Digits of the hash by which a login is known.
const GENERATION_DIGITS: usize = 16;
/// A connection whose making ended this soon after a switch may have been begun before it.
const SWITCH_MARGIN: Duration = Duration::from_millis(50);

/// What a login leads to: the database of which server, and the tenant in it.
const IDENTITY: &str = "SELECT (SELECT system_identifier FROM pg_control_system())::text || '/' ||
   (SELECT oid FROM pg_database WHERE datname = current_database())::text AS place,
   (SELECT value FROM kernel_setting WHERE name = $1) AS mark,
   pg_is_in_recovery() OR NOT has_table_privilege('kernel_setting', 'INSERT') AS reads_only";
/// Connections of this process: pg_stat_activity shows names of applications to every role.
const CONNECTIONS: &str = "SELECT count(*) FILTER (WHERE application_name = $1) AS current,
   count(*) FILTER (WHERE application_name <> $1) AS draining
   FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE $2";
/// Ends what a login still does; only its own role may.
const END: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
   WHERE datname = current_database() AND application_name = $1 AND pid <> pg_backend_pid()";

/// How long statements may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As long as somebody may wait for an answer.
    Served,
    /// As long as they need.
    Unhurried,
}

impl Pace {
    const fn statement_ms(self) -> &'static str {
        match self {
            Pace::Served => STATEMENT_MS,
            Pace::Unhurried => UNHURRIED_MS,
        }
    }
}

/// A way in: the URL's options and the name that its connections carry.
#[derive(Clone)]
struct Login {
    options: PgConnectOptions,
    generation: String,
}

impl Login {
    fn new(url: &str, generation: String, process: &str, pace: Pace) -> Result<Login, sqlx::Error> {
        let options = url.parse::<PgConnectOptions>()?.disable_statement_logging().statement_cache_capacity(PREPARED_MAX);
        let options = options
            .application_name(&application_name(process, &generation))
            .options([("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_MS), ("statement_timeout", pace.statement_ms())]);
        Ok(Login { options, generation })
    }

    async fn open(&self) -> Result<PgConnection, sqlx::Error> {
        timeout(CONNECT_LIMIT, PgConnection::connect_with(&self.options)).await.map_err(|_| sqlx::Error::PoolTimedOut)?
    }
}

fn application_name(process: &str, generation: &str) -> String {
    format!("heyuan {process} {generation}")
}

fn generation_of(bytes: &[u8]) -> String {
    sha256_hex(bytes)[..GENERATION_DIGITS].to_owned()
}

/// The login in force.
struct InForce {
    login: Login,
    /// Since when, where it replaced another; older connections end as soon as they are idle.
    since: Option<Instant>,
}

/// The pool's connections and their logins.
pub(crate) struct Logins {
    process: String,
    pace: Pace,
    /// Where the URL is read from, where it may change.
    file: Option<PathBuf>,
    in_force: RwLock<InForce>,
    switches: watch::Sender<()>,
    problem: Mutex<Option<String>>,
}

/// Where a URL comes from.
pub(crate) enum Source<'a> {
    /// It stands here for as long as the process lives.
    Url(&'a str),
    /// A file that may change.
    File(&'a Path),
}

/// Connections as PostgreSQL counts them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connections {
    /// The role that new ones log in as.
    pub role: String,
    /// The first 16 digits of the SHA-256 of the file's content, or of the URL where there is no file.
    pub generation: String,
    /// How many are open under that login.
    pub current: i64,
    /// How many are still open under earlier ones.
    pub draining: i64,
    /// Why the file's content is not in use, where it is not.
    pub problem: Option<String>,
}

impl Logins {
    /// Opens the pool.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Database`] for a URL that can't be read or does not open.
    pub(crate) async fn connect(source: Source<'_>, pace: Pace) -> Result<(DatabaseConnection, Arc<Logins>), Error> {
        let (url, generation, file) = match source {
            Source::Url(url) => (url.to_owned(), generation_of(url.as_bytes()), None),
            Source::File(path) => {
                let bytes = std::fs::read(path).map_err(|source| unreadable(path, source))?;
                (url_in(&bytes).to_owned(), generation_of(&bytes), Some(path.to_owned()))
            }
        };
        let process = format!("{:08x}", rand::random::<u32>());
        let login = Login::new(&url, generation, &process, pace).map_err(connection_error)?;
        let in_force = RwLock::new(InForce { login: login.clone(), since: None });
        let logins = Arc::new(Logins { process, pace, file, in_force, switches: watch::Sender::new(()), problem: Mutex::new(None) });
        let pool = sea_orm::Database::connect(options(&url, login.options, &logins)).await?;
        Ok((pool, logins))
    }

    /// The name of this process among those of the tenant.
    pub(crate) fn process(&self) -> &str {
        &self.process
    }

    /// What a new connection is opened with.
    pub(crate) fn connect_options(&self) -> PgConnectOptions {
        self.login().options
    }

    /// Changes when another login is in force.
    pub(crate) fn switches(&self) -> watch::Receiver<()> {
        self.switches.subscribe()
    }

    fn login(&self) -> Login {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner).login.clone()
    }

    fn since(&self) -> Option<Instant> {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner).since
    }

    /// Whether a connection was made under an earlier login.
    fn is_old(&self, meta: &PoolConnectionMetadata) -> bool {
        let made = Instant::now().checked_sub(meta.age);
        self.since().zip(made).is_some_and(|(since, made)| made < since + SWITCH_MARGIN)
    }

    /// Lets no connection in that was begun before a switch and made after it: it is replaced.
    async fn admit(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.since().is_none() {
            return Ok(());
        }
        let login = self.login();
        let name: String = sqlx::query_scalar("SELECT current_setting('application_name')").fetch_one(&mut *connection).await?;
        if name != application_name(&self.process, &login.generation) {
            let stale = std::mem::replace(connection, login.open().await?);
            // Whether it says good-bye or not, it is gone.
            let _ = stale.close().await;
        }
        Ok(())
    }

    /// The connections of this process.
    pub(crate) async fn connections(&self, pool: &DatabaseConnection) -> Result<Connections, Error> {
        let login = self.login();
        let (name, all) = (application_name(&self.process, &login.generation), application_name(&self.process, "%"));
        let counts = sqlx::query_as::<_, (i64, i64)>(CONNECTIONS).bind(name).bind(all);
        let (current, draining) = counts.fetch_one(pool.get_postgres_connection_pool()).await.map_err(connection_error)?;
        let mut told = self.known();
        (told.current, told.draining) = (current, draining);
        Ok(told)
    }

    /// What is known without asking the database.
    pub(crate) fn known(&self) -> Connections {
        let login = self.login();
        let problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let role = login.options.get_username().to_owned();
        Connections { role, generation: login.generation, current: 0, draining: 0, problem }
    }

    /// Follows the file until it is told to stop: when its content changes, and leads to the same tenant, new connections use it, and
    /// those of the login before end when they are idle, at the latest after `drain`.
    pub(crate) async fn follow(self: Arc<Self>, pool: DatabaseConnection, drain: Duration, mut stopped: watch::Receiver<bool>) {
        let Some(file) = self.file.clone() else { return };
        let mut known = None;
        let mut refused = Refused::default();
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                _ = stopped.wait_for(|stop| *stop) => return,
            }
            // What the first login leads to is what every later one must lead to.
            if known.is_none() {
                known = self.identity_of_pool(&pool).await;
            }
            let Some(known) = &known else { continue };
            match self.look(&file, known, &mut refused).await {
                Ok(None) => {}
                Ok(Some(before)) => {
                    self.note(None);
                    pool.get_postgres_connection_pool().set_connect_options(self.login().options);
                    close_idle(pool.get_postgres_connection_pool());
                    self.switches.send_replace(());
                    tokio::spawn(self.clone().end_after(drain, before, pool.clone()));
                }
                Err(why) => self.note(Some(why)),
            }
        }
    }

    async fn identity_of_pool(&self, pool: &DatabaseConnection) -> Option<Identity> {
        let mut connection = pool.get_postgres_connection_pool().acquire().await.ok()?;
        Identity::read(&mut connection).await.ok()
    }

    /// Takes the file's content into use where it is new and good, and answers the login before.
    async fn look(&self, file: &Path, known: &Identity, refused: &mut Refused) -> Result<Option<Login>, String> {
        let bytes = tokio::fs::read(file).await.map_err(|error| format!("could not read {}: {error}", file.display()))?;
        let generation = generation_of(&bytes);
        if generation == self.login().generation {
            self.note(None);
            return Ok(None);
        }
        if refused.is_too_early_for(&generation) {
            return Ok(None);
        }
        let login = self.checked(&bytes, &generation, known).await.inspect_err(|_| refused.again(&generation))?;
        tracing::info!(database.role = login.options.get_username(), generation, "new connections to the database use the new URL");
        let mut in_force = self.in_force.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Some(std::mem::replace(&mut *in_force, InForce { login, since: Some(Instant::now()) }).login))
    }

    /// A login that opens, and leads where the tenant is.
    async fn checked(&self, bytes: &[u8], generation: &str, known: &Identity) -> Result<Login, String> {
        let opened = |error: sqlx::Error| format!("the new URL does not open the database: {error}");
        let login = Login::new(url_in(bytes), generation.to_owned(), &self.process, self.pace).map_err(opened)?;
        let mut connection = login.open().await.map_err(opened)?;
        let found = timeout(CONNECT_LIMIT, Identity::read(&mut connection)).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        let _ = connection.close().await;
        let found = found.map_err(|error| format!("the tenant's tables can't be read with the new URL: {error}"))?;
        match found.difference(known) {
            None => Ok(login),
            Some(difference) => Err(difference.to_owned()),
        }
    }

    /// Says a problem once, and that it is over.
    fn note(&self, now: Option<String>) {
        let mut problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        if *problem == now {
            return;
        }
        match &now {
            Some(why) => tracing::error!(%why, "the database's new credentials are not used; the ones before go on"),
            None => tracing::info!("the database's credentials are in use"),
        }
        *problem = now;
    }

    /// Ends what is left of a login after a time that is long for any request.
    async fn end_after(self: Arc<Self>, drain: Duration, login: Login, pool: DatabaseConnection) {
        tokio::time::sleep(drain).await;
        let name = application_name(&self.process, &login.generation);
        let left = self.connections(&pool).await.map_or(0, |counted| counted.draining);
        if left == 0 || self.login().generation == login.generation {
            return;
        }
        tracing::warn!(left, generation = login.generation, "connections of the login before are still at work; they are ended");
        if let Err(error) = end(&login, &name).await {
            tracing::warn!(%error, "connections of the login before could not be ended; they end with what they do");
        }
    }
}

async fn end(login: &Login, name: &str) -> Result<(), sqlx::Error> {
    let mut connection = login.open().await?;
    // A login may begin as the owner of the tables, who has no say over the login's own sessions.
    sqlx::query("SET ROLE NONE").execute(&mut connection).await?;
    sqlx::query(END).bind(name).execute(&mut connection).await?;
    connection.close().await
}

/// Takes every idle connection out and lets it go: those of an earlier login are closed then.
fn close_idle(pool: &PgPool) {
    let idle: Vec<_> = std::iter::from_fn(|| pool.try_acquire()).collect();
    drop(idle);
}

/// Content of the file that was refused, and when it is tried again.
#[derive(Default)]
struct Refused {
    generation: String,
    pause: Duration,
    next: Option<Instant>,
}

impl Refused {
    fn is_too_early_for(&self, generation: &str) -> bool {
        self.generation == generation && self.next.is_some_and(|next| Instant::now() < next)
    }

    fn again(&mut self, generation: &str) {
        self.pause = if self.generation == generation { (self.pause * 2).min(RETRY_PAUSE_MAX) } else { LOOK_EVERY };
        generation.clone_into(&mut self.generation);
        self.next = Some(Instant::now() + self.pause);
    }
}

/// What a login leads to.
struct Identity {
    place: String,
    mark: Option<String>,
    reads_only: bool,
}

impl Identity {
    async fn read(connection: &mut PgConnection) -> Result<Identity, sqlx::Error> {
        let row = sqlx::query_as::<_, (String, Option<String>, bool)>(IDENTITY).bind(TENANT_MARK).fetch_one(connection).await?;
        let (place, mark, reads_only) = row;
        Ok(Identity { place, mark, reads_only })
    }

    /// Why a login may not replace the one that leads to `known`.
    fn difference(&self, known: &Identity) -> Option<&'static str> {
        if self.mark != known.mark {
            return Some("the new URL leads to another tenant");
        }
        if self.place != known.place {
            return Some("the new URL leads to another database; to move a tenant, stop its processes first");
        }
        self.reads_only.then_some("the new URL's role can't write to the tenant's tables")
    }
}

impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logins").field("generation", &self.login().generation).finish_non_exhaustive()
    }
}

/// The URL in a file, which may end its line.
fn url_in(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default().trim()
}

fn unreadable(path: &Path, source: std::io::Error) -> Error {
    Error::File { doing: "read the database's URL from", path: path.display().to_string(), source }
}

pub(crate) fn connection_error(error: sqlx::Error) -> Error {
    sea_orm::DbErr::Conn(sea_orm::RuntimeErr::SqlxError(Arc::new(error))).into()
}

fn options(url: &str, login: PgConnectOptions, logins: &Arc<Logins>) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    options.max_connections(CONNECTIONS_MAX).min_connections(0).sqlx_logging(false).record_stmt_in_spans(false);
    options.connect_timeout(CONNECT_LIMIT).acquire_timeout(CONNECT_LIMIT).idle_timeout(IDLE_LIMIT);
    options.test_before_acquire_if_idle_for(RESTED);
    options.map_sqlx_postgres_opts(move |_| login.clone());
    let before = logins.clone();
    options.map_sqlx_postgres_before_acquire(move |_, meta| {
        let is_old = before.is_old(&meta);
        Box::pin(async move { Ok(!is_old) })
    });
    let (made, released) = (logins.clone(), logins.clone());
    options.map_sqlx_postgres_pool_opts(move |pool| {
        let (made, released) = (made.clone(), released.clone());
        pool.after_connect(move |connection, _| {
            let made = made.clone();
            Box::pin(async move { made.admit(connection).await })
        })
        .after_release(move |_, meta| {
            let is_old = released.is_old(&meta);
            Box::pin(async move { Ok(!is_old) })
        })
    });
    options
}
