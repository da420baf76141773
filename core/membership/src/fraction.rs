//! Exact sums of ratios, however many unrelated denominators meet in one.

use heyuan_contract::Ratio;
use num_bigint::{BigInt, Sign};
use std::collections::BTreeMap;

/// A fraction of whole numbers of any size; what is below the line is above zero.
#[derive(Debug, Clone)]
pub(crate) struct Fraction {
    numerator: BigInt,
    denominator: BigInt,
}

impl Fraction {
    /// Nothing.
    pub(crate) fn zero() -> Fraction {
        Fraction { numerator: 0.into(), denominator: 1.into() }
    }

    /// With `count × ratio` more.
    #[must_use]
    pub(crate) fn plus(self, count: i128, ratio: Ratio) -> Fraction {
        let added = Fraction { numerator: BigInt::from(count) * ratio.numerator(), denominator: ratio.denominator().into() };
        sum(&self, &added)
    }

    /// Multiplied by `above ÷ below`, which is above zero.
    #[must_use]
    pub(crate) fn times(self, above: i128, below: i128) -> Fraction {
        Fraction { numerator: self.numerator * above, denominator: self.denominator * below }
    }

    /// The whole number at or below it; `None` when that does not fit.
    pub(crate) fn floor(&self) -> Option<i64> {
        whole(&self.numerator, &self.denominator)
    }

    /// The nearest whole number, a half up; `None` when that does not fit.
    pub(crate) fn rounded(&self) -> Option<i64> {
        whole(&(&self.numerator * 2 + &self.denominator), &(&self.denominator * 2))
    }
}

fn sum(a: &Fraction, b: &Fraction) -> Fraction {
    if a.denominator == b.denominator {
        return Fraction { numerator: &a.numerator + &b.numerator, denominator: a.denominator.clone() };
    }
    Fraction { numerator: &a.numerator * &b.denominator + &b.numerator * &a.denominator, denominator: &a.denominator * &b.denominator }
}

/// The whole number at or below a fraction.
fn whole(above: &BigInt, below: &BigInt) -> Option<i64> {
    let (cut, rest) = (above / below, above % below);
    i64::try_from(if rest.sign() == Sign::Minus { cut - 1 } else { cut }).ok()
}

/// A sum of many ratios, kept apart by denominator until somebody asks: so that a file of a hundred thousand costs is added up in a moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sum {
    by_denominator: BTreeMap<i64, BigInt>,
}

impl Sum {
    /// Adds `count × ratio`.
    pub(crate) fn add(&mut self, count: i64, ratio: Ratio) {
        *self.by_denominator.entry(ratio.denominator()).or_default() += BigInt::from(count) * ratio.numerator();
    }

    /// All of it.
    pub(crate) fn total(&self) -> Fraction {
        let part = |(below, above): (&i64, &BigInt)| Fraction { numerator: above.clone(), denominator: (*below).into() };
        let mut parts: Vec<Fraction> = self.by_denominator.iter().map(part).collect();
        // Neighbours first, so that large numbers meet large ones, and few of them.
        while parts.len() > 1 {
            parts = parts.chunks(2).map(|pair| if let [a, b] = pair { sum(a, b) } else { pair[0].clone() }).collect();
        }
        parts.pop().unwrap_or_else(Fraction::zero)
    }
}

/// The greatest common divisor of two numbers; 1 where both are 0.
pub(crate) fn gcd(a: i128, b: i128) -> i128 {
    let (mut a, mut b) = (a.abs(), b.abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(above: i64, below: i64) -> Ratio {
        Ratio::new(above, below).expect("a ratio")
    }

    #[test]
    fn sums_are_exact() {
        let sum = (0..3).fold(Fraction::zero(), |sum, _| sum.plus(1, ratio(1, 3)));
        assert_eq!((sum.floor(), sum.rounded()), (Some(1), Some(1)));
        let most = sum.times(5, 2);
        assert_eq!((most.floor(), most.rounded()), (Some(2), Some(3)));
        let less = Fraction::zero().plus(-7, ratio(1, 2));
        assert_eq!((less.floor(), less.rounded()), (Some(-4), Some(-3)));
        let beyond = Fraction::zero().plus(i128::MAX, ratio(2, 1));
        assert_eq!((beyond.floor(), beyond.times(1, i128::MAX).floor()), (None, Some(2)), "what is too large for an answer is still exact");
    }

    #[test]
    fn denominators_that_have_nothing_in_common_are_summed_exactly() {
        // As a file of costs may have them: each comes to one, and a half is left over.
        let mut sum = Sum::default();
        for below in (999_000..=1_000_000).rev() {
            sum.add(below - 1, ratio(1, below));
            sum.add(1, ratio(1, below));
        }
        sum.add(1, ratio(1, 2));
        let total = sum.total();
        assert_eq!((total.floor(), total.rounded()), (Some(1001), Some(1002)));
        sum.add(-1, ratio(1, 999_983));
        let total = sum.total();
        assert_eq!((total.floor(), total.rounded()), (Some(1001), Some(1001)), "a millionth less than a half");
        assert_eq!(Sum::default().total().rounded(), Some(0));
    }

    #[test]
    fn divisors_are_never_zero() {
        assert_eq!([gcd(12, 18), gcd(0, 5), gcd(0, 0), gcd(-4, 6)], [6, 5, 1, 2]);
    }
}
