//! Instants in milliseconds and the two RFC 3339 spellings that the apps of the group use.

pub(crate) const SECOND: i64 = 1000;
pub(crate) const MINUTE: i64 = 60 * SECOND;
pub(crate) const HOUR: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * HOUR;
/// Shanghai has kept one offset since 1991.
pub(crate) const ZONE: i64 = 8 * HOUR;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spelling {
    Utc,
    Shanghai,
}

/// An instant and how its sender writes it, always with milliseconds.
#[derive(Clone, Copy)]
pub(crate) struct Stamp {
    pub(crate) at: i64,
    pub(crate) spelling: Spelling,
}

impl Stamp {
    pub(crate) fn utc(at: i64) -> Self {
        Self { at, spelling: Spelling::Utc }
    }

    pub(crate) fn shanghai(at: i64) -> Self {
        Self { at, spelling: Spelling::Shanghai }
    }

    fn write(self, buffer: &mut [u8; 29]) -> &[u8] {
        let (local, suffix): (i64, &[u8]) = match self.spelling {
            Spelling::Utc => (self.at, b"Z"),
            Spelling::Shanghai => (self.at + ZONE, b"+08:00"),
        };
        let (year, month, day) = civil(local.div_euclid(DAY));
        let rest = local.rem_euclid(DAY);
        buffer[..23].copy_from_slice(b"0000-00-00T00:00:00.000");
        put(&mut buffer[0..4], year);
        put(&mut buffer[5..7], month);
        put(&mut buffer[8..10], day);
        put(&mut buffer[11..13], rest / HOUR);
        put(&mut buffer[14..16], rest / MINUTE % 60);
        put(&mut buffer[17..19], rest / SECOND % 60);
        put(&mut buffer[20..23], rest % SECOND);
        let length = 23 + suffix.len();
        buffer[23..length].copy_from_slice(suffix);
        &buffer[..length]
    }
}

fn put(place: &mut [u8], mut value: i64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

impl serde::Serialize for Stamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut buffer = [0_u8; 29];
        serializer.serialize_str(std::str::from_utf8(self.write(&mut buffer)).map_err(serde::ser::Error::custom)?)
    }
}

/// Year, month and day of a count of days since 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date algorithms").
pub(crate) fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_name_the_same_instant() {
        let leap = 1_709_164_799_007;
        assert_eq!(serde_json::to_string(&Stamp::utc(leap)).unwrap(), "\"2024-02-28T23:59:59.007Z\"");
        assert_eq!(serde_json::to_string(&Stamp::shanghai(leap)).unwrap(), "\"2024-02-29T07:59:59.007+08:00\"");
    }
}
