//! The facade and what it stands on.

use crate::reaction::{Erasure, Touches};
use crate::tasks::Retention;
use futures::future::BoxFuture;
use heyuan_contract::{AnchorId, CustomerId, OrgUnitId};
use heyuan_kernel::processor::Task;
use heyuan_kernel::pump::Reaction;
use heyuan_kernel::{Actor, Kernel, Problem};
use std::collections::HashMap;
use std::sync::Arc;

/// What attribution must know of customers; implemented where the wings are wired.
pub trait Customers: Send + Sync {
    /// Records identifiers (kind and value, such as `phone`) that were seen together, and answers the strongest as anchor.
    fn anchor_for<'a>(
        &'a self,
        actor: &'a Actor,
        unit: &'a OrgUnitId,
        identifiers: &'a [(String, String)],
    ) -> BoxFuture<'a, Result<AnchorId, Problem>>;
    /// The customer behind each anchor, as of now; anchors without one are left out.
    fn customers_of<'a>(&'a self, anchors: &'a [AnchorId]) -> BoxFuture<'a, Result<HashMap<AnchorId, CustomerId>, Problem>>;
}

/// The attribution wing; cheap to clone.
#[derive(Clone)]
pub struct Attribution {
    pub(crate) kernel: Kernel,
    pub(crate) customers: Arc<dyn Customers>,
}

impl Attribution {
    /// Attribution on migrated tables.
    pub fn new(kernel: Kernel, customers: Arc<dyn Customers>) -> Attribution {
        Attribution { kernel, customers }
    }

    /// What attribution does when others' facts arrive.
    pub fn reactions(&self) -> Vec<Arc<dyn Reaction>> {
        vec![Arc::new(Touches), Arc::new(Erasure)]
    }

    /// What the processor does for attribution: let old touchpoints go.
    pub fn tasks(&self) -> Vec<Arc<dyn Task>> {
        vec![Arc::new(Retention::new(self.kernel.clone()))]
    }
}
