//! Earn rules over HTTP, by version.

use super::earn_rules::{EarnRulesBody, PutEarnRulesBody};
use crate::facade::Membership;
use actix_web::{get, put, web};
use heyuan_kernel::Problem;
use heyuan_kernel::http::{Authenticated, Body};
use heyuan_kernel::problems::{Conflicting, Invalid, Missing, Unwelcome};
use serde::Serialize;
use utoipa::ToSchema;

/// Every version.
#[derive(Serialize, ToSchema)]
struct EarnRulesListBody {
    /// The newest first.
    items: Vec<EarnRulesBody>,
}

/// Writes the next version of the earn rules. It never changes afterwards; transactions whose own time lies before it earn under the
/// version of their time, however late they are reported. The same body again is answered as it is.
#[utoipa::path(
    tag = "membership", summary = "Put earn rules", security(("key" = [])), request_body = PutEarnRulesBody,
    params(("version" = i64, Path, description = "The next number")),
    responses(
        (status = 200, body = EarnRulesBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[put("/v1/earn-rules/{version}")]
pub(super) async fn put_earn_rules(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    version: web::Path<String>,
    body: Body<PutEarnRulesBody>,
) -> Result<web::Json<EarnRulesBody>, Problem> {
    let number = version.parse::<i64>().ok().filter(|number| *number > 0);
    let number = number.ok_or_else(|| Problem::not_found("version of the earn rules", &*version))?;
    let Body(body) = body;
    Ok(web::Json(membership.put_earn_rules(&actor, &body.parsed(number)?).await?.into()))
}

/// Lists every version of the earn rules.
#[utoipa::path(
    tag = "membership", summary = "List earn rules", security(("key" = [])),
    responses(
        (status = 200, body = EarnRulesListBody),
        Unwelcome,
    )
)]
#[get("/v1/earn-rules")]
pub(super) async fn list_earn_rules(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
) -> Result<web::Json<EarnRulesListBody>, Problem> {
    let items = membership.list_earn_rules(&actor).await?.into_iter().map(EarnRulesBody::from).collect();
    Ok(web::Json(EarnRulesListBody { items }))
}
