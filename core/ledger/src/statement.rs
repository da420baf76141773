//! What moved on an account: entry by entry, and as a period's turnover.

use crate::account::{self, Shape};
use crate::book::Ledger;
use crate::error::Error;
use crate::period::Period;
use heyuan_contract::Timestamp;
use heyuan_kernel::sql;

/// One entry of an account that keeps versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// The account's version after it, counted from 1 without gaps.
    pub version: i64,
    /// The transfer's key.
    pub key: String,
    /// The transfer's kind.
    pub kind: String,
    /// What it belongs to.
    pub reference: String,
    /// Positive into the account.
    pub amount: i64,
    /// The balance after it.
    pub balance: i64,
    /// The transfer's own time.
    pub occurred_at: Timestamp,
    /// The month that it counts in.
    pub period: Period,
}

/// What moved on an account in a period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turnover {
    /// Out of it.
    pub debits: i64,
    /// Into it.
    pub credits: i64,
}

/// The entries of an account that keeps versions, newest first. Its number is looked up before and both arms are spelled out, so that only
/// its own entries are read; a join with the view would read the whole book on SQLite.
pub(crate) const ENTRIES: &str = "
  SELECT debit_version AS version, -amount AS amount, debit_balance AS balance_after, key, kind, reference, occurred_at, period
  FROM ledger_transfer WHERE debit = $1 AND debit_version < $2
  UNION ALL
  SELECT credit_version, amount, credit_balance, key, kind, reference, occurred_at, period
  FROM ledger_transfer WHERE credit = $1 AND credit_version < $2
  ORDER BY 1 DESC LIMIT $3";

/// What moved on an account that keeps versions, in a period.
pub(crate) const TURNOVER: &str = "
  SELECT CAST(COALESCE(SUM(x.debits), 0) AS BIGINT) AS debits, CAST(COALESCE(SUM(x.credits), 0) AS BIGINT) AS credits FROM (
    SELECT SUM(amount) AS debits, 0 AS credits FROM ledger_transfer WHERE debit = $1 AND period = $2
    UNION ALL
    SELECT 0, SUM(amount) FROM ledger_transfer WHERE credit = $1 AND period = $2
  ) AS x";

/// The same of a striped account.
const STRIPED_TURNOVER: &str = "
  SELECT CAST(COALESCE(SUM(debits), 0) AS BIGINT) AS debits, CAST(COALESCE(SUM(credits), 0) AS BIGINT) AS credits
  FROM ledger_stripe WHERE account = $1 AND period = $2";

impl Ledger {
    /// The entries of an account that keeps versions, newest first, before a version.
    ///
    /// # Errors
    /// The database's.
    pub async fn statement(&self, account: &str, before: Option<i64>, limit: u64) -> Result<Vec<Leg>, Error> {
        let reader = self.kernel.db.reader();
        let Some((number, _)) = account::named(reader, account).await? else { return Ok(Vec::new()) };
        let values = [number.into(), before.unwrap_or(i64::MAX).into(), limit.into()];
        sql::all(reader, ENTRIES, values).await?.iter().map(read).collect()
    }

    /// What moved on an account in a period.
    ///
    /// # Errors
    /// The database's.
    pub async fn turnover<C: sql::Connection>(&self, conn: &C, account: &str, period: Period) -> Result<Turnover, Error> {
        let Some((number, shape)) = account::named(conn, account).await? else { return Ok(Turnover::default()) };
        let text = if shape == Shape::Striped { STRIPED_TURNOVER } else { TURNOVER };
        let Some(row) = sql::one(conn, text, [number.into(), period.number().into()]).await? else { return Ok(Turnover::default()) };
        Ok(Turnover { debits: sql::get(&row, "debits")?, credits: sql::get(&row, "credits")? })
    }
}

fn read(row: &sql::Row) -> Result<Leg, Error> {
    let period: i64 = sql::get(row, "period")?;
    Ok(Leg {
        version: sql::get(row, "version")?,
        key: sql::get(row, "key")?,
        kind: sql::get(row, "kind")?,
        reference: sql::get(row, "reference")?,
        amount: sql::get(row, "amount")?,
        balance: sql::get(row, "balance_after")?,
        occurred_at: Timestamp::clamped(sql::get(row, "occurred_at")?),
        period: Period::stored(period)?,
    })
}
