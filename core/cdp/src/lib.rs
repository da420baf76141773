//! From what an app sends to one customer behind many identifiers, and what is known of that customer.
//!
//! The wing owns collecting (the Segment protocol and `/v1/events`), the inbox, event types, identifiers and observations, customers,
//! consent, and in [`know`] features, tags, segments and portraits. It promises that an event answered with 200 is durable and counted
//! once, however often it is sent; that who is who is a pure function of observations, retractions and rules, and that every customer id
//! ever handed out keeps resolving; that personal values leave an event when it leaves the inbox; that a batch's position, identities
//! and effects commit together; and that an erased person is found in no table. It emits `campaign.touched`, `identity.changed` and
//! `customer.erased` (and, in [`know`], tag and segment changes), and turns facts of members, orders, vouchers, points, tiers and leads
//! into events of its own.

mod batch_sql;
mod cdp;
mod collect;
mod customer;
mod error;
pub mod event;
mod event_type;
mod events;
mod history;
mod http;
mod identity;
mod inbox;
pub mod know;
pub mod migration;
pub mod pipeline;
mod reactions;
mod settings;

pub use cdp::{Cdp, ProfileSource};
pub use collect::backlog::Waiting;
pub use collect::{Arrival, BATCH_BYTES_MAX, Collector, DEPTH_MAX, EVENT_BYTES_MAX, ID_BYTES_MAX, Outcome, Reason, Status};
pub use customer::{Consent, CustomerView, Evidence, EvidenceName, IdentifierView, IdentityReport, SharedIdentifier, TimelineEvent};
pub use error::{Error, codes};
pub use event::{Decimal, EventKind, Known, PropertyValue};
pub use event_type::{EventType, EventTypes, FaultCount, Mode, PROFILE, Property, PropertyType};
pub use events::EventFate;
pub use history::{known_of, row_of};
pub use http::routes;
pub use identity::resolve::{customer_of_root, root_of_customer};
pub use identity::{Edge, Identifier, Kind, Node, Resolution, Rules, resolve};
pub use migration::Migrator;
pub use pipeline::{Batch, IdentityChange, Knowing};
pub use settings::Collect;
