//! Crashes: what was acknowledged is there once, whenever the process dies; and each acknowledgement has its sync.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use heyuan_harness::{Answer, Caller, Gateway, Postgres, Tenant, TenantOptions, TestDatabase, for_both_databases, until};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::history::{holds_once, stored};
use crate::shop::Shop;

const KILLS: usize = 12;
const SENDERS: usize = 6;
pub(crate) const EVENTS_A_REQUEST: usize = 10;

/// Requests that are acknowledged before a kill, so that it comes at full load and each time at another moment.
const ACKNOWLEDGED_MIN: usize = 20;
/// Of these at least so many are sales, orders and redemptions.
const SHOP_MIN: usize = 6;
/// Vouchers that may be redeemed in a round.
const VOUCHERS_A_ROUND: usize = 25;
/// Of one order.
const VOUCHERS_AN_ORDER: usize = 150;

pub(crate) fn batch(prefix: &str) -> (Vec<String>, Value) {
    let ids: Vec<_> = (0..EVENTS_A_REQUEST).map(|number| format!("{prefix}-{number}")).collect();
    let event = |id: &String| {
        let identifiers = json!([{ "type": "device", "value": "tablet-1" }]);
        json!({ "type": "track", "message_id": id, "name": "unit_viewed", "identifiers": identifiers, "properties": { "dwell_s": 3 } })
    };
    let events: Vec<_> = ids.iter().map(event).collect();
    (ids, json!({ "events": events }))
}

/// The statuses of an acknowledgement, in order.
pub(crate) fn statuses(answer: &Answer) -> Vec<String> {
    let results = answer.expect(200)["results"].as_array().cloned().expect("an acknowledgement has results");
    results.iter().map(|result| result["status"].as_str().expect("a result has a status").to_owned()).collect()
}

/// Sends until the server is gone; answers the ids that were acknowledged.
pub(crate) async fn send_until_the_end(app: Caller, prefix: String, acknowledged: Arc<AtomicUsize>) -> Vec<String> {
    let mut kept = Vec::new();
    for number in 0.. {
        let (ids, body) = batch(&format!("{prefix}-{number}"));
        let Ok(answer) = Answer::try_of(app.request(Method::POST, "/v1/events").json(&body)).await else { break };
        if answer.status == 429 {
            continue;
        }
        assert_eq!(statuses(&answer), vec!["ok"; EVENTS_A_REQUEST]);
        kept.extend(ids);
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    kept
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load_everything_acknowledged_is_there_once() {
    for_both_databases(async |database| {
        let mut gateway = Gateway::somewhere();
        let options = TenantOptions { environment: gateway.environment(), ..TenantOptions::default() };
        let mut tenant = Tenant::start_with(&database, options).await;
        gateway.open(&tenant).await;
        let (app, admin) = (tenant.caller("ingest"), tenant.caller("admin"));
        let mut shop = Shop::open(&tenant).await;
        let mut codes = BTreeSet::new();
        while codes.len() < KILLS * VOUCHERS_A_ROUND {
            codes.extend(shop.buy_vouchers(VOUCHERS_AN_ORDER).await);
        }
        let codes: Vec<_> = codes.into_iter().collect();
        let (mut acknowledged, mut asked) = (BTreeSet::new(), Vec::new());
        for round in 0..KILLS {
            let (answered, answered_shop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let (mut senders, mut counters) = (JoinSet::new(), JoinSet::new());
            for sender in 0..SENDERS {
                senders.spawn(send_until_the_end(app.clone(), format!("crash-{round}-{sender}"), answered.clone()));
            }
            let (sales, orders, redemptions) = (shop.clone(), shop.clone(), shop.clone());
            let sales = (0..).map(move |number| sales.sale(format!("crash-sale-{round}-{number}")));
            let orders = (0..).map(move |number| orders.order(format!("crash-order-{round}-{number}")));
            let vouchers = codes[round * VOUCHERS_A_ROUND..][..VOUCHERS_A_ROUND].to_vec();
            let redemptions = vouchers.into_iter().map(move |code| redemptions.redemption(&code));
            counters.spawn(shop.clone().work_until_the_end(sales, answered_shop.clone()));
            counters.spawn(shop.clone().work_until_the_end(orders, answered_shop.clone()));
            counters.spawn(shop.clone().work_until_the_end(redemptions, answered_shop.clone()));
            let enough = ACKNOWLEDGED_MIN + 7 * round;
            until("requests are acknowledged", Duration::from_secs(60), || {
                let is_enough = answered.load(Ordering::Relaxed) >= enough && answered_shop.load(Ordering::Relaxed) >= SHOP_MIN;
                async move { is_enough.then_some(()) }
            })
            .await;
            tenant.kill();
            acknowledged.extend(senders.join_all().await.into_iter().flatten());
            let mut worked: Vec<_> = counters.join_all().await.into_iter().flatten().collect();
            tenant.restart().await;
            shop.all_again(&mut worked).await;
            asked.extend(worked);
        }
        holds_once(&admin, "crash-", &acknowledged).await;
        shop.adds_up(&asked).await;
        let book = tenant.heyuan(&["ledger", "verify"]);
        assert!(book.contains("the book is sound"), "{book}");
    })
    .await;
}

#[tokio::test]
async fn an_event_sent_again_after_a_crash_is_a_duplicate() {
    for_both_databases(async |database| {
        let mut tenant = Tenant::start(&database).await;
        let (app, admin) = (tenant.caller("ingest"), tenant.caller("admin"));
        let (ids, body) = batch("again");
        assert_eq!(statuses(&app.post("/v1/events", &body).await), vec!["ok"; EVENTS_A_REQUEST]);
        tenant.kill();
        tenant.restart().await;
        assert_eq!(statuses(&app.post("/v1/events", &body).await), vec!["duplicate"; EVENTS_A_REQUEST]);
        holds_once(&admin, "again-", &ids).await;
        assert_eq!(stored(&admin, "again-").await.len(), EVENTS_A_REQUEST);
    })
    .await;
}

const GROUPS: u64 = 100;

/// Sends [`GROUPS`] requests, each after the acknowledgement of the one before, so that none can share a commit.
async fn acknowledge_one_by_one(app: &Caller) {
    for number in 0..GROUPS {
        let (_, body) = batch(&format!("sync-{number}"));
        statuses(&app.post("/v1/events", &body).await);
    }
}

#[tokio::test]
async fn sqlite_syncs_before_each_acknowledgement() {
    let options = TenantOptions { watch_disk: true, ..TenantOptions::default() };
    let tenant = Tenant::start_with(&TestDatabase::sqlite(), options).await;
    let app = tenant.caller("ingest");
    let before = tenant.syncs();
    acknowledge_one_by_one(&app).await;
    let syncs = tenant.syncs() - before;
    assert!(syncs >= GROUPS, "{syncs} syncs for {GROUPS} acknowledged groups");
}

#[tokio::test]
async fn postgres_syncs_before_each_acknowledgement() {
    let server = Postgres::start();
    let tenant = Tenant::start(&TestDatabase::on(&server).await).await;
    let app = tenant.caller("ingest");
    let before = server.wal_syncs().await;
    acknowledge_one_by_one(&app).await;
    // PostgreSQL reports its figures up to a second late.
    until("each acknowledged group has its sync", Duration::from_secs(10), || async {
        (server.wal_syncs().await - before >= GROUPS as i64).then_some(())
    })
    .await;
}
