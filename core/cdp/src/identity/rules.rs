//! The rules by which identifiers are matched: limits, blocked values, what may be shared.

use super::identifier::Kind;
use serde::Serialize;
use utoipa::ToSchema;

/// The rules in force. They are part of a customer's identity, so a change is a new version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Rules {
    /// Noted on every edge.
    pub version: i64,
    /// What each type may do, strongest first.
    pub kinds: Vec<KindRule>,
    /// From how many different neighbours of a type on an identifier is shared by people, and taken out.
    pub shares: Vec<ShareRule>,
    /// Phone numbers that start with these are a platform's relay numbers and never merge.
    pub relay_prefixes: Vec<String>,
    /// Values that mean nobody, compared in lower case.
    pub blocked_values: Vec<String>,
    /// An identifier that meets more others than this, of whatever type, is shared.
    pub neighbours_max: u32,
    /// More identifiers than this hang together only by mistake: they stay unmatched and are reported.
    pub component_max: u32,
}

/// What identifiers of a type may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct KindRule {
    /// The type.
    pub kind: Kind,
    /// How many of it one customer can have; an openid counts per app.
    pub customer_max: u32,
    /// How many of it one customer can have when only a shareable identifier holds them together: two phone numbers on one device
    /// are more often two people's than one's.
    pub by_shareable_max: u32,
    /// Several people may use it in turn: it is matched last, and where its people contradict each other it is nobody's.
    pub shareable: bool,
}

/// An identifier of `kind` that meets more than `most` different ones of `neighbour` is shared; an openid counts per app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct ShareRule {
    /// The identifier that may be shared.
    pub kind: Kind,
    /// What it meets.
    pub neighbour: Kind,
    /// How many of them one person has.
    pub most: u32,
}

impl Rules {
    /// The rules that every tenant starts with.
    pub fn built_in() -> Rules {
        let kind = |kind, customer_max| KindRule { kind, customer_max, by_shareable_max: customer_max, shareable: false };
        let share = |kind, neighbour, most| ShareRule { kind, neighbour, most };
        Rules {
            version: 2,
            kinds: vec![
                kind(Kind::Member, 1),
                kind(Kind::Unionid, 1),
                kind(Kind::Openid, 1),
                kind(Kind::User, 1),
                KindRule { by_shareable_max: 1, ..kind(Kind::Phone, 2) },
                kind(Kind::Crm, 3),
                kind(Kind::Email, 3),
                kind(Kind::Plate, 3),
                KindRule { shareable: true, ..kind(Kind::Device, 20) },
            ],
            shares: vec![
                // A sales office's tablet.
                share(Kind::Device, Kind::Phone, 3),
                share(Kind::Device, Kind::Member, 3),
                share(Kind::Device, Kind::User, 3),
                share(Kind::Device, Kind::Unionid, 3),
                share(Kind::Device, Kind::Openid, 3),
                // A family's phone, a number that has a new owner.
                share(Kind::Phone, Kind::Member, 1),
                share(Kind::Phone, Kind::User, 1),
                share(Kind::Phone, Kind::Unionid, 1),
                share(Kind::Phone, Kind::Openid, 1),
                // A family's address or car.
                share(Kind::Email, Kind::Member, 1),
                share(Kind::Email, Kind::User, 1),
                share(Kind::Email, Kind::Unionid, 1),
                share(Kind::Email, Kind::Phone, 2),
                share(Kind::Plate, Kind::Member, 1),
                share(Kind::Plate, Kind::User, 1),
                share(Kind::Plate, Kind::Unionid, 1),
                share(Kind::Plate, Kind::Phone, 1),
                share(Kind::Crm, Kind::Member, 1),
                share(Kind::Crm, Kind::Phone, 2),
            ],
            relay_prefixes: vec!["170".into(), "95013".into(), "400".into()],
            blocked_values: ["0", "-1", "null", "none", "nil", "undefined", "unknown", "test", "admin", "anonymous", "n/a", "na", "guest"]
                .map(str::to_owned)
                .to_vec(),
            neighbours_max: 64,
            component_max: 64,
        }
    }

    /// Whether a value means nobody in particular. Decided when the identifier is first seen, from the value itself.
    pub fn is_blocked(&self, kind: Kind, value: &str) -> bool {
        let lower = value.to_lowercase();
        let one_character = value.chars().all(|c| matches!(c, '-')) || {
            let mut letters = value.chars().filter(|c| *c != '-');
            letters.next().is_some_and(|first| letters.all(|other| other == first)) && value.len() > 4
        };
        let relay = kind == Kind::Phone && self.relay_prefixes.iter().any(|prefix| value.starts_with(prefix.as_str()));
        relay || one_character || self.blocked_values.contains(&lower)
    }

    /// How many identifiers of a type one customer can have.
    pub(crate) fn customer_max(&self, kind: Kind) -> u32 {
        self.of(kind).map_or(u32::MAX, |rule| rule.customer_max)
    }

    /// The same where only a shareable identifier holds them together.
    pub(crate) fn by_shareable_max(&self, kind: Kind) -> u32 {
        self.of(kind).map_or(u32::MAX, |rule| rule.by_shareable_max)
    }

    /// Whether several people may use an identifier of this type in turn.
    pub(crate) fn is_shareable(&self, kind: Kind) -> bool {
        self.of(kind).is_some_and(|rule| rule.shareable)
    }

    fn of(&self, kind: Kind) -> Option<&KindRule> {
        self.kinds.iter().find(|rule| rule.kind == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_mean_nobody_are_blocked() {
        let rules = Rules::built_in();
        for (kind, value, blocked) in [
            (Kind::Phone, "17012345678", true),
            (Kind::Phone, "13812345678", false),
            (Kind::Phone, "00000000000", true),
            (Kind::Device, "00000000-0000-0000-0000-000000000000", true),
            (Kind::Device, "NULL", true),
            (Kind::User, "42", false),
            (Kind::User, "undefined", true),
        ] {
            assert_eq!(rules.is_blocked(kind, value), blocked, "{kind} {value}");
        }
    }
}
