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

/// A page of the entries of accounts that keep versions, in their order: both arms walk along their index and are merged. A select around
/// them would make SQLite sort all that is left for every page; PostgreSQL does so unless each arm may stop after a page.
pub(crate) fn entries(backend: DbBackend) -> String {
    let arm = |side: &str, amount: &str| {
        format!(
            "SELECT {side} AS account, {side}_version AS version, {amount} AS amount, {side}_balance AS balance_after, no AS transfer
             FROM ledger_transfer WHERE {side}_version IS NOT NULL AND ({side}, {side}_version) > ($1, $2)"
        )
    };
    let (debit, credit) = (arm("debit", "-amount"), arm("credit", "amount"));
    match backend {
        DbBackend::Postgres => {
            let page = "ORDER BY 1, 2 LIMIT $3";
            format!("({debit} {page}) UNION ALL ({credit} {page}) {page}")
        }
        _ => format!("{debit} UNION ALL {credit} ORDER BY 1, 2 LIMIT $3"),
    }
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
        self.check_sums(&mut report).await?;
        self.check_versions(&mut report).await?;
        self.check_balances(&mut report).await?;
        self.check_lots(&mut report).await?;
        self.check_stripes(&mut report).await?;
        self.check_holds(&mut report).await?;
        Ok(report)
    }

    async fn check_sums(&self, report: &mut Report) -> Result<(), Error> {
        let text = "SELECT x.unit, CAST(SUM(x.total) AS BIGINT) AS total FROM (
              SELECT unit, SUM(balance) AS total FROM ledger_account GROUP BY unit
              UNION ALL
              SELECT a.unit, SUM(s.credits - s.debits) FROM ledger_stripe s JOIN ledger_account a ON a.no = s.account GROUP BY a.unit
            ) AS x GROUP BY x.unit HAVING SUM(x.total) <> 0 ORDER BY x.unit LIMIT 10";
        for row in sql::all(self.kernel.db.reader(), text, []).await? {
            let (unit, total): (String, i64) = (sql::get(&row, "unit")?, sql::get(&row, "total")?);
            report.find("sum", unit, format!("its accounts sum to {total} instead of zero"));
        }
        Ok(())
    }

    /// Walks the entries of every account that keeps versions in their order.
    async fn check_versions(&self, report: &mut Report) -> Result<(), Error> {
        let text = entries(self.kernel.db.backend());
        let (mut account, mut version, mut balance) = (0i64, 0i64, 0i64);
        loop {
            let rows = sql::all(self.kernel.db.reader(), &text, [account.into(), version.into(), PAGE.into()]).await?;
            for row in &rows {
                let at: (i64, i64) = (sql::get(row, "account")?, sql::get(row, "version")?);
                if at.0 != account {
                    (account, version, balance) = (at.0, 0, 0);
                }
                let (amount, after): (i64, i64) = (sql::get(row, "amount")?, sql::get(row, "balance_after")?);
                if at.1 != version + 1 || balance + amount != after {
                    let place = format!("transfer {}", sql::get::<i64>(row, "transfer")?);
                    let why = format!(
                        "on account {account} version {} with balance {after} follows version {version} with balance {balance} by {amount}",
                        at.1
                    );
                    report.find("version", place, why);
                }
                (version, balance) = (at.1, after);
                report.entries += 1;
            }
            if rows.is_empty() || report.findings.len() == FINDINGS_MAX {
                return Ok(());
            }
        }
    }

    async fn check_balances(&self, report: &mut Report) -> Result<(), Error> {
        let text = "
          SELECT a.no, a.id, a.shape, a.floor, a.balance, a.reserved, a.version,
            CAST(COALESCE((SELECT SUM(t.amount) FROM ledger_transfer t WHERE t.credit = a.no), 0)
               - COALESCE((SELECT SUM(t.amount) FROM ledger_transfer t WHERE t.debit = a.no), 0) AS BIGINT) AS entries,
            (SELECT COUNT(*) FROM ledger_transfer t WHERE t.credit = a.no) + (SELECT COUNT(*) FROM ledger_transfer t WHERE t.debit = a.no) AS entry_count,
            CAST(COALESCE((SELECT SUM(s.credits - s.debits) FROM ledger_stripe s WHERE s.account = a.no), 0) AS BIGINT) AS stripes,
            CAST(COALESCE((SELECT SUM(l.remaining + l.held) FROM ledger_lot l WHERE l.account = a.no), 0) AS BIGINT) AS lots,
            CAST(COALESCE((SELECT SUM(h.amount) FROM ledger_hold h WHERE h.outcome = 'open' AND h.debit = a.no), 0) AS BIGINT) AS holds
          FROM ledger_account a WHERE a.no > $1 ORDER BY a.no LIMIT $2";
        let mut account = 0i64;
        loop {
            let rows = sql::all(self.kernel.db.reader(), text, [account.into(), ACCOUNTS_PAGE.into()]).await?;
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
        let text = "
          SELECT l.no, l.source, l.amount, l.remaining, l.held, COALESCE(t.amount, 0) AS opened, COALESCE(t.credit, 0) AS credited, l.account,
            CAST(COALESCE((SELECT SUM(m.amount) FROM ledger_lot_move m WHERE m.lot = l.no), 0) AS BIGINT) AS moved,
            CAST(COALESCE((SELECT SUM(h.amount) FROM ledger_hold_lot h WHERE h.lot = l.no), 0) AS BIGINT) AS held_by
          FROM ledger_lot l LEFT JOIN ledger_transfer t ON t.key = l.source WHERE l.no > $1 ORDER BY l.no LIMIT $2";
        let mut lot = 0i64;
        loop {
            let rows = sql::all(self.kernel.db.reader(), text, [lot.into(), PAGE.into()]).await?;
            for row in &rows {
                lot = sql::get(row, "no")?;
                report.lots += 1;
                let number = |name: &str| sql::get::<i64>(row, name);
                let (amount, remaining, held) = (number("amount")?, number("remaining")?, number("held")?);
                let place = || Ok::<String, Error>(format!("lot {}", sql::get::<String>(row, "source")?));
                if amount != number("opened")? || number("account")? != number("credited")? {
                    report.find("lot", place()?, "it differs from the transfer that opened it");
                }
                if remaining + held != amount + number("moved")? {
                    report.find("lot", place()?, format!("{remaining} left and {held} held differ from what its moves leave"));
                }
                if remaining < 0 || held != number("held_by")? {
                    report.find("lot", place()?, format!("{remaining} left, {held} held"));
                }
            }
            if rows.is_empty() {
                return Ok(());
            }
        }
    }
}

fn account_findings(row: &sql::Row) -> Result<Vec<String>, Error> {
    let number = |name: &str| sql::get::<i64>(row, name);
    let shape: String = sql::get(row, "shape")?;
    let floor: Option<i64> = sql::get(row, "floor")?;
    let (balance, reserved, entries) = (number("balance")?, number("reserved")?, number("entries")?);
    let mut findings = Vec::new();
    let kept = if shape == "striped" { number("stripes")? } else { balance };
    if kept != entries {
        findings.push(format!("its balance is {kept}, its entries sum to {entries}"));
    }
    if shape != "striped" && number("version")? != number("entry_count")? {
        findings.push(format!("it is at version {} with {} entries", number("version")?, number("entry_count")?));
    }
    if shape == "lots" && number("lots")? != balance {
        findings.push(format!("its balance is {balance}, its lots hold {}", number("lots")?));
    }
    if reserved != number("holds")? {
        findings.push(format!("{reserved} are reserved, its open holds sum to {}", number("holds")?));
    }
    if floor.is_some_and(|floor| balance - reserved < floor) {
        findings.push(format!("{balance} less {reserved} reserved is below its floor"));
    }
    Ok(findings)
}
