//! `heyuan keys`: keys made, listed and revoked beside the tenant's data.

use crate::cli;
use crate::place::{Place, Schema};
use clap::{Args, Subcommand};
use heyuan_contract::Timestamp;
use heyuan_kernel::keys::{Credentials, KeyRecord};
use heyuan_kernel::time::format_rfc3339;
use heyuan_kernel::{Actor, Kernel, Scope};

/// Keys read at once for the list.
const LISTED: u64 = 200;

/// API keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key and print it: it can't be shown again
    Create(CreateKey),
    /// List every key without its secret: id, scopes, unit, when it was made, last used (to the hour) and revoked
    List(ListKeys),
    /// Revoke a key: a running server refuses it within five seconds
    Revoke(RevokeKey),
}

/// `heyuan keys create`
#[derive(Debug, Args)]
pub(crate) struct CreateKey {
    #[command(flatten)]
    place: Place,
    /// ingest, app, admin, reveal, import; several parted by commas
    #[arg(long, required = true, value_delimiter = ',', value_parser = parse_scope)]
    scopes: Vec<Scope>,
    /// The org unit that the key belongs to; the whole group when left out
    #[arg(long)]
    unit: Option<String>,
}

/// `heyuan keys list`
#[derive(Debug, Args)]
pub(crate) struct ListKeys {
    #[command(flatten)]
    place: Place,
}

/// `heyuan keys revoke`
#[derive(Debug, Args)]
pub(crate) struct RevokeKey {
    #[command(flatten)]
    place: Place,
    /// The key's id, as heyuan keys list prints it
    #[arg(value_name = "KEY_ID")]
    id: String,
}

fn parse_scope(text: &str) -> Result<Scope, String> {
    Scope::parse(text).ok_or_else(|| "expected ingest, app, admin, reveal or import".to_owned())
}

/// Runs the command.
///
/// # Errors
/// A tenant that can't be opened, an unknown unit or key, in words.
pub(crate) async fn run(command: &KeysCommand) -> anyhow::Result<()> {
    match command {
        KeysCommand::Create(options) => create(options).await,
        KeysCommand::List(options) => list(options).await,
        KeysCommand::Revoke(options) => revoke(options).await,
    }
}

/// Whoever holds the tenant's data and key may do everything; the audit record says that it was done here.
fn holder() -> Actor {
    Actor::system("keys")
}

async fn open(place: &Place, schema: Schema) -> anyhow::Result<Credentials> {
    let kernel: Kernel = place.open(&place.settings()?, schema).await?;
    Ok(Credentials::new(kernel.db, kernel.org, kernel.keys, kernel.clock))
}

async fn create(options: &CreateKey) -> anyhow::Result<()> {
    let credentials = open(&options.place, Schema::Prepare).await?;
    let unit = options.unit.as_deref().map(str::parse).transpose()?;
    cli::print(&credentials.create(&holder(), &options.scopes, unit.as_ref()).await?.secret)
}

async fn list(options: &ListKeys) -> anyhow::Result<()> {
    let credentials = open(&options.place, Schema::Read).await?;
    cli::print(&row(["id", "scopes", "unit", "created", "last used", "revoked"].map(str::to_owned)))?;
    let mut after = String::new();
    loop {
        let keys = credentials.list(&holder(), &after, LISTED).await?;
        let Some(last) = keys.last() else { return Ok(()) };
        after.clone_from(&last.id);
        for key in &keys {
            cli::print(&row(columns(key)))?;
        }
    }
}

fn columns(key: &KeyRecord) -> [String; 6] {
    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
    let at = |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), format_rfc3339);
    let unit = key.unit.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    [key.id.clone(), scopes.join(","), unit, at(Some(key.created_at)), at(key.last_used_at), at(key.revoked_at)]
}

/// Columns wide enough for what is usual; a longer value pushes the rest aside.
fn row([id, scopes, unit, created, used, revoked]: [String; 6]) -> String {
    format!("{id:<16}  {scopes:<20}  {unit:<16}  {created:<24}  {used:<24}  {revoked}").trim_end().to_owned()
}

async fn revoke(options: &RevokeKey) -> anyhow::Result<()> {
    let key = open(&options.place, Schema::Prepare).await?.revoke(&holder(), &options.id).await?;
    let at = key.revoked_at.map(format_rfc3339).unwrap_or_default();
    cli::print(&format!("{} is revoked since {at}", key.id))
}
