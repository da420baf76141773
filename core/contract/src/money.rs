//! Money as integer fen, points as integers, rates as exact ratios: no float comes near them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// An amount in fen (one hundredth of a yuan); negative amounts are money going back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fen(pub i64);

/// A number of points, or of growth units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Points(pub i64);

/// Why an amount could not be read or computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MoneyError {
    /// The text is not a decimal number with at most two places.
    NotDecimal,
    /// More digits after the point than a fen can hold.
    TooFine,
    /// Outside what 64 bits of fen can hold.
    Overflow,
    /// The divisor of a ratio is zero or a part is negative.
    BadRatio,
}

impl fmt::Display for MoneyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MoneyError::NotDecimal => "an amount is a decimal number such as 12.50",
            MoneyError::TooFine => "an amount has at most two places after the point",
            MoneyError::Overflow => "an amount must fit 64 bits of fen",
            MoneyError::BadRatio => "a ratio has a non-negative numerator and a positive denominator",
        })
    }
}

impl std::error::Error for MoneyError {}

impl Fen {
    /// Reads decimal yuan ("12.5", "-3", "0.07") exactly.
    ///
    /// # Errors
    /// [`MoneyError`] when the text is no plain decimal, is finer than a fen, or overflows. Trailing zeros beyond two places are allowed.
    pub fn from_yuan(text: &str) -> Result<Fen, MoneyError> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let plain = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !plain(whole) || !plain(fraction) || digits.ends_with('.') {
            return Err(MoneyError::NotDecimal);
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > 2 {
            return Err(MoneyError::TooFine);
        }
        let whole: i64 = whole.parse().map_err(|_| MoneyError::Overflow)?;
        let cents: i64 = format!("{fraction:0<2}").parse().map_err(|_| MoneyError::NotDecimal)?;
        let fen = whole.checked_mul(100).and_then(|f| f.checked_add(cents)).ok_or(MoneyError::Overflow)?;
        Ok(Fen(if negative { -fen } else { fen }))
    }

    /// The amount as decimal yuan with two places.
    pub fn to_yuan(self) -> String {
        let sign = if self.0 < 0 { "-" } else { "" };
        let fen = self.0.unsigned_abs();
        format!("{sign}{}.{:02}", fen / 100, fen % 100)
    }
}

/// An amount with its ISO 4217 currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    /// Integer fen (hundredths).
    pub amount: Fen,
    /// `CNY` is the only currency settled today.
    pub currency: String,
}

/// An exact non-negative ratio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawRatio", into = "RawRatio")]
pub struct Ratio {
    numerator: i64,
    denominator: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRatio {
    numerator: i64,
    denominator: i64,
}

impl TryFrom<RawRatio> for Ratio {
    type Error = MoneyError;
    fn try_from(raw: RawRatio) -> Result<Self, MoneyError> {
        Ratio::new(raw.numerator, raw.denominator)
    }
}

impl From<Ratio> for RawRatio {
    fn from(ratio: Ratio) -> Self {
        RawRatio { numerator: ratio.numerator, denominator: ratio.denominator }
    }
}

impl Ratio {
    /// Builds `numerator / denominator`.
    ///
    /// # Errors
    /// [`MoneyError::BadRatio`] when the numerator is negative or the denominator is not positive.
    pub fn new(numerator: i64, denominator: i64) -> Result<Ratio, MoneyError> {
        if numerator < 0 || denominator <= 0 {
            return Err(MoneyError::BadRatio);
        }
        Ok(Ratio { numerator, denominator })
    }

    /// The part above the line.
    pub fn numerator(self) -> i64 {
        self.numerator
    }

    /// The part below the line; never zero.
    pub fn denominator(self) -> i64 {
        self.denominator
    }

    /// `value × ratio`, rounded towards negative infinity.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`] when the result does not fit 64 bits.
    pub fn floor_of(self, value: i64) -> Result<i64, MoneyError> {
        let product = i128::from(value) * i128::from(self.numerator);
        i64::try_from(product.div_euclid(i128::from(self.denominator))).map_err(|_| MoneyError::Overflow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yuan_are_read_exactly_or_refused() {
        let cases: [(&str, Result<i64, MoneyError>); 12] = [
            ("12.5", Ok(1250)),
            ("0.07", Ok(7)),
            ("-3", Ok(-300)),
            ("1.2300", Ok(123)),
            ("92233720368547758.07", Ok(i64::MAX)),
            ("92233720368547758.08", Err(MoneyError::Overflow)),
            ("1.234", Err(MoneyError::TooFine)),
            ("1.", Err(MoneyError::NotDecimal)),
            (".5", Err(MoneyError::NotDecimal)),
            ("1e3", Err(MoneyError::NotDecimal)),
            ("", Err(MoneyError::NotDecimal)),
            ("NaN", Err(MoneyError::NotDecimal)),
        ];
        for (text, expected) in cases {
            assert_eq!(Fen::from_yuan(text).map(|f| f.0), expected, "{text}");
        }
        assert_eq!(Fen(-7).to_yuan(), "-0.07");
    }

    #[test]
    fn ratios_round_down_without_overflow() -> Result<(), MoneyError> {
        assert_eq!(Ratio::new(1, 1000)?.floor_of(129_999)?, 129);
        assert_eq!(Ratio::new(1, 3)?.floor_of(-1)?, -1);
        assert_eq!(Ratio::new(i64::MAX, 1)?.floor_of(2), Err(MoneyError::Overflow));
        assert_eq!(Ratio::new(1, 0), Err(MoneyError::BadRatio));
        Ok(())
    }
}
