//! Rows of the engine as JSON values, within bounds.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::{Map, Value};

/// Bytes that a value costs beside its text.
const VALUE_BYTES: usize = 8;
/// Lists in lists deeper than this are shown as text.
const DEPTH_MAX: usize = 16;

/// Gathers rows until a bound is met.
pub(crate) struct Renderer {
    rows_max: usize,
    bytes_left: usize,
    rows: Vec<Vec<Value>>,
    truncated: bool,
}

impl Renderer {
    pub(crate) fn new(rows_max: usize, bytes_max: usize) -> Renderer {
        Renderer { rows_max, bytes_left: bytes_max, rows: Vec::new(), truncated: false }
    }

    /// Takes a batch's rows; false once nothing more is wanted.
    pub(crate) fn take(&mut self, batch: &RecordBatch) -> Result<bool, ArrowError> {
        for index in 0..batch.num_rows() {
            if self.rows.len() == self.rows_max {
                self.truncated = true;
                return Ok(false);
            }
            let mut row = Vec::with_capacity(batch.num_columns());
            let mut bytes = 0;
            for column in batch.columns() {
                let value = value(column, index, DEPTH_MAX)?;
                bytes += size(&value);
                row.push(value);
            }
            let Some(left) = self.bytes_left.checked_sub(bytes) else {
                self.truncated = true;
                return Ok(false);
            };
            self.bytes_left = left;
            self.rows.push(row);
        }
        Ok(true)
    }

    pub(crate) fn finish(self) -> (Vec<Vec<Value>>, bool) {
        (self.rows, self.truncated)
    }
}

/// A type's name for people.
pub(crate) fn type_name(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::Null => "null",
        DataType::Boolean => "boolean",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text",
        DataType::Float16 | DataType::Float32 | DataType::Float64 => "double",
        DataType::Timestamp(_, _) => "timestamp",
        DataType::Date32 | DataType::Date64 => "date",
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(_, _) => "list",
        DataType::Struct(_) => "struct",
        DataType::Dictionary(_, values) => return type_name(values),
        other if other.is_integer() => "bigint",
        other if other.is_decimal() => "decimal",
        other => return other.to_string().to_lowercase(),
    };
    name.to_owned()
}

fn value(array: &ArrayRef, index: usize, depth: usize) -> Result<Value, ArrowError> {
    if array.is_null(index) {
        return Ok(Value::Null);
    }
    Ok(match array.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => array.as_boolean().value(index).into(),
        DataType::Int8 => array.as_primitive::<Int8Type>().value(index).into(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(index).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(index).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(index).into(),
        DataType::UInt8 => array.as_primitive::<UInt8Type>().value(index).into(),
        DataType::UInt16 => array.as_primitive::<UInt16Type>().value(index).into(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(index).into(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(index).into(),
        DataType::Float32 => f64::from(array.as_primitive::<Float32Type>().value(index)).into(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(index).into(),
        DataType::Utf8 => array.as_string::<i32>().value(index).into(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(index).into(),
        DataType::Utf8View => array.as_string_view().value(index).into(),
        DataType::Binary => hex::encode(array.as_binary::<i32>().value(index)).into(),
        DataType::BinaryView => hex::encode(array.as_binary_view().value(index)).into(),
        DataType::Date32 => {
            let days = i64::from(array.as_primitive::<Date32Type>().value(index));
            instant(days.saturating_mul(86_400_000_000_000 / 1_000), 6).map_or(Value::Null, |at| at.strftime("%Y-%m-%d").to_string().into())
        }
        DataType::Timestamp(unit, _) => timestamp(array, index, *unit),
        DataType::List(_) if depth > 0 => list(&array.as_list::<i32>().value(index), depth)?,
        DataType::LargeList(_) if depth > 0 => list(&array.as_list::<i64>().value(index), depth)?,
        DataType::Struct(_) if depth > 0 => {
            let fields = array.as_struct();
            let values = fields.fields().iter().zip(fields.columns());
            let entries: Result<Map<String, Value>, ArrowError> =
                values.map(|(field, column)| Ok((field.name().clone(), value(column, index, depth - 1)?))).collect();
            Value::Object(entries?)
        }
        // Decimals stay exact as text, and what is rare is shown as the engine shows it.
        _ => ArrayFormatter::try_new(array.as_ref(), &FormatOptions::default())?.value(index).try_to_string()?.into(),
    })
}

fn list(items: &ArrayRef, depth: usize) -> Result<Value, ArrowError> {
    (0..items.len()).map(|index| value(items, index, depth - 1)).collect::<Result<Vec<Value>, ArrowError>>().map(Value::Array)
}

/// RFC 3339 in UTC; a time outside the representable years as its bare number.
fn timestamp(array: &ArrayRef, index: usize, unit: TimeUnit) -> Value {
    let (number, digits) = match unit {
        TimeUnit::Second => (array.as_primitive::<TimestampSecondType>().value(index), 0),
        TimeUnit::Millisecond => (array.as_primitive::<TimestampMillisecondType>().value(index), 3),
        TimeUnit::Microsecond => (array.as_primitive::<TimestampMicrosecondType>().value(index), 6),
        TimeUnit::Nanosecond => (array.as_primitive::<TimestampNanosecondType>().value(index), 9),
    };
    // Whole milliseconds are enough for people: finer digits are shown only where the engine computed them.
    let shown = usize::from(digits.max(3));
    instant(number, digits).map_or_else(|| number.into(), |at| format!("{at:.shown$}").into())
}

fn instant(number: i64, digits: u8) -> Option<jiff::Timestamp> {
    match digits {
        0 => jiff::Timestamp::from_second(number).ok(),
        3 => jiff::Timestamp::from_millisecond(number).ok(),
        6 => jiff::Timestamp::from_microsecond(number).ok(),
        _ => jiff::Timestamp::from_nanosecond(number.into()).ok(),
    }
}

fn size(value: &Value) -> usize {
    VALUE_BYTES
        + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(size).sum(),
            Value::Object(entries) => entries.iter().map(|(name, value)| name.len() + size(value)).sum(),
            _ => 0,
        }
}
