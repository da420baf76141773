//! What turns because time passes: points, holds and benefits expire, tiers are lost, granted ones end, and tiers get their benefits; and by
//! the minute what nobody waits for.

use crate::books::{self, LineAccount, Movement};
use crate::error::Error;
use crate::facade::Membership;
use crate::member;
use crate::tier;
use crate::waiting::WAIT_MS;
use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_contract::{EntryId, Line, MemberId, Timestamp};
use heyuan_kernel::lease::Fence;
use heyuan_kernel::processor::{Progress, Task, Waits};
use heyuan_kernel::{Kernel, Problem, Tx, sql};
use heyuan_ledger::{Book, ExpiredLot, ExpiryPlace, Lots, Period, Transfer};
use std::sync::Arc;
use std::time::Duration;

/// Lots or members of one transaction.
const BATCH_MAX: u64 = 200;

fn progress(done: usize) -> Progress {
    if done > 0 { Progress::Busy } else { Progress::Idle }
}

/// The processor's task for what is due to the second.
pub struct Clockwork {
    membership: Membership,
}

impl Clockwork {
    /// The clockwork of a membership.
    pub fn new(membership: Membership) -> Clockwork {
        Clockwork { membership }
    }

    async fn turn(&self, fence: &Fence) -> Result<Progress, Error> {
        let expired = self.membership.expire_points(Some(fence)).await?;
        let looked_at = self.membership.settle_due_tiers(Some(fence)).await?;
        let given_up = self.membership.give_up_waiting(Some(fence)).await?;
        let ended = self.membership.expire_benefits(Some(fence)).await?;
        // While a new policy moves everybody, nobody gets the benefits of a tier that it is about to lose.
        let moving = u64::try_from(looked_at).unwrap_or(u64::MAX) >= BATCH_MAX;
        let granted = if moving { 0 } else { self.membership.grant_tier_benefits(Some(fence)).await? };
        let freed = self.membership.expire_point_holds(Some(fence)).await?;
        Ok(progress(expired + looked_at + given_up + ended + granted + freed))
    }
}

impl Task for Clockwork {
    fn name(&self) -> &'static str {
        "membership clockwork"
    }

    fn waits(&self) -> Waits {
        Waits::time(Duration::from_secs(1))
    }

    fn due(&self) -> BoxFuture<'_, Result<Option<Timestamp>, Problem>> {
        async move { Ok(Some(self.membership.next_turn().await?)) }.boxed()
    }

    fn step<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<Progress, Problem>> {
        async move { Ok(self.turn(fence).await?) }.boxed()
    }
}

/// The processor's task for what counts as over by itself, and is only written down or cleared away: proposals lapse, members hear of
/// points that expire in days, and log-ins that ended go.
pub struct Housekeeping {
    membership: Membership,
}

impl Housekeeping {
    /// The housekeeping of a membership.
    pub fn new(membership: Membership) -> Housekeeping {
        Housekeeping { membership }
    }

    async fn turn(&self, fence: &Fence) -> Result<Progress, Error> {
        let lapsed = self.membership.lapse_adjustments(Some(fence)).await?;
        let told = self.membership.notify_expiry(Some(fence)).await?;
        let swept = self.membership.sweep_logins(Some(fence)).await?;
        Ok(progress(lapsed + told + swept))
    }
}

impl Task for Housekeeping {
    fn name(&self) -> &'static str {
        "membership housekeeping"
    }

    fn waits(&self) -> Waits {
        // At rest about once an hour: what lapsed counts as lapsed without this, and a notice comes days ahead.
        Waits::time(Duration::from_secs(60))
    }

    fn step<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<Progress, Problem>> {
        async move { Ok(self.turn(fence).await?) }.boxed()
    }
}

impl Membership {
    /// When the clockwork next has something to do although nobody writes anything; at the latest when a day begins, for then tiers get the
    /// benefits of a period. Everything that is due already was done.
    async fn next_turn(&self) -> Result<Timestamp, Error> {
        let (reader, now) = (self.kernel().db.reader(), self.kernel().clock.now());
        let day = self.kernel().zone.day_start_after(now, 1);
        let text = format!(
            "SELECT MIN(due) AS due FROM (
               SELECT MIN(tier_due) AS due FROM membership_member
               UNION ALL SELECT MIN(deadline) FROM membership_benefit_use WHERE state = 'reserved'
               UNION ALL SELECT MIN(expires_at) FROM membership_benefit_grant WHERE state = 'live'
               UNION ALL SELECT MIN(expires_at) FROM membership_hold WHERE state = 'open'
               UNION ALL SELECT MIN(arrived_at) + {WAIT_MS} FROM membership_transaction WHERE state = 'waiting') AS turns"
        );
        let row = sql::one(reader, &text, []).await?;
        let turn: Option<i64> = row.map_or(Ok(None), |row| sql::get(&row, "due"))?;
        let before = ExpiryPlace { expires_at: now.plus_ms(-1), lot: i64::MAX };
        let lots = self.ledger().expiring_lots(books::POINTS, before, day, 1).await?;
        let policies = self.tier_policies(reader).await?;
        let starts = policies.iter().map(|policy| policy.starts_at_ms).filter(|starts_at_ms| *starts_at_ms > now.ms());
        let turns = starts.chain(turn).map(Timestamp::clamped).chain(lots.first().map(|lot| lot.place.expires_at));
        Ok(turns.fold(day, Timestamp::min))
    }

    /// Moves out a batch of what is past its expiry; answers how many lots. A processor brings its fence.
    ///
    /// # Errors
    /// The database's.
    pub async fn expire_points(&self, fence: Option<&Fence>) -> Result<usize, Error> {
        let now = self.kernel().clock.now();
        let lots = self.ledger().expired_lots(books::POINTS, now, BATCH_MAX).await?;
        if lots.is_empty() {
            return Ok(0);
        }
        let sources: Vec<String> = lots.into_iter().map(|expired| expired.lot.source).collect();
        let (membership, fence, sources) = (self.clone(), fence.cloned(), Arc::new(sources));
        self.kernel()
            .db
            .write("expire points", move |tx| {
                let (membership, fence, sources) = (membership.clone(), fence.clone(), sources.clone());
                async move {
                    if let Some(fence) = &fence {
                        fence.check(tx).await?;
                    }
                    let book = membership.ledger().enter(tx, books::POINTS).await?;
                    membership.move_out(tx, &sources, book).await
                }
                .boxed()
            })
            .await
    }

    /// Moves out what of these lots is past its expiry, at the moment that it expired: when the clockwork comes by changes no month's
    /// figures. The book is entered.
    pub(crate) async fn move_out(&self, tx: &Tx, sources: &[String], book: Book) -> Result<usize, Error> {
        let lots = self.ledger().lock_expired(tx, sources, self.kernel().clock.now()).await?;
        let transfers = lots.into_iter().map(|expired| self.expiry(expired, book)).collect::<Result<Vec<Transfer>, Error>>()?;
        Ok(self.ledger().post(tx, &transfers).await?.len())
    }

    fn expiry(&self, expired: ExpiredLot, book: Book) -> Result<Transfer, Error> {
        let ExpiredLot { account, lot, since } = expired;
        let line = Line::parse(&lot.issuer).ok_or_else(|| member::corrupt("issuer line", &lot.issuer))?;
        Ok(Transfer {
            key: format!("expire/{}", Kernel::new_id::<EntryId>("exp")),
            unit: books::POINTS.to_owned(),
            debit: account,
            credit: books::line_account(line, LineAccount::Expired),
            amount: lot.remaining,
            occurred_at: since,
            period: book.period(Period::of(&self.kernel().zone, since)),
            kind: Movement::Expire.as_str().to_owned(),
            reference: lot.source.clone(),
            lots: Lots::From(lot.source),
        })
    }

    /// Looks at a batch of members whose tier may have changed by time, or that were not looked at yet under the policy in force; answers
    /// how many.
    ///
    /// # Errors
    /// The database's.
    pub async fn settle_due_tiers(&self, fence: Option<&Fence>) -> Result<usize, Error> {
        let reader = self.kernel().db.reader();
        let now = self.kernel().clock.now().ms();
        let version = tier::in_force(&self.tier_policies(reader).await?, now).map_or(0, |policy| policy.version);
        let text = "SELECT id FROM membership_member WHERE tier_due <= $1 ORDER BY tier_due, id LIMIT $2";
        let mut rows = sql::all(reader, text, [now.into(), BATCH_MAX.into()]).await?;
        if rows.is_empty() {
            let text = "SELECT id FROM membership_member WHERE tier_policy < $1 AND state <> 'closed' ORDER BY tier_policy, id LIMIT $2";
            rows = sql::all(reader, text, [version.into(), BATCH_MAX.into()]).await?;
        }
        if rows.is_empty() {
            return Ok(0);
        }
        let mut ids = Vec::with_capacity(rows.len());
        for row in &rows {
            ids.push(MemberId::new(sql::get::<String>(row, "id")?).map_err(|e| member::corrupt("member", e))?);
        }
        ids.sort_unstable();
        let count = ids.len();
        let (membership, fence, ids) = (self.clone(), fence.cloned(), Arc::new(ids));
        self.kernel()
            .db
            .write("settle tiers", move |tx| {
                let (membership, fence, ids) = (membership.clone(), fence.clone(), ids.clone());
                async move {
                    if let Some(fence) = &fence {
                        fence.check(tx).await?;
                    }
                    let policies = membership.tier_policies(tx.conn()).await?;
                    for id in ids.iter() {
                        let row = member::lock_any(tx, id).await?;
                        membership.settle_tier_under(tx, &row, &policies).await?;
                    }
                    Ok::<(), Error>(())
                }
                .boxed()
            })
            .await?;
        Ok(count)
    }
}
