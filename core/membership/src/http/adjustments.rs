//! Adjustments of points over HTTP: proposed with one key, approved or rejected with another.

#![expect(unused_qualifications, reason = "utoipa's macro writes them around query parameters")]

use crate::adjustment::{Adjust, AdjustmentState, AdjustmentView, AdjustmentsOf};
use crate::facade::Membership;
use actix_web::{HttpRequest, get, post, web};
use heyuan_contract::{MemberId, OrgUnitId};
use heyuan_kernel::http::{Authenticated, Body, Page, PageQuery, idempotency_header};
use heyuan_kernel::problems::{Conflicting, Invalid, Missing, Unwelcome};
use heyuan_kernel::{Problem, Rfc3339};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// An adjustment to propose.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ProposeAdjustmentBody {
    /// Whose points.
    #[schema(value_type = String, examples("mbr_0198c0de00007000800000000000abcd"))]
    member: MemberId,
    /// Granted above zero, taken below.
    #[schema(examples(200))]
    amount: i64,
    /// On whose account: its line issues what is granted, at the cost of its earn rules.
    #[schema(value_type = String, examples("mall-1"))]
    unit: OrgUnitId,
    /// Why; no personal data.
    #[schema(examples("the till was offline on member day"))]
    reason: String,
    /// When granted points expire; as those that are earned on the day of the approval when left out.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Rfc3339>,
}

/// Why an adjustment is rejected.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RejectAdjustmentBody {
    /// In people's words, without personal data.
    #[schema(examples("was granted already"))]
    reason: String,
}

/// An adjustment and what became of it.
#[derive(Serialize, ToSchema)]
struct PointsAdjustmentBody {
    /// Its id.
    id: String,
    /// Whose points.
    member: String,
    /// On whose account.
    unit: String,
    /// The unit's line.
    line: String,
    /// Granted above zero, taken below.
    amount: i64,
    /// Why.
    reason: String,
    /// When granted points expire, if the proposal says so.
    expires_at: Option<Rfc3339>,
    /// `proposed`, `approved`, `rejected` or `lapsed`.
    state: &'static str,
    /// The key that proposed it.
    proposed_by: String,
    /// When.
    proposed_at: Rfc3339,
    /// From when on nobody can approve it any more.
    lapses_at: Rfc3339,
    /// The key that approved or rejected it.
    decided_by: Option<String>,
    /// When it was decided, or lapsed.
    decided_at: Option<Rfc3339>,
    /// Why it was rejected.
    rejection: Option<String>,
    /// The month that it counts in, once it is posted.
    #[schema(examples("2026-11"))]
    accounting_period: Option<String>,
    /// Granted points that paid what the member owed.
    recovered: i64,
}

impl From<AdjustmentView> for PointsAdjustmentBody {
    fn from(adjustment: AdjustmentView) -> PointsAdjustmentBody {
        PointsAdjustmentBody {
            id: adjustment.id,
            member: adjustment.member.to_string(),
            unit: adjustment.unit.to_string(),
            line: adjustment.line.to_string(),
            amount: adjustment.amount,
            reason: adjustment.reason,
            expires_at: adjustment.expires_at.map(Rfc3339),
            state: adjustment.state.as_str(),
            proposed_by: adjustment.proposed_by,
            proposed_at: Rfc3339(adjustment.proposed_at),
            lapses_at: Rfc3339(adjustment.lapses_at),
            decided_by: adjustment.decided_by,
            decided_at: adjustment.decided_at.map(Rfc3339),
            rejection: adjustment.words,
            accounting_period: adjustment.period.map(|period| period.to_string()),
            recovered: adjustment.recovered,
        }
    }
}

/// Which adjustments are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct AdjustmentsQuery {
    /// `proposed`, `approved`, `rejected` or `lapsed`; all when left out.
    state: Option<String>,
    /// Of this member alone.
    member: Option<String>,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// 1 to 200 items; 50 when left out.
    limit: Option<u64>,
}

impl AdjustmentsQuery {
    fn of(&self) -> Result<AdjustmentsOf, Problem> {
        let state = |text: &String| {
            let state = AdjustmentState::parse(text);
            state.ok_or_else(|| Problem::invalid("state", "expected proposed, approved, rejected or lapsed"))
        };
        let member = |text: &String| MemberId::new(text.as_str()).map_err(|e| Problem::invalid("member", e.to_string()));
        Ok(AdjustmentsOf { state: self.state.as_ref().map(state).transpose()?, member: self.member.as_ref().map(member).transpose()? })
    }
}

/// Proposes to grant a member points, or to take some. Nothing moves before somebody approves it with another key; after thirty days it
/// lapses.
#[utoipa::path(
    tag = "membership", summary = "Propose an adjustment", request_body = ProposeAdjustmentBody, security(("key" = [])),
    params(("Idempotency-Key" = String, Header, description = "Fresh for each proposal, the same for its retries")),
    responses(
        (status = 201, body = PointsAdjustmentBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/points-adjustments")]
pub(super) async fn propose_adjustment(
    request: HttpRequest,
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    body: Body<ProposeAdjustmentBody>,
) -> Result<actix_web::HttpResponse, Problem> {
    let Body(body) = body;
    let wanted = Adjust {
        member: body.member,
        amount: body.amount,
        unit: body.unit,
        reason: body.reason,
        expires_at: body.expires_at.map(|at| at.0),
    };
    let proposed = membership.propose_adjustment(&actor, &wanted, idempotency_header(&request)).await?;
    Ok(actix_web::HttpResponse::Created().json(PointsAdjustmentBody::from(proposed)))
}

/// Lists adjustments on account of the key's units, newest first.
#[utoipa::path(
    tag = "membership", summary = "List adjustments", security(("key" = [])), params(AdjustmentsQuery),
    responses(
        (status = 200, body = Page<PointsAdjustmentBody>),
        Invalid, Unwelcome,
    )
)]
#[get("/v1/points-adjustments")]
pub(super) async fn list_adjustments(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    query: web::Query<AdjustmentsQuery>,
) -> Result<web::Json<Page<PointsAdjustmentBody>>, Problem> {
    let page = PageQuery { cursor: query.cursor.clone(), limit: query.limit };
    let limit = page.limit()?;
    let found = membership.adjustments(&actor, &query.of()?, page.after()?, limit + 1).await?;
    let items = found.into_iter().map(PointsAdjustmentBody::from).collect();
    Ok(web::Json(Page::of(items, limit, |adjustment: &PointsAdjustmentBody| adjustment.id.clone())))
}

/// Reads an adjustment.
#[utoipa::path(
    tag = "membership", summary = "Read an adjustment", security(("key" = [])),
    params(("id" = String, Path, description = "The adjustment")),
    responses(
        (status = 200, body = PointsAdjustmentBody),
        Unwelcome, Missing,
    )
)]
#[get("/v1/points-adjustments/{id}")]
pub(super) async fn get_adjustment(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
) -> Result<web::Json<PointsAdjustmentBody>, Problem> {
    Ok(web::Json(membership.adjustment(&actor, &id).await?.into()))
}

/// Approves an adjustment with another key than the one that proposed it, and posts it. Where the member has too few points it is refused
/// and stays proposed.
#[utoipa::path(
    tag = "membership", summary = "Approve an adjustment", security(("key" = [])),
    params(
        ("id" = String, Path, description = "The adjustment"),
        ("Idempotency-Key" = String, Header, description = "Fresh for each approval, the same for its retries"),
    ),
    responses(
        (status = 200, body = PointsAdjustmentBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/points-adjustments/{id}:approve")]
pub(super) async fn approve_adjustment(
    request: HttpRequest,
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
) -> Result<web::Json<PointsAdjustmentBody>, Problem> {
    Ok(web::Json(membership.approve_adjustment(&actor, &id, idempotency_header(&request)).await?.into()))
}

/// Rejects an adjustment with another key than the one that proposed it.
#[utoipa::path(
    tag = "membership", summary = "Reject an adjustment", request_body = RejectAdjustmentBody, security(("key" = [])),
    params(("id" = String, Path, description = "The adjustment")),
    responses(
        (status = 200, body = PointsAdjustmentBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/points-adjustments/{id}:reject")]
pub(super) async fn reject_adjustment(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
    body: Body<RejectAdjustmentBody>,
) -> Result<web::Json<PointsAdjustmentBody>, Problem> {
    Ok(web::Json(membership.reject_adjustment(&actor, &id, &body.0.reason).await?.into()))
}
