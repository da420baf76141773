//! From what an app sends to one customer behind many identifiers, and what is known of that customer.

pub mod event;
pub mod know;
pub mod pipeline;

pub use event::{Decimal, EventKind, Known, PropertyValue};
pub use pipeline::{Batch, IdentityChange, Knowing};
