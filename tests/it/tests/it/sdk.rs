//! SDKs that others wrote, unmodified, as clients: what they send arrives once, and they see no error.

use std::collections::BTreeSet;
use std::time::Duration;

use heyuan_harness::{Caller, Tenant, for_both_databases, node, python, until};
use serde_json::Value;

const ARRIVAL_LIMIT: Duration = Duration::from_secs(30);
const TRACKS: &str = "120";

/// The ids a client script says it sent; panics when its SDK reported an error.
fn sent(report: &Value) -> BTreeSet<String> {
    assert_eq!(report["errors"], serde_json::json!([]), "the SDK saw errors");
    let ids = report["sent"].as_array().expect("the script lists what it sent").iter();
    ids.map(|id| id.as_str().expect("an id is text").to_owned()).collect()
}

/// Every message id of the list is found by its id, exactly once.
async fn arrived(admin: &Caller, ids: &BTreeSet<String>) {
    for id in ids {
        let found = until(&format!("event {id} arrives"), ARRIVAL_LIMIT, || async {
            let page = admin.get(&format!("/v1/events?message_id={id}")).await.expect(200);
            let events = page["items"].as_array().cloned().unwrap_or_default();
            (!events.is_empty()).then_some(events)
        })
        .await;
        assert_eq!(found.len(), 1, "{id} is stored once: {found:?}");
        assert_eq!(found[0]["message_id"], id.as_str());
    }
}

/// Runs a client twice with the same message ids, as an app that retries would, and looks for what it sent.
async fn check<F>(client: F)
where
    F: AsyncFn(&str, &str) -> Value,
{
    for_both_databases(async |database| {
        let tenant = Tenant::start(&database).await;
        let (app, admin) = (tenant.caller("ingest"), tenant.caller("admin"));
        let first = sent(&client(&tenant.url(), app.key()).await);
        let again = sent(&client(&tenant.url(), app.key()).await);
        assert_eq!(first, again, "both runs send the same ids");
        arrived(&admin, &first).await;
    })
    .await;
}

#[tokio::test]
async fn segment_analytics_python() {
    check(async |url, key| python("segment_client.py", &[url, key, "plain", TRACKS]).await).await;
}

#[tokio::test]
async fn segment_analytics_python_with_gzip() {
    check(async |url, key| python("segment_client.py", &[url, key, "gzip", TRACKS, "gzip"]).await).await;
}

#[tokio::test]
async fn rudder_sdk_python() {
    check(async |url, key| python("rudder_client.py", &[url, key, "rudder", TRACKS]).await).await;
}

#[tokio::test]
async fn segment_analytics_node() {
    check(async |url, key| node("segment_client.cjs", &[url, key, "node", TRACKS]).await).await;
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
