//! What plugins used of late in this process, by version: fuel of their calls, and how many failed.

use heyuan_plugin_host::Digest;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// Calls of a version that are remembered.
const CALLS: usize = 256;
/// Versions that are remembered: those of every name that a tenant may have, and their predecessors.
const VERSIONS: usize = 400;

/// The calls of every version since the process began.
#[derive(Default)]
pub(crate) struct Usage(Mutex<HashMap<String, Calls>>);

/// The calls of one version.
#[derive(Default)]
struct Calls {
    fuel: VecDeque<u64>,
    errors: u64,
}

/// What a version used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// 99 of 100 of the last calls used no more fuel.
    pub(crate) fuel_p99: u64,
    /// Calls, or rows of a batch, that failed since the process began.
    pub(crate) errors: u64,
}

impl Usage {
    /// Notes an answer; a batch with rows that failed counts each of them.
    pub(crate) fn answered(&self, digest: &Digest, fuel: u64, failed_rows: usize) {
        self.note(digest, |calls| {
            if calls.fuel.len() == CALLS {
                calls.fuel.pop_front();
            }
            calls.fuel.push_back(fuel);
            calls.errors += u64::try_from(failed_rows).unwrap_or(u64::MAX);
        });
    }

    /// Notes a call without an answer.
    pub(crate) fn failed(&self, digest: &Digest) {
        self.note(digest, |calls| calls.errors += 1);
    }

    fn note(&self, digest: &Digest, how: impl FnOnce(&mut Calls)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = digest.to_string();
        if all.len() < VERSIONS || all.contains_key(&digest) {
            how(all.entry(digest).or_default());
        }
    }

    /// What a version used; nothing where it was never called.
    pub(crate) fn of(&self, digest: &str) -> Used {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(calls) = all.get(digest) else { return Used::default() };
        let mut fuel: Vec<u64> = calls.fuel.iter().copied().collect();
        fuel.sort_unstable();
        let place = (fuel.len() * 99).div_ceil(100).saturating_sub(1);
        Used { fuel_p99: fuel.get(place).copied().unwrap_or(0), errors: calls.errors }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_is_one_that_99_of_100_calls_keep_to() {
        let (usage, digest) = (Usage::default(), Digest::of(b"any"));
        assert_eq!(usage.of(&digest.to_string()), Used::default());
        (1..=100).for_each(|fuel| usage.answered(&digest, fuel, 0));
        usage.answered(&digest, 5_000, 2);
        usage.failed(&digest);
        assert_eq!(usage.of(&digest.to_string()), Used { fuel_p99: 100, errors: 3 });
    }
}
