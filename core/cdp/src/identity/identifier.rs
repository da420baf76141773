//! Identifiers: their types, and the one spelling by which each is known.

use heyuan_contract::AnchorId;
use heyuan_kernel::Personal;
use heyuan_kernel::text::is_line;
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// Most identifiers of one event: what a person can show at once, and a bound on the edges that an event makes.
pub(crate) const MAX: usize = 12;

/// The type of an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A member of the group's programme.
    Member,
    /// The group's own id of a person across its WeChat apps.
    Unionid,
    /// A WeChat app's id of a person.
    Openid,
    /// The id under which the group's apps know a user who has logged in.
    User,
    /// A phone number.
    Phone,
    /// An id in a CRM.
    Crm,
    /// An e-mail address.
    Email,
    /// A car's plate.
    Plate,
    /// A device or an anonymous id.
    Device,
}

impl Kind {
    /// Every type, strongest first: an event belongs to the first of its identifiers in this order.
    pub const ALL: [Kind; 9] =
        [Kind::Member, Kind::Unionid, Kind::Openid, Kind::User, Kind::Phone, Kind::Crm, Kind::Email, Kind::Plate, Kind::Device];

    /// The spelling in JSON and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Member => "member",
            Kind::Unionid => "unionid",
            Kind::Openid => "openid",
            Kind::User => "user",
            Kind::Phone => "phone",
            Kind::Crm => "crm",
            Kind::Email => "email",
            Kind::Plate => "plate",
            Kind::Device => "device",
        }
    }

    /// The type with this spelling, if there is one. `openid@APP` is an openid.
    pub fn parse(text: &str) -> Option<Kind> {
        match text {
            "anonymous" | "anonymous_id" | "idfa" | "oaid" | "imei" => Some(Kind::Device),
            "user_id" => Some(Kind::User),
            "member_id" => Some(Kind::Member),
            "crm_id" => Some(Kind::Crm),
            _ => {
                let text = text.split_once('@').map_or(text, |(kind, _)| kind);
                Kind::ALL.into_iter().find(|kind| kind.as_str() == text)
            }
        }
    }

    /// How a value of this type is masked.
    pub const fn personal(self) -> Personal {
        match self {
            Kind::Phone => Personal::Phone,
            Kind::Email => Personal::Email,
            Kind::Plate => Personal::Plate,
            _ => Personal::Identifier,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An identifier in its one spelling, or a node that is known already.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identifier {
    /// A value as an app sent it, normalised.
    Value {
        /// Its type.
        kind: Kind,
        /// The app, for an openid.
        app: Option<String>,
        /// The normalised value.
        value: String,
    },
    /// A node by its id: what other wings keep.
    Anchor(AnchorId),
}

impl Identifier {
    /// Reads an identifier; `None` when the type is unknown or the value can't be one (an empty text, a phone number with letters,
    /// control characters, also in the app of an openid).
    pub fn read(kind: &str, value: &str, app: Option<&str>) -> Option<Identifier> {
        let parsed = Kind::parse(kind)?;
        let own_app = kind.split_once('@').map(|(_, app)| app).or(app).unwrap_or("").trim();
        if parsed == Kind::Openid && own_app.chars().any(char::is_control) {
            return None;
        }
        let value = normal(parsed, value)?;
        let app = (parsed == Kind::Openid).then(|| own_app.to_lowercase());
        Some(Identifier::Value { kind: parsed, app, value })
    }

    /// A node that is known already.
    pub fn anchor(id: &str) -> Option<Identifier> {
        AnchorId::new(id).ok().map(Identifier::Anchor)
    }

    /// Whether a word names a type.
    pub fn is_kind(text: &str) -> bool {
        Kind::parse(text).is_some()
    }

    /// The type under which the value is hashed: `openid@app` for an openid.
    pub(crate) fn hashed_kind(kind: Kind, app: Option<&str>) -> String {
        match app {
            Some(app) if kind == Kind::Openid => format!("openid@{app}"),
            _ => kind.as_str().to_owned(),
        }
    }
}

/// The one spelling of a value, so that the same phone written in two ways is one node.
fn normal(kind: Kind, value: &str) -> Option<String> {
    let value = value.trim();
    if !is_line(value, crate::collect::ID_BYTES_MAX) {
        return None;
    }
    match kind {
        Kind::Phone => phone(value),
        Kind::Email => value.contains('@').then(|| value.to_lowercase()),
        Kind::Plate => Some(value.chars().filter(|c| !matches!(c, ' ' | '·' | '-')).flat_map(char::to_uppercase).collect()),
        _ => Some(value.to_owned()),
    }
}

fn phone(value: &str) -> Option<String> {
    let digits: String = value.chars().filter(|c| !matches!(c, ' ' | '-' | '(' | ')' | '+')).collect();
    let digits = digits.strip_prefix("0086").unwrap_or(&digits);
    let digits = digits.strip_prefix("86").filter(|rest| rest.len() == 11).unwrap_or(digits);
    let plausible = (5..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    plausible.then(|| digits.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(kind: &str, value: &str) -> Option<String> {
        match Identifier::read(kind, value, Some("Mall")) {
            Some(Identifier::Value { value, .. }) => Some(value),
            _ => None,
        }
    }

    #[test]
    fn each_identifier_has_one_spelling() {
        for (kind, text, expected) in [
            ("phone", "+86 138-1234-5678", Some("13812345678")),
            ("phone", "008613812345678", Some("13812345678")),
            ("phone", "13812345678", Some("13812345678")),
            ("phone", "call me", None),
            ("phone", "", None),
            ("email", " Zhang@Example.COM ", Some("zhang@example.com")),
            ("email", "nobody", None),
            ("plate", "粤b·12345", Some("粤B12345")),
            ("device", "  ", None),
            ("device", "a\0b", None),
            ("openid@m\0n", "o", None),
            ("shoe", "42", None),
        ] {
            assert_eq!(value(kind, text).as_deref(), expected, "{kind} {text:?}");
        }
        assert_eq!(Identifier::read("openid@Mall", "o1", None), Identifier::read("openid", "o1", Some("mall")));
    }
}
