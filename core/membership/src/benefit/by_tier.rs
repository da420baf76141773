//! What tiers grant by themselves, once a member, benefit and period, and what of it ends when a refund takes the tier away.

use super::catalogue::{self, Benefit, Every, TierBenefit};
use super::grant::{self, Granting};
use crate::error::Error;
use crate::facade::Membership;
use crate::member::MemberRow;
use crate::missed::Missed;
use crate::standing::MemberState;
use crate::tier;
use heyuan_contract::{MemberId, Timestamp};
use heyuan_kernel::{Tx, sql};
use heyuan_ledger::Period;

impl Membership {
    /// Grants a locked member what its tier gets in the periods of now and has not got yet. That the mall has their vouchers was asked when
    /// the benefits were written.
    pub(crate) async fn grant_for_tier(&self, tx: &Tx, member: &MemberRow, tier: &str) -> Result<(), Error> {
        if member.state != MemberState::Open {
            return Ok(());
        }
        for benefit in catalogue::of_tiers(tx.conn()).await? {
            if let Some(rule) = benefit.terms.tiers.iter().find(|rule| rule.tier == tier) {
                self.grant_period(tx, &benefit, rule, &member.id, None).await?;
            }
        }
        Ok(())
    }

    /// Grants a locked member one period's share, unless it has it. What is hindered or has no stock is kept as missed, and the next round
    /// tries again.
    pub(super) async fn grant_period(
        &self,
        tx: &Tx,
        benefit: &Benefit,
        rule: &TierBenefit,
        member: &MemberId,
        hindered: Option<Missed>,
    ) -> Result<(), Error> {
        let from = self.kernel().clock.now();
        let source = source(&benefit.code, &self.tier_period(rule.every, from), member);
        let quantity = rule.quantity;
        let granting = Granting { source, digest: "", member, quantity, from, reason: &rule.tier, transaction: None };
        let missed = match hindered {
            None if self.write_grant(tx, benefit, &granting).await?.is_some() => return Ok(()),
            None => Missed::OutOfStock,
            Some(missed) => missed,
        };
        self.write_missed(tx, benefit, &granting, missed).await
    }

    /// The name of the period that an instant lies in.
    pub(super) fn tier_period(&self, every: Every, at: Timestamp) -> String {
        let month = Period::of(&self.kernel().zone, at);
        match every {
            Every::Month => month.to_string(),
            Every::Year => (month.number() / 100).to_string(),
            Every::Once => "once".to_owned(),
        }
    }

    /// Ends what is unused of what higher tiers than this one granted in the periods of now, since a refund took them: they count as if they
    /// had never been. What was used stays, and where nothing was, the period's share can be had again with the tier. The member is locked.
    pub(crate) async fn withdraw_above(&self, tx: &Tx, member: &MemberId, tier: &str) -> Result<(), Error> {
        let (now, policies) = (self.kernel().clock.now(), self.tier_policies(tx.conn()).await?);
        let Some(policy) = tier::in_force(&policies, now.ms()) else { return Ok(()) };
        let periods = [Every::Month, Every::Year, Every::Once].map(|every| self.tier_period(every, now));
        let text =
            "SELECT id, source, benefit, reason FROM membership_benefit_grant WHERE member = $1 AND state = 'live' AND source LIKE 'tier/%'
                    ORDER BY benefit, id";
        for row in sql::all(tx.conn(), text, [member.as_str().into()]).await? {
            let (id, made_by): (String, String) = (sql::get(&row, "id")?, sql::get(&row, "source")?);
            let (benefit, of): (String, String) = (sql::get(&row, "benefit")?, sql::get(&row, "reason")?);
            let of_now = periods.iter().any(|period| made_by == source(&benefit, period, member));
            // A tier that the ladder in force no longer has was not taken by the refund.
            if of_now && policy.rank(&of).is_some_and(|rank| Some(rank) > policy.rank(tier)) {
                grant::end(tx, &id, "withdrawn", Period::of(&self.kernel().zone, now)).await?;
                let text = "UPDATE membership_benefit_grant SET source = source || '/withdrawn/' || id WHERE id = $1 AND used = 0";
                sql::execute(tx.conn(), text, [id.into()]).await?;
            }
        }
        Ok(())
    }
}

/// What makes a grant of a tier the same one again.
fn source(benefit: &str, period: &str, member: &MemberId) -> String {
    format!("tier/{benefit}/{period}/{member}")
}
