//! Numbering: a block gets its positions only once it is committed, so a reader never passes one that can still commit.

use crate::batch_sql::{position, set_position};
use crate::collect::sender::{Sender, Spelling};
use crate::inbox::block::{self, Entry, Part};
use futures::FutureExt;
use heyuan_contract::{OrgUnitId, Timestamp};
use heyuan_kernel::bulk::{self, Column};
use heyuan_kernel::lease::Fence;
use heyuan_kernel::wake::Topic;
use heyuan_kernel::{Error, Kernel, Tx, sql};
use std::sync::Arc;

/// The last position handed out.
pub(crate) const SEQUENCED: &str = "sequenced";
/// Blocks numbered in one transaction.
const BLOCKS_MAX: i64 = 500;

/// Numbers committed blocks in the order of their insertion; answers how many.
pub(crate) async fn number(kernel: &Kernel, fence: &Fence) -> Result<u64, Error> {
    let waiting = sql::one(kernel.db.near(), "SELECT id FROM cdp_inbox_block WHERE first_position IS NULL LIMIT 1", []).await?;
    if waiting.is_none() {
        return Ok(0);
    }
    let fence = fence.clone();
    kernel
        .db
        .write("number inbox blocks", move |tx| {
            let fence = fence.clone();
            async move {
                fence.check(tx).await?;
                number_blocks(tx).await
            }
            .boxed()
        })
        .await
}

async fn number_blocks(tx: &Tx) -> Result<u64, Error> {
    let base = position(tx.conn(), SEQUENCED).await?;
    let text = "SELECT id, events FROM cdp_inbox_block WHERE first_position IS NULL ORDER BY id LIMIT $1";
    let rows = sql::all(tx.conn(), text, [BLOCKS_MAX.into()]).await?;
    let mut next = base + 1;
    let (mut ids, mut positions) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for row in &rows {
        ids.push(sql::get::<i64>(row, "id")?);
        positions.push(next);
        next += sql::get::<i64>(row, "events")?;
    }
    let (from, values) = bulk::source(tx.conn(), &["block", "begins"], &[Column::numbers(ids), Column::numbers(positions)]);
    let text = format!("UPDATE cdp_inbox_block SET first_position = v.begins FROM {from} WHERE cdp_inbox_block.id = v.block");
    sql::execute(tx.conn(), &text, values).await?;
    set_position(tx.conn(), SEQUENCED, next - 1).await?;
    Ok(u64::try_from(rows.len()).unwrap_or(0))
}

/// An event of this process itself.
#[derive(Debug)]
pub(crate) struct OwnEvent {
    pub message_id: String,
    pub unit: Option<OrgUnitId>,
    pub event: serde_json::Value,
}

/// Puts events of this process itself into the inbox as one block, in the transaction of their cause. They are native, and may name
/// anchors.
pub(crate) async fn append(tx: &Tx, kernel: &Kernel, source: &str, events: &[OwnEvent]) -> Result<(), Error> {
    let arrived_at = Timestamp::clamped(heyuan_kernel::time::now_ms());
    let entry = |own: &OwnEvent| Entry { path_kind: None, message_id: own.message_id.clone(), raw: own.event.to_string() };
    let parts = events.chunk_by(|one, next| one.unit == next.unit).map(|list| {
        let (key, unit) = (source.to_owned(), list[0].unit.clone());
        let sender = Sender { key, unit, import: true, spelling: Spelling::Internal, arrived_at, sent_at: None, context: None };
        Part { sender: Arc::new(sender), entries: list.iter().map(entry).collect() }
    });
    let payload = block::seal(kernel.keys.inbox(), &parts.collect::<Vec<_>>())?;
    write(tx, i64::try_from(events.len()).unwrap_or(0), arrived_at, Vec::new(), payload).await
}

/// Blocks that the pipeline has not read, and other work for its next batch.
pub(crate) const INBOX: Topic = "inbox";

/// Writes a block.
pub(crate) async fn write(tx: &Tx, events: i64, arrived_at: Timestamp, skipped: Vec<u8>, payload: Vec<u8>) -> Result<(), Error> {
    let bytes = i64::try_from(payload.len()).unwrap_or(i64::MAX);
    sql::execute(
        tx.conn(),
        "INSERT INTO cdp_inbox_block (events, bytes, arrived_at, skipped, payload) VALUES ($1, $2, $3, $4, $5)",
        [events.into(), bytes.into(), arrived_at.ms().into(), skipped.into(), payload.into()],
    )
    .await?;
    tx.wake(INBOX);
    Ok(())
}
