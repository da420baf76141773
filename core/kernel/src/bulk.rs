//! Many rows in one statement whose text hardly depends on their number, on both databases.
//!
//! PostgreSQL gets one array literal a column, SQLite one JSON document. Either way the statement is prepared once. A few values stand in
//! the statement one by one: PostgreSQL knows then how many there are, and keeps the plan; with an array it plans anew each time. SQLite
//! reads no document then.

use crate::sql;
use sea_orm::{DbBackend, Value};
use std::fmt::Write;

/// Rows, or values, that stand in a statement one by one.
const FEW: usize = 4;

/// A column of the rows.
#[derive(Debug, Clone)]
pub enum Column {
    /// Whole numbers, some of them absent.
    Numbers(Vec<Option<i64>>),
    /// Texts, some of them absent.
    Texts(Vec<Option<String>>),
    /// Bytes.
    Bytes(Vec<Vec<u8>>),
}

impl Column {
    /// Numbers that are all there.
    pub fn numbers(values: impl IntoIterator<Item = i64>) -> Column {
        Column::Numbers(values.into_iter().map(Some).collect())
    }

    /// Texts that are all there.
    pub fn texts(values: impl IntoIterator<Item = String>) -> Column {
        Column::Texts(values.into_iter().map(Some).collect())
    }

    fn value(&self, index: usize) -> Value {
        match self {
            Column::Numbers(values) => values[index].into(),
            Column::Texts(values) => values[index].clone().into(),
            Column::Bytes(values) => values[index].clone().into(),
        }
    }

    fn json(&self, index: usize) -> serde_json::Value {
        match self {
            Column::Numbers(values) => values[index].into(),
            Column::Texts(values) => values[index].clone().into(),
            Column::Bytes(values) => hex::encode(&values[index]).into(),
        }
    }

    const fn kind(&self) -> &'static str {
        match self {
            Column::Numbers(_) => "bigint",
            Column::Texts(_) => "text",
            Column::Bytes(_) => "bytea",
        }
    }

    fn length(&self) -> usize {
        match self {
            Column::Numbers(values) => values.len(),
            Column::Texts(values) => values.len(),
            Column::Bytes(values) => values.len(),
        }
    }

    fn literal(&self) -> String {
        let mut text = String::from("{");
        for index in 0..self.length() {
            if index > 0 {
                text.push(',');
            }
            match self {
                Column::Numbers(values) => match values[index] {
                    // Writing to a String can't fail.
                    Some(number) => drop(write!(text, "{number}")),
                    None => text.push_str("NULL"),
                },
                Column::Texts(values) => match &values[index] {
                    Some(value) => {
                        text.push('"');
                        for c in value.chars() {
                            if matches!(c, '"' | '\\') {
                                text.push('\\');
                            }
                            text.push(c);
                        }
                        text.push('"');
                    }
                    None => text.push_str("NULL"),
                },
                Column::Bytes(values) => {
                    text.push_str(r#""\\x"#);
                    text.push_str(&hex::encode(&values[index]));
                    text.push('"');
                }
            }
        }
        text.push('}');
        text
    }
}

/// A row source named `v`, with a column `place` for the order, counted from 1, and the values that go with it (from `$1` on).
pub fn source<C: sql::Connection>(conn: &C, names: &[&str], columns: &[Column]) -> (String, Vec<Value>) {
    source_behind(conn, 0, names, columns)
}

/// The same in a statement that has so many values before.
pub fn source_behind<C: sql::Connection>(conn: &C, before: usize, names: &[&str], columns: &[Column]) -> (String, Vec<Value>) {
    let rows = columns.first().map_or(0, Column::length);
    match conn.backend() {
        _ if (1..=FEW).contains(&rows) => (few(conn.backend(), before, names, columns), in_rows(columns)),
        DbBackend::Postgres => {
            let arrays: Vec<String> =
                columns.iter().enumerate().map(|(index, column)| format!("${}::text::{}[]", before + index + 1, column.kind())).collect();
            let text = format!("unnest({}) WITH ORDINALITY AS v({}, place)", arrays.join(", "), names.join(", "));
            (text, columns.iter().map(|column| column.literal().into()).collect())
        }
        _ => {
            let field = |(index, (name, column)): (usize, (&&str, &Column))| match column {
                Column::Bytes(_) => format!("unhex(json_extract(value, '$[{index}]')) AS {name}"),
                _ => format!("json_extract(value, '$[{index}]') AS {name}"),
            };
            let fields: Vec<String> = names.iter().zip(columns).enumerate().map(field).collect();
            let text = format!("(SELECT {}, key + 1 AS place FROM json_each(${})) AS v", fields.join(", "), before + 1);
            (text, vec![json(columns).into()])
        }
    }
}

/// What goes with the row of a [`source`] that an answer belongs to, by its column `place`.
///
/// # Errors
/// [`crate::Error::Corrupt`] for a place that was not asked for; [`crate::Error::Database`].
pub fn of_place<'a, T>(list: &'a mut [T], row: &sql::Row) -> Result<&'a mut T, crate::Error> {
    let place: i64 = sql::get(row, "place")?;
    let index = usize::try_from(place - 1).ok();
    let missing = || crate::Error::Corrupt { what: "answer", why: format!("it is of place {place}, which was not asked for") };
    index.and_then(|index| list.get_mut(index)).ok_or_else(missing)
}

/// Inserts rows into a table in their order; any columns, also one that is called `place`.
///
/// # Errors
/// [`crate::Error::Database`].
pub async fn insert<C: sql::Connection>(conn: &C, table: &str, names: &[&str], columns: &[Column]) -> Result<(), crate::Error> {
    let own: Vec<String> = (1..=names.len()).map(|number| format!("c{number}")).collect();
    let (from, values) = source(conn, &own.iter().map(String::as_str).collect::<Vec<_>>(), columns);
    let text = format!("INSERT INTO {table} ({}) SELECT {} FROM {from} ORDER BY v.place", names.join(", "), own.join(", "));
    sql::execute(conn, &text, values).await?;
    Ok(())
}

/// The source of rows that stand in the statement one by one.
fn few(backend: DbBackend, before: usize, names: &[&str], columns: &[Column]) -> String {
    let rows = columns.first().map_or(0, Column::length);
    let row = |row: usize| {
        let value = |(index, column): (usize, &Column)| {
            let place = before + row * columns.len() + index + 1;
            if backend == DbBackend::Postgres { format!("${place}::{}", column.kind()) } else { format!("${place}") }
        };
        let values: Vec<String> = columns.iter().enumerate().map(value).collect();
        let place = if backend == DbBackend::Postgres { format!("{}::bigint", row + 1) } else { format!("{}", row + 1) };
        format!("({}, {place})", values.join(", "))
    };
    let list = (0..rows).map(row).collect::<Vec<_>>().join(", ");
    if backend == DbBackend::Postgres {
        return format!("(VALUES {list}) AS v({}, place)", names.join(", "));
    }
    let named: Vec<String> = names.iter().zip(1..).map(|(name, number)| format!("column{number} AS {name}")).collect();
    format!("(SELECT {}, column{} AS place FROM (VALUES {list})) AS v", named.join(", "), names.len() + 1)
}

/// The values of rows, one row after the other.
fn in_rows(columns: &[Column]) -> Vec<Value> {
    let rows = columns.first().map_or(0, Column::length);
    (0..rows).flat_map(|row| columns.iter().map(move |column| column.value(row))).collect()
}

fn json(columns: &[Column]) -> String {
    let rows = columns.first().map_or(0, Column::length);
    let row = |index: usize| serde_json::Value::Array(columns.iter().map(|column| column.json(index)).collect());
    serde_json::Value::Array((0..rows).map(row).collect()).to_string()
}

/// The right side of `column …` for "is one of these", and its values; their placeholders begin at `$place` and are the statement's last.
pub fn one_of_texts<C: sql::Connection>(conn: &C, place: usize, values: impl IntoIterator<Item = String>) -> (String, Vec<Value>) {
    one_of(conn, place, Column::texts(values))
}

/// The same for numbers.
pub fn one_of_numbers<C: sql::Connection>(conn: &C, place: usize, values: impl IntoIterator<Item = i64>) -> (String, Vec<Value>) {
    one_of(conn, place, Column::numbers(values))
}

fn one_of<C: sql::Connection>(conn: &C, place: usize, column: Column) -> (String, Vec<Value>) {
    let length = column.length();
    if (1..=FEW).contains(&length) {
        let places: Vec<String> = (place..place + length).map(|place| format!("${place}")).collect();
        return (format!("IN ({})", places.join(", ")), (0..length).map(|index| column.value(index)).collect());
    }
    match conn.backend() {
        // Not `= ANY(…)`: a scan would read the literal anew for each row, and compare with all of its values.
        DbBackend::Postgres => (format!("IN (SELECT unnest(${place}::text::{}[]))", column.kind()), vec![column.literal().into()]),
        _ => {
            let list = serde_json::Value::Array((0..length).map(|index| column.json(index)).collect());
            (format!("IN (SELECT value FROM json_each(${place}))"), vec![list.to_string().into()])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn array_literals_quote_what_needs_it() {
        let column = Column::texts(["a".to_owned(), "b\"c\\d,{}".to_owned(), String::new(), "NULL".to_owned()]);
        assert_eq!(column.literal(), r#"{"a","b\"c\\d,{}","","NULL"}"#);
        assert_eq!(Column::Numbers(vec![Some(-3), None]).literal(), "{-3,NULL}");
        assert_eq!(Column::Texts(vec![None, Some("NULL".to_owned())]).literal(), r#"{NULL,"NULL"}"#);
        assert_eq!(Column::Bytes(vec![vec![0, 92, 255], Vec::new()]).literal(), r#"{"\\x005cff","\\x"}"#);
    }
}
