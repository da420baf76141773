//! Tiers over HTTP: versions of the policy, who would move under one, and grants by hand.

mod bodies;

use super::path_id;
use crate::facade::Membership;
use crate::tier::GrantTier;
use actix_web::{HttpRequest, get, post, put, web};
pub(super) use bodies::TierStandingBody;
use bodies::{
    GrantTierBody, PreviewTierPolicyBody, PutTierPolicyBody, RevokeTierBody, TierGrantBody, TierPolicyBody, TierPolicyListBody,
    TierPreviewBody,
};
use heyuan_kernel::Problem;
use heyuan_kernel::http::{Authenticated, Body, Page, PageQuery, idempotency_header};
use heyuan_kernel::problems::{Conflicting, Invalid, Limited, Missing, Unwelcome};

/// Writes the next version of the tier policy. It never changes afterwards; from its start on it counts for everybody, and the clockwork
/// moves whoever has another tier under it. The same body again is answered as it is.
#[utoipa::path(
    tag = "membership", summary = "Put a tier policy", security(("key" = [])), request_body = PutTierPolicyBody,
    params(("version" = i64, Path, description = "The next number")),
    responses(
        (status = 200, body = TierPolicyBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[put("/v1/tier-policies/{version}")]
pub(super) async fn put_tier_policy(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    version: web::Path<String>,
    body: Body<PutTierPolicyBody>,
) -> Result<web::Json<TierPolicyBody>, Problem> {
    let Body(body) = body;
    Ok(web::Json(membership.put_tier_policy(&actor, &body.parsed(path_version(&version)?)).await?.into()))
}

/// Lists every version of the tier policy.
#[utoipa::path(
    tag = "membership", summary = "List tier policies", security(("key" = [])),
    responses(
        (status = 200, body = TierPolicyListBody),
        Unwelcome,
    )
)]
#[get("/v1/tier-policies")]
pub(super) async fn list_tier_policies(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
) -> Result<web::Json<TierPolicyListBody>, Problem> {
    let items = membership.list_tier_policies(&actor).await?.into_iter().map(TierPolicyBody::from).collect();
    Ok(web::Json(TierPolicyListBody { items }))
}

/// Reads a version of the tier policy.
#[utoipa::path(
    tag = "membership", summary = "Read a tier policy", security(("key" = [])),
    params(("version" = i64, Path, description = "The version")),
    responses(
        (status = 200, body = TierPolicyBody),
        Unwelcome, Missing,
    )
)]
#[get("/v1/tier-policies/{version}")]
pub(super) async fn get_tier_policy(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    version: web::Path<String>,
) -> Result<web::Json<TierPolicyBody>, Problem> {
    Ok(web::Json(membership.get_tier_policy(&actor, path_version(&version)?).await?.into()))
}

/// Says who would have another tier if a version were put, by replaying every member's history; nothing is written. What can't be put is
/// refused as there. Goes through all members, five million at most: the first page takes longest.
#[utoipa::path(
    tag = "membership", summary = "Preview a tier policy", security(("key" = [])), request_body = PreviewTierPolicyBody, params(PageQuery),
    responses(
        (status = 200, body = TierPreviewBody),
        Invalid, Unwelcome, Conflicting, Limited,
    )
)]
#[post("/v1/tier-policies:preview")]
pub(super) async fn preview_tier_policy(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    page: web::Query<PageQuery>,
    body: Body<PreviewTierPolicyBody>,
) -> Result<web::Json<TierPreviewBody>, Problem> {
    let Body(body) = body;
    let limit = page.limit()?;
    let (policy, at) = (body.policy.parsed(0), body.at.map(|at| at.0));
    let mut preview = membership.preview_tier_policy(&actor, &policy, at, page.after()?, limit + 1).await?;
    let page = Page::of(std::mem::take(&mut preview.movers), limit, |mover| mover.member.to_string());
    Ok(web::Json(TierPreviewBody::of(preview, page.items, page.next)))
}

/// Grants a member a tier by hand until an instant, with an admin key that reaches the member; audited. The tier that counts is the higher
/// one of the earned and the granted.
#[utoipa::path(
    tag = "membership", summary = "Grant a tier", request_body = GrantTierBody, security(("key" = [])),
    params(
        ("id" = String, Path, description = "The member"),
        ("Idempotency-Key" = String, Header, description = "Fresh for each grant, the same for its retries"),
    ),
    responses(
        (status = 200, body = TierGrantBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/members/{id}/tier-grants")]
pub(super) async fn grant_tier(
    request: HttpRequest,
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
    body: Body<GrantTierBody>,
) -> Result<web::Json<TierGrantBody>, Problem> {
    let Body(body) = body;
    let wanted = GrantTier { tier: body.tier, until: body.until.0, reason: body.reason };
    Ok(web::Json(membership.grant_tier(&actor, &path_id("member", &id)?, &wanted, idempotency_header(&request)).await?.into()))
}

/// Lists a member's grants of tiers, newest first.
#[utoipa::path(
    tag = "membership", summary = "List a member's tier grants", security(("key" = [])),
    params(("id" = String, Path, description = "The member"), PageQuery),
    responses(
        (status = 200, body = Page<TierGrantBody>),
        Invalid, Unwelcome, Missing,
    )
)]
#[get("/v1/members/{id}/tier-grants")]
pub(super) async fn list_tier_grants(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
    page: web::Query<PageQuery>,
) -> Result<web::Json<Page<TierGrantBody>>, Problem> {
    let limit = page.limit()?;
    let grants = membership.tier_grants(&actor, &path_id("member", &id)?, page.after()?, limit + 1).await?;
    let items = grants.into_iter().map(TierGrantBody::from).collect();
    Ok(web::Json(Page::of(items, limit, |grant: &TierGrantBody| grant.id.clone())))
}

/// Ends a grant of a tier at once; audited. One that has ended is answered as it is.
#[utoipa::path(
    tag = "membership", summary = "Revoke a tier", request_body = RevokeTierBody, security(("key" = [])),
    params(("id" = String, Path, description = "The member"), ("grant" = String, Path, description = "The grant")),
    responses(
        (status = 200, body = TierGrantBody),
        Invalid, Unwelcome, Missing,
    )
)]
#[post("/v1/members/{id}/tier-grants/{grant}:revoke")]
pub(super) async fn revoke_tier(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    path: web::Path<(String, String)>,
    body: Body<RevokeTierBody>,
) -> Result<web::Json<TierGrantBody>, Problem> {
    let (id, grant) = path.into_inner();
    Ok(web::Json(membership.revoke_tier(&actor, &path_id("member", &id)?, &grant, &body.0.reason).await?.into()))
}

fn path_version(text: &str) -> Result<i64, Problem> {
    let number = text.parse::<i64>().ok().filter(|number| *number > 0);
    number.ok_or_else(|| Problem::not_found("version of the tier policy", text))
}
