//! Payments: started at the gateway, told about by signed notifications that may come twice, late, forged or in any order.

use crate::error::{Error, corrupt};
use crate::gateway::{Notice, is_signed};
use crate::mall::Mall;
use crate::orders::{put_back, reserve};
use crate::records::{self, Order, Payment};
use futures::FutureExt;
use heyuan_contract::{DomainEvent, Fen, OrderLine, ProductId, Timestamp};
use heyuan_kernel::secret::sha256_hex;
use heyuan_kernel::{Actor, Problem, Scope, Tx, sql};
use std::collections::BTreeMap;

/// Longest event id, reference or transaction number of a gateway, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// The gateway's clock may run ahead of ours by this much; beyond it the arrival counts.
const AHEAD_MS_MAX: i64 = 5 * 60_000;

/// Where and under which reference to pay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The payment as it stands.
    pub payment: Payment,
    /// What the gateway calls it.
    pub reference: String,
    /// The signed address at which the member pays.
    pub url: String,
}

/// What became of a notification, as stored.
mod outcome {
    pub(super) const APPLIED: &str = "applied";
    pub(super) const REPEATED: &str = "repeated";
    pub(super) const RETURNED_LATE: &str = "returned_late";
    pub(super) const RETURNED_DOUBLE: &str = "returned_double";
    pub(super) const AMOUNT_MISMATCH: &str = "amount_mismatch";
    pub(super) const UNKNOWN: &str = "unknown_reference";
    pub(super) const IGNORED: &str = "ignored_kind";
}

impl Mall {
    /// The payment, for its member or a key that reaches one of its orders' units.
    ///
    /// # Errors
    /// `not_found`, `forbidden`.
    pub async fn payment(&self, actor: &Actor, id: &str) -> Result<Payment, Error> {
        self.require_shopper(actor).await?;
        let conn = self.kernel.db.near();
        let missing = || Error::from(Problem::not_found("payment", id));
        let payment = records::payment(conn, "id", id, "").await?.ok_or_else(missing)?;
        let seen = match actor.as_member() {
            Some(member) => member == &payment.member,
            None => records::orders_of(conn, id).await?.iter().any(|order| actor.reach().covers(&order.unit)),
        };
        if seen { Ok(payment) } else { Err(missing()) }
    }

    /// Tells where to pay. Nothing is written: it may be asked again until the payment is paid or expired.
    ///
    /// # Errors
    /// `payment_closed`, `no_payment_gateway`, `not_found`, `forbidden`.
    pub async fn start_payment(&self, actor: &Actor, id: &str) -> Result<Started, Error> {
        let payment = self.payment(actor, id).await?;
        actor.require_for_member(Scope::App, &payment.member)?;
        let late = payment.expires_at <= self.kernel.clock.now();
        if payment.state != "created" || late {
            let state = if payment.state == "created" { "expired".to_owned() } else { payment.state };
            return Err(Error::PaymentClosed { payment: payment.id, state });
        }
        let url = self.client.pay_url(&payment.id, payment.amount.0, payment.expires_at.ms()).ok_or(Error::NoGateway)?;
        Ok(Started { reference: payment.id.clone(), payment, url })
    }

    /// Takes a notification of the gateway: stores it first, then applies it. A repeated one is answered like the first.
    ///
    /// # Errors
    /// `bad_signature`, `invalid_request`, `event_reused`, `amount_mismatch` (recorded, nothing changed).
    pub async fn receive(&self, body: &[u8], signature: Option<&str>) -> Result<(), Error> {
        let secret = self.settings.payment_secret.as_ref().ok_or(Error::BadSignature)?;
        if !signature.is_some_and(|signature| is_signed(secret, body, signature)) {
            return Err(Error::BadSignature);
        }
        let notice: Notice = heyuan_kernel::http::parse_json(body)?;
        check_notice(&notice)?;
        self.store_notice(&notice, sha256_hex(body)).await?;
        match self.apply_notice(&notice.event_id).await? {
            outcome if outcome == outcome::AMOUNT_MISMATCH => {
                Err(Error::AmountMismatch { reference: notice.reference, told: notice.amount })
            }
            _ => Ok(()),
        }
    }

    async fn store_notice(&self, notice: &Notice, digest: String) -> Result<(), Error> {
        let (notice, now) = (notice.clone(), self.kernel.clock.now());
        let at = if notice.timestamp.0 > now.plus_ms(AHEAD_MS_MAX) { now } else { notice.timestamp.0 };
        self.kernel
            .db
            .write("store payment notification", move |tx| {
                let (notice, digest) = (notice.clone(), digest.clone());
                async move {
                    sql::execute(
                        tx.conn(),
                        "INSERT INTO mall_notification (event_id, digest, kind, reference, gateway_transaction, amount, occurred_at, received_at)
                         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (event_id) DO NOTHING",
                        [
                            notice.event_id.as_str().into(),
                            digest.as_str().into(),
                            notice.kind.into(),
                            notice.reference.into(),
                            notice.transaction.into(),
                            notice.amount.into(),
                            at.ms().into(),
                            now.ms().into(),
                        ],
                    )
                    .await?;
                    let text = "SELECT digest FROM mall_notification WHERE event_id = $1";
                    let row = sql::one(tx.conn(), text, [notice.event_id.as_str().into()]).await?;
                    let stored: Option<String> = row.map(|row| sql::get(&row, "digest")).transpose()?;
                    if stored.as_deref() == Some(digest.as_str()) { Ok(()) } else { Err(Error::EventReused(notice.event_id)) }
                }
                .boxed()
            })
            .await
    }

    /// Applies a stored notification once; returns what became of it.
    pub(crate) async fn apply_notice(&self, event_id: &str) -> Result<String, Error> {
        let (mall, event_id) = (self.clone(), event_id.to_owned());
        self.kernel
            .db
            .write("apply payment notification", move |tx| {
                let (mall, event_id) = (mall.clone(), event_id.clone());
                async move {
                    let text = format!(
                        "SELECT kind, reference, gateway_transaction, amount, occurred_at, outcome FROM mall_notification
                         WHERE event_id = $1{}",
                        sql::for_update(tx.conn())
                    );
                    let row = sql::one(tx.conn(), &text, [event_id.as_str().into()]).await?;
                    let row = row.ok_or_else(|| corrupt("notification", "it vanished"))?;
                    if let Some(outcome) = sql::get::<Option<String>>(&row, "outcome")? {
                        return Ok(outcome);
                    }
                    let told = Told {
                        event_id,
                        reference: sql::get(&row, "reference")?,
                        transaction: sql::get(&row, "gateway_transaction")?,
                        amount: sql::get(&row, "amount")?,
                        at: records::time(&row, "occurred_at")?,
                    };
                    let outcome = match sql::get::<String>(&row, "kind")?.as_str() {
                        "payment.succeeded" => mall.money_came(tx, &told).await?,
                        "refund.succeeded" => money_went(tx, &told).await?,
                        _ => outcome::IGNORED,
                    };
                    sql::execute(
                        tx.conn(),
                        "UPDATE mall_notification SET outcome = $1 WHERE event_id = $2",
                        [outcome.into(), told.event_id.into()],
                    )
                    .await?;
                    Ok(outcome.to_owned())
                }
                .boxed()
            })
            .await
    }

    async fn money_came(&self, tx: &Tx, told: &Told) -> Result<&'static str, Error> {
        let Some(payment) = records::payment(tx.conn(), "id", &told.reference, sql::for_update(tx.conn())).await? else {
            return Ok(outcome::UNKNOWN);
        };
        if payment.amount.0 != told.amount {
            tracing::error!(payment.id = payment.id, event.id = told.event_id, "a payment notification names another amount; look at it");
            return Ok(outcome::AMOUNT_MISMATCH);
        }
        match payment.state.as_str() {
            "created" => self.mark_paid(tx, &payment.id, &told.transaction, told.at).await.map(|()| outcome::APPLIED),
            "expired" => self.money_came_late(tx, &payment, told).await,
            _ if payment.gateway_transaction.as_deref() == Some(&told.transaction) => Ok(outcome::REPEATED),
            _ => {
                let request = format!("double:{}", told.event_id);
                self.ask_refund(tx, &request, &payment.id, &told.transaction, payment.amount).await?;
                Ok(outcome::RETURNED_DOUBLE)
            }
        }
    }

    /// The stock was given back when the payment expired: the order stands if it can be taken again, else the money goes back. So does the
    /// money of an order that points pay in part: they are free again.
    async fn money_came_late(&self, tx: &Tx, payment: &Payment, told: &Told) -> Result<&'static str, Error> {
        let orders = records::orders_of(tx.conn(), &payment.id).await?;
        if payment.by_points.points == 0 && in_stock(tx, &orders).await? {
            reserve(tx, orders.iter().flat_map(|order| &order.parts), false).await?;
            self.mark_paid(tx, &payment.id, &told.transaction, told.at).await?;
            return Ok(outcome::APPLIED);
        }
        set_state(tx, &payment.id, "returned").await?;
        sql::execute(
            tx.conn(),
            "UPDATE mall_payment SET refunded = amount, gateway_transaction = $1 WHERE id = $2",
            [told.transaction.as_str().into(), payment.id.as_str().into()],
        )
        .await?;
        self.ask_refund(tx, &format!("late:{}", payment.id), &payment.id, &told.transaction, payment.amount).await?;
        Ok(outcome::RETURNED_LATE)
    }

    /// Turns a payment and its orders paid: vouchers are issued, merchants credited, `order.paid` told.
    pub(crate) async fn mark_paid(&self, tx: &Tx, payment: &str, transaction: &str, at: Timestamp) -> Result<(), Error> {
        set_state(tx, payment, "paid").await?;
        sql::execute(
            tx.conn(),
            "UPDATE mall_payment SET paid_at = $1, gateway_transaction = $2 WHERE id = $3",
            [at.ms().into(), transaction.into(), payment.into()],
        )
        .await?;
        sql::execute(tx.conn(), "UPDATE mall_order SET paid_at = $1 WHERE payment = $2", [at.ms().into(), payment.into()]).await?;
        for order in records::orders_of(tx.conn(), payment).await? {
            self.issue_for(tx, &order, at).await?;
            self.settle_sale(tx, &order).await?;
            tx.emit(order.id.as_str(), &paid(&order, at)).await?;
        }
        Ok(())
    }

    /// Frees the stock of an unpaid payment whose time is over, once; `false` when it was paid or freed meanwhile.
    pub(crate) async fn expire(tx: &Tx, payment: &str, now: Timestamp) -> Result<bool, Error> {
        let text = "UPDATE mall_payment SET state = 'expired' WHERE id = $1 AND state = 'created'";
        if sql::execute(tx.conn(), text, [payment.into()]).await? == 0 {
            return Ok(false);
        }
        set_state(tx, payment, "expired").await?;
        let mut pieces: BTreeMap<ProductId, i64> = BTreeMap::new();
        for order in records::orders_of(tx.conn(), payment).await? {
            if order.hold.is_some() {
                tx.emit(order.id.as_str(), &expired(&order, now)).await?;
            }
            for part in order.parts {
                *pieces.entry(part.product).or_default() += part.quantity;
            }
        }
        put_back(tx, &pieces).await?;
        Ok(true)
    }

    /// Writes down that the gateway is to give money back; a task sends it.
    pub(crate) async fn ask_refund(&self, tx: &Tx, request: &str, payment: &str, transaction: &str, amount: Fen) -> Result<(), Error> {
        if amount == Fen(0) {
            return Ok(());
        }
        let now = self.kernel.clock.now().ms();
        sql::execute(
            tx.conn(),
            "INSERT INTO mall_gateway_request (id, payment, gateway_transaction, amount, state, attempts, next_at, created_at)
             VALUES ($1, $2, $3, $4, 'pending', 0, $5, $5)",
            [request.into(), payment.into(), transaction.into(), amount.0.into(), now.into()],
        )
        .await?;
        Ok(())
    }
}

/// A stored notification.
struct Told {
    event_id: String,
    reference: String,
    transaction: String,
    amount: i64,
    at: Timestamp,
}

async fn money_went(tx: &Tx, told: &Told) -> Result<&'static str, Error> {
    let text = "UPDATE mall_gateway_request SET state = 'confirmed', error = NULL WHERE id = $1 AND amount = $2";
    let known = sql::execute(tx.conn(), text, [told.reference.as_str().into(), told.amount.into()]).await?;
    Ok(if known == 1 { outcome::APPLIED } else { outcome::UNKNOWN })
}

async fn set_state(tx: &Tx, payment: &str, state: &str) -> Result<(), Error> {
    sql::execute(tx.conn(), "UPDATE mall_payment SET state = $1 WHERE id = $2", [state.into(), payment.into()]).await?;
    sql::execute(tx.conn(), "UPDATE mall_order SET state = $1 WHERE payment = $2", [state.into(), payment.into()]).await?;
    Ok(())
}

/// Whether every product of the orders can be taken again; their rows are locked, in the order in which they are taken.
async fn in_stock(tx: &Tx, orders: &[Order]) -> Result<bool, Error> {
    let mut parts: Vec<_> = orders.iter().flat_map(|order| &order.parts).collect();
    parts.sort_by(|a, b| a.product.cmp(&b.product));
    let text = format!("SELECT stock FROM mall_product WHERE id = $1{}", sql::for_update(tx.conn()));
    for part in parts {
        let row = sql::one(tx.conn(), &text, [part.product.as_str().into()]).await?;
        let stock: i64 = row.map_or(Ok(0), |row| sql::get(&row, "stock"))?;
        if stock < part.quantity {
            return Ok(false);
        }
    }
    Ok(true)
}

fn expired(order: &Order, at: Timestamp) -> DomainEvent {
    DomainEvent::OrderExpired {
        order: order.id.clone(),
        member: order.member.clone(),
        unit: order.unit.clone(),
        points: order.order_points(),
        occurred_at: at,
    }
}

fn paid(order: &Order, at: Timestamp) -> DomainEvent {
    let line = |part: &records::OrderPart| OrderLine {
        sku: part.product.to_string(),
        category: part.category.clone(),
        quantity: part.quantity,
        amount: part.amount,
    };
    DomainEvent::OrderPaid {
        order: order.id.clone(),
        member: order.member.clone(),
        merchant: order.merchant.clone(),
        unit: order.unit.clone(),
        line: order.line,
        amount: order.amount,
        lines: order.parts.iter().map(line).collect(),
        points: order.order_points(),
        occurred_at: at,
    }
}

fn check_notice(notice: &Notice) -> Result<(), Problem> {
    let names =
        [("event_id", &notice.event_id), ("reference", &notice.reference), ("transaction", &notice.transaction), ("kind", &notice.kind)];
    for (field, text) in names {
        if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Problem::invalid(field, format!("expected 1 to {NAME_BYTES_MAX} printable ASCII characters without spaces")));
        }
    }
    if notice.amount < 0 {
        return Err(Problem::invalid("amount", "expected fen, 0 or more"));
    }
    if notice.currency != "CNY" {
        return Err(Problem::invalid("currency", "expected CNY"));
    }
    Ok(())
}
