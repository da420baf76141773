//! Refunds that wait for a purchase which does not come: after a while they are refused, with the reason.

use crate::books;
use crate::error::Error;
use crate::facade::Membership;
use crate::transaction::{self, State};
use futures::FutureExt;
use heyuan_contract::{OrgUnitId, TransactionId};
use heyuan_kernel::lease::Fence;
use heyuan_kernel::{Tx, sql};

/// How long a refund waits. A till that reports after a quarter of a year reports by hand.
pub(crate) const WAIT_MS: i64 = 90 * 86_400_000;
/// Refunds of one look.
const BATCH_MAX: u64 = 50;
/// What the caller reads.
const WHY: &str = "its purchase was not reported within 90 days; report the purchase, then the refund under a new id";

impl Membership {
    /// Refuses a batch of refunds that have waited too long; answers how many.
    ///
    /// # Errors
    /// The database's.
    pub async fn give_up_waiting(&self, fence: Option<&Fence>) -> Result<usize, Error> {
        let until = self.kernel().clock.now().ms() - WAIT_MS;
        let text = "SELECT * FROM membership_transaction WHERE state = 'waiting' AND arrived_at < $1 ORDER BY arrived_at, no LIMIT $2";
        let rows = sql::all(self.kernel().db.reader(), text, [until.into(), BATCH_MAX.into()]).await?;
        let late = rows.iter().map(transaction::read).collect::<Result<Vec<_>, Error>>()?;
        // One by one: each has its purchase's lock to itself, so that no two units of work wait for each other.
        for refund in &late {
            let Some(of) = refund.refund_of.clone() else { continue };
            let (membership, fence, unit, id) = (self.clone(), fence.cloned(), refund.unit.clone(), refund.id.clone());
            self.kernel()
                .db
                .write("give up a waiting refund", move |tx| {
                    let (membership, fence, unit, id, of) = (membership.clone(), fence.clone(), unit.clone(), id.clone(), of.clone());
                    async move { membership.refuse_waiting(tx, fence.as_ref(), &unit, &id, &of).await }.boxed()
                })
                .await?;
        }
        Ok(late.len())
    }

    async fn refuse_waiting(
        &self,
        tx: &Tx,
        fence: Option<&Fence>,
        unit: &OrgUnitId,
        id: &TransactionId,
        of: &TransactionId,
    ) -> Result<(), Error> {
        if let Some(fence) = fence {
            fence.check(tx).await?;
        }
        books::enter_purchase(self.ledger(), tx, unit, of).await?;
        let Some(mut refund) = transaction::find(tx.conn(), unit, id).await? else { return Ok(()) };
        // Its purchase may have come at the last moment.
        if refund.state == State::Waiting {
            refund.state = State::Refused;
            refund.why = WHY.to_owned();
            transaction::update(tx, &refund).await?;
        }
        Ok(())
    }
}
