//! What of a member's growth a version of the policy looks at.

use super::policy::{DAY_MS, TierMeasure, TierPolicy, year_start};
use heyuan_kernel::Zone;
use std::collections::BTreeMap;

/// The growth of a member by own time, in running sums. What was earned and taken back at one instant is one entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct History {
    instants: Vec<i64>,
    /// Everything up to and with the instant of the same place.
    sums: Vec<i64>,
}

/// From when on growth counts at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Since {
    /// Growth after it counts now.
    pub(super) counted: i64,
    /// Growth after it and no later than `counted` is the year's before.
    pub(super) before: i64,
}

/// What a policy looks at, at one instant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Growth of the window, of the year so far or of all times.
    pub(super) counted: i64,
    /// Growth of the year before; nothing with other measures.
    pub(super) before: i64,
    /// Growth of all times.
    pub(super) total: i64,
    /// The own time of the oldest growth of `counted`.
    pub(super) oldest: Option<i64>,
    /// The next own time of growth that does not count yet.
    pub(super) next: Option<i64>,
}

impl TierPolicy {
    pub(super) fn since(&self, zone: &Zone, at_ms: i64) -> Since {
        match self.measure {
            TierMeasure::Rolling => {
                let counted = at_ms.saturating_sub(self.window_days.saturating_mul(DAY_MS));
                Since { counted, before: counted }
            }
            TierMeasure::CalendarYear => {
                // The first instant of a year belongs to it.
                Since { counted: year_start(zone, at_ms, 0) - 1, before: year_start(zone, at_ms, -1) - 1 }
            }
            TierMeasure::Lifetime => Since { counted: i64::MIN, before: i64::MIN },
        }
    }

    /// The rank that the growth reaches by itself.
    pub(super) fn balance(&self, sums: &Sums) -> usize {
        self.reached(sums.counted).max(self.reached(sums.before)).max(self.kept_for_good(sums.total))
    }

    /// When time alone takes growth away next, for a rank that the growth reaches; never where it stays for good.
    pub(super) fn next_loss(&self, zone: &Zone, sums: &Sums, rank: usize, at_ms: i64) -> i64 {
        if rank <= self.kept_for_good(sums.total) {
            return i64::MAX;
        }
        match self.measure {
            TierMeasure::Rolling => sums.oldest.map_or(i64::MAX, |oldest| oldest.saturating_add(self.window_days.saturating_mul(DAY_MS))),
            TierMeasure::CalendarYear => year_start(zone, at_ms, 1),
            TierMeasure::Lifetime => i64::MAX,
        }
    }
}

impl Sums {
    /// The same with one entry more or, with a minus, without it; the oldest stays where it was, then.
    pub(super) fn plus(mut self, since: Since, at_ms: i64, (instant, amount): (i64, i64)) -> Sums {
        let first_of = |known: Option<i64>| if amount > 0 { Some(known.map_or(instant, |known| known.min(instant))) } else { known };
        if instant > at_ms {
            self.next = first_of(self.next);
            return self;
        }
        self.total += amount;
        if instant > since.counted {
            self.counted += amount;
            self.oldest = first_of(self.oldest);
        } else if instant > since.before {
            self.before += amount;
        }
        self
    }
}

impl History {
    /// From entries of own time and growth, in any order.
    pub(crate) fn new(entries: impl IntoIterator<Item = (i64, i64)>) -> History {
        let mut by_time: BTreeMap<i64, i64> = BTreeMap::new();
        for (instant, amount) in entries {
            *by_time.entry(instant).or_default() += amount;
        }
        let mut history = History::default();
        let mut sum = 0;
        for (instant, amount) in by_time.into_iter().filter(|(_, amount)| *amount != 0) {
            sum += amount;
            history.instants.push(instant);
            history.sums.push(sum);
        }
        history
    }

    /// The same with one entry more or, with a minus, without it.
    pub(super) fn plus(&self, entry: (i64, i64)) -> History {
        let mut before = 0;
        let own = self.instants.iter().zip(&self.sums).map(|(instant, sum)| {
            let amount = sum - before;
            before = *sum;
            (*instant, amount)
        });
        let entries: Vec<(i64, i64)> = own.chain([entry]).collect();
        History::new(entries)
    }

    /// The own time of the first growth.
    pub(super) fn first(&self) -> Option<i64> {
        self.instants.first().copied()
    }

    /// The first own time after an instant.
    pub(super) fn next_after(&self, at_ms: i64) -> Option<i64> {
        self.instants.get(self.place_after(at_ms)).copied()
    }

    /// What a policy looks at, at an instant.
    pub(super) fn sums(&self, policy: &TierPolicy, zone: &Zone, at_ms: i64) -> Sums {
        let since = policy.since(zone, at_ms);
        let (counted, total) = (self.until(since.counted), self.until(at_ms));
        Sums {
            counted: total - counted,
            before: counted - self.until(since.before),
            total,
            oldest: self.next_after(since.counted).filter(|oldest| *oldest <= at_ms),
            next: self.next_after(at_ms),
        }
    }

    /// Everything up to and with an instant.
    fn until(&self, at_ms: i64) -> i64 {
        self.place_after(at_ms).checked_sub(1).and_then(|place| self.sums.get(place)).copied().unwrap_or(0)
    }

    fn place_after(&self, at_ms: i64) -> usize {
        self.instants.partition_point(|instant| *instant <= at_ms)
    }
}
