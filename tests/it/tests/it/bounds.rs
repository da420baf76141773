//! Bounds under load: bodies in memory, what waits, free disk. Senders are told to wait, honest ones get through, and nothing runs full.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use heyuan_harness::{Answer, Caller, Tenant, TenantOptions, TestDatabase, concurrently, for_both_databases, until};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::interval_at;

use crate::bad_input::peak_kib;
use crate::crash::{EVENTS_A_REQUEST, batch, statuses};
use crate::history::holds_once;

/// Generous: other tests run beside these.
const PATIENCE: Duration = Duration::from_secs(120);

/// The budget of bodies in these tests, the smallest that is allowed.
const BUDGET_BYTES: u64 = 64 << 20;
/// Whole bodies that are sent at once, of nearly 4 MiB each: six times the budget.
const SENDERS: usize = 100;
/// Bodies that stop on their way, half of them by callers who show no key.
const TRICKLERS: usize = 100;
/// What the peak of resident memory may grow by, in KiB: twice the budget, and 192 MiB for groups that are sealed, buffers of connections
/// and what the allocator keeps. All bodies together have more than 500 MiB, and would be held twice.
const GROWTH_KIB_MAX: u64 = (2 * BUDGET_BYTES + (192 << 20)) / 1024;

fn environment(settings: &[(&str, &str)]) -> TenantOptions {
    let environment = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    TenantOptions { environment, ..TenantOptions::default() }
}

/// A body of nearly 4 MiB whose every event is as large as an event may be.
fn large_body(prefix: &str) -> String {
    let filling = "x".repeat(31_000);
    let event = |number: usize| {
        let identifiers = json!([{ "type": "device", "value": format!("{prefix}-{number}") }]);
        json!({ "message_id": format!("{prefix}-{number}"), "name": "unit_viewed", "identifiers": identifiers, "properties": { "note": filling } })
    };
    json!({ "events": (0..130).map(event).collect::<Vec<_>>() }).to_string()
}

/// Begins a body of 4 MiB and stops in the middle; answers the status line of what comes back.
fn trickle(tenant: &Tenant, key: Option<&str>, sent: usize) -> thread::JoinHandle<String> {
    let address = tenant.url().trim_start_matches("http://").to_owned();
    let authorization = key.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
    thread::spawn(move || {
        let mut connection = TcpStream::connect(&address).expect("the tenant listens");
        connection.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let head = format!("POST /v1/batch HTTP/1.1\r\nHost: {address}\r\nContent-Length: 4000000\r\n{authorization}\r\n");
        // The server may refuse before it has read everything.
        let _ = connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(&vec![b' '; sent]));
        let mut answer = Vec::new();
        let _ = connection.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
    })
}

/// Sends a body until it is taken; what is refused meanwhile comes again when it is told to.
async fn sent_until_taken(app: &Caller, body: &'static str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // A server that refuses in the middle of a body may close the connection before the answer is read.
        let answer = Answer::try_of(app.request(Method::POST, "/v1/events").body(body)).await.ok();
        if answer.as_ref().is_some_and(|answer| answer.status == 200) {
            return;
        }
        assert!(Instant::now() < deadline, "the body is never taken");
        let seconds = answer.map_or(2, |answer| {
            assert_eq!(answer.problem(429), "bodies_full", "{}", answer.text());
            answer.header("retry-after").and_then(|seconds| seconds.parse().ok()).expect("the answer says when to come again")
        });
        let wait = Duration::from_secs(seconds);
        interval_at(tokio::time::Instant::now() + wait, wait).tick().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_large_and_trickling_bodies_at_once_stay_within_the_budget() {
    let budget = BUDGET_BYTES.to_string();
    let options = environment(&[
        ("HEYUAN_HTTP__BODIES_BYTES_MAX", &budget),
        ("HEYUAN_HTTP__BODY_SECONDS", "2"),
        ("HEYUAN_HTTP__BODY_BYTES_PER_SECOND_MIN", "1048576"),
    ]);
    for_both_databases(async |database| {
        let tenant = Tenant::start_with(&database, options.clone()).await;
        let app = tenant.caller("ingest");
        // Kept for as long as the process lives, so that a thousand attempts share it.
        let large: &'static str = large_body("large").leak();
        let (small_ids, small) = batch("honest");
        let small: &'static str = small.to_string().leak();
        let before = peak_kib(&tenant);

        let tricklers: Vec<_> = (0..TRICKLERS)
            .map(|number| if number % 2 == 0 { trickle(&tenant, Some(app.key()), 2 << 20) } else { trickle(&tenant, None, 500 << 10) })
            .collect();
        let attack = concurrently(SENDERS, SENDERS, |_| sent_until_taken(&app, large));
        let honest = sent_until_taken(&app, small);
        futures::join!(attack, honest);
        for trickler in tricklers {
            let answer = trickler.join().expect("a trickler ends");
            // The one whose connection was reset before it could read has no answer.
            let refused = ["HTTP/1.1 408 ", "HTTP/1.1 429 "].iter().any(|status| answer.starts_with(status));
            assert!(refused || answer.is_empty(), "{answer}");
        }
        let grown = peak_kib(&tenant) - before;
        assert!(grown < GROWTH_KIB_MAX, "memory grew by {grown} KiB");
        until("all that was taken of the budget has gone back", PATIENCE, || async {
            let metrics = tenant.stranger().get("/metrics").await.text();
            metrics.lines().any(|line| line.starts_with("heyuan_body_bytes") && line.ends_with(" 0")).then_some(())
        })
        .await;
        holds_once(&tenant.caller("admin"), "honest-", &small_ids).await;
    })
    .await;
}

#[tokio::test]
async fn a_body_without_a_known_key_is_small() {
    let tenant = Tenant::start(&TestDatabase::sqlite()).await;
    let app = tenant.caller("ingest");
    let batch = json!({ "writeKey": app.key(), "batch": [], "padding": "x".repeat(600 << 10) }).to_string();
    let stranger = tenant.stranger().request(Method::POST, "/v1/b").body(batch.clone());
    assert_eq!(Answer::of(stranger).await.problem(413), "body_too_large");
    Answer::of(app.request(Method::POST, "/v1/b").body(batch)).await.expect(200);
}

/// What a sender keeps and sends again.
struct Refused {
    ids: Vec<String>,
    body: Value,
    detail: String,
}

/// Checks that an answer asks to wait.
fn asks_to_wait(answer: &Answer) -> String {
    assert_eq!(answer.problem(429), "collect_full", "{}", answer.text());
    assert_eq!(answer.header("retry-after"), Some("5"), "{:?}", answer.headers);
    answer.json()["detail"].as_str().expect("a problem has a detail").to_owned()
}

/// Sends batches until one is refused; answers the ids of those that were taken as well.
async fn sent_until_full(app: &Caller, prefix: &str) -> (Vec<String>, Refused) {
    let deadline = Instant::now() + PATIENCE;
    let mut taken = Vec::new();
    for number in 0.. {
        let (ids, body) = batch(&format!("{prefix}-{number}"));
        let answer = app.post("/v1/events", &body).await;
        if answer.status != 200 {
            return (taken, Refused { ids, body, detail: asks_to_wait(&answer) });
        }
        assert_eq!(statuses(&answer), vec!["ok"; EVENTS_A_REQUEST]);
        taken.extend(ids);
        assert!(Instant::now() < deadline, "the backlog is never full");
    }
    unreachable!("the numbers do not end")
}

#[tokio::test]
async fn a_full_backlog_asks_senders_to_wait_and_takes_them_once_it_is_drained() {
    // What is processed waits for the lake, which takes it after five seconds: until then it counts as well.
    let options = environment(&[("HEYUAN_COLLECT__BACKLOG_ROWS_MAX", "100"), ("HEYUAN_COLLECT__FLUSH_AGE_MS", "5000")]);
    for_both_databases(async |database| {
        let tenant = Tenant::start_with(&database, options.clone()).await;
        let (app, admin) = (tenant.caller("ingest"), tenant.caller("admin"));
        let (mut taken, refused) = sent_until_full(&app, "waits").await;
        assert!(refused.detail.contains("collect.backlog_rows_max"), "{}", refused.detail);
        assert!(taken.len() >= 100, "{} events were taken", taken.len());
        until("the same request is taken", PATIENCE, || async {
            let answer = app.post("/v1/events", &refused.body).await;
            if answer.status == 200 {
                assert_eq!(statuses(&answer), vec!["ok"; EVENTS_A_REQUEST], "nothing of what was refused had been taken");
                return Some(());
            }
            asks_to_wait(&answer);
            None
        })
        .await;
        taken.extend(refused.ids);
        holds_once(&admin, "waits-", &taken).await;
    })
    .await;
}

#[tokio::test]
async fn senders_wait_while_the_reserve_of_the_disk_is_touched_and_everything_else_goes_on() {
    for_both_databases(async |database| {
        let mut tenant = Tenant::start(&database).await;
        let (app, admin) = (tenant.caller("ingest"), tenant.caller("admin"));
        let (mut kept, body) = batch("reserve-before");
        assert_eq!(statuses(&app.post("/v1/events", &body).await), vec!["ok"; EVENTS_A_REQUEST]);
        tenant.stop().await;

        // No disk has so much left: it is down to the reserve long before it is full.
        let reserve = i64::MAX.to_string();
        let mut short = Tenant::start_with(&database, environment(&[("HEYUAN_COLLECT__DISK_RESERVE_BYTES", &reserve)])).await;
        let (short_app, short_admin) = (short.caller_with(app.key()), short.caller_with(admin.key()));
        let (ids, body) = batch("reserve-during");
        let detail = asks_to_wait(&short_app.post("/v1/events", &body).await);
        assert!(detail.contains("collect.disk_reserve_bytes"), "{detail}");
        let declared = json!({ "mode": "open", "properties": { "floor": { "type": "integer" } } });
        short_admin.put("/v1/event-types/lift_taken", &declared).await.expect(200);
        holds_once(&short_admin, "reserve-", &kept).await;
        short.stop().await;

        tenant.restart().await;
        assert_eq!(statuses(&app.post("/v1/events", &body).await), vec!["ok"; EVENTS_A_REQUEST]);
        kept.extend(ids);
        holds_once(&admin, "reserve-", &kept).await;
    })
    .await;
}
