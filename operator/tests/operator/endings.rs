//! How tenants end when somebody else has been there before: their namespace, their class, their server or the operator are gone.

use heyuan_harness::{OPERATOR_NAMESPACE, Operator, Pods, install_operator, uninstall_operator, until};
use serde_json::{Value, json};

use super::ground::{Ground, LIMIT, Plane, Running, condition_of, data_id_of, psql, text_of};

/// Whether a config map of this kind is written down for some data.
async fn is_recorded(ground: &Ground, what: &str, data_id: &str) -> bool {
    ground.at(&format!("/api/v1/namespaces/{OPERATOR_NAMESPACE}/configmaps/{what}-{data_id}")).await.is_some()
}

async fn has_keys(ground: &Ground, data_id: &str) -> bool {
    ground.at(&format!("/api/v1/namespaces/{OPERATOR_NAMESPACE}/secrets/tenant-data-{data_id}")).await.is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_deletion_ends_as_the_policy_says() {
    let running = Running::start(&[]).await;
    let ground = &running.ground;
    let ways = ["foreground", "background", "orphan"];
    let policies = [("Retain", "1"), ("Delete", "0")];
    let name = |way: &str, policy: &str| format!("{way}-{}", policy.to_lowercase());
    for (way, policy) in ways.iter().flat_map(|way| policies.map(|(policy, _)| (way, policy))) {
        ground.tenant(&name(way, policy), &json!({ "deletion": { "policy": policy, "graceSeconds": 0 } })).await;
    }
    let mut data = Vec::new();
    for way in ways {
        for (policy, databases) in policies {
            let name = name(way, policy);
            data.push((name.clone(), databases, data_id_of(&ground.settle(&name, LIMIT).await)));
            ground.admin.kubectl(&["delete", "tenant", &name, "--wait=false", &format!("--cascade={way}")]).await;
        }
    }
    for (name, databases, data_id) in data {
        ground.gone(&name).await;
        assert_eq!(ground.databases(&data_id), databases, "{name}");
        assert_eq!(is_recorded(ground, "retained", &data_id).await, databases == "1", "{name}");
        assert_eq!(has_keys(ground, &data_id).await, databases == "1", "{name}");
        assert!(ground.get("namespace", &format!("tenant-{name}")).await.is_none(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_somebody_deletes_is_made_again_or_let_go() {
    let running = Running::start(&[]).await;
    let ground = &running.ground;
    ground.tenant("homeless", &json!({ "deletion": { "policy": "Delete", "graceSeconds": 0 } })).await;
    let data_id = data_id_of(&ground.settle("homeless", LIMIT).await);
    let secret = async || ground.get_in("homeless", "secret", "heyuan").await;
    let before = secret().await.expect("the tenant's secret");
    let url = text_of(&before, "database-url");
    psql(&url, "create table kept (n int); insert into kept values (42)").expect("the tenant may");
    ground.admin.kubectl(&["delete", "namespace", "tenant-homeless", "--wait=false"]).await;
    let after = until("the secret is written again", LIMIT, || async {
        let now = secret().await?;
        (now["metadata"]["uid"] != before["metadata"]["uid"]).then_some(now)
    })
    .await;
    assert_eq!(after["data"], before["data"], "with the same keys");
    ground.settle("homeless", LIMIT).await;
    assert_eq!(psql(&url, "select n from kept"), Ok("42".to_owned()));

    // Somebody deletes it again, something in it does not go, and the tenant is deleted too.
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "stuck", "namespace": "tenant-homeless", "finalizers": ["example.com/never"] },
    });
    ground.admin.apply(&map.to_string()).await.expect("the config map is taken");
    ground.admin.kubectl(&["delete", "namespace", "tenant-homeless", "--wait=false"]).await;
    ground.wait("homeless", "NamespaceReady", "False NamespaceTerminating").await;
    ground.admin.kubectl(&["delete", "tenant", "homeless", "--wait=false"]).await;
    until("it says what it waits for", LIMIT, || async {
        let tenant = ground.look("homeless").await?;
        let deleting = condition_of(&tenant, "Deleting")?["message"].as_str()?.to_owned();
        deleting.contains("namespace tenant-homeless is being deleted").then_some(())
    })
    .await;
    let free = json!({ "metadata": { "finalizers": null } }).to_string();
    ground.admin.kubectl(&["patch", "configmap", "stuck", "-n", "tenant-homeless", "--type=merge", "-p", &free]).await;
    ground.gone("homeless").await;
    assert_eq!(ground.databases(&data_id), "0");
    assert!(!has_keys(ground, &data_id).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_that_goes_before_its_tenants_takes_nothing_with_it() {
    let running = Running::start(&[]).await;
    let ground = &running.ground;
    let mut data = Vec::new();
    for (name, policy) in [("kept", "Retain"), ("removed", "Delete")] {
        ground.tenant(name, &json!({ "deletion": { "policy": policy, "graceSeconds": 0 } })).await;
        data.push(data_id_of(&ground.settle(name, LIMIT).await));
    }
    ground.admin.kubectl(&["delete", "tenantclass", "default"]).await;
    for name in ["kept", "removed"] {
        let tenant = ground.wait(name, "ClassResolved", "False ClassMissing").await;
        assert_eq!(condition_of(&tenant, "Serving").expect("Serving")["status"], "True", "it serves on: {tenant}");
        ground.admin.kubectl(&["delete", "tenant", name, "--wait=false"]).await;
        ground.gone(name).await;
    }
    assert_eq!([ground.databases(&data[0]), ground.databases(&data[1])], ["1", "0"]);
    assert!(
        ground
            .sql(&format!("select string_agg(rolcanlogin::text, ',') from pg_roles where rolname ~ '^heyuan_{}'", data[0]))
            .find("true")
            .is_none()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_for_good_holds_nobody_for_ever() {
    let ground = Ground::apart().await;
    let _pods = Pods::play(&ground.admin);
    let operator = Operator::start(&ground.operator().await, &["--leftover-seconds", "2"]);
    let mut data = Vec::new();
    for (name, policy) in [("kept", "Retain"), ("lost", "Delete"), ("back", "Delete")] {
        ground.tenant(name, &json!({ "deletion": { "policy": policy, "graceSeconds": 0 } })).await;
        data.push(data_id_of(&ground.settle(name, LIMIT).await));
    }
    ground.server.crash();
    for (name, data_id) in ["kept", "lost", "back"].iter().zip(&data) {
        ground.admin.kubectl(&["delete", "tenant", name, "--wait=false"]).await;
        ground.gone(name).await;
        assert!(is_recorded(&ground, "leftover", data_id).await && has_keys(&ground, data_id).await, "{name}: it is written down");
    }
    // The manual's way out: who gives the server up removes the record and the keys.
    for what in ["configmap/leftover", "secret/tenant-data"] {
        ground.admin.kubectl(&["delete", &format!("{what}-{}", data[1]), "-n", OPERATOR_NAMESPACE]).await;
    }
    // Nobody else is held up by it meanwhile.
    ground.tenant("elsewhere", &json!({ "database": { "managed": null, "embedded": {} } })).await;
    ground.settle("elsewhere", LIMIT).await;
    // It was not gone for good after all: what the others left there is dealt with, and what was given up stays as it is.
    ground.server.start_again();
    for data_id in [&data[0], &data[2]] {
        until("the leftover is dealt with", LIMIT, || async { (!is_recorded(&ground, "leftover", data_id).await).then_some(()) }).await;
    }
    assert_eq!([0, 1, 2].map(|one| ground.databases(&data[one])), ["1", "1", "0"], "{}", operator.log());
    assert!(is_recorded(&ground, "retained", &data[0]).await && has_keys(&ground, &data[0]).await, "it can be adopted");
    assert!(!has_keys(&ground, &data[1]).await && !is_recorded(&ground, "leftover", &data[1]).await, "nothing comes back");
    assert!(!has_keys(&ground, &data[2]).await, "its keys go with it");

    // What was once left over is adopted and removed like everything else.
    ground.tenant("heir", &json!({ "adopt": data[0], "deletion": { "policy": "Delete", "graceSeconds": 0 } })).await;
    ground.settle("heir", LIMIT).await;
    ground.admin.kubectl(&["delete", "tenant", "heir", "--wait=false"]).await;
    ground.gone("heir").await;
    assert_eq!((ground.databases(&data[0]).as_str(), has_keys(&ground, &data[0]).await), ("0", false), "no key outlives its data");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_operator_tenants_stay_and_with_it_they_go_on() {
    let ground = Ground::on(Plane::own().await).await;
    let _pods = Pods::play(&ground.admin);
    let operator = Operator::start(&ground.operator().await, &[]);
    for name in ["stays", "leaves"] {
        ground.tenant(name, &json!({ "hosts": [format!("{name}.example.com")] })).await;
        ground.settle(name, LIMIT).await;
    }
    let children = async || {
        let mut seen = Vec::new();
        for (kind, name) in [("deployment", "heyuan"), ("service", "heyuan"), ("secret", "heyuan"), ("ingress", "heyuan")] {
            let child = ground.get_in("stays", kind, name).await.expect("it is there");
            seen.push((child["metadata"]["uid"].clone(), child["metadata"]["generation"].clone(), child["data"].clone()));
        }
        seen
    };
    let before = children().await;
    drop(operator);
    uninstall_operator(&ground.admin).await;
    for definition in ["tenants", "tenantclasses", "plugins"] {
        assert!(ground.get("crd", &format!("{definition}.heyuan.dev")).await.is_some(), "{definition} is kept");
    }
    // Somebody deletes one meanwhile: it waits for the operator.
    ground.admin.kubectl(&["delete", "tenant", "leaves", "--wait=false"]).await;
    assert_eq!(children().await, before, "what runs, runs on");
    let tenant = ground.look("leaves").await.expect("it waits");
    assert!(tenant["metadata"]["deletionTimestamp"].is_string(), "{tenant}");

    install_operator(&ground.admin).await;
    let operator = Operator::start(&ground.operator().await, &[]);
    ground.gone("leaves").await;
    ground.change("stays", json!({ "displayName": "Still there" })).await;
    let tenant: Value = ground.settle("stays", LIMIT).await;
    assert_eq!(tenant["spec"]["displayName"], "Still there");
    assert_eq!(children().await, before, "nothing is restarted: {}", operator.log());
}
