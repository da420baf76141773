//! `heyuan ledger`: the book checked from end to end.

use crate::cli;
use crate::place::{Place, Schema};
use anyhow::bail;
use clap::{Args, Subcommand};
use heyuan_ledger::Ledger;

/// The double-entry book.
#[derive(Debug, Subcommand)]
pub(crate) enum LedgerCommand {
    /// Check every promise of the book: chain, sums, balances, versions, lots
    Verify(VerifyLedger),
}

/// `heyuan ledger verify`
#[derive(Debug, Args)]
pub(crate) struct VerifyLedger {
    #[command(flatten)]
    place: Place,
}

/// Prints what was checked and what is wrong.
///
/// # Errors
/// When anything is wrong with the book, or it can't be read.
pub(crate) async fn verify(options: &VerifyLedger) -> anyhow::Result<()> {
    let settings = options.place.settings()?;
    let kernel = options.place.open(&settings, Schema::Prepare).await?;
    let report = Ledger::new(kernel).verify().await?;
    cli::print(&format!(
        "checked {} entries of {} accounts and {} lots; {} transfers are sealed, {} committed ones wait for the sealer",
        report.entries, report.accounts, report.lots, report.sealed, report.tail
    ))?;
    for finding in &report.findings {
        cli::print(&format!("{} {}: {}", finding.check, finding.place, finding.why))?;
    }
    if !report.is_sound() {
        bail!("the book is not sound");
    }
    cli::print("the book is sound")
}
