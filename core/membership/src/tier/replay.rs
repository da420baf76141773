//! The tier of a member as one pure function of versions of the policy, growth history, grants by hand and an instant.
//!
//! The rules, in full:
//!
//! 1. **In force** at an instant is, of the versions that have started, the highest.
//! 2. **Growth counts** from its own time on, or from its arrival where its own time lies ahead of that. A refund is dated as its purchase,
//!    so that a history reads as if what was taken back had never been there. In whatever order entries arrive, the same set of them gives
//!    the same tiers at every instant, also at past ones. What is left of the growth of one instant is never below zero.
//! 3. **The balance** at T is the highest step whose threshold is reached by the growth that counts: with `rolling`, that of own times in
//!    (T − window, T]; with `calendar_year`, that of the year so far or that of the whole year before, whichever is more; with
//!    `lifetime`, all of it. A step whose `lifetime_min` is reached by the growth of all times is reached as well.
//! 4. **A tier rises** to the balance at the moment that this is higher.
//! 5. **A tier that is above the balance** is found by the next look: at once, or at the start of the next day, month or year (a look at
//!    the very instant counts). It holds through the grace: that many full days from there, beginning with the day of the look where
//!    that is its start. If the balance is still lower then, it becomes the balance or, one step at a time, the tier below; what is
//!    still above the balance is for the next look, which is later. If the balance comes back before, nothing happened.
//! 6. **When a version starts**, the tier goes over by its code, and to the lowest where the new ladder does not have it; a grace that
//!    runs ends. Rules 4 and 5 go on from there, under the new version.
//! 7. **A history begins** when the member joined, or with its first growth if that is earlier, at the lowest tier.
//! 8. **A grant by hand** holds from its making until its end. The tier is the higher one of the earned and the granted, in the order of
//!    the ladder in force; one that this does not have counts for nothing. What is granted changes nothing of what is earned.
//!
//! Days, months and years are those of the tenant's zone. Nothing here depends on when somebody looks at a member.

use super::history::{History, Sums};
use super::policy::{TierDowngrade, TierPolicy, in_force};
use heyuan_kernel::Zone;

/// Instants at which something may happen to a tier after now, that are looked at to say until when it holds.
const EVENTS_MAX: usize = 100_000;

/// A grant by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) id: String,
    pub(crate) tier: String,
    pub(crate) from_ms: i64,
    /// It no longer holds at this instant.
    pub(crate) until_ms: i64,
}

/// What a tier follows from besides growth.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    /// Every version, the newest last.
    pub(crate) policies: &'a [TierPolicy],
    pub(crate) zone: &'a Zone,
    pub(crate) joined_ms: i64,
    pub(crate) grants: &'a [Granted],
}

/// Where a member stands at an instant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing<'a> {
    /// The version in force.
    pub(crate) policy: &'a TierPolicy,
    /// The rank that is earned.
    pub(super) earned: usize,
    /// The rank that counts.
    pub(super) rank: usize,
    pub(super) sums: Sums,
    /// When time alone may change the tier under this version, at the earliest.
    pub(super) due: i64,
}

impl<'a> Standing<'a> {
    /// The tier that counts.
    pub(crate) fn tier(&self) -> &'a str {
        self.policy.tier(self.rank)
    }
}

/// Where a member stands at an instant; `None` only without any version.
pub(crate) fn standing<'a>(frame: Frame<'a>, history: &History, at_ms: i64) -> Option<Standing<'a>> {
    let policy = in_force(frame.policies, at_ms)?;
    if policy.follows_growth() {
        return standing_of_sums(frame, history.sums(policy, frame.zone, at_ms), at_ms);
    }
    replayed(frame, history, at_ms)
}

/// The same, step by step from the first growth on.
pub(super) fn replayed<'a>(frame: Frame<'a>, history: &History, at_ms: i64) -> Option<Standing<'a>> {
    let mut replay = Replay::begin(frame, history, at_ms)?;
    replay.run_to(at_ms);
    Some(frame.with_grants(replay.policy, replay.rank, replay.sums, replay.due(), at_ms))
}

/// The same from the sums alone, under a version whose tiers follow the growth at every moment.
pub(super) fn standing_of_sums<'a>(frame: Frame<'a>, sums: Sums, at_ms: i64) -> Option<Standing<'a>> {
    let policy = in_force(frame.policies, at_ms)?;
    let earned = policy.balance(&sums);
    let due = policy.next_loss(frame.zone, &sums, earned, at_ms).min(sums.next.unwrap_or(i64::MAX));
    Some(frame.with_grants(policy, earned, sums, due, at_ms))
}

/// Until when the tier of an instant holds if no growth comes, and what it is from then on; `None` for one without an end.
pub(super) fn holds_until(frame: Frame<'_>, history: &History, at_ms: i64) -> Option<(i64, String)> {
    let mut replay = Replay::begin(frame, history, at_ms)?;
    replay.run_to(at_ms);
    let tier = |replay: &Replay<'_, '_>| replay.policy.tier(frame.lifted(replay.policy, replay.rank, replay.at)).to_owned();
    let now = tier(&replay);
    for _ in 0..EVENTS_MAX {
        let next = replay.next().min(frame.next_grant_edge(replay.at));
        if next == i64::MAX {
            return None;
        }
        replay.step_to(next);
        let then = tier(&replay);
        if then != now {
            return Some((next, then));
        }
    }
    None
}

impl<'a> Frame<'a> {
    fn with_grants(self, policy: &'a TierPolicy, earned: usize, sums: Sums, due: i64, at_ms: i64) -> Standing<'a> {
        let rank = self.lifted(policy, earned, at_ms);
        Standing { policy, earned, rank, sums, due: due.min(self.next_grant_edge(at_ms)) }
    }

    /// The higher one of a rank and what is granted at an instant.
    fn lifted(&self, policy: &TierPolicy, earned: usize, at_ms: i64) -> usize {
        let live = self.grants.iter().filter(|grant| grant.from_ms <= at_ms && at_ms < grant.until_ms);
        live.filter_map(|grant| policy.rank(&grant.tier)).fold(earned, usize::max)
    }

    /// When a grant begins or ends next.
    fn next_grant_edge(&self, at_ms: i64) -> i64 {
        let edges = self.grants.iter().flat_map(|grant| [grant.from_ms, grant.until_ms]);
        edges.filter(|edge| *edge > at_ms).min().unwrap_or(i64::MAX)
    }
}

/// The machine that goes from one instant at which something may happen to the next.
struct Replay<'a, 'h> {
    frame: Frame<'a>,
    history: &'h History,
    policy: &'a TierPolicy,
    at: i64,
    rank: usize,
    sums: Sums,
    /// The end of the grace of a tier above the balance that a look has found.
    deadline: Option<i64>,
}

impl<'a, 'h> Replay<'a, 'h> {
    fn begin(frame: Frame<'a>, history: &'h History, at_ms: i64) -> Option<Replay<'a, 'h>> {
        let at = frame.joined_ms.min(history.first().unwrap_or(i64::MAX)).min(at_ms);
        let policy = in_force(frame.policies, at)?;
        let mut replay = Replay { frame, history, policy, at, rank: 0, sums: Sums::default(), deadline: None };
        replay.settle();
        Some(replay)
    }

    fn run_to(&mut self, until_ms: i64) {
        loop {
            let next = self.next();
            if next > until_ms {
                break;
            }
            self.step_to(next);
        }
        self.at = until_ms;
        self.sums = self.history.sums(self.policy, self.frame.zone, until_ms);
    }

    fn step_to(&mut self, at_ms: i64) {
        self.at = at_ms;
        self.settle();
    }

    /// Applies the rules at the instant.
    fn settle(&mut self) {
        if let Some(policy) = in_force(self.frame.policies, self.at).filter(|policy| policy.version != self.policy.version) {
            self.rank = policy.rank(self.policy.tier(self.rank)).unwrap_or(0);
            self.deadline = None;
            self.policy = policy;
        }
        self.sums = self.history.sums(self.policy, self.frame.zone, self.at);
        let balance = self.policy.balance(&self.sums);
        if balance >= self.rank {
            self.rank = balance;
            self.deadline = None;
            return;
        }
        if self.deadline.is_none() && self.policy.looks_at(self.frame.zone, self.at) {
            self.deadline = Some(self.policy.grace_end(self.frame.zone, self.at));
        }
        if self.deadline.is_some_and(|deadline| deadline <= self.at) {
            self.deadline = None;
            self.rank = match self.policy.downgrade {
                TierDowngrade::ToBalance => balance,
                TierDowngrade::OneStep => self.rank - 1,
            };
        }
    }

    /// The next instant at which something may happen under the version in force; the end of time when nothing can.
    fn due(&self) -> i64 {
        let zone = self.frame.zone;
        let falls = if let Some(deadline) = self.deadline {
            deadline
        } else if self.policy.balance(&self.sums) < self.rank {
            self.policy.next_look(zone, self.at)
        } else {
            self.policy.next_loss(zone, &self.sums, self.rank, self.at)
        };
        let falls = if falls > self.at { falls } else { i64::MAX };
        falls.min(self.sums.next.unwrap_or(i64::MAX))
    }

    /// The same, or the start of another version.
    fn next(&self) -> i64 {
        let starts = self.frame.policies.iter().map(|policy| policy.starts_at_ms).filter(|start| *start > self.at);
        starts.min().unwrap_or(i64::MAX).min(self.due())
    }
}
