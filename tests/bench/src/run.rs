//! How one invocation measures: at full size, or quickly.

use std::fs;
use std::time::Duration;

/// Full size for figures that count, quick for trying the bench itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    Full,
    Quick,
}

impl Size {
    /// The number for this size; every method says which it was.
    pub(crate) fn pick<T>(self, full: T, quick: T) -> T {
        match self {
            Self::Full => full,
            Self::Quick => quick,
        }
    }

    /// How long a row that measures a rate runs.
    pub(crate) fn time(self) -> Duration {
        Duration::from_secs(self.pick(30, 4))
    }
}

/// Processor time that a process has used so far, from /proc.
pub(crate) fn processor_time(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields: Vec<i64> =
        stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').filter_map(|field| field.parse().ok()).collect()).unwrap_or_default();
    // After the state letter, which is no number, user and system time are the 11th and 12th; a tick is 10 ms on Linux.
    let ticks: i64 = fields.iter().skip(10).take(2).sum();
    Duration::from_millis(10 * u64::try_from(ticks).unwrap_or(0))
}

/// Resident memory of a process in MiB, from /proc.
pub(crate) fn resident_mib(process: u32) -> f64 {
    memory_mib(process, "VmRSS:").expect("the process runs")
}

/// The most resident memory that a process had so far in MiB, from /proc; `None` when it has ended.
pub(crate) fn peak_mib(process: u32) -> Option<f64> {
    memory_mib(process, "VmHWM:")
}

fn memory_mib(process: u32, name: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kibibytes / 1024.0)
}
