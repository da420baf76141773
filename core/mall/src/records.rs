//! Payments and orders as the tables hold them.

use crate::catalogue::{ProductKind, read_line, read_rate};
use crate::error::{Error, corrupt};
use crate::proration::given_back;
use heyuan_contract::{Fen, Line, MemberId, MerchantId, OrderId, OrderPoints, OrgUnitId, Points, ProductId, Ratio, Timestamp};
use heyuan_kernel::sql;
use std::collections::HashMap;

/// What points pay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByPoints {
    /// How many.
    pub points: i64,
    /// What they are worth.
    pub fen: Fen,
}

/// One payment for everything in a cart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// `pay_…`, also the reference that the gateway carries.
    pub id: String,
    /// Who pays.
    pub member: MemberId,
    /// What is paid in money, after the discount and what points pay.
    pub amount: Fen,
    /// What was taken off the prices.
    pub discount: Fen,
    /// What has been given back.
    pub refunded: Fen,
    /// What is paid with points.
    pub by_points: ByPoints,
    /// What of it has been given back.
    pub points_refunded: i64,
    /// `created`, `paid`, `expired`, or `returned` for money that came too late and went back.
    pub state: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it gives its stock back unless it is paid.
    pub expires_at: Timestamp,
    /// When the gateway took the money.
    pub paid_at: Option<Timestamp>,
    pub(crate) gateway_transaction: Option<String>,
    pub(crate) digest: String,
}

/// What one merchant sold in a cart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// `ord_…`
    pub id: OrderId,
    /// The payment that it is part of.
    pub payment: String,
    /// Who bought.
    pub member: MemberId,
    /// Who sold.
    pub merchant: MerchantId,
    /// Where.
    pub unit: OrgUnitId,
    /// The unit's line.
    pub line: Line,
    /// What is paid for it in money, after discounts and what points pay.
    pub amount: Fen,
    /// What has been given back.
    pub refunded: Fen,
    /// What is paid with points.
    pub by_points: ByPoints,
    /// The hold that sets them aside until it is paid.
    pub hold: Option<String>,
    /// `unpaid`, `paid`, `expired` or `returned`.
    pub state: String,
    /// When it was placed.
    pub created_at: Timestamp,
    /// When it was paid.
    pub paid_at: Option<Timestamp>,
    /// What was bought, a product once.
    pub parts: Vec<OrderPart>,
    pub(crate) commission_rate: Ratio,
}

/// A product of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderPart {
    /// The product.
    pub product: ProductId,
    /// Its category when it was ordered.
    pub category: String,
    /// Goods or voucher.
    pub kind: ProductKind,
    /// Pieces.
    pub quantity: i64,
    /// The price of one piece when it was ordered.
    pub price: Fen,
    /// The part of the payment's discount that fell on it.
    pub discount: Fen,
    /// What is paid in money for all pieces, after the discount and what points pay.
    pub amount: Fen,
    /// What is paid with points for all pieces.
    pub by_points: ByPoints,
    /// Pieces that went back.
    pub refunded_quantity: i64,
    /// What was given back for them.
    pub refunded_amount: Fen,
}

impl OrderPart {
    /// What of the points has been given back for the pieces that went back.
    pub(crate) fn points_given_back(&self, pieces: i64) -> ByPoints {
        let share = |whole: i64| given_back(Fen(whole), self.quantity, pieces);
        ByPoints { points: share(self.by_points.points).0, fen: share(self.by_points.fen.0) }
    }
}

impl Order {
    /// What it is worth: money and what points pay.
    pub(crate) fn worth(&self) -> Fen {
        Fen(self.amount.0 + self.by_points.fen.0)
    }

    /// What has been given back of the points so far.
    pub(crate) fn points_refunded(&self) -> ByPoints {
        let back = self.parts.iter().map(|part| part.points_given_back(part.refunded_quantity));
        back.fold(ByPoints::default(), |sum, one| ByPoints { points: sum.points + one.points, fen: Fen(sum.fen.0 + one.fen.0) })
    }

    /// The points and their hold, as events tell them.
    pub(crate) fn order_points(&self) -> Option<OrderPoints> {
        self.hold.clone().map(|hold| OrderPoints { hold, points: Points(self.by_points.points) })
    }
}

const PAYMENT: &str = "SELECT id, member, amount, discount, refunded, points, points_fen, points_refunded, state, created_at, expires_at,
 paid_at, gateway_transaction, digest FROM mall_payment";
pub(crate) const ORDER: &str = "SELECT id, payment, member, merchant, unit, line, amount, refunded, points, points_fen, hold, state,
 commission_numerator, commission_denominator, created_at, paid_at FROM mall_order";

/// The payment under a unique column; `lock` is what [`sql::for_update`] says, or nothing.
pub(crate) async fn payment<C: sql::Connection>(conn: &C, column: &str, value: &str, lock: &str) -> Result<Option<Payment>, Error> {
    let row = sql::one(conn, &format!("{PAYMENT} WHERE {column} = $1{lock}"), [value.into()]).await?;
    row.map(|row| read_payment(&row)).transpose()
}

/// The orders of a payment, by merchant, with their parts.
pub(crate) async fn orders_of<C: sql::Connection>(conn: &C, payment: &str) -> Result<Vec<Order>, Error> {
    let rows = sql::all(conn, &format!("{ORDER} WHERE payment = $1"), [payment.into()]).await?;
    let mut orders = with_parts(conn, rows).await?;
    // Sorted here: the databases compare texts each in their own way, and an answer repeats byte for byte.
    orders.sort_by(|a, b| a.merchant.cmp(&b.merchant));
    Ok(orders)
}

/// The order under its id.
pub(crate) async fn order<C: sql::Connection>(conn: &C, id: &OrderId, lock: &str) -> Result<Option<Order>, Error> {
    let rows = sql::all(conn, &format!("{ORDER} WHERE id = $1{lock}"), [id.as_str().into()]).await?;
    Ok(with_parts(conn, rows).await?.pop())
}

/// Orders from their rows, with the parts of all of them read at once.
pub(crate) async fn with_parts<C: sql::Connection>(conn: &C, rows: Vec<sql::Row>) -> Result<Vec<Order>, Error> {
    let mut orders: Vec<Order> = rows.iter().map(read_order).collect::<Result<_, _>>()?;
    if orders.is_empty() {
        return Ok(orders);
    }
    let text = format!(
        "SELECT order_id, product, category, kind, quantity, price, discount, amount, points, points_fen, refunded_quantity,
           refunded_amount FROM mall_order_line WHERE order_id IN ({})",
        sql::placeholders(1, orders.len())
    );
    let ids: Vec<sea_orm::Value> = orders.iter().map(|order| order.id.as_str().into()).collect();
    let mut parts: HashMap<String, Vec<OrderPart>> = HashMap::new();
    for row in sql::all(conn, &text, ids).await? {
        parts.entry(sql::get(&row, "order_id")?).or_default().push(read_part(&row)?);
    }
    for order in &mut orders {
        order.parts = parts.remove(order.id.as_str()).unwrap_or_default();
        order.parts.sort_by(|a, b| a.product.cmp(&b.product));
    }
    Ok(orders)
}

pub(crate) fn time(row: &sql::Row, column: &str) -> Result<Timestamp, Error> {
    Ok(Timestamp::clamped(sql::get(row, column)?))
}

pub(crate) fn time_if(row: &sql::Row, column: &str) -> Result<Option<Timestamp>, Error> {
    Ok(sql::get::<Option<i64>>(row, column)?.map(Timestamp::clamped))
}

/// A stored identifier.
pub(crate) fn id<T>(row: &sql::Row, column: &str) -> Result<T, Error>
where
    T: std::str::FromStr<Err = heyuan_contract::InvalidId>,
{
    sql::get::<String>(row, column)?.parse().map_err(|e| corrupt("id", e))
}

/// What points pay, or give back, by a row.
pub(crate) fn by_points(row: &sql::Row) -> Result<ByPoints, Error> {
    Ok(ByPoints { points: sql::get(row, "points")?, fen: Fen(sql::get(row, "points_fen")?) })
}

fn read_payment(row: &sql::Row) -> Result<Payment, Error> {
    Ok(Payment {
        id: sql::get(row, "id")?,
        member: id(row, "member")?,
        amount: Fen(sql::get(row, "amount")?),
        discount: Fen(sql::get(row, "discount")?),
        refunded: Fen(sql::get(row, "refunded")?),
        by_points: by_points(row)?,
        points_refunded: sql::get(row, "points_refunded")?,
        state: sql::get(row, "state")?,
        created_at: time(row, "created_at")?,
        expires_at: time(row, "expires_at")?,
        paid_at: time_if(row, "paid_at")?,
        gateway_transaction: sql::get(row, "gateway_transaction")?,
        digest: sql::get(row, "digest")?,
    })
}

fn read_order(row: &sql::Row) -> Result<Order, Error> {
    Ok(Order {
        id: id(row, "id")?,
        payment: sql::get(row, "payment")?,
        member: id(row, "member")?,
        merchant: id(row, "merchant")?,
        unit: id(row, "unit")?,
        line: read_line(row)?,
        amount: Fen(sql::get(row, "amount")?),
        refunded: Fen(sql::get(row, "refunded")?),
        by_points: by_points(row)?,
        hold: sql::get(row, "hold")?,
        state: sql::get(row, "state")?,
        created_at: time(row, "created_at")?,
        paid_at: time_if(row, "paid_at")?,
        parts: Vec::new(),
        commission_rate: read_rate(row)?,
    })
}

fn read_part(row: &sql::Row) -> Result<OrderPart, Error> {
    Ok(OrderPart {
        product: id(row, "product")?,
        category: sql::get(row, "category")?,
        kind: ProductKind::parse(&sql::get::<String>(row, "kind")?)?,
        quantity: sql::get(row, "quantity")?,
        price: Fen(sql::get(row, "price")?),
        discount: Fen(sql::get(row, "discount")?),
        amount: Fen(sql::get(row, "amount")?),
        by_points: by_points(row)?,
        refunded_quantity: sql::get(row, "refunded_quantity")?,
        refunded_amount: Fen(sql::get(row, "refunded_amount")?),
    })
}
