//! What membership needs to know of customers; answered by whoever identifies them, wired by the server.

use crate::rule::FeatureValue;
use futures::future::BoxFuture;
use heyuan_contract::{AnchorId, CustomerId, OrgUnitId};
use heyuan_kernel::{Actor, Problem};
use std::fmt;

/// A verified identifier of a person, on its way to who identifies; never stored or printed here.
#[derive(Clone, PartialEq, Eq)]
pub struct Identifier {
    /// `phone`, `openid` or `unionid`.
    pub kind: String,
    /// The value itself.
    pub value: String,
    /// The app that an openid belongs to.
    pub app: Option<String>,
}

impl fmt::Debug for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identifier({})", self.kind)
    }
}

/// Feature values in the order of their names, and the position of the event history from which they held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Features {
    /// One value for each name asked for.
    pub values: Vec<FeatureValue>,
    /// The inbox position that they include.
    pub position: i64,
}

/// Who is who.
pub trait Customers: Send + Sync {
    /// Records that these identifiers were seen together at a unit and answers the strongest one's anchor.
    fn anchor_for<'a>(
        &'a self,
        actor: &'a Actor,
        unit: &'a OrgUnitId,
        identifiers: &'a [Identifier],
    ) -> BoxFuture<'a, Result<AnchorId, Problem>>;

    /// The anchors of those of the identifiers that are known, strongest first; of those that mean nobody (`null`, a relay number) only where
    /// nothing else is named. Nothing is recorded.
    fn find_anchors<'a>(&'a self, identifiers: &'a [Identifier]) -> BoxFuture<'a, Result<Vec<AnchorId>, Problem>>;

    /// The customer behind an anchor.
    fn customer_of<'a>(&'a self, anchor: &'a AnchorId) -> BoxFuture<'a, Result<CustomerId, Problem>>;

    /// Every anchor of a customer.
    fn anchors_of<'a>(&'a self, customer: &'a CustomerId) -> BoxFuture<'a, Result<Vec<AnchorId>, Problem>>;

    /// Erases a person that asks for it: the anchors that are proven to be its own, and of `unclaimed`, the anchors beside them that are proven
    /// for nobody else, what is tied to its own and to no phone number of which that is not proven. What is tied to them by evidence alone may
    /// be a stranger's, and stays. Whoever says so for the person may, and units out of its reach have no say. Audited under the actor's
    /// name.
    fn erase<'a>(&'a self, actor: &'a Actor, proven: &'a [AnchorId], unclaimed: &'a [AnchorId]) -> BoxFuture<'a, Result<(), Problem>>;

    /// Features of the customer behind an anchor, as integers, exact ratios and text.
    fn features<'a>(&'a self, anchor: &'a AnchorId, names: &'a [String]) -> BoxFuture<'a, Result<Features, Problem>>;
}
