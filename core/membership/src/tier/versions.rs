//! New versions of the tier policy: checked whole, written once, in force for everybody from an instant that lies ahead.

use super::policy::TierPolicy;
use crate::error::Error;
use crate::facade::{self, Membership};
use crate::versions::{Version, check_next, check_start, known};
use heyuan_kernel::{Actor, Problem, Scope};

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
        if let Some(known) = known(&versions, policy)? {
            return Ok(known);
        }
        self.check_tier_policy(&versions, policy)?;
        self.put_version(actor, policy).await?;
        Ok(policy.clone())
    }

    /// Refuses what can't be the next version after these.
    pub(super) fn check_tier_policy(&self, versions: &[TierPolicy], policy: &TierPolicy) -> Result<(), Error> {
        check_next(versions, policy)?;
        check_start(policy.starts_at_ms, self.kernel().clock.now())?;
        policy.check()?;
        // What never comes into force promised nothing.
        let mut before = versions.iter().filter(|earlier| earlier.starts_at_ms < policy.starts_at_ms);
        before.try_for_each(|earlier| Ok(policy.check_keeps(earlier)?))
    }
}

impl Version for TierPolicy {
    const TABLE: &'static str = "membership_tier_policy";
    const PUT: &'static str = "put tier policy";
    /// A replay goes through all of them.
    const VERSIONS_MAX: i64 = 200;

    fn number(&self) -> i64 {
        self.version
    }

    fn starts_at_ms(&self) -> i64 {
        self.starts_at_ms
    }
}

/// Tiers are the whole group's.
pub(super) fn require_group(actor: &Actor) -> Result<(), Error> {
    facade::require_group(actor, "tier policies are the whole group's and need its key")
}
