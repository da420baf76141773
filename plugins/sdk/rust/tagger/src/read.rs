//! How columns of features become one row at a time.

use crate::{Batch, FeatureKind, NumberColumn, TextColumn};

/// A type that a field of a `Features` struct can have.
pub trait Feature<'a> {
    const KIND: FeatureKind;
    type Column;

    /// Takes this feature's column, which is the next of its kind.
    fn column(cursor: &mut Cursor<'a>) -> Result<Self::Column, String>;
    fn read(column: &Self::Column, row: usize) -> Self;
}

/// A struct of features; `#[derive(Features)]` writes this.
pub trait Features<'a>: Sized {
    type Columns;

    fn reads() -> Vec<crate::FeatureDeclaration>;
    fn columns(cursor: &mut Cursor<'a>) -> Result<Self::Columns, String>;
    fn row(columns: &Self::Columns, row: usize) -> Self;
}

/// The columns of a batch that no field has taken yet.
pub struct Cursor<'a> {
    rows: usize,
    numbers: std::slice::Iter<'a, NumberColumn>,
    texts: std::slice::Iter<'a, TextColumn>,
}

impl<'a> Cursor<'a> {
    pub fn new(batch: &'a Batch) -> Self {
        Self { rows: batch.rows as usize, numbers: batch.numbers.iter(), texts: batch.texts.iter() }
    }
}

pub struct NumberReader<'a> {
    values: &'a [f64],
    present: &'a [u64],
}

pub struct TextReader<'a> {
    codes: &'a [u32],
    dictionary: &'a [String],
}

impl<'a> Feature<'a> for Option<f64> {
    const KIND: FeatureKind = FeatureKind::Number;
    type Column = NumberReader<'a>;

    fn column(cursor: &mut Cursor<'a>) -> Result<Self::Column, String> {
        let column = cursor.numbers.next().ok_or("the batch lacks a number column")?;
        if column.values.len() < cursor.rows || column.present.len() * 64 < cursor.rows {
            return Err("a number column is shorter than the batch".to_owned());
        }
        // Cut to the batch, so that the compiler sees that no row lies outside.
        Ok(NumberReader { values: &column.values[..cursor.rows], present: &column.present })
    }

    #[inline(always)]
    fn read(column: &Self::Column, row: usize) -> Self {
        let present = column.present[row / 64] >> (row % 64) & 1 == 1;
        present.then(|| column.values[row])
    }
}

impl<'a> Feature<'a> for Option<&'a str> {
    const KIND: FeatureKind = FeatureKind::Text;
    type Column = TextReader<'a>;

    fn column(cursor: &mut Cursor<'a>) -> Result<Self::Column, String> {
        let column = cursor.texts.next().ok_or("the batch lacks a text column")?;
        if column.codes.len() < cursor.rows {
            return Err("a text column is shorter than the batch".to_owned());
        }
        Ok(TextReader { codes: &column.codes[..cursor.rows], dictionary: &column.dictionary })
    }

    #[inline(always)]
    fn read(column: &Self::Column, row: usize) -> Self {
        let place = (column.codes[row] as usize).checked_sub(1)?;
        column.dictionary.get(place).map(String::as_str)
    }
}
