//! A cart becomes one order per merchant under one payment, with its stock reserved in the same transaction.

use crate::catalogue::{ProductKind, read_line, read_product, read_rate};
use crate::error::{Error, corrupt};
use crate::mall::{Mall, PointsWanted};
use crate::proration::prorate;
use crate::records::{self, ByPoints, ORDER, Order, OrderPart, Payment};
use futures::FutureExt;
use heyuan_contract::{Fen, MemberId, MerchantId, MoneyError, OrderId, ProductId, Timestamp};
use heyuan_kernel::filter::Filter;
use heyuan_kernel::idempotency::IdempotencyKey;
use heyuan_kernel::secret::sha256_hex;
use heyuan_kernel::{Actor, Error as KernelError, Kernel, Problem, Scope, Tx, sql};
use sea_orm::Value;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Lines of one cart.
const LINES_MAX: usize = 200;
/// Pieces of one product in one cart.
const PIECES_MAX: i64 = 100_000;
/// Vouchers of one product in one cart: each becomes a record of its own when it is paid.
const VOUCHERS_MAX: i64 = 200;
/// Largest cart, a hundred billion yuan.
const CART_FEN_MAX: i64 = 10_000_000_000_000;
/// How long points stay set aside after the last moment at which the order can be paid: longer than the word of its payment may take.
const HELD_AFTER_EXPIRY_MINUTES: i64 = 24 * 60;

/// A cart.
#[derive(Debug, Clone, Serialize)]
pub struct PlaceOrder {
    /// Who buys.
    pub member: MemberId,
    /// What; a product may stand there several times.
    pub lines: Vec<CheckoutLine>,
    /// What a server of the tenant takes off the whole, spread over the lines to the fen; a member's token can't name one.
    pub discount: Fen,
    /// Points that pay a part, or all of it.
    #[serde(skip_serializing_if = "is_nothing")]
    pub points: i64,
}

/// A cart without points digests as it did before there were any.
fn is_nothing(points: &i64) -> bool {
    *points == 0
}

/// A line of a cart.
#[derive(Debug, Clone, Serialize)]
pub struct CheckoutLine {
    /// The product.
    pub product: ProductId,
    /// Pieces.
    pub quantity: i64,
}

/// What a cart became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkout {
    /// The one payment.
    pub payment: Payment,
    /// An order per merchant.
    pub orders: Vec<Order>,
}

/// Which orders a list holds.
#[derive(Debug, Clone, Default)]
pub struct OrderList {
    /// Of this member alone; a member's token needs it to be its own.
    pub member: Option<MemberId>,
    /// Of this merchant alone.
    pub merchant: Option<MerchantId>,
}

/// The records to be written for a cart.
#[derive(Debug)]
struct Draft {
    payment: String,
    member: MemberId,
    amount: Fen,
    discount: Fen,
    by_points: ByPoints,
    created_at: Timestamp,
    expires_at: Timestamp,
    orders: Vec<Order>,
}

impl Draft {
    /// The cart as it stands right after it was written.
    fn answer(&self, digest: String) -> Checkout {
        let payment = Payment {
            id: self.payment.clone(),
            member: self.member.clone(),
            amount: self.amount,
            discount: self.discount,
            refunded: Fen(0),
            by_points: self.by_points,
            points_refunded: 0,
            state: "created".into(),
            created_at: self.created_at,
            expires_at: self.expires_at,
            paid_at: None,
            gateway_transaction: None,
            digest,
        };
        Checkout { payment, orders: self.orders.clone() }
    }
}

impl Mall {
    /// Places a cart: reserves its stock and makes one payment with an order per merchant. A cart that costs nothing is paid at once.
    ///
    /// # Errors
    /// `sold_out` (nothing is reserved then), `invalid_request`, `forbidden`, the ones of idempotency keys; membership's when points pay:
    /// `not_enough_points`, `member_blocked`, `member_closed`.
    pub async fn place(&self, actor: &Actor, header: Option<&str>, cart: PlaceOrder) -> Result<Checkout, Error> {
        actor.require_for_member(Scope::App, &cart.member)?;
        self.require_shopper(actor).await?;
        let key = IdempotencyKey::new(actor, "mall.order", header, &cart)?;
        if let Some(placed) = self.placed(&key).await? {
            return Ok(placed);
        }
        if actor.as_member().is_some() && cart.discount != Fen(0) {
            return Err(Problem::invalid("discount", "a member's token can't name a discount; leave it out").into());
        }
        let wanted = gather(&cart.lines)?;
        if actor.as_member().is_none() && !self.members.exists(&cart.member).await? {
            return Err(Problem::invalid("member", format!("there is no member {}", cart.member)).into());
        }
        let written = self.kernel.db.settle(|| self.write_placed(actor, &key, &cart, &wanted)).await;
        match written {
            Err(Error::Kernel(error)) if error.is_duplicate() => self.placed(&key).await?.ok_or_else(|| corrupt("payment", "it vanished")),
            // A cart that costs nothing was paid on the way.
            Ok(placed) if placed.payment.amount == Fen(0) => self.checkout(&placed.payment.id).await,
            other => other,
        }
    }

    async fn placed(&self, key: &IdempotencyKey) -> Result<Option<Checkout>, Error> {
        let Some(payment) = records::payment(self.kernel.db.near(), "idempotency", &key.stored, "").await? else { return Ok(None) };
        key.check(&payment.digest)?;
        self.checkout(&payment.id).await.map(Some)
    }

    async fn checkout(&self, payment: &str) -> Result<Checkout, Error> {
        let conn = self.kernel.db.near();
        let found = records::payment(conn, "id", payment, "").await?.ok_or_else(|| corrupt("payment", "it vanished"))?;
        Ok(Checkout { payment: found, orders: records::orders_of(conn, payment).await? })
    }

    /// Prices the cart, sets its points aside, and writes it. What was set aside for a cart that could not be written is free again.
    async fn write_placed(
        &self,
        actor: &Actor,
        key: &IdempotencyKey,
        cart: &PlaceOrder,
        wanted: &BTreeMap<ProductId, i64>,
    ) -> Result<Checkout, Error> {
        let mut draft = self.draft(actor, cart, wanted).await?;
        let minutes = i64::from(self.settings.order_expiry_minutes) + HELD_AFTER_EXPIRY_MINUTES;
        let mut holds = Vec::new();
        for order in draft.orders.iter_mut().filter(|order| order.by_points.points > 0) {
            let points = PointsWanted {
                member: order.member.clone(),
                points: order.by_points.points,
                unit: order.unit.clone(),
                name: sha256_hex(format!("{}/{}/{}", key.stored, order.merchant, order.by_points.points).as_bytes()),
                order: order.id.clone(),
                minutes,
            };
            match self.members.set_aside(actor, &points).await {
                Ok(hold) => {
                    order.hold = Some(hold.clone());
                    holds.push(hold);
                }
                Err(problem) => {
                    self.set_free(&cart.member, &holds).await?;
                    return Err(problem.into());
                }
            }
        }
        let written = self.write_cart(key, draft).await;
        if written.is_err() {
            self.set_free(&cart.member, &holds).await?;
        }
        written
    }

    /// Sets the points of holds free that no order has: the same cart may have been placed meanwhile, by the same key.
    async fn set_free(&self, member: &MemberId, holds: &[String]) -> Result<(), Error> {
        for hold in holds {
            let text = "SELECT 1 AS one FROM mall_order WHERE hold = $1 LIMIT 1";
            if sql::one(self.kernel.db.near(), text, [hold.as_str().into()]).await?.is_none() {
                self.members.set_free(member, hold).await?;
            }
        }
        Ok(())
    }

    /// What the points of a cart pay, at most what it costs.
    fn worth(&self, points: i64, costs: Fen) -> Result<ByPoints, Problem> {
        if points == 0 {
            return Ok(ByPoints::default());
        }
        let a_yuan = i64::from(self.settings.points_a_yuan);
        if a_yuan == 0 {
            return Err(Problem::invalid("points", "orders can't be paid with points here; leave it out"));
        }
        let most = i128::from(costs.0) * i128::from(a_yuan) / 100;
        let fen = i128::from(points) * 100;
        if points < 0 || i128::from(points) > most || fen % i128::from(a_yuan) != 0 {
            let words = format!("expected 0 to {most} points that come to whole fen; {a_yuan} points pay a yuan");
            return Err(Problem::invalid("points", words));
        }
        let fen = i64::try_from(fen / i128::from(a_yuan)).map_err(|_| Problem::invalid("points", "expected fewer points"))?;
        Ok(ByPoints { points, fen: Fen(fen) })
    }

    /// Prices the cart. Prices are checked again by the reservation.
    async fn draft(&self, actor: &Actor, cart: &PlaceOrder, wanted: &BTreeMap<ProductId, i64>) -> Result<Draft, Error> {
        let text = format!(
            "SELECT p.id, p.merchant, p.unit, p.name, p.category, p.kind, p.price, p.voucher_valid_days, p.stock,
               m.line, m.commission_numerator, m.commission_denominator
             FROM mall_product p JOIN mall_merchant m ON m.id = p.merchant WHERE p.id IN ({})",
            sql::placeholders(1, wanted.len())
        );
        let ids: Vec<Value> = wanted.keys().map(|id| id.as_str().into()).collect();
        let mut parts = Vec::new();
        for row in sql::all(self.kernel.db.reader(), &text, ids).await? {
            let product = read_product(&row)?;
            if !actor.reach().covers(&product.unit) {
                continue;
            }
            let quantity = wanted.get(&product.id).copied().unwrap_or_default();
            if product.kind == ProductKind::Voucher && quantity > VOUCHERS_MAX {
                return Err(Problem::invalid("lines", format!("a cart has at most {VOUCHERS_MAX} vouchers of one product")).into());
            }
            if product.stock < quantity {
                return Err(Error::SoldOut { product: product.id, wanted: quantity });
            }
            parts.push((product, quantity, read_line(&row)?, read_rate(&row)?));
        }
        if let Some(missing) = wanted.keys().find(|id| !parts.iter().any(|(product, ..)| &product.id == *id)) {
            return Err(Problem::invalid("lines", format!("there is no product {missing} that this key may sell")).into());
        }
        parts.sort_by(|a, b| (&a.0.merchant, &a.0.id).cmp(&(&b.0.merchant, &b.0.id)));
        let gross: Vec<Fen> = parts.iter().map(|(product, quantity, ..)| times(product.price, *quantity)).collect::<Result<_, _>>()?;
        let whole = sum(&gross)?;
        if cart.discount.0 < 0 || cart.discount > whole {
            return Err(Problem::invalid("discount", format!("expected 0 to {} fen, what the cart costs", whole.0)).into());
        }
        let discounts = prorate(cart.discount, &gross);
        let by_points = self.worth(cart.points, Fen(whole.0 - cart.discount.0))?;
        let left: Vec<Fen> = gross.iter().zip(&discounts).map(|(gross, discount)| Fen(gross.0 - discount.0)).collect();
        let shares = points_shares(by_points, &left);
        let now = self.kernel.clock.now();
        let payment: OrderId = Kernel::new_id("pay");
        let mut draft = Draft {
            payment: payment.to_string(),
            member: cart.member.clone(),
            amount: Fen(whole.0 - cart.discount.0 - by_points.fen.0),
            discount: cart.discount,
            by_points,
            created_at: now,
            expires_at: now.plus_ms(i64::from(self.settings.order_expiry_minutes) * 60_000),
            orders: Vec::new(),
        };
        for (index, (product, quantity, line, commission_rate)) in parts.into_iter().enumerate() {
            if draft.orders.last().is_none_or(|order| order.merchant != product.merchant) {
                draft.orders.push(Order {
                    id: Kernel::new_id("ord"),
                    payment: draft.payment.clone(),
                    member: draft.member.clone(),
                    merchant: product.merchant.clone(),
                    unit: product.unit.clone(),
                    line,
                    amount: Fen(0),
                    refunded: Fen(0),
                    by_points: ByPoints::default(),
                    hold: None,
                    state: "unpaid".into(),
                    created_at: now,
                    paid_at: None,
                    parts: Vec::new(),
                    commission_rate,
                });
            }
            let share = shares[index];
            let amount = Fen(left[index].0 - share.fen.0);
            if let Some(order) = draft.orders.last_mut() {
                order.amount = Fen(order.amount.0 + amount.0);
                order.by_points = ByPoints { points: order.by_points.points + share.points, fen: Fen(order.by_points.fen.0 + share.fen.0) };
                order.parts.push(OrderPart {
                    product: product.id,
                    category: product.category,
                    kind: product.kind,
                    quantity,
                    price: product.price,
                    discount: discounts[index],
                    amount,
                    by_points: share,
                    refunded_quantity: 0,
                    refunded_amount: Fen(0),
                });
            }
        }
        Ok(draft)
    }

    async fn write_cart(&self, key: &IdempotencyKey, draft: Draft) -> Result<Checkout, Error> {
        let (mall, key, draft) = (self.clone(), key.clone(), Arc::new(draft));
        let written = draft.clone();
        let digest = key.digest.clone();
        self.kernel
            .db
            .write("place order", move |tx| {
                let (mall, key, draft) = (mall.clone(), key.clone(), written.clone());
                async move {
                    insert_payment(tx, &key, &draft).await?;
                    reserve(tx, draft.orders.iter().flat_map(|order| &order.parts), true).await?;
                    insert_orders(tx, &draft).await?;
                    if draft.amount == Fen(0) {
                        mall.mark_paid(tx, &draft.payment, "none", draft.created_at).await?;
                    }
                    Ok::<(), Error>(())
                }
                .boxed()
            })
            .await?;
        Ok(draft.answer(digest))
    }

    /// An order within reach.
    ///
    /// # Errors
    /// `not_found`, `forbidden`.
    pub async fn order(&self, actor: &Actor, id: &OrderId) -> Result<Order, Error> {
        self.require_shopper(actor).await?;
        let order = records::order(self.kernel.db.near(), id, "").await?;
        let seen = order.filter(|order| match actor.as_member() {
            Some(member) => member == &order.member,
            None => actor.reach().covers(&order.unit),
        });
        seen.ok_or_else(|| Problem::not_found("order", id).into())
    }

    /// Orders within reach, oldest first; up to one more than `limit`.
    ///
    /// # Errors
    /// `forbidden`.
    pub async fn orders(&self, actor: &Actor, list: OrderList, after: Option<String>, limit: u64) -> Result<Vec<Order>, Error> {
        self.require_shopper(actor).await?;
        let member = match (actor.as_member(), list.member) {
            (Some(own), None) => Some(own.clone()),
            (Some(_), Some(named)) => {
                actor.require_for_member(Scope::App, &named)?;
                Some(named)
            }
            (None, named) => named,
        };
        let filter = Filter::everything().and_if("member", "=", member.map(String::from));
        let filter = filter.and_if("merchant", "=", list.merchant.map(String::from)).and_if("id", ">", after);
        let (text, values) = filter.within("unit", actor.reach()).page(ORDER, "id", limit);
        let conn = self.kernel.db.near();
        let rows = sql::all(conn, &text, values).await?;
        records::with_parts(conn, rows).await
    }
}

/// Spreads what points pay over the lines: their worth in proportion to what the lines cost, the points in proportion to the worth.
fn points_shares(by_points: ByPoints, left: &[Fen]) -> Vec<ByPoints> {
    let worth = prorate(by_points.fen, left);
    let points = prorate(Fen(by_points.points), &worth);
    worth.into_iter().zip(points).map(|(fen, points)| ByPoints { points: points.0, fen }).collect()
}

/// Sums repeated lines, so that stock is asked for once per product.
fn gather(lines: &[CheckoutLine]) -> Result<BTreeMap<ProductId, i64>, Problem> {
    if lines.is_empty() || lines.len() > LINES_MAX {
        return Err(Problem::invalid("lines", format!("expected 1 to {LINES_MAX} lines")));
    }
    let mut wanted: BTreeMap<ProductId, i64> = BTreeMap::new();
    for (index, line) in lines.iter().enumerate() {
        let pieces = wanted.entry(line.product.clone()).or_default();
        let fits = line.quantity >= 1 && line.quantity <= PIECES_MAX - *pieces;
        if !fits {
            return Err(Problem::invalid(
                &format!("lines[{index}].quantity"),
                format!("expected at least 1, and at most {PIECES_MAX} of one product in a cart"),
            ));
        }
        *pieces += line.quantity;
    }
    Ok(wanted)
}

fn times(price: Fen, quantity: i64) -> Result<Fen, Error> {
    price.0.checked_mul(quantity).map(Fen).ok_or(Error::Money(MoneyError::Overflow))
}

fn sum(amounts: &[Fen]) -> Result<Fen, Error> {
    let whole: i128 = amounts.iter().map(|amount| i128::from(amount.0)).sum();
    let whole = i64::try_from(whole).unwrap_or(i64::MAX);
    if whole > CART_FEN_MAX {
        return Err(Problem::invalid("lines", format!("a cart costs at most {CART_FEN_MAX} fen")).into());
    }
    Ok(Fen(whole))
}

/// Takes the pieces out of stock, products in the order of their ids, so that two carts can't wait for each other. With
/// `same_price`, a product whose price has changed since it was read makes the use case read again.
pub(crate) async fn reserve(tx: &Tx, parts: impl Iterator<Item = &OrderPart>, same_price: bool) -> Result<(), Error> {
    let mut parts: Vec<&OrderPart> = parts.collect();
    parts.sort_by(|a, b| a.product.cmp(&b.product));
    for part in parts {
        let taken = if same_price {
            sql::execute(
                tx.conn(),
                "UPDATE mall_product SET stock = stock - $1 WHERE id = $2 AND stock >= $1 AND price = $3",
                [part.quantity.into(), part.product.as_str().into(), part.price.0.into()],
            )
            .await?
        } else {
            sql::execute(
                tx.conn(),
                "UPDATE mall_product SET stock = stock - $1 WHERE id = $2 AND stock >= $1",
                [part.quantity.into(), part.product.as_str().into()],
            )
            .await?
        };
        if taken == 1 {
            continue;
        }
        let row = sql::one(tx.conn(), "SELECT price FROM mall_product WHERE id = $1", [part.product.as_str().into()]).await?;
        let price: Option<i64> = row.map(|row| sql::get(&row, "price")).transpose()?;
        if same_price && price != Some(part.price.0) {
            return Err(Error::Kernel(KernelError::Stale("the price of a product")));
        }
        return Err(Error::SoldOut { product: part.product.clone(), wanted: part.quantity });
    }
    Ok(())
}

/// Puts pieces back into stock, in the same order of products as [`reserve`] takes them.
pub(crate) async fn put_back(tx: &Tx, pieces: &BTreeMap<ProductId, i64>) -> Result<(), Error> {
    for (product, quantity) in pieces {
        sql::execute(tx.conn(), "UPDATE mall_product SET stock = stock + $1 WHERE id = $2", [(*quantity).into(), product.as_str().into()])
            .await?;
    }
    Ok(())
}

async fn insert_payment(tx: &Tx, key: &IdempotencyKey, draft: &Draft) -> Result<(), Error> {
    sql::execute(
        tx.conn(),
        "INSERT INTO mall_payment (id, member, amount, discount, refunded, state, created_at, expires_at, idempotency, digest, points, points_fen)
         VALUES ($1, $2, $3, $4, 0, 'created', $5, $6, $7, $8, $9, $10)",
        [
            draft.payment.as_str().into(),
            draft.member.as_str().into(),
            draft.amount.0.into(),
            draft.discount.0.into(),
            draft.created_at.ms().into(),
            draft.expires_at.ms().into(),
            key.stored.as_str().into(),
            key.digest.as_str().into(),
            draft.by_points.points.into(),
            draft.by_points.fen.0.into(),
        ],
    )
    .await?;
    Ok(())
}

async fn insert_orders(tx: &Tx, draft: &Draft) -> Result<(), Error> {
    let (mut orders, mut parts): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    for order in &draft.orders {
        orders.extend::<[Value; 15]>([
            order.id.as_str().into(),
            order.payment.as_str().into(),
            order.member.as_str().into(),
            order.merchant.as_str().into(),
            order.unit.as_str().into(),
            order.line.as_str().into(),
            order.amount.0.into(),
            0i64.into(),
            order.state.as_str().into(),
            order.commission_rate.numerator().into(),
            order.commission_rate.denominator().into(),
            order.created_at.ms().into(),
            order.by_points.points.into(),
            order.by_points.fen.0.into(),
            order.hold.clone().into(),
        ]);
        for part in &order.parts {
            parts.extend::<[Value; 12]>([
                order.id.as_str().into(),
                part.product.as_str().into(),
                part.category.as_str().into(),
                part.kind.as_str().into(),
                part.quantity.into(),
                part.price.0.into(),
                part.discount.0.into(),
                part.amount.0.into(),
                0i64.into(),
                0i64.into(),
                part.by_points.points.into(),
                part.by_points.fen.0.into(),
            ]);
        }
    }
    let text = format!(
        "INSERT INTO mall_order (id, payment, member, merchant, unit, line, amount, refunded, state, commission_numerator,
           commission_denominator, created_at, points, points_fen, hold) VALUES {}",
        sql::rows(orders.len() / 15, 15)
    );
    sql::execute(tx.conn(), &text, orders).await?;
    let text = format!(
        "INSERT INTO mall_order_line (order_id, product, category, kind, quantity, price, discount, amount, refunded_quantity,
           refunded_amount, points, points_fen) VALUES {}",
        sql::rows(parts.len() / 12, 12)
    );
    sql::execute(tx.conn(), &text, parts).await?;
    Ok(())
}
