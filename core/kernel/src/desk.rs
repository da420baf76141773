//! Desks: what several ask for at the same time is done together, where each way to the database and each commit costs more than the rows.
//! Whoever comes while others are served is in the next group. Who is alone doesn't wait for company; where the group before was of several, a
//! clerk may let others come for a moment, since those who were answered together come back one by one.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};

/// Those who may wait or be served; beyond it callers wait for a place.
const PLACES: usize = 4096;

/// Where those who ask at the same time wait for each other. Cheap to clone.
pub struct Desk<A, B> {
    shared: Arc<Shared<A, B>>,
}

struct Shared<A, B> {
    limits: Limits,
    places: Semaphore,
    apart: fn(&A) -> Option<&str>,
    state: Mutex<State<A, B>>,
}

/// What bounds a desk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Groups under way at once: while one commits, the next one collects.
    pub clerks: usize,
    /// What one group holds at most: bounds what waits for one another.
    pub group: usize,
    /// How long a clerk lets others come, where the group before was of more than one.
    pub gather: Duration,
}

struct State<A, B> {
    waiting: VecDeque<Waiting<A, B>>,
    clerks: usize,
    /// How many the last group held.
    last: usize,
}

struct Waiting<A, B> {
    paper: A,
    reply: oneshot::Sender<Option<B>>,
}

/// One who serves for as long as anything waits.
struct Clerk<A, B> {
    shared: Arc<Shared<A, B>>,
    works: bool,
}

impl<A, B> Clone for Desk<A, B> {
    fn clone(&self) -> Desk<A, B> {
        Desk { shared: self.shared.clone() }
    }
}

impl<A, B> Shared<A, B> {
    fn state(&self) -> MutexGuard<'_, State<A, B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long to let others come before the next group is taken.
    fn gather(&self) -> Duration {
        let state = self.state();
        let has_company = state.last > 1 && (1..self.limits.group).contains(&state.waiting.len());
        if has_company { self.limits.gather } else { Duration::ZERO }
    }
}

impl<A: Send + 'static, B: Send + 'static> Desk<A, B> {
    /// A desk at which any papers go together.
    pub fn new(limits: Limits) -> Desk<A, B> {
        Desk::keeping_apart(limits, |_| None)
    }

    /// A desk that never takes two papers into one group of which `apart` tells the same.
    pub fn keeping_apart(limits: Limits, apart: fn(&A) -> Option<&str>) -> Desk<A, B> {
        let state = Mutex::new(State { waiting: VecDeque::new(), clerks: 0, last: 0 });
        Desk { shared: Arc::new(Shared { limits, places: Semaphore::new(PLACES), apart, state }) }
    }

    /// Lays a paper on the desk and waits for what `serve` makes of the group that it gets into, an answer for each in its order; `None` when
    /// it has to be done alone.
    pub async fn ask<F, Fut>(&self, paper: A, serve: F) -> Option<B>
    where
        F: Fn(Vec<A>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<Option<B>>> + Send + 'static,
    {
        let _place = self.shared.places.acquire().await.ok()?;
        let (reply, answer) = oneshot::channel();
        if self.lay(Waiting { paper, reply }) {
            tokio::spawn(Clerk { shared: self.shared.clone(), works: true }.work(serve));
        }
        answer.await.ok().flatten()
    }

    /// `true` when another clerk is wanted.
    fn lay(&self, waiting: Waiting<A, B>) -> bool {
        let mut state = self.shared.state();
        state.waiting.push_back(waiting);
        let wanted = state.clerks < self.shared.limits.clerks;
        state.clerks += usize::from(wanted);
        wanted
    }
}

impl<A, B> Drop for Clerk<A, B> {
    fn drop(&mut self) {
        if self.works {
            let mut state = self.shared.state();
            state.clerks -= 1;
            if state.clerks == 0 {
                // It broke off, and nobody is left to serve: who waits is told to go alone.
                state.waiting.clear();
            }
        }
    }
}

impl<A: Send + 'static, B: Send + 'static> Clerk<A, B> {
    async fn work<F, Fut>(mut self, serve: F)
    where
        F: Fn(Vec<A>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<Option<B>>> + Send + 'static,
    {
        loop {
            let gather = self.shared.gather();
            if !gather.is_zero() {
                tokio::time::sleep(gather).await;
            }
            let Some(group) = self.take() else { break };
            let (papers, replies): (Vec<A>, Vec<_>) = group.into_iter().map(|waiting| (waiting.paper, waiting.reply)).unzip();
            for (reply, answer) in replies.into_iter().zip(serve(papers).await) {
                // The caller may have gone away; what was done stands all the same.
                let _ = reply.send(answer);
            }
        }
    }

    /// The next group; where nothing waits the clerk goes, in the same moment, so that nobody relies on it.
    fn take(&mut self) -> Option<Vec<Waiting<A, B>>> {
        let Shared { limits, apart, .. } = &*self.shared;
        let mut state = self.shared.state();
        if state.waiting.is_empty() {
            state.clerks -= 1;
            self.works = false;
            return None;
        }
        let (mut group, mut later, mut taken) = (Vec::new(), VecDeque::new(), HashSet::<String>::new());
        while group.len() < limits.group
            && let Some(next) = state.waiting.pop_front()
        {
            let free = apart(&next.paper).is_none_or(|key| taken.insert(key.to_owned()));
            if free { group.push(next) } else { later.push_back(next) }
        }
        later.append(&mut state.waiting);
        state.waiting = later;
        state.last = group.len();
        Some(group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::join_all;

    /// Serves a group once it is let to; answers each with all of its group.
    fn serve(
        groups: &Arc<Semaphore>,
    ) -> impl Fn(Vec<String>) -> futures::future::BoxFuture<'static, Vec<Option<Vec<String>>>> + Clone + use<> {
        let groups = groups.clone();
        move |group: Vec<String>| {
            let groups = groups.clone();
            Box::pin(async move {
                groups.acquire().await.expect("it is open").forget();
                assert!(!group.contains(&"breaks".to_owned()), "it breaks off");
                group.iter().map(|paper| (paper != "alone").then(|| group.clone())).collect()
            })
        }
    }

    async fn groups(desk: Desk<String, Vec<String>>, papers: &[&str]) -> Vec<Option<Vec<String>>> {
        let gate = Arc::new(Semaphore::new(0));
        let asked = papers.iter().map(|paper| desk.ask((*paper).to_owned(), serve(&gate)));
        // On one thread each has laid its paper down before the first clerk is let on.
        let opened = async { gate.add_permits(papers.len()) };
        futures::join!(join_all(asked), opened).0
    }

    fn group(papers: &[&str]) -> Option<Vec<String>> {
        Some(papers.iter().map(|paper| (*paper).to_owned()).collect())
    }

    fn limits(group: usize) -> Limits {
        Limits { clerks: 1, group, gather: Duration::ZERO }
    }

    #[tokio::test]
    async fn who_comes_while_others_are_served_goes_together() {
        let desk = Desk::new(limits(3));
        let (first, rest) = (group(&["a", "alone", "c"]), group(&["d"]));
        assert_eq!(groups(desk.clone(), &["a", "alone", "c", "d"]).await, [first.clone(), None, first, rest]);
        assert_eq!(groups(desk, &["later"]).await, [group(&["later"])], "the clerk went, and another one comes");
    }

    #[tokio::test]
    async fn what_is_kept_apart_waits_for_the_next_group_in_its_order() {
        let desk = Desk::keeping_apart(limits(8), |paper: &String| paper.get(..1));
        let groups = groups(desk, &["a1", "a2", "b1", "a3", "b2"]).await;
        let (first, second, third) = (group(&["a1", "b1"]), group(&["a2", "b2"]), group(&["a3"]));
        assert_eq!(groups, [first.clone(), second.clone(), first, third, second]);
    }

    #[tokio::test]
    async fn where_the_only_clerk_breaks_off_nobody_waits_for_ever() {
        let desk = Desk::new(limits(2));
        assert_eq!(groups(desk.clone(), &["breaks", "b", "c"]).await, [None, None, None]);
        assert_eq!(groups(desk, &["d"]).await, [group(&["d"])]);
    }

    #[tokio::test]
    async fn a_clerk_that_had_company_lets_others_come() {
        let desk = Desk::new(Limits { gather: Duration::from_millis(500), ..limits(3) });
        assert_eq!(groups(desk.clone(), &["a", "b"]).await, [group(&["a", "b"]), group(&["a", "b"])]);
        let open = Arc::new(Semaphore::new(9));
        let after_the_clerk_came = async {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            desk.ask("d".to_owned(), serve(&open)).await
        };
        let (first, second) = futures::join!(desk.ask("c".to_owned(), serve(&open)), after_the_clerk_came);
        assert_eq!([first, second], [group(&["c", "d"]), group(&["c", "d"])]);
    }
}
