//! Refused events: kept sealed with their reason, listed, and replayed once what was wrong is mended.

use super::message::Reason;
use super::message_ids::id_of;
use super::sender::Sender;
use super::wire::plain;
use crate::batch_sql::insert;
use crate::event::EventKind;
use heyuan_contract::{OrgUnitId, Timestamp};
use heyuan_kernel::secret::Key;
use heyuan_kernel::{Error, Reach, Rfc3339, Tx, sql};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use utoipa::ToSchema;

/// Of a monstrous event only the beginning is kept: enough to see what it is.
const KEPT_BYTES_MAX: usize = 64 << 10;
/// The context under which refused events are sealed.
const CONTEXT: &[u8] = b"rejected event";

/// A refused event on its way into the table.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    message_hash: Vec<u8>,
    reason: Reason,
    detail: String,
    key: String,
    unit: Option<String>,
    arrived_at: i64,
    sealed: Vec<u8>,
}

/// What is kept of a refused event.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub sender: Sender,
    pub path_kind: Option<EventKind>,
    pub message_id: String,
    pub raw: String,
    pub cut: bool,
}

impl Row {
    pub(crate) fn seal(
        key: &Key,
        sender: &Sender,
        path_kind: Option<EventKind>,
        raw: &str,
        message_id: &str,
        reason: Reason,
        detail: String,
    ) -> Result<Row, Error> {
        let end = raw.floor_char_boundary(KEPT_BYTES_MAX);
        let kept =
            Kept { sender: sender.clone(), path_kind, message_id: message_id.to_owned(), raw: raw[..end].to_owned(), cut: end < raw.len() };
        let bytes = serde_json::to_vec(&kept).map_err(|e| Error::Corrupt { what: "rejected event", why: e.to_string() })?;
        Ok(Row {
            message_hash: id_of(message_id).to_vec(),
            reason,
            // Details quote what was sent; PostgreSQL's text holds no U+0000, and one bad row would refuse its whole group.
            detail: plain(Cow::Owned(detail)).into_owned(),
            key: sender.key.clone(),
            unit: sender.unit.as_ref().map(|unit| unit.as_str().to_owned()),
            arrived_at: sender.arrived_at.ms(),
            sealed: key.seal(&bytes, CONTEXT),
        })
    }
}

pub(crate) async fn write(tx: &Tx, rows: &[Row]) -> Result<(), Error> {
    let values = rows
        .iter()
        .map(|row| {
            vec![
                row.message_hash.clone().into(),
                row.reason.as_str().into(),
                row.detail.clone().into(),
                row.key.clone().into(),
                row.unit.clone().into(),
                row.arrived_at.into(),
                row.sealed.clone().into(),
            ]
        })
        .collect();
    let head = "INSERT INTO cdp_rejected (message_hash, reason, detail, app, unit, arrived_at, sealed) VALUES";
    insert(tx.conn(), head, "", 7, values).await?;
    Ok(())
}

/// A refused event in a list: what is wrong with it, not what it says.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Rejected {
    /// Its number, for a replay.
    pub id: i64,
    /// Why it was refused.
    pub reason: String,
    /// The same in a sentence.
    pub detail: String,
    /// The key that sent it.
    pub key: String,
    /// The key's unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// When it arrived.
    pub arrived_at: Rfc3339,
    /// When it was replayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replayed_at: Option<Rfc3339>,
}

const COLUMNS: &str = "id, reason, detail, app, unit, arrived_at, replayed_at";

fn read(row: &sql::Row) -> Result<Rejected, Error> {
    Ok(Rejected {
        id: sql::get(row, "id")?,
        reason: sql::get(row, "reason")?,
        detail: sql::get(row, "detail")?,
        key: sql::get(row, "app")?,
        unit: sql::get(row, "unit")?,
        arrived_at: Rfc3339(Timestamp::clamped(sql::get(row, "arrived_at")?)),
        replayed_at: sql::get::<Option<i64>>(row, "replayed_at")?.map(|at| Rfc3339(Timestamp::clamped(at))),
    })
}

/// Whether a record of this unit lies within reach; records without a unit belong to the group.
pub(crate) fn within(reach: &Reach, unit: Option<&str>) -> bool {
    match (reach, unit.and_then(|unit| OrgUnitId::new(unit).ok())) {
        (Reach::Everything, _) => true,
        (reach, Some(unit)) => reach.covers(&unit),
        (_, None) => false,
    }
}

/// Refused events within reach, newest first, below `before`.
pub(crate) async fn list<C: sql::Connection>(conn: &C, reach: &Reach, before: Option<i64>, limit: u64) -> Result<Vec<Rejected>, Error> {
    let mut found = Vec::new();
    let mut below = before.unwrap_or(i64::MAX);
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1);
    // Units are few: a page of a narrow key passes over the others' rows in portions.
    loop {
        let text = format!("SELECT {COLUMNS} FROM cdp_rejected WHERE id < $1 ORDER BY id DESC LIMIT 500");
        let rows = sql::all(conn, &text, [below.into()]).await?;
        for row in &rows {
            let one = read(row)?;
            below = one.id;
            if within(reach, one.unit.as_deref()) && found.len() < wanted {
                found.push(one);
            }
        }
        if rows.len() < 500 || found.len() >= wanted {
            return Ok(found);
        }
    }
}

/// The newest refusal of a message id, if there is one that was not replayed.
pub(crate) async fn of_message<C: sql::Connection>(conn: &C, message_id: &str) -> Result<Option<Rejected>, Error> {
    let text = format!("SELECT {COLUMNS} FROM cdp_rejected WHERE message_hash = $1 AND replayed_at IS NULL ORDER BY id DESC LIMIT 1");
    sql::one(conn, &text, [id_of(message_id).to_vec().into()]).await?.as_ref().map(read).transpose()
}

/// A refused event with what it says.
pub(crate) async fn kept<C: sql::Connection>(conn: &C, key: &Key, id: i64) -> Result<Option<(Rejected, Kept)>, Error> {
    let text = format!("SELECT {COLUMNS}, sealed FROM cdp_rejected WHERE id = $1");
    let Some(row) = sql::one(conn, &text, [id.into()]).await? else { return Ok(None) };
    let sealed: Vec<u8> = sql::get(&row, "sealed")?;
    let corrupt = |why: String| Error::Corrupt { what: "rejected event", why };
    let plain = key.open(&sealed, CONTEXT).ok_or_else(|| corrupt("the tenant key does not open it".into()))?;
    let kept = serde_json::from_slice(&plain).map_err(|e| corrupt(e.to_string()))?;
    Ok(Some((read(&row)?, kept)))
}

/// Marks a refused event as replayed.
pub(crate) async fn mark_replayed(tx: &Tx, id: i64, at: i64) -> Result<(), Error> {
    sql::execute(tx.conn(), "UPDATE cdp_rejected SET replayed_at = $1 WHERE id = $2", [at.into(), id.into()]).await?;
    Ok(())
}
