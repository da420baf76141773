//! Corrections of closed months over HTTP: proposed by one person, approved or rejected by another, listed.

#![expect(unused_qualifications, reason = "utoipa's macro writes them around query parameters")]

use super::cells::line_of;
use crate::correction::{Amount, Correction, CorrectionFilter, CorrectionState, CorrectionView, Verdict};
use crate::facade::Membership;
use actix_web::{HttpRequest, HttpResponse, get, post, web};
use heyuan_contract::{Line, Ratio};
use heyuan_kernel::http::{Authenticated, Body, Page, PageQuery, idempotency_header};
use heyuan_kernel::problems::{Conflicting, Invalid, Missing, Unwelcome};
use heyuan_kernel::{Problem, Rfc3339, Scope};
use heyuan_ledger::Period;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// An exact ratio.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UnitCostBody {
    /// The part above the line.
    #[schema(examples(6))]
    numerator: i64,
    /// The part below the line.
    #[schema(examples(5))]
    denominator: i64,
}

/// A correction to propose: an amount in fen, or in points at a unit cost that come to whole fen.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ProposeBody {
    /// The closed month that was wrong.
    #[schema(examples("2026-11"))]
    of_period: String,
    /// The line that gets it, or with a minus owes it.
    #[schema(examples("hotel"))]
    line: String,
    /// The other side: `centre`, or another line.
    #[serde(default)]
    #[schema(examples("centre"))]
    counter: Option<String>,
    /// Positive when the line gets it. This or `points`.
    #[schema(examples(-1200))]
    fen: Option<i64>,
    /// Positive when the line gets their cost. This or `fen`.
    points: Option<i64>,
    /// Fen a point, with `points`.
    unit_cost: Option<UnitCostBody>,
    /// In people's words, without personal data.
    #[schema(examples("October's double import is in it"))]
    reason: String,
    /// The `dispute` of the line's statement, where the correction answers it.
    dispute: Option<String>,
}

impl ProposeBody {
    fn correction(self) -> Result<Correction, Problem> {
        let line = line_of("line", Some(&self.line))?.ok_or_else(|| Problem::invalid("line", "expected a line"))?;
        let counter = line_of("counter", self.counter.as_deref().filter(|counter| *counter != "centre"))?;
        let amount = match (self.fen, self.points, self.unit_cost) {
            (Some(fen), None, None) => Amount::Fen(fen),
            (None, Some(points), Some(cost)) => {
                let cost = Ratio::new(cost.numerator, cost.denominator);
                let words = "expected a numerator of 0 or more and a denominator above 0";
                Amount::Points(points, cost.map_err(|_| Problem::invalid("unit_cost", words))?)
            }
            (None, Some(_), None) => return Err(Problem::invalid("unit_cost", "expected with points: fen a point")),
            (Some(_), None, Some(_)) => return Err(Problem::invalid("unit_cost", "expected with points alone")),
            _ => return Err(Problem::invalid("fen", "expected either fen or points")),
        };
        Ok(Correction { of_period: self.of_period, line, counter, amount, reason: self.reason, dispute: self.dispute })
    }
}

/// Why a proposal is rejected.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RejectBody {
    /// In people's words, without personal data.
    #[schema(examples("it was corrected already"))]
    reason: String,
}

/// A correction.
#[derive(Serialize, ToSchema)]
struct CorrectionBody {
    /// Its id.
    id: String,
    /// The closed month that was wrong.
    of_period: String,
    /// The line.
    line: String,
    /// The other side: `centre` or a line.
    counter: String,
    /// What the line gets, or with a minus owes; the other side the reverse.
    fen: i64,
    /// The points that it was proposed in.
    points: Option<i64>,
    /// Why.
    reason: String,
    /// The dispute that it answers.
    dispute: Option<String>,
    /// `proposed`, `approved` or `rejected`.
    state: &'static str,
    /// Who proposed it.
    proposed_by: String,
    /// When.
    proposed_at: Rfc3339,
    /// Who approved or rejected it.
    decided_by: Option<String>,
    /// When.
    decided_at: Option<Rfc3339>,
    /// Why it was rejected.
    decision: Option<String>,
    /// The month in which it counts.
    accounting_period: Option<String>,
}

impl From<CorrectionView> for CorrectionBody {
    fn from(view: CorrectionView) -> CorrectionBody {
        CorrectionBody {
            id: view.id,
            of_period: view.of_period.to_string(),
            line: view.line.to_string(),
            counter: view.counter.map_or("centre", Line::as_str).to_owned(),
            fen: view.fen,
            points: view.points.map(|(points, _)| points),
            reason: view.reason,
            dispute: view.dispute,
            state: view.state.as_str(),
            proposed_by: view.proposed_by,
            proposed_at: Rfc3339(view.proposed_at),
            decided_by: view.decided_by,
            decided_at: view.decided_at.map(Rfc3339),
            decision: view.decision,
            accounting_period: view.period.map(|period| period.to_string()),
        }
    }
}

/// Which corrections.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct CorrectionsQuery {
    /// Of this closed month.
    of_period: Option<String>,
    /// That count in this month.
    period: Option<String>,
    /// Of this line, on either side.
    line: Option<String>,
    /// `proposed`, `approved` or `rejected`.
    state: Option<String>,
}

impl CorrectionsQuery {
    fn filter(&self) -> Result<CorrectionFilter, Problem> {
        let month = |field: &str, text: Option<&str>| {
            let wrong = || Problem::invalid(field, "expected a month such as 2026-11");
            text.map(|text| Period::parse(text).ok_or_else(wrong)).transpose()
        };
        let state = |text| CorrectionState::parse(text).ok_or_else(|| Problem::invalid("state", "expected proposed, approved or rejected"));
        Ok(CorrectionFilter {
            of_period: month("of_period", self.of_period.as_deref())?,
            period: month("period", self.period.as_deref())?,
            line: line_of("line", self.line.as_deref())?,
            state: self.state.as_deref().map(state).transpose()?,
        })
    }
}

/// Proposes a correction of a closed month: money between a line and the points centre, or another line. It counts once somebody else
/// approves it, in the first month that is open then; the closed month stays as it is.
#[utoipa::path(
    tag = "membership", summary = "Propose a correction", request_body = ProposeBody, security(("key" = [])),
    params(("Idempotency-Key" = String, Header, description = "Fresh for each correction, the same for its retries")),
    responses(
        (status = 201, body = CorrectionBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/clearing/corrections")]
pub(super) async fn propose_correction(
    request: HttpRequest,
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    body: Body<ProposeBody>,
) -> Result<HttpResponse, Problem> {
    actor.require(Scope::Admin)?;
    let correction = body.0.correction()?;
    let view = membership.propose_correction(&actor, &correction, idempotency_header(&request)).await?;
    Ok(HttpResponse::Created().json(CorrectionBody::from(view)))
}

/// Reads a correction: any, or one of the lines whose every unit the key reaches.
#[utoipa::path(
    tag = "membership", summary = "Read a correction", security(("key" = [])),
    params(("id" = String, Path, description = "The correction")),
    responses(
        (status = 200, body = CorrectionBody),
        Unwelcome, Missing,
    )
)]
#[get("/v1/clearing/corrections/{id}")]
pub(super) async fn get_correction(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
) -> Result<web::Json<CorrectionBody>, Problem> {
    Ok(web::Json(membership.correction(&actor, &id).await?.into()))
}

/// Approves a correction that somebody else proposed: it counts in the first open month, and answers the dispute that it names.
#[utoipa::path(
    tag = "membership", summary = "Approve a correction", security(("key" = [])),
    params(("id" = String, Path, description = "The correction")),
    responses(
        (status = 200, body = CorrectionBody),
        Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/clearing/corrections/{id}:approve")]
pub(super) async fn approve_correction(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
) -> Result<web::Json<CorrectionBody>, Problem> {
    Ok(web::Json(membership.decide_correction(&actor, &id, Verdict::Approve).await?.into()))
}

/// Rejects a proposed correction, also one's own, with the reason. It never counts.
#[utoipa::path(
    tag = "membership", summary = "Reject a correction", request_body = RejectBody, security(("key" = [])),
    params(("id" = String, Path, description = "The correction")),
    responses(
        (status = 200, body = CorrectionBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/clearing/corrections/{id}:reject")]
pub(super) async fn reject_correction(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
    body: Body<RejectBody>,
) -> Result<web::Json<CorrectionBody>, Problem> {
    Ok(web::Json(membership.decide_correction(&actor, &id, Verdict::Reject(body.0.reason)).await?.into()))
}

/// Lists corrections, oldest first: all, or those of the lines whose every unit the key reaches.
#[utoipa::path(
    tag = "membership", summary = "List corrections", security(("key" = [])), params(CorrectionsQuery, PageQuery),
    responses(
        (status = 200, body = Page<CorrectionBody>),
        Invalid, Unwelcome,
    )
)]
#[get("/v1/clearing/corrections")]
pub(super) async fn list_corrections(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    query: web::Query<CorrectionsQuery>,
    page: web::Query<PageQuery>,
) -> Result<web::Json<Page<CorrectionBody>>, Problem> {
    actor.require(Scope::Admin)?;
    let limit = page.limit()?;
    let mut views = membership.corrections(&actor, query.filter()?, page.after_number()?.unwrap_or(0), limit + 1).await?;
    let shown = usize::try_from(limit).unwrap_or(usize::MAX);
    let next = if views.len() > shown { views.get(shown - 1).map(|view| view.number.to_string()) } else { None };
    views.truncate(shown);
    Ok(web::Json(Page::before(views.into_iter().map(CorrectionBody::from).collect(), next)))
}
