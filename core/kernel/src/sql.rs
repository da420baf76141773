//! Plain statements that read the same on both databases: placeholders are `$1`, `$2`, …

use crate::Error;
use sea_orm::{ConnectionTrait, ExecResult, QueryResult, Statement, TryGetable, Value};

/// Runs a statement and tells how many rows it touched.
///
/// # Errors
/// [`Error::Database`].
pub async fn execute<C: ConnectionTrait>(conn: &C, text: &str, values: impl IntoIterator<Item = Value> + Send) -> Result<u64, Error> {
    let statement = Statement::from_sql_and_values(conn.get_database_backend(), text, values);
    let result: ExecResult = conn.execute_raw(statement).await?;
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
    let statement = Statement::from_sql_and_values(conn.get_database_backend(), text, values);
    Ok(conn.query_one_raw(statement).await?)
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
    let statement = Statement::from_sql_and_values(conn.get_database_backend(), text, values);
    Ok(conn.query_all_raw(statement).await?)
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
