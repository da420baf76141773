//! One connection of the operator to a server: bounded in time, locked for one tenant's data, silent about statements.

use super::error::{Attempt, Error, Right};
use super::names::{DataNames, Name};
use super::{Server, SslMode};
use secrecy::ExposeSecret;
use sqlx::postgres::{PgConnectOptions, PgRow, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row};
use std::time::Duration;

/// Oldest server that is spoken to: from it on, PUBLIC may not create in schema public.
const VERSION_MIN: u32 = 150_000;
/// From this version on, CREATEROLE is no way to other roles' rights, and membership is granted in parts.
pub(super) const VERSION_CONFINED: u32 = 160_000;
/// A server that does not let us in within this time is not reached.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Most that a statement takes on the server. Dropping a large database deletes its files and waits for a checkpoint.
const STATEMENT_MS_MAX: &str = "60000";
/// Most that a statement waits for a lock, the advisory one included.
const LOCK_MS_MAX: &str = "20000";
/// Most that a session says nothing: an operator that is stopped in between holds its lock for so long and no longer.
const IDLE_MS_MAX: &str = "20000";
/// When the server has still said nothing, it never will: its own limit and time for the way.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(70);
/// Polite, not needed: a server notices a closed socket.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);
/// How long each session that is ended is waited for, in milliseconds.
const END_SESSION_MS_MAX: &str = "5000";
/// How often sessions are looked for and ended; one that was just logging in is found at the second time.
const END_SESSIONS_ROUNDS_MAX: u32 = 4;

/// A connection to a server's maintenance database.
pub(super) struct Session<'a> {
    pub(super) server: &'a Server,
    pub(super) version_num: u32,
    connection: PgConnection,
}

impl<'a> Session<'a> {
    /// Connects. Names are looked up in `pg_catalog` only, so that nobody can slip a function under the operator's rights.
    pub(super) async fn open(server: &'a Server) -> Result<Session<'a>, Error> {
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(&server.host)
            .port(server.port)
            .username(&server.username)
            .password(server.password.expose_secret())
            .database(&server.maintenance_database)
            .ssl_mode(match server.ssl_mode {
                SslMode::Disable => PgSslMode::Disable,
                SslMode::Prefer => PgSslMode::Prefer,
                SslMode::Require => PgSslMode::Require,
                SslMode::VerifyFull => PgSslMode::VerifyFull,
            })
            .application_name("heyuan-operator")
            .options([
                ("statement_timeout", STATEMENT_MS_MAX),
                ("lock_timeout", LOCK_MS_MAX),
                ("idle_in_transaction_session_timeout", IDLE_MS_MAX),
                ("idle_session_timeout", IDLE_MS_MAX),
                ("search_path", "pg_catalog"),
                ("client_min_messages", "error"),
            ])
            .disable_statement_logging();
        if let Some(bundle) = &server.ca_bundle {
            options = options.ssl_root_cert_from_pem(bundle.clone().into_bytes());
        }
        let connection = Attempt::new(format!("log in as {}", server.username), Right::LogIn)
            .within(server, CONNECT_TIME_MAX, PgConnection::connect_with(&options))
            .await?;
        let version_num = connection.server_version_num().unwrap_or_default();
        if version_num < VERSION_MIN {
            return Err(Error::TooOld { server: server.to_string(), version_num });
        }
        Ok(Session { server, version_num, connection })
    }

    /// Connects, and holds the lock of the data until the session ends. What was read before is void.
    pub(super) async fn locked(server: &'a Server, names: &DataNames) -> Result<Session<'a>, Error> {
        let mut session = Session::open(server).await?;
        let query = sqlx::query("SELECT pg_advisory_lock($1)").bind(names.lock_key()).persistent(false);
        Attempt::new(format!("take the lock of {}", names.database()), Right::Read)
            .within(server, ANSWER_TIME_MAX, query.execute(&mut session.connection))
            .await?;
        if session.is_confined() {
            // Whatever the server's default, a role that we make gives us nothing but the right to administer it.
            session.run("set up a session", Right::Read, "SET createrole_self_grant = ''".to_owned()).await?;
        }
        Ok(session)
    }

    /// Whether CREATEROLE stays within the roles that it made.
    pub(super) fn is_confined(&self) -> bool {
        self.version_num >= VERSION_CONFINED
    }

    /// Runs statements that are made of checked names and literals only. Several of them are one transaction.
    pub(super) async fn run(&mut self, what: impl Into<String>, right: Right, statements: String) -> Result<(), Error> {
        let answer = sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut self.connection);
        Attempt::new(what, right).within(self.server, ANSWER_TIME_MAX, answer).await.map(|_| ())
    }

    /// Reads rows; the texts go beside the statement, never into it.
    pub(super) async fn rows(&mut self, what: impl Into<String>, statement: String, texts: &[&str]) -> Result<Vec<PgRow>, Error> {
        let mut query = sqlx::query(AssertSqlSafe(statement)).persistent(false);
        for text in texts {
            query = query.bind(*text);
        }
        let answer = query.fetch_all(&mut self.connection);
        Attempt::new(what, Right::Read).within(self.server, ANSWER_TIME_MAX, answer).await
    }

    /// A value of a row that the server sent.
    pub(super) fn value<'r, T>(&self, row: &'r PgRow, column: &'static str) -> Result<T, Error>
    where
        T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        row.try_get(column).map_err(|source| Error::Failed {
            server: self.server.to_string(),
            what: format!("read {column} of its catalogs"),
            source,
        })
    }

    /// Sessions of a role.
    pub(super) async fn count_sessions(&mut self, role: &Name) -> Result<i64, Error> {
        const COUNT: &str = "SELECT count(*) AS sessions FROM pg_stat_activity WHERE usename = $1";
        let rows = self.rows(format!("count the sessions of {}", role.as_str()), COUNT.to_owned(), &[role.as_str()]).await?;
        rows.first().map_or(Ok(0), |row| self.value(row, "sessions"))
    }

    /// Ends the sessions of a role that can't log in any more, and answers how many there were.
    pub(super) async fn end_sessions(&mut self, role: &Name) -> Result<i64, Error> {
        let found = self.count_sessions(role).await?;
        let mut left = found;
        for _ in 0..END_SESSIONS_ROUNDS_MAX {
            if left == 0 {
                return Ok(found);
            }
            let name = role.as_str();
            // All are told, then each is waited for. Whoever has a role's rights may end its sessions; the rights are given back at once.
            let statements = format!(
                "{grant};
                 SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{name}';
                 SELECT pg_stat_clear_snapshot();
                 SELECT pg_terminate_backend(pid, {END_SESSION_MS_MAX}) FROM pg_stat_activity WHERE usename = '{name}';
                 REVOKE {role} FROM CURRENT_USER",
                grant = self.borrow(role),
            );
            self.run(format!("end the sessions of {name}"), Right::Administer(name.to_owned()), statements).await?;
            left = self.count_sessions(role).await?;
        }
        if left == 0 {
            return Ok(found);
        }
        Err(Error::TimedOut { server: self.server.to_string(), what: format!("end the sessions of {}", role.as_str()), source: None })
    }

    /// The statement by which the operator takes a role's rights itself.
    pub(super) fn borrow(&self, role: &Name) -> String {
        let how = if self.is_confined() { " WITH INHERIT TRUE, SET TRUE" } else { "" };
        format!("GRANT {role} TO CURRENT_USER{how}")
    }

    /// Ends the session, and with it the lock.
    pub(super) async fn close(self) {
        let _ = tokio::time::timeout(CLOSE_TIME_MAX, self.connection.close()).await;
    }
}
