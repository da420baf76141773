//! The book as an auditor reads it: the statement of an account, the trial balance, and every entry of a period.

use crate::account::{self, Shape};
use crate::book::Ledger;
use crate::error::Error;
use crate::period::Period;
use heyuan_contract::Timestamp;
use heyuan_kernel::sql;
use heyuan_kernel::time::format_rfc3339;
use sea_orm::DbBackend;

/// Transfers of one page of an export: bounds what is held in memory.
const EXPORT_PAGE: i64 = 2000;
/// Groups of a trial balance: lines, the centre and kinds of owners are far fewer.
const GROUPS_MAX: i64 = 10_000;

/// An account in a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountStatement {
    /// The account.
    pub account: String,
    /// The month.
    pub period: Period,
    /// What it held when the month began: everything that counts in earlier ones.
    pub opening: i64,
    /// What went out in the month.
    pub debits: i64,
    /// What came in in the month.
    pub credits: i64,
    /// What it held when the month ended.
    pub closing: i64,
    /// A page of its entries of the month, in the order in which they were posted.
    pub entries: Vec<StatementEntry>,
}

/// An entry of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementEntry {
    /// Its place among the account's entries: where the next page goes on.
    pub place: i64,
    /// The transfer's number in the book.
    pub transfer: i64,
    /// The transfer's key.
    pub key: String,
    /// The account on the other side.
    pub other: String,
    /// Positive into the account.
    pub amount: i64,
    /// The balance after it; `None` for a striped account.
    pub balance: Option<i64>,
    /// The transfer's kind.
    pub kind: String,
    /// What it belongs to.
    pub reference: String,
    /// The transfer's own time.
    pub occurred_at: Timestamp,
}

/// A line of the trial balance: an account of a business line or of the centre, or all accounts of one kind of owner together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialLine {
    /// The unit's code.
    pub unit: String,
    /// `line/mall/points_issued`, `centre`; for many owners together `member/*/points`.
    pub group: String,
    /// What they held when the month began.
    pub opening: i64,
    /// What went out in the month.
    pub debits: i64,
    /// What came in in the month.
    pub credits: i64,
    /// What they held when the month ended.
    pub closing: i64,
}

/// A page of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryRows {
    /// Two rows a transfer: what it took from one account, then what it gave to the other.
    pub rows: Vec<[String; 12]>,
    /// The transfer after which the next page starts; `None` on the last one.
    pub next: Option<i64>,
}

/// The header of an export.
pub const ENTRY_COLUMNS: [&str; 12] =
    ["transfer", "key", "period", "occurred_at", "posted_at", "unit", "account", "amount", "version", "balance", "kind", "reference"];

/// What counts before a period and in it: of an account that keeps versions from its transfers, of a striped one from its stripes.
const SUMS: &str = "
  SELECT CAST(COALESCE(SUM(CASE WHEN x.period < $2 THEN x.credits - x.debits ELSE 0 END), 0) AS BIGINT) AS opening,
    CAST(COALESCE(SUM(CASE WHEN x.period = $2 THEN x.debits ELSE 0 END), 0) AS BIGINT) AS debits,
    CAST(COALESCE(SUM(CASE WHEN x.period = $2 THEN x.credits ELSE 0 END), 0) AS BIGINT) AS credits FROM (";
const PLAIN_SUMS: &str = "
    SELECT period, amount AS debits, 0 AS credits FROM ledger_transfer WHERE debit = $1
    UNION ALL
    SELECT period, 0, amount FROM ledger_transfer WHERE credit = $1) AS x";
const STRIPED_SUMS: &str = "SELECT period, debits, credits FROM ledger_stripe WHERE account = $1) AS x";

/// A page of an account's entries of a period, along its indexes: by its versions, or, where it keeps none, by the transfers' numbers.
pub(crate) fn page(backend: DbBackend, striped: bool) -> String {
    let arm = |side: &str, other: &str, sign: &str| {
        let (place, balance, on) = if striped {
            ("no".to_owned(), "NULL".to_owned(), format!("{side}_version IS NULL AND no > $2"))
        } else {
            (format!("{side}_version"), format!("{side}_balance"), format!("{side}_version > $2"))
        };
        format!(
            "SELECT {place} AS place, no, {sign}amount AS amount, CAST({balance} AS BIGINT) AS balance_after, key, kind, reference, occurred_at,
               (SELECT a.id FROM ledger_account a WHERE a.no = {other}) AS other
             FROM ledger_transfer WHERE {side} = $1 AND {on} AND period = $3"
        )
    };
    let (debit, credit) = (arm("debit", "credit", "-"), arm("credit", "debit", ""));
    match backend {
        DbBackend::Postgres => format!("({debit} ORDER BY 1 LIMIT $4) UNION ALL ({credit} ORDER BY 1 LIMIT $4) ORDER BY 1 LIMIT $4"),
        _ => format!("{debit} UNION ALL {credit} ORDER BY 1 LIMIT $4"),
    }
}

/// The trial balance. Accounts of owners stand together by the first and the last part of their ids; those of lines and of nobody else's
/// stand alone.
fn trial(backend: DbBackend) -> String {
    let (first, last) = match backend {
        DbBackend::Postgres => ("split_part(a.id, '/', 1)", "regexp_replace(a.id, '^.*/', '')"),
        _ => ("substr(a.id, 1, instr(a.id, '/') - 1)", "replace(a.id, rtrim(a.id, replace(a.id, '/', '')), '')"),
    };
    let sums = "SUM(CASE WHEN period < $1 THEN {o} ELSE 0 END) AS opening, SUM(CASE WHEN period = $1 THEN {d} ELSE 0 END) AS debits,
                SUM(CASE WHEN period = $1 THEN {c} ELSE 0 END) AS credits";
    let sums = |opening: &str, debits: &str, credits: &str| sums.replace("{o}", opening).replace("{d}", debits).replace("{c}", credits);
    format!(
        "SELECT a.unit, CASE WHEN a.id LIKE 'line/%' OR a.id NOT LIKE '%/%' THEN a.id ELSE {first} || '/*/' || {last} END AS owners,
           CAST(SUM(x.opening) AS BIGINT) AS opening, CAST(SUM(x.debits) AS BIGINT) AS debits, CAST(SUM(x.credits) AS BIGINT) AS credits FROM (
           SELECT debit AS account, {out} FROM ledger_transfer WHERE debit_version IS NOT NULL AND period <= $1 GROUP BY debit
           UNION ALL
           SELECT credit, {into} FROM ledger_transfer WHERE credit_version IS NOT NULL AND period <= $1 GROUP BY credit
           UNION ALL
           SELECT account, {both} FROM ledger_stripe WHERE period <= $1 GROUP BY account
         ) AS x JOIN ledger_account a ON a.no = x.account GROUP BY 1, 2 ORDER BY 1, 2 LIMIT $2",
        out = sums("-amount", "amount", "0"),
        into = sums("amount", "0", "amount"),
        both = sums("credits - debits", "debits", "credits"),
    )
}

impl Ledger {
    /// An account in a period, with a page of its entries after a place. An account without entries has a statement of zeros.
    ///
    /// # Errors
    /// [`Error::UnknownAccount`]; the database's.
    pub async fn account_statement<C: sql::Connection>(
        &self,
        conn: &C,
        account: &str,
        period: Period,
        after: Option<i64>,
        limit: u64,
    ) -> Result<AccountStatement, Error> {
        let unknown = || Error::UnknownAccount(account.to_owned());
        let (number, shape) = account::named(conn, account).await?.ok_or_else(unknown)?;
        let striped = shape == Shape::Striped;
        let text = format!("{SUMS}{}", if striped { STRIPED_SUMS } else { PLAIN_SUMS });
        let row = sql::one(conn, &text, [number.into(), period.number().into()]).await?.ok_or_else(unknown)?;
        let (opening, debits, credits): (i64, i64, i64) =
            (sql::get(&row, "opening")?, sql::get(&row, "debits")?, sql::get(&row, "credits")?);
        let values = [number.into(), after.unwrap_or(0).into(), period.number().into(), limit.into()];
        let rows = sql::all(conn, &page(conn.backend(), striped), values).await?;
        let entries = rows.iter().map(read_entry).collect::<Result<Vec<_>, Error>>()?;
        let closing = opening + credits - debits;
        Ok(AccountStatement { account: account.to_owned(), period, opening, debits, credits, closing, entries })
    }

    /// What every account or kind of accounts held before a period, what moved in it, and what it held then; each column of a unit sums
    /// to zero, debits to credits. It reads every transfer up to the period once.
    ///
    /// # Errors
    /// The database's.
    pub async fn trial_balance<C: sql::Connection>(&self, conn: &C, period: Period) -> Result<Vec<TrialLine>, Error> {
        let rows = sql::all(conn, &trial(conn.backend()), [period.number().into(), GROUPS_MAX.into()]).await?;
        let lines = rows.iter().map(|row| {
            let (opening, debits, credits): (i64, i64, i64) =
                (sql::get(row, "opening")?, sql::get(row, "debits")?, sql::get(row, "credits")?);
            let (unit, group) = (sql::get(row, "unit")?, sql::get(row, "owners")?);
            Ok(TrialLine { unit, group, opening, debits, credits, closing: opening + credits - debits })
        });
        lines.collect()
    }

    /// A page of the entries of a period, or of all, in the order in which they were posted, as rows under [`ENTRY_COLUMNS`].
    ///
    /// # Errors
    /// The database's.
    pub async fn entry_rows<C: sql::Connection>(&self, conn: &C, period: Option<Period>, after: i64) -> Result<EntryRows, Error> {
        // Without a period every month fits: one text, one plan.
        let (from, to) = period.map_or((0, i64::MAX), |period| (period.number(), period.number()));
        let text = "
          SELECT t.no, t.key, t.period, t.occurred_at, t.posted_at, t.unit, d.id AS debit, c.id AS credit, t.amount,
            t.debit_version, t.debit_balance, t.credit_version, t.credit_balance, t.kind, t.reference
          FROM ledger_transfer t JOIN ledger_account d ON d.no = t.debit JOIN ledger_account c ON c.no = t.credit
          WHERE t.no > $1 AND t.period >= $2 AND t.period <= $3 ORDER BY t.no LIMIT $4";
        let found = sql::all(conn, text, [after.into(), from.into(), to.into(), EXPORT_PAGE.into()]).await?;
        let mut page = EntryRows { rows: Vec::with_capacity(found.len() * 2), next: None };
        for row in &found {
            let amount: i64 = sql::get(row, "amount")?;
            page.rows.push(entry_row(row, "debit", -amount)?);
            page.rows.push(entry_row(row, "credit", amount)?);
        }
        if i64::try_from(found.len()) == Ok(EXPORT_PAGE) {
            page.next = found.last().map(|row| sql::get(row, "no")).transpose()?;
        }
        Ok(page)
    }
}

fn read_entry(row: &sql::Row) -> Result<StatementEntry, Error> {
    Ok(StatementEntry {
        place: sql::get(row, "place")?,
        transfer: sql::get(row, "no")?,
        key: sql::get(row, "key")?,
        other: sql::get(row, "other")?,
        amount: sql::get(row, "amount")?,
        balance: sql::get(row, "balance_after")?,
        kind: sql::get(row, "kind")?,
        reference: sql::get(row, "reference")?,
        occurred_at: Timestamp::clamped(sql::get(row, "occurred_at")?),
    })
}

fn entry_row(row: &sql::Row, side: &str, amount: i64) -> Result<[String; 12], Error> {
    let at = |column: &str| Ok::<_, Error>(format_rfc3339(Timestamp::clamped(sql::get(row, column)?)));
    let kept =
        |column: &str| Ok::<_, Error>(sql::get::<Option<i64>>(row, &format!("{side}_{column}"))?.map_or(String::new(), |n| n.to_string()));
    let period: i64 = sql::get(row, "period")?;
    Ok([
        sql::get::<i64>(row, "no")?.to_string(),
        sql::get(row, "key")?,
        Period::stored(period)?.to_string(),
        at("occurred_at")?,
        at("posted_at")?,
        sql::get(row, "unit")?,
        sql::get(row, side)?,
        amount.to_string(),
        kept("version")?,
        kept("balance")?,
        sql::get(row, "kind")?,
        sql::get(row, "reference")?,
    ])
}
