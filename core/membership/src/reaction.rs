//! What membership does about the facts of others: paid and refunded orders earn and take back, an erased person leaves.

use crate::benefit;
use crate::books;
use crate::decision;
use crate::error::{Error, codes};
use crate::facade::Membership;
use crate::link;
use crate::member;
use crate::order_points::OrderPayments;
use crate::points;
use crate::proof;
use crate::report::Accepted;
use crate::standing::MemberState;
use crate::tier;
use crate::transaction::{self, Kind, Report, Who};
use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_contract::{AnchorId, DomainEvent, Line, MemberId, TransactionId};
use heyuan_kernel::keys::end_sessions;
use heyuan_kernel::outbox::Envelope;
use heyuan_kernel::pump::{Apply, Reaction, nothing};
use heyuan_kernel::secret::sha256_hex;
use heyuan_kernel::{Problem, Tx, sql};
use std::collections::BTreeSet;
use std::sync::Arc;

pub(crate) fn all(membership: &Membership) -> Vec<Arc<dyn Reaction>> {
    vec![
        Arc::new(Orders { membership: membership.clone() }),
        Arc::new(OrderPayments::new(membership.clone())),
        Arc::new(Erasures { membership: membership.clone() }),
    ]
}

/// Orders of the mall as transactions of their line.
struct Orders {
    membership: Membership,
}

impl Reaction for Orders {
    fn consumer(&self) -> &'static str {
        "membership orders"
    }

    fn wants(&self, name: &str) -> bool {
        matches!(name, "order.paid.v1" | "order.refunded.v1")
    }

    fn react<'a>(&'a self, envelope: &'a Envelope) -> BoxFuture<'a, Result<Apply, Problem>> {
        async move { Ok(self.decide(&envelope.event).await?) }.boxed()
    }

    fn prepare<'a>(&'a self, tx: &'a Tx, group: &'a [Envelope]) -> BoxFuture<'a, Result<(), heyuan_kernel::Error>> {
        async move { lock_buyers(&self.membership, tx, group).await.map_err(Error::into_kernel) }.boxed()
    }
}

/// Locks the members of a group's orders in the order that everybody takes who locks several, before anything else is held that
/// a purchase of one of them may wait for, such as a stripe.
pub(crate) async fn lock_buyers(membership: &Membership, tx: &Tx, group: &[Envelope]) -> Result<(), Error> {
    let buyer = |envelope: &Envelope| match &envelope.event {
        DomainEvent::OrderPaid { member, .. } | DomainEvent::OrderExpired { member, .. } | DomainEvent::OrderRefunded { member, .. } => {
            Some(member.clone())
        }
        _ => None,
    };
    membership.ledger().enter(tx, books::POINTS).await?;
    for member in group.iter().filter_map(buyer).collect::<BTreeSet<_>>() {
        member::lock_if_there(tx, &member).await?;
    }
    Ok(())
}

impl Orders {
    async fn decide(&self, event: &DomainEvent) -> Result<Apply, Error> {
        let Some((report, line, member)) = transaction_of(event)? else { return Ok(nothing()) };
        let reader = self.membership.kernel().db.reader();
        if transaction::find(reader, &report.unit, &report.id).await?.is_some() {
            return Ok(nothing());
        }
        // Events of an order come in order, so that a refund without its purchase is one of a purchase that was passed by.
        if let Some(of) = &report.refund_of
            && transaction::find(reader, &report.unit, of).await?.is_none()
        {
            return Ok(nothing());
        }
        // A member that left or is blocked earns nothing more; what was earned is still taken back.
        let member = member::find(reader, &member).await?;
        if report.kind == Kind::Purchase && !member.as_ref().is_some_and(|member| member.state == MemberState::Open) {
            return Ok(nothing());
        }
        let body = serde_json::to_vec(&report.digested(self.membership.kernel())).map_err(|e| member::corrupt("order event", e))?;
        let accepted = Accepted { report, line, member, hinted: Vec::new(), digest: sha256_hex(&body), idempotency: None };
        let ready = Arc::new(self.membership.ready(accepted).await?);
        let membership = self.membership.clone();
        Ok(Box::new(move |tx: &Tx| {
            let (membership, ready) = (membership.clone(), ready.clone());
            async move { written_or_moved(membership.write_ready(tx, &ready).await.map(drop)) }.boxed()
        }))
    }
}

/// A member that was blocked or left since it was decided is no fault of the event: it is decided about again, and earns nothing then.
fn written_or_moved(written: Result<(), Error>) -> Result<(), heyuan_kernel::Error> {
    match written {
        Err(Error::Refused(problem)) if [codes::MEMBER_BLOCKED, codes::MEMBER_CLOSED].contains(&problem.code()) => {
            Err(heyuan_kernel::Error::Stale("the state of a member"))
        }
        other => other.map_err(Error::into_kernel),
    }
}

/// The transaction that an order event is; `None` for one without money.
fn transaction_of(event: &DomainEvent) -> Result<Option<(Report, Line, MemberId)>, Error> {
    let id = |text: &str| TransactionId::new(text).map_err(|e| Error::from(member::corrupt("order event", e)));
    let found = match event {
        DomainEvent::OrderPaid { order, member, unit, line, amount, lines, occurred_at, .. } => {
            (id(order.as_str())?, Kind::Purchase, None, member, unit, *line, *amount, lines, *occurred_at)
        }
        DomainEvent::OrderRefunded { order, refund, member, unit, line, amount, lines, occurred_at, .. } => {
            (id(refund)?, Kind::Refund, Some(id(order.as_str())?), member, unit, *line, *amount, lines, *occurred_at)
        }
        _ => return Ok(None),
    };
    let (id, kind, refund_of, member, unit, line, amount, lines, occurred_at) = found;
    if amount.0 <= 0 {
        return Ok(None);
    }
    let report = Report {
        id,
        unit: unit.clone(),
        kind,
        refund_of,
        occurred_at,
        amount,
        currency: "CNY".to_owned(),
        who: Some(Who::Member(member.clone())),
        lines: lines.clone(),
    };
    Ok(Some((report, line, member.clone())))
}

/// Members behind an erased person.
struct Erasures {
    membership: Membership,
}

impl Reaction for Erasures {
    fn consumer(&self) -> &'static str {
        "membership erasures"
    }

    fn wants(&self, name: &str) -> bool {
        name == "customer.erased.v1"
    }

    fn react<'a>(&'a self, envelope: &'a Envelope) -> BoxFuture<'a, Result<Apply, Problem>> {
        let anchors = match &envelope.event {
            DomainEvent::CustomerErased { anchors, .. } => Arc::new(anchors.clone()),
            _ => Arc::default(),
        };
        let membership = self.membership.clone();
        async move {
            let apply: Apply = Box::new(move |tx: &Tx| {
                let (membership, anchors) = (membership.clone(), anchors.clone());
                async move { membership.erase(tx, &anchors).await.map_err(Error::into_kernel) }.boxed()
            });
            Ok(apply)
        }
        .boxed()
    }
}

impl Membership {
    /// Ends the memberships behind these anchors, forfeits what they have left, and drops what leads to the person, also of members that
    /// left before; the books stay.
    async fn erase(&self, tx: &Tx, anchors: &[AnchorId]) -> Result<(), Error> {
        let book = self.ledger().enter(tx, books::POINTS).await?;
        while let Some(found) = member::find_former(tx.conn(), anchors).await? {
            let found = member::lock_any(tx, &found).await?;
            let id = found.id.as_str();
            if found.state != MemberState::Closed {
                self.forfeit_erased(tx, book, &found).await?;
                end_sessions(tx, &found.id).await?;
                proof::forget(tx, &found.id).await?;
            }
            link::unlink_all(self.kernel(), tx, &found.id).await?;
            let text = "UPDATE membership_member SET state = 'closed', anchor = NULL, former_anchor = NULL, tier_due = $2 WHERE id = $1";
            sql::execute(tx.conn(), text, [id.into(), i64::MAX.into()]).await?;
            let text = "UPDATE membership_decision SET erased = 1, position = NULL WHERE member = $1";
            sql::execute(tx.conn(), text, [id.into()]).await?;
            let empty: Vec<u8> = Vec::new();
            sql::execute(
                tx.conn(),
                "UPDATE membership_decision_call SET input = $2, output = $3, effects_raw = '[]'
                 WHERE decision IN (SELECT id FROM membership_decision WHERE member = $1)",
                [id.into(), empty.clone().into(), empty.into()],
            )
            .await?;
            decision::empty_reasons(tx, &found.id).await?;
            benefit::erase(tx, &found.id).await?;
            tier::end_all(tx, &found.id, self.kernel().clock.now()).await?;
            tier::erase(tx, &found.id).await?;
            sql::execute(tx.conn(), "UPDATE membership_transaction SET lines = '[]' WHERE member = $1", [id.into()]).await?;
            points::erase(tx, &found.id).await?;
        }
        // What else one that has left had proven stays until it is erased, too: the request is sent again where that was not reached.
        proof::forget_anchors(tx, anchors).await
    }
}
