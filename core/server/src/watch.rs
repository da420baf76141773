//! `heyuan events tail`: what arrives, as it arrives, with its fate.

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use std::io::Write;

/// Events on their way in.
#[derive(Debug, Subcommand)]
pub(crate) enum EventsCommand {
    /// Print what arrives, as it arrives, with its fate, until Ctrl-C
    Tail(TailEvents),
}

/// `heyuan events tail`
#[derive(Debug, Args)]
pub(crate) struct TailEvents {
    /// The running server
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// A key of scope admin
    #[arg(long, env = "HEYUAN_KEY", hide_env_values = true)]
    key: String,
}

/// Prints one JSON object a line.
///
/// # Errors
/// When the server can't be reached or refuses the key.
pub(crate) async fn tail(options: &TailEvents) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let request = client.get(format!("{}/v1/events/tail", options.url.trim_end_matches('/'))).bearer_auth(&options.key);
    let mut answer = request.send().await.with_context(|| format!("could not reach {}", options.url))?;
    if !answer.status().is_success() {
        bail!("the server answered {}: {}", answer.status(), answer.text().await.unwrap_or_default());
    }
    let mut out = std::io::stdout();
    while let Some(lines) = answer.chunk().await.context("the connection broke off")? {
        if out.write_all(&lines).and_then(|()| out.flush()).is_err() {
            // Whoever read has gone away: `heyuan events tail | head` ends here.
            return Ok(());
        }
    }
    Ok(())
}
