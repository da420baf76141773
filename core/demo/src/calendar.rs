//! The days of the history: weekends, seasons, holidays and member days, and the hours at which people do what.

use crate::draw::Draw;
use crate::stamp::{DAY, HOUR, ZONE, civil};
use crate::{Config, Error};

/// What kind of day-to-day life a moment belongs to.
#[derive(Clone, Copy)]
pub(crate) enum Rhythm {
    Home,
    Mall,
    Hotel,
    Office,
    Even,
}

const RHYTHMS: [Rhythm; 5] = [Rhythm::Home, Rhythm::Mall, Rhythm::Hotel, Rhythm::Office, Rhythm::Even];

pub(crate) struct Calendar {
    /// Midnight in Shanghai of the first day.
    pub(crate) start: i64,
    /// Midnight in Shanghai after the last day.
    pub(crate) end: i64,
    pub(crate) days: u32,
    /// Per rhythm: the sum of the weights of all days before a day.
    weights: [Vec<u64>; 5],
}

impl Calendar {
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let refused = || Error::Config("the history must lie between the years 2000 and 2100".to_owned());
        let end_day = i64::from(config.end_date.since(jiff::civil::date(1970, 1, 1)).map_err(|_| refused())?.get_days());
        let start_day = end_day - i64::from(config.days);
        if civil(start_day).0 < 2000 || civil(end_day).0 > 2100 {
            return Err(refused());
        }
        let weights = RHYTHMS.map(|rhythm| {
            let mut sum = 0;
            let mut sums = vec![0];
            for day in start_day..end_day {
                sum += day_weight(rhythm, day);
                sums.push(sum);
            }
            sums
        });
        Ok(Self { start: start_day * DAY - ZONE, end: end_day * DAY - ZONE, days: config.days, weights })
    }

    /// A day in `from..to`, busy ones more often; `from` where the range is empty.
    pub(crate) fn day(&self, draw: &mut Draw, rhythm: Rhythm, from: u32, to: u32) -> u32 {
        let (from, to) = (from.min(self.days - 1), to.min(self.days));
        if to <= from {
            return from;
        }
        let sums = &self.weights[rhythm as usize];
        let target = sums[from as usize] + draw.below(sums[to as usize] - sums[from as usize]);
        sums.partition_point(|sum| *sum <= target) as u32 - 1
    }

    /// An instant of a day at an hour that fits the rhythm.
    pub(crate) fn moment(&self, draw: &mut Draw, rhythm: Rhythm, day: u32) -> i64 {
        let hour = draw.weighted(match rhythm {
            Rhythm::Home => &[3, 1, 0, 0, 0, 1, 3, 8, 12, 18, 22, 20, 26, 20, 18, 18, 18, 16, 16, 26, 38, 42, 30, 12],
            Rhythm::Mall => &[0, 0, 0, 0, 0, 0, 0, 1, 3, 6, 20, 34, 40, 28, 24, 26, 28, 34, 44, 46, 38, 22, 2, 0],
            Rhythm::Hotel => &[0, 0, 0, 0, 0, 0, 3, 12, 20, 24, 20, 22, 8, 8, 10, 10, 12, 10, 14, 16, 16, 10, 6, 0],
            Rhythm::Office => &[0, 0, 0, 0, 0, 0, 4, 22, 60, 40, 14, 6, 10, 12, 6, 4, 4, 6, 10, 4, 2, 1, 0, 0],
            Rhythm::Even => &[2, 1, 0, 0, 0, 1, 6, 16, 18, 14, 14, 14, 18, 12, 10, 10, 12, 18, 20, 22, 22, 18, 12, 4],
        });
        self.start + i64::from(day) * DAY + hour as i64 * HOUR + draw.below(HOUR as u64) as i64
    }

    /// The day that an instant falls on, held inside the history.
    pub(crate) fn day_of(&self, at: i64) -> u32 {
        ((at - self.start) / DAY).clamp(0, i64::from(self.days) - 1) as u32
    }

    /// The days on which a month of the history begins, with the first day of the history itself.
    pub(crate) fn months(&self) -> Vec<u32> {
        (0..self.days).filter(|day| *day == 0 || self.civil(*day).2 == 1).collect()
    }

    pub(crate) fn civil(&self, day: u32) -> (i64, i64, i64) {
        civil((self.start + ZONE) / DAY + i64::from(day))
    }

    pub(crate) fn date(&self, day: u32) -> String {
        let (year, month, day) = self.civil(day);
        format!("{year:04}-{month:02}-{day:02}")
    }

    /// How much a medium sells on a day, in per mille of an ordinary one.
    pub(crate) fn season(&self, rhythm: Rhythm, day: u32) -> u64 {
        day_weight(rhythm, (self.start + ZONE) / DAY + i64::from(day)) * 10
    }

    /// Mean counts are given for 180 days; this fits them to the length of the history.
    pub(crate) fn scaled(&self, mean_milli: u64) -> u64 {
        mean_milli * u64::from(self.days) / 180
    }
}

/// The weight of a day since 1970-01-01; 100 is an ordinary weekday.
fn day_weight(rhythm: Rhythm, days: i64) -> u64 {
    let (_, month, day) = civil(days);
    let weekday = (days + 3).rem_euclid(7);
    let (friday, weekend) = (weekday == 4, weekday >= 5);
    let golden_week = matches!((month, day), (10, 1..=7) | (5, 1..=5));
    let (base, factor) = match rhythm {
        Rhythm::Home => (
            if weekend { 170 } else { 100 },
            match month {
                9 | 10 => 125,
                3 | 4 => 115,
                2 => 60,
                _ => 100,
            } + if golden_week { 40 } else { 0 },
        ),
        Rhythm::Mall => (
            [100, 100, 105, 110, 140, 230, 210][weekday as usize],
            100 + if golden_week { 90 } else { 0 }
                // Member day: the eighth of each month.
                + if day == 8 { 110 } else { 0 }
                + if matches!((month, day), (6, 16..=18) | (11, 9..=11) | (12, 24..=31)) { 60 } else { 0 },
        ),
        Rhythm::Hotel => (
            if weekend || friday { 180 } else { 100 },
            100 + if matches!(month, 7 | 8) { 40 } else { 0 } + if golden_week { 110 } else { 0 },
        ),
        Rhythm::Office => (if weekend { 8 } else { 100 }, if golden_week { 6 } else { 100 }),
        Rhythm::Even => (100, 100),
    };
    (base * factor / 100).max(1)
}
