//! Facts of other wings as events of a customer's history.

use crate::inbox::sequence::{self, OwnEvent};
use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_contract::{AnchorId, DomainEvent, MemberId, OrgUnitId, Timestamp};
use heyuan_kernel::outbox::Envelope;
use heyuan_kernel::pump::{Apply, Reaction, nothing};
use heyuan_kernel::time::format_rfc3339;
use heyuan_kernel::{Kernel, Problem};
use serde_json::{Value, json};
use std::sync::Arc;

/// Turns facts into events of the inbox, in the transaction that moves the consumer's position.
pub(crate) struct Facts {
    pub kernel: Kernel,
}

impl Reaction for Facts {
    fn consumer(&self) -> &'static str {
        "cdp"
    }

    fn wants(&self, name: &str) -> bool {
        matches!(
            name,
            "member.joined.v1"
                | "order.paid.v1"
                | "order.refunded.v1"
                | "voucher.redeemed.v1"
                | "transaction.posted.v1"
                | "tier.changed.v1"
                | "lead.advanced.v1"
        )
    }

    fn react<'a>(&'a self, envelope: &'a Envelope) -> BoxFuture<'a, Result<Apply, Problem>> {
        let apply = self.append(std::slice::from_ref(envelope));
        async move { Ok(apply) }.boxed()
    }

    fn react_together(&self, envelopes: &[Envelope]) -> Option<Apply> {
        Some(self.append(envelopes))
    }
}

impl Facts {
    /// One block of what the facts become.
    fn append(&self, envelopes: &[Envelope]) -> Apply {
        let own: Arc<Vec<OwnEvent>> = Arc::new(envelopes.iter().filter_map(told).collect());
        if own.is_empty() {
            return nothing();
        }
        let kernel = self.kernel.clone();
        Box::new(move |tx| {
            let (kernel, own) = (kernel.clone(), own.clone());
            async move { sequence::append(tx, &kernel, "heyuan", &own).await }.boxed()
        })
    }
}

fn of_member(member: &MemberId) -> Value {
    json!({ "type": "member", "value": member.as_str() })
}

fn of_anchor(anchor: &AnchorId) -> Value {
    json!({ "type": "anchor", "value": anchor.as_str() })
}

fn tell(name: &str, key: &str, unit: Option<&OrgUnitId>, at: Timestamp, identifiers: Vec<Value>, properties: Value) -> OwnEvent {
    OwnEvent {
        message_id: format!("{name}:{key}"),
        unit: unit.cloned(),
        event: json!({
            "name": name, "app": "heyuan", "occurred_at": format_rfc3339(at), "identifiers": identifiers, "properties": properties,
        }),
    }
}

/// The event that a fact becomes.
fn told(envelope: &Envelope) -> Option<OwnEvent> {
    Some(match &envelope.event {
        DomainEvent::MemberJoined { member, anchor, unit, line, occurred_at } => tell(
            "member_joined",
            member.as_str(),
            Some(unit),
            *occurred_at,
            vec![of_member(member), of_anchor(anchor)],
            json!({ "member_id": member.as_str(), "line": line.as_str() }),
        ),
        DomainEvent::OrderPaid { order, member, merchant, unit, amount, occurred_at, .. } => tell(
            "order_paid",
            order.as_str(),
            Some(unit),
            *occurred_at,
            vec![of_member(member)],
            json!({ "order_id": order.as_str(), "merchant_id": merchant.as_str(), "amount_fen": amount.0, "currency": "CNY" }),
        ),
        DomainEvent::OrderRefunded { order, refund, member, merchant, unit, amount, occurred_at, .. } => tell(
            "order_refunded",
            refund,
            Some(unit),
            *occurred_at,
            vec![of_member(member)],
            json!({ "order_id": order.as_str(), "merchant_id": merchant.as_str(), "amount_fen": amount.0, "currency": "CNY" }),
        ),
        DomainEvent::VoucherRedeemed { voucher, member, merchant, unit, product, occurred_at } => tell(
            "voucher_redeemed",
            voucher.as_str(),
            Some(unit),
            *occurred_at,
            vec![of_member(member)],
            json!({ "voucher_id": voucher.as_str(), "product_id": product.as_str(), "merchant_id": merchant.as_str() }),
        ),
        DomainEvent::TransactionPosted {
            transaction,
            member,
            anchor,
            unit,
            line,
            refund_of,
            amount,
            growth,
            points,
            points_balance,
            occurred_at,
        } => tell(
            "transaction_posted",
            &format!("{unit}:{transaction}"),
            Some(unit),
            *occurred_at,
            vec![of_member(member), of_anchor(anchor)],
            json!({
                "transaction_id": transaction.as_str(), "line": line.as_str(), "amount_fen": amount.0, "growth": growth.0,
                "points": points.0, "points_balance": points_balance.0, "refund": refund_of.is_some(),
            }),
        ),
        DomainEvent::TierChanged { member, anchor, tier, previous, occurred_at } => tell(
            "tier_changed",
            // A tier may change and change back within a millisecond: the fact's position tells the two apart, and is the same again.
            &format!("{member}:{}:{}", occurred_at.ms(), envelope.position),
            None,
            *occurred_at,
            vec![of_member(member), of_anchor(anchor)],
            json!({ "member_id": member.as_str(), "tier": tier, "previous": previous }),
        ),
        DomainEvent::LeadAdvanced { lead, anchor, unit, stage, amount, occurred_at } => tell(
            "lead_advanced",
            &format!("{lead}:{}:{}", stage.as_str(), occurred_at.ms()),
            Some(unit),
            *occurred_at,
            vec![of_anchor(anchor)],
            json!({ "lead_id": lead.as_str(), "stage": stage.as_str(), "amount_fen": amount.map(|amount| amount.0) }),
        ),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn tier_changes_of_one_millisecond_are_told_apart() {
        let at = Timestamp::clamped(1_793_491_200_000);
        let change = |position, previous: &str, tier: &str| Envelope {
            position,
            key: "mbr_1".into(),
            event: DomainEvent::TierChanged {
                member: MemberId::new("mbr_1").expect("an id"),
                anchor: AnchorId::new("anc_1").expect("an id"),
                tier: tier.into(),
                previous: previous.into(),
                occurred_at: at,
            },
            written_at: at,
        };
        let changes = [change(1, "silver", "gold"), change(2, "gold", "silver"), change(3, "silver", "gold")];
        let ids = |changes: &[Envelope]| changes.iter().filter_map(told).map(|event| event.message_id).collect::<Vec<_>>();
        assert_eq!(ids(&changes).into_iter().collect::<HashSet<_>>().len(), 3, "each is an event of its own");
        assert_eq!(ids(&changes), ids(&changes), "and the same when it is told again");
    }
}
