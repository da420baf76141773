//! The command line.

use crate::books::{self, AuditCommand, HeadsCommand, LedgerCommand};
use crate::demo::{self, DemoCommand};
use crate::gateway::{self, RunSimulator};
use crate::keyring::{self, KeysCommand};
use crate::place::{self, Place, Schema};
use crate::tour::{self, TourOptions};
use crate::watch::{self, EventsCommand};
use crate::{sandbox, serve};
use clap::{Args, Parser, Subcommand};
use heyuan_kernel::{Database, Location};
use std::process::ExitCode;
use std::time::Duration;

/// How long the end of a command waits for work on threads of its own.
const BACKGROUND: Duration = Duration::from_millis(200);

#[derive(Debug, Parser)]
#[command(
    name = "heyuan",
    version,
    about = "Heyuan (合院): the customer platform that a property group runs for itself",
    after_help = "Start with `heyuan demo run`: it serves a demo group on http://127.0.0.1:8080 and shows where to look."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a tenant
    Serve(Serve),
    /// Bring the database's tables up to date
    Migrate(Migrate),
    /// Make, list and revoke API keys
    #[command(subcommand)]
    Keys(KeysCommand),
    /// The demo group: generate it, load it, or serve a tenant that fills itself with it
    #[command(subcommand)]
    Demo(DemoCommand),
    /// Walk the story from an ad click to cost per contract against a running server
    Tour(TourOptions),
    /// The double-entry book
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// The record of who did what
    #[command(subcommand)]
    Audit(AuditCommand),
    /// The signed ends of the book's and the audit record's chains
    #[command(subcommand)]
    Heads(HeadsCommand),
    /// Events on their way in
    #[command(subcommand)]
    Events(EventsCommand),
    /// Serve a payment gateway, WeChat's log-in, a provider of phone codes and an OpenID provider that misbehave as real ones do, for trials and tests
    Simulator(RunSimulator),
    /// Print the OpenAPI document
    Openapi,
    /// Compile a plugin from standard input; the server runs this in a process of its own
    #[command(hide = true, name = sandbox::COMPILE_COMMAND)]
    CompilePlugin,
}

#[derive(Debug, Args)]
struct Serve {
    #[command(flatten)]
    place: Place,
    /// Address and port; port 0 takes a free one, which is printed
    #[arg(long, env = "HEYUAN_LISTEN", default_value = "127.0.0.1:8080")]
    listen: String,
}

#[derive(Debug, Args)]
struct Migrate {
    #[command(flatten)]
    place: Place,
    /// Print as JSON what would be done, and do nothing
    #[arg(long)]
    plan: bool,
}

/// Runs the command line to its end.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    if matches!(cli.command, Command::CompilePlugin) {
        return heyuan_plugin_host::compile_worker();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let result = runtime.block_on(execute(cli.command));
    // What is still computed, such as the demo's history, is wanted by nobody any more.
    runtime.shutdown_timeout(BACKGROUND);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

#[expect(clippy::print_stderr, reason = "a command's failure is told to whoever typed it")]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("heyuan: {error:#}");
    ExitCode::FAILURE
}

async fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(options) => serve::serve(&options.place, &options.listen).await,
        Command::Migrate(options) => migrate(&options).await,
        Command::Keys(command) => keyring::run(&command).await,
        Command::Demo(command) => demo::run_demo(command).await,
        Command::Tour(options) => tour::tour(options).await,
        Command::Ledger(command) => books::run_ledger(&command).await,
        Command::Audit(AuditCommand::Verify(options)) => books::verify_audit(&options).await,
        Command::Heads(HeadsCommand::Export(options)) => books::export_heads(&options).await,
        Command::Events(EventsCommand::Tail(options)) => watch::tail(&options).await,
        Command::Simulator(options) => gateway::run(options).await,
        Command::CompilePlugin => anyhow::bail!("plugins are compiled before the runtime starts"),
        Command::Openapi => print(&serve::openapi().to_pretty_json()?),
    }
}

#[expect(clippy::print_stdout, reason = "what a command answers goes to standard output")]
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    println!("{text}");
    Ok(())
}

async fn migrate(options: &Migrate) -> anyhow::Result<()> {
    let settings = options.place.settings()?;
    if options.plan {
        let location = Location::new(&options.place.data, options.place.database_url.as_deref());
        let db = Database::open(&location).await?;
        let rooms = place::plan(&db).await?;
        let pending: serde_json::Map<String, serde_json::Value> =
            rooms.into_iter().map(|(room, names)| (room.into(), names.into())).collect();
        return print(&serde_json::to_string_pretty(&serde_json::json!({ "pending": pending }))?);
    }
    options.place.open(&settings, Schema::Migrate).await?;
    Ok(())
}
