//! Caps: the most that a member earns by the earn rules in a day, in a month or ever, at one line or at all lines together.
//!
//! What was earned is counted by the transaction's own day and month, net of refunds, from the first transaction on that was decided under
//! the cap. Whoever comes first takes the room: a transaction that is reported late finds what earlier reports left of its day.

use crate::counter::Counter;
use crate::earn::{EarnRules, Earned};
use heyuan_contract::{Line, MemberId, Timestamp};
use heyuan_kernel::Zone;
use heyuan_ledger::Period;
use serde::{Deserialize, Serialize};

/// The most of each figure by the length of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Caps {
    /// In a day of the tenant's calendar.
    pub day: Cap,
    /// In a month of the tenant's calendar.
    pub month: Cap,
    /// In all.
    pub ever: Cap,
}

/// The most of each figure; `None` is as much as it comes to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cap {
    /// Growth.
    pub growth: Option<i64>,
    /// Points.
    pub points: Option<i64>,
}

/// How long a cap holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CapSpan {
    /// A day.
    Day,
    /// A month.
    Month,
    /// For ever.
    Ever,
}

impl CapSpan {
    /// The spelling in tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            CapSpan::Day => "day",
            CapSpan::Month => "month",
            CapSpan::Ever => "ever",
        }
    }

    /// `YYYYMMDD`, `YYYYMM` or 0.
    fn period(self, zone: &Zone, at: Timestamp) -> i64 {
        let month = Period::of(zone, at).number();
        match self {
            CapSpan::Day => month * 100 + i64::from(zone.day(at).day()),
            CapSpan::Month => month,
            CapSpan::Ever => 0,
        }
    }
}

/// What is capped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// Growth.
    Growth,
    /// Points.
    Points,
}

impl Figure {
    /// The spelling in tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Figure::Growth => "growth",
            Figure::Points => "points",
        }
    }
}

/// A cap as a decision saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// The line that it holds for; `None` for all together.
    pub line: Option<Line>,
    /// How long it holds.
    pub span: CapSpan,
    /// Which day (`YYYYMMDD`) or month (`YYYYMM`); 0 for ever.
    pub period: i64,
    /// What is capped.
    pub figure: Figure,
    /// The most.
    pub limit: i64,
    /// What the member had earned of it before.
    pub before: i64,
    /// What the transaction earned of it.
    pub taken: i64,
}

impl Counted {
    /// What counts it for a member; no plugin's name has a slash.
    pub(crate) fn counter(&self, member: &MemberId) -> Counter {
        let name = format!("cap/{}/{}/{}", self.line.map_or("all", Line::as_str), self.span.as_str(), self.figure.as_str());
        (member.clone(), name, self.period)
    }
}

/// The caps that hold for a transaction of a line at its own time, nothing counted yet.
pub(crate) fn of(rules: &EarnRules, line: Line, zone: &Zone, at: Timestamp) -> Vec<Counted> {
    let own = rules.lines.get(&line).map(|rule| (Some(line), rule.caps));
    let mut list = Vec::new();
    for (line, caps) in own.into_iter().chain([(None, rules.caps)]) {
        for (span, cap) in [(CapSpan::Day, caps.day), (CapSpan::Month, caps.month), (CapSpan::Ever, caps.ever)] {
            for (figure, limit) in [(Figure::Growth, cap.growth), (Figure::Points, cap.points)] {
                let counted = |limit| Counted { line, span, period: span.period(zone, at), figure, limit, before: 0, taken: 0 };
                list.extend(limit.map(counted));
            }
        }
    }
    list
}

/// Brings what would be earned within all caps, and notes what each counts of it.
pub(crate) fn hold(caps: &mut [Counted], gross: Earned) -> Earned {
    let within = |caps: &mut [Counted], figure, gross: i64| {
        let own = || caps.iter().filter(|cap| cap.figure == figure);
        let net = own().map(|cap| (cap.limit - cap.before).max(0)).fold(gross, i64::min);
        caps.iter_mut().filter(|cap| cap.figure == figure).for_each(|cap| cap.taken = net);
        net
    };
    Earned { growth: within(caps, Figure::Growth, gross.growth), points: within(caps, Figure::Points, gross.points) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cap_holds() {
        let cap = |figure, limit, before| Counted { line: None, span: CapSpan::Day, period: 20_261_129, figure, limit, before, taken: 0 };
        let gross = Earned { growth: 100, points: 100 };
        for (caps, growth, points) in [
            (vec![], 100, 100),
            (vec![cap(Figure::Points, 500, 450)], 100, 50),
            (vec![cap(Figure::Points, 500, 450), cap(Figure::Points, 30, 0)], 100, 30),
            (vec![cap(Figure::Growth, 10, 10), cap(Figure::Points, 10, 25)], 0, 0),
        ] {
            let mut caps = caps;
            assert_eq!(hold(&mut caps, gross), Earned { growth, points }, "{caps:?}");
            for cap in &caps {
                assert_eq!(cap.taken, if cap.figure == Figure::Growth { growth } else { points }, "all count what was earned in the end");
            }
        }
    }
}
