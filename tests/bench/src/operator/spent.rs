//! Whose processor time a stretch of a run went to: the operator's, or that of those who share its cores.

use std::fmt::Write;
use std::fs;
use std::time::Duration;

use crate::run::processor_time;

/// Processor time since the machine's start, or between two such moments.
#[derive(Clone, Debug)]
pub(super) struct Spent {
    /// By who.
    by: Vec<(&'static str, Duration)>,
    /// Of all processes of the machine.
    all: Duration,
}

impl Spent {
    /// What these processes have used so far, and the bench itself, which plays pods.
    pub(super) fn by_now(processes: &[(&'static str, u32)]) -> Self {
        let own = [("pods played and bench", std::process::id())];
        let by = processes.iter().chain(&own).map(|(name, id)| (*name, processor_time(*id))).collect();
        Self { by, all: of_machine() }
    }

    /// What was used since an earlier moment with the same processes.
    pub(super) fn since(&self, before: &Self) -> Self {
        let by = self.by.iter().zip(&before.by).map(|((name, now), (_, then))| (*name, now.saturating_sub(*then))).collect();
        Self { by, all: self.all.saturating_sub(before.all) }
    }

    /// What one of them has used.
    pub(super) fn of(&self, name: &str) -> Duration {
        self.by.iter().find(|(one, _)| *one == name).map_or(Duration::ZERO, |(_, time)| *time)
    }

    /// What everybody has used.
    pub(super) fn all(&self) -> Duration {
        self.all
    }

    /// In milliseconds of so many tenants each.
    pub(super) fn words(&self, tenants: usize) -> String {
        let each = |time: Duration| time.as_secs_f64() * 1e3 / tenants as f64;
        let mut words = String::new();
        for (name, time) in &self.by {
            let _ = write!(words, "{name} {:.1}, ", each(*time));
        }
        let named: Duration = self.by.iter().map(|(_, time)| *time).sum();
        let _ = write!(words, "kubectl and all others {:.1}", each(self.all.saturating_sub(named)));
        words
    }
}

/// Processor time of everybody, from /proc.
fn of_machine() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: Vec<u64> = stat.lines().next().unwrap_or_default().split_whitespace().filter_map(|field| field.parse().ok()).collect();
    // User, nice, system; then idle and waiting for the disk, which are nobody's; then interrupts. A tick is 10 ms on Linux.
    let busy: u64 = ticks.iter().enumerate().filter(|(place, _)| matches!(place, 0..=2 | 5 | 6)).map(|(_, ticks)| ticks).sum();
    Duration::from_millis(10 * busy)
}
