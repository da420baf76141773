//! New versions of the tier policy: checked whole, written once, in force for everybody from an instant that lies ahead.

use super::policy::TierPolicy;
use crate::earning::check_start;
use crate::error::Error;
use crate::facade::{self, Membership};
use futures::FutureExt;
use heyuan_kernel::error::codes as kernel_codes;
use heyuan_kernel::{Actor, Problem, Scope, Tx, audit, sql};
use std::sync::Arc;

/// Versions that a replay goes through.
const VERSIONS_MAX: i64 = 200;

impl Membership {
    /// Every version of the tier policy, the newest first.
    ///
    /// # Errors
    /// `forbidden`.
    pub async fn list_tier_policies(&self, actor: &Actor) -> Result<Vec<TierPolicy>, Error> {
        actor.require_any(&[Scope::App, Scope::Admin])?;
        let versions = self.tier_policies(self.kernel().db.reader()).await?;
        Ok(versions.iter().rev().cloned().collect())
    }

    /// One version of the tier policy.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub async fn get_tier_policy(&self, actor: &Actor, version: i64) -> Result<TierPolicy, Error> {
        let found = self.list_tier_policies(actor).await?.into_iter().find(|policy| policy.version == version);
        Ok(found.ok_or_else(|| Problem::not_found("version of the tier policy", version))?)
    }

    /// Writes the next version of the tier policy; the same again is answered as it is.
    ///
    /// # Errors
    /// `forbidden`, also for a key of one unit; `invalid_request` with the field; `conflict` for a number that is not the next one, or
    /// that has other content.
    pub async fn put_tier_policy(&self, actor: &Actor, policy: &TierPolicy) -> Result<TierPolicy, Error> {
        require_group(actor)?;
        let versions = self.tier_policies(self.kernel().db.reader()).await?;
        if let Some(known) = versions.iter().find(|known| known.version == policy.version) {
            if known == policy {
                return Ok(known.clone());
            }
            let words = format!("version {} is there with other content; a version never changes", policy.version);
            return Err(Error::refused(kernel_codes::CONFLICT, words));
        }
        self.check_tier_policy(&versions, policy)?;
        let entry = audit::Entry::new(actor, "put tier policy", &policy.version.to_string()).detail("starts_at_ms", policy.starts_at_ms);
        let (membership, written) = (self.clone(), Arc::new(policy.clone()));
        self.kernel()
            .db
            .write("put a tier policy", move |tx| {
                let (membership, policy, entry) = (membership.clone(), written.clone(), entry.clone());
                async move { membership.write_tier_policy(tx, &policy, &entry).await }.boxed()
            })
            .await?;
        self.forget_policy();
        Ok(policy.clone())
    }

    /// Refuses what can't be the next version after these.
    pub(super) fn check_tier_policy(&self, versions: &[TierPolicy], policy: &TierPolicy) -> Result<(), Error> {
        let next = versions.last().map_or(1, |newest| newest.version + 1);
        if policy.version != next || next > VERSIONS_MAX {
            return Err(Error::refused(kernel_codes::CONFLICT, format!("the next version is {next}, of at most {VERSIONS_MAX}")));
        }
        check_start(policy.starts_at_ms, self.kernel().clock.now())?;
        policy.check()?;
        // What never comes into force promised nothing.
        let mut before = versions.iter().filter(|earlier| earlier.starts_at_ms < policy.starts_at_ms);
        before.try_for_each(|earlier| Ok(policy.check_keeps(earlier)?))
    }

    async fn write_tier_policy(&self, tx: &Tx, policy: &TierPolicy, entry: &audit::Entry) -> Result<(), Error> {
        self.write_version(tx, "membership_tier_policy", policy.version, policy).await?;
        let text = "SELECT body FROM membership_tier_policy WHERE version = $1";
        let row = sql::one(tx.conn(), text, [policy.version.into()]).await?;
        let body: String = row.map_or(Ok(String::new()), |row| sql::get(&row, "body"))?;
        if serde_json::from_str::<TierPolicy>(&body).ok().as_ref() != Some(policy) {
            let words = format!("version {} was just written by somebody else", policy.version);
            return Err(Error::refused(kernel_codes::CONFLICT, words));
        }
        Ok(audit::record(tx, entry).await?)
    }
}

/// Tiers are the whole group's.
pub(super) fn require_group(actor: &Actor) -> Result<(), Error> {
    facade::require_group(actor, "tier policies are the whole group's and need its key")
}
