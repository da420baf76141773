//! Counts of properties that did not fit.

use super::typing::Fault;
use crate::batch_sql::insert;
use heyuan_contract::Timestamp;
use heyuan_kernel::{Error, Rfc3339, Tx, sql};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// How often a property of an event type was absent for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FaultCount {
    /// The property; `*` for undeclared and unreadable ones together; `$context.…` for a part of the context.
    pub property: String,
    /// Why.
    pub fault: String,
    /// How often.
    pub count: i64,
    /// When last.
    pub last_at: Rfc3339,
}

/// Counts of one batch. Only names that a schema declares get in, so that a sender can't fill the table.
pub(crate) type Counts = BTreeMap<(String, String, Fault), i64>;

pub(crate) async fn add(tx: &Tx, counts: &Counts, at: Timestamp) -> Result<(), Error> {
    let rows = counts
        .iter()
        .map(|((event_type, property, fault), count)| {
            vec![event_type.clone().into(), property.clone().into(), fault.as_str().into(), (*count).into(), at.ms().into()]
        })
        .collect();
    insert(
        tx.conn(),
        "INSERT INTO cdp_property_fault (event_type, property, fault, count, last_at) VALUES",
        "ON CONFLICT (event_type, property, fault) DO UPDATE SET count = cdp_property_fault.count + excluded.count, last_at = excluded.last_at",
        5,
        rows,
    )
    .await?;
    Ok(())
}

pub(crate) async fn of<C: sql::Connection>(conn: &C, event_type: &str) -> Result<Vec<FaultCount>, Error> {
    let text = "SELECT property, fault, count, last_at FROM cdp_property_fault WHERE event_type = $1 ORDER BY property, fault LIMIT 1000";
    let rows = sql::all(conn, text, [event_type.into()]).await?;
    rows.iter()
        .map(|row| {
            Ok(FaultCount {
                property: sql::get(row, "property")?,
                fault: sql::get(row, "fault")?,
                count: sql::get(row, "count")?,
                last_at: Rfc3339(Timestamp::clamped(sql::get(row, "last_at")?)),
            })
        })
        .collect()
}
