//! The command line.

use crate::at_rest;
use crate::books::{self, AuditCommand, HeadsCommand, LedgerCommand};
use crate::copies::ForRelease;
use crate::demo::{self, DemoCommand};
use crate::gateway::{self, RunSimulator};
use crate::keyring::{self, KeysCommand};
use crate::place::{self, Place};
use crate::tour::{self, TourOptions};
use crate::watch::{self, EventsCommand};
use crate::{sandbox, serve};
use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use heyuan_kernel::schema::{Failed, Making, Plan, Step};
use heyuan_kernel::{Database, Location};
use serde::Serialize;
use std::path::PathBuf;
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
    /// Compile plugins for the server beside this process: a second container of its pod, without secrets
    CompilePlugins(CompilePlugins),
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
    /// Address and port for the operator alone, with its key in the file that the setting operator.key_file names
    #[arg(long, env = "HEYUAN_OPERATOR_LISTEN")]
    operator_listen: Option<String>,
}

#[derive(Debug, Args)]
struct CompilePlugins {
    /// The socket that the server's setting plugins.compiler_socket names
    #[arg(long, env = "HEYUAN_COMPILER_SOCKET")]
    socket: PathBuf,
}

#[derive(Debug, Args)]
struct Migrate {
    #[command(flatten)]
    place: Place,
    /// Print as JSON what would be done, and do nothing
    #[arg(long)]
    plan: bool,
    /// Make contracting steps too: after these, earlier releases can't serve any more
    #[arg(long, conflicts_with = "plan")]
    contract: bool,
    /// First copy the embedded database's file, named by this release, and put the copy back where a step fails; no server may run
    #[arg(long, value_name = "RELEASE", conflicts_with_all = ["plan", "contract"])]
    keep_copy: Option<ForRelease>,
    /// Write into this file, as one line of JSON, what the plan is afterwards, or why a step failed
    #[arg(long, conflicts_with = "plan")]
    report: Option<PathBuf>,
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
        Command::Serve(options) => serve::serve(&options.place, &options.listen, options.operator_listen.as_deref()).await,
        Command::Migrate(options) => migrate(&options).await,
        Command::Keys(command) => keyring::run(&command).await,
        Command::Demo(command) => demo::run_demo(command).await,
        Command::Tour(options) => tour::tour(options).await,
        Command::Ledger(command) => books::run_ledger(&command).await,
        Command::Audit(AuditCommand::Verify(options)) => books::verify_audit(&options).await,
        Command::Heads(HeadsCommand::Export(options)) => books::export_heads(&options).await,
        Command::Events(EventsCommand::Tail(options)) => watch::tail(&options).await,
        Command::Simulator(options) => gateway::run(options).await,
        Command::CompilePlugins(options) => sandbox::serve_compilations(options.socket).await,
        Command::CompilePlugin => anyhow::bail!("plugins are compiled before the runtime starts"),
        Command::Openapi => print(&serve::openapi().to_pretty_json()?),
    }
}

#[expect(clippy::print_stdout, reason = "what a command answers goes to standard output")]
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    println!("{text}");
    Ok(())
}

/// What `heyuan migrate` says on standard output when it is done, however it ended.
#[derive(Debug, Serialize)]
struct Migrated {
    release: &'static str,
    /// The steps that were made and stand.
    made: Vec<Step>,
    /// The step that failed and changed nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<Step>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// The plan, where the database is of a later release and this one may not serve on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<Plan>,
}

async fn migrate(options: &Migrate) -> anyhow::Result<()> {
    if let Some(release) = &options.keep_copy {
        return at_rest::migrate(&options.place, release, options.report.as_deref()).await;
    }
    let settings = options.place.settings()?;
    let blueprint = place::blueprint();
    let location = options.place.location(&settings)?;
    match &location {
        Location::Sqlite(file) if options.plan && !file.exists() => {
            return print(&serde_json::to_string_pretty(&blueprint.plan_for_nothing())?);
        }
        Location::Sqlite(_) if !options.plan => std::fs::create_dir_all(&options.place.data)?,
        _ => {}
    }
    if options.plan {
        let db = Database::open(&location).await.context("could not open the database")?;
        return print(&serde_json::to_string_pretty(&blueprint.plan(&db).await?)?);
    }
    let making = if options.contract { Making::All } else { Making::Expanding };
    let (mut made, mut refused) = (Vec::new(), None);
    let ended = async {
        let db = Database::open(&location).await?;
        let ended = blueprint.make(&db, making, settings.database.lock_wait(), |step| made.push(step)).await;
        if let Err(Failed::Refused(_)) = &ended {
            refused = Some(blueprint.plan(&db).await?);
        }
        ended?;
        Ok(blueprint.plan(&db).await?)
    };
    let ended: Result<Plan, Failed> = ended.await;
    let (failed, ended) = match ended {
        Err(Failed::Step { step, why }) => (Some(step.clone()), Err(Failed::Step { step, why }.into())),
        ended => (None, ended.map_err(anyhow::Error::from)),
    };
    let why = ended.as_ref().err().map(|error| format!("{error:#}"));
    let line = serde_json::to_string(&Migrated { release: env!("CARGO_PKG_VERSION"), made, failed, why, refused })?;
    if let Some(file) = &options.report {
        let report = ended.as_ref().map_or_else(|_| Ok(line.clone()), serde_json::to_string)?;
        std::fs::write(file, report).with_context(|| format!("could not write the report {}", file.display()))?;
    }
    print(&line)?;
    ended.map(|_| ())
}
