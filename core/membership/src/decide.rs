//! Deciding what a purchase earns: earn rules, then the active plugins in their order, each clamped by limits and its budget.
//!
//! Everything here is read and run outside any transaction; what counts is checked again in the one that posts.

use crate::budget::{Allowance, Drawn};
use crate::caps::{self, Counted};
use crate::earn::{EarnRules, Earned, Moment};
use crate::error::{Error, codes};
use crate::facade::Membership;
use crate::look::{Question, Seen};
use crate::member::MemberRow;
use crate::policy::Policy;
use crate::rule::{Change, Effect, FeatureValue, LocalTime, OrderColumns, RuleError, RuleInput, RuleMember, RuleTransaction};
use crate::transaction::Report;
use heyuan_contract::{Line, OrderLine, ProductId, Timestamp};
use heyuan_kernel::plugin::Active;
use heyuan_kernel::{Problem, Zone, guard};
use heyuan_ledger::{Balance, Period};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Points that one call of a rule may add.
const CALL_POINTS_MAX: i64 = 100_000;
/// Growth that one call of a rule may add or take.
const CALL_GROWTH_MAX: i64 = 100_000;
/// Effects of one call; what comes after them is dropped.
pub(crate) const CALL_EFFECTS_MAX: usize = 32;
/// The feature that membership itself answers: points that this rule granted this member in the transaction's month, net of refunds.
const POINTS_THIS_MONTH: &str = "rule.points_this_month";

/// What a decision about a member relied on.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) member: MemberRow,
    pub(crate) growth: Balance,
    pub(crate) points: Balance,
    /// What of the points can be spent.
    pub(crate) spendable: i64,
    /// The tier at the moment of the decision; where nothing reads it, as it is stored.
    pub(crate) tier: String,
}

/// How the earn rules came to what they gave, where a multiplier or a cap had a say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    /// The member's tier when it was decided.
    pub tier: String,
    /// What would have been earned without caps.
    pub gross: Earned,
    /// The multiplier of growth.
    pub growth_by: Option<String>,
    /// The multiplier of points.
    pub points_by: Option<String>,
    /// The caps, with what each counted.
    pub caps: Vec<Counted>,
}

/// One rule's part in a decision.
#[derive(Debug, Clone)]
pub(crate) struct Drafted {
    pub(crate) rule: String,
    pub(crate) digest: String,
    pub(crate) generation: i64,
    pub(crate) input: Vec<u8>,
    pub(crate) output: Vec<u8>,
    pub(crate) fuel: u64,
    pub(crate) raw: Vec<Effect>,
    pub(crate) effects: Vec<Effect>,
    pub(crate) budget_limit: i64,
    pub(crate) budget_spent: i64,
    pub(crate) drawn: Vec<Drawn>,
    pub(crate) points: i64,
    pub(crate) growth: i64,
}

/// A decision that waits to be posted.
#[derive(Debug, Clone)]
pub(crate) struct Decided {
    pub(crate) snapshot: Snapshot,
    pub(crate) policy: Policy,
    /// The rules of the transaction's own time.
    pub(crate) earn: Arc<EarnRules>,
    pub(crate) base: Earned,
    pub(crate) basis: Basis,
    /// Whether the tier had a say.
    pub(crate) reads_tier: bool,
    pub(crate) calls: Vec<Drafted>,
    pub(crate) pointers: Vec<(String, i64)>,
    pub(crate) position: Option<i64>,
    /// Products that rules want vouchers of and that are none of the mall's.
    pub(crate) no_vouchers: BTreeSet<ProductId>,
    pub(crate) growth: i64,
    pub(crate) points: i64,
    /// When a point of this purchase expires.
    pub(crate) expires_at: Timestamp,
    /// The transaction's own month: what budgets and counters are kept by.
    pub(crate) month: Period,
}

impl Membership {
    /// Decides about a purchase as of now.
    pub(crate) async fn decide(&self, report: &Report, line: Line, member: MemberRow) -> Result<Decided, Error> {
        guard::outside_unit("a decision of benefit rules");
        member.check_open()?;
        let policy = self.policy().await?;
        let decided = self.decide_under(report, line, member.clone(), policy.clone()).await;
        if decided.is_ok() {
            return decided;
        }
        // A rule that fails may have been replaced since it was remembered.
        let current = self.read_policy().await?;
        if current.rules == policy.rules { decided } else { self.decide_under(report, line, member, current).await }
    }

    async fn decide_under(&self, report: &Report, line: Line, member: MemberRow, policy: Policy) -> Result<Decided, Error> {
        let kernel = self.kernel();
        let now = kernel.clock.now();
        let earn = policy.earn_at(report.occurred_at)?.clone();
        let reads_tier = policy.reads_tier(&earn, line);
        let question = Question { member, line, at: report.occurred_at, policy: policy.clone() };
        let Seen { snapshot, counted, mut allowance } = self.see(question).await?;
        let moment = Moment { at: report.occurred_at, local: LocalTime::of(&kernel.zone, report.occurred_at), tier: &snapshot.tier };
        let (base, basis) = basis(&earn, line, (report.amount.0, &report.lines), &moment, counted)?;
        let month = Period::of(&kernel.zone, report.occurred_at);
        let active = policy.rules.clone();
        let pointers = active.iter().map(|rule| (rule.name.clone(), rule.generation)).collect();
        let mut decided = Decided {
            expires_at: kernel.zone.day_start_after(report.occurred_at, earn.points_days + 1),
            snapshot,
            policy,
            earn,
            base,
            basis,
            reads_tier,
            calls: Vec::with_capacity(active.len()),
            pointers,
            position: None,
            no_vouchers: BTreeSet::new(),
            growth: base.growth,
            points: base.points,
            month,
        };
        for rule in active.iter() {
            let call = self.call(report, line, &mut decided, rule, &mut allowance, now).await?;
            decided.growth = decided.growth.checked_add(call.growth).ok_or_else(|| out_of_range("growth"))?;
            decided.points = decided.points.checked_add(call.points).ok_or_else(|| out_of_range("points"))?;
            decided.calls.push(call);
        }
        decided.no_vouchers = self.no_vouchers(&decided.calls).await?;
        Ok(decided)
    }

    async fn call(
        &self,
        report: &Report,
        line: Line,
        decided: &mut Decided,
        rule: &Active,
        allowance: &mut Allowance,
        now: Timestamp,
    ) -> Result<Drafted, Error> {
        let names = reads(&rule.description);
        let features = self.features(decided, allowance.counted(&rule.name), &names).await?;
        let input = rule_input(report, line, decided, features, now, &self.kernel().zone);
        let bytes = self.rules().canonical(rule, &input)?;
        let answer = self.rules().decide(&rule.digest, &bytes).await.map_err(|error| stopped(rule, error))?;
        let (limit, spent) = allowance.of_rule(&rule.name);
        let taken: i64 = decided.calls.iter().map(|call| call.growth).sum();
        let effects = clamp(&answer.effects, allowance.left(&rule.name), decided.base.growth + taken);
        let points = effects.iter().map(|effect| if let Change::Points(points) = effect.change { points } else { 0 }).sum();
        Ok(Drafted {
            rule: rule.name.clone(),
            digest: rule.digest.clone(),
            generation: rule.generation,
            input: bytes,
            output: answer.output,
            fuel: answer.fuel,
            drawn: allowance.draw(&rule.name, points),
            points,
            growth: effects.iter().map(|effect| if let Change::Growth(growth) = effect.change { growth } else { 0 }).sum(),
            raw: answer.effects,
            effects,
            budget_limit: limit,
            budget_spent: spent,
        })
    }

    async fn features(&self, decided: &mut Decided, counted: i64, names: &[String]) -> Result<Vec<(String, FeatureValue)>, Error> {
        let others: Vec<String> = names.iter().filter(|name| *name != POINTS_THIS_MONTH).cloned().collect();
        let mut values = HashMap::new();
        if let Some(anchor) = decided.snapshot.member.anchor.as_ref().filter(|_| !others.is_empty()) {
            let found = self.customers().features(anchor, &others).await?;
            decided.position = Some(found.position.max(decided.position.unwrap_or(found.position)));
            values.extend(others.into_iter().zip(found.values));
        }
        if names.iter().any(|name| name == POINTS_THIS_MONTH) {
            values.insert(POINTS_THIS_MONTH.to_owned(), FeatureValue::Integer(counted));
        }
        Ok(names.iter().map(|name| (name.clone(), values.remove(name).unwrap_or_default())).collect())
    }
}

/// What the earn rules give, and how they come to it. Pure: the same again from what a decision keeps.
pub(crate) fn basis(
    earn: &EarnRules,
    line: Line,
    (amount_fen, order): (i64, &[OrderLine]),
    moment: &Moment<'_>,
    mut caps: Vec<Counted>,
) -> Result<(Earned, Basis), Error> {
    let gross = earn.earn(line, amount_fen, order, moment).map_err(out_of_range)?;
    let net = caps::hold(&mut caps, gross.earned);
    let basis = Basis { tier: moment.tier.to_owned(), gross: gross.earned, growth_by: gross.growth_by, points_by: gross.points_by, caps };
    Ok((net, basis))
}

fn out_of_range(what: impl std::fmt::Display) -> Error {
    Error::refused(codes::AMOUNT_OUT_OF_RANGE, format!("what it would earn does not fit: {what}"))
}

fn stopped(rule: &Active, error: RuleError) -> Error {
    let (code, why) = match error {
        RuleError::Stopped(why) => (codes::RULE_STOPPED, why),
        RuleError::Failed(why) => (codes::RULE_FAILED, why),
    };
    Problem::new(code, format!("rule {}: {why}; nothing was posted, send the same request again", rule.name)).retry_after_s(1).into()
}

/// The names of the features that a rule's description reads, in its order.
fn reads(description: &serde_json::Value) -> Vec<String> {
    let list = description.get("reads").and_then(serde_json::Value::as_array);
    let name = |entry: &serde_json::Value| entry.as_str().or_else(|| entry.get("name")?.as_str()).map(str::to_owned);
    list.into_iter().flatten().filter_map(name).collect()
}

fn rule_input(
    report: &Report,
    line: Line,
    decided: &Decided,
    features: Vec<(String, FeatureValue)>,
    now: Timestamp,
    zone: &Zone,
) -> RuleInput {
    let snapshot = &decided.snapshot;
    RuleInput {
        now_ms: now.ms(),
        transaction: RuleTransaction {
            id: report.id.to_string(),
            line: line.as_str().to_owned(),
            unit: report.unit.to_string(),
            kind: report.kind.as_str().to_owned(),
            amount_fen: report.amount.0,
            currency: report.currency.clone(),
            occurred_at_ms: report.occurred_at.ms(),
            local_time: LocalTime::of(zone, report.occurred_at),
            base_growth: decided.base.growth,
            base_points: decided.base.points,
            order: OrderColumns {
                skus: report.lines.iter().map(|line| line.sku.clone()).collect(),
                categories: report.lines.iter().map(|line| line.category.clone()).collect(),
                quantities: report.lines.iter().map(|line| line.quantity).collect(),
                amounts_fen: report.lines.iter().map(|line| line.amount.0).collect(),
            },
        },
        member: RuleMember {
            tier: snapshot.tier.clone(),
            joined_at_ms: snapshot.member.joined_at.ms(),
            growth: snapshot.growth.balance,
            points: snapshot.spendable,
        },
        features,
    }
}

/// Brings a rule's effects within its limits: points within a call's and the budget's, growth never below nothing, codes that
/// could name something; what comes to nothing is dropped.
pub(crate) fn clamp(effects: &[Effect], budget: i64, growth_so_far: i64) -> Vec<Effect> {
    let mut points_left = budget.min(CALL_POINTS_MAX);
    let mut growth = growth_so_far;
    let mut clamped = Vec::new();
    for effect in effects.iter().take(CALL_EFFECTS_MAX) {
        let change = match &effect.change {
            Change::Points(points) => {
                let points = (*points).clamp(0, points_left);
                points_left -= points;
                (points > 0).then_some(Change::Points(points))
            }
            Change::Growth(change) => {
                let change = (*change).clamp(-CALL_GROWTH_MAX, CALL_GROWTH_MAX).max(-growth.max(0));
                growth += change;
                (change != 0).then_some(Change::Growth(change))
            }
            Change::Voucher(code) => ProductId::new(code.clone()).is_ok().then(|| effect.change.clone()),
            Change::Benefit(code) => (!code.is_empty() && code.len() <= 64).then(|| effect.change.clone()),
            Change::Discount(fen) => (*fen > 0).then(|| effect.change.clone()),
        };
        clamped.extend(change.map(|change| Effect { change, reason: effect.reason.clone() }));
    }
    clamped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_stay_within_limits() {
        let effect = |change| Effect { change, reason: "test".into() };
        let cases: [(Vec<Change>, i64, Vec<Change>); 5] = [
            (vec![Change::Points(70), Change::Points(70)], 100, vec![Change::Points(70), Change::Points(30)]),
            (vec![Change::Points(-5), Change::Points(5)], 0, vec![]),
            (vec![Change::Growth(-80), Change::Growth(-80)], 0, vec![Change::Growth(-80), Change::Growth(-20)]),
            (vec![Change::Voucher("not a code".into()), Change::Voucher("prd_1".into())], 0, vec![Change::Voucher("prd_1".into())]),
            (vec![Change::Points(i64::MAX)], i64::MAX, vec![Change::Points(CALL_POINTS_MAX)]),
        ];
        for (raw, budget, expected) in cases {
            let raw: Vec<Effect> = raw.into_iter().map(effect).collect();
            let clamped: Vec<Change> = clamp(&raw, budget, 100).into_iter().map(|effect| effect.change).collect();
            assert_eq!(clamped, expected, "{raw:?}");
        }
    }

    #[test]
    fn a_description_names_what_it_reads() {
        let description = serde_json::json!({"reads": [{"name": "a", "kind": "integer"}, "b"]});
        assert_eq!(reads(&description), ["a", "b"]);
        assert!(reads(&serde_json::json!({})).is_empty());
    }
}
