//! Budgets: what rules may grant together, by rule and month, and by name over rules, lines and a stretch of time, as a campaign has it.
//!
//! A decision sees what is left of every budget that holds for it and keeps within each; the transaction that posts takes it from them, or
//! fails and is decided again. What a refund takes back does not go back into a budget: it was granted.

use crate::counter::Counter;
use crate::decide::Decided;
use crate::error::Error;
use crate::facade::{Membership, require_group};
use crate::member::corrupt;
use futures::FutureExt;
use heyuan_contract::{Line, MemberId, Timestamp};
use heyuan_kernel::bulk::{self, Column};
use heyuan_kernel::error::codes as kernel_codes;
use heyuan_kernel::{Actor, Problem, Tx, audit, sql};
use heyuan_ledger::Period;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What is read of a row of `membership_named_budget`.
const COLUMNS: &str = "name, rules, lines, from_ms, until_ms, points_max, points_spent";

/// What a rule may grant in a month when nobody set a budget.
const RULE_POINTS_DEFAULT: i64 = 10_000_000;
/// Largest budget.
const POINTS_MAX: i64 = 1_000_000_000_000;
/// Budgets with a name that hold at one instant.
const BUDGETS_MAX: i64 = 200;
/// Rules that one budget names.
const RULES_MAX: usize = 100;
/// Longest time that a budget holds, in milliseconds: ten years.
const LENGTH_MS_MAX: i64 = 10 * 366 * 86_400_000;

/// A budget with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Its name: a campaign's, say.
    pub name: String,
    /// The rules that draw on it; empty for every rule.
    pub rules: BTreeSet<String>,
    /// The lines at whose transactions they draw on it; empty for every line.
    pub lines: BTreeSet<Line>,
    /// From which own time of transactions on it holds.
    pub from: Timestamp,
    /// Before which own time it holds.
    pub until: Timestamp,
    /// What may be granted from it in all.
    pub points_max: i64,
}

/// A budget, and what was granted from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetView {
    /// The budget.
    pub budget: Budget,
    /// Points granted from it.
    pub points_spent: i64,
}

/// A rule's budget of a month, and what was granted from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleBudget {
    /// What may be granted from it in all.
    pub points_max: i64,
    /// Points granted from it.
    pub points_spent: i64,
}

/// What a call drew from a budget with a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drawn {
    /// The budget.
    pub name: String,
    /// What may be granted from it in all.
    pub limit: i64,
    /// What had been granted before the call.
    pub spent: i64,
    /// What the call granted.
    pub points: i64,
}

/// What rules may still grant to a member by one transaction.
#[derive(Default)]
pub(crate) struct Allowance {
    /// By rule: the limit of the month, and what is spent of it.
    by_rule: HashMap<String, (i64, i64)>,
    /// What each rule granted the member in the month.
    counters: HashMap<String, i64>,
    named: Vec<Named>,
}

struct Named {
    name: String,
    rules: BTreeSet<String>,
    limit: i64,
    spent: i64,
}

impl Allowance {
    /// Reads what is left for each transaction: whose it is, its month, its line, its own time.
    pub(crate) async fn read<C: sql::Connection>(
        conn: &C,
        transactions: &[(&MemberId, Period, Line, Timestamp)],
    ) -> Result<Vec<Allowance>, Error> {
        let columns = [
            Column::texts(transactions.iter().map(|(member, ..)| member.to_string())),
            Column::numbers(transactions.iter().map(|(_, month, ..)| month.number())),
            Column::numbers(transactions.iter().map(|(.., at)| at.ms())),
        ];
        let (from, values) = bulk::source(conn, &["buyer", "month", "own_time"], &columns);
        let text = format!(
            "WITH asked AS (SELECT v.place, v.buyer, v.month, v.own_time FROM {from})
             SELECT a.place, b.rule, b.points_max, b.points_spent, CAST(NULL AS BIGINT) AS counted, CAST(NULL AS TEXT) AS rules,
               CAST(NULL AS TEXT) AS lines
             FROM asked a JOIN membership_budget b ON b.period = a.month
             UNION ALL SELECT a.place, c.rule, CAST(0 AS BIGINT), CAST(0 AS BIGINT), c.points, CAST(NULL AS TEXT), CAST(NULL AS TEXT)
             FROM asked a JOIN membership_counter c ON c.member = a.buyer AND c.period = a.month
             UNION ALL SELECT a.place, n.name, n.points_max, n.points_spent, CAST(NULL AS BIGINT), n.rules, n.lines
             FROM asked a JOIN membership_named_budget n ON n.until_ms > a.own_time AND n.from_ms <= a.own_time"
        );
        let mut allowances: Vec<(Allowance, Line)> = transactions.iter().map(|(_, _, line, _)| (Allowance::default(), *line)).collect();
        for row in sql::all(conn, &text, values).await? {
            let (allowance, line) = bulk::of_place(&mut allowances, &row)?;
            allowance.note(&row, *line)?;
        }
        Ok(allowances.into_iter().map(|(allowance, _)| allowance).collect())
    }

    fn note(&mut self, row: &sql::Row, line: Line) -> Result<(), Error> {
        let name: String = sql::get(row, "rule")?;
        let (limit, spent): (i64, i64) = (sql::get(row, "points_max")?, sql::get(row, "points_spent")?);
        match (sql::get::<Option<i64>>(row, "counted")?, sql::get::<Option<String>>(row, "rules")?) {
            (Some(points), _) => drop(self.counters.insert(name, points)),
            (None, None) => drop(self.by_rule.insert(name, (limit, spent))),
            (None, Some(rules)) => {
                let lines: BTreeSet<Line> = listed(&sql::get::<String>(row, "lines")?)?;
                if lines.is_empty() || lines.contains(&line) {
                    self.named.push(Named { name, rules: listed(&rules)?, limit, spent });
                }
            }
        }
        Ok(())
    }

    /// Points that the rule granted the member in the month, net of refunds.
    pub(crate) fn counted(&self, rule: &str) -> i64 {
        self.counters.get(rule).copied().unwrap_or(0)
    }

    /// The limit of a rule's month, and what is spent of it.
    pub(crate) fn of_rule(&self, rule: &str) -> (i64, i64) {
        self.by_rule.get(rule).copied().unwrap_or((RULE_POINTS_DEFAULT, 0))
    }

    /// What the rule may still grant, by every budget that holds for it.
    pub(crate) fn left(&self, rule: &str) -> i64 {
        let (limit, spent) = self.of_rule(rule);
        let named = self.named.iter().filter(|budget| budget.holds(rule)).map(|budget| budget.limit - budget.spent);
        named.fold(limit - spent, i64::min).max(0)
    }

    /// Takes what a call granted from the budgets with a name, so that the next rule sees what is left; answers what was seen of each.
    pub(crate) fn draw(&mut self, rule: &str, points: i64) -> Vec<Drawn> {
        let mut drawn = Vec::new();
        for budget in self.named.iter_mut().filter(|budget| budget.holds(rule)) {
            drawn.push(Drawn { name: budget.name.clone(), limit: budget.limit, spent: budget.spent, points });
            budget.spent += points;
        }
        drawn
    }
}

impl Named {
    fn holds(&self, rule: &str) -> bool {
        self.rules.is_empty() || self.rules.contains(rule)
    }
}

fn listed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Error> {
    Ok(serde_json::from_str(text).map_err(|e| corrupt("budget", e))?)
}

fn list<T: Serialize>(list: &T) -> Result<String, Error> {
    Ok(serde_json::to_string(list).map_err(|e| corrupt("budget", e))?)
}

/// What the rules of a decision grant the member, for its counters.
pub(crate) fn counted(decided: &Decided) -> impl Iterator<Item = (Counter, i64)> {
    let member = &decided.snapshot.member.id;
    decided.calls.iter().map(move |call| ((member.clone(), call.rule.clone(), decided.month.number()), call.points))
}

/// Takes what the rules grant from their budgets; a budget that no longer has it lets the use cases decide again.
pub(crate) async fn spend(tx: &Tx, decisions: &[&Decided]) -> Result<(), Error> {
    let gone = || Error::from(heyuan_kernel::Error::Stale("a budget of rules"));
    // In the order of their names, so that no two transactions wait for each other.
    let mut by_rule: BTreeMap<(&str, i64), i64> = BTreeMap::new();
    let mut named: BTreeMap<&str, i64> = BTreeMap::new();
    for decided in decisions {
        for call in decided.calls.iter().filter(|call| call.points > 0) {
            *by_rule.entry((&call.rule, decided.month.number())).or_default() += call.points;
            for drawn in &call.drawn {
                *named.entry(&drawn.name).or_default() += drawn.points;
            }
        }
    }
    for ((rule, month), points) in by_rule {
        let spent = sql::execute(
            tx.conn(),
            "INSERT INTO membership_budget (rule, period, points_max, points_spent) VALUES ($1, $2, $3, $4)
             ON CONFLICT (rule, period) DO UPDATE SET points_spent = membership_budget.points_spent + excluded.points_spent
             WHERE membership_budget.points_spent + excluded.points_spent <= membership_budget.points_max",
            [rule.into(), month.into(), RULE_POINTS_DEFAULT.into(), points.into()],
        )
        .await?;
        if spent == 0 {
            return Err(gone());
        }
    }
    for (name, points) in named {
        let text =
            "UPDATE membership_named_budget SET points_spent = points_spent + $2 WHERE name = $1 AND points_spent + $2 <= points_max";
        if sql::execute(tx.conn(), text, [name.into(), points.into()]).await? == 0 {
            return Err(gone());
        }
    }
    Ok(())
}

impl Membership {
    /// Sets what a rule may grant to all members together in a month; what it granted already stays.
    ///
    /// # Errors
    /// `forbidden`, also for a key of one unit, since a budget is the whole group's; `invalid_request`.
    pub async fn set_budget(&self, actor: &Actor, rule: &str, period: &str, points_max: i64) -> Result<(), Error> {
        require_group(actor, "a rule's budget needs a key of the whole group")?;
        let period = Period::parse(period).ok_or_else(|| Problem::invalid("period", "expected a month such as 2026-11"))?;
        check_name("rule", rule)?;
        check_points(points_max)?;
        let entry = audit::Entry::new(actor, "set rule budget", rule).detail("period", period.number()).detail("points_max", points_max);
        let rule = rule.to_owned();
        self.kernel()
            .db
            .write("set a budget", move |tx| {
                let (rule, entry) = (rule.clone(), entry.clone());
                async move {
                    sql::execute(
                        tx.conn(),
                        "INSERT INTO membership_budget (rule, period, points_max, points_spent) VALUES ($1, $2, $3, 0)
                         ON CONFLICT (rule, period) DO UPDATE SET points_max = excluded.points_max",
                        [rule.into(), period.number().into(), points_max.into()],
                    )
                    .await?;
                    Ok(audit::record(tx, &entry).await?)
                }
                .boxed()
            })
            .await
    }

    /// What a rule may grant in a month and what it granted of that: the budget that is set, or the one that holds where nobody set one.
    ///
    /// # Errors
    /// `forbidden`, also for a key of one unit; `invalid_request`.
    pub async fn rule_budget(&self, actor: &Actor, rule: &str, period: &str) -> Result<RuleBudget, Error> {
        require_group(actor, "a rule's budget needs a key of the whole group")?;
        let period = Period::parse(period).ok_or_else(|| Problem::invalid("period", "expected a month such as 2026-11"))?;
        check_name("rule", rule)?;
        let text = "SELECT points_max, points_spent FROM membership_budget WHERE rule = $1 AND period = $2";
        let row = sql::one(self.kernel().db.near(), text, [rule.into(), period.number().into()]).await?;
        let Some(row) = row else { return Ok(RuleBudget { points_max: RULE_POINTS_DEFAULT, points_spent: 0 }) };
        Ok(RuleBudget { points_max: sql::get(&row, "points_max")?, points_spent: sql::get(&row, "points_spent")? })
    }

    /// Sets a budget with a name. Its points may be changed at any time; what it holds for only until the first point is granted from it.
    ///
    /// # Errors
    /// `forbidden`, also for a key of one unit; `invalid_request` with the field; `conflict` when points were granted from it and it would
    /// hold for something else, or when too many would hold at once.
    pub async fn put_budget(&self, actor: &Actor, budget: &Budget) -> Result<BudgetView, Error> {
        require_group(actor, "a budget needs a key of the whole group")?;
        check(budget)?;
        let (lines, rules) = (list(&budget.lines)?, list(&budget.rules)?);
        let entry = audit::Entry::new(actor, "set budget", &budget.name).detail("points_max", budget.points_max);
        let (budget, now) = (budget.clone(), self.kernel().clock.now());
        self.kernel()
            .db
            .write("set a budget", move |tx| {
                let (budget, entry, rules, lines) = (budget.clone(), entry.clone(), rules.clone(), lines.clone());
                async move {
                    let view = write(tx, budget, rules, lines, now).await?;
                    audit::record(tx, &entry).await?;
                    Ok(view)
                }
                .boxed()
            })
            .await
    }

    /// The budgets with a name, in the order of their names; `after` is the last of the page before.
    ///
    /// # Errors
    /// `forbidden`, also for a key of one unit.
    pub async fn list_budgets(&self, actor: &Actor, after: Option<&str>, limit: u64) -> Result<Vec<BudgetView>, Error> {
        require_group(actor, "budgets need a key of the whole group")?;
        let text = format!("SELECT {COLUMNS} FROM membership_named_budget WHERE name > $1 ORDER BY name LIMIT $2");
        let rows = sql::all(self.kernel().db.reader(), &text, [after.unwrap_or_default().into(), limit.into()]).await?;
        rows.iter().map(read).collect()
    }
}

async fn write(tx: &Tx, budget: Budget, rules: String, lines: String, now: Timestamp) -> Result<BudgetView, Error> {
    let written = sql::execute(
        tx.conn(),
        "INSERT INTO membership_named_budget (name, rules, lines, from_ms, until_ms, points_max, points_spent, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, 0, $7)
         ON CONFLICT (name) DO UPDATE SET rules = excluded.rules, lines = excluded.lines, from_ms = excluded.from_ms,
           until_ms = excluded.until_ms, points_max = excluded.points_max
         WHERE membership_named_budget.points_spent = 0
           OR (membership_named_budget.rules = excluded.rules AND membership_named_budget.lines = excluded.lines
             AND membership_named_budget.from_ms = excluded.from_ms AND membership_named_budget.until_ms = excluded.until_ms)",
        [
            budget.name.clone().into(),
            rules.into(),
            lines.into(),
            budget.from.ms().into(),
            budget.until.ms().into(),
            budget.points_max.into(),
            now.ms().into(),
        ],
    )
    .await?;
    if written == 0 {
        let words = format!("points were granted from {}: only points_max can change, for anything else take a new name", budget.name);
        return Err(Error::refused(kernel_codes::CONFLICT, words));
    }
    let text = "SELECT COUNT(*) AS n FROM membership_named_budget WHERE until_ms > $1 AND from_ms < $2";
    if sql::count(tx.conn(), text, [budget.from.ms().into(), budget.until.ms().into()]).await? > BUDGETS_MAX {
        return Err(Error::refused(kernel_codes::CONFLICT, format!("at most {BUDGETS_MAX} budgets may overlap in time")));
    }
    let text = format!("SELECT {COLUMNS} FROM membership_named_budget WHERE name = $1");
    let row = sql::one(tx.conn(), &text, [budget.name.into()]).await?.ok_or_else(|| corrupt("budget", "it is gone"))?;
    read(&row)
}

fn read(row: &sql::Row) -> Result<BudgetView, Error> {
    let budget = Budget {
        name: sql::get(row, "name")?,
        rules: listed(&sql::get::<String>(row, "rules")?)?,
        lines: listed(&sql::get::<String>(row, "lines")?)?,
        from: Timestamp::clamped(sql::get(row, "from_ms")?),
        until: Timestamp::clamped(sql::get(row, "until_ms")?),
        points_max: sql::get(row, "points_max")?,
    };
    Ok(BudgetView { budget, points_spent: sql::get(row, "points_spent")? })
}

fn check(budget: &Budget) -> Result<(), Problem> {
    check_name("name", &budget.name)?;
    check_points(budget.points_max)?;
    if budget.rules.len() > RULES_MAX {
        return Err(Problem::invalid("rules", format!("expected at most {RULES_MAX} rules")));
    }
    budget.rules.iter().try_for_each(|rule| check_name("rules", rule))?;
    if !(1..=LENGTH_MS_MAX).contains(&budget.until.ms().saturating_sub(budget.from.ms())) {
        return Err(Problem::invalid("until", "expected an instant after from, by ten years at most"));
    }
    Ok(())
}

fn check_name(field: &str, name: &str) -> Result<(), Problem> {
    let named = !name.is_empty() && name.len() <= 63 && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if named { Ok(()) } else { Err(Problem::invalid(field, "expected a name of 1 to 63 characters of a-z 0-9 -")) }
}

fn check_points(points_max: i64) -> Result<(), Problem> {
    if (0..=POINTS_MAX).contains(&points_max) {
        return Ok(());
    }
    Err(Problem::invalid("points_max", format!("expected 0 to {POINTS_MAX} points")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_budget_that_holds_for_a_rule_is_kept() {
        let named = |name: &str, rules: &[&str], limit| Named {
            name: name.into(),
            rules: rules.iter().map(|rule| (*rule).to_owned()).collect(),
            limit,
            spent: 10,
        };
        let mut allowance = Allowance {
            by_rule: [("gift".to_owned(), (100, 40))].into(),
            counters: HashMap::new(),
            named: vec![named("autumn", &[], 50), named("gifts", &["gift"], 35)],
        };
        assert_eq!((allowance.left("gift"), allowance.left("other")), (25, 40));
        let drawn = allowance.draw("gift", 25);
        assert_eq!(
            drawn.iter().map(|one| (one.name.as_str(), one.spent, one.points)).collect::<Vec<_>>(),
            [("autumn", 10, 25), ("gifts", 10, 25)]
        );
        assert_eq!((allowance.left("gift"), allowance.left("other")), (0, 15), "the next rule sees what is left");
    }
}
