//! The trail of lots: what a period did to them one by one, and everything that happened to one of them.
//!
//! A walk goes by numbers within the bounds of its period, so that a page costs its own rows and not the whole month.

use crate::book::Ledger;
use crate::error::Error;
use crate::lot;
use crate::period::Period;
use heyuan_contract::{Ratio, Timestamp};
use heyuan_kernel::sql;
use heyuan_kernel::sql::placeholders;

/// What opened lots, or what moved out of lots and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trail {
    /// Lots that were opened.
    Opened,
    /// Amounts that left lots or came back into them.
    Moved,
}

/// Which steps of a period are walked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrailOf<'a> {
    /// The unit's code.
    pub unit: &'a str,
    /// The month.
    pub period: Period,
    /// Openings or moves.
    pub trail: Trail,
    /// The kinds of transfers.
    pub kinds: &'a [&'a str],
    /// Who stands for the lots; anybody when left out.
    pub issuer: Option<&'a str>,
    /// The account on the other side; any when left out.
    pub other: Option<&'a str>,
}

/// Where a walk stands: behind a number, and before what came after it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrailPlace {
    /// The last number seen.
    pub after: i64,
    /// The last number of the walk.
    pub until: i64,
}

/// One step of a lot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LotStep {
    /// Its number on its trail: where the next page goes on.
    pub number: i64,
    /// The key of the transfer that opened the lot.
    pub source: String,
    /// Who stands for the lot.
    pub issuer: String,
    /// Fen a point.
    pub cost: Ratio,
    /// When the lot expires.
    pub expires_at: Timestamp,
    /// The key of the transfer that made the step.
    pub key: String,
    /// Its kind.
    pub kind: String,
    /// The account on its other side.
    pub other: String,
    /// Positive into the lot, negative out of it.
    pub amount: i64,
    /// The transfer's own time.
    pub occurred_at: Timestamp,
    /// The month that it counts in.
    pub period: Period,
    /// What it belongs to.
    pub reference: String,
}

/// A lot as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LotState {
    /// How it was opened.
    pub opened: LotStep,
    /// The account that holds it.
    pub account: String,
    /// What is left and free.
    pub remaining: i64,
    /// What open holds have set aside.
    pub held: i64,
}

/// What is alike in all steps, in the order of their transfer.
const STEP: &str =
    "l.source, l.issuer, l.cost_numerator, l.cost_denominator, l.expires_at, t.key, t.kind, a.id AS other, t.occurred_at, t.reference";

/// The rows of a trail: its numbers, amounts and months, and its joins.
const fn rows(trail: Trail) -> (&'static str, &'static str) {
    match trail {
        Trail::Opened => (
            "l.no AS place, l.amount AS moved, l.period AS period",
            "ledger_lot l JOIN ledger_transfer t ON t.key = l.source JOIN ledger_account a ON a.no = t.debit",
        ),
        Trail::Moved => (
            "m.no AS place, m.amount AS moved, m.period AS period",
            "ledger_lot_move m JOIN ledger_lot l ON l.no = m.lot JOIN ledger_transfer t ON t.no = m.transfer
             JOIN ledger_account a ON a.no = CASE WHEN m.amount < 0 THEN t.credit ELSE t.debit END",
        ),
    }
}

/// A page of a walk.
pub(crate) fn page(trail: Trail, kinds: usize) -> String {
    let (columns, from) = rows(trail);
    let (number, period) = match trail {
        Trail::Opened => ("l.no", "l.period"),
        Trail::Moved => ("m.no", "m.period"),
    };
    format!(
        "SELECT {columns}, {STEP} FROM {from}
         WHERE {number} > $1 AND {number} <= $2 AND {period} = $3 AND t.unit = $4
           AND ($5 = '' OR l.issuer = $5) AND ($6 = '' OR a.id = $6) AND t.kind IN ({})
         ORDER BY {number} LIMIT $7",
        placeholders(8, kinds)
    )
}

impl Ledger {
    /// Where a walk through a period begins. The sums of a whole walk are those of [`Ledger::lot_movements`], as far as they had been
    /// posted when it began; a closed period has no others.
    ///
    /// # Errors
    /// The database's.
    pub async fn trail_start<C: sql::Connection>(&self, conn: &C, trail: Trail, period: Period) -> Result<TrailPlace, Error> {
        let table = match trail {
            Trail::Opened => "ledger_lot",
            Trail::Moved => "ledger_lot_move",
        };
        // Not the bare number: PostgreSQL would look for it along all numbers from the first.
        let text = format!("SELECT MIN(no + 0) AS first, MAX(no + 0) AS last FROM {table} WHERE period = $1");
        let row = sql::one(conn, &text, [period.number().into()]).await?;
        let (first, last): (Option<i64>, Option<i64>) = match row {
            Some(row) => (sql::get(&row, "first")?, sql::get(&row, "last")?),
            None => (None, None),
        };
        Ok(TrailPlace { after: first.unwrap_or(1) - 1, until: last.unwrap_or(0) })
    }

    /// A page of a walk, in the order of its numbers.
    ///
    /// # Errors
    /// The database's.
    pub async fn trail_page<C: sql::Connection>(
        &self,
        conn: &C,
        of: &TrailOf<'_>,
        place: TrailPlace,
        limit: u64,
    ) -> Result<Vec<LotStep>, Error> {
        let text = page(of.trail, of.kinds.len());
        let values: [sea_orm::Value; 7] = [
            place.after.into(),
            place.until.into(),
            of.period.number().into(),
            of.unit.into(),
            of.issuer.unwrap_or_default().into(),
            of.other.unwrap_or_default().into(),
            limit.into(),
        ];
        let values = values.into_iter().chain(of.kinds.iter().map(|kind| (*kind).into()));
        sql::all(conn, &text, values.collect::<Vec<sea_orm::Value>>()).await?.iter().map(read).collect()
    }

    /// The lot that a transfer opened, as it stands.
    ///
    /// # Errors
    /// The database's.
    pub async fn lot_state<C: sql::Connection>(&self, conn: &C, unit: &str, source: &str) -> Result<Option<LotState>, Error> {
        let (columns, from) = rows(Trail::Opened);
        let text = format!(
            "SELECT {columns}, {STEP}, o.id AS account, l.remaining, l.held FROM {from} JOIN ledger_account o ON o.no = l.account
             WHERE l.source = $1 AND t.unit = $2"
        );
        let Some(row) = sql::one(conn, &text, [source.into(), unit.into()]).await? else { return Ok(None) };
        Ok(Some(LotState {
            opened: read(&row)?,
            account: sql::get(&row, "account")?,
            remaining: sql::get(&row, "remaining")?,
            held: sql::get(&row, "held")?,
        }))
    }

    /// A page of what happened to the lot that a transfer opened since then, the first first.
    ///
    /// # Errors
    /// The database's.
    pub async fn lot_steps<C: sql::Connection>(&self, conn: &C, source: &str, after: i64, limit: u64) -> Result<Vec<LotStep>, Error> {
        let (columns, from) = rows(Trail::Moved);
        let text = format!("SELECT {columns}, {STEP} FROM {from} WHERE l.source = $1 AND m.no > $2 ORDER BY m.no LIMIT $3");
        sql::all(conn, &text, [source.into(), after.into(), limit.into()]).await?.iter().map(read).collect()
    }
}

fn read(row: &sql::Row) -> Result<LotStep, Error> {
    let period: i64 = sql::get(row, "period")?;
    Ok(LotStep {
        number: sql::get(row, "place")?,
        source: sql::get(row, "source")?,
        issuer: sql::get(row, "issuer")?,
        cost: lot::cost(row)?,
        expires_at: Timestamp::clamped(sql::get(row, "expires_at")?),
        key: sql::get(row, "key")?,
        kind: sql::get(row, "kind")?,
        other: sql::get(row, "other")?,
        amount: sql::get(row, "moved")?,
        occurred_at: Timestamp::clamped(sql::get(row, "occurred_at")?),
        period: Period::stored(period)?,
        reference: sql::get(row, "reference")?,
    })
}
