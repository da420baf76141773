//! Values by their declared types: exact, or absent and counted, never coerced.

use super::schema::{EventType, Mode, Property, PropertyType};
use crate::event::{Decimal, PropertyValue};
use heyuan_contract::Fen;
use heyuan_kernel::Personal;
use heyuan_kernel::time::parse_rfc3339;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use utoipa::ToSchema;

/// Longest text of a property, in bytes.
const TEXT_BYTES_MAX: usize = 1024;
/// Most digits of a decimal number.
const DIGITS_MAX: usize = 18;

/// Why a property is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fault {
    /// Its value is of another type than declared.
    WrongType,
    /// Money finer than a fen, or a decimal with too many digits.
    TooFine,
    /// A number outside 64 bits.
    Overflow,
    /// Text over 1,024 bytes.
    TooLong,
    /// It is not declared; it is kept sealed.
    Undeclared,
}

impl Fault {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Fault::WrongType => "wrong_type",
            Fault::TooFine => "too_fine",
            Fault::Overflow => "overflow",
            Fault::TooLong => "too_long",
            Fault::Undeclared => "undeclared",
        }
    }
}

/// The members of a JSON object with their values as they came; of a repeated name the last counts.
pub(crate) struct Members<'a> {
    pub list: Vec<(Cow<'a, str>, &'a RawValue)>,
    /// How many were left out because their names are no text: half of a surrogate pair.
    pub unreadable: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Members { list: Vec::with_capacity(8), unreadable: 0 };
                while let Some((name, value)) = map.next_entry::<&'de RawValue, &'de RawValue>()? {
                    match name_of(name.get()) {
                        Some(name) => members.list.push((name, value)),
                        None => members.unreadable += 1,
                    }
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// A member's name from its JSON text.
fn name_of(json: &str) -> Option<Cow<'_, str>> {
    match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(name) if !name.contains('\\') => Some(Cow::Borrowed(name)),
        _ => serde_json::from_str(json).ok().map(Cow::Owned),
    }
}

/// The properties of an event by a schema.
#[derive(Debug, Default)]
pub(crate) struct Typed<'a> {
    pub values: BTreeMap<String, PropertyValue>,
    /// Personal values, on their way into the vault.
    pub personal: Vec<(String, Personal, String)>,
    pub undeclared: Vec<(Cow<'a, str>, &'a RawValue)>,
    pub faults: Vec<(String, Fault)>,
}

/// Types the members of an object. What is no object counts as nothing.
pub(crate) fn type_members<'a>(schema: Option<&EventType>, raw: Option<&'a RawValue>) -> Typed<'a> {
    let mut typed = Typed::default();
    let Some(raw) = raw else { return typed };
    let Ok(members) = serde_json::from_str::<Members<'a>>(raw.get()) else {
        typed.faults.push(("*".to_owned(), Fault::WrongType));
        return typed;
    };
    if members.unreadable > 0 {
        typed.faults.push(("*".to_owned(), Fault::WrongType));
    }
    for (name, value) in members.list {
        let declared = schema.and_then(|schema| schema.properties.get_key_value(name.as_ref()));
        let Some((name, property)) = declared else {
            typed.undeclared.push((name, value));
            continue;
        };
        if value.get() == "null" {
            continue;
        }
        match value_of(property, value.get()) {
            Err(fault) => typed.faults.push((name.clone(), fault)),
            Ok(PropertyValue::Text(text)) if property.personal.is_some() => {
                typed.personal.push((name.clone(), property.class().unwrap_or(Personal::Other), text));
            }
            Ok(value) => {
                typed.values.insert(property.keep_as.clone().unwrap_or_else(|| name.clone()), value);
            }
        }
    }
    let counts_undeclared = schema.is_some_and(|schema| schema.mode != Mode::Open);
    if counts_undeclared && !typed.undeclared.is_empty() {
        typed.faults.push(("*".to_owned(), Fault::Undeclared));
    }
    typed
}

/// A value by its declared type, from its JSON text.
pub(crate) fn value_of(property: &Property, json: &str) -> Result<PropertyValue, Fault> {
    match property.kind {
        PropertyType::Integer => integer(json).map(PropertyValue::Integer),
        PropertyType::Money if property.unit.as_deref() == Some("fen") => integer(json).map(PropertyValue::Fen),
        PropertyType::Money => money(json).map(PropertyValue::Fen),
        PropertyType::Decimal => decimal(json).map(PropertyValue::Decimal),
        PropertyType::Text => text(json).map(PropertyValue::Text),
        PropertyType::Boolean => match json {
            "true" => Ok(PropertyValue::Boolean(true)),
            "false" => Ok(PropertyValue::Boolean(false)),
            _ => Err(Fault::WrongType),
        },
        PropertyType::Time => parse_rfc3339(&text(json)?).map(PropertyValue::Time).ok_or(Fault::WrongType),
    }
}

fn integer(json: &str) -> Result<i64, Fault> {
    let digits = json.strip_prefix('-').unwrap_or(json);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Fault::WrongType);
    }
    json.parse().map_err(|_| Fault::Overflow)
}

fn money(json: &str) -> Result<i64, Fault> {
    let plain = if json.starts_with('"') { text(json)? } else { json.to_owned() };
    Fen::from_yuan(&plain).map(|fen| fen.0).map_err(|error| match error {
        heyuan_contract::MoneyError::TooFine => Fault::TooFine,
        heyuan_contract::MoneyError::Overflow => Fault::Overflow,
        _ => Fault::WrongType,
    })
}

fn decimal(json: &str) -> Result<Decimal, Fault> {
    let (negative, digits) = json.strip_prefix('-').map_or((false, json), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return Err(Fault::WrongType);
    }
    let whole = whole.trim_start_matches('0');
    if whole.len() + fraction.len() > DIGITS_MAX {
        return Err(if whole.len() > DIGITS_MAX { Fault::Overflow } else { Fault::TooFine });
    }
    let joined = format!("0{whole}{fraction}");
    let mantissa: i64 = joined.parse().map_err(|_| Fault::Overflow)?;
    Ok(Decimal { mantissa: if negative { -mantissa } else { mantissa }, scale: u32::try_from(fraction.len()).unwrap_or(0) })
}

fn text(json: &str) -> Result<String, Fault> {
    if !json.starts_with('"') {
        return Err(Fault::WrongType);
    }
    let text: String = serde_json::from_str(json).map_err(|_| Fault::WrongType)?;
    // Not every database's text can hold it.
    if text.contains('\0') {
        return Err(Fault::WrongType);
    }
    if text.len() > TEXT_BYTES_MAX { Err(Fault::TooLong) } else { Ok(text) }
}

/// Why an event does not fit a strict type.
pub(crate) fn against(schema: &EventType, raw: Option<&RawValue>) -> Option<String> {
    let typed = type_members(Some(schema), raw);
    if let Some((name, _)) = typed.undeclared.first() {
        // The name is the sender's own text: only its length is bounded, so it is cut, and shown without control characters.
        let shown: String = name.chars().take(64).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
        return Some(format!("{} is strict and does not declare the property {shown}", schema.name));
    }
    let (name, fault) = typed.faults.first()?;
    Some(format!("{} is strict and its property {name} is not what was declared: {}", schema.name, fault.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_exact_or_absent() {
        use PropertyType as T;
        let decimal = |mantissa, scale| Ok(PropertyValue::Decimal(Decimal { mantissa, scale }));
        type Case = (T, Option<&'static str>, &'static str, Result<PropertyValue, Fault>);
        let cases: Vec<Case> = vec![
            (T::Integer, None, "42", Ok(PropertyValue::Integer(42))),
            (T::Integer, None, "-7", Ok(PropertyValue::Integer(-7))),
            (T::Integer, None, "42.0", Err(Fault::WrongType)),
            (T::Integer, None, "\"42\"", Err(Fault::WrongType)),
            (T::Integer, None, "9223372036854775808", Err(Fault::Overflow)),
            (T::Integer, None, "1e3", Err(Fault::WrongType)),
            (T::Money, None, "12.5", Ok(PropertyValue::Fen(1250))),
            (T::Money, None, "\"12.50\"", Ok(PropertyValue::Fen(1250))),
            (T::Money, None, "12.345", Err(Fault::TooFine)),
            (T::Money, None, "1e3", Err(Fault::WrongType)),
            (T::Money, None, "\"many\"", Err(Fault::WrongType)),
            (T::Money, None, "92233720368547758.08", Err(Fault::Overflow)),
            (T::Money, Some("fen"), "1250", Ok(PropertyValue::Fen(1250))),
            (T::Money, Some("fen"), "12.5", Err(Fault::WrongType)),
            (T::Decimal, None, "0.10", decimal(1, 1)),
            (T::Decimal, None, "-12", decimal(-12, 0)),
            (T::Decimal, None, "0.1234567890123456789", Err(Fault::TooFine)),
            (T::Boolean, None, "true", Ok(PropertyValue::Boolean(true))),
            (T::Boolean, None, "1", Err(Fault::WrongType)),
            (T::Text, None, "\"a\"", Ok(PropertyValue::Text("a".into()))),
            (T::Text, None, "5", Err(Fault::WrongType)),
            (T::Text, None, r#""a\nb""#, Ok(PropertyValue::Text("a\nb".into()))),
            (T::Text, None, r#""a\u0000b""#, Err(Fault::WrongType)),
            (T::Time, None, "\"1970-01-01T00:00:01Z\"", Ok(PropertyValue::Time(heyuan_contract::Timestamp::clamped(1000)))),
            (T::Time, None, "1000", Err(Fault::WrongType)),
        ];
        for (kind, unit, json, expected) in cases {
            let property = Property { unit: unit.map(str::to_owned), ..Property::plain(kind) };
            assert_eq!(value_of(&property, json), expected, "{kind:?} {json}");
        }
    }
    #[test]
    fn a_name_that_is_no_text_costs_its_own_property_alone() {
        let schema = EventType {
            name: "lift_taken".into(),
            version: 1,
            mode: Mode::Open,
            properties: BTreeMap::from([("floor".to_owned(), Property::plain(PropertyType::Integer))]),
        };
        let json = r#"{"\ud800":1,"fl\u006for":3,"m\"o":"\ud800","\ud83d\ude00":true}"#;
        let raw: &RawValue = serde_json::from_str(json).expect("the test's own text");
        let typed = type_members(Some(&schema), Some(raw));
        assert_eq!(typed.values, BTreeMap::from([("floor".to_owned(), PropertyValue::Integer(3))]));
        assert_eq!(typed.undeclared.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["m\"o", "😀"]);
        assert_eq!(typed.faults, [("*".to_owned(), Fault::WrongType)]);
        assert!(against(&EventType { mode: Mode::Strict, ..schema }, Some(raw)).is_some());
    }
}
