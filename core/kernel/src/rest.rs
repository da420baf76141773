//! Rest: when a process stops asking the database because nobody commits anything, and what wakes it.
//!
//! Whoever commits a unit of work is awake for `RestTimes::after`, and so are the other processes of the tenant, which hear of it on
//! PostgreSQL: a unit that is about to commit carries a notice where its process has sent none for `RestTimes::notice_every`. So every
//! commit follows a notice of its process by hardly more than that, and whoever hears none for longer misses nothing by resting, once it
//! has looked at everything once more. What is left between the two times is for a commit that the disk or a replica holds up and for the
//! way of a notice; a process that is paused between its last statement and the commit is ended by PostgreSQL after ten seconds.
//!
//! A process that does not hear (it has just begun, or its connection broke) does not rest.

use crate::error::Error;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// When a process rests, and how often it tells the others that it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestTimes {
    after: Duration,
    notice_every: Duration,
}

impl Default for RestTimes {
    /// Rest within the minute; twenty seconds, because a commit with a notice waits for every other one of the server.
    fn default() -> Self {
        RestTimes { after: Duration::from_secs(45), notice_every: Duration::from_secs(20) }
    }
}

impl RestTimes {
    /// Rests once nothing was committed for `after`, never where that is zero. All processes of a tenant have the same times.
    ///
    /// # Errors
    /// [`Error::Setting`] where `after` is less than twice `notice_every`: a process would rest while another commits.
    pub fn new(after: Duration, notice_every: Duration) -> Result<RestTimes, Error> {
        if !after.is_zero() && after < notice_every * 2 {
            let why = "expected 0, or at least twice database.notice_every_ms: a process would rest while another one works";
            return Err(Error::Setting { key: "database.rest_after_ms".into(), why: why.into() });
        }
        Ok(RestTimes { after, notice_every })
    }

    /// From when on a process may rest in which, as far as it knows, something was committed last at `stirred`.
    fn rests_from(&self, stirred: Instant) -> Option<Instant> {
        (!self.after.is_zero()).then(|| stirred + self.after)
    }

    /// Whether a unit that commits now must carry a notice.
    fn must_tell(&self, told: Option<Instant>, now: Instant) -> bool {
        told.is_none_or(|told| now.saturating_duration_since(told) >= self.notice_every)
    }
}

/// Whether a process rests; cheap to clone.
#[derive(Clone)]
pub struct Rest {
    inner: Arc<Inner>,
}

struct Inner {
    known: Mutex<Known>,
    /// Since when it rests.
    resting: watch::Sender<Option<Instant>>,
    /// How many notices of others were heard.
    heard: watch::Sender<u64>,
    look_every: Duration,
}

struct Known {
    times: RestTimes,
    /// When something was last committed, by this process or another one, or went wrong.
    stirred: Instant,
    /// When this process last told the others.
    told: Option<Instant>,
    /// When the database last answered at rest.
    seen: Option<Instant>,
}

impl Rest {
    /// Awake.
    pub(crate) fn new(look_every: Duration) -> Rest {
        let known = Known { times: RestTimes::default(), stirred: Instant::now(), told: None, seen: None };
        let (resting, heard) = (watch::Sender::new(None), watch::Sender::new(0));
        Rest { inner: Arc::new(Inner { known: Mutex::new(known), resting, heard, look_every }) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.inner.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the times, before anything is committed.
    pub fn set(&self, times: RestTimes) {
        self.known().times = times;
    }

    /// Since when this process rests; `None` while it is awake.
    pub fn since(&self) -> Option<Instant> {
        *self.inner.resting.borrow()
    }

    /// Changes when the process goes to rest and when it wakes. Whoever polls looks once at each change, and then waits for the next one
    /// as long as the value is `Some`.
    pub fn follow(&self) -> watch::Receiver<Option<Instant>> {
        self.inner.resting.subscribe()
    }

    /// How often whoever polls looks at rest in any case.
    pub fn look_every(&self) -> Duration {
        self.inner.look_every
    }

    /// Whether what was learnt of the database at `at` still holds: this process has rested since before then, so that nobody has committed
    /// anything, and the database has answered within `within`.
    pub fn holds_since(&self, at: Instant, within: Duration) -> bool {
        let answered = || self.known().seen.is_some_and(|seen| seen.elapsed() <= within);
        self.since().is_some_and(|since| since < at) && answered()
    }

    /// Something was committed, or goes wrong: the process is awake.
    pub(crate) fn stir(&self) {
        self.known().stirred = Instant::now();
        self.inner.resting.send_if_modified(|resting| resting.take().is_some());
    }

    /// Another process told that it works.
    pub(crate) fn hear(&self) {
        self.stir();
        self.inner.heard.send_modify(|heard| *heard = heard.wrapping_add(1));
    }

    /// Changes with each notice of another process.
    pub(crate) fn follow_notices(&self) -> watch::Receiver<u64> {
        self.inner.heard.subscribe()
    }

    /// The database has answered.
    pub(crate) fn saw(&self) {
        self.known().seen = Some(Instant::now());
    }

    pub(crate) fn is_never(&self) -> bool {
        self.known().times.after.is_zero()
    }

    /// Whether a unit that commits now must tell the other processes.
    pub(crate) fn must_tell(&self) -> bool {
        let known = self.known();
        known.times.must_tell(known.told, Instant::now())
    }

    /// A notice was committed; the commit began at `at`.
    pub(crate) fn told(&self, at: Instant) {
        let mut known = self.known();
        known.told = known.told.max(Some(at));
    }

    /// Goes to rest whenever it is time. Whoever hears the other processes runs this for as long as it hears them.
    pub(crate) async fn keep(&self) -> Infallible {
        let mut resting = self.follow();
        loop {
            let Some(from) = self.rests_from() else { return std::future::pending().await };
            tokio::time::sleep_until(from.into()).await;
            if self.go_to_rest() {
                tracing::debug!("nobody commits anything: this process rests");
                let _ = resting.wait_for(Option::is_none).await;
                tracing::debug!("this process is awake");
            }
        }
    }

    fn rests_from(&self) -> Option<Instant> {
        let known = self.known();
        known.times.rests_from(known.stirred)
    }

    fn go_to_rest(&self) -> bool {
        // Judged where the value is held: who stirs meanwhile has to wait, and wakes the process then.
        self.inner.resting.send_if_modified(|resting| {
            let now = Instant::now();
            let rests = self.rests_from().is_some_and(|from| from <= now);
            *resting = rests.then_some(now);
            rests
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn rests_once_nothing_was_committed_for_long_enough() {
        let (now, times) = (Instant::now(), RestTimes::default());
        assert_eq!(times.rests_from(now), Some(now + seconds(45)));
        let never = RestTimes::new(Duration::ZERO, seconds(20)).expect("zero says never");
        assert_eq!(never.rests_from(now), None);
        for (after, notice_every, allowed) in [(45, 20, true), (40, 20, true), (39, 20, false), (1, 0, true)] {
            assert_eq!(RestTimes::new(seconds(after), seconds(notice_every)).is_ok(), allowed, "{after} {notice_every}");
        }
    }

    #[test]
    fn a_unit_tells_the_others_where_none_has_of_late() {
        let (told, times) = (Instant::now(), RestTimes::default());
        assert!(times.must_tell(None, told), "the first one does");
        for (later, expected) in [(0, false), (19, false), (20, true), (300, true)] {
            assert_eq!(times.must_tell(Some(told), told + seconds(later)), expected, "{later} s later");
        }
    }

    /// Whatever the pauses between its commits, nobody rests when a process commits without a notice, even where the commit takes as long
    /// as PostgreSQL lets it wait for us, and more.
    #[test]
    fn no_commit_meets_a_process_that_rests_untold() {
        const COMMIT: Duration = seconds(20);
        let times = RestTimes::default();
        for pauses in [[1, 1, 1], [19, 1, 19], [19, 19, 19], [20, 1, 60], [44, 46, 19], [300, 19, 1]] {
            let mut now = Instant::now();
            let mut told = None;
            for pause in pauses.into_iter().cycle().take(30) {
                now += seconds(pause);
                if times.must_tell(told, now) {
                    told = Some(now);
                    continue;
                }
                let rests = told.and_then(|told| times.rests_from(told));
                assert!(rests.is_some_and(|from| now + COMMIT < from), "{pauses:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_commit_wakes_who_rests_and_what_was_learnt_at_rest_holds_until_then() {
        let rest = Rest::new(seconds(60));
        rest.set(RestTimes::new(Duration::from_millis(1), Duration::ZERO).expect("they fit"));
        let mut resting = rest.follow();
        let wakes = async {
            let since = resting.wait_for(Option::is_some).await.expect("it is kept").expect("it rests");
            assert_eq!(rest.since(), Some(since));
            let learnt = since + Duration::from_nanos(1);
            assert!(!rest.holds_since(learnt, seconds(60)), "the database was not seen");
            rest.saw();
            assert!(rest.holds_since(learnt, seconds(60)));
            assert!(!rest.holds_since(since, seconds(60)), "what was learnt before it rested does not hold");
            rest.stir();
            assert!(!rest.holds_since(learnt, seconds(60)), "awake, everybody asks");
        };
        tokio::select! {
            never = rest.keep() => match never {},
            () = wakes => {}
        }
    }
}
