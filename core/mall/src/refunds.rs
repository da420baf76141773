//! Refunds: money, points, stock and shares go back in proportion, and add up to what was paid.

use crate::catalogue::{ProductKind, check_text};
use crate::error::{Error, corrupt};
use crate::mall::Mall;
use crate::orders::put_back;
use crate::proration::given_back;
use crate::records::{self, ByPoints, Order, OrderPart, by_points, id, time};
use futures::FutureExt;
use heyuan_contract::{DomainEvent, Fen, OrderId, OrderLine, Points, ProductId, Timestamp};
use heyuan_kernel::filter::Filter;
use heyuan_kernel::idempotency::IdempotencyKey;
use heyuan_kernel::{Actor, Error as KernelError, Kernel, Problem, Scope, Tx, sql};
use serde::Serialize;
use std::collections::BTreeMap;

/// What is to go back.
#[derive(Debug, Clone, Serialize)]
pub struct RefundRequest {
    /// Pieces by product; empty for everything that is left.
    pub lines: Vec<(ProductId, i64)>,
    /// Why, without names of people.
    pub reason: String,
}

/// A refund as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refund {
    /// `rfd_…`
    pub id: String,
    /// The order.
    pub order: OrderId,
    /// What is given back in money.
    pub amount: Fen,
    /// What is given back of the points.
    pub by_points: ByPoints,
    /// Why.
    pub reason: String,
    /// When.
    pub refunded_at: Timestamp,
    /// What went back, by product.
    pub parts: Vec<RefundPart>,
}

/// A product of a refund.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefundPart {
    /// The product.
    pub product: ProductId,
    /// Pieces.
    pub quantity: i64,
    /// What is given back for them in money.
    pub amount: Fen,
    /// What is given back for them of the points.
    pub by_points: ByPoints,
}

impl Mall {
    /// Refunds pieces of a paid order, or all that is left of it. Goods return to stock, vouchers become void.
    ///
    /// # Errors
    /// `order_not_paid`, `refund_exceeds_order` (redeemed vouchers stay), `not_found`, the ones of idempotency keys.
    pub async fn refund(&self, actor: &Actor, header: Option<&str>, order: &OrderId, request: RefundRequest) -> Result<Refund, Error> {
        actor.require(Scope::App)?;
        let key = IdempotencyKey::new(actor, "mall.refund", header, &(order, &request))?;
        if let Some(refund) = self.refunded(&key).await? {
            return Ok(refund);
        }
        check_text("reason", &request.reason)?;
        self.order(actor, order).await?;
        let written = self.kernel.db.settle(|| self.write_refund(&key, order, &request)).await;
        match written {
            Err(Error::Kernel(error)) if error.is_duplicate() => self.refunded(&key).await?.ok_or_else(|| corrupt("refund", "it vanished")),
            // The order may be empty because a racing request with this very key took the rest.
            Err(error @ (Error::AllRefunded(_) | Error::NothingLeft { .. })) => self.refunded(&key).await?.ok_or(error),
            other => other,
        }
    }

    /// The refunds of an order within reach, oldest first.
    ///
    /// # Errors
    /// `not_found`, `forbidden`.
    pub async fn refunds(&self, actor: &Actor, order: &OrderId, after: Option<String>, limit: u64) -> Result<Vec<Refund>, Error> {
        self.order(actor, order).await?;
        let conn = self.kernel.db.near();
        let filter = Filter::everything().and("order_id", "=", order.as_str()).and_if("id", ">", after);
        let (text, values) = filter.page("SELECT id, digest FROM mall_refund", "id", limit);
        let mut refunds = Vec::new();
        for row in sql::all(conn, &text, values).await? {
            let id: String = sql::get(&row, "id")?;
            refunds.extend(read(conn, "id", &id).await?.map(|(refund, _)| refund));
        }
        Ok(refunds)
    }

    async fn refunded(&self, key: &IdempotencyKey) -> Result<Option<Refund>, Error> {
        let Some((refund, digest)) = read(self.kernel.db.near(), "idempotency", &key.stored).await? else { return Ok(None) };
        key.check(&digest)?;
        Ok(Some(refund))
    }

    async fn write_refund(&self, key: &IdempotencyKey, order: &OrderId, request: &RefundRequest) -> Result<Refund, Error> {
        let (mall, key, order, request) = (self.clone(), key.clone(), order.clone(), request.clone());
        self.kernel
            .db
            .write("refund order", move |tx| {
                let (mall, key, order, request) = (mall.clone(), key.clone(), order.clone(), request.clone());
                async move { mall.refund_in(tx, &key, &order, &request).await }.boxed()
            })
            .await
    }

    async fn refund_in(&self, tx: &Tx, key: &IdempotencyKey, order: &OrderId, request: &RefundRequest) -> Result<Refund, Error> {
        let order =
            records::order(tx.conn(), order, sql::for_update(tx.conn())).await?.ok_or_else(|| Problem::not_found("order", order))?;
        if order.state != "paid" {
            return Err(Error::NotPaid { order: order.id.to_string(), state: order.state });
        }
        let redeemed = redeemed_vouchers(tx, &order).await?;
        let wanted = pieces(&order, &redeemed, &request.lines)?;
        let now = self.kernel.clock.now();
        let refund = plan(&order, &wanted, request.reason.clone(), now);
        insert(tx, key, &refund).await?;
        apply(tx, &order, &refund).await?;
        void_vouchers(tx, &order, &wanted).await?;
        put_back(tx, &wanted).await?;
        let payment = records::payment(tx.conn(), "id", &order.payment, "").await?.ok_or_else(|| corrupt("payment", "it vanished"))?;
        let transaction = payment.gateway_transaction.unwrap_or_default();
        self.ask_refund(tx, &refund.id, &payment.id, &transaction, refund.amount).await?;
        self.settle_refund(tx, &order, &refund).await?;
        tx.emit(order.id.as_str(), &told(&order, &refund)).await?;
        Ok(refund)
    }
}

/// Redeemed vouchers by product: they can't be refunded.
async fn redeemed_vouchers(tx: &Tx, order: &Order) -> Result<BTreeMap<String, i64>, Error> {
    let text = "SELECT product, COUNT(*) AS pieces FROM mall_voucher WHERE order_id = $1 AND state = 'redeemed' GROUP BY product";
    let rows = sql::all(tx.conn(), text, [order.id.as_str().into()]).await?;
    rows.iter().map(|row| Ok((sql::get(row, "product")?, sql::get(row, "pieces")?))).collect()
}

/// The pieces to go back, by product: what was asked for, or all that is left.
fn pieces(order: &Order, redeemed: &BTreeMap<String, i64>, lines: &[(ProductId, i64)]) -> Result<BTreeMap<ProductId, i64>, Error> {
    let left = |part: &OrderPart| part.quantity - part.refunded_quantity - redeemed.get(part.product.as_str()).copied().unwrap_or(0);
    if lines.is_empty() {
        let all: BTreeMap<ProductId, i64> =
            order.parts.iter().filter(|part| left(part) > 0).map(|part| (part.product.clone(), left(part))).collect();
        return if all.is_empty() { Err(Error::AllRefunded(order.id.to_string())) } else { Ok(all) };
    }
    let mut wanted: BTreeMap<ProductId, i64> = BTreeMap::new();
    for (index, (product, quantity)) in lines.iter().enumerate() {
        let at = |name: &str| format!("lines[{index}].{name}");
        let Some(part) = order.parts.iter().find(|part| &part.product == product) else {
            return Err(Problem::invalid(&at("product"), format!("order {} has no product {product}", order.id)).into());
        };
        if *quantity < 1 {
            return Err(Problem::invalid(&at("quantity"), "expected at least 1").into());
        }
        let sum = wanted.entry(product.clone()).or_default();
        if *quantity > left(part) - *sum {
            return Err(Error::NothingLeft { product: product.to_string(), left: left(part) });
        }
        *sum += quantity;
    }
    Ok(wanted)
}

fn plan(order: &Order, wanted: &BTreeMap<ProductId, i64>, reason: String, now: Timestamp) -> Refund {
    let mut parts = Vec::new();
    for part in &order.parts {
        if let Some(quantity) = wanted.get(&part.product) {
            let after = given_back(part.amount, part.quantity, part.refunded_quantity + quantity);
            let (points, points_before) =
                (part.points_given_back(part.refunded_quantity + quantity), part.points_given_back(part.refunded_quantity));
            parts.push(RefundPart {
                product: part.product.clone(),
                quantity: *quantity,
                amount: Fen(after.0 - part.refunded_amount.0),
                by_points: ByPoints { points: points.points - points_before.points, fen: Fen(points.fen.0 - points_before.fen.0) },
            });
        }
    }
    let id: OrderId = Kernel::new_id("rfd");
    let amount = Fen(parts.iter().map(|part| part.amount.0).sum());
    let by_points = ByPoints {
        points: parts.iter().map(|part| part.by_points.points).sum(),
        fen: Fen(parts.iter().map(|part| part.by_points.fen.0).sum()),
    };
    Refund { id: id.to_string(), order: order.id.clone(), amount, by_points, reason, refunded_at: now, parts }
}

async fn insert(tx: &Tx, key: &IdempotencyKey, refund: &Refund) -> Result<(), Error> {
    sql::execute(
        tx.conn(),
        "INSERT INTO mall_refund (id, order_id, amount, reason, refunded_at, idempotency, digest, points, points_fen)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        [
            refund.id.as_str().into(),
            refund.order.as_str().into(),
            refund.amount.0.into(),
            refund.reason.as_str().into(),
            refund.refunded_at.ms().into(),
            key.stored.as_str().into(),
            key.digest.as_str().into(),
            refund.by_points.points.into(),
            refund.by_points.fen.0.into(),
        ],
    )
    .await?;
    for part in &refund.parts {
        sql::execute(
            tx.conn(),
            "INSERT INTO mall_refund_line (refund, product, quantity, amount, points, points_fen) VALUES ($1, $2, $3, $4, $5, $6)",
            [
                refund.id.as_str().into(),
                part.product.as_str().into(),
                part.quantity.into(),
                part.amount.0.into(),
                part.by_points.points.into(),
                part.by_points.fen.0.into(),
            ],
        )
        .await?;
    }
    Ok(())
}

async fn apply(tx: &Tx, order: &Order, refund: &Refund) -> Result<(), Error> {
    for part in &refund.parts {
        sql::execute(
            tx.conn(),
            "UPDATE mall_order_line SET refunded_quantity = refunded_quantity + $1, refunded_amount = refunded_amount + $2
             WHERE order_id = $3 AND product = $4",
            [part.quantity.into(), part.amount.0.into(), order.id.as_str().into(), part.product.as_str().into()],
        )
        .await?;
    }
    let text = "UPDATE mall_payment SET points_refunded = points_refunded + $1 WHERE id = $2";
    sql::execute(tx.conn(), text, [refund.by_points.points.into(), order.payment.as_str().into()]).await?;
    for (table, id) in [("mall_order", order.id.as_str()), ("mall_payment", order.payment.as_str())] {
        let text = format!("UPDATE {table} SET refunded = refunded + $1 WHERE id = $2");
        sql::execute(tx.conn(), &text, [refund.amount.0.into(), id.into()]).await?;
    }
    Ok(())
}

/// Voids as many unredeemed vouchers as go back, oldest first. One redeemed at this very moment makes the use case start again.
async fn void_vouchers(tx: &Tx, order: &Order, wanted: &BTreeMap<ProductId, i64>) -> Result<(), Error> {
    for part in order.parts.iter().filter(|part| part.kind == ProductKind::Voucher) {
        let Some(quantity) = wanted.get(&part.product) else { continue };
        let void = sql::execute(
            tx.conn(),
            "UPDATE mall_voucher SET state = 'void' WHERE state = 'issued' AND id IN
               (SELECT id FROM mall_voucher WHERE order_id = $1 AND product = $2 AND state = 'issued' ORDER BY id LIMIT $3)",
            [order.id.as_str().into(), part.product.as_str().into(), (*quantity).into()],
        )
        .await?;
        if i64::try_from(void).ok() != Some(*quantity) {
            return Err(Error::Kernel(KernelError::Stale("a voucher of the order")));
        }
    }
    Ok(())
}

async fn read<C: sql::Connection>(conn: &C, column: &str, value: &str) -> Result<Option<(Refund, String)>, Error> {
    let text = format!("SELECT id, order_id, amount, points, points_fen, reason, refunded_at, digest FROM mall_refund WHERE {column} = $1");
    let Some(row) = sql::one(conn, &text, [value.into()]).await? else { return Ok(None) };
    let refund_id: String = sql::get(&row, "id")?;
    let text = "SELECT product, quantity, amount, points, points_fen FROM mall_refund_line WHERE refund = $1 ORDER BY product";
    let mut parts = Vec::new();
    for row in sql::all(conn, text, [refund_id.as_str().into()]).await? {
        parts.push(RefundPart {
            product: id(&row, "product")?,
            quantity: sql::get(&row, "quantity")?,
            amount: Fen(sql::get(&row, "amount")?),
            by_points: by_points(&row)?,
        });
    }
    let refund = Refund {
        id: refund_id,
        order: id(&row, "order_id")?,
        amount: Fen(sql::get(&row, "amount")?),
        by_points: by_points(&row)?,
        reason: sql::get(&row, "reason")?,
        refunded_at: time(&row, "refunded_at")?,
        parts,
    };
    Ok(Some((refund, sql::get(&row, "digest")?)))
}

fn told(order: &Order, refund: &Refund) -> DomainEvent {
    let category = |product: &ProductId| {
        order.parts.iter().find(|part| &part.product == product).map(|part| part.category.clone()).unwrap_or_default()
    };
    let line = |part: &RefundPart| OrderLine {
        sku: part.product.to_string(),
        category: category(&part.product),
        quantity: part.quantity,
        amount: part.amount,
    };
    DomainEvent::OrderRefunded {
        order: order.id.clone(),
        refund: refund.id.clone(),
        member: order.member.clone(),
        merchant: order.merchant.clone(),
        unit: order.unit.clone(),
        line: order.line,
        amount: refund.amount,
        lines: refund.parts.iter().map(line).collect(),
        points: (refund.by_points.points > 0).then_some(Points(refund.by_points.points)),
        occurred_at: refund.refunded_at,
    }
}
