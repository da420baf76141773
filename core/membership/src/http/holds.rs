//! Holds of points over HTTP: set aside for an order, then captured, released, or run out.

use super::path_id;
use crate::facade::Membership;
use crate::hold::{HoldPoints, HoldView};
use actix_web::{HttpRequest, get, post, web};
use heyuan_contract::OrgUnitId;
use heyuan_kernel::http::{Authenticated, Body, Page, PageQuery, idempotency_header};
use heyuan_kernel::problems::{Conflicting, Invalid, Limited, Missing, Unwelcome};
use heyuan_kernel::{Problem, Rfc3339};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Points to set aside for an order.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HoldPointsBody {
    /// Above zero.
    #[schema(examples(100))]
    amount: i64,
    /// Where they will be spent.
    #[schema(value_type = String, examples("mall-1"))]
    unit: OrgUnitId,
    /// The order that they are for, in the unit's own words; no personal data.
    #[schema(examples("order 2026-1129-0001"))]
    reference: String,
    /// After this instant they are free again, within thirty days; not beside `minutes`.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Rfc3339>,
    /// For how long they are set aside; half an hour when neither is named.
    #[schema(examples(30))]
    minutes: Option<i64>,
}

/// How much of a hold is taken.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CaptureHoldBody {
    /// At most what the hold has set aside; all of it when left out. The rest is free again.
    #[schema(examples(80))]
    amount: Option<i64>,
}

/// Points that were set aside, and what became of them.
#[derive(Serialize, ToSchema)]
pub(super) struct HeldPointsBody {
    /// Its id.
    id: String,
    /// Whose points.
    member: String,
    /// Where they are to be spent.
    unit: String,
    /// How many.
    amount: i64,
    /// The order that they are for.
    reference: String,
    /// `open`, `captured`, `released` or `expired`.
    state: &'static str,
    /// How many of them were spent.
    captured: i64,
    /// The spend that they became: points of it are given back as of any other.
    spend: Option<String>,
    /// When they were set aside.
    held_at: Rfc3339,
    /// Until when they are.
    expires_at: Rfc3339,
    /// When it ended.
    ended_at: Option<Rfc3339>,
    /// The order of the mall that it pays: the order ends it, and it can be neither captured nor released here.
    order: Option<String>,
}

impl From<HoldView> for HeldPointsBody {
    fn from(hold: HoldView) -> HeldPointsBody {
        HeldPointsBody {
            id: hold.id,
            member: hold.member.to_string(),
            unit: hold.unit.to_string(),
            amount: hold.amount,
            reference: hold.reference,
            state: hold.state.as_str(),
            captured: hold.captured,
            spend: hold.spend,
            held_at: Rfc3339(hold.held_at),
            expires_at: Rfc3339(hold.expires_at),
            ended_at: hold.ended_at.map(Rfc3339),
            order: hold.order,
        }
    }
}

/// Sets points aside while an order is open, those that expire first first: until the hold ends, nobody can spend them. It runs out by
/// itself.
#[utoipa::path(
    tag = "membership", summary = "Hold points", request_body = HoldPointsBody, security(("key" = [])),
    params(
        ("id" = String, Path, description = "The member"),
        ("Idempotency-Key" = String, Header, description = "Fresh for each hold, the same for its retries"),
    ),
    responses(
        (status = 200, body = HeldPointsBody),
        Invalid, Unwelcome, Missing, Conflicting, Limited,
    )
)]
#[post("/v1/members/{id}/points/holds")]
pub(super) async fn hold_points(
    request: HttpRequest,
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
    body: Body<HoldPointsBody>,
) -> Result<web::Json<HeldPointsBody>, Problem> {
    let Body(body) = body;
    let wanted = HoldPoints {
        amount: body.amount,
        unit: body.unit,
        reference: body.reference,
        expires_at: body.expires_at.map(|at| at.0),
        minutes: body.minutes,
    };
    Ok(web::Json(membership.hold_points(&actor, &path_id("member", &id)?, &wanted, idempotency_header(&request)).await?.into()))
}

/// Lists a member's holds, newest first: all of them for the member itself and for a key that reaches it, else those of the key's units.
#[utoipa::path(
    tag = "membership", summary = "List a member's holds", security(("key" = [])),
    params(("id" = String, Path, description = "The member"), PageQuery),
    responses(
        (status = 200, body = Page<HeldPointsBody>),
        Invalid, Unwelcome, Missing,
    )
)]
#[get("/v1/members/{id}/points/holds")]
pub(super) async fn list_holds(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
    page: web::Query<PageQuery>,
) -> Result<web::Json<Page<HeldPointsBody>>, Problem> {
    let limit = page.limit()?;
    let holds = membership.holds(&actor, &path_id("member", &id)?, page.after()?, limit + 1).await?;
    let items = holds.into_iter().map(HeldPointsBody::from).collect();
    Ok(web::Json(Page::of(items, limit, |hold: &HeldPointsBody| hold.id.clone())))
}

/// Reads a hold.
#[utoipa::path(
    tag = "membership", summary = "Read a hold", security(("key" = [])),
    params(("id" = String, Path, description = "The member"), ("hold" = String, Path, description = "The hold")),
    responses(
        (status = 200, body = HeldPointsBody),
        Unwelcome, Missing,
    )
)]
#[get("/v1/members/{id}/points/holds/{hold}")]
pub(super) async fn get_hold(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    path: web::Path<(String, String)>,
) -> Result<web::Json<HeldPointsBody>, Problem> {
    let (id, hold) = path.into_inner();
    Ok(web::Json(membership.hold(&actor, &path_id("member", &id)?, &hold).await?.into()))
}

/// Spends held points, all of them or a part; the rest is free again. The hold ends with it.
#[utoipa::path(
    tag = "membership", summary = "Capture a hold", request_body = CaptureHoldBody, security(("key" = [])),
    params(
        ("id" = String, Path, description = "The member"),
        ("hold" = String, Path, description = "The hold"),
        ("Idempotency-Key" = String, Header, description = "Fresh for each capture, the same for its retries"),
    ),
    responses(
        (status = 200, body = HeldPointsBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/members/{id}/points/holds/{hold}:capture")]
pub(super) async fn capture_hold(
    request: HttpRequest,
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    path: web::Path<(String, String)>,
    body: Body<CaptureHoldBody>,
) -> Result<web::Json<HeldPointsBody>, Problem> {
    let (id, hold) = path.into_inner();
    let key = idempotency_header(&request);
    Ok(web::Json(membership.capture_hold(&actor, &path_id("member", &id)?, &hold, body.0.amount, key).await?.into()))
}

/// Sets held points free: the order is not paid with them.
#[utoipa::path(
    tag = "membership", summary = "Release a hold", security(("key" = [])),
    params(
        ("id" = String, Path, description = "The member"),
        ("hold" = String, Path, description = "The hold"),
        ("Idempotency-Key" = String, Header, description = "Fresh for each release, the same for its retries"),
    ),
    responses(
        (status = 200, body = HeldPointsBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/members/{id}/points/holds/{hold}:release")]
pub(super) async fn release_hold(
    request: HttpRequest,
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    path: web::Path<(String, String)>,
) -> Result<web::Json<HeldPointsBody>, Problem> {
    let (id, hold) = path.into_inner();
    Ok(web::Json(membership.release_hold(&actor, &path_id("member", &id)?, &hold, idempotency_header(&request)).await?.into()))
}
