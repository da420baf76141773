//! Earn rules: what a line's transaction earns before any plugin, as exact ratios, by version.

use crate::caps::Caps;
use crate::fraction::Fraction;
use crate::rule::LocalTime;
use heyuan_contract::{Line, MoneyError, OrderLine, Ratio, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How long points of version 1 last, in days of the tenant's calendar.
const POINTS_DAYS: i32 = 365;

/// One version of the rules. A transaction earns under the one that is in force at its own time, however late it is reported, and keeps
/// its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarnRules {
    /// Counted from 1; of those in force at an instant the highest counts.
    pub version: i64,
    /// From which instant on it is in force; the first one always was.
    #[serde(default = "always")]
    pub starts_at_ms: i64,
    /// Points can be spent until the end of this many days after the transaction's own day.
    pub points_days: i32,
    /// What each line gives; a line that is not named gives nothing.
    pub lines: BTreeMap<Line, LineRule>,
    /// The most that a member earns at all lines together.
    #[serde(default)]
    pub caps: Caps,
}

fn always() -> i64 {
    Timestamp::MIN.ms()
}

/// What one line gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineRule {
    /// Growth for a fen paid.
    pub growth: Ratio,
    /// Points for a fen paid.
    pub points: Ratio,
    /// What a point costs the line, in fen.
    pub cost: Ratio,
    /// A transaction below it earns nothing, in fen.
    #[serde(default)]
    pub amount_min: i64,
    /// Rates of their own for order lines of these categories.
    #[serde(default)]
    pub categories: BTreeMap<String, Rates>,
    /// Categories whose order lines earn nothing.
    #[serde(default)]
    pub excluded: BTreeSet<String>,
    /// Articles, by the seller's code, whose order lines earn nothing.
    #[serde(default)]
    pub excluded_articles: BTreeSet<String>,
    /// More for some members or at some times. Of those that apply the largest counts, for growth and for points each; they never multiply
    /// each other.
    #[serde(default)]
    pub multipliers: Vec<Multiplier>,
    /// The most that a member earns at this line.
    #[serde(default)]
    pub caps: Caps,
}

/// More for some members or at some times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Multiplier {
    /// Its name, as the explanation of a decision tells it.
    pub name: String,
    /// The tiers that it is for; empty for every tier.
    #[serde(default)]
    pub tiers: BTreeSet<String>,
    /// When the transaction must have happened, by its own time.
    #[serde(default)]
    pub when: When,
    /// What growth is multiplied with; at least 1.
    pub growth: Ratio,
    /// What points are multiplied with; at least 1.
    pub points: Ratio,
}

/// Times on the tenant's calendar; every part that is named must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct When {
    /// From this instant on.
    pub from_ms: Option<i64>,
    /// Before this instant.
    pub until_ms: Option<i64>,
    /// 1 is Monday, 7 is Sunday; empty for every day.
    pub weekdays: BTreeSet<u8>,
    /// Days of the month, 1 to 31; empty for every day.
    pub days: BTreeSet<u8>,
    /// From this minute of the day on, 0 to 1439.
    pub daily_from: Option<u16>,
    /// Before this minute of the day, 1 to 1440.
    pub daily_until: Option<u16>,
}

impl When {
    fn holds(&self, moment: &Moment<'_>) -> bool {
        let (at, local) = (moment.at.ms(), moment.local);
        let one_of = |days: &BTreeSet<u8>, day| days.is_empty() || days.contains(&day);
        self.from_ms.is_none_or(|from| at >= from)
            && self.until_ms.is_none_or(|until| at < until)
            && one_of(&self.weekdays, local.weekday)
            && one_of(&self.days, local.day)
            && self.daily_from.is_none_or(|from| local.minute_of_day >= from)
            && self.daily_until.is_none_or(|until| local.minute_of_day < until)
    }
}

/// When a transaction happened, and who it is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment<'a> {
    /// Its own time.
    pub(crate) at: Timestamp,
    /// The same on the tenant's calendar.
    pub(crate) local: LocalTime,
    /// The member's tier when it is decided.
    pub(crate) tier: &'a str,
}

/// What a fen earns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Growth.
    pub growth: Ratio,
    /// Points.
    pub points: Ratio,
}

impl LineRule {
    /// The rates of an order line; `None` for one that earns nothing.
    fn rates_of(&self, line: &OrderLine) -> Option<Rates> {
        if self.excluded.contains(&line.category) || self.excluded_articles.contains(&line.sku) {
            return None;
        }
        Some(self.categories.get(&line.category).copied().unwrap_or(Rates { growth: self.growth, points: self.points }))
    }

    /// The multiplier that gives most of one figure, of those that apply.
    fn multiplier(&self, moment: &Moment<'_>, factor: fn(&Multiplier) -> Ratio) -> Option<&Multiplier> {
        let applies = |one: &&Multiplier| (one.tiers.is_empty() || one.tiers.contains(moment.tier)) && one.when.holds(moment);
        let larger = |a: Ratio, b: Ratio| {
            i128::from(a.numerator()) * i128::from(b.denominator()) > i128::from(b.numerator()) * i128::from(a.denominator())
        };
        // Of equal ones the first in the list is named.
        self.multipliers.iter().filter(applies).reduce(|most, one| if larger(factor(one), factor(most)) { one } else { most })
    }

    /// What an amount earns at one figure's rates. What of it the order lines don't cover earns at the line's own rate; where they come to
    /// more than was paid, each counts in proportion. Summed and multiplied exactly, and rounded down once.
    fn figure(&self, amount_fen: i64, order: &[OrderLine], rate: fn(Rates) -> Ratio, factor: Option<Ratio>) -> Option<i64> {
        let own = rate(Rates { growth: self.growth, points: self.points });
        let amount = i128::from(amount_fen);
        let sum = if self.categories.is_empty() && self.excluded.is_empty() && self.excluded_articles.is_empty() {
            Fraction::zero().plus(amount, own)
        } else {
            let covered: i128 = order.iter().map(|line| i128::from(line.amount.0)).sum();
            let whole = covered.max(amount);
            let mut by_rate: BTreeMap<(i64, i64), (Ratio, i128)> = BTreeMap::new();
            let mut add = |rate: Ratio, share: i128| by_rate.entry((rate.numerator(), rate.denominator())).or_insert((rate, 0)).1 += share;
            add(own, whole - covered);
            for line in order {
                if let Some(rates) = self.rates_of(line) {
                    add(rate(rates), i128::from(line.amount.0));
                }
            }
            let whole_sum = by_rate.into_values().fold(Fraction::zero(), |sum, (rate, share)| sum.plus(share, rate));
            if whole == 0 { whole_sum } else { whole_sum.times(amount, whole) }
        };
        match factor {
            Some(factor) => sum.times(factor.numerator().into(), factor.denominator().into()).floor(),
            None => sum.floor(),
        }
    }
}

/// What a transaction earns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earned {
    /// Growth value.
    pub growth: i64,
    /// Points.
    pub points: i64,
}

/// What a transaction earns before any cap, and by which multipliers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Gross {
    pub(crate) earned: Earned,
    pub(crate) growth_by: Option<String>,
    pub(crate) points_by: Option<String>,
}

impl EarnRules {
    /// The version that a new tenant starts with: retail, offices and hotels give 1 growth and 1 point a yuan, property services
    /// 1 of each for 10 yuan, homes nothing. A point costs its line a fen, a hotel's 1.2 fen.
    ///
    /// # Panics
    /// Never: the ratios are written here.
    pub fn first() -> EarnRules {
        let ratio = |numerator, denominator| Ratio::new(numerator, denominator).expect("a ratio written here is one");
        let rule = |fen, cost| LineRule {
            growth: ratio(1, fen),
            points: ratio(1, fen),
            cost,
            amount_min: 0,
            categories: BTreeMap::new(),
            excluded: BTreeSet::new(),
            excluded_articles: BTreeSet::new(),
            multipliers: Vec::new(),
            caps: Caps::default(),
        };
        let fen = ratio(1, 1);
        let lines = [
            (Line::Mall, rule(100, fen)),
            (Line::Office, rule(100, fen)),
            (Line::Hotel, rule(100, ratio(6, 5))),
            (Line::Community, rule(1000, fen)),
        ];
        EarnRules { version: 1, starts_at_ms: always(), points_days: POINTS_DAYS, lines: lines.into(), caps: Caps::default() }
    }

    /// What a point of a line costs it.
    ///
    /// # Errors
    /// Never for ratios that were checked; [`MoneyError`] otherwise.
    pub fn cost(&self, line: Line) -> Result<Ratio, MoneyError> {
        self.lines.get(&line).map_or_else(|| Ratio::new(1, 1), |rule| Ok(rule.cost))
    }

    /// Whether what a line gives depends on the member's tier.
    pub(crate) fn reads_tier(&self, line: Line) -> bool {
        self.lines.get(&line).is_some_and(|rule| rule.multipliers.iter().any(|multiplier| !multiplier.tiers.is_empty()))
    }

    /// What an amount with its order lines earns at a moment, each figure rounded down once a transaction.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`].
    pub(crate) fn earn(&self, line: Line, amount_fen: i64, order: &[OrderLine], moment: &Moment<'_>) -> Result<Gross, MoneyError> {
        let Some(rule) = self.lines.get(&line).filter(|rule| amount_fen >= rule.amount_min) else { return Ok(Gross::default()) };
        let growth_by = rule.multiplier(moment, |multiplier| multiplier.growth);
        let points_by = rule.multiplier(moment, |multiplier| multiplier.points);
        let growth = rule.figure(amount_fen, order, |rates| rates.growth, growth_by.map(|by| by.growth));
        let points = rule.figure(amount_fen, order, |rates| rates.points, points_by.map(|by| by.points));
        let named = |by: Option<&Multiplier>, factor: fn(&Multiplier) -> Ratio| {
            by.filter(|by| factor(by).numerator() > factor(by).denominator()).map(|by| by.name.clone())
        };
        Ok(Gross {
            earned: Earned { growth: growth.ok_or(MoneyError::Overflow)?, points: points.ok_or(MoneyError::Overflow)? },
            growth_by: named(growth_by, |by| by.growth),
            points_by: named(points_by, |by| by.points),
        })
    }
}

/// What of an earned figure is still kept when `refunded` of `amount` went back: rounded down of the whole, so that the end
/// depends on the sum of the refunds alone and never on their number or order.
pub(crate) fn kept(earned: i64, amount: i64, refunded: i64) -> i64 {
    if amount <= 0 {
        return 0;
    }
    let left = i128::from(amount) - i128::from(refunded);
    let kept = i128::from(earned) * left;
    // A figure between zero and `earned`.
    i64::try_from(kept.div_euclid(i128::from(amount))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use heyuan_contract::Fen;
    use heyuan_kernel::Zone;

    /// Sunday the 29th of November 2026 in Shanghai, at 20:00.
    fn sunday(tier: &str) -> Moment<'_> {
        let zone = Zone::named("Asia/Shanghai").expect("a zone");
        let at = Timestamp::clamped(1_795_953_600_000);
        Moment { at, local: LocalTime::of(&zone, at), tier }
    }

    fn earned(rules: &EarnRules, line: Line, fen: i64, order: &[OrderLine]) -> Result<Earned, MoneyError> {
        rules.earn(line, fen, order, &sunday("silver")).map(|gross| gross.earned)
    }

    #[test]
    fn lines_earn_by_their_ratio() -> Result<(), MoneyError> {
        let rules = EarnRules::first();
        for (line, fen, growth, points) in [
            (Line::Mall, 12_399, 123, 123),
            (Line::Community, 12_399, 12, 12),
            (Line::Hotel, 99, 0, 0),
            (Line::Residential, 300_000_000, 0, 0),
        ] {
            assert_eq!(earned(&rules, line, fen, &[])?, Earned { growth, points }, "{line} {fen}");
        }
        Ok(())
    }

    #[test]
    fn categories_earn_by_their_own_ratio_or_nothing() -> Result<(), MoneyError> {
        let mut rules = EarnRules::first();
        let mall = rules.lines.get_mut(&Line::Mall).expect("the mall gives something");
        let third = Ratio::new(1, 300)?;
        mall.categories.insert("gold".into(), Rates { growth: Ratio::new(0, 1)?, points: third });
        mall.excluded.insert("gift_card".into());
        mall.amount_min = 1_000;
        let bought = |category: &str, fen| OrderLine { sku: "s".into(), category: category.into(), quantity: 1, amount: Fen(fen) };
        for (fen, order, growth, points) in [
            // Two lines and a delivery fee that no line covers.
            (10_000, vec![bought("food", 4_000), bought("gold", 5_000)], 50, 66),
            (10_000, vec![bought("gift_card", 10_000)], 0, 0),
            (999, vec![], 0, 0),
            (1_000, vec![], 10, 10),
            // Rounded once: three thirds are a whole point.
            (1_000, vec![bought("gold", 100), bought("gold", 100), bought("gold", 100), bought("gift_card", 700)], 0, 1),
            // A coupon took a fifth off: each line counts in proportion.
            (8_000, vec![bought("food", 5_000), bought("gift_card", 5_000)], 40, 40),
            (MAX_FEN, vec![bought("gold", MAX_FEN)], 0, MAX_FEN / 300),
        ] {
            assert_eq!(earned(&rules, Line::Mall, fen, &order)?, Earned { growth, points }, "{fen} {order:?}");
        }
        let steep = rules.lines.get_mut(&Line::Mall).expect("the mall gives something");
        steep.points = Ratio::new(i64::MAX, 1)?;
        assert_eq!(earned(&rules, Line::Mall, MAX_FEN, &[]), Err(MoneyError::Overflow));
        Ok(())
    }

    #[test]
    fn articles_may_earn_nothing() -> Result<(), MoneyError> {
        let mut rules = EarnRules::first();
        rules.lines.get_mut(&Line::Mall).expect("the mall gives something").excluded_articles.insert("gold-bar".into());
        let bought = |sku: &str, fen| OrderLine { sku: sku.into(), category: "gold".into(), quantity: 1, amount: Fen(fen) };
        let order = [bought("gold-bar", 9_000), bought("gold-ring", 1_000)];
        assert_eq!(earned(&rules, Line::Mall, 10_000, &order)?, Earned { growth: 10, points: 10 });
        Ok(())
    }

    #[test]
    fn the_largest_multiplier_that_applies_counts() -> Result<(), MoneyError> {
        let ratio = |above, below| Ratio::new(above, below).expect("a ratio");
        let multiplier = |name: &str, tiers: &[&str], when, growth, points| Multiplier {
            name: name.into(),
            tiers: tiers.iter().map(|tier| (*tier).to_owned()).collect(),
            when,
            growth,
            points,
        };
        let evening = When { weekdays: [6, 7].into(), daily_from: Some(18 * 60), daily_until: Some(22 * 60), ..When::default() };
        let mut rules = EarnRules::first();
        rules.lines.get_mut(&Line::Mall).expect("the mall gives something").multipliers = vec![
            multiplier("gold", &["gold"], When::default(), ratio(3, 2), ratio(3, 2)),
            multiplier("weekend evening", &[], evening, ratio(1, 1), ratio(2, 1)),
            multiplier("member day", &[], When { days: [28].into(), ..When::default() }, ratio(9, 1), ratio(9, 1)),
            multiplier("opening week", &[], When { until_ms: Some(sunday("").at.ms()), ..When::default() }, ratio(5, 1), ratio(5, 1)),
        ];
        let at = |tier, fen| rules.earn(Line::Mall, fen, &[], &sunday(tier));
        // 9.99 yuan: rounded once, after the multiplication.
        assert_eq!(at("silver", 999)?.earned, Earned { growth: 9, points: 19 });
        assert_eq!(at("gold", 999)?.earned, Earned { growth: 14, points: 19 });
        let names = |gross: Gross| (gross.growth_by, gross.points_by);
        assert_eq!(names(at("silver", 999)?), (None, Some("weekend evening".into())));
        assert_eq!(names(at("gold", 999)?), (Some("gold".into()), Some("weekend evening".into())));
        assert!(rules.reads_tier(Line::Mall) && !rules.reads_tier(Line::Hotel));
        Ok(())
    }

    /// What the transactions of a line may come to.
    const MAX_FEN: i64 = 1_000_000_000_000;

    #[test]
    fn a_body_of_the_first_release_keeps_its_meaning() {
        let stored = r#"{"version":1,"points_days":365,"lines":{"mall":{"growth":{"numerator":1,"denominator":100},
            "points":{"numerator":1,"denominator":100},"cost":{"numerator":1,"denominator":1}}}}"#;
        let rules: EarnRules = serde_json::from_str(stored).expect("it is one");
        assert_eq!(rules.lines[&Line::Mall], EarnRules::first().lines[&Line::Mall]);
        assert_eq!(rules.starts_at_ms, EarnRules::first().starts_at_ms);
    }

    #[test]
    fn refunds_end_alike_however_they_are_split() {
        for (earned, amount) in [(123, 12_399), (7, 10), (0, 50), (-5, 100)] {
            assert_eq!(kept(earned, amount, 0), earned);
            assert_eq!(kept(earned, amount, amount), 0);
            let mut taken = 0;
            let mut refunded = 0;
            for part in [amount / 3, amount / 3, amount - 2 * (amount / 3)] {
                let before = kept(earned, amount, refunded);
                refunded += part;
                taken += before - kept(earned, amount, refunded);
            }
            assert_eq!(taken, earned, "{earned} of {amount}");
        }
    }
}
