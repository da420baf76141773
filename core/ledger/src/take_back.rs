//! Taking a lot's points back: from the lot as far as they are still there, as a receivable where they were spent.

use crate::account;
use crate::book::Ledger;
use crate::error::Error;
use crate::lot;
use crate::period::Period;
use crate::transfer::{Lots, Transfer};
use heyuan_contract::Timestamp;
use heyuan_kernel::{Tx, sql};

/// What to take back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeBack {
    /// Unique for ever; the receivable's transfer has it with `/receivable`.
    pub key: String,
    /// The unit's code.
    pub unit: String,
    /// The key of the transfer that opened the lot.
    pub lot: String,
    /// The account with the lot.
    pub account: String,
    /// The account without a floor that goes below zero by what is no longer in the lot: what the owner owes.
    pub receivable: String,
    /// Who gets it back: the issuer.
    pub credit: String,
    /// Above zero.
    pub amount: i64,
    /// The most that may be owed for it: what of the lot was spent. What is in neither the lot nor this is let go: it expired.
    pub owed_max: i64,
    /// The taking's own time.
    pub occurred_at: Timestamp,
    /// The month that it counts in.
    pub period: Period,
    /// The transfers' kind.
    pub kind: String,
    /// What it belongs to.
    pub reference: String,
}

/// Where it came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TakenBack {
    /// Out of the lot.
    pub lot: i64,
    /// Out of the receivable account.
    pub receivable: i64,
}

impl Ledger {
    /// What moved a lot since it was opened, by kind of transfer: negative out of it.
    ///
    /// # Errors
    /// The database's.
    pub async fn lot_moves(&self, tx: &Tx, source: &str) -> Result<Vec<(String, i64)>, Error> {
        let text = "SELECT t.kind, CAST(SUM(m.amount) AS BIGINT) AS amount FROM ledger_lot l JOIN ledger_lot_move m ON m.lot = l.no
                    JOIN ledger_transfer t ON t.no = m.transfer WHERE l.source = $1 GROUP BY t.kind ORDER BY t.kind";
        let rows = sql::all(tx.conn(), text, [source.into()]).await?;
        rows.iter().map(|row| Ok((sql::get(row, "kind")?, sql::get(row, "amount")?))).collect()
    }

    /// What open holds have set aside of the lot that a transfer opened.
    ///
    /// # Errors
    /// The database's.
    pub async fn lot_held(&self, tx: &Tx, source: &str) -> Result<i64, Error> {
        let row = sql::one(tx.conn(), "SELECT held FROM ledger_lot WHERE source = $1", [source.into()]).await?;
        Ok(row.map_or(Ok(0), |row| sql::get(&row, "held"))?)
    }

    /// Takes points of one lot back. The same key again answers what it did the first time.
    ///
    /// # Errors
    /// [`Error::KeyReused`], [`Error::Amount`], [`Error::UnknownAccount`]; the database's.
    pub async fn take_back(&self, tx: &Tx, taking: &TakeBack) -> Result<TakenBack, Error> {
        if taking.amount <= 0 {
            return Err(Error::Amount(taking.key.clone()));
        }
        let ids = [taking.account.clone(), taking.receivable.clone(), taking.credit.clone()];
        account::lock(tx, &ids).await?;
        let owed_key = format!("{}/receivable", taking.key);
        let done = TakenBack { lot: posted(tx, &taking.key).await?, receivable: posted(tx, &owed_key).await? };
        if done != TakenBack::default() {
            let same = done.lot + done.receivable <= taking.amount;
            return if same { Ok(done) } else { Err(Error::KeyReused(taking.key.clone())) };
        }
        let left = lot::of_source(tx, &taking.lot).await?.map_or(0, |lot| lot.remaining);
        let part = left.min(taking.amount);
        let rest = (taking.amount - part).min(taking.owed_max.max(0));
        let mut transfers = Vec::with_capacity(2);
        if part > 0 {
            transfers.push(transfer(taking, taking.key.clone(), &taking.account, part, Lots::From(taking.lot.clone())));
        }
        if rest > 0 {
            transfers.push(transfer(taking, owed_key, &taking.receivable, rest, Lots::None));
        }
        self.post(tx, &transfers).await?;
        Ok(TakenBack { lot: part, receivable: rest })
    }
}

fn transfer(taking: &TakeBack, key: String, debit: &str, amount: i64, lots: Lots) -> Transfer {
    Transfer {
        key,
        unit: taking.unit.clone(),
        debit: debit.to_owned(),
        credit: taking.credit.clone(),
        amount,
        occurred_at: taking.occurred_at,
        period: taking.period,
        kind: taking.kind.clone(),
        reference: taking.reference.clone(),
        lots,
    }
}

async fn posted(tx: &Tx, key: &str) -> Result<i64, Error> {
    let row = sql::one(tx.conn(), "SELECT amount FROM ledger_transfer WHERE key = $1", [key.into()]).await?;
    Ok(row.map_or(Ok(0), |row| sql::get(&row, "amount"))?)
}
