//! Whether an object in the cluster still is what the operator wrote: every field that was written, and nothing added to a list.

use serde_json::Value;

/// Fields whose texts are quantities, which the API server writes in its own spelling.
const QUANTITIES: [&str; 4] = ["requests", "limits", "hard", "capacity"];

/// Whether every field of `wanted` stands in `live`. Lists must have the same length: what somebody added is drift.
pub(crate) fn agrees(wanted: &Value, live: &Value) -> bool {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => wanted.iter().all(|(key, value)| match live.get(key) {
            Some(there) if QUANTITIES.contains(&key.as_str()) => quantities_agree(value, there),
            Some(there) => agrees(value, there),
            None => is_nothing(value),
        }),
        (Value::Array(wanted), Value::Array(live)) => {
            wanted.len() == live.len() && wanted.iter().zip(live).all(|(one, other)| agrees(one, other))
        }
        (wanted, live) => wanted == live,
    }
}

/// What the API server leaves out.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        _ => false,
    }
}

fn quantities_agree(wanted: &Value, live: &Value) -> bool {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => {
            wanted.iter().all(|(key, value)| live.get(key).is_some_and(|there| quantities_agree(value, there)))
        }
        (Value::String(wanted), Value::String(live)) => match (quantity(wanted), quantity(live)) {
            (Some(wanted), Some(live)) => wanted == live,
            _ => wanted == live,
        },
        (wanted, live) => wanted == live,
    }
}

/// A Kubernetes quantity in thousandths, as the operator writes them: whole numbers with a suffix.
pub(crate) fn quantity(text: &str) -> Option<i128> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: i128 = text[..digits].parse().ok()?;
    let factor: i128 = match &text[digits..] {
        "m" => 1,
        "" => 1_000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "Ki" => 1_000 << 10,
        "Mi" => 1_000 << 20,
        "Gi" => 1_000 << 30,
        "Ti" => 1_000 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn drift_is_seen_and_defaults_are_not() {
        let table = [
            (json!({"a": 1}), json!({"a": 1, "b": 2}), true),
            (json!({"a": 1}), json!({"a": 2}), false),
            (json!({"a": 1}), json!({"b": 1}), false),
            (json!({"a": {}, "b": [], "c": null, "d": 0}), json!({}), true),
            (json!({"a": false}), json!({}), false),
            (json!({"a": [{"name": "x"}]}), json!({"a": [{"name": "x", "more": 1}]}), true),
            (json!({"a": [{"name": "x"}]}), json!({"a": [{"name": "x"}, {"name": "y"}]}), false),
            (json!({"limits": {"memory": "1024Mi"}}), json!({"limits": {"memory": "1Gi"}}), true),
            (json!({"requests": {"storage": "2Gi"}}), json!({"requests": {"storage": "1Gi"}}), false),
            (json!({"hard": {"pods": "6"}}), json!({"hard": {"pods": "6", "services": "1"}}), true),
            (json!({"requests": {"cpu": "1000m"}}), json!({"requests": {"cpu": "1"}}), true),
        ];
        for (wanted, live, agree) in table {
            assert_eq!(agrees(&wanted, &live), agree, "{wanted} against {live}");
        }
    }
}
