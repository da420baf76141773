//! What a plugin may read: approved by the tenant, value by value, and kept by the plugin's name.

use super::{Plugins, check_name, require_group_admin};
use crate::actor::Actor;
use crate::audit;
use crate::database::Tx;
use crate::error::{Code, Error, Kind, Problem, codes};
use crate::sql;
use crate::time::now_ms;
use futures::FutureExt;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// Values of one plugin: several versions of it may each read 128 features and every part of the input.
const VALUES_MAX: usize = 512;
/// Bytes of one value; a feature's spelling has at most as many.
const VALUE_BYTES_MAX: usize = 256;
/// How a part of a benefit rule's input is spelled as a value: `input.member`, `input.order_lines`. No feature begins so.
const INPUT_PART: &str = "input.";

/// A version that would read what nobody approved.
const APPROVAL_NEEDED: Code =
    Code::new(Kind::Conflict, "approval_needed", "The plugin reads what is not approved", "插件读取的内容尚未获得批准");

/// What a plugin may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Approval {
    /// The plugin's name.
    pub name: String,
    /// Features as the tenant spells them, and `input.member` and `input.order_lines` for parts of a benefit rule's input.
    pub approved: Vec<String>,
}

/// What a version declared to read: its features, then the parts of its input.
///
/// # Errors
/// [`Error::Corrupt`] for a description without what every host writes.
pub(super) fn declared(description: &Value) -> Result<Vec<String>, Error> {
    let unreadable = |why: &str| Error::Corrupt { what: "description of a plugin", why: why.to_owned() };
    let features = description.get("reads").and_then(Value::as_array).ok_or_else(|| unreadable("it has no list of what it reads"))?;
    let parts = match description.get("parts") {
        None => &Vec::new(),
        Some(parts) => parts.as_array().ok_or_else(|| unreadable("its parts are no list"))?,
    };
    let features = features.iter().map(|feature| feature.get("name").unwrap_or(feature).as_str().map(str::to_owned));
    let parts = parts.iter().map(|part| part.as_str().map(|part| format!("{INPUT_PART}{part}")));
    features.chain(parts).map(|value| value.ok_or_else(|| unreadable("what it reads has no name"))).collect()
}

/// A stored list; nothing is approved where there is none.
pub(super) fn parse(stored: Option<&str>) -> Result<BTreeSet<String>, Error> {
    let stored = stored.unwrap_or("[]");
    serde_json::from_str(stored).map_err(|error| Error::Corrupt { what: "approval of a plugin", why: error.to_string() })
}

/// What of the declared values is not approved, in the order of the declaration.
pub(super) fn missing(declared: &[String], approved: &BTreeSet<String>) -> Vec<String> {
    declared.iter().filter(|value| !approved.contains(*value)).cloned().collect()
}

/// Adds to a plugin's approval in the transaction of an activation, and refuses a version of which anything is left unapproved.
pub(super) async fn add(tx: &Tx, actor: &Actor, name: &str, declared: &[String], more: &[String]) -> Result<(), Error> {
    let before = lock(tx, actor, name).await?;
    let mut approved = before.clone();
    approved.extend(more.iter().cloned());
    let missing = missing(declared, &approved);
    if !missing.is_empty() {
        let list = Value::from(missing);
        let how = format!("send \"approve\": {list} with this request, or add these to PUT /v1/plugins/{name}/approval");
        return Err(Problem::new(APPROVAL_NEEDED, format!("{name} reads what is not approved; {how}")).field("approve").into());
    }
    write(tx, actor, name, &before, &approved).await
}

/// Reads the list and holds it until the transaction ends, so that no withdrawal passes an activation.
async fn lock(tx: &Tx, actor: &Actor, name: &str) -> Result<BTreeSet<String>, Error> {
    let row = sql::one(
        tx.conn(),
        "INSERT INTO kernel_plugin_approval (name, approved, changed_at, changed_by) VALUES ($1, '[]', $2, $3)
         ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING approved",
        [name.into(), now_ms().into(), actor.name().into()],
    )
    .await?;
    match row {
        Some(row) => parse(Some(&sql::get::<String>(&row, "approved")?)),
        None => Err(Error::Corrupt { what: "approval of a plugin", why: "it could not be locked".into() }),
    }
}

async fn write(tx: &Tx, actor: &Actor, name: &str, before: &BTreeSet<String>, after: &BTreeSet<String>) -> Result<(), Error> {
    if before == after {
        return Ok(());
    }
    if after.len() > VALUES_MAX {
        return Err(Problem::new(codes::CONFLICT, format!("{name} may have at most {VALUES_MAX} approved values")).into());
    }
    let list = |values: &BTreeSet<String>| Value::from(values.iter().cloned().collect::<Vec<_>>());
    sql::execute(
        tx.conn(),
        "UPDATE kernel_plugin_approval SET approved = $2, changed_at = $3, changed_by = $4 WHERE name = $1",
        [name.into(), list(after).to_string().into(), now_ms().into(), actor.name().into()],
    )
    .await?;
    let entry = audit::Entry::new(actor, "approve plugin reads", name)
        .detail("approved", list(&(after - before)))
        .detail("withdrawn", list(&(before - after)));
    audit::record(tx, &entry).await
}

/// Refuses what can't be the name of anything that a plugin reads.
fn check_values(field: &str, values: &[String]) -> Result<(), Problem> {
    if values.len() > VALUES_MAX {
        return Err(Problem::invalid(field, format!("expected at most {VALUES_MAX} values")));
    }
    let fits = |value: &String| !value.is_empty() && value.len() <= VALUE_BYTES_MAX;
    match values.iter().position(|value| !fits(value)) {
        None => Ok(()),
        Some(place) => Err(Problem::invalid(&format!("{field}[{place}]"), format!("expected 1 to {VALUE_BYTES_MAX} bytes"))),
    }
}

/// Refuses approval of what the version does not read: most likely a slip of the pen.
pub(super) fn check_added(name: &str, declared: &[String], more: &[String]) -> Result<(), Problem> {
    check_values("approve", more)?;
    match more.iter().position(|value| !declared.contains(value)) {
        None => Ok(()),
        Some(place) => {
            let value = &more[place];
            Err(Problem::invalid(&format!("approve[{place}]"), format!("this version of {name} does not read {value}")))
        }
    }
}

impl Plugins {
    /// What a plugin may read; nothing for a name that nothing was approved for.
    ///
    /// # Errors
    /// `forbidden`; the database's.
    pub async fn approval(&self, actor: &Actor, name: &str) -> Result<Approval, Problem> {
        require_group_admin(actor)?;
        check_name(name)?;
        let approved = self.approved(name).await?;
        Ok(Approval { name: name.to_owned(), approved: approved.into_iter().collect() })
    }

    pub(super) async fn approved(&self, name: &str) -> Result<BTreeSet<String>, Error> {
        let text = "SELECT approved FROM kernel_plugin_approval WHERE name = $1";
        let row = sql::one(self.db.reader(), text, [name.into()]).await?;
        let stored: Option<String> = row.map(|row| sql::get(&row, "approved")).transpose()?;
        parse(stored.as_deref())
    }

    /// Replaces the list of what a plugin may read; the same list again changes nothing. Versions need not be there yet.
    ///
    /// # Errors
    /// `forbidden`; `conflict` when the active version reads what the list leaves out; `managed_by_operator`.
    pub async fn approve(&self, actor: &Actor, name: &str, values: &[String]) -> Result<Approval, Problem> {
        require_group_admin(actor)?;
        check_name(name)?;
        check_values("approved", values)?;
        self.refuse_managed(actor, name).await?;
        let after: BTreeSet<String> = values.iter().cloned().collect();
        let approval = Approval { name: name.to_owned(), approved: after.iter().cloned().collect() };
        let (actor, name) = (actor.clone(), name.to_owned());
        self.db
            .write("approve plugin reads", move |tx| {
                let (actor, name, after) = (actor.clone(), name.clone(), after.clone());
                async move {
                    let before = lock(tx, &actor, &name).await?;
                    check_withdrawal(tx, &name, &after).await?;
                    write(tx, &actor, &name, &before, &after).await
                }
                .boxed()
            })
            .await?;
        Ok(approval)
    }
}

async fn check_withdrawal(tx: &Tx, name: &str, after: &BTreeSet<String>) -> Result<(), Error> {
    let text = "SELECT v.description FROM kernel_plugin_pointer p
                JOIN kernel_plugin_version v ON v.name = p.name AND v.digest = p.digest WHERE p.name = $1";
    let Some(row) = sql::one(tx.conn(), text, [name.into()]).await? else { return Ok(()) };
    let needed = missing(&declared(&super::read_description(&row)?)?, after);
    if needed.is_empty() {
        return Ok(());
    }
    let list = Value::from(needed);
    let how = format!("leave these in the list, or retire the plugin first by POST /v1/plugins/{name}/retire");
    Err(Problem::new(codes::CONFLICT, format!("the active version of {name} reads {list}; {how}")).field("approved").into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_description_declares_features_and_parts() {
        let rule = json!({"reads": [{"name": "rule.points_this_month", "kind": "integer"}], "parts": ["member", "order_lines"]});
        assert_eq!(declared(&rule).expect("it reads"), ["rule.points_this_month", "input.member", "input.order_lines"]);
        assert_eq!(declared(&json!({"reads": ["visits"]})).expect("it reads"), ["visits"]);
    }

    #[test]
    fn a_description_that_can_not_be_read_does_not_read_nothing() {
        for wrong in [json!(null), json!({}), json!({"reads": [{"kind": "text"}]}), json!({"reads": [], "parts": {"member": true}})] {
            assert!(declared(&wrong).is_err(), "{wrong}");
        }
    }
}
