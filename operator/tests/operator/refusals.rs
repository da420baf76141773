//! What the API server refuses before the operator sees it, in words that say what to write.

use serde_json::{Value, json};

use super::ground::{Ground, Plane, tenant};

#[tokio::test(flavor = "multi_thread")]
async fn bad_tenants_are_refused_with_what_would_be_right() {
    let ground = Ground::on(Plane::shared().await).await;
    let table: [(&str, Value, &str); 16] = [
        ("jade", json!({ "database": {} }), "exactly one of managed, external and embedded"),
        ("jade", json!({ "database": { "managed": {}, "embedded": {} } }), "exactly one of managed, external and embedded"),
        ("jade", json!({ "replicas": 2, "autoscaling": { "minReplicas": 1, "maxReplicas": 2 } }), "either replicas or autoscaling"),
        ("jade", json!({ "database": { "embedded": {} }, "replicas": 2 }), "an embedded database has one process"),
        ("jade", json!({ "autoscaling": { "minReplicas": 3, "maxReplicas": 2 } }), "minReplicas must not be larger"),
        ("jade", json!({ "replicas": 0 }), "spec.replicas"),
        ("jade", json!({ "replicas": 21 }), "spec.replicas"),
        ("jade", json!({ "hosts": ["Not A Host"] }), "hosts must be host names in small letters"),
        ("jade", json!({ "hosts": ["a.example.com", "a.example.com"] }), "duplicate entries"),
        ("jade", json!({ "displayName": "" }), "spec.displayName"),
        (
            "jade",
            json!({ "units": [{ "id": "a", "name": "A", "kind": "mall", "parent": "b" }] }),
            "each parent must be the id of another unit",
        ),
        ("jade", json!({ "units": [{ "id": "a", "name": "A", "kind": "castle" }] }), "Unsupported value"),
        ("jade", json!({ "adopt": "short" }), "adopt must be a data id"),
        ("jade", json!({ "storage": { "volumeSize": "10" } }), "volumeSize must be a whole number with Mi, Gi or Ti"),
        ("jade", json!({ "adminEmail": "nobody" }), "adminEmail must be an e-mail address"),
        ("a-name-that-is-longer-than-forty-characters", json!({}), "at most 40 characters"),
    ];
    for (name, spec, words) in table {
        let object = tenant(name, &spec).to_string();
        let refused = ground.admin.apply_dry(&object).await.expect_err(&object);
        assert!(refused.contains(words), "{spec}: {refused}");
    }
    let good = tenant("a-name-of-exactly-forty-characters-is-it", &json!({ "units": [] })).to_string();
    ground.admin.apply_dry(&good).await.expect("forty characters are allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_fixed_stays_fixed() {
    let ground = Ground::on(Plane::shared().await).await;
    ground.tenant("fixed", &json!({ "storage": { "volumeSize": "10Gi" } })).await;
    let table = [
        (json!({ "timeZone": "Europe/Berlin" }), "timeZone can't be changed"),
        (json!({ "database": { "managed": null, "embedded": {} } }), "the kind of database can't be changed"),
        (json!({ "database": { "managed": { "server": "other" } } }), "server can't be changed"),
        (json!({ "adopt": "0123456789abcdef" }), "adopt is decided when the tenant is created"),
        (json!({ "storage": { "volumeSize": "5Gi" } }), "volumeSize can only grow"),
    ];
    for (change, words) in table {
        let patch = json!({ "spec": change }).to_string();
        let refused = ground.admin.try_kubectl(&["patch", "tenant", "fixed", "--type=merge", "-p", &patch]).await.expect_err(&patch);
        assert!(refused.contains(words), "{patch}: {refused}");
    }
    ground.change("fixed", json!({ "storage": { "volumeSize": "20Gi" } })).await;
}
