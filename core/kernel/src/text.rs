//! Which texts of a request are kept: none with control characters, but for line breaks and tabs.
//!
//! PostgreSQL keeps no NUL, and no list or report shows the others. They are refused where a request comes in, for every route at once.

use crate::error::Problem;
use actix_web::http::Uri;
use actix_web::web::Query;
use serde_json::Value;

const DETAIL: &str = "control characters, other than line breaks and tabs, stand in no text here";

/// Whether a text has a character that is not kept.
pub fn has_control_characters(text: &str) -> bool {
    text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
}

/// Whether a text is one line of 1 to `bytes_max` bytes.
pub fn is_line(text: &str, bytes_max: usize) -> bool {
    !text.is_empty() && text.len() <= bytes_max && !text.chars().any(char::is_control)
}

/// Refuses an address whose path or query spells a control character.
///
/// # Errors
/// `invalid_request` with the parameter's name.
pub fn check_address(address: &Uri) -> Result<(), Problem> {
    let unkept = |text: &str| decoded(text).into_iter().find(|(name, value)| has_control_characters(name) || has_control_characters(value));
    if unkept(address.path()).is_some() {
        return Err(Problem::invalid("path", DETAIL));
    }
    match address.query().and_then(unkept) {
        Some((name, _)) if has_control_characters(&name) => Err(Problem::invalid("query", DETAIL)),
        Some((name, _)) => Err(Problem::invalid(&name, DETAIL)),
        None => Ok(()),
    }
}

/// Names and values as forms spell them; a path is one name. What nothing is escaped in has no control characters.
fn decoded(text: &str) -> Vec<(String, String)> {
    if !text.contains('%') {
        return Vec::new();
    }
    Query::from_query(text).map(Query::into_inner).unwrap_or_default()
}

/// Refuses a JSON document with a control character in one of its texts or names. Raw ones are no JSON below a space, so that a
/// document is only looked through when it spells one.
///
/// # Errors
/// `invalid_request` with the path of the field.
pub(crate) fn check_json(bytes: &[u8]) -> Result<(), Problem> {
    let spells_one = bytes.windows(2).enumerate().any(|(at, pair)| match pair {
        b"\\b" | b"\\f" => true,
        b"\\u" => bytes[at..].starts_with(b"\\u00"),
        // DEL, and what follows it in Latin-1.
        [0x7f, _] | [0xc2, 0x80..=0x9f] => true,
        _ => false,
    });
    if !spells_one {
        return Ok(());
    }
    let Ok(document) = serde_json::from_slice::<Value>(bytes) else { return Ok(()) };
    match unkept(&document) {
        None => Ok(()),
        Some(field) if field.is_empty() => Err(Problem::new(crate::error::codes::INVALID_REQUEST, DETAIL)),
        Some(field) => Err(Problem::invalid(&field, DETAIL)),
    }
}

/// The path of the first text that is not kept; for a name, the object's.
fn unkept(value: &Value) -> Option<String> {
    let below = |here: String, value: &Value| {
        let rest = unkept(value)?;
        Some(if rest.is_empty() || rest.starts_with('[') { here + &rest } else { format!("{here}.{rest}") })
    };
    match value {
        Value::String(text) => has_control_characters(text).then(String::new),
        Value::Array(items) => items.iter().enumerate().find_map(|(index, item)| below(format!("[{index}]"), item)),
        Value::Object(members) => members
            .iter()
            .find_map(|(name, member)| if has_control_characters(name) { Some(String::new()) } else { below(name.clone(), member) }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_tells_where_the_character_is() {
        for (document, field) in [
            (r#"{"units": [{"name": "a"}, {"name": "b\u0000"}]}"#, Some(Some("units[1].name"))),
            (r#"[["\u001b"]]"#, Some(Some("[0][0]"))),
            (r#"{"a": {"b\b": 1}}"#, Some(Some("a"))),
            (r#""\f""#, Some(None)),
            ("{\"a\": \"\u{7f}\"}", Some(Some("a"))),
            ("{\"a\": \"\u{85}\"}", Some(Some("a"))),
            (r#"{"a": "line\nbreak\ttab\r"}"#, None),
            (r#"{"a": "\u00e9\u4e2d"}"#, None),
            (r#"{"a": "\\u0000 and \\b are six letters and two"}"#, None),
            (r#"{"a": "合院"}"#, None),
        ] {
            let found = check_json(document.as_bytes()).err().map(|problem| problem.body().field);
            assert_eq!(found, field.map(|field| field.map(str::to_owned)), "{document}");
        }
    }

    #[test]
    fn an_address_tells_which_parameter() {
        for (address, field) in [
            ("/v1/keys/a%00", Some("path")),
            ("/v1/keys/a%2500", None),
            ("/v1/audit?object=x&action=%1b", Some("action")),
            ("/v1/audit?obj%00=x", Some("query")),
            ("/v1/audit?object=%E5%90%88+%0A", None),
            ("/v1/audit?object=100%", None),
            ("/v1/customers/search", None),
        ] {
            let found = check_address(&address.parse().expect("an address")).err().and_then(|problem| problem.body().field);
            assert_eq!(found.as_deref(), field, "{address}");
        }
    }
}
