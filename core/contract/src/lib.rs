//! What the rooms of Heyuan say to each other: ids, money, lines, time and domain events, as plain data.
//!
//! The crate owns words and shapes, never behaviour that needs a database or a clock. Everything here is serialised (domain
//! events into the outbox and the lake, plugin inputs into decisions), so a change to a shape is a change of a stored format:
//! fields are added with a default, never renamed, and an event that must change gets a new version beside the old one.

mod event;
mod id;
mod line;
mod money;
mod time;

pub use event::{Cause, DomainEvent, LeadStage, OrderLine, OrderPoints, Touch};
pub use id::{
    AnchorId, ConsumerName, CustomerId, EntryId, InvalidId, KeyId, LeadId, MemberId, MerchantId, OrderId, OrgUnitId, PersonalRef,
    ProductId, SegmentId, StaffId, TagName, TransactionId, VoucherId,
};
pub use line::{Line, UnitKind};
pub use money::{Fen, Money, MoneyError, Points, Ratio};
pub use time::{Timestamp, TimestampError};
