//! Many single transfers at once: concurrent callers share a unit of work, and each hears its own answer after the commit.

use crate::book::Ledger;
use crate::error::Error;
use crate::transfer::{Posted, Transfer};
use futures::FutureExt;
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc, oneshot};

/// Callers that may wait; beyond it they wait for a place.
const QUEUE_LENGTH_MAX: usize = 4096;
/// Transfers of one commit: bounds what waits for one another.
const GROUP_MAX: usize = 512;

struct Waiting {
    transfer: Transfer,
    reply: oneshot::Sender<Result<Posted, Error>>,
}

/// Groups single transfers. Cheap to clone.
#[derive(Clone)]
pub struct Poster {
    sender: mpsc::Sender<Waiting>,
}

impl Poster {
    /// Starts `workers` that post in turn: while one commits, the next one collects. They end with the last clone of the poster.
    pub fn start(ledger: &Ledger, workers: usize) -> Poster {
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH_MAX);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..workers.max(1) {
            tokio::spawn(serve(ledger.clone(), receiver.clone()));
        }
        Poster { sender }
    }

    /// Posts one transfer, together with those of whoever else posts now.
    ///
    /// # Errors
    /// What [`Ledger::post`] answers; a refusal concerns this transfer alone.
    pub async fn post(&self, transfer: Transfer) -> Result<Posted, Error> {
        let (reply, answer) = oneshot::channel();
        let gone = || heyuan_kernel::Error::Broken("post together");
        self.sender.send(Waiting { transfer, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

async fn serve(ledger: Ledger, receiver: Arc<Mutex<mpsc::Receiver<Waiting>>>) {
    loop {
        let mut group = Vec::new();
        {
            let mut receiver = receiver.lock().await;
            let Some(first) = receiver.recv().await else { return };
            group.push(first);
            while group.len() < GROUP_MAX
                && let Ok(next) = receiver.try_recv()
            {
                group.push(next);
            }
        }
        let transfers: Vec<Transfer> = group.iter().map(|waiting| waiting.transfer.clone()).collect();
        match post(&ledger, transfers).await {
            Ok(answers) => {
                for (waiting, answer) in group.into_iter().zip(answers) {
                    // The caller may have gone away; the commit stands all the same.
                    let _ = waiting.reply.send(answer);
                }
            }
            Err(_) => {
                for waiting in group {
                    let alone = post(&ledger, vec![waiting.transfer]).await;
                    let lost = || Err(heyuan_kernel::Error::Broken("post together").into());
                    let _ = waiting.reply.send(alone.and_then(|mut answers| answers.pop().unwrap_or_else(lost)));
                }
            }
        }
    }
}

async fn post(ledger: &Ledger, transfers: Vec<Transfer>) -> Result<Vec<Result<Posted, Error>>, Error> {
    let transfers = Arc::new(transfers);
    let db = &ledger.kernel.db;
    db.settle(|| {
        let (ledger, transfers) = (ledger.clone(), transfers.clone());
        db.write("post together", move |tx| {
            let (ledger, transfers) = (ledger.clone(), transfers.clone());
            async move { ledger.post_each(tx, &transfers).await }.boxed()
        })
    })
    .await
}
