//! Reporting a transaction: accepted, decided, posted once; the same again is answered from what is there.

use crate::books;
use crate::decide::{Decided, Drafted};
use crate::decision;
use crate::error::{Error, codes};
use crate::facade::Membership;
use crate::join::verified;
use crate::member::{self, MemberRow};
use crate::missed::Misses;
use crate::post::Purchase;
use crate::rule::Effect;
use crate::transaction::{self, COLUMNS, Kind, KnownBy, Report, Row, RuleEffect, State, TransactionView, Who};
use heyuan_contract::{Fen, Line, MemberId, OrgUnitId, Timestamp, TransactionId};
use heyuan_kernel::error::codes as kernel_codes;
use heyuan_kernel::filter::Filter;
use heyuan_kernel::idempotency::IdempotencyKey;
use heyuan_kernel::{Actor, Problem, Scope, Tx, sql};
use heyuan_ledger::Period;
use std::sync::Arc;

/// A report that was checked, with whose it is.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    pub(crate) report: Report,
    pub(crate) line: Line,
    pub(crate) member: Option<MemberRow>,
    /// Of whom else its identifiers speak, or spoke: of a purchase the members of one customer, of a refund every one that they lead to.
    pub(crate) hinted: Vec<MemberId>,
    pub(crate) digest: String,
    pub(crate) idempotency: Option<String>,
}

/// What is looked up first of a report.
#[derive(Clone)]
pub(crate) struct LookUp {
    known_by: KnownBy,
    /// The member that it names.
    member: Option<MemberId>,
}

impl LookUp {
    fn of(report: &Report, key: &IdempotencyKey) -> LookUp {
        let member = if let Some(Who::Member(id)) = &report.who { Some(id.clone()) } else { None };
        LookUp { known_by: KnownBy { key: key.stored.clone(), unit: report.unit.clone(), id: report.id.clone() }, member }
    }
}

/// What was found of it.
pub(crate) struct LookedUp {
    /// The transactions that its key made or that have its id.
    known: Vec<Row>,
    member: Option<MemberRow>,
}

/// What waits to be written: a purchase with its decision, or a refund, which needs none.
pub(crate) struct Ready {
    accepted: Accepted,
    decided: Option<Decided>,
}

impl Ready {
    /// The purchase; `None` for a refund.
    pub(crate) fn purchase(&self) -> Option<Purchase<'_>> {
        self.decided.as_ref().map(|decided| Purchase { accepted: &self.accepted, decided })
    }

    /// Whose the purchase is.
    pub(crate) fn member(&self) -> Option<&MemberId> {
        self.decided.as_ref().map(|decided| &decided.snapshot.member.id)
    }
}

impl Membership {
    /// Takes a line's transaction: earns, or with a refund takes back, in one transaction of the database. The same key, and the
    /// same id with the same content, are answered again.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `unknown_currency`, `amount_out_of_range`, `time_out_of_range`, `unverified_identifier`, `unknown_member`,
    /// `member_closed`, `transaction_id_reused`, `idempotency_key_reused`, `refund_too_large`, `refund_mismatch`; `rule_stopped` and
    /// `rule_failed` when a benefit rule gave no answer: nothing is posted then.
    pub async fn report(&self, actor: &Actor, report: &Report, header: Option<&str>) -> Result<TransactionView, Error> {
        actor.require(Scope::App)?;
        let key = IdempotencyKey::new(actor, "report transaction", header, &report.digested(self.kernel()))?;
        report.check(actor, self.kernel().clock.now())?;
        let line = self.line_of(actor, &report.unit).await?;
        self.kernel()
            .db
            .settle(|| async {
                let found = self.find(LookUp::of(report, &key)).await?;
                if let Some(known) = self.known(found.known, report, &key).await? {
                    return Ok(known);
                }
                let (member, hinted) = self.whose(actor, report, found.member).await?;
                let accepted = Accepted {
                    report: report.clone(),
                    line,
                    member,
                    hinted,
                    digest: key.digest.clone(),
                    idempotency: Some(key.stored.clone()),
                };
                let ready = Arc::new(self.ready(accepted).await?);
                let (row, misses) = self.write_report(ready.clone()).await?;
                match &ready.decided {
                    Some(decided) => Ok(TransactionView::of(row, effects_of(decided, &misses))),
                    None => self.view(row).await,
                }
            })
            .await
    }

    /// What a purchase would earn now. Nothing is posted, and nothing remembered.
    ///
    /// # Errors
    /// As [`Membership::report`].
    pub async fn quote(&self, actor: &Actor, report: &Report) -> Result<TransactionView, Error> {
        actor.require(Scope::App)?;
        report.check(actor, self.kernel().clock.now())?;
        let line = self.line_of(actor, &report.unit).await?;
        if report.kind != Kind::Purchase {
            return Err(Problem::invalid("kind", "only a purchase can be quoted").into());
        }
        let member = self.whose_quote(report).await?;
        // A quote is checked by nothing later on: it is made with what counts now.
        self.read_policy().await?;
        let decided = self.decide(report, line, member).await?;
        let misses = self.foreseen(&decided, report.occurred_at).await?;
        Ok(TransactionView {
            id: report.id.clone(),
            unit: report.unit.clone(),
            line,
            kind: Kind::Purchase,
            refund_of: None,
            state: State::Quoted,
            why: None,
            member: Some(decided.snapshot.member.id.clone()),
            amount: report.amount,
            occurred_at: report.occurred_at,
            period: Some(Period::of(&self.kernel().zone, report.occurred_at)),
            earn_version: decided.earn.version,
            base_growth: decided.base.growth,
            base_points: decided.base.points,
            growth: decided.growth,
            points: decided.points,
            points_owed: 0,
            points_balance: self.balance_after(&decided).await?,
            tier: self.tier_after(&decided, report.occurred_at).await?,
            refunded: Fen(0),
            effects: effects_of(&decided, &misses),
            decision: None,
        })
    }

    /// What could be spent after a decided purchase: with what it earns, less what that pays of the member's debts.
    async fn balance_after(&self, decided: &Decided) -> Result<i64, Error> {
        let owed = -self.ledger().balance(&books::receivable_account(&decided.snapshot.member.id)).await?.balance;
        // What comes so late that it has expired is never there to be spent.
        let earned = if decided.expires_at > self.kernel().clock.now() { decided.points } else { 0 };
        let spendable = decided.snapshot.spendable + earned;
        // Nothing is recovered where nothing is earned.
        Ok(if decided.points > 0 { spendable - owed.clamp(0, spendable) } else { spendable })
    }

    /// The tier after a decided purchase.
    async fn tier_after(&self, decided: &Decided, occurred_at: Timestamp) -> Result<String, Error> {
        let (now, policies, member) = (self.kernel().clock.now(), &decided.policy.tiers, &decided.snapshot.member);
        let before = self.tier_facts(self.kernel().db.near(), &member.id, policies, now).await?;
        let after = before.with(occurred_at.min(now), decided.growth);
        Ok(after.standing(policies, &self.kernel().zone, member)?.tier().to_owned())
    }

    /// A transaction by its id; two units may have one with the same id, then the unit must be named.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `conflict` when the id alone is not enough.
    pub async fn transaction(&self, actor: &Actor, id: &TransactionId, unit: Option<&OrgUnitId>) -> Result<TransactionView, Error> {
        actor.require_any(&[Scope::App, Scope::Admin])?;
        let filter = Filter::everything().and("id", "=", id.as_str()).and_if("unit", "=", unit.map(ToString::to_string));
        // One more than can be answered tells that the id alone is not enough.
        let (text, values) = filter.within("unit", actor.reach()).page(&format!("SELECT {COLUMNS} FROM membership_transaction"), "unit", 1);
        let rows = sql::all(self.kernel().db.near(), &text, values).await?;
        let mut seen = rows.iter().map(transaction::read);
        let first = seen.next().transpose()?.ok_or_else(|| Problem::not_found("transaction", id))?;
        if seen.next().is_some() {
            let words = "several units have a transaction with this id; add ?unit=";
            return Err(Problem::new(kernel_codes::CONFLICT, words).field("unit").into());
        }
        self.view(first).await
    }

    /// The answer to a report that is known, of the transactions that its key or its id leads to.
    async fn known(&self, mut rows: Vec<Row>, report: &Report, key: &IdempotencyKey) -> Result<Option<TransactionView>, Error> {
        if let Some(place) = rows.iter().position(|row| row.idempotency.as_ref() == Some(&key.stored)) {
            let row = rows.swap_remove(place);
            key.check(&row.digest)?;
            return self.view(row).await.map(Some);
        }
        let Some(row) = rows.pop() else { return Ok(None) };
        if row.digest == key.digest {
            return self.view(row).await.map(Some);
        }
        let words = format!("{} of {} was reported with other content", report.id, report.unit);
        Err(Problem::new(codes::TRANSACTION_ID_REUSED, words).field("id").into())
    }

    /// Looks up all of these in one statement for what is known and one for the members.
    pub(crate) async fn find_all(&self, asked: &[LookUp]) -> Result<Vec<LookedUp>, Error> {
        let near = self.kernel().db.near();
        let by: Vec<KnownBy> = asked.iter().map(|asked| asked.known_by.clone()).collect();
        let known = transaction::find_known(near, &by).await?;
        let ids: Vec<&MemberId> = asked.iter().filter_map(|asked| asked.member.as_ref()).collect();
        let mut members = member::find_all(near, &ids).await?.into_iter();
        let member = |asked: &LookUp| asked.member.as_ref().and_then(|_| members.next().flatten());
        let members: Vec<Option<MemberRow>> = asked.iter().map(member).collect();
        Ok(known.into_iter().zip(members).map(|(known, member)| LookedUp { known, member }).collect())
    }

    /// Whose a report is, and of whom else its identifiers speak; a member that it names was found already. A refund is its purchase's
    /// member's: identifiers only say whose it can't be.
    async fn whose(&self, actor: &Actor, report: &Report, named: Option<MemberRow>) -> Result<(Option<MemberRow>, Vec<MemberId>), Error> {
        match (&report.who, report.kind) {
            (None, _) => Ok((None, Vec::new())),
            (Some(Who::Member(id)), _) => Ok((Some(named.ok_or_else(|| member::unknown(id))?), Vec::new())),
            (Some(Who::Identifiers(list)), Kind::Refund) => Ok((None, self.members_ever_behind(&verified(list)?).await?)),
            (Some(Who::Identifiers(list)), Kind::Purchase) => {
                let identifiers = verified(list)?;
                // Nothing is kept of a stranger: what was seen together is recorded of members alone.
                let found = self.member_among(&self.customers().find_anchors(&identifiers).await?).await?.ok_or_else(nobody)?;
                let anchor = self.customers().anchor_for(actor, &report.unit, &identifiers).await?;
                // What was recorded may have made customers one, whose first member counts.
                let members = self.members_behind(&anchor).await?;
                let several = members.len() > 1;
                let hinted = members.iter().filter(|_| several).map(|member| member.id.clone()).collect();
                Ok((Some(members.into_iter().next().unwrap_or(found)), hinted))
            }
        }
    }

    /// Whose a quote would be: looked up, where a report also records that the identifiers were seen together.
    async fn whose_quote(&self, report: &Report) -> Result<MemberRow, Error> {
        match &report.who {
            None => Err(Problem::invalid("member", "name the member").into()),
            Some(Who::Member(id)) => member::find(self.kernel().db.near(), id).await?.ok_or_else(|| member::unknown(id)),
            Some(Who::Identifiers(list)) => {
                self.member_among(&self.customers().find_anchors(&verified(list)?).await?).await?.ok_or_else(nobody)
            }
        }
    }

    /// Decides about what was accepted.
    pub(crate) async fn ready(&self, accepted: Accepted) -> Result<Ready, Error> {
        let decided = match (accepted.report.kind, &accepted.member) {
            (Kind::Purchase, Some(member)) => Some(self.decide(&accepted.report, accepted.line, member.clone()).await?),
            (Kind::Purchase, None) => return Err(Problem::invalid("member", "name the member").into()),
            (Kind::Refund, _) => None,
        };
        Ok(Ready { accepted, decided })
    }

    /// Writes what was decided; tells what rules wanted and could not give.
    pub(crate) async fn write_ready(&self, tx: &Tx, ready: &Ready) -> Result<(Row, Misses), Error> {
        let Some(purchase) = ready.purchase() else { return Ok((self.post_refund(tx, &ready.accepted).await?, Misses::new())) };
        let posted = self.post_purchases(tx, &[purchase]).await;
        if posted.is_err() {
            self.forget_policy();
        }
        Ok(posted?.pop().flatten().ok_or(heyuan_kernel::Error::Stale("what a purchase was decided with"))?)
    }

    pub(crate) async fn view(&self, row: Row) -> Result<TransactionView, Error> {
        let effects = match &row.decision {
            Some(decision) => decision::rule_effects(self.kernel().db.near(), decision).await?,
            None => Vec::new(),
        };
        Ok(TransactionView::of(row, effects))
    }
}

fn nobody() -> Error {
    Error::refused(codes::UNKNOWN_MEMBER, "nobody with these identifiers has joined")
}

fn effects_of(decided: &Decided, misses: &Misses) -> Vec<RuleEffect> {
    let of_call = |(call_place, call): (usize, &Drafted)| {
        let of_place = |(place, effect): (usize, &Effect)| RuleEffect {
            rule: call.rule.clone(),
            effect: effect.clone(),
            missed: misses.get(&(call_place, place)).copied(),
        };
        call.effects.iter().enumerate().map(of_place).collect::<Vec<_>>()
    };
    decided.calls.iter().enumerate().flat_map(of_call).collect()
}
