//! The proof of what was closed: statements against the sealed audit record, the settlement accounts and the lots, and corrections against who
//! made them.
//!
//! The ledger proves its own entries. A statement, a correction and how far the book is closed are not entries, so that they are compared
//! here with what is sealed. Who could change rows of these tables can't change what they are compared with.

use crate::books::{self, LineAccount};
use crate::clearing::{self, CLOSE, Clearing, ClearingState, DIGEST};
use crate::error::Error;
use crate::settlement::SAID;
use heyuan_contract::Line;
use heyuan_kernel::audit::{self, Recorded};
use heyuan_kernel::secret::sha256_hex;
use heyuan_kernel::{Kernel, sql};
use heyuan_ledger::{Finding, Ledger, Period};
use sea_orm::DatabaseConnection;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Statements read at once.
const PAGE: i64 = 12;
/// Acts of the audit record read at once.
const ACTS_PAGE: u64 = 1_000;

/// What a check of all closed months found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClearingReport {
    /// Statements that were checked.
    pub statements: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl ClearingReport {
    fn find(&mut self, check: &'static str, place: impl Into<String>, why: impl Into<String>) {
        self.findings.push(Finding { check, place: place.into(), why: why.into() });
    }
}

/// Checks every closed month and every correction. Writers may go on meanwhile.
///
/// # Errors
/// The database's.
pub async fn verify_clearing(kernel: &Kernel, ledger: &Ledger) -> Result<ClearingReport, Error> {
    let reader = kernel.db.reader();
    let mut report = ClearingReport::default();
    let closes = acts(reader, CLOSE).await?;
    // Written once a month, and again by nobody.
    let digest = |act: &Recorded| act.detail.get(DIGEST).and_then(Value::as_str).map(str::to_owned);
    let closed: BTreeMap<String, Option<String>> = closes.iter().map(|act| (act.object.clone(), digest(act))).collect();
    let mut seen: Vec<Period> = Vec::new();
    let mut last = 0;
    loop {
        let text = "SELECT period, statement FROM membership_clearing WHERE period > $1 ORDER BY period LIMIT $2";
        let rows = sql::all(reader, text, [last.into(), PAGE.into()]).await?;
        for row in &rows {
            last = sql::get(row, "period")?;
            let Some(period) = Period::from_number(last) else {
                report.find("statement", last.to_string(), "this is no month");
                continue;
            };
            let body: String = sql::get(row, "statement")?;
            if let Some(Some(digest)) = closed.get(&period.to_string())
                && *digest != sha256_hex(body.as_bytes())
            {
                report.find("statement", period.to_string(), "it was changed after the month was closed");
            }
            check_statement(ledger, reader, period, &body, &mut report).await?;
            seen.push(period);
            report.statements += 1;
        }
        if rows.is_empty() {
            break;
        }
    }
    for month in closed.keys().filter(|month| Period::parse(month).is_none_or(|month| !seen.contains(&month))) {
        report.find("statement", month, "the month was closed, and its statement is gone");
    }
    check_book(ledger, reader, &seen, &mut report).await?;
    // Acts and rows are read one after the other: what differs once may have been decided in between.
    let differing = differing_corrections(reader).await?;
    if !differing.is_empty() {
        let still = differing_corrections(reader).await?;
        report.findings.extend(differing.into_iter().filter(|finding| still.contains(finding)));
    }
    Ok(report)
}

async fn acts(reader: &DatabaseConnection, action: &str) -> Result<Vec<Recorded>, Error> {
    let mut all: Vec<Recorded> = Vec::new();
    loop {
        let after = all.last().map_or(0, |act| act.id);
        let page = audit::of_action(reader, action, after, ACTS_PAGE).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// Compares a statement with what the lots say now and with what was settled.
async fn check_statement(
    ledger: &Ledger,
    reader: &DatabaseConnection,
    period: Period,
    body: &str,
    report: &mut ClearingReport,
) -> Result<(), Error> {
    let place = period.to_string();
    let Ok(statement) = serde_json::from_str::<Clearing>(body) else {
        report.find("statement", place, "it can't be read");
        return Ok(());
    };
    let moved = clearing::moved(ledger, reader, period).await?;
    match clearing::sum(reader, period, ClearingState::Closed, &moved).await {
        Ok(summed) => {
            for (told, summed) in statement.lines.iter().zip(&summed.lines).filter(|(told, summed)| told != summed) {
                report.find("statement", format!("{place} {}", told.line), format!("it says {told:?}, the book comes to {summed:?}"));
            }
            let rest = |clearing: &Clearing| (clearing.lines.len(), clearing.matrix.clone(), clearing.centre);
            if rest(&statement) != rest(&summed) {
                report.find("statement", place.clone(), "its matrix or the points centre's side differs from the book");
            }
        }
        Err(error) => report.find("statement", place.clone(), format!("the month can't be summed: {error}")),
    }
    let accounts = statement.lines.iter().map(|line| (books::line_account(line.line, LineAccount::Settlement), line.net_fen));
    for (account, fen) in accounts.chain([(books::CENTRE.to_owned(), statement.centre.net_fen)]) {
        let turnover = ledger.turnover(reader, &account, period).await?;
        let settled = turnover.credits - turnover.debits;
        if settled != fen {
            report.find("settlement", format!("{place} {account}"), format!("{settled} fen were settled, the statement says {fen}"));
        }
    }
    Ok(())
}

/// Whether the book is closed for just the months that have a statement; one more may be shut, with its check list, by a close that was
/// killed.
async fn check_book(ledger: &Ledger, reader: &DatabaseConnection, seen: &[Period], report: &mut ClearingReport) -> Result<(), Error> {
    let book = match ledger.book(reader, books::POINTS).await {
        // A tenant whose server never came up has no book, and closed nothing.
        Err(heyuan_ledger::Error::Kernel(heyuan_kernel::Error::Corrupt { .. })) if seen.is_empty() => return Ok(()),
        other => other?,
    };
    for period in seen.iter().filter(|period| !book.is_closed(**period) || **period < book.opens_at()) {
        report.find("book", period.to_string(), "the month has a statement, and the book is open for it");
    }
    let Some(through) = book.closed_through() else { return Ok(()) };
    let mut period = book.opens_at();
    while period <= through {
        if !seen.contains(&period) {
            let text = "SELECT COUNT(*) AS n FROM membership_closing WHERE period = $1";
            if sql::count(reader, text, [period.number().into()]).await? == 0 {
                report.find("book", period.to_string(), "the book is closed for the month, and nobody closed it with a check list");
            }
        }
        period = period.next();
    }
    Ok(())
}

/// Compares corrections with the acts that made them: answers to disputes, and proposals that somebody else approved.
async fn differing_corrections(reader: &DatabaseConnection) -> Result<Vec<Finding>, Error> {
    let mut report = ClearingReport::default();
    let mut made: BTreeMap<(String, String), i128> = BTreeMap::new();
    let fen = |act: &Recorded, fact: &str| act.detail.get(fact).and_then(Value::as_i64).map_or(0, i128::from);
    let word = |act: &Recorded, fact: &str| act.detail.get(fact).and_then(Value::as_str).unwrap_or_default().to_owned();
    for act in acts(reader, SAID).await? {
        if let Some((period, line)) = act.object.split_once('/') {
            *made.entry((period.to_owned(), line.to_owned())).or_default() += fen(&act, "correction_fen");
        }
    }
    let proposals: HashMap<String, Recorded> =
        acts(reader, "propose correction").await?.into_iter().map(|act| (act.object.clone(), act)).collect();
    for act in acts(reader, "decide correction").await?.iter().filter(|act| word(act, "state") == "approved") {
        let Some(proposed) = proposals.get(&act.object) else {
            report.find("correction", act.object.clone(), "it was approved, and nobody proposed it");
            continue;
        };
        let (period, fen) = (word(proposed, "of_period"), fen(proposed, "fen"));
        *made.entry((period.clone(), word(proposed, "line"))).or_default() += fen;
        let counter = word(proposed, "counter");
        if Line::parse(&counter).is_some() {
            *made.entry((period, counter)).or_default() -= fen;
        }
    }
    made.retain(|_, fen| *fen != 0);
    let mut kept: BTreeMap<(String, String), i128> = BTreeMap::new();
    let text = "SELECT of_period, line, CAST(SUM(fen >> 32) AS BIGINT) AS high, CAST(SUM(fen & 4294967295) AS BIGINT) AS low
                FROM membership_correction GROUP BY of_period, line";
    for row in sql::all(reader, text, []).await? {
        let period: i64 = sql::get(&row, "of_period")?;
        let period = Period::from_number(period).map_or_else(|| period.to_string(), |period| period.to_string());
        let half = |name: &str| sql::get::<i64>(&row, name).map(i128::from);
        let fen = (half("high")? << 32) + half("low")?;
        if fen != 0 {
            kept.insert((period, sql::get(&row, "line")?), fen);
        }
    }
    for place in made.keys().chain(kept.keys()).collect::<BTreeSet<_>>() {
        let (made, kept) = (made.get(place).copied().unwrap_or(0), kept.get(place).copied().unwrap_or(0));
        if made != kept {
            report.find("correction", format!("{} {}", place.0, place.1), format!("{kept} fen stand in the clearing, {made} were decided"));
        }
    }
    Ok(report.findings)
}
