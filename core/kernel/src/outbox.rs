//! Domain events on their way out: written with the facts, numbered after the commit, read in order by every consumer.
//!
//! A row gets its position only once it is committed, by the processor alone, so a reader that follows positions never passes a
//! row that can still commit. Positions are our own numbers: they survive dump and restore, and no transaction of another database
//! on the same server holds them up. Within one pass rows are numbered in the order of their insertion: an effect is inserted after
//! its cause committed, so causes come first, and events of one key follow the row locks of their writers.

use crate::bulk::{self, Column};
use crate::database::{Database, Tx};
use crate::error::Error;
use crate::lease::Fence;
use crate::sql;
use crate::wake;
use futures::FutureExt;
use heyuan_contract::{DomainEvent, Timestamp};

/// Rows numbered in one transaction: bounds how long the processor holds it.
const SEQUENCED_ROWS_MAX: i64 = 2000;
/// The counter that hands out positions.
const COUNTER: &str = "outbox";

/// A published event with its place in the order.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// Our own number; gapless per tenant.
    pub position: i64,
    /// Events of one key are seen in order.
    pub key: String,
    /// What happened.
    pub event: DomainEvent,
    /// When it was written, by this process's clock.
    pub written_at: Timestamp,
}

pub(crate) async fn append(tx: &Tx, events: &[(&str, DomainEvent)]) -> Result<(), Error> {
    if events.is_empty() {
        return Ok(());
    }
    let body = |(_, event): &(&str, DomainEvent)| {
        serde_json::to_string(event).map_err(|e| Error::Corrupt { what: "domain event", why: e.to_string() })
    };
    let columns = [
        Column::texts(events.iter().map(|(key, _)| (*key).to_owned())),
        Column::texts(events.iter().map(|(_, event)| event.name().to_owned())),
        Column::texts(events.iter().map(body).collect::<Result<Vec<_>, Error>>()?),
        Column::numbers(events.iter().map(|_| crate::time::now_ms())),
    ];
    bulk::insert(tx.conn(), "kernel_outbox", &["event_key", "name", "body", "written_at"], &columns).await?;
    tx.wake(wake::OUTBOX);
    Ok(())
}

/// Numbers rows that are committed and have no position yet; returns how many.
///
/// # Errors
/// [`Error::LeaseLost`] when this process is no longer the processor; [`Error::Database`].
pub async fn sequence(db: &Database, fence: &Fence) -> Result<u64, Error> {
    let waiting = sql::one(db.near(), "SELECT id FROM kernel_outbox WHERE position IS NULL LIMIT 1", []).await?;
    if waiting.is_none() {
        return Ok(0);
    }
    let fence = fence.clone();
    db.write("sequence outbox", move |tx| {
        let fence = fence.clone();
        async move {
            fence.check(tx).await?;
            let numbered = number_rows(tx).await?;
            Ok(numbered)
        }
        .boxed()
    })
    .await
}

async fn number_rows(tx: &Tx) -> Result<u64, Error> {
    let base = read_counter(tx.conn(), COUNTER).await?;
    let numbered = sql::execute(
        tx.conn(),
        "UPDATE kernel_outbox SET position = $1 + numbered.place FROM
           (SELECT id AS row_id, row_number() OVER (ORDER BY id) AS place FROM kernel_outbox WHERE position IS NULL ORDER BY id LIMIT $2) AS numbered
         WHERE kernel_outbox.id = numbered.row_id",
        [base.into(), SEQUENCED_ROWS_MAX.into()],
    )
    .await?;
    tx.wake(wake::NUMBERED);
    let next = base + i64::try_from(numbered).unwrap_or(0);
    sql::execute(
        tx.conn(),
        "INSERT INTO kernel_counter (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        [COUNTER.into(), next.into()],
    )
    .await?;
    Ok(numbered)
}

async fn read_counter<C: sql::Connection>(conn: &C, name: &str) -> Result<i64, Error> {
    let row = sql::one(conn, "SELECT value FROM kernel_counter WHERE name = $1", [name.into()]).await?;
    row.map_or(Ok(0), |row| sql::get(&row, "value"))
}

/// The last position handed out.
///
/// # Errors
/// [`Error::Database`].
pub async fn last_position(db: &Database) -> Result<i64, Error> {
    read_counter(db.near(), COUNTER).await
}

/// What one read found.
pub struct Batch {
    /// The position of the last event that was looked at; `None`: there was none.
    pub last: Option<i64>,
    /// Whether there may be more.
    pub is_full: bool,
    /// The wanted ones among them, in order.
    pub events: Vec<Envelope>,
}

/// Looks at up to `limit` events after `position`, in order, and reads those whose name is wanted. A wanted event that this release
/// can't read is an error: nothing is skipped.
///
/// # Errors
/// [`Error::Database`], [`Error::Corrupt`].
pub async fn read_after(db: &Database, position: i64, limit: u64, wants: impl Fn(&str) -> bool) -> Result<Batch, Error> {
    let rows = sql::all(
        db.near(),
        "SELECT position, event_key, name, body, written_at FROM kernel_outbox WHERE position > $1 ORDER BY position LIMIT $2",
        [position.into(), limit.into()],
    )
    .await?;
    let mut batch = Batch { last: None, is_full: u64::try_from(rows.len()).unwrap_or(u64::MAX) == limit, events: Vec::new() };
    for row in &rows {
        let position = sql::get(row, "position")?;
        batch.last = Some(position);
        let name: String = sql::get(row, "name")?;
        if wants(&name) {
            let body: String = sql::get(row, "body")?;
            batch.events.push(Envelope {
                position,
                key: sql::get(row, "event_key")?,
                event: parse(&body)?,
                written_at: Timestamp::clamped(sql::get(row, "written_at")?),
            });
        }
    }
    Ok(batch)
}

pub(crate) fn parse(body: &str) -> Result<DomainEvent, Error> {
    serde_json::from_str(body).map_err(|e| Error::Corrupt { what: "domain event", why: e.to_string() })
}

/// The position up to which a consumer has applied events.
///
/// # Errors
/// [`Error::Database`].
pub async fn consumer_position<C: sql::Connection>(conn: &C, consumer: &str) -> Result<i64, Error> {
    let row = sql::one(conn, "SELECT position FROM kernel_consumer WHERE name = $1", [consumer.into()]).await?;
    row.map_or(Ok(0), |row| sql::get(&row, "position"))
}

/// Moves a consumer's position, in the transaction of its effects.
///
/// # Errors
/// [`Error::Database`].
pub async fn advance(tx: &Tx, consumer: &str, position: i64) -> Result<(), Error> {
    sql::execute(
        tx.conn(),
        "INSERT INTO kernel_consumer (name, position) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET position = excluded.position",
        [consumer.into(), position.into()],
    )
    .await?;
    Ok(())
}

/// Removes rows that every consumer has passed; returns how many.
///
/// # Errors
/// [`Error::Database`].
pub async fn sweep(db: &Database, consumers: &[&'static str]) -> Result<u64, Error> {
    let mut passed = i64::MAX;
    for consumer in consumers {
        passed = passed.min(consumer_position(db.near(), consumer).await?);
    }
    if consumers.is_empty() || passed == 0 {
        return Ok(0);
    }
    let removable = sql::one(db.near(), "SELECT id FROM kernel_outbox WHERE position <= $1 LIMIT 1", [passed.into()]).await?;
    if removable.is_none() {
        return Ok(0);
    }
    db.write("sweep outbox", move |tx| {
        async move {
            sql::execute(
                tx.conn(),
                "DELETE FROM kernel_outbox WHERE id IN (SELECT id FROM kernel_outbox WHERE position <= $1 ORDER BY position LIMIT $2)",
                [passed.into(), SEQUENCED_ROWS_MAX.into()],
            )
            .await
        }
        .boxed()
    })
    .await
}
