//! What moved on an account: entry by entry, and as a period's turnover.

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

impl Ledger {
    /// The entries of an account that keeps versions, newest first, before a version.
    ///
    /// # Errors
    /// The database's.
    pub async fn statement(&self, account: &str, before: Option<i64>, limit: u64) -> Result<Vec<Leg>, Error> {
        let text = "
          SELECT e.version, e.amount, e.balance_after, t.key, t.kind, t.reference, t.occurred_at, t.period
          FROM ledger_account a JOIN ledger_entry e ON e.account = a.no JOIN ledger_transfer t ON t.no = e.transfer
          WHERE a.id = $1 AND e.version < $2 ORDER BY e.version DESC LIMIT $3";
        let values = [account.into(), before.unwrap_or(i64::MAX).into(), limit.into()];
        sql::all(self.kernel.db.reader(), text, values).await?.iter().map(read).collect()
    }

    /// What moved on an account in a period.
    ///
    /// # Errors
    /// The database's.
    pub async fn turnover<C: sql::Connection>(&self, conn: &C, account: &str, period: Period) -> Result<Turnover, Error> {
        let text = "
          SELECT CAST(COALESCE(SUM(x.debits), 0) AS BIGINT) AS debits, CAST(COALESCE(SUM(x.credits), 0) AS BIGINT) AS credits FROM (
            SELECT s.debits, s.credits FROM ledger_stripe s JOIN ledger_account a ON a.no = s.account
            WHERE a.id = $1 AND a.shape = 'striped' AND s.period = $2
            UNION ALL
            SELECT CASE WHEN e.amount < 0 THEN -e.amount ELSE 0 END, CASE WHEN e.amount > 0 THEN e.amount ELSE 0 END
            FROM ledger_account a JOIN ledger_entry e ON e.account = a.no WHERE a.id = $1 AND a.shape <> 'striped' AND e.period = $2
          ) AS x";
        let Some(row) = sql::one(conn, text, [account.into(), period.number().into()]).await? else { return Ok(Turnover::default()) };
        Ok(Turnover { debits: sql::get(&row, "debits")?, credits: sql::get(&row, "credits")? })
    }
}

fn read(row: &sql::Row) -> Result<Leg, Error> {
    let period: i64 = sql::get(row, "period")?;
    let corrupt = || heyuan_kernel::Error::Corrupt { what: "accounting period", why: period.to_string() };
    Ok(Leg {
        version: sql::get(row, "version")?,
        key: sql::get(row, "key")?,
        kind: sql::get(row, "kind")?,
        reference: sql::get(row, "reference")?,
        amount: sql::get(row, "amount")?,
        balance: sql::get(row, "balance_after")?,
        occurred_at: Timestamp::clamped(sql::get(row, "occurred_at")?),
        period: Period::from_number(period).ok_or_else(corrupt)?,
    })
}
