//! The processor: the one process of a tenant that identifies, folds, tags, reacts and flushes, by a lease.

use crate::database::Database;
use crate::error::Problem;
use crate::lease::{self, Fence, LEASE_POLL};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The lease's name.
const LEASE: &str = "processor";
/// A task that found nothing to do looks again after this long even when no commit of this process woke it: what other
/// processes wrote is seen by then.
const IDLE_POLL: Duration = Duration::from_millis(500);
/// Longest pause between tries of a task that keeps failing.
const FAILURE_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Whether a step found work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There may be more at once.
    Busy,
    /// Nothing to do until something is committed.
    Idle,
}

/// Work that only the processor does, in steps that each check the fence in their own transaction.
pub trait Task: Send + Sync {
    /// The name in logs and metrics.
    fn name(&self) -> &'static str;
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
}

impl Processor {
    /// A processor under a holder name that no other process uses.
    pub fn new(db: Database, holder: String, tasks: Vec<Arc<dyn Task>>) -> Processor {
        Processor { db, holder, tasks }
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
        let (end, ended) = watch::channel(false);
        let mut workers = tokio::task::JoinSet::new();
        for task in &self.tasks {
            task.begin_term();
            workers.spawn(work(task.clone(), fence.clone(), self.db.commits(), ended.clone()));
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
        let _ = end.send(true);
        while workers.join_next().await.is_some() {}
        if let Err(error) = lease::release(&self.db, &fence).await {
            tracing::warn!(%error, "the processor lease could not be given up; it will run out");
        }
        tracing::info!(holder = %self.holder, "this process is no longer the processor");
    }
}

async fn work(task: Arc<dyn Task>, fence: Fence, mut commits: watch::Receiver<u64>, mut ended: watch::Receiver<bool>) {
    let mut pause = Duration::from_millis(20);
    while !*ended.borrow() {
        commits.mark_unchanged();
        match task.step(&fence).await {
            Ok(Progress::Busy) => {
                pause = Duration::from_millis(20);
                tokio::task::yield_now().await;
            }
            Ok(Progress::Idle) => {
                pause = Duration::from_millis(20);
                tokio::select! {
                    _ = tokio::time::timeout(IDLE_POLL, commits.changed()) => {}
                    _ = ended.wait_for(|end| *end) => {}
                }
            }
            Err(problem) => {
                tracing::warn!(task = task.name(), %problem, "a step of the processor failed; it is tried again");
                let _ = tokio::time::timeout(pause, ended.wait_for(|end| *end)).await;
                pause = (pause * 2).min(FAILURE_PAUSE_MAX);
            }
        }
    }
}
