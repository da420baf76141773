//! A version of the ladder: its steps, what counts, and how a tier is lost.

use heyuan_contract::Timestamp;
use heyuan_kernel::{Problem, Zone};
use jiff::ToSpan;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

pub(super) const DAY_MS: i64 = 86_400_000;
/// Steps of one ladder.
const STEPS_MAX: usize = 20;
/// Longest code of a tier, in bytes.
const TIER_BYTES_MAX: usize = 63;
/// Longest rolling window, in days.
const WINDOW_DAYS_MAX: i64 = 3_660;
/// Longest grace, in days.
const GRACE_DAYS_MAX: i32 = 366;
/// Largest threshold: with every transaction of a member below it, no sum overflows.
const GROWTH_MAX: i64 = 1_000_000_000_000;

/// One version of the ladder. Of those that have started the highest counts, for everybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierPolicy {
    /// Counted from 1.
    pub version: i64,
    /// From which instant on it is in force; the first one always was.
    #[serde(default = "always")]
    pub starts_at_ms: i64,
    /// Which growth counts.
    #[serde(default)]
    pub measure: TierMeasure,
    /// Of a rolling window its length: growth that is as old no longer counts. Nothing with the other measures.
    pub window_days: i64,
    /// When it is looked for tiers whose growth is no longer there.
    #[serde(default)]
    pub look: TierLook,
    /// What such a tier becomes.
    #[serde(default)]
    pub downgrade: TierDowngrade,
    /// Full days that it holds after the look that found it.
    #[serde(default)]
    pub grace_days: i32,
    /// From the lowest up; the first one starts at zero.
    pub steps: Vec<TierStep>,
}

/// Which growth counts towards a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TierMeasure {
    /// Growth within the window of days that ends now.
    #[default]
    Rolling,
    /// Growth of the calendar year in the tenant's zone. What a year came to holds through the year after it as well.
    CalendarYear,
    /// Growth of all times.
    Lifetime,
}

/// When it is looked for tiers whose growth is no longer there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TierLook {
    /// At the moment that it is gone.
    #[default]
    Always,
    /// At the start of each day in the tenant's zone.
    Day,
    /// At the start of each month.
    Month,
    /// At the start of each year.
    Year,
}

/// What becomes of a tier whose growth is no longer there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TierDowngrade {
    /// The tier that the growth reaches.
    #[default]
    ToBalance,
    /// The one below it; the next look may take another step.
    OneStep,
}

/// One tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierStep {
    /// The tier's code.
    pub tier: String,
    /// Growth by the policy's measure that it takes.
    pub growth_min: i64,
    /// Growth of all times with which it is never lost to time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_min: Option<i64>,
}

fn always() -> i64 {
    Timestamp::MIN.ms()
}

impl TierPolicy {
    /// The ladder that a new tenant starts with: silver, gold from 5,000, platinum from 20,000, within 365 days, and no grace.
    pub fn first() -> TierPolicy {
        let step = |tier: &str, growth_min| TierStep { tier: tier.to_owned(), growth_min, lifetime_min: None };
        TierPolicy {
            version: 1,
            starts_at_ms: always(),
            measure: TierMeasure::Rolling,
            window_days: 365,
            look: TierLook::Always,
            downgrade: TierDowngrade::ToBalance,
            grace_days: 0,
            steps: vec![step("silver", 0), step("gold", 5_000), step("platinum", 20_000)],
        }
    }

    /// The tier that needs nothing.
    pub fn lowest(&self) -> &str {
        self.tier(0)
    }

    /// The tier of a rank, counted from zero.
    pub(crate) fn tier(&self, rank: usize) -> &str {
        self.steps.get(rank).or(self.steps.last()).map_or("", |step| &step.tier)
    }

    /// The rank of a tier, if it is one of the ladder.
    pub(crate) fn rank(&self, tier: &str) -> Option<usize> {
        self.steps.iter().position(|step| step.tier == tier)
    }

    /// The highest rank that an amount of growth reaches.
    pub(super) fn reached(&self, growth: i64) -> usize {
        self.steps.iter().rposition(|step| growth >= step.growth_min).unwrap_or(0)
    }

    /// The highest rank that growth of all times keeps for good.
    pub(super) fn kept_for_good(&self, total: i64) -> usize {
        self.steps.iter().rposition(|step| step.lifetime_min.is_some_and(|min| total >= min)).unwrap_or(0)
    }

    /// Whether growth of all times matters.
    pub(super) fn counts_lifetime(&self) -> bool {
        self.measure == TierMeasure::Lifetime || self.steps.iter().any(|step| step.lifetime_min.is_some())
    }

    /// Whether the tier is at every moment the one that the growth reaches, so that nothing of the past matters but sums.
    pub(super) fn follows_growth(&self) -> bool {
        self.looks() == TierLook::Always && self.grace_days == 0
    }

    /// When it looks. One step at a time needs looks that are apart.
    fn looks(&self) -> TierLook {
        match (self.downgrade, self.look) {
            (TierDowngrade::OneStep, TierLook::Always) => TierLook::Day,
            (_, look) => look,
        }
    }

    /// Whether it looks at this instant.
    pub(super) fn looks_at(&self, zone: &Zone, at_ms: i64) -> bool {
        self.looks() == TierLook::Always || self.look_start(zone, at_ms, 0) == at_ms
    }

    /// The first look after an instant.
    pub(super) fn next_look(&self, zone: &Zone, at_ms: i64) -> i64 {
        self.look_start(zone, at_ms, 1)
    }

    /// The start of the day, month or year that holds an instant, or of the next one.
    fn look_start(&self, zone: &Zone, at_ms: i64, next: i32) -> i64 {
        let at = Timestamp::clamped(at_ms);
        let day = zone.day(at);
        match self.looks() {
            TierLook::Always | TierLook::Day => zone.day_start_after(at, next).ms(),
            TierLook::Month => first_of(zone, day.first_of_month().checked_add(next.months()).ok()),
            TierLook::Year => year_start(zone, at_ms, next),
        }
    }

    /// The end of the grace of what a look at this instant found.
    pub(super) fn grace_end(&self, zone: &Zone, at_ms: i64) -> i64 {
        if self.grace_days == 0 {
            return at_ms;
        }
        let at = Timestamp::clamped(at_ms);
        let started = i32::from(zone.day_start_after(at, 0) != at);
        zone.day_start_after(at, self.grace_days.saturating_add(started)).ms()
    }

    /// Refuses what can't be a policy, with the field and what would be right.
    pub(super) fn check(&self) -> Result<(), Problem> {
        let rolling = self.measure == TierMeasure::Rolling;
        if rolling && !(1..=WINDOW_DAYS_MAX).contains(&self.window_days) {
            return Err(Problem::invalid("window_days", format!("a rolling window has 1 to {WINDOW_DAYS_MAX} days")));
        }
        if !rolling && self.window_days != 0 {
            return Err(Problem::invalid("window_days", "only the measure rolling has a window; leave it out"));
        }
        if !(0..=GRACE_DAYS_MAX).contains(&self.grace_days) {
            return Err(Problem::invalid("grace_days", format!("expected 0 to {GRACE_DAYS_MAX} days")));
        }
        if self.downgrade == TierDowngrade::OneStep && self.look == TierLook::Always {
            return Err(Problem::invalid("look", "one step at a time needs looks that are apart; expected day, month or year"));
        }
        self.check_steps()
    }

    fn check_steps(&self) -> Result<(), Problem> {
        if self.steps.is_empty() || self.steps.len() > STEPS_MAX {
            return Err(Problem::invalid("steps", format!("expected 1 to {STEPS_MAX} steps, the lowest first")));
        }
        let (mut growth, mut lifetime) = (None, 0);
        for (index, step) in self.steps.iter().enumerate() {
            let at = |name: &str| format!("steps[{index}].{name}");
            let plain = step.tier.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
            if step.tier.is_empty() || step.tier.len() > TIER_BYTES_MAX || !plain {
                return Err(Problem::invalid(&at("tier"), format!("expected 1 to {TIER_BYTES_MAX} characters of a-z 0-9 - _")));
            }
            if self.steps[..index].iter().any(|other| other.tier == step.tier) {
                return Err(Problem::invalid(&at("tier"), "another step has this tier; expected each tier once"));
            }
            let fits = growth.map_or(step.growth_min == 0, |below| step.growth_min > below) && step.growth_min <= GROWTH_MAX;
            if !fits {
                let words = match growth {
                    None => "the lowest tier starts at 0".to_owned(),
                    Some(below) => format!("it overlaps the tier below it; expected more than {below} and at most {GROWTH_MAX}"),
                };
                return Err(Problem::invalid(&at("growth_min"), words));
            }
            growth = Some(step.growth_min);
            let Some(min) = step.lifetime_min else { continue };
            if index == 0 {
                return Err(Problem::invalid(&at("lifetime_min"), "the lowest tier is never lost; leave it out"));
            }
            if min <= lifetime || min > GROWTH_MAX {
                let words = format!("it overlaps a tier below it; expected more than {lifetime} and at most {GROWTH_MAX}");
                return Err(Problem::invalid(&at("lifetime_min"), words));
            }
            lifetime = min;
        }
        Ok(())
    }

    /// Refuses to take back what an earlier version promised for good: whoever may have reached a lifetime tier keeps it.
    pub(super) fn check_keeps(&self, earlier: &TierPolicy) -> Result<(), Problem> {
        for promised in &earlier.steps {
            let Some(from) = promised.lifetime_min else { continue };
            let found = self.rank(&promised.tier);
            let kept = found.is_some_and(|rank| rank == 0 || self.steps[rank].lifetime_min.is_some_and(|min| min <= from));
            if !kept {
                let words = format!(
                    "version {} gives {} for good from {from} growth of all times; a later one may ask for less, not for more",
                    earlier.version, promised.tier
                );
                let field = found.map_or_else(|| "steps".to_owned(), |rank| format!("steps[{rank}].lifetime_min"));
                return Err(Problem::invalid(&field, words));
            }
        }
        Ok(())
    }
}

/// The version in force at an instant: of those that have started the highest.
pub(crate) fn in_force(policies: &[TierPolicy], at_ms: i64) -> Option<&TierPolicy> {
    policies.iter().rev().find(|policy| policy.starts_at_ms <= at_ms).or(policies.first())
}

/// The start of the calendar year that holds an instant, or of one some years on.
pub(super) fn year_start(zone: &Zone, at_ms: i64, years: i32) -> i64 {
    let day = zone.day(Timestamp::clamped(at_ms));
    first_of(zone, day.first_of_year().checked_add(years.years()).ok())
}

fn first_of(zone: &Zone, day: Option<Date>) -> i64 {
    day.map_or(i64::MAX, |day| zone.day_start(day).ms())
}
