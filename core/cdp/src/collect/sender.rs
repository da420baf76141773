//! Who sent a request, and how its events are spelled: kept with them in the inbox.

use heyuan_contract::{OrgUnitId, Timestamp};
use heyuan_kernel::Actor;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// How an event is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Spelling {
    /// As the Segment protocol does.
    Segment,
    /// As `POST /v1/events` does.
    Native,
    /// As `POST /v1/events` does, by a reaction of this process: may name anchors.
    Internal,
}

/// What holds for all events of one request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sender {
    /// The key, by its public name.
    pub key: String,
    /// The key's unit, which is the events' unit.
    pub unit: Option<OrgUnitId>,
    /// Whether own times have no lower limit.
    pub import: bool,
    /// How events are spelled.
    pub spelling: Spelling,
    /// When the request arrived.
    pub arrived_at: Timestamp,
    /// When the sender's clock says that it was sent.
    pub sent_at: Option<Timestamp>,
    /// The context of the batch, for messages that lack their own: a JSON object of the parts that we read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

impl Sender {
    /// The sender of a request of this actor.
    pub(crate) fn new(actor: &Actor, spelling: Spelling, arrived_at: Timestamp, sent_at: Option<Timestamp>) -> Sender {
        Sender {
            key: actor.name().to_owned(),
            unit: actor.unit().cloned(),
            import: actor.has(heyuan_kernel::Scope::Import),
            spelling,
            arrived_at,
            sent_at,
            context: None,
        }
    }

    /// The same with the batch's own context.
    pub(crate) fn with_context(self, context: Option<&RawValue>) -> Sender {
        Sender { context: context.and_then(super::wire::batch_context), ..self }
    }
}
