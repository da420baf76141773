//! The door of the ledger: opening accounts, posting, and looking up.

use crate::account::{self, Account, Balance};
use crate::bulk;
use crate::draft::{Draft, Drafted};
use crate::error::Error;
use crate::lot::{self, ExpiredLot, LotMovement, OpenLot};
use crate::period::Period;
use crate::transfer::{LotUse, Parcel, Posted, Transfer};
use crate::written;
use heyuan_contract::{Ratio, Timestamp};
use heyuan_kernel::{Database, Kernel, Tx, sql};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

/// The book. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    pub(crate) kernel: Kernel,
    /// Striped accounts that were there at the start, by id: a posting needs not read them again.
    standing: Arc<RwLock<HashMap<String, account::Row>>>,
}

impl Ledger {
    /// The book in a tenant's database.
    pub fn new(kernel: Kernel) -> Ledger {
        Ledger { kernel, standing: Arc::default() }
    }

    /// The database that the book is in.
    pub fn database(&self) -> &Database {
        &self.kernel.db
    }

    /// Opens accounts; those that are open stay as they are.
    ///
    /// # Errors
    /// The database's.
    pub async fn open(&self, tx: &Tx, accounts: &[Account]) -> Result<(), Error> {
        account::open(tx, accounts).await
    }

    /// Keeps striped accounts in mind that are open for good: what is written in their rows never changes. Called with what is
    /// committed, at start.
    ///
    /// # Errors
    /// The database's.
    pub async fn remember_striped(&self, ids: &[String]) -> Result<(), Error> {
        let rows = account::striped(self.kernel.db.near(), ids).await?;
        let mut standing = self.standing.write().unwrap_or_else(PoisonError::into_inner);
        standing.extend(rows.into_iter().map(|row| (row.id.clone(), row)));
        Ok(())
    }

    /// Locks accounts for posting; those in mind are not read.
    pub(crate) async fn lock(&self, tx: &Tx, ids: &[String]) -> Result<Vec<account::Row>, Error> {
        let (mut rows, mut others) = (Vec::with_capacity(ids.len()), Vec::with_capacity(ids.len()));
        {
            let standing = self.standing.read().unwrap_or_else(PoisonError::into_inner);
            for id in ids {
                match standing.get(id) {
                    Some(row) => rows.push(row.clone()),
                    None => others.push(id.clone()),
                }
            }
        }
        rows.extend(account::lock(tx, &others).await?);
        Ok(rows)
    }

    /// Posts transfers in their order, all of them or none. A key that is in the book already is answered from it.
    ///
    /// # Errors
    /// [`Error::NotEnough`], [`Error::KeyReused`], [`Error::Amount`], [`Error::UnknownAccount`]; [`Error::PeriodClosed`] for a period
    /// that the unit's book is closed for; [`heyuan_kernel::Error::Stale`] when another unit of work posted the same key meanwhile. The
    /// unit of work must be given up on any of them.
    pub async fn post(&self, tx: &Tx, transfers: &[Transfer]) -> Result<Vec<Posted>, Error> {
        self.post_each(tx, transfers).await?.into_iter().collect()
    }

    /// Posts each transfer that can be, and answers for each one by itself.
    pub(crate) async fn post_each(&self, tx: &Tx, transfers: &[Transfer]) -> Result<Vec<Result<Posted, Error>>, Error> {
        if transfers.is_empty() {
            return Ok(Vec::new());
        }
        let mut ids: Vec<String> = transfers.iter().flat_map(|t| [t.debit.clone(), t.credit.clone()]).collect();
        ids.sort_unstable();
        ids.dedup();
        // Before any account is held: a key that comes in meanwhile is met when the transfers are written.
        let known = known_keys(tx, transfers.iter()).await?;
        let accounts = self.lock(tx, &ids).await?;
        let (lots, spent) = lot::load(tx, &accounts, transfers).await?;
        let mut draft = Draft::new(accounts, lots, spent);
        let mut fresh: Vec<(usize, Drafted)> = Vec::new();
        let mut answers: Vec<Option<Result<Posted, Error>>> = Vec::with_capacity(transfers.len());
        let mut first_of: HashMap<&str, usize> = HashMap::new();
        let mut refused: Vec<usize> = Vec::new();
        for (index, transfer) in transfers.iter().enumerate() {
            if let Some(stored) = known.get(&transfer.key) {
                answers.push(Some(stored.answer(transfer)));
            } else if let Some(first) = first_of.get(transfer.key.as_str()) {
                let same = same_transfer(&transfers[*first], transfer);
                answers.push((!same).then(|| Err(Error::KeyReused(transfer.key.clone()))));
            } else {
                match draft.add(transfer) {
                    Ok(drafted) => {
                        first_of.insert(&transfer.key, index);
                        fresh.push((index, drafted));
                        answers.push(None);
                    }
                    Err(error) => {
                        refused.push(index);
                        answers.push(Some(Err(error)));
                    }
                }
            }
        }
        // One of the same key may have been posted between the look and the lock, and be the reason of the refusal.
        if !refused.is_empty() {
            let known = known_keys(tx, refused.iter().map(|index| &transfers[*index])).await?;
            for index in refused {
                if let Some(stored) = known.get(&transfers[index].key) {
                    answers[index] = Some(stored.answer(&transfers[index]));
                }
            }
        }
        let numbers = written::write(tx, &draft, transfers, &fresh, self.kernel.clock.now()).await?;
        let posted: HashMap<&str, Posted> = fresh
            .into_iter()
            .map(|(index, drafted)| (transfers[index].key.as_str(), posted(&transfers[index], drafted, &numbers)))
            .collect();
        let answer = |(index, answer): (usize, Option<Result<Posted, Error>>)| {
            answer.unwrap_or_else(|| {
                let key = transfers[index].key.as_str();
                let posted = posted.get(key).cloned().ok_or_else(|| Error::UnknownAccount(key.to_owned()))?;
                Ok(Posted { repeated: first_of.get(key) != Some(&index), ..posted })
            })
        };
        Ok(answers.into_iter().enumerate().map(answer).collect())
    }

    /// Posts parcels of transfers under keys that can't be in the book, since a unique record of the caller's own, written in the same unit
    /// of work, stands for them. Checks, with the accounts locked, that those that a parcel relied on still have the version that its
    /// decision saw, and answers what they hold afterwards, in their order; `None` for a parcel of which one has moved: nothing of it is
    /// posted.
    ///
    /// # Errors
    /// As [`Ledger::post`]; [`heyuan_kernel::Error::Stale`] when a key is in the book.
    pub async fn post_new(&self, tx: &Tx, parcels: Vec<Parcel>) -> Result<Vec<Option<Vec<Balance>>>, Error> {
        let named = |parcel: &Parcel| parcel.relied_on.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>();
        let moved = |parcel: &Parcel| parcel.transfers.iter().flat_map(|t| [t.debit.clone(), t.credit.clone()]).collect::<Vec<_>>();
        let mut ids: Vec<String> = parcels.iter().flat_map(|parcel| [named(parcel), moved(parcel)]).flatten().collect();
        ids.sort_unstable();
        ids.dedup();
        let accounts = self.lock(tx, &ids).await?;
        let versions: HashMap<&str, i64> = accounts.iter().map(|row| (row.id.as_str(), row.version)).collect();
        let (mut transfers, mut kept) = (Vec::new(), Vec::with_capacity(parcels.len()));
        for Parcel { transfers: own, relied_on } in parcels {
            let mut stands = true;
            for (id, seen) in &relied_on {
                let version = versions.get(id.as_str()).ok_or_else(|| Error::UnknownAccount(id.clone()))?;
                stands &= seen.is_none_or(|seen| seen == *version);
            }
            if stands {
                transfers.extend(own);
            }
            kept.push(stands.then_some(relied_on));
        }
        let (lots, spent) = lot::load(tx, &accounts, &transfers).await?;
        let mut draft = Draft::new(accounts, lots, spent);
        let mut fresh = Vec::with_capacity(transfers.len());
        for (index, transfer) in transfers.iter().enumerate() {
            fresh.push((index, draft.add(transfer)?));
        }
        written::write(tx, &draft, &transfers, &fresh, self.kernel.clock.now()).await?;
        let held = |id: &str| draft.account(id).map(|row| Balance { balance: row.balance, reserved: row.reserved, version: row.version });
        let after = |relied_on: Vec<(String, Option<i64>)>| relied_on.iter().filter_map(|(id, _)| held(id)).collect();
        Ok(kept.into_iter().map(|relied_on| relied_on.map(after)).collect())
    }

    /// What each of these accounts holds, and what of one with lots can be spent at an instant, in their order.
    ///
    /// # Errors
    /// [`Error::UnknownAccount`]; the database's.
    pub async fn standing(&self, ids: &[&str], at: Timestamp) -> Result<Vec<(Balance, i64)>, Error> {
        account::standing(self.kernel.db.near(), ids, at).await
    }

    /// The same, as the unit of work sees it.
    ///
    /// # Errors
    /// [`Error::UnknownAccount`]; the database's.
    pub async fn standing_in(&self, tx: &Tx, ids: &[&str], at: Timestamp) -> Result<Vec<(Balance, i64)>, Error> {
        account::standing(tx.conn(), ids, at).await
    }

    /// What an account holds.
    ///
    /// # Errors
    /// [`Error::UnknownAccount`]; the database's.
    pub async fn balance(&self, id: &str) -> Result<Balance, Error> {
        account::balance(self.kernel.db.near(), id).await
    }

    /// What an account holds, as the unit of work sees it.
    ///
    /// # Errors
    /// [`Error::UnknownAccount`]; the database's.
    pub async fn balance_in(&self, tx: &Tx, id: &str) -> Result<Balance, Error> {
        account::balance(tx.conn(), id).await
    }

    /// What of an account with lots can be spent at an instant, and when the first of it expires.
    ///
    /// # Errors
    /// The database's.
    pub async fn spendable(&self, id: &str, at: Timestamp) -> Result<(i64, Option<Timestamp>), Error> {
        lot::spendable(self.kernel.db.near(), id, at).await
    }

    /// The same, as the unit of work sees it.
    ///
    /// # Errors
    /// The database's.
    pub async fn spendable_in(&self, tx: &Tx, id: &str, at: Timestamp) -> Result<(i64, Option<Timestamp>), Error> {
        lot::spendable(tx.conn(), id, at).await
    }

    /// The open lots of an account, first-expiring first.
    ///
    /// # Errors
    /// The database's.
    pub async fn open_lots(&self, id: &str, limit: u64) -> Result<Vec<OpenLot>, Error> {
        lot::open(self.kernel.db.reader(), id, limit).await
    }

    /// The same, as the unit of work sees it.
    ///
    /// # Errors
    /// The database's.
    pub async fn open_lots_in(&self, tx: &Tx, id: &str, limit: u64) -> Result<Vec<OpenLot>, Error> {
        lot::open(tx.conn(), id, limit).await
    }

    /// Lots of a unit that are past their expiry and still hold something: the owner of the unit moves them out.
    ///
    /// # Errors
    /// The database's.
    pub async fn expired_lots(&self, unit: &str, at: Timestamp, limit: u64) -> Result<Vec<ExpiredLot>, Error> {
        lot::expired(self.kernel.db.reader(), unit, at, limit).await
    }

    /// Those of the lots, by the transfers that opened them, that are past their expiry at an instant and still hold something. Their
    /// accounts are locked until the commit, so that nobody else moves them out or takes from them.
    ///
    /// # Errors
    /// The database's.
    pub async fn lock_expired(&self, tx: &Tx, sources: &[String], at: Timestamp) -> Result<Vec<ExpiredLot>, Error> {
        lot::lock_expired(tx, sources, at).await
    }

    /// What a period did to the lots of a unit, as the connection sees it: a unit of work's own, or the reader.
    ///
    /// # Errors
    /// The database's.
    pub async fn lot_movements<C: sql::Connection>(&self, conn: &C, unit: &str, period: Period) -> Result<Vec<LotMovement>, Error> {
        lot::movements(conn, unit, period).await
    }

    /// How many movements stand behind [`Ledger::lot_movements`], of all units: as long as the number is the same, so are they. It costs a
    /// small part of reading them.
    ///
    /// # Errors
    /// The database's.
    pub async fn lot_movements_count<C: sql::Connection>(&self, conn: &C, period: Period) -> Result<i64, Error> {
        lot::movements_count(conn, period).await
    }
}

fn same_transfer(a: &Transfer, b: &Transfer) -> bool {
    a.debit == b.debit && a.credit == b.credit && a.amount == b.amount && a.kind == b.kind && a.reference == b.reference && a.unit == b.unit
}

fn posted(transfer: &Transfer, drafted: Drafted, numbers: &HashMap<String, i64>) -> Posted {
    Posted {
        number: numbers.get(&transfer.key).copied().unwrap_or_default(),
        key: transfer.key.clone(),
        amount: transfer.amount,
        period: transfer.period,
        debit_balance: drafted.debit.balance,
        credit_balance: drafted.credit.balance,
        lots: drafted.moves.into_iter().map(|part| part.used).collect(),
        repeated: false,
    }
}

/// A transfer that is in the book, as far as a repeated key must be compared and answered.
struct Stored {
    debit: String,
    credit: String,
    unit: String,
    kind: String,
    reference: String,
    posted: Posted,
}

impl Stored {
    fn answer(&self, transfer: &Transfer) -> Result<Posted, Error> {
        let same = self.debit == transfer.debit
            && self.credit == transfer.credit
            && self.unit == transfer.unit
            && self.kind == transfer.kind
            && self.reference == transfer.reference
            && self.posted.amount == transfer.amount;
        if same { Ok(self.posted.clone()) } else { Err(Error::KeyReused(transfer.key.clone())) }
    }
}

async fn known_keys(tx: &Tx, transfers: impl Iterator<Item = &Transfer>) -> Result<HashMap<String, Stored>, Error> {
    let conn = tx.conn();
    let keys: HashSet<&str> = transfers.map(|transfer| transfer.key.as_str()).collect();
    let (one_of, values) = bulk::one_of_texts(conn, 1, keys.into_iter().map(str::to_owned));
    let text = format!(
        "SELECT t.no, t.key, t.unit, t.amount, t.period, t.kind, t.reference, t.debit_balance, t.credit_balance, d.id AS debit, c.id AS credit
         FROM ledger_transfer t JOIN ledger_account d ON d.no = t.debit JOIN ledger_account c ON c.no = t.credit WHERE t.key {one_of}"
    );
    let mut known = HashMap::new();
    for row in sql::all(conn, &text, values).await? {
        let period: i64 = sql::get(&row, "period")?;
        let key: String = sql::get(&row, "key")?;
        let number: i64 = sql::get(&row, "no")?;
        let posted = Posted {
            number,
            key: key.clone(),
            amount: sql::get(&row, "amount")?,
            period: Period::stored(period)?,
            debit_balance: sql::get(&row, "debit_balance")?,
            credit_balance: sql::get(&row, "credit_balance")?,
            lots: lots_of(tx, number).await?,
            repeated: true,
        };
        let stored = Stored {
            debit: sql::get(&row, "debit")?,
            credit: sql::get(&row, "credit")?,
            unit: sql::get(&row, "unit")?,
            kind: sql::get(&row, "kind")?,
            reference: sql::get(&row, "reference")?,
            posted,
        };
        known.insert(key, stored);
    }
    Ok(known)
}

async fn lots_of(tx: &Tx, transfer: i64) -> Result<Vec<LotUse>, Error> {
    let text = "SELECT l.source, l.issuer, l.cost_numerator, l.cost_denominator, l.expires_at, m.amount FROM ledger_lot_move m
                JOIN ledger_lot l ON l.no = m.lot WHERE m.transfer = $1 ORDER BY m.no";
    let mut uses = Vec::new();
    for row in sql::all(tx.conn(), text, [transfer.into()]).await? {
        let amount: i64 = sql::get(&row, "amount")?;
        let cost = Ratio::new(sql::get(&row, "cost_numerator")?, sql::get(&row, "cost_denominator")?);
        uses.push(LotUse {
            source: sql::get(&row, "source")?,
            issuer: sql::get(&row, "issuer")?,
            cost: cost.map_err(|e| heyuan_kernel::Error::Corrupt { what: "lot cost", why: e.to_string() })?,
            expires_at: Timestamp::clamped(sql::get(&row, "expires_at")?),
            amount: amount.abs(),
        });
    }
    Ok(uses)
}
