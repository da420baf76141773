//! Identifiers and instants of one tour: new each time, so that a tour can be taken again.

use anyhow::Context;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

/// The demo tenant's zone: member days are cut in it.
const ZONE: &str = "Asia/Shanghai";
/// The days on which member-day gives more.
const MEMBER_DAYS: [i8; 3] = [8, 18, 28];

/// What one tour calls its people and papers.
pub(crate) struct Fresh {
    /// Short and random: a part of every id.
    pub(crate) mark: String,
    /// A phone number nobody of the demo group has: its people have none that begins with 199.
    pub(crate) phone: String,
    pub(crate) device: String,
    pub(crate) plan: String,
    pub(crate) creative: String,
    pub(crate) click_id: String,
    begun: Timestamp,
    zone: TimeZone,
}

impl Fresh {
    pub(crate) fn new() -> anyhow::Result<Fresh> {
        let digits = |count: usize| (0..count).map(|_| char::from(b'0' + rand::random::<u8>() % 10)).collect::<String>();
        let mark = format!("{:010x}", rand::random::<u64>() >> 24);
        Ok(Fresh {
            phone: format!("199{}", digits(8)),
            device: format!("tour-device-{mark}"),
            plan: format!("9{}", digits(15)),
            creative: format!("8{}", digits(15)),
            click_id: format!("E.{:032x}", rand::random::<u128>()),
            begun: Timestamp::now(),
            zone: TimeZone::get(ZONE).with_context(|| format!("this machine does not know the time zone {ZONE}"))?,
            mark,
        })
    }

    /// An instant so many seconds before the tour began, RFC 3339 with milliseconds.
    pub(crate) fn ago(&self, seconds: i64) -> String {
        let at = self.begun.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(self.begun);
        format!("{at:.3}")
    }

    /// Today, where the group lives.
    pub(crate) fn today(&self) -> Date {
        self.begun.to_zoned(self.zone.clone()).date()
    }

    pub(crate) fn yesterday(&self) -> Date {
        self.today().saturating_sub(1.day())
    }

    /// Noon of the last member day that is over or has come to noon.
    pub(crate) fn member_day_noon(&self) -> String {
        let now = self.begun.to_zoned(self.zone.clone());
        let mut day = if now.hour() < 12 { self.yesterday() } else { self.today() };
        while !MEMBER_DAYS.contains(&day.day()) {
            day = day.saturating_sub(1.day());
        }
        format!("{day}T12:00:00+08:00")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn member_days_have_come_already() -> anyhow::Result<()> {
        for (begun, noon) in [
            ("2026-11-22T04:00:00Z", "2026-11-18T12:00:00+08:00"),
            ("2026-11-18T03:59:00Z", "2026-11-08T12:00:00+08:00"),
            ("2026-11-18T04:00:00Z", "2026-11-18T12:00:00+08:00"),
            ("2026-11-07T04:00:00Z", "2026-10-28T12:00:00+08:00"),
        ] {
            let fresh = Fresh { begun: begun.parse()?, ..Fresh::new()? };
            assert_eq!(fresh.member_day_noon(), noon, "{begun}");
        }
        Ok(())
    }
}
