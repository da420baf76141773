//! Holds: amounts set aside now, then posted in part or whole, voided, or expired, once.

use crate::account::{self, Row, Shape};
use crate::book::Ledger;
use crate::bulk;
use crate::error::Error;
use crate::lot;
use crate::period::Period;
use crate::transfer::{LotPart, Lots, Posted, Transfer};
use heyuan_contract::Timestamp;
use heyuan_kernel::{Tx, sql};
use std::iter;

/// An amount to set aside for a transfer to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Unique for ever.
    pub key: String,
    /// The unit's code.
    pub unit: String,
    /// The account that sets aside; not a striped one.
    pub debit: String,
    /// The account that will get what is posted.
    pub credit: String,
    /// Above zero.
    pub amount: i64,
    /// The kind that the transfer will have.
    pub kind: String,
    /// What it belongs to.
    pub reference: String,
    /// Its own time: lots that have expired by then are not held.
    pub at: Timestamp,
    /// After this instant nobody can post it.
    pub expires_at: Timestamp,
}

/// How a hold ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// This much was posted, the rest set free.
    Posted(i64),
    /// Nothing was posted.
    Voided,
    /// It ran out.
    Expired,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Outcome::Posted(_) => "posted",
            Outcome::Voided => "voided",
            Outcome::Expired => "expired",
        }
    }

    fn parse(text: &str, posted: i64) -> Result<Option<Outcome>, Error> {
        match text {
            OPEN => Ok(None),
            "posted" => Ok(Some(Outcome::Posted(posted))),
            "voided" => Ok(Some(Outcome::Voided)),
            "expired" => Ok(Some(Outcome::Expired)),
            other => Err(heyuan_kernel::Error::Corrupt { what: "outcome of a hold", why: other.to_owned() }.into()),
        }
    }
}

/// The outcome of a hold that has none yet.
const OPEN: &str = "open";

struct Stored {
    hold: Hold,
    outcome: Option<Outcome>,
}

impl Ledger {
    /// Sets an amount aside. The same hold again changes nothing.
    ///
    /// # Errors
    /// [`Error::NotEnough`], [`Error::KeyReused`], [`Error::UnitMismatch`]; the database's.
    pub async fn hold(&self, tx: &Tx, hold: &Hold) -> Result<(), Error> {
        let accounts = account::lock(tx, &[hold.debit.clone(), hold.credit.clone()]).await?;
        if let Some(stored) = find(tx.conn(), &hold.key).await? {
            let same = stored.hold.amount == hold.amount && stored.hold.debit == hold.debit && stored.hold.credit == hold.credit;
            return if same { Ok(()) } else { Err(Error::KeyReused(hold.key.clone())) };
        }
        let find_account = |id: &str| accounts.iter().find(|row| row.id == id).ok_or_else(|| Error::UnknownAccount(id.to_owned()));
        let (debit, credit) = (find_account(&hold.debit)?, find_account(&hold.credit)?);
        if debit.unit != hold.unit || credit.unit != hold.unit || debit.shape == Shape::Striped || credit.shape == Shape::Lots {
            return Err(Error::UnitMismatch(hold.key.clone()));
        }
        if hold.amount <= 0 || hold.amount > crate::draft::AMOUNT_MAX {
            return Err(Error::Amount(hold.key.clone()));
        }
        let free = i128::from(debit.balance) - i128::from(debit.reserved) - i128::from(hold.amount);
        if debit.floor.is_some_and(|floor| free < i128::from(floor)) {
            return Err(Error::NotEnough { account: hold.debit.clone(), amount: hold.amount });
        }
        insert(tx, hold, debit, credit).await?;
        reserve(tx, debit.no, hold.amount).await?;
        if debit.shape == Shape::Lots { hold_lots(tx, hold, &accounts).await } else { Ok(()) }
    }

    /// A hold and how it ended, if it did, as the connection sees it.
    ///
    /// # Errors
    /// The database's.
    pub async fn hold_outcome<C: sql::Connection>(&self, conn: &C, key: &str) -> Result<Option<(Hold, Option<Outcome>)>, Error> {
        Ok(find(conn, key).await?.map(|stored| (stored.hold, stored.outcome)))
    }

    /// Posts a hold, wholly or in part, from the very lots that it holds, and sets the rest free. What has expired meanwhile pays all the
    /// same: it had not when it was set aside. The transfer's key is the hold's with `/posted`.
    ///
    /// # Errors
    /// [`Error::UnknownHold`], [`Error::HoldSettled`] when it ended otherwise or ran out, [`Error::Amount`] for more than is held;
    /// [`heyuan_kernel::Error::Stale`] when somebody else ends it at this moment, perhaps by the same request: look again.
    pub async fn post_hold(&self, tx: &Tx, key: &str, amount: i64, period: Period) -> Result<Posted, Error> {
        let stored = find(tx.conn(), key).await?.ok_or_else(|| Error::UnknownHold(key.to_owned()))?;
        let accounts = self.lock(tx, &[stored.hold.debit.clone(), stored.hold.credit.clone()]).await?;
        let mut parts = Vec::new();
        if stored.outcome != Some(Outcome::Posted(amount)) {
            if amount <= 0 || amount > stored.hold.amount {
                return Err(Error::Amount(key.to_owned()));
            }
            if stored.outcome.is_some() || self.kernel.clock.now() > stored.hold.expires_at {
                return Err(Error::HoldSettled(key.to_owned()));
            }
            parts = self.end_now(tx, &stored.hold, Outcome::Posted(amount)).await?;
        }
        let Hold { unit, debit, credit, kind, reference, at, .. } = stored.hold;
        let with_lots = accounts.iter().any(|row| row.id == debit && row.shape == Shape::Lots);
        let lots = if with_lots { Lots::Parts(parts) } else { Lots::None };
        let transfer =
            Transfer { key: format!("{key}/posted"), unit, debit, credit, amount, occurred_at: at, period, kind, reference, lots };
        self.post(tx, &[transfer]).await?.pop().ok_or_else(|| Error::UnknownHold(key.to_owned()))
    }

    /// Sets the whole hold free. Voiding it again changes nothing.
    ///
    /// # Errors
    /// [`Error::UnknownHold`], [`Error::HoldSettled`] when it ended otherwise; [`heyuan_kernel::Error::Stale`] as with
    /// [`Ledger::post_hold`].
    pub async fn void_hold(&self, tx: &Tx, key: &str) -> Result<(), Error> {
        let stored = find(tx.conn(), key).await?.ok_or_else(|| Error::UnknownHold(key.to_owned()))?;
        match stored.outcome {
            None => {
                self.lock(tx, std::slice::from_ref(&stored.hold.debit)).await?;
                self.end_now(tx, &stored.hold, Outcome::Voided).await.map(drop)
            }
            Some(Outcome::Voided) => Ok(()),
            Some(_) => Err(Error::HoldSettled(key.to_owned())),
        }
    }

    /// Sets one hold free if it has run out by now; answers whether it did so, and nobody had ended it before. There is no clock here: what
    /// a hold was for, and what is paid by what it frees, knows whoever made it, who ends it in the same unit of work.
    ///
    /// # Errors
    /// [`Error::UnknownHold`]; the database's.
    pub async fn expire_hold(&self, tx: &Tx, key: &str) -> Result<bool, Error> {
        let stored = find(tx.conn(), key).await?.ok_or_else(|| Error::UnknownHold(key.to_owned()))?;
        if stored.outcome.is_some() || self.kernel.clock.now() <= stored.hold.expires_at {
            return Ok(false);
        }
        self.lock(tx, std::slice::from_ref(&stored.hold.debit)).await?;
        Ok(self.end(tx, &stored.hold, Outcome::Expired).await?.is_some())
    }

    /// As [`Ledger::end`]; [`heyuan_kernel::Error::Stale`] when somebody else was first, so that the outcome is read again.
    async fn end_now(&self, tx: &Tx, hold: &Hold, outcome: Outcome) -> Result<Vec<LotPart>, Error> {
        let stale = || heyuan_kernel::Error::Stale("a hold that another unit of work ended").into();
        self.end(tx, hold, outcome).await?.ok_or_else(stale)
    }

    /// Gives a hold its outcome, the first and only one, and sets everything that it held free; its debited account is locked. Answers
    /// the parts of its lots that are to be posted, or `None` when it had an outcome.
    async fn end(&self, tx: &Tx, hold: &Hold, outcome: Outcome) -> Result<Option<Vec<LotPart>>, Error> {
        let posted = if let Outcome::Posted(amount) = outcome { amount } else { 0 };
        let text = "UPDATE ledger_hold SET outcome = $2, posted = $3 WHERE key = $1 AND outcome = 'open'";
        let ended = sql::execute(tx.conn(), text, [hold.key.clone().into(), outcome.as_str().into(), posted.into()]).await?;
        if ended == 0 {
            return Ok(None);
        }
        let text = "UPDATE ledger_account SET reserved = reserved - $2 WHERE id = $1";
        sql::execute(tx.conn(), text, [hold.debit.clone().into(), hold.amount.into()]).await?;
        let held = held(tx, &hold.key).await?;
        let mut wanted = posted;
        let (mut parts, mut freed) = (Vec::new(), Vec::new());
        for lot in held {
            let part = lot.amount.min(wanted);
            wanted -= part;
            if part > 0 {
                parts.push(LotPart { source: lot.source, amount: part });
            }
            if part < lot.amount {
                freed.push(lot.no);
            }
        }
        let text = "UPDATE ledger_lot SET remaining = remaining + p.amount, held = held - p.amount
                    FROM (SELECT lot, amount FROM ledger_hold_lot WHERE hold = $1) AS p WHERE ledger_lot.no = p.lot";
        sql::execute(tx.conn(), text, [hold.key.clone().into()]).await?;
        sql::execute(tx.conn(), "DELETE FROM ledger_hold_lot WHERE hold = $1", [hold.key.clone().into()]).await?;
        if !freed.is_empty() {
            let (one_of, lots) = bulk::one_of_numbers(tx.conn(), 2, freed);
            let text = format!("UPDATE ledger_lot SET freed_at = $1 WHERE no {one_of}");
            let values = iter::once(self.kernel.clock.now().ms().into()).chain(lots);
            sql::execute(tx.conn(), &text, values).await?;
        }
        Ok(Some(parts))
    }
}

async fn find<C: sql::Connection>(conn: &C, key: &str) -> Result<Option<Stored>, Error> {
    let text =
        "SELECT h.key, h.unit, d.id AS debit, c.id AS credit, h.amount, h.kind, h.reference, h.held_at, h.expires_at, h.outcome, h.posted
                FROM ledger_hold h JOIN ledger_account d ON d.no = h.debit JOIN ledger_account c ON c.no = h.credit WHERE h.key = $1";
    let Some(row) = sql::one(conn, text, [key.into()]).await? else { return Ok(None) };
    let hold = Hold {
        key: sql::get(&row, "key")?,
        unit: sql::get(&row, "unit")?,
        debit: sql::get(&row, "debit")?,
        credit: sql::get(&row, "credit")?,
        amount: sql::get(&row, "amount")?,
        kind: sql::get(&row, "kind")?,
        reference: sql::get(&row, "reference")?,
        at: Timestamp::clamped(sql::get(&row, "held_at")?),
        expires_at: Timestamp::clamped(sql::get(&row, "expires_at")?),
    };
    let outcome: String = sql::get(&row, "outcome")?;
    Ok(Some(Stored { hold, outcome: Outcome::parse(&outcome, sql::get(&row, "posted")?)? }))
}

async fn insert(tx: &Tx, hold: &Hold, debit: &Row, credit: &Row) -> Result<(), Error> {
    let inserted = sql::execute(
        tx.conn(),
        "INSERT INTO ledger_hold (key, unit, debit, credit, amount, kind, reference, held_at, expires_at, outcome, posted)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'open', 0) ON CONFLICT (key) DO NOTHING",
        [
            hold.key.clone().into(),
            hold.unit.clone().into(),
            debit.no.into(),
            credit.no.into(),
            hold.amount.into(),
            hold.kind.clone().into(),
            hold.reference.clone().into(),
            hold.at.ms().into(),
            hold.expires_at.ms().into(),
        ],
    )
    .await?;
    if inserted == 1 { Ok(()) } else { Err(heyuan_kernel::Error::Stale("a hold of the same key").into()) }
}

async fn reserve(tx: &Tx, account: i64, amount: i64) -> Result<(), Error> {
    let text = "UPDATE ledger_account SET reserved = reserved + $2 WHERE no = $1";
    sql::execute(tx.conn(), text, [account.into(), amount.into()]).await?;
    Ok(())
}

/// Moves the amount from what is left in the first-expiring lots to what is held in them.
async fn hold_lots(tx: &Tx, hold: &Hold, accounts: &[Row]) -> Result<(), Error> {
    let mut lots = lot::of_account(tx, accounts, &hold.debit).await?;
    lots.retain(|lot| lot.expires_at > hold.at);
    lots.sort_by_key(|lot| (lot.expires_at, lot.no));
    let mut wanted = hold.amount;
    for lot in lots {
        let part = lot.remaining.min(wanted);
        if part == 0 {
            break;
        }
        wanted -= part;
        let text = "UPDATE ledger_lot SET remaining = remaining - $2, held = held + $2 WHERE no = $1";
        sql::execute(tx.conn(), text, [lot.no.into(), part.into()]).await?;
        let text = "INSERT INTO ledger_hold_lot (hold, lot, amount) VALUES ($1, $2, $3)";
        sql::execute(tx.conn(), text, [hold.key.clone().into(), lot.no.into(), part.into()]).await?;
    }
    if wanted == 0 { Ok(()) } else { Err(Error::NotEnough { account: hold.debit.clone(), amount: hold.amount }) }
}

/// What a hold holds of one lot.
struct HeldLot {
    no: i64,
    source: String,
    amount: i64,
}

/// What a hold holds, first-expiring first.
async fn held(tx: &Tx, hold: &str) -> Result<Vec<HeldLot>, Error> {
    let text = "SELECT l.no, l.source, h.amount FROM ledger_hold_lot h JOIN ledger_lot l ON l.no = h.lot WHERE h.hold = $1
                ORDER BY l.expires_at, l.no";
    let rows = sql::all(tx.conn(), text, [hold.into()]).await?;
    rows.iter()
        .map(|row| Ok(HeldLot { no: sql::get(row, "no")?, source: sql::get(row, "source")?, amount: sql::get(row, "amount")? }))
        .collect()
}
