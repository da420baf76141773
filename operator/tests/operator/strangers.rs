//! What is foreign is left alone, and what is a tenant's is reached by nobody else.

use heyuan_harness::OPERATOR_NAMESPACE;
use serde_json::json;

use super::ground::{Running, psql};

#[tokio::test(flavor = "multi_thread")]
async fn foreign_things_with_a_tenants_name_are_left_alone() {
    let running = Running::start(&[]).await;
    let ground = &running.ground;
    // A namespace.
    ground.admin.kubectl(&["create", "namespace", "tenant-amber"]).await;
    ground.tenant("amber", &json!({})).await;
    ground.wait("amber", "NamespaceReady", "False NamespaceTaken").await;
    ground.admin.kubectl(&["delete", "tenant", "amber", "--timeout=90s"]).await;
    assert!(ground.get("namespace", "tenant-amber").await.is_some(), "it outlives the tenant");

    // A host name.
    ground.tenant("first", &json!({ "hosts": ["shop.example.com"] })).await;
    ground.ready("first").await;
    ground.tenant("second", &json!({ "hosts": ["shop.example.com"] })).await;
    let tenant = ground.wait("second", "HostsClaimed", "False HostTaken").await;
    assert!(tenant["status"]["why"].as_str().is_some_and(|why| why.contains("tenant first")), "{tenant}");
    ground.change("first", json!({ "hosts": null })).await;
    ground.ready("first").await;
    ground.admin.kubectl(&["annotate", "tenant", "second", "example.com/look=1"]).await;
    ground.ready("second").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_token_reaches_no_further_than_the_chart_says() {
    let running = Running::start(&[]).await;
    let ground = &running.ground;
    let operator = ground.operator().await;
    let refused = |words: Result<String, String>| words.expect_err("it is refused");
    for arguments in [
        &["get", "secrets", "-n", "kube-system"][..],
        &["get", "secrets", "-A"],
        &["get", "secrets", "-n", OPERATOR_NAMESPACE],
        &["label", "namespace", "kube-system", "heyuan.dev/tenant=x"],
        &["delete", "namespace", "kube-system", "--dry-run=server"],
        &[
            "create",
            "rolebinding",
            "x",
            "-n",
            "kube-system",
            "--clusterrole=heyuan-operator-tenant",
            "--serviceaccount=heyuan-system:heyuan-operator",
        ],
        &[
            "create",
            "rolebinding",
            "x",
            "-n",
            OPERATOR_NAMESPACE,
            "--clusterrole=cluster-admin",
            "--serviceaccount=heyuan-system:heyuan-operator",
        ],
        &["create", "clusterrolebinding", "x", "--clusterrole=cluster-admin", "--serviceaccount=heyuan-system:heyuan-operator"],
        &["create", "namespace", "anything"],
    ] {
        let words = refused(operator.try_kubectl(arguments).await);
        assert!(words.contains("forbidden") || words.contains("denied"), "{arguments:?}: {words}");
    }

    // One tenant's credentials open nothing of another's.
    ground.tenant("left", &json!({})).await;
    ground.tenant("right", &json!({})).await;
    ground.ready("left").await;
    let right = ground.ready("right").await;
    let url = {
        use base64::Engine;
        let secret = ground.get_in("left", "secret", "heyuan").await.expect("a secret");
        let bytes =
            base64::engine::general_purpose::STANDARD.decode(secret["data"]["database-url"].as_str().expect("a URL")).expect("base64");
        String::from_utf8(bytes).expect("text")
    };
    let data_id = right["status"]["dataId"].as_str().expect("a data id");
    let mut address = url::Url::parse(&url).expect("a URL");
    address.set_path(&format!("heyuan_{data_id}"));
    let words = refused(psql(address.as_str(), "select 1"));
    assert!(words.contains("permission denied"), "{words}");
}
