//! New versions of the earn rules: checked whole, written once, in force from an instant that lies ahead.

use crate::caps::Caps;
use crate::earn::{EarnRules, LineRule, Multiplier, Rates, When};
use crate::error::Error;
use crate::facade::{Membership, require_group};
use crate::fraction::gcd;
use crate::versions::{Version, check_next, check_start, known};
use heyuan_contract::{Ratio, Timestamp};
use heyuan_kernel::text::is_line;
use heyuan_kernel::{Actor, Problem, Scope};
use std::collections::BTreeSet;

/// How long points may last, in days.
const POINTS_DAYS_MAX: i32 = 3_660;
/// Categories that one line names.
const CATEGORIES_MAX: usize = 100;
/// Longest category, article or name, in bytes.
const CODE_BYTES_MAX: usize = 100;
/// Articles that one line excludes.
const ARTICLES_MAX: usize = 1_000;
/// Multipliers of one line.
const MULTIPLIERS_MAX: usize = 50;
/// Largest part of a multiplier: with it the largest purchase is still exact in 128 bits.
const FACTOR_PART_MAX: i64 = 100;
/// Largest cap.
const CAP_MAX: i64 = 1_000_000_000_000;
/// The end of a day, in minutes.
const DAY_MINUTES: u16 = 24 * 60;
/// Largest part of a ratio, and the largest common denominator of one figure's ratios: with it a sum over all categories of the largest
/// purchase is exact in 128 bits.
const RATIO_PART_MAX: i64 = 1_000_000;
/// Largest minimum amount, in fen.
const AMOUNT_MIN_MAX: i64 = 1_000_000_000;

impl Membership {
    /// Every version of the earn rules, the newest first.
    ///
    /// # Errors
    /// `forbidden`.
    pub async fn list_earn_rules(&self, actor: &Actor) -> Result<Vec<EarnRules>, Error> {
        actor.require_any(&[Scope::App, Scope::Admin])?;
        let mut versions = self.earn_rules(self.kernel().db.reader()).await?;
        versions.reverse();
        Ok(versions)
    }

    /// Writes the next version of the earn rules; the same again is answered as it is.
    ///
    /// # Errors
    /// `forbidden`, also for a key of one unit; `invalid_request` with the field; `conflict` for a number that is not the next one, or
    /// that has other content.
    pub async fn put_earn_rules(&self, actor: &Actor, rules: &EarnRules) -> Result<EarnRules, Error> {
        require_group(actor, "earn rules are the whole group's and need its key")?;
        let versions = self.earn_rules(self.kernel().db.reader()).await?;
        if let Some(known) = known(&versions, rules)? {
            return Ok(known);
        }
        check_next(&versions, rules)?;
        let policies = self.tier_policies(self.kernel().db.reader()).await?;
        let tiers: BTreeSet<&str> = policies.iter().flat_map(|policy| &policy.steps).map(|step| step.tier.as_str()).collect();
        check(rules, &tiers, self.kernel().clock.now())?;
        self.put_version(actor, rules).await?;
        Ok(rules.clone())
    }
}

impl Version for EarnRules {
    const TABLE: &'static str = "membership_earn_rules";
    const PUT: &'static str = "put earn rules";
    /// A decision keeps all of them in mind.
    const VERSIONS_MAX: i64 = 1_000;

    fn number(&self) -> i64 {
        self.version
    }

    fn starts_at_ms(&self) -> i64 {
        self.starts_at_ms
    }
}

/// Refuses what can't be rules, with the field and what would be right.
fn check(rules: &EarnRules, tiers: &BTreeSet<&str>, now: Timestamp) -> Result<(), Problem> {
    check_start(rules.starts_at_ms, now)?;
    if !(1..=POINTS_DAYS_MAX).contains(&rules.points_days) {
        return Err(Problem::invalid("points_days", format!("expected 1 to {POINTS_DAYS_MAX} days")));
    }
    check_caps("caps", &rules.caps)?;
    rules.lines.iter().try_for_each(|(line, rule)| check_line(&format!("lines.{line}"), rule, tiers))
}

fn check_line(at: &str, rule: &LineRule, tiers: &BTreeSet<&str>) -> Result<(), Problem> {
    let rates = |at: &str, rates: Rates| {
        check_ratio(&format!("{at}.growth"), rates.growth)?;
        check_ratio(&format!("{at}.points"), rates.points)
    };
    rates(at, Rates { growth: rule.growth, points: rule.points })?;
    check_ratio(&format!("{at}.cost"), rule.cost)?;
    if !(0..=AMOUNT_MIN_MAX).contains(&rule.amount_min) {
        return Err(Problem::invalid(&format!("{at}.amount_min"), format!("expected 0 to {AMOUNT_MIN_MAX} fen")));
    }
    if rule.categories.len() + rule.excluded.len() > CATEGORIES_MAX {
        return Err(Problem::invalid(
            &format!("{at}.categories"),
            format!("expected at most {CATEGORIES_MAX} categories, excluded ones too"),
        ));
    }
    for category in rule.categories.keys().chain(&rule.excluded) {
        check_text(&format!("{at}.categories"), category)?;
    }
    if rule.excluded_articles.len() > ARTICLES_MAX {
        return Err(Problem::invalid(&format!("{at}.excluded_articles"), format!("expected at most {ARTICLES_MAX} articles")));
    }
    rule.excluded_articles.iter().try_for_each(|article| check_text(&format!("{at}.excluded_articles"), article))?;
    check_multipliers(&format!("{at}.multipliers"), &rule.multipliers, tiers)?;
    check_caps(&format!("{at}.caps"), &rule.caps)?;
    if let Some(category) = rule.excluded.iter().find(|category| rule.categories.contains_key(*category)) {
        return Err(Problem::invalid(&format!("{at}.excluded"), format!("{category} is excluded and has rates; expected one of the two")));
    }
    rule.categories.iter().try_for_each(|(category, own)| rates(&format!("{at}.categories.{category}"), *own))?;
    let own = Rates { growth: rule.growth, points: rule.points };
    let all = || rule.categories.values().chain([&own]);
    for (figure, common) in
        [("growth", common_denominator(all().map(|rates| rates.growth))), ("points", common_denominator(all().map(|rates| rates.points)))]
    {
        if common.is_none() {
            let words =
                format!("expected denominators of {figure} with a common multiple of at most {RATIO_PART_MAX}, such as 100, 300, 1000");
            return Err(Problem::invalid(&format!("{at}.categories"), words));
        }
    }
    Ok(())
}

fn check_text(at: &str, text: &str) -> Result<(), Problem> {
    if !is_line(text, CODE_BYTES_MAX) {
        return Err(Problem::invalid(at, format!("expected 1 to {CODE_BYTES_MAX} bytes of text")));
    }
    Ok(())
}

fn check_caps(at: &str, caps: &Caps) -> Result<(), Problem> {
    for (span, cap) in [("day", caps.day), ("month", caps.month), ("ever", caps.ever)] {
        for (figure, limit) in [("growth", cap.growth), ("points", cap.points)] {
            if limit.is_some_and(|limit| !(0..=CAP_MAX).contains(&limit)) {
                return Err(Problem::invalid(&format!("{at}.{span}.{figure}"), format!("expected 0 to {CAP_MAX}")));
            }
        }
    }
    Ok(())
}

fn check_multipliers(at: &str, multipliers: &[Multiplier], tiers: &BTreeSet<&str>) -> Result<(), Problem> {
    if multipliers.len() > MULTIPLIERS_MAX {
        return Err(Problem::invalid(at, format!("expected at most {MULTIPLIERS_MAX} multipliers")));
    }
    let mut names = BTreeSet::new();
    for (place, multiplier) in multipliers.iter().enumerate() {
        let at = format!("{at}.{place}");
        check_text(&format!("{at}.name"), &multiplier.name)?;
        if !names.insert(&multiplier.name) {
            return Err(Problem::invalid(&format!("{at}.name"), "expected a name that no other multiplier of the line has"));
        }
        if let Some(unknown) = multiplier.tiers.iter().find(|tier| !tiers.contains(tier.as_str())) {
            let all: Vec<&str> = tiers.iter().copied().collect();
            return Err(Problem::invalid(&format!("{at}.tiers"), format!("there is no tier {unknown}; expected of {}", all.join(", "))));
        }
        for (figure, factor) in [("growth", multiplier.growth), ("points", multiplier.points)] {
            let parts = factor.denominator()..=FACTOR_PART_MAX;
            if !parts.contains(&factor.numerator()) {
                let words = format!("expected a ratio of at least 1 whose parts are at most {FACTOR_PART_MAX}, such as 3/2");
                return Err(Problem::invalid(&format!("{at}.{figure}"), words));
            }
        }
        check_when(&at, &multiplier.when)?;
    }
    Ok(())
}

fn check_when(at: &str, when: &When) -> Result<(), Problem> {
    let wrong = |field: &str, words: &str| Err(Problem::invalid(&format!("{at}.{field}"), words));
    if when.from_ms.zip(when.until_ms).is_some_and(|(from, until)| from >= until) {
        return wrong("until", "expected an instant after from");
    }
    if !when.weekdays.iter().all(|day| (1..=7).contains(day)) {
        return wrong("weekdays", "expected 1 for Monday to 7 for Sunday");
    }
    if !when.days.iter().all(|day| (1..=31).contains(day)) {
        return wrong("days", "expected days of the month, 1 to 31");
    }
    if when.daily_from.unwrap_or(0) >= when.daily_until.unwrap_or(DAY_MINUTES) {
        return wrong("daily_until", "expected a time after daily_from, of the same day");
    }
    Ok(())
}

/// The least common multiple of the denominators; `None` beyond [`RATIO_PART_MAX`].
fn common_denominator(ratios: impl Iterator<Item = Ratio>) -> Option<i64> {
    let mut all = ratios;
    all.try_fold(1i64, |common, ratio| {
        let shared = i64::try_from(gcd(common.into(), ratio.denominator().into())).ok()?;
        let next = common / shared * ratio.denominator();
        (next <= RATIO_PART_MAX).then_some(next)
    })
}

fn check_ratio(at: &str, ratio: Ratio) -> Result<(), Problem> {
    if ratio.numerator() <= RATIO_PART_MAX && ratio.denominator() <= RATIO_PART_MAX {
        return Ok(());
    }
    Err(Problem::invalid(at, format!("expected a ratio whose parts are at most {RATIO_PART_MAX}")))
}
