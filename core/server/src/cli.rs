//! The command line.

use crate::books::{self, LedgerCommand};
use crate::demo::{self, DemoCommand};
use crate::gateway::{self, RunSimulator};
use crate::place::{self, Place, Schema};
use crate::tour::{self, TourOptions};
use crate::watch::{self, EventsCommand};
use crate::{sandbox, serve};
use clap::{Args, Parser, Subcommand};
use heyuan_kernel::{Database, Location, Scope, keys};
use std::process::ExitCode;

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
    /// Make API keys
    #[command(subcommand)]
    Keys(Keys),
    /// The demo group: generate it, load it, or serve a tenant that fills itself with it
    #[command(subcommand)]
    Demo(DemoCommand),
    /// Walk the story from an ad click to cost per contract against a running server
    Tour(TourOptions),
    /// The double-entry book
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// Events on their way in
    #[command(subcommand)]
    Events(EventsCommand),
    /// Serve a payment gateway that misbehaves as real ones do, for trials and tests
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

#[derive(Debug, Subcommand)]
enum Keys {
    /// Make a key and print it: it can't be shown again
    Create(CreateKey),
}

#[derive(Debug, Args)]
struct CreateKey {
    #[command(flatten)]
    place: Place,
    /// ingest, app, admin, reveal, import; several parted by commas
    #[arg(long, required = true, value_delimiter = ',', value_parser = parse_scope)]
    scopes: Vec<Scope>,
    /// The org unit that the key belongs to; the whole group when left out
    #[arg(long)]
    unit: Option<String>,
}

fn parse_scope(text: &str) -> Result<Scope, String> {
    Scope::parse(text).ok_or_else(|| "expected ingest, app, admin, reveal or import".to_owned())
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
    match runtime.block_on(execute(cli.command)) {
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
        Command::Keys(Keys::Create(options)) => create_key(&options).await,
        Command::Demo(command) => demo::run_demo(command).await,
        Command::Tour(options) => tour::tour(options).await,
        Command::Ledger(LedgerCommand::Verify(options)) => books::verify(&options).await,
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

async fn create_key(options: &CreateKey) -> anyhow::Result<()> {
    let settings = options.place.settings()?;
    let kernel = options.place.open(&settings, Schema::Prepare).await?;
    let unit = options.unit.as_deref().map(str::parse).transpose()?;
    print(&keys::create(&kernel.db, &kernel.org, &options.scopes, unit.as_ref()).await?)
}
