//! What can go wrong in the book, and what a caller hears of it.

use crate::period::Period;
use heyuan_kernel::{Failure, Problem};

/// The ledger's stable codes.
pub mod codes {
    use heyuan_kernel::{Code, Kind};

    /// A transfer would take an account below its floor.
    pub const NOT_ENOUGH: Code = Code::new(Kind::Conflict, "not_enough", "The account does not hold enough", "账户余额不足");
    /// A key that was posted with other figures.
    pub const TRANSFER_KEY_REUSED: Code =
        Code::new(Kind::Conflict, "transfer_key_reused", "The transfer's key was used for another transfer", "转账键已用于其他转账");
    /// A hold that has its outcome already.
    pub const HOLD_SETTLED: Code = Code::new(Kind::Conflict, "hold_settled", "The hold has been settled already", "预留已结清");
    /// Figures that no book can hold.
    pub const AMOUNT_OUT_OF_RANGE: Code =
        Code::new(Kind::Invalid, "amount_out_of_range", "The amount is outside what the book can hold", "金额超出账本范围");

    /// An amount that stands in more lots than one carrying may move.
    pub const TOO_MANY_LOTS: Code = Code::new(
        Kind::Conflict,
        "too_many_lots",
        "The amount stands in too many parts to move at once",
        "该数额涉及的批次过多,无法一次转移",
    );

    /// Every code of the ledger.
    pub const ALL: &[Code] = &[NOT_ENOUGH, TRANSFER_KEY_REUSED, HOLD_SETTLED, AMOUNT_OUT_OF_RANGE, TOO_MANY_LOTS];
}

/// Why a transfer was not posted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database's, and races.
    #[error(transparent)]
    Kernel(#[from] heyuan_kernel::Error),
    /// The floor of the account stands against it.
    #[error("account {account} holds less than {amount} above its floor")]
    NotEnough {
        /// The account that would be debited.
        account: String,
        /// What was asked for.
        amount: i64,
    },
    /// No account of this name was opened.
    #[error("there is no account {0}")]
    UnknownAccount(String),
    /// The accounts of a transfer hold different units.
    #[error("transfer {0} is not between two accounts of its unit")]
    UnitMismatch(String),
    /// Zero, negative, or more than a balance can hold.
    #[error("the amount of transfer {0} is outside what the book can hold")]
    Amount(String),
    /// The key was posted with other figures.
    #[error("key {0} was posted as another transfer")]
    KeyReused(String),
    /// Lots were named where the account has none, or the other way round.
    #[error("transfer {key}: {why}")]
    Lots {
        /// The transfer.
        key: String,
        /// What does not fit.
        why: &'static str,
    },
    /// More lots than one carrying moves: less at a time fits.
    #[error("carrying {key} would move more than {lots_max} lots")]
    TooManyLots {
        /// The carrying.
        key: String,
        /// How many may move at once.
        lots_max: usize,
    },
    /// The transfer is dated into a period of its book that is closed; whoever enters the book first never meets it.
    #[error("transfer {key} is dated into {period}, which is closed")]
    PeriodClosed {
        /// The transfer.
        key: String,
        /// The period.
        period: Period,
    },
    /// Periods are closed one after the other.
    #[error("the book of {book} closes {next} next, not {period}")]
    NotNext {
        /// The unit.
        book: String,
        /// What was asked for.
        period: Period,
        /// The first open one.
        next: Period,
    },
    /// No such hold.
    #[error("there is no hold {0}")]
    UnknownHold(String),
    /// The hold is no longer open.
    #[error("hold {0} has been settled")]
    HoldSettled(String),
}

impl Failure for Error {
    fn kernel(&self) -> Option<&heyuan_kernel::Error> {
        match self {
            Error::Kernel(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        let text = error.to_string();
        match error {
            Error::Kernel(error) => error.into(),
            Error::NotEnough { .. } => Problem::new(codes::NOT_ENOUGH, text),
            Error::KeyReused(_) => Problem::new(codes::TRANSFER_KEY_REUSED, text),
            Error::HoldSettled(_) => Problem::new(codes::HOLD_SETTLED, text),
            Error::TooManyLots { .. } => Problem::new(codes::TOO_MANY_LOTS, text),
            Error::Amount(_) => Problem::new(codes::AMOUNT_OUT_OF_RANGE, text),
            Error::UnknownAccount(id) => Problem::not_found("account", id),
            Error::UnknownHold(key) => Problem::not_found("hold", key),
            Error::UnitMismatch(_) | Error::Lots { .. } | Error::PeriodClosed { .. } | Error::NotNext { .. } => {
                tracing::error!(error = %text, "a wing asked the ledger for what can't be");
                Problem::new(heyuan_kernel::error::codes::INTERNAL, "this is our fault; the log has the cause")
            }
        }
    }
}
