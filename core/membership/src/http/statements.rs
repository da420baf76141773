//! Lines' statements of a closed month over HTTP: read, confirmed, disputed, answered.

use super::clearing::ClearingLineBody;
use crate::facade::Membership;
use crate::settlement::{Answer, LineStatement, Say};
use actix_web::{HttpRequest, get, post, web};
use heyuan_contract::Line;
use heyuan_kernel::http::{Authenticated, Body, idempotency_header};
use heyuan_kernel::problems::{Conflicting, Invalid, Missing, Unwelcome};
use heyuan_kernel::{Actor, Problem, Rfc3339, Scope};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One line's statement of a closed month.
#[derive(Serialize, ToSchema)]
struct StatementBody {
    /// The closed month.
    #[schema(examples("2026-11"))]
    period: String,
    /// Its figures, for ever.
    figures: ClearingLineBody,
    /// `issued`, `confirmed`, `disputed` or `answered`.
    state: &'static str,
    /// What was said last.
    reason: Option<String>,
    /// Who spoke last.
    by: Option<String>,
    /// When.
    at: Option<Rfc3339>,
    /// Corrections that were made because of it: what the line gets, or with a minus owes, beyond its figures.
    corrected_fen: i64,
    /// The dispute that it stands in: what a correction names that answers it.
    dispute: Option<String>,
}

impl From<LineStatement> for StatementBody {
    fn from(statement: LineStatement) -> StatementBody {
        StatementBody {
            period: statement.period.to_string(),
            figures: statement.figures.into(),
            state: statement.state.as_str(),
            reason: statement.words,
            by: statement.by,
            at: statement.at.map(Rfc3339),
            corrected_fen: statement.corrected_fen,
            dispute: statement.dispute,
        }
    }
}

/// The statements of a closed month.
#[derive(Serialize, ToSchema)]
struct StatementsBody {
    /// One a line.
    items: Vec<StatementBody>,
}

/// Why a line disagrees.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DisputeBody {
    /// In people's words, without personal data.
    #[schema(examples("October's double import is in it"))]
    reason: String,
}

/// What the group answers to a dispute.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AnswerBody {
    /// In people's words, without personal data.
    #[schema(examples("the second import is taken back"))]
    reason: String,
    /// What the line gets, or with a minus owes, in the first open month.
    #[serde(default)]
    #[schema(examples(-1200))]
    correction_fen: i64,
    /// The dispute that is answered, as the statement names it: where it stands in another one by now, nothing happens.
    dispute: Option<String>,
}

/// The line of a path, for whoever may ask at all.
fn line_of(actor: &Actor, text: &str) -> Result<Line, Problem> {
    actor.require(Scope::Admin)?;
    Line::parse(text).ok_or_else(|| Problem::not_found("statement of line", text))
}

/// Lists the statements of a closed month: every line's, or those of the lines whose every unit the key reaches.
#[utoipa::path(
    tag = "membership", summary = "List statements", security(("key" = [])),
    params(("period" = String, Path, description = "A closed month such as 2026-11")),
    responses(
        (status = 200, body = StatementsBody),
        Invalid, Unwelcome, Missing,
    )
)]
#[get("/v1/clearing/{period}/statements")]
pub(super) async fn list_statements(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    period: web::Path<String>,
) -> Result<web::Json<StatementsBody>, Problem> {
    let items = membership.statements(&actor, &period).await?.into_iter().map(StatementBody::from).collect();
    Ok(web::Json(StatementsBody { items }))
}

/// Confirms a line's statement, for good.
#[utoipa::path(
    tag = "membership", summary = "Confirm a statement", security(("key" = [])),
    params(("period" = String, Path, description = "A closed month"), ("line" = String, Path, description = "The business line")),
    responses(
        (status = 200, body = StatementBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/clearing/{period}/statements/{line}:confirm")]
pub(super) async fn confirm_statement(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    path: web::Path<(String, String)>,
) -> Result<web::Json<StatementBody>, Problem> {
    Ok(web::Json(membership.say(&actor, &path.0, line_of(&actor, &path.1)?, Say::Confirm).await?.into()))
}

/// Disputes a line's statement, with the reason; one that was confirmed can't be disputed any more.
#[utoipa::path(
    tag = "membership", summary = "Dispute a statement", security(("key" = [])), request_body = DisputeBody,
    params(("period" = String, Path, description = "A closed month"), ("line" = String, Path, description = "The business line")),
    responses(
        (status = 200, body = StatementBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/clearing/{period}/statements/{line}:dispute")]
pub(super) async fn dispute_statement(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    path: web::Path<(String, String)>,
    body: Body<DisputeBody>,
) -> Result<web::Json<StatementBody>, Problem> {
    let say = Say::Dispute(body.0.reason);
    Ok(web::Json(membership.say(&actor, &path.0, line_of(&actor, &path.1)?, say).await?.into()))
}

/// Answers a disputed statement for the group, where the line is right with a correction: money between the line and the points centre
/// that counts in the first open month. The line then confirms, or disputes again.
#[utoipa::path(
    tag = "membership", summary = "Answer a dispute", security(("key" = [])), request_body = AnswerBody,
    params(
        ("period" = String, Path, description = "A closed month"),
        ("line" = String, Path, description = "The business line"),
        ("Idempotency-Key" = String, Header, description = "Fresh for each answer, the same for its retries"),
    ),
    responses(
        (status = 200, body = StatementBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/clearing/{period}/statements/{line}:answer")]
pub(super) async fn answer_statement(
    request: HttpRequest,
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    path: web::Path<(String, String)>,
    body: Body<AnswerBody>,
) -> Result<web::Json<StatementBody>, Problem> {
    let Body(body) = body;
    let answer = Answer { words: body.reason, correction_fen: body.correction_fen, dispute: body.dispute };
    let line = line_of(&actor, &path.1)?;
    Ok(web::Json(membership.answer(&actor, &path.0, line, &answer, idempotency_header(&request)).await?.into()))
}
