//! Transactions on their way, with the customers of the tills made members first.

use super::client::{Call, Client};
use super::progress::Lane;
use super::records::{Refusals, money, stream};
use super::users::{Known, Person, Users};
use anyhow::{Context, anyhow, bail};
use futures::{TryStreamExt, stream as streams};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;

/// Requests on the wire at once: the server commits them in groups.
const AT_ONCE: usize = 16;

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
    users: &'a Users,
    lane: &'a Lane,
    members: Mutex<HashMap<String, Arc<OnceCell<String>>>>,
    refusals: Refusals,
    strangers: AtomicU64,
    posted: AtomicU64,
}

/// Reports every transaction of the file.
///
/// # Errors
/// A file that can't be read, a server that is away, more than a few refusals.
pub(crate) async fn send(client: &Client, path: PathBuf, key: &str, users: &Users, lane: &Lane) -> anyhow::Result<Taken> {
    let tills = Tills {
        client,
        key,
        users,
        lane,
        members: Mutex::default(),
        refusals: Refusals::of("transaction"),
        strangers: AtomicU64::new(0),
        posted: AtomicU64::new(0),
    };
    let (mut rows, reader) = stream::<Row>(path);
    let rows = streams::poll_fn(move |context| rows.poll_recv(context));
    let sent = futures::StreamExt::map(rows, Ok).try_for_each_concurrent(AT_ONCE, |row| tills.report(row)).await;
    let read = reader.await.map_err(|error| anyhow!("reading the transactions broke off: {error}"))?;
    sent?;
    read?;
    let posted = tills.posted.load(Ordering::Relaxed);
    let members = tills.members.lock().unwrap_or_else(PoisonError::into_inner).len();
    Ok(Taken {
        transactions: posted,
        members: u64::try_from(members).unwrap_or(u64::MAX),
        strangers: tills.strangers.load(Ordering::Relaxed),
        refused: tills.refusals.settle(posted)?,
    })
}

impl Tills<'_> {
    async fn report(&self, row: Row) -> anyhow::Result<()> {
        let Some(person) = self.users.person(&row.identifiers) else {
            self.strangers.fetch_add(1, Ordering::Relaxed);
            self.lane.add(1);
            return Ok(());
        };
        let member = self.member(person, &row.unit).await?;
        let call = Call::json(Method::POST, "/v1/transactions", self.key, &body(&row, &member)).once(format!("demo-{}", row.id));
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

    /// The member behind a person, who joins with the first transaction.
    async fn member(&self, person: Person, unit: &str) -> anyhow::Result<String> {
        let cell = {
            let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
            members.entry(person.key).or_default().clone()
        };
        let member = cell.get_or_try_init(|| self.join(&person.identifiers, unit)).await?;
        Ok(member.clone())
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
