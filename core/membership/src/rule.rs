//! What membership needs of a benefit rule; answered by the plugin host, wired by the server. No float is anywhere in it.

use futures::future::BoxFuture;
use heyuan_contract::Timestamp;
use heyuan_kernel::plugin::Active;
use heyuan_kernel::{Problem, Zone};
use serde::{Deserialize, Serialize};

/// Everything that a rule may be shown, before the host cuts it to what the rule declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleInput {
    /// The moment of the decision, in milliseconds; a replay gives the same one.
    pub now_ms: i64,
    /// What was reported.
    pub transaction: RuleTransaction,
    /// Who it belongs to.
    pub member: RuleMember,
    /// The features that the rule's description reads, by name, in its order.
    pub features: Vec<(String, FeatureValue)>,
}

/// The transaction as a rule sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleTransaction {
    /// The line's own id of it.
    pub id: String,
    /// The business line.
    pub line: String,
    /// The unit.
    pub unit: String,
    /// `purchase`.
    pub kind: String,
    /// What was paid, in fen.
    pub amount_fen: i64,
    /// `CNY`.
    pub currency: String,
    /// Its own time, in milliseconds.
    pub occurred_at_ms: i64,
    /// Its own time on the tenant's calendar.
    pub local_time: LocalTime,
    /// What the earn rules gave.
    pub base_growth: i64,
    /// What the earn rules gave.
    pub base_points: i64,
    /// The lines of the order.
    pub order: OrderColumns,
}

/// A moment on the tenant's calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalTime {
    /// The year.
    pub year: i32,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 1 is Monday, 7 is Sunday.
    pub weekday: u8,
    /// 0 to 1439.
    pub minute_of_day: u16,
}

impl LocalTime {
    /// An instant in a zone.
    pub(crate) fn of(zone: &Zone, at: Timestamp) -> LocalTime {
        let civil = zone.civil(at);
        let small = |number: i8| u8::try_from(number).unwrap_or(0);
        LocalTime {
            year: i32::from(civil.year()),
            month: small(civil.month()),
            day: small(civil.day()),
            weekday: small(civil.weekday().to_monday_one_offset()),
            minute_of_day: u16::from(small(civil.hour())) * 60 + u16::from(small(civil.minute())),
        }
    }
}

/// Order lines as columns of equal length.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderColumns {
    /// The seller's codes.
    pub skus: Vec<String>,
    /// The categories by which rules speak of them.
    pub categories: Vec<String>,
    /// Pieces.
    pub quantities: Vec<i64>,
    /// What was paid for the whole line, in fen.
    pub amounts_fen: Vec<i64>,
}

/// The member as a rule sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleMember {
    /// The tier's code.
    pub tier: String,
    /// In milliseconds.
    pub joined_at_ms: i64,
    /// Growth value.
    pub growth: i64,
    /// Points that can be spent.
    pub points: i64,
}

/// A feature's value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureValue {
    /// Not known of this customer.
    #[default]
    Absent,
    /// A whole number.
    Integer(i64),
    /// Numerator over a denominator above zero.
    Ratio(i64, i64),
    /// Text.
    Text(String),
}

/// What a rule wants to happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// What.
    pub change: Change,
    /// Why, in words that a member may read.
    pub reason: String,
}

/// The kinds of effects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum Change {
    /// Growth value on top of the earn rules; may be negative.
    Growth(i64),
    /// Points on top of the earn rules.
    Points(i64),
    /// The code of a benefit to grant.
    Benefit(String),
    /// The code of a voucher to issue: a product of the mall.
    Voucher(String),
    /// Fen off what is paid.
    Discount(i64),
}

/// A rule's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleAnswer {
    /// What it wants.
    pub effects: Vec<Effect>,
    /// The answer's own bytes: what a re-run is compared with.
    pub output: Vec<u8>,
    /// What it cost; shown, and no part of the answer.
    pub fuel: u64,
}

/// Why a rule gave no answer. Neither is a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleError {
    /// Fuel, time, stack or memory ran out.
    Stopped(String),
    /// It trapped or refused, with its own words.
    Failed(String),
}

/// The sandbox, as membership needs it.
pub trait BenefitRules: Send + Sync {
    /// The input as the canonical bytes of the rule's world, cut to what the rule's description declares.
    ///
    /// # Errors
    /// A problem when the description can't be read, or reads what the tenant did not approve.
    fn canonical(&self, rule: &Active, input: &RuleInput) -> Result<Vec<u8>, Problem>;

    /// Runs the rule of a digest on canonical bytes, in a fresh instance within its limits.
    fn decide<'a>(&'a self, digest: &'a str, input: &'a [u8]) -> BoxFuture<'a, Result<RuleAnswer, RuleError>>;
}
