//! Checking what no sum of the book shows: striped accounts period by period, and holds against the transfers that posted them.

use crate::book::Ledger;
use crate::error::Error;
use crate::verify::Report;
use heyuan_kernel::sql;

/// Rows of one page of a walk.
const PAGE: i64 = 1000;

/// The periods in which the stripes of an account differ from its transfers.
pub(crate) const STRIPES: &str = "
  SELECT x.period, CAST(SUM(x.debits) AS BIGINT) AS debits, CAST(SUM(x.credits) AS BIGINT) AS credits FROM (
    SELECT period, debits, credits FROM ledger_stripe WHERE account = $1
    UNION ALL
    SELECT period, -amount, 0 FROM ledger_transfer WHERE debit = $1
    UNION ALL
    SELECT period, 0, -amount FROM ledger_transfer WHERE credit = $1
  ) AS x GROUP BY x.period HAVING SUM(x.debits) <> 0 OR SUM(x.credits) <> 0 ORDER BY x.period LIMIT 10";

/// A page of holds, each beside the transfer that posted it: 0 there is none, 1 it is just what the hold says, 2 it is another.
const HOLDS: &str = "
  SELECT h.key, h.outcome, h.amount, h.posted, a.shape,
    CAST(CASE WHEN t.no IS NULL THEN 0
              WHEN t.amount = h.posted AND t.unit = h.unit AND t.debit = h.debit AND t.credit = h.credit AND t.kind = h.kind
                AND t.reference = h.reference AND t.occurred_at = h.held_at THEN 1 ELSE 2 END AS BIGINT) AS transfer,
    CAST(COALESCE((SELECT SUM(p.amount) FROM ledger_hold_lot p WHERE p.hold = h.key), 0) AS BIGINT) AS in_lots
  FROM ledger_hold h LEFT JOIN ledger_account a ON a.no = h.debit LEFT JOIN ledger_transfer t ON t.key = h.key || '/posted'
  WHERE h.key > $1 ORDER BY h.key LIMIT $2";

impl Ledger {
    pub(crate) async fn check_stripes(&self, report: &mut Report) -> Result<(), Error> {
        let reader = self.kernel.db.reader();
        let text = "SELECT no, id FROM ledger_account WHERE shape = 'striped' AND no > $1 ORDER BY no LIMIT $2";
        let mut account = 0i64;
        loop {
            let rows = sql::all(reader, text, [account.into(), PAGE.into()]).await?;
            for row in &rows {
                account = sql::get(row, "no")?;
                for period in sql::all(reader, STRIPES, [account.into()]).await? {
                    let (debits, credits): (i64, i64) = (sql::get(&period, "debits")?, sql::get(&period, "credits")?);
                    let month: i64 = sql::get(&period, "period")?;
                    let why = format!("its stripes of {month} differ from its transfers by {debits} debited and {credits} credited");
                    report.find("stripe", sql::get::<String>(row, "id")?, why);
                }
            }
            if rows.is_empty() {
                return Ok(());
            }
        }
    }

    pub(crate) async fn check_holds(&self, report: &mut Report) -> Result<(), Error> {
        let mut key = String::new();
        loop {
            let rows = sql::all(self.kernel.db.reader(), HOLDS, [key.clone().into(), PAGE.into()]).await?;
            for row in &rows {
                key = sql::get(row, "key")?;
                for why in hold_findings(row)? {
                    report.find("hold", key.clone(), why);
                }
            }
            if rows.is_empty() {
                return Ok(());
            }
        }
    }
}

fn hold_findings(row: &sql::Row) -> Result<Vec<String>, Error> {
    let number = |name: &str| sql::get::<i64>(row, name);
    let (outcome, shape): (String, Option<String>) = (sql::get(row, "outcome")?, sql::get(row, "shape")?);
    let (amount, posted, transfer, in_lots) = (number("amount")?, number("posted")?, number("transfer")?, number("in_lots")?);
    let mut findings = Vec::new();
    match outcome.as_str() {
        "posted" if transfer != 1 || posted <= 0 || posted > amount => {
            findings.push(format!("it says that {posted} of {amount} were posted, and no such transfer is in the book"));
        }
        "open" | "voided" | "expired" if transfer != 0 || posted != 0 => {
            findings.push(format!("it is {outcome}, and {posted} were posted or a transfer of its key is in the book"));
        }
        "posted" | "open" | "voided" | "expired" => {}
        other => findings.push(format!("there is no outcome {other}")),
    }
    let wanted = if outcome == "open" && shape.as_deref() == Some("lots") { amount } else { 0 };
    if in_lots != wanted {
        findings.push(format!("it holds {in_lots} in lots instead of {wanted}"));
    }
    Ok(findings)
}
