//! An event once it has left the inbox, and the values that its properties can have.

use heyuan_contract::{AnchorId, OrgUnitId, PersonalRef, Timestamp, Touch};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What an SDK called the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// Something that somebody did.
    Track,
    /// Something that is known of somebody.
    Identify,
    /// A page was looked at.
    Page,
    /// A screen was looked at.
    Screen,
    /// Somebody belongs to a group.
    Group,
    /// Two ids are one person.
    Alias,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [EventKind; 6] =
        [EventKind::Track, EventKind::Identify, EventKind::Page, EventKind::Screen, EventKind::Group, EventKind::Alias];

    /// The spelling of the Segment protocol and of the lake.
    pub const fn as_str(self) -> &'static str {
        match self {
            EventKind::Track => "track",
            EventKind::Identify => "identify",
            EventKind::Page => "page",
            EventKind::Screen => "screen",
            EventKind::Group => "group",
            EventKind::Alias => "alias",
        }
    }

    /// The kind with this spelling, if there is one.
    pub fn parse(text: &str) -> Option<EventKind> {
        EventKind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// An exact decimal number: `mantissa` times ten to the power of minus `scale`; normalised, so that equal numbers are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Decimal {
    /// All digits, with the sign.
    pub mantissa: i64,
    /// Digits after the point, at most 18; the last of them is not zero.
    pub scale: u32,
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.mantissa < 0 { "-" } else { "" };
        let scale = self.scale as usize;
        let digits = format!("{:0>width$}", self.mantissa.unsigned_abs(), width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        if scale == 0 { write!(f, "{sign}{whole}") } else { write!(f, "{sign}{whole}.{fraction}") }
    }
}

/// The typed value of a declared property.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PropertyValue {
    /// A whole number.
    Integer(i64),
    /// Money in fen.
    Fen(i64),
    /// An exact decimal number.
    Decimal(Decimal),
    /// Text.
    Text(String),
    /// Yes or no.
    Boolean(bool),
    /// An instant.
    Time(Timestamp),
    /// A personal value: only its reference is here.
    Personal(PersonalRef),
}

/// An event once it has left the inbox: identified, typed, without personal values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// Its place in the order of the inbox.
    pub position: i64,
    /// The sender's id of the message; ties of time are broken by it.
    pub message_id: String,
    /// What the SDK called it.
    pub kind: EventKind,
    /// The event type's name, `snake_case`: `unit_viewed`; `profile` for identify, `page_viewed` and `screen_viewed` for pages and screens.
    pub name: String,
    /// The strongest identifier that it carried.
    pub anchor: AnchorId,
    /// All identifiers that it carried, the anchor among them.
    pub identifiers: Vec<AnchorId>,
    /// The unit of the key that sent it.
    pub unit: Option<OrgUnitId>,
    /// The app that it says it comes from.
    pub app: String,
    /// Its own time where that is believable, else its arrival.
    pub occurred_at: Timestamp,
    /// When it arrived.
    pub arrived_at: Timestamp,
    /// Declared properties.
    pub properties: BTreeMap<String, PropertyValue>,
    /// Declared profile traits.
    pub traits: BTreeMap<String, PropertyValue>,
    /// What brought the visitor, when the event says so.
    pub touch: Option<Touch>,
    /// Undeclared properties as JSON, sealed with the anchor's vault key under the message id as context.
    pub sealed: Option<Vec<u8>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_written_exactly() {
        for (mantissa, scale, text) in [(1250, 2, "12.50"), (-7, 2, "-0.07"), (0, 0, "0"), (5, 1, "0.5"), (-120, 0, "-120")] {
            assert_eq!(Decimal { mantissa, scale }.to_string(), text);
        }
    }
}
