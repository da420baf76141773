//! The writer's SQLite connection, called on the writer's own thread: a statement costs microseconds, without a way to another thread
//! and back.

use crate::sql::Row;
use rusqlite::types::{ToSqlOutput, Value as Cell, ValueRef};
use rusqlite::{CachedStatement, Connection, ErrorCode, ToSql};
use sea_orm::sqlx;
use sea_orm::sqlx::error::{DatabaseError, ErrorKind};
use sea_orm::{DbErr, RuntimeErr, Statement, Value};
use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Statements that stay prepared.
const PREPARED_MAX: usize = 256;
/// How long a reader waits for another process that holds the file.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a writer looks whether another process has let go of the file: half a minute and more.
const BUSY_LOOKS_MAX: i32 = 30_000;
/// Between two looks, at least. SQLite's own waiting grows to a tenth of a second, and so can miss, for as long as it waits, the
/// moments between the commits of a server that always has something to write.
const BUSY_PAUSE_US: u64 = 600;

/// A connection without a thread of its own.
#[derive(Debug)]
pub struct Direct {
    connection: Mutex<Connection>,
}

/// A row's values under the names of its columns, which all rows of one answer share.
#[derive(Debug, Clone)]
pub struct Cells {
    names: Arc<[String]>,
    values: Vec<Cell>,
}

impl Cells {
    pub(crate) fn get(&self, name: &str) -> Option<&Cell> {
        self.names.iter().position(|one| one == name).and_then(|place| self.values.get(place))
    }
}

/// What a connection is set to.
pub(crate) type Pragmas = Vec<(&'static str, String)>;

impl Direct {
    /// Opens the file; it is made when it is not there.
    pub(crate) fn open(path: &Path, pragmas: &Pragmas) -> Result<Direct, DbErr> {
        let connection = Connection::open(path).map_err(conn_err)?;
        connection.busy_handler(Some(look_again)).map_err(conn_err)?;
        connection.set_prepared_statement_cache_capacity(PREPARED_MAX);
        for (name, value) in pragmas {
            let mut looks = 0;
            // Turning a file to WAL asks nobody to wait: of two that open a fresh one at once, the second hears that it is busy.
            while let Err(error) = connection.pragma_update(None, name, value) {
                if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) || !look_again(looks) {
                    return Err(conn_err(error));
                }
                looks += 1;
            }
        }
        Ok(Direct { connection: Mutex::new(connection) })
    }

    /// Runs a statement without parameters.
    pub(crate) fn run(&self, text: &str) -> Result<(), DbErr> {
        let connection = self.lock();
        drain(&mut connection.prepare_cached(text).map_err(exec_err)?).map_err(exec_err)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic can't leave a statement half-way: its transaction is rolled back as a whole.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows that a statement answers, or the first of them.
    pub(crate) fn rows(&self, statement: &Statement, first: bool) -> Result<Vec<Row>, DbErr> {
        let connection = self.lock();
        let mut prepared = connection.prepare_cached(&statement.sql).map_err(query_err)?;
        bind(&mut prepared, statement).map_err(query_err)?;
        let names: Arc<[String]> = prepared.column_names().into_iter().map(str::to_owned).collect();
        let reads_only = prepared.readonly();
        let mut found = Vec::new();
        let mut rows = prepared.raw_query();
        while let Some(row) = rows.next().map_err(query_err)? {
            if first && !found.is_empty() {
                // What a statement writes is written whole, whoever reads its rows.
                if reads_only {
                    break;
                }
                continue;
            }
            let cells = (0..names.len()).map(|place| row.get::<_, Cell>(place));
            let values = cells.collect::<rusqlite::Result<Vec<Cell>>>().map_err(query_err)?;
            found.push(Row::Direct(Cells { names: names.clone(), values }));
        }
        Ok(found)
    }

    /// Runs a statement; answers how many rows it touched.
    pub(crate) fn touched(&self, statement: &Statement) -> Result<u64, DbErr> {
        let connection = self.lock();
        let mut prepared = connection.prepare_cached(&statement.sql).map_err(exec_err)?;
        bind(&mut prepared, statement).map_err(exec_err)?;
        drain(&mut prepared).map_err(exec_err)?;
        Ok(if prepared.readonly() { 0 } else { connection.changes() })
    }
}

/// Waits a moment for another process: `heyuan keys create` beside a running server, or the server beside it.
fn look_again(looked: i32) -> bool {
    // Uneven, so that two do not keep step.
    std::thread::sleep(Duration::from_micros(BUSY_PAUSE_US + rand::random_range(0..BUSY_PAUSE_US * 2)));
    looked < BUSY_LOOKS_MAX
}

/// Runs a prepared statement to its end.
fn drain(prepared: &mut CachedStatement<'_>) -> rusqlite::Result<()> {
    let mut rows = prepared.raw_query();
    while rows.next()?.is_some() {}
    Ok(())
}

/// Binds values to their placeholders: `?` in order, `$n` and `?n` by their number.
fn bind(prepared: &mut CachedStatement<'_>, statement: &Statement) -> rusqlite::Result<()> {
    let values = statement.values.as_ref().map_or(&[] as &[Value], |values| &values.0);
    for place in 1..=prepared.parameter_count() {
        let number = prepared.parameter_name(place).and_then(|name| name[1..].parse::<usize>().ok()).unwrap_or(place);
        let value = number.checked_sub(1).and_then(|index| values.get(index));
        let value = value.ok_or(rusqlite::Error::InvalidParameterCount(values.len(), number))?;
        prepared.raw_bind_parameter(place, Bound(value))?;
    }
    Ok(())
}

struct Bound<'a>(&'a Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let whole = |number: Option<i64>| number.map_or(ValueRef::Null, ValueRef::Integer);
        let value = match self.0 {
            Value::Bool(truth) => whole(truth.map(i64::from)),
            Value::TinyInt(number) => whole(number.map(i64::from)),
            Value::SmallInt(number) => whole(number.map(i64::from)),
            Value::Int(number) => whole(number.map(i64::from)),
            Value::BigInt(number) => whole(*number),
            Value::TinyUnsigned(number) => whole(number.map(i64::from)),
            Value::SmallUnsigned(number) => whole(number.map(i64::from)),
            Value::Unsigned(number) => whole(number.map(i64::from)),
            Value::BigUnsigned(number) => {
                let number = number.map(i64::try_from).transpose();
                whole(number.map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?)
            }
            Value::Float(number) => number.map_or(ValueRef::Null, |number| ValueRef::Real(f64::from(number))),
            Value::Double(number) => number.map_or(ValueRef::Null, ValueRef::Real),
            Value::String(text) => text.as_ref().map_or(ValueRef::Null, |text| ValueRef::Text(text.as_bytes())),
            Value::Bytes(bytes) => bytes.as_ref().map_or(ValueRef::Null, |bytes| ValueRef::Blob(bytes)),
            other => {
                let why = format!("values of this kind are not stored: {other:?}");
                return Err(rusqlite::Error::ToSqlConversionFailure(why.into()));
            }
        };
        Ok(ToSqlOutput::Borrowed(value))
    }
}

fn conn_err(error: rusqlite::Error) -> DbErr {
    DbErr::Conn(runtime_err(&error))
}

fn exec_err(error: rusqlite::Error) -> DbErr {
    DbErr::Exec(runtime_err(&error))
}

fn query_err(error: rusqlite::Error) -> DbErr {
    DbErr::Query(runtime_err(&error))
}

/// In the form in which the drivers of sea-orm tell it, so that nobody has to know who called SQLite.
fn runtime_err(error: &rusqlite::Error) -> RuntimeErr {
    let code = match error {
        rusqlite::Error::SqliteFailure(failure, _) => failure.extended_code,
        rusqlite::Error::SqlInputError { error: failure, .. } => failure.extended_code,
        other => return RuntimeErr::Internal(other.to_string()),
    };
    let refusal = Refusal { code: code.to_string(), message: error.to_string() };
    RuntimeErr::SqlxError(Arc::new(sqlx::Error::Database(Box::new(refusal))))
}

/// What SQLite refused, with its extended code.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: String,
    pub(crate) message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "(code: {}) {}", self.code, self.message)
    }
}

impl std::error::Error for Refusal {}

impl DatabaseError for Refusal {
    fn message(&self) -> &str {
        &self.message
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.code))
    }

    fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
        self
    }

    fn kind(&self) -> ErrorKind {
        // Whoever wants to know looks at the code.
        ErrorKind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql;
    use sea_orm::DbBackend;

    fn opened() -> (tempfile::TempDir, Direct) {
        let folder = tempfile::tempdir().expect("a folder");
        let direct = Direct::open(&folder.path().join("t.db"), &Vec::new()).expect("a database");
        direct.run("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE, bytes BLOB, size BIGINT)").expect("a table");
        (folder, direct)
    }

    fn statement(text: &str, values: Vec<Value>) -> Statement {
        Statement::from_sql_and_values(DbBackend::Sqlite, text, values)
    }

    #[test]
    fn values_come_back_as_they_went() {
        let (_folder, direct) = opened();
        let text = "INSERT INTO t (id, name, bytes, size) VALUES ($2, $1, $4, $3) RETURNING id";
        let values = vec!["a".into(), 7_i64.into(), Value::BigInt(None), vec![1_u8, 0].into()];
        let row = direct.rows(&statement(text, values), true).expect("runs").pop().expect("a row");
        assert_eq!(sql::get::<i64>(&row, "id").expect("a number"), 7);
        let row = direct
            .rows(&statement("SELECT name, bytes, size FROM t WHERE name = ?", vec!["a".into()]), true)
            .expect("runs")
            .pop()
            .expect("a row");
        assert_eq!(sql::get::<String>(&row, "name").expect("a text"), "a");
        assert_eq!(sql::get::<Option<Vec<u8>>>(&row, "bytes").expect("bytes"), Some(vec![1, 0]));
        assert_eq!(sql::get::<Option<i64>>(&row, "size").expect("nothing"), None);
        for (column, what) in [("size", "an absent value"), ("name", "a text"), ("none", "no column")] {
            assert!(sql::get::<i64>(&row, column).is_err(), "{what} was read as a number");
        }
        let resize = |id: i64| direct.touched(&statement("UPDATE t SET size = $1 WHERE id = $2", vec![1_i64.into(), id.into()]));
        assert_eq!((resize(7).expect("runs"), resize(8).expect("runs")), (1, 0));
    }

    #[test]
    fn what_is_refused_says_why() {
        let (_folder, direct) = opened();
        let insert = || direct.touched(&statement("INSERT INTO t (name) VALUES ($1)", vec!["a".into()]));
        insert().expect("the first");
        let error = crate::Error::from(insert().expect_err("the second"));
        assert!(error.is_duplicate(), "{error:?}");
        let missing = direct.touched(&statement("INSERT INTO t (name) VALUES ($2)", vec!["b".into()]));
        assert!(missing.is_err(), "a placeholder without a value was bound");
    }
}
