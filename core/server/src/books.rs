//! `heyuan ledger`, `heyuan audit`, `heyuan heads`: the book and the audit record checked from end to end, against heads kept elsewhere.

use crate::cli;
use crate::place::{Place, Schema};
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use heyuan_kernel::chain::{Finding, Head};
use heyuan_kernel::{Kernel, Rfc3339, audit};
use heyuan_ledger::Ledger;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The double-entry book.
#[derive(Debug, Subcommand)]
pub(crate) enum LedgerCommand {
    /// Check every promise of the book: chain, sums, balances, versions, lots
    Verify(Verify),
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

/// A head as a line of a file.
#[derive(Debug, Serialize, Deserialize)]
struct HeadLine {
    chain: String,
    number: i64,
    hash: String,
    signature: String,
    at: Rfc3339,
}

/// Prints what was checked and what is wrong with the book.
///
/// # Errors
/// When anything is wrong with the book, or it can't be read.
pub(crate) async fn verify_ledger(options: &Verify) -> anyhow::Result<()> {
    let (kernel, lines) = options.open().await?;
    let ledger = Ledger::new(kernel);
    let report = ledger.verify_against(&heads_of(ledger.chain().name(), &lines)).await?;
    cli::print(&format!(
        "checked {} entries of {} accounts and {} lots; {} transfers are sealed, {} committed ones wait for the sealer",
        report.entries, report.accounts, report.lots, report.sealed, report.tail
    ))?;
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
