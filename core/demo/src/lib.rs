//! A believable property group and its customers, generated: the same bytes for the same input on every machine.
//!
//! [`generate`] fills a folder with what the systems of such a group would deliver, in order of arrival, UTF-8 unless said:
//!
//! | file | a line is |
//! |---|---|
//! | `org_units.json` | (one document) `[{id, parent, name, kind, line, latitude_e6, longitude_e6}]` |
//! | `catalogue.json` | (one document) `{merchants, products, vouchers}` of the two malls |
//! | `events.ndjson` | `{unit, arrived_at, message}`: one Segment message as an SDK puts it into a batch, and the unit of the app's key |
//! | `transactions.ndjson` | `{id, unit, line, kind, refund_of?, occurred_at, amount_fen, currency, identifiers, lines}`, reported by API |
//! | `leads.ndjson` | `{id, lead_id, stage, occurred_at, unit, phone, …}`: one stage of one lead, from the sales system |
//! | `spend/ocean_engine.csv` | UTF-8 with a byte order mark, CRLF |
//! | `spend/tencent_ads.csv` | UTF-8, LF |
//! | `spend/baidu.csv` | GBK, CRLF |
//! | `books/<line>.csv` | with faults: what the line's own books say, `transaction,unit,kind,occurred_at,amount_fen` |
//! | `manifest.json` | (one document) `{config, files: {path: rows}}`, written last: without it the folder is incomplete |
//! | `truth/customers.ndjson` | a person with every identifier and whether any file ever shows it |
//! | `truth/households.ndjson` | who lives together, on what income, looking for what home |
//! | `truth/shared_identifiers.ndjson` | tablets, relay numbers and numbers with two owners |
//! | `truth/faults.ndjson` | with faults: a mistake in what a line reported |
//! | `truth/causes.ndjson` | a contract and the touches that led to it |
//!
//! Only tests and benches may read `truth/`. Numbers of persons and households appear nowhere else; every kind of identifier is
//! drawn from a stream of its own that knows no person. `Order Paid` events are the mall's online orders and stand in no transaction;
//! `Property Fee Paid` and `Hotel Stay Completed` name the transaction that moves their money.

mod calendar;
mod catalogue;
mod draw;
mod events;
mod faults;
mod living;
mod media;
mod message;
mod money;
mod numbers;
mod output;
mod people;
mod person;
mod sales;
mod search;
mod shopping;
mod stamp;
mod story;
mod truth;
mod world;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use serde::Serialize;

/// More customers than this would leave no phone number unused.
pub const CUSTOMERS_MAX: u64 = 20_000_000;
/// Ten years.
pub const DAYS_MAX: u32 = 3_660;

/// What to generate.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    pub customers: u64,
    pub days: u32,
    pub seed: u64,
    /// The day after the last one of the history, in Shanghai.
    pub end_date: Date,
    /// Whether lines make mistakes when they report, and keep books of their own that show them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub faults: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { customers: 20_000, days: 180, seed: 1, end_date: jiff::civil::date(2026, 11, 1), faults: false }
    }
}

/// What was generated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub customers: u64,
    pub households: u64,
    pub events: u64,
    /// Events that waited on a device without network.
    pub events_late: u64,
    /// Lines of `events.ndjson` that repeat an earlier message.
    pub events_resent: u64,
    /// Lines of `transactions.ndjson`: purchases, refunds and repeated lines.
    pub transactions: u64,
    pub purchases: u64,
    pub refunds: u64,
    pub transactions_resent: u64,
    /// Lines of `leads.ndjson`, all stages together.
    pub sales_records: u64,
    pub leads: u64,
    pub visits: u64,
    pub subscriptions: u64,
    pub contracts: u64,
    pub cancellations: u64,
    pub spend_rows: u64,
    /// Clicks on advertisements that reached an app; the platforms bill more.
    pub clicks: u64,
    pub spend_fen: i64,
    pub families_sharing_phone: u64,
    pub recycled_numbers: u64,
    pub relay_numbers: u64,
    pub tablets: u64,
}

#[derive(Serialize)]
struct Manifest<'a> {
    config: &'a Config,
    files: BTreeMap<String, u64>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot generate a demo group: {0}")]
    Config(String),
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot read back {path}")]
    Read { path: PathBuf, source: std::io::Error },
}

impl Error {
    fn writing(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Write { path: path.to_owned(), source }
    }

    fn reading(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Read { path: path.to_owned(), source }
    }
}

/// Writes the history of a property group into the folder `out`, which is made where it is missing; files of an earlier run are replaced.
///
/// Memory stays below 200 MB whatever the number of customers; sorting needs the space of the output once more on the same disk.
pub fn generate(config: &Config, out: &Path) -> Result<Summary, Error> {
    if config.customers == 0 || config.customers > CUSTOMERS_MAX {
        return Err(Error::Config(format!("customers must be between 1 and {CUSTOMERS_MAX}, not {}", config.customers)));
    }
    if config.days == 0 || config.days > DAYS_MAX {
        return Err(Error::Config(format!("days must be between 1 and {DAYS_MAX}, not {}", config.days)));
    }
    std::fs::create_dir_all(out).map_err(Error::writing(out))?;
    match std::fs::remove_file(out.join("manifest.json")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::writing(out)(error)),
        _ => story::tell(config, out),
    }
}
