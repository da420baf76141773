//! Lists as one parameter, so that a statement's text does not depend on their length and is prepared once.

use heyuan_kernel::Error;
use heyuan_kernel::sql;
use sea_orm::{DbBackend, Value};

/// Rows of one multi-row insert; with 13 columns this stays below SQLite's 32,766 parameters.
pub(crate) const INSERT_ROWS_MAX: usize = 500;

/// `IN (…)` over a list of texts without commas in parameter `$n`.
pub(crate) fn in_texts(backend: DbBackend, parameter: usize) -> String {
    match backend {
        DbBackend::Postgres => format!("= ANY(string_to_array(${parameter}, ','))"),
        _ => format!("IN (SELECT value FROM json_each(${parameter}))"),
    }
}

/// `IN (…)` over a list of hex-coded bytes in parameter `$n`.
pub(crate) fn in_bytes(backend: DbBackend, parameter: usize) -> String {
    match backend {
        DbBackend::Postgres => format!("IN (SELECT decode(unnest(string_to_array(${parameter}, ',')), 'hex'))"),
        _ => format!("IN (SELECT unhex(value) FROM json_each(${parameter}))"),
    }
}

/// The list as the parameter that [`in_texts`] and [`in_bytes`] read. Texts are ids or hex digits: no commas, no quotes.
pub(crate) fn list<T: AsRef<str>>(backend: DbBackend, texts: impl IntoIterator<Item = T>) -> Value {
    let mut joined = String::new();
    let postgres = backend == DbBackend::Postgres;
    for (place, text) in texts.into_iter().enumerate() {
        if place > 0 {
            joined.push(',');
        }
        if postgres {
            joined.push_str(text.as_ref());
        } else {
            joined.push('"');
            joined.push_str(text.as_ref());
            joined.push('"');
        }
    }
    if postgres { joined.into() } else { format!("[{joined}]").into() }
}

/// Inserts rows in statements of many: `head` is `INSERT INTO t (…) VALUES`, `tail` a conflict clause.
pub(crate) async fn insert<C: sql::Connection>(
    conn: &C,
    head: &str,
    tail: &str,
    columns: usize,
    rows: Vec<Vec<Value>>,
) -> Result<u64, Error> {
    let mut touched = 0;
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        let chunk: Vec<Vec<Value>> = rows.by_ref().take(INSERT_ROWS_MAX).collect();
        let text = format!("{head} {} {tail}", sql::rows(chunk.len(), columns));
        touched += sql::execute(conn, &text, chunk.into_iter().flatten()).await?;
    }
    Ok(touched)
}

/// A name that only ever holds one number: positions and versions of this wing.
pub(crate) async fn position<C: sql::Connection>(conn: &C, name: &str) -> Result<i64, Error> {
    let row = sql::one(conn, "SELECT position FROM cdp_position WHERE name = $1", [name.into()]).await?;
    row.map_or(Ok(0), |row| sql::get(&row, "position"))
}

/// Adds to a number that is always there; it never falls below nothing.
pub(crate) async fn add_position<C: sql::Connection>(conn: &C, name: &str, more: i64) -> Result<(), Error> {
    let text = "UPDATE cdp_position SET position = CASE WHEN position + $1 > 0 THEN position + $1 ELSE 0 END WHERE name = $2";
    sql::execute(conn, text, [more.into(), name.into()]).await?;
    Ok(())
}

/// Moves a position, in the transaction of its effects.
pub(crate) async fn set_position<C: sql::Connection>(conn: &C, name: &str, position: i64) -> Result<(), Error> {
    sql::execute(
        conn,
        "INSERT INTO cdp_position (name, position) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET position = excluded.position",
        [name.into(), position.into()],
    )
    .await?;
    Ok(())
}
