//! Where a row belongs: its calendar day in the tenant's zone, its month, and its anchor's bucket.

use heyuan_contract::Timestamp;
use heyuan_kernel::Zone;
use jiff::civil::{Date, date};

/// Buckets of anchors. A per-customer read opens the files of one bucket in each month; eight keep a small group's files few.
/// Files record their bucket, so another number means rewriting them.
pub(crate) const BUCKETS: i32 = 8;

/// The bucket of an anchor: FNV-1a (64 bits), finished as MurmurHash3 does, since FNV alone spreads counted ids badly. It is the
/// same in every release.
pub(crate) fn bucket_of(anchor: &str) -> i32 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in anchor.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^= hash >> 33;
    i32::try_from(hash % u64::from(BUCKETS.unsigned_abs())).unwrap_or(0)
}

/// The month and bucket of a part number.
pub(crate) fn of_part(part: i32) -> (i32, i32) {
    (part.div_euclid(BUCKETS), part.rem_euclid(BUCKETS))
}

/// A row's place in the order of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Month and bucket in one number: where files are cut.
    pub(crate) part: i32,
    /// Days since 1970-01-01 in the tenant's zone.
    pub(crate) day: i32,
}

/// Finds places; remembers the last day, since neighbours mostly share it.
pub(crate) struct Places<'a> {
    zone: &'a Zone,
    from_ms: i64,
    until_ms: i64,
    day: i32,
    month: i32,
}

impl<'a> Places<'a> {
    pub(crate) fn new(zone: &'a Zone) -> Places<'a> {
        Places { zone, from_ms: 0, until_ms: 0, day: 0, month: 0 }
    }

    /// The place of an event of this anchor at this own time.
    pub(crate) fn of(&mut self, anchor: &str, occurred_ms: i64) -> Place {
        if occurred_ms < self.from_ms || occurred_ms >= self.until_ms {
            self.look_up(occurred_ms);
        }
        Place { part: self.month * BUCKETS + bucket_of(anchor), day: self.day }
    }

    fn look_up(&mut self, occurred_ms: i64) {
        let at = Timestamp::clamped(occurred_ms);
        let day = self.zone.day(at);
        self.day = days_since_1970(day);
        self.month = i32::from(day.year()) * 12 + i32::from(day.month()) - 1;
        self.from_ms = self.zone.day_start(day).ms();
        self.until_ms = self.zone.day_start_after(at, 1).ms();
    }
}

fn days_since_1970(day: Date) -> i32 {
    date(1970, 1, 1).until(day).map_or(0, |span| span.get_days())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_months_are_the_tenants() -> Result<(), heyuan_kernel::Error> {
        let zone = Zone::named("Asia/Shanghai")?;
        let mut places = Places::new(&zone);
        // 2026-10-31T16:00:00Z is midnight of 1 November in Shanghai.
        let midnight = 1_793_462_400_000;
        let before = places.of("a", midnight - 1);
        let after = places.of("a", midnight);
        assert_eq!(after.day, before.day + 1);
        assert_eq!(of_part(after.part), (2026 * 12 + 10, bucket_of("a")));
        assert_eq!(of_part(before.part), (2026 * 12 + 9, bucket_of("a")));
        assert_eq!(places.of("a", -62_135_596_800_000).day, -719_162);
        Ok(())
    }

    #[test]
    fn buckets_are_even_and_lasting() {
        let mut counts = [0; BUCKETS as usize];
        for index in 0..8_000 {
            counts[usize::try_from(bucket_of(&format!("idn_{index:08}"))).unwrap_or(0)] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
        // A file's bucket is written down: a changed hash would hide history.
        assert_eq!([bucket_of(""), bucket_of("idn_1"), bucket_of("客户")], [6, 1, 1]);
    }
}
