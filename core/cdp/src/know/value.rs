//! What a feature or a property can be: exact numbers, text and flags.

use crate::event::PropertyValue;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Billionths: what a number is kept in. Integers and decimals of up to nine places are exact; finer ones are rounded when read.
const BILLIONTHS: i128 = 1_000_000_000;

/// An exact number of up to nine places after the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Number(i128);

impl Number {
    /// Nothing.
    pub const ZERO: Number = Number(0);

    /// A whole number.
    pub fn whole(value: i64) -> Number {
        Number(i128::from(value) * BILLIONTHS)
    }

    pub(crate) fn from_billionths(billionths: i128) -> Number {
        Number(billionths)
    }

    pub(crate) fn billionths(self) -> i128 {
        self.0
    }

    /// A float as an SDK sent it, rounded to nine places; `None` for what is no number or too large to be one we count.
    pub fn from_float(value: f64) -> Option<Number> {
        let billionths = (value * 1e9).round();
        (billionths.is_finite() && billionths.abs() < 1e30).then_some(Number(billionths as i128))
    }

    /// Reads a plain decimal: `12`, `-0.5`.
    pub fn parse(text: &str) -> Option<Number> {
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let plain = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || whole.len() > 18 || fraction.len() > 9 || !plain(whole) || !plain(fraction) || digits.ends_with('.') {
            return None;
        }
        let billionths = whole.parse::<i128>().ok()? * BILLIONTHS + format!("{fraction:0<9}").parse::<i128>().ok()?;
        Some(Number(if negative { -billionths } else { billionths }))
    }

    /// The whole number, when it is one that fits 64 bits.
    pub fn as_whole(self) -> Option<i64> {
        (self.0 % BILLIONTHS == 0).then(|| i64::try_from(self.0 / BILLIONTHS).ok()).flatten()
    }

    /// For taggers, which reckon in floats.
    pub fn as_float(self) -> f64 {
        self.as_whole().map_or_else(|| self.0 as f64 / 1e9, |whole| whole as f64)
    }

    /// `mantissa` times ten to the power of minus `scale`; places beyond nine are rounded.
    pub(crate) fn from_decimal(mantissa: i64, scale: u32) -> Number {
        match 9u32.checked_sub(scale) {
            Some(up) => Number(i128::from(mantissa) * 10i128.pow(up)),
            None => {
                let divisor = 10i128.pow((scale - 9).min(30));
                let half = if mantissa < 0 { -(divisor / 2) } else { divisor / 2 };
                Number((i128::from(mantissa) + half) / divisor)
            }
        }
    }

    pub(crate) fn plus(self, other: Number) -> Number {
        Number(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let billionths = self.0.unsigned_abs();
        let (whole, fraction) = (billionths / 1_000_000_000, billionths % 1_000_000_000);
        if fraction == 0 {
            write!(f, "{sign}{whole}")
        } else {
            let places = format!("{fraction:09}");
            write!(f, "{sign}{whole}.{}", places.trim_end_matches('0'))
        }
    }
}

/// A value of a property, a trait or a feature.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// An exact number.
    Number(Number),
    /// Text.
    Text(Box<str>),
    /// Yes or no.
    Flag(bool),
    /// A moment, in milliseconds since 1970: what `seconds_since` counts from.
    Moment(i64),
}

impl Value {
    /// Text.
    pub fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    /// A whole number.
    pub fn whole(value: i64) -> Value {
        Value::Number(Number::whole(value))
    }

    /// What an event's property says; personal values are readable by nothing.
    pub(crate) fn of(property: &PropertyValue) -> Option<Value> {
        match property {
            PropertyValue::Integer(value) | PropertyValue::Fen(value) => Some(Value::whole(*value)),
            PropertyValue::Decimal(decimal) => Some(Value::Number(Number::from_decimal(decimal.mantissa, decimal.scale))),
            PropertyValue::Text(text) => Some(Value::text(text)),
            PropertyValue::Boolean(flag) => Some(Value::Flag(*flag)),
            PropertyValue::Time(at) => Some(Value::Moment(at.ms())),
            PropertyValue::Personal(_) => None,
        }
    }

    /// The number, when it is one.
    pub fn number(&self) -> Option<Number> {
        match self {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// As a tag or a tagger's dictionary spells it.
    pub fn spelled(&self) -> String {
        match self {
            Value::Number(number) => number.to_string(),
            Value::Text(text) => text.to_string(),
            Value::Flag(flag) => flag.to_string(),
            Value::Moment(ms) => ms.to_string(),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Number(number) => match number.as_whole() {
                Some(whole) => serializer.serialize_i64(whole),
                None => serializer.serialize_str(&number.to_string()),
            },
            Value::Text(text) => serializer.serialize_str(text),
            Value::Flag(flag) => serializer.serialize_bool(*flag),
            Value::Moment(ms) => serializer.serialize_i64(*ms),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = serde_json::Value::deserialize(deserializer)?;
        from_json(&json).ok_or_else(|| serde::de::Error::custom("expected a number, a text or true or false"))
    }
}

/// A JSON scalar as a value; decimals of up to nine places stay exact.
pub(crate) fn from_json(json: &serde_json::Value) -> Option<Value> {
    match json {
        serde_json::Value::String(text) => Some(Value::text(text)),
        serde_json::Value::Bool(flag) => Some(Value::Flag(*flag)),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(whole) => Some(Value::whole(whole)),
            None => Number::parse(&number.to_string()).or_else(|| Number::from_float(number.as_f64()?)).map(Value::Number),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_exact_and_print_as_written() {
        for text in ["0", "12", "-3", "0.5", "-0.000000001", "999999999999999999", "12.25"] {
            assert_eq!(Number::parse(text).map(|n| n.to_string()).as_deref(), Some(text));
        }
        for text in ["", ".5", "5.", "1e3", "1.2345678901", "--1", "1 "] {
            assert_eq!(Number::parse(text), None, "{text}");
        }
        assert_eq!(Number::from_float(0.1).map(|n| n.to_string()).as_deref(), Some("0.1"));
        assert_eq!(Number::from_float(f64::NAN), None);
    }
}
