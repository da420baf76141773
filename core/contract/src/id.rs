//! Newtypes for every identifier that crosses a room's door. They are shared texts: a clone costs a count, not a copy.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// An identifier that is empty, too long or holds characters outside `[A-Za-z0-9._:@-]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidId {
    /// The name of the type that refused it.
    pub expected: &'static str,
}

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} must be 1 to {} characters of A-Z a-z 0-9 . _ : @ -", self.expected, ID_LENGTH_MAX)
    }
}

impl std::error::Error for InvalidId {}

/// Longest identifier accepted, in bytes: enough for a prefix and a UUID, or for a group's own code.
const ID_LENGTH_MAX: usize = 64;

fn is_valid(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= ID_LENGTH_MAX
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'@' | b'-'))
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text and takes it over.
            ///
            /// # Errors
            /// [`InvalidId`] when it is empty, longer than 64 bytes or holds a character outside `[A-Za-z0-9._:@-]`.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidId> {
                let text = text.into();
                if is_valid(&text) { Ok(Self(text.into())) } else { Err(InvalidId { expected: stringify!($name) }) }
            }

            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

ids! {
    /// The identifier node that an event belongs to; stable through merges and splits.
    AnchorId,
    /// The name under which a reader of the outbox keeps its position.
    ConsumerName,
    /// One customer behind many identifiers; every id ever handed out keeps resolving.
    CustomerId,
    /// A ledger entry.
    EntryId,
    /// An API key's public part, safe in logs.
    KeyId,
    /// A lead (线索).
    LeadId,
    /// A member (会员).
    MemberId,
    /// A merchant (商户).
    MerchantId,
    /// A mall order.
    OrderId,
    /// A node of the group's tree: group, city company, project, mall, hotel, office tower, community.
    OrgUnitId,
    /// A reference to a personal value in the vault; it says nothing about the value.
    PersonalRef,
    /// A product of a merchant.
    ProductId,
    /// A segment (人群).
    SegmentId,
    /// Somebody who works for the group, as the audit record names them; it says nothing about who that is.
    StaffId,
    /// A tag's name (标签).
    TagName,
    /// A line's transaction, unique per unit that reported it.
    TransactionId,
    /// A voucher (券).
    VoucherId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_could_not_stand_in_a_url() {
        for text in ["", "a b", "客户", "a/b", &"x".repeat(65)] {
            assert!(MemberId::new(text).is_err(), "{text:?} was accepted");
        }
        assert_eq!(MemberId::new("mbr_01").map(|id| id.to_string()), Ok("mbr_01".to_owned()));
        assert!(serde_from("\"a b\"").is_err());
    }

    fn serde_from(json: &str) -> Result<MemberId, String> {
        let text = json.trim_matches('"').to_owned();
        MemberId::try_from(text).map_err(|e| e.to_string())
    }
}
