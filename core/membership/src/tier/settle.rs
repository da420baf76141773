//! Keeping the stored tier equal to the function, in one statement where the policy in force needs sums alone, and explaining it.

use super::grant;
use super::history::{History, Since, Sums};
use super::policy::{TierPolicy, in_force};
use super::replay::{Frame, Granted, Standing, holds_until, standing, standing_of_sums};
use crate::error::Error;
use crate::facade::Membership;
use crate::member::{MemberRow, corrupt};
use crate::standing::MemberState;
use heyuan_contract::{DomainEvent, MemberId, Timestamp};
use heyuan_kernel::bulk::{self, Column};
use heyuan_kernel::{Tx, Zone, sql};
use sea_orm::Value;

/// Why a member has its tier, and what changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierStanding {
    /// The version of the policy in force.
    pub policy: i64,
    /// The tier that growth gives, with what the policy lets it keep.
    pub earned: String,
    /// The grant by hand that gives the higher tier, if one does.
    pub granted_by: Option<String>,
    /// Growth that counts now.
    pub growth: i64,
    /// Whether the earned tier is kept for good by growth of all times.
    pub for_good: bool,
    /// The tier above.
    pub next: Option<String>,
    /// Growth that it takes more than what counts now.
    pub next_missing: Option<i64>,
    /// Until when the tier holds if nothing more is earned; nothing for one that time does not take.
    pub holds_until: Option<Timestamp>,
    /// The tier from then on.
    pub then: Option<String>,
}

/// What was read of a member to say where it stands.
#[derive(Debug, Clone)]
pub(crate) struct TierFacts {
    growth: Growth,
    grants: Vec<Granted>,
    at_ms: i64,
}

#[derive(Debug, Clone)]
enum Growth {
    /// Enough where tiers follow growth at every moment.
    Sums(Since, Sums),
    Whole(History),
}

/// Where a member stands, as its row keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rung {
    pub(crate) tier: String,
    /// When time alone may change it.
    due: i64,
    /// The policy's.
    version: i64,
}

impl From<Standing<'_>> for Rung {
    fn from(found: Standing<'_>) -> Rung {
        Rung { tier: found.tier().to_owned(), due: found.due, version: found.policy.version }
    }
}

impl TierFacts {
    /// The same with an entry of growth more.
    pub(crate) fn with(&self, at: Timestamp, amount: i64) -> TierFacts {
        let entry = (at.ms(), amount);
        let growth = match &self.growth {
            Growth::Sums(since, sums) => Growth::Sums(*since, sums.plus(*since, self.at_ms, entry)),
            Growth::Whole(history) => Growth::Whole(history.plus(entry)),
        };
        TierFacts { growth, grants: self.grants.clone(), at_ms: self.at_ms }
    }

    /// Where the member stands at the instant that it was read for.
    pub(crate) fn standing<'a>(&'a self, policies: &'a [TierPolicy], zone: &'a Zone, member: &MemberRow) -> Result<Standing<'a>, Error> {
        let frame = Frame { policies, zone, joined_ms: member.joined_at.ms(), grants: &self.grants };
        let found = match &self.growth {
            Growth::Sums(_, sums) => standing_of_sums(frame, *sums, self.at_ms),
            Growth::Whole(history) => standing(frame, history, self.at_ms),
        };
        found.ok_or_else(no_policy)
    }
}

fn no_policy() -> Error {
    corrupt("tier policy", "there is none").into()
}

impl Membership {
    /// Reads what a member's tier follows from at an instant.
    pub(crate) async fn tier_facts<C: sql::Connection>(
        &self,
        conn: &C,
        id: &MemberId,
        policies: &[TierPolicy],
        at: Timestamp,
    ) -> Result<TierFacts, Error> {
        let mut facts = self.tier_facts_of(conn, &[id], policies, at).await?;
        facts.pop().ok_or_else(|| corrupt("growth", "it has no sum").into())
    }

    /// The same of several members, in their order.
    pub(crate) async fn tier_facts_of<C: sql::Connection>(
        &self,
        conn: &C,
        ids: &[&MemberId],
        policies: &[TierPolicy],
        at: Timestamp,
    ) -> Result<Vec<TierFacts>, Error> {
        let policy = in_force(policies, at.ms()).ok_or_else(no_policy)?;
        let mut facts = Vec::with_capacity(ids.len());
        if !policy.follows_growth() {
            for id in ids {
                let (history, grants) = (growth_of(conn, id).await?, grant::live(conn, id, at).await?);
                facts.push(TierFacts { growth: Growth::Whole(history), grants, at_ms: at.ms() });
            }
            return Ok(facts);
        }
        let since = policy.since(&self.kernel().zone, at.ms());
        for (id, (sums, granted)) in ids.iter().zip(sums_of(conn, ids, policy, since, at).await?) {
            let grants = if granted { grant::live(conn, id, at).await? } else { Vec::new() };
            facts.push(TierFacts { growth: Growth::Sums(since, sums), grants, at_ms: at.ms() });
        }
        Ok(facts)
    }

    /// Brings a locked member's stored tier up to date and tells others when it changed; answers the tier. Who has left keeps the last one.
    pub(crate) async fn settle_tier(&self, tx: &Tx, member: &MemberRow) -> Result<String, Error> {
        if member.state == MemberState::Closed {
            return rest(tx, member).await;
        }
        let policies = self.tier_policies(tx.conn()).await?;
        self.settle_tier_under(tx, member, &policies).await
    }

    /// The same with the versions that the unit of work has read.
    pub(crate) async fn settle_tier_under(&self, tx: &Tx, member: &MemberRow, policies: &[TierPolicy]) -> Result<String, Error> {
        if member.state == MemberState::Closed {
            return rest(tx, member).await;
        }
        let now = self.kernel().clock.now();
        let facts = self.tier_facts(tx.conn(), &member.id, policies, now).await?;
        self.settle_standing(tx, member, facts.standing(policies, &self.kernel().zone, member)?.into(), now).await
    }

    /// The same for where the unit of work found the member to stand.
    pub(crate) async fn settle_standing(&self, tx: &Tx, member: &MemberRow, found: Rung, now: Timestamp) -> Result<String, Error> {
        let Rung { tier, due, version } = found;
        if tier != member.tier || due != member.tier_due || version != member.tier_policy {
            let values: [Value; 4] = [member.id.as_str().into(), tier.clone().into(), due.into(), version.into()];
            let text = "UPDATE membership_member SET tier = $2, tier_due = $3, tier_policy = $4 WHERE id = $1";
            sql::execute(tx.conn(), text, values).await?;
        }
        if tier == member.tier {
            return Ok(tier);
        }
        if let Some(anchor) = member.anchor.clone() {
            let event = DomainEvent::TierChanged {
                member: member.id.clone(),
                anchor,
                tier: tier.clone(),
                previous: member.tier.clone(),
                occurred_at: now,
            };
            tx.emit(member.id.as_str(), &event).await?;
        }
        self.grant_for_tier(tx, member, &tier).await?;
        Ok(tier)
    }

    /// Where a member stands, and why.
    pub(crate) async fn explain_tier<C: sql::Connection>(
        &self,
        conn: &C,
        member: &MemberRow,
        at: Timestamp,
    ) -> Result<(String, TierStanding), Error> {
        let policies = self.tier_policies(conn).await?;
        let (history, grants) = (growth_of(conn, &member.id).await?, grant::live(conn, &member.id, at).await?);
        let frame = Frame { policies: &policies, zone: &self.kernel().zone, joined_ms: member.joined_at.ms(), grants: &grants };
        let found = standing(frame, &history, at.ms()).ok_or_else(no_policy)?;
        let (holds_until, then) = holds_until(frame, &history, at.ms()).unzip();
        let policy = found.policy;
        let lifts = |grant: &&Granted| found.rank > found.earned && policy.rank(&grant.tier) == Some(found.rank);
        let next = policy.steps.get(found.rank + 1);
        Ok((
            found.tier().to_owned(),
            TierStanding {
                policy: policy.version,
                earned: policy.tier(found.earned).to_owned(),
                granted_by: grants.iter().filter(lifts).max_by_key(|grant| grant.until_ms).map(|grant| grant.id.clone()),
                growth: found.sums.counted,
                for_good: found.earned > 0 && found.earned == policy.kept_for_good(found.sums.total),
                next: next.map(|step| step.tier.clone()),
                next_missing: next.map(|step| (step.growth_min - found.sums.counted).max(0)),
                holds_until: holds_until.map(Timestamp::clamped),
                then,
            },
        ))
    }
}

/// A member that has left is not looked at any more.
async fn rest(tx: &Tx, member: &MemberRow) -> Result<String, Error> {
    if member.tier_due != i64::MAX {
        let text = "UPDATE membership_member SET tier_due = $2 WHERE id = $1";
        sql::execute(tx.conn(), text, [member.id.as_str().into(), i64::MAX.into()]).await?;
    }
    Ok(member.tier.clone())
}

/// What a policy looks at of each member, and whether a grant by hand is live.
async fn sums_of<C: sql::Connection>(
    conn: &C,
    members: &[&MemberId],
    policy: &TierPolicy,
    since: Since,
    at: Timestamp,
) -> Result<Vec<(Sums, bool)>, Error> {
    let (from, mut values) = bulk::source(conn, &["buyer"], &[Column::texts(members.iter().map(ToString::to_string))]);
    let own = values.len();
    let [counted, before, now, oldest] = [1, 2, 3, 4].map(|place| format!("${}", own + place));
    let text = format!(
        "SELECT v.place,
           CAST(COALESCE(SUM(CASE WHEN g.occurred_at > {counted} AND g.occurred_at <= {now} THEN g.amount END), 0) AS BIGINT) AS counted,
           CAST(COALESCE(SUM(CASE WHEN g.occurred_at > {before} AND g.occurred_at <= {counted} THEN g.amount END), 0) AS BIGINT) AS year_before,
           CAST(COALESCE(SUM(CASE WHEN g.occurred_at <= {now} THEN g.amount END), 0) AS BIGINT) AS all_times,
           MIN(CASE WHEN g.occurred_at > {counted} AND g.occurred_at <= {now} THEN g.occurred_at END) AS oldest,
           MIN(CASE WHEN g.occurred_at > {now} THEN g.occurred_at END) AS next_at,
           (SELECT COUNT(*) FROM membership_tier_grant t WHERE t.member = v.buyer AND t.ends_at > {now}) AS granted
         FROM {from} LEFT JOIN membership_growth g ON g.member = v.buyer AND g.occurred_at > {oldest}
         GROUP BY v.place, v.buyer ORDER BY v.place"
    );
    let from_ms = if policy.counts_lifetime() { i64::MIN } else { since.before };
    values.extend([since.counted, since.before, at.ms(), from_ms].map(Value::from));
    let sums = |row: &sql::Row| {
        let sums = Sums {
            counted: sql::get(row, "counted")?,
            before: sql::get(row, "year_before")?,
            total: sql::get(row, "all_times")?,
            oldest: sql::get(row, "oldest")?,
            next: sql::get(row, "next_at")?,
        };
        Ok((sums, sql::get::<i64>(row, "granted")? > 0))
    };
    sql::all(conn, &text, values).await?.iter().map(sums).collect()
}

/// The whole growth of a member.
async fn growth_of<C: sql::Connection>(conn: &C, member: &MemberId) -> Result<History, Error> {
    let text = "SELECT occurred_at, CAST(SUM(amount) AS BIGINT) AS amount FROM membership_growth WHERE member = $1 GROUP BY occurred_at";
    let rows = sql::all(conn, text, [member.as_str().into()]).await?;
    let entry = |row| Ok::<_, Error>((sql::get(row, "occurred_at")?, sql::get(row, "amount")?));
    Ok(History::new(rows.iter().map(entry).collect::<Result<Vec<(i64, i64)>, Error>>()?))
}
