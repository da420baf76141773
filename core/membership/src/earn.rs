//! Earn rules: what a line's transaction earns before any plugin, as exact ratios, by version.

use heyuan_contract::{Line, MoneyError, Ratio};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How long points of version 1 last, in days of the tenant's calendar.
const POINTS_DAYS: i32 = 365;

/// One version of the rules; a transaction keeps the number of the version that it earned under.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarnRules {
    /// Counted from 1.
    pub version: i64,
    /// Points can be spent until the end of this many days after the transaction's own day.
    pub points_days: i32,
    /// What each line gives; a line that is not named gives nothing.
    pub lines: BTreeMap<Line, LineRule>,
}

/// What one line gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineRule {
    /// Growth for a fen paid.
    pub growth: Ratio,
    /// Points for a fen paid.
    pub points: Ratio,
    /// What a point costs the line, in fen.
    pub cost: Ratio,
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
        let rule = |fen, cost| LineRule { growth: ratio(1, fen), points: ratio(1, fen), cost };
        let fen = ratio(1, 1);
        let lines = [
            (Line::Mall, rule(100, fen)),
            (Line::Office, rule(100, fen)),
            (Line::Hotel, rule(100, ratio(6, 5))),
            (Line::Community, rule(1000, fen)),
        ];
        EarnRules { version: 1, points_days: POINTS_DAYS, lines: lines.into() }
    }

    /// What a point of a line costs it.
    ///
    /// # Errors
    /// Never for ratios that were checked; [`MoneyError`] otherwise.
    pub fn cost(&self, line: Line) -> Result<Ratio, MoneyError> {
        self.lines.get(&line).map_or_else(|| Ratio::new(1, 1), |rule| Ok(rule.cost))
    }

    /// What an amount earns, each rounded down once a transaction.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`].
    pub fn earn(&self, line: Line, amount_fen: i64) -> Result<Earned, MoneyError> {
        let Some(rule) = self.lines.get(&line) else { return Ok(Earned::default()) };
        Ok(Earned { growth: rule.growth.floor_of(amount_fen)?, points: rule.points.floor_of(amount_fen)? })
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

    #[test]
    fn lines_earn_by_their_ratio() -> Result<(), MoneyError> {
        let rules = EarnRules::first();
        for (line, fen, growth, points) in [
            (Line::Mall, 12_399, 123, 123),
            (Line::Community, 12_399, 12, 12),
            (Line::Hotel, 99, 0, 0),
            (Line::Residential, 300_000_000, 0, 0),
        ] {
            assert_eq!(rules.earn(line, fen)?, Earned { growth, points }, "{line} {fen}");
        }
        Ok(())
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
