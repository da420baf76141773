//! A stop: what is acknowledged is kept, and nothing that would not end by itself holds it up.

use std::time::Duration;

use heyuan_harness::{Tenant, TenantOptions, TestDatabase, cache_dir, for_both_databases, until};
use reqwest::Method;

/// How long a stop may wait for requests here: far longer than the harness waits for a stop, so that one that waits fails.
const STOP_SECONDS_MAX: &str = "3600";
/// So many customers are not generated while a test waits.
const CUSTOMERS: &str = "5000000";
const BEGIN_LIMIT: Duration = Duration::from_secs(60);

fn environment() -> Vec<(String, String)> {
    vec![("HEYUAN_HTTP__STOP_SECONDS_MAX".into(), STOP_SECONDS_MAX.into())]
}

#[tokio::test]
async fn a_stop_ends_a_stream_that_has_no_end() {
    for_both_databases(async |database| {
        let mut tenant = Tenant::start_with(&database, TenantOptions { environment: environment(), ..TenantOptions::default() }).await;
        let admin = tenant.caller("admin");
        // A connection that stays open with nothing on it holds up a stop no more than the stream.
        admin.get("/v1/me").await.expect_status(200);
        let mut stream = admin.request(Method::GET, "/v1/events/tail").send().await.expect("the server answers");
        assert!(stream.chunk().await.expect("the stream is open").is_some());
        assert!(tenant.stop().await.success());
        while stream.chunk().await.expect("the stream ends as an answer does").is_some() {}
    })
    .await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_the_demos_history() {
    let plugins = cache_dir().join("plugins").into_os_string();
    let options = TenantOptions {
        command: vec!["demo".into(), "run".into()],
        arguments: vec!["--plugins".into(), plugins, "--customers".into(), CUSTOMERS.into()],
        environment: environment(),
        ..TenantOptions::default()
    };
    let mut tenant = Tenant::start_with(&TestDatabase::sqlite(), options).await;
    until("the history is being generated", BEGIN_LIMIT, || async { tenant.log().contains("generating the history").then_some(()) }).await;
    assert!(tenant.stop().await.success());
}
