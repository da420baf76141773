//! The command line.

use crate::crd;
use crate::explain::{self, ExplainOptions};
use crate::reason::Reason;
use crate::run::{self, RunOptions};
use clap::{Parser, Subcommand};
use std::fmt::Write;
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(name = "heyuan-operator", version, about = "The operator of Heyuan: a tenant is a YAML file")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch tenants and make them what their specs say
    Run(Box<RunOptions>),
    /// Print what the operator sees of a tenant, wants and waits for
    Explain(ExplainOptions),
    /// Print the custom resource definitions as YAML
    Crds,
    /// Print every reason of a condition as the table of docs/operator.md
    Reasons,
}

/// Runs the command line to its end.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let result = match cli.command {
        Command::Run(options) => runtime.block_on(run::run(*options)),
        Command::Explain(options) => runtime.block_on(explain::explain(options)),
        Command::Crds => definitions().map(|text| print(&text)),
        Command::Reasons => {
            print(&reasons());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

#[expect(clippy::print_stderr, reason = "a command's failure is told to whoever typed it")]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("heyuan-operator: {error:#}");
    ExitCode::FAILURE
}

#[expect(clippy::print_stdout, reason = "what a command answers goes to standard output")]
pub(crate) fn print(text: &str) {
    println!("{text}");
}

/// The definitions as one YAML text.
///
/// # Errors
/// Where a definition can't be written, which would be a mistake of ours.
pub fn definitions() -> anyhow::Result<String> {
    let mut text = String::new();
    for definition in crd::definitions() {
        let yaml = serde_saphyr::to_string(&definition)?;
        write!(text, "---\n{yaml}")?;
    }
    Ok(text)
}

/// Every reason with its cause and next step, as a Markdown table.
pub fn reasons() -> String {
    let mut text = "| reason | cause | what to do |\n|---|---|---|\n".to_owned();
    for reason in Reason::ALL {
        let explained = reason.explained();
        let next = if explained.next.is_empty() { "Nothing." } else { explained.next };
        let _ = writeln!(text, "| <a id=\"{}\"></a>`{reason}` | {} | {next} |", reason.anchor(), explained.cause);
    }
    text
}
