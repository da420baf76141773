//! New versions of the earn rules: checked whole, written once, in force from an instant that lies ahead.

use crate::earn::{EarnRules, LineRule, Rates};
use crate::error::Error;
use crate::facade::Membership;
use futures::FutureExt;
use heyuan_contract::{Ratio, Timestamp};
use heyuan_kernel::error::codes as kernel_codes;
use heyuan_kernel::{Actor, Problem, Reach, Scope, Tx, audit, sql};
use std::sync::Arc;

/// How far ahead a version starts at least: longer than an own time may lie ahead and a posting under way may take, so that none is
/// decided with the version before.
const LEAD_MS: i64 = 10 * 60_000;
/// How far ahead it starts at most.
const AHEAD_MS: i64 = 5 * 366 * 86_400_000;
/// Versions that a decision keeps in mind.
const VERSIONS_MAX: i64 = 1_000;
/// How long points may last, in days.
const POINTS_DAYS_MAX: i32 = 3_660;
/// Categories that one line names.
const CATEGORIES_MAX: usize = 100;
/// Longest category, in bytes.
const CATEGORY_BYTES_MAX: usize = 64;
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
        actor.require(Scope::Admin)?;
        if *actor.reach() != Reach::Everything {
            return Err(Error::refused(kernel_codes::FORBIDDEN, "earn rules are the whole group's and need its key"));
        }
        let versions = self.earn_rules(self.kernel().db.reader()).await?;
        if let Some(known) = versions.iter().find(|known| known.version == rules.version) {
            if known == rules {
                return Ok(known.clone());
            }
            let words = format!("version {} is there with other content; a version never changes", rules.version);
            return Err(Error::refused(kernel_codes::CONFLICT, words));
        }
        let next = versions.last().map_or(1, |newest| newest.version + 1);
        if rules.version != next || next > VERSIONS_MAX {
            return Err(Error::refused(kernel_codes::CONFLICT, format!("the next version is {next}, of at most {VERSIONS_MAX}")));
        }
        check(rules, self.kernel().clock.now())?;
        let entry = audit::Entry::new(actor, "put earn rules", &rules.version.to_string()).detail("starts_at_ms", rules.starts_at_ms);
        let (membership, written) = (self.clone(), Arc::new(rules.clone()));
        self.kernel()
            .db
            .write("put earn rules", move |tx| {
                let (membership, rules, entry) = (membership.clone(), written.clone(), entry.clone());
                async move { membership.write_earn_rules(tx, &rules, &entry).await }.boxed()
            })
            .await?;
        self.forget_policy();
        Ok(rules.clone())
    }

    async fn write_earn_rules(&self, tx: &Tx, rules: &EarnRules, entry: &audit::Entry) -> Result<(), Error> {
        self.write_version(tx, "membership_earn_rules", rules.version, rules).await?;
        let text = "SELECT body FROM membership_earn_rules WHERE version = $1";
        let row = sql::one(tx.conn(), text, [rules.version.into()]).await?;
        let body: String = row.map_or(Ok(String::new()), |row| sql::get(&row, "body"))?;
        if serde_json::from_str::<EarnRules>(&body).ok().as_ref() != Some(rules) {
            let words = format!("version {} was just written by somebody else", rules.version);
            return Err(Error::refused(kernel_codes::CONFLICT, words));
        }
        Ok(audit::record(tx, entry).await?)
    }
}

/// Refuses an instant at which no version may start.
pub(crate) fn check_start(starts_at_ms: i64, now: Timestamp) -> Result<(), Problem> {
    if (now.ms() + LEAD_MS..=now.ms() + AHEAD_MS).contains(&starts_at_ms) {
        return Ok(());
    }
    Err(Problem::invalid("starts_at", "expected an instant at least ten minutes and at most five years from now"))
}

/// Refuses what can't be rules, with the field and what would be right.
fn check(rules: &EarnRules, now: Timestamp) -> Result<(), Problem> {
    check_start(rules.starts_at_ms, now)?;
    if !(1..=POINTS_DAYS_MAX).contains(&rules.points_days) {
        return Err(Problem::invalid("points_days", format!("expected 1 to {POINTS_DAYS_MAX} days")));
    }
    rules.lines.iter().try_for_each(|(line, rule)| check_line(&format!("lines.{line}"), rule))
}

fn check_line(at: &str, rule: &LineRule) -> Result<(), Problem> {
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
        if category.is_empty() || category.len() > CATEGORY_BYTES_MAX || category.chars().any(char::is_control) {
            let words = format!("expected categories of 1 to {CATEGORY_BYTES_MAX} bytes of text");
            return Err(Problem::invalid(&format!("{at}.categories"), words));
        }
    }
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

/// The least common multiple of the denominators; `None` beyond [`RATIO_PART_MAX`].
fn common_denominator(ratios: impl Iterator<Item = Ratio>) -> Option<i64> {
    let gcd = |mut a: i64, mut b: i64| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let mut all = ratios;
    all.try_fold(1i64, |common, ratio| {
        let next = common / gcd(common, ratio.denominator()) * ratio.denominator();
        (next <= RATIO_PART_MAX).then_some(next)
    })
}

fn check_ratio(at: &str, ratio: Ratio) -> Result<(), Problem> {
    if ratio.numerator() <= RATIO_PART_MAX && ratio.denominator() <= RATIO_PART_MAX {
        return Ok(());
    }
    Err(Problem::invalid(at, format!("expected a ratio whose parts are at most {RATIO_PART_MAX}")))
}
