//! Two processes of one tenant on one PostgreSQL: whoever works in the background may die or sleep past its lease at any moment.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use heyuan_harness::{Caller, Tenant, TestDatabase, until};

use crate::crash::{EVENTS_A_REQUEST, batch, send_until_the_end, statuses};
use crate::history::holds_once;

/// Another process takes over within this time.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(10);
const BEGINS: &str = "this process is the processor now";
const ENDS: &str = "this process is no longer the processor";
const REQUESTS: usize = 200;

fn said(tenant: &Tenant, line: &str) -> usize {
    tenant.log().matches(line).count()
}

/// Waits until the process says a line once more than `before`.
async fn says(tenant: &Tenant, line: &str, before: usize) {
    until(line, TAKEOVER_LIMIT, || async { (said(tenant, line) > before).then_some(()) }).await;
}

/// Sends [`REQUESTS`] requests; a process that is paused meanwhile answers them when it wakes.
async fn send(app: Caller, prefix: String) -> Vec<String> {
    let mut kept = Vec::new();
    for number in 0..REQUESTS {
        let (ids, body) = batch(&format!("{prefix}-{number}"));
        assert_eq!(statuses(&app.post("/v1/events", &body).await), vec!["ok"; EVENTS_A_REQUEST]);
        kept.extend(ids);
    }
    kept
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_or_paused_past_its_lease_nothing_is_lost_or_applied_twice() {
    let database = TestDatabase::postgres().await;
    let mut first = Tenant::start(&database).await;
    says(&first, BEGINS, 0).await;
    let second = Tenant::start(&database).await;
    let (on_first, on_second) = (first.caller("ingest"), second.caller("ingest"));
    let mut acknowledged = BTreeSet::new();

    // The processor is killed under load; the other one takes over.
    let dying = tokio::spawn(send_until_the_end(on_first.clone(), "pair-dying".into(), Arc::new(AtomicUsize::new(0))));
    let living = tokio::spawn(send(on_second.clone(), "pair-living".into()));
    acknowledged.extend(send(on_first.clone(), "pair-before".into()).await);
    first.kill();
    says(&second, BEGINS, 0).await;
    acknowledged.extend(dying.await.expect("the sender ends with its server"));
    acknowledged.extend(living.await.expect("the other process serves on"));

    // The new processor sleeps past its lease; the first takes over again, and the sleeper finds out when it wakes.
    first.restart().await;
    let sleeping = tokio::spawn(send(on_second, "pair-sleeping".into()));
    second.pause();
    acknowledged.extend(send(on_first.clone(), "pair-meanwhile".into()).await);
    says(&first, BEGINS, 1).await;
    second.wake();
    acknowledged.extend(sleeping.await.expect("the sleeper answers when it wakes"));
    says(&second, ENDS, 0).await;
    acknowledged.extend(send(on_first, "pair-after".into()).await);

    holds_once(&first.caller("admin"), "pair-", &acknowledged).await;
}
