//! SDKs that others wrote, unmodified, as clients: what they send arrives once, and they see no error.

use std::collections::BTreeSet;

use heyuan_harness::{Tenant, for_both_databases, node, python};
use serde_json::Value;

use crate::history::holds_once;

const TRACKS: &str = "120";

/// The ids a client script says it sent; panics when its SDK reported an error.
fn sent(report: &Value) -> BTreeSet<String> {
    assert_eq!(report["errors"], serde_json::json!([]), "the SDK saw errors");
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
