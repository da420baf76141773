//! The clock, RFC 3339 at the edge, and the tenant's one time zone.

use crate::error::{Error, Problem};
use heyuan_contract::Timestamp;
use jiff::civil::Date;
use jiff::fmt::temporal::Pieces;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use utoipa::ToSchema;

/// This process's wall clock, in milliseconds since 1970.
pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Where a use case gets its time from: the system, or an instant that a test sets.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    set: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Clock {
        Clock { set: None }
    }

    /// A clock that stands until it is [`Clock::set`].
    pub fn standing(at: Timestamp) -> Clock {
        Clock { set: Some(Arc::new(AtomicI64::new(at.ms()))) }
    }

    /// Moves a standing clock; the system's stays as it is.
    pub fn set(&self, at: Timestamp) {
        if let Some(set) = &self.set {
            set.store(at.ms(), Ordering::SeqCst);
        }
    }

    /// How long it is until an instant; nothing where it has passed.
    pub fn until(&self, at: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(at.ms().saturating_sub(self.now().ms())).unwrap_or(0))
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        Timestamp::clamped(self.set.as_ref().map_or_else(now_ms, |set| set.load(Ordering::SeqCst)))
    }
}

/// An instant as RFC 3339 text in UTC with milliseconds, in requests and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ToSchema)]
#[schema(value_type = String, format = DateTime, examples("2026-11-01T08:30:00.000Z"))]
pub struct Rfc3339(pub Timestamp);

impl Serialize for Rfc3339 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_rfc3339(self.0))
    }
}

impl<'de> Deserialize<'de> for Rfc3339 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_rfc3339(&text)
            .map(Rfc3339)
            .ok_or_else(|| serde::de::Error::custom("expected an RFC 3339 time with an offset, such as 2026-11-01T08:30:00+08:00"))
    }
}

/// Reads RFC 3339 with any offset and any number of fraction digits; `None` for anything else, and outside the years 0001 to 9999.
/// What is written within these years and lies beyond [`Timestamp::MIN`] or [`Timestamp::MAX`] reads as that.
pub fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    if text.len() > 40 {
        return None;
    }
    let instant = text.parse::<jiff::Timestamp>().ok().and_then(|instant| Timestamp::from_ms(instant.as_millisecond()).ok());
    instant.or_else(|| at_an_end(text))
}

/// The nearest instant to a time of the first or the last hours, which an offset or the library's own end puts out of range.
fn at_an_end(text: &str) -> Option<Timestamp> {
    let written = Pieces::parse(text).ok()?;
    written.time().zip(written.to_numeric_offset())?;
    match written.date().year() {
        1 => Some(Timestamp::MIN),
        9999 => Some(Timestamp::MAX),
        _ => None,
    }
}

/// UTC, milliseconds, `Z`.
pub fn format_rfc3339(at: Timestamp) -> String {
    let instant = jiff::Timestamp::from_millisecond(at.ms()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{instant:.3}")
}

/// The tenant's time zone: days, windows, member days and reports are cut in it.
#[derive(Debug, Clone)]
pub struct Zone {
    zone: TimeZone,
    name: Arc<str>,
}

impl Zone {
    /// A zone by its IANA name, such as `Asia/Shanghai`.
    ///
    /// # Errors
    /// [`Error::Setting`] when there is none of that name.
    pub fn named(name: &str) -> Result<Zone, Error> {
        let zone = TimeZone::get(name).map_err(|_| Error::Setting {
            key: "time_zone".into(),
            why: format!("there is no time zone {name:?}; write an IANA name such as Asia/Shanghai"),
        })?;
        Ok(Zone { zone, name: name.into() })
    }

    /// The IANA name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The calendar day of an instant.
    pub fn day(&self, at: Timestamp) -> Date {
        self.civil(at).date()
    }

    /// The civil date and time of an instant.
    pub fn civil(&self, at: Timestamp) -> jiff::civil::DateTime {
        let instant = jiff::Timestamp::from_millisecond(at.ms()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        self.zone.to_datetime(instant)
    }

    /// What to add to UTC for the local time at an instant, in seconds.
    pub fn offset_seconds(&self, at: Timestamp) -> i32 {
        let instant = jiff::Timestamp::from_millisecond(at.ms()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        self.zone.to_offset(instant).seconds()
    }

    /// The first instant of a calendar day.
    pub fn day_start(&self, day: Date) -> Timestamp {
        let start = day.to_zoned(self.zone.clone()).map(|zoned| zoned.timestamp().as_millisecond());
        Timestamp::clamped(start.unwrap_or(0))
    }

    /// The start of the day that holds `at`, `days` days later (or earlier).
    pub fn day_start_after(&self, at: Timestamp, days: i32) -> Timestamp {
        let day = self.day(at).checked_add(jiff::Span::new().days(days)).unwrap_or(self.day(at));
        self.day_start(day)
    }
}

/// Reads a calendar day, `2026-11-01`.
///
/// # Errors
/// A problem that names the field.
pub fn parse_day(field: &str, text: &str) -> Result<Date, Problem> {
    text.parse().map_err(|_| Problem::invalid(field, "expected a calendar day such as 2026-11-01"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_sdks_send_and_refuses_the_rest() {
        for (text, ms) in [
            ("2026-11-01T00:00:00Z", Some(1_793_491_200_000)),
            ("2026-11-01T08:00:00.000+08:00", Some(1_793_491_200_000)),
            ("2026-11-01T08:00:00.123456789+08:00", Some(1_793_491_200_123)),
            ("2026-11-01 08:00:00+08:00", Some(1_793_491_200_000)),
            ("2026-11-01T08:00:00", None),
            ("yesterday", None),
            ("0000-01-01T00:00:00Z", None),
            ("0000-12-31T23:59:59.999Z", None),
            ("0001-01-01T00:00:00Z", Some(Timestamp::MIN.ms())),
            ("0001-01-01T00:00:00+08:00", Some(Timestamp::MIN.ms())),
            ("9999-12-30T21:59:59.999Z", Some(Timestamp::MAX.ms() - 1)),
            ("9999-12-31T23:59:59Z", Some(Timestamp::MAX.ms())),
            ("9999-12-31T23:59:59.999Z", Some(Timestamp::MAX.ms())),
            ("9999-12-31T23:59:59.999-12:00", Some(Timestamp::MAX.ms())),
            ("9999-12-31T23:59:59", None),
            ("9999-12-31", None),
            ("10000-01-01T00:00:00Z", None),
        ] {
            assert_eq!(parse_rfc3339(text).map(Timestamp::ms), ms, "{text}");
        }
    }

    #[test]
    fn days_are_the_tenants() -> Result<(), Error> {
        let zone = Zone::named("Asia/Shanghai")?;
        let at = Timestamp::clamped(1_793_491_200_000 + 16 * 3_600_000);
        assert_eq!(zone.day(at).to_string(), "2026-11-02");
        assert_eq!(zone.day_start_after(at, 0), at);
        assert!(Zone::named("Asia/Atlantis").is_err());
        Ok(())
    }
}
