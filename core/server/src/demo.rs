//! `heyuan demo`: a believable property group, generated, loaded through the public API, and served.

pub(crate) mod client;
mod events;
mod group;
pub(crate) mod keys;
mod load;
mod money;
pub(crate) mod progress;
mod records;
mod run;
mod sales;
mod users;

use crate::cli;
use crate::place::Place;
use anyhow::Context;
use clap::{Args, Subcommand};
use heyuan_demo::Config;
use jiff::civil::Date;
use std::path::PathBuf;

/// The demo group.
#[derive(Debug, Subcommand)]
pub(crate) enum DemoCommand {
    /// Write the history of a property group into a folder
    Generate(GenerateDemo),
    /// Load a generated group into a running server through its public API
    Load(LoadDemo),
    /// Serve a tenant and fill it with the demo group, once
    Run(RunDemo),
}

/// How large the group is.
#[derive(Debug, Clone, Args)]
pub(crate) struct Size {
    /// How many people
    #[arg(long, default_value_t = 20_000)]
    customers: u64,
    /// How many days of history
    #[arg(long, default_value_t = 180)]
    days: u32,
    /// The same seed gives the same bytes
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// `heyuan demo generate`
#[derive(Debug, Args)]
pub(crate) struct GenerateDemo {
    #[command(flatten)]
    size: Size,
    /// The day after the last one of the history
    #[arg(long, default_value_t = Config::default().end_date)]
    end_date: Date,
    /// Let the lines make mistakes when they report, and write the books of their own that show them
    #[arg(long)]
    faults: bool,
    /// The folder to fill
    #[arg(long)]
    out: PathBuf,
}

/// `heyuan demo load`
#[derive(Debug, Args)]
pub(crate) struct LoadDemo {
    /// The tenant of the server: keys are made beside it
    #[command(flatten)]
    place: Place,
    /// The running server
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The folder that `heyuan demo generate` filled
    #[arg(long)]
    from: PathBuf,
    /// The folder with home-upgrader.wasm and member-day.wasm
    #[arg(long)]
    plugins: PathBuf,
}

/// `heyuan demo run`
#[derive(Debug, Args)]
pub(crate) struct RunDemo {
    #[command(flatten)]
    place: Place,
    /// Address and port; port 0 takes a free one, which is printed
    #[arg(long, env = "HEYUAN_LISTEN", default_value = "127.0.0.1:8080")]
    listen: String,
    /// The folder with home-upgrader.wasm and member-day.wasm
    #[arg(long)]
    plugins: PathBuf,
    #[command(flatten)]
    size: Size,
}

/// Runs a command of the demo.
///
/// # Errors
/// In words.
pub(crate) async fn run_demo(command: DemoCommand) -> anyhow::Result<()> {
    match command {
        DemoCommand::Generate(options) => generate(options).await,
        DemoCommand::Load(options) => {
            let loaded = load::load(&options.place, &options.url, &options.from, &options.plugins).await?;
            cli::print(&loaded.words())
        }
        DemoCommand::Run(options) => run::run(options).await,
    }
}

async fn generate(options: GenerateDemo) -> anyhow::Result<()> {
    let Size { customers, days, seed } = options.size;
    let config = Config { customers, days, seed, end_date: options.end_date, faults: options.faults };
    let made = tokio::task::spawn_blocking(move || heyuan_demo::generate(&config, &options.out)).await;
    let summary = made.context("generating broke off")??;
    cli::print(&serde_json::to_string_pretty(&summary)?)
}
