//! Finding the row to blame: a failing batch is halved until the bad row is alone, and the others keep their answers.

use std::collections::HashMap;

use crate::{
    CallError, Tagger, TaggerBatch,
    tagger::{NumberColumn, TagColumn, TextColumn},
};

/// Failing calls that one batch may cost. A bad row among 65,536 is alone after 17 of them; when many rows are bad, the rest of a
/// failing part fails together. Taggers keep the last tags of failed rows, so this bounds the damage of a hostile plugin.
const FAILING_CALLS_MAX: usize = 64;

/// A row that has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRow {
    pub row: usize,
    pub error: CallError,
}

/// The answers of all rows that could be answered.
#[derive(Clone, Debug, PartialEq)]
pub struct IsolatedAnswer {
    /// One column for each declared tag. A failed row has no value here, which does not mean that it lost its tags.
    pub columns: Vec<TagColumn>,
    /// In order of rows.
    pub failed: Vec<FailedRow>,
    pub calls: usize,
    pub log: String,
    pub fuel_used: u64,
}

impl TaggerBatch {
    fn slice(&self, start: usize, rows: usize) -> Self {
        let numbers = self
            .numbers
            .iter()
            .map(|column| NumberColumn { values: column.values[start..start + rows].to_vec(), present: column.present.slice(start, rows) });
        let texts = self
            .texts
            .iter()
            .map(|column| TextColumn { codes: column.codes[start..start + rows].to_vec(), dictionary: column.dictionary.clone() });
        Self { rows, numbers: numbers.collect(), texts: texts.collect(), ..*self }
    }
}

impl Tagger {
    /// Like [`Tagger::evaluate`], but one bad row costs only its own answer. Fails as a whole only where no row is to blame: the
    /// input is wrong, or as many calls as may run are running.
    pub fn evaluate_isolating(&self, batch: &TaggerBatch) -> Result<IsolatedAnswer, CallError> {
        let error = match self.evaluate(batch) {
            Ok(answer) => {
                return Ok(IsolatedAnswer {
                    columns: answer.columns,
                    failed: Vec::new(),
                    calls: 1,
                    log: answer.log,
                    fuel_used: answer.fuel_used,
                });
            }
            Err(error) if error.may_be_one_row() => error,
            Err(error) => return Err(error),
        };
        let mut search = Search::new(self, batch.rows);
        search.blame(0, batch.rows, error);
        while let Some((start, rows)) = search.waiting.pop() {
            search.calls += 1;
            match self.evaluate(&batch.slice(start, rows)) {
                Ok(answer) => {
                    search.fuel_used += answer.fuel_used;
                    search.answer.add(&answer.columns, start, rows);
                }
                Err(error) if error.may_be_one_row() => search.blame(start, rows, error),
                Err(error) => return Err(error),
            }
        }
        search.failed.sort_by_key(|failed| failed.row);
        Ok(IsolatedAnswer {
            columns: search.answer.columns,
            log: search.failed.first().map(|failed| failed.error.log().to_owned()).unwrap_or_default(),
            failed: search.failed,
            calls: search.calls,
            fuel_used: search.fuel_used,
        })
    }
}

struct Search {
    answer: Merged,
    failed: Vec<FailedRow>,
    /// Parts that are yet to be tried: start and rows.
    waiting: Vec<(usize, usize)>,
    calls: usize,
    failing_calls: usize,
    fuel_used: u64,
}

impl Search {
    fn new(tagger: &Tagger, rows: usize) -> Self {
        let columns = tagger.description().writes.iter().map(|tag| TagColumn::empty(tag.kind, rows)).collect();
        let places = tagger.description().writes.iter().map(|_| HashMap::new()).collect();
        Self { answer: Merged { columns, places }, failed: Vec::new(), waiting: Vec::new(), calls: 1, failing_calls: 0, fuel_used: 0 }
    }

    fn blame(&mut self, start: usize, rows: usize, error: CallError) {
        self.failing_calls += 1;
        if rows > 1 && self.failing_calls < FAILING_CALLS_MAX {
            let half = rows / 2;
            self.waiting.push((start + half, rows - half));
            self.waiting.push((start, half));
        } else {
            self.failed.extend((start..start + rows).map(|row| FailedRow { row, error: error.clone() }));
        }
    }
}

/// Columns put together from parts, each with a dictionary of its own.
struct Merged {
    columns: Vec<TagColumn>,
    /// For text columns: the code of each text in the merged dictionary.
    places: Vec<HashMap<String, u32>>,
}

impl Merged {
    fn add(&mut self, parts: &[TagColumn], start: usize, rows: usize) {
        for ((column, part), places) in self.columns.iter_mut().zip(parts).zip(&mut self.places) {
            match (column, part) {
                (TagColumn::Flag { values, present }, TagColumn::Flag { values: part_values, present: part_present }) => {
                    (0..rows).filter(|&row| part_values.get(row)).for_each(|row| values.set(start + row));
                    (0..rows).filter(|&row| part_present.get(row)).for_each(|row| present.set(start + row));
                }
                (TagColumn::Number(column), TagColumn::Number(part)) => {
                    column.values[start..start + rows].copy_from_slice(&part.values);
                    (0..rows).filter(|&row| part.present.get(row)).for_each(|row| column.present.set(start + row));
                }
                (TagColumn::Text(column), TagColumn::Text(part)) => {
                    for row in 0..rows {
                        if let Some(text) = part.text(row) {
                            column.codes[start + row] = *places.entry(text.to_owned()).or_insert_with(|| {
                                column.dictionary.push(text.to_owned());
                                column.dictionary.len() as u32
                            });
                        }
                    }
                }
                // Both were checked against the same description.
                _ => {}
            }
        }
    }
}
