//! What SDKs send, as they send it: other paths, contexts of batches, browsers' questions, and texts that no database holds.

use crate::ground::Ground;
use actix_web::http::Method;
use actix_web::test::TestRequest;
use heyuan_harness::for_both_databases;
use heyuan_kernel::Scope;
use serde_json::{Value, json};

fn results<'a>(answer: &'a Value, member: &str) -> Vec<&'a str> {
    answer["results"].as_array().into_iter().flatten().map(|result| result[member].as_str().unwrap_or_default()).collect()
}

/// What reached the outbox of touches, once everything has settled.
async fn touches(ground: &Ground) -> String {
    let text = "SELECT body FROM kernel_outbox WHERE name = 'campaign.touched.v1' ORDER BY id";
    let rows = heyuan_kernel::sql::all(ground.kernel.db.reader(), text, []).await.expect("the query works");
    rows.iter().map(|row| heyuan_kernel::sql::get::<String>(row, "body").expect("a body")).collect::<Vec<_>>().join("\n")
}

async fn faults(ground: &Ground, key: &str, event_type: &str) -> Vec<(String, i64)> {
    let (_, view) = ground.get(key, &format!("/v1/event-types/{event_type}")).await;
    let faults = view["faults"].as_array().cloned().unwrap_or_default();
    faults.iter().map(|one| (one["property"].as_str().unwrap_or_default().to_owned(), one["count"].as_i64().unwrap_or(0))).collect()
}

#[actix_web::test]
async fn imports_and_contexts_of_batches_are_taken_as_sdks_send_them() {
    for_both_databases(|database| async move {
        let ground = Ground::open(&database).await;
        let key = ground.key(&[Scope::Ingest], None).await;
        // As analytics-ruby 2.0 sends, to the path that it has, and as analytics-go does, with a context beside its messages.
        let body = json!({
            "sentAt": "2026-11-22T00:00:00Z", "integrations": { "All": true }, "messageId": "of the batch", "sequence": 1,
            "context": { "library": { "name": "analytics-go" }, "app": { "name": "wx-home" }, "campaign": { "name": "of-the-batch", "source": "b" } },
            "batch": [
                { "type": "track", "event": "Unit Viewed", "messageId": "1", "anonymousId": "d-1", "integrations": {} },
                { "type": "track", "event": "Unit Viewed", "messageId": "2", "anonymousId": "d-2",
                  "context": { "ip": "127.0.0.1", "campaign": { "name": "its-own" } } },
                { "type": "track", "event": "Unit Viewed", "messageId": "3", "anonymousId": "d-3", "context": { "campaign": "spring", "page": [] } },
            ],
        });
        let admin = ground.key(&[Scope::Admin], None).await;
        let (status, answer) = ground.post(&key, "/v1/import", &body).await;
        assert_eq!((status.as_u16(), answer), (200, json!({ "success": true })));
        assert_eq!(ground.get(&admin, "/v1/events?message_id=1").await.1["status"], "accepted");
        assert_eq!(ground.post(&key, "/v1/batch", &body).await.0, 200);
        ground.settle().await;
        assert_eq!(ground.cdp.position().await.ok(), Some(3));
        let touches = touches(&ground).await;
        assert_eq!(touches.matches("of-the-batch").count(), 2, "{touches}");
        assert_eq!(touches.matches("its-own").count(), 1, "{touches}");
        let expected = [("$context.campaign".to_owned(), 1), ("$context.page".to_owned(), 1)];
        assert_eq!(faults(&ground, &admin, "unit_viewed").await, expected);
    })
    .await;
}

#[actix_web::test]
async fn a_context_too_large_to_be_kept_harms_no_event() {
    for_both_databases(|database| async move {
        let ground = Ground::open(&database).await;
        let key = ground.key(&[Scope::Ingest], None).await;
        for context in [json!("text"), json!([]), json!({ "campaign": { "name": "x".repeat(40_000) } })] {
            let event = json!({ "type": "track", "event": "A", "messageId": context.to_string().len().to_string(), "anonymousId": "d" });
            let body = json!({ "context": context, "batch": [event] });
            assert_eq!(ground.post(&key, "/v1/batch", &body).await.0, 200);
        }
        ground.settle().await;
        assert_eq!(ground.cdp.position().await.ok(), Some(3));
    })
    .await;
}

#[actix_web::test]
async fn events_are_understood_in_either_spelling_and_answered_under_their_ids() {
    for_both_databases(|database| async move {
        let ground = Ground::open(&database).await;
        let key = ground.key(&[Scope::Ingest], None).await;
        let admin = ground.key(&[Scope::Admin], None).await;
        let body = json!({
            "sentAt": "2026-11-22T00:00:00Z", "sent_at": null, "writeKey": "ignored beside a header", "integrations": {},
            "events": [
                { "type": "track", "event": "Unit Viewed", "messageId": "segment", "anonymousId": "d-1", "userId": null,
                  "timestamp": "2026-11-21T00:00:00Z", "properties": { "dwell_seconds": 5 }, "context": { "campaign": { "name": "c-1" } } },
                { "event": "Unit Viewed", "messageId": 17, "userId": "u-1", "integrations": { "All": false } },
                { "type": "identify", "messageId": "who", "userId": "u-1", "traits": { "city": "杭州" } },
                { "message_id": "own", "name": "unit_viewed", "identifiers": [{ "type": "device", "value": "d-2" }], "surprise": true },
                { "message_id": 18, "name": "unit_viewed", "identifiers": [] },
                { "message_id": 1.5, "name": "unit_viewed", "identifiers": [{ "type": "device", "value": "d-2" }] },
                { "messageId": "nobody", "event": "Unit Viewed" },
                { "messageId": "both", "message_id": "other", "event": 7.5 },
                { "type": "track", "message_id": "nobody-own", "name": "unit_viewed" },
            ],
        });
        let (status, answer) = ground.post(&key, "/v1/events", &body).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(results(&answer, "message_id"), ["segment", "17", "who", "own", "18", "1.5", "nobody", "both", "nobody-own"]);
        let fates = ["ok", "ok", "ok", "ok", "rejected", "rejected", "rejected", "rejected", "rejected"];
        assert_eq!(results(&answer, "status"), fates, "{answer}");
        let reasons = ["", "", "", "", "bad_identifier", "malformed", "bad_identifier", "malformed", "bad_identifier"];
        assert_eq!(results(&answer, "reason"), reasons, "{answer}");
        let (_, again) = ground.post(&key, "/v1/events", &body).await;
        assert_eq!(results(&again, "status")[..4], ["duplicate"; 4]);
        ground.settle().await;
        assert_eq!(ground.cdp.position().await.ok(), Some(4));
        assert!(touches(&ground).await.contains("c-1"));
        assert_eq!(ground.get(&admin, "/v1/events?message_id=17").await.1["status"], "known");
        assert_eq!(ground.get(&admin, "/v1/events?message_id=18").await.1["status"], "rejected");
    })
    .await;
}

#[actix_web::test]
async fn the_first_and_the_last_hours_are_times_like_others() {
    for_both_databases(|database| async move {
        let ground = Ground::open(&database).await;
        let key = ground.key(&[Scope::Ingest, Scope::Import], None).await;
        let times = [
            ("0000-01-01T00:00:00Z", "bad_time"),
            ("0001-01-01T00:00:00Z", ""),
            ("0001-01-01T00:00:00+08:00", ""),
            ("9999-12-31T23:59:59Z", ""),
            ("9999-12-31T23:59:59.999Z", ""),
            ("9999-12-31T23:59:59", ""),
            ("10000-01-01T00:00:00Z", "bad_time"),
        ];
        let native =
            |(time, _): &(&str, &str)| json!({ "name": "a", "occurred_at": time, "identifiers": [{ "type": "device", "value": "d" }] });
        let segment =
            |(time, _): &(&str, &str)| json!({ "type": "track", "event": "A", "timestamp": time, "sentAt": time, "anonymousId": "d" });
        for events in [times.iter().map(native).collect::<Vec<_>>(), times.iter().map(segment).collect()] {
            let (_, answer) = ground.post(&key, "/v1/events", &json!({ "events": events, "sentAt": "9999-12-31T23:59:59Z" })).await;
            assert_eq!(results(&answer, "reason"), times.map(|(_, reason)| reason), "{answer}");
        }
        let batch = json!({ "batch": times.iter().map(segment).collect::<Vec<_>>(), "sentAt": "9999-12-31T23:59:59.999Z" });
        assert_eq!(ground.post(&key, "/v1/batch", &batch).await.0, 200);
        assert_eq!(ground.count("SELECT COUNT(*) AS n FROM cdp_rejected WHERE reason = 'bad_time'").await, 6);
        ground.settle().await;
        assert_eq!(ground.cdp.position().await.ok(), Some(15));
        // What lies before any clock is taken from who may import; what lies ahead of its arrival counts as that.
        let (first, last) = ("SELECT MIN(first_seen) AS n FROM cdp_node", "SELECT MAX(last_seen) AS n FROM cdp_node");
        assert_eq!(ground.count(first).await, heyuan_contract::Timestamp::MIN.ms());
        assert!(ground.count(last).await <= heyuan_kernel::time::now_ms());
    })
    .await;
}

#[actix_web::test]
async fn browsers_may_send_whatever_headers_their_sdk_adds() {
    for_both_databases(|database| async move {
        let ground = Ground::open(&database).await;
        let key = ground.key(&[Scope::Ingest], None).await;
        let header = |headers: &actix_web::http::header::HeaderMap, name: &str| {
            headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let long = "x".repeat(2_000);
        let usual = "Authorization, Content-Type, Content-Encoding";
        for path in ["/v1/track", "/v1/batch", "/v1/import", "/v1/t", "/v1/b"] {
            for (asked, allowed) in [
                (Some("anonymousid,authorization,content-type"), "anonymousid,authorization,content-type"),
                (None, usual),
                (Some(&*long), usual),
            ] {
                let ask = TestRequest::default().method(Method::OPTIONS).uri(path).insert_header(("Origin", "https://mall.example"));
                let ask = ask.insert_header(("Access-Control-Request-Method", "POST"));
                let ask = asked.into_iter().fold(ask, |ask, names| ask.insert_header(("Access-Control-Request-Headers", names)));
                let (status, _, headers) = ground.call_raw(ask).await;
                let told = ["Origin", "Methods", "Headers"].map(|what| header(&headers, &format!("Access-Control-Allow-{what}")));
                assert_eq!((status.as_u16(), told), (204, ["*", "POST, OPTIONS", allowed].map(str::to_owned)), "{path}");
                assert_eq!(header(&headers, "Access-Control-Max-Age"), "86400");
                assert_eq!(header(&headers, "Vary"), "Access-Control-Request-Headers");
            }
        }
        // As analytics-next sends: no preflight, the key in a body of plain text.
        let event = json!({ "type": "track", "event": "A", "messageId": "n", "anonymousId": "d", "writeKey": key, "_metadata": {} });
        let send = |body: String| {
            let request = TestRequest::post().uri("/v1/t").insert_header(("Origin", "https://mall.example"));
            request.insert_header(("Content-Type", "text/plain;charset=UTF-8")).set_payload(body)
        };
        for (body, expected) in [(event.to_string(), 200), ("{".to_owned(), 401), (json!({ "writeKey": key }).to_string(), 400)] {
            let (status, _, headers) = ground.call_raw(send(body)).await;
            assert_eq!((status.as_u16(), header(&headers, "Access-Control-Allow-Origin")), (expected, "*".to_owned()));
            assert_eq!(header(&headers, "Access-Control-Expose-Headers"), "Retry-After");
        }
    })
    .await;
}

#[actix_web::test]
async fn a_text_that_no_database_holds_harms_no_other_event() {
    for_both_databases(|database| async move {
        let ground = Ground::open(&database).await;
        let key = ground.key(&[Scope::Ingest], None).await;
        let admin = ground.key(&[Scope::Admin], None).await;
        let strict = json!({ "mode": "strict", "properties": { "floor": { "type": "text" } } });
        assert_eq!(ground.put(&admin, "/v1/event-types/lift_taken", &strict).await.0, 200);
        let who = json!([{ "type": "device", "value": "d" }]);
        let rejected = [
            (json!({ "message_id": "n-1", "name": "lift_taken", "identifiers": who, "properties": { "a\u{0}": 1 } }), "against_schema"),
            (json!({ "message_id": "n-2", "name": "lift_taken", "identifiers": who, "properties": { "floor": "1\u{0}" } }), "against_schema"),
            (json!({ "message_id": "a\u{0}b", "name": "a", "identifiers": who }), "bad_message_id"),
            (json!({ "message_id": "n-3", "name": "a\u{0}b", "identifiers": who }), "bad_name"),
            (json!({ "message_id": "n-4", "name": "a", "identifiers": [{ "type": "openid@a\u{0}", "value": "o" }] }), "bad_identifier"),
            (json!({ "messageId": "n-5", "event": "a", "userId": "u\u{0}v" }), "bad_identifier"),
            (json!({ "messageId": "n-6", "type": "identify", "userId": "u", "traits": { "phone": "1\u{0}3812345678" } }), "bad_identifier"),
        ];
        let every = "a\u{0}b\u{7}";
        let campaign = json!({ "source": every, "medium": every, "name": every, "content": every, "term": every, "clickid": every });
        let taken = [
            json!({ "messageId": "t-1", "type": "page", "name": every, "anonymousId": "d", "properties": { every: every, "title": every },
                "context": { "page": { "url": "https://a.example/?utm_source=%00&utm_medium=c%00pc", "search": every } } }),
            json!({ "messageId": "t-2", "event": "Unit Viewed", "anonymousId": "d", "properties": { "layout": every },
                "context": { "campaign": campaign, "app": { "name": every }, "device": { "id": every },
                    "externalIds": [{ "type": every, "id": "x" }, { "type": "crm", "id": every }, { "type": "openid", "id": "o", "app": every }],
                    "traits": { "email": every, "openid": "o-1" } } }),
            json!({ "messageId": "t-3", "type": "identify", "userId": "u", "traits": { "name": every, "city": every, every: [every] } }),
            json!({ "message_id": "t-4", "name": "unit_viewed", "identifiers": who, "app": every,
                "touch": { "source": every, "platform": every, "click_id": every, "campaign": "\u{0}" } }),
            json!({ "message_id": "t-5", "name": "undeclared_type", "identifiers": who, "properties": { every: every } }),
        ];
        let events: Vec<&Value> = rejected.iter().map(|(event, _)| event).chain(&taken).collect();
        let (status, answer) = ground.post(&key, "/v1/events", &json!({ "events": events })).await;
        assert_eq!(status, 200, "{answer}");
        let reasons: Vec<&str> = rejected.iter().map(|(_, reason)| *reason).chain(taken.iter().map(|_| "")).collect();
        assert_eq!(results(&answer, "reason"), reasons, "{answer}");
        assert_eq!(results(&answer, "message_id")[2], "a\u{0}b");
        let details = results(&answer, "detail").concat();
        assert!(!details.chars().any(char::is_control), "{details:?}");
        assert_eq!(ground.count("SELECT COUNT(*) AS n FROM cdp_rejected").await, 7);
        assert_eq!(ground.get(&admin, "/v1/events?message_id=a%00b").await.1["status"], "rejected");
        ground.settle().await;
        assert_eq!(ground.cdp.position().await.ok(), Some(5));
        let touches = touches(&ground).await;
        assert_eq!(touches.lines().count(), 3, "{touches}");
        assert!(!touches.contains("\\u0000") && touches.contains("\"ab\""), "{touches}");
        let search = json!({ "type": "openid@a\u{0}", "value": "o" });
        assert!(ground.post(&ground.key(&[Scope::App], None).await, "/v1/customers:search", &search).await.0.is_client_error());
    })
    .await;
}
