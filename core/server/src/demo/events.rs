//! Events on their way: a unit's in the order of the file under the unit's own key, several units at once.

use super::client::{Call, Client};
use super::progress::{Lane, Progress};
use super::records::each_line;
use anyhow::{Context, anyhow};
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// Well below the 4 MiB that a batch may have.
const BATCH_BYTES: usize = 450_000;
/// Below the 5,000 messages that a batch may have.
const BATCH_MESSAGES: u64 = 4_000;
/// Batches on the wire at once.
const AT_ONCE: usize = 8;
/// How long the processor may take for what was acknowledged.
const SETTLING: Duration = Duration::from_secs(1800);
/// What the server says of the events that it has not processed yet.
const WAITING: &str = "heyuan_inbox_events";

#[derive(Deserialize)]
struct Row<'a> {
    unit: &'a str,
    #[serde(borrow)]
    message: &'a RawValue,
}

/// Messages of one unit, in the file's order.
#[derive(Default)]
struct Batch {
    body: Vec<u8>,
    messages: u64,
}

impl Batch {
    fn add(&mut self, message: &str) {
        self.body.extend_from_slice(if self.messages == 0 { b"{\"batch\":[".as_slice() } else { b",".as_slice() });
        self.body.extend_from_slice(message.as_bytes());
        self.messages += 1;
    }

    fn close(&mut self) -> Batch {
        self.body.extend_from_slice(b"]}");
        std::mem::take(self)
    }
}

/// Sends every event of the file.
///
/// # Errors
/// A file that can't be read, a unit without a key, a batch that was not taken.
pub(crate) async fn send(client: &Client, path: PathBuf, keys: &BTreeMap<String, String>, lane: Arc<Lane>) -> anyhow::Result<()> {
    let wire = Arc::new(Semaphore::new(AT_ONCE));
    let (mut senders, mut workers) = (HashMap::new(), JoinSet::new());
    for (unit, key) in keys {
        // One batch waits behind the one on the wire.
        let (sender, batches) = mpsc::channel::<Batch>(1);
        senders.insert(unit.clone(), sender);
        workers.spawn(work(client.clone(), key.clone(), batches, wire.clone(), lane.clone()));
    }
    let reader = tokio::task::spawn_blocking(move || read(&path, &senders));
    let mut sent = Ok(());
    while let Some(worked) = workers.join_next().await {
        let worked = worked.map_err(|error| anyhow!("sending events broke off: {error}")).and_then(|result| result);
        sent = sent.and(worked);
    }
    let read = reader.await.map_err(|error| anyhow!("reading the events broke off: {error}"))?;
    // A worker that failed is the cause when the reader finds its channel closed.
    sent.and(read)
}

async fn work(
    client: Client,
    key: String,
    mut batches: mpsc::Receiver<Batch>,
    wire: Arc<Semaphore>,
    lane: Arc<Lane>,
) -> anyhow::Result<()> {
    while let Some(batch) = batches.recv().await {
        let _turn = wire.acquire().await.context("the wire is closed")?;
        let call = Call { method: Method::POST, body: batch.body, ..Call::get("/v1/batch", &key) };
        client.expect(&call).await?;
        lane.add(batch.messages);
    }
    Ok(())
}

fn read(path: &std::path::Path, senders: &HashMap<String, mpsc::Sender<Batch>>) -> anyhow::Result<()> {
    let mut open: HashMap<String, Batch> = HashMap::new();
    let give = |unit: &str, batch: Batch| -> anyhow::Result<()> {
        let sender = senders.get(unit).with_context(|| format!("there is no key for the unit {unit}"))?;
        sender.blocking_send(batch).map_err(|_| anyhow!("events of {unit} were not taken"))
    };
    each_line(path, |line| {
        let row: Row<'_> = serde_json::from_str(line).context("the line is no event of the demo group")?;
        if !open.contains_key(row.unit) {
            open.insert(row.unit.to_owned(), Default::default());
        }
        let Some(batch) = open.get_mut(row.unit) else { return Ok(ControlFlow::Continue(())) };
        let message = row.message.get();
        if batch.messages > 0 && (batch.body.len() + message.len() + 3 > BATCH_BYTES || batch.messages >= BATCH_MESSAGES) {
            give(row.unit, batch.close())?;
        }
        batch.add(message);
        Ok(ControlFlow::Continue(()))
    })?;
    for (unit, mut batch) in open {
        give(&unit, batch.close())?;
    }
    Ok(())
}

/// Waits until the processor has made customers of all that was acknowledged, and of what the wings told of it.
///
/// # Errors
/// A server that stays behind for half an hour, or does not tell how far it is.
pub(crate) async fn settle(client: &Client, progress: &Progress) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut least = client.gauge(WAITING).await?;
    let lane = progress.lane("events processed of those that waited", least);
    loop {
        let waiting = client.gauge(WAITING).await?;
        lane.add(least.saturating_sub(waiting));
        least = least.min(waiting);
        if waiting == 0 {
            return Ok(());
        }
        if begun.elapsed() > SETTLING {
            anyhow::bail!("the server is still behind after {} minutes; the events are safe with it", SETTLING.as_secs() / 60);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
