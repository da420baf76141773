//! The schema of an event type.

use heyuan_kernel::{Personal, Problem};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Most properties of one type; what people keep track of is below fifty.
const PROPERTIES_MAX: usize = 200;
/// Longest name of a property, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// What a property's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PropertyType {
    /// A whole number of 64 bits.
    Integer,
    /// Money: decimal yuan, as a number or as text, or whole fen when the unit is `fen`. Kept as fen, exactly.
    Money,
    /// An exact decimal number of at most 18 digits.
    Decimal,
    /// Text of at most 1,024 bytes, without the character U+0000.
    Text,
    /// `true` or `false`.
    Boolean,
    /// An RFC 3339 time within the years 1 to 9999; after 9999-12-30T22:00:00Z it is kept as that.
    Time,
}

/// What an event may carry beyond its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// An undeclared property or one of a wrong type refuses the event.
    Strict,
    /// They are counted; undeclared ones are kept sealed.
    Warn,
    /// Undeclared ones are kept sealed; wrong types are counted.
    Open,
}

impl Mode {
    /// The spelling in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Strict => "strict",
            Mode::Warn => "warn",
            Mode::Open => "open",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Mode> {
        [Mode::Strict, Mode::Warn, Mode::Open].into_iter().find(|mode| mode.as_str() == text)
    }
}

/// A declared property.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Property {
    /// What its values are.
    #[serde(rename = "type")]
    pub kind: PropertyType,
    /// The unit: free text; for money `yuan` (the default) or `fen`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Whose values are personal: `phone`, `email`, `name`, `address`, `plate`, `identifier`, `id_card` or `other`. Only text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personal: Option<String>,
    /// The property under whose name the value is kept, where apps spell one thing in two ways.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    pub keep_as: Option<String>,
}

impl Property {
    /// A property without unit and alias.
    pub(crate) fn plain(kind: PropertyType) -> Property {
        Property { kind, unit: None, personal: None, keep_as: None }
    }

    /// The class of a personal property.
    pub fn class(&self) -> Option<Personal> {
        self.personal.as_deref().and_then(Personal::parse)
    }
}

/// An event type in one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventType {
    /// `snake_case`.
    pub name: String,
    /// Counts up from 1.
    pub version: i64,
    /// What happens to what does not fit.
    pub mode: Mode,
    /// Declared properties.
    pub properties: BTreeMap<String, Property>,
}

impl EventType {
    /// Whether both declare the same, in whatever version.
    pub(crate) fn says_the_same(&self, other: &EventType) -> bool {
        self.name == other.name && self.mode == other.mode && self.properties == other.properties
    }

    /// Checks what a caller declares.
    ///
    /// # Errors
    /// `invalid_request` with the property's path.
    pub fn check(name: &str, properties: &BTreeMap<String, Property>) -> Result<(), Problem> {
        if crate::collect::message::normal_name(name).as_deref() != Some(name) {
            return Err(Problem::invalid("name", "a type's name is words in lower case, parted by underscores, such as unit_viewed"));
        }
        if properties.len() > PROPERTIES_MAX {
            return Err(Problem::invalid("properties", format!("an event type has at most {PROPERTIES_MAX} properties")));
        }
        for (property, declared) in properties {
            let at = format!("properties.{property}");
            if property.is_empty() || property.len() > NAME_BYTES_MAX || property.chars().any(|c| c.is_control() || c == '$') {
                return Err(Problem::invalid(&at, format!("a property's name has 1 to {NAME_BYTES_MAX} bytes, without $")));
            }
            if let Some(class) = &declared.personal
                && (Personal::parse(class).is_none() || declared.kind != PropertyType::Text)
            {
                let classes = "phone, email, name, address, plate, identifier, id_card, other";
                return Err(Problem::invalid(&at, format!("`personal` is one of {classes}, and only for text")));
            }
            if declared.kind == PropertyType::Money && declared.unit.as_deref().is_some_and(|unit| unit != "yuan" && unit != "fen") {
                return Err(Problem::invalid(&at, "the unit of money is yuan or fen"));
            }
            if declared.unit.as_ref().is_some_and(|unit| unit.len() > NAME_BYTES_MAX) {
                return Err(Problem::invalid(&at, format!("a unit has at most {NAME_BYTES_MAX} bytes")));
            }
            if let Some(target) = &declared.keep_as {
                let fits = properties.get(target).is_some_and(|other| other.kind == declared.kind && other.keep_as.is_none());
                if !fits || declared.personal.is_some() {
                    return Err(Problem::invalid(&at, "`as` names a declared property of the same type that is not personal"));
                }
            }
        }
        Ok(())
    }
}
