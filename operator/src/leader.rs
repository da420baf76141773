//! One process leads, by a lease. Whoever loses it ends: half a thought on old knowledge is worse than a start anew.
//!
//! A leader stops by its own clock, a third of the lease before anybody else may begin. What only a leader does runs under its `Reign`,
//! which looks at the clock whenever that goes on: a process that was stopped in the middle of a walk and wakes up later does not finish it.
//! Others count a lease from when they saw it renewed, so the clocks of two machines are never compared. Every write of the lease is on the
//! version that was read.

use crate::kubernetes::is_status;
use crate::name::FIELD_MANAGER;
use anyhow::{Context, anyhow};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, Error, ResourceExt};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The lease's name.
const LEASE: &str = "heyuan-operator";
/// Tries to renew in a lease's time; a leader has given up after two thirds of them.
const TRIES: u32 = 6;
/// How often a renewal is tried on the version that somebody else's write has left.
const VERSIONS: u32 = 3;

/// Until when this process leads, unless it renews its lease.
#[derive(Debug, Clone)]
pub(crate) struct Reign(Arc<Clock>);

#[derive(Debug)]
struct Clock {
    began: Instant,
    /// Milliseconds after `began`.
    until_ms: AtomicU64,
}

impl Reign {
    fn new() -> Reign {
        Reign(Arc::new(Clock { began: Instant::now(), until_ms: AtomicU64::new(0) }))
    }

    fn extend(&self, until: Instant) {
        let until = until.saturating_duration_since(self.0.began);
        self.0.until_ms.store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    fn end(&self) {
        self.0.until_ms.store(0, Ordering::SeqCst);
    }

    /// What is left of it.
    fn left(&self) -> Duration {
        Duration::from_millis(self.0.until_ms.load(Ordering::SeqCst)).saturating_sub(self.0.began.elapsed())
    }

    /// Does something as long as this process leads; then it stands still, wherever it is.
    pub(crate) async fn bound<T>(self, what: impl Future<Output = T>) -> T {
        let mut what = pin!(what);
        std::future::poll_fn(|waker| if self.left().is_zero() { Poll::Pending } else { what.as_mut().poll(waker) }).await
    }
}

/// The lease, held; it is renewed on a thread of its own, however much there is to do on the others.
pub(crate) struct Lease {
    reign: Reign,
    lost: oneshot::Receiver<anyhow::Error>,
    /// Asks for the lease to be given up, and says where to tell of it.
    give_up: Option<oneshot::Sender<oneshot::Sender<()>>>,
}

/// Who takes the lease and renews it.
struct Keeper {
    api: Api<Object>,
    identity: String,
    seconds: u64,
    reign: Reign,
    /// As it was written or read last.
    object: Object,
}

/// What became of a renewal.
enum Renewal {
    Done,
    /// Somebody else leads.
    Taken(String),
}

/// Waits until this process leads.
///
/// # Errors
/// There is no way to the API server, or no thread to be had.
pub(crate) async fn lead(namespace: &str, seconds: u64) -> anyhow::Result<Lease> {
    let (namespace, (leads, led)) = (namespace.to_owned(), oneshot::channel());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime for the lease")?;
    let keep = move || runtime.block_on(keep(namespace, seconds, leads));
    std::thread::Builder::new().name("lease".to_owned()).spawn(keep).context("no thread for the lease")?;
    led.await.context("the thread of the lease has ended")?
}

/// Takes the lease, says so, and renews it until it is lost or given up.
async fn keep(namespace: String, seconds: u64, leads: oneshot::Sender<anyhow::Result<Lease>>) {
    let silence = u32::try_from(seconds).unwrap_or(u32::MAX);
    // A way of its own: calls of a client are made where it was set up.
    let client = match crate::kubernetes::connect(silence).await {
        Ok(client) => client,
        Err(error) => return drop(leads.send(Err(error))),
    };
    let mut keeper = take(client, &namespace, seconds).await;
    let (give_up, given_up) = oneshot::channel::<oneshot::Sender<()>>();
    let (loses, lost) = oneshot::channel();
    // Whoever does not listen any more is ending already.
    let _ = leads.send(Ok(Lease { reign: keeper.reign.clone(), lost, give_up: Some(give_up) }));
    tokio::select! {
        error = keeper.lost() => {
            let _ = loses.send(error);
        }
        Ok(tell) = given_up => {
            keeper.release().await;
            let _ = tell.send(());
        }
    }
}

impl Lease {
    pub(crate) fn reign(&self) -> Reign {
        self.reign.clone()
    }

    /// Ends when the lease is lost.
    pub(crate) async fn lost(&mut self) -> anyhow::Error {
        let lost = (&mut self.lost).await;
        self.reign.end();
        lost.unwrap_or_else(|_| anyhow!("the thread of the lease has ended"))
    }

    /// Gives the lease up, so that the next one need not wait for it to run out. What is bound to it stands still from here on.
    pub(crate) async fn release(&mut self) {
        self.reign.end();
        let (tell, told) = oneshot::channel();
        if let Some(give_up) = self.give_up.take()
            && give_up.send(tell).is_ok()
        {
            let _ = told.await;
        }
    }
}

/// Waits until the lease is this process's. Where it can't be read or taken, that is tried again.
async fn take(client: Client, namespace: &str, seconds: u64) -> Keeper {
    let metadata = ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() };
    let object = Object { metadata, ..Object::default() };
    let api = Api::namespaced(client, namespace);
    let mut lease = Keeper { api, identity: identity(), seconds, reign: Reign::new(), object };
    let mut seen: Option<(String, Instant)> = None;
    tracing::info!("waiting for the lease {namespace}/{LEASE}");
    loop {
        match lease.in_time(lease.duration(), lease.try_take(&mut seen)).await {
            Ok(Some((object, until))) => {
                lease.object = object;
                lease.reign.extend(until);
                return lease;
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the lease can't be read or taken; that is tried again"),
        }
        tokio::time::sleep(lease.pause()).await;
    }
}

/// The pod's name, or a name of chance.
fn identity() -> String {
    std::env::var("HOSTNAME").unwrap_or_else(|_| "operator".to_owned()) + "-" + &hex::encode(rand::random::<[u8; 4]>())
}

fn how() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

impl Keeper {
    fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    fn pause(&self) -> Duration {
        self.duration() / TRIES
    }

    /// Until when a renewal lasts that was sent at this moment: a third of the lease is for what is on its way when it ends.
    fn lasts(&self, sent: Instant) -> Instant {
        sent + self.duration() * 2 / 3
    }

    async fn in_time<T>(&self, limit: Duration, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match tokio::time::timeout(limit, call).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::Service(format!("no answer within {} ms", limit.as_millis()).into())),
        }
    }

    /// Takes the lease if it is nobody's, or was seen unchanged for as long as its holder said.
    async fn try_take(&self, seen: &mut Option<(String, Instant)>) -> Result<Option<(Object, Instant)>, Error> {
        let Some(found) = self.api.get_opt(LEASE).await? else {
            let sent = Instant::now();
            let mine = self.renewed(&self.object, true);
            return mine_or_not(self.api.create(&how(), &mine).await).map(|made| made.map(|made| (made, self.lasts(sent))));
        };
        let version = found.resource_version().unwrap_or_default();
        let since = match seen {
            Some((known, since)) if *known == version => *since,
            _ => seen.insert((version, Instant::now())).1,
        };
        let spec = found.spec.as_ref();
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        let lasts = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|seconds| u64::try_from(seconds).ok());
        if !holder.is_empty() && since.elapsed() < lasts.map_or(self.duration(), Duration::from_secs) {
            return Ok(None);
        }
        let sent = Instant::now();
        let mine = self.renewed(&found, true);
        mine_or_not(self.api.replace(LEASE, &how(), &mine).await).map(|taken| taken.map(|taken| (taken, self.lasts(sent))))
    }

    /// The lease with this process as its holder from now on.
    fn renewed(&self, before: &Object, taking: bool) -> Object {
        let now = MicroTime(Timestamp::now());
        let old = before.spec.clone().unwrap_or_default();
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.seconds).ok(),
            renew_time: Some(now.clone()),
            acquire_time: if taking { Some(now) } else { old.acquire_time },
            lease_transitions: Some(old.lease_transitions.unwrap_or_default().saturating_add(i32::from(taking))),
            ..LeaseSpec::default()
        };
        Object { spec: Some(spec), ..before.clone() }
    }

    async fn renew(&mut self) -> Result<Renewal, Error> {
        for _ in 0..VERSIONS {
            match self.api.replace(LEASE, &how(), &self.renewed(&self.object, false)).await {
                Ok(written) => {
                    self.object = written;
                    return Ok(Renewal::Done);
                }
                Err(error) if is_status(&error, 409) => self.object = self.api.get(LEASE).await?,
                Err(error) => return Err(error),
            }
            let holder = self.object.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
            if holder != self.identity {
                return Ok(Renewal::Taken(holder));
            }
        }
        Err(Error::Service("it was changed by others at each try".into()))
    }

    /// Renews the lease, and ends when it is lost.
    async fn lost(&mut self) -> anyhow::Error {
        loop {
            tokio::time::sleep(self.pause()).await;
            let left = self.reign.left();
            if left.is_zero() {
                return anyhow!("the lease could not be renewed in time; the process ends, and starts anew without old knowledge");
            }
            let (sent, limit) = (Instant::now(), left.min(self.duration() / 3));
            let renewal = match tokio::time::timeout(limit, self.renew()).await {
                Ok(renewal) => renewal,
                Err(_) => Err(Error::Service(format!("no answer within {} ms", limit.as_millis()).into())),
            };
            match renewal {
                Ok(Renewal::Done) => self.reign.extend(self.lasts(sent)),
                Ok(Renewal::Taken(holder)) => {
                    self.reign.end();
                    return anyhow!("the lease was lost to {holder:?}; the process ends, and starts anew without old knowledge");
                }
                // Without the object nobody holds it, and whoever makes it next leads.
                Err(error) if is_status(&error, 404) => {
                    self.reign.end();
                    return anyhow!("the lease was deleted; the process ends, and starts anew without old knowledge");
                }
                Err(error) => tracing::warn!(%error, "the lease could not be renewed"),
            }
        }
    }

    async fn release(&self) {
        let mut free = self.object.clone();
        free.spec = Some(LeaseSpec { lease_duration_seconds: Some(1), ..free.spec.unwrap_or_default() });
        if let Some(spec) = &mut free.spec {
            spec.holder_identity = None;
        }
        if let Err(error) = self.in_time(self.duration() / 3, self.api.replace(LEASE, &how(), &free)).await {
            tracing::warn!(%error, "the lease could not be given up; it runs out by itself");
        }
    }
}

/// Somebody else was quicker where the version has changed, or the object has come.
fn mine_or_not(answer: Result<Object, Error>) -> Result<Option<Object>, Error> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(error) if is_status(&error, 409) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_bound_goes_on_as_long_as_the_reign_and_no_further() {
        let reign = Reign::new();
        reign.extend(Instant::now() + Duration::from_secs(3600));
        assert_eq!(reign.clone().bound(async { 1 }).await, 1);
        reign.end();
        let mut bound = pin!(reign.bound(async { 1 }));
        assert!(futures::poll!(bound.as_mut()).is_pending());
    }
}
