//! Points that pay orders of the mall: what was set aside becomes a spend when the order is paid, is free again when it is not paid in
//! time, and goes back with a refund. Each once, whatever is delivered how often.

use crate::books;
use crate::error::Error;
use crate::facade::Membership;
use crate::give_back;
use crate::hold::{End, HoldPoints, HoldState};
use crate::member;
use crate::points::{self, Spend};
use crate::reaction::lock_buyers;
use crate::standing::MemberState;
use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_contract::{DomainEvent, Line, MemberId, OrderId, OrderPoints, OrgUnitId};
use heyuan_kernel::idempotency::IdempotencyKey;
use heyuan_kernel::outbox::Envelope;
use heyuan_kernel::pump::{Apply, Reaction, nothing};
use heyuan_kernel::{Actor, Problem, Tx, sql};

/// Carts of one name that were given up and tried again.
const TRIES_MAX: u32 = 100;

/// What the mall's orders do to points.
pub(crate) struct OrderPayments {
    membership: Membership,
}

impl OrderPayments {
    pub(crate) fn new(membership: Membership) -> OrderPayments {
        OrderPayments { membership }
    }
}

impl Reaction for OrderPayments {
    fn consumer(&self) -> &'static str {
        "membership order points"
    }

    fn wants(&self, name: &str) -> bool {
        matches!(name, "order.paid.v1" | "order.expired.v1" | "order.refunded.v1")
    }

    fn react<'a>(&'a self, envelope: &'a Envelope) -> BoxFuture<'a, Result<Apply, Problem>> {
        let membership = self.membership.clone();
        let apply: Apply = match envelope.event.clone() {
            DomainEvent::OrderPaid { order, member, unit, line, points: Some(points), .. } => Box::new(move |tx| {
                let (membership, order, member, unit, points) =
                    (membership.clone(), order.clone(), member.clone(), unit.clone(), points.clone());
                async move { membership.pay_order(tx, &order, &member, unit, line, &points).await.map_err(Error::into_kernel) }.boxed()
            }),
            DomainEvent::OrderExpired { order, member, points: Some(points), .. } => Box::new(move |tx| {
                let (membership, order, member, points) = (membership.clone(), order.clone(), member.clone(), points.clone());
                async move {
                    let key = IdempotencyKey { stored: format!("order expired/{order}"), digest: String::new() };
                    membership.free_hold(tx, &key, &member, &points.hold).await.map_err(Error::into_kernel)
                }
                .boxed()
            }),
            DomainEvent::OrderRefunded { order, refund, points: Some(points), .. } => Box::new(move |tx| {
                let (membership, order, refund) = (membership.clone(), order.clone(), refund.clone());
                async move { membership.return_order(tx, &order, &refund, points.0).await.map_err(Error::into_kernel) }.boxed()
            }),
            _ => nothing(),
        };
        async move { Ok(apply) }.boxed()
    }

    fn prepare<'a>(&'a self, tx: &'a Tx, group: &'a [Envelope]) -> BoxFuture<'a, Result<(), heyuan_kernel::Error>> {
        async move { lock_buyers(&self.membership, tx, group).await.map_err(Error::into_kernel) }.boxed()
    }
}

/// The key of the spend that an order's points are.
fn order_key(order: &OrderId) -> IdempotencyKey {
    IdempotencyKey { stored: points::order_key(order), digest: String::new() }
}

impl Membership {
    /// Sets points aside for an order that the mall is about to write; the same name again is the same hold while it stands. The order ends
    /// it, and nobody else does.
    ///
    /// # Errors
    /// As [`Membership::hold_points`].
    pub async fn set_aside(
        &self,
        actor: &Actor,
        member: &MemberId,
        wanted: &HoldPoints,
        name: &str,
        order: &OrderId,
    ) -> Result<String, Error> {
        for attempt in 0..TRIES_MAX {
            let hold = self.hold_for(actor, member, wanted, Some(&format!("order/{name}/{attempt}")), Some(order)).await?;
            if hold.state != HoldState::Open {
                continue;
            }
            // The same cart sent again has an order of another name.
            if hold.order.as_deref() != Some(order.as_str()) {
                self.name_order(&hold.id, order).await?;
            }
            return Ok(hold.id);
        }
        Err(Problem::invalid("points", "the same cart was given up too often; send it with a new Idempotency-Key").into())
    }

    async fn name_order(&self, hold: &str, order: &OrderId) -> Result<(), Error> {
        let (hold, order) = (hold.to_owned(), order.to_string());
        self.kernel()
            .db
            .write("name the order of a hold", move |tx| {
                let (hold, order) = (hold.clone(), order.clone());
                async move {
                    let text = "UPDATE membership_hold SET order_id = $2 WHERE id = $1 AND state = 'open'";
                    sql::execute(tx.conn(), text, [hold.into(), order.into()]).await.map(drop)
                }
                .boxed()
            })
            .await
            .map_err(Error::from)
    }

    /// Sets the points of an order free that the mall could not write; a hold that has ended stays ended.
    ///
    /// # Errors
    /// The database's.
    pub async fn set_free(&self, member: &MemberId, hold: &str) -> Result<(), Error> {
        let (membership, member, hold) = (self.clone(), member.clone(), hold.to_owned());
        self.kernel()
            .db
            .write("free points of an order", move |tx| {
                let (membership, member, hold) = (membership.clone(), member.clone(), hold.clone());
                async move {
                    let key = IdempotencyKey { stored: format!("order given up/{hold}"), digest: String::new() };
                    membership.free_hold(tx, &key, &member, &hold).await
                }
                .boxed()
            })
            .await
    }

    async fn free_hold(&self, tx: &Tx, key: &IdempotencyKey, member: &MemberId, hold: &str) -> Result<(), Error> {
        match self.find_hold(tx.conn(), "id", hold).await? {
            Some(stored) if stored.view.state == HoldState::Open => {
                self.write_hold_end(tx, key, member, hold, End::Release).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Makes what was set aside for a paid order a spend. Where the hold no longer stands, the points are taken from what the member has.
    async fn pay_order(
        &self,
        tx: &Tx,
        order: &OrderId,
        member: &MemberId,
        unit: OrgUnitId,
        line: Line,
        paid: &OrderPoints,
    ) -> Result<(), Error> {
        let key = order_key(order);
        let book = self.ledger().enter(tx, books::POINTS).await?;
        // Also of a member that was blocked meanwhile: the order is paid.
        let row = member::lock_any(tx, member).await?;
        if points::find(tx.conn(), &key.stored).await?.is_some() {
            return Ok(());
        }
        if let Some(stored) = self.find_hold(tx.conn(), "id", &paid.hold).await?.filter(|stored| stored.view.state == HoldState::Open) {
            self.capture_open(tx, book, &key, stored, paid.points.0).await?;
            // What an erased member's order held back goes where the rest went.
            return if row.state == MemberState::Closed { self.forfeit_free(tx, book, member).await } else { Ok(()) };
        }
        let spend = Spend { amount: paid.points.0, unit, reference: format!("order {order}") };
        self.take_spend(tx, book, &key, member.clone(), spend, line).await.map(drop)
    }

    /// Gives points of a paid order back with a refund of it.
    async fn return_order(&self, tx: &Tx, order: &OrderId, refund: &str, amount: i64) -> Result<(), Error> {
        let key = IdempotencyKey { stored: format!("order refund/{refund}"), digest: String::new() };
        if give_back::find(tx.conn(), &key.stored).await?.is_some() {
            return Ok(());
        }
        let spend = points::find(tx.conn(), &order_key(order).stored).await?;
        let (spend, _) = spend.ok_or_else(|| member::corrupt("order", "its points were never spent"))?;
        // Releases before this one let keys give them back as well; what they gave is not given twice.
        let amount = amount.min(give_back::left(tx, &spend).await?);
        if amount == 0 {
            return Ok(());
        }
        self.write_return(tx, &key, &spend, amount).await.map(drop)
    }
}
