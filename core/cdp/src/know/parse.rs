//! Reads the text of a feature definition, and says where it breaks off and what would be right there.

use super::expression::{Aggregation, Comparison, Condition, DAY_MINUTES, Expression, Fold, Window};
use super::value::{Number, Value};
use std::fmt;

/// Longest definition, in bytes.
pub(crate) const EXPRESSION_BYTES_MAX: usize = 500;
/// Most conditions of one filter.
const CONDITIONS_MAX: usize = 8;

/// Why a text is no feature definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// The character at which it breaks off, counted from 1.
    pub at: usize,
    /// What would be right there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at character {}: expected {}, found {}", self.at, self.expected, self.found)
    }
}

impl std::error::Error for ParseError {}

/// Reads a definition such as `sum(unit_viewed.dwell_ms where unit_type = '3br') over 30d`.
///
/// # Errors
/// [`ParseError`] with the position.
pub fn parse(text: &str) -> Result<Expression, ParseError> {
    if text.len() > EXPRESSION_BYTES_MAX {
        let found = format!("{} bytes", text.len());
        return Err(ParseError { at: 1, expected: format!("at most {EXPRESSION_BYTES_MAX} bytes"), found });
    }
    let mut parser = Parser { text, at: 0 };
    let expression = parser.feature()?;
    parser.skip_space();
    if parser.rest().is_empty() { Ok(expression) } else { Err(parser.error("the end")) }
}

struct Parser<'a> {
    text: &'a str,
    /// Bytes read.
    at: usize,
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn error(&self, expected: impl Into<String>) -> ParseError {
        let rest = self.rest();
        let piece: String = rest.chars().take_while(|c| is_word(*c)).take(24).collect();
        let piece = if piece.is_empty() { rest.chars().take(1).collect() } else { piece };
        let found = if piece.is_empty() { "the end".to_owned() } else { format!("`{piece}`") };
        ParseError { at: self.text[..self.at].chars().count() + 1, expected: expected.into(), found }
    }

    fn peek_word(&mut self) -> &'a str {
        self.skip_space();
        let rest = self.rest();
        &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())]
    }

    /// A name: letters, digits and underscores, not beginning with a digit.
    fn name(&mut self, what: &str) -> Result<String, ParseError> {
        let word = self.peek_word();
        if word.is_empty() || word.len() > 64 || word.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.error(what));
        }
        self.at += word.len();
        Ok(word.to_owned())
    }

    fn takes(&mut self, sign: &str) -> bool {
        self.skip_space();
        let there = self.rest().starts_with(sign);
        if there {
            self.at += sign.len();
        }
        there
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let there = self.peek_word() == word;
        if there {
            self.at += word.len();
        }
        there
    }

    fn sign(&mut self, sign: &str, why: &str) -> Result<(), ParseError> {
        if self.takes(sign) { Ok(()) } else { Err(self.error(format!("`{sign}` {why}"))) }
    }

    fn feature(&mut self) -> Result<Expression, ParseError> {
        let word = self.peek_word();
        if let Some(aggregation) = Aggregation::ALL.into_iter().find(|a| a.as_str() == word) {
            self.at += word.len();
            return self.fold(aggregation).map(Expression::Fold);
        }
        match word {
            "points" => {
                self.at += word.len();
                Ok(Expression::Points)
            }
            "profile" => self.after_dot(word, "the name of a trait, such as `profile.age`").map(Expression::Trait),
            "tag" => self.after_dot(word, "the name of a tag, such as `tag.high_intent`").map(Expression::Tag),
            "member" => {
                self.at += word.len();
                self.sign(".", "and `tier`")?;
                if self.takes_word("tier") { Ok(Expression::Tier) } else { Err(self.error("`tier`")) }
            }
            _ => Err(self.error(
                "`profile.…`, `tag.…`, `member.tier`, `points`, or one of count, sum, min, max, last, seconds_since with its event in brackets",
            )),
        }
    }

    fn after_dot(&mut self, word: &str, what: &str) -> Result<String, ParseError> {
        self.at += word.len();
        self.sign(".", &format!("and {what}"))?;
        self.name(what)
    }

    fn fold(&mut self, aggregation: Aggregation) -> Result<Fold, ParseError> {
        self.sign("(", "and the name of an event")?;
        let event = self.name("the name of an event, such as `unit_viewed`")?;
        let property = if self.takes(".") { Some(self.name("the name of a property of the event")?) } else { None };
        match (aggregation, &property) {
            (Aggregation::Sum | Aggregation::Min | Aggregation::Max | Aggregation::Last, None) => {
                return Err(self.error(format!("`.` and the property of {event} to take the {} of", aggregation.as_str())));
            }
            (Aggregation::SecondsSince, Some(_)) => {
                return Err(self.error("an event without a property: `seconds_since` counts from the event"));
            }
            _ => {}
        }
        let mut filter = self.filter()?;
        self.sign(")", "or `where`")?;
        let window = if self.takes_word("over") { Some(self.window()?) } else { None };
        if filter.is_empty() {
            filter = self.filter()?;
        }
        Ok(Fold { aggregation, event, property, filter, window })
    }

    fn filter(&mut self) -> Result<Vec<Condition>, ParseError> {
        let mut conditions = Vec::new();
        if !self.takes_word("where") {
            return Ok(conditions);
        }
        loop {
            conditions.push(self.condition()?);
            if !self.takes_word("and") {
                return Ok(conditions);
            }
            if conditions.len() == CONDITIONS_MAX {
                return Err(self.error(format!("no more than {CONDITIONS_MAX} conditions")));
            }
        }
    }

    fn condition(&mut self) -> Result<Condition, ParseError> {
        let property = self.name("the name of a property of the event")?;
        let comparison = Comparison::ALL.into_iter().find(|c| self.takes(c.as_str()));
        let comparison = comparison.ok_or_else(|| self.error("one of = != >= <= > <"))?;
        let at = self.at;
        let value = self.literal()?;
        let ordered = !matches!(comparison, Comparison::Is | Comparison::IsNot);
        if ordered && value.number().is_none() {
            self.at = at;
            self.skip_space();
            return Err(self.error(format!("a number after `{}`", comparison.as_str())));
        }
        Ok(Condition { property, comparison, value })
    }

    fn literal(&mut self) -> Result<Value, ParseError> {
        const EXPECTED: &str = "a number, true, false, or a text in single quotes";
        if self.takes("'") {
            return self.quoted().map(|text| Value::text(&text));
        }
        for (word, flag) in [("true", true), ("false", false)] {
            if self.takes_word(word) {
                return Ok(Value::Flag(flag));
            }
        }
        self.skip_space();
        let rest = self.rest();
        let length = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-')).unwrap_or(rest.len());
        let number = Number::parse(&rest[..length]).ok_or_else(|| self.error(EXPECTED))?;
        self.at += length;
        Ok(Value::Number(number))
    }

    /// The text up to the closing quote; a quote inside is written twice.
    fn quoted(&mut self) -> Result<String, ParseError> {
        let mut text = String::new();
        loop {
            let rest = self.rest();
            let Some(end) = rest.find('\'') else {
                self.at = self.text.len();
                return Err(self.error("a closing `'`"));
            };
            text.push_str(&rest[..end]);
            self.at += end + 1;
            if !self.rest().starts_with('\'') {
                return Ok(text);
            }
            text.push('\'');
            self.at += 1;
        }
    }

    fn window(&mut self) -> Result<Window, ParseError> {
        const EXPECTED: &str = "a window such as 30m, 24h or 7d";
        self.skip_space();
        let begin = self.at;
        let rest = self.rest();
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let Ok(amount) = rest[..digits].parse::<u32>() else { return Err(self.error(EXPECTED)) };
        self.at += digits;
        let unit = match self.rest().chars().next() {
            Some('m') => 1,
            Some('h') => 60,
            Some('d') => DAY_MINUTES,
            _ => return Err(self.error("`m`, `h` or `d` for minutes, hours or days")),
        };
        self.at += 1;
        if self.rest().starts_with(is_word) {
            return Err(self.error("a space or the end after the window"));
        }
        Window::minutes(amount.saturating_mul(unit)).map_err(|expected| {
            self.at = begin;
            self.error(expected)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form_and_prints_its_canonical_spelling() {
        for (text, canonical) in [
            ("profile.age", "profile.age"),
            ("tag.high_intent", "tag.high_intent"),
            ("member.tier", "member.tier"),
            (" points ", "points"),
            ("count(unit_viewed) over 7d", "count(unit_viewed) over 7d"),
            ("count( unit_viewed )over 168h", "count(unit_viewed) over 7d"),
            ("sum(order_paid.amount) over 90d", "sum(order_paid.amount) over 90d"),
            ("last(unit_viewed.unit_type)", "last(unit_viewed.unit_type)"),
            ("seconds_since(visit_checked_in)", "seconds_since(visit_checked_in)"),
            ("max(unit_viewed.price) over 90m", "max(unit_viewed.price) over 90m"),
            ("sum(unit_viewed.dwell_ms) over 30d where unit_type = '3b2l'", "sum(unit_viewed.dwell_ms where unit_type = '3b2l') over 30d"),
            ("sum(unit_viewed.dwell_ms where unit_type='3b2l') over 30d", "sum(unit_viewed.dwell_ms where unit_type = '3b2l') over 30d"),
            ("count(x where a = 'it''s 深圳' and b >= -1.5 and c = true)", "count(x where a = 'it''s 深圳' and b >= -1.5 and c = true)"),
        ] {
            let parsed = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(parsed.to_string(), canonical, "{text}");
            assert_eq!(parse(canonical).as_ref(), Ok(&parsed), "{canonical}");
        }
    }

    #[test]
    fn says_where_a_definition_breaks_off_and_what_would_be_right() {
        for (text, at, expected) in [
            ("", 1, "profile"),
            ("profile", 8, "`.`"),
            ("profile.", 9, "name of a trait"),
            ("cuont(unit_viewed)", 1, "count"),
            ("count unit_viewed", 7, "`(`"),
            ("count()", 7, "name of an event"),
            ("sum(order_paid)", 15, "property of order_paid"),
            ("seconds_since(a.b)", 18, "without a property"),
            ("count(a", 8, "`)`"),
            ("count(a) ovr 7d", 10, "the end"),
            ("count(a) over 7", 16, "`m`, `h` or `d`"),
            ("count(a) over 7days", 17, "a space or the end"),
            ("count(a) over 0d", 15, "1m to 1096d"),
            ("count(a) over 9999d", 15, "1m to 1096d"),
            ("count(a) over 1441m", 15, "whole hours"),
            ("count(a) over 745h", 15, "whole days"),
            ("count(a where b 'x')", 17, "one of ="),
            ("count(a where b = x)", 19, "single quotes"),
            ("count(a where b > 'x')", 19, "a number after"),
            ("count(a where 客户 = 'x')", 15, "name of a property"),
            ("count(a where b = '客户)", 23, "closing"),
            ("member.level", 8, "`tier`"),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!(error.at, at, "{text}: {error}");
            assert!(error.expected.contains(expected), "{text}: {error}");
        }
        assert!(parse(&"x".repeat(600)).is_err());
    }
}
