//! The processor: the one process of a tenant that identifies, folds, tags, reacts and flushes, by a lease.

use crate::database::Database;
use crate::error::Problem;
use crate::lease::{self, Fence, LEASE_POLL};
use crate::wake::{Topic, Wakes};
use futures::FutureExt;
use futures::future::{BoxFuture, select_all};
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
    /// It looks again after this long in any case: for what turns by time, and for what other processes wrote.
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
}

/// Work that only the processor does, in steps that each check the fence in their own transaction.
pub trait Task: Send + Sync {
    /// The name in logs and metrics.
    fn name(&self) -> &'static str;
    /// What it waits for when a step found nothing.
    fn waits(&self) -> Waits;
    /// One bounded step.
    fn step<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<Progress, Problem>>;
    /// Called when this process becomes the processor, before the first step: what was remembered from an earlier term is dropped.
    fn begin_term(&self) {}
}

/// Runs tasks while this process holds the lease.
pub struct Processor {
    db: Database,
    holder: String,
    tasks: Vec<Arc<dyn Task>>,
    holds: Arc<AtomicBool>,
}

impl Processor {
    /// A processor under a holder name that no other process uses.
    pub fn new(db: Database, holder: String, tasks: Vec<Arc<dyn Task>>) -> Processor {
        Processor { db, holder, tasks, holds: Arc::default() }
    }

    /// Whether this process holds the lease, as far as it knows.
    pub fn holds(&self) -> Arc<AtomicBool> {
        self.holds.clone()
    }

    /// Runs until `stop` turns true: waits for the lease, works while it holds, gives it up at the end.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            match lease::acquire(&self.db, LEASE, &self.holder).await {
                Ok(Some(fence)) => self.term(fence, &mut stop).await,
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "the processor lease could not be read; trying again"),
            }
            let _ = tokio::time::timeout(LEASE_POLL, stop.wait_for(|stopped| *stopped)).await;
        }
    }

    async fn term(&self, fence: Fence, stop: &mut watch::Receiver<bool>) {
        tracing::info!(holder = %self.holder, "this process is the processor now");
        self.holds.store(true, Ordering::Relaxed);
        let (end, ended) = watch::channel(false);
        let mut workers = tokio::task::JoinSet::new();
        for task in &self.tasks {
            task.begin_term();
            workers.spawn(work(task.clone(), fence.clone(), self.db.wakes().clone(), ended.clone()));
        }
        let mut renewed = Instant::now();
        loop {
            let stopped = tokio::time::timeout(LEASE_POLL, stop.wait_for(|stopped| *stopped)).await.is_ok();
            if stopped {
                break;
            }
            match lease::acquire(&self.db, LEASE, &self.holder).await {
                Ok(Some(current)) if current == fence => renewed = Instant::now(),
                Ok(_) => break,
                Err(error) if renewed.elapsed() > lease::LEASE_TIME => {
                    tracing::warn!(%error, "the processor lease could not be renewed in time");
                    break;
                }
                Err(error) => tracing::warn!(%error, "the processor lease could not be renewed; trying again"),
            }
        }
        self.holds.store(false, Ordering::Relaxed);
        let _ = end.send(true);
        while workers.join_next().await.is_some() {}
        if let Err(error) = lease::release(&self.db, &fence).await {
            tracing::warn!(%error, "the processor lease could not be given up; it will run out");
        }
        tracing::info!(holder = %self.holder, "this process is no longer the processor");
    }
}

async fn work(task: Arc<dyn Task>, fence: Fence, wakes: Wakes, mut ended: watch::Receiver<bool>) {
    let waits = task.waits();
    let mut followed: Vec<watch::Receiver<u64>> = waits.topics.iter().map(|topic| wakes.follow(topic)).collect();
    let mut pause = FAILURE_PAUSE_MIN;
    while !*ended.borrow() {
        followed.iter_mut().for_each(watch::Receiver::mark_unchanged);
        let rest = match task.step(&fence).await {
            Ok(Progress::Busy) => {
                pause = FAILURE_PAUSE_MIN;
                tokio::task::yield_now().await;
                continue;
            }
            Ok(Progress::Idle) => {
                pause = FAILURE_PAUSE_MIN;
                rest(&waits, &mut followed).boxed()
            }
            Err(problem) => {
                tracing::warn!(task = task.name(), %problem, "a step of the processor failed; it is tried again");
                let failed = pause;
                pause = (pause * 2).min(FAILURE_PAUSE_MAX);
                tokio::time::sleep(failed).boxed()
            }
        };
        tokio::select! {
            () = rest => {}
            _ = ended.wait_for(|end| *end) => {}
        }
    }
}

/// Until one of the topics is named, and what comes with it; or until it is time to look anyway.
async fn rest(waits: &Waits, followed: &mut [watch::Receiver<u64>]) {
    if followed.is_empty() {
        return tokio::time::sleep(waits.at_most).await;
    }
    let woken = select_all(followed.iter_mut().map(|topic| topic.changed().boxed()));
    if tokio::time::timeout(waits.at_most, woken).await.is_ok() && !waits.gather.is_zero() {
        tokio::time::sleep(waits.gather).await;
    }
}
