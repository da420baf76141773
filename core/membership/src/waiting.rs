//! Refunds that wait for a purchase which does not come: after a while they are refused, with the reason.

use crate::books;
use crate::error::{Error, codes};
use crate::facade::Membership;
use crate::refund;
use crate::transaction::{self, COLUMNS, Row, State};
use futures::FutureExt;
use heyuan_contract::{OrgUnitId, TransactionId};
use heyuan_kernel::lease::Fence;
use heyuan_kernel::{Problem, Tx, sql};
use heyuan_ledger::Book;

/// How long a refund waits. A till that reports after a quarter of a year reports by hand.
pub(crate) const WAIT_MS: i64 = 90 * 86_400_000;
/// Most refunds that wait for one purchase: all of them are applied in the unit of work that posts it.
pub(crate) const WAITING_MAX: u64 = 50;
/// Refunds of one look.
const BATCH_MAX: u64 = 50;
/// What the caller reads.
const WHY: &str = "its purchase was not reported within 90 days; report the purchase, then the refund under a new id";

impl Membership {
    /// Refuses a batch of refunds that have waited too long; answers how many. One whose purchase is there is applied: an earlier release
    /// let more wait than are applied with their purchase.
    ///
    /// # Errors
    /// The database's.
    pub async fn give_up_waiting(&self, fence: Option<&Fence>) -> Result<usize, Error> {
        let until = self.kernel().clock.now().ms() - WAIT_MS;
        let text = format!(
            "SELECT {COLUMNS} FROM membership_transaction WHERE state = 'waiting' AND arrived_at < $1 ORDER BY arrived_at, no LIMIT $2"
        );
        let rows = sql::all(self.kernel().db.reader(), &text, [until.into(), BATCH_MAX.into()]).await?;
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
        let book = books::enter_purchase(self.ledger(), tx, unit, of).await?;
        // Its purchase may have come at the last moment.
        let refund = transaction::find(tx.conn(), unit, id).await?.filter(|refund| refund.state == State::Waiting);
        let Some(mut refund) = refund else { return Ok(()) };
        match transaction::find(tx.conn(), unit, of).await? {
            Some(purchase) => self.apply_waited(tx, &purchase, refund, book).await,
            None => {
                refund.state = State::Refused;
                refund.why = WHY.to_owned();
                transaction::update(tx, &refund).await
            }
        }
    }

    /// Applies a refund that waited for its purchase, or refuses it where it does not fit.
    pub(crate) async fn apply_waited(&self, tx: &Tx, purchase: &Row, mut refund: Row, book: Book) -> Result<(), Error> {
        match refund::misfit(tx, purchase, &refund, purchase.refunded).await? {
            None => self.apply_refund(tx, &mut refund, book).await,
            Some(why) => {
                refund.state = State::Refused;
                refund.why = why.detail().to_owned();
                transaction::update(tx, &refund).await
            }
        }
    }
}

/// Refuses one more refund that would wait for a purchase.
pub(crate) async fn check_room(tx: &Tx, unit: &OrgUnitId, of: &TransactionId) -> Result<(), Error> {
    let text = "SELECT COUNT(*) AS n FROM membership_transaction WHERE unit = $1 AND refund_of = $2 AND state = 'waiting'";
    let waiting = sql::count(tx.conn(), text, [unit.as_str().into(), of.as_str().into()]).await?;
    if u64::try_from(waiting).is_ok_and(|waiting| waiting < WAITING_MAX) {
        return Ok(());
    }
    let words = format!("{waiting} refunds wait for {of}, which was not reported; report the purchase first");
    Err(Problem::new(codes::TOO_MANY_WAITING, words).field("refund_of").into())
}
