//! What arrives, as it arrives, with its fate: for people who watch, without personal data.

use crate::collect::Reason;
use heyuan_contract::OrgUnitId;
use heyuan_kernel::Rfc3339;
use serde::Serialize;
use utoipa::ToSchema;

/// An event that has just arrived.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Arrival {
    /// When it arrived.
    pub arrived_at: Rfc3339,
    /// The sender's id of the message, or the one that we gave it.
    pub message_id: String,
    /// Its event type, as far as it could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The key that sent it.
    pub key: String,
    /// The key's unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub unit: Option<OrgUnitId>,
    /// `ok`, `duplicate` or `rejected`.
    pub status: &'static str,
    /// Why it was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}
