//! The check list of a close, and the close itself, over HTTP.

use super::clearing::ClearingBody;
use crate::checklist::{Check, Checklist, Closing, NotReady};
use crate::clearing::ClearingState;
use crate::error::Error;
use crate::facade::Membership;
use actix_web::{HttpResponse, ResponseError, get, post, web};
use heyuan_kernel::error::ProblemBody;
use heyuan_kernel::http::{Authenticated, BODY_BYTES_MAX, parse_json, read_body};
use heyuan_kernel::problems::{Invalid, Unwelcome};
use heyuan_kernel::{Problem, Rfc3339};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An entry of a check list.
#[derive(Serialize, ToSchema)]
struct CheckBody {
    /// `within_book`, `month_over`, `earlier_months_closed`, `points_past_expiry`, `can_be_summed`, `books_agree`, `refunds_waiting`,
    /// `holds_run_out`, `disputes_open`, `corrections_proposed`, `reconciliation_missing`, `reconciliation_differs` or `seals_behind`.
    #[schema(examples("refunds_waiting"))]
    code: String,
    /// `ok`, `warning` or `blocking`.
    state: &'static str,
    /// Of how many things.
    count: i64,
    /// What it says, in English.
    words: String,
    /// What it says, in Chinese.
    words_zh: String,
}

impl From<Check> for CheckBody {
    fn from(check: Check) -> CheckBody {
        CheckBody { code: check.code, state: check.state.as_str(), count: check.count, words: check.words, words_zh: check.words_zh }
    }
}

/// The check list of a month.
#[derive(Serialize, ToSchema)]
struct ChecklistBody {
    /// The month.
    #[schema(examples("2026-11"))]
    period: String,
    /// `open`, `closing` or `closed`.
    state: &'static str,
    /// Always the same entries in the same order; none of a month that an earlier release closed.
    checks: Vec<CheckBody>,
    /// Who closed the month.
    closed_by: Option<String>,
    /// When.
    closed_at: Option<Rfc3339>,
    /// Why in spite of warnings, where that was said.
    reason: Option<String>,
}

impl From<Checklist> for ChecklistBody {
    fn from(list: Checklist) -> ChecklistBody {
        let closed = list.closed.as_ref();
        ChecklistBody {
            period: list.period.to_string(),
            state: match list.state {
                ClearingState::Open => "open",
                ClearingState::Closing => "closing",
                ClearingState::Closed => "closed",
            },
            closed_by: closed.map(|closed| closed.actor.clone()),
            closed_at: closed.map(|closed| Rfc3339(closed.at)),
            reason: closed.and_then(|closed| closed.reason.clone()),
            checks: list.checks.into_iter().map(CheckBody::from).collect(),
        }
    }
}

/// How a month is closed.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CloseBody {
    /// Whether warnings of the check list refuse the close as well.
    #[serde(default)]
    strict: bool,
    /// Why it is closed in spite of warnings; kept with the month and in the audit record. No personal data.
    #[serde(default)]
    #[schema(examples("the hotel's books come next week"))]
    reason: Option<String>,
}

/// A close that was refused, with the list that is against it.
#[derive(Serialize, ToSchema)]
struct NotReadyBody {
    #[serde(flatten)]
    problem: ProblemBody,
    /// The check list.
    checks: Vec<CheckBody>,
}

/// Reads the check list of a month: as it stands, or as it was when the month was closed. What blocks refuses the close, a warning is for
/// somebody to look at.
#[utoipa::path(
    tag = "membership", summary = "Read the check list of a close", security(("key" = [])),
    params(("period" = String, Path, description = "A month such as 2026-11")),
    responses(
        (status = 200, body = ChecklistBody),
        Invalid, Unwelcome,
    )
)]
#[get("/v1/clearing/{period}/checklist")]
pub(super) async fn get_checklist(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    period: web::Path<String>,
) -> Result<web::Json<ChecklistBody>, Problem> {
    Ok(web::Json(membership.checklist(&actor, &period).await?.into()))
}

/// Closes a month that is over: it never changes again, and later facts count in the first open one. Points past their expiry are moved
/// out before, and the check list is kept with the month. A body is optional.
#[utoipa::path(
    tag = "membership", summary = "Close a month", security(("key" = [])), request_body = Option<CloseBody>,
    params(("period" = String, Path, description = "A month such as 2026-11")),
    responses(
        (status = 200, body = ClearingBody),
        Invalid, Unwelcome,
        (status = 409, description = "With the check list", body = NotReadyBody, content_type = "application/problem+json"),
    )
)]
#[post("/v1/clearing/{period}:close")]
pub(super) async fn close_period(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    period: web::Path<String>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let bytes = read_body(payload.into_inner(), BODY_BYTES_MAX).await?;
    let body: CloseBody = if bytes.is_empty() { CloseBody::default() } else { parse_json(&bytes)? };
    let closing = Closing { strict: body.strict, reason: body.reason };
    match membership.close_with(&actor, &period, &closing).await {
        Ok(clearing) => Ok(HttpResponse::Ok().json(ClearingBody::from(clearing))),
        Err(Error::NotReady(not_ready)) => Ok(refused(*not_ready)),
        Err(error) => Err(error.into()),
    }
}

fn refused(not_ready: NotReady) -> HttpResponse {
    let NotReady { problem, checks } = not_ready;
    let body = NotReadyBody { problem: problem.body(), checks: checks.into_iter().map(CheckBody::from).collect() };
    HttpResponse::build(problem.status_code()).content_type("application/problem+json").json(body)
}
