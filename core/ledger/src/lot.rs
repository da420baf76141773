//! Lots: parts of a spendable balance with an issuer, a unit cost and an expiry.

use crate::account::{self, Row, Shape};
use crate::bulk;
use crate::error::Error;
use crate::period::Period;
use crate::transfer::{LotUse, Lots, Transfer};
use heyuan_contract::{Ratio, Timestamp};
use heyuan_kernel::{Tx, sql};
use sea_orm::DbBackend;
use std::iter;

/// A lot as a posting sees it.
#[derive(Debug, Clone)]
pub(crate) struct LotRow {
    pub(crate) no: i64,
    pub(crate) account: i64,
    pub(crate) source: String,
    pub(crate) issuer: String,
    pub(crate) cost: Ratio,
    pub(crate) amount: i64,
    pub(crate) remaining: i64,
    pub(crate) expires_at: Timestamp,
    pub(crate) period: i64,
}

impl LotRow {
    pub(crate) fn used(&self, amount: i64) -> LotUse {
        LotUse { source: self.source.clone(), issuer: self.issuer.clone(), cost: self.cost, expires_at: self.expires_at, amount }
    }
}

/// What a transfer took from a lot and nobody gave back yet.
#[derive(Debug, Clone)]
pub(crate) struct SpentRow {
    pub(crate) key: String,
    pub(crate) no: i64,
    pub(crate) lot: i64,
    pub(crate) left: i64,
}

/// A lot with something left in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenLot {
    /// The key of the transfer that opened it.
    pub source: String,
    /// Who stands for it.
    pub issuer: String,
    /// Fen a point.
    pub cost: Ratio,
    /// What it opened with.
    pub amount: i64,
    /// What is left and free.
    pub remaining: i64,
    /// When it expires.
    pub expires_at: Timestamp,
}

/// A lot that is past its expiry and still holds something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiredLot {
    /// The account that it stands in.
    pub account: String,
    /// The lot.
    pub lot: OpenLot,
    /// Since when it is so: its expiry, or later, when something came back into it or a hold set some of it free only then.
    pub since: Timestamp,
}

/// What a period did to lots of one issuer, unit cost and kind of transfer, against one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LotMovement {
    /// Who stands for the lots.
    pub issuer: String,
    /// The account on the other side.
    pub other: String,
    /// The kind of the transfers.
    pub kind: String,
    /// Fen a point.
    pub cost: Ratio,
    /// Positive into lots, negative out of them.
    pub amount: i64,
}

const COLUMNS: &str =
    "l.no, l.account, l.source, l.issuer, l.cost_numerator, l.cost_denominator, l.amount, l.remaining, l.expires_at, l.period";

pub(crate) fn cost(row: &sql::Row) -> Result<Ratio, Error> {
    let ratio = Ratio::new(sql::get(row, "cost_numerator")?, sql::get(row, "cost_denominator")?);
    ratio.map_err(|e| heyuan_kernel::Error::Corrupt { what: "lot cost", why: e.to_string() }.into())
}

fn read(row: &sql::Row) -> Result<LotRow, Error> {
    Ok(LotRow {
        no: sql::get(row, "no")?,
        account: sql::get(row, "account")?,
        source: sql::get(row, "source")?,
        issuer: sql::get(row, "issuer")?,
        cost: cost(row)?,
        amount: sql::get(row, "amount")?,
        remaining: sql::get(row, "remaining")?,
        expires_at: Timestamp::clamped(sql::get(row, "expires_at")?),
        period: sql::get(row, "period")?,
    })
}

/// The lots that a batch may draw from; their accounts are locked, and with them the lots.
pub(crate) async fn load(tx: &Tx, accounts: &[Row], transfers: &[Transfer]) -> Result<(Vec<LotRow>, Vec<SpentRow>), Error> {
    let numbered = |id: &str| accounts.iter().find(|row| row.id == id && row.shape == Shape::Lots).map(|row| row.no);
    let mut whole: Vec<i64> = Vec::new();
    let mut sources: Vec<String> = Vec::new();
    let mut restored: Vec<String> = Vec::new();
    for transfer in transfers {
        match &transfer.lots {
            Lots::FirstExpiring => whole.extend(numbered(&transfer.debit)),
            Lots::From(source) | Lots::Carried(source) => sources.push(source.clone()),
            Lots::Parts(parts) => sources.extend(parts.iter().map(|part| part.source.clone())),
            Lots::RestoredFrom(key) => restored.push(key.clone()),
            Lots::None | Lots::New(_) => {}
        }
    }
    let conn = tx.conn();
    let mut lots = Vec::new();
    if !whole.is_empty() {
        let (one_of, values) = bulk::one_of_numbers(conn, 1, whole);
        let text = format!("SELECT {COLUMNS} FROM ledger_lot l WHERE l.account {one_of} AND l.remaining > 0");
        lots.extend(sql::all(conn, &text, values).await?.iter().map(read).collect::<Result<Vec<_>, _>>()?);
    }
    if !sources.is_empty() {
        let (one_of, values) = bulk::one_of_texts(conn, 1, sources);
        let text = format!("SELECT {COLUMNS} FROM ledger_lot l WHERE l.source {one_of}");
        lots.extend(sql::all(conn, &text, values).await?.iter().map(read).collect::<Result<Vec<_>, _>>()?);
    }
    let mut spent = Vec::new();
    if !restored.is_empty() {
        let (one_of, values) = bulk::one_of_texts(conn, 1, restored);
        let text = format!(
            "SELECT {COLUMNS}, m.no AS move_no, t.key AS key,
               -m.amount - COALESCE((SELECT CAST(SUM(r.amount) AS BIGINT) FROM ledger_lot_move r WHERE r.restores = m.no), 0) AS left_over
             FROM ledger_transfer t JOIN ledger_lot_move m ON m.transfer = t.no JOIN ledger_lot l ON l.no = m.lot
             WHERE t.key {one_of} AND m.amount < 0 ORDER BY l.expires_at DESC, m.no DESC"
        );
        for row in sql::all(conn, &text, values).await? {
            let lot = read(&row)?;
            spent.push(SpentRow {
                key: sql::get(&row, "key")?,
                no: sql::get(&row, "move_no")?,
                lot: lot.no,
                left: sql::get(&row, "left_over")?,
            });
            lots.push(lot);
        }
    }
    Ok((lots, spent))
}

/// The lots of one locked account that still hold something.
pub(crate) async fn of_account(tx: &Tx, accounts: &[Row], id: &str) -> Result<Vec<LotRow>, Error> {
    let account = accounts.iter().find(|row| row.id == id).map_or(0, |row| row.no);
    let text = format!("SELECT {COLUMNS} FROM ledger_lot l WHERE l.account = $1 AND l.remaining > 0");
    sql::all(tx.conn(), &text, [account.into()]).await?.iter().map(read).collect()
}

/// The lot that a transfer opened.
pub(crate) async fn of_source(tx: &Tx, source: &str) -> Result<Option<LotRow>, Error> {
    let text = format!("SELECT {COLUMNS} FROM ledger_lot l WHERE l.source = $1");
    sql::one(tx.conn(), &text, [source.into()]).await?.as_ref().map(read).transpose()
}

fn open_lot(row: &sql::Row) -> Result<OpenLot, Error> {
    let lot = read(row)?;
    Ok(OpenLot {
        source: lot.source,
        issuer: lot.issuer,
        cost: lot.cost,
        amount: lot.amount,
        remaining: lot.remaining,
        expires_at: lot.expires_at,
    })
}

/// The open lots of an account, first-expiring first.
pub(crate) async fn open<C: sql::Connection>(conn: &C, account: &str, limit: u64) -> Result<Vec<OpenLot>, Error> {
    let text = format!(
        "SELECT {COLUMNS} FROM ledger_lot l JOIN ledger_account a ON a.no = l.account
         WHERE a.id = $1 AND l.remaining > 0 ORDER BY l.expires_at, l.no LIMIT $2"
    );
    sql::all(conn, &text, [account.into(), limit.into()]).await?.iter().map(open_lot).collect()
}

/// What can be spent at an instant, and the first expiry among it.
pub(crate) async fn spendable<C: sql::Connection>(conn: &C, account: &str, at: Timestamp) -> Result<(i64, Option<Timestamp>), Error> {
    let text = "SELECT CAST(COALESCE(SUM(l.remaining), 0) AS BIGINT) AS amount, MIN(l.expires_at) AS first FROM ledger_lot l
                JOIN ledger_account a ON a.no = l.account WHERE a.id = $1 AND l.remaining > 0 AND l.expires_at > $2";
    let Some(row) = sql::one(conn, text, [account.into(), at.ms().into()]).await? else { return Ok((0, None)) };
    let first: Option<i64> = sql::get(&row, "first")?;
    Ok((sql::get(&row, "amount")?, first.map(Timestamp::clamped)))
}

/// The columns of an [`ExpiredLot`].
fn expired_columns() -> String {
    format!(
        "{COLUMNS}, a.id AS account_id, (SELECT MAX(t.occurred_at) FROM ledger_lot_move m JOIN ledger_transfer t ON t.no = m.transfer
           WHERE m.lot = l.no AND m.amount > 0) AS restored_at, l.freed_at"
    )
}

fn expired_lot(row: &sql::Row) -> Result<ExpiredLot, Error> {
    let lot = open_lot(row)?;
    let restored_at: Option<i64> = sql::get(row, "restored_at")?;
    let freed_at: Option<i64> = sql::get(row, "freed_at")?;
    let since = [restored_at, freed_at].into_iter().flatten().map(Timestamp::clamped).fold(lot.expires_at, Timestamp::max);
    Ok(ExpiredLot { account: sql::get(row, "account_id")?, lot, since })
}

/// Lots of a unit that are past their expiry and still hold something.
pub(crate) async fn expired<C: sql::Connection>(conn: &C, unit: &str, at: Timestamp, limit: u64) -> Result<Vec<ExpiredLot>, Error> {
    let text = format!(
        "SELECT {} FROM ledger_lot l JOIN ledger_account a ON a.no = l.account
         WHERE l.remaining > 0 AND l.expires_at <= $1 AND a.unit = $2 ORDER BY l.expires_at, l.no LIMIT $3",
        expired_columns()
    );
    sql::all(conn, &text, [at.ms().into(), unit.into(), limit.into()]).await?.iter().map(expired_lot).collect()
}

/// Those of the lots that are past their expiry and still hold something, with their accounts locked.
pub(crate) async fn lock_expired(tx: &Tx, sources: &[String], at: Timestamp) -> Result<Vec<ExpiredLot>, Error> {
    if sources.is_empty() {
        return Ok(Vec::new());
    }
    let conn = tx.conn();
    let (one_of, list) = bulk::one_of_texts(conn, 2, sources.iter().cloned());
    let in_time: Vec<sea_orm::Value> = iter::once(at.ms().into()).chain(list).collect();
    if conn.backend() == DbBackend::Postgres {
        let text = format!(
            "SELECT DISTINCT a.id FROM ledger_lot l JOIN ledger_account a ON a.no = l.account
             WHERE l.source {one_of} AND l.remaining > 0 AND l.expires_at <= $1"
        );
        let rows = sql::all(conn, &text, in_time.clone()).await?;
        let accounts = rows.iter().map(|row| sql::get(row, "id")).collect::<Result<Vec<String>, _>>()?;
        account::lock(tx, &accounts).await?;
    }
    let text = format!(
        "SELECT {} FROM ledger_lot l JOIN ledger_account a ON a.no = l.account
         WHERE l.source {one_of} AND l.remaining > 0 AND l.expires_at <= $1 ORDER BY l.expires_at, l.no",
        expired_columns()
    );
    sql::all(conn, &text, in_time).await?.iter().map(expired_lot).collect()
}

/// How many lots a period opened, and how often it moved something out of lots or back. Neither is ever taken away, so that the same number
/// means the same movements.
pub(crate) async fn movements_count<C: sql::Connection>(conn: &C, period: Period) -> Result<i64, Error> {
    let text = "SELECT (SELECT COUNT(*) FROM ledger_lot WHERE period = $1) + (SELECT COUNT(*) FROM ledger_lot_move WHERE period = $1) AS n";
    Ok(sql::count(conn, text, [period.number().into()]).await?)
}

/// What a period did to the lots of a unit: what was opened, and what moved out of lots and back.
pub(crate) async fn movements<C: sql::Connection>(conn: &C, unit: &str, period: Period) -> Result<Vec<LotMovement>, Error> {
    let text = "
      SELECT x.issuer, x.cost_numerator, x.cost_denominator, x.kind, a.id AS other, CAST(SUM(x.amount) AS BIGINT) AS amount FROM (
        SELECT l.issuer, l.cost_numerator, l.cost_denominator, t.kind, t.debit AS other, l.amount
        FROM ledger_lot l JOIN ledger_transfer t ON t.key = l.source WHERE l.period = $1 AND t.unit = $2
        UNION ALL
        SELECT l.issuer, l.cost_numerator, l.cost_denominator, t.kind, CASE WHEN m.amount < 0 THEN t.credit ELSE t.debit END, m.amount
        FROM ledger_lot_move m JOIN ledger_lot l ON l.no = m.lot JOIN ledger_transfer t ON t.no = m.transfer
        WHERE m.period = $1 AND t.unit = $2
      ) AS x JOIN ledger_account a ON a.no = x.other
      GROUP BY x.issuer, x.cost_numerator, x.cost_denominator, x.kind, a.id
      ORDER BY x.issuer, x.kind, a.id, x.cost_numerator, x.cost_denominator";
    let rows = sql::all(conn, text, [period.number().into(), unit.into()]).await?;
    rows.iter()
        .map(|row| {
            Ok(LotMovement {
                issuer: sql::get(row, "issuer")?,
                other: sql::get(row, "other")?,
                kind: sql::get(row, "kind")?,
                cost: cost(row)?,
                amount: sql::get(row, "amount")?,
            })
        })
        .collect()
}
