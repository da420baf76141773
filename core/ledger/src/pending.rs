//! Holds: amounts set aside now, then posted in part or whole, voided, or expired, once.

use crate::account::{self, Row, Shape};
use crate::book::Ledger;
use crate::error::Error;
use crate::lot;
use crate::period::Period;
use crate::transfer::{Lots, Posted, Transfer};
use heyuan_contract::Timestamp;
use heyuan_kernel::{Tx, sql};

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
}

/// The outcome of a hold that has none yet.
const OPEN: &str = "open";

struct Stored {
    hold: Hold,
    outcome: String,
    posted: i64,
}

impl Ledger {
    /// Sets an amount aside. The same hold again changes nothing.
    ///
    /// # Errors
    /// [`Error::NotEnough`], [`Error::KeyReused`], [`Error::UnitMismatch`]; the database's.
    pub async fn hold(&self, tx: &Tx, hold: &Hold) -> Result<(), Error> {
        let accounts = account::lock(tx, &[hold.debit.clone(), hold.credit.clone()]).await?;
        if let Some(stored) = find(tx, &hold.key).await? {
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

    /// Posts a hold, wholly or in part, and sets the rest free. The transfer's key is the hold's with `/posted`.
    ///
    /// # Errors
    /// [`Error::UnknownHold`], [`Error::HoldSettled`] when it ended otherwise or ran out, [`Error::Amount`] for more than is held;
    /// [`heyuan_kernel::Error::Stale`] when somebody else ends it at this moment, perhaps by the same request: look again.
    pub async fn post_hold(&self, tx: &Tx, key: &str, amount: i64, period: Period) -> Result<Posted, Error> {
        let stored = find(tx, key).await?.ok_or_else(|| Error::UnknownHold(key.to_owned()))?;
        let repeated = stored.outcome == "posted" && stored.posted == amount;
        if !repeated {
            if amount <= 0 || amount > stored.hold.amount {
                return Err(Error::Amount(key.to_owned()));
            }
            if stored.outcome != OPEN || self.kernel.clock.now() > stored.hold.expires_at {
                return Err(Error::HoldSettled(key.to_owned()));
            }
            end_now(tx, &stored.hold, Outcome::Posted(amount)).await?;
        }
        let Hold { unit, debit, credit, kind, reference, at, .. } = stored.hold;
        let account = account::lock(tx, std::slice::from_ref(&debit)).await?;
        let lots = if account.iter().any(|row| row.shape == Shape::Lots) { Lots::FirstExpiring } else { Lots::None };
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
        let stored = find(tx, key).await?.ok_or_else(|| Error::UnknownHold(key.to_owned()))?;
        match stored.outcome.as_str() {
            OPEN => end_now(tx, &stored.hold, Outcome::Voided).await,
            "voided" => Ok(()),
            _ => Err(Error::HoldSettled(key.to_owned())),
        }
    }

    /// Sets free what has run out by an instant, up to `limit` holds; answers their keys.
    ///
    /// # Errors
    /// The database's.
    pub async fn expire_holds(&self, tx: &Tx, at: Timestamp, limit: u64) -> Result<Vec<String>, Error> {
        let rows = sql::all(
            tx.conn(),
            "SELECT key FROM ledger_hold WHERE outcome = 'open' AND expires_at < $1 ORDER BY expires_at, key LIMIT $2",
            [at.ms().into(), limit.into()],
        )
        .await?;
        let keys = rows.iter().map(|row| sql::get::<String>(row, "key")).collect::<Result<Vec<_>, _>>()?;
        let mut expired = Vec::with_capacity(keys.len());
        for key in &keys {
            if let Some(stored) = find(tx, key).await?
                && end(tx, &stored.hold, Outcome::Expired).await?
            {
                expired.push(key.clone());
            }
        }
        Ok(expired)
    }
}

async fn find(tx: &Tx, key: &str) -> Result<Option<Stored>, Error> {
    let text =
        "SELECT h.key, h.unit, d.id AS debit, c.id AS credit, h.amount, h.kind, h.reference, h.held_at, h.expires_at, h.outcome, h.posted
                FROM ledger_hold h JOIN ledger_account d ON d.no = h.debit JOIN ledger_account c ON c.no = h.credit WHERE h.key = $1";
    let Some(row) = sql::one(tx.conn(), text, [key.into()]).await? else { return Ok(None) };
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
    Ok(Some(Stored { hold, outcome: sql::get(&row, "outcome")?, posted: sql::get(&row, "posted")? }))
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

/// As [`end`]; [`heyuan_kernel::Error::Stale`] when somebody else was first, so that the outcome is read again.
async fn end_now(tx: &Tx, hold: &Hold, outcome: Outcome) -> Result<(), Error> {
    if end(tx, hold, outcome).await? { Ok(()) } else { Err(heyuan_kernel::Error::Stale("a hold that another unit of work ended").into()) }
}

/// Gives a hold its outcome, the first and only one, and sets everything that it held free; `false` when it has one.
async fn end(tx: &Tx, hold: &Hold, outcome: Outcome) -> Result<bool, Error> {
    let posted = if let Outcome::Posted(amount) = outcome { amount } else { 0 };
    let text = "UPDATE ledger_hold SET outcome = $2, posted = $3 WHERE key = $1 AND outcome = 'open'";
    let ended = sql::execute(tx.conn(), text, [hold.key.clone().into(), outcome.as_str().into(), posted.into()]).await?;
    if ended == 0 {
        return Ok(false);
    }
    let accounts = account::lock(tx, std::slice::from_ref(&hold.debit)).await?;
    let account = accounts.first().ok_or_else(|| Error::UnknownAccount(hold.debit.clone()))?;
    reserve(tx, account.no, -hold.amount).await?;
    let text = "UPDATE ledger_lot SET remaining = remaining + p.amount, held = held - p.amount
                FROM (SELECT lot, amount FROM ledger_hold_lot WHERE hold = $1) AS p WHERE ledger_lot.no = p.lot";
    sql::execute(tx.conn(), text, [hold.key.clone().into()]).await?;
    sql::execute(tx.conn(), "DELETE FROM ledger_hold_lot WHERE hold = $1", [hold.key.clone().into()]).await?;
    Ok(true)
}
