//! Many rows in one statement whose text hardly depends on their number, on both databases.
//!
//! PostgreSQL gets one array literal a column, SQLite one JSON document. Either way the statement is prepared once. A few values stand in
//! the statement one by one: PostgreSQL knows then how many there are, and keeps the plan; with an array it plans anew each time.

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
    /// Texts.
    Texts(Vec<String>),
}

impl Column {
    /// Numbers that are all there.
    pub fn numbers(values: impl IntoIterator<Item = i64>) -> Column {
        Column::Numbers(values.into_iter().map(Some).collect())
    }

    /// Texts.
    pub fn texts(values: impl IntoIterator<Item = String>) -> Column {
        Column::Texts(values.into_iter().collect())
    }

    fn value(&self, index: usize) -> Value {
        match self {
            Column::Numbers(values) => values[index].into(),
            Column::Texts(values) => values[index].clone().into(),
        }
    }

    const fn kind(&self) -> &'static str {
        match self {
            Column::Numbers(_) => "bigint",
            Column::Texts(_) => "text",
        }
    }

    fn length(&self) -> usize {
        match self {
            Column::Numbers(values) => values.len(),
            Column::Texts(values) => values.len(),
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
                Column::Texts(values) => {
                    text.push('"');
                    for c in values[index].chars() {
                        if matches!(c, '"' | '\\') {
                            text.push('\\');
                        }
                        text.push(c);
                    }
                    text.push('"');
                }
            }
        }
        text.push('}');
        text
    }
}

/// A row source named `v`, with a column `place` for the order, and the values that go with it (from `$1` on).
pub fn source<C: sql::Connection>(conn: &C, names: &[&str], columns: &[Column]) -> (String, Vec<Value>) {
    source_behind(conn, 0, names, columns)
}

/// The same in a statement that has so many values before.
pub fn source_behind<C: sql::Connection>(conn: &C, before: usize, names: &[&str], columns: &[Column]) -> (String, Vec<Value>) {
    let rows = columns.first().map_or(0, Column::length);
    match conn.backend() {
        DbBackend::Postgres if (1..=FEW).contains(&rows) => {
            let row = |row: usize| {
                let value = |(index, column): (usize, &Column)| format!("${}::{}", before + row * columns.len() + index + 1, column.kind());
                let values: Vec<String> = columns.iter().enumerate().map(value).collect();
                format!("({}, {}::bigint)", values.join(", "), row + 1)
            };
            let list: Vec<String> = (0..rows).map(row).collect();
            let text = format!("(VALUES {}) AS v({}, place)", list.join(", "), names.join(", "));
            (text, (0..rows).flat_map(|row| columns.iter().map(move |column| column.value(row))).collect())
        }
        DbBackend::Postgres => {
            let arrays: Vec<String> =
                columns.iter().enumerate().map(|(index, column)| format!("${}::text::{}[]", before + index + 1, column.kind())).collect();
            let text = format!("unnest({}) WITH ORDINALITY AS v({}, place)", arrays.join(", "), names.join(", "));
            (text, columns.iter().map(|column| column.literal().into()).collect())
        }
        _ => {
            let fields: Vec<String> =
                names.iter().enumerate().map(|(index, name)| format!("json_extract(value, '$[{index}]') AS {name}")).collect();
            let text = format!("(SELECT {}, key AS place FROM json_each(${})) AS v", fields.join(", "), before + 1);
            (text, vec![json(columns).into()])
        }
    }
}

fn json(columns: &[Column]) -> String {
    let rows = columns.first().map_or(0, Column::length);
    let row = |index: usize| {
        let fields = columns.iter().map(|column| match column {
            Column::Numbers(values) => values[index].into(),
            Column::Texts(values) => values[index].clone().into(),
        });
        serde_json::Value::Array(fields.collect())
    };
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
            let list = match column {
                Column::Numbers(values) => serde_json::json!(values),
                Column::Texts(values) => serde_json::json!(values),
            };
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
    }
}
