//! Tables as people's spreadsheets take them: CSV that Excel opens as UTF-8 and in which no text runs as a formula, and XLSX.

use crate::error::Error;
use crate::member::corrupt;
use heyuan_contract::{Fen, Timestamp};
use rust_xlsxwriter::{DocProperties, ExcelDateTime, Format, Workbook, XlsxError};

/// By this mark Excel knows that a file is UTF-8.
const MARK: &str = "\u{FEFF}";
/// Digits that a spreadsheet keeps of a number; a longer one is written as text.
const DIGITS_MAX: usize = 15;
/// Characters with which a text is taken for a formula, their full-width forms included.
const FORMULA: &[char] = &['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];
const COLUMN_WIDTH: u16 = 16;

/// The language of headers and words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Language {
    /// `en`
    #[default]
    English,
    /// `zh`
    Chinese,
}

impl Language {
    /// The language with this code, if there is one.
    pub fn parse(text: &str) -> Option<Language> {
        match text {
            "en" => Some(Language::English),
            "zh" => Some(Language::Chinese),
            _ => None,
        }
    }

    pub(crate) fn of(self, words: Words) -> &'static str {
        match self {
            Language::English => words.0,
            Language::Chinese => words.1,
        }
    }
}

/// Words in English and in Chinese.
pub(crate) type Words = (&'static str, &'static str);

/// A cell of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cell {
    /// Words.
    Text(String),
    /// A whole number.
    Whole(i64),
    /// A whole number that may be larger than an amount.
    Long(i128),
    /// Fen, shown as yuan with two decimals.
    Yuan(i64),
    /// Nothing.
    Empty,
}

/// A table under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sheet {
    pub(crate) name: &'static str,
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<Cell>>,
}

/// The header of a CSV file, with the mark before it.
pub(crate) fn csv_header<T: AsRef<str>>(header: impl IntoIterator<Item = T>) -> Result<Vec<u8>, Error> {
    let row = header.into_iter().map(|name| Cell::Text(name.as_ref().to_owned())).collect();
    Ok([MARK.as_bytes(), &csv_rows(&[row])?].concat())
}

/// Rows as RFC 4180 wants them.
pub(crate) fn csv_rows(rows: &[Vec<Cell>]) -> Result<Vec<u8>, Error> {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    for row in rows {
        writer.write_record(row.iter().map(plain)).map_err(|e| corrupt("table", e))?;
    }
    Ok(writer.into_inner().map_err(|e| corrupt("table", e))?)
}

/// A table as a CSV file.
pub(crate) fn csv(sheet: &Sheet) -> Result<Vec<u8>, Error> {
    Ok([csv_header(&sheet.header)?, csv_rows(&sheet.rows)?].concat())
}

fn plain(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => guarded(text),
        Cell::Whole(number) => number.to_string(),
        Cell::Long(number) => number.to_string(),
        Cell::Yuan(fen) => Fen(*fen).to_yuan(),
        Cell::Empty => String::new(),
    }
}

/// A text that no spreadsheet takes for a formula.
fn guarded(text: &str) -> String {
    let risky = text.starts_with(FORMULA) || text.trim_start().starts_with(FORMULA);
    if risky { format!("'{text}") } else { text.to_owned() }
}

/// Tables as one XLSX file; the same tables and instant are the same bytes.
pub(crate) fn xlsx(sheets: &[Sheet], created_at: Timestamp) -> Result<Vec<u8>, Error> {
    workbook(sheets, created_at).map_err(|e| corrupt("workbook", e).into())
}

fn workbook(sheets: &[Sheet], created_at: Timestamp) -> Result<Vec<u8>, XlsxError> {
    let mut workbook = Workbook::new();
    let created_at = ExcelDateTime::from_timestamp(created_at.ms().div_euclid(1000))?;
    workbook.set_properties(&DocProperties::new().set_creation_datetime(&created_at));
    let bold = Format::new().set_bold();
    let (whole, yuan) = (Format::new().set_num_format("#,##0"), Format::new().set_num_format("#,##0.00"));
    for sheet in sheets {
        let page = workbook.add_worksheet();
        page.set_name(sheet.name)?;
        page.set_freeze_panes(1, 0)?;
        for (column, name) in (0..).zip(&sheet.header) {
            page.set_column_width(column, COLUMN_WIDTH)?;
            page.write_string_with_format(0, column, name, &bold)?;
        }
        for (line, row) in (1..).zip(&sheet.rows) {
            for (column, cell) in (0..).zip(row) {
                let format = if matches!(cell, Cell::Yuan(_)) { &yuan } else { &whole };
                // A cell of text is never a formula in this format.
                match (cell, number(cell)) {
                    (Cell::Empty, _) => &mut *page,
                    (_, Some(number)) => page.write_number_with_format(line, column, number, format)?,
                    (Cell::Text(text), None) => page.write_string(line, column, text)?,
                    (_, None) => page.write_string(line, column, plain(cell))?,
                };
            }
        }
    }
    workbook.save_to_buffer()
}

/// The number of a cell as the format stores it. Its numbers are floats; decimals of up to 15 digits go into one and back as they are.
fn number(cell: &Cell) -> Option<f64> {
    if !matches!(cell, Cell::Whole(_) | Cell::Long(_) | Cell::Yuan(_)) {
        return None;
    }
    let text = plain(cell);
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    if digits <= DIGITS_MAX { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_a_csv_file_is_a_formula_and_numbers_stay_numbers() -> Result<(), Error> {
        for (cell, expected) in [
            (Cell::Text("=1+1".into()), "'=1+1"),
            (Cell::Text("@sum(a1)".into()), "'@sum(a1)"),
            (Cell::Text("-2".into()), "'-2"),
            (Cell::Text(" =1".into()), "' =1"),
            (Cell::Text("\t=1".into()), "'\t=1"),
            (Cell::Text("＝1".into()), "'＝1"),
            (Cell::Text("mall-1/t=1".into()), "mall-1/t=1"),
            (Cell::Whole(-7), "-7"),
            (Cell::Yuan(-7), "-0.07"),
            (Cell::Yuan(123_456), "1234.56"),
            (Cell::Empty, ""),
        ] {
            assert_eq!(plain(&cell), expected, "{cell:?}");
        }
        let sheet = Sheet { name: "s", header: vec!["业态".into()], rows: vec![vec![Cell::Text("a,\"b\"".into())]] };
        assert_eq!(csv(&sheet)?, "\u{FEFF}业态\r\n\"a,\"\"b\"\"\"\r\n".as_bytes());
        Ok(())
    }

    #[test]
    fn what_a_spreadsheet_would_round_is_written_as_text() {
        for (cell, expected) in [
            (Cell::Whole(999_999_999_999_999), Some("999999999999999")),
            (Cell::Whole(1_000_000_000_000_000), None),
            (Cell::Long(i128::MIN), None),
            (Cell::Long(-7), Some("-7")),
            (Cell::Yuan(999_999_999_999_999), Some("9999999999999.99")),
            (Cell::Yuan(-1), Some("-0.01")),
            (Cell::Text("1".into()), None),
        ] {
            assert_eq!(number(&cell).map(|number| number.to_string()).as_deref(), expected, "{cell:?}");
        }
    }
}
