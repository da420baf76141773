//! Calling a benefit rule: canonical bytes in, effects out. Integers, exact ratios and text; no float comes near.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    BenefitRuleDescription, CallError, Digest, EffectKind, FeatureKind, InputPart,
    call::{Call, CallState},
    host::Shared,
    worlds::benefit_rule::{BenefitRulePre, exports::heyuan::plugins::benefits as wit},
};

const LINES_MAX: usize = 1_000;
const EFFECTS_MAX: usize = 64;
const CODE_BYTES_MAX: usize = 128;
const REASON_BYTES_MAX: usize = 512;

/// Everything that a decision may depend on, captured once when the transaction is accepted.
///
/// Its canonical bytes are compact JSON with the fields in the order of this file; the input's hash, retries, shadow runs and
/// replay use these bytes and nothing else. A plugin sees of it what it declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BenefitInput {
    /// The moment of the decision, in milliseconds since 1970 (UTC).
    pub now_ms: i64,
    pub transaction: Transaction,
    pub member: Option<Member>,
    /// One value for each feature that the rule reads, in its order.
    pub features: Vec<FeatureValue>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transaction {
    /// The business line, e.g. `mall`.
    pub line: String,
    /// The code of the project, mall or hotel.
    pub unit: String,
    /// What happened, e.g. `order`, `property_fee`, `stay`.
    pub kind: String,
    pub amount_fen: i64,
    pub currency: String,
    pub occurred_at_ms: i64,
    /// The transaction's own time on the tenant's calendar.
    pub local_time: LocalTime,
    /// What the earn rules gave before any plugin.
    pub base_growth: i64,
    pub base_points: i64,
    pub order_lines: OrderLines,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalTime {
    pub year: i32,
    pub month: u8,
    pub day: u8,
    /// 1 is Monday, 7 is Sunday.
    pub weekday: u8,
    pub minute_of_day: u16,
}

/// Lines as columns; codes are 0 where absent, else the place in the dictionary counted from 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderLines {
    products: Vec<u32>,
    categories: Vec<u32>,
    merchants: Vec<u32>,
    quantities: Vec<i64>,
    amounts_fen: Vec<i64>,
    dictionary: Vec<String>,
}

impl OrderLines {
    /// Adds a line. Texts enter the dictionary in the order of their first use.
    pub fn push(&mut self, product: Option<&str>, category: Option<&str>, merchant: Option<&str>, quantity: i64, amount_fen: i64) {
        let codes = [product, category, merchant].map(|text| self.code(text));
        self.products.push(codes[0]);
        self.categories.push(codes[1]);
        self.merchants.push(codes[2]);
        self.quantities.push(quantity);
        self.amounts_fen.push(amount_fen);
    }

    pub fn len(&self) -> usize {
        self.products.len()
    }

    pub fn is_empty(&self) -> bool {
        self.products.is_empty()
    }

    fn code(&mut self, text: Option<&str>) -> u32 {
        let Some(text) = text else { return 0 };
        let place = self.dictionary.iter().position(|known| known == text).unwrap_or_else(|| {
            self.dictionary.push(text.to_owned());
            self.dictionary.len() - 1
        });
        place as u32 + 1
    }

    fn check(&self) -> Result<(), String> {
        let lines = self.products.len();
        if lines > LINES_MAX {
            return Err(format!("an order has at most {LINES_MAX} lines, not {lines}"));
        }
        let codes = [&self.products, &self.categories, &self.merchants];
        let lengths = [self.categories.len(), self.merchants.len(), self.quantities.len(), self.amounts_fen.len()];
        if lengths.iter().any(|&length| length != lines) {
            return Err("the columns of the order lines differ in length".to_owned());
        }
        if codes.iter().any(|codes| codes.iter().any(|&code| code as usize > self.dictionary.len())) {
            return Err("a code of the order lines lies past the dictionary".to_owned());
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    pub tier: String,
    pub joined_at_ms: i64,
    pub growth: i64,
    pub points: i64,
}

/// Numerator over a denominator above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ratio {
    pub numerator: i64,
    pub denominator: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureValue {
    Absent,
    Integer(i64),
    Ratio(Ratio),
    Text(String),
}

impl BenefitInput {
    /// The one spelling of this input.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        // A struct of integers, texts and lists always has a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads canonical bytes; any other spelling of the same input is refused, since its hash would differ.
    pub fn from_canonical_bytes(bytes: &[u8]) -> Result<Self, CallError> {
        let input: Self =
            serde_json::from_slice(bytes).map_err(|error| CallError::InvalidInput(format!("it is no benefit input: {error}")))?;
        if input.canonical_bytes() != bytes {
            return Err(CallError::InvalidInput("it is not spelt canonically".to_owned()));
        }
        Ok(input)
    }

    fn check(&self, description: &BenefitRuleDescription) -> Result<(), CallError> {
        let refuse = |message: String| Err(CallError::InvalidInput(message));
        if self.features.len() != description.reads.len() {
            return refuse(format!("the rule reads {} features, the input has {}", description.reads.len(), self.features.len()));
        }
        for (value, feature) in self.features.iter().zip(&description.reads) {
            let fits = match value {
                FeatureValue::Absent => true,
                FeatureValue::Integer(_) => feature.kind == FeatureKind::Integer,
                FeatureValue::Ratio(ratio) => feature.kind == FeatureKind::Ratio && ratio.denominator > 0,
                FeatureValue::Text(_) => feature.kind == FeatureKind::Text,
            };
            if !fits {
                return refuse(format!("feature {} is of another kind than declared", feature.name));
            }
        }
        self.transaction.order_lines.check().or_else(refuse)
    }
}

/// One thing that a rule gives, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    pub change: Change,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Growth value on top of the earn rules; may be negative.
    Growth(i64),
    /// Points on top of the earn rules, above zero.
    Points(i64),
    /// The code of a benefit.
    Benefit(String),
    /// The code of a voucher.
    Voucher(String),
    /// Fen off what is paid, above zero.
    Discount(i64),
}

impl Change {
    pub fn kind(&self) -> EffectKind {
        match self {
            Self::Growth(_) => EffectKind::Growth,
            Self::Points(_) => EffectKind::Points,
            Self::Benefit(_) => EffectKind::Benefit,
            Self::Voucher(_) => EffectKind::Voucher,
            Self::Discount(_) => EffectKind::Discount,
        }
    }
}

/// What a rule decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub effects: Vec<Effect>,
    /// The effects as compact JSON: the same for the same rule and input, on every machine.
    pub output_bytes: Vec<u8>,
    /// Shown to authors; comparable only within one build of the host, and no part of the decision.
    pub fuel_used: u64,
    pub log: String,
}

/// A benefit rule that can be called, from any thread.
#[derive(Clone)]
pub struct BenefitRule(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    digest: Digest,
    pre: BenefitRulePre<CallState>,
    description: BenefitRuleDescription,
}

impl BenefitRule {
    pub(crate) fn new(shared: Arc<Shared>, digest: Digest, pre: BenefitRulePre<CallState>, description: BenefitRuleDescription) -> Self {
        Self(Arc::new(Inner { shared, digest, pre, description }))
    }

    pub fn digest(&self) -> Digest {
        self.0.digest
    }

    pub fn description(&self) -> &BenefitRuleDescription {
        &self.0.description
    }

    /// Decides in a fresh instance. Blocks for the time of the call: microseconds as a rule, at most the deadline.
    pub fn decide(&self, canonical_input: &[u8]) -> Result<Decision, CallError> {
        let input = BenefitInput::from_canonical_bytes(canonical_input)?;
        input.check(&self.0.description)?;
        let shared = &self.0.shared;
        let items = input.transaction.order_lines.len();
        let mut call = Call::new(&shared.engine, &shared.clock, &shared.benefit_rule, items)?;
        let reads = |part| self.0.description.parts.contains(&part);
        let none = OrderLines::default();
        let lines = if reads(InputPart::OrderLines) { &input.transaction.order_lines } else { &none };
        let dictionary: Vec<&str> = lines.dictionary.iter().map(String::as_str).collect();
        let features: Vec<wit::FeatureValue<'_>> = input.features.iter().map(feature_param).collect();
        let param = wit::Input {
            now_ms: input.now_ms,
            transaction: transaction_param(&input.transaction, lines, &dictionary),
            member: input.member.as_ref().filter(|_| reads(InputPart::Member)).map(|member| wit::Member {
                tier: &member.tier,
                joined_at_ms: member.joined_at_ms,
                growth: member.growth,
                points: member.points,
            }),
            features: &features,
        };
        let answer = self
            .0
            .pre
            .instantiate(&mut call.store)
            .and_then(|instance| instance.heyuan_plugins_benefits().call_decide(&mut call.store, param))
            .map_err(|error| call.failed(&error))?;
        let effects = answer.map_err(|message| call.guest_error(&message))?;
        let effects = checked(effects, &self.0.description).map_err(|message| call.refused(message))?;
        let output_bytes = serde_json::to_vec(&effects).map_err(|error| CallError::Engine(error.to_string()))?;
        Ok(Decision { effects, output_bytes, fuel_used: call.fuel_used(), log: call.log() })
    }
}

fn feature_param(value: &FeatureValue) -> wit::FeatureValue<'_> {
    match value {
        FeatureValue::Absent => wit::FeatureValue::Absent,
        FeatureValue::Integer(integer) => wit::FeatureValue::Integer(*integer),
        FeatureValue::Ratio(ratio) => wit::FeatureValue::Ratio(wit::Ratio { numerator: ratio.numerator, denominator: ratio.denominator }),
        FeatureValue::Text(text) => wit::FeatureValue::Text(text),
    }
}

fn transaction_param<'a>(transaction: &'a Transaction, lines: &'a OrderLines, dictionary: &'a [&'a str]) -> wit::Transaction<'a> {
    let time = transaction.local_time;
    wit::Transaction {
        line: &transaction.line,
        unit: &transaction.unit,
        kind: &transaction.kind,
        amount_fen: transaction.amount_fen,
        currency: &transaction.currency,
        occurred_at_ms: transaction.occurred_at_ms,
        local_time: wit::LocalTime {
            year: time.year,
            month: time.month,
            day: time.day,
            weekday: time.weekday,
            minute_of_day: time.minute_of_day,
        },
        base_growth: transaction.base_growth,
        base_points: transaction.base_points,
        order_lines: wit::OrderLines {
            products: &lines.products,
            categories: &lines.categories,
            merchants: &lines.merchants,
            quantities: &lines.quantities,
            amounts_fen: &lines.amounts_fen,
            dictionary,
        },
    }
}

fn checked(effects: Vec<wit::Effect>, description: &BenefitRuleDescription) -> Result<Vec<Effect>, String> {
    if effects.len() > EFFECTS_MAX {
        return Err(format!("it answered {} effects, {EFFECTS_MAX} are allowed", effects.len()));
    }
    effects.into_iter().map(|effect| checked_effect(effect, description)).collect()
}

fn checked_effect(effect: wit::Effect, description: &BenefitRuleDescription) -> Result<Effect, String> {
    let change = match effect.change {
        wit::Change::Growth(growth) => Change::Growth(growth),
        wit::Change::Points(points) if points > 0 => Change::Points(points),
        wit::Change::Points(points) => return Err(format!("it gives {points} points; only points above zero can be given")),
        wit::Change::Discount(fen) if fen > 0 => Change::Discount(fen),
        wit::Change::Discount(fen) => return Err(format!("it takes {fen} fen off; only fen above zero can be taken off")),
        wit::Change::Benefit(code) => Change::Benefit(checked_code(code)?),
        wit::Change::Voucher(code) => Change::Voucher(checked_code(code)?),
    };
    if !description.effects.contains(&change.kind()) {
        return Err(format!("it answered a {:?} effect, which it never declared", change.kind()).to_lowercase());
    }
    if effect.reason.len() > REASON_BYTES_MAX {
        return Err(format!("a reason is longer than {REASON_BYTES_MAX} bytes"));
    }
    if effect.reason.contains('\0') {
        return Err("a reason has a NUL character".into());
    }
    Ok(Effect { change, reason: effect.reason })
}

fn checked_code(code: String) -> Result<String, String> {
    if code.is_empty() || code.len() > CODE_BYTES_MAX {
        return Err(format!("a code must be 1 to {CODE_BYTES_MAX} bytes"));
    }
    if code.contains('\0') {
        return Err("a code has a NUL character".into());
    }
    Ok(code)
}
