//! Checking the whole book in bounded memory: chain, sums, balances, versions, lots.

use crate::book::Ledger;
use crate::error::Error;
use heyuan_kernel::chain::{Finding, Head};
use heyuan_kernel::sql;
use sea_orm::DbBackend;

/// Rows of one page of a walk.
const PAGE: i64 = 5000;
/// Accounts whose entries one statement sums.
const ACCOUNTS_PAGE: i64 = 200;
/// Findings kept: the first of each kind says where to look.
const FINDINGS_MAX: usize = 100;

/// Units whose sums are told.
const UNITS_MAX: i64 = 10_000;

/// A page of the moves of lots, each with whether it fits its transfer: 1 it does, 0 there is none, 2 it is one of another account or month.
pub(crate) const MOVES: &str = "
  SELECT m.no, m.transfer, l.source,
    CAST(CASE WHEN t.no IS NULL OR l.no IS NULL THEN 0
              WHEN m.period = t.period AND l.account = CASE WHEN m.amount < 0 THEN t.debit ELSE t.credit END THEN 1 ELSE 2 END AS BIGINT) AS fits
  FROM ledger_lot_move m LEFT JOIN ledger_transfer t ON t.no = m.transfer LEFT JOIN ledger_lot l ON l.no = m.lot
  WHERE m.no > $1 ORDER BY m.no LIMIT $2";

/// A page of the entries of accounts that keep versions, in their order: both arms walk along their index and are merged. A select around
/// them would make SQLite sort all that is left for every page; PostgreSQL does so unless each arm may stop after a page.
pub(crate) fn entries(backend: DbBackend) -> String {
    let arm = |side: &str, sign: &str| {
        format!(
            "SELECT {side} AS account, {side}_version AS version, amount, CAST({sign} AS BIGINT) AS sign, {side}_balance AS balance_after,
               no AS transfer, (SELECT a.floor FROM ledger_account a WHERE a.no = {side}) AS floor
             FROM ledger_transfer WHERE {side}_version IS NOT NULL AND ({side}, {side}_version) > ($1, $2)"
        )
    };
    let (debit, credit) = (arm("debit", "-1"), arm("credit", "1"));
    match backend {
        DbBackend::Postgres => {
            let page = "ORDER BY 1, 2 LIMIT $3";
            format!("({debit} {page}) UNION ALL ({credit} {page}) {page}")
        }
        _ => format!("{debit} UNION ALL {credit} ORDER BY 1, 2 LIMIT $3"),
    }
}

/// Sums that no planted value overflows: of `amount`, over the rows of `from`, its upper and its lower 32 bits apart. [`wide`] reads them.
pub(crate) fn wide_sum(name: &str, amount: &str, from: &str) -> String {
    format!(
        "CAST(COALESCE((SELECT SUM({amount} >> 32) FROM {from}), 0) AS BIGINT) AS {name}_high,
         CAST(COALESCE((SELECT SUM({amount} & 4294967295) FROM {from}), 0) AS BIGINT) AS {name}_low"
    )
}

/// A sum that was read in two halves.
pub(crate) fn wide(row: &sql::Row, name: &str) -> Result<i128, Error> {
    let half = |half: &str| sql::get::<i64>(row, &format!("{name}_{half}")).map(i128::from);
    Ok((half("high")? << 32) + half("low")?)
}

/// A page of accounts, each beside what its last version says and what lots and holds say of it.
pub(crate) fn accounts() -> String {
    let ends = |side: &str| {
        format!(
            "(SELECT COUNT(*) FROM ledger_transfer t WHERE t.{side} = a.no AND t.{side}_version = a.version AND t.{side}_balance = a.balance)"
        )
    };
    let exists = |side: &str, condition: &str| {
        format!(
            "(CASE WHEN EXISTS (SELECT 1 FROM ledger_transfer t WHERE t.{side} = a.no AND t.{side}_version {condition}) THEN 1 ELSE 0 END)"
        )
    };
    format!(
        "SELECT a.no, a.id, a.shape, a.floor, a.balance, a.reserved, a.version,
           CAST({} + {} AS BIGINT) AS ends, CAST({} + {} AS BIGINT) AS later, CAST({} + {} AS BIGINT) AS unversioned, {}, {}, {}
         FROM ledger_account a WHERE a.no > $1 ORDER BY a.no LIMIT $2",
        ends("debit"),
        ends("credit"),
        exists("debit", "> a.version"),
        exists("credit", "> a.version"),
        exists("debit", "IS NULL"),
        exists("credit", "IS NULL"),
        wide_sum("left", "l.remaining", "ledger_lot l WHERE l.account = a.no"),
        wide_sum("held", "l.held", "ledger_lot l WHERE l.account = a.no"),
        wide_sum("holds", "h.amount", "ledger_hold h WHERE h.outcome = 'open' AND h.debit = a.no"),
    )
}

/// What a check of the whole book found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Links of the chain that were checked.
    pub sealed: i64,
    /// Transfers that are committed and not sealed yet.
    pub tail: i64,
    /// Accounts checked.
    pub accounts: i64,
    /// Entries checked.
    pub entries: i64,
    /// Lots checked.
    pub lots: i64,
    /// The newest signed head.
    pub head: Option<Head>,
    /// What is wrong, the first entry of the chain first; at most a hundred.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing was found.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    pub(crate) fn find(&mut self, check: &'static str, place: impl Into<String>, why: impl Into<String>) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { check, place: place.into(), why: why.into() });
        }
    }

    /// Takes note of a check that broke off: what it and the others found is told all the same.
    fn finish(&mut self, checked: &str, outcome: Result<(), Error>) {
        if let Err(error) = outcome {
            let why = format!("the check broke off: {error}");
            self.findings.push(Finding { check: "unfinished", place: checked.to_owned(), why });
        }
    }
}

impl Ledger {
    /// Checks every promise of the book. Writers may go on meanwhile.
    ///
    /// # Errors
    /// The database's.
    pub async fn verify(&self) -> Result<Report, Error> {
        self.verify_against(&[]).await
    }

    /// The same, also against heads that were exported earlier: a book that was cut or written anew does not hold them.
    ///
    /// # Errors
    /// The database's.
    pub async fn verify_against(&self, exported: &[Head]) -> Result<Report, Error> {
        let walk = self.chain().verify(exported).await?;
        let mut report = Report { sealed: walk.sealed, tail: walk.tail, head: walk.head, findings: walk.findings, ..Report::default() };
        // One after the other, each by itself: a value that one of them can't read hides nothing that another one finds.
        let done = self.check_sums(&mut report).await;
        report.finish("sums", done);
        let done = self.check_versions(&mut report).await;
        report.finish("versions", done);
        let done = self.check_balances(&mut report).await;
        report.finish("balances", done);
        let done = self.check_lots(&mut report).await;
        report.finish("lots", done);
        let done = self.check_moves(&mut report).await;
        report.finish("moves of lots", done);
        let done = self.check_stripes(&mut report).await;
        report.finish("stripes", done);
        let done = self.check_holds(&mut report).await;
        report.finish("holds", done);
        let done = self.check_held_lots(&mut report).await;
        report.finish("lots of holds", done);
        Ok(report)
    }

    async fn check_sums(&self, report: &mut Report) -> Result<(), Error> {
        let text = "SELECT x.unit, CAST(SUM(x.high) AS BIGINT) AS total_high, CAST(SUM(x.low) AS BIGINT) AS total_low FROM (
              SELECT unit, SUM(balance >> 32) AS high, SUM(balance & 4294967295) AS low FROM ledger_account GROUP BY unit
              UNION ALL
              SELECT a.unit, SUM(s.credits >> 32) - SUM(s.debits >> 32), SUM(s.credits & 4294967295) - SUM(s.debits & 4294967295)
              FROM ledger_stripe s JOIN ledger_account a ON a.no = s.account GROUP BY a.unit
            ) AS x GROUP BY x.unit ORDER BY x.unit LIMIT $1";
        for row in sql::all(self.kernel.db.reader(), text, [UNITS_MAX.into()]).await? {
            let (unit, total): (String, i128) = (sql::get(&row, "unit")?, wide(&row, "total")?);
            if total != 0 {
                report.find("sum", unit, format!("its accounts sum to {total} instead of zero"));
            }
        }
        Ok(())
    }

    /// Walks the entries of every account that keeps versions in their order.
    async fn check_versions(&self, report: &mut Report) -> Result<(), Error> {
        let text = entries(self.kernel.db.backend());
        let (mut account, mut version, mut balance) = (0i64, 0i64, 0i128);
        loop {
            let rows = sql::all(self.kernel.db.reader(), &text, [account.into(), version.into(), PAGE.into()]).await?;
            for row in &rows {
                let at: (i64, i64) = (sql::get(row, "account")?, sql::get(row, "version")?);
                if at.0 != account {
                    (account, version, balance) = (at.0, 0, 0);
                }
                let number = |column: &str| sql::get::<i64>(row, column).map(i128::from);
                let (amount, after) = (number("amount")? * number("sign")?, number("balance_after")?);
                let place = || Ok::<String, Error>(format!("transfer {}", sql::get::<i64>(row, "transfer")?));
                if i128::from(at.1) != i128::from(version) + 1 || balance + amount != after {
                    let why = format!(
                        "on account {account} version {} with balance {after} follows version {version} with balance {balance} by {amount}",
                        at.1
                    );
                    report.find("version", place()?, why);
                }
                let floor: Option<i64> = sql::get(row, "floor")?;
                if floor.is_some_and(|floor| after < floor.into()) {
                    report.find("version", place()?, format!("it leaves {after} on account {account}, below its floor"));
                }
                (version, balance) = (at.1, after);
                report.entries += 1;
            }
            if rows.is_empty() || report.findings.len() >= FINDINGS_MAX {
                return Ok(());
            }
        }
    }

    async fn check_balances(&self, report: &mut Report) -> Result<(), Error> {
        let text = accounts();
        let mut account = 0i64;
        loop {
            let rows = sql::all(self.kernel.db.reader(), &text, [account.into(), ACCOUNTS_PAGE.into()]).await?;
            for row in &rows {
                account = sql::get(row, "no")?;
                report.accounts += 1;
                for why in account_findings(row)? {
                    let id: String = sql::get(row, "id")?;
                    report.find("balance", id, why);
                }
            }
            if rows.is_empty() {
                return Ok(());
            }
        }
    }

    async fn check_lots(&self, report: &mut Report) -> Result<(), Error> {
        let text = format!(
            "SELECT l.no, l.source, l.amount, l.remaining, l.held, COALESCE(t.amount, 0) AS opened, COALESCE(t.credit, 0) AS credited,
               l.account, {}, {}
             FROM ledger_lot l LEFT JOIN ledger_transfer t ON t.key = l.source WHERE l.no > $1 ORDER BY l.no LIMIT $2",
            wide_sum("moved", "m.amount", "ledger_lot_move m WHERE m.lot = l.no"),
            wide_sum("held_by", "h.amount", "ledger_hold_lot h WHERE h.lot = l.no"),
        );
        let mut lot = 0i64;
        loop {
            let rows = sql::all(self.kernel.db.reader(), &text, [lot.into(), PAGE.into()]).await?;
            for row in &rows {
                lot = sql::get(row, "no")?;
                report.lots += 1;
                let number = |name: &str| sql::get::<i64>(row, name).map(i128::from);
                let (amount, remaining, held) = (number("amount")?, number("remaining")?, number("held")?);
                let place = || Ok::<String, Error>(format!("lot {}", sql::get::<String>(row, "source")?));
                if amount != number("opened")? || number("account")? != number("credited")? {
                    report.find("lot", place()?, "it differs from the transfer that opened it");
                }
                if remaining + held != amount + wide(row, "moved")? {
                    report.find("lot", place()?, format!("{remaining} left and {held} held differ from what its moves leave"));
                }
                if remaining < 0 || held != wide(row, "held_by")? {
                    report.find("lot", place()?, format!("{remaining} left, {held} held"));
                }
            }
            if rows.is_empty() {
                return Ok(());
            }
        }
    }

    /// Walks the moves of lots: each belongs to a transfer of its lot's account, and its hash sees it.
    async fn check_moves(&self, report: &mut Report) -> Result<(), Error> {
        let mut last = i64::MIN;
        loop {
            let rows = sql::all(self.kernel.db.reader(), MOVES, [last.into(), PAGE.into()]).await?;
            for row in &rows {
                last = sql::get(row, "no")?;
                let why = match sql::get::<i64>(row, "fits")? {
                    1 => continue,
                    0 => "belongs to no transfer that is in the book",
                    _ => "says another account or month than its transfer",
                };
                let lot = sql::get::<Option<String>>(row, "source")?.unwrap_or_else(|| "that is gone".to_owned());
                report.find(
                    "lot",
                    format!("lot {lot}"),
                    format!("its move {last}, of transfer {}, {why}", sql::get::<i64>(row, "transfer")?),
                );
            }
            if rows.is_empty() {
                return Ok(());
            }
        }
    }
}

fn account_findings(row: &sql::Row) -> Result<Vec<String>, Error> {
    let number = |name: &str| sql::get::<i64>(row, name).map(i128::from);
    let shape: String = sql::get(row, "shape")?;
    let floor: Option<i64> = sql::get(row, "floor")?;
    let (balance, reserved, version) = (number("balance")?, number("reserved")?, number("version")?);
    let mut findings = Vec::new();
    if shape == "striped" {
        // Its balance stands in its stripes, which are compared with its transfers month by month.
        if balance != 0 || version != 0 || number("later")? != 0 {
            findings.push(format!("it is striped, and keeps a balance of {balance} and version {version} of its own"));
        }
    } else {
        let begun = version != 0 || balance != 0;
        if number("ends")? != i128::from(begun) || number("later")? != 0 || number("unversioned")? != 0 {
            findings.push(format!("its balance is {balance} at version {version}, its entries end otherwise"));
        }
    }
    if shape == "lots" && wide(row, "left")? + wide(row, "held")? != balance {
        findings.push(format!("its balance is {balance}, its lots hold {}", wide(row, "left")? + wide(row, "held")?));
    }
    if reserved != wide(row, "holds")? {
        findings.push(format!("{reserved} are reserved, its open holds sum to {}", wide(row, "holds")?));
    }
    if floor.is_some_and(|floor| balance - reserved < floor.into()) {
        findings.push(format!("{balance} less {reserved} reserved is below its floor"));
    }
    Ok(findings)
}
