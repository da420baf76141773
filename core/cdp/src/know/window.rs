//! The steps in which windows move, in the tenant's zone.
//!
//! The window of a feature at an instant T ends with the step that holds T and spans a whole number of steps, so that an event counts
//! from its own step on, an event ahead of the clock when its step begins, and every event leaves at the start of a step.

use super::expression::{Step, Window};
use heyuan_contract::Timestamp;
use heyuan_kernel::Zone;
use jiff::civil::Date;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 3_600_000;

/// Numbers steps, so that a window is a range of numbers.
#[derive(Debug, Clone)]
pub struct Grid {
    zone: Zone,
    /// Where the zone's hours begin within an hour of UTC; zones off by half an hour exist.
    hour_phase_ms: i64,
}

impl Grid {
    /// The grid of a zone.
    pub fn new(zone: Zone) -> Grid {
        // The phase is the one of 2020, for ever: numbers of stored steps must not move with a change of law.
        let minutes = i64::from(zone.civil(Timestamp::clamped(1_577_836_800_000)).minute());
        Grid { zone, hour_phase_ms: (60 - minutes) % 60 * MINUTE_MS }
    }

    /// The number of the step that holds an instant.
    pub fn step_of(&self, step: Step, at_ms: i64) -> i64 {
        match step {
            Step::Minute => at_ms.div_euclid(MINUTE_MS),
            Step::Hour => (at_ms - self.hour_phase_ms).div_euclid(HOUR_MS),
            Step::Day => day_number(self.zone.day(Timestamp::clamped(at_ms))),
        }
    }

    /// The first instant of a step.
    pub fn start_of(&self, step: Step, number: i64) -> i64 {
        match step {
            Step::Minute => number.saturating_mul(MINUTE_MS),
            Step::Hour => number.saturating_mul(HOUR_MS).saturating_add(self.hour_phase_ms),
            Step::Day => day_of_number(number).map_or(i64::MAX, |day| self.zone.day_start(day).ms()),
        }
    }

    /// The steps that count at an instant: the last of them, and the one before the first.
    pub(crate) fn range(&self, window: Option<Window>, at_ms: i64) -> (i64, i64) {
        let step = window.map_or(Step::Minute, Window::step);
        let last = self.step_of(step, at_ms);
        (window.map_or(i64::MIN, |window| last - window.steps()), last)
    }
}

fn epoch() -> Date {
    Date::constant(1970, 1, 1)
}

fn day_number(day: Date) -> i64 {
    day.since(epoch()).map_or(0, |span| i64::from(span.get_days()))
}

fn day_of_number(number: i64) -> Option<Date> {
    let days = i32::try_from(number).ok()?;
    epoch().checked_add(jiff::Span::new().try_days(days).ok()?).ok()
}

/// Seconds since a moment as of an instant. The instant moves in steps of its own: a minute for the first 24 hours, an hour up to
/// 31 days, a day beyond; the answer never falls back where the steps get wider.
pub(crate) fn age_seconds(grid: &Grid, since_ms: i64, at_ms: i64) -> i64 {
    let raw = at_ms - since_ms;
    let (step, least) = age_step(raw);
    let floored = grid.start_of(step, grid.step_of(step, at_ms)) - since_ms;
    floored.max(least).max(0) / 1000
}

const DAY_MS: i64 = 24 * HOUR_MS;

fn age_step(raw_ms: i64) -> (Step, i64) {
    match raw_ms {
        ms if ms < DAY_MS => (Step::Minute, 0),
        ms if ms < 31 * DAY_MS => (Step::Hour, DAY_MS),
        _ => (Step::Day, 31 * DAY_MS),
    }
}

/// The next instant after `at_ms` at which [`age_seconds`] changes.
pub(crate) fn age_turns(grid: &Grid, since_ms: i64, at_ms: i64) -> i64 {
    let (step, _) = age_step(at_ms - since_ms);
    let next = grid.start_of(step, grid.step_of(step, at_ms) + 1);
    let widening = [since_ms + DAY_MS, since_ms + 31 * DAY_MS].into_iter().find(|edge| *edge > at_ms);
    widening.map_or(next, |edge| edge.min(next))
}

/// The first instant after `at_ms` at which [`age_seconds`] reaches `seconds`; `None` when it has already.
pub(crate) fn age_reaches(grid: &Grid, since_ms: i64, seconds: i64, at_ms: i64) -> Option<i64> {
    if age_seconds(grid, since_ms, at_ms) >= seconds {
        return None;
    }
    let raw = since_ms.saturating_add(seconds.saturating_mul(1000));
    let (step, least) = age_step(raw - since_ms);
    // At the very edge the least value of the wider steps is reached at once; else the next start of a step reaches it.
    if raw - since_ms == least {
        return Some(raw.max(at_ms + 1));
    }
    let number = grid.step_of(step, raw);
    let start = grid.start_of(step, number);
    let reached = if start == raw { raw } else { grid.start_of(step, number + 1) };
    // Steps may widen before that start.
    let widened =
        [DAY_MS, 31 * DAY_MS].into_iter().find(|edge| *edge >= raw - since_ms).map_or(reached, |edge| reached.min(since_ms + edge));
    Some(widened.max(at_ms + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(name: &str) -> Grid {
        Grid::new(Zone::named(name).expect("the zone exists"))
    }

    #[test]
    fn steps_begin_where_their_number_says_in_every_zone() {
        let at = 1_793_491_200_000 + 12_345_678;
        for name in ["Asia/Shanghai", "Asia/Kolkata", "America/New_York", "UTC"] {
            let grid = grid(name);
            for step in [Step::Minute, Step::Hour, Step::Day] {
                for offset in [0, 1_000_000_007, -9_999_999_999] {
                    let number = grid.step_of(step, at + offset);
                    let start = grid.start_of(step, number);
                    assert!(start <= at + offset && at + offset < grid.start_of(step, number + 1), "{name} {step:?}");
                    assert_eq!(grid.step_of(step, start), number, "{name} {step:?}");
                    assert_eq!(grid.step_of(step, start - 1), number - 1, "{name} {step:?}");
                }
            }
        }
    }

    #[test]
    fn ages_move_in_steps_that_never_fall_back_and_turn_when_foretold() {
        let grid = grid("Asia/Shanghai");
        let since = 1_793_491_234_567;
        let mut at = since;
        let mut age = age_seconds(&grid, since, at);
        for _ in 0..3000 {
            let next = age_turns(&grid, since, at);
            assert!(next > at);
            assert_eq!(age_seconds(&grid, since, next - 1), age, "nothing changes before the turn");
            let older = age_seconds(&grid, since, next);
            assert!(older >= age);
            (at, age) = (next, older);
        }
        for seconds in [1, 59, 60, 3600, 86_399, 86_400, 86_401, 100_000, 2_678_399, 2_678_400, 2_700_000] {
            let reached = age_reaches(&grid, since, seconds, since).expect("it is not reached yet");
            assert!(age_seconds(&grid, since, reached) >= seconds, "{seconds}");
            assert!(age_seconds(&grid, since, reached - 1) < seconds, "{seconds}");
        }
    }
}
