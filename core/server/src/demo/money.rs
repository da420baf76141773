//! Transactions on their way, with the customers of the tills made members first.

use super::client::{Call, Client};
use super::progress::Lane;
use super::records::{Refusals, money, stream};
use super::users::{Known, Person, Users};
use anyhow::{Context, anyhow, bail};
use futures::future::try_join_all;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc::{self, Receiver, Sender};

/// Requests on the wire at once, each of other people: the server commits them in groups. What one person bought goes in its order.
const LANES: usize = 64;
/// Transactions that wait in a lane.
const WAITING: usize = 32;

#[derive(Debug, Deserialize)]
struct Row {
    id: String,
    unit: String,
    kind: String,
    refund_of: Option<String>,
    occurred_at: String,
    amount_fen: i64,
    identifiers: Vec<Known>,
    lines: Vec<Item>,
}

#[derive(Debug, Deserialize)]
struct Item {
    sku: String,
    category: String,
    quantity: i64,
    amount_fen: i64,
}

/// What became of the transactions.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) transactions: u64,
    pub(crate) members: u64,
    /// Of cars and cards that no app ever met.
    pub(crate) strangers: u64,
    pub(crate) refused: u64,
}

struct Tills<'a> {
    client: &'a Client,
    key: &'a str,
    lane: &'a Lane,
    refusals: Refusals,
    posted: AtomicU64,
}

/// Reports every transaction of the file.
///
/// # Errors
/// A file that can't be read, a server that is away, more than a few refusals.
pub(crate) async fn send(client: &Client, path: PathBuf, key: &str, users: &Users, lane: &Lane) -> anyhow::Result<Taken> {
    let tills = Tills { client, key, lane, refusals: Refusals::of("transaction"), posted: AtomicU64::new(0) };
    let (rows, reader) = stream::<Row>(path);
    let (senders, lanes): (Vec<_>, Vec<_>) = (0..LANES).map(|_| mpsc::channel(WAITING)).unzip();
    let worked = try_join_all(lanes.into_iter().map(|rows| tills.work(rows)));
    let sent = futures::future::try_join(hand_out(rows, users, lane, senders), worked).await;
    let read = reader.await.map_err(|error| anyhow!("reading the transactions broke off: {error}"))?;
    let (strangers, members) = sent?;
    read?;
    let posted = tills.posted.load(Ordering::Relaxed);
    Ok(Taken { transactions: posted, members: members.into_iter().sum(), strangers, refused: tills.refusals.settle(posted)? })
}

/// Gives every transaction to the lane of its person; answers how many nobody could be found for.
async fn hand_out(mut rows: Receiver<Row>, users: &Users, lane: &Lane, senders: Vec<Sender<(Row, Person)>>) -> anyhow::Result<u64> {
    let mut strangers = 0;
    while let Some(row) = rows.recv().await {
        let Some(person) = users.person(&row.identifiers) else {
            strangers += 1;
            lane.add(1);
            continue;
        };
        let mut hasher = DefaultHasher::new();
        person.key.hash(&mut hasher);
        let place = usize::try_from(hasher.finish() % LANES as u64).unwrap_or(0);
        senders[place].send((row, person)).await.context("a lane of transactions is closed")?;
    }
    Ok(strangers)
}

impl Tills<'_> {
    /// One lane; answers how many people of it are members now.
    async fn work(&self, mut rows: Receiver<(Row, Person)>) -> anyhow::Result<u64> {
        let mut members: HashMap<String, String> = HashMap::new();
        while let Some((row, person)) = rows.recv().await {
            let member = match members.get(&person.key) {
                Some(member) => member,
                None => {
                    let member = self.join(&person.identifiers, &row.unit).await?;
                    members.entry(person.key).or_insert(member)
                }
            };
            self.report(&row, member).await?;
        }
        Ok(u64::try_from(members.len()).unwrap_or(u64::MAX))
    }

    async fn report(&self, row: &Row, member: &str) -> anyhow::Result<()> {
        let call = Call::json(Method::POST, "/v1/transactions", self.key, &body(row, member)).once(format!("demo-{}", row.id));
        let answer = self.client.send(&call).await?;
        if answer.status.is_success() {
            self.posted.fetch_add(1, Ordering::Relaxed);
        } else if answer.status.as_u16() == 401 || answer.status.is_server_error() {
            bail!("transaction {} was refused: {}", row.id, answer.problem());
        } else {
            self.refusals.add(&row.id, &answer.problem());
        }
        self.lane.add(1);
        Ok(())
    }

    async fn join(&self, identifiers: &[Known], unit: &str) -> anyhow::Result<String> {
        let identifiers: Vec<Value> = identifiers
            .iter()
            .map(|one| match &one.app {
                Some(app) => json!({ "type": one.kind, "value": one.value, "app": app, "verified": true }),
                None => json!({ "type": one.kind, "value": one.value, "verified": true }),
            })
            .collect();
        let body = json!({ "unit": unit, "identifiers": identifiers });
        let joined = self.client.expect(&Call::json(Method::POST, "/v1/members", self.key, &body)).await?;
        Ok(joined["id"].as_str().context("a member joined without an id")?.to_owned())
    }
}

fn body(row: &Row, member: &str) -> Value {
    let line = |item: &Item| json!({ "sku": item.sku, "category": item.category, "quantity": item.quantity, "amount": item.amount_fen });
    let mut body = json!({
        "id": row.id,
        "unit": row.unit,
        "kind": row.kind,
        "occurred_at": row.occurred_at,
        "amount": money(row.amount_fen),
        "member": member,
        "lines": row.lines.iter().map(line).collect::<Vec<Value>>(),
    });
    if let Some(purchase) = &row.refund_of {
        body["refund_of"] = json!(purchase);
    }
    body
}
