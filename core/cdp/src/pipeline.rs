//! From the inbox to known events: what a batch is, and what later rooms do with it.

pub(crate) mod mapping;
pub(crate) mod retention;
pub(crate) mod task;
pub(crate) mod touch;

use crate::event::Known;
use futures::future::BoxFuture;
use heyuan_contract::{AnchorId, Cause, CustomerId};
use heyuan_kernel::{Error, Problem, Tx};
use std::any::Any;
use std::collections::HashMap;

/// An anchor that belongs to another customer than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityChange {
    /// The identifier node.
    pub anchor: AnchorId,
    /// Whose it was; `None` for a node that is new.
    pub before: Option<CustomerId>,
    /// Whose it is.
    pub after: CustomerId,
    /// `merge`, `unmerge`, or `event` for a node that is new.
    pub cause: Cause,
}

/// Events that leave the inbox together. Empty of events when only identities changed (a split, an observation of another wing).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// In the order of their positions.
    pub events: Vec<Known>,
    /// Anchors whose customer changed, the new ones among them.
    pub identity: Vec<IdentityChange>,
    /// The customer after the batch of every anchor that occurs in it.
    pub customers: HashMap<AnchorId, CustomerId>,
    /// Position of the first event.
    pub from: i64,
    /// Position of the last event: what the pipeline has taken into account after this batch.
    pub to: i64,
}

/// What a later room does with a batch; called inside the pipeline's transaction, in position order.
pub trait Knowing: Send + Sync {
    /// Reads what it needs, outside the transaction (plugins run here).
    fn prepare<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Box<dyn Any + Send + Sync>, Problem>>;

    /// Writes its effects: position, identity and effects commit together. May run again when the commit lost a race.
    fn apply<'a>(&'a self, tx: &'a Tx, batch: &'a Batch, prepared: &'a (dyn Any + Send + Sync)) -> BoxFuture<'a, Result<(), Error>>;
}
