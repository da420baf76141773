//! Files of rows as people's programs export them: their encoding, their header, and what is wrong with which row.

use crate::error::Problem;
use encoding_rs::{Encoding, GB18030, GBK, UTF_8};
use serde::Serialize;
use utoipa::ToSchema;

/// Longest cell, in bytes.
const CELL_BYTES_MAX: usize = 200;

/// A column that a file may have.
#[derive(Debug, Clone, Copy)]
pub struct Heading {
    /// What errors call it.
    pub field: &'static str,
    /// What files call it, whatever the case of its letters; the first that a file has counts.
    pub names: &'static [&'static str],
    /// Whether a row says nothing without it.
    pub needed: bool,
}

/// A needed column that the header lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingColumn {
    /// The column.
    pub field: &'static str,
    /// What it may be called.
    pub names: &'static [&'static str],
}

/// A row that was left out, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    /// The line in the file, the header being 1.
    pub row: u64,
    /// The column, or `row`.
    pub field: &'static str,
    /// What is wrong and what would be right; never the cell itself.
    pub detail: String,
}

/// A row that was left out, as an answer says it.
#[derive(Debug, Serialize, ToSchema)]
pub struct RowErrorBody {
    /// The line in the file, the header being 1.
    row: u64,
    /// The column, or `row`.
    field: String,
    /// What is wrong and what would be right.
    detail: String,
}

impl From<RowError> for RowErrorBody {
    fn from(error: RowError) -> RowErrorBody {
        RowErrorBody { row: error.row, field: error.field.to_owned(), detail: error.detail }
    }
}

/// The text of a file, with its lines counted by their last byte, so that a row's number is the one that an editor shows. The encoding is
/// the declared one, else UTF-8 when its first line reads as such, else GBK; a byte order mark wins over a declaration, as in every browser.
///
/// # Errors
/// `invalid_request` for a charset that is none of utf-8, gbk and gb18030.
pub fn decode(bytes: &[u8], charset: Option<&str>) -> Result<String, Problem> {
    let encoding = match charset {
        Some(label) => {
            let known = Encoding::for_label(label.as_bytes()).filter(|encoding| [UTF_8, GB18030, GBK].contains(encoding));
            known.ok_or_else(|| Problem::invalid("Content-Type", "expected the charset utf-8, gbk or gb18030"))?
        }
        None => {
            let header = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
            if std::str::from_utf8(header).is_ok() { UTF_8 } else { GB18030 }
        }
    };
    Ok(encoding.decode(bytes).0.replace("\r\n", "\n"))
}

/// A table of comma-separated cells under a header.
pub struct Table<'a> {
    records: csv::StringRecordsIntoIter<&'a [u8]>,
    headings: Vec<Heading>,
    places: Vec<Option<usize>>,
    width: usize,
    totals: &'static [&'static str],
}

impl<'a> Table<'a> {
    /// Reads the header. Rows whose first cell is one of `totals`, in small letters, are none of the table's.
    ///
    /// # Errors
    /// [`MissingColumn`] for a needed column that is not there.
    pub fn open(text: &'a str, headings: Vec<Heading>, totals: &'static [&'static str]) -> Result<Table<'a>, MissingColumn> {
        let reader = csv::ReaderBuilder::new().flexible(true).has_headers(false).from_reader(text.as_bytes());
        let mut records = reader.into_records();
        let header = records.next().transpose().ok().flatten().unwrap_or_default();
        let cells: Vec<String> = header.iter().map(|cell| cell.trim().to_lowercase()).collect();
        let place = |heading: &Heading| heading.names.iter().find_map(|name| cells.iter().position(|cell| *cell == name.to_lowercase()));
        let places: Vec<Option<usize>> = headings.iter().map(place).collect();
        let missing = headings.iter().zip(&places).find(|(heading, place)| heading.needed && place.is_none());
        if let Some((heading, _)) = missing {
            return Err(MissingColumn { field: heading.field, names: heading.names });
        }
        Ok(Table { records, headings, places, width: header.len(), totals })
    }

    fn read(&self, record: &csv::StringRecord) -> Result<Row, RowError> {
        let row = record.position().map_or(0, csv::Position::line);
        if record.len() != self.width {
            let detail = format!("expected {} cells as in the header, found {}", self.width, record.len());
            return Err(RowError { row, field: "row", detail });
        }
        let mut cells = Vec::with_capacity(self.places.len());
        for (heading, place) in self.headings.iter().zip(&self.places) {
            let text = place.and_then(|place| record.get(place)).map_or("", str::trim);
            if let Some(detail) = wrong(text, heading.needed) {
                return Err(RowError { row, field: heading.field, detail });
            }
            cells.push((heading.field, text.to_owned()));
        }
        Ok(Row { row, cells })
    }
}

impl Iterator for Table<'_> {
    type Item = Result<Row, RowError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.records.next()? {
                Ok(record) => {
                    let first = record.get(0).unwrap_or_default().trim().to_lowercase();
                    if !self.totals.contains(&first.as_str()) {
                        return Some(self.read(&record));
                    }
                }
                Err(error) => {
                    let row = error.position().map_or(0, csv::Position::line);
                    let detail = "expected comma-separated cells with quotes in pairs".to_owned();
                    return Some(Err(RowError { row, field: "row", detail }));
                }
            }
        }
    }
}

/// A row whose cells can be text of their encoding; what they mean is the reader's to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    row: u64,
    cells: Vec<(&'static str, String)>,
}

impl Row {
    /// The line in the file, the header being 1.
    pub const fn number(&self) -> u64 {
        self.row
    }

    /// The text of a column, without spaces around it; empty where the file has no such column.
    pub fn cell(&self, field: &str) -> &str {
        self.cells.iter().find(|(name, _)| *name == field).map_or("", |(_, text)| text)
    }

    /// What is wrong with a column of this row.
    pub fn wrong(&self, field: &'static str, detail: impl Into<String>) -> RowError {
        RowError { row: self.row, field, detail: detail.into() }
    }
}

fn wrong(text: &str, needed: bool) -> Option<String> {
    if text.contains('\u{FFFD}') {
        return Some("holds bytes that the file's encoding doesn't have; expected GBK or UTF-8 throughout".to_owned());
    }
    if text.len() > CELL_BYTES_MAX || text.chars().any(char::is_control) {
        return Some(format!("expected at most {CELL_BYTES_MAX} bytes without control characters"));
    }
    (needed && text.is_empty()).then(|| "is empty and must not be".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_under_any_of_their_names_and_broken_ones_are_told() {
        let headings = || {
            vec![Heading { field: "id", names: &["单号", "ID"], needed: true }, Heading { field: "note", names: &["备注"], needed: false }]
        };
        let text = "id,other,备注\n1,x, a \n,x,b\n3,x\n合计,,\n5,x,c\n";
        let mut read = Vec::new();
        for row in Table::open(text, headings(), &["合计"]).expect("it has the needed column") {
            read.push(match row {
                Ok(row) => (row.number(), row.cell("note").to_owned()),
                Err(error) => (error.row, format!("wrong {}", error.field)),
            });
        }
        let expected = [(2, "a"), (3, "wrong id"), (4, "wrong row"), (6, "c")];
        assert_eq!(read, expected.map(|(row, text)| (row, text.to_owned())));
        let missing = Table::open("备注\n", headings(), &[]).err();
        assert_eq!(missing.map(|missing| missing.field), Some("id"));
        assert!(decode(b"x", Some("utf-16")).is_err());
    }
}
