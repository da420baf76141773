//! How pods have answered lately: what they count since their start, less what they had counted when the gate's time began.
//!
//! It lives in memory alone: a process that has just begun goes by all that a pod has counted, which is the same for a pod that is young.

use crate::world::Answers;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Counts that are kept of a pod, evenly over the time.
const SAMPLES: u32 = 16;

/// Counts by the pod's uid, the oldest first.
#[derive(Default)]
pub(crate) struct Lately(Mutex<HashMap<String, VecDeque<(Instant, Answers)>>>);

impl Lately {
    /// What a pod that has counted so much by now has answered within the time.
    pub(crate) fn within(&self, pod: &str, counted: Answers, time: Duration, now: Instant) -> Answers {
        let mut pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Rollouts that have ended are not asked about any more.
        pods.retain(|one, samples| one == pod || samples.back().is_some_and(|(at, _)| now.saturating_duration_since(*at) <= time * 2));
        let samples = pods.entry(pod.to_owned()).or_default();
        if samples.back().is_some_and(|(_, last)| last.all > counted.all) {
            // Its container was started again.
            samples.clear();
        }
        let is_before = |sample: &(Instant, Answers)| now.saturating_duration_since(sample.0) >= time;
        while samples.get(1).is_some_and(is_before) {
            samples.pop_front();
        }
        let began = samples.front().filter(|sample| is_before(sample)).map(|(_, answers)| *answers).unwrap_or_default();
        if samples.back().is_none_or(|(at, _)| now.saturating_duration_since(*at) >= time / SAMPLES) {
            samples.push_back((now, counted));
        }
        Answers { all: counted.all.saturating_sub(began.all), errors: counted.errors.saturating_sub(began.errors) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_before_the_time_does_not_count() {
        let (lately, start) = (Lately::default(), Instant::now());
        for (at, counted, within) in [
            (0, (10, 10), (10, 10)),
            (10, (100, 10), (100, 10)),
            (29, (290, 10), (290, 10)),
            (30, (300, 10), (290, 0)),
            (45, (450, 20), (350, 10)),
            (200, (2_000, 30), (1_550, 10)),
            // Started again: all that it counts is new.
            (210, (5, 5), (5, 5)),
            (211, (6, 5), (6, 5)),
        ] {
            let (all, errors) = counted;
            let found = lately.within("a", Answers { all, errors }, Duration::from_secs(30), start + Duration::from_secs(at));
            assert_eq!((found.all, found.errors), within, "after {at} s");
        }
    }

    #[test]
    fn so_many_counts_are_kept_and_only_of_pods_that_are_asked_about() {
        let (lately, start) = (Lately::default(), Instant::now());
        for second in 0..1_000 {
            lately.within("a", Answers { all: second, errors: 0 }, Duration::from_secs(60), start + Duration::from_secs(second));
        }
        let kept = |pod: &str| lately.0.lock().unwrap_or_else(PoisonError::into_inner).get(pod).map(VecDeque::len);
        assert!(kept("a") <= Some(SAMPLES as usize + 2), "{:?}", kept("a"));
        lately.within("b", Answers::default(), Duration::from_secs(60), start + Duration::from_secs(2_000));
        assert_eq!(kept("a"), None);
    }
}
