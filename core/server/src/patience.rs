//! What the failing of taggers may cost: the search for bad rows is bounded by the minute, counted, and told once in it.

use heyuan_kernel::telemetry;
use heyuan_plugin_host::{Digest, FailedRow};
use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long one batch is searched for its bad rows. A trap costs tens of microseconds, so this is for rows that burn all their fuel.
const BATCH: Duration = Duration::from_secs(2);
/// How long all failing batches of one version are searched in a minute: a tenth of it. Past that a failing batch fails together.
const MINUTE: Duration = Duration::from_secs(6);

/// The failing of every version in the last minute.
pub(crate) struct Patience {
    minutes: Mutex<HashMap<Digest, Minute>>,
    failed_rows: Counter<u64>,
}

struct Minute {
    began: Instant,
    spent: Duration,
    told: bool,
}

impl Minute {
    fn new(began: Instant) -> Minute {
        Minute { began, spent: Duration::ZERO, told: false }
    }
}

impl Patience {
    /// With nothing spent.
    pub(crate) fn new() -> Patience {
        let failed_rows = telemetry::meter()
            .u64_counter("heyuan_tagger_failed_rows")
            .with_description("Customers who kept their tags because a tagger failed on them")
            .build();
        Patience { minutes: Mutex::default(), failed_rows }
    }

    /// How long a batch that begins now may be searched.
    pub(crate) fn left(&self, digest: &Digest, now: Instant) -> Duration {
        let minutes = self.minutes.lock().unwrap_or_else(PoisonError::into_inner);
        let current = minutes.get(digest).filter(|minute| is_current(minute, now));
        BATCH.min(MINUTE.saturating_sub(current.map_or(Duration::ZERO, |minute| minute.spent)))
    }

    /// Takes account of a batch that kept bad rows; true when it is the first of its version in this minute.
    fn spend(&self, digest: &Digest, spent: Duration, now: Instant) -> bool {
        let mut minutes = self.minutes.lock().unwrap_or_else(PoisonError::into_inner);
        minutes.retain(|_, minute| is_current(minute, now));
        let minute = minutes.entry(*digest).or_insert_with(|| Minute::new(now));
        minute.spent += spent;
        !std::mem::replace(&mut minute.told, true)
    }

    /// Counts the rows on which a tagger failed, and tells of them without a word of the guest's: it may speak of people.
    pub(crate) fn record(&self, plugin: &str, digest: &Digest, failed: &[FailedRow], rows: usize, spent: Duration) {
        if failed.is_empty() {
            return;
        }
        let of = [KeyValue::new("plugin", plugin.to_owned()), KeyValue::new("digest", digest.to_string())];
        self.failed_rows.add(failed.len() as u64, &of);
        if self.spend(digest, spent, Instant::now()) {
            let mut classes: BTreeMap<&str, usize> = BTreeMap::new();
            failed.iter().for_each(|row| *classes.entry(row.error.class()).or_default() += 1);
            let (failed_rows, errors) = (failed.len(), format!("{classes:?}"));
            tracing::warn!(plugin, %digest, errors, failed_rows, rows, "a tagger failed on rows, which keep their tags; for a minute the metric tells of more");
        }
    }
}

fn is_current(minute: &Minute, now: Instant) -> bool {
    now.saturating_duration_since(minute.began) < Duration::from_secs(60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_of_failing_has_its_bound_and_its_one_line() {
        let (patience, digest, other) = (Patience::new(), Digest::of(b"a"), Digest::of(b"b"));
        let now = Instant::now();
        assert_eq!(patience.left(&digest, now), BATCH);
        assert!(patience.spend(&digest, Duration::from_secs(5), now), "the first is told");
        assert_eq!(patience.left(&digest, now), Duration::from_secs(1));
        assert!(!patience.spend(&digest, Duration::from_secs(5), now), "the second is not");
        assert_eq!(patience.left(&digest, now), Duration::ZERO);
        assert_eq!(patience.left(&other, now), BATCH, "versions do not pay for each other");
        let later = now + Duration::from_secs(60);
        assert_eq!(patience.left(&digest, later), BATCH);
        assert!(patience.spend(&digest, Duration::ZERO, later));
    }
}
