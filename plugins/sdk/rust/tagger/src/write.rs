//! How the answers of rows become columns.

use std::collections::HashMap;

use crate::{FlagColumn, NumberColumn, TagColumn, TagDeclaration, TagKind, TextColumn};

/// A type that a field of a `Tags` struct can have, alone or in an `Option`.
pub trait TagField {
    const KIND: TagKind;
    type Column;

    /// The values that a text tag can take; empty when any text may come.
    fn values() -> &'static [&'static str] {
        &[]
    }
    fn column(rows: usize) -> Self::Column;
    /// Writes one row once; a row without a value has no tag.
    fn write(value: Option<Self>, column: &mut Self::Column, row: usize)
    where
        Self: Sized;
    fn finish(column: Self::Column) -> TagColumn;
}

/// A struct of tags; `#[derive(Tags)]` writes this.
pub trait Tags: Sized {
    type Columns;

    fn writes() -> Vec<TagDeclaration>;
    fn columns(rows: usize) -> Self::Columns;
    fn write(self, columns: &mut Self::Columns, row: usize);
    fn finish(columns: Self::Columns) -> Vec<TagColumn>;
}

/// What a tagger's function may return.
pub trait IntoTags {
    type Tags: Tags;

    fn into_tags(self) -> Result<Self::Tags, String>;
}

impl<T: Tags> IntoTags for T {
    type Tags = T;

    #[inline(always)]
    fn into_tags(self) -> Result<T, String> {
        Ok(self)
    }
}

impl<T: Tags> IntoTags for Result<T, String> {
    type Tags = T;

    #[inline(always)]
    fn into_tags(self) -> Self {
        self
    }
}

/// An enum whose variants are the values of a text tag; `#[derive(TagText)]` writes this.
pub trait TagText {
    const VALUES: &'static [&'static str];

    /// The variant's place in `VALUES`.
    fn place(&self) -> u32;
}

/// Without a branch: whether a customer has a tag is as good as random.
#[inline(always)]
fn set(bits: &mut [u64], row: usize, bit: bool) {
    bits[row / 64] |= u64::from(bit) << (row % 64);
}

fn no_bits(rows: usize) -> Vec<u64> {
    vec![0; rows.div_ceil(64)]
}

pub struct Numbers(NumberColumn);

impl TagField for f64 {
    const KIND: TagKind = TagKind::Number;
    type Column = Numbers;

    fn column(rows: usize) -> Numbers {
        Numbers(NumberColumn { values: vec![0.0; rows], present: no_bits(rows) })
    }

    #[inline(always)]
    fn write(value: Option<Self>, column: &mut Numbers, row: usize) {
        column.0.values[row] = value.unwrap_or(0.0);
        set(&mut column.0.present, row, value.is_some());
    }

    fn finish(column: Numbers) -> TagColumn {
        TagColumn::Number(column.0)
    }
}

pub struct Flags(FlagColumn);

impl TagField for bool {
    const KIND: TagKind = TagKind::Flag;
    type Column = Flags;

    fn column(rows: usize) -> Flags {
        Flags(FlagColumn { values: no_bits(rows), present: no_bits(rows) })
    }

    #[inline(always)]
    fn write(value: Option<Self>, column: &mut Flags, row: usize) {
        set(&mut column.0.values, row, value.unwrap_or(false));
        set(&mut column.0.present, row, value.is_some());
    }

    fn finish(column: Flags) -> TagColumn {
        TagColumn::Flag(column.0)
    }
}

/// Codes into a dictionary that is known from the start.
pub struct Codes {
    codes: Vec<u32>,
    values: &'static [&'static str],
}

impl<T: TagText> TagField for T {
    const KIND: TagKind = TagKind::Text;
    type Column = Codes;

    fn values() -> &'static [&'static str] {
        T::VALUES
    }

    fn column(rows: usize) -> Codes {
        Codes { codes: vec![0; rows], values: T::VALUES }
    }

    #[inline(always)]
    fn write(value: Option<Self>, column: &mut Codes, row: usize) {
        column.codes[row] = value.map_or(0, |value| value.place() + 1);
    }

    fn finish(column: Codes) -> TagColumn {
        let dictionary = column.values.iter().map(|&value| value.to_owned()).collect();
        TagColumn::Text(TextColumn { codes: column.codes, dictionary })
    }
}

/// Codes into a dictionary that grows with what the rows answer.
pub struct Texts {
    column: TextColumn,
    places: HashMap<String, u32, std::hash::BuildHasherDefault<std::hash::DefaultHasher>>,
}

impl Texts {
    fn code(&mut self, text: &str) -> u32 {
        if let Some(&code) = self.places.get(text) {
            return code;
        }
        self.column.dictionary.push(text.to_owned());
        let code = self.column.dictionary.len() as u32;
        self.places.insert(text.to_owned(), code);
        code
    }
}

macro_rules! free_text {
    ($($text:ty),*) => {$(
        impl TagField for $text {
            const KIND: TagKind = TagKind::Text;
            type Column = Texts;

            fn column(rows: usize) -> Texts {
                Texts { column: TextColumn { codes: vec![0; rows], dictionary: Vec::new() }, places: HashMap::default() }
            }

            fn write(value: Option<Self>, column: &mut Texts, row: usize) {
                if let Some(text) = value {
                    column.column.codes[row] = column.code(&text);
                }
            }

            fn finish(column: Texts) -> TagColumn {
                TagColumn::Text(column.column)
            }
        }
    )*};
}

free_text!(String, &'static str);
