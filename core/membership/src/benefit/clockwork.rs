//! What turns by time: reservations and grants end, and tiers get their share of each period. The processor's task calls these.

use super::catalogue::{self, Benefit, TierBenefit};
use super::grant;
use crate::error::Error;
use crate::facade::Membership;
use crate::member::{self, corrupt};
use crate::missed::Missed;
use crate::standing::MemberState;
use futures::FutureExt;
use heyuan_contract::{MemberId, Timestamp};
use heyuan_kernel::lease::Fence;
use heyuan_kernel::{Tx, sql};
use heyuan_ledger::Period;
use std::sync::Arc;

/// Reservations, grants or members of one transaction.
const BATCH_MAX: usize = 200;

/// A reservation or a grant that is over, with its member.
type Over = (MemberId, String, i64);

impl Membership {
    /// Ends a batch of reservations past their deadline, or else of grants past their expiry; answers how many.
    ///
    /// # Errors
    /// The database's.
    pub async fn expire_benefits(&self, fence: Option<&Fence>) -> Result<usize, Error> {
        let reservations = self.over(
            "SELECT member, id, deadline AS at FROM membership_benefit_use WHERE state = 'reserved' AND deadline <= $1
                       ORDER BY deadline LIMIT $2",
        );
        let reservations = reservations.await?;
        if !reservations.is_empty() {
            return self.end_batch(fence, reservations, Ends::Reservations).await;
        }
        let grants = self.over(
            "SELECT member, id, expires_at AS at FROM membership_benefit_grant WHERE state = 'live' AND expires_at <= $1
                                ORDER BY expires_at LIMIT $2",
        );
        let grants = grants.await?;
        if grants.is_empty() { Ok(0) } else { self.end_batch(fence, grants, Ends::Grants).await }
    }

    async fn over(&self, text: &str) -> Result<Vec<Over>, Error> {
        let batch = i64::try_from(BATCH_MAX).unwrap_or(i64::MAX);
        let rows = sql::all(self.kernel().db.reader(), text, [self.kernel().clock.now().ms().into(), batch.into()]).await?;
        let mut over = Vec::with_capacity(rows.len());
        for row in &rows {
            let member = MemberId::new(sql::get::<String>(row, "member")?).map_err(|e| corrupt("benefit", e))?;
            over.push((member, sql::get(row, "id")?, sql::get(row, "at")?));
        }
        // Everybody locks members in one order.
        over.sort_unstable();
        Ok(over)
    }

    async fn end_batch(&self, fence: Option<&Fence>, batch: Vec<Over>, what: Ends) -> Result<usize, Error> {
        let count = batch.len();
        let (membership, fence, batch) = (self.clone(), fence.cloned(), Arc::new(batch));
        self.kernel()
            .db
            .write("end benefits", move |tx| {
                let (membership, fence, batch) = (membership.clone(), fence.clone(), batch.clone());
                async move {
                    if let Some(fence) = &fence {
                        fence.check(tx).await?;
                    }
                    for (member, _, _) in batch.iter() {
                        member::lock_any(tx, member).await?;
                    }
                    for (_, id, at) in batch.iter() {
                        match what {
                            Ends::Reservations => membership.lapse_reservation(tx, id, membership.kernel().clock.now()).await?,
                            // Counted when it expired: when the clockwork comes by changes no month's figures.
                            Ends::Grants => {
                                let month = Period::of(&membership.kernel().zone, Timestamp::clamped(*at));
                                grant::end(tx, id, "expired", month).await?;
                            }
                        }
                    }
                    Ok::<(), Error>(())
                }
                .boxed()
            })
            .await?;
        Ok(count)
    }

    /// Grants one batch of members what their tier gets in this period; answers how many were looked at, at least one while a round goes on.
    ///
    /// Each benefit and tier goes round all members of the tier once a day: whoever has the period's grant keeps the one.
    ///
    /// # Errors
    /// The database's.
    pub async fn grant_tier_benefits(&self, fence: Option<&Fence>) -> Result<usize, Error> {
        let now = self.kernel().clock.now();
        for benefit in catalogue::of_tiers(self.kernel().db.reader()).await? {
            for rule in &benefit.terms.tiers {
                let period = self.tier_period(rule.every, now);
                let text = "SELECT reached, due FROM membership_benefit_round WHERE benefit = $1 AND tier = $2 AND period = $3";
                let values = [benefit.code.as_str().into(), rule.tier.as_str().into(), period.as_str().into()];
                let row = sql::one(self.kernel().db.reader(), text, values).await?;
                let (reached, due): (String, i64) =
                    row.map_or(Ok((String::new(), 0)), |row| Ok::<_, Error>((sql::get(&row, "reached")?, sql::get(&row, "due")?)))?;
                if due <= now.ms() {
                    return self.go_round(fence, &benefit, rule, period, reached).await;
                }
            }
        }
        Ok(0)
    }

    async fn go_round(
        &self,
        fence: Option<&Fence>,
        benefit: &Benefit,
        rule: &TierBenefit,
        period: String,
        reached: String,
    ) -> Result<usize, Error> {
        let text = "SELECT id FROM membership_member WHERE id > $1 AND tier = $2 AND state = 'open' ORDER BY id LIMIT $3";
        let batch = i64::try_from(BATCH_MAX).unwrap_or(i64::MAX);
        let rows = sql::all(self.kernel().db.reader(), text, [reached.into(), rule.tier.as_str().into(), batch.into()]).await?;
        let mut members = Vec::with_capacity(rows.len());
        for row in &rows {
            members.push(MemberId::new(sql::get::<String>(row, "id")?).map_err(|e| corrupt("member", e))?);
        }
        let now = self.kernel().clock.now();
        let more = members.len() == BATCH_MAX;
        let reached = members.last().filter(|_| more).map_or(String::new(), ToString::to_string);
        let due = if more { now.ms() } else { self.kernel().zone.day_start_after(now, 1).ms() };
        let count = members.len().max(1);
        let hindered = match &benefit.terms.voucher {
            Some(product) if self.vouchers().unit_of(product).await?.is_none() => Some(Missed::NoVoucher),
            _ => None,
        };
        let step = Arc::new(Step { benefit: benefit.clone(), rule: rule.clone(), period, reached, due, members, hindered });
        let (membership, fence) = (self.clone(), fence.cloned());
        self.kernel()
            .db
            .write("grant tiers their benefits", move |tx| {
                let (membership, fence, step) = (membership.clone(), fence.clone(), step.clone());
                async move {
                    if let Some(fence) = &fence {
                        fence.check(tx).await?;
                    }
                    membership.write_step(tx, &step).await
                }
                .boxed()
            })
            .await?;
        Ok(count)
    }

    async fn write_step(&self, tx: &Tx, step: &Step) -> Result<(), Error> {
        let mut due = Vec::with_capacity(step.members.len());
        for id in &step.members {
            let member = member::lock_any(tx, id).await?;
            if member.state == MemberState::Open && member.tier == step.rule.tier {
                due.push(member.id);
            }
        }
        for id in &due {
            self.grant_period(tx, &step.benefit, &step.rule, id, step.hindered).await?;
        }
        sql::execute(
            tx.conn(),
            "INSERT INTO membership_benefit_round (benefit, tier, period, reached, due) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (benefit, tier, period) DO UPDATE SET reached = excluded.reached, due = excluded.due",
            [
                step.benefit.code.as_str().into(),
                step.rule.tier.as_str().into(),
                step.period.as_str().into(),
                step.reached.as_str().into(),
                step.due.into(),
            ],
        )
        .await?;
        Ok(())
    }
}

/// What a batch ends.
#[derive(Clone, Copy)]
enum Ends {
    Reservations,
    Grants,
}

/// One batch of a round.
struct Step {
    benefit: Benefit,
    rule: TierBenefit,
    period: String,
    /// The member that the round got to; empty when it got round.
    reached: String,
    due: i64,
    members: Vec<MemberId>,
    /// Why nobody gets it.
    hindered: Option<Missed>,
}
