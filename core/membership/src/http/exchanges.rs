//! Points for benefits over HTTP.

use super::benefits::BenefitGrantBody;
use super::members::SpentBody;
use super::path_id;
use crate::benefit::Exchange;
use crate::facade::Membership;
use actix_web::{HttpRequest, post, web};
use heyuan_kernel::Problem;
use heyuan_kernel::http::{Authenticated, Body, idempotency_header};
use heyuan_kernel::problems::{Conflicting, Invalid, Missing, Unwelcome};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Points for units of a benefit.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExchangePointsBody {
    /// The benefit's code.
    #[schema(examples("parking"))]
    benefit: String,
    /// Units; the benefit's own quantity when left out.
    quantity: Option<i64>,
    /// What the member was told that they cost in all: where the price is another by now, nothing is exchanged (409 `price_changed`).
    #[schema(examples(60))]
    points: Option<i64>,
}

/// Points that were given, and what was got for them.
#[derive(Serialize, ToSchema)]
pub(super) struct ExchangedPointsBody {
    /// The points, spent with the line that contributes the benefit.
    spend: SpentBody,
    /// What was got for them.
    grant: BenefitGrantBody,
}

/// Exchanges points for units of a benefit that has a price in points. Both are done or neither: without stock no points are spent.
#[utoipa::path(
    tag = "membership", summary = "Exchange points", request_body = ExchangePointsBody, security(("key" = [])),
    params(
        ("id" = String, Path, description = "The member"),
        ("Idempotency-Key" = String, Header, description = "Fresh for each exchange, the same for its retries"),
    ),
    responses(
        (status = 200, body = ExchangedPointsBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/members/{id}/points/exchanges")]
pub(super) async fn exchange_points(
    request: HttpRequest,
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
    body: Body<ExchangePointsBody>,
) -> Result<web::Json<ExchangedPointsBody>, Problem> {
    let Body(body) = body;
    let wanted = Exchange { benefit: body.benefit, quantity: body.quantity, points: body.points };
    let exchanged = membership.exchange_points(&actor, &path_id("member", &id)?, &wanted, idempotency_header(&request)).await?;
    Ok(web::Json(ExchangedPointsBody { spend: exchanged.spend.into(), grant: exchanged.grant.into() }))
}
