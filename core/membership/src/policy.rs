//! What decisions are made with, remembered between them: earn rules, tier policy, active rules.
//!
//! Nothing here is trusted: the transaction that posts checks that each is still the one that counts, and whoever fails there
//! reads them again.

use crate::earn::EarnRules;
use crate::error::Error;
use crate::facade::Membership;
use crate::tier::TierPolicy;
use heyuan_kernel::plugin::{Active, PluginKind};
use std::sync::{Arc, PoisonError, RwLock};

/// What a decision is made with.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) earn: Arc<EarnRules>,
    pub(crate) tiers: Arc<TierPolicy>,
    pub(crate) rules: Arc<[Active]>,
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
            earn: Arc::new(self.earn_rules(reader).await?),
            tiers: Arc::new(self.tier_policy(reader).await?),
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
