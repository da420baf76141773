//! The full-chain report: what is asked, how counts and costs are figured, and under which conventions.

use crate::credit::{MILLION, Model};
use heyuan_contract::Fen;
use jiff::civil::Date;

/// How the rows are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupBy {
    /// By platform, or source of own and organic traffic; `direct` for what nothing brought.
    Platform,
    /// By platform and plan.
    Plan,
    /// By the lead's and the spend's unit.
    Unit,
    /// By day in the tenant's time zone.
    Day,
}

impl GroupBy {
    /// Every cut.
    pub const ALL: [GroupBy; 4] = [GroupBy::Platform, GroupBy::Plan, GroupBy::Unit, GroupBy::Day];

    /// The spelling in requests and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            GroupBy::Platform => "platform",
            GroupBy::Plan => "plan",
            GroupBy::Unit => "unit",
            GroupBy::Day => "day",
        }
    }

    /// The cut with this spelling, if there is one.
    pub fn parse(text: &str) -> Option<GroupBy> {
        GroupBy::ALL.into_iter().find(|cut| cut.as_str() == text)
    }
}

/// Which results count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// What happened within the days, whenever its lead came in.
    Event,
    /// All that the leads of the days ever reached.
    Cohort,
}

impl Basis {
    /// The spelling in requests and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Basis::Event => "event",
            Basis::Cohort => "cohort",
        }
    }

    /// The basis with this spelling, if there is one.
    pub fn parse(text: &str) -> Option<Basis> {
        [Basis::Event, Basis::Cohort].into_iter().find(|basis| basis.as_str() == text)
    }
}

/// A report to make.
#[derive(Debug, Clone)]
pub struct ReportQuery {
    /// First day.
    pub from: Date,
    /// Last day.
    pub to: Date,
    /// How the rows are cut.
    pub group_by: GroupBy,
    /// Which results count.
    pub basis: Basis,
    /// Who gets the credit.
    pub model: Model,
    /// How long before its lead a touch counts.
    pub window_days: i64,
    /// A cost over fewer results than this is withheld.
    pub min_sample: i64,
}

/// Results, in millionths: a linear model parts a result among several rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// 线索
    pub leads: i64,
    /// 邀约
    pub invited: i64,
    /// 到访
    pub visited: i64,
    /// 认筹
    pub subscribed: i64,
    /// 签约, cancelled ones too.
    pub contracted: i64,
    /// Cancellations of subscriptions and contracts.
    pub cancelled: i64,
    /// Contracts less cancelled contracts.
    pub net_contracts: i64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Counts) {
        self.leads += other.leads;
        self.invited += other.invited;
        self.visited += other.visited;
        self.subscribed += other.subscribed;
        self.contracted += other.contracted;
        self.cancelled += other.cancelled;
        self.net_contracts += other.net_contracts;
    }
}

/// A cost per result, or why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// Fen a result, rounded half up.
    Known(Fen),
    /// `no_result` or `small_sample`.
    Withheld(&'static str),
}

/// A row of the report, or its totals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportRow {
    /// The platform, `platform/plan`, unit or day.
    pub key: String,
    /// The plan's name.
    pub label: Option<String>,
    /// What was charged.
    pub spend: Fen,
    /// What came of it.
    pub counts: Counts,
}

impl ReportRow {
    /// Spend a lead.
    pub fn cost_per_lead(&self, min_sample: i64) -> Cost {
        cost(self.spend, self.counts.leads, min_sample)
    }

    /// Spend a visit.
    pub fn cost_per_visit(&self, min_sample: i64) -> Cost {
        cost(self.spend, self.counts.visited, min_sample)
    }

    /// Spend a contract that was not cancelled.
    pub fn cost_per_net_contract(&self, min_sample: i64) -> Cost {
        cost(self.spend, self.counts.net_contracts, min_sample)
    }
}

/// A report with what it was made under.
#[derive(Debug, Clone)]
pub struct FullChain {
    /// What was asked.
    pub query: ReportQuery,
    /// The tenant's time zone.
    pub time_zone: String,
    /// Rows by key.
    pub rows: Vec<ReportRow>,
    /// The sum of the rows.
    pub totals: ReportRow,
}

fn cost(spend: Fen, results: i64, min_sample: i64) -> Cost {
    if results <= 0 {
        return Cost::Withheld("no_result");
    }
    if results < min_sample.saturating_mul(MILLION) {
        return Cost::Withheld("small_sample");
    }
    let (spend, results) = (i128::from(spend.0) * i128::from(MILLION), i128::from(results));
    let rounded = (2 * spend + results).div_euclid(2 * results);
    Cost::Known(Fen(i64::try_from(rounded).unwrap_or(i64::MAX)))
}

/// An exact ratio in lowest terms; none over nothing.
pub(crate) fn rate(part: i64, whole: i64) -> Option<(i64, i64)> {
    if whole <= 0 {
        return None;
    }
    let divisor = greatest_common_divisor(part.unsigned_abs(), whole.unsigned_abs());
    let divisor = i64::try_from(divisor).unwrap_or(1).max(1);
    Some((part / divisor, whole / divisor))
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_round_half_up_and_small_samples_are_withheld() {
        for (spend, results, min_sample, expected) in [
            (100, 2 * MILLION, 1, Cost::Known(Fen(50))),
            (101, 2 * MILLION, 1, Cost::Known(Fen(51))),
            (100, 1_500_000, 1, Cost::Known(Fen(67))),
            (0, 5 * MILLION, 5, Cost::Known(Fen(0))),
            (100, 4_999_999, 5, Cost::Withheld("small_sample")),
            (100, 0, 1, Cost::Withheld("no_result")),
            (100, -MILLION, 1, Cost::Withheld("no_result")),
        ] {
            assert_eq!(cost(Fen(spend), results, min_sample), expected, "{spend} over {results}");
        }
        assert_eq!(rate(3 * MILLION, 12 * MILLION), Some((1, 4)));
        assert_eq!(rate(0, MILLION), Some((0, 1)));
        assert_eq!(rate(MILLION, 0), None);
    }
}
