//! The processor: the one process of a tenant that identifies, folds, tags, reacts and flushes, by a lease.

use crate::database::Database;
use crate::error::{Error, Problem};
use crate::lease::{self, Fence, LEASE_POLL};
use crate::time::Clock;
use crate::wake::Topic;
use futures::FutureExt;
use futures::future::{BoxFuture, select_all};
use heyuan_contract::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The lease's name.
const LEASE: &str = "processor";
/// First pause after a step that failed; it doubles with each.
const FAILURE_PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest pause between tries of a task that keeps failing.
const FAILURE_PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long a waiter looks later than the lease that it read runs out: the clock that measures it is the database's.
const LATER: Duration = Duration::from_millis(50);
/// How soon a task at rest notices that the clock was set, or that the machine slept.
const CLOCK_SEEN_WITHIN: Duration = Duration::from_secs(30);
/// What gathers waits at least so many times as long as a look took.
const LOOKS_APART: u32 = 20;
/// And so long at most, unless it asks for more.
const GATHER_MAX: Duration = Duration::from_millis(150);

/// Whether a step found work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There may be more at once.
    Busy,
    /// Nothing to do until what the task waits for.
    Idle,
}

/// What an idle task waits for.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// Commits of this process that wake it.
    pub topics: &'static [Topic],
    /// How long it lets more come together after a wake-up, so that a step takes many at once.
    pub gather: Duration,
    /// Awake, it looks again after this long in any case: for what turns by time, and for what other processes wrote.
    pub at_most: Duration,
}

impl Waits {
    /// Looks again after some time alone.
    pub const fn time(at_most: Duration) -> Waits {
        Waits { topics: &[], gather: Duration::ZERO, at_most }
    }

    /// Is woken by commits that named one of these topics.
    pub const fn topics(topics: &'static [Topic], at_most: Duration) -> Waits {
        Waits { topics, gather: Duration::ZERO, at_most }
    }

    /// Lets more come together after a wake-up.
    #[must_use]
    pub const fn gathering(self, gather: Duration) -> Waits {
        Waits { gather, ..self }
    }

    /// Lets more come together where looking takes long: a busy database is looked at less often.
    fn after(self, look: Duration) -> Waits {
        if self.gather.is_zero() {
            return self;
        }
        Waits { gather: (look * LOOKS_APART).clamp(self.gather, self.gather.max(GATHER_MAX)), ..self }
    }
}

/// Work that only the processor does, in steps that each check the fence in their own transaction.
pub trait Task: Send + Sync {
    /// The name in logs and metrics.
    fn name(&self) -> &'static str;
    /// What it waits for when a step found nothing.
    fn waits(&self) -> Waits;
    /// One bounded step.
    fn step<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<Progress, Problem>>;
    /// When it next has something to do although nobody writes anything. Asked for at rest, after a step that found nothing, by as few
    /// statements as it takes. A task of which this is not told looks when the process wakes, and about once an hour: fine for what only
    /// follows from what was committed, and for what may be late.
    fn due(&self) -> BoxFuture<'_, Result<Option<Timestamp>, Problem>> {
        std::future::ready(Ok(None)).boxed()
    }
    /// Called when this process becomes the processor, before the first step: what was remembered from an earlier term is dropped.
    fn begin_term(&self) {}
}

/// Runs tasks while this process holds the lease.
pub struct Processor {
    db: Database,
    clock: Clock,
    holder: String,
    tasks: Vec<Arc<dyn Task>>,
    holds: Arc<AtomicBool>,
}

impl Processor {
    /// A processor under a holder name that no other process uses.
    pub fn new(db: Database, clock: Clock, holder: String, tasks: Vec<Arc<dyn Task>>) -> Processor {
        Processor { db, clock, holder, tasks, holds: Arc::default() }
    }

    /// Whether this process holds the lease, as far as it knows.
    pub fn holds(&self) -> Arc<AtomicBool> {
        self.holds.clone()
    }

    /// Runs until `stop` turns true: waits for the lease, works while it holds, gives it up at the end.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let (mut resting, mut heard) = (self.db.rest().follow(), self.db.rest().follow_notices());
        while !*stop.borrow() {
            heard.mark_unchanged();
            let rests = resting.borrow_and_update().is_some();
            let pause = match self.take_or_wait().await {
                Ok(Attempt::Taken(fence)) => {
                    self.term(fence, &mut stop).await;
                    LEASE_POLL
                }
                Ok(Attempt::Held(left)) if rests => left + LATER,
                Ok(Attempt::Held(left)) => LEASE_POLL.min(left + LATER),
                Err(error) => {
                    tracing::warn!(%error, "the processor lease could not be read; trying again");
                    LEASE_POLL
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Somebody works, or has given the lease up.
                _ = heard.changed() => {}
                _ = resting.changed() => {}
                _ = stop.wait_for(|stopped| *stopped) => {}
            }
        }
    }

    /// Takes the lease where it is free; a waiter only reads.
    async fn take_or_wait(&self) -> Result<Attempt, Error> {
        if let Some(left) = lease::left(&self.db, LEASE, &self.holder).await? {
            return Ok(Attempt::Held(left));
        }
        let taken = lease::acquire(&self.db, LEASE, &self.holder).await?;
        Ok(taken.map_or(Attempt::Held(LEASE_POLL), Attempt::Taken))
    }

    async fn term(&self, fence: Fence, stop: &mut watch::Receiver<bool>) {
        tracing::info!(holder = %self.holder, "this process is the processor now");
        self.holds.store(true, Ordering::Relaxed);
        let (end, ended) = watch::channel(false);
        let mut workers = tokio::task::JoinSet::new();
        for task in &self.tasks {
            task.begin_term();
            let worker = Worker { task: task.clone(), fence: fence.clone(), db: self.db.clone(), clock: self.clock.clone() };
            workers.spawn(worker.work(ended.clone()));
        }
        self.hold(&fence, stop).await;
        self.holds.store(false, Ordering::Relaxed);
        let _ = end.send(true);
        while workers.join_next().await.is_some() {}
        if let Err(error) = lease::release(&self.db, &fence).await {
            tracing::warn!(%error, "the processor lease could not be given up; it will run out");
        }
        tracing::info!(holder = %self.holder, "this process is no longer the processor");
    }

    /// Renews the lease until it is lost or the process is told to stop; at once where the process goes to rest or wakes, since the lease
    /// lasts longer at rest.
    async fn hold(&self, fence: &Fence, stop: &mut watch::Receiver<bool>) {
        let mut resting = self.db.rest().follow();
        let mut renewed = Instant::now();
        loop {
            let every = lease::pace(resting.borrow_and_update().is_some()).every;
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                _ = resting.changed() => {}
                _ = stop.wait_for(|stopped| *stopped) => return,
            }
            let lasts = lease::pace(resting.borrow().is_some()).lasts;
            match lease::renew(&self.db, fence, lasts).await {
                Ok(true) => renewed = Instant::now(),
                Ok(false) => return,
                Err(error) if renewed.elapsed() > lasts => {
                    return tracing::warn!(%error, "the processor lease could not be renewed in time");
                }
                Err(error) => {
                    tracing::warn!(%error, "the processor lease could not be renewed; trying again");
                    // While the database is in trouble nobody rests: the next try comes soon.
                    self.db.rest().stir();
                }
            }
        }
    }
}

/// What came of asking for the lease.
enum Attempt {
    Taken(Fence),
    /// Another process's, for so long if it is not renewed.
    Held(Duration),
}

/// What a step found.
enum Found {
    /// There may be more at once.
    Work,
    /// Nothing; when there will be something, as far as it is asked for.
    Nothing(Option<Timestamp>),
}

/// One task in one term.
struct Worker {
    task: Arc<dyn Task>,
    fence: Fence,
    db: Database,
    clock: Clock,
}

impl Worker {
    async fn work(self, mut ended: watch::Receiver<bool>) {
        let waits = self.task.waits();
        let mut followed: Vec<watch::Receiver<u64>> = waits.topics.iter().map(|topic| self.db.wakes().follow(topic)).collect();
        let mut resting = self.db.rest().follow();
        let mut pause = FAILURE_PAUSE_MIN;
        while !*ended.borrow() {
            followed.iter_mut().for_each(watch::Receiver::mark_unchanged);
            let rests = resting.borrow_and_update().is_some();
            let begun = Instant::now();
            let wait = match self.look(rests).await {
                Ok(Found::Work) => {
                    pause = FAILURE_PAUSE_MIN;
                    tokio::task::yield_now().await;
                    continue;
                }
                Ok(Found::Nothing(due)) => {
                    pause = FAILURE_PAUSE_MIN;
                    let waits = waits.after(begun.elapsed());
                    if rests { self.rest(waits, due, &mut resting).boxed() } else { idle(waits, &mut followed, &mut resting).boxed() }
                }
                Err(problem) => {
                    tracing::warn!(task = self.task.name(), %problem, "a step of the processor failed; it is tried again");
                    // What waits to be tried again keeps everybody awake.
                    self.db.rest().stir();
                    let failed = pause;
                    pause = (pause * 2).min(FAILURE_PAUSE_MAX);
                    tokio::time::sleep(failed).boxed()
                }
            };
            tokio::select! {
                () = wait => {}
                _ = ended.wait_for(|end| *end) => {}
            }
        }
    }

    async fn look(&self, rests: bool) -> Result<Found, Problem> {
        match self.task.step(&self.fence).await? {
            Progress::Busy => Ok(Found::Work),
            Progress::Idle if rests => Ok(Found::Nothing(self.task.due().await?)),
            Progress::Idle => Ok(Found::Nothing(None)),
        }
    }

    /// Until the process wakes or something is due; never shorter than awake, should a step not find what is due.
    async fn rest(&self, waits: Waits, due: Option<Timestamp>, resting: &mut watch::Receiver<Option<Instant>>) {
        let (begun, at_most) = (Instant::now(), self.db.rest().look_every());
        loop {
            let rested = begun.elapsed();
            let due_in = due.map(|due| self.clock.until(due).max(waits.at_most.saturating_sub(rested)));
            let left = at_most.saturating_sub(rested).min(due_in.unwrap_or(at_most));
            let woken = tokio::time::timeout(left.min(CLOCK_SEEN_WITHIN), resting.changed()).await.is_ok();
            if woken || left <= CLOCK_SEEN_WITHIN {
                return;
            }
        }
    }
}

/// Until one of the topics is named, and what comes with it; until it is time to look anyway; or until the process goes to rest, since
/// everything is looked at once more then.
async fn idle(waits: Waits, followed: &mut [watch::Receiver<u64>], resting: &mut watch::Receiver<Option<Instant>>) {
    let woken = async {
        if followed.is_empty() {
            return std::future::pending().await;
        }
        let _ = select_all(followed.iter_mut().map(|topic| topic.changed().boxed())).await;
    };
    tokio::select! {
        () = woken => {
            if !waits.gather.is_zero() {
                tokio::time::sleep(waits.gather).await;
            }
        }
        () = tokio::time::sleep(waits.at_most) => {}
        _ = resting.changed() => {}
    }
}
