//! The gate of a book: which periods of a unit are open, and how one is closed while postings run.
//!
//! On PostgreSQL a unit of work that posts holds one advisory lock in its shared form until the commit, and a close takes the exclusive
//! form. The lock manager serves in turn: a close waits for the postings under way, those that come after it wait for the close, and
//! neither starves. What a unit reads once it holds the lock stays so until it commits. On SQLite the one writer is the gate.

use crate::book::Ledger;
use crate::bulk::{self, Column};
use crate::draft::Drafted;
use crate::error::Error;
use crate::period::Period;
use crate::transfer::Transfer;
use heyuan_kernel::{Tx, sql};
use sea_orm::DbBackend;
use std::collections::HashMap;

/// Taken by whoever posts.
pub(crate) const SHARED: &str = "pg_advisory_xact_lock_shared(hashtextextended('ledger/books', 13))::text";
/// Taken by whoever opens or closes.
const EXCLUSIVE: &str = "pg_advisory_xact_lock(hashtextextended('ledger/books', 13))::text";

/// The periods of a unit: it begins with one, and is closed from there on, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Book {
    opens_at: Period,
    closed_through: Option<Period>,
}

impl Book {
    /// Its first period.
    pub const fn opens_at(&self) -> Period {
        self.opens_at
    }

    /// Its last closed period.
    pub const fn closed_through(&self) -> Option<Period> {
        self.closed_through
    }

    /// The first period that still takes transfers.
    pub fn first_open(&self) -> Period {
        self.closed_through.map_or(self.opens_at, |closed| self.opens_at.max(closed.next()))
    }

    /// Whether nothing can be posted to a period any more, or never could.
    pub fn is_closed(&self, period: Period) -> bool {
        period < self.first_open()
    }

    /// The period in which a fact counts: its own while that is open, else the first open one.
    pub fn period(&self, own: Period) -> Period {
        own.max(self.first_open())
    }
}

impl Ledger {
    /// Opens the book of a unit with a period; transfers that are there already make it open earlier. Where it was kept elsewhere before
    /// it is closed up to a period, and opens with what is there. A book that is open stays as it is.
    ///
    /// # Errors
    /// The database's.
    pub async fn open_book(&self, tx: &Tx, unit: &str, opens_at: Period, closed_through: Option<Period>) -> Result<Book, Error> {
        if let Some(book) = read(tx.conn(), unit).await? {
            return Ok(book);
        }
        if tx.conn().backend() == DbBackend::Postgres {
            sql::one(tx.conn(), &format!("SELECT {EXCLUSIVE} AS locked"), []).await?;
        }
        let opens_at = closed_through.unwrap_or(opens_at);
        let opens_at = earliest(tx.conn(), unit).await?.map_or(opens_at, |earliest| earliest.min(opens_at));
        let closed = closed_through.map_or(0, Period::number);
        let text = "INSERT INTO ledger_book (name, opens_at, closed_through) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING";
        sql::execute(tx.conn(), text, [unit.into(), opens_at.number().into(), closed.into()]).await?;
        self.book(tx.conn(), unit).await
    }

    /// The book of a unit, as the connection sees it.
    ///
    /// # Errors
    /// [`heyuan_kernel::Error::Corrupt`] when nobody opened it; the database's.
    pub async fn book<C: sql::Connection>(&self, conn: &C, unit: &str) -> Result<Book, Error> {
        let missing = || heyuan_kernel::Error::Corrupt { what: "book", why: format!("nobody opened one of {unit}") };
        Ok(read(conn, unit).await?.ok_or_else(missing)?)
    }

    /// Whether the book of a unit is open.
    ///
    /// # Errors
    /// The database's.
    pub async fn has_book(&self, tx: &Tx, unit: &str) -> Result<bool, Error> {
        Ok(read(tx.conn(), unit).await?.is_some())
    }

    /// Enters the book of a unit: what is open in it now stays so until the commit. Before any other lock, so that nobody waits for a
    /// close with something that a posting under way wants.
    ///
    /// # Errors
    /// [`heyuan_kernel::Error::Corrupt`] when nobody opened it; the database's.
    pub async fn enter(&self, tx: &Tx, unit: &str) -> Result<Book, Error> {
        share(tx).await?;
        self.book(tx.conn(), unit).await
    }

    /// As [`Ledger::enter`], and lets one unit of work at a time go on that gives this name.
    ///
    /// # Errors
    /// As [`Ledger::enter`].
    pub async fn enter_alone(&self, tx: &Tx, unit: &str, name: &str) -> Result<Book, Error> {
        self.enter_all_alone(tx, unit, &[name.to_owned()]).await
    }

    /// The same for several names at once; everybody takes them in the same order.
    ///
    /// # Errors
    /// As [`Ledger::enter`].
    pub async fn enter_all_alone(&self, tx: &Tx, unit: &str, names: &[String]) -> Result<Book, Error> {
        let conn = tx.conn();
        if conn.backend() == DbBackend::Postgres {
            let (from, values) = bulk::source(conn, &["name"], &[Column::texts(names.iter().cloned())]);
            let text = format!(
                "SELECT {SHARED} AS shared, pg_advisory_xact_lock(hashtextextended(l.name, 7))::text AS alone
                 FROM (SELECT v.name FROM {from} ORDER BY v.name) AS l"
            );
            sql::all(conn, &text, values).await?;
        }
        self.book(conn, unit).await
    }

    /// The period that has to be closed before any later one: the one after the last closed one, or else the first in which anything was
    /// posted. `None`: nothing was.
    ///
    /// # Errors
    /// [`heyuan_kernel::Error::Corrupt`] when nobody opened the book; the database's.
    pub async fn next_to_close<C: sql::Connection>(&self, conn: &C, unit: &str) -> Result<Option<Period>, Error> {
        match self.book(conn, unit).await?.closed_through {
            Some(closed) => Ok(Some(closed.next())),
            None => earliest(conn, unit).await,
        }
    }

    /// Closes the next period of a unit, which for the first time may be any before that nothing was posted: the book begins with it
    /// then. It waits for the postings under way, and nothing can be posted to the period from the
    /// commit on. One that is closed already stays so. Nothing may have been posted before in the same unit of work.
    ///
    /// # Errors
    /// [`Error::NotNext`] for a later period than [`Ledger::next_to_close`]; the database's.
    pub async fn close_book(&self, tx: &Tx, unit: &str, period: Period) -> Result<Book, Error> {
        if tx.conn().backend() == DbBackend::Postgres {
            sql::one(tx.conn(), &format!("SELECT {EXCLUSIVE} AS locked"), []).await?;
        }
        let book = self.book(tx.conn(), unit).await?;
        if book.is_closed(period) {
            return Ok(book);
        }
        if let Some(next) = self.next_to_close(tx.conn(), unit).await?.filter(|next| period > *next) {
            return Err(Error::NotNext { book: unit.to_owned(), period, next });
        }
        let opens_at = if book.closed_through.is_none() { period } else { book.opens_at };
        let text = "UPDATE ledger_book SET opens_at = $2, closed_through = $3 WHERE name = $1";
        sql::execute(tx.conn(), text, [unit.into(), opens_at.number().into(), period.number().into()]).await?;
        Ok(Book { opens_at, closed_through: Some(period) })
    }
}

/// Keeps every close waiting until the commit.
pub(crate) async fn share(tx: &Tx) -> Result<(), Error> {
    if tx.conn().backend() == DbBackend::Postgres {
        sql::one(tx.conn(), &format!("SELECT {SHARED} AS shared"), []).await?;
    }
    Ok(())
}

/// The condition on a row `v` with `unit` and `period` that no book is closed for it.
pub(crate) const OPEN: &str =
    "NOT EXISTS (SELECT 1 FROM ledger_book b WHERE b.name = v.unit AND (v.period < b.opens_at OR v.period <= b.closed_through))";

/// Why some of these transfers were not written: a closed period, or a key that somebody else posted meanwhile.
pub(crate) async fn refusal(
    tx: &Tx,
    transfers: &[Transfer],
    fresh: &[(usize, Drafted)],
    written: &HashMap<String, i64>,
) -> Result<Error, Error> {
    for (index, _) in fresh {
        let transfer = &transfers[*index];
        if written.contains_key(&transfer.key) {
            continue;
        }
        if read(tx.conn(), &transfer.unit).await?.is_some_and(|book| book.is_closed(transfer.period)) {
            return Ok(Error::PeriodClosed { key: transfer.key.clone(), period: transfer.period });
        }
    }
    Ok(heyuan_kernel::Error::Stale("a transfer of the same key").into())
}

async fn read<C: sql::Connection>(conn: &C, unit: &str) -> Result<Option<Book>, Error> {
    let text = "SELECT opens_at, closed_through FROM ledger_book WHERE name = $1";
    let Some(row) = sql::one(conn, text, [unit.into()]).await? else { return Ok(None) };
    Ok(Some(Book {
        opens_at: Period::stored(sql::get(&row, "opens_at")?)?,
        closed_through: Period::from_number(sql::get(&row, "closed_through")?),
    }))
}

/// The first period in which anything of a unit was posted. What touches a striped account is told by its stripes, of which there are a few
/// a month; what moves between accounts that keep versions, such as points from one member to another, has an index of its own, which is
/// small and costs other postings nothing. So nobody waits at the gate for a walk through the whole book.
pub(crate) const EARLIEST: &str = "
  SELECT MIN(x.period) AS period FROM (
    SELECT MIN(s.period) AS period FROM ledger_stripe s WHERE (SELECT a.unit FROM ledger_account a WHERE a.no = s.account) = $1
    UNION ALL
    SELECT MIN(t.period) FROM ledger_transfer t WHERE t.unit = $1 AND t.debit_version IS NOT NULL AND t.credit_version IS NOT NULL
  ) AS x";

/// Read a few times in the life of a book: when it opens, and until its first close.
async fn earliest<C: sql::Connection>(conn: &C, unit: &str) -> Result<Option<Period>, Error> {
    let row = sql::one(conn, EARLIEST, [unit.into()]).await?;
    let earliest: Option<i64> = row.map_or(Ok(None), |row| sql::get(&row, "period"))?;
    earliest.map(Period::stored).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn month(number: i64) -> Period {
        Period::from_number(number).expect("a month")
    }

    #[test]
    fn a_fact_counts_in_its_own_month_or_in_the_first_open_one() {
        for (opens_at, closed, own, counts_in) in [
            (202_611, None, 202_611, 202_611),
            (202_611, None, 202_612, 202_612),
            (202_611, None, 197_001, 202_611),
            (202_611, Some(202_612), 202_611, 202_701),
            (202_611, Some(202_612), 202_702, 202_702),
        ] {
            let book = Book { opens_at: month(opens_at), closed_through: closed.map(month) };
            assert_eq!(book.period(month(own)), month(counts_in), "{book:?} {own}");
            assert_eq!(book.is_closed(month(own)), own != counts_in, "{book:?} {own}");
        }
    }
}
