//! Why the server did not do what it was asked for.

use super::Server;
use std::fmt;
use std::time::Duration;

/// Why the server did not do what it was asked for. No message holds a password; the server's own words are the `source`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody answers, the answer is no PostgreSQL, or the server is starting or stopping.
    #[error("could not {what} on {server}: it can't be reached")]
    Unreachable {
        /// Host and port.
        server: String,
        /// What was attempted.
        what: String,
        /// The cause; a connection that takes too long has none.
        source: Option<sqlx::Error>,
    },
    /// The operator may not do it there.
    #[error("{server} refused to {what}: the operator lacks {missing}; run docs/operator.sql there")]
    Refused {
        /// Host and port.
        server: String,
        /// What was attempted.
        what: String,
        /// What it takes.
        missing: String,
        /// The server's words; none where the lack was seen beforehand.
        source: Option<sqlx::Error>,
    },
    /// Something has the name that was not made for this data, or not by this operator. Nothing was changed.
    #[error("{what} {name} on {server} was not made for this data")]
    Foreign {
        /// Host and port.
        server: String,
        /// `role` or `database`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Something that should have been made before is not there.
    #[error("{what} {name} is not on {server}")]
    Missing {
        /// Host and port.
        server: String,
        /// `role` or `database`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A removal of the database broke off. PostgreSQL lets nobody in, and its data may be gone; it can only be removed.
    #[error("database {name} on {server} is half dropped")]
    HalfDropped {
        /// Host and port.
        server: String,
        /// Its name.
        name: String,
    },
    /// Disk, memory or connections are used up.
    #[error("could not {what} on {server}: it has no room left")]
    Full {
        /// Host and port.
        server: String,
        /// What was attempted.
        what: String,
        /// The server's words.
        source: sqlx::Error,
    },
    /// It took too long: the server, or whoever holds what is needed.
    #[error("could not {what} on {server} in time")]
    TimedOut {
        /// Host and port.
        server: String,
        /// What was attempted.
        what: String,
        /// The server's words; none where it said nothing.
        source: Option<sqlx::Error>,
    },
    /// The server is older than 15.
    #[error("{server} runs PostgreSQL {version_num}; it takes 150000 at least, and 160000 in production")]
    TooOld {
        /// Host and port.
        server: String,
        /// Its version as a number.
        version_num: u32,
    },
    /// Anything else; another try may do it.
    #[error("could not {what} on {server}")]
    Failed {
        /// Host and port.
        server: String,
        /// What was attempted.
        what: String,
        /// The cause.
        source: sqlx::Error,
    },
    /// The caller's own mistake.
    #[error("{0}")]
    Invalid(&'static str),
}

/// What a statement takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Right {
    /// To log in to the maintenance database.
    LogIn,
    /// To read the catalogs, as every role may.
    Read,
    /// To make roles.
    CreateRole,
    /// To make databases.
    CreateDatabase,
    /// To change this role: who made it may.
    Administer(String),
    /// To end the sessions of others in the database.
    EndSessions,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Right::LogIn => f.write_str("a log-in (password, pg_hba.conf, or CONNECT on the maintenance database)"),
            Right::Read => f.write_str("the right to read the catalogs"),
            Right::CreateRole => f.write_str("CREATEROLE"),
            Right::CreateDatabase => f.write_str("CREATEDB"),
            Right::Administer(role) => write!(f, "ADMIN OPTION on role {role}"),
            Right::EndSessions => f.write_str("the right to end a session that a stranger has in the database"),
        }
    }
}

/// One thing that is asked of a server.
#[derive(Clone)]
pub(super) struct Attempt {
    pub(super) what: String,
    pub(super) right: Right,
}

impl Attempt {
    pub(super) fn new(what: impl Into<String>, right: Right) -> Attempt {
        Attempt { what: what.into(), right }
    }

    /// Waits for the answer, `time_max` at most.
    pub(super) async fn within<T>(
        self,
        server: &Server,
        time_max: Duration,
        answer: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(time_max, answer).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(cause)) => Err(self.failed(server, cause)),
            Err(_) => Err(self.unanswered(server)),
        }
    }

    /// The server lacks a right, seen before it was needed.
    pub(super) fn lacking(self, server: &Server) -> Error {
        Error::Refused { server: server.to_string(), what: self.what, missing: self.right.to_string(), source: None }
    }

    fn unanswered(self, server: &Server) -> Error {
        let (server, what) = (server.to_string(), self.what);
        match self.right {
            Right::LogIn => Error::Unreachable { server, what, source: None },
            _ => Error::TimedOut { server, what, source: None },
        }
    }

    fn failed(self, server: &Server, cause: sqlx::Error) -> Error {
        let server = server.to_string();
        let Attempt { what, right } = self;
        let code = match &cause {
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) => return Error::Unreachable { server, what, source: Some(cause) },
            sqlx::Error::Database(answer) => answer.code().map(|code| code.into_owned()).unwrap_or_default(),
            // Somebody answers who speaks something else.
            _ if right == Right::LogIn => return Error::Unreachable { server, what, source: Some(cause) },
            _ => return Error::Failed { server, what, source: cause },
        };
        // SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html
        match code.as_str() {
            "28P01" | "28000" => Error::Refused { server, what, missing: Right::LogIn.to_string(), source: Some(cause) },
            "42501" => Error::Refused { server, what, missing: right.to_string(), source: Some(cause) },
            "57014" | "55P03" | "25P03" | "25P04" | "57P05" => Error::TimedOut { server, what, source: Some(cause) },
            "57P01" | "57P02" | "57P03" => Error::Unreachable { server, what, source: Some(cause) },
            code if code.starts_with("08") => Error::Unreachable { server, what, source: Some(cause) },
            code if code.starts_with("53") => Error::Full { server, what, source: cause },
            _ => Error::Failed { server, what, source: cause },
        }
    }
}
