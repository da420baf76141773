//! Answers as Markdown shows them: JSON in which `…` stands for what was cut away, and whether an answer looks like it.

use serde_json::Value;

/// What stands for anything, and in an object or a list for more of it.
const CUT: &str = "…";

/// Reads the answers of a block, one after the other.
pub(crate) fn read(block: &str) -> Vec<Value> {
    let read: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&quoted(block)).into_iter().collect();
    read.unwrap_or_else(|error| panic!("{error} in the answer that Markdown shows:\n{block}"))
}

/// Puts each `…` outside of strings into quotes, so that the block is JSON: as a member of its own where a name is expected.
fn quoted(block: &str) -> String {
    let (mut text, mut inside, mut escaped) = (String::new(), false, false);
    // Of each open bracket: whether it is an object's, and whether a name comes next.
    let mut open: Vec<(bool, bool)> = Vec::new();
    for letter in block.chars() {
        if inside {
            (inside, escaped) = (escaped || letter != '"', !escaped && letter == '\\');
            text.push(letter);
            continue;
        }
        match letter {
            '"' => inside = true,
            '{' | '[' => open.push((letter == '{', letter == '{')),
            '}' | ']' => {
                open.pop();
            }
            ':' | ',' => {
                if let Some((is_object, name_next)) = open.last_mut() {
                    *name_next = *is_object && letter == ',';
                }
            }
            '…' => {
                let as_member = open.last().is_some_and(|(_, name_next)| *name_next);
                text.push_str(if as_member { "\"…\": \"…\"" } else { "\"…\"" });
                continue;
            }
            _ => {}
        }
        text.push(letter);
    }
    text
}

/// Whether an answer looks as it is shown: nothing missing, and nothing more where nothing was cut away.
pub(crate) fn matches(shown: &Value, answer: &Value) -> bool {
    match (shown, answer) {
        (Value::String(shown), _) if shown == CUT => true,
        (Value::String(shown), Value::String(answer)) => text_matches(shown, answer),
        (Value::Object(shown), Value::Object(answer)) => {
            let cut = shown.contains_key(CUT);
            let all =
                shown.iter().filter(|(name, _)| *name != CUT).all(|(name, value)| answer.get(name).is_some_and(|got| matches(value, got)));
            all && (cut || answer.keys().all(|name| shown.contains_key(name)))
        }
        (Value::Array(shown), Value::Array(answer)) => {
            let (wanted, cut) = match shown.split_last() {
                Some((last, wanted)) if last == CUT => (wanted, true),
                _ => (shown.as_slice(), false),
            };
            if !cut {
                return wanted.len() == answer.len() && wanted.iter().zip(answer).all(|(shown, answer)| matches(shown, answer));
            }
            // In their order, with others between them.
            let mut rest = answer.iter();
            wanted.iter().all(|shown| rest.any(|answer| matches(shown, answer)))
        }
        (shown, answer) => shown == answer,
    }
}

/// Whether a text has the shown pieces in their order, and begins and ends with them where nothing was cut away.
fn text_matches(shown: &str, answer: &str) -> bool {
    let pieces: Vec<_> = shown.split(CUT).collect();
    let (first, last) = (pieces[0], pieces[pieces.len() - 1]);
    if pieces.len() == 1 {
        return shown == answer;
    }
    let mut rest = match answer.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) {
        Some(rest) => rest,
        None => return false,
    };
    pieces[1..pieces.len() - 1].iter().all(|piece| match rest.split_once(piece) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

#[test]
fn what_was_cut_away_may_be_anything_and_nothing_else_may() {
    let shown = &read(r#"{"id": "cus_…", "list": [{"a": 1, …}, …], "count": …}"#)[0];
    let answer = |text: &str| serde_json::from_str::<Value>(text).expect("it is JSON");
    assert!(matches(shown, &answer(r#"{"id": "cus_7", "list": [{"a": 2}, {"a": 1, "b": 3}, {}], "count": 4}"#)));
    for other in [
        r#"{"id": "mbr_7", "list": [{"a": 1}], "count": 4}"#,
        r#"{"id": "cus_7", "list": [{"a": 2}], "count": 4}"#,
        r#"{"id": "cus_7", "list": [{"a": 1}]}"#,
        r#"{"id": "cus_7", "list": [{"a": 1}], "count": 4, "more": 1}"#,
    ] {
        assert!(!matches(shown, &answer(other)), "{other}");
    }
    assert!(text_matches("Rule member-day (…) adds … points", "Rule member-day (ab) adds 680 points"));
    assert!(!text_matches("till-3/…", "till-4/1"));
}
