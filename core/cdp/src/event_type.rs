//! Event types (埋点方案): what each event's properties are, in versions, and what does not fit.

mod built_in;
pub(crate) mod faults;
mod registry;
mod schema;
pub(crate) mod typing;

pub use faults::FaultCount;
pub use registry::EventTypes;
pub use schema::{EventType, Mode, Property, PropertyType};

/// The event type whose properties are the traits of a profile.
pub const PROFILE: &str = "profile";
