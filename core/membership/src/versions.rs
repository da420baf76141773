//! Policies that come in versions: each is written once, never changes, and is in force from an instant on.

use crate::error::Error;
use crate::facade::Membership;
use crate::member::corrupt;
use futures::FutureExt;
use heyuan_contract::Timestamp;
use heyuan_kernel::error::codes as kernel_codes;
use heyuan_kernel::{Actor, Problem, Tx, audit, sql};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// How far ahead a version starts at least: longer than an own time may lie ahead and a posting under way may take, so that none is
/// decided with the version before.
const LEAD_MS: i64 = 10 * 60_000;
/// How far ahead it starts at most.
const AHEAD_MS: i64 = 5 * 366 * 86_400_000;

/// One version of a policy of the whole group.
pub(crate) trait Version: Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Where they are kept.
    const TABLE: &'static str;
    /// What is done when the next one is written, for the audit record.
    const PUT: &'static str;
    /// The most of them.
    const VERSIONS_MAX: i64;
    /// Counted from 1.
    fn number(&self) -> i64;
    /// From which instant on it is in force.
    fn starts_at_ms(&self) -> i64;
}

/// The version that is there already and the same; `None` for a number that is not there.
pub(crate) fn known<V: Version>(versions: &[V], wanted: &V) -> Result<Option<V>, Error> {
    match versions.iter().find(|known| known.number() == wanted.number()) {
        Some(known) if known != wanted => {
            let words = format!("version {} is there with other content; a version never changes", wanted.number());
            Err(Error::refused(kernel_codes::CONFLICT, words))
        }
        other => Ok(other.cloned()),
    }
}

/// Refuses what is not the next version after these.
pub(crate) fn check_next<V: Version>(versions: &[V], wanted: &V) -> Result<(), Error> {
    let (next, most) = (versions.last().map_or(1, |newest| newest.number() + 1), V::VERSIONS_MAX);
    if wanted.number() == next && next <= most {
        return Ok(());
    }
    Err(Error::refused(kernel_codes::CONFLICT, format!("the next version is {next}, of at most {most}")))
}

/// Refuses an instant at which no version may start.
pub(crate) fn check_start(starts_at_ms: i64, now: Timestamp) -> Result<(), Problem> {
    if (now.ms() + LEAD_MS..=now.ms() + AHEAD_MS).contains(&starts_at_ms) {
        return Ok(());
    }
    Err(Problem::invalid("starts_at", "expected an instant at least ten minutes and at most five years from now"))
}

impl Membership {
    /// Writes a version that was found right, and that somebody wrote it.
    pub(crate) async fn put_version<V: Version>(&self, actor: &Actor, version: &V) -> Result<(), Error> {
        let entry = audit::Entry::new(actor, V::PUT, &version.number().to_string()).detail("starts_at_ms", version.starts_at_ms());
        let (membership, written) = (self.clone(), Arc::new(version.clone()));
        self.kernel()
            .db
            .write(V::PUT, move |tx| {
                let (membership, version, entry) = (membership.clone(), written.clone(), entry.clone());
                async move {
                    membership.write_version(tx, &*version).await?;
                    check_written(tx, &*version).await?;
                    Ok::<(), Error>(audit::record(tx, &entry).await?)
                }
                .boxed()
            })
            .await?;
        self.forget_policy();
        Ok(())
    }

    /// Writes a version, where its number is not there.
    pub(crate) async fn write_version<V: Version>(&self, tx: &Tx, version: &V) -> Result<(), Error> {
        let body = serde_json::to_string(version).map_err(|e| corrupt("policy", e))?;
        let text = format!("INSERT INTO {} (version, body, created_at) VALUES ($1, $2, $3) ON CONFLICT (version) DO NOTHING", V::TABLE);
        sql::execute(tx.conn(), &text, [version.number().into(), body.into(), self.kernel().clock.now().ms().into()]).await?;
        Ok(())
    }
}

/// Refuses a version whose number somebody else wrote first, with other content.
async fn check_written<V: Version>(tx: &Tx, version: &V) -> Result<(), Error> {
    let text = format!("SELECT body FROM {} WHERE version = $1", V::TABLE);
    let row = sql::one(tx.conn(), &text, [version.number().into()]).await?;
    let body: String = row.map_or(Ok(String::new()), |row| sql::get(&row, "body"))?;
    if serde_json::from_str::<V>(&body).ok().as_ref() == Some(version) {
        return Ok(());
    }
    Err(Error::refused(kernel_codes::CONFLICT, format!("version {} was just written by somebody else", version.number())))
}
