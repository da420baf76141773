//! What attribution refuses, and the stable codes by which callers tell the refusals apart.

use heyuan_contract::LeadId;
use heyuan_kernel as kernel;
use heyuan_kernel::{Failure, Problem};

/// Attribution's own codes.
pub mod codes {
    use heyuan_kernel::{Code, Kind};

    /// The lead id was submitted with other figures.
    pub const LEAD_EXISTS: Code =
        Code::new(Kind::Conflict, "lead_exists", "The lead was submitted with other figures", "线索已以其他内容提交");
    /// The stage was reported with other figures.
    pub const STAGE_RECORDED: Code =
        Code::new(Kind::Conflict, "stage_recorded", "The stage was reported with other figures", "该阶段已以其他内容上报");
    /// Nothing that a cancellation could take back.
    pub const NOTHING_TO_CANCEL: Code =
        Code::new(Kind::Conflict, "nothing_to_cancel", "There is nothing to cancel", "没有可取消的认筹或签约");
    /// The file's header lacks a column.
    pub const UNKNOWN_HEADER: Code =
        Code::new(Kind::Invalid, "unknown_header", "The file's header is not the platform's", "文件表头与平台不符");
    /// More rows than one import or report takes.
    pub const TOO_MANY_ROWS: Code = Code::new(Kind::Invalid, "too_many_rows", "There are too many rows", "行数过多");

    /// Every code of attribution.
    pub const ALL: &[Code] = &[LEAD_EXISTS, STAGE_RECORDED, NOTHING_TO_CANCEL, UNKNOWN_HEADER, TOO_MANY_ROWS];
}

/// What can go wrong in attribution.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's, or a problem for the caller.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// A lead id with other figures.
    #[error("lead {0} was submitted before with other figures")]
    LeadExists(LeadId),
    /// A stage with other figures.
    #[error("lead {lead} reached {stage} before, at another time, with another amount or by another key")]
    StageRecorded {
        /// The lead.
        lead: LeadId,
        /// The stage.
        stage: &'static str,
    },
    /// A cancellation of nothing.
    #[error("lead {lead} has no open subscription or contract {contract:?} to cancel")]
    NothingToCancel {
        /// The lead.
        lead: LeadId,
        /// The contract, if one was named.
        contract: String,
    },
    /// A file of another shape.
    #[error("the header has no column {wanted}; a file of {platform} has {names}")]
    UnknownHeader {
        /// The platform.
        platform: &'static str,
        /// What is missing.
        wanted: &'static str,
        /// The names that would do.
        names: String,
    },
    /// More rows than fit.
    #[error("{what} has at most {most} rows; {instead}")]
    TooManyRows {
        /// A file, or a report.
        what: &'static str,
        /// The bound.
        most: usize,
        /// What to do instead.
        instead: &'static str,
    },
}

impl Failure for Error {
    fn kernel(&self) -> Option<&kernel::Error> {
        match self {
            Error::Kernel(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Error {
        Error::Kernel(kernel::Error::Problem(problem))
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        let words = error.to_string();
        let code = match error {
            Error::Kernel(error) => return error.into(),
            Error::LeadExists(_) => codes::LEAD_EXISTS,
            Error::StageRecorded { .. } => codes::STAGE_RECORDED,
            Error::NothingToCancel { .. } => codes::NOTHING_TO_CANCEL,
            Error::UnknownHeader { .. } => codes::UNKNOWN_HEADER,
            Error::TooManyRows { .. } => codes::TOO_MANY_ROWS,
        };
        Problem::new(code, words)
    }
}

/// A stored value that this release can't read.
pub(crate) fn corrupt(what: &'static str, why: impl ToString) -> Error {
    Error::Kernel(kernel::Error::Corrupt { what, why: why.to_string() })
}
