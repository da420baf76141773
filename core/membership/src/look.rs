//! Looking: everything that decisions are made with, read for several members in the statements of one.

use crate::books;
use crate::budget::Allowance;
use crate::caps::{self, Counted};
use crate::counter::{self, Counter};
use crate::decide::Snapshot;
use crate::error::Error;
use crate::facade::Membership;
use crate::member::{MemberRow, corrupt};
use crate::policy::Policy;
use heyuan_contract::{Line, MemberId, Timestamp};
use heyuan_ledger::Period;

/// Whose purchase at which line is decided about, of which own time and under which policy.
#[derive(Clone)]
pub(crate) struct Question {
    pub(crate) member: MemberRow,
    pub(crate) line: Line,
    pub(crate) at: Timestamp,
    pub(crate) policy: Policy,
}

/// What was found.
pub(crate) struct Seen {
    pub(crate) snapshot: Snapshot,
    /// The caps that hold, with what the member has earned of each.
    pub(crate) counted: Vec<Counted>,
    pub(crate) allowance: Allowance,
}

impl Membership {
    /// Looks at the members of all questions, outside any transaction. All are asked under one policy, or those of another one get an error.
    pub(crate) async fn see_all(&self, questions: &[Question]) -> Result<Vec<Seen>, Error> {
        let Some(Question { policy, .. }) = questions.first() else { return Ok(Vec::new()) };
        if questions.iter().any(|question| !question.policy.is(policy)) {
            return Err(heyuan_kernel::Error::Stale("the policy of a decision").into());
        }
        let (kernel, now) = (self.kernel(), self.kernel().clock.now());
        let near = kernel.db.near();
        let ids: Vec<&MemberId> = questions.iter().map(|question| &question.member.id).collect();
        let (mut counted, mut reads_tier) = (Vec::with_capacity(questions.len()), Vec::with_capacity(questions.len()));
        for Question { line, at, .. } in questions {
            let earn = policy.earn_at(*at)?;
            counted.push(caps::of(earn, *line, &kernel.zone, *at));
            reads_tier.push(policy.reads_tier(earn, *line));
        }
        // Of no question where no tier has a say.
        let facts = if reads_tier.contains(&true) { self.tier_facts_of(near, &ids, &policy.tiers, now).await? } else { Vec::new() };
        let accounts: Vec<String> = ids.iter().flat_map(|id| [books::growth_account(id), books::points_account(id)]).collect();
        let accounts: Vec<&str> = accounts.iter().map(String::as_str).collect();
        let standing = self.ledger().standing(&accounts, now).await?;
        self.read_caps(&ids, &mut counted).await?;
        let asked = questions.iter().map(|asked| (&asked.member.id, Period::of(&kernel.zone, asked.at), asked.line, asked.at));
        let allowances = if policy.rules.is_empty() { Vec::new() } else { Allowance::read(near, &asked.collect::<Vec<_>>()).await? };
        let (mut facts, mut allowances) = (facts.iter(), allowances.into_iter());
        let mut seen = Vec::with_capacity(questions.len());
        for (((Question { member, .. }, reads_tier), standing), counted) in
            questions.iter().zip(reads_tier).zip(standing.chunks(2)).zip(counted)
        {
            let [(growth, _), (points, spendable)] = standing else { return Err(corrupt("member", "it has no accounts").into()) };
            let tier = match facts.next().filter(|_| reads_tier) {
                // The stored one may be overdue: time takes tiers away, and the clockwork comes by only now and then.
                Some(facts) => facts.standing(&policy.tiers, &kernel.zone, member)?.tier().to_owned(),
                None => member.tier.clone(),
            };
            let snapshot = Snapshot { member: member.clone(), growth: *growth, points: *points, spendable: *spendable, tier };
            seen.push(Seen { snapshot, counted, allowance: allowances.next().unwrap_or_default() });
        }
        Ok(seen)
    }

    /// Reads what the members have earned of each cap.
    async fn read_caps(&self, members: &[&MemberId], counted: &mut [Vec<Counted>]) -> Result<(), Error> {
        let counters: Vec<Counter> =
            members.iter().zip(counted.iter()).flat_map(|(member, caps)| caps.iter().map(|cap| cap.counter(member))).collect();
        let found = counter::read(self.kernel().db.near(), &counters).await?;
        for (cap, before) in counted.iter_mut().flatten().zip(found) {
            cap.before = before;
        }
        Ok(())
    }
}
