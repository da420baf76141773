//! Mistakes that lines make when they report, and the books of their own that show them.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Error;
use crate::draw::{Draw, Purpose};
use crate::money::{Item, Sale};
use crate::output::Lines;
use crate::stamp::Stamp;

/// Of a thousand purchases that nobody brings back: imported a second time, and at another rate than was paid.
const DOUBLE_PER_MILLE: u64 = 9;
const WRONG_RATE_PER_MILLE: u64 = 9;
/// Of a thousand refunds: never reported.
const LOST_PER_MILLE: u64 = 90;

/// A mistake.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The purchase is reported again under this id.
    DoubleImport(String),
    /// The amounts are reported with a tax of 6 % on top, which they hold already.
    WrongRate,
    /// The refund is never reported.
    LostRefund,
}

/// A mistake as the truth has it.
#[derive(Serialize)]
struct Told<'a> {
    fault: &'static str,
    transaction: &'a str,
    unit: &'static str,
    line: &'static str,
    occurred_at: Stamp,
    /// What the line's books say.
    amount_fen: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reported_fen: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reported_as: Option<&'a str>,
}

/// A row of a line's books.
#[derive(Serialize)]
struct Booked<'a> {
    transaction: &'a str,
    unit: &'static str,
    kind: &'static str,
    occurred_at: Stamp,
    amount_fen: i64,
}

/// Writes `books/<line>.csv` and `truth/faults.ndjson`.
pub(crate) struct Faults {
    draw: Draw,
    folder: PathBuf,
    books: BTreeMap<&'static str, (csv::Writer<File>, u64)>,
    told: Lines,
}

impl Faults {
    pub(crate) fn create(seed: u64, out: &Path) -> Result<Self, Error> {
        let folder = out.join("books");
        std::fs::create_dir_all(&folder).map_err(Error::writing(&folder))?;
        let told = Lines::create(&out.join("truth/faults.ndjson"))?;
        Ok(Self { draw: Draw::new(seed, Purpose::Faults), folder, books: BTreeMap::new(), told })
    }

    /// Enters a transaction into the line's books, and says which mistake its report has. A purchase of which something is `brought_back`
    /// has none, so that its refunds fit.
    pub(crate) fn enter(
        &mut self,
        id: &str,
        kind: &'static str,
        sale: &Sale<'_>,
        at: i64,
        items: &[Item],
        brought_back: bool,
    ) -> Result<Option<Fault>, Error> {
        let amount_fen = total(items);
        let occurred_at = Stamp::shanghai(at);
        self.book(sale.line, &Booked { transaction: id, unit: sale.unit, kind, occurred_at, amount_fen })?;
        let chance = self.draw.below(1000);
        let fault = match kind {
            "refund" if chance < LOST_PER_MILLE => Fault::LostRefund,
            "purchase" if brought_back => return Ok(None),
            "purchase" if chance < DOUBLE_PER_MILLE => Fault::DoubleImport(format!("txn-{}", self.draw.hexadecimal(18))),
            "purchase" if chance < DOUBLE_PER_MILLE + WRONG_RATE_PER_MILLE => Fault::WrongRate,
            _ => return Ok(None),
        };
        let (name, reported_fen, reported_as) = match &fault {
            Fault::DoubleImport(twin) => ("double_import", Some(amount_fen), Some(twin.as_str())),
            Fault::WrongRate => ("wrong_rate", Some(total(&taxed(items))), None),
            Fault::LostRefund => ("lost_refund", None, None),
        };
        let told =
            Told { fault: name, transaction: id, unit: sale.unit, line: sale.line, occurred_at, amount_fen, reported_fen, reported_as };
        self.told.write(&told)?;
        Ok(Some(fault))
    }

    fn book(&mut self, line: &'static str, row: &Booked<'_>) -> Result<(), Error> {
        let path = self.folder.join(format!("{line}.csv"));
        let broken = |path: &Path, error: csv::Error| Error::writing(path)(std::io::Error::other(error));
        if !self.books.contains_key(line) {
            let writer = csv::Writer::from_path(&path).map_err(|error| broken(&path, error))?;
            self.books.insert(line, (writer, 0));
        }
        if let Some((writer, rows)) = self.books.get_mut(line) {
            writer.serialize(row).map_err(|error| broken(&path, error))?;
            *rows += 1;
        }
        Ok(())
    }

    /// Closes the files; answers the rows of each by its path.
    pub(crate) fn finish(self) -> Result<Vec<(String, u64)>, Error> {
        let mut files = Vec::with_capacity(self.books.len());
        for (line, (mut writer, rows)) in self.books {
            writer.flush().map_err(Error::writing(&self.folder))?;
            files.push((format!("books/{line}.csv"), rows));
        }
        self.told.finish()?;
        Ok(files)
    }
}

/// The same items at the wrong rate.
pub(crate) fn taxed(items: &[Item]) -> Vec<Item> {
    items.iter().map(|item| Item { amount_fen: item.amount_fen * 106 / 100, ..item.clone() }).collect()
}

fn total(items: &[Item]) -> i64 {
    items.iter().map(|item| item.amount_fen).sum()
}
