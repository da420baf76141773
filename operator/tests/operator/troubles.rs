//! An API server that is away, refuses, is slow, loses answers, or tells late what has changed: a tenant's life ends the same.

use std::collections::BTreeSet;
use std::time::Duration;

use heyuan_harness::{ApiProxy, Call, OPERATOR_NAMESPACE, Pods, StatementProxy, Trouble, until};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::ground::{Ground, LIMIT, Plane, data_id_of, text_of};
use super::kept::{Kept, soaks};
use super::whole::Life;

/// A life in which every kind of call goes wrong once.
const LIFE_LIMIT: Duration = Duration::from_secs(300);

/// Longer than a call may take in these tests.
const LATE: Duration = Duration::from_secs(2);
/// Longer than anybody waits.
const NEVER: Duration = Duration::from_secs(3600);

/// An operator behind a proxy, in a cluster of its own.
struct Troubled {
    ground: Ground,
    api: ApiProxy,
    kept: Kept,
    _pods: Pods,
}

impl Troubled {
    async fn start(ground: Ground, arguments: &[&str]) -> Self {
        let pods = Pods::play(&ground.admin);
        let api = ApiProxy::to(&ground.plane).await;
        let kept = Kept::run(&ground.admin, ground.operator().await.through(&api), arguments, |_| ());
        Self { ground, api, kept, _pods: pods }
    }

    /// Waits for a call that is like this, from the start on.
    async fn met(&self, what: &str, like: impl Fn(&Call) -> bool) {
        until(what, LIMIT, || async { self.api.calls().iter().any(&like).then_some(()) }).await;
    }
}

/// The lease has troubles of its own, in `leaders`.
fn of_tenants(call: &Call) -> bool {
    !call.resource.starts_with("leases.")
}

/// Says `trouble` of the first call of each verb and kind for which `wanted` holds.
fn first_of_each(wanted: impl Fn(&Call) -> bool, trouble: Trouble) -> impl FnMut(&Call) -> Option<Trouble> {
    let mut met = BTreeSet::new();
    move |call| (of_tenants(call) && wanted(call) && met.insert(format!("{} {}", call.verb, call.resource))).then_some(trouble)
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_fail_once_change_nothing_in_the_end() {
    let ground = Ground::apart().await;
    let database = StatementProxy::to(ground.server.port()).await;
    ground.server_at(database.port()).await;
    let troubled = Troubled::start(ground, &[]).await;
    let write = Call::writes as fn(&Call) -> bool;
    let any = of_tenants as fn(&Call) -> bool;
    let table = [
        ("conflict", write, Trouble::Answer(409)),
        ("busy", any, Trouble::Answer(429)),
        ("lost", any, Trouble::DropAfter),
        // These are much the same as the others, and wait for `make soak`.
        ("broken", any, Trouble::Answer(500)),
        ("away", any, Trouble::Answer(503)),
        ("cut", any, Trouble::DropBefore),
    ];
    for (name, wanted, trouble) in table.into_iter().take(if soaks() { 6 } else { 3 }) {
        troubled.api.clear();
        troubled.api.judge(first_of_each(wanted, trouble));
        database.clear();
        if matches!(trouble, Trouble::DropBefore | Trouble::DropAfter) {
            database.judge(first_of_each(any, trouble));
        }
        Life::live(&troubled.ground, name, LIFE_LIMIT, |_| ()).await;
    }
    assert_eq!(troubled.kept.starts(), 1, "none of that ends the process: {}", troubled.kept.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_that_end_are_begun_again() {
    let troubled = Troubled::start(Ground::apart().await, &[]).await;
    let phases = std::sync::atomic::AtomicU32::new(0);
    Life::live(&troubled.ground, "watched", LIFE_LIMIT, |_| match phases.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 2 {
        0 => troubled.api.cut_watches(),
        _ => troubled.api.expire_watches(),
    })
    .await;
    assert_eq!(troubled.kept.starts(), 1, "{}", troubled.kept.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_comes_back_to_an_operator_that_carries_on() {
    let troubled = Troubled::start(Ground::on(Plane::own().await).await, &[]).await;
    let ground = &troubled.ground;
    ground.tenant("dusk", &json!({})).await;
    troubled.met("the tenant's namespace is being made", |call| call.is("create", "namespaces")).await;
    ground.plane.kill_api_server();
    until("the operator has lost its lease", LIMIT, || async { (troubled.kept.starts() > 1).then_some(()) }).await;
    let log = |words: &str| troubled.kept.log().contains(words).then_some(());
    until("it waits for the API server instead of ending", LIMIT, || async { log("can't be read") }).await;
    let starts = troubled.kept.starts();
    ground.plane.start_api_server_again().await;
    ground.settle("dusk", LIMIT).await;
    assert_eq!(troubled.kept.starts(), starts, "a process that ends again and again is started ever later");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_come_too_late_are_as_good_as_none() {
    let troubled = Troubled::start(Ground::on(Plane::own().await).await, &["--call-seconds", "1"]).await;
    let ground = &troubled.ground;
    let late =
        ["secrets", "namespaces", "rolebindings.rbac.authorization.k8s.io", "jobs.batch", "deployments.apps", "tenants.heyuan.dev/status"];
    troubled.api.judge(first_of_each(move |call| call.writes() && late.contains(&call.resource.as_str()), Trouble::DelayAfter(LATE)));
    ground.tenant("late", &json!({})).await;
    ground.settle("late", LIFE_LIMIT).await;
    let jobs = ground.at("/apis/batch/v1/namespaces/tenant-late/jobs").await.expect("jobs are listed");
    assert!(jobs["items"].as_array().expect("a list").len() <= 1, "{jobs}");
    assert_eq!(troubled.kept.starts(), 1, "{}", troubled.kept.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_noticed() {
    let troubled = Troubled::start(Ground::on(Plane::own().await).await, &["--watch-seconds", "5"]).await;
    let ground = &troubled.ground;
    ground.tenant("loud", &json!({})).await;
    ground.settle("loud", LIMIT).await;
    // The watches that are open never say anything again, and a list has no answer.
    troubled.api.silence_watches();
    troubled.api.at(1, |call| call.is("list", "deployments.apps"), Trouble::DelayAfter(NEVER));
    ground.tenant("still", &json!({})).await;
    ground.settle("still", LIMIT).await;
    assert_eq!(troubled.kept.starts(), 1, "{}", troubled.kept.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_without_an_answer_is_asked_for_again() {
    let ground = Ground::on(Plane::own().await).await;
    let _pods = Pods::play(&ground.admin);
    let api = ApiProxy::to(&ground.plane).await;
    api.at(1, |call| call.is("list", "deployments.apps"), Trouble::DelayAfter(NEVER));
    api.at(1, |call| call.is("list", "tenants.heyuan.dev"), Trouble::DelayAfter(NEVER));
    let kept = Kept::run(&ground.admin, ground.operator().await.through(&api), &["--watch-seconds", "5"], |_| ());
    ground.tenant("asked", &json!({})).await;
    ground.settle("asked", LIMIT).await;
    assert_eq!(kept.starts(), 1, "{}", kept.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_late_makes_nothing_twice() {
    let troubled = Troubled::start(Ground::on(Plane::own().await).await, &[]).await;
    let ground = &troubled.ground;
    ground.tenant("before", &json!({})).await;
    ground.settle("before", LIMIT).await;
    let made = |what: &str| troubled.api.calls().iter().filter(|call| call.is("create", what)).count();
    let (namespaces, jobs) = (made("namespaces"), made("jobs.batch"));
    ground.tenant("stale", &json!({ "hosts": ["stale.example.com"] })).await;
    until("the namespace is made", LIMIT, || async { (made("namespaces") > namespaces).then_some(()) }).await;
    troubled.api.hold_watches(true);
    until("the job is made without a word from a watch", LIMIT, || async { (made("jobs.batch") > jobs).then_some(()) }).await;
    // It looks again and again meanwhile, at what it has written itself.
    for note in ["1", "2", "3"] {
        ground.patch("stale", &json!({ "metadata": { "annotations": { "example.com/note": note } } })).await;
    }
    troubled.api.hold_watches(false);
    ground.settle("stale", LIMIT).await;
    assert_eq!((made("namespaces"), made("jobs.batch")), (namespaces + 1, jobs + 1), "each is made once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_changed_before_the_data_went_saves_it_though_no_watch_tells() {
    let troubled = Troubled::start(Ground::on(Plane::own().await).await, &[]).await;
    let ground = &troubled.ground;
    ground.tenant("spared", &json!({ "deletion": { "policy": "Delete", "graceSeconds": 0 } })).await;
    let data_id = data_id_of(&ground.settle("spared", LIMIT).await);
    // It has to wait for the end of the grace, which ends half a minute from here; nothing else wakes it.
    let status = ground.look("spared").await.expect("it is there")["status"].clone();
    let seen_at: Timestamp = status["deleteSeenAt"].as_str().and_then(|text| text.parse().ok()).expect("a time");
    let grace = Timestamp::now().duration_since(seen_at).as_secs() + 30;
    ground.change("spared", json!({ "deletion": { "graceSeconds": grace } })).await;
    ground.settle("spared", LIMIT).await;
    ground.admin.kubectl(&["delete", "tenant", "spared", "--wait=false"]).await;
    ground.wait("spared", "Deleting", "True DeletionWaits").await;
    troubled.api.hold_watches(true);
    ground.patch("spared", &json!({ "spec": { "deletion": { "policy": "Retain" } } })).await;
    let secret = format!("tenant-data-{data_id}");
    until("the data has been dealt with", LIMIT, || async {
        let master = ground.at(&format!("/api/v1/namespaces/{OPERATOR_NAMESPACE}/secrets/{secret}")).await;
        let Some(master) = master else { return Some(()) };
        let record: Value = serde_json::from_str(&text_of(&master, "record")).expect("the record is JSON");
        (record["databaseMade"] == false).then_some(())
    })
    .await;
    assert_eq!(ground.databases(&data_id), "1", "the data is retained: {}", troubled.kept.log());
    troubled.api.hold_watches(false);
    ground.gone("spared").await;
    assert_eq!(ground.databases(&data_id), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_older_than_the_news_does_not_bring_back_what_is_gone() {
    let troubled = Troubled::start(Ground::on(Plane::own().await).await, &[]).await;
    let ground = &troubled.ground;
    ground.tenant("ghost", &json!({})).await;
    ground.settle("ghost", LIMIT).await;
    let service = async || ground.get_in("ghost", "service", "heyuan").await;
    let first = service().await.expect("a Service")["metadata"]["uid"].clone();
    // Somebody edits the Service; it is put right, and before the operator hears the answer, the Service is deleted.
    let of_service = |call: &Call| call.verb == "patch" && call.resource == "services" && call.name.as_deref() == Some("heyuan");
    let puts = || troubled.api.calls().iter().filter(|call| of_service(call)).count();
    let before = puts();
    troubled.api.at(1, of_service, Trouble::DelayAfter(LATE));
    let edit = json!({ "spec": { "selector": { "heyuan.dev/tenant": "somebody" } } }).to_string();
    ground.admin.kubectl(&["patch", "service", "heyuan", "-n", "tenant-ghost", "--type=merge", "-p", &edit]).await;
    until("it is being put right", LIMIT, || async { (puts() > before).then_some(()) }).await;
    until("it is right", LIMIT, || async { (service().await?["spec"]["selector"]["heyuan.dev/tenant"] == "ghost").then_some(()) }).await;
    ground.admin.kubectl(&["delete", "service", "heyuan", "-n", "tenant-ghost"]).await;
    until("it is made again", LIMIT, || async { (service().await?["metadata"]["uid"] != first).then_some(()) }).await;
}
