//! Recovering: what a member owes for points that were taken back after it had spent them is paid by the points that it has, and by the
//! next that come in.

use crate::books::{self, Movement};
use crate::error::Error;
use crate::facade::Membership;
use heyuan_contract::{EntryId, MemberId};
use heyuan_kernel::{Kernel, Tx};
use heyuan_ledger::{Book, Lots, Period, Transfer};

impl Membership {
    /// Pays the debt of a locked member from its points, those that expire first first, as far as they go; answers how many it took. The
    /// book is entered. `balance` is what the receivable account holds: below zero by what is owed.
    pub(crate) async fn recover(&self, tx: &Tx, member: &MemberId, balance: i64, book: Book) -> Result<i64, Error> {
        if balance >= 0 {
            return Ok(0);
        }
        let (account, now) = (books::points_account(member), self.kernel().clock.now());
        let amount = self.ledger().spendable_in(tx, &account, now).await?.0.min(balance.saturating_neg());
        if amount == 0 {
            return Ok(0);
        }
        let transfer = Transfer {
            key: format!("recover/{}", Kernel::new_id::<EntryId>("rec")),
            unit: books::POINTS.to_owned(),
            debit: account,
            credit: books::receivable_account(member),
            amount,
            occurred_at: now,
            period: book.period(Period::of(&self.kernel().zone, now)),
            kind: Movement::Recover.as_str().to_owned(),
            reference: member.to_string(),
            lots: Lots::FirstExpiring,
        };
        self.ledger().post(tx, &[transfer]).await?;
        Ok(amount)
    }

    /// The same where the unit of work has not read what the member owes.
    pub(crate) async fn recover_owed(&self, tx: &Tx, member: &MemberId, book: Book) -> Result<i64, Error> {
        let owed = self.ledger().balance_in(tx, &books::receivable_account(member)).await?;
        self.recover(tx, member, owed.balance, book).await
    }
}
