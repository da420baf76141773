//! Notices of expiry: a member is told once a day of expiry, some days ahead, how many of its points expire then.
//!
//! A cursor walks the lots in the order of their expiry up to the policy's days ahead, so that a step looks at new ones alone. What comes
//! in with less time left than that is not told of.

use crate::books;
use crate::error::Error;
use crate::facade::Membership;
use crate::member;
use crate::points_policy;
use crate::standing::MemberState;
use futures::FutureExt;
use heyuan_contract::{DomainEvent, MemberId, Points, Timestamp};
use heyuan_kernel::lease::Fence;
use heyuan_kernel::{Actor, Tx, sql};
use heyuan_ledger::{ExpiringLot, ExpiryPlace};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Lots of one step: bounds what one unit of work reads and writes.
const BATCH_MAX: u64 = 200;

/// What of a member's points expires next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextExpiry {
    /// Points that expire on the first day on which any do.
    pub amount: i64,
    /// When the first of them do.
    pub expires_at: Timestamp,
}

impl Membership {
    /// What of a member's free points expires next: all that goes on one day of the tenant's zone.
    ///
    /// # Errors
    /// `forbidden`, `unknown_member`.
    pub async fn next_expiry(&self, actor: &Actor, id: &MemberId) -> Result<Option<NextExpiry>, Error> {
        self.visible_member(actor, id).await?;
        let account = books::points_account(id);
        let (_, first) = self.ledger().spendable(&account, self.kernel().clock.now()).await?;
        let Some(first) = first else { return Ok(None) };
        let next = self.ledger().expiring(self.kernel().db.near(), &account, first, self.day_after(first)).await?;
        Ok(next.map(|(amount, expires_at)| NextExpiry { amount, expires_at }))
    }

    /// The start of the day after an instant's own.
    fn day_after(&self, at: Timestamp) -> Timestamp {
        self.kernel().zone.day_start_after(at, 1)
    }

    /// Tells of a batch of lots that come within the policy's days; answers how many it looked at.
    ///
    /// # Errors
    /// The database's.
    pub async fn notify_expiry(&self, fence: Option<&Fence>) -> Result<usize, Error> {
        let reader = self.kernel().db.reader();
        let policy = points_policy::read(reader).await?;
        if policy.notice_days == 0 {
            return self.forget_notices(fence).await;
        }
        let now = self.kernel().clock.now();
        let horizon = self.kernel().zone.day_start_after(now, policy.notice_days + 1);
        // What has expired needs no notice any more.
        let start = ExpiryPlace { expires_at: now, lot: i64::MAX };
        let after = cursor(reader).await?.map_or(start, |place| place.max(start));
        let lots = self.ledger().expiring_lots(books::POINTS, after, horizon, BATCH_MAX).await?;
        let Some(last) = lots.last() else { return self.forget_notices(fence).await };
        let (count, reached) = (lots.len(), last.place);
        let (membership, fence, lots) = (self.clone(), fence.cloned(), Arc::new(lots));
        self.kernel()
            .db
            .write("notify of expiry", move |tx| {
                let (membership, fence, lots) = (membership.clone(), fence.clone(), lots.clone());
                async move {
                    if let Some(fence) = &fence {
                        fence.check(tx).await?;
                    }
                    membership.write_notices(tx, &lots).await?;
                    let text = "INSERT INTO membership_notice_cursor (name, expires_at, lot) VALUES ('points', $1, $2)
                                ON CONFLICT (name) DO UPDATE SET expires_at = excluded.expires_at, lot = excluded.lot";
                    sql::execute(tx.conn(), text, [reached.expires_at.ms().into(), reached.lot.into()]).await?;
                    Ok::<(), Error>(())
                }
                .boxed()
            })
            .await?;
        Ok(count)
    }

    /// Drops a batch of notices whose day is past; answers how many.
    async fn forget_notices(&self, fence: Option<&Fence>) -> Result<usize, Error> {
        let zone = &self.kernel().zone;
        let today = zone.day_start(zone.day(self.kernel().clock.now())).ms();
        let text = "SELECT day FROM membership_expiry_notice WHERE day < $1 LIMIT 1";
        if sql::one(self.kernel().db.reader(), text, [today.into()]).await?.is_none() {
            return Ok(0);
        }
        let fence = fence.cloned();
        self.kernel()
            .db
            .write("forget notices", move |tx| {
                let fence = fence.clone();
                async move {
                    if let Some(fence) = &fence {
                        fence.check(tx).await?;
                    }
                    let text = "DELETE FROM membership_expiry_notice WHERE (member, day) IN (
                                  SELECT member, day FROM membership_expiry_notice WHERE day < $1 ORDER BY day LIMIT $2)";
                    let gone = sql::execute(tx.conn(), text, [today.into(), BATCH_MAX.into()]).await?;
                    Ok::<usize, Error>(usize::try_from(gone).unwrap_or(usize::MAX))
                }
                .boxed()
            })
            .await
    }

    /// One event a member and day, unless the member was told of the day before.
    async fn write_notices(&self, tx: &Tx, lots: &[ExpiringLot]) -> Result<(), Error> {
        let zone = &self.kernel().zone;
        let days: BTreeSet<(&str, &str, Timestamp)> =
            lots.iter().map(|lot| (lot.owner.as_str(), lot.account.as_str(), zone.day_start(zone.day(lot.place.expires_at)))).collect();
        let now = self.kernel().clock.now();
        for (owner, account, day) in days {
            let id = MemberId::new(owner).map_err(|e| member::corrupt("owner of points", e))?;
            let row = member::find(tx.conn(), &id).await?.filter(|row| row.state == MemberState::Open);
            let Some(anchor) = row.and_then(|row| row.anchor) else { continue };
            let from = day.max(now.plus_ms(1));
            let Some((amount, expires_at)) = self.ledger().expiring(tx.conn(), account, from, self.day_after(day)).await? else { continue };
            let text = "INSERT INTO membership_expiry_notice (member, day, points, written_at) VALUES ($1, $2, $3, $4)
                        ON CONFLICT (member, day) DO NOTHING";
            let values = [id.as_str().into(), day.ms().into(), amount.into(), now.ms().into()];
            if sql::execute(tx.conn(), text, values).await? == 1 {
                let event =
                    DomainEvent::PointsExpiring { member: id.clone(), anchor, amount: Points(amount), expires_at, occurred_at: now };
                tx.emit(id.as_str(), &event).await?;
            }
        }
        Ok(())
    }
}

/// The place that the notices got to.
async fn cursor<C: sql::Connection>(conn: &C) -> Result<Option<ExpiryPlace>, Error> {
    let row = sql::one(conn, "SELECT expires_at, lot FROM membership_notice_cursor WHERE name = 'points'", []).await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(ExpiryPlace { expires_at: Timestamp::clamped(sql::get(&row, "expires_at")?), lot: sql::get(&row, "lot")? }))
}
