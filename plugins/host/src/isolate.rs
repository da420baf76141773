//! Finding the row to blame: a failing batch is halved until the bad row is alone, and the others keep their answers.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    CallError, Tagger, TaggerBatch,
    tagger::{NumberColumn, TagColumn, TextColumn},
};

/// Failing calls that one batch may cost, and so less than twice as many calls in all. A bad row among 65,536 is alone after 17 of
/// them. When so many rows are bad that this does not do, what was not tried alone fails together: callers keep what those rows had
/// before, which bounds the damage of a plugin that fails on every row.
const FAILING_CALLS_MAX: usize = 128;

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
    /// Like [`Tagger::evaluate`], but one bad row costs only its own answer: a failing batch is halved, also when it was stopped
    /// because all of it together is too much. No call begins later than `patience` after the first one; with none at all a failing
    /// batch fails together. Fails as a whole only where no row is to blame: the input is wrong, or as many calls as may run are
    /// running.
    pub fn evaluate_isolating(&self, batch: &TaggerBatch, patience: Duration) -> Result<IsolatedAnswer, CallError> {
        let began = Instant::now();
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
        let mut search = Search::new(self, batch);
        search.out_of_patience = patience.is_zero();
        search.blame(0, batch.rows, error);
        while let Some(Part { start, rows, above }) = search.waiting.pop() {
            if began.elapsed() >= patience {
                search.out_of_patience = true;
                search.blame(start, rows, above);
                continue;
            }
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
    waiting: Vec<Part>,
    calls: usize,
    failing_calls: usize,
    out_of_patience: bool,
    fuel_used: u64,
    /// Decides which half goes first.
    seed: u64,
}

/// A part that is yet to be tried.
struct Part {
    start: usize,
    rows: usize,
    /// Why the part above failed.
    above: CallError,
}

impl Search {
    fn new(tagger: &Tagger, batch: &TaggerBatch) -> Self {
        let rows = batch.rows;
        let columns = tagger.description().writes.iter().map(|tag| TagColumn::empty(tag.kind, rows)).collect();
        let places = tagger.description().writes.iter().map(|_| HashMap::new()).collect();
        Self {
            answer: Merged { columns, places },
            failed: Vec::new(),
            waiting: Vec::new(),
            calls: 1,
            failing_calls: 0,
            out_of_patience: false,
            fuel_used: 0,
            seed: batch.now_ms.cast_unsigned(),
        }
    }

    fn blame(&mut self, start: usize, rows: usize, error: CallError) {
        self.failing_calls += 1;
        if rows > 1 && self.failing_calls < FAILING_CALLS_MAX && !self.out_of_patience {
            let half = rows / 2;
            let left = Part { start, rows: half, above: error.clone() };
            let right = Part { start: start + half, rows: rows - half, above: error };
            let (first, then) = if self.left_first(start, rows) { (left, right) } else { (right, left) };
            self.waiting.push(then);
            self.waiting.push(first);
        } else {
            self.failed.extend((start..start + rows).map(|row| FailedRow { row, error: error.clone() }));
        }
    }
}

impl Search {
    /// Where the bound is met, other rows than at another moment are left untried, so that asking again gets to each of them. The
    /// same batch is searched in the same order.
    fn left_first(&self, start: usize, rows: usize) -> bool {
        // The finalizer of SplitMix64: every bit of the seed reaches the lowest one. A part and its left half begin at one row, so
        // the size counts too: else the search would run down one edge.
        let part = ((start as u64) << 32) | rows as u64;
        let mut mixed = self.seed.wrapping_add(part.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) & 1 == 0
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
