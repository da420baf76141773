//! SDKs that others wrote, unmodified, as clients: what they send arrives once, and they see no error.

use std::collections::BTreeSet;

use heyuan_harness::{Tenant, TestDatabase, for_both_databases, node, python};
use serde_json::{Value, json};

use crate::history::holds_once;

const TRACKS: &str = "120";

/// The ids a client script says it sent; panics when its SDK reported an error.
fn sent(report: &Value) -> BTreeSet<String> {
    assert_eq!(report["errors"], json!([]), "the SDK saw errors");
    let ids = report["sent"].as_array().expect("the script lists what it sent").iter();
    ids.map(|id| id.as_str().expect("an id is text").to_owned()).collect()
}

/// Runs a client twice with the same message ids, as an app that retries would, and looks for what it sent.
async fn check(prefix: &str, client: impl AsyncFn(&str, &str) -> Value) {
    for_both_databases(async |database| {
        let tenant = Tenant::start(&database).await;
        let (app, admin) = (tenant.caller("ingest"), tenant.caller("admin"));
        let first = sent(&client(&tenant.url(), app.key()).await);
        let again = sent(&client(&tenant.url(), app.key()).await);
        assert_eq!(first, again, "both runs send the same ids");
        holds_once(&admin, prefix, &first).await;
    })
    .await;
}

#[tokio::test]
async fn segment_analytics_python() {
    check("plain-", async |url, key| python("segment_client.py", &[url, key, "plain", TRACKS]).await).await;
}

#[tokio::test]
async fn segment_analytics_python_with_gzip() {
    check("gzip-", async |url, key| python("segment_client.py", &[url, key, "gzip", TRACKS, "gzip"]).await).await;
}

#[tokio::test]
async fn rudder_sdk_python() {
    check("rudder-", async |url, key| python("rudder_client.py", &[url, key, "rudder", TRACKS]).await).await;
}

#[tokio::test]
async fn segment_analytics_node() {
    check("node-", async |url, key| node("segment_client.cjs", &[url, key, "node", TRACKS]).await).await;
}

#[tokio::test]
async fn rudder_sdk_node() {
    check("rudder-node-", async |url, key| node("rudder_client.cjs", &[url, key, "rudder-node", TRACKS]).await).await;
}

#[tokio::test]
async fn a_wrong_write_key_is_refused_to_an_sdk_as_an_error() {
    for_both_databases(async |database| {
        let tenant = Tenant::start(&database).await;
        let report = python("segment_client.py", &[&tenant.url(), "no-such-key", "stranger", "1"]).await;
        assert!(!report["errors"].as_array().expect("the script lists errors").is_empty(), "{report}");
    })
    .await;
}

#[tokio::test]
async fn a_slash_at_the_end_of_an_address_changes_nothing() {
    let tenant = Tenant::start(&TestDatabase::sqlite()).await;
    let (app, admin) = (tenant.caller("ingest"), tenant.caller("admin"));
    let event =
        json!({ "type": "track", "event": "Viewed", "anonymousId": "a", "messageId": "slash-1", "timestamp": "2026-11-20T00:00:00Z" });
    app.post("/v1/import/", &json!({ "batch": [event] })).await.expect(200);
    holds_once(&admin, "slash-", &BTreeSet::from(["slash-1".to_owned()])).await;
    tenant.stranger().get("/v1/keys/").await.problem(401);
    admin.get("/v1/nothing/").await.problem(404);
}
