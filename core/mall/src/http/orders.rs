//! Orders, payments and refunds over HTTP.

#![expect(unused_qualifications, reason = "utoipa's macro writes them around query parameters")]

use super::MoneyBody;
use super::catalogue::path_id;
use crate::gateway::SIGNATURE;
use crate::mall::Mall;
use crate::orders::{CheckoutLine, OrderList, PlaceOrder};
use crate::records::{ByPoints, Order, OrderPart, Payment};
use crate::refunds::{Refund, RefundRequest};
use actix_web::{HttpRequest, HttpResponse, get, post, web};
use heyuan_contract::{Fen, MemberId, MerchantId, OrderId, ProductId};
use heyuan_kernel::http::{Authenticated, Body, Page, PageQuery, header_text, idempotency_header, read_body};
use heyuan_kernel::problems::{Conflicting, Forbidden, Invalid, Missing, Unwelcome};
use heyuan_kernel::{Problem, Rfc3339};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A notification is a few hundred bytes.
const NOTIFICATION_BYTES_MAX: usize = 64 * 1024;

/// A product and how many of it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LineBody {
    /// The product.
    #[schema(value_type = String, examples("book-001"))]
    product: ProductId,
    /// Pieces, at least 1.
    #[schema(examples(1))]
    quantity: i64,
}

/// A cart.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PlaceOrderBody {
    /// Who buys.
    #[schema(value_type = String)]
    member: MemberId,
    /// What, from one merchant or several; a product may stand there several times.
    lines: Vec<LineBody>,
    /// What is taken off the whole, spread over the lines to the fen; not with a member's token.
    discount: Option<MoneyBody>,
    /// Points that pay a part of it or all: they are set aside until it is paid, and spread over the lines.
    #[serde(default)]
    #[schema(examples(500))]
    points: i64,
}

/// What points pay.
#[derive(Debug, Serialize, ToSchema)]
struct ByPointsBody {
    /// How many.
    points: i64,
    /// What they are worth.
    amount: MoneyBody,
}

impl ByPointsBody {
    fn of(by_points: ByPoints) -> Option<ByPointsBody> {
        (by_points.points > 0).then(|| ByPointsBody { points: by_points.points, amount: by_points.fen.into() })
    }
}

/// A payment.
#[derive(Debug, Serialize, ToSchema)]
struct PaymentBody {
    /// The payment; the gateway carries it as its reference.
    id: String,
    /// Who pays.
    member: String,
    /// What is paid in money, after the discount and what points pay.
    amount: MoneyBody,
    /// What is paid with points.
    #[serde(skip_serializing_if = "Option::is_none")]
    by_points: Option<ByPointsBody>,
    /// What was taken off the prices.
    discount: MoneyBody,
    /// What has been given back.
    refunded: MoneyBody,
    /// `created`, `paid`, `partly_refunded`, `refunded`, `expired`, or `returned` for money that came too late and went back.
    state: String,
    /// When it was made.
    created_at: Rfc3339,
    /// When it gives its stock back unless it is paid.
    expires_at: Rfc3339,
    /// When the gateway took the money.
    #[serde(skip_serializing_if = "Option::is_none")]
    paid_at: Option<Rfc3339>,
}

impl From<Payment> for PaymentBody {
    fn from(payment: Payment) -> PaymentBody {
        PaymentBody {
            state: state_of(
                &payment.state,
                payment.refunded > Fen(0) || payment.points_refunded > 0,
                payment.refunded == payment.amount && payment.points_refunded == payment.by_points.points,
            ),
            by_points: ByPointsBody::of(payment.by_points),
            id: payment.id,
            member: payment.member.into(),
            amount: payment.amount.into(),
            discount: payment.discount.into(),
            refunded: payment.refunded.into(),
            created_at: Rfc3339(payment.created_at),
            expires_at: Rfc3339(payment.expires_at),
            paid_at: payment.paid_at.map(Rfc3339),
        }
    }
}

/// A product of an order.
#[derive(Debug, Serialize, ToSchema)]
struct OrderLineBody {
    /// The product.
    product: String,
    /// Its category when it was ordered.
    category: String,
    /// `goods` or `voucher`.
    kind: String,
    /// Pieces.
    quantity: i64,
    /// The price of one piece when it was ordered.
    price: MoneyBody,
    /// The part of the payment's discount that fell on it.
    discount: MoneyBody,
    /// What is paid in money for all pieces, after the discount and what points pay.
    amount: MoneyBody,
    /// What is paid with points for all pieces.
    #[serde(skip_serializing_if = "Option::is_none")]
    by_points: Option<ByPointsBody>,
    /// Pieces that went back.
    refunded_quantity: i64,
    /// What was given back for them.
    refunded_amount: MoneyBody,
}

impl From<OrderPart> for OrderLineBody {
    fn from(part: OrderPart) -> OrderLineBody {
        OrderLineBody {
            product: part.product.into(),
            category: part.category,
            kind: part.kind.as_str().into(),
            quantity: part.quantity,
            price: part.price.into(),
            discount: part.discount.into(),
            amount: part.amount.into(),
            by_points: ByPointsBody::of(part.by_points),
            refunded_quantity: part.refunded_quantity,
            refunded_amount: part.refunded_amount.into(),
        }
    }
}

/// An order: what one merchant sold in a cart.
#[derive(Debug, Serialize, ToSchema)]
struct OrderBody {
    /// The order.
    id: String,
    /// The payment that it is part of.
    payment: String,
    /// Who bought.
    member: String,
    /// Who sold.
    merchant: String,
    /// Where.
    unit: String,
    /// What is paid for it in money, after discounts and what points pay.
    amount: MoneyBody,
    /// What is paid with points.
    #[serde(skip_serializing_if = "Option::is_none")]
    by_points: Option<ByPointsBody>,
    /// What has been given back.
    refunded: MoneyBody,
    /// `unpaid`, `paid`, `partly_refunded`, `refunded`, `expired` or `returned`.
    state: String,
    /// When it was placed.
    created_at: Rfc3339,
    /// When it was paid.
    #[serde(skip_serializing_if = "Option::is_none")]
    paid_at: Option<Rfc3339>,
    /// What was bought, a product once.
    lines: Vec<OrderLineBody>,
}

impl From<Order> for OrderBody {
    fn from(order: Order) -> OrderBody {
        OrderBody {
            state: state_of(
                &order.state,
                order.parts.iter().any(|part| part.refunded_quantity > 0),
                order.parts.iter().all(|part| part.refunded_quantity == part.quantity),
            ),
            by_points: ByPointsBody::of(order.by_points),
            id: order.id.into(),
            payment: order.payment,
            member: order.member.into(),
            merchant: order.merchant.into(),
            unit: order.unit.into(),
            amount: order.amount.into(),
            refunded: order.refunded.into(),
            created_at: Rfc3339(order.created_at),
            paid_at: order.paid_at.map(Rfc3339),
            lines: order.parts.into_iter().map(OrderLineBody::from).collect(),
        }
    }
}

/// What a cart became.
#[derive(Debug, Serialize, ToSchema)]
struct CheckoutBody {
    /// The one payment for all of it.
    payment: PaymentBody,
    /// An order per merchant.
    orders: Vec<OrderBody>,
}

/// Where and under which reference to pay.
#[derive(Debug, Serialize, ToSchema)]
struct StartedBody {
    /// The payment as it stands.
    payment: PaymentBody,
    /// What the gateway calls it.
    reference: String,
    /// The signed address at which the member pays.
    url: String,
}

/// What is to go back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RefundBody {
    /// Pieces by product; leave it out, with `whole` true, for all that is left.
    #[serde(default)]
    lines: Vec<LineBody>,
    /// All that is left of the order.
    #[serde(default)]
    whole: bool,
    /// Why, without names of people.
    #[schema(examples("the wrong size"))]
    reason: String,
}

/// A product of a refund.
#[derive(Debug, Serialize, ToSchema)]
struct RefundLineBody {
    /// The product.
    product: String,
    /// Pieces.
    quantity: i64,
    /// What is given back for them in money.
    amount: MoneyBody,
    /// What is given back for them of the points.
    #[serde(skip_serializing_if = "Option::is_none")]
    by_points: Option<ByPointsBody>,
}

/// A refund as it was made.
#[derive(Debug, Serialize, ToSchema)]
struct RefundedBody {
    /// The refund; the gateway carries it as its reference.
    id: String,
    /// The order.
    order: String,
    /// What is given back in money.
    amount: MoneyBody,
    /// What is given back of the points.
    #[serde(skip_serializing_if = "Option::is_none")]
    by_points: Option<ByPointsBody>,
    /// Why.
    reason: String,
    /// When.
    refunded_at: Rfc3339,
    /// What went back, by product.
    lines: Vec<RefundLineBody>,
}

impl From<Refund> for RefundedBody {
    fn from(refund: Refund) -> RefundedBody {
        let line = |part: crate::refunds::RefundPart| RefundLineBody {
            product: part.product.into(),
            quantity: part.quantity,
            amount: part.amount.into(),
            by_points: ByPointsBody::of(part.by_points),
        };
        RefundedBody {
            id: refund.id,
            order: refund.order.into(),
            amount: refund.amount.into(),
            by_points: ByPointsBody::of(refund.by_points),
            reason: refund.reason,
            refunded_at: Rfc3339(refund.refunded_at),
            lines: refund.parts.into_iter().map(line).collect(),
        }
    }
}

/// What the payment gateway tells; fields beyond these are ignored.
#[derive(Debug, Serialize, ToSchema)]
struct NotificationBody {
    /// The gateway's own id of this fact; a repeated one changes nothing.
    event_id: String,
    /// `payment.succeeded` or `refund.succeeded`.
    kind: String,
    /// The payment, or the refund.
    reference: String,
    /// The gateway's number of the charge.
    transaction: String,
    /// Integer fen.
    amount: i64,
    /// `CNY`
    currency: String,
    /// When it happened.
    timestamp: Rfc3339,
}

/// Which orders.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct OrderQuery {
    /// Of this member alone.
    #[param(value_type = Option<String>)]
    member: Option<MemberId>,
    /// Of this merchant alone.
    #[param(value_type = Option<String>)]
    merchant: Option<MerchantId>,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// 1 to 200 items; 50 when left out.
    limit: Option<u64>,
}

fn state_of(state: &str, some_went_back: bool, all_went_back: bool) -> String {
    match state {
        "paid" if some_went_back && all_went_back => "refunded".into(),
        "paid" if some_went_back => "partly_refunded".into(),
        other => other.into(),
    }
}

fn lines_of(lines: Vec<LineBody>) -> Vec<CheckoutLine> {
    lines.into_iter().map(|line| CheckoutLine { product: line.product, quantity: line.quantity }).collect()
}

/// Places a cart: reserves its stock and makes one payment with an order per merchant. Unpaid, it gives the stock back in time.
#[utoipa::path(
    tag = "mall", summary = "Place an order", request_body = PlaceOrderBody, security(("key" = [])),
    params(("Idempotency-Key" = String, Header, description = "Fresh per cart; the same one on a retry")),
    responses(
        (status = 200, body = CheckoutBody),
        Invalid, Unwelcome, Conflicting,
    )
)]
#[post("/v1/orders")]
pub(super) async fn place_order(
    Authenticated(actor): Authenticated,
    request: HttpRequest,
    mall: web::Data<Mall>,
    body: Body<PlaceOrderBody>,
) -> Result<web::Json<CheckoutBody>, Problem> {
    let Body(body) = body;
    let discount = body.discount.map_or(Ok(Fen(0)), |money| money.fen("discount"))?;
    let cart = PlaceOrder { member: body.member, lines: lines_of(body.lines), discount, points: body.points };
    let placed = mall.place(&actor, idempotency_header(&request), cart).await?;
    Ok(web::Json(CheckoutBody { payment: placed.payment.into(), orders: placed.orders.into_iter().map(OrderBody::from).collect() }))
}

/// Lists orders, oldest first; a member's token sees its own.
#[utoipa::path(
    tag = "mall", summary = "List orders", params(OrderQuery), security(("key" = [])),
    responses(
        (status = 200, body = Page<OrderBody>),
        Invalid, Unwelcome,
    )
)]
#[get("/v1/orders")]
pub(super) async fn list_orders(
    Authenticated(actor): Authenticated,
    mall: web::Data<Mall>,
    query: web::Query<OrderQuery>,
) -> Result<web::Json<Page<OrderBody>>, Problem> {
    let OrderQuery { member, merchant, cursor, limit } = query.into_inner();
    let page = PageQuery { cursor, limit };
    let limit = page.limit()?;
    let orders = mall.orders(&actor, OrderList { member, merchant }, page.after()?, limit).await?;
    Ok(web::Json(Page::of(orders.into_iter().map(OrderBody::from).collect(), limit, |order| order.id.clone())))
}

/// Reads an order.
#[utoipa::path(
    tag = "mall", summary = "Read an order", params(("id" = String, Path, description = "The order")), security(("key" = [])),
    responses(
        (status = 200, body = OrderBody),
        Invalid, Unwelcome, Missing,
    )
)]
#[get("/v1/orders/{id}")]
pub(super) async fn get_order(
    Authenticated(actor): Authenticated,
    mall: web::Data<Mall>,
    id: web::Path<String>,
) -> Result<web::Json<OrderBody>, Problem> {
    Ok(web::Json(mall.order(&actor, &path_id(id)?).await?.into()))
}

/// Refunds pieces of a paid order or all that is left of it: money, stock, shares and points go back; redeemed vouchers stay.
#[utoipa::path(
    tag = "mall", summary = "Refund an order", request_body = RefundBody, security(("key" = [])),
    params(
        ("id" = String, Path, description = "The order"),
        ("Idempotency-Key" = String, Header, description = "Fresh per refund; the same one on a retry"),
    ),
    responses(
        (status = 200, body = RefundedBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/orders/{id}/refunds")]
pub(super) async fn refund_order(
    Authenticated(actor): Authenticated,
    request: HttpRequest,
    mall: web::Data<Mall>,
    id: web::Path<String>,
    body: Body<RefundBody>,
) -> Result<web::Json<RefundedBody>, Problem> {
    let Body(body) = body;
    let id: OrderId = path_id(id)?;
    if body.whole != body.lines.is_empty() {
        return Err(Problem::invalid("lines", "name lines, or set whole to true for all that is left"));
    }
    let lines = body.lines.into_iter().map(|line| (line.product, line.quantity)).collect();
    let refund = mall.refund(&actor, idempotency_header(&request), &id, RefundRequest { lines, reason: body.reason }).await?;
    Ok(web::Json(refund.into()))
}

/// Lists the refunds of an order, oldest first.
#[utoipa::path(
    tag = "mall", summary = "List an order's refunds", security(("key" = [])),
    params(("id" = String, Path, description = "The order"), PageQuery),
    responses(
        (status = 200, body = Page<RefundedBody>),
        Invalid, Unwelcome, Missing,
    )
)]
#[get("/v1/orders/{id}/refunds")]
pub(super) async fn list_refunds(
    Authenticated(actor): Authenticated,
    mall: web::Data<Mall>,
    id: web::Path<String>,
    page: web::Query<PageQuery>,
) -> Result<web::Json<Page<RefundedBody>>, Problem> {
    let limit = page.limit()?;
    let refunds = mall.refunds(&actor, &path_id(id)?, page.after()?, limit).await?;
    Ok(web::Json(Page::of(refunds.into_iter().map(RefundedBody::from).collect(), limit, |refund| refund.id.clone())))
}

/// Reads a payment.
#[utoipa::path(
    tag = "mall", summary = "Read a payment", params(("id" = String, Path, description = "The payment")), security(("key" = [])),
    responses(
        (status = 200, body = PaymentBody),
        Unwelcome, Missing,
    )
)]
#[get("/v1/payments/{id}")]
pub(super) async fn get_payment(
    Authenticated(actor): Authenticated,
    mall: web::Data<Mall>,
    id: web::Path<String>,
) -> Result<web::Json<PaymentBody>, Problem> {
    let id: OrderId = path_id(id)?;
    Ok(web::Json(mall.payment(&actor, id.as_str()).await?.into()))
}

/// Tells where to pay, until the payment is paid or expired.
#[utoipa::path(
    tag = "mall", summary = "Start a payment", params(("id" = String, Path, description = "The payment")), security(("key" = [])),
    responses(
        (status = 200, body = StartedBody),
        Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/payments/{id}:start")]
pub(super) async fn start_payment(
    Authenticated(actor): Authenticated,
    mall: web::Data<Mall>,
    id: web::Path<String>,
) -> Result<web::Json<StartedBody>, Problem> {
    let id: OrderId = path_id(id)?;
    let started = mall.start_payment(&actor, id.as_str()).await?;
    Ok(web::Json(StartedBody { payment: started.payment.into(), reference: started.reference, url: started.url }))
}

/// Takes a notification of the payment gateway. It needs no key: `X-Signature` is the HMAC-SHA-256 of the body in hex.
#[utoipa::path(
    tag = "mall", summary = "Receive a payment notification", request_body = NotificationBody,
    params(("X-Signature" = String, Header, description = "HMAC-SHA-256 of the body under the shared secret, in hex")),
    responses(
        (status = 204, description = "Taken; a repeated one too"),
        Invalid, Forbidden, Conflicting,
    )
)]
#[post("/v1/payments/notifications")]
pub(super) async fn receive_notification(
    request: HttpRequest,
    mall: web::Data<Mall>,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let body = read_body(payload.into_inner(), NOTIFICATION_BYTES_MAX).await?;
    mall.receive(&body, header_text(request.headers(), SIGNATURE)).await?;
    Ok(HttpResponse::NoContent().finish())
}
