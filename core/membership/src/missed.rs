//! What a rule or a tier would have given and could not: no purchase fails for it, and whoever reads it is told why.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Why something was not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// There is no such benefit, or it is a draft or retired.
    NotActive,
    /// The stock of the month or in all had fewer units left.
    OutOfStock,
    /// The transaction was reported so late that the grant would have been over.
    Over,
    /// The mall has no such voucher.
    NoVoucher,
}

impl Missed {
    /// The spelling in tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Missed::NotActive => "not_active",
            Missed::OutOfStock => "out_of_stock",
            Missed::Over => "over",
            Missed::NoVoucher => "no_voucher",
        }
    }
}

/// What was missed of a decision's effects, by the places of the rule's call and of the effect in it.
pub(crate) type Misses = BTreeMap<(usize, usize), Missed>;
