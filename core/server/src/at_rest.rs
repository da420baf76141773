//! `heyuan migrate --keep-copy`: an embedded database is brought up to a release while no server works on it, and is put back as it was
//! where that fails. The steps are made by a process of their own, so that nothing holds the file open when it is replaced.

use crate::cli::print;
use crate::copies::{Copies, ForRelease, must_be_embedded};
use crate::place::Place;
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Makes the steps that are missing; the copy stays until it is removed by the operator or replaced by the next.
///
/// # Errors
/// What failed, in words; then the database is as it was.
pub(crate) async fn migrate(place: &Place, release: &ForRelease, report: Option<&Path>) -> anyhow::Result<()> {
    let settings = place.settings()?;
    let location = place.location(&settings)?;
    let file = must_be_embedded(&location)?;
    let _alone = place.lock(&settings)?;
    let mut told_to_stop = signal(SignalKind::terminate()).context("could not listen for signals")?;
    let copies = Copies::of(&place.data);
    let keeps = file.exists() && expands(place, &mut told_to_stop).await?;
    if keeps {
        copies.make(release).await?;
    }
    let mut arguments: Vec<&str> = Vec::new();
    if let Some(report) = report {
        arguments.extend(["--report", report.to_str().context("the report's path is not text")?]);
    }
    let (status, said) = by_itself(place, &arguments, &mut told_to_stop).await?;
    if status.success() {
        return print(said.trim_end());
    }
    let mut line: Value = serde_json::from_str(&said).unwrap_or_else(|_| json!({ "release": env!("CARGO_PKG_VERSION"), "made": [] }));
    let why = line["why"].as_str().map_or_else(|| format!("it was broken off ({status})"), str::to_owned);
    let outcome = if keeps {
        match copies.put_back(release).await {
            Ok(()) => "the database was put back as it was before".to_owned(),
            Err(error) => format!("the database could not be put back: {error:#}"),
        }
    } else {
        "nothing was changed".to_owned()
    };
    line["why"] = format!("{why}; {outcome}").into();
    if let Some(report) = report {
        std::fs::write(report, line.to_string()).with_context(|| format!("could not write the report {}", report.display()))?;
    }
    print(&line.to_string())?;
    bail!("{why}; {outcome}")
}

/// Whether the database lacks steps that this release needs.
async fn expands(place: &Place, told_to_stop: &mut Signal) -> anyhow::Result<bool> {
    let (status, said) = by_itself(place, &["--plan"], told_to_stop).await?;
    if !status.success() {
        bail!("the database can't be read: look at what stands above");
    }
    let plan: Value = serde_json::from_str(&said).context("the plan is no JSON")?;
    Ok(plan["steps"].as_array().into_iter().flatten().any(|step| step["kind"] == "expand"))
}

/// Runs `heyuan migrate` to its end, or ends it where this process is told to stop; answers what it printed.
async fn by_itself(place: &Place, arguments: &[&str], told_to_stop: &mut Signal) -> anyhow::Result<(ExitStatus, String)> {
    let program = std::env::current_exe().context("could not find this program")?;
    let mut command = Command::new(program);
    command.arg("migrate").arg("--data").arg(&place.data).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    if let Some(config) = &place.config {
        command.arg("--config").arg(config);
    }
    let mut child = command.spawn().context("could not start heyuan migrate")?;
    let mut said = String::new();
    if let Some(mut output) = child.stdout.take() {
        tokio::select! {
            read = output.read_to_string(&mut said) => { read.context("could not read what heyuan migrate prints")?; }
            _ = told_to_stop.recv() => child.start_kill().context("could not end heyuan migrate")?,
        }
    }
    Ok((child.wait().await.context("could not wait for heyuan migrate")?, said))
}
