//! Trouble from outside: a full disk, a database that goes away and comes back, a wrong tenant key. Nothing accepted is lost.

use std::fs;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use heyuan_harness::{Caller, Gateway, Postgres, Tenant, TenantOptions, TestDatabase, for_both_databases, until};

use crate::crash::{EVENTS_A_REQUEST, batch, statuses};
use crate::history::holds_once;
use crate::shop::Shop;

const RECOVERY_LIMIT: Duration = Duration::from_secs(30);

/// Sends one request that must be accepted; answers its ids.
async fn accepted(app: &Caller, prefix: &str) -> Vec<String> {
    let (ids, body) = batch(prefix);
    assert_eq!(statuses(&app.post("/v1/events", &body).await), vec!["ok"; EVENTS_A_REQUEST]);
    ids
}

/// Sends the same request until it is accepted again; a repetition of something that was kept after all is a duplicate.
async fn accepted_again(app: &Caller, prefix: &str) -> Vec<String> {
    let (ids, body) = batch(prefix);
    until("events are accepted again", RECOVERY_LIMIT, || async {
        let answer = app.post("/v1/events", &body).await;
        (answer.status == 200).then(|| assert!(statuses(&answer).iter().all(|status| ["ok", "duplicate"].contains(&status.as_str()))))
    })
    .await;
    ids
}

#[tokio::test]
async fn a_full_disk_refuses_events_and_loses_none() {
    let options = TenantOptions { watch_disk: true, ..TenantOptions::default() };
    let tenant = Tenant::start_with(&TestDatabase::sqlite(), options).await;
    let (app, admin) = (tenant.caller("ingest"), tenant.caller("admin"));
    let mut kept = accepted(&app, "full-before").await;

    tenant.fill_disk();
    let (_, body) = batch("full-during");
    let refused = app.post("/v1/events", &body).await;
    // Here something else has filled the disk at a blow, so that the reserve could not be kept; `bounds.rs` has the usual answer.
    assert_eq!(refused.problem(503), "unavailable", "{}", refused.text());
    assert!(refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()), "{:?}", refused.headers);
    tenant.stranger().get("/livez").await.expect_status(200);

    tenant.free_disk();
    kept.extend(accepted_again(&app, "full-during").await);
    kept.extend(accepted(&app, "full-after").await);
    holds_once(&admin, "full-", &kept).await;
}

#[tokio::test]
async fn a_database_that_goes_away_and_comes_back_costs_no_accepted_event() {
    let server = Postgres::start();
    let tenant = Tenant::start(&TestDatabase::on(&server).await).await;
    let (app, admin) = (tenant.caller("ingest"), tenant.caller("admin"));
    let mut kept = accepted(&app, "away-before").await;

    server.crash();
    let (_, body) = batch("away-during");
    let refused = app.post("/v1/events", &body).await;
    assert_eq!(refused.problem(503), "unavailable");
    tenant.stranger().get("/livez").await.expect_status(200);
    tenant.stranger().get("/readyz").await.expect_status(503);

    server.start_again();
    kept.extend(accepted_again(&app, "away-during").await);
    kept.extend(accepted(&app, "away-after").await);
    tenant.stranger().get("/readyz").await.expect_status(200);
    holds_once(&admin, "away-", &kept).await;
}

/// Tills and counters at work when the database dies.
const CALLERS: usize = 4;
/// Answers that each of them has before and after.
const ANSWERS_MIN: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_goes_away_leaves_each_sale_and_order_done_once() {
    let (server, mut gateway) = (Postgres::start(), Gateway::somewhere());
    let options = TenantOptions { environment: gateway.environment(), ..TenantOptions::default() };
    let tenant = Tenant::start_with(&TestDatabase::on(&server).await, options).await;
    gateway.open(&tenant).await;
    let shop = Shop::open(&tenant).await;
    let (answered, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let callers = (0..CALLERS).map(|caller| {
        let (shop, answered, refused) = (shop.clone(), answered.clone(), refused.clone());
        tokio::spawn(async move { shop.work_through_an_outage(&format!("outage-{caller}"), &answered, &refused).await })
    });
    let callers: Vec<_> = callers.collect();
    let enough = |count: &Arc<AtomicUsize>, least: usize| {
        let count = count.load(Ordering::Relaxed);
        async move { (count >= least).then_some(()) }
    };
    until("sales and orders are answered", RECOVERY_LIMIT, || enough(&answered, CALLERS * ANSWERS_MIN)).await;
    server.crash();
    until("every caller is told to come again", RECOVERY_LIMIT, || enough(&refused, CALLERS)).await;
    server.start_again();
    let mut asked = Vec::new();
    for caller in callers {
        asked.extend(caller.await.expect("every request gets an answer"));
    }
    shop.all_again(&mut asked).await;
    shop.adds_up(&asked).await;
    let book = tenant.heyuan(&["ledger", "verify"]);
    assert!(book.contains("the book is sound"), "{book}");
}

#[tokio::test]
async fn a_wrong_tenant_key_stops_the_start() {
    for_both_databases(async |database| {
        let mut tenant = Tenant::start(&database).await;
        tenant.stop().await;
        let key = tenant.database().data_dir().join("tenant.key");
        let right = fs::read_to_string(&key).expect("the embedded mode keeps its key in the data folder");
        fs::write(&key, "00".repeat(32)).expect("the data folder is writable");

        let mut wrong = tenant.command(&["serve", "--listen", "127.0.0.1:0"]);
        let mut process = wrong.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("heyuan runs");
        let status = until("heyuan serve refuses the key", RECOVERY_LIMIT, || {
            let ended = process.try_wait().expect("a child can be waited for");
            async move { ended }
        })
        .await;
        assert!(!status.success());
        let complaint = std::io::read_to_string(process.stderr.take().expect("standard error is a pipe")).expect("it is text");
        assert!(complaint.contains("tenant key"), "{complaint}");

        fs::write(&key, right).expect("the data folder is writable");
        tenant.restart().await;
    })
    .await;
}
