//! What follows from a changed identity: units, the outbox, and the next batch of the pipeline.

use super::store::anchor;
use crate::batch_sql::{in_texts, insert, list};
use crate::inbox::sequence::INBOX;
use crate::pipeline::IdentityChange;
use heyuan_contract::{AnchorId, Cause, CustomerId, DomainEvent, OrgUnitId, Timestamp};
use heyuan_kernel::bulk::{self, Column};
use heyuan_kernel::{Error, Tx, sql};
use sea_orm::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Changes that wait for the pipeline are taken in portions of this size.
const PENDING_MAX: i64 = 20_000;

/// Notes in which units an identifier was seen.
pub(crate) async fn put_units(tx: &Tx, units: &BTreeSet<(AnchorId, OrgUnitId)>) -> Result<(), Error> {
    let rows = units.iter().map(|(anchor, unit)| vec![anchor.as_str().into(), unit.as_str().into()]).collect();
    insert(tx.conn(), "INSERT INTO cdp_customer_unit (anchor, unit) VALUES", "ON CONFLICT (anchor, unit) DO NOTHING", 2, rows).await?;
    Ok(())
}

/// The units in which any of these identifiers was seen, in order.
pub(crate) async fn units_of<C: sql::Connection>(conn: &C, anchors: impl IntoIterator<Item = &AnchorId>) -> Result<Vec<OrgUnitId>, Error> {
    let backend = conn.backend();
    let text = format!("SELECT DISTINCT unit FROM cdp_customer_unit WHERE anchor {} ORDER BY unit", in_texts(backend, 1));
    sql::all(conn, &text, [list(backend, anchors.into_iter().map(AnchorId::as_str))]).await?.iter().map(unit).collect()
}

fn unit(row: &sql::Row) -> Result<OrgUnitId, Error> {
    OrgUnitId::new(sql::get::<String>(row, "unit")?).map_err(|e| Error::Corrupt { what: "unit", why: e.to_string() })
}

/// Those of the units that are not noted yet.
pub(crate) async fn unknown_units<C: sql::Connection>(
    conn: &C,
    mut units: BTreeSet<(AnchorId, OrgUnitId)>,
) -> Result<BTreeSet<(AnchorId, OrgUnitId)>, Error> {
    if units.is_empty() {
        return Ok(units);
    }
    let (anchors, names): (Vec<String>, Vec<String>) = units.iter().map(|(a, u)| (a.as_str().to_owned(), u.as_str().to_owned())).unzip();
    let (from, values) = bulk::source(conn, &["node", "place_of"], &[Column::texts(anchors), Column::texts(names)]);
    let text =
        format!("SELECT u.anchor, u.unit FROM {from} CROSS JOIN cdp_customer_unit u WHERE u.anchor = v.node AND u.unit = v.place_of");
    for row in sql::all(conn, &text, values).await? {
        units.remove(&(anchor(sql::get(&row, "anchor")?)?, unit(&row)?));
    }
    Ok(units)
}

/// Publishes merges and splits; an identifier that is new tells others nothing.
pub(crate) async fn emit(tx: &Tx, changes: &[IdentityChange], at: Timestamp) -> Result<(), Error> {
    let mut groups: BTreeMap<BTreeSet<&CustomerId>, Vec<&IdentityChange>> = BTreeMap::new();
    for (together, list) in connected(changes) {
        groups.entry(together).or_default().extend(list);
    }
    for list in groups.values() {
        let before: BTreeSet<&CustomerId> = list.iter().filter_map(|change| change.before.as_ref()).collect();
        let after: BTreeSet<&CustomerId> = list.iter().map(|change| &change.after).collect();
        let cause = if list.iter().any(|change| change.cause == Cause::Unmerge) { Cause::Unmerge } else { Cause::Merge };
        let first = after.first().map_or("", |customer| customer.as_str()).to_owned();
        let event = DomainEvent::IdentityChanged {
            before: before.into_iter().cloned().collect(),
            after: after.into_iter().cloned().collect(),
            anchors: list.iter().map(|change| change.anchor.clone()).collect(),
            cause,
            occurred_at: at,
        };
        tx.emit(&first, &event).await?;
    }
    Ok(())
}

/// Changes that share a customer before or after belong together.
fn connected(changes: &[IdentityChange]) -> Vec<(BTreeSet<&CustomerId>, Vec<&IdentityChange>)> {
    let mut groups: Vec<(BTreeSet<&CustomerId>, Vec<&IdentityChange>)> = Vec::new();
    let mut place: BTreeMap<&CustomerId, usize> = BTreeMap::new();
    for change in changes {
        let Some(before) = &change.before else { continue };
        let (one, other) = (place.get(before).copied(), place.get(&change.after).copied());
        let target = match (one, other) {
            (Some(one), Some(other)) if one != other => {
                let (customers, list) = std::mem::take(&mut groups[other]);
                for customer in &customers {
                    place.insert(customer, one);
                }
                groups[one].0.extend(customers);
                groups[one].1.extend(list);
                one
            }
            (Some(at), _) | (None, Some(at)) => at,
            (None, None) => {
                groups.push((BTreeSet::new(), Vec::new()));
                groups.len() - 1
            }
        };
        for customer in [before, &change.after] {
            place.insert(customer, target);
            groups[target].0.insert(customer);
        }
        groups[target].1.push(change);
    }
    groups.retain(|(_, list)| !list.is_empty());
    groups
}

/// Leaves changes that were made outside the pipeline for its next batch.
pub(crate) async fn leave_pending(tx: &Tx, changes: &[IdentityChange]) -> Result<(), Error> {
    tx.wake(INBOX);
    let rows: Vec<Vec<Value>> = changes
        .iter()
        .map(|change| {
            vec![
                change.anchor.as_str().into(),
                change.before.as_ref().map(|customer| customer.as_str().to_owned()).into(),
                change.after.as_str().into(),
                cause_text(change.cause).into(),
            ]
        })
        .collect();
    insert(tx.conn(), "INSERT INTO cdp_identity_pending (anchor, before, after, cause) VALUES", "", 4, rows).await?;
    Ok(())
}

/// The changes that wait, and their ids.
pub(crate) async fn read_pending<C: sql::Connection>(conn: &C) -> Result<(Vec<IdentityChange>, Vec<i64>), Error> {
    let text = "SELECT id, anchor, before, after, cause FROM cdp_identity_pending ORDER BY id LIMIT $1";
    let (mut ids, mut changes) = (Vec::new(), Vec::new());
    let customer = |text: String| CustomerId::new(text).map_err(|e| Error::Corrupt { what: "customer", why: e.to_string() });
    for row in sql::all(conn, text, [PENDING_MAX.into()]).await? {
        ids.push(sql::get(&row, "id")?);
        changes.push(IdentityChange {
            anchor: anchor(sql::get(&row, "anchor")?)?,
            before: sql::get::<Option<String>>(&row, "before")?.map(customer).transpose()?,
            after: customer(sql::get(&row, "after")?)?,
            cause: cause_of(&sql::get::<String>(&row, "cause")?),
        });
    }
    Ok((changes, ids))
}

/// Removes the changes that a batch took along, by their ids: one that committed later may have a lower id than one of them.
pub(crate) async fn drop_pending(tx: &Tx, ids: &[i64]) -> Result<(), Error> {
    if !ids.is_empty() {
        let (one_of, values) = bulk::one_of_numbers(tx.conn(), 1, ids.iter().copied());
        sql::execute(tx.conn(), &format!("DELETE FROM cdp_identity_pending WHERE id {one_of}"), values).await?;
    }
    Ok(())
}

const fn cause_text(cause: Cause) -> &'static str {
    match cause {
        Cause::Merge => "merge",
        Cause::Unmerge => "unmerge",
        _ => "event",
    }
}

fn cause_of(text: &str) -> Cause {
    match text {
        "merge" => Cause::Merge,
        "unmerge" => Cause::Unmerge,
        _ => Cause::Event,
    }
}
