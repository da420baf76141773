//! Transfers as a caller states them and as they were posted.

use crate::period::Period;
use heyuan_contract::{Ratio, Timestamp};

/// An amount that moves from one account to another of the same unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Unique for ever: the same key again is the same transfer.
    pub key: String,
    /// The unit's code: `points`, `growth`, `cny_fen`, `voucher:<product>`.
    pub unit: String,
    /// The account whose balance falls.
    pub debit: String,
    /// The account whose balance rises.
    pub credit: String,
    /// Above zero.
    pub amount: i64,
    /// The transfer's own time: what decides about expiry.
    pub occurred_at: Timestamp,
    /// The month that it counts in.
    pub period: Period,
    /// What it is, in a word: `issue`, `spend`, `expire`, …
    pub kind: String,
    /// What it belongs to; never personal data.
    pub reference: String,
    /// What it does to lots.
    pub lots: Lots,
}

/// Transfers that are posted when what they were decided on has not moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// What is posted, in this order.
    pub transfers: Vec<Transfer>,
    /// Accounts by id, with the version that the decision saw; `None` where it saw none.
    pub relied_on: Vec<(String, Option<i64>)>,
}

/// What a transfer does to the lots of the account that has lots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lots {
    /// Neither account has lots.
    None,
    /// The credited account gets a lot of its own.
    New(NewLot),
    /// The debited account gives what expires first; what has expired at the transfer's own time does not count.
    FirstExpiring,
    /// The debited account gives from the one lot that the transfer with this key opened, expired or not.
    From(String),
    /// Both accounts have lots: the debited one gives from the one lot that the transfer with this key opened, as long as it has not
    /// expired at the transfer's own time; the credited one gets a lot of its own with the same issuer, unit cost and expiry.
    Carried(String),
    /// The debited account gives just these parts of its lots, expired or not: what a hold had set aside.
    Parts(Vec<LotPart>),
    /// The credited account gets back what the transfer with this key took, into the same lots.
    RestoredFrom(String),
}

/// A part of one lot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LotPart {
    /// The key of the transfer that opened the lot.
    pub source: String,
    /// Above zero.
    pub amount: i64,
}

/// A lot to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLot {
    /// Who stands for it: a business line.
    pub issuer: String,
    /// Fen a point, exactly.
    pub cost: Ratio,
    /// From this instant on it can't be spent.
    pub expires_at: Timestamp,
}

/// A part of a transfer that one lot gave or got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LotUse {
    /// The key of the transfer that opened the lot.
    pub source: String,
    /// Who stands for it.
    pub issuer: String,
    /// Fen a point.
    pub cost: Ratio,
    /// When it expires.
    pub expires_at: Timestamp,
    /// Above zero.
    pub amount: i64,
}

/// A transfer that is in the book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// Its number in the book.
    pub number: i64,
    /// Its key.
    pub key: String,
    /// What moved.
    pub amount: i64,
    /// The month that it counts in.
    pub period: Period,
    /// The debited account's balance after it; `None` for a striped account.
    pub debit_balance: Option<i64>,
    /// The credited account's balance after it; `None` for a striped account.
    pub credit_balance: Option<i64>,
    /// The lots that it used, first-expiring first; empty when it opened one.
    pub lots: Vec<LotUse>,
    /// Whether the key was in the book already.
    pub repeated: bool,
}
