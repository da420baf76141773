//! The operator is killed before and after every call of a tenant's whole life; it ends the same wherever that was.

use std::time::Duration;

use heyuan_harness::until;
use heyuan_harness::{ApiProxy, Call, OPERATOR_NAMESPACE, Operator, Pods, Trouble};
use serde_json::json;
use tokio::sync::Mutex;

use super::ground::{Ground, Plane};

/// A life in which the operator starts a hundred times.
const LIMIT: Duration = Duration::from_secs(900);

/// Makes, changes, gives a new password and deletes; answers the data id when the tenant is gone.
async fn life(ground: &Ground, name: &str, alive: &impl AsyncFn()) -> String {
    ground.tenant(name, &json!({ "hosts": [format!("{name}.example.com")], "deletion": { "policy": "Delete", "graceSeconds": 0 } })).await;
    settle(ground, name, alive).await;
    ground.change(name, json!({ "release": "2", "replicas": 2 })).await;
    settle(ground, name, alive).await;
    ground.admin.kubectl(&["annotate", "tenant", name, "heyuan.dev/rotate=1"]).await;
    until("the rotation is over", LIMIT, || async {
        alive().await;
        let data_id = ground.get("tenant", name).await?["status"]["dataId"].as_str()?.to_owned();
        let open = ground.sql(&format!("select count(*) from pg_roles where rolname = 'heyuan_{data_id}_b' and rolcanlogin"));
        let old = ground.sql(&format!("select count(*) from pg_roles where rolname = 'heyuan_{data_id}_a' and rolcanlogin"));
        (open == "1" && old == "0").then_some(())
    })
    .await;
    settle(ground, name, alive).await;
    let tenant = ground.get("tenant", name).await.expect("it is there");
    ground.admin.kubectl(&["delete", "tenant", name, "--wait=false"]).await;
    until("the tenant is gone", LIMIT, || async {
        alive().await;
        ground.get("tenant", name).await.is_none().then_some(())
    })
    .await;
    tenant["status"]["dataId"].as_str().expect("a data id").to_owned()
}

async fn settle(ground: &Ground, name: &str, alive: &impl AsyncFn()) {
    until(&format!("tenant {name} is ready"), LIMIT, || async {
        alive().await;
        let tenant = ground.get("tenant", name).await?;
        let status = &tenant["status"];
        (status["state"] == "Ready" && status["observedGeneration"] == tenant["metadata"]["generation"]).then_some(())
    })
    .await;
}

/// Whether a call changes something of a tenant's: the lease is renewed and events are told whatever happens.
fn writes_something(call: &Call) -> bool {
    call.writes() && !call.resource.starts_with("leases.") && !call.resource.starts_with("events.")
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_call_it_ends_the_same() {
    let ground = Ground::on(Plane::own().await).await;
    let _pods = Pods::play(&ground.admin);
    let access = ground.operator().await;
    let proxy = ApiProxy::to(&ground.plane).await;
    let through = access.through(&proxy);

    // Once undisturbed, to know the calls.
    let operator = Operator::start(&through, &[]);
    life(&ground, "calm", &async || assert!(!operator.has_ended(), "{}", operator.log())).await;
    let calls = proxy.calls();
    operator.kill();
    drop(operator);
    let writes: Vec<_> = calls.iter().filter(|call| writes_something(call)).collect();
    assert!(writes.len() > 30, "{writes:?}");

    // Then killed at every write of a life: once before each is taken, once after each was. A process makes one write and dies at the next,
    // or with its first.
    for (name, nth) in [("before", 2), ("after", 1)] {
        let current = Mutex::new((None::<Operator>, 0));
        let alive = async || {
            let mut current = current.lock().await;
            if current.0.as_ref().is_some_and(|operator| !operator.has_ended()) {
                return;
            }
            drop(current.0.take());
            // The dead leader's lease would only be waited for.
            let _ = ground.admin.try_kubectl(&["delete", "lease", "--all", "-n", OPERATOR_NAMESPACE]).await;
            let started = Operator::start(&through, &[]);
            let id = started.id();
            proxy.clear();
            proxy.at(nth, writes_something, if name == "before" { Trouble::KillBefore(id) } else { Trouble::KillAfter(id) });
            *current = (Some(started), current.1 + 1);
        };
        alive().await;
        let data_id = life(&ground, name, &alive).await;
        let starts = current.lock().await.1;
        proxy.clear();
        assert!(starts > writes.len() / 2, "{starts} processes for {} writes", writes.len());
        let databases = ground.sql(&format!("select count(*) from pg_database where datname = 'heyuan_{data_id}'"));
        let roles = ground.sql(&format!("select count(*) from pg_roles where rolname like 'heyuan_{data_id}%'"));
        assert_eq!((databases.as_str(), roles.as_str()), ("0", "0"), "everything of the tenant's is removed");
        let secrets = ground.admin.kubectl(&["get", "secrets", "-n", OPERATOR_NAMESPACE, "-o", "name"]).await;
        assert!(!secrets.contains("tenant-data-"), "no key outlives data that was removed: {secrets}");
        assert!(ground.get("namespace", &format!("tenant-{name}")).await.is_none());
    }
}
