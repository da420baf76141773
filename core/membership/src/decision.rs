//! A decision on record: who decided with what, explained, and run again on the very bytes.

use crate::budget::Drawn;
use crate::caps::Counted;
use crate::decide::{self, Basis, Decided, Drafted};
use crate::earn::{Earned, Moment};
use crate::error::Error;
use crate::facade::Membership;
use crate::member::corrupt;
use crate::missed::{Missed, Misses};
use crate::rule::{Change, Effect, LocalTime, RuleAnswer, RuleError};
use crate::transaction::{self, Row, RuleEffect};
use heyuan_contract::{MemberId, OrderLine, OrgUnitId, Timestamp, TransactionId};
use heyuan_kernel::bulk::{self, Column};
use heyuan_kernel::error::codes as kernel_codes;
use heyuan_kernel::secret::sha256_hex;
use heyuan_kernel::{Actor, Problem, Scope, Tx, sql};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is read of a row of `membership_decision_call`.
const CALL_COLUMNS: &str = "decision, place, rule, digest, generation, input, output, fuel, effects_raw, effects, budget_limit, \
     budget_spent, points, budgets, missed";

/// What is read of a row of `membership_decision`.
const COLUMNS: &str = "id, member, transaction_unit, transaction_id, at, earn_version, pointers, position, erased, basis, wording";

/// Calls of decisions whose words one statement empties.
const EMPTIED_MAX: i64 = 500;

/// A decision as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Its id.
    pub id: String,
    /// Whom it is about.
    pub member: MemberId,
    /// The transaction.
    pub unit: OrgUnitId,
    /// The transaction.
    pub transaction: TransactionId,
    /// When it was made.
    pub at: Timestamp,
    /// The version of the earn rules.
    pub earn_version: i64,
    /// How the earn rules came to what they gave, where a multiplier or a cap had a say.
    pub basis: Option<Basis>,
    /// The words in which it is explained: a decision keeps those of the release that made it.
    pub wording: Wording,
    /// The rules, in the order in which they ran.
    pub calls: Vec<Call>,
}

/// How a decision is said in words. What was explained once is explained alike by every later release.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wording {
    /// Says of everything that a rule asked for beyond its limits what was spent of its points, and not what could not be given.
    #[default]
    First,
    /// Tells limits, budgets and what could not be given apart.
    Second,
}

impl Wording {
    const fn number(self) -> i64 {
        match self {
            Wording::First => 1,
            Wording::Second => 2,
        }
    }
}

/// One rule's part in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The plugin's name.
    pub rule: String,
    /// The version, for ever.
    pub digest: String,
    /// The pointer's generation that was checked at the commit.
    pub generation: i64,
    /// The canonical bytes that it was shown.
    pub input: Vec<u8>,
    /// The bytes that it answered.
    pub output: Vec<u8>,
    /// What it cost then.
    pub fuel: i64,
    /// What it wanted.
    pub effects_raw: Vec<Effect>,
    /// What it got, after limits and budget.
    pub effects: Vec<Effect>,
    /// What of that could not be given, by its place, and why. Nothing is said of decisions in the first wording.
    pub missed: BTreeMap<usize, Missed>,
    /// The rule's budget of the month.
    pub budget_limit: i64,
    /// What was spent of it before.
    pub budget_spent: i64,
    /// The budgets with a name that held for it.
    pub drawn: Vec<Drawn>,
    /// Points that it granted.
    pub points: i64,
}

impl Call {
    /// Growth that it gave, or with a minus took.
    fn growth(&self) -> i64 {
        self.effects.iter().map(|effect| if let Change::Growth(growth) = effect.change { growth } else { 0 }).sum()
    }

    /// Whether an answer is the stored one, to the byte, and the limits and budgets that it saw leave the stored effects of it.
    fn is_answered_by(&self, answer: &RuleAnswer, growth_before: i64) -> bool {
        let named = self.drawn.iter().map(|budget| budget.limit - budget.spent);
        let left = named.fold(self.budget_limit - self.budget_spent, i64::min).max(0);
        answer.output == self.output
            && answer.effects == self.effects_raw
            && decide::clamp(&answer.effects, left, growth_before) == self.effects
    }
}

/// What running a decision again showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RerunReport {
    /// The decision.
    pub id: String,
    /// Whether the earn rules gave the same, and every rule answered the same bytes and got the same of what it asked for.
    pub same: bool,
    /// What the earn rules of then gave then, and give now.
    pub base: (Earned, Earned),
    /// Each rule.
    pub calls: Vec<RerunCall>,
}

/// One rule, run again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RerunCall {
    /// The plugin's name.
    pub rule: String,
    /// The version that was run.
    pub digest: String,
    /// Whether it answered the same bytes, and the limits and budgets of then leave the same effects of it.
    pub same: bool,
    /// SHA-256 of the input.
    pub input_sha256: String,
    /// SHA-256 of the stored output.
    pub stored_sha256: String,
    /// SHA-256 of the new output; absent when the rule did not answer.
    pub output_sha256: Option<String>,
    /// Why it did not answer.
    pub why: Option<String>,
}

fn json<T: Serialize>(value: &T) -> Result<String, Error> {
    Ok(serde_json::to_string(value).map_err(|e| corrupt("decision", e))?)
}

fn effects(row: &sql::Row, column: &str) -> Result<Vec<Effect>, Error> {
    let text: String = sql::get(row, column)?;
    Ok(serde_json::from_str(&text).map_err(|e| corrupt("decision", e))?)
}

/// A decision that is written with the transaction that it is about.
#[derive(Clone, Copy)]
pub(crate) struct NewDecision<'a> {
    pub(crate) id: &'a str,
    pub(crate) row: &'a Row,
    pub(crate) decided: &'a Decided,
    pub(crate) misses: &'a Misses,
}

/// Writes decisions with the transactions that they are about.
pub(crate) async fn insert(tx: &Tx, decisions: &[NewDecision<'_>]) -> Result<(), Error> {
    let texts = |field: fn(&NewDecision<'_>) -> String| Column::texts(decisions.iter().map(field));
    let numbers = |field: fn(&NewDecision<'_>) -> i64| Column::numbers(decisions.iter().map(field));
    let basis = |decision: &NewDecision<'_>| {
        let basis = &decision.decided.basis;
        let had_a_say = !basis.caps.is_empty() || basis.growth_by.is_some() || basis.points_by.is_some();
        had_a_say.then(|| json(basis)).transpose()
    };
    let pointers = |decision: &NewDecision<'_>| json(&decision.decided.pointers);
    let columns = [
        texts(|new| new.id.to_owned()),
        texts(|new| new.decided.snapshot.member.id.to_string()),
        texts(|new| new.row.unit.to_string()),
        texts(|new| new.row.id.to_string()),
        numbers(|new| new.row.arrived_at.ms()),
        numbers(|new| new.decided.earn.version),
        Column::texts(decisions.iter().map(pointers).collect::<Result<Vec<_>, Error>>()?),
        Column::Numbers(decisions.iter().map(|new| new.decided.position).collect()),
        numbers(|_| 0),
        Column::Texts(decisions.iter().map(basis).collect::<Result<Vec<_>, Error>>()?),
        numbers(|_| Wording::Second.number()),
    ];
    let names =
        ["id", "member", "transaction_unit", "transaction_id", "at", "earn_version", "pointers", "position", "erased", "basis", "wording"];
    bulk::insert(tx.conn(), "membership_decision", &names, &columns).await?;
    insert_calls(tx, decisions).await
}

async fn insert_calls(tx: &Tx, decisions: &[NewDecision<'_>]) -> Result<(), Error> {
    let calls: Vec<(&NewDecision<'_>, usize, &Drafted)> =
        decisions.iter().flat_map(|new| new.decided.calls.iter().enumerate().map(move |(place, call)| (new, place, call))).collect();
    if calls.is_empty() {
        return Ok(());
    }
    let missed = |(new, place, _): &(&NewDecision<'_>, usize, &Drafted)| {
        let own = new.misses.range((*place, 0)..(*place + 1, 0));
        let missed: BTreeMap<usize, Missed> = own.map(|((_, effect), missed)| (*effect, *missed)).collect();
        (!missed.is_empty()).then(|| json(&missed)).transpose()
    };
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let texts = |field: fn(&Drafted) -> &str| Column::texts(calls.iter().map(|(_, _, call)| field(call).to_owned()));
    let numbers = |field: fn(&Drafted) -> i64| Column::numbers(calls.iter().map(|(_, _, call)| field(call)));
    let lists = |field: fn(&Drafted) -> &Vec<Effect>| calls.iter().map(|(_, _, call)| json(field(call))).collect::<Result<Vec<_>, Error>>();
    let drawn = |(_, _, call): &(&NewDecision<'_>, usize, &Drafted)| (!call.drawn.is_empty()).then(|| json(&call.drawn)).transpose();
    let columns = [
        Column::texts(calls.iter().map(|(new, _, _)| new.id.to_owned())),
        Column::numbers(calls.iter().map(|(_, place, _)| whole(*place as u64))),
        texts(|call| &call.rule),
        texts(|call| &call.digest),
        numbers(|call| call.generation),
        Column::Bytes(calls.iter().map(|(_, _, call)| call.input.clone()).collect()),
        Column::Bytes(calls.iter().map(|(_, _, call)| call.output.clone()).collect()),
        Column::numbers(calls.iter().map(|(_, _, call)| whole(call.fuel))),
        Column::texts(lists(|call| &call.raw)?),
        Column::texts(lists(|call| &call.effects)?),
        numbers(|call| call.budget_limit),
        numbers(|call| call.budget_spent),
        numbers(|call| call.points),
        Column::Texts(calls.iter().map(drawn).collect::<Result<Vec<_>, Error>>()?),
        Column::Texts(calls.iter().map(missed).collect::<Result<Vec<_>, Error>>()?),
    ];
    let names = [
        "decision",
        "place",
        "rule",
        "digest",
        "generation",
        "input",
        "output",
        "fuel",
        "effects_raw",
        "effects",
        "budget_limit",
        "budget_spent",
        "points",
        "budgets",
        "missed",
    ];
    Ok(bulk::insert(tx.conn(), "membership_decision_call", &names, &columns).await?)
}

/// What the rules of a decision granted: name and points, for refunds.
pub(crate) async fn granted(tx: &Tx, decision: &str) -> Result<Vec<(String, i64)>, Error> {
    let text = "SELECT rule, points FROM membership_decision_call WHERE decision = $1 AND points > 0 ORDER BY place";
    let rows = sql::all(tx.conn(), text, [decision.into()]).await?;
    rows.iter().map(|row| Ok((sql::get(row, "rule")?, sql::get(row, "points")?))).collect()
}

/// What a decision counted under caps, for refunds.
pub(crate) async fn capped(tx: &Tx, decision: &str) -> Result<Vec<Counted>, Error> {
    let row = sql::one(tx.conn(), "SELECT basis FROM membership_decision WHERE id = $1", [decision.into()]).await?;
    let basis = row.as_ref().map(basis).transpose()?.flatten();
    Ok(basis.map_or_else(Vec::new, |basis| basis.caps.into_iter().filter(|cap| cap.taken > 0).collect()))
}

fn basis(row: &sql::Row) -> Result<Option<Basis>, Error> {
    let text: Option<String> = sql::get(row, "basis")?;
    Ok(text.map(|text| serde_json::from_str(&text)).transpose().map_err(|e| corrupt("decision", e))?)
}

fn missed(row: &sql::Row) -> Result<BTreeMap<usize, Missed>, Error> {
    let text: Option<String> = sql::get(row, "missed")?;
    Ok(text.map_or_else(|| Ok(BTreeMap::new()), |text| serde_json::from_str(&text)).map_err(|e| corrupt("decision", e))?)
}

/// The effects that a decision's rules had.
pub(crate) async fn rule_effects<C: sql::Connection>(conn: &C, decision: &str) -> Result<Vec<RuleEffect>, Error> {
    let text = "SELECT rule, effects, missed FROM membership_decision_call WHERE decision = $1 ORDER BY place";
    let mut list = Vec::new();
    for row in sql::all(conn, text, [decision.into()]).await? {
        let (rule, missed): (String, _) = (sql::get(&row, "rule")?, missed(&row)?);
        let of_rule = effects(&row, "effects")?.into_iter().enumerate();
        list.extend(of_rule.map(|(place, effect)| RuleEffect { rule: rule.clone(), effect, missed: missed.get(&place).copied() }));
    }
    Ok(list)
}

/// Empties the words of what a member's decisions had for effect, when the person is erased: a rule may have put anything there. What the
/// effects were stays, since the books name it.
pub(crate) async fn empty_reasons(tx: &Tx, member: &MemberId) -> Result<(), Error> {
    let conn = tx.conn();
    let text = "SELECT c.decision, c.place, c.effects FROM membership_decision d JOIN membership_decision_call c ON c.decision = d.id
                WHERE d.member = $1 AND c.effects <> '[]' AND (c.decision > $2 OR (c.decision = $2 AND c.place > $3))
                ORDER BY c.decision, c.place LIMIT $4";
    let (mut decision, mut place) = (String::new(), -1i64);
    loop {
        let rows = sql::all(conn, text, [member.as_str().into(), decision.clone().into(), place.into(), EMPTIED_MAX.into()]).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        (decision, place) = (sql::get(last, "decision")?, sql::get(last, "place")?);
        let texts = |column: &str| rows.iter().map(|row| sql::get::<String>(row, column)).collect::<Result<Vec<_>, _>>();
        let places = rows.iter().map(|row| sql::get::<i64>(row, "place")).collect::<Result<Vec<_>, _>>()?;
        let wordless = |row: &sql::Row| {
            let effects = effects(row, "effects")?;
            json(&effects.into_iter().map(|effect| Effect { reason: String::new(), ..effect }).collect::<Vec<_>>())
        };
        let emptied = rows.iter().map(wordless).collect::<Result<Vec<String>, Error>>()?;
        let columns = [Column::texts(texts("decision")?), Column::numbers(places), Column::texts(emptied)];
        let (from, values) = bulk::source(conn, &["decision", "place_no", "effects"], &columns);
        let text = format!(
            "UPDATE membership_decision_call SET effects = v.effects FROM {from}
             WHERE membership_decision_call.decision = v.decision AND membership_decision_call.place = v.place_no"
        );
        sql::execute(conn, &text, values).await?;
    }
}

impl Membership {
    /// A decision in full.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `erased` when the person behind it was erased.
    pub async fn decision(&self, actor: &Actor, id: &str) -> Result<Decision, Error> {
        actor.require_any(&[Scope::App, Scope::Admin])?;
        let reader = self.kernel().db.reader();
        let missing = || Error::from(Problem::not_found("decision", id));
        let text = format!("SELECT {COLUMNS} FROM membership_decision WHERE id = $1");
        let row = sql::one(reader, &text, [id.into()]).await?.ok_or_else(missing)?;
        let id_error = |e: heyuan_contract::InvalidId| corrupt("decision", e);
        let unit = OrgUnitId::new(sql::get::<String>(&row, "transaction_unit")?).map_err(id_error)?;
        if !actor.reach().covers(&unit) {
            return Err(missing());
        }
        if sql::get::<i64>(&row, "erased")? != 0 {
            return Err(Problem::new(kernel_codes::ERASED, format!("what decision {id} was made with was erased with the person")).into());
        }
        let text = format!("SELECT {CALL_COLUMNS} FROM membership_decision_call WHERE decision = $1 ORDER BY place");
        let calls = sql::all(reader, &text, [id.into()]).await?.iter().map(read_call).collect::<Result<_, _>>()?;
        Ok(Decision {
            id: id.to_owned(),
            member: MemberId::new(sql::get::<String>(&row, "member")?).map_err(id_error)?,
            unit,
            transaction: TransactionId::new(sql::get::<String>(&row, "transaction_id")?).map_err(id_error)?,
            at: Timestamp::clamped(sql::get(&row, "at")?),
            earn_version: sql::get(&row, "earn_version")?,
            basis: basis(&row)?,
            wording: if sql::get::<Option<i64>>(&row, "wording")?.is_some_and(|number| number > 1) {
                Wording::Second
            } else {
                Wording::First
            },
            calls,
        })
    }

    /// Lets the earn rules of then decide again, and runs every rule of a decision again on the bytes that it was shown; compares both with
    /// what is stored.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `erased`.
    pub async fn rerun(&self, actor: &Actor, id: &str) -> Result<RerunReport, Error> {
        actor.require(Scope::Admin)?;
        let decision = self.decision(actor, id).await?;
        let base = self.earn_again(&decision).await?;
        let (mut calls, mut growth) = (Vec::with_capacity(decision.calls.len()), base.0.growth);
        for call in decision.calls {
            let answer = match self.plugins().ready(&call.digest).await {
                Ok(_) => self.rules().decide(&call.digest, &call.input).await,
                Err(problem) => Err(RuleError::Failed(problem.detail().to_owned())),
            };
            let same = answer.as_ref().is_ok_and(|answer| call.is_answered_by(answer, growth));
            growth += call.growth();
            let (output, why) = match answer {
                Ok(answer) => (Some(answer.output), None),
                Err(RuleError::Stopped(why) | RuleError::Failed(why)) => (None, Some(why)),
            };
            calls.push(RerunCall {
                rule: call.rule,
                digest: call.digest,
                same,
                input_sha256: sha256_hex(&call.input),
                stored_sha256: sha256_hex(&call.output),
                output_sha256: output.as_deref().map(sha256_hex),
                why,
            });
        }
        Ok(RerunReport { id: decision.id, same: base.0 == base.1 && calls.iter().all(|call| call.same), base, calls })
    }

    /// What the earn rules gave then, and what they give on what the decision keeps.
    async fn earn_again(&self, decision: &Decision) -> Result<(Earned, Earned), Error> {
        let reader = self.kernel().db.reader();
        let row = transaction::find(reader, &decision.unit, &decision.transaction).await?;
        let row = row.ok_or_else(|| corrupt("decision", "its transaction is gone"))?;
        let order: Vec<OrderLine> = serde_json::from_str(&row.lines).map_err(|e| corrupt("transaction lines", e))?;
        let policy = self.policy().await?;
        let earn = policy.earn.iter().find(|rules| rules.version == decision.earn_version);
        let earn = earn.ok_or_else(|| corrupt("decision", "its earn rules are gone"))?;
        let kept = decision.basis.clone().unwrap_or_default();
        let moment = Moment { at: row.occurred_at, local: LocalTime::of(&self.kernel().zone, row.occurred_at), tier: &kept.tier };
        let (now, _) = decide::basis(earn, row.line, (row.amount, &order), &moment, kept.caps)?;
        Ok((Earned { growth: row.base_growth, points: row.base_points }, now))
    }
}

fn read_call(row: &sql::Row) -> Result<Call, Error> {
    let budgets: Option<String> = sql::get(row, "budgets")?;
    Ok(Call {
        rule: sql::get(row, "rule")?,
        digest: sql::get(row, "digest")?,
        generation: sql::get(row, "generation")?,
        input: sql::get(row, "input")?,
        output: sql::get(row, "output")?,
        fuel: sql::get(row, "fuel")?,
        effects_raw: effects(row, "effects_raw")?,
        effects: effects(row, "effects")?,
        missed: missed(row)?,
        budget_limit: sql::get(row, "budget_limit")?,
        budget_spent: sql::get(row, "budget_spent")?,
        drawn: budgets.map_or_else(|| Ok(Vec::new()), |text| serde_json::from_str(&text)).map_err(|e| corrupt("decision", e))?,
        points: sql::get(row, "points")?,
    })
}
