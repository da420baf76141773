//! SQLite's one writer: a queue that runs several units in one commit, each in a savepoint of its own.

use crate::database::Tx;
use crate::error::{Error, Failure};
use crate::guard;
use crate::wake::{Topic, Wakes};
use futures::FutureExt;
use futures::future::BoxFuture;
use sea_orm::{ConnectOptions, DatabaseConnection, DbErr, SqliteTransactionMode, TransactionOptions, TransactionTrait};
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Units that may wait; beyond it callers wait for a place.
const QUEUE_LENGTH_MAX: usize = 1024;
/// Units of one commit: bounds what a failed commit makes fail together.
const GROUP_UNITS_MAX: usize = 128;
/// A group takes no further unit once it has run this long, so that the first caller's wait is bounded.
const GROUP_TIME_MAX: Duration = Duration::from_millis(20);
/// Between tries to open the database again.
const REOPEN_PAUSE: Duration = Duration::from_millis(200);

pub(crate) struct WriteQueue {
    sender: mpsc::Sender<Box<dyn Unit>>,
}

/// A unit of work waiting in the queue, whatever it answers.
trait Unit: Send {
    /// Runs it; `true` keeps its savepoint.
    fn run<'c>(&'c mut self, tx: &'c Tx) -> BoxFuture<'c, bool>;
    /// Answers the caller once the group's commit is known.
    fn answer(self: Box<Self>, commit: Result<(), DbErr>);
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

    fn answer(self: Box<Self>, commit: Result<(), DbErr>) {
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

impl WriteQueue {
    /// Starts the writer on an open connection; `options` open it anew after a failure.
    pub(crate) fn start(connection: DatabaseConnection, options: ConnectOptions, wakes: Wakes) -> WriteQueue {
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH_MAX);
        tokio::spawn(serve(connection, options, receiver, wakes));
        WriteQueue { sender }
    }

    pub(crate) async fn run<T, E, F>(&self, name: &'static str, unit: F) -> Result<T, E>
    where
        F: for<'c> Fn(&'c Tx) -> BoxFuture<'c, Result<T, E>> + Send + Sync + 'static,
        T: Send + 'static,
        E: Failure,
    {
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { name, unit, outcome: None, reply };
        self.sender.send(Box::new(waiting)).await.map_err(|_| Error::Broken(name))?;
        answer.await.map_err(|_| Error::Broken(name))?
    }
}

async fn serve(mut connection: DatabaseConnection, options: ConnectOptions, mut receiver: mpsc::Receiver<Box<dyn Unit>>, wakes: Wakes) {
    while let Some(first) = receiver.recv().await {
        let mut group = Vec::new();
        let mut named = Vec::new();
        let result = run_group(&connection, first, &mut receiver, &mut group, &mut named).await;
        let failed = result.is_err();
        if !failed {
            wakes.raise(&named);
        }
        for unit in group {
            unit.answer(result.clone());
        }
        if failed {
            connection = reopen(connection, &options).await;
        }
    }
}

/// A commit that failed (a full disk) can leave its transaction open, and the next "commit" would then only release a savepoint
/// inside it: acknowledged, seen by nobody, lost. A fresh connection has no such past.
async fn reopen(old: DatabaseConnection, options: &ConnectOptions) -> DatabaseConnection {
    if let Err(error) = old.close().await {
        tracing::warn!(%error, "the writer's connection could not be closed in order");
    }
    loop {
        match sea_orm::Database::connect(options.clone()).await {
            Ok(connection) => return connection,
            Err(error) => {
                tracing::error!(%error, "the writer can't open the database; it tries again");
                tokio::time::sleep(REOPEN_PAUSE).await;
            }
        }
    }
}

async fn run_group(
    connection: &DatabaseConnection,
    first: Box<dyn Unit>,
    receiver: &mut mpsc::Receiver<Box<dyn Unit>>,
    group: &mut Vec<Box<dyn Unit>>,
    named: &mut Vec<Topic>,
) -> Result<(), DbErr> {
    let started = Instant::now();
    group.push(first);
    let options = TransactionOptions { sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate), ..Default::default() };
    let transaction = connection.begin_with_options(options).await?;
    let mut next = 0;
    while next < group.len() {
        let savepoint = Tx::new(transaction.begin().await?);
        let keep = group[next].run(&savepoint).await;
        if keep {
            named.extend(savepoint.commit().await.map_err(as_db_err)?);
        } else {
            savepoint.rollback().await.map_err(as_db_err)?;
        }
        next += 1;
        let full = group.len() == GROUP_UNITS_MAX || started.elapsed() > GROUP_TIME_MAX;
        if !full && let Ok(unit) = receiver.try_recv() {
            group.push(unit);
        }
    }
    transaction.commit().await
}

fn as_db_err(error: Error) -> DbErr {
    match error {
        Error::Database(source) => source,
        other => DbErr::Custom(other.to_string()),
    }
}
