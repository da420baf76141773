//! Tiers: a pure function of growth history, policy version and time.

use serde::{Deserialize, Serialize};

const DAY_MS: i64 = 86_400_000;

/// One version of the ladder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierPolicy {
    /// Counted from 1.
    pub version: i64,
    /// Growth older than this no longer counts.
    pub window_days: i64,
    /// From the lowest up; the first one starts at zero.
    pub steps: Vec<TierStep>,
}

/// One tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierStep {
    /// The tier's code.
    pub tier: String,
    /// Growth within the window that it takes.
    pub growth_min: i64,
}

impl TierPolicy {
    /// The ladder that a new tenant starts with: silver, gold from 5,000, platinum from 20,000, within 365 days.
    pub fn first() -> TierPolicy {
        let step = |tier: &str, growth_min| TierStep { tier: tier.to_owned(), growth_min };
        TierPolicy { version: 1, window_days: 365, steps: vec![step("silver", 0), step("gold", 5_000), step("platinum", 20_000)] }
    }

    /// The first instant whose growth still counts is after this one.
    pub fn window_start_ms(&self, at_ms: i64) -> i64 {
        at_ms.saturating_sub(self.window_days.saturating_mul(DAY_MS))
    }

    /// The tier for the growth within the window.
    pub fn tier_for(&self, growth: i64) -> &str {
        let reached = self.steps.iter().rev().find(|step| growth >= step.growth_min);
        reached.or(self.steps.first()).map_or("", |step| &step.tier)
    }

    /// The tier at an instant, from the whole history of (own time, growth).
    pub fn tier(&self, history: &[(i64, i64)], at_ms: i64) -> &str {
        let from = self.window_start_ms(at_ms);
        let growth = history.iter().filter(|(when, _)| *when > from && *when <= at_ms).map(|(_, growth)| growth).sum();
        self.tier_for(growth)
    }

    /// The tier that needs nothing.
    pub fn lowest(&self) -> &str {
        self.steps.first().map_or("", |step| &step.tier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_follow_history_and_time_alone() {
        let policy = TierPolicy::first();
        let history = [(0, 4_999), (10 * DAY_MS, 1), (20 * DAY_MS, 15_000), (21 * DAY_MS, -1)];
        for (day, tier) in
            [(0, "silver"), (9, "silver"), (10, "gold"), (20, "platinum"), (21, "gold"), (364, "gold"), (365, "gold"), (386, "silver")]
        {
            assert_eq!(policy.tier(&history, day * DAY_MS), tier, "day {day}");
        }
    }
}
