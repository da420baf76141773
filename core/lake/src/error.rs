//! What can go wrong in the lake, and what a caller hears of it.

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use heyuan_kernel::error::codes as shared;
use heyuan_kernel::{Failure, Problem};
use parquet::errors::ParquetError;

/// The lake's stable codes.
pub mod codes {
    use heyuan_kernel::{Code, Kind};

    /// SQL that can't be parsed, planned or carried out, or that does more than read.
    pub const INVALID_QUERY: Code = Code::new(Kind::Invalid, "invalid_query", "The query is not valid", "查询语句无效");
    /// The query ran too long.
    pub const QUERY_TIMEOUT: Code = Code::new(Kind::Limited, "query_timeout", "The query took too long", "查询超时");
    /// The query needs more memory than one may have.
    pub const QUERY_MEMORY: Code = Code::new(Kind::Limited, "query_memory", "The query needs too much memory", "查询所需内存过多");
    /// All query slots stayed taken.
    pub const QUERY_SLOTS: Code = Code::new(Kind::Limited, "query_slots", "Too many queries run at once", "并发查询过多");

    /// Every code of the lake.
    pub const ALL: &[Code] = &[INVALID_QUERY, QUERY_TIMEOUT, QUERY_MEMORY, QUERY_SLOTS];
}

/// Why the lake did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database's, a file's, and answers for the caller.
    #[error(transparent)]
    Kernel(#[from] heyuan_kernel::Error),
    /// The object store refused or is away.
    #[error("could not {doing} {path} in the lake")]
    Store {
        /// What was attempted.
        doing: &'static str,
        /// On which object.
        path: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// A file could not be written, read or merged.
    #[error("could not {doing}")]
    Engine {
        /// What was attempted.
        doing: &'static str,
        /// Why.
        #[source]
        source: DataFusionError,
    },
    /// Rows that do not fit between the positions they are flushed for.
    #[error("flushing positions {from} to {to}: {why}")]
    Rows {
        /// The watermark before.
        from: i64,
        /// The watermark after.
        to: i64,
        /// What does not fit.
        why: &'static str,
    },
    /// SQL that we can't or won't carry out, in the planner's words.
    #[error("{0}")]
    Query(String),
    /// Stopped after the configured time.
    #[error("the query was stopped after {0} ms")]
    Timeout(u64),
    /// More memory than one query may have.
    #[error("{0}")]
    Memory(String),
    /// No slot within the configured time.
    #[error("no query slot came free within {0} ms")]
    Slots(u64),
    /// More events wait to be flushed than one reader takes.
    #[error("more than {0} events wait to be written to files")]
    TailTooLong(usize),
}

impl Error {
    pub(crate) fn engine(doing: &'static str) -> impl Fn(DataFusionError) -> Error {
        move |source| Error::Engine { doing, source }
    }

    pub(crate) fn arrow(doing: &'static str) -> impl Fn(ArrowError) -> Error {
        move |source| Error::Engine { doing, source: source.into() }
    }

    pub(crate) fn parquet(doing: &'static str) -> impl Fn(ParquetError) -> Error {
        move |source| Error::Engine { doing, source: source.into() }
    }

    /// Whose fault a failed query is: the text's, its size's, or that of what lies under us.
    pub(crate) fn of_query(error: DataFusionError) -> Error {
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => {
                Error::Memory("the query needs more memory than one query may have: select fewer columns, days or groups".to_owned())
            }
            DataFusionError::ObjectStore(_) | DataFusionError::ParquetError(_) | DataFusionError::IoError(_) => {
                Error::Engine { doing: "read the files of a query", source: error }
            }
            _ => Error::Query(first_lines(&error.strip_backtrace())),
        }
    }
}

/// Planner messages may repeat the whole query; an answer does not need that.
fn first_lines(text: &str) -> String {
    text.chars().take(2000).collect()
}

impl Failure for Error {
    fn kernel(&self) -> Option<&heyuan_kernel::Error> {
        match self {
            Error::Kernel(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Error {
        Error::Kernel(heyuan_kernel::Error::Problem(problem))
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        let text = error.to_string();
        match error {
            Error::Kernel(error) => error.into(),
            Error::Query(_) => Problem::new(codes::INVALID_QUERY, text).field("sql"),
            Error::Timeout(_) => Problem::new(codes::QUERY_TIMEOUT, text).retry_after_s(30),
            Error::Memory(_) => Problem::new(codes::QUERY_MEMORY, text).retry_after_s(30),
            Error::Slots(_) => Problem::new(codes::QUERY_SLOTS, text).retry_after_s(5),
            Error::TailTooLong(_) => Problem::new(shared::LIMITED, text).retry_after_s(10),
            Error::Store { .. } | Error::Engine { .. } => {
                tracing::error!(error = %text, source = ?std::error::Error::source(&error), "the lake's files could not be used");
                Problem::new(shared::UNAVAILABLE, "the event history could not be read; try again").retry_after_s(5)
            }
            Error::Rows { .. } => {
                tracing::error!(error = %text, "an internal error was answered");
                Problem::new(shared::INTERNAL, "this is our fault; the log has the cause")
            }
        }
    }
}
