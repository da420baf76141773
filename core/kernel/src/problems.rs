//! How problems stand in the OpenAPI document: each route names the kinds that it answers, and their shape is said once. A route that has
//! more to say of one than its kind does lists that one itself.

use crate::error::ProblemBody;
use utoipa::IntoResponses;

/// The request itself is wrong.
#[derive(IntoResponses)]
#[response(status = 400, content_type = "application/problem+json")]
pub struct Invalid(pub ProblemBody);

/// No key or token, or none that is known.
#[derive(IntoResponses)]
#[response(status = 401, content_type = "application/problem+json")]
pub struct Stranger(pub ProblemBody);

/// Not with this key or token.
#[derive(IntoResponses)]
#[response(status = 403, content_type = "application/problem+json")]
pub struct Forbidden(pub ProblemBody);

/// There is no key or token, or none that is known; or it may not do this.
#[derive(IntoResponses)]
pub enum Unwelcome {
    /// No key or token, or none that is known.
    #[response(status = 401, content_type = "application/problem+json")]
    Stranger(ProblemBody),
    /// Not with this key or token.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(ProblemBody),
}

/// Nothing there that this key or token may see.
#[derive(IntoResponses)]
#[response(status = 404, content_type = "application/problem+json")]
pub struct Missing(pub ProblemBody);

/// The object's state, or another request, stands against it.
#[derive(IntoResponses)]
#[response(status = 409, content_type = "application/problem+json")]
pub struct Conflicting(pub ProblemBody);

/// The person was erased.
#[derive(IntoResponses)]
#[response(status = 410, content_type = "application/problem+json")]
pub struct Erased(pub ProblemBody);

/// The body is longer than the route takes.
#[derive(IntoResponses)]
#[response(status = 413, content_type = "application/problem+json")]
pub struct TooLarge(pub ProblemBody);

/// Too much at once.
#[derive(IntoResponses)]
#[response(status = 429, content_type = "application/problem+json")]
pub struct Limited(pub ProblemBody);

/// Something that is needed is away.
#[derive(IntoResponses)]
#[response(status = 503, content_type = "application/problem+json")]
pub struct Away(pub ProblemBody);
