//! The audit record: who looked at or changed what, without personal data, in a sealed chain.

use crate::actor::Actor;
use crate::chain::{Chain, Records};
use crate::database::Tx;
use crate::error::Error;
use crate::{Kernel, sql};
use serde::Serialize;
use serde_json::{Map, Value};

/// How audit records are chained. Names, root and bytes never change: chains written before must still hold.
static RECORDS: Records = Records {
    name: "audit",
    root: "heyuan audit",
    task: "audit sealer",
    table: "kernel_audit",
    id: "id",
    record: "entry",
    queue: "kernel_audit_unsealed",
    links: "kernel_audit_seal",
    heads: "kernel_audit_head",
    columns: "t.id, t.at, t.actor, t.action, t.object, t.detail",
    formats: &[canonical],
    label: |row| Ok(format!("({} by {})", sql::get::<String>(row, "action")?, sql::get::<String>(row, "actor")?)),
};

/// A record as its hash sees it: every field, in this order, for ever.
#[derive(Serialize)]
struct Canonical {
    id: i64,
    at: i64,
    actor: String,
    action: String,
    object: String,
    detail: String,
}

fn canonical(row: &sql::Row) -> Result<Vec<u8>, Error> {
    let canonical = Canonical {
        id: sql::get(row, "id")?,
        at: sql::get(row, "at")?,
        actor: sql::get(row, "actor")?,
        action: sql::get(row, "action")?,
        object: sql::get(row, "object")?,
        detail: sql::get(row, "detail")?,
    };
    serde_json::to_vec(&canonical).map_err(|e| Error::Corrupt { what: "audit record", why: e.to_string() })
}

/// The chain of audit records.
pub fn chain(kernel: &Kernel) -> Chain {
    Chain::new(kernel, &RECORDS)
}

/// One audited act.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    actor: String,
    action: &'static str,
    object: String,
    detail: Map<String, Value>,
}

impl Entry {
    /// An act of an actor on an object; neither may hold personal data.
    pub fn new(actor: &Actor, action: &'static str, object: &str) -> Entry {
        Entry { actor: actor.name().to_owned(), action, object: object.to_owned(), detail: Map::new() }
    }

    /// Adds a fact.
    #[must_use]
    pub fn detail(mut self, name: &str, value: impl Into<Value>) -> Entry {
        self.detail.insert(name.to_owned(), value.into());
        self
    }
}

/// An act as it stands in the record.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// Its number in the record.
    pub id: i64,
    /// What it was done to.
    pub object: String,
    /// Its facts.
    pub detail: Map<String, Value>,
}

/// A page of the acts of one kind after a number, in the order of the record.
///
/// # Errors
/// [`Error::Corrupt`]; [`Error::Database`].
pub async fn of_action<C: sql::Connection>(conn: &C, action: &str, after: i64, limit: u64) -> Result<Vec<Recorded>, Error> {
    let text = "SELECT id, object, detail FROM kernel_audit WHERE action = $1 AND id > $2 ORDER BY id LIMIT $3";
    let read = |row: &sql::Row| {
        let detail: String = sql::get(row, "detail")?;
        let detail = serde_json::from_str(&detail).map_err(|e| Error::Corrupt { what: "audit record", why: e.to_string() })?;
        Ok(Recorded { id: sql::get(row, "id")?, object: sql::get(row, "object")?, detail })
    };
    sql::all(conn, text, [action.into(), after.into(), limit.into()]).await?.iter().map(read).collect()
}

/// Writes the act with the facts that it goes with, and queues it for the sealer.
///
/// # Errors
/// [`Error::Database`].
pub async fn record(tx: &Tx, entry: &Entry) -> Result<(), Error> {
    let row = sql::one(
        tx.conn(),
        "INSERT INTO kernel_audit (at, actor, action, object, detail) VALUES ($1, $2, $3, $4, $5) RETURNING id",
        [
            crate::time::now_ms().into(),
            entry.actor.clone().into(),
            entry.action.into(),
            entry.object.clone().into(),
            Value::Object(entry.detail.clone()).to_string().into(),
        ],
    )
    .await?;
    let row = row.ok_or(Error::Corrupt { what: "audit record", why: "it got no id".into() })?;
    let id: i64 = sql::get(&row, "id")?;
    sql::execute(tx.conn(), "INSERT INTO kernel_audit_unsealed (entry) VALUES ($1)", [id.into()]).await?;
    Ok(())
}
