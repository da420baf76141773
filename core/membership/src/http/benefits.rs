//! Benefits over HTTP: the catalogue, what members were granted, and its use.

mod bodies;

pub(super) use bodies::BenefitGrantBody;

use super::path_id;
use crate::benefit::{GrantBenefit, Reserve, UseBenefit};
use crate::facade::Membership;
use actix_web::{HttpRequest, get, post, put, web};
use bodies::{
    BenefitBody, BenefitFiguresBody, BenefitReportBody, BenefitReportQuery, BenefitUseBody, GrantBenefitBody, PutBenefitBody,
    ReserveBenefitBody, ReturnBenefitBody, UseBenefitBody, UseReservationBody,
};
use heyuan_kernel::Problem;
use heyuan_kernel::http::{Authenticated, Body, Page, PageQuery, idempotency_header};
use heyuan_kernel::problems::{Conflicting, Invalid, Missing, Unwelcome};

/// Writes a benefit that a unit contributes, or a new version of it. Grants keep the terms that they were made with.
#[utoipa::path(
    tag = "membership", summary = "Write a benefit", request_body = PutBenefitBody, security(("key" = [])),
    params(("code" = String, Path, description = "1 to 63 characters of a-z 0-9 -")),
    responses(
        (status = 200, body = BenefitBody),
        Invalid, Unwelcome, Conflicting,
    )
)]
#[put("/v1/benefits/{code}")]
pub(super) async fn put_benefit(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    code: web::Path<String>,
    body: Body<PutBenefitBody>,
) -> Result<web::Json<BenefitBody>, Problem> {
    let Body(body) = body;
    let benefit = membership.put_benefit(&actor, &code, &body.into()).await?;
    Ok(web::Json(BenefitBody::shown(&actor, benefit)))
}

/// Lists benefits by code: the active ones, and for an admin key all of its units.
#[utoipa::path(
    tag = "membership", summary = "List benefits", security(("key" = [])), params(PageQuery),
    responses(
        (status = 200, body = Page<BenefitBody>),
        Invalid, Unwelcome,
    )
)]
#[get("/v1/benefits")]
pub(super) async fn list_benefits(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    page: web::Query<PageQuery>,
) -> Result<web::Json<Page<BenefitBody>>, Problem> {
    let limit = page.limit()?;
    let benefits = membership.benefits(&actor, page.after()?, limit + 1).await?;
    let items = benefits.into_iter().map(|benefit| BenefitBody::shown(&actor, benefit)).collect();
    Ok(web::Json(Page::of(items, limit, |benefit: &BenefitBody| benefit.code.clone())))
}

/// A month by benefit: granted, reserved, used, expired, and what the used units cost the line.
#[utoipa::path(
    tag = "membership", summary = "Report benefits", security(("key" = [])), params(BenefitReportQuery),
    responses(
        (status = 200, body = BenefitReportBody),
        Invalid, Unwelcome,
    )
)]
#[get("/v1/benefits/report")]
pub(super) async fn report_benefits(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    query: web::Query<BenefitReportQuery>,
) -> Result<web::Json<BenefitReportBody>, Problem> {
    let figures = membership.benefit_report(&actor, &query.period).await?;
    let benefits = figures.into_iter().map(BenefitFiguresBody::from).collect();
    Ok(web::Json(BenefitReportBody { period: query.into_inner().period, benefits }))
}

/// Reads a benefit.
#[utoipa::path(
    tag = "membership", summary = "Read a benefit", security(("key" = [])),
    params(("code" = String, Path, description = "The benefit")),
    responses(
        (status = 200, body = BenefitBody),
        Unwelcome, Missing,
    )
)]
#[get("/v1/benefits/{code}")]
pub(super) async fn get_benefit(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    code: web::Path<String>,
) -> Result<web::Json<BenefitBody>, Problem> {
    let benefit = membership.benefit(&actor, &code).await?;
    Ok(web::Json(BenefitBody::shown(&actor, benefit)))
}

/// Lists what a member was granted, newest first.
#[utoipa::path(
    tag = "membership", summary = "List a member's benefits", security(("key" = [])),
    params(("id" = String, Path, description = "The member"), PageQuery),
    responses(
        (status = 200, body = Page<BenefitGrantBody>),
        Invalid, Unwelcome, Missing,
    )
)]
#[get("/v1/members/{id}/benefits")]
pub(super) async fn list_member_benefits(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
    page: web::Query<PageQuery>,
) -> Result<web::Json<Page<BenefitGrantBody>>, Problem> {
    let limit = page.limit()?;
    let grants = membership.member_benefits(&actor, &path_id("member", &id)?, page.after()?, limit + 1).await?;
    let items = grants.into_iter().map(BenefitGrantBody::from).collect();
    Ok(web::Json(Page::of(items, limit, |grant: &BenefitGrantBody| grant.id.clone())))
}

/// Grants a member a benefit by hand, with a key that reaches the unit that contributes it; audited.
#[utoipa::path(
    tag = "membership", summary = "Grant a benefit", request_body = GrantBenefitBody, security(("key" = [])),
    params(
        ("id" = String, Path, description = "The member"),
        ("Idempotency-Key" = String, Header, description = "Fresh for each grant, the same for its retries"),
    ),
    responses(
        (status = 200, body = BenefitGrantBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/members/{id}/benefits")]
pub(super) async fn grant_benefit(
    request: HttpRequest,
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
    body: Body<GrantBenefitBody>,
) -> Result<web::Json<BenefitGrantBody>, Problem> {
    let Body(body) = body;
    let wanted = GrantBenefit { benefit: body.benefit, quantity: body.quantity, reason: body.reason };
    let granted = membership.grant_benefit(&actor, &path_id("member", &id)?, &wanted, idempotency_header(&request)).await?;
    Ok(web::Json(granted.into()))
}

/// Reserves units of a grant under a code, with an app's key or the member's own token.
#[utoipa::path(
    tag = "membership", summary = "Reserve a benefit", request_body = ReserveBenefitBody, security(("key" = [])),
    params(
        ("id" = String, Path, description = "The member"),
        ("grant" = String, Path, description = "The grant"),
        ("Idempotency-Key" = String, Header, description = "Fresh for each reservation, the same for its retries"),
    ),
    responses(
        (status = 200, body = BenefitUseBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/members/{id}/benefits/{grant}:reserve")]
pub(super) async fn reserve_benefit(
    request: HttpRequest,
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    path: web::Path<(String, String)>,
    body: Body<ReserveBenefitBody>,
) -> Result<web::Json<BenefitUseBody>, Problem> {
    let Body(body) = body;
    let (id, grant) = path.into_inner();
    let wanted = Reserve { quantity: body.quantity, unit: body.unit, minutes: body.minutes };
    let key = idempotency_header(&request);
    Ok(web::Json(membership.reserve_benefit(&actor, &path_id("member", &id)?, &grant, &wanted, key).await?.into()))
}

/// Lists what a member has reserved, whatever became of it, newest first.
#[utoipa::path(
    tag = "membership", summary = "List a member's reservations", security(("key" = [])),
    params(("id" = String, Path, description = "The member"), PageQuery),
    responses(
        (status = 200, body = Page<BenefitUseBody>),
        Invalid, Unwelcome, Missing,
    )
)]
#[get("/v1/members/{id}/benefit-reservations")]
pub(super) async fn list_reservations(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
    page: web::Query<PageQuery>,
) -> Result<web::Json<Page<BenefitUseBody>>, Problem> {
    let limit = page.limit()?;
    let taken = membership.reservations(&actor, &path_id("member", &id)?, page.after()?, limit + 1).await?;
    let items = taken.into_iter().map(BenefitUseBody::from).collect();
    Ok(web::Json(Page::of(items, limit, |taken: &BenefitUseBody| taken.id.clone())))
}

/// Uses units of a grant at a counter, at once.
#[utoipa::path(
    tag = "membership", summary = "Use a benefit", request_body = UseBenefitBody, security(("key" = [])),
    params(
        ("id" = String, Path, description = "The member"),
        ("grant" = String, Path, description = "The grant"),
        ("Idempotency-Key" = String, Header, description = "Fresh for each use, the same for its retries"),
    ),
    responses(
        (status = 200, body = BenefitUseBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/members/{id}/benefits/{grant}:use")]
pub(super) async fn use_benefit(
    request: HttpRequest,
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    path: web::Path<(String, String)>,
    body: Body<UseBenefitBody>,
) -> Result<web::Json<BenefitUseBody>, Problem> {
    let Body(body) = body;
    let (id, grant) = path.into_inner();
    let wanted = UseBenefit { quantity: body.quantity, unit: body.unit };
    let key = idempotency_header(&request);
    Ok(web::Json(membership.use_benefit(&actor, &path_id("member", &id)?, &grant, &wanted, key).await?.into()))
}

/// Gives reserved units back to their grant.
#[utoipa::path(
    tag = "membership", summary = "Return a benefit", request_body = ReturnBenefitBody, security(("key" = [])),
    params(
        ("id" = String, Path, description = "The member"),
        ("grant" = String, Path, description = "The grant"),
        ("Idempotency-Key" = String, Header, description = "Fresh for each return, the same for its retries"),
    ),
    responses(
        (status = 200, body = BenefitUseBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/members/{id}/benefits/{grant}:return")]
pub(super) async fn return_benefit(
    request: HttpRequest,
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    path: web::Path<(String, String)>,
    body: Body<ReturnBenefitBody>,
) -> Result<web::Json<BenefitUseBody>, Problem> {
    let Body(body) = body;
    let (id, grant) = path.into_inner();
    let key = idempotency_header(&request);
    Ok(web::Json(membership.return_benefit(&actor, &path_id("member", &id)?, &grant, &body.code, key).await?.into()))
}

/// Uses a reservation at a counter, by the code that the member shows.
#[utoipa::path(
    tag = "membership", summary = "Use a reservation", request_body = UseReservationBody, security(("key" = [])),
    params(
        ("code" = String, Path, description = "The reservation's code"),
        ("Idempotency-Key" = String, Header, description = "Fresh for each use, the same for its retries"),
    ),
    responses(
        (status = 200, body = BenefitUseBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/benefit-reservations/{code}:use")]
pub(super) async fn use_reservation(
    request: HttpRequest,
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    code: web::Path<String>,
    body: Body<UseReservationBody>,
) -> Result<web::Json<BenefitUseBody>, Problem> {
    let Body(body) = body;
    Ok(web::Json(membership.use_reservation(&actor, &code, &body.unit, idempotency_header(&request)).await?.into()))
}
