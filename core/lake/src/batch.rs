//! Events as columns: the schema of every file, and the way there and back.

use crate::event::EventRow;
use crate::place::{Place, Places};
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, Date32Builder, Int32Builder, Int64Builder, ListBuilder, RecordBatch, StringViewBuilder,
    TimestampMillisecondBuilder,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMillisecondType};
use arrow::error::ArrowError;
use heyuan_kernel::{Error, Zone};
use std::cmp::Ordering;
use std::sync::{Arc, LazyLock};

/// The columns of the view `events`; the rest is for ourselves.
pub(crate) const VIEW: [&str; 12] =
    ["position", "message_id", "kind", "name", "anchor", "identifiers", "unit", "app", "occurred_at", "arrived_at", "day", "properties"];

/// The columns that make an [`EventRow`].
pub(crate) const ROW: [&str; 12] =
    ["position", "message_id", "kind", "name", "anchor", "identifiers", "unit", "app", "occurred_at", "arrived_at", "properties", "sealed"];

/// The order of rows in every file.
pub(crate) const SORT: [&str; 5] = ["part", "day", "anchor", "occurred_at", "position"];

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = |name: &str| Field::new(name, DataType::Utf8View, false);
    let time = |name: &str| Field::new(name, timestamp(), false);
    Arc::new(Schema::new(vec![
        Field::new("position", DataType::Int64, false),
        text("message_id"),
        text("kind"),
        text("name"),
        text("anchor"),
        Field::new("identifiers", DataType::List(Arc::new(item())), false),
        Field::new("unit", DataType::Utf8View, true),
        text("app"),
        time("occurred_at"),
        time("arrived_at"),
        Field::new("day", DataType::Date32, false),
        text("properties"),
        Field::new("sealed", DataType::Binary, true),
        Field::new("part", DataType::Int32, false),
    ]))
});

fn item() -> Field {
    Field::new_list_field(DataType::Utf8View, true)
}

/// Milliseconds in UTC; written as an offset, which needs no time zone data to be read.
pub(crate) fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()))
}

/// The columns of every file.
pub(crate) fn schema() -> SchemaRef {
    SCHEMA.clone()
}

/// Where the named columns stand.
pub(crate) fn indices(names: &[&str]) -> Vec<usize> {
    names.iter().filter_map(|name| SCHEMA.index_of(name).ok()).collect()
}

/// Brings rows into the order of files.
pub(crate) fn sort(rows: &mut Vec<EventRow>, zone: &Zone) {
    let mut places = Places::new(zone);
    let mut keyed: Vec<(Place, EventRow)> = rows.drain(..).map(|row| (places.of(&row.anchor, row.occurred_at), row)).collect();
    keyed.sort_unstable_by(|(a_place, a), (b_place, b)| {
        let by_place = a_place.cmp(b_place);
        by_place.then_with(|| a.anchor.cmp(&b.anchor)).then_with(|| in_time(a, b))
    });
    rows.extend(keyed.into_iter().map(|(_, row)| row));
}

fn in_time(a: &EventRow, b: &EventRow) -> Ordering {
    (a.occurred_at, a.position).cmp(&(b.occurred_at, b.position))
}

/// Rows as one batch.
pub(crate) fn from_rows(rows: &[EventRow], zone: &Zone) -> Result<RecordBatch, ArrowError> {
    let mut places = Places::new(zone);
    let mut identifiers = ListBuilder::new(StringViewBuilder::new()).with_field(Arc::new(item()));
    let mut unit = StringViewBuilder::new();
    let mut sealed = BinaryBuilder::new();
    let mut day = Date32Builder::with_capacity(rows.len());
    let mut part = Int32Builder::with_capacity(rows.len());
    for row in rows {
        for id in &row.identifiers {
            identifiers.values().append_value(id);
        }
        identifiers.append(true);
        unit.append_option(row.unit.as_deref());
        sealed.append_option(row.sealed.as_deref());
        let place = places.of(&row.anchor, row.occurred_at);
        day.append_value(place.day);
        part.append_value(place.part);
    }
    let columns: Vec<ArrayRef> = vec![
        integers(rows, |row| row.position),
        texts(rows, |row| &row.message_id),
        texts(rows, |row| &row.kind),
        texts(rows, |row| &row.name),
        texts(rows, |row| &row.anchor),
        Arc::new(identifiers.finish()),
        Arc::new(unit.finish()),
        texts(rows, |row| &row.app),
        times(rows, |row| row.occurred_at),
        times(rows, |row| row.arrived_at),
        Arc::new(day.finish()),
        texts(rows, |row| &row.properties),
        Arc::new(sealed.finish()),
        Arc::new(part.finish()),
    ];
    RecordBatch::try_new(schema(), columns)
}

fn integers(rows: &[EventRow], value: impl Fn(&EventRow) -> i64) -> ArrayRef {
    let mut builder = Int64Builder::with_capacity(rows.len());
    rows.iter().for_each(|row| builder.append_value(value(row)));
    Arc::new(builder.finish())
}

fn texts(rows: &[EventRow], value: impl Fn(&EventRow) -> &str) -> ArrayRef {
    let mut builder = StringViewBuilder::with_capacity(rows.len());
    rows.iter().for_each(|row| builder.append_value(value(row)));
    Arc::new(builder.finish())
}

fn times(rows: &[EventRow], value: impl Fn(&EventRow) -> i64) -> ArrayRef {
    let mut builder = TimestampMillisecondBuilder::with_capacity(rows.len());
    rows.iter().for_each(|row| builder.append_value(value(row)));
    Arc::new(builder.finish().with_data_type(timestamp()))
}

/// A batch with the columns of [`ROW`] as rows.
///
/// # Errors
/// `Corrupt` when a column is missing or of another type.
pub(crate) fn to_rows(batch: &RecordBatch) -> Result<Vec<EventRow>, Error> {
    let position = column(batch, "position")?.as_primitive_opt::<Int64Type>().ok_or_else(|| wrong("position"))?;
    let occurred = column(batch, "occurred_at")?.as_primitive_opt::<TimestampMillisecondType>().ok_or_else(|| wrong("occurred_at"))?;
    let arrived = column(batch, "arrived_at")?.as_primitive_opt::<TimestampMillisecondType>().ok_or_else(|| wrong("arrived_at"))?;
    let identifiers = column(batch, "identifiers")?.as_list_opt::<i32>().ok_or_else(|| wrong("identifiers"))?;
    let sealed = column(batch, "sealed")?.as_binary_opt::<i32>().ok_or_else(|| wrong("sealed"))?;
    let text = |name: &'static str| column(batch, name)?.as_string_view_opt().ok_or_else(|| wrong(name));
    let (message_id, kind, name, anchor) = (text("message_id")?, text("kind")?, text("name")?, text("anchor")?);
    let (unit, app, properties) = (text("unit")?, text("app")?, text("properties")?);
    let mut rows = Vec::with_capacity(batch.num_rows());
    for index in 0..batch.num_rows() {
        let ids = identifiers.value(index);
        let ids = ids.as_string_view_opt().ok_or_else(|| wrong("identifiers"))?;
        rows.push(EventRow {
            position: position.value(index),
            message_id: message_id.value(index).to_owned(),
            kind: kind.value(index).to_owned(),
            name: name.value(index).to_owned(),
            anchor: anchor.value(index).to_owned(),
            identifiers: ids.iter().flatten().map(str::to_owned).collect(),
            unit: unit.is_valid(index).then(|| unit.value(index).to_owned()),
            app: app.value(index).to_owned(),
            occurred_at: occurred.value(index),
            arrived_at: arrived.value(index),
            properties: properties.value(index).to_owned(),
            sealed: sealed.is_valid(index).then(|| sealed.value(index).to_owned()),
        });
    }
    Ok(rows)
}

fn column<'a>(batch: &'a RecordBatch, name: &'static str) -> Result<&'a ArrayRef, Error> {
    batch.column_by_name(name).ok_or_else(|| wrong(name))
}

fn wrong(name: &'static str) -> Error {
    Error::Corrupt { what: "event file", why: format!("the column {name} is missing or of another type") }
}
