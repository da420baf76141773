//! Collecting: how many events a second are acknowledged once they are durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use heyuan_harness::{Tenant, TestDatabase, until};
use sea_orm::DatabaseConnection;

use crate::connection::post_head;
use crate::group::loaded_tenant;
use crate::http_load::closed_loop;
use crate::inside;
use crate::report::{Bar, Report, Row};
use crate::run::Size;

const BATCH: u64 = 100;
const BATCH_CONNECTIONS: usize = 8;
const SINGLE_CONNECTIONS: usize = 64;
const ID_DIGITS: usize = 12;
const EVENT_BYTES: usize = 500;
/// People behind the events.
const DEVICES: u64 = 20_000;
/// As `collect.generation_ids`.
const GENERATION_IDS: u64 = 524_288;
/// Ids in a row of an open generation: a group commit's.
const ROW_IDS: u64 = 4_096;
const CLOSE_LIMIT: Duration = Duration::from_secs(600);
/// Waiting events beyond which senders get 429 where a flat backlog is measured: those that wait for the lake's next flush are among them.
const FLAT_BACKLOG: &str = "100000";

/// A request with places for message ids and devices, so that a new request is a copy and a few digits.
#[derive(Clone, Debug)]
struct Template {
    request: Vec<u8>,
    ids_at: Vec<usize>,
    devices_at: Vec<usize>,
}

impl Template {
    /// `POST /v1/batch` with [`BATCH`] events.
    fn batch(key: &str) -> Self {
        Self::of("/v1/batch", key, &format!("{{\"batch\":[{}]}}", vec![event(); BATCH as usize].join(",")))
    }

    /// `POST /v1/track` with one event.
    fn single(key: &str) -> Self {
        Self::of("/v1/track", key, &event())
    }

    fn of(path: &str, key: &str, body: &str) -> Self {
        let request = format!("{}{body}", post_head(path, key, body.len()));
        let places = |mark: &str| request.match_indices(mark).map(|(at, found)| at + found.len()).collect();
        let (ids_at, devices_at) = (places("\"messageId\":\""), places("\"anonymousId\":\"device-"));
        Self { request: request.into_bytes(), ids_at, devices_at }
    }

    fn events(&self) -> u64 {
        self.ids_at.len() as u64
    }

    /// Writes the request whose events have the ids from `first` on.
    fn write(&self, first: u64, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.request);
        for (place, id) in (0..self.ids_at.len()).zip(first..) {
            let mut put = |at: usize, number: u64| {
                let digits = format!("{number:0ID_DIGITS$}");
                bytes[at..at + ID_DIGITS].copy_from_slice(digits.as_bytes());
            };
            put(self.ids_at[place], id);
            put(self.devices_at[place], id.wrapping_mul(0x9e37_79b9_7f4a_7c15) % DEVICES);
        }
    }
}

/// A page view of [`EVENT_BYTES`] as the demo group's app sends it.
fn event() -> String {
    let zeros = "0".repeat(ID_DIGITS);
    let event = |filler: &str| {
        format!(
            "{{\"type\":\"track\",\"messageId\":\"{zeros}\",\"anonymousId\":\"device-{zeros}\",\"event\":\"Unit Viewed\",\
             \"properties\":{{\"unit_type\":\"3br\",\"dwell_seconds\":42,\"price_fen\":298000000}},\
             \"context\":{{\"page\":{{\"path\":\"/homes/riverside/units/1203\"}},\"userAgent\":\"{filler}\"}}}}"
        )
    };
    event(&"x".repeat(EVENT_BYTES - event("").len()))
}

/// Per database, on a tenant with the demo group's features, tags, segments and plugins and with message ids stored before:
/// acknowledgement alone (the processor's lease is held by nobody who works, so that what is taken waits; the backlog is stated);
/// one event a request from 64 connections, the same way; and with every room running while 429 keeps the backlog flat.
pub(crate) async fn measure(report: &mut Report, size: Size) {
    let stored = size.pick(10_000_000, 200_000);
    let time = size.pick(Duration::from_secs(60), Duration::from_secs(4));
    for database in [TestDatabase::postgres().await, TestDatabase::sqlite()] {
        let environment = vec![
            ("HEYUAN_COLLECT__BACKLOG_ROWS_MAX".to_owned(), FLAT_BACKLOG.to_owned()),
            ("HEYUAN_COLLECT__RETRY_AFTER_S".to_owned(), "1".to_owned()),
        ];
        let mut tenant = loaded_tenant(&database, 200, 20, Vec::new()).await;
        let connection = inside::open(&database).await;
        tenant.stop().await;
        let how = seed(&connection, &database, stored).await;
        tenant.restart().await;
        if !database.is_postgres() {
            until("the tenant has stored the seeded generations", CLOSE_LIMIT, || closed(&connection)).await;
        }
        tenant.stop().await;
        let durability = inside::durability(&connection).await;
        let ground =
            format!("events of {EVENT_BYTES} B with new ids of {DEVICES} devices, {stored} ids stored before ({how}), {durability}");
        let next = Arc::new(AtomicU64::new(1));

        // Nobody processes: somebody else holds the lease, as on another machine that hangs.
        hold_lease(&connection, true).await;
        tenant.restart().await;
        let key = tenant.caller("ingest").key().to_owned();
        for (what, template, width, bar) in [
            (format!("durable ack, batches of {BATCH}, acknowledgement only"), Template::batch(&key), BATCH_CONNECTIONS, 50_000.0),
            (format!("one event a request, {SINGLE_CONNECTIONS} connections"), Template::single(&key), SINGLE_CONNECTIONS, 15_000.0),
        ] {
            run(
                report,
                &tenant,
                &connection,
                Run { what, template, width, bar, time, counted: Counted::All, ground: &ground, next: &next },
            )
            .await;
        }
        tenant.stop().await;
        connection_emptied(&connection).await;
        hold_lease(&connection, false).await;
        drop(tenant);

        // Every room, the backlog bounded by the server's own 429.
        let options = heyuan_harness::TenantOptions { environment, ..heyuan_harness::TenantOptions::default() };
        let tenant = Tenant::start_with(&database, options).await;
        let template = Template::batch(&key);
        let what = format!("durable ack, batches of {BATCH}, every room running, flat backlog");
        run(
            report,
            &tenant,
            &connection,
            Run {
                what,
                template,
                width: BATCH_CONNECTIONS,
                bar: 10_000.0,
                time,
                counted: Counted::WithoutGrowth,
                ground: &ground,
                next: &next,
            },
        )
        .await;
    }
}

/// What of the acknowledged events makes the figure.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counted {
    All,
    /// Less those by which the backlog grew: what the rooms kept up with.
    WithoutGrowth,
}

struct Run<'a> {
    what: String,
    template: Template,
    width: usize,
    bar: f64,
    time: Duration,
    counted: Counted,
    ground: &'a str,
    next: &'a Arc<AtomicU64>,
}

async fn run(report: &mut Report, tenant: &Tenant, connection: &DatabaseConnection, run: Run<'_>) {
    let (events, next) = (run.template.events(), run.next.clone());
    let before = inside::backlog(connection).await;
    let start = Instant::now();
    let template = run.template;
    let seen = closed_loop(tenant, run.width, run.time, move |_, bytes| {
        template.write(next.fetch_add(events, Ordering::Relaxed), bytes);
    })
    .await;
    let after = inside::backlog(connection).await;
    let grown = (after - before) as f64 / start.elapsed().as_secs_f64();
    let acknowledged = seen.rate * events as f64;
    let (per_second, counted) = match run.counted {
        Counted::All => (acknowledged, ""),
        Counted::WithoutGrowth => (acknowledged - grown.max(0.0), "acknowledged less the growth of the backlog, "),
    };
    let method = format!(
        "{counted}{} s, {} connections, {}; backlog {before} before, {after} after ({grown:.0} events/s of growth); {}",
        run.time.as_secs(),
        run.width,
        run.ground,
        seen.words()
    );
    let unit = if events == 1 { "requests/s" } else { "events/s" };
    report.add(Row::new(&format!("collect: {}, {}", run.what, tenant.database().name()), per_second, unit, Bar::AtLeast(run.bar), &method));
}

/// Stores `count` message ids, seen now; says how.
async fn seed(connection: &DatabaseConnection, database: &TestDatabase, count: u64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("the clock is past 1970");
    let now = i64::try_from(now.as_millis()).expect("milliseconds fit");
    if database.is_postgres() {
        let text = "INSERT INTO cdp_message_id (id, seen_at)
                    SELECT substring(sha256(('seed-' || place)::bytea) FROM 1 FOR 16), $1 FROM generate_series(1, $2::bigint) AS place";
        inside::execute(connection, "SET statement_timeout = 0", Vec::new()).await;
        inside::execute(connection, text, vec![now.into(), (count as i64).into()]).await;
        inside::execute(connection, "VACUUM ANALYZE cdp_message_id", Vec::new()).await;
        return "inserted into cdp_message_id as SHA-256 in order of arrival".into();
    }
    // Numbers beyond any that the tenant has used; the generation that it writes to next must be the newest.
    let base = inside::number(connection, "SELECT COALESCE(MAX(generation), 0) FROM cdp_message_open").await + 1;
    let text = "INSERT INTO cdp_message_open (generation, seen_at, ids) VALUES ($1, $2, $3)";
    inside::execute(connection, "BEGIN", Vec::new()).await;
    for first in (0..count).step_by(ROW_IDS as usize) {
        let ids: Vec<u8> = (first..count.min(first + ROW_IDS)).flat_map(random_id).collect();
        let generation = base + (first / GENERATION_IDS) as i64;
        inside::execute(connection, text, vec![generation.into(), now.into(), ids.into()]).await;
    }
    inside::execute(connection, "COMMIT", Vec::new()).await;
    "written as open generations, which the tenant's own start sorted into chunks and filters".into()
}

/// 16 bytes as evenly spread as a hash (SplitMix64).
fn random_id(number: u64) -> [u8; 16] {
    let mixed = |seed: u64| {
        let z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (u128::from(mixed(2 * number + 1)) << 64 | u128::from(mixed(2 * number + 2))).to_be_bytes()
}

/// Only the newest generation is open.
async fn closed(connection: &DatabaseConnection) -> Option<()> {
    let open = inside::number(connection, "SELECT COUNT(DISTINCT generation) FROM cdp_message_open").await;
    (open <= 1).then_some(())
}

/// Lets the lease of the processor be held by nobody who works, or gives it up.
async fn hold_lease(connection: &DatabaseConnection, held: bool) {
    let until = if held { i64::MAX / 2 } else { 0 };
    let text = "UPDATE kernel_lease SET holder = 'the bench', fence = fence + 1, expires_at = $1 WHERE name = 'processor'";
    inside::execute(connection, text, vec![until.into()]).await;
}

/// Marks what waits as processed, so that the next row begins without a backlog: numbering goes on after it.
async fn connection_emptied(connection: &DatabaseConnection) {
    inside::execute(connection, "DELETE FROM cdp_inbox_block WHERE first_position IS NULL", Vec::new()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_gives_each_event_its_id() {
        assert_eq!(event().len(), EVENT_BYTES);
        let template = Template::batch("key");
        assert_eq!(template.events(), BATCH);
        let mut request = Vec::new();
        template.write(41, &mut request);
        let request = String::from_utf8(request).expect("a request is text");
        assert!(request.contains("\"messageId\":\"000000000041\"") && request.contains("\"messageId\":\"000000000140\""));
    }
}
