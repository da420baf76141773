//! Points from member to member over HTTP, and the policy of points in use.

use super::path_id;
use crate::facade::Membership;
use crate::points_policy::{PointsPolicy, TransferAudience};
use crate::transfer::{TransferPoints, TransferView};
use actix_web::{HttpRequest, get, post, put, web};
use heyuan_contract::MemberId;
use heyuan_kernel::http::{Authenticated, Body, idempotency_header};
use heyuan_kernel::problems::{Conflicting, Invalid, Missing, Unwelcome};
use heyuan_kernel::{Problem, Rfc3339};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Between whom points may be transferred.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum TransferAudienceBody {
    Nobody,
    Linked,
    Everybody,
}

/// The policy of points in use.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PointsPolicyBody {
    /// `nobody`; `linked`: members of one customer; `everybody`.
    transfers: TransferAudienceBody,
    /// Most points of one transfer.
    #[schema(examples(1_000))]
    transfer_points_max: i64,
    /// Most points that one member transfers in a day.
    #[schema(examples(2_000))]
    day_points_max: i64,
    /// Most points that one member transfers in a calendar month.
    #[schema(examples(10_000))]
    month_points_max: i64,
    /// Days before points expire on which `points.expiring.v1` tells so; 0: never.
    #[schema(examples(30))]
    notice_days: i32,
}

impl From<PointsPolicyBody> for PointsPolicy {
    fn from(body: PointsPolicyBody) -> PointsPolicy {
        PointsPolicy {
            transfers: match body.transfers {
                TransferAudienceBody::Nobody => TransferAudience::Nobody,
                TransferAudienceBody::Linked => TransferAudience::Linked,
                TransferAudienceBody::Everybody => TransferAudience::Everybody,
            },
            transfer_points_max: body.transfer_points_max,
            day_points_max: body.day_points_max,
            month_points_max: body.month_points_max,
            notice_days: body.notice_days,
        }
    }
}

impl From<PointsPolicy> for PointsPolicyBody {
    fn from(policy: PointsPolicy) -> PointsPolicyBody {
        PointsPolicyBody {
            transfers: match policy.transfers {
                TransferAudience::Nobody => TransferAudienceBody::Nobody,
                TransferAudience::Linked => TransferAudienceBody::Linked,
                TransferAudience::Everybody => TransferAudienceBody::Everybody,
            },
            transfer_points_max: policy.transfer_points_max,
            day_points_max: policy.day_points_max,
            month_points_max: policy.month_points_max,
            notice_days: policy.notice_days,
        }
    }
}

/// Points for another member.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TransferPointsBody {
    /// Who gets them.
    #[schema(value_type = String, examples("mbr_0198c0de00007000800000000000abcd"))]
    to: MemberId,
    /// Above zero.
    #[schema(examples(100))]
    amount: i64,
    /// A few words for it; no personal data.
    #[schema(examples("for the picnic"))]
    note: Option<String>,
}

/// Points that went from one member to another.
#[derive(Serialize, ToSchema)]
pub(super) struct TransferredPointsBody {
    /// Its id.
    id: String,
    /// Who gave.
    from: String,
    /// Who got.
    to: String,
    /// How many.
    amount: i64,
    /// The words for it.
    note: Option<String>,
    /// When.
    occurred_at: Rfc3339,
    /// The month that it counts in.
    #[schema(examples("2026-11"))]
    accounting_period: Option<String>,
    /// What the giver could spend after it.
    points_balance: i64,
}

impl From<TransferView> for TransferredPointsBody {
    fn from(transfer: TransferView) -> TransferredPointsBody {
        TransferredPointsBody {
            id: transfer.id,
            from: transfer.from.to_string(),
            to: transfer.to.to_string(),
            amount: transfer.amount,
            note: transfer.note,
            occurred_at: Rfc3339(transfer.occurred_at),
            accounting_period: transfer.period.map(|period| period.to_string()),
            points_balance: transfer.points_balance,
        }
    }
}

/// Writes the policy of points in use, for the whole group: who may transfer points, how many, and when members are told that points
/// expire. It counts at once.
#[utoipa::path(
    tag = "membership", summary = "Put the points policy", request_body = PointsPolicyBody, security(("key" = [])),
    responses(
        (status = 200, body = PointsPolicyBody),
        Invalid, Unwelcome,
    )
)]
#[put("/v1/points-policy")]
pub(super) async fn put_points_policy(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    body: Body<PointsPolicyBody>,
) -> Result<web::Json<PointsPolicyBody>, Problem> {
    let Body(body) = body;
    Ok(web::Json(membership.put_points_policy(&actor, &body.into()).await?.into()))
}

/// Reads the policy of points in use.
#[utoipa::path(
    tag = "membership", summary = "Read the points policy", security(("key" = [])),
    responses(
        (status = 200, body = PointsPolicyBody),
        Unwelcome,
    )
)]
#[get("/v1/points-policy")]
pub(super) async fn get_points_policy(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
) -> Result<web::Json<PointsPolicyBody>, Problem> {
    Ok(web::Json(membership.points_policy(&actor).await?.into()))
}

/// Transfers points to another member, where the policy lets the two. They keep the line that issued them, their cost and their expiry.
#[utoipa::path(
    tag = "membership", summary = "Transfer points", request_body = TransferPointsBody, security(("key" = [])),
    params(
        ("id" = String, Path, description = "The member that gives"),
        ("Idempotency-Key" = String, Header, description = "Fresh for each transfer, the same for its retries"),
    ),
    responses(
        (status = 200, body = TransferredPointsBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/members/{id}/points/transfers")]
pub(super) async fn transfer_points(
    request: HttpRequest,
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
    body: Body<TransferPointsBody>,
) -> Result<web::Json<TransferredPointsBody>, Problem> {
    let Body(body) = body;
    let wanted = TransferPoints { to: body.to, amount: body.amount, note: body.note };
    Ok(web::Json(membership.transfer_points(&actor, &path_id("member", &id)?, &wanted, idempotency_header(&request)).await?.into()))
}
