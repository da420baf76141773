//! What rules grant: benefits and vouchers of the mall. The purchase never waits for one, and what can't be given is kept as missed.

use super::catalogue::{self, Benefit, BenefitState};
use super::grant::{Granting, has_stock};
use crate::decide::{Decided, Drafted};
use crate::error::Error;
use crate::facade::Membership;
use crate::member::corrupt;
use crate::missed::{Missed, Misses};
use crate::rule::{Change, Effect};
use crate::transaction::Row;
use heyuan_contract::{DomainEvent, ProductId, Timestamp};
use heyuan_kernel::Tx;
use heyuan_ledger::Period;
use std::collections::BTreeSet;

impl Membership {
    /// Those of the products that rules want vouchers of, by themselves or as benefits, that are none of the mall's vouchers. Asked before
    /// the unit of work that grants.
    pub(crate) async fn no_vouchers(&self, calls: &[Drafted]) -> Result<BTreeSet<ProductId>, Error> {
        let mut wanted = BTreeSet::new();
        for effect in calls.iter().flat_map(|call| &call.effects) {
            match &effect.change {
                Change::Voucher(code) => {
                    wanted.insert(product(code)?);
                }
                Change::Benefit(code) => {
                    let benefit = catalogue::find(self.kernel().db.near(), code).await?;
                    wanted.extend(benefit.and_then(|benefit| benefit.terms.voucher));
                }
                _ => {}
            }
        }
        let mut none = BTreeSet::new();
        for product in wanted {
            if self.vouchers().unit_of(&product).await?.is_none() {
                none.insert(product);
            }
        }
        Ok(none)
    }

    /// Grants what the rules want, and tells what they could not give.
    pub(crate) async fn grant_by_rules(&self, tx: &Tx, row: &Row, decided: &Decided) -> Result<Misses, Error> {
        let member = &decided.snapshot.member.id;
        let mut wanted = Vec::new();
        let mut misses = Misses::new();
        for (place, rule, effect) in effects(decided) {
            let source = format!("{}/{}/{rule}/{}", row.unit, row.id, place.1);
            match &effect.change {
                Change::Benefit(code) => wanted.push((code.as_str(), format!("rule/{source}"), effect.reason.as_str(), place)),
                Change::Voucher(code) if decided.no_vouchers.contains(&product(code)?) => {
                    misses.insert(place, Missed::NoVoucher);
                }
                Change::Voucher(code) => {
                    let event = DomainEvent::VoucherGranted {
                        member: member.clone(),
                        product: product(code)?,
                        grant: source,
                        reason: effect.reason.clone(),
                        // Its days count from the grant: a purchase that is reported late does not shorten them.
                        occurred_at: row.arrived_at,
                    };
                    tx.emit(member.as_str(), &event).await?;
                }
                _ => {}
            }
        }
        // Everybody takes stocks in one order.
        wanted.sort_unstable();
        for (code, source, reason, place) in wanted {
            let Some(benefit) = catalogue::find(tx.conn(), code).await? else {
                tracing::warn!(benefit.code = code, grant.source = source, "a rule wants a benefit that there is not; it was not granted");
                misses.insert(place, Missed::NotActive);
                continue;
            };
            let transaction = Some((&row.unit, &row.id));
            let quantity = benefit.terms.quantity;
            let granting = Granting { source, digest: "", member, quantity, from: row.occurred_at, reason, transaction };
            let missed = match self.hindrance(&benefit, decided, row.occurred_at) {
                None if self.write_grant(tx, &benefit, &granting).await?.is_some() => continue,
                None => Missed::OutOfStock,
                Some(missed) => missed,
            };
            self.write_missed(tx, &benefit, &granting, missed).await?;
            misses.insert(place, missed);
        }
        Ok(misses)
    }

    /// What would be missed of a decision that is not posted, as far as it stands now.
    pub(crate) async fn foreseen(&self, decided: &Decided, at: Timestamp) -> Result<Misses, Error> {
        let mut misses = Misses::new();
        let conn = self.kernel().db.near();
        let month = Period::of(&self.kernel().zone, self.kernel().clock.now());
        for (place, _, effect) in effects(decided) {
            let missed = match &effect.change {
                Change::Voucher(code) => decided.no_vouchers.contains(&product(code)?).then_some(Missed::NoVoucher),
                Change::Benefit(code) => match catalogue::find(conn, code).await? {
                    None => Some(Missed::NotActive),
                    Some(benefit) => match self.hindrance(&benefit, decided, at) {
                        None if has_stock(conn, &benefit, month).await? => None,
                        None => Some(Missed::OutOfStock),
                        hindered => hindered,
                    },
                },
                _ => None,
            };
            misses.extend(missed.map(|missed| (place, missed)));
        }
        Ok(misses)
    }

    /// What keeps a rule from granting a benefit, but for its stock.
    fn hindrance(&self, benefit: &Benefit, decided: &Decided, from: Timestamp) -> Option<Missed> {
        if benefit.terms.state != BenefitState::Active {
            return Some(Missed::NotActive);
        }
        if self.ends(benefit, from) <= self.kernel().clock.now() {
            return Some(Missed::Over);
        }
        let none = benefit.terms.voucher.as_ref().is_some_and(|voucher| decided.no_vouchers.contains(voucher));
        none.then_some(Missed::NoVoucher)
    }
}

/// The effects of a decision, each with its place and the rule's name.
fn effects(decided: &Decided) -> impl Iterator<Item = ((usize, usize), &str, &Effect)> {
    decided.calls.iter().enumerate().flat_map(|(call_place, call)| {
        call.effects.iter().enumerate().map(move |(place, effect)| ((call_place, place), call.rule.as_str(), effect))
    })
}

/// The product that a voucher's code names; a decision keeps no other.
fn product(code: &str) -> Result<ProductId, Error> {
    Ok(ProductId::new(code).map_err(|e| corrupt("voucher effect", e))?)
}
