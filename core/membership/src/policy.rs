//! What decisions are made with, remembered between them: earn rules, tier policy, active rules.
//!
//! Nothing here is trusted: the transaction that posts checks that each is still the one that counts, and whoever fails there
//! reads them again.

use crate::earn::EarnRules;
use crate::error::Error;
use crate::facade::Membership;
use crate::member::corrupt;
use crate::tier::TierPolicy;
use heyuan_contract::{Line, Timestamp};
use heyuan_kernel::plugin::{Active, PluginKind};
use std::borrow::Borrow;
use std::sync::{Arc, PoisonError, RwLock};

/// What a decision is made with.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    /// Every version, the newest last.
    pub(crate) earn: Arc<[Arc<EarnRules>]>,
    /// Every version, the newest last.
    pub(crate) tiers: Arc<[TierPolicy]>,
    pub(crate) rules: Arc<[Active]>,
}

impl Policy {
    /// The earn rules in force at an instant: of those that have started the newest.
    pub(crate) fn earn_at(&self, at: Timestamp) -> Result<&Arc<EarnRules>, Error> {
        earn_in_force(&self.earn, at)
    }

    /// Whether the member's tier has a say in what a line's transaction earns.
    pub(crate) fn reads_tier(&self, earn: &EarnRules, line: Line) -> bool {
        !self.rules.is_empty() || earn.reads_tier(line)
    }

    /// Whether it was remembered with another one: nothing of either has changed, then.
    pub(crate) fn is(&self, other: &Policy) -> bool {
        Arc::ptr_eq(&self.earn, &other.earn) && Arc::ptr_eq(&self.tiers, &other.tiers) && Arc::ptr_eq(&self.rules, &other.rules)
    }

    /// The newest version there is, in force or not yet.
    pub(crate) fn newest_earn(&self) -> i64 {
        self.earn.last().map_or(0, |rules| rules.version)
    }

    /// The newest tier policy there is, in force or not yet.
    pub(crate) fn newest_tiers(&self) -> i64 {
        self.tiers.last().map_or(0, |policy| policy.version)
    }
}

/// Of these versions, the newest last, the one that is in force at an instant.
pub(crate) fn earn_in_force<R: Borrow<EarnRules>>(versions: &[R], at: Timestamp) -> Result<&R, Error> {
    let found = versions.iter().rev().find(|rules| (*rules).borrow().starts_at_ms <= at.ms());
    found.ok_or_else(|| corrupt("earn rules", "none is in force").into())
}

/// The policy that was read last.
#[derive(Default)]
pub(crate) struct Remembered {
    policy: RwLock<Option<Policy>>,
}

impl Membership {
    /// The policy as remembered; read when it is not.
    pub(crate) async fn policy(&self) -> Result<Policy, Error> {
        let remembered = self.remembered().policy.read().unwrap_or_else(PoisonError::into_inner).clone();
        match remembered {
            Some(policy) => Ok(policy),
            None => self.read_policy().await,
        }
    }

    /// The policy that counts now.
    pub(crate) async fn read_policy(&self) -> Result<Policy, Error> {
        let reader = self.kernel().db.near();
        let policy = Policy {
            earn: self.earn_rules(reader).await?.into_iter().map(Arc::new).collect(),
            tiers: self.tier_policies(reader).await?,
            rules: self.plugins().active(PluginKind::BenefitRule).await?.into(),
        };
        *self.remembered().policy.write().unwrap_or_else(PoisonError::into_inner) = Some(policy.clone());
        Ok(policy)
    }

    /// The next decision reads it again.
    pub(crate) fn forget_policy(&self) {
        *self.remembered().policy.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
