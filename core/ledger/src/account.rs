//! Accounts: one unit, one owner, and one of three shapes.

use crate::bulk::{self, Column};
use crate::error::Error;
use crate::gate;
use heyuan_contract::Timestamp;
use heyuan_kernel::{Tx, sql};
use std::collections::HashMap;
use std::iter;

/// How an account keeps its balance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One locked row, versioned without gaps.
    Plain,
    /// The same, and the balance stands in lots.
    Lots,
    /// A sum over rows of which a writer takes one: never hot, never with a floor.
    Striped,
}

impl Shape {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Shape::Plain => "plain",
            Shape::Lots => "lots",
            Shape::Striped => "striped",
        }
    }

    fn parse(text: &str) -> Result<Shape, Error> {
        match text {
            "plain" => Ok(Shape::Plain),
            "lots" => Ok(Shape::Lots),
            "striped" => Ok(Shape::Striped),
            other => Err(heyuan_kernel::Error::Corrupt { what: "account shape", why: other.to_owned() }.into()),
        }
    }
}

/// An account to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub(crate) id: String,
    pub(crate) owner: String,
    pub(crate) unit: String,
    pub(crate) shape: Shape,
    pub(crate) floor: Option<i64>,
}

impl Account {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A locked and versioned account, with or without a floor.
    pub fn plain(id: impl Into<String>, owner: impl Into<String>, unit: impl Into<String>, floor: Option<i64>) -> Account {
        Account { id: id.into(), owner: owner.into(), unit: unit.into(), shape: Shape::Plain, floor }
    }

    /// A locked and versioned account whose balance stands in lots; its floor is zero.
    pub fn lots(id: impl Into<String>, owner: impl Into<String>, unit: impl Into<String>) -> Account {
        Account { id: id.into(), owner: owner.into(), unit: unit.into(), shape: Shape::Lots, floor: Some(0) }
    }

    /// An account without a floor that any number of writers move at once.
    pub fn striped(id: impl Into<String>, owner: impl Into<String>, unit: impl Into<String>) -> Account {
        Account { id: id.into(), owner: owner.into(), unit: unit.into(), shape: Shape::Striped, floor: None }
    }
}

/// What an account holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balance {
    /// Everything posted.
    pub balance: i64,
    /// What open holds have set aside of it.
    pub reserved: i64,
    /// Entries so far; what a decision relied on. Zero for a striped account.
    pub version: i64,
}

/// An account as a posting sees it.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) no: i64,
    pub(crate) id: String,
    pub(crate) unit: String,
    pub(crate) shape: Shape,
    pub(crate) floor: Option<i64>,
    pub(crate) balance: i64,
    pub(crate) reserved: i64,
    pub(crate) version: i64,
}

const COLUMNS: &str = "no, id, unit, shape, floor, balance, reserved, version";

fn read(row: &sql::Row) -> Result<Row, Error> {
    let shape: String = sql::get(row, "shape")?;
    Ok(Row {
        no: sql::get(row, "no")?,
        id: sql::get(row, "id")?,
        unit: sql::get(row, "unit")?,
        shape: Shape::parse(&shape)?,
        floor: sql::get(row, "floor")?,
        balance: sql::get(row, "balance")?,
        reserved: sql::get(row, "reserved")?,
        version: sql::get(row, "version")?,
    })
}

/// Opens what is not open yet; an account that is there stays as it is.
pub(crate) async fn open(tx: &Tx, accounts: &[Account]) -> Result<(), Error> {
    if accounts.is_empty() {
        return Ok(());
    }
    let column = |field: fn(&Account) -> &str| Column::texts(accounts.iter().map(|account| field(account).to_owned()));
    let (from, values) = bulk::source(
        tx.conn(),
        &["id", "owner", "unit", "shape", "floor"],
        &[
            column(|account| &account.id),
            column(|account| &account.owner),
            column(|account| &account.unit),
            column(|account| account.shape.as_str()),
            Column::Numbers(accounts.iter().map(|account| account.floor).collect()),
        ],
    );
    let text = format!(
        "INSERT INTO ledger_account (id, owner, unit, shape, floor, balance, reserved, version)
         SELECT id, owner, unit, shape, floor, 0, 0, 0 FROM {from} WHERE true ORDER BY id ON CONFLICT (id) DO NOTHING"
    );
    sql::execute(tx.conn(), &text, values).await?;
    Ok(())
}

/// Reads accounts for posting: those that keep their balance in one row are locked until the commit, in one order for everybody.
/// Passes the gate of the books first, in the same statement, so that no posting can go around it.
pub(crate) async fn lock(tx: &Tx, ids: &[String]) -> Result<Vec<Row>, Error> {
    if ids.is_empty() {
        gate::share(tx).await?;
        return Ok(Vec::new());
    }
    let conn = tx.conn();
    let (one_of, values) = bulk::one_of_texts(conn, 1, ids.iter().cloned());
    if conn.backend() != sea_orm::DbBackend::Postgres {
        // The one writer locks everything.
        let text = format!("SELECT {COLUMNS} FROM ledger_account WHERE id {one_of}");
        return sql::all(conn, &text, values).await?.iter().map(read).collect();
    }
    // The condition without a column is judged once, before the first row.
    let text = format!(
        "WITH gate AS MATERIALIZED (SELECT {shared} AS shared) SELECT {COLUMNS} FROM ledger_account
         WHERE (SELECT COUNT(shared) FROM gate) = 1 AND id {one_of} AND shape <> 'striped' ORDER BY no FOR UPDATE",
        shared = gate::SHARED
    );
    let mut found = sql::all(conn, &text, values.clone()).await?.iter().map(read).collect::<Result<Vec<Row>, Error>>()?;
    if found.len() < ids.len() {
        let text = format!("SELECT {COLUMNS} FROM ledger_account WHERE id {one_of} AND shape = 'striped'");
        for row in sql::all(conn, &text, values).await? {
            found.push(read(&row)?);
        }
    }
    Ok(found)
}

/// Striped accounts as a posting sees them: such a row never changes, since its balance stands elsewhere.
pub(crate) async fn striped<C: sql::Connection>(conn: &C, ids: &[String]) -> Result<Vec<Row>, Error> {
    let (one_of, values) = bulk::one_of_texts(conn, 1, ids.iter().cloned());
    let text = format!("SELECT {COLUMNS} FROM ledger_account WHERE id {one_of} AND shape = 'striped'");
    sql::all(conn, &text, values).await?.iter().map(read).collect()
}

/// What accounts that keep their balance in one row hold, and what of it can be spent at an instant, in the order of the ids.
pub(crate) async fn standing<C: sql::Connection>(conn: &C, ids: &[&str], at: Timestamp) -> Result<Vec<(Balance, i64)>, Error> {
    let (one_of, list) = bulk::one_of_texts(conn, 2, ids.iter().map(|id| (*id).to_owned()));
    let text = format!(
        "SELECT a.id, a.balance, a.reserved, a.version, CASE WHEN a.shape = 'lots' THEN
           (SELECT CAST(COALESCE(SUM(l.remaining), 0) AS BIGINT) FROM ledger_lot l
            WHERE l.account = a.no AND l.remaining > 0 AND l.expires_at > $1) ELSE a.balance END AS spendable
         FROM ledger_account a WHERE a.id {one_of} AND a.shape <> 'striped'"
    );
    let mut found = HashMap::with_capacity(ids.len());
    for row in sql::all(conn, &text, iter::once(at.ms().into()).chain(list)).await? {
        let balance =
            Balance { balance: sql::get(&row, "balance")?, reserved: sql::get(&row, "reserved")?, version: sql::get(&row, "version")? };
        found.insert(sql::get::<String>(&row, "id")?, (balance, sql::get::<i64>(&row, "spendable")?));
    }
    ids.iter().map(|id| found.get(*id).copied().ok_or_else(|| Error::UnknownAccount((*id).to_owned()))).collect()
}

/// The number and the shape of the account with this id.
pub(crate) async fn named<C: sql::Connection>(conn: &C, id: &str) -> Result<Option<(i64, Shape)>, Error> {
    let Some(row) = sql::one(conn, "SELECT no, shape FROM ledger_account WHERE id = $1", [id.into()]).await? else { return Ok(None) };
    let shape: String = sql::get(&row, "shape")?;
    Ok(Some((sql::get(&row, "no")?, Shape::parse(&shape)?)))
}

/// What an account holds now.
pub(crate) async fn balance<C: sql::Connection>(conn: &C, id: &str) -> Result<Balance, Error> {
    let text = "SELECT a.balance + COALESCE((SELECT CAST(SUM(s.credits - s.debits) AS BIGINT) FROM ledger_stripe s WHERE s.account = a.no), 0) AS balance,
                  a.reserved AS reserved, a.version AS version FROM ledger_account a WHERE a.id = $1";
    let row = sql::one(conn, text, [id.into()]).await?.ok_or_else(|| Error::UnknownAccount(id.to_owned()))?;
    Ok(Balance { balance: sql::get(&row, "balance")?, reserved: sql::get(&row, "reserved")?, version: sql::get(&row, "version")? })
}
