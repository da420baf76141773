//! Taking events in: parsed as far as refusing needs, known by their message ids, durable before the answer.

pub(crate) mod backlog;
mod collector;
pub(crate) mod message;
pub(crate) mod message_ids;
pub(crate) mod rejected;
pub(crate) mod sender;
mod tail;
pub(crate) mod wire;

pub use collector::{Collector, Outcome, Status};
pub use message::Reason;
pub use tail::Arrival;

/// Largest event, in bytes: the Segment protocol's own limit.
pub const EVENT_BYTES_MAX: usize = 32 << 10;
/// Largest batch, in bytes after decompression: eight times the Segment protocol's own limit, so that one oversized event is refused
/// alone and not with its batch.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// The same where the key may stand in the body, which so is read before its sender is known: the Segment protocol's limit is 500 KB.
pub(crate) const KEYLESS_BYTES_MAX: usize = 512 << 10;
/// Deepest nesting of an event's JSON; what people send is below 10.
pub const DEPTH_MAX: usize = 32;
/// Longest identifier or message id, in bytes.
pub const ID_BYTES_MAX: usize = 256;
