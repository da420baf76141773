//! Identifiers and observations in their tables.

use super::identifier::Kind;
use super::resolve::Node;
use crate::batch_sql::{in_bytes, in_texts, insert, list};
use heyuan_contract::AnchorId;
use heyuan_kernel::bulk::{self, Column};
use heyuan_kernel::{Error, Tx, sql};
use sea_orm::{DbBackend, Value};
use std::collections::{BTreeMap, HashMap};

/// An identifier as stored.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub node: Node,
    pub hash: Option<Vec<u8>>,
    pub reference: Option<String>,
    pub oversized: bool,
    pub last_seen: i64,
    /// The earliest node of its customer.
    pub cluster: AnchorId,
    pub revision: i64,
    pub erased: bool,
}

/// What a batch adds to an edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub first: i64,
    pub last: i64,
    pub count: i64,
    pub source: String,
}

/// An edge as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredEdge {
    pub a: AnchorId,
    pub b: AnchorId,
    pub first_seen: i64,
    pub last_seen: i64,
    pub count: i64,
    pub source: String,
    pub retracted: bool,
}

const COLUMNS: &str = "id, hash, kind, app, ref, blocked, shared, oversized, first_seen, last_seen, cluster, revision, erased_at";

pub(crate) fn anchor(text: String) -> Result<AnchorId, Error> {
    AnchorId::new(text).map_err(|e| Error::Corrupt { what: "identifier", why: e.to_string() })
}

fn read_node(row: &sql::Row) -> Result<Row, Error> {
    let kind: String = sql::get(row, "kind")?;
    let flag = |name: &str| Ok::<bool, Error>(sql::get::<i64>(row, name)? != 0);
    Ok(Row {
        node: Node {
            id: anchor(sql::get(row, "id")?)?,
            kind: Kind::parse(&kind).ok_or_else(|| Error::Corrupt { what: "identifier", why: format!("type {kind}") })?,
            app: sql::get(row, "app")?,
            blocked: flag("blocked")?,
            shared: flag("shared")?,
            first_seen: sql::get(row, "first_seen")?,
        },
        hash: sql::get(row, "hash")?,
        reference: sql::get(row, "ref")?,
        oversized: flag("oversized")?,
        last_seen: sql::get(row, "last_seen")?,
        cluster: anchor(sql::get(row, "cluster")?)?,
        revision: sql::get(row, "revision")?,
        erased: sql::get::<Option<i64>>(row, "erased_at")?.is_some(),
    })
}

/// Identifiers by their look-up hashes.
pub(crate) async fn nodes_by_hash<C: sql::Connection>(conn: &C, hashes: &[[u8; 16]]) -> Result<Vec<Row>, Error> {
    if hashes.is_empty() {
        return Ok(Vec::new());
    }
    let backend = conn.backend();
    let text = format!("SELECT {COLUMNS} FROM cdp_node WHERE hash {}", in_bytes(backend, 1));
    sql::all(conn, &text, [list(backend, hashes.iter().map(hex::encode))]).await?.iter().map(read_node).collect()
}

/// Identifiers by their ids.
pub(crate) async fn nodes_by_id<C: sql::Connection>(conn: &C, ids: impl IntoIterator<Item = &AnchorId>) -> Result<Vec<Row>, Error> {
    let ids: Vec<&str> = ids.into_iter().map(AnchorId::as_str).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let backend = conn.backend();
    let text = format!("SELECT {COLUMNS} FROM cdp_node WHERE id {}", in_texts(backend, 1));
    sql::all(conn, &text, [list(backend, ids)]).await?.iter().map(read_node).collect()
}

/// The identifiers of the customer that an id stands for today, in one statement: between two, another customer could take it in.
pub(crate) async fn nodes_of_customer<C: sql::Connection>(conn: &C, root: &AnchorId) -> Result<Vec<Row>, Error> {
    let text =
        format!("SELECT {COLUMNS} FROM cdp_node WHERE cluster = (SELECT cluster FROM cdp_node WHERE id = $1) ORDER BY first_seen, id");
    sql::all(conn, &text, [root.as_str().into()]).await?.iter().map(read_node).collect()
}

fn read_edge(row: &sql::Row) -> Result<StoredEdge, Error> {
    Ok(StoredEdge {
        a: anchor(sql::get(row, "a")?)?,
        b: anchor(sql::get(row, "b")?)?,
        first_seen: sql::get(row, "first_seen")?,
        last_seen: sql::get(row, "last_seen")?,
        count: sql::get(row, "count")?,
        source: sql::get(row, "source")?,
        retracted: sql::get::<Option<i64>>(row, "retracted_at")?.is_some(),
    })
}

/// Those of the pairs that are edges already.
pub(crate) async fn edges_between<C: sql::Connection>(conn: &C, pairs: &[(AnchorId, AnchorId)]) -> Result<Vec<StoredEdge>, Error> {
    if pairs.is_empty() {
        return Ok(Vec::new());
    }
    let backend = conn.backend();
    let (left, right) = (pairs.iter().map(|(a, _)| a.as_str()), pairs.iter().map(|(_, b)| b.as_str()));
    let rows = if backend == DbBackend::Postgres {
        sql::all(
            conn,
            "SELECT e.a, e.b, e.first_seen, e.last_seen, e.count, e.source, e.retracted_at FROM
               (SELECT unnest(string_to_array($1, ',')) AS a, unnest(string_to_array($2, ',')) AS b) p JOIN cdp_edge e ON e.a = p.a AND e.b = p.b",
            [list(backend, left), list(backend, right)],
        )
        .await?
    } else {
        let both = list(backend, pairs.iter().map(|(a, b)| format!("{a}|{b}")));
        sql::all(
            conn,
            "SELECT e.a, e.b, e.first_seen, e.last_seen, e.count, e.source, e.retracted_at FROM
               json_each($1) p CROSS JOIN cdp_edge e
               ON e.a = substr(p.value, 1, instr(p.value, '|') - 1) AND e.b = substr(p.value, instr(p.value, '|') + 1)",
            [both],
        )
        .await?
    };
    rows.iter().map(read_edge).collect()
}

/// Every edge of some identifiers that was not retracted.
pub(crate) async fn edges_of<C: sql::Connection>(conn: &C, ids: impl IntoIterator<Item = &AnchorId>) -> Result<Vec<StoredEdge>, Error> {
    let backend = conn.backend();
    let ids = list(backend, ids.into_iter().map(AnchorId::as_str));
    let columns = "a, b, first_seen, last_seen, count, source, retracted_at";
    let text = format!(
        "SELECT {columns} FROM cdp_edge WHERE retracted_at IS NULL AND a {one}
         UNION SELECT {columns} FROM cdp_edge WHERE retracted_at IS NULL AND b {one}",
        one = in_texts(backend, 1)
    );
    sql::all(conn, &text, [ids]).await?.iter().map(read_edge).collect()
}

/// Pairs that must stay apart, among them at least one of these identifiers.
pub(crate) async fn cannot_links<C: sql::Connection>(
    conn: &C,
    ids: impl IntoIterator<Item = &AnchorId>,
) -> Result<Vec<(AnchorId, AnchorId)>, Error> {
    let backend = conn.backend();
    let text = format!("SELECT a, b FROM cdp_cannot_link WHERE a {}", in_texts(backend, 1));
    let rows = sql::all(conn, &text, [list(backend, ids.into_iter().map(AnchorId::as_str))]).await?;
    rows.iter().map(|row| Ok((anchor(sql::get(row, "a")?)?, anchor(sql::get(row, "b")?)?))).collect()
}

/// Instants up to which erased identifiers are suppressed, by their marks.
pub(crate) async fn suppressed<C: sql::Connection>(conn: &C, marks: &[[u8; 16]]) -> Result<HashMap<Vec<u8>, i64>, Error> {
    if marks.is_empty() {
        return Ok(HashMap::new());
    }
    let backend = conn.backend();
    let text = format!("SELECT mark, at FROM cdp_suppression WHERE mark {}", in_bytes(backend, 1));
    let rows = sql::all(conn, &text, [list(backend, marks.iter().map(hex::encode))]).await?;
    rows.iter().map(|row| Ok((sql::get(row, "mark")?, sql::get(row, "at")?))).collect()
}

/// Fails when one of the rows that were decided on has changed, and keeps them from changing until the commit.
pub(crate) async fn check_revisions(tx: &Tx, expected: &BTreeMap<AnchorId, i64>) -> Result<(), Error> {
    if expected.is_empty() {
        return Ok(());
    }
    let backend = tx.conn().backend();
    let lock = if backend == DbBackend::Postgres { "ORDER BY id FOR UPDATE" } else { "" };
    let text = format!("SELECT id, revision FROM cdp_node WHERE id {} {lock}", in_texts(backend, 1));
    let rows = sql::all(tx.conn(), &text, [list(backend, expected.keys().map(AnchorId::as_str))]).await?;
    let mut same = 0;
    for row in &rows {
        let id = anchor(sql::get(row, "id")?)?;
        same += usize::from(expected.get(&id) == Some(&sql::get::<i64>(row, "revision")?));
    }
    if same == expected.len() { Ok(()) } else { Err(Error::Stale("an identifier")) }
}

/// Writes identifiers, new and changed ones, and moves their revisions.
pub(crate) async fn put_nodes(tx: &Tx, rows: &[&Row]) -> Result<(), Error> {
    let values = rows
        .iter()
        .map(|row| {
            vec![
                row.node.id.as_str().into(),
                row.hash.clone().into(),
                row.node.kind.as_str().into(),
                row.node.app.clone().into(),
                row.reference.clone().into(),
                i64::from(row.node.blocked).into(),
                i64::from(row.node.shared).into(),
                i64::from(row.oversized).into(),
                row.node.first_seen.into(),
                row.last_seen.into(),
                row.cluster.as_str().into(),
                (row.revision + 1).into(),
                Value::BigInt(None),
            ]
        })
        .collect();
    let written = insert(
        tx.conn(),
        &format!("INSERT INTO cdp_node ({COLUMNS}) VALUES"),
        "ON CONFLICT (id) DO UPDATE SET shared = excluded.shared, oversized = excluded.oversized, first_seen = excluded.first_seen,
           last_seen = excluded.last_seen, cluster = excluded.cluster, revision = excluded.revision",
        13,
        values,
    )
    .await;
    match written {
        Err(error) if error.is_duplicate() => Err(Error::Stale("an identifier")),
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}

/// Moves when identifiers were last seen. Their rows are locked by the check of their revisions.
pub(crate) async fn put_last_seen(tx: &Tx, rows: impl Iterator<Item = &Row>) -> Result<(), Error> {
    let (ids, seen): (Vec<String>, Vec<i64>) = rows.map(|row| (row.node.id.as_str().to_owned(), row.last_seen)).unzip();
    if ids.is_empty() {
        return Ok(());
    }
    let (from, values) = bulk::source(tx.conn(), &["node", "seen"], &[Column::texts(ids), Column::numbers(seen)]);
    let text = format!("UPDATE cdp_node SET last_seen = v.seen FROM {from} WHERE cdp_node.id = v.node AND cdp_node.last_seen < v.seen");
    sql::execute(tx.conn(), &text, values).await?;
    Ok(())
}

/// Adds observations to their edges; a retracted edge stays retracted, and is counted all the same.
pub(crate) async fn put_edges(tx: &Tx, edges: &BTreeMap<(AnchorId, AnchorId), Seen>, rule_version: i64) -> Result<(), Error> {
    let values: Vec<Vec<Value>> = edges
        .iter()
        .map(|((a, b), seen)| {
            vec![
                a.as_str().into(),
                b.as_str().into(),
                seen.first.into(),
                seen.last.into(),
                seen.count.into(),
                seen.source.clone().into(),
                rule_version.into(),
            ]
        })
        .collect();
    insert(
        tx.conn(),
        "INSERT INTO cdp_edge (a, b, first_seen, last_seen, count, source, rule_version) VALUES",
        "ON CONFLICT (a, b) DO UPDATE SET count = cdp_edge.count + excluded.count,
           first_seen = CASE WHEN excluded.first_seen < cdp_edge.first_seen THEN excluded.first_seen ELSE cdp_edge.first_seen END,
           last_seen = CASE WHEN excluded.last_seen > cdp_edge.last_seen THEN excluded.last_seen ELSE cdp_edge.last_seen END",
        7,
        values,
    )
    .await?;
    Ok(())
}
