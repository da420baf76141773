//! Loading a demo group into a running server through its public API, from the tree of units to the last contract.

use super::client::Client;
use super::keys::{self, DemoKeys};
use super::progress::{Progress, grouped, say};
use super::records::Manifest;
use super::users::Users;
use super::{events, group, money, sales};
use crate::place::Place;
use anyhow::Context;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What was loaded; kept as `demo/loaded.json`.
#[derive(Debug, Serialize)]
pub(crate) struct Loaded {
    from: PathBuf,
    events: u64,
    members: u64,
    transactions: u64,
    /// Transactions of cars and cards that no app ever met: nobody could join.
    transactions_of_strangers: u64,
    transactions_refused: u64,
    spend_rows: u64,
    sales_records: u64,
    sales_records_refused: u64,
    seconds: u64,
}

impl Loaded {
    /// One line for a person.
    pub(crate) fn words(&self) -> String {
        format!(
            "loaded {} events, {} members with {} transactions, {} rows of spend, {} sales records in {} s",
            grouped(self.events),
            grouped(self.members),
            grouped(self.transactions),
            grouped(self.spend_rows),
            grouped(self.sales_records),
            self.seconds
        )
    }
}

/// The file that says that this tenant's demo group is loaded.
pub(crate) fn mark(data: &Path) -> PathBuf {
    keys::folder(data).join("loaded.json")
}

/// Loads everything; what was loaded before is known by its ids and harms nothing.
///
/// # Errors
/// In words: a folder that is not whole, a server that is away or refuses.
pub(crate) async fn load(place: &Place, url: &str, from: &Path, plugins: &Path) -> anyhow::Result<Loaded> {
    let begun = Instant::now();
    let manifest = Manifest::read(from)?;
    let client = Client::new(url)?;
    let progress = Progress::start();
    say(&format!("loading {} into {url} through its public API", from.display()));
    let keys = DemoKeys::of_group(place, &client).await?;
    let tree = group::put_units(&client, &keys.admin, from).await?;
    let keys = keys.with_units(place, &tree.ids).await?;
    group::put_event_types(&client, &keys.admin).await?;
    group::put_features(&client, &keys.admin).await?;
    group::put_plugins(&client, &keys.admin, plugins).await?;
    group::put_definitions(&client, &keys.admin).await?;
    let goods = group::put_catalogue(&client, &keys.admin, from).await?;
    say(&format!("  the group stands: {} units, 2 plugins, {goods} merchants and products", tree.ids.len()));

    let events_file = from.join("events.ndjson");
    let read = events_file.clone();
    let users = tokio::task::spawn_blocking(move || Users::read(&read)).await.context("reading the log-ins broke off")??;
    let lane = |what, file: &str| progress.lane(what, manifest.rows(file));
    let (sent, tills, desk) = (lane("events", "events.ndjson"), lane("transactions", "transactions.ndjson"), lane("leads", "leads.ndjson"));
    let spend_and_leads = async {
        let rows = sales::send_spend(&client, from, &keys.admin, &tree.root, &tree.by_name).await?;
        sales::send_leads(&client, from.join("leads.ndjson"), &keys.app, desk).await.map(|taken| (rows, taken))
    };
    let ((), money, (spend_rows, leads)) = tokio::try_join!(
        events::send(&client, events_file, &keys.import, sent),
        money::send(&client, from.join("transactions.ndjson"), &keys.app, &users, &tills),
        spend_and_leads,
    )?;
    say("  everything is with the server; it makes customers, features and tags of the rest");
    events::settle(&client, &progress).await?;
    let loaded = Loaded {
        from: from.to_owned(),
        events: manifest.rows("events.ndjson"),
        members: money.members,
        transactions: money.transactions,
        transactions_of_strangers: money.strangers,
        transactions_refused: money.refused,
        spend_rows,
        sales_records: leads.records,
        sales_records_refused: leads.refused,
        seconds: begun.elapsed().as_secs(),
    };
    keys::write_private(&mark(&place.data), &serde_json::to_string_pretty(&loaded)?)?;
    Ok(loaded)
}
