//! Desks: what is asked for at the same time is done together on PostgreSQL, where each way to the server and each commit costs more than
//! the rows. On SQLite reads take microseconds, and all writes pass one queue, which commits them together.

use crate::error::Error;
use crate::facade::Membership;
use crate::look::{Question, Seen};
use crate::missed::Misses;
use crate::post::{self, Purchase};
use crate::report::Ready;
use crate::transaction::Row;
use futures::FutureExt;
use heyuan_contract::MemberId;
use heyuan_kernel::Tx;
use sea_orm::DbBackend;
use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Groups under way at once: while one waits for the server, the next one collects.
const CLERKS_MAX: usize = 2;
/// What one group holds at most: bounds what waits for one another.
const GROUP_MAX: usize = 64;

/// What a report came to.
pub(crate) type Outcome = (Row, Misses);

/// Where decisions wait for what they are made with.
pub(crate) type Looks = Desk<Question, Seen>;
/// Where decided purchases wait for each other.
pub(crate) type Posts = Desk<Arc<Ready>, Outcome>;

/// What can lie on a desk.
pub(crate) trait Paper: Send + 'static {
    /// Of two with the same member, only one is taken into a group.
    fn apart(&self) -> Option<&MemberId>;
}

impl Paper for Question {
    fn apart(&self) -> Option<&MemberId> {
        None
    }
}

impl Paper for Arc<Ready> {
    fn apart(&self) -> Option<&MemberId> {
        self.member()
    }
}

/// Where those who ask at the same time wait for each other.
pub(crate) struct Desk<A, B> {
    state: Mutex<State<A, B>>,
}

struct State<A, B> {
    waiting: VecDeque<Waiting<A, B>>,
    clerks: usize,
}

struct Waiting<A, B> {
    paper: A,
    /// `None` sends the caller off to do it alone.
    reply: oneshot::Sender<Option<B>>,
}

/// One who works for as long as anything waits.
struct Clerk<A, B> {
    desk: Arc<Desk<A, B>>,
    works: bool,
}

impl<A, B> Default for Desk<A, B> {
    fn default() -> Desk<A, B> {
        Desk { state: Mutex::new(State { waiting: VecDeque::new(), clerks: 0 }) }
    }
}

impl<A, B> Desk<A, B> {
    fn state(&self) -> MutexGuard<'_, State<A, B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A: Paper, B: Send + 'static> Desk<A, B> {
    /// Lays a paper on the desk and waits for what `serve` makes of the group that it gets into; `None` when it has to be done alone.
    async fn ask<F, Fut>(self: &Arc<Self>, paper: A, serve: F) -> Option<B>
    where
        F: Fn(Vec<A>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<Option<B>>> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        if self.lay(Waiting { paper, reply }) {
            tokio::spawn(Clerk { desk: self.clone(), works: true }.work(serve));
        }
        answer.await.ok().flatten()
    }

    /// `true` when another clerk is wanted.
    fn lay(&self, waiting: Waiting<A, B>) -> bool {
        let mut state = self.state();
        state.waiting.push_back(waiting);
        let wanted = state.clerks < CLERKS_MAX;
        state.clerks += usize::from(wanted);
        wanted
    }

    /// The next group.
    fn take(&self) -> Vec<Waiting<A, B>> {
        let mut state = self.state();
        let (mut group, mut later, mut members) = (Vec::new(), VecDeque::new(), HashSet::<MemberId>::new());
        while group.len() < GROUP_MAX
            && let Some(next) = state.waiting.pop_front()
        {
            let free = next.paper.apart().is_none_or(|member| members.insert(member.clone()));
            if free { group.push(next) } else { later.push_back(next) }
        }
        later.append(&mut state.waiting);
        state.waiting = later;
        group
    }
}

impl<A, B> Drop for Clerk<A, B> {
    fn drop(&mut self) {
        if self.works {
            self.desk.state().clerks -= 1;
        }
    }
}

impl<A: Paper, B: Send + 'static> Clerk<A, B> {
    async fn work<F, Fut>(mut self, serve: F)
    where
        F: Fn(Vec<A>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<Option<B>>> + Send + 'static,
    {
        loop {
            let group = self.desk.take();
            if group.is_empty() {
                let mut state = self.desk.state();
                if state.waiting.is_empty() {
                    state.clerks -= 1;
                    self.works = false;
                    return;
                }
                continue;
            }
            let (papers, replies): (Vec<A>, Vec<_>) = group.into_iter().map(|waiting| (waiting.paper, waiting.reply)).unzip();
            for (reply, answer) in replies.into_iter().zip(serve(papers).await) {
                // The caller may have gone away; what was done stands all the same.
                let _ = reply.send(answer);
            }
        }
    }
}

impl Membership {
    /// What a decision is made with, read together with that of others where that can be.
    pub(crate) async fn see(&self, question: Question) -> Result<Seen, Error> {
        if self.kernel().db.backend() == DbBackend::Postgres {
            let membership = self.clone();
            let serve = move |questions: Vec<Question>| {
                let membership = membership.clone();
                async move {
                    // What fails fails alone: everybody hears its own error.
                    let none = || questions.iter().map(|_| None).collect();
                    membership.see_all(&questions).await.map_or_else(|_| none(), |seen| seen.into_iter().map(Some).collect())
                }
            };
            if let Some(seen) = self.looks().ask(question.clone(), serve).await {
                return Ok(seen);
            }
        }
        let seen = self.see_all(&[question]).await?.pop();
        Ok(seen.ok_or(heyuan_kernel::Error::Broken("look at a member"))?)
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
            if let Some(outcome) = self.posts().ask(ready.clone(), serve).await {
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
