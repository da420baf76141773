//! Vouchers and their redemption over HTTP.

#![expect(unused_qualifications, reason = "utoipa's macro writes them around query parameters")]

use crate::mall::Mall;
use crate::vouchers::{Redeem, Voucher};
use actix_web::{HttpRequest, get, post, web};
use heyuan_contract::{MemberId, OrgUnitId};
use heyuan_kernel::http::{Authenticated, Body, Page, PageQuery, idempotency_header};
use heyuan_kernel::problems::{Conflicting, Invalid, Missing, Unwelcome};
use heyuan_kernel::{Problem, Rfc3339};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A voucher (券).
#[derive(Debug, Serialize, ToSchema)]
struct VoucherBody {
    /// The voucher.
    id: String,
    /// The code to show at the counter; only its end after redemption, and for keys that act for no member.
    #[schema(examples("7Q2MZK4N9XV0C3TB"))]
    code: String,
    /// Whose it is.
    member: String,
    /// Who honours it.
    merchant: String,
    /// At whose counters.
    unit: String,
    /// What it is for.
    product: String,
    /// The order that bought it; absent when it was granted.
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<String>,
    /// `issued`, `redeemed`, `void` or `expired`.
    state: String,
    /// When it was issued.
    issued_at: Rfc3339,
    /// The first instant at which it is no longer valid.
    expires_at: Rfc3339,
    /// When it was redeemed.
    #[serde(skip_serializing_if = "Option::is_none")]
    redeemed_at: Option<Rfc3339>,
    /// The counter's own mark of the redemption.
    #[serde(skip_serializing_if = "Option::is_none")]
    counter_reference: Option<String>,
}

impl From<Voucher> for VoucherBody {
    fn from(voucher: Voucher) -> VoucherBody {
        VoucherBody {
            id: voucher.id.into(),
            code: voucher.code,
            member: voucher.member.into(),
            merchant: voucher.merchant.into(),
            unit: voucher.unit.into(),
            product: voucher.product.into(),
            order: voucher.order.map(String::from),
            state: voucher.state,
            issued_at: Rfc3339(voucher.issued_at),
            expires_at: Rfc3339(voucher.expires_at),
            redeemed_at: voucher.redeemed_at.map(Rfc3339),
            counter_reference: voucher.counter_reference,
        }
    }
}

/// A redemption.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RedeemBody {
    /// As the member shows it; case, spaces and hyphens don't matter.
    #[schema(examples("7Q2M-ZK4N-9XV0-C3TB"))]
    code: String,
    /// The counter's unit.
    #[schema(value_type = String, examples("mall-hz"))]
    unit: OrgUnitId,
    /// The counter's own mark, such as the number of its receipt; no names of people.
    #[schema(examples("till-3/000812"))]
    counter_reference: String,
}

/// Whose vouchers.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct VoucherQuery {
    /// The member.
    #[param(value_type = String)]
    member: MemberId,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// 1 to 200 items; 50 when left out.
    limit: Option<u64>,
}

/// Lists a member's vouchers, oldest first.
#[utoipa::path(
    tag = "mall", summary = "List a member's vouchers", params(VoucherQuery), security(("key" = [])),
    responses(
        (status = 200, body = Page<VoucherBody>),
        Invalid, Unwelcome,
    )
)]
#[get("/v1/vouchers")]
pub(super) async fn list_vouchers(
    Authenticated(actor): Authenticated,
    mall: web::Data<Mall>,
    query: web::Query<VoucherQuery>,
) -> Result<web::Json<Page<VoucherBody>>, Problem> {
    let VoucherQuery { member, cursor, limit } = query.into_inner();
    let page = PageQuery { cursor, limit };
    let limit = page.limit()?;
    let vouchers = mall.vouchers(&actor, &member, page.after()?, limit).await?;
    Ok(web::Json(Page::of(vouchers.into_iter().map(VoucherBody::from).collect(), limit, |voucher| voucher.id.clone())))
}

/// Redeems a voucher (核销): its single, final use, at a counter of its unit. A retry with the same key answers the same.
#[utoipa::path(
    tag = "mall", summary = "Redeem a voucher", request_body = RedeemBody, security(("key" = [])),
    params(("Idempotency-Key" = String, Header, description = "Fresh per redemption; the same one on a retry")),
    responses(
        (status = 200, body = VoucherBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/vouchers:redeem")]
pub(super) async fn redeem_voucher(
    Authenticated(actor): Authenticated,
    request: HttpRequest,
    mall: web::Data<Mall>,
    body: Body<RedeemBody>,
) -> Result<web::Json<VoucherBody>, Problem> {
    let Body(RedeemBody { code, unit, counter_reference }) = body;
    let redeem = Redeem { code, unit, counter_reference };
    Ok(web::Json(mall.redeem(&actor, idempotency_header(&request), redeem).await?.into()))
}
