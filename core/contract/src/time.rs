//! An instant as milliseconds since 1970 in UTC, the one form of time that is stored.

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z, within the years 0001 to 9999.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

/// An instant outside the years 0001 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampError;

impl std::fmt::Display for TimestampError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an instant must lie within the years 0001 to 9999")
    }
}

impl std::error::Error for TimestampError {}

impl Timestamp {
    /// 0001-01-01T00:00:00Z
    pub const MIN: Timestamp = Timestamp(-62_135_596_800_000);
    /// 9999-12-30T22:00:00Z: what the time zone library can still print in every zone.
    pub const MAX: Timestamp = Timestamp(253_402_207_200_000);

    /// Builds an instant.
    ///
    /// # Errors
    /// [`TimestampError`] outside the years 0001 to 9999.
    pub fn from_ms(ms: i64) -> Result<Timestamp, TimestampError> {
        if !(Self::MIN.0..=Self::MAX.0).contains(&ms) { Err(TimestampError) } else { Ok(Timestamp(ms)) }
    }

    /// An instant, brought into the years 0001 to 9999.
    pub fn clamped(ms: i64) -> Timestamp {
        Timestamp(ms.clamp(Self::MIN.0, Self::MAX.0))
    }

    /// Milliseconds since 1970.
    pub const fn ms(self) -> i64 {
        self.0
    }

    /// This instant moved by `ms`, kept within the representable years.
    pub fn plus_ms(self, ms: i64) -> Timestamp {
        Timestamp::clamped(self.0.saturating_add(ms))
    }
}
