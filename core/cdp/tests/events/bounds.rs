//! What is taken in is bounded: by what waits, also for the lake, by every disk, and by the bytes of what was refused.

use crate::collecting::{native, statuses};
use crate::ground::Ground;
use heyuan_cdp::Collect;
use heyuan_harness::{TestDatabase, for_both_databases};
use heyuan_kernel::{Actor, Scope};
use heyuan_lake::QueryOptions;
use serde_json::json;

#[actix_web::test]
async fn what_waits_for_the_lake_counts_as_well() {
    for_both_databases(|database| async move {
        let settings = Collect { backlog_rows_max: 2, ..Collect::default() };
        let ground = Ground::with(&database, settings.clone(), Vec::new()).await;
        let key = ground.key(&[Scope::Ingest], None).await;
        assert_eq!(ground.post(&key, "/v1/events", &json!({ "events": [native("a"), native("b")] })).await.0, 200);
        ground.settle().await;
        assert_eq!(ground.count("SELECT COUNT(*) AS n FROM cdp_inbox_block").await, 0, "all is processed");
        assert_eq!(ground.cdp.waiting_for_lake().await.map(|waiting| waiting.events).ok(), Some(2));
        drop(ground);
        // A fresh process judges afresh.
        let ground = Ground::with(&database, settings.clone(), Vec::new()).await;
        assert_eq!(ground.post(&key, "/v1/events", &json!({ "events": [native("c")] })).await.1["code"], "collect_full");
        assert_eq!(ground.cdp.flush(&ground.fence).await, Ok(true));
        ground.settle().await;
        drop(ground);
        let ground = Ground::with(&database, settings, Vec::new()).await;
        assert_eq!(ground.post(&key, "/v1/events", &json!({ "events": [native("c")] })).await.0, 200);
    })
    .await;
}

#[actix_web::test]
async fn every_disk_that_is_written_to_is_looked_at() {
    let database = TestDatabase::sqlite();
    let ground = Ground::open(&database).await;
    let key = ground.key(&[Scope::Ingest], None).await;
    // Of /proc the kernel says that nothing is free.
    ground.cdp.watch_disk(std::path::Path::new("/proc"));
    let (status, answer) = ground.post(&key, "/v1/events", &json!({ "events": [native("a")] })).await;
    assert_eq!((status.as_u16(), &answer["code"]), (429, &json!("collect_full")));
    assert!(answer["detail"].as_str().is_some_and(|detail| detail.contains("collect.disk_reserve_bytes")), "{answer}");
}

#[actix_web::test]
async fn rejected_events_never_fill_the_disk() {
    const EVENTS: i64 = 12;
    for_both_databases(|database| async move {
        let bytes_max = 100_000;
        let ground = Ground::with(&database, Collect { rejected_bytes_max: bytes_max, ..Collect::default() }, Vec::new()).await;
        let (key, admin) = (ground.key(&[Scope::Ingest], None).await, ground.key(&[Scope::Admin], None).await);
        for number in 0..EVENTS {
            // A size of its own for each; without an identifier it is refused.
            let event = json!({ "message_id": format!("r{number}"), "name": "a", "note": "x".repeat(20_000 + 10 * number as usize) });
            let (status, answer) = ground.post(&key, "/v1/events", &json!({ "events": [event, native(&format!("g{number}"))] })).await;
            assert_eq!((status.as_u16(), statuses(&answer)), (200, vec!["rejected", "ok"]));
        }
        let sealed = "SELECT CAST(SUM(LENGTH(sealed)) AS BIGINT) AS n FROM cdp_rejected";
        let rows = "SELECT COUNT(*) AS n FROM cdp_rejected";
        assert!(ground.count(sealed).await <= bytes_max / 4 * 5, "a quarter above the bound is never passed");
        let (_, unkept) = ground.cdp.rejected_totals().await.expect("the totals are read");
        assert_eq!(ground.count(rows).await + unkept, EVENTS, "each is kept or counted");
        ground.settle().await;
        assert!(ground.count(sealed).await <= bytes_max);
        assert!(ground.count(rows).await >= 3, "no more go than must");
        let (bytes, unkept) = ground.cdp.rejected_totals().await.expect("the totals are read");
        assert!(bytes <= bytes_max && unkept > 0, "{bytes} bytes, {unkept} not kept");
        assert_eq!(ground.count(rows).await + unkept, EVENTS, "each is kept or counted");
        assert_eq!(ground.get(&admin, "/v1/events?message_id=r0").await.0, 404, "the oldest went first");
        let later = json!({ "message_id": "later", "name": "a" });
        assert_eq!(statuses(&ground.post(&key, "/v1/events", &json!({ "events": [later] })).await.1), ["rejected"]);
        assert_eq!(ground.get(&admin, "/v1/events?message_id=later").await.1["status"], "rejected", "there is room again");
    })
    .await;
}

#[actix_web::test]
async fn a_tail_of_large_events_is_read_in_pages_and_as_a_whole() {
    const EVENTS: i64 = 800;
    for_both_databases(|database| async move {
        let ground = Ground::open(&database).await;
        let (key, admin) = (ground.key(&[Scope::Ingest], None).await, ground.key(&[Scope::Admin], None).await);
        for chunk in (0..EVENTS).collect::<Vec<_>>().chunks(100) {
            let event = |number: &i64| {
                let mut event = native(&format!("l{number}"));
                event["identifiers"] = json!([{ "type": "device", "value": "one" }]);
                event["properties"] = json!({ "note": "x".repeat(30_000) });
                event
            };
            let body = json!({ "events": chunk.iter().map(event).collect::<Vec<_>>() });
            assert_eq!(ground.post(&key, "/v1/events", &body).await.0, 200);
            ground.step().await.expect("the pipeline works");
        }
        ground.settle().await;
        assert_eq!(ground.cdp.waiting_for_lake().await.map(|waiting| waiting.events).ok(), Some(EVENTS), "nothing is in a file");
        assert!(ground.count("SELECT COUNT(*) AS n FROM cdp_known_block").await > 2, "the tail has several blocks");
        let text = "SELECT count(*), count(DISTINCT position) FROM events";
        let table = ground.lake.query(&Actor::system("test"), text, QueryOptions::default()).await.expect("the lake answers");
        assert_eq!(table.rows, [vec![json!(EVENTS), json!(EVENTS)]]);
        let fate = ground.get(&admin, "/v1/events?message_id=l799").await.1;
        let path = format!("/v1/customers/{}/timeline?limit=3", fate["customer"].as_str().unwrap_or_default());
        let newest = ground.get(&admin, &path).await.1;
        let ids: Vec<&str> = newest["items"].as_array().into_iter().flatten().filter_map(|item| item["message_id"].as_str()).collect();
        assert_eq!(ids, ["l799", "l798", "l797"], "{newest}");
    })
    .await;
}
