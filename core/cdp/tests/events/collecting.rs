//! Taking events in: durable, once, and nothing bad harms the rest.

use crate::ground::Ground;
use actix_web::test::TestRequest;
use heyuan_cdp::Collect;
use heyuan_harness::{TestDatabase, for_both_databases};
use heyuan_kernel::Scope;
use serde_json::{Value, json};
use std::io::Write;

fn track(id: &str) -> Value {
    json!({ "type": "track", "event": "Unit Viewed", "messageId": id, "anonymousId": format!("device of {id}"), "properties": { "dwell_ms": 5 } })
}

pub(crate) fn native(id: &str) -> Value {
    json!({ "message_id": id, "name": "unit_viewed", "identifiers": [{ "type": "device", "value": id }] })
}

pub(crate) fn statuses(answer: &Value) -> Vec<&str> {
    answer["results"].as_array().into_iter().flatten().filter_map(|result| result["status"].as_str()).collect()
}

#[actix_web::test]
async fn an_event_counts_once_however_often_it_is_sent() {
    for_both_databases(|database| async move {
        let ground = Ground::open(&database).await;
        let key = ground.key(&[Scope::Ingest], None).await;
        let body = json!({ "events": [native("a"), native("b"), native("a")] });
        let (status, answer) = ground.post(&key, "/v1/events", &body).await;
        assert_eq!((status.as_u16(), statuses(&answer)), (200, vec!["ok", "ok", "duplicate"]));
        let (status, answer) = ground.post(&key, "/v1/batch", &json!({ "batch": [track("c"), track("a")] })).await;
        assert_eq!((status.as_u16(), answer), (200, json!({ "success": true })));
        drop(ground);
        let ground = Ground::open(&database).await;
        let body = json!({ "events": [native("c"), native("d"), native("b")] });
        let (_, answer) = ground.post(&key, "/v1/events", &body).await;
        assert_eq!(statuses(&answer), ["duplicate", "ok", "duplicate"]);
        ground.settle().await;
        assert_eq!(ground.cdp.position().await.ok(), Some(4));
    })
    .await;
}

#[actix_web::test]
async fn ids_of_closed_generations_are_known_after_a_restart() {
    let database = TestDatabase::sqlite();
    let settings = Collect { generation_ids: 1024, ..Collect::default() };
    let ground = Ground::with(&database, settings.clone(), Vec::new()).await;
    let key = ground.key(&[Scope::Ingest], None).await;
    let names: Vec<String> = (0..5_000).map(|n| format!("m{n}")).collect();
    for chunk in names.chunks(500) {
        let events: Vec<Value> = chunk.iter().map(|name| native(name)).collect();
        let (_, answer) = ground.post(&key, "/v1/events", &json!({ "events": events })).await;
        assert!(statuses(&answer).iter().all(|status| *status == "ok"));
    }
    heyuan_harness::until("three generations are closed", std::time::Duration::from_secs(20), || async {
        (ground.count("SELECT COUNT(*) AS n FROM cdp_message_generation").await == 3).then_some(())
    })
    .await;
    for _ in 0..2 {
        drop(Ground::with(&database, settings.clone(), Vec::new()).await);
        let again = Ground::with(&database, settings.clone(), Vec::new()).await;
        for chunk in names.chunks(500) {
            let events: Vec<Value> = chunk.iter().map(|name| native(name)).collect();
            let (_, answer) = again.post(&key, "/v1/events", &json!({ "events": events })).await;
            assert!(statuses(&answer).iter().all(|status| *status == "duplicate"), "a known id was taken again");
        }
    }
}

#[actix_web::test]
async fn a_bad_event_harms_no_other_and_can_be_replayed() {
    for_both_databases(|database| async move {
        let ground = Ground::open(&database).await;
        let key = ground.key(&[Scope::Ingest], None).await;
        let admin = ground.key(&[Scope::Admin], None).await;
        let strict = json!({ "mode": "strict", "properties": { "floor": { "type": "integer" } } });
        assert_eq!(ground.put(&admin, "/v1/event-types/lift_taken", &strict).await.0, 200);
        let refused = json!({ "message_id": "r", "name": "Lift Taken", "identifiers": [{ "type": "device", "value": "x" }], "properties": { "floor": 3, "mood": "good" } });
        let deep: Value = serde_json::from_str(&format!("{}1{}", "[".repeat(60), "]".repeat(60))).unwrap_or_default();
        let too_deep = json!({ "message_id": "t", "name": "a", "identifiers": [{ "type": "device", "value": "x" }], "properties": { "deep": deep } });
        let body = json!({ "events": [native("a"), refused, 7, too_deep, native("b")] });
        let (status, answer) = ground.post(&key, "/v1/events", &body).await;
        assert_eq!((status.as_u16(), statuses(&answer)), (200, vec!["ok", "rejected", "rejected", "rejected", "ok"]));
        let reasons: Vec<&str> = answer["results"].as_array().into_iter().flatten().filter_map(|r| r["reason"].as_str()).collect();
        assert_eq!(reasons, ["against_schema", "malformed", "too_deep"]);
        let (_, list) = ground.get(&admin, "/v1/events/rejected").await;
        assert_eq!(list["items"].as_array().map(Vec::len), Some(3));
        let (_, fate) = ground.get(&admin, "/v1/events?message_id=r").await;
        assert_eq!(fate["status"], "rejected");
        let path = format!("/v1/events/rejected/{}/replay", fate["rejected"]["id"]);
        assert_eq!(ground.post(&admin, &path, &Value::Null).await.0, 409);
        let wide = json!({ "mode": "open", "properties": { "floor": { "type": "integer" } } });
        assert_eq!(ground.put(&admin, "/v1/event-types/lift_taken", &wide).await.0, 200);
        assert_eq!(ground.post(&admin, &path, &Value::Null).await.1, json!({ "message_id": "r", "status": "ok" }));
        assert_eq!(ground.post(&admin, &path, &Value::Null).await.0, 409);
        ground.settle().await;
        let (_, fate) = ground.get(&admin, "/v1/events?message_id=r").await;
        assert_eq!((&fate["status"], &fate["position"]), (&json!("known"), &json!(3)));
        assert_eq!(ground.get(&admin, "/v1/events?message_id=nobody").await.0, 404);
    })
    .await;
}

#[actix_web::test]
async fn bodies_and_keys_come_as_sdks_send_them() {
    for_both_databases(|database| async move {
        let ground = Ground::open(&database).await;
        let key = ground.key(&[Scope::Ingest], None).await;
        let admin = ground.key(&[Scope::Admin], None).await;
        let gzip = |plain: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(plain).and_then(|()| encoder.finish()).unwrap_or_default()
        };
        let batch = json!({ "batch": [track("g1")], "sentAt": "2026-11-22T00:00:00.000Z" }).to_string();
        let bearer = |key: &str| ("Authorization", format!("Bearer {key}"));
        let post = |path: &str| TestRequest::post().uri(path);
        let packed =
            post("/v1/batch").insert_header(bearer(&key)).insert_header(("Content-Encoding", "gzip")).set_payload(gzip(batch.as_bytes()));
        assert_eq!(ground.call(packed).await.0, 200);
        let bomb = post("/v1/batch")
            .insert_header(bearer(&key))
            .insert_header(("Content-Encoding", "gzip"))
            .set_payload(gzip(&vec![b' '; 60 << 20]));
        assert_eq!(ground.call(bomb).await.0, 413);
        let broken = post("/v1/batch").insert_header(bearer(&key)).insert_header(("Content-Encoding", "gzip")).set_payload("no gzip");
        assert_eq!(ground.call(broken).await.1["code"], "bad_encoding");
        let mut browser = track("b1");
        browser["writeKey"] = key.clone().into();
        let text = post("/v1/t").insert_header(("Content-Type", "text/plain")).set_payload(browser.to_string());
        let (status, _, headers) = ground.call_raw(text).await;
        assert_eq!((status.as_u16(), headers.get("Access-Control-Allow-Origin").map(|v| v.as_bytes())), (200, Some(b"*".as_slice())));
        assert_eq!(ground.call(post("/v1/t").set_payload(track("b2").to_string())).await.0, 401);
        assert_eq!(ground.call(post("/v1/t").insert_header(bearer(&admin)).set_payload(track("b2").to_string())).await.0, 403);
        assert_eq!(ground.call(post("/v1/t").insert_header(bearer("hyk_nobody")).set_payload("{}")).await.0, 401);
        let preflight = TestRequest::default().method(actix_web::http::Method::OPTIONS).uri("/v1/t");
        assert_eq!(ground.call(preflight).await.0, 204);
        for (body, code) in
            [("{", "invalid_request"), ("[]", "invalid_request"), ("{\"event\":1}", "event_rejected"), ("\"a\"", "invalid_request")]
        {
            let (status, answer) = ground.call(post("/v1/track").insert_header(bearer(&key)).set_payload(body)).await;
            assert_eq!((status.as_u16(), answer["code"].as_str()), (400, Some(code)), "{body}");
        }
        let invalid = post("/v1/batch").insert_header(bearer(&key)).set_payload(b"{\"batch\":[\"\xff\"]}".to_vec());
        assert_eq!(ground.call(invalid).await.0, 400);
    })
    .await;
}

#[actix_web::test]
async fn senders_wait_before_the_backlog_is_full() {
    for_both_databases(|database| async move {
        let settings = Collect { backlog_rows_max: 2, ..Collect::default() };
        let ground = Ground::with(&database, settings.clone(), Vec::new()).await;
        let key = ground.key(&[Scope::Ingest], None).await;
        assert_eq!(ground.post(&key, "/v1/events", &json!({ "events": [native("a"), native("b")] })).await.0, 200);
        drop(ground);
        // A fresh process judges afresh.
        let ground = Ground::with(&database, settings, Vec::new()).await;
        let request =
            TestRequest::post().uri("/v1/t").insert_header(("Authorization", format!("Bearer {key}"))).set_payload(track("c").to_string());
        let (status, _, headers) = ground.call_raw(request).await;
        assert_eq!((status.as_u16(), headers.get("Retry-After").map(|v| v.as_bytes())), (429, Some(b"5".as_slice())));
    })
    .await;
}
