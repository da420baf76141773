//! Carrying: an amount goes from one account with lots to another, lot by lot, and what each lot is goes with it.

use crate::book::Ledger;
use crate::bulk;
use crate::error::Error;
use crate::lot::{self, LotRow};
use crate::period::Period;
use crate::transfer::{LotUse, Lots, Transfer};
use heyuan_contract::Timestamp;
use heyuan_kernel::{Tx, sql};
use std::collections::HashMap;

/// Lots of one carrying: each is a transfer of its own, and one unit of work writes them all.
const LOTS_MAX: usize = 1000;

/// An amount to carry from one account with lots to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carry {
    /// Unique for ever; the transfers have it with `/1`, `/2`, ….
    pub key: String,
    /// The unit's code.
    pub unit: String,
    /// The account with lots that gives, what expires first first.
    pub from: String,
    /// The account with lots that gets a lot for each one that gave, with its issuer, unit cost and expiry.
    pub to: String,
    /// Above zero.
    pub amount: i64,
    /// The carrying's own time: what has expired by then stays where it is.
    pub occurred_at: Timestamp,
    /// The month that it counts in.
    pub period: Period,
    /// The transfers' kind.
    pub kind: String,
    /// What it belongs to; never personal data.
    pub reference: String,
}

impl Ledger {
    /// Carries an amount over, or refuses it whole. Answers what each lot gave, first-expiring first: the first part opened the lot
    /// `{key}/1`, the second one `{key}/2`, and so on. The same key again answers what it did the first time.
    ///
    /// # Errors
    /// [`Error::NotEnough`], [`Error::TooManyLots`], [`Error::KeyReused`], [`Error::Amount`], [`Error::UnknownAccount`],
    /// [`Error::UnitMismatch`]; otherwise as [`Ledger::post`].
    pub async fn carry(&self, tx: &Tx, carry: &Carry) -> Result<Vec<LotUse>, Error> {
        if carry.amount <= 0 {
            return Err(Error::Amount(carry.key.clone()));
        }
        let accounts = self.lock(tx, &[carry.from.clone(), carry.to.clone()]).await?;
        for id in [&carry.from, &carry.to] {
            accounts.iter().find(|row| row.id == *id).ok_or_else(|| Error::UnknownAccount(id.clone()))?;
        }
        let done = carried(tx, &carry.key).await?;
        if !done.is_empty() {
            return answer(carry, done);
        }
        let parts = parts(lot::of_account(tx, &accounts, &carry.from).await?, carry)?;
        let transfers: Vec<Transfer> = parts.iter().zip(1..).map(|(part, place)| transfer(carry, part, place)).collect();
        self.post(tx, &transfers).await?;
        Ok(parts)
    }
}

/// What each lot gives, first-expiring first.
fn parts(mut lots: Vec<LotRow>, carry: &Carry) -> Result<Vec<LotUse>, Error> {
    lots.retain(|lot| lot.expires_at > carry.occurred_at);
    lots.sort_by_key(|lot| (lot.expires_at, lot.no));
    let mut wanted = carry.amount;
    let mut parts = Vec::new();
    for lot in &lots {
        let part = lot.remaining.min(wanted);
        if part == 0 {
            break;
        }
        parts.push(lot.used(part));
        wanted -= part;
    }
    if wanted > 0 {
        return Err(Error::NotEnough { account: carry.from.clone(), amount: carry.amount });
    }
    if parts.len() > LOTS_MAX { Err(Error::TooManyLots { key: carry.key.clone(), lots_max: LOTS_MAX }) } else { Ok(parts) }
}

fn key(carry: &str, place: usize) -> String {
    format!("{carry}/{place}")
}

fn transfer(carry: &Carry, part: &LotUse, place: usize) -> Transfer {
    Transfer {
        key: key(&carry.key, place),
        unit: carry.unit.clone(),
        debit: carry.from.clone(),
        credit: carry.to.clone(),
        amount: part.amount,
        occurred_at: carry.occurred_at,
        period: carry.period,
        kind: carry.kind.clone(),
        reference: carry.reference.clone(),
        lots: Lots::Carried(part.source.clone()),
    }
}

/// A transfer of a carrying that is in the book.
struct Carried {
    unit: String,
    from: String,
    to: String,
    kind: String,
    reference: String,
    part: LotUse,
}

/// What a carrying did the first time, in its order; nothing when its key is new.
async fn carried(tx: &Tx, carry: &str) -> Result<Vec<Carried>, Error> {
    let conn = tx.conn();
    let first = sql::one(conn, "SELECT no FROM ledger_transfer WHERE key = $1", [key(carry, 1).into()]).await?;
    if first.is_none() {
        return Ok(Vec::new());
    }
    let (one_of, values) = bulk::one_of_texts(conn, 1, (1..=LOTS_MAX).map(|place| key(carry, place)));
    let text = format!(
        "SELECT t.key, t.unit, t.kind, t.reference, d.id AS debit, c.id AS credit, t.amount AS carried,
           l.source, l.issuer, l.cost_numerator, l.cost_denominator, l.expires_at
         FROM ledger_transfer t JOIN ledger_account d ON d.no = t.debit JOIN ledger_account c ON c.no = t.credit
         JOIN ledger_lot_move m ON m.transfer = t.no JOIN ledger_lot l ON l.no = m.lot WHERE t.key {one_of}"
    );
    let mut found = HashMap::new();
    for row in sql::all(conn, &text, values).await? {
        let part = LotUse {
            source: sql::get(&row, "source")?,
            issuer: sql::get(&row, "issuer")?,
            cost: lot::cost(&row)?,
            expires_at: Timestamp::clamped(sql::get(&row, "expires_at")?),
            amount: sql::get(&row, "carried")?,
        };
        let carried = Carried {
            unit: sql::get(&row, "unit")?,
            from: sql::get(&row, "debit")?,
            to: sql::get(&row, "credit")?,
            kind: sql::get(&row, "kind")?,
            reference: sql::get(&row, "reference")?,
            part,
        };
        found.insert(sql::get::<String>(&row, "key")?, carried);
    }
    Ok((1..=LOTS_MAX).map_while(|place| found.remove(&key(carry, place))).collect())
}

/// The first answer once more, if it is the same carrying.
fn answer(carry: &Carry, done: Vec<Carried>) -> Result<Vec<LotUse>, Error> {
    let same = done.iter().all(|part| {
        part.unit == carry.unit
            && part.from == carry.from
            && part.to == carry.to
            && part.kind == carry.kind
            && part.reference == carry.reference
    });
    let amount: i64 = done.iter().map(|carried| carried.part.amount).sum();
    if same && amount == carry.amount {
        Ok(done.into_iter().map(|carried| carried.part).collect())
    } else {
        Err(Error::KeyReused(carry.key.clone()))
    }
}
