//! The audit record: who looked at or changed what, without personal data.

use crate::actor::Actor;
use crate::database::Tx;
use crate::error::Error;
use crate::sql;
use serde_json::{Map, Value};

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

/// Writes the act with the facts that it goes with.
///
/// # Errors
/// [`Error::Database`].
pub async fn record(tx: &Tx, entry: &Entry) -> Result<(), Error> {
    sql::execute(
        tx.conn(),
        "INSERT INTO kernel_audit (at, actor, action, object, detail) VALUES ($1, $2, $3, $4, $5)",
        [
            crate::time::now_ms().into(),
            entry.actor.clone().into(),
            entry.action.into(),
            entry.object.clone().into(),
            Value::Object(entry.detail.clone()).to_string().into(),
        ],
    )
    .await?;
    Ok(())
}
