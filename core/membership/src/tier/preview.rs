//! Who would move under a version that is not written yet: every member's history replayed with it and without it.

use super::grant;
use super::history::History;
use super::policy::TierPolicy;
use super::replay::{Frame, Granted, standing};
use super::versions::require_group;
use crate::error::Error;
use crate::facade::Membership;
use crate::member::corrupt;
use heyuan_contract::{MemberId, Timestamp};
use heyuan_kernel::error::codes as kernel_codes;
use heyuan_kernel::{Actor, Problem, guard, sql};
use std::collections::{BTreeMap, HashMap};

/// Members whose histories are in memory at one time.
const PAGE_MEMBERS: usize = 500;
/// Members that one preview replays: minutes of work, and what comes after would take longer than anybody waits for an answer.
const MEMBERS_MAX: i64 = 5_000_000;
/// How far after its start a version may be looked at: what a year's looks and graces do is over by then.
const AFTER_MS: i64 = 3 * 366 * 86_400_000;

/// What a version would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierPreview {
    /// The number that the version would get.
    pub version: i64,
    /// The instant that it is shown for.
    pub at: Timestamp,
    /// How many members have which tier without it and with it, those that stay too; on the first page alone.
    pub moves: Option<Vec<TierMove>>,
    /// Who moves, by id.
    pub movers: Vec<TierMover>,
}

/// Members that go from one tier to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierMove {
    /// Without the version.
    pub from: String,
    /// With it.
    pub to: String,
    /// How many.
    pub members: i64,
}

/// A member that moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierMover {
    /// Who.
    pub member: MemberId,
    /// Without the version.
    pub from: String,
    /// With it.
    pub to: String,
    /// Growth that counts under it.
    pub growth: i64,
}

/// What both replays have in common.
struct Comparison {
    without: Vec<TierPolicy>,
    with: Vec<TierPolicy>,
    at: Timestamp,
    now: Timestamp,
}

/// A member as it is read for it.
struct Subject {
    id: MemberId,
    joined_ms: i64,
}

impl Membership {
    /// Says who would have another tier at an instant, by default its start, if a policy were put as the next version and nothing more were
    /// earned. Members that have left are left out. Nothing is written.
    ///
    /// # Errors
    /// `forbidden`, also for a key of one unit; what [`Membership::put_tier_policy`] refuses; `invalid_request` for the instant; `limited` for
    /// more than five million members.
    pub async fn preview_tier_policy(
        &self,
        actor: &Actor,
        policy: &TierPolicy,
        at: Option<Timestamp>,
        after: Option<String>,
        limit: u64,
    ) -> Result<TierPreview, Error> {
        require_group(actor)?;
        guard::outside_unit("a preview of tiers");
        let without = self.tier_policies(self.kernel().db.reader()).await?.to_vec();
        let version = without.last().map_or(1, |newest| newest.version + 1);
        let policy = TierPolicy { version, ..policy.clone() };
        self.check_tier_policy(&without, &policy)?;
        let at_ms = at.map_or(policy.starts_at_ms, Timestamp::ms);
        if !(policy.starts_at_ms..=policy.starts_at_ms + AFTER_MS).contains(&at_ms) {
            return Err(Problem::invalid("at", "expected an instant from the start of the version to three years after it").into());
        }
        let members =
            sql::count(self.kernel().db.reader(), "SELECT COUNT(*) AS n FROM membership_member WHERE state <> 'closed'", []).await?;
        if members > MEMBERS_MAX {
            return Err(Error::refused(
                kernel_codes::LIMITED,
                format!("a preview replays at most {MEMBERS_MAX} members; there are {members}"),
            ));
        }
        let with = without.iter().chain([&policy]).cloned().collect();
        let comparison = Comparison { without, with, at: Timestamp::clamped(at_ms), now: self.kernel().clock.now() };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let counting = after.is_none();
        let (mut moves, mut movers) = (BTreeMap::new(), Vec::new());
        let mut reached = after.unwrap_or_default();
        loop {
            let subjects = self.subjects(&reached).await?;
            let Some(last) = subjects.last().map(|subject| subject.id.to_string()) else { break };
            for mover in self.compare(&comparison, &subjects, &reached, &last).await? {
                *moves.entry((mover.from.clone(), mover.to.clone())).or_insert(0) += 1;
                if mover.from != mover.to && movers.len() < limit {
                    movers.push(mover);
                }
            }
            reached = last;
            if subjects.len() < PAGE_MEMBERS || (!counting && movers.len() >= limit) {
                break;
            }
        }
        let moves = moves.into_iter().map(|((from, to), members)| TierMove { from, to, members }).collect();
        Ok(TierPreview { version, at: comparison.at, moves: counting.then_some(moves), movers })
    }

    async fn subjects(&self, after: &str) -> Result<Vec<Subject>, Error> {
        let text = "SELECT id, joined_at FROM membership_member WHERE id > $1 AND state <> 'closed' ORDER BY id LIMIT $2";
        let page = i64::try_from(PAGE_MEMBERS).unwrap_or(i64::MAX);
        let rows = sql::all(self.kernel().db.reader(), text, [after.into(), page.into()]).await?;
        let subject = |row| {
            let id = MemberId::new(sql::get::<String>(row, "id")?).map_err(|e| corrupt("member", e))?;
            Ok(Subject { id, joined_ms: sql::get(row, "joined_at")? })
        };
        rows.iter().map(subject).collect()
    }

    /// Each of a page of members, with both tiers.
    async fn compare(&self, comparison: &Comparison, subjects: &[Subject], after: &str, last: &str) -> Result<Vec<TierMover>, Error> {
        let mut growth = self.growth_between(after, last).await?;
        let grants = self.granted_between(after, last, comparison.now).await?;
        let zone = &self.kernel().zone;
        let none = || corrupt("tier policy", "there is none");
        let mut compared = Vec::with_capacity(subjects.len());
        for subject in subjects {
            let history = History::new(growth.remove(subject.id.as_str()).unwrap_or_default());
            let grants = grants.get(subject.id.as_str()).map_or(&[][..], Vec::as_slice);
            let at = comparison.at.ms();
            let frame = |policies| Frame { policies, zone, joined_ms: subject.joined_ms, grants };
            let from = standing(frame(&comparison.without), &history, at).ok_or_else(none)?;
            let to = standing(frame(&comparison.with), &history, at).ok_or_else(none)?;
            let (from, to, growth) = (from.tier().to_owned(), to.tier().to_owned(), to.sums.counted);
            compared.push(TierMover { member: subject.id.clone(), from, to, growth });
        }
        Ok(compared)
    }

    async fn growth_between(&self, after: &str, last: &str) -> Result<HashMap<String, Vec<(i64, i64)>>, Error> {
        let text = "SELECT member, occurred_at, CAST(SUM(amount) AS BIGINT) AS amount FROM membership_growth
                    WHERE member > $1 AND member <= $2 GROUP BY member, occurred_at";
        let mut growth: HashMap<String, Vec<(i64, i64)>> = HashMap::new();
        for row in sql::all(self.kernel().db.reader(), text, [after.into(), last.into()]).await? {
            growth.entry(sql::get(&row, "member")?).or_default().push((sql::get(&row, "occurred_at")?, sql::get(&row, "amount")?));
        }
        Ok(growth)
    }

    async fn granted_between(&self, after: &str, last: &str, now: Timestamp) -> Result<HashMap<String, Vec<Granted>>, Error> {
        let text = "SELECT id, member, tier, granted_at, ends_at FROM membership_tier_grant
                    WHERE member > $1 AND member <= $2 AND ends_at > $3";
        let mut grants: HashMap<String, Vec<Granted>> = HashMap::new();
        for row in sql::all(self.kernel().db.reader(), text, [after.into(), last.into(), now.ms().into()]).await? {
            grants.entry(sql::get(&row, "member")?).or_default().push(grant::granted(&row)?);
        }
        Ok(grants)
    }
}
