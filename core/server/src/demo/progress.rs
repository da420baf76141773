//! How far the loading is, told every few seconds on standard error.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines.
const EVERY: Duration = Duration::from_secs(3);

/// Says a line on standard error; nobody listening is no failure.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// One kind of record on its way.
#[derive(Debug)]
pub(crate) struct Lane {
    what: &'static str,
    total: u64,
    done: AtomicU64,
    begun: Instant,
}

impl Lane {
    /// So many more were acknowledged.
    pub(crate) fn add(&self, count: u64) {
        self.done.fetch_add(count, Ordering::Relaxed);
    }

    /// How many were acknowledged.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    fn is_whole(&self) -> bool {
        self.done() >= self.total
    }

    fn words(&self) -> String {
        let done = self.done();
        let percent = (done.saturating_mul(100)).checked_div(self.total).unwrap_or(100).min(100);
        let ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = done.saturating_mul(1000) / ms;
        format!("{} {percent}% ({} of {}, {}/s)", self.what, grouped(done), grouped(self.total), grouped(rate))
    }
}

/// Every lane of a load, and the voice that tells of them while it lives.
pub(crate) struct Progress {
    lanes: Arc<Mutex<Vec<Arc<Lane>>>>,
    voice: tokio::task::JoinHandle<()>,
}

impl Progress {
    /// Starts to tell.
    pub(crate) fn start() -> Progress {
        let lanes: Arc<Mutex<Vec<Arc<Lane>>>> = Arc::default();
        let told = lanes.clone();
        let voice = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(EVERY);
            ticks.tick().await;
            loop {
                ticks.tick().await;
                let open: Vec<String> = {
                    let lanes = told.lock().unwrap_or_else(PoisonError::into_inner);
                    lanes.iter().filter(|lane| !lane.is_whole()).map(|lane| lane.words()).collect()
                };
                if !open.is_empty() {
                    say(&format!("  {}", open.join(" · ")));
                }
            }
        });
        Progress { lanes, voice }
    }

    /// A lane of so many records.
    pub(crate) fn lane(&self, what: &'static str, total: u64) -> Arc<Lane> {
        let lane = Arc::new(Lane { what, total, done: AtomicU64::new(0), begun: Instant::now() });
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).push(lane.clone());
        lane
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.voice.abort();
    }
}

/// A number with commas between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (660_947, "660,947"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
