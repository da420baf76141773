//! Configuration from a file and the environment; a bad value stops the start and is named.

use crate::error::Error;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::path::Path;
use toml::{Table, Value};

/// The start of every environment variable; sections are parted by two underscores: `HEYUAN_COLLECT__BACKLOG_ROWS_MAX=100000`.
const PREFIX: &str = "HEYUAN_";

/// Reads settings: defaults of `T`, then the TOML file, then the environment. Variables without a section part are not settings.
///
/// # Errors
/// [`Error::File`] when the file can't be read, [`Error::Setting`] with the key for a value that is not allowed.
pub fn load<T: DeserializeOwned>(file: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Result<T, Error> {
    let mut table = match file {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|source| Error::File {
                doing: "read the configuration",
                path: path.display().to_string(),
                source,
            })?;
            text.parse::<Table>().map_err(|e| Error::Setting { key: path.display().to_string(), why: e.message().to_owned() })?
        }
        None => Table::new(),
    };
    for (name, text) in environment {
        if let Some((section, key)) = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once("__")) {
            let section = table.entry(section.to_lowercase()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(section) = section {
                section.insert(key.to_lowercase(), scalar(&text));
            }
        }
    }
    serde_path_to_error::deserialize(Value::Table(table))
        .map_err(|error| Error::Setting { key: error.path().to_string(), why: error.into_inner().message().to_owned() })
}

/// A secret from the configuration; it is never printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// A secret.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The secret itself, for whoever it is shared with.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

fn scalar(text: &str) -> Value {
    if let Ok(number) = text.parse::<i64>() {
        return Value::Integer(number);
    }
    match text {
        "true" => Value::Boolean(true),
        "false" => Value::Boolean(false),
        _ => Value::String(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Settings {
        collect: Collect,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Collect {
        rows_max: u32,
    }

    fn check(variable: &str, value: &str) -> Result<u32, String> {
        let environment = [(variable.to_owned(), value.to_owned())];
        load::<Settings>(None, environment.into_iter()).map(|s| s.collect.rows_max).map_err(|e| e.to_string())
    }

    #[test]
    fn the_environment_overrides_and_bad_values_are_named() {
        assert_eq!(check("HEYUAN_COLLECT__ROWS_MAX", "7"), Ok(7));
        assert_eq!(check("HEYUAN_CACHE", "7"), Ok(0));
        assert!(check("HEYUAN_COLLECT__ROWS_MAX", "many").is_err_and(|e| e.contains("collect.rows_max")));
        assert!(check("HEYUAN_COLLECT__ROW_MAX", "7").is_err_and(|e| e.contains("row_max")));
    }
}
