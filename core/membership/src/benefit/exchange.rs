//! Exchange: a member gives points for units of a benefit. They are spent with the line that contributes it, and the grant is made, in one
//! unit of work.

use super::catalogue::{self, Benefit};
use super::grant::{self, BenefitGrant, Granting};
use crate::books;
use crate::error::{Error, codes};
use crate::facade::Membership;
use crate::member::{self, corrupt};
use crate::points::{self, Spend, SpendView};
use futures::FutureExt;
use heyuan_contract::MemberId;
use heyuan_kernel::idempotency::IdempotencyKey;
use heyuan_kernel::{Actor, Problem, Scope, Tx, sql};
use heyuan_ledger::Period;
use serde::Serialize;

/// Points for units of a benefit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exchange {
    /// The benefit's code.
    pub benefit: String,
    /// Units; the benefit's own quantity when left out.
    pub quantity: Option<i64>,
    /// What the member was told that they cost in all; another price is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub points: Option<i64>,
}

/// Points that were given, and what was got for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangeView {
    /// The spend.
    pub spend: SpendView,
    /// The grant, as it stands now.
    pub grant: BenefitGrant,
}

impl Membership {
    /// Exchanges points for units of a benefit, both or neither. The same key again is answered from what it did.
    ///
    /// # Errors
    /// `forbidden`, also for a key that does not reach the benefit's unit; `invalid_request`, `unknown_benefit`, `unknown_member`,
    /// `member_closed`, `member_blocked`, `benefit_not_active`, `benefit_without_price`, `price_changed`, `benefit_out_of_stock`, `not_enough_points`,
    /// `amount_out_of_range`, `idempotency_key_reused`.
    pub async fn exchange_points(
        &self,
        actor: &Actor,
        id: &MemberId,
        request: &Exchange,
        header: Option<&str>,
    ) -> Result<ExchangeView, Error> {
        actor.require_for_member(Scope::App, id)?;
        let key = IdempotencyKey::new(actor, "exchange points", header, &(id, request))?;
        if actor.as_member().is_some() {
            self.visible_member(actor, id).await?;
        }
        self.kernel()
            .db
            .settle(|| async {
                if let Some(known) = find(self.kernel().db.near(), &key).await? {
                    return Ok(known);
                }
                let benefit = catalogue::find(self.kernel().db.near(), &request.benefit).await?;
                let unknown = || {
                    let words = format!("there is no benefit {} that this key may see", request.benefit);
                    Error::Refused(Problem::new(codes::UNKNOWN_BENEFIT, words).field("benefit"))
                };
                let benefit = benefit.filter(|benefit| catalogue::shows(actor, benefit)).ok_or_else(unknown)?;
                self.line_of(actor, &benefit.terms.unit).await?;
                if let Some(product) = &benefit.terms.voucher {
                    self.voucher_unit(&benefit.code, product).await?;
                }
                let (membership, key, id, request) = (self.clone(), key.clone(), id.clone(), request.clone());
                self.kernel()
                    .db
                    .write("exchange points", move |tx| {
                        let (membership, key, id, request) = (membership.clone(), key.clone(), id.clone(), request.clone());
                        async move { membership.write_exchange(tx, &key, &id, &request).await }.boxed()
                    })
                    .await
            })
            .await
    }

    async fn write_exchange(&self, tx: &Tx, key: &IdempotencyKey, id: &MemberId, request: &Exchange) -> Result<ExchangeView, Error> {
        let book = self.ledger().enter(tx, books::POINTS).await?;
        member::lock(tx, id).await?;
        let benefit = catalogue::find(tx.conn(), &request.benefit).await?.ok_or_else(|| corrupt("benefit", "it is gone"))?;
        let quantity = benefit.terms.granted(request.quantity)?;
        let amount = price(&benefit, quantity)?;
        if let Some(told) = request.points.filter(|told| *told != amount) {
            let words = format!("{quantity} of the benefit {} cost {amount} points now, and not {told}", benefit.code);
            return Err(Problem::new(codes::PRICE_CHANGED, words).field("points").into());
        }
        let code = benefit.code.as_str();
        let spending = Spend { amount, unit: benefit.terms.unit.clone(), reference: format!("{quantity} of the benefit {code}") };
        let spend = self.take_spend(tx, book, key, id.clone(), spending, benefit.line).await?;
        let granting = Granting {
            source: source(&spend),
            digest: "",
            member: id,
            quantity,
            from: spend.occurred_at,
            reason: "exchanged for points",
            transaction: None,
        };
        let grant = self.grant_active(tx, code, &granting).await?;
        Ok(ExchangeView { spend, grant })
    }

    /// Withdraws what a spend that is given back was exchanged for; of any other spend nothing. An exchange goes back whole, and not once a
    /// unit of it was used or is a voucher. The member is locked. `left` is what of the spend was not given back before.
    pub(crate) async fn withdraw_exchanged(&self, tx: &Tx, spend: &SpendView, amount: i64, left: i64) -> Result<(), Error> {
        let Some((grant, _)) = grant::by_source(tx.conn(), &source(spend)).await? else { return Ok(()) };
        if grant.used > 0 {
            let words = format!("{} of the units of {} that spend {} was exchanged for are used", grant.used, grant.benefit, spend.id);
            return Err(Error::refused(codes::BENEFIT_USED, format!("{words} or vouchers; it can't be given back")));
        }
        if amount != left {
            let words = format!("expected {left} points, all of spend {}: it was exchanged for units of {}", spend.id, grant.benefit);
            return Err(Problem::new(codes::AMOUNT_OUT_OF_RANGE, words).field("amount").into());
        }
        grant::end(tx, &grant.id, "withdrawn", Period::of(&self.kernel().zone, self.kernel().clock.now())).await
    }
}

/// What these units are given for.
fn price(benefit: &Benefit, quantity: i64) -> Result<i64, Error> {
    let none = || Error::refused(codes::BENEFIT_WITHOUT_PRICE, format!("the benefit {} is not given for points", benefit.code));
    let price = benefit.terms.points_price.ok_or_else(none)?;
    let amount = price.saturating_mul(quantity);
    points::check_amount(amount).map_err(|problem| problem.field("quantity"))?;
    Ok(amount)
}

/// What makes the grant of a spend the same one again.
fn source(spend: &SpendView) -> String {
    format!("exchange/{}", spend.id)
}

/// What a key did: its spend, and the grant that the spend stands for.
async fn find<C: sql::Connection>(conn: &C, key: &IdempotencyKey) -> Result<Option<ExchangeView>, Error> {
    let Some((spend, digest)) = points::find(conn, &key.stored).await? else { return Ok(None) };
    key.check(&digest)?;
    let grant = grant::by_source(conn, &source(&spend)).await?.ok_or_else(|| corrupt("exchange", "its grant is gone"))?.0;
    Ok(Some(ExchangeView { spend, grant }))
}
