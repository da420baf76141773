//! Two operators: one leads, and whoever leads no more has stopped before the other begins.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use heyuan_harness::{ApiProxy, Call, Operator, Pods, Trouble, until};
use serde_json::json;

use super::ground::{Ground, LIMIT, Plane, data_id_of};

/// Shorter than it is by default: each of these tests waits for leases to run out.
const LEASE_SECONDS: &str = "12";
/// Longer than anybody waits.
const NEVER: Duration = Duration::from_secs(3600);

/// One of two operators, with a way of its own to the API server.
struct Candidate {
    api: ApiProxy,
    operator: Arc<Operator>,
}

impl Candidate {
    async fn start(ground: &Ground) -> Self {
        let api = ApiProxy::to(&ground.plane).await;
        let operator = Arc::new(Operator::start(&ground.operator().await.through(&api), &["--lease-seconds", LEASE_SECONDS]));
        Self { api, operator }
    }

    async fn leads(&self) {
        until("it leads", LIMIT, || async { (self.operator.metric("heyuan_operator_leading", "").await > 0.0).then_some(()) }).await;
    }

    async fn has_ended(&self) {
        until("the old leader has ended", LIMIT, || async { self.operator.has_ended().then_some(()) }).await;
    }

    /// Counts what it writes while `begun` is true; `begins` sets that at its first write.
    fn counted(&self, begun: &Arc<AtomicBool>, begins: bool) -> Arc<AtomicU32> {
        let (begun, count) = (begun.clone(), Arc::new(AtomicU32::new(0)));
        let writes = count.clone();
        self.api.judge(move |call| {
            if call.writes() && !of_lease(call) {
                begun.fetch_or(begins, Ordering::SeqCst);
                writes.fetch_add(u32::from(begun.load(Ordering::SeqCst)), Ordering::SeqCst);
            }
            None
        });
        count
    }
}

fn of_lease(call: &Call) -> bool {
    call.resource.starts_with("leases.")
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_from_its_lease_a_leader_stops_before_another_begins() {
    let ground = Ground::on(Plane::own().await).await;
    let _pods = Pods::play(&ground.admin);
    let mut leader = Candidate::start(&ground).await;
    leader.leads().await;
    ground.tenant("twin", &json!({})).await;
    ground.settle("twin", LIMIT).await;
    // The lease is not reached at once, or nobody answers, or the answer is lost.
    for trouble in [Trouble::DropBefore, Trouble::Delay(NEVER), Trouble::DelayAfter(NEVER)] {
        let next = Candidate::start(&ground).await;
        until("the other one waits", LIMIT, || async { next.api.calls().iter().any(of_lease).then_some(()) }).await;
        let begun = Arc::new(AtomicBool::new(false));
        let (of_old, of_next) = (leader.counted(&begun, false), next.counted(&begun, true));
        leader.api.always(of_lease, trouble);
        let changes = AtomicU32::new(0);
        until("the other one has begun", LIMIT, || async {
            // Always something to do, for whoever leads.
            let change = changes.fetch_add(1, Ordering::SeqCst);
            ground.patch("twin", &json!({ "spec": { "displayName": format!("Twin {change}") } })).await;
            (of_next.load(Ordering::SeqCst) > 3).then_some(())
        })
        .await;
        leader.has_ended().await;
        assert_eq!(of_old.load(Ordering::SeqCst), 0, "{trouble:?}: the old leader wrote beside the new one: {}", leader.operator.log());
        leader = next;
        ground.settle("twin", LIMIT).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_slept_wakes_up_to_nothing() {
    let ground = Ground::on(Plane::own().await).await;
    let _pods = Pods::play(&ground.admin);
    let leader = Candidate::start(&ground).await;
    leader.leads().await;
    ground.tenant("drowsy", &json!({})).await;
    ground.settle("drowsy", LIMIT).await;
    // It falls asleep in the middle of a walk: a secret was asked for, and the answer lies before it when it wakes up.
    sleeps_at(&leader, |call| call.is("get", "secrets"));
    ground.patch("drowsy", &json!({ "spec": { "replicas": 2 } })).await;
    let next = Candidate::start(&ground).await;
    next.leads().await;
    ground.settle("drowsy", LIMIT).await;
    // What it last saw is no longer what is wished.
    ground.patch("drowsy", &json!({ "spec": { "replicas": 3 } })).await;
    ground.settle("drowsy", LIMIT).await;
    leader.operator.wake();
    leader.has_ended().await;
    // Calls that were on their way when it fell asleep still arrive. They say what was wished then; the new leader's word stays.
    ground.settle("drowsy", LIMIT).await;
    let replicas = ["get", "deployment", "heyuan", "-n", "tenant-drowsy", "-o", "jsonpath={.spec.replicas}"];
    assert_eq!(ground.admin.kubectl(&replicas).await, "3");
}

/// The leader is stopped when it makes such a call; the call is answered all the same.
fn sleeps_at(leader: &Candidate, when: impl Fn(&Call) -> bool + Send + 'static) {
    let (operator, asleep) = (leader.operator.clone(), AtomicBool::new(false));
    leader.api.judge(move |call| {
        if when(call) && !asleep.swap(true, Ordering::SeqCst) {
            operator.pause();
        }
        None
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_slept_takes_no_data_away_that_another_has_retained() {
    let ground = Ground::on(Plane::own().await).await;
    let _pods = Pods::play(&ground.admin);
    let leader = Candidate::start(&ground).await;
    leader.leads().await;
    ground.tenant("precious", &json!({ "deletion": { "policy": "Delete", "graceSeconds": 0 } })).await;
    let data_id = data_id_of(&ground.settle("precious", LIMIT).await);
    // It has decided to remove the database, asks for the way to the server, and falls asleep.
    sleeps_at(&leader, |call| call.is("get", "secrets") && call.name.as_deref() == Some("main-admin"));
    ground.admin.kubectl(&["delete", "tenant", "precious", "--wait=false"]).await;
    until("it sleeps", LIMIT, || async {
        leader
            .api
            .calls()
            .iter()
            .rev()
            .find(|call| call.is("get", "secrets"))?
            .name
            .as_deref()
            .filter(|name| *name == "main-admin")
            .map(drop)
    })
    .await;
    ground.patch("precious", &json!({ "spec": { "deletion": { "policy": "Retain" } } })).await;
    let next = Candidate::start(&ground).await;
    next.leads().await;
    ground.gone("precious").await;
    assert_eq!(ground.databases(&data_id), "1", "it is retained");
    leader.operator.wake();
    leader.has_ended().await;
    assert_eq!(ground.databases(&data_id), "1", "and stays so: {}", leader.operator.log());
}
