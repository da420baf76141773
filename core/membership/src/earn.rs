//! Earn rules: what a line's transaction earns before any plugin, as exact ratios, by version.

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
    fn rates_of(&self, category: &str) -> Option<Rates> {
        if self.excluded.contains(category) {
            return None;
        }
        Some(self.categories.get(category).copied().unwrap_or(Rates { growth: self.growth, points: self.points }))
    }

    /// What an amount earns at one figure's rates. What of it the order lines don't cover earns at the line's own rate; where they come to
    /// more than was paid, each counts in proportion. Summed exactly and rounded down once.
    fn figure(&self, amount_fen: i64, order: &[OrderLine], rate: fn(Rates) -> Ratio) -> Result<i64, MoneyError> {
        let own = rate(Rates { growth: self.growth, points: self.points });
        if self.categories.is_empty() && self.excluded.is_empty() {
            return own.floor_of(amount_fen);
        }
        let covered: i128 = order.iter().map(|line| i128::from(line.amount.0)).sum();
        let whole = covered.max(i128::from(amount_fen));
        let mut by_rate: BTreeMap<(i64, i64), i128> = BTreeMap::new();
        *by_rate.entry((own.numerator(), own.denominator())).or_default() += whole - covered;
        for line in order {
            if let Some(rates) = self.rates_of(&line.category) {
                let rate = rate(rates);
                *by_rate.entry((rate.numerator(), rate.denominator())).or_default() += i128::from(line.amount.0);
            }
        }
        // The sum of shares × rates × amount ÷ whole, as one fraction.
        let (mut numerator, mut denominator) = (0i128, 1i128);
        for ((n, d), share) in by_rate {
            let (n, d) = (share.checked_mul(i128::from(n)).ok_or(MoneyError::Overflow)?, i128::from(d));
            let left = numerator.checked_mul(d).ok_or(MoneyError::Overflow)?;
            let right = n.checked_mul(denominator).ok_or(MoneyError::Overflow)?;
            numerator = left.checked_add(right).ok_or(MoneyError::Overflow)?;
            denominator = denominator.checked_mul(d).ok_or(MoneyError::Overflow)?;
            let common = gcd(numerator, denominator).max(1);
            (numerator, denominator) = (numerator / common, denominator / common);
        }
        let numerator = numerator.checked_mul(i128::from(amount_fen)).ok_or(MoneyError::Overflow)?;
        let denominator = denominator.checked_mul(whole).ok_or(MoneyError::Overflow)?;
        i64::try_from(numerator.div_euclid(denominator)).map_err(|_| MoneyError::Overflow)
    }
}

fn gcd(a: i128, b: i128) -> i128 {
    if b == 0 { a.abs() } else { gcd(b, a % b) }
}

/// What a transaction earns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Earned {
    /// Growth value.
    pub growth: i64,
    /// Points.
    pub points: i64,
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
        };
        let fen = ratio(1, 1);
        let lines = [
            (Line::Mall, rule(100, fen)),
            (Line::Office, rule(100, fen)),
            (Line::Hotel, rule(100, ratio(6, 5))),
            (Line::Community, rule(1000, fen)),
        ];
        EarnRules { version: 1, starts_at_ms: always(), points_days: POINTS_DAYS, lines: lines.into() }
    }

    /// What a point of a line costs it.
    ///
    /// # Errors
    /// Never for ratios that were checked; [`MoneyError`] otherwise.
    pub fn cost(&self, line: Line) -> Result<Ratio, MoneyError> {
        self.lines.get(&line).map_or_else(|| Ratio::new(1, 1), |rule| Ok(rule.cost))
    }

    /// What an amount with its order lines earns, each figure rounded down once a transaction.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`].
    pub fn earn(&self, line: Line, amount_fen: i64, order: &[OrderLine]) -> Result<Earned, MoneyError> {
        let Some(rule) = self.lines.get(&line).filter(|rule| amount_fen >= rule.amount_min) else { return Ok(Earned::default()) };
        Ok(Earned {
            growth: rule.figure(amount_fen, order, |rates| rates.growth)?,
            points: rule.figure(amount_fen, order, |rates| rates.points)?,
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

    #[test]
    fn lines_earn_by_their_ratio() -> Result<(), MoneyError> {
        let rules = EarnRules::first();
        for (line, fen, growth, points) in [
            (Line::Mall, 12_399, 123, 123),
            (Line::Community, 12_399, 12, 12),
            (Line::Hotel, 99, 0, 0),
            (Line::Residential, 300_000_000, 0, 0),
        ] {
            assert_eq!(rules.earn(line, fen, &[])?, Earned { growth, points }, "{line} {fen}");
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
            assert_eq!(rules.earn(Line::Mall, fen, &order)?, Earned { growth, points }, "{fen} {order:?}");
        }
        let steep = rules.lines.get_mut(&Line::Mall).expect("the mall gives something");
        steep.points = Ratio::new(i64::MAX, 1)?;
        assert_eq!(rules.earn(Line::Mall, MAX_FEN, &[]), Err(MoneyError::Overflow));
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
