//! Checking what no sum of the book shows: striped accounts period by period, and holds against the transfers that posted them.

use crate::book::Ledger;
use crate::error::Error;
use crate::verify::{Report, wide, wide_sum};
use heyuan_kernel::sql;

/// Rows of one page of a walk.
const PAGE: i64 = 1000;

/// By how much the stripes of an account differ from its transfers, period by period; each sum in two halves, which no planted value
/// overflows.
pub(crate) const STRIPES: &str = "
  SELECT x.period,
    CAST(SUM(x.debits >> 32) - SUM(x.debited >> 32) AS BIGINT) AS debits_high,
    CAST(SUM(x.debits & 4294967295) - SUM(x.debited & 4294967295) AS BIGINT) AS debits_low,
    CAST(SUM(x.credits >> 32) - SUM(x.credited >> 32) AS BIGINT) AS credits_high,
    CAST(SUM(x.credits & 4294967295) - SUM(x.credited & 4294967295) AS BIGINT) AS credits_low FROM (
    SELECT period, debits, credits, 0 AS debited, 0 AS credited FROM ledger_stripe WHERE account = $1
    UNION ALL
    SELECT period, 0, 0, amount, 0 FROM ledger_transfer WHERE debit = $1
    UNION ALL
    SELECT period, 0, 0, 0, amount FROM ledger_transfer WHERE credit = $1
  ) AS x GROUP BY x.period ORDER BY x.period LIMIT 10000";

/// Stripes of accounts that have none.
const STRAY_STRIPES: &str = "
  SELECT s.account, a.id, COUNT(*) AS n FROM ledger_stripe s LEFT JOIN ledger_account a ON a.no = s.account
  WHERE a.no IS NULL OR a.shape <> 'striped' GROUP BY s.account, a.id ORDER BY s.account LIMIT 10";

/// A page of what holds keep in lots, with whether there is such a hold and lot.
const HELD_LOTS: &str = "
  SELECT p.hold, p.lot, CAST(CASE WHEN h.key IS NULL THEN 0 WHEN l.account = h.debit AND p.amount > 0 THEN 1 ELSE 2 END AS BIGINT) AS fits
  FROM ledger_hold_lot p LEFT JOIN ledger_hold h ON h.key = p.hold LEFT JOIN ledger_lot l ON l.no = p.lot
  WHERE (p.hold, p.lot) > ($1, $2) ORDER BY p.hold, p.lot LIMIT $3";

/// A page of holds, each beside the transfer that posted it: 0 there is none, 1 it is just what the hold says, 2 it is another.
fn holds() -> String {
    let in_lots = wide_sum("in_lots", "p.amount", "ledger_hold_lot p WHERE p.hold = h.key");
    format!(
        "
  SELECT h.key, h.outcome, h.amount, h.posted, a.shape,
    CAST(CASE WHEN t.no IS NULL THEN 0
              WHEN t.amount = h.posted AND t.unit = h.unit AND t.debit = h.debit AND t.credit = h.credit AND t.kind = h.kind
                AND t.reference = h.reference AND t.occurred_at = h.held_at THEN 1 ELSE 2 END AS BIGINT) AS transfer,
    {in_lots}
  FROM ledger_hold h LEFT JOIN ledger_account a ON a.no = h.debit LEFT JOIN ledger_transfer t ON t.key = h.key || '/posted'
  WHERE h.key > $1 ORDER BY h.key LIMIT $2"
    )
}

impl Ledger {
    pub(crate) async fn check_stripes(&self, report: &mut Report) -> Result<(), Error> {
        let reader = self.kernel.db.reader();
        for row in sql::all(reader, STRAY_STRIPES, []).await? {
            let account: i64 = sql::get(&row, "account")?;
            let place = sql::get::<Option<String>>(&row, "id")?.unwrap_or_else(|| format!("account {account}"));
            report.find("stripe", place, format!("{} stripes stand beside an account that has none", sql::get::<i64>(&row, "n")?));
        }
        let text = "SELECT no, id FROM ledger_account WHERE shape = 'striped' AND no > $1 ORDER BY no LIMIT $2";
        let mut account = 0i64;
        loop {
            let rows = sql::all(reader, text, [account.into(), PAGE.into()]).await?;
            for row in &rows {
                account = sql::get(row, "no")?;
                for period in sql::all(reader, STRIPES, [account.into()]).await? {
                    let (debits, credits) = (wide(&period, "debits")?, wide(&period, "credits")?);
                    if debits == 0 && credits == 0 {
                        continue;
                    }
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
        let (mut key, text) = (String::new(), holds());
        loop {
            let rows = sql::all(self.kernel.db.reader(), &text, [key.clone().into(), PAGE.into()]).await?;
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

    /// Walks what holds keep in lots: a row of a hold that is not there would hold a lot's points for nobody.
    pub(crate) async fn check_held_lots(&self, report: &mut Report) -> Result<(), Error> {
        let (mut hold, mut lot) = (String::new(), i64::MIN);
        loop {
            let rows = sql::all(self.kernel.db.reader(), HELD_LOTS, [hold.clone().into(), lot.into(), PAGE.into()]).await?;
            for row in &rows {
                (hold, lot) = (sql::get(row, "hold")?, sql::get(row, "lot")?);
                match sql::get::<i64>(row, "fits")? {
                    1 => {}
                    0 => report.find("hold", hold.clone(), format!("lot {lot} is held by it, and there is no such hold")),
                    _ => report.find("hold", hold.clone(), format!("it holds nothing that is in lot {lot} of its account")),
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
    let (amount, posted, transfer, in_lots) = (number("amount")?, number("posted")?, number("transfer")?, wide(row, "in_lots")?);
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
    let wanted = if outcome == "open" && shape.as_deref() == Some("lots") { i128::from(amount) } else { 0 };
    if in_lots != wanted {
        findings.push(format!("it holds {in_lots} in lots instead of {wanted}"));
    }
    Ok(findings)
}
