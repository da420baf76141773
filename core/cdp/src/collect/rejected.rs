//! Refused events: kept sealed with their reason, listed, and replayed once what was wrong is mended.

use super::message::Reason;
use super::message_ids::id_of;
use super::sender::Sender;
use super::wire::plain;
use crate::batch_sql::{add_position, insert, position, set_position};
use crate::event::EventKind;
use heyuan_contract::{OrgUnitId, Timestamp};
use heyuan_kernel::secret::Key;
use heyuan_kernel::{Error, Reach, Rfc3339, Tx, sql};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use utoipa::ToSchema;

/// Of a monstrous event only the beginning is kept: enough to see what it is.
const KEPT_BYTES_MAX: usize = 64 << 10;
/// Of the words about it likewise: they may quote the event.
const DETAIL_BYTES_MAX: usize = 500;
/// What a row takes beside what is sealed: its other columns, and its places in the indices.
const ROW_BYTES: i64 = 600;
/// Bytes of the kept events, as a position that is always there.
pub(crate) const BYTES: &str = "rejected_bytes";
/// Refused events of which only this count is left, because there were too many bytes of them.
pub(crate) const UNKEPT: &str = "rejected_unkept";
/// Rows removed in one transaction: with the largest of them, 16 MiB.
const REMOVED_MAX: i64 = 250;

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
        let mut detail = detail;
        detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
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

/// Keeps refused events. A quarter above the bound, where the retention task does not keep pace, they are counted and not kept.
pub(crate) async fn write(tx: &Tx, rows: &[Row], bytes_max: i64) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let bytes: i64 = rows.iter().map(|row| ROW_BYTES + i64::try_from(row.sealed.len()).unwrap_or(0)).sum();
    let text = "UPDATE cdp_position SET position = position + $1 WHERE name = $2 AND position + $1 <= $3";
    let limit = bytes_max.saturating_add(bytes_max / 4);
    if sql::execute(tx.conn(), text, [bytes.into(), BYTES.into(), limit.into()]).await? == 0 {
        let unkept = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        return add_position(tx.conn(), UNKEPT, unkept).await;
    }
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

/// Why refused events go.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Going {
    /// They arrived before this.
    Old { before: i64 },
    /// There are more bytes of them than may be; the oldest go until there are not, and are counted.
    Many { bytes_max: i64 },
}

/// How many of the oldest must go so that the others keep to the bound, as far as one transaction removes.
async fn in_excess(tx: &Tx, bytes_max: i64) -> Result<i64, Error> {
    let mut excess = position(tx.conn(), BYTES).await? - bytes_max;
    let text = "SELECT CAST(LENGTH(sealed) AS BIGINT) AS bytes FROM cdp_rejected ORDER BY id LIMIT $1";
    let rows = sql::all(tx.conn(), text, [REMOVED_MAX.into()]).await?;
    if rows.is_empty() {
        // Whatever was counted, nothing is there.
        set_position(tx.conn(), BYTES, 0).await?;
    }
    let mut most = 0;
    for row in &rows {
        if excess <= 0 {
            break;
        }
        excess -= ROW_BYTES + sql::get::<i64>(row, "bytes")?;
        most += 1;
    }
    Ok(most)
}

/// Removes some; answers how many.
pub(crate) async fn remove(tx: &Tx, going: Going) -> Result<usize, Error> {
    let (which, before, most) = match going {
        Going::Old { before } => ("WHERE arrived_at < $2", before, REMOVED_MAX),
        Going::Many { bytes_max } => ("WHERE arrived_at <= $2 ORDER BY id", i64::MAX, in_excess(tx, bytes_max).await?),
    };
    let text = format!(
        "DELETE FROM cdp_rejected WHERE id IN (SELECT id FROM cdp_rejected {which} LIMIT $1)
         RETURNING CAST(LENGTH(sealed) AS BIGINT) AS bytes, replayed_at"
    );
    let rows = sql::all(tx.conn(), &text, [most.into(), before.into()]).await?;
    let (mut bytes, mut lost) = (0, 0);
    for row in &rows {
        bytes += ROW_BYTES + sql::get::<i64>(row, "bytes")?;
        lost += i64::from(sql::get::<Option<i64>>(row, "replayed_at")?.is_none());
    }
    add_position(tx.conn(), BYTES, -bytes).await?;
    if matches!(going, Going::Many { .. }) {
        add_position(tx.conn(), UNKEPT, lost).await?;
    }
    Ok(rows.len())
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
