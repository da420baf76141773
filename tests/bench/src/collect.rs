//! Collecting: how many events a second are acknowledged once they are durable.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use heyuan_harness::{Tenant, TestDatabase};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::connection::{Connection, post_head};
use crate::report::{Bar, Report, Row};
use crate::setting;

const BATCH: u64 = 100;
const BATCH_CONNECTIONS: usize = 8;
const SINGLE_CONNECTIONS: usize = 64;
const RETRY_AFTER: Duration = Duration::from_secs(1);
const ID_DIGITS: usize = 12;
const EVENT_BYTES: usize = 500;

/// What one run of the generator counted.
#[derive(Debug, Default)]
struct Counts {
    next_id: AtomicU64,
    acknowledged: AtomicU64,
    limited: AtomicU64,
}

/// A request body with places for message ids, so that a new request is a copy and a few digits.
#[derive(Clone, Debug)]
struct Template {
    request: Vec<u8>,
    ids_at: Vec<usize>,
}

impl Template {
    /// `POST /v1/batch` with [`BATCH`] events.
    fn batch(key: &str) -> Self {
        let events = vec![event(); BATCH as usize].join(",");
        Self::of("/v1/batch", key, &format!("{{\"batch\":[{events}]}}"))
    }

    /// `POST /v1/track` with one event.
    fn single(key: &str) -> Self {
        Self::of("/v1/track", key, &event())
    }

    /// What HTTP alone costs: a request that touches nothing, counted like an event.
    fn bare() -> Self {
        Self { request: b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".to_vec(), ids_at: Vec::new() }
    }

    fn of(path: &str, key: &str, body: &str) -> Self {
        let request = format!("{}{body}", post_head(path, key, body.len()));
        let ids_at = request.match_indices("\"messageId\":\"").map(|(at, found)| at + found.len()).collect();
        Self { request: request.into_bytes(), ids_at }
    }

    fn events(&self) -> u64 {
        self.ids_at.len().max(1) as u64
    }

    fn renumber(&mut self, first: u64) {
        for (at, id) in self.ids_at.iter().zip(first..) {
            let digits = format!("{id:0ID_DIGITS$}");
            self.request[*at..*at + ID_DIGITS].copy_from_slice(digits.as_bytes());
        }
    }
}

/// A page view of [`EVENT_BYTES`] as an app would send it.
fn event() -> String {
    let id = "0".repeat(ID_DIGITS);
    let event = |filler: &str| {
        format!(
            "{{\"type\":\"track\",\"messageId\":\"{id}\",\"anonymousId\":\"5f1c7a90-3c0e-4a52-9b77-0c1d2e3f4a5b\",\"event\":\"unit_viewed\",\
             \"properties\":{{\"unit_type\":\"3-room\",\"dwell_s\":42,\"price\":\"2980000.00\"}},\
             \"context\":{{\"page\":{{\"path\":\"/homes/riverside/units/1203\"}},\"userAgent\":\"{filler}\"}}}}"
        )
    };
    event(&"x".repeat(EVENT_BYTES - event("").len()))
}

pub(crate) async fn measure(report: &mut Report) {
    for database in [TestDatabase::sqlite(), TestDatabase::postgres().await] {
        let tenant = Tenant::start(&database).await;
        let key = tenant.caller("ingest").key().to_owned();
        let counts = Arc::new(Counts::default());

        let stored = setting("HEYUAN_BENCH_STORED", 1_000_000);
        let until_stored = move |counts: &Counts| counts.acknowledged.load(Ordering::Relaxed) >= stored;
        load(&tenant, BATCH_CONNECTIONS, Template::batch(&key), &counts, until_stored).await;

        let name = format!("collect: durable ack, batches of {BATCH}, {}", database.name());
        let (rate, method) = run(&tenant, BATCH_CONNECTIONS, Template::batch(&key), &counts).await;
        report.add(Row::new(&name, rate, "events/s", Bar::AtLeast(50_000.0), &method));

        let name = format!("collect: one event a request, {SINGLE_CONNECTIONS} connections, {}", database.name());
        let (bare, _) = run(&tenant, SINGLE_CONNECTIONS, Template::bare(), &Arc::default()).await;
        let (rate, method) = run(&tenant, SINGLE_CONNECTIONS, Template::single(&key), &counts).await;
        let method = format!("{method}; baseline: GET /livez from the same connections");
        report.add(Row::new(&name, rate, "requests/s", Bar::AtLeast(15_000.0), &method).beside(bare, None));
    }
}

/// Sends for a while and answers the rate of acknowledged events, with the method.
async fn run(tenant: &Tenant, width: usize, template: Template, counts: &Arc<Counts>) -> (f64, String) {
    let limit = Duration::from_secs(setting("HEYUAN_BENCH_SECONDS", 20));
    let stored = counts.acknowledged.load(Ordering::Relaxed);
    let limited = counts.limited.load(Ordering::Relaxed);
    let start = Instant::now();
    load(tenant, width, template, counts, move |_| start.elapsed() >= limit).await;
    let elapsed = start.elapsed().as_secs_f64();
    let acknowledged = counts.acknowledged.load(Ordering::Relaxed) - stored;
    let method = format!(
        "{} s, {width} connections, events of {EVENT_BYTES} B with new ids, {stored} ids stored before, all rooms running, {} answers 429, \
         durability as in production",
        limit.as_secs(),
        counts.limited.load(Ordering::Relaxed) - limited
    );
    (acknowledged as f64 / elapsed, method)
}

/// Sends from `width` connections until `done`; a refused request is counted and its events are sent again under new ids.
async fn load<F>(tenant: &Tenant, width: usize, template: Template, counts: &Arc<Counts>, done: F)
where
    F: Fn(&Counts) -> bool + Copy + Send + 'static,
{
    let address = tenant.url().trim_start_matches("http://").to_owned();
    let mut senders = JoinSet::new();
    for _ in 0..width {
        let (address, mut template, counts) = (address.clone(), template.clone(), counts.clone());
        senders.spawn(async move {
            let mut connection = Connection::open(&address).await?;
            while !done(&counts) {
                template.renumber(counts.next_id.fetch_add(template.events(), Ordering::Relaxed));
                match connection.send(&template.request).await? {
                    200 => {
                        counts.acknowledged.fetch_add(template.events(), Ordering::Relaxed);
                    }
                    429 => {
                        counts.limited.fetch_add(1, Ordering::Relaxed);
                        // As the server asks with Retry-After: an SDK would do the same, and the server needs the cores.
                        sleep_until(tokio::time::Instant::now() + RETRY_AFTER).await;
                    }
                    other => return Err(io::Error::other(format!("the server answers {other}"))),
                }
            }
            Ok::<(), io::Error>(())
        });
    }
    for sender in senders.join_all().await {
        sender.expect("the server takes events");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_gives_each_event_its_id() {
        assert_eq!(event().len(), EVENT_BYTES);
        let mut template = Template::batch("key");
        assert_eq!(template.events(), BATCH);
        template.renumber(41);
        let request = String::from_utf8(template.request).expect("a request is text");
        assert!(request.contains("\"messageId\":\"000000000041\"") && request.contains("\"messageId\":\"000000000140\""));
    }
}
