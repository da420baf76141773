//! SQLite's one writer: a queue that runs several units in one commit, each in a savepoint of its own.
//!
//! What it commits lies in the write-ahead log first. A task beside it copies the log into the file, so that no caller waits for that;
//! only a log that grows faster than it is copied is copied by the writer itself (`wal_autocheckpoint`).

use crate::database::Tx;
use crate::error::{CommitFailure, Error, Failure};
use crate::guard;
use crate::rest::Rest;
use crate::sql::UnitConnection;
use crate::sqlite::{Direct, Pragmas};
use crate::units::Units;
use crate::wake::{Notice, Told, Wakes};
use futures::FutureExt;
use futures::future::BoxFuture;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// Units that may wait; beyond it callers wait for a place.
const QUEUE_LENGTH_MAX: usize = 1024;
/// Units of one commit: bounds what a failed commit makes fail together.
const GROUP_UNITS_MAX: usize = 128;
/// A group takes no further unit once it has run this long, so that the first caller's wait is bounded.
const GROUP_TIME_MAX: Duration = Duration::from_millis(20);
/// A writer without work for this long gives its page cache back.
const IDLE: Duration = Duration::from_secs(5);
/// Commits of this long are copied from the log into the file together.
const CHECKPOINT_PAUSE: Duration = Duration::from_secs(2);
/// Between tries to open the database again.
const REOPEN_PAUSE: Duration = Duration::from_millis(200);

pub(crate) struct WriteQueue {
    sender: mpsc::Sender<Order>,
}

/// A unit of work waiting in the queue, whatever it answers.
trait Unit: Send {
    /// What it is called in logs and metrics.
    fn name(&self) -> &'static str;
    /// Runs it; `true` keeps its savepoint.
    fn run<'c>(&'c mut self, tx: &'c Tx) -> BoxFuture<'c, bool>;
    /// Answers the caller once the group's commit is known.
    fn answer(self: Box<Self>, commit: Result<(), CommitFailure>);
}

struct Waiting<T, E, F> {
    name: &'static str,
    unit: F,
    outcome: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F> Unit for Waiting<T, E, F>
where
    F: for<'c> Fn(&'c Tx) -> BoxFuture<'c, Result<T, E>> + Send + Sync,
    T: Send,
    E: Failure,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn run<'c>(&'c mut self, tx: &'c Tx) -> BoxFuture<'c, bool> {
        async move {
            let work = AssertUnwindSafe(guard::inside_unit(self.name, (self.unit)(tx))).catch_unwind();
            let outcome = work.await.unwrap_or_else(|_| Err(Error::Broken(self.name).into()));
            let keep = outcome.is_ok();
            self.outcome = Some(outcome);
            keep
        }
        .boxed()
    }

    fn answer(self: Box<Self>, commit: Result<(), CommitFailure>) {
        let answer = match (self.outcome, commit) {
            (Some(Err(error)), _) => Err(error),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (Some(Ok(_)), Err(error)) => Err(Error::from(error).into()),
            (None, Err(error)) => Err(Error::from(error).into()),
            (None, Ok(())) => Err(Error::Broken(self.name).into()),
        };
        // The caller may have gone away; the commit stands all the same.
        let _ = self.reply.send(answer);
    }
}

/// What the writer is told.
enum Order {
    /// Run a unit and commit it.
    Run(Box<dyn Unit>),
    /// There has been nothing to write for a while: give memory back.
    Rest,
}

/// What the writer works with.
struct Writer {
    path: PathBuf,
    pragmas: Pragmas,
    receiver: mpsc::Receiver<Order>,
    wakes: Wakes,
    rest: Rest,
    units: Units,
    committed: watch::Sender<()>,
}

impl WriteQueue {
    /// Starts the writer on a thread of its own. `reader` copies the log.
    pub(crate) fn start(
        path: PathBuf,
        pragmas: Pragmas,
        reader: DatabaseConnection,
        wakes: Wakes,
        rest: Rest,
        units: Units,
    ) -> Result<WriteQueue, DbErr> {
        let direct = Direct::open(&path, &pragmas)?;
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH_MAX);
        let (committed, commits) = watch::channel(());
        let writer = Writer { path, pragmas, receiver, wakes, rest, units, committed };
        let runtime = tokio::runtime::Handle::current();
        let serving = move || {
            let _entered = runtime.enter();
            futures::executor::block_on(writer.serve(direct));
        };
        let thread = std::thread::Builder::new().name("sqlite-writer".into()).spawn(serving);
        thread.map_err(|error| DbErr::Custom(format!("could not start the writer's thread: {error}")))?;
        tokio::spawn(checkpoint(reader, commits, sender.downgrade()));
        Ok(WriteQueue { sender })
    }

    pub(crate) async fn run<T, E, F>(&self, name: &'static str, unit: F) -> Result<T, E>
    where
        F: for<'c> Fn(&'c Tx) -> BoxFuture<'c, Result<T, E>> + Send + Sync + 'static,
        T: Send + 'static,
        E: Failure,
    {
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { name, unit, outcome: None, reply };
        self.sender.send(Order::Run(Box::new(waiting))).await.map_err(|_| Error::Broken(name))?;
        answer.await.map_err(|_| Error::Broken(name))?
    }
}

impl Writer {
    async fn serve(mut self, direct: Direct) {
        let mut direct = Arc::new(direct);
        while let Some(order) = self.receiver.recv().await {
            let Order::Run(first) = order else {
                if let Err(error) = direct.run("PRAGMA shrink_memory") {
                    tracing::debug!(%error, "the writer's page cache could not be given back");
                }
                continue;
            };
            let mut group = Vec::new();
            let mut told = Vec::new();
            let result = run_group(&direct, first, &mut self.receiver, &self.units, &mut group, &mut told).await;
            let failed = result.is_err();
            if !failed {
                self.tell(&told);
                self.committed.send_replace(());
            }
            for unit in group {
                unit.answer(result.clone());
            }
            if failed {
                drop(direct);
                direct = Arc::new(self.reopen());
            }
        }
    }

    /// Wakes who waits for what was committed.
    fn tell(&self, told: &[Told]) {
        if told.iter().any(|told| told.notice != Notice::Still) {
            self.rest.stir();
        }
        told.iter().for_each(|told| self.wakes.raise(&told.topics));
    }

    /// A commit that failed (a full disk) can leave its transaction open, and the next "commit" would then only release a savepoint
    /// inside it: acknowledged, seen by nobody, lost. A fresh connection has no such past.
    fn reopen(&self) -> Direct {
        loop {
            match Direct::open(&self.path, &self.pragmas) {
                Ok(direct) => return direct,
                Err(error) => {
                    tracing::error!(%error, "the writer can't open the database; it tries again");
                    std::thread::sleep(REOPEN_PAUSE);
                }
            }
        }
    }
}

/// Copies the log into the file after commits, without holding up readers or the writer, and tells the writer when to rest.
async fn checkpoint(reader: DatabaseConnection, mut commits: watch::Receiver<()>, writer: mpsc::WeakSender<Order>) {
    let mut rested = true;
    loop {
        match tokio::time::timeout(IDLE, commits.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => {
                if !std::mem::replace(&mut rested, true)
                    && let Some(writer) = writer.upgrade()
                {
                    // A full queue is not at rest.
                    let _ = writer.try_send(Order::Rest);
                }
                continue;
            }
        }
        rested = false;
        tokio::time::sleep(CHECKPOINT_PAUSE).await;
        commits.mark_unchanged();
        if let Err(error) = reader.execute_unprepared("PRAGMA wal_checkpoint(PASSIVE)").await {
            tracing::warn!(%error, "the write-ahead log could not be copied into the database; it is tried again after the next commit");
        }
    }
}

async fn run_group(
    direct: &Arc<Direct>,
    first: Box<dyn Unit>,
    receiver: &mut mpsc::Receiver<Order>,
    units: &Units,
    group: &mut Vec<Box<dyn Unit>>,
    told: &mut Vec<Told>,
) -> Result<(), CommitFailure> {
    let started = Instant::now();
    group.push(first);
    let order = |text: &str| direct.run(text).map_err(broken_off);
    order("BEGIN IMMEDIATE")?;
    let mut next = 0;
    while next < group.len() {
        let begun = Instant::now();
        order("SAVEPOINT unit")?;
        let tx = Tx::new(UnitConnection::Direct(direct.clone()));
        if group[next].run(&tx).await {
            told.push(tx.into_parts().1);
        } else {
            order("ROLLBACK TO unit")?;
        }
        order("RELEASE unit")?;
        units.took(group[next].name(), begun.elapsed());
        next += 1;
        let full = group.len() == GROUP_UNITS_MAX || started.elapsed() > GROUP_TIME_MAX;
        if !full && let Ok(Order::Run(unit)) = receiver.try_recv() {
            group.push(unit);
        }
    }
    let begun = Instant::now();
    direct.run("COMMIT").map_err(|error| match CommitFailure::of_commit(error) {
        CommitFailure::Refused(error) => broken_off(error),
        unconfirmed => unconfirmed,
    })?;
    units.took("the commit of a group", begun.elapsed());
    Ok(())
}

/// A group's transaction broke off, which is the fault of none of its units: a full disk has rolled it back, say, so that a savepoint is
/// not there any more.
fn broken_off(error: DbErr) -> CommitFailure {
    CommitFailure::Refused(DbErr::Custom(format!("the transaction of a group of units broke off: {error}")))
}
