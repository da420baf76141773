//! Exact sums of ratios, as one fraction in 128 bits.

use heyuan_contract::Ratio;

/// A fraction of nothing or more, in lowest terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fraction {
    numerator: i128,
    denominator: i128,
}

impl Fraction {
    /// Nothing.
    pub(crate) const ZERO: Fraction = Fraction { numerator: 0, denominator: 1 };

    /// With `count × ratio` more; `None` when that does not fit.
    pub(crate) fn plus(self, count: i128, ratio: Ratio) -> Option<Fraction> {
        let added = count.checked_mul(i128::from(ratio.numerator()))?;
        let below = i128::from(ratio.denominator());
        let numerator = self.numerator.checked_mul(below)?.checked_add(added.checked_mul(self.denominator)?)?;
        Fraction { numerator, denominator: self.denominator.checked_mul(below)? }.lowest()
    }

    /// Multiplied by `above ÷ below`, which is not zero; `None` when that does not fit.
    pub(crate) fn times(self, above: i128, below: i128) -> Option<Fraction> {
        let crossed = |a: i128, b: i128| (a / gcd(a, b), b / gcd(a, b));
        let ((numerator, below), (above, denominator)) = (crossed(self.numerator, below), crossed(above, self.denominator));
        Fraction { numerator: numerator.checked_mul(above)?, denominator: denominator.checked_mul(below)? }.lowest()
    }

    /// The whole number at or below it; `None` when that does not fit.
    pub(crate) fn floor(self) -> Option<i64> {
        i64::try_from(self.numerator.div_euclid(self.denominator)).ok()
    }

    /// The nearest whole number, a half up; `None` when that does not fit.
    pub(crate) fn rounded(self) -> Option<i64> {
        let doubled = self.numerator.checked_mul(2)?.checked_add(self.denominator)?;
        i64::try_from(doubled.div_euclid(self.denominator.checked_mul(2)?)).ok()
    }

    fn lowest(self) -> Option<Fraction> {
        let common = gcd(self.numerator, self.denominator);
        Some(Fraction { numerator: self.numerator / common, denominator: self.denominator / common })
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

    #[test]
    fn sums_are_exact() {
        let third = Ratio::new(1, 3).expect("a ratio");
        let sum = (0..3).try_fold(Fraction::ZERO, |sum, _| sum.plus(1, third)).expect("it fits");
        assert_eq!((sum.floor(), sum.rounded()), (Some(1), Some(1)));
        let most = sum.times(5, 2).expect("it fits");
        assert_eq!((most.floor(), most.rounded()), (Some(2), Some(3)));
        let less = Fraction::ZERO.plus(-7, Ratio::new(1, 2).expect("a ratio")).expect("it fits");
        assert_eq!((less.floor(), less.rounded()), (Some(-4), Some(-3)));
        assert_eq!(Fraction::ZERO.plus(i128::MAX, Ratio::new(2, 1).expect("a ratio")), None);
    }

    #[test]
    fn divisors_are_never_zero() {
        assert_eq!([gcd(12, 18), gcd(0, 5), gcd(0, 0), gcd(-4, 6)], [6, 5, 1, 2]);
    }
}
