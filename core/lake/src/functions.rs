//! SQL functions that read an event's properties.

use arrow::array::{Array, ArrayRef, AsArray, Int64Builder, StringViewBuilder};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::sync::Arc;

/// `property(properties, name)` as text, `property_int(properties, name)` as an exact whole number; null where there is none.
pub(crate) fn all() -> Vec<Arc<ScalarUDF>> {
    [Reading::Text, Reading::Whole].map(|reading| Arc::new(ScalarUDF::from(Property::new(reading)))).to_vec()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Reading {
    Text,
    Whole,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Property {
    reading: Reading,
    signature: Signature,
}

impl Property {
    fn new(reading: Reading) -> Property {
        Property { reading, signature: Signature::string(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Property {
    fn name(&self) -> &str {
        match self.reading {
            Reading::Text => "property",
            Reading::Whole => "property_int",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.reading {
            Reading::Text => DataType::Utf8View,
            Reading::Whole => DataType::Int64,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let texts = arrays.iter().map(|array| Ok(cast(array, &DataType::Utf8View)?)).collect::<Result<Vec<ArrayRef>>>()?;
        let [objects, names] = texts.as_slice() else {
            return datafusion::common::exec_err!("{} takes an object and a name", self.name());
        };
        let pairs = objects.as_string_view().iter().zip(names.as_string_view().iter());
        let found = pairs.map(|(object, name)| find(object?, name?));
        let column: ArrayRef = match self.reading {
            Reading::Text => {
                let mut builder = StringViewBuilder::with_capacity(objects.len());
                found.for_each(|value| builder.append_option(value.and_then(text)));
                Arc::new(builder.finish())
            }
            Reading::Whole => {
                let mut builder = Int64Builder::with_capacity(objects.len());
                found.for_each(|value| builder.append_option(value.and_then(|value| value.get().parse::<i64>().ok())));
                Arc::new(builder.finish())
            }
        };
        Ok(ColumnarValue::Array(column))
    }
}

/// A property as text: a string without its quotes, anything else as JSON writes it, null as nothing.
fn text(value: &RawValue) -> Option<String> {
    match value.get() {
        "null" => None,
        quoted if quoted.starts_with('"') => serde_json::from_str(quoted).ok(),
        other => Some(other.to_owned()),
    }
}

/// The first property of this name; what follows it is not read.
fn find<'a>(object: &'a str, name: &str) -> Option<&'a RawValue> {
    let mut found = None;
    let mut deserializer = serde_json::Deserializer::from_str(object);
    // Ending early is an error to the parser, not to us.
    let _ = deserializer.deserialize_map(Finder { name, found: &mut found });
    found
}

struct Finder<'n, 'f, 'a> {
    name: &'n str,
    found: &'f mut Option<&'a RawValue>,
}

impl<'a> Visitor<'a> for Finder<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some(wanted) = map.next_key_seed(IsName(self.name))? {
            if wanted {
                *self.found = Some(map.next_value()?);
                return Ok(());
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

/// Compares a key without copying it.
struct IsName<'n>(&'n str);

impl<'a> DeserializeSeed<'a> for IsName<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> std::result::Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for IsName<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, key: &str) -> std::result::Result<bool, E> {
        Ok(key == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(object: &str, name: &str) -> (Option<String>, Option<i64>) {
        let value = find(object, name);
        (value.and_then(text), value.and_then(|value| value.get().parse().ok()))
    }

    #[test]
    fn reads_one_property() {
        let object =
            r#"{"unit_type":"三居","amount":9007199254740993,"area":89.5,"vip":true,"gone":null,"list":[1,{"amount":2}],"quo\"te":"a\nb"}"#;
        let text = |text: &str| Some(text.to_owned());
        for (name, expected) in [
            ("unit_type", (text("三居"), None)),
            ("amount", (text("9007199254740993"), Some(9_007_199_254_740_993))),
            ("area", (text("89.5"), None)),
            ("vip", (text("true"), None)),
            ("gone", (None, None)),
            ("list", (text(r#"[1,{"amount":2}]"#), None)),
            ("quo\"te", (text("a\nb"), None)),
            ("missing", (None, None)),
        ] {
            assert_eq!(check(object, name), expected, "{name}");
        }
        for broken in ["", "[]", "7", "{\"amount\":", "no json"] {
            assert_eq!(check(broken, "amount"), (None, None), "{broken}");
        }
    }
}
