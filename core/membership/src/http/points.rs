//! Points given back, over HTTP.

use super::path_id;
use crate::facade::Membership;
use crate::give_back::GivenBack;
use actix_web::{HttpRequest, post, web};
use heyuan_kernel::http::{Authenticated, Body, idempotency_header};
use heyuan_kernel::problems::{Conflicting, Invalid, Missing, Unwelcome};
use heyuan_kernel::{Problem, Rfc3339};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Points of a spend to give back.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReturnBody {
    /// At most what is left of the spend.
    #[schema(examples(100))]
    amount: i64,
}

/// Points that were given back.
#[derive(Serialize, ToSchema)]
pub(super) struct ReturnedBody {
    /// Its id.
    id: String,
    /// The spend.
    spend: String,
    /// Whose.
    member: String,
    /// How many.
    amount: i64,
    /// Of these: those that had expired meanwhile, and did so at once.
    expired: i64,
    /// Of these: those that paid what the member owed.
    recovered: i64,
    /// When.
    occurred_at: Rfc3339,
    /// The month that it counts in.
    #[schema(examples("2026-11"))]
    accounting_period: Option<String>,
    /// What could be spent after it.
    points_balance: i64,
}

impl From<GivenBack> for ReturnedBody {
    fn from(given: GivenBack) -> ReturnedBody {
        ReturnedBody {
            id: given.id,
            spend: given.spend,
            member: given.member.to_string(),
            amount: given.amount,
            expired: given.expired,
            recovered: given.recovered,
            occurred_at: Rfc3339(given.occurred_at),
            accounting_period: given.period.map(|period| period.to_string()),
            points_balance: given.points_balance,
        }
    }
}

/// Gives back points of a spend, into the lots that it took them from, each with its own expiry. In parts, too, and never more than was
/// spent.
#[utoipa::path(
    tag = "membership", summary = "Give points back", request_body = ReturnBody, security(("key" = [])),
    params(
        ("id" = String, Path, description = "The member"),
        ("spend" = String, Path, description = "The spend"),
        ("Idempotency-Key" = String, Header, description = "Fresh for each return, the same for its retries"),
    ),
    responses(
        (status = 200, body = ReturnedBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/members/{id}/points/spends/{spend}:return")]
pub(super) async fn return_points(
    request: HttpRequest,
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    path: web::Path<(String, String)>,
    body: Body<ReturnBody>,
) -> Result<web::Json<ReturnedBody>, Problem> {
    let (id, spend) = path.into_inner();
    let given = membership.give_back(&actor, &path_id("member", &id)?, &spend, body.0.amount, idempotency_header(&request)).await?;
    Ok(web::Json(given.into()))
}
