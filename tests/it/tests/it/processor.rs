//! Two processes of one tenant on one PostgreSQL: whoever works in the background may die or sleep past its lease at any moment.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use heyuan_harness::{Caller, Tenant, TestDatabase, until};
use serde_json::json;

use crate::crash::{EVENTS_A_REQUEST, batch, send_until_the_end, statuses};
use crate::history::holds_once;
use crate::shop::{Asked, Shop};

/// Another process takes over within this time.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(10);
const BEGINS: &str = "this process is the processor now";
const ENDS: &str = "this process is no longer the processor";
const REQUESTS: usize = 200;
/// After so many requests comes a sale at the till, and somebody new who came by a campaign.
const REQUESTS_A_SALE: usize = 10;
const ARRIVAL_LIMIT: Duration = Duration::from_secs(60);

fn said(tenant: &Tenant, line: &str) -> usize {
    tenant.log().matches(line).count()
}

/// Waits until the process says a line once more than `before`.
async fn says(tenant: &Tenant, line: &str, before: usize) {
    until(line, TAKEOVER_LIMIT, || async { (said(tenant, line) > before).then_some(()) }).await;
}

/// What was acknowledged.
#[derive(Default)]
struct Sent {
    ids: BTreeSet<String>,
    visits: BTreeSet<String>,
    sales: Vec<Asked>,
}

impl Sent {
    fn add(&mut self, other: Sent) {
        self.ids.extend(other.ids);
        self.visits.extend(other.visits);
        self.sales.extend(other.sales);
    }
}

/// Sends [`REQUESTS`] requests; a process that is paused meanwhile answers them when it wakes.
async fn send(app: Caller, shop: Shop, prefix: String) -> Sent {
    let mut sent = Sent::default();
    for number in 0..REQUESTS {
        let (ids, body) = batch(&format!("{prefix}-{number}"));
        assert_eq!(statuses(&app.post("/v1/events", &body).await), vec!["ok"; EVENTS_A_REQUEST]);
        sent.ids.extend(ids);
        if number % REQUESTS_A_SALE == 0 {
            let mut sale = shop.sale(format!("{prefix}-sale-{number}"));
            shop.again(&mut sale).await;
            sent.sales.push(sale);
            let id = format!("{prefix}-visit-{number}");
            let identifiers = json!([{ "type": "device", "value": id }]);
            let touch = json!({ "source": "oceanengine", "medium": "cpc", "campaign": "spring" });
            let visit = json!({ "type": "track", "message_id": id, "name": "app_opened", "identifiers": identifiers, "touch": touch });
            assert_eq!(statuses(&app.post("/v1/events", &json!({ "events": [visit] })).await), ["ok"]);
            sent.visits.insert(id);
        }
    }
    sent
}

/// Holds that each visit left one touchpoint, and one change of one customer's tag.
async fn knows_once(database: &TestDatabase, admin: &Caller, visits: &BTreeSet<String>) {
    let all = i64::try_from(visits.len()).expect("few");
    let touches = "SELECT count(*) FROM attribution_touch WHERE message_id LIKE 'pair-%-visit-%'";
    until("every visit left a touchpoint", ARRIVAL_LIMIT, || async { (database.count(touches).await == all).then_some(()) }).await;
    let audience = json!({ "predicate": { "tag": "visitor", "is": "yes" } });
    until("every visitor has the tag", ARRIVAL_LIMIT, || async {
        (admin.post("/v1/audiences:count", &audience).await.expect(200)["count"] == all).then_some(())
    })
    .await;
    let changes = database.count("SELECT count(*) FROM cdp_tag_change WHERE tag = 'visitor'").await;
    assert_eq!(changes, all, "a tag was set more than once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_or_paused_past_its_lease_nothing_is_lost_or_applied_twice() {
    let database = TestDatabase::postgres().await;
    let mut first = Tenant::start(&database).await;
    says(&first, BEGINS, 0).await;
    let second = Tenant::start(&database).await;
    let (on_first, on_second, admin) = (first.caller("ingest"), second.caller("ingest"), first.caller("admin"));
    admin.put("/v1/features/visits", &json!({ "expression": "count(app_opened) over 7d" })).await.expect(200);
    let cases = json!([{ "value": "yes", "when": { "feature": "visits", "at_least": 1 } }]);
    admin.put("/v1/tags/visitor", &json!({ "cases": cases })).await.expect(200);
    let shop = Shop::open(&first).await;
    let second_shop = shop.at(&second);
    until("the other process knows the new unit", TAKEOVER_LIMIT, || async { second_shop.is_known().await.then_some(()) }).await;
    let mut sent = Sent::default();

    // The processor is killed under load; the other one takes over.
    let dying = tokio::spawn(send_until_the_end(on_first.clone(), "pair-dying".into(), Arc::new(AtomicUsize::new(0))));
    let dying_shop = shop.clone();
    let sales = (0..).map(move |number| dying_shop.sale(format!("pair-dying-sale-{number}")));
    let dying_sales = tokio::spawn(shop.clone().work_until_the_end(sales, Arc::new(AtomicUsize::new(0))));
    let living = tokio::spawn(send(on_second.clone(), second_shop.clone(), "pair-living".into()));
    sent.add(send(on_first.clone(), shop.clone(), "pair-before".into()).await);
    first.kill();
    says(&second, BEGINS, 0).await;
    sent.ids.extend(dying.await.expect("the sender ends with its server"));
    let mut sales = dying_sales.await.expect("the till ends with its server");
    second_shop.all_again(&mut sales).await;
    sent.sales.extend(sales);
    sent.add(living.await.expect("the other process serves on"));

    // The new processor sleeps past its lease; the first takes over again, and the sleeper finds out when it wakes.
    first.restart().await;
    let sleeping = tokio::spawn(send(on_second, second_shop, "pair-sleeping".into()));
    second.pause();
    sent.add(send(on_first.clone(), shop.clone(), "pair-meanwhile".into()).await);
    says(&first, BEGINS, 1).await;
    second.wake();
    sent.add(sleeping.await.expect("the sleeper answers when it wakes"));
    says(&second, ENDS, 0).await;
    sent.add(send(on_first, shop.clone(), "pair-after".into()).await);

    holds_once(&admin, "pair-", &sent.ids).await;
    shop.adds_up(&sent.sales).await;
    knows_once(&database, &admin, &sent.visits).await;
    let book = first.heyuan(&["ledger", "verify"]);
    assert!(book.contains("the book is sound"), "{book}");
}
