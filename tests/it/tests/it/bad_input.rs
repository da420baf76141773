//! Bodies that no honest client sends: each is refused with a code or kept among the rejected, and memory stays bounded.

use std::fs;

use heyuan_harness::{Answer, Caller, Tenant, for_both_databases, python_tool};
use reqwest::Method;
use serde_json::{Value, json};

use crate::history;

/// What the peak of resident memory may grow by while bombs go off, in KiB.
const GROWTH_KIB_MAX: u64 = 256 * 1024;

const COLLECTING: &[&str] = &["/v1/events", "/v1/batch", "/v1/track"];

/// A body as it goes over the wire: what it is, its content encoding, its bytes.
type Bad = (&'static str, Option<&'static str>, Vec<u8>);

/// As many MiB of zeros, compressed by the reference implementation.
async fn bomb(mebibytes: usize) -> Vec<u8> {
    let program = format!(
        "import zlib; z = zlib.compressobj(6, wbits=31); print(b''.join([*(z.compress(bytes(1 << 20)) for _ in range({mebibytes})), z.flush()]).hex())"
    );
    let (made, output) = python_tool("python", &["-c", &program]).await;
    assert!(made, "{output}");
    hex::decode(output.trim()).expect("the program prints hexadecimal digits")
}

async fn bodies() -> Vec<Bad> {
    let nested = [b"[".repeat(1_000), b"]".repeat(1_000)].concat();
    vec![
        ("nothing", None, Vec::new()),
        ("no JSON", None, b"hello".to_vec()),
        ("half of a JSON", None, br#"{"events": [{"#.to_vec()),
        ("invalid UTF-8", None, b"{\"events\": [\"\xff\xfe\"]}".to_vec()),
        ("JSON a thousand deep", None, nested.clone()),
        ("events a thousand deep", None, [b"{\"events\": ".as_slice(), &nested, b"}"].concat()),
        ("a number instead", None, b"42".to_vec()),
        ("a list of numbers", None, b"[1, 2, 3]".to_vec()),
        ("no gzip although it says so", Some("gzip"), br#"{"events": []}"#.to_vec()),
        ("a broken gzip", Some("gzip"), bomb(1).await[..100].to_vec()),
        ("a zip bomb", Some("gzip"), bomb(1024).await),
        ("an oversized body", None, [b"{\"events\": \"".as_slice(), &vec![b'x'; 64 << 20], b"\"}"].concat()),
    ]
}

/// The peak of resident memory so far.
pub(crate) fn peak_kib(tenant: &Tenant) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", tenant.process_id())).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel says VmHWM");
    line.trim().trim_end_matches(" kB").parse().expect("VmHWM is a number")
}

/// How many rejected events are kept; a page holds more than this test makes.
async fn rejected(admin: &Caller) -> usize {
    let page = admin.get("/v1/events/rejected?limit=200").await.expect(200);
    page["items"].as_array().expect("a page has items").len()
}

#[tokio::test]
async fn bodies_that_nobody_should_send_are_refused_one_by_one() {
    let bodies = bodies().await;
    for_both_databases(async |database| {
        let tenant = Tenant::start(&database).await;
        let (app, admin) = (tenant.caller("ingest"), tenant.caller("admin"));
        let mut kept = rejected(&admin).await;
        let before = peak_kib(&tenant);
        for path in COLLECTING {
            for (what, encoding, body) in &bodies {
                let request = app.request(Method::POST, path).header("Content-Type", "application/json").body(body.clone());
                let request = encoding.iter().fold(request, |request, encoding| request.header("Content-Encoding", *encoding));
                // A server may close the connection in the middle of a body that is too large; then there is no answer to read.
                if let Ok(answer) = Answer::try_of(request).await {
                    // A body that still is a list of events is taken, and each bad event in it kept among the rejected.
                    if answer.status == 200 {
                        let now = rejected(&admin).await;
                        assert!(now > kept, "{what} to {path} was neither refused nor rejected: {}", answer.text());
                        kept = now;
                        continue;
                    }
                    assert!((400..500).contains(&answer.status), "{what} to {path}: {} {}", answer.status, answer.text());
                    answer.problem(answer.status);
                }
            }
        }
        let grown = peak_kib(&tenant) - before;
        assert!(grown < GROWTH_KIB_MAX, "memory grew by {grown} KiB");
        assert!(!tenant.log().contains("panicked at"));
    })
    .await;
}

#[tokio::test]
async fn a_bad_event_does_not_harm_its_batch() {
    let track = |id: &str| json!({ "type": "track", "message_id": id, "name": "unit_viewed", "identifiers": [{ "type": "device", "value": "d-1" }] });
    let long = "x".repeat(1 << 20);
    let bad = [
        json!(42),
        json!(null),
        json!({}),
        json!({ "type": "track", "message_id": 7, "name": "unit_viewed" }),
        json!({ "type": "no such type", "message_id": "b-1" }),
        json!({ "type": "track", "message_id": "b-2", "name": "unit_viewed", "identifiers": [{ "type": "device", "value": "" }] }),
        json!({ "type": "track", "message_id": "b-3", "name": "unit_viewed", "identifiers": "device" }),
        json!({ "type": "track", "message_id": long, "name": "unit_viewed", "identifiers": [{ "type": "device", "value": "d-1" }] }),
    ];
    for_both_databases(async |database| {
        let tenant = Tenant::start(&database).await;
        let app = tenant.caller("ingest");
        for (number, bad) in bad.iter().enumerate() {
            let (before, after) = (format!("good-{number}-before"), format!("good-{number}-after"));
            let answer = app.post("/v1/events", &json!({ "events": [track(&before), bad, track(&after)] })).await.expect(200);
            let statuses: Vec<_> = answer["results"].as_array().expect("results").iter().map(|result| result["status"].as_str()).collect();
            assert_eq!(statuses, [Some("ok"), Some("rejected"), Some("ok")], "{answer}");
            assert!(answer["results"][1]["reason"].is_string(), "{answer}");
        }
    })
    .await;
}

/// A text as a broken sender makes it: PostgreSQL holds no U+0000.
const BROKEN: &str = "a\u{0}b";

/// Events with a broken text in one place each, and whether they are taken all the same.
fn broken_events() -> Vec<(Value, bool)> {
    let who = json!([{ "type": "device", "value": "broken" }]);
    let touched = json!({ "source": BROKEN, "medium": BROKEN, "name": BROKEN, "content": BROKEN, "term": BROKEN, "clickid": BROKEN });
    vec![
        (json!({ "message_id": "x-1", "name": "lift_taken", "identifiers": who, "properties": { BROKEN: 1 } }), false),
        (json!({ "message_id": BROKEN, "name": "unit_viewed", "identifiers": who }), false),
        (json!({ "message_id": "x-2", "name": BROKEN, "identifiers": who }), false),
        (json!({ "message_id": "x-3", "name": "a", "identifiers": [{ "type": "openid", "value": "o", "app": BROKEN }] }), false),
        (json!({ "messageId": "x-4", "event": "a", "userId": BROKEN, "anonymousId": "broken" }), false),
        (json!({ "messageId": "broken-1", "event": "a", "anonymousId": "broken", "context": { "campaign": touched } }), true),
        (
            json!({ "messageId": "broken-2", "type": "page", "name": BROKEN, "anonymousId": "broken",
                "context": { "page": { "url": "https://a.example/?utm_source=s%00&utm_campaign=%00&gdt_vid=%00" } } }),
            true,
        ),
        (
            json!({ "message_id": "broken-3", "name": "unit_viewed", "identifiers": who, "app": BROKEN,
                "touch": { "platform": BROKEN, "source": BROKEN, "click_id": BROKEN } }),
            true,
        ),
        (
            json!({ "messageId": "broken-4", "type": "identify", "anonymousId": "broken",
                "traits": { "name": BROKEN, "city": BROKEN, BROKEN: BROKEN },
                "context": { "device": { "id": BROKEN }, "externalIds": [{ "type": "crm", "id": BROKEN }], "app": { "name": BROKEN } } }),
            true,
        ),
        (
            json!({ "message_id": "broken-5", "name": "unit_viewed", "identifiers": who, "properties": { "layout": BROKEN, BROKEN: BROKEN } }),
            true,
        ),
    ]
}

#[tokio::test]
async fn a_text_that_no_database_holds_stops_nothing() {
    for_both_databases(async |database| {
        let tenant = Tenant::start(&database).await;
        let (app, admin) = (tenant.caller("ingest"), tenant.caller("admin"));
        let strict = json!({ "mode": "strict", "properties": { "floor": { "type": "integer" } } });
        admin.put("/v1/event-types/lift_taken", &strict).await.expect(200);
        let events = broken_events();
        let sent: Vec<&Value> = events.iter().map(|(event, _)| event).collect();
        let answer = app.post("/v1/events", &json!({ "events": sent })).await.expect(200);
        for ((event, taken), result) in events.iter().zip(answer["results"].as_array().expect("results")) {
            assert_eq!(result["status"], if *taken { "ok" } else { "rejected" }, "{event} {result}");
        }
        let segment = json!({ "type": "track", "event": "a", "messageId": "broken-6", "anonymousId": "broken" });
        let batch = json!({ "context": { "campaign": { "name": BROKEN } }, "batch": [{ "type": "track", "event": BROKEN, "userId": BROKEN }, segment] });
        app.post("/v1/batch", &batch).await.expect(200);
        let ids: Vec<String> = (1..=6).map(|number| format!("broken-{number}")).collect();
        history::holds_once(&admin, "broken-", &ids).await;
        history::settled(&tenant).await;
        let parked = admin.get("/v1/parked-events").await.expect(200);
        assert_eq!(parked["items"], json!([]), "{parked}");
        assert_eq!(rejected(&admin).await, 6);
    })
    .await;
}
