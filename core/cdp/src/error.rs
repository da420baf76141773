//! What can go wrong in collecting and identifying, and how a caller is told.

use heyuan_kernel::error::Failure;
use heyuan_kernel::{Error as KernelError, Problem};

/// The stable codes of this wing.
pub mod codes {
    use heyuan_kernel::{Code, Kind};

    /// The backlog or the disk has no room for more events.
    pub const COLLECT_FULL: Code =
        Code::new(Kind::Limited, "collect_full", "No more events can be taken at the moment", "暂时无法接收更多事件");
    /// A body that is no valid gzip.
    pub const BAD_ENCODING: Code = Code::new(Kind::Invalid, "bad_encoding", "The body's encoding is broken", "请求体编码损坏");
    /// A single event is refused; it is kept for a replay.
    pub const EVENT_REJECTED: Code =
        Code::new(Kind::Invalid, "event_rejected", "The event is refused and kept for a replay", "事件被拒绝并已保留待重放");
    /// A replayed event is refused again.
    pub const STILL_REJECTED: Code = Code::new(Kind::Conflict, "still_rejected", "The event would be rejected again", "该事件仍会被拒绝");
    /// A rejected event was replayed before.
    pub const ALREADY_REPLAYED: Code = Code::new(Kind::Conflict, "already_replayed", "The event was replayed already", "该事件已重放");
    /// The named evidence does not hold this customer together.
    pub const NO_SUCH_EVIDENCE: Code =
        Code::new(Kind::Invalid, "no_such_evidence", "The evidence is not part of this customer", "该证据不属于此客户");

    /// Another declaration of the event type came first.
    pub const EVENT_TYPE_CHANGED: Code =
        Code::new(Kind::Conflict, "event_type_changed", "The event type was changed meanwhile", "该事件类型刚刚被修改");

    /// Every code.
    pub const ALL: &[Code] =
        &[COLLECT_FULL, BAD_ENCODING, EVENT_REJECTED, STILL_REJECTED, ALREADY_REPLAYED, NO_SUCH_EVIDENCE, EVENT_TYPE_CHANGED];
}

/// What can go wrong in this wing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's part failed.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The caller's request can't be carried out.
    #[error("{0}")]
    Problem(Problem),
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Error {
        Error::Problem(problem)
    }
}

impl Failure for Error {
    fn kernel(&self) -> Option<&KernelError> {
        match self {
            Error::Kernel(error) => Some(error),
            Error::Problem(_) => None,
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        match error {
            Error::Kernel(error) => error.into(),
            Error::Problem(problem) => problem,
        }
    }
}
