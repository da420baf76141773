//! Plain statements that read the same on both databases: placeholders are `$1`, `$2`, …

use crate::Error;
use crate::sqlite::{self, Direct};
use futures::FutureExt;
use futures::future::BoxFuture;
use rusqlite::types::Value as Cell;
use sea_orm::{ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, QueryResult, Statement, TryGetable, Value};
use std::sync::Arc;

/// What statements run on: a pool, a transaction of it, or SQLite's writer.
pub trait Connection: Sync {
    /// Which database it is.
    fn backend(&self) -> DbBackend;
    /// Runs a statement and tells how many rows it touched.
    fn touched(&self, statement: Statement) -> BoxFuture<'_, Result<u64, DbErr>>;
    /// Runs a statement and reads its rows; the first alone may be enough.
    fn rows(&self, statement: Statement, first: bool) -> BoxFuture<'_, Result<Vec<Row>, DbErr>>;
}

macro_rules! of_sea_orm {
    ($($kind:ty),*) => {$(
        impl Connection for $kind {
            fn backend(&self) -> DbBackend {
                self.get_database_backend()
            }

            fn touched(&self, statement: Statement) -> BoxFuture<'_, Result<u64, DbErr>> {
                async move { Ok(self.execute_raw(statement).await?.rows_affected()) }.boxed()
            }

            fn rows(&self, statement: Statement, first: bool) -> BoxFuture<'_, Result<Vec<Row>, DbErr>> {
                async move {
                    if first {
                        return Ok(self.query_one_raw(statement).await?.map(Row::Driver).into_iter().collect());
                    }
                    Ok(self.query_all_raw(statement).await?.into_iter().map(Row::Driver).collect())
                }
                .boxed()
            }
        }
    )*};
}

of_sea_orm!(DatabaseConnection, DatabaseTransaction);

/// A connection of a driver's, or SQLite on the caller's own thread.
#[derive(Debug)]
pub enum Either<P> {
    /// Through the driver.
    Pooled(P),
    /// Called right here.
    Direct(Arc<Direct>),
}

/// The connection of a unit of work: a transaction of the pool, or SQLite's writer in the unit's savepoint.
pub type UnitConnection = Either<DatabaseTransaction>;

/// The connection of a short read.
pub type NearConnection = Either<DatabaseConnection>;

impl<P: Connection> Either<P> {
    /// Which database it is.
    pub fn backend(&self) -> DbBackend {
        match self {
            Either::Pooled(pooled) => pooled.backend(),
            Either::Direct(_) => DbBackend::Sqlite,
        }
    }
}

impl<P: Connection + Send> Connection for Either<P> {
    fn backend(&self) -> DbBackend {
        Either::backend(self)
    }

    fn touched(&self, statement: Statement) -> BoxFuture<'_, Result<u64, DbErr>> {
        match self {
            Either::Pooled(pooled) => pooled.touched(statement),
            Either::Direct(direct) => std::future::ready(direct.touched(&statement)).boxed(),
        }
    }

    fn rows(&self, statement: Statement, first: bool) -> BoxFuture<'_, Result<Vec<Row>, DbErr>> {
        match self {
            Either::Pooled(pooled) => pooled.rows(statement, first),
            Either::Direct(direct) => std::future::ready(direct.rows(&statement, first)).boxed(),
        }
    }
}

/// A row that a statement answered.
#[derive(Debug)]
pub enum Row {
    /// As a driver of sea-orm read it.
    Driver(QueryResult),
    /// As SQLite's writer read it.
    Direct(sqlite::Cells),
}

/// What a column is read as.
pub trait FromColumn: TryGetable {
    /// From SQLite's own value; `None` for one of another type.
    fn of(cell: &Cell) -> Option<Self>;
}

impl FromColumn for i64 {
    fn of(cell: &Cell) -> Option<i64> {
        if let Cell::Integer(number) = cell { Some(*number) } else { None }
    }
}

impl FromColumn for String {
    fn of(cell: &Cell) -> Option<String> {
        if let Cell::Text(text) = cell { Some(text.clone()) } else { None }
    }
}

impl FromColumn for Vec<u8> {
    fn of(cell: &Cell) -> Option<Vec<u8>> {
        if let Cell::Blob(bytes) = cell { Some(bytes.clone()) } else { None }
    }
}

impl<T: FromColumn> FromColumn for Option<T> {
    fn of(cell: &Cell) -> Option<Option<T>> {
        if matches!(cell, Cell::Null) { Some(None) } else { T::of(cell).map(Some) }
    }
}

/// Parameters from which on SQLite gets plain placeholders: it looks each numbered one up by its name, in a list.
const NUMBERED_MAX: usize = 32;

fn statement<C: Connection>(conn: &C, text: &str, values: impl IntoIterator<Item = Value>) -> Statement {
    let backend = conn.backend();
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
pub async fn execute<C: Connection>(conn: &C, text: &str, values: impl IntoIterator<Item = Value> + Send) -> Result<u64, Error> {
    Ok(conn.touched(statement(conn, text, values)).await?)
}

/// The first row, if any.
///
/// # Errors
/// [`Error::Database`].
pub async fn one<C: Connection>(conn: &C, text: &str, values: impl IntoIterator<Item = Value> + Send) -> Result<Option<Row>, Error> {
    Ok(conn.rows(statement(conn, text, values), true).await?.into_iter().next())
}

/// Every row; callers bound it with `LIMIT`.
///
/// # Errors
/// [`Error::Database`].
pub async fn all<C: Connection>(conn: &C, text: &str, values: impl IntoIterator<Item = Value> + Send) -> Result<Vec<Row>, Error> {
    Ok(conn.rows(statement(conn, text, values), false).await?)
}

/// What a statement counts in its column `n`; 0 when it answers no row.
///
/// # Errors
/// [`Error::Database`].
pub async fn count<C: Connection>(conn: &C, text: &str, values: impl IntoIterator<Item = Value> + Send) -> Result<i64, Error> {
    one(conn, text, values).await?.map_or(Ok(0), |row| get(&row, "n"))
}

/// The end of a `SELECT` that locks its rows until the commit; on SQLite units of work are serial anyway.
pub fn for_update<C: Connection>(conn: &C) -> &'static str {
    if conn.backend() == DbBackend::Postgres { " FOR UPDATE" } else { "" }
}

/// A column of a row, by its name.
///
/// # Errors
/// [`Error::Database`] when the column is missing or of another type.
pub fn get<T: FromColumn>(row: &Row, column: &str) -> Result<T, Error> {
    match row {
        Row::Driver(row) => Ok(row.try_get::<T>("", column)?),
        Row::Direct(cells) => {
            let cell = cells.get(column).ok_or_else(|| DbErr::Type(format!("there is no column {column}")))?;
            Ok(T::of(cell).ok_or_else(|| DbErr::Type(format!("column {column} is of another type")))?)
        }
    }
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
