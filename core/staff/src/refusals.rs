//! Refused log-ins and log-outs in the audit record, which stays for ever: strangers may not fill it.

use futures::FutureExt;
use heyuan_contract::StaffId;
use heyuan_kernel::{Actor, Clock, Database, Error, audit};
use std::sync::{Mutex, PoisonError};

/// Refusals that one process audits in a minute; how many more there were stands in the next one.
const A_MINUTE_MAX: u64 = 60;
const MINUTE_MS: i64 = 60_000;

#[derive(Default)]
struct Window {
    since: i64,
    audited: u64,
    left_out: u64,
}

impl Window {
    /// How many were left out before this one, when this one is audited.
    fn take(&mut self, now: i64) -> Option<u64> {
        if !(0..MINUTE_MS).contains(&(now - self.since)) {
            (self.since, self.audited) = (now, 0);
        }
        if self.audited == A_MINUTE_MAX {
            self.left_out += 1;
            return None;
        }
        self.audited += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// Writes refusals at one door down, within bounds.
pub(crate) struct Refusals {
    action: &'static str,
    db: Database,
    clock: Clock,
    window: Mutex<Window>,
}

impl Refusals {
    /// `action` is what the audit record calls it.
    pub(crate) fn new(action: &'static str, db: Database, clock: Clock) -> Refusals {
        Refusals { action, db, clock, window: Mutex::default() }
    }

    /// Audits a refusal, of somebody who is known or of nobody.
    pub(crate) async fn record(&self, who: Option<&StaffId>, reason: &'static str) -> Result<(), Error> {
        tracing::warn!(action = self.action, reason, "a log-in or log-out of staff was refused");
        let taken = self.window.lock().unwrap_or_else(PoisonError::into_inner).take(self.clock.now().ms());
        let Some(left_out) = taken else { return Ok(()) };
        let object = who.map_or("unknown", StaffId::as_str);
        let mut entry = audit::Entry::new(&Actor::system("staff"), self.action, object).detail("reason", reason);
        if left_out > 0 {
            entry = entry.detail("not_audited_before", left_out);
        }
        self.db
            .write("audit a refusal", move |tx| {
                let entry = entry.clone();
                async move { audit::record(tx, &entry).await }.boxed()
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_not_kept() {
        let mut window = Window::default();
        let kept = (0..100).filter(|_| window.take(1_000_000).is_some()).count();
        assert_eq!(kept, 60);
        assert_eq!(window.take(1_000_000 + MINUTE_MS), Some(40));
        assert_eq!(window.take(1_000_000 + MINUTE_MS), Some(0));
    }
}
