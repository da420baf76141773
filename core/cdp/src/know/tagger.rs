//! What plugins that tag are asked, and by whom they are run: traits of this wing that the server wires to the plugin host.

use super::value::{Number, Value};
use futures::future::BoxFuture;
use heyuan_kernel::Problem;
use std::collections::HashMap;

/// Rows of one call.
pub const TAGGER_ROWS_MAX: usize = 4096;

/// What a tagger wants a feature as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FeatureKind {
    /// A 64-bit float; a flag reads as 1 or 0.
    Number,
    /// Text.
    Text,
}

/// A feature that a tagger reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TaggerFeature {
    /// A declared name, a declared expression, or `tag.…`.
    pub name: String,
    /// As what.
    pub kind: FeatureKind,
}

/// A tagger that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveTagger {
    /// The plugin's name.
    pub name: String,
    /// The version in force.
    pub digest: String,
    /// Changes with every activation.
    pub generation: i64,
    /// What it reads, in the order of its columns.
    pub features: Vec<TaggerFeature>,
    /// What it writes.
    pub tags: Vec<String>,
    /// After how long time alone may change an answer.
    pub refresh_s: Option<u64>,
}

impl ActiveTagger {
    /// The version that its tags name.
    pub(crate) fn version(&self) -> String {
        format!("{}@{}", self.name, &self.digest[..self.digest.len().min(12)])
    }
}

/// One feature of many customers.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// The feature as the tagger declared it.
    pub name: String,
    /// Its values.
    pub values: ColumnValues,
}

/// The values of a column, one a row.
#[derive(Debug, Clone, PartialEq)]
pub enum ColumnValues {
    /// Numbers, 0 where absent, and which rows have one.
    Numbers(Vec<f64>, Vec<bool>),
    /// Codes into the dictionary counted from 1, 0 where absent.
    Texts(Vec<u32>, Vec<String>),
}

/// What a tagger is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct TaggerBatch {
    /// The moment for which tags are asked, in milliseconds since 1970.
    pub now_ms: i64,
    /// One column for each feature that the tagger reads, in its order.
    pub columns: Vec<Column>,
    /// How many customers.
    pub rows: usize,
}

/// One tag of the batch's customers; `None` is "has no such tag".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagColumn {
    /// The tag.
    pub tag: String,
    /// One value a row.
    pub values: Vec<Option<String>>,
}

/// What a tagger answered for a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaggerAnswer {
    /// A column for each tag that it writes.
    pub columns: Vec<TagColumn>,
    /// Rows for which it has no answer, because it failed on them; what the columns hold there means nothing.
    pub failed: Vec<usize>,
}

/// The taggers of the tenant.
pub trait Taggers: Send + Sync {
    /// Those that are in force.
    fn active(&self) -> BoxFuture<'_, Result<Vec<ActiveTagger>, Problem>>;
    /// Asks one. A row on which it fails costs its own answer; a problem is an answer for no row.
    fn evaluate<'a>(&'a self, tagger: &'a ActiveTagger, batch: TaggerBatch) -> BoxFuture<'a, Result<TaggerAnswer, Problem>>;
}

/// A tenant without taggers.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTaggers;

impl Taggers for NoTaggers {
    fn active(&self) -> BoxFuture<'_, Result<Vec<ActiveTagger>, Problem>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn evaluate<'a>(&'a self, tagger: &'a ActiveTagger, _: TaggerBatch) -> BoxFuture<'a, Result<TaggerAnswer, Problem>> {
        Box::pin(async move { Err(Problem::not_found("tagger", &tagger.name)) })
    }
}

/// Lays one feature of many customers out as a column; a value of another kind than declared is absent.
pub(crate) fn column(feature: &TaggerFeature, values: impl Iterator<Item = Option<Value>>) -> Column {
    let values = match feature.kind {
        FeatureKind::Number => {
            let (numbers, present) = values.map(|value| as_number(value).map_or((0.0, false), |number| (number, true))).unzip();
            ColumnValues::Numbers(numbers, present)
        }
        FeatureKind::Text => {
            let (mut codes, mut dictionary, mut known) = (Vec::new(), Vec::new(), HashMap::new());
            for value in values {
                let Some(Value::Text(text)) = value else {
                    codes.push(0);
                    continue;
                };
                let text = text.to_string();
                let code = *known.entry(text).or_insert_with_key(|text| {
                    dictionary.push(text.clone());
                    u32::try_from(dictionary.len()).unwrap_or(u32::MAX)
                });
                codes.push(code);
            }
            ColumnValues::Texts(codes, dictionary)
        }
    };
    Column { name: feature.name.clone(), values }
}

fn as_number(value: Option<Value>) -> Option<f64> {
    match value? {
        Value::Number(number) => Some(number.as_float()),
        Value::Flag(flag) => Some(f64::from(u8::from(flag))),
        // A tag that is a number or a flag reads as one.
        Value::Text(text) => match &*text {
            "true" => Some(1.0),
            "false" => Some(0.0),
            other => Number::parse(other).map(Number::as_float),
        },
        Value::Moment(ms) => Some(ms as f64 / 1000.0),
    }
}
