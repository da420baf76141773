//! The closed set of error kinds, stable codes with titles in two languages, and problem+json answers (RFC 9457).

use crate::sql_state::{self, Fault};
use actix_web::{HttpResponse, ResponseError, http::StatusCode, http::header};
use sea_orm::DbErr;
use serde::Serialize;
use std::fmt;
use utoipa::ToSchema;

/// What went wrong, as far as a caller can act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request itself is wrong; sending it again unchanged can't succeed.
    Invalid,
    /// No credentials, or none that we know.
    Unauthenticated,
    /// Known, but not allowed.
    Forbidden,
    /// No such object within what the caller may see.
    NotFound,
    /// The object's state, or another request, stands against it.
    Conflict,
    /// Too much at once; try again after the stated time.
    Limited,
    /// Something that we need is away; try again.
    Unavailable,
    /// Our own bug.
    Internal,
}

/// A stable, documented error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// What a caller can do about it.
    pub kind: Kind,
    /// `snake_case`, never renamed.
    pub code: &'static str,
    /// Title in English.
    pub title: &'static str,
    /// Title in Chinese.
    pub title_zh: &'static str,
}

impl Code {
    /// A code of a module.
    pub const fn new(kind: Kind, code: &'static str, title: &'static str, title_zh: &'static str) -> Code {
        Code { kind, code, title, title_zh }
    }
}

/// The codes that every module shares.
pub mod codes {
    use super::{Code, Kind};

    /// A body that is no JSON or doesn't fit the schema.
    pub const INVALID_REQUEST: Code = Code::new(Kind::Invalid, "invalid_request", "The request is not valid", "请求无效");
    /// A body over the documented size.
    pub const BODY_TOO_LARGE: Code = Code::new(Kind::Invalid, "body_too_large", "The body is too large", "请求体过大");
    /// A body that trickles.
    pub const BODY_TOO_SLOW: Code = Code::new(Kind::Invalid, "body_too_slow", "The body came too slowly", "请求体传输过慢");
    /// The bodies of all requests together are at their bound.
    pub const BODIES_FULL: Code = Code::new(Kind::Limited, "bodies_full", "Too many bodies at once", "同时传输的请求体过多");
    /// No key, an unknown or a revoked one.
    pub const UNAUTHENTICATED: Code = Code::new(Kind::Unauthenticated, "unauthenticated", "A valid key is needed", "需要有效的密钥");
    /// The key lacks a scope or the unit.
    pub const FORBIDDEN: Code = Code::new(Kind::Forbidden, "forbidden", "The key may not do this", "该密钥无权执行此操作");
    /// Nothing there that the caller may see.
    pub const NOT_FOUND: Code = Code::new(Kind::NotFound, "not_found", "There is no such object", "对象不存在");
    /// No route for this path.
    pub const NO_SUCH_PATH: Code = Code::new(Kind::NotFound, "no_such_path", "There is nothing at this path", "该路径不存在");
    /// The route exists with another method.
    pub const METHOD_NOT_ALLOWED: Code =
        Code::new(Kind::Invalid, "method_not_allowed", "The method is not allowed here", "不支持该请求方法");
    /// The object is in a state that does not allow it.
    pub const CONFLICT: Code = Code::new(Kind::Conflict, "conflict", "The object's state does not allow this", "对象状态不允许此操作");
    /// `Idempotency-Key` is required here.
    pub const IDEMPOTENCY_KEY_MISSING: Code =
        Code::new(Kind::Invalid, "idempotency_key_missing", "An Idempotency-Key header is needed", "缺少 Idempotency-Key 请求头");
    /// The key was used for another request.
    pub const IDEMPOTENCY_KEY_REUSED: Code = Code::new(
        Kind::Conflict,
        "idempotency_key_reused",
        "The Idempotency-Key was used for another request",
        "Idempotency-Key 已用于其他请求",
    );
    /// The first request with this key is still running.
    pub const IN_PROGRESS: Code =
        Code::new(Kind::Conflict, "in_progress", "The first request with this key is still running", "相同请求正在处理中");
    /// Too many requests, or the backlog is full.
    pub const LIMITED: Code = Code::new(Kind::Limited, "limited", "Too much at once", "请求过多");
    /// The database or a part that we need is away.
    pub const UNAVAILABLE: Code = Code::new(Kind::Unavailable, "unavailable", "A needed part is away", "依赖的服务暂不可用");
    /// The commit was not heard of: it stands or it does not.
    pub const OUTCOME_UNKNOWN: Code =
        Code::new(Kind::Unavailable, "outcome_unknown", "It is not known whether this was carried out", "无法确认请求是否已生效");
    /// Our own bug.
    pub const INTERNAL: Code = Code::new(Kind::Internal, "internal", "Something went wrong on our side", "服务器内部错误");
    /// The person was erased.
    pub const ERASED: Code = Code::new(Kind::NotFound, "erased", "The person was erased", "该用户信息已删除");
}

/// An error as a caller sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    code: Code,
    detail: String,
    field: Option<String>,
    retry_after_s: Option<u32>,
}

impl Problem {
    /// A problem with words about this very case; they never hold personal data.
    pub fn new(code: Code, detail: impl Into<String>) -> Problem {
        Problem { code, detail: detail.into(), field: None, retry_after_s: None }
    }

    /// Names the field of the request that is wrong, as a JSON path.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Problem {
        self.field = Some(field.into());
        self
    }

    /// States when to try again.
    #[must_use]
    pub fn retry_after_s(mut self, seconds: u32) -> Problem {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The code, for callers inside the process.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The words about this case.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// `not_found` for an object of a kind.
    pub fn not_found(what: &str, id: impl fmt::Display) -> Problem {
        Problem::new(codes::NOT_FOUND, format!("there is no {what} {id} that this key may see"))
    }

    /// `invalid_request` for a field, saying what would be right.
    pub fn invalid(field: &str, detail: impl Into<String>) -> Problem {
        Problem::new(codes::INVALID_REQUEST, detail).field(field)
    }

    /// The body of the answer.
    pub fn body(&self) -> ProblemBody {
        ProblemBody {
            r#type: format!("urn:heyuan:problem:{}", self.code.code),
            status: self.status_code().as_u16(),
            code: self.code.code.to_owned(),
            title: self.code.title.to_owned(),
            title_zh: self.code.title_zh.to_owned(),
            detail: self.detail.clone(),
            message: self.detail.clone(),
            field: self.field.clone(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.code, self.detail)
    }
}

impl std::error::Error for Problem {}

/// A problem as JSON, media type `application/problem+json`.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemBody {
    /// A URN that ends in the code.
    pub r#type: String,
    /// The HTTP status.
    pub status: u16,
    /// Stable machine-readable code.
    pub code: String,
    /// What the code means, in English.
    pub title: String,
    /// What the code means, in Chinese.
    pub title_zh: String,
    /// What is wrong in this case and what would be right.
    pub detail: String,
    /// The same as `detail`: some Segment SDKs read this name.
    pub message: String,
    /// The field that is wrong, as a JSON path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        match (self.code.kind, self.code.code) {
            (_, "body_too_large") => StatusCode::PAYLOAD_TOO_LARGE,
            (_, "body_too_slow") => StatusCode::REQUEST_TIMEOUT,
            (_, "method_not_allowed") => StatusCode::METHOD_NOT_ALLOWED,
            (_, "erased") => StatusCode::GONE,
            (Kind::Invalid, _) => StatusCode::BAD_REQUEST,
            (Kind::Unauthenticated, _) => StatusCode::UNAUTHORIZED,
            (Kind::Forbidden, _) => StatusCode::FORBIDDEN,
            (Kind::NotFound, _) => StatusCode::NOT_FOUND,
            (Kind::Conflict, _) => StatusCode::CONFLICT,
            (Kind::Limited, _) => StatusCode::TOO_MANY_REQUESTS,
            (Kind::Unavailable, _) => StatusCode::SERVICE_UNAVAILABLE,
            (Kind::Internal, _) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        response.content_type("application/problem+json");
        if let Some(seconds) = self.retry_after_s {
            response.insert_header((header::RETRY_AFTER, seconds.to_string()));
        }
        if self.code.kind == Kind::Unauthenticated {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        response.json(self.body())
    }
}

/// What can go wrong inside the kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A statement or a commit failed; what it belonged to changed nothing.
    #[error("could not reach or use the database")]
    Database(#[from] DbErr),
    /// The database's word on a commit was not heard: it stands or it does not.
    #[error("whether a commit stands is not known")]
    Unconfirmed(#[source] DbErr),
    /// What a use case decided on has changed since; it starts again from reading.
    #[error("what was decided on has changed meanwhile: {0}")]
    Stale(&'static str),
    /// Another process is the processor now.
    #[error("the lease {0} is held by another process")]
    LeaseLost(String),
    /// A stored value that this release can't read.
    #[error("stored {what} can't be read: {why}")]
    Corrupt {
        /// The object.
        what: &'static str,
        /// Why it can't be read.
        why: String,
    },
    /// The tenant's key does not open what is stored, or is missing.
    #[error("{0}")]
    TenantKey(String),
    /// A setting with a value that is not allowed.
    #[error("setting {key}: {why}")]
    Setting {
        /// The key as written in the file, or the environment variable.
        key: String,
        /// What would be right.
        why: String,
    },
    /// A file of the data folder can't be used.
    #[error("could not {doing} {path}")]
    File {
        /// What was attempted.
        doing: &'static str,
        /// On which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A unit of work panicked; its effects are rolled back.
    #[error("unit of work {0} broke off")]
    Broken(&'static str),
    /// An answer for the caller.
    #[error(transparent)]
    Problem(#[from] Problem),
}

impl Error {
    /// Whether running the same unit again may succeed at once.
    pub fn is_contention(&self) -> bool {
        match self {
            Error::Database(error) => sql_state::fault(error) == Fault::Race,
            _ => false,
        }
    }

    /// Whether an insert met a row that is already there.
    pub fn is_duplicate(&self) -> bool {
        match self {
            Error::Database(error) => sql_state::is_duplicate(error),
            _ => false,
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        match error {
            Error::Problem(problem) => problem,
            Error::Database(source) => database_problem(&source),
            Error::Unconfirmed(source) => {
                tracing::error!(error = %source, "the connection to the database broke off during a commit");
                let detail = "the connection to the database broke off while this was committed, so that it was carried out or it was not; \
                    send it again with the same Idempotency-Key (or message ids), by which it is carried out once, or look first";
                Problem::new(codes::OUTCOME_UNKNOWN, detail).retry_after_s(1)
            }
            Error::Stale(what) => Problem::new(codes::UNAVAILABLE, format!("{what} kept changing meanwhile; try again")).retry_after_s(1),
            Error::LeaseLost(_) => Problem::new(codes::UNAVAILABLE, "this process is no longer the processor; try again").retry_after_s(1),
            other => {
                tracing::error!(error = %other, source = ?std::error::Error::source(&other), "an internal error was answered");
                Problem::new(codes::INTERNAL, "this is our fault; the log has the cause")
            }
        }
    }
}

fn database_problem(source: &DbErr) -> Problem {
    match sql_state::fault(source) {
        Fault::Request => {
            tracing::warn!(error = %source, "the database holds no such value as a request has");
            let detail = "the database holds no such value: a NUL character, or a text, number or time beyond its bounds";
            Problem::new(codes::INVALID_REQUEST, detail)
        }
        Fault::Ours => {
            tracing::error!(error = %source, "the database refused a statement that can't succeed");
            Problem::new(codes::INTERNAL, "this is our fault; the log has the cause")
        }
        Fault::Race | Fault::Away => {
            tracing::error!(error = %source, "the database refused a statement or is away");
            Problem::new(codes::UNAVAILABLE, "the database could not carry this out; nothing was changed, try again").retry_after_s(1)
        }
    }
}

/// A commit that failed, as each of the units in it hears of it.
#[derive(Debug, Clone)]
pub(crate) enum CommitFailure {
    /// It does not stand.
    Refused(DbErr),
    /// It may stand.
    Unconfirmed(DbErr),
}

impl CommitFailure {
    /// What an error that a commit answered means.
    pub(crate) fn of_commit(error: DbErr) -> CommitFailure {
        if sql_state::may_be_committed(&error) { CommitFailure::Unconfirmed(error) } else { CommitFailure::Refused(error) }
    }
}

impl From<CommitFailure> for Error {
    fn from(failure: CommitFailure) -> Error {
        match failure {
            CommitFailure::Refused(error) => Error::Database(error),
            CommitFailure::Unconfirmed(error) => Error::Unconfirmed(error),
        }
    }
}

/// A module's error, as far as the unit of work must look into it.
pub trait Failure: From<Error> + Send + 'static {
    /// The kernel's error inside, if that is what happened.
    fn kernel(&self) -> Option<&Error>;
}

impl Failure for Error {
    fn kernel(&self) -> Option<&Error> {
        Some(self)
    }
}

impl From<Problem> for Box<Error> {
    fn from(problem: Problem) -> Self {
        Box::new(Error::Problem(problem))
    }
}
