//! Known events on their way into the lake: kept in blocks from their batch until the lake's watermark has passed them.

use crate::event::{Decimal, EventKind, Known, PropertyValue};
use crate::event_type::{EventType, PROFILE, Property, typing};
use crate::settings::Collect;
use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_contract::{AnchorId, OrgUnitId, PersonalRef, Timestamp};
use heyuan_kernel::lease::Fence;
use heyuan_kernel::processor::{Progress, Task, Waits};
use heyuan_kernel::time::format_rfc3339;
use heyuan_kernel::{Error, Kernel, Problem, Tx, sql};
use heyuan_lake::{EventRow, Lake, Tail};
use sea_orm::DatabaseTransaction;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Compression that keeps up with the pipeline.
const ZSTD_LEVEL: i32 = 1;
/// A bound for reading; blocks are far smaller.
const BLOCK_BYTES_MAX: usize = 512 << 20;
/// Rows of one flush: bounds memory.
const FLUSH_ROWS_MAX: i64 = 200_000;
/// The same in bytes as unpacked, beyond which no further block is added; a usual event has a few hundred.
const FLUSH_BYTES_MAX: usize = 128 << 20;
/// Bytes as unpacked beyond which no further block is added to a page of the tail.
const PAGE_BYTES_MAX: usize = 16 << 20;
/// Blocks removed in one transaction.
const BLOCKS_REMOVED_MAX: i64 = 50;

/// Packs events: a line each, led by its anchor, so that a reader of few anchors parses few lines.
pub(crate) fn pack(events: &[Known]) -> Result<Vec<u8>, Error> {
    let corrupt = |why: String| Error::Corrupt { what: "known block", why };
    let mut plain = Vec::with_capacity(events.len() * 400);
    for event in events {
        plain.extend_from_slice(event.anchor.as_str().as_bytes());
        plain.push(b'\t');
        serde_json::to_writer(&mut plain, event).map_err(|e| corrupt(e.to_string()))?;
        plain.push(b'\n');
    }
    zstd::encode_all(plain.as_slice(), ZSTD_LEVEL).map_err(|e| corrupt(e.to_string()))
}

/// Opens a block; only lines of these anchors, when there are any. Also answers its bytes as unpacked.
fn unpack(packed: &[u8], anchors: Option<&HashSet<&str>>) -> Result<(Vec<Known>, usize), Error> {
    let corrupt = |why: String| Error::Corrupt { what: "known block", why };
    let mut plain = Vec::new();
    let decoder = zstd::Decoder::new(packed).map_err(|e| corrupt(e.to_string()))?;
    std::io::Read::read_to_end(&mut std::io::Read::take(decoder, BLOCK_BYTES_MAX as u64), &mut plain)
        .map_err(|e| corrupt(e.to_string()))?;
    let text = std::str::from_utf8(&plain).map_err(|e| corrupt(e.to_string()))?;
    let lines = text.lines().filter_map(|line| line.split_once('\t'));
    let events: Result<Vec<Known>, Error> = lines
        .filter(|(anchor, _)| anchors.is_none_or(|wanted| wanted.contains(anchor)))
        .map(|(_, event)| serde_json::from_str(event).map_err(|e| corrupt(e.to_string())))
        .collect();
    Ok((events?, plain.len()))
}

pub(crate) async fn write(tx: &Tx, from: i64, to: i64, events: usize, at: Timestamp, packed: &[u8]) -> Result<(), Error> {
    sql::execute(
        tx.conn(),
        "INSERT INTO cdp_known_block (first_position, last_position, events, written_at, payload) VALUES ($1, $2, $3, $4, $5)",
        [from.into(), to.into(), i64::try_from(events).unwrap_or(0).into(), at.ms().into(), packed.to_vec().into()],
    )
    .await?;
    Ok(())
}

/// The event as the lake keeps it. `properties` holds the declared properties as plain JSON (money in fen, times as RFC 3339,
/// decimals as text, personal values as references); of an identify its traits; of others traits under `$traits`, a touch under `$touch`.
pub fn row_of(event: &Known) -> EventRow {
    let mut object = Map::new();
    let is_profile = event.kind == EventKind::Identify;
    for (name, value) in if is_profile { &event.traits } else { &event.properties } {
        object.insert(name.clone(), json_of(value));
    }
    if !is_profile && !event.traits.is_empty() {
        let traits: Map<String, Value> = event.traits.iter().map(|(name, value)| (name.clone(), json_of(value))).collect();
        object.insert("$traits".to_owned(), Value::Object(traits));
    }
    if let Some(touch) = event.touch.as_ref().and_then(|touch| serde_json::to_value(touch).ok()) {
        object.insert("$touch".to_owned(), touch);
    }
    EventRow {
        position: event.position,
        message_id: event.message_id.clone(),
        kind: event.kind.as_str().to_owned(),
        name: event.name.clone(),
        anchor: event.anchor.as_str().to_owned(),
        identifiers: event.identifiers.iter().map(|id| id.as_str().to_owned()).collect(),
        unit: event.unit.as_ref().map(|unit| unit.as_str().to_owned()),
        app: event.app.clone(),
        occurred_at: event.occurred_at.ms(),
        arrived_at: event.arrived_at.ms(),
        properties: Value::Object(object).to_string(),
        sealed: event.sealed.clone(),
    }
}

/// A value as plain JSON.
pub(crate) fn json_of(value: &PropertyValue) -> Value {
    match value {
        PropertyValue::Integer(number) | PropertyValue::Fen(number) => (*number).into(),
        PropertyValue::Decimal(decimal) => decimal.to_string().into(),
        PropertyValue::Text(text) => text.clone().into(),
        PropertyValue::Boolean(truth) => (*truth).into(),
        PropertyValue::Time(at) => format_rfc3339(*at).into(),
        PropertyValue::Personal(reference) => reference.as_str().into(),
    }
}

/// The event back from the lake, by the schemas in force: what they no longer declare is left out.
///
/// # Errors
/// [`Error::Corrupt`] for a row that no release of ours has written.
pub fn known_of(row: &EventRow, types: &BTreeMap<String, Arc<EventType>>) -> Result<Known, Error> {
    let corrupt = |why: String| Error::Corrupt { what: "event of the lake", why };
    let kind = EventKind::parse(&row.kind).ok_or_else(|| corrupt(format!("kind {}", row.kind)))?;
    let anchor = |text: &String| AnchorId::new(text.clone()).map_err(|e| corrupt(e.to_string()));
    let mut object: Map<String, Value> = serde_json::from_str(&row.properties).map_err(|e| corrupt(e.to_string()))?;
    let touch = object.remove("$touch").and_then(|touch| serde_json::from_value(touch).ok());
    let nested = match object.remove("$traits") {
        Some(Value::Object(traits)) => traits,
        _ => Map::new(),
    };
    let is_profile = kind == EventKind::Identify;
    let (properties, traits) = if is_profile { (Map::new(), object) } else { (object, nested) };
    Ok(Known {
        position: row.position,
        message_id: row.message_id.clone(),
        kind,
        name: row.name.clone(),
        anchor: anchor(&row.anchor)?,
        identifiers: row.identifiers.iter().map(anchor).collect::<Result<_, _>>()?,
        unit: row.unit.clone().map(OrgUnitId::new).transpose().map_err(|e| corrupt(e.to_string()))?,
        app: row.app.clone(),
        occurred_at: Timestamp::clamped(row.occurred_at),
        arrived_at: Timestamp::clamped(row.arrived_at),
        properties: typed(types.get(&row.name), &properties),
        traits: typed(types.get(PROFILE), &traits),
        touch,
        sealed: row.sealed.clone(),
    })
}

fn typed(schema: Option<&Arc<EventType>>, object: &Map<String, Value>) -> BTreeMap<String, PropertyValue> {
    let mut values = BTreeMap::new();
    for (name, value) in object {
        let declared = schema.and_then(|schema| schema.properties.get(name));
        if let Some(value) = declared.and_then(|declared| stored_value(declared, value)) {
            values.insert(name.clone(), value);
        }
    }
    values
}

/// A value as [`json_of`] wrote it.
fn stored_value(declared: &Property, value: &Value) -> Option<PropertyValue> {
    use crate::event_type::PropertyType;
    if declared.personal.is_some() {
        return PersonalRef::new(value.as_str()?).ok().map(PropertyValue::Personal);
    }
    match declared.kind {
        PropertyType::Money => value.as_i64().map(PropertyValue::Fen),
        PropertyType::Decimal => {
            typing::value_of(declared, value.as_str()?).ok().filter(|value| matches!(value, PropertyValue::Decimal(Decimal { .. })))
        }
        _ => typing::value_of(declared, &value.to_string()).ok(),
    }
}

/// The tail that the lake reads beside its files.
pub(crate) struct KnownTail;

/// The next block above a position: where it ends, and what it holds packed.
async fn next_block<C: sql::Connection>(conn: &C, after: i64) -> Result<Option<(i64, Vec<u8>)>, Error> {
    let text = "SELECT last_position, payload FROM cdp_known_block WHERE last_position > $1 ORDER BY first_position LIMIT 1";
    let row = sql::one(conn, text, [after.into()]).await?;
    row.map(|row| Ok((sql::get(&row, "last_position")?, sql::get(&row, "payload")?))).transpose()
}

impl Tail for KnownTail {
    fn rows_after<'a>(
        &'a self,
        snapshot: &'a DatabaseTransaction,
        watermark: i64,
        rows_max: usize,
    ) -> BoxFuture<'a, Result<Vec<EventRow>, Error>> {
        async move {
            let (mut rows, mut bytes, mut after) = (Vec::new(), 0, watermark);
            while rows.len() < rows_max && bytes < PAGE_BYTES_MAX {
                let Some((last, payload)) = next_block(snapshot, after).await? else { break };
                let (events, unpacked) = unpack(&payload, None)?;
                let above = events.iter().filter(|event| event.position > watermark).take(rows_max - rows.len());
                rows.extend(above.map(row_of));
                // A block that adds nothing does not end the page: an empty one would be the tail's end.
                bytes += if rows.is_empty() { 0 } else { unpacked };
                after = last;
            }
            Ok(rows)
        }
        .boxed()
    }

    fn rows_of<'a>(
        &'a self,
        snapshot: &'a DatabaseTransaction,
        watermark: i64,
        anchors: &'a [String],
        before: Option<i64>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<EventRow>, Error>> {
        async move {
            let wanted: HashSet<&str> = anchors.iter().map(String::as_str).collect();
            let within = |event: &&Known| event.position > watermark && before.is_none_or(|before| event.position < before);
            let (mut rows, mut after) = (Vec::new(), watermark);
            while let Some((last, payload)) = next_block(snapshot, after).await? {
                let (events, _) = unpack(&payload, Some(&wanted))?;
                rows.extend(events.iter().filter(within).map(row_of));
                // Only the newest are asked for; a long tail of a busy anchor is never held as a whole.
                rows.drain(..rows.len().saturating_sub(limit));
                after = last;
            }
            rows.reverse();
            Ok(rows)
        }
        .boxed()
    }
}

/// The processor's task that gives known events to the lake and removes what it holds.
pub(crate) struct Flush {
    pub kernel: Kernel,
    pub lake: Lake,
    pub settings: Arc<Collect>,
}

impl Task for Flush {
    fn name(&self) -> &'static str {
        "flush to the lake"
    }

    fn waits(&self) -> Waits {
        Waits::time(Duration::from_secs(1))
    }

    fn due(&self) -> BoxFuture<'_, Result<Option<Timestamp>, Problem>> {
        async move {
            // What the lake holds already was removed by the step before.
            let row = sql::one(self.kernel.db.reader(), "SELECT MIN(written_at) AS oldest FROM cdp_known_block", []).await?;
            let oldest: Option<i64> = row.map_or(Ok(None), |row| sql::get(&row, "oldest"))?;
            Ok(oldest.map(|oldest| Timestamp::clamped(oldest.saturating_add(self.settings.flush_age_ms))))
        }
        .boxed()
    }

    fn step<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<Progress, Problem>> {
        async move {
            if self.sweep(fence).await? {
                return Ok(Progress::Busy);
            }
            let flushed = self.flush(fence, false).await?;
            Ok(if flushed { Progress::Busy } else { Progress::Idle })
        }
        .boxed()
    }
}

impl Flush {
    /// Gives known events to the lake when they are many or old, or at once.
    pub(crate) async fn flush(&self, fence: &Fence, at_once: bool) -> Result<bool, Problem> {
        let reader = self.kernel.db.reader();
        let watermark = Lake::watermark(reader).await?;
        let text = "SELECT CAST(COALESCE(SUM(last_position - first_position + 1), 0) AS BIGINT) AS events, MIN(written_at) AS oldest
          FROM cdp_known_block WHERE last_position > $1";
        let Some(row) = sql::one(reader, text, [watermark.into()]).await? else { return Ok(false) };
        let (events, oldest): (i64, Option<i64>) = (sql::get(&row, "events")?, sql::get(&row, "oldest")?);
        let old = oldest.is_some_and(|oldest| self.kernel.clock.now().ms() - oldest >= self.settings.flush_age_ms);
        if events == 0 || !(at_once || old || events >= self.settings.flush_rows) {
            return Ok(false);
        }
        let (mut to, mut rows, mut bytes) = (watermark, Vec::new(), 0);
        while to - watermark < FLUSH_ROWS_MAX && bytes < FLUSH_BYTES_MAX {
            let Some((last, payload)) = next_block(reader, to).await? else { break };
            let block = tokio::task::spawn_blocking(move || {
                let (events, unpacked) = unpack(&payload, None)?;
                Ok::<_, Error>((events.iter().map(row_of).collect::<Vec<EventRow>>(), unpacked))
            });
            let (block, unpacked) = block.await.map_err(|_| Error::Broken("flush to the lake"))??;
            rows.extend(block);
            bytes += unpacked;
            to = last;
        }
        self.lake.flush(fence, watermark, to, rows).await?;
        Ok(true)
    }

    /// Removes blocks under the watermark, a few at a time.
    async fn sweep(&self, fence: &Fence) -> Result<bool, Problem> {
        let reader = self.kernel.db.reader();
        let watermark = Lake::watermark(reader).await?;
        let under = "SELECT first_position FROM cdp_known_block WHERE last_position <= $1 ORDER BY first_position LIMIT 1";
        if sql::one(reader, under, [watermark.into()]).await?.is_none() {
            return Ok(false);
        }
        let fence = fence.clone();
        let text = "DELETE FROM cdp_known_block WHERE first_position IN
          (SELECT first_position FROM cdp_known_block WHERE last_position <= $1 ORDER BY first_position LIMIT $2)";
        let removed: u64 = self
            .kernel
            .db
            .write("remove known events that the lake holds", move |tx| {
                let fence = fence.clone();
                async move {
                    fence.check(tx).await?;
                    sql::execute(tx.conn(), text, [watermark.into(), BLOCKS_REMOVED_MAX.into()]).await
                }
                .boxed()
            })
            .await?;
        Ok(removed > 0)
    }
}

/// A known event by its message id, among those that the lake does not hold yet.
pub(crate) async fn find_known<C: sql::Connection>(conn: &C, message_id: &str) -> Result<Option<Known>, Error> {
    let mut after = Lake::watermark(conn).await?;
    while let Some((last, payload)) = next_block(conn, after).await? {
        let (events, _) = unpack(&payload, None)?;
        if let Some(found) = events.into_iter().find(|event| event.message_id == message_id) {
            return Ok(Some(found));
        }
        after = last;
    }
    Ok(None)
}
