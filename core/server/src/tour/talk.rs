//! How the tour speaks: numbered titles, requests as `curl` would be typed, answers cut to what matters, a sentence of meaning.

use crate::cli;
use crate::demo::client::Call;
use clap::ValueEnum;
use reqwest::Method;
use serde_json::Value;

/// Items of a list that are shown.
const ITEMS_MAX: usize = 3;
/// Characters of a text that are shown.
const CHARS_MAX: usize = 160;

/// The language of titles and meanings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lang {
    /// English
    En,
    /// 中文
    Zh,
}

/// A text in both languages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words {
    pub(crate) en: &'static str,
    pub(crate) zh: &'static str,
}

/// A text in both languages.
pub(crate) const fn words(en: &'static str, zh: &'static str) -> Words {
    Words { en, zh }
}

/// Whose key a request carries, as the reader would have it in a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Admin,
    App,
    Ingest,
    Member,
}

impl Key {
    const fn variable(self) -> &'static str {
        match self {
            Key::Admin => "ADMIN_KEY",
            Key::App => "APP_KEY",
            Key::Ingest => "INGEST_KEY",
            Key::Member => "MEMBER_TOKEN",
        }
    }
}

/// The voice of the tour.
pub(crate) struct Talk {
    lang: Lang,
    step: u32,
}

impl Talk {
    pub(crate) fn new(lang: Lang) -> Talk {
        Talk { lang, step: 0 }
    }

    pub(crate) fn step(&self) -> u32 {
        self.step
    }

    pub(crate) fn say(&self, words: Words) -> anyhow::Result<()> {
        cli::print(self.pick(words))
    }

    fn pick(&self, words: Words) -> &'static str {
        if self.lang == Lang::Zh { words.zh } else { words.en }
    }

    pub(crate) fn title(&mut self, words: Words) -> anyhow::Result<()> {
        self.step += 1;
        cli::print(&format!("\n━━ {}. {} ━━", self.step, self.pick(words)))
    }

    pub(crate) fn meaning(&self, words: Words) -> anyhow::Result<()> {
        cli::print(&format!("→ {}", self.pick(words)))
    }

    pub(crate) fn request(&self, call: &Call, key: Key) -> anyhow::Result<()> {
        cli::print(&format!("\n{}", curl(call, key)))
    }

    pub(crate) fn answer(&self, body: &Value) -> anyhow::Result<()> {
        if body.is_null() {
            return Ok(());
        }
        cli::print(&serde_json::to_string_pretty(&shortened(body))?)
    }
}

/// A request as it would be typed. Keys are variables, so that the text can be kept and shown.
fn curl(call: &Call, key: Key) -> String {
    let mut text = String::from("curl -sS");
    let implied = if call.body.is_empty() { Method::GET } else { Method::POST };
    if call.method != implied {
        text.push_str(&format!(" -X {}", call.method));
    }
    text.push_str(&format!(" \"$URL{}\" -H \"Authorization: Bearer ${}\"", call.path, key.variable()));
    if let Some(once) = &call.idempotency_key {
        text.push_str(&format!(" -H 'Idempotency-Key: {once}'"));
    }
    if !call.body.is_empty() {
        text.push_str(&format!(" \\\n  -H 'Content-Type: {}' --data-binary '{}'", call.content_type, quoted(call)));
    }
    text
}

fn quoted(call: &Call) -> String {
    let pretty = serde_json::from_slice::<Value>(&call.body).ok().and_then(|body| serde_json::to_string_pretty(&body).ok());
    let text = pretty.filter(|text| text.len() > 120).unwrap_or_else(|| String::from_utf8_lossy(&call.body).into_owned());
    text.replace('\'', "'\\''")
}

/// The same value with long lists and texts cut, and said so.
fn shortened(value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut shown: Vec<Value> = items.iter().take(ITEMS_MAX).map(shortened).collect();
            if items.len() > ITEMS_MAX {
                shown.push(Value::String(format!("… {} more", items.len() - ITEMS_MAX)));
            }
            Value::Array(shown)
        }
        Value::Object(members) => Value::Object(members.iter().map(|(name, value)| (name.clone(), shortened(value))).collect()),
        Value::String(text) if text.chars().count() > CHARS_MAX => {
            Value::String(text.chars().take(CHARS_MAX).chain(std::iter::once('…')).collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_read_as_they_would_be_typed_and_hold_no_key() {
        let call = Call::json(Method::POST, "/v1/orders", "hyk_secret", &json!({ "reason": "it's late" })).once("order-1");
        let text = "curl -sS \"$URL/v1/orders\" -H \"Authorization: Bearer $APP_KEY\" -H 'Idempotency-Key: order-1' \\\n  \
                    -H 'Content-Type: application/json' --data-binary '{\"reason\":\"it'\\''s late\"}'";
        assert_eq!(curl(&call, Key::App), text);
        assert_eq!(curl(&Call::get("/v1/me", "hyk_secret"), Key::Admin), "curl -sS \"$URL/v1/me\" -H \"Authorization: Bearer $ADMIN_KEY\"");
        let put = Call::json(Method::PUT, "/v1/tags/a", "hyk_secret", &json!({}));
        assert!(curl(&put, Key::Admin).starts_with("curl -sS -X PUT "));
    }

    #[test]
    fn long_answers_are_cut_and_say_so() {
        let long = json!({ "items": [1, 2, 3, 4, 5], "text": "字".repeat(300) });
        let short = shortened(&long);
        assert_eq!(short["items"], json!([1, 2, 3, "… 2 more"]));
        assert_eq!(short["text"].as_str().map(|text| text.chars().count()), Some(CHARS_MAX + 1));
    }
}
