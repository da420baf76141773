//! Deciding what a purchase earns: earn rules, then the active plugins in their order, each clamped by limits and its budget.
//!
//! Everything here is read and run outside any transaction; what counts is checked again in the one that posts.

use crate::books;
use crate::earn::{EarnRules, Earned};
use crate::error::{Error, codes};
use crate::facade::Membership;
use crate::member::{self, MemberRow};
use crate::policy::Policy;
use crate::rule::{Change, Effect, FeatureValue, LocalTime, OrderColumns, RuleError, RuleInput, RuleMember, RuleTransaction};
use crate::transaction::Report;
use heyuan_contract::{Line, MemberId, ProductId, Timestamp};
use heyuan_kernel::plugin::Active;
use heyuan_kernel::{Problem, Zone, guard, sql};
use heyuan_ledger::{Balance, Period};
use std::collections::HashMap;

/// What a rule may grant in a month when nobody set a budget.
pub(crate) const BUDGET_POINTS_DEFAULT: i64 = 10_000_000;
/// Points that one call of a rule may add.
const CALL_POINTS_MAX: i64 = 100_000;
/// Growth that one call of a rule may add or take.
const CALL_GROWTH_MAX: i64 = 100_000;
/// Effects of one call; what comes after them is dropped.
const CALL_EFFECTS_MAX: usize = 32;
/// The feature that membership itself answers: points that this rule granted this member in the transaction's month, net of refunds.
const POINTS_THIS_MONTH: &str = "rule.points_this_month";

/// What a decision about a member relied on.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) member: MemberRow,
    pub(crate) growth: Balance,
    pub(crate) points: Balance,
    spendable: i64,
    /// The tier at the moment of the decision; where no rule reads it, as it is stored.
    pub(crate) tier: String,
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
    pub(crate) points: i64,
    pub(crate) growth: i64,
}

/// A decision that waits to be posted.
#[derive(Debug, Clone)]
pub(crate) struct Decided {
    pub(crate) snapshot: Snapshot,
    pub(crate) policy: Policy,
    /// The rules of the transaction's own time.
    pub(crate) earn: EarnRules,
    pub(crate) base: Earned,
    pub(crate) calls: Vec<Drafted>,
    pub(crate) pointers: Vec<(String, i64)>,
    pub(crate) position: Option<i64>,
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
        let snapshot = self.snapshot(member, &policy, now).await?;
        let earn = policy.earn_at(report.occurred_at)?.clone();
        let base = earn.earn(line, report.amount.0, &report.lines).map_err(out_of_range)?;
        let month = Period::of(&kernel.zone, report.occurred_at);
        let active = policy.rules.clone();
        let pointers = active.iter().map(|rule| (rule.name.clone(), rule.generation)).collect();
        let spent = if active.is_empty() { Spent::default() } else { spent(kernel.db.near(), &snapshot.member.id, month).await? };
        let mut decided = Decided {
            expires_at: kernel.zone.day_start_after(report.occurred_at, earn.points_days + 1),
            snapshot,
            policy,
            earn,
            base,
            calls: Vec::with_capacity(active.len()),
            pointers,
            position: None,
            growth: base.growth,
            points: base.points,
            month,
        };
        for rule in active.iter() {
            let call = self.call(report, line, &mut decided, rule, &spent, now).await?;
            decided.growth = decided.growth.checked_add(call.growth).ok_or_else(|| out_of_range("growth"))?;
            decided.points = decided.points.checked_add(call.points).ok_or_else(|| out_of_range("points"))?;
            decided.calls.push(call);
        }
        Ok(decided)
    }

    async fn snapshot(&self, member: MemberRow, policy: &Policy, now: Timestamp) -> Result<Snapshot, Error> {
        let (growth, points) = (books::growth_account(&member.id), books::points_account(&member.id));
        let tier = if policy.rules.is_empty() {
            member.tier.clone()
        } else {
            // The stored one may be overdue: time takes tiers away, and the clockwork comes by only now and then.
            let facts = self.tier_facts(self.kernel().db.near(), &member.id, &policy.tiers, now).await?;
            facts.standing(&policy.tiers, &self.kernel().zone, &member)?.tier().to_owned()
        };
        match self.ledger().standing(&[&growth, &points], now).await?.as_slice() {
            [(growth, _), (points, spendable)] => Ok(Snapshot { growth: *growth, points: *points, spendable: *spendable, tier, member }),
            _ => Err(member::corrupt("member", "it has no accounts").into()),
        }
    }

    async fn call(
        &self,
        report: &Report,
        line: Line,
        decided: &mut Decided,
        rule: &Active,
        spent: &Spent,
        now: Timestamp,
    ) -> Result<Drafted, Error> {
        let names = reads(&rule.description);
        let features = self.features(decided, spent.counters.get(&rule.name), &names).await?;
        let input = rule_input(report, line, decided, features, now, &self.kernel().zone);
        let bytes = self.rules().canonical(rule, &input)?;
        let answer = self.rules().decide(&rule.digest, &bytes).await.map_err(|error| stopped(rule, error))?;
        let (limit, spent) = spent.budgets.get(&rule.name).copied().unwrap_or((BUDGET_POINTS_DEFAULT, 0));
        let taken: i64 = decided.calls.iter().map(|call| call.growth).sum();
        let effects = clamp(&answer.effects, (limit - spent).max(0), decided.base.growth + taken);
        Ok(Drafted {
            rule: rule.name.clone(),
            digest: rule.digest.clone(),
            generation: rule.generation,
            input: bytes,
            output: answer.output,
            fuel: answer.fuel,
            points: effects.iter().map(|effect| if let Change::Points(points) = effect.change { points } else { 0 }).sum(),
            growth: effects.iter().map(|effect| if let Change::Growth(growth) = effect.change { growth } else { 0 }).sum(),
            raw: answer.effects,
            effects,
            budget_limit: limit,
            budget_spent: spent,
        })
    }

    async fn features(&self, decided: &mut Decided, counted: Option<&i64>, names: &[String]) -> Result<Vec<(String, FeatureValue)>, Error> {
        let others: Vec<String> = names.iter().filter(|name| *name != POINTS_THIS_MONTH).cloned().collect();
        let mut values = HashMap::new();
        if let Some(anchor) = decided.snapshot.member.anchor.as_ref().filter(|_| !others.is_empty()) {
            let found = self.customers().features(anchor, &others).await?;
            decided.position = Some(found.position.max(decided.position.unwrap_or(found.position)));
            values.extend(others.into_iter().zip(found.values));
        }
        if names.iter().any(|name| name == POINTS_THIS_MONTH) {
            values.insert(POINTS_THIS_MONTH.to_owned(), FeatureValue::Integer(counted.copied().unwrap_or(0)));
        }
        Ok(names.iter().map(|name| (name.clone(), values.remove(name).unwrap_or_default())).collect())
    }
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
            local_time: local_time(zone, report.occurred_at),
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

fn local_time(zone: &Zone, at: Timestamp) -> LocalTime {
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

/// Brings a rule's effects within its limits: points within a call's and the budget's, growth never below nothing, codes that
/// could name something; what comes to nothing is dropped.
fn clamp(effects: &[Effect], budget: i64, growth_so_far: i64) -> Vec<Effect> {
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

/// What rules granted in a month, by rule.
#[derive(Default)]
struct Spent {
    /// To everybody: the limit, and what is spent of it.
    budgets: HashMap<String, (i64, i64)>,
    /// To the member.
    counters: HashMap<String, i64>,
}

async fn spent<C: sql::Connection>(conn: &C, member: &MemberId, month: Period) -> Result<Spent, Error> {
    let text = "SELECT rule, points_max, points_spent, CAST(NULL AS BIGINT) AS counted FROM membership_budget WHERE period = $1
                UNION ALL SELECT rule, CAST(0 AS BIGINT), CAST(0 AS BIGINT), points FROM membership_counter WHERE member = $2 AND period = $1";
    let mut spent = Spent::default();
    for row in sql::all(conn, text, [month.number().into(), member.as_str().into()]).await? {
        let rule: String = sql::get(&row, "rule")?;
        match sql::get::<Option<i64>>(&row, "counted")? {
            Some(points) => drop(spent.counters.insert(rule, points)),
            None => drop(spent.budgets.insert(rule, (sql::get(&row, "points_max")?, sql::get(&row, "points_spent")?))),
        }
    }
    Ok(spent)
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
