//! The desks of purchases, on PostgreSQL. On SQLite reads take microseconds, and all writes pass one queue, which commits them together.

use crate::error::Error;
use crate::facade::Membership;
use crate::look::{Question, Seen};
use crate::missed::Misses;
use crate::post::{self, Purchase};
use crate::report::{LookUp, LookedUp, Ready};
use crate::transaction::Row;
use futures::FutureExt;
use heyuan_contract::MemberId;
use heyuan_kernel::Tx;
use heyuan_kernel::desk::{Desk, Limits};
use sea_orm::DbBackend;
use std::sync::Arc;
use std::time::Duration;

/// A millisecond at each desk costs a purchase less than the statements that a group of one sends.
const LIMITS: Limits = Limits { clerks: 2, group: 64, gather: Duration::from_millis(1) };

/// What a report came to.
pub(crate) type Outcome = (Row, Misses);

/// Where purchases wait for each other.
pub(crate) struct Desks {
    /// Reports, for what they lead to.
    finds: Desk<LookUp, LookedUp>,
    /// Decisions, for what they are made with.
    looks: Desk<Question, Seen>,
    /// What was decided, of each member one at a time.
    posts: Desk<Arc<Ready>, Outcome>,
}

impl Default for Desks {
    fn default() -> Desks {
        Desks {
            finds: Desk::new(LIMITS),
            looks: Desk::new(LIMITS),
            posts: Desk::keeping_apart(LIMITS, |ready| ready.member().map(MemberId::as_str)),
        }
    }
}

impl Membership {
    /// What a report leads to, looked up together with others where that can be.
    pub(crate) async fn find(&self, asked: LookUp) -> Result<LookedUp, Error> {
        let all = |membership: Membership, group: Vec<LookUp>| async move { membership.find_all(&group).await };
        self.together(&self.desks().finds, asked, all).await
    }

    /// What a decision is made with, read together with that of others where that can be.
    pub(crate) async fn see(&self, question: Question) -> Result<Seen, Error> {
        let all = |membership: Membership, group: Vec<Question>| async move { membership.see_all(&group).await };
        self.together(&self.desks().looks, question, all).await
    }

    /// Reads something for who asks, in one group with others on PostgreSQL. What fails there fails alone: everybody hears its own error.
    async fn together<A, B, F, Fut>(&self, desk: &Desk<A, B>, asked: A, read_all: F) -> Result<B, Error>
    where
        A: Clone + Send + 'static,
        B: Send + 'static,
        F: Fn(Membership, Vec<A>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<Vec<B>, Error>> + Send + 'static,
    {
        if self.kernel().db.backend() == DbBackend::Postgres {
            let (membership, read_all) = (self.clone(), read_all.clone());
            let serve = move |group: Vec<A>| {
                let none: Vec<Option<B>> = group.iter().map(|_| None).collect();
                let reading = read_all(membership.clone(), group);
                async move { reading.await.map_or(none, |read| read.into_iter().map(Some).collect()) }
            };
            if let Some(read) = desk.ask(asked.clone(), serve).await {
                return Ok(read);
            }
        }
        let read = read_all(self.clone(), vec![asked]).await?.pop();
        Ok(read.ok_or(heyuan_kernel::Error::Broken("look at a member"))?)
    }

    /// Writes what was decided about a report, together with others where that can be.
    pub(crate) async fn write_report(&self, ready: Arc<Ready>) -> Result<Outcome, Error> {
        let plain = ready.purchase().is_some_and(|bought| !post::grants(bought.decided));
        if plain && self.kernel().db.backend() == DbBackend::Postgres {
            let membership = self.clone();
            let serve = move |group: Vec<Arc<Ready>>| {
                let membership = membership.clone();
                async move {
                    let none = group.iter().map(|_| None).collect();
                    membership.post_together(group.into()).await.unwrap_or(none)
                }
            };
            if let Some(outcome) = self.desks().posts.ask(ready.clone(), serve).await {
                return Ok(outcome);
            }
        }
        let membership = self.clone();
        self.kernel()
            .db
            .write("report transaction", move |tx: &Tx| {
                let (membership, ready) = (membership.clone(), ready.clone());
                async move { membership.write_ready(tx, &ready).await }.boxed()
            })
            .await
    }

    async fn post_together(&self, group: Arc<[Arc<Ready>]>) -> Result<Vec<Option<Outcome>>, Error> {
        let membership = self.clone();
        self.kernel()
            .db
            .write("report transactions", move |tx| {
                let (membership, group) = (membership.clone(), group.clone());
                async move {
                    let purchases: Vec<Purchase<'_>> = group.iter().filter_map(|ready: &Arc<Ready>| ready.purchase()).collect();
                    membership.post_purchases(tx, &purchases).await
                }
                .boxed()
            })
            .await
    }
}
