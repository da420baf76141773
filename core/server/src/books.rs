//! `heyuan ledger`, `heyuan audit`, `heyuan heads`: the book and the audit record checked from end to end, against heads kept elsewhere.

mod http;

pub(crate) use http::routes;

use crate::cli;
use crate::place::{Place, Schema};
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use heyuan_kernel::chain::{Finding, Head};
use heyuan_kernel::time::format_rfc3339;
use heyuan_kernel::{Kernel, Rfc3339, audit};
use heyuan_ledger::{ENTRY_COLUMNS, Ledger, Period};
use heyuan_membership::verify_clearing;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The double-entry book.
#[derive(Debug, Subcommand)]
pub(crate) enum LedgerCommand {
    /// Check every promise of the book: chain, sums, balances, versions, lots, stripes, holds; and closed months and corrections against it
    Verify(Verify),
    /// Print what an account held before a month, what moved in it, entry by entry, and what it held then, as CSV
    Statement(Statement),
    /// Print as CSV what all accounts held before a month, what moved in it, and what they held then; every unit sums to zero
    TrialBalance(TrialBalance),
    /// Print every entry as CSV, those of a month or all
    Export(ExportEntries),
}

/// The audit record.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Check that no audit record was changed, removed or inserted since it was sealed
    Verify(Verify),
}

/// The signed ends of the chains.
#[derive(Debug, Subcommand)]
pub(crate) enum HeadsCommand {
    /// Print the newest signed head of each chain, a JSON line each; kept apart from the database, they show when a chain was cut
    Export(ExportHeads),
}

/// `heyuan ledger verify`, `heyuan audit verify`
#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    place: Place,
    /// A file of lines that heyuan heads export printed earlier: the chain must still hold every one of them
    #[arg(long)]
    heads: Option<PathBuf>,
}

/// `heyuan heads export`
#[derive(Debug, Args)]
pub(crate) struct ExportHeads {
    #[command(flatten)]
    place: Place,
}

/// `heyuan ledger statement`
#[derive(Debug, Args)]
pub(crate) struct Statement {
    #[command(flatten)]
    place: Place,
    /// The account's id, such as line/mall/points_issued
    #[arg(long)]
    account: String,
    /// The month, such as 2026-11
    #[arg(long, value_parser = month)]
    period: Period,
}

/// `heyuan ledger trial-balance`
#[derive(Debug, Args)]
pub(crate) struct TrialBalance {
    #[command(flatten)]
    place: Place,
    /// The month, such as 2026-11
    #[arg(long, value_parser = month)]
    period: Period,
}

/// `heyuan ledger export`
#[derive(Debug, Args)]
pub(crate) struct ExportEntries {
    #[command(flatten)]
    place: Place,
    /// The month, such as 2026-11; all when left out
    #[arg(long, value_parser = month)]
    period: Option<Period>,
}

fn month(text: &str) -> Result<Period, String> {
    Period::parse(text).ok_or_else(|| "expected a month such as 2026-11".to_owned())
}

/// A head as a line of a file.
#[derive(Debug, Serialize, Deserialize)]
struct HeadLine {
    chain: String,
    number: i64,
    hash: String,
    signature: String,
    at: Rfc3339,
}

/// Entries of a statement that are read at once.
const ENTRIES_PAGE: u64 = 1000;

/// Runs a command of the book.
///
/// # Errors
/// The command's.
pub(crate) async fn run_ledger(command: &LedgerCommand) -> anyhow::Result<()> {
    match command {
        LedgerCommand::Verify(options) => verify_ledger(options).await,
        LedgerCommand::Statement(options) => statement(options).await,
        LedgerCommand::TrialBalance(options) => trial_balance(options).await,
        LedgerCommand::Export(options) => export_entries(options).await,
    }
}

/// Rows as RFC 4180 wants them.
fn table() -> csv::Writer<std::io::Stdout> {
    csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(std::io::stdout())
}

async fn statement(options: &Statement) -> anyhow::Result<()> {
    let kernel = options.place.open(&options.place.settings()?, Schema::Read).await?;
    let ledger = Ledger::new(kernel);
    let reader = ledger.database().reader();
    let read = |after| ledger.account_statement(reader, &options.account, options.period, after, ENTRIES_PAGE);
    let mut page = read(None).await?;
    let mut table = table();
    table.write_record(["transfer", "occurred_at", "kind", "reference", "key", "other", "amount", "balance"])?;
    let sum = |name: &str, amount: i64| ["", "", name, "", "", "", &amount.to_string(), ""].map(str::to_owned);
    table.write_record(sum("opening", page.opening))?;
    let after_it = [sum("debits", -page.debits), sum("credits", page.credits), sum("closing", page.closing)];
    loop {
        for entry in &page.entries {
            table.write_record([
                entry.transfer.to_string(),
                format_rfc3339(entry.occurred_at),
                entry.kind.clone(),
                entry.reference.clone(),
                entry.key.clone(),
                entry.other.clone(),
                entry.amount.to_string(),
                entry.balance.map_or(String::new(), |balance| balance.to_string()),
            ])?;
        }
        let Some(last) = page.entries.last().filter(|_| u64::try_from(page.entries.len()) == Ok(ENTRIES_PAGE)) else { break };
        page = read(Some(last.place)).await?;
    }
    for row in after_it {
        table.write_record(row)?;
    }
    Ok(table.flush()?)
}

async fn trial_balance(options: &TrialBalance) -> anyhow::Result<()> {
    let kernel = options.place.open(&options.place.settings()?, Schema::Read).await?;
    let ledger = Ledger::new(kernel);
    let lines = ledger.trial_balance(ledger.database().reader(), options.period).await?;
    let mut sums: BTreeMap<&str, [i128; 2]> = BTreeMap::new();
    let mut table = table();
    table.write_record(["unit", "accounts", "opening", "debits", "credits", "closing"])?;
    for line in &lines {
        let sum = sums.entry(&line.unit).or_default();
        sum[0] += i128::from(line.opening);
        sum[1] += i128::from(line.closing);
        let figures = [line.opening, line.debits, line.credits, line.closing].map(|figure| figure.to_string());
        table.write_record([&line.unit, &line.group].into_iter().chain(&figures))?;
    }
    table.flush()?;
    match sums.iter().find(|(_, sum)| **sum != [0, 0]) {
        None => Ok(()),
        Some((unit, sum)) => {
            bail!("the accounts of {unit} sum to {} before {} and to {} after it instead of zero", sum[0], options.period, sum[1])
        }
    }
}

async fn export_entries(options: &ExportEntries) -> anyhow::Result<()> {
    let kernel = options.place.open(&options.place.settings()?, Schema::Read).await?;
    let ledger = Ledger::new(kernel);
    let mut table = table();
    table.write_record(ENTRY_COLUMNS)?;
    let mut after = Some(0);
    while let Some(from) = after {
        let page = ledger.entry_rows(ledger.database().reader(), options.period, from).await?;
        for row in &page.rows {
            table.write_record(row)?;
        }
        after = page.next;
    }
    Ok(table.flush()?)
}

/// Prints what was checked and what is wrong with the book.
///
/// # Errors
/// When anything is wrong with the book, or it can't be read.
async fn verify_ledger(options: &Verify) -> anyhow::Result<()> {
    let (kernel, lines) = options.open().await?;
    let ledger = Ledger::new(kernel.clone());
    let mut report = ledger.verify_against(&heads_of(ledger.chain().name(), &lines)).await?;
    cli::print(&format!(
        "checked {} entries of {} accounts and {} lots; {} transfers are sealed, {} committed ones wait for the sealer",
        report.entries, report.accounts, report.lots, report.sealed, report.tail
    ))?;
    // What of the clearing is no entry of the book is compared with it, and with what is sealed in the audit record.
    match verify_clearing(&kernel, &ledger).await {
        Ok(clearing) => {
            cli::print(&format!("checked the statements of {} closed months", clearing.statements))?;
            report.findings.extend(clearing.findings);
        }
        Err(error) => {
            let why = format!("the check broke off: {error}");
            report.findings.push(Finding { check: "unfinished", place: "clearing".to_owned(), why });
        }
    }
    judge("the book", &report.findings)
}

/// Prints what was checked and what is wrong with the audit record.
///
/// # Errors
/// When anything is wrong with it, or it can't be read.
pub(crate) async fn verify_audit(options: &Verify) -> anyhow::Result<()> {
    let (kernel, lines) = options.open().await?;
    let chain = audit::chain(&kernel);
    let walk = chain.verify(&heads_of(chain.name(), &lines)).await?;
    cli::print(&format!("checked {} sealed audit records; {} committed ones wait for the sealer", walk.sealed, walk.tail))?;
    judge("the audit record", &walk.findings)
}

fn judge(what: &str, findings: &[Finding]) -> anyhow::Result<()> {
    for finding in findings {
        cli::print(&format!("{} {}: {}", finding.check, finding.place, finding.why))?;
    }
    if !findings.is_empty() {
        bail!("{what} is not sound");
    }
    cli::print(&format!("{what} is sound"))
}

/// Prints the newest heads.
///
/// # Errors
/// When the database can't be read.
pub(crate) async fn export_heads(options: &ExportHeads) -> anyhow::Result<()> {
    let kernel = options.place.open(&options.place.settings()?, Schema::Read).await?;
    for chain in [Ledger::new(kernel.clone()).chain(), audit::chain(&kernel)] {
        if let Some(head) = chain.head().await? {
            let Head { number, hash, signature, at } = head;
            let line = HeadLine { chain: chain.name().to_owned(), number, hash, signature, at: Rfc3339(at) };
            cli::print(&serde_json::to_string(&line)?)?;
        }
    }
    Ok(())
}

impl Verify {
    async fn open(&self) -> anyhow::Result<(Kernel, Vec<HeadLine>)> {
        let lines = self.heads.as_deref().map_or(Ok(Vec::new()), read_heads)?;
        Ok((self.place.open(&self.place.settings()?, Schema::Read).await?, lines))
    }
}

fn read_heads(path: &Path) -> anyhow::Result<Vec<HeadLine>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(index, line)| read_head(line).with_context(|| format!("{}, line {}", path.display(), index + 1))).collect()
}

/// A head of an unknown chain would be checked by nobody.
fn read_head(text: &str) -> anyhow::Result<HeadLine> {
    let line: HeadLine = serde_json::from_str(text).context("this is no line of heyuan heads export")?;
    if !matches!(line.chain.as_str(), "ledger" | "audit") {
        bail!("there is no chain {:?}", line.chain);
    }
    Ok(line)
}

fn heads_of(chain: &str, lines: &[HeadLine]) -> Vec<Head> {
    let own = lines.iter().filter(|line| line.chain == chain);
    own.map(|line| Head { number: line.number, hash: line.hash.clone(), signature: line.signature.clone(), at: line.at.0 }).collect()
}
