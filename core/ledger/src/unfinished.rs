//! What of a book may be unfinished when one of its periods is about to be closed, and what its lots come to by their expiry.

use crate::book::Ledger;
use crate::error::Error;
use crate::lot;
use crate::period::Period;
use heyuan_contract::{Ratio, Timestamp};
use heyuan_kernel::sql;

/// Lots of one issuer, unit cost, expiry and month of opening, and what one month and one kind of transfer did to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cohort {
    /// Who stands for the lots.
    pub issuer: String,
    /// Fen a point.
    pub cost: Ratio,
    /// When they expire.
    pub expires_at: Timestamp,
    /// The month that they were opened in; `None` for lots that were carried from others, whose points are older than they.
    pub opened: Option<Period>,
    /// The month of the change.
    pub moved: Period,
    /// Whether it is of the kind that was asked about.
    pub of_kind: bool,
    /// Positive into the lots, negative out of them.
    pub amount: i64,
}

/// Lots of a unit with an expiry from an instant on, and the month in which they were opened: none for one that another lot's points were
/// carried into.
const LOTS: &str = "lots AS (
  SELECT l.no, l.issuer, l.cost_numerator, l.cost_denominator, l.expires_at, l.amount, l.period,
    CASE WHEN EXISTS (SELECT 1 FROM ledger_lot_move c WHERE c.transfer = t.no) THEN 0 ELSE l.period END AS opened
  FROM ledger_lot l JOIN ledger_transfer t ON t.key = l.source WHERE t.unit = $1 AND l.expires_at >= $3
)";

impl Ledger {
    /// Holds of a unit that ran out before an instant and still stand.
    ///
    /// # Errors
    /// The database's.
    pub async fn overdue_holds<C: sql::Connection>(&self, conn: &C, unit: &str, at: Timestamp) -> Result<i64, Error> {
        let text = "SELECT COUNT(*) AS n FROM ledger_hold WHERE outcome = 'open' AND expires_at < $1 AND unit = $2";
        Ok(sql::count(conn, text, [at.ms().into(), unit.into()]).await?)
    }

    /// What lots of a unit hold, free, that had expired by an instant.
    ///
    /// # Errors
    /// The database's.
    pub async fn past_expiry<C: sql::Connection>(&self, conn: &C, unit: &str, at: Timestamp) -> Result<i64, Error> {
        let text = "SELECT CAST(COALESCE(SUM(l.remaining), 0) AS BIGINT) AS n FROM ledger_lot l JOIN ledger_account a ON a.no = l.account
                    WHERE l.remaining > 0 AND l.expires_at <= $1 AND a.unit = $2";
        Ok(sql::count(conn, text, [at.ms().into(), unit.into()]).await?)
    }

    /// Transfers of a unit and period that wait for the sealer.
    ///
    /// # Errors
    /// The database's.
    pub async fn unsealed<C: sql::Connection>(&self, conn: &C, unit: &str, period: Period) -> Result<i64, Error> {
        let text =
            "SELECT COUNT(*) AS n FROM ledger_unsealed u JOIN ledger_transfer t ON t.no = u.transfer WHERE t.unit = $1 AND t.period = $2";
        Ok(sql::count(conn, text, [unit.into(), period.number().into()]).await?)
    }

    /// What lots of a unit with an expiry from an instant on were opened with up to a period, and what moved in them up to it. It reads
    /// every such lot once.
    ///
    /// # Errors
    /// The database's.
    pub async fn cohorts<C: sql::Connection>(
        &self,
        conn: &C,
        unit: &str,
        through: Period,
        expiring_from: Timestamp,
        kind: &str,
    ) -> Result<Vec<Cohort>, Error> {
        let text = "
          SELECT x.issuer, x.cost_numerator, x.cost_denominator, x.expires_at, x.opened, x.moved,
            CAST(x.of_kind AS BIGINT) AS of_kind, CAST(SUM(x.amount) AS BIGINT) AS amount
          FROM (
            SELECT l.issuer, l.cost_numerator, l.cost_denominator, l.expires_at, l.opened, l.period AS moved, 0 AS of_kind, l.amount
            FROM lots l WHERE l.period <= $2
            UNION ALL
            SELECT l.issuer, l.cost_numerator, l.cost_denominator, l.expires_at, l.opened, m.period,
              CASE WHEN t.kind = $4 THEN 1 ELSE 0 END, m.amount
            FROM lots l JOIN ledger_lot_move m ON m.lot = l.no JOIN ledger_transfer t ON t.no = m.transfer WHERE m.period <= $2
          ) AS x
          GROUP BY x.issuer, x.cost_numerator, x.cost_denominator, x.expires_at, x.opened, x.moved, x.of_kind
          ORDER BY x.issuer, x.expires_at, x.opened, x.moved, x.of_kind, x.cost_numerator, x.cost_denominator";
        let text = format!("WITH {LOTS} {text}");
        let values = [unit.into(), through.number().into(), expiring_from.ms().into(), kind.into()];
        sql::all(conn, &text, values).await?.iter().map(read).collect()
    }
}

fn read(row: &sql::Row) -> Result<Cohort, Error> {
    Ok(Cohort {
        issuer: sql::get(row, "issuer")?,
        cost: lot::cost(row)?,
        expires_at: Timestamp::clamped(sql::get(row, "expires_at")?),
        opened: Some(sql::get::<i64>(row, "opened")?).filter(|opened| *opened != 0).map(Period::stored).transpose()?,
        moved: Period::stored(sql::get(row, "moved")?)?,
        of_kind: sql::get::<i64>(row, "of_kind")? != 0,
        amount: sql::get(row, "amount")?,
    })
}
