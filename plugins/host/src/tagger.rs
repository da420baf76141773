//! Calling a tagger: features as columns in, tags as columns out.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    CallError, Digest, FeatureKind, Tag, TagKind, TaggerDescription,
    call::{Call, CallState},
    description::VALUE_BYTES_MAX,
    host::Shared,
    worlds::tagger::{TaggerPre, exports::heyuan::plugins::tagging as wit},
};

/// A batch has no more rows than this; callers cut their own batches.
const ROWS_MAX: usize = 1 << 16;

/// One bit a row, the first row in the lowest bit of the first word.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bits(Vec<u64>);

impl Bits {
    pub fn none(rows: usize) -> Self {
        Self(vec![0; rows.div_ceil(64)])
    }

    pub fn all(rows: usize) -> Self {
        let mut words = vec![u64::MAX; rows.div_ceil(64)];
        if let (Some(last), left @ 1..) = (words.last_mut(), rows % 64) {
            *last = (1 << left) - 1;
        }
        Self(words)
    }

    /// False past the end.
    pub fn get(&self, row: usize) -> bool {
        self.0.get(row / 64).is_some_and(|word| word >> (row % 64) & 1 == 1)
    }

    /// Does nothing past the end.
    pub fn set(&mut self, row: usize) {
        if let Some(word) = self.0.get_mut(row / 64) {
            *word |= 1 << (row % 64);
        }
    }

    pub fn words(&self) -> &[u64] {
        &self.0
    }

    pub(crate) fn slice(&self, start: usize, rows: usize) -> Self {
        let mut bits = Self::none(rows);
        (0..rows).filter(|row| self.get(start + row)).for_each(|row| bits.set(row));
        bits
    }
}

/// Numbers of one feature or tag, one a row; 0 where absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NumberColumn {
    pub values: Vec<f64>,
    pub present: Bits,
}

impl FromIterator<Option<f64>> for NumberColumn {
    fn from_iter<I: IntoIterator<Item = Option<f64>>>(rows: I) -> Self {
        let rows: Vec<Option<f64>> = rows.into_iter().collect();
        let mut present = Bits::none(rows.len());
        (0..rows.len()).filter(|&row| rows[row].is_some()).for_each(|row| present.set(row));
        Self { values: rows.into_iter().map(|value| value.unwrap_or(0.0)).collect(), present }
    }
}

/// Texts of one feature or tag: a code a row, 0 where absent, else the place in the dictionary counted from 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextColumn {
    pub codes: Vec<u32>,
    pub dictionary: Vec<String>,
}

impl TextColumn {
    pub fn text(&self, row: usize) -> Option<&str> {
        let place = (*self.codes.get(row)? as usize).checked_sub(1)?;
        self.dictionary.get(place).map(String::as_str)
    }
}

impl<'a> FromIterator<Option<&'a str>> for TextColumn {
    fn from_iter<I: IntoIterator<Item = Option<&'a str>>>(rows: I) -> Self {
        let mut places = std::collections::HashMap::new();
        let mut column = Self::default();
        for text in rows {
            let code = text.map_or(0, |text| {
                *places.entry(text).or_insert_with(|| {
                    column.dictionary.push(text.to_owned());
                    column.dictionary.len() as u32
                })
            });
            column.codes.push(code);
        }
        column
    }
}

/// Customers to tag, as columns of what the tagger declared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaggerBatch {
    /// The moment for which tags are asked, in milliseconds since 1970 (UTC).
    pub now_ms: i64,
    /// What to add to UTC for the tenant's local time at that moment.
    pub utc_offset_seconds: i32,
    pub rows: usize,
    /// The number features of the description, in its order.
    pub numbers: Vec<NumberColumn>,
    /// The text features of the description, in its order.
    pub texts: Vec<TextColumn>,
}

impl TaggerBatch {
    fn check(&self, description: &TaggerDescription) -> Result<(), CallError> {
        let refuse = |message: String| Err(CallError::InvalidInput(message));
        if self.rows > ROWS_MAX {
            return refuse(format!("a batch has at most {ROWS_MAX} rows, not {}", self.rows));
        }
        let (numbers, texts) = (description.count(FeatureKind::Number), description.count(FeatureKind::Text));
        if self.numbers.len() != numbers || self.texts.len() != texts {
            return refuse(format!(
                "the tagger reads {numbers} numbers and {texts} texts, the batch has {} and {}",
                self.numbers.len(),
                self.texts.len()
            ));
        }
        let words = self.rows.div_ceil(64);
        if self.numbers.iter().any(|column| column.values.len() != self.rows || column.present.0.len() != words) {
            return refuse(format!("a number column does not have {} rows", self.rows));
        }
        for column in &self.texts {
            if column.codes.len() != self.rows {
                return refuse(format!("a text column does not have {} rows", self.rows));
            }
            if max_code(&column.codes) as usize > column.dictionary.len() {
                return refuse("a code of a text column lies past its dictionary".to_owned());
            }
        }
        Ok(())
    }
}

fn max_code(codes: &[u32]) -> u32 {
    codes.iter().copied().max().unwrap_or(0)
}

/// The answers for one tag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TagColumn {
    Flag { values: Bits, present: Bits },
    Number(NumberColumn),
    Text(TextColumn),
}

/// One customer's value of one tag.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum TagValue<'a> {
    Flag(bool),
    Number(f64),
    Text(&'a str),
}

impl TagColumn {
    /// `None` when the row does not have the tag.
    pub fn value(&self, row: usize) -> Option<TagValue<'_>> {
        match self {
            Self::Flag { values, present } => present.get(row).then(|| TagValue::Flag(values.get(row))),
            Self::Number(column) => column.values.get(row).filter(|_| column.present.get(row)).map(|&value| TagValue::Number(value)),
            Self::Text(column) => column.text(row).map(TagValue::Text),
        }
    }

    pub(crate) fn empty(kind: TagKind, rows: usize) -> Self {
        match kind {
            TagKind::Flag => Self::Flag { values: Bits::none(rows), present: Bits::none(rows) },
            TagKind::Number => Self::Number(NumberColumn { values: vec![0.0; rows], present: Bits::none(rows) }),
            TagKind::Text => Self::Text(TextColumn { codes: vec![0; rows], dictionary: Vec::new() }),
        }
    }
}

/// What a tagger answered for a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct TaggerAnswer {
    /// One column for each declared tag, in that order.
    pub columns: Vec<TagColumn>,
    pub log: String,
    /// Shown to authors; comparable only within one build of the host.
    pub fuel_used: u64,
}

/// A tagger that can be called, from any thread.
#[derive(Clone)]
pub struct Tagger(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    digest: Digest,
    pre: TaggerPre<CallState>,
    description: TaggerDescription,
}

impl Tagger {
    pub(crate) fn new(shared: Arc<Shared>, digest: Digest, pre: TaggerPre<CallState>, description: TaggerDescription) -> Self {
        Self(Arc::new(Inner { shared, digest, pre, description }))
    }

    pub fn digest(&self) -> Digest {
        self.0.digest
    }

    pub fn description(&self) -> &TaggerDescription {
        &self.0.description
    }

    /// Tags a batch in a fresh instance. Blocks for the time of the call: microseconds as a rule, at most the deadline.
    pub fn evaluate(&self, batch: &TaggerBatch) -> Result<TaggerAnswer, CallError> {
        batch.check(&self.0.description)?;
        let shared = &self.0.shared;
        let mut call = Call::new(&shared.engine, &shared.clock, &shared.tagger, batch.rows)?;
        let numbers: Vec<_> =
            batch.numbers.iter().map(|column| wit::NumberColumnParam { values: &column.values, present: &column.present.0 }).collect();
        let dictionaries: Vec<Vec<&str>> =
            batch.texts.iter().map(|column| column.dictionary.iter().map(String::as_str).collect()).collect();
        let texts: Vec<_> = batch
            .texts
            .iter()
            .zip(&dictionaries)
            .map(|(column, dictionary)| wit::TextColumnParam { codes: &column.codes, dictionary })
            .collect();
        let input = wit::Batch {
            now_ms: batch.now_ms,
            utc_offset_seconds: batch.utc_offset_seconds,
            rows: batch.rows as u32,
            numbers: &numbers,
            texts: &texts,
        };
        let answer = self
            .0
            .pre
            .instantiate(&mut call.store)
            .and_then(|instance| instance.heyuan_plugins_tagging().call_evaluate(&mut call.store, input))
            .map_err(|error| call.failed(&error))?;
        let columns = answer.map_err(|message| call.guest_error(&message))?;
        let columns = self.checked(columns, batch.rows).map_err(|message| call.refused(message))?;
        Ok(TaggerAnswer { columns, fuel_used: call.fuel_used(), log: call.log() })
    }

    /// For the bench: what instantiation alone costs.
    pub(crate) fn instantiate_only(&self) -> Result<(), CallError> {
        let shared = &self.0.shared;
        let mut call = Call::new(&shared.engine, &shared.clock, &shared.tagger, 0)?;
        self.0.pre.instantiate(&mut call.store).map_err(|error| call.failed(&error))?;
        Ok(())
    }

    fn checked(&self, columns: Vec<wit::TagColumn>, rows: usize) -> Result<Vec<TagColumn>, String> {
        let writes = &self.0.description.writes;
        if columns.len() != writes.len() {
            return Err(format!("it declared {} tags and answered {}", writes.len(), columns.len()));
        }
        columns.into_iter().zip(writes).map(|(column, tag)| checked_column(column, tag, rows)).collect()
    }
}

fn checked_column(column: wit::TagColumn, tag: &Tag, rows: usize) -> Result<TagColumn, String> {
    let name = &tag.name;
    let words = rows.div_ceil(64);
    let wrong_rows = || format!("tag {name} does not have {rows} rows");
    match (column, tag.kind) {
        (wit::TagColumn::Flag(column), TagKind::Flag) => {
            if column.values.len() != words || column.present.len() != words {
                return Err(wrong_rows());
            }
            Ok(TagColumn::Flag { values: Bits(column.values), present: Bits(column.present) })
        }
        (wit::TagColumn::Number(column), TagKind::Number) => {
            if column.values.len() != rows || column.present.len() != words {
                return Err(wrong_rows());
            }
            if let Some(row) = column.values.iter().position(|value| !value.is_finite()) {
                return Err(format!("tag {name} is no finite number in row {row}"));
            }
            Ok(TagColumn::Number(NumberColumn { values: column.values, present: Bits(column.present) }))
        }
        (wit::TagColumn::Text(column), TagKind::Text) => {
            if column.codes.len() != rows {
                return Err(wrong_rows());
            }
            if max_code(&column.codes) as usize > column.dictionary.len() {
                return Err(format!("a code of tag {name} lies past its dictionary"));
            }
            if column.dictionary.iter().any(|text| text.len() > VALUE_BYTES_MAX) {
                return Err(format!("a text of tag {name} is longer than {VALUE_BYTES_MAX} bytes"));
            }
            if column.dictionary.iter().any(|text| text.contains('\0')) {
                return Err(format!("a text of tag {name} has a NUL character"));
            }
            if let Some(text) = column.dictionary.iter().find(|text| !tag.values.is_empty() && !tag.values.contains(text)) {
                return Err(format!("tag {name} never declared the value {text:?}"));
            }
            Ok(TagColumn::Text(TextColumn { codes: column.codes, dictionary: column.dictionary }))
        }
        _ => Err(format!("tag {name} is of another kind than declared")),
    }
}
