//! One customer: identifiers, evidence, units, timeline, consent, reveal, split and erasure.

mod consent;
mod erase;
mod find;
mod split;
mod timeline;

pub use consent::Consent;
pub use find::{CustomerView, Evidence, IdentifierView, IdentityReport, SharedIdentifier};
pub use split::EvidenceName;
pub use timeline::TimelineEvent;
