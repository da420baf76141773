//! Plain statements that read the same on both databases: placeholders are `$1`, `$2`, …

use crate::Error;
use sea_orm::{ConnectionTrait, DbBackend, ExecResult, QueryResult, Statement, TryGetable, Value};

/// Parameters from which on SQLite gets plain placeholders: it looks each numbered one up by its name, in a list.
const NUMBERED_MAX: usize = 32;

fn statement<C: ConnectionTrait>(conn: &C, text: &str, values: impl IntoIterator<Item = Value>) -> Statement {
    let backend = conn.get_database_backend();
    let values: Vec<Value> = values.into_iter().collect();
    if backend == DbBackend::Sqlite
        && values.len() > NUMBERED_MAX
        && let Some(plain) = plain_placeholders(text, values.len())
    {
        return Statement::from_sql_and_values(backend, plain, values);
    }
    Statement::from_sql_and_values(backend, text, values)
}

/// The text with `?` for `$1`, `$2`, …, where these are `count` in this very order and nothing else has a dollar sign.
fn plain_placeholders(text: &str, count: usize) -> Option<String> {
    let mut parts = text.split('$');
    let mut plain = String::with_capacity(text.len());
    plain.push_str(parts.next()?);
    let mut next = 1;
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        if part[..digits].parse() != Ok(next) {
            return None;
        }
        next += 1;
        plain.push('?');
        plain.push_str(&part[digits..]);
    }
    (next == count + 1).then_some(plain)
}

/// Runs a statement and tells how many rows it touched.
///
/// # Errors
/// [`Error::Database`].
pub async fn execute<C: ConnectionTrait>(conn: &C, text: &str, values: impl IntoIterator<Item = Value> + Send) -> Result<u64, Error> {
    let result: ExecResult = conn.execute_raw(statement(conn, text, values)).await?;
    Ok(result.rows_affected())
}

/// The first row, if any.
///
/// # Errors
/// [`Error::Database`].
pub async fn one<C: ConnectionTrait>(
    conn: &C,
    text: &str,
    values: impl IntoIterator<Item = Value> + Send,
) -> Result<Option<QueryResult>, Error> {
    Ok(conn.query_one_raw(statement(conn, text, values)).await?)
}

/// Every row; callers bound it with `LIMIT`.
///
/// # Errors
/// [`Error::Database`].
pub async fn all<C: ConnectionTrait>(
    conn: &C,
    text: &str,
    values: impl IntoIterator<Item = Value> + Send,
) -> Result<Vec<QueryResult>, Error> {
    Ok(conn.query_all_raw(statement(conn, text, values)).await?)
}

/// A column of a row, by its name.
///
/// # Errors
/// [`Error::Database`] when the column is missing or of another type.
pub fn get<T: TryGetable>(row: &QueryResult, column: &str) -> Result<T, Error> {
    Ok(row.try_get::<T>("", column)?)
}

/// `$from, …` for `count` placeholders, for lists of known length.
pub fn placeholders(from: usize, count: usize) -> String {
    let mut text = String::with_capacity(count * 5);
    for index in from..from + count {
        if index > from {
            text.push(',');
        }
        text.push('$');
        text.push_str(&index.to_string());
    }
    text
}

/// `($1,$2),($3,$4),…` for a multi-row insert.
pub fn rows(rows: usize, columns: usize) -> String {
    let mut text = String::with_capacity(rows * columns * 5);
    for row in 0..rows {
        if row > 0 {
            text.push(',');
        }
        text.push('(');
        text.push_str(&placeholders(row * columns + 1, columns));
        text.push(')');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_in_order_become_plain_ones() {
        for (text, count, expected) in [
            ("VALUES ($1,$2),($3,$4) ON CONFLICT", 4, Some("VALUES (?,?),(?,?) ON CONFLICT")),
            ("a = $1 OR b = $1", 1, None),
            ("a = $2 OR b = $1", 2, None),
            ("json_extract(value, '$[0]') = $1", 1, None),
            ("a = $1", 2, None),
        ] {
            assert_eq!(plain_placeholders(text, count).as_deref(), expected, "{text}");
        }
    }
}
