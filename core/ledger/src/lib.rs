//! One double-entry book for every unit: points, growth, fen, vouchers.
//!
//! The ledger owns accounts, transfers and lots. It promises that the transfers of a unit sum to zero, that an account with a floor
//! never falls below it and is versioned without gaps, that a key is posted once and answers the same for ever, that lots are spent
//! first-expiring-first and a reversal gives a lot back with its own expiry, that a hold ends once, also by time, by whoever made it,
//! that nothing is posted to a period of a book once it is closed, and that what was committed is chained by hash within a second, under
//! heads signed with a key outside the database. Every write joins the caller's unit of work. It emits nothing and reacts to nothing: the
//! wings say what a transfer means.

mod account;
mod agreement;
mod book;
mod carry;
mod draft;
mod error;
mod expiring;
mod gate;
mod locked;
mod lot;
mod migration;
mod pending;
mod period;
#[cfg(test)]
mod plans;
mod poster;
mod reports;
mod seal;
mod statement;
mod take_back;
mod trail;
mod transfer;
mod unfinished;
mod verify;
mod written;

pub use account::{Account, Balance};
pub use book::Ledger;
pub use carry::Carry;
pub use draft::AMOUNT_MAX;
pub use error::{Error, codes};
pub use expiring::{ExpiringLot, ExpiryPlace};
pub use gate::Book;
pub use lot::{ExpiredLot, LotMovement, OpenLot};
pub use migration::Migrator;
pub use pending::{Hold, Outcome};
pub use period::Period;
pub use poster::Poster;
pub use reports::{AccountStatement, ENTRY_COLUMNS, EntryRows, StatementEntry, TrialLine};
pub use statement::{Leg, Turnover};
pub use take_back::{TakeBack, TakenBack};
pub use trail::{LotState, LotStep, Trail, TrailOf, TrailPlace};
pub use transfer::{LotPart, LotUse, Lots, NewLot, Parcel, Posted, Transfer};
pub use unfinished::Cohort;
pub use verify::Report;

pub use heyuan_kernel::chain::{Finding, Head};

use heyuan_kernel::bulk;
