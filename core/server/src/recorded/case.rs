//! A case as its file has it: what happens, and what was decided.

use heyuan_contract::{Line, OrderLine};
use heyuan_membership::{Basis, Drawn, EarnRules, Effect, Wording};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A file of the corpus.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    /// What it shows.
    pub(super) about: String,
    /// What the clock shows at first; it stands until a step moves it.
    pub(super) starts_at: String,
    /// The words that its decisions are explained in: those of the release that recorded it.
    #[serde(default, skip_serializing_if = "is_first")]
    pub(super) wording: Wording,
    /// What happens.
    pub(super) steps: Vec<Step>,
    /// What came of each transaction, in the order of the steps.
    #[serde(default)]
    pub(super) recorded: Vec<Told>,
}

fn is_first(wording: &Wording) -> bool {
    *wording == Wording::First
}

/// One thing that happens. Times are RFC 3339, amounts are fen.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Step {
    /// The clock goes on.
    Wait { until: String },
    /// The next version of the earn rules is put.
    EarnRules { rules: EarnRules },
    /// A rule's budget of a month is set.
    Budget { rule: String, month: String, points: i64 },
    /// A budget with a name is set.
    NamedBudget { name: String, rules: BTreeSet<String>, lines: BTreeSet<Line>, from: String, until: String, points: i64 },
    /// A version of a plugin becomes the one that counts.
    Activate { rule: String, component: String, priority: i64 },
    /// Somebody joins at the mall.
    Join { member: String },
    /// Points are spent at the hotel.
    Spend { id: String, member: String, points: i64 },
    /// A purchase is reported.
    Purchase {
        id: String,
        unit: String,
        member: String,
        at: String,
        fen: i64,
        #[serde(default)]
        lines: Vec<OrderLine>,
    },
    /// A refund is reported.
    Refund { id: String, of: String, unit: String, at: String, fen: i64 },
}

/// What came of a transaction. Ids that are drawn by lot are no part of it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Told {
    /// The transaction.
    pub(super) transaction: String,
    /// The problem's code, where it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) refused: Option<String>,
    /// What it earned or took back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) figures: Option<Figures>,
    /// The decision behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) decided: Option<Decided>,
    /// The decision in words, right after it.
    #[serde(default)]
    pub(super) explanation: Vec<String>,
    /// The same in Chinese.
    #[serde(default)]
    pub(super) explanation_zh: Vec<String>,
}

/// A transaction's figures.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Figures {
    pub(super) state: String,
    pub(super) accounting_period: Option<String>,
    pub(super) earn_version: i64,
    pub(super) base_growth: i64,
    pub(super) base_points: i64,
    pub(super) growth: i64,
    pub(super) points: i64,
    pub(super) points_owed: i64,
    pub(super) points_balance: i64,
    pub(super) tier: String,
}

/// A decision.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Decided {
    /// The version of the earn rules.
    pub(super) earn_version: i64,
    /// How the earn rules came to what they gave, where a multiplier or a cap had a say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) basis: Option<Basis>,
    /// The rules, in the order in which they ran.
    pub(super) calls: Vec<CallOf>,
}

/// One rule's part in it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CallOf {
    pub(super) rule: String,
    pub(super) digest: String,
    /// The canonical bytes that it was shown, in hex.
    pub(super) input: String,
    /// The bytes that it answered, in hex.
    pub(super) output: String,
    pub(super) effects_raw: Vec<Effect>,
    pub(super) effects: Vec<Effect>,
    pub(super) budget_limit: i64,
    pub(super) budget_spent: i64,
    pub(super) budgets: Vec<Drawn>,
    pub(super) points: i64,
}
