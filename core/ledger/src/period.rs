//! An accounting period: a calendar month in the tenant's zone.

use crate::error::Error;
use heyuan_contract::Timestamp;
use heyuan_kernel::Zone;
use std::fmt;

/// The last year of which anybody may name a month: the calendar ends with the one after it.
const YEAR_MAX: i64 = 9998;

/// A month, as the number `YYYYMM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(i64);

impl Period {
    /// The month that holds an instant.
    pub fn of(zone: &Zone, at: Timestamp) -> Period {
        let day = zone.day(at);
        Period(i64::from(day.year()) * 100 + i64::from(day.month()))
    }

    /// Reads `2026-11`, up to the year 9998, so that the month after it has a day, too; `None` for anything else.
    pub fn parse(text: &str) -> Option<Period> {
        let (year, month) = text.split_once('-')?;
        let digits = |part: &str, length: usize| part.len() == length && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(year, 4) || !digits(month, 2) {
            return None;
        }
        let year = year.parse::<i64>().ok().filter(|year| *year <= YEAR_MAX)?;
        Period::from_number(year * 100 + month.parse::<i64>().ok()?)
    }

    /// Reads the number `YYYYMM`; `None` for anything else.
    pub fn from_number(number: i64) -> Option<Period> {
        let fits = (1..=9999).contains(&(number / 100)) && (1..=12).contains(&(number % 100));
        fits.then_some(Period(number))
    }

    /// A column that has the number.
    pub(crate) fn stored(number: i64) -> Result<Period, Error> {
        let corrupt = || heyuan_kernel::Error::Corrupt { what: "accounting period", why: number.to_string() };
        Ok(Period::from_number(number).ok_or_else(corrupt)?)
    }

    /// The instant with which the month begins.
    pub fn start(self, zone: &Zone) -> Timestamp {
        let part = |number: i64| i16::try_from(number).unwrap_or(i16::MAX);
        let month = i8::try_from(self.0 % 100).unwrap_or(1);
        zone.day_start(jiff::civil::date(part(self.0 / 100), month, 1))
    }

    /// The number `YYYYMM`.
    pub const fn number(self) -> i64 {
        self.0
    }

    /// The month after this one.
    #[must_use]
    pub const fn next(self) -> Period {
        if self.0 % 100 == 12 { Period(self.0 + 89) } else { Period(self.0 + 1) }
    }

    /// The month before this one.
    #[must_use]
    pub const fn previous(self) -> Period {
        if self.0 % 100 == 1 { Period(self.0 - 89) } else { Period(self.0 - 1) }
    }

    /// The month some months before this one.
    #[must_use]
    pub fn months_back(self, count: i64) -> Period {
        (0..count).fold(self, |month, _| month.previous())
    }

    /// Months from this one to another; below zero backwards.
    pub const fn months_until(self, other: Period) -> i64 {
        (other.0 / 100 - self.0 / 100) * 12 + other.0 % 100 - self.0 % 100
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.0 / 100, self.0 % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_read_and_counted() {
        for (text, expected) in [
            ("2026-11", Some(202_611)),
            ("2026-13", None),
            ("2026-00", None),
            ("26-11", None),
            ("2026-1", None),
            ("+026-11", None),
            ("0000-01", None),
            ("9998-12", Some(999_812)),
            ("9999-01", None),
            ("9999-12", None),
        ] {
            assert_eq!(Period::parse(text).map(Period::number), expected, "{text}");
        }
        let december = Period(202_612);
        assert_eq!(december.next(), Period(202_701));
        assert_eq!(december.next().previous(), december);
        assert_eq!(december.to_string(), "2026-12");
        for (count, earlier) in [(0, 202_612), (11, 202_601), (12, 202_512), (24, 202_412)] {
            assert_eq!(december.months_back(count), Period(earlier));
            assert_eq!(Period(earlier).months_until(december), count);
            assert_eq!(december.months_until(Period(earlier)), -count);
        }
    }
}
