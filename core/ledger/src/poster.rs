//! Many single transfers at once: concurrent callers share a unit of work, and each hears its own answer after the commit.

use crate::book::Ledger;
use crate::error::Error;
use crate::transfer::{Posted, Transfer};
use futures::FutureExt;
use heyuan_kernel::desk::{Desk, Limits};
use std::sync::Arc;
use std::time::Duration;

/// Transfers of one commit: bounds what waits for one another.
const GROUP_MAX: usize = 512;

/// Groups single transfers. Cheap to clone.
#[derive(Clone)]
pub struct Poster {
    ledger: Ledger,
    desk: Desk<Transfer, Result<Posted, Error>>,
}

impl Poster {
    /// A poster of which at most so many post in turn: while one commits, the next one collects.
    pub fn start(ledger: &Ledger, workers: usize) -> Poster {
        let limits = Limits { clerks: workers.max(1), group: GROUP_MAX, gather: Duration::ZERO };
        Poster { ledger: ledger.clone(), desk: Desk::new(limits) }
    }

    /// Posts one transfer, together with those of whoever else posts now.
    ///
    /// # Errors
    /// What [`Ledger::post`] answers; a refusal concerns this transfer alone.
    pub async fn post(&self, transfer: Transfer) -> Result<Posted, Error> {
        let ledger = self.ledger.clone();
        let serve = move |transfers: Vec<Transfer>| {
            let ledger = ledger.clone();
            async move {
                // What fails fails alone: everybody hears its own error.
                let none = transfers.iter().map(|_| None).collect();
                post(&ledger, transfers).await.map_or(none, |answers| answers.into_iter().map(Some).collect())
            }
        };
        if let Some(answer) = self.desk.ask(transfer.clone(), serve).await {
            return answer;
        }
        let alone = post(&self.ledger, vec![transfer]).await?.pop();
        alone.unwrap_or_else(|| Err(heyuan_kernel::Error::Broken("post together").into()))
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
