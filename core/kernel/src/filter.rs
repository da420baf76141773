//! The conditions of a list: equal to, within reach, after a cursor.

use crate::actor::Reach;
use sea_orm::Value;

/// Conditions with their values, in the order of the placeholders.
pub struct Filter {
    text: String,
    values: Vec<Value>,
}

impl Filter {
    /// No condition yet.
    pub fn everything() -> Filter {
        Filter { text: "WHERE 1 = 1".into(), values: Vec::new() }
    }

    /// `column operator value`.
    pub fn and(mut self, column: &str, operator: &str, value: impl Into<Value>) -> Filter {
        self.values.push(value.into());
        self.text.push_str(&format!(" AND {column} {operator} ${}", self.values.len()));
        self
    }

    /// The condition, when there is a value.
    pub fn and_if(self, column: &str, operator: &str, value: Option<impl Into<Value>>) -> Filter {
        match value {
            Some(value) => self.and(column, operator, value),
            None => self,
        }
    }

    /// A condition over several values; `text` gets the number of the first placeholder.
    pub fn and_text(mut self, text: impl FnOnce(usize) -> String, values: impl IntoIterator<Item = Value>) -> Filter {
        let first = self.values.len() + 1;
        self.values.extend(values);
        self.text.push_str(&format!(" AND ({})", text(first)));
        self
    }

    /// Only records of units within reach.
    pub fn within(mut self, column: &str, reach: &Reach) -> Filter {
        if let Reach::Units(units) = reach {
            let from = self.values.len() + 1;
            self.values.extend(units.iter().map(|unit| Value::from(unit.as_str())));
            let list = crate::sql::placeholders(from, units.len());
            self.text.push_str(&format!(" AND {column} IN ({})", if list.is_empty() { "NULL" } else { &list }));
        }
        self
    }

    /// The conditions alone.
    pub fn text(self) -> (String, Vec<Value>) {
        (self.text, self.values)
    }

    /// The whole statement, ordered by `column`, with one row more than the page holds.
    pub fn page(self, select: &str, column: &str, limit: u64) -> (String, Vec<Value>) {
        (format!("{select} {} ORDER BY {column} LIMIT {}", self.text, limit + 1), self.values)
    }
}
