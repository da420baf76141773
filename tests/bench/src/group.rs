//! A tenant with the demo group: how long it takes to load, to start again, what it holds in memory, and how fast it answers.

use std::time::{Duration, Instant};

use heyuan_harness::{Tenant, TenantOptions, TestDatabase, cache_dir, until};
use sea_orm::DatabaseConnection;
use tokio::time::{Instant as Deadline, sleep_until};

use crate::connection::post_head;
use crate::http_load::closed_loop;
use crate::inside;
use crate::report::{Bar, Report, Row, percentile};
use crate::run::{Size, processor_time, resident_mib};
use crate::units::Units;

const LOAD_LIMIT: Duration = Duration::from_secs(900);
const STARTS: usize = 10;
const READERS: usize = 16;
const PAYERS: [(usize, Bar); 2] = [(16, Bar::None), (64, Bar::AtLeast(1_000.0))];
const QUOTERS: usize = 4;
/// Profiles and members that are asked about in turn.
const PEOPLE_MAX: usize = 5_000;

/// Starts a tenant that fills itself with the demo group through its public API, and waits for the end of it.
pub(crate) async fn loaded_tenant(database: &TestDatabase, customers: u32, days: u32, environment: Vec<(String, String)>) -> Tenant {
    let word = |text: &str| text.to_owned().into();
    let arguments = vec![
        word("--plugins"),
        cache_dir().join("plugins").into_os_string(),
        word("--customers"),
        word(&customers.to_string()),
        word("--days"),
        word(&days.to_string()),
    ];
    let options = TenantOptions { command: vec![word("demo"), word("run")], arguments, environment, ..TenantOptions::default() };
    let tenant = Tenant::start_with(database, options).await;
    let mark = database.data_dir().join("demo/loaded.json");
    until("the demo group is loaded", LOAD_LIMIT, || async { mark.exists().then_some(()) }).await;
    tenant
}

/// The rows of both databases; starts and memory on SQLite alone, idle connections on PostgreSQL alone.
pub(crate) async fn measure(report: &mut Report, size: Size) {
    let (customers, days) = (size.pick(5_000, 200), size.pick(90, 20));
    for database in [TestDatabase::sqlite(), TestDatabase::postgres().await] {
        let name = database.name();
        let start = Instant::now();
        let mut tenant = loaded_tenant(&database, customers, days, Vec::new()).await;
        let group = format!("demo group of {customers} customers over {days} days, two plugins active");
        let method =
            format!("{group}; from exec of `heyuan demo run`, generating included, through the public API, until every event is processed");
        report.add(Row::new(&format!("demo: load, {name}"), start.elapsed().as_secs_f64(), "s", Bar::None, &method));
        let connection = inside::open(&database).await;
        let durability = inside::durability(&connection).await;

        read_profiles(report, size, &tenant, &connection, &format!("{group}; {name}")).await;
        pay(report, size, &tenant, &connection, &format!("{group}; {durability}")).await;
        start_and_idle(report, size, &mut tenant, &connection, &group).await;
    }
}

/// Profile read over HTTP: 16 kept-alive connections ask for the profiles of up to 5,000 customers in turn, features and tags included.
async fn read_profiles(report: &mut Report, size: Size, tenant: &Tenant, connection: &DatabaseConnection, group: &str) {
    let name = tenant.database().name();
    let customers: Vec<String> =
        inside::column(connection, &format!("SELECT customer FROM cdp_standing ORDER BY number LIMIT {PEOPLE_MAX}")).await;
    if customers.is_empty() {
        return report.add(Row::missing(&format!("know: profile read, {name}"), "the demo group left no standing"));
    }
    let key = tenant.caller("app").key().to_owned();
    let asked = customers.len();
    let mut seen = closed_loop(tenant, READERS, size.time(), move |number, bytes| {
        let customer = &customers[number as usize % customers.len()];
        bytes.extend_from_slice(
            format!("GET /v1/customers/{customer}/profile HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n\r\n").as_bytes(),
        );
    })
    .await;
    let method = format!("{} s, {READERS} connections, {asked} customers in turn, {group}; {}", size.time().as_secs(), seen.words());
    report.add(Row::new(&format!("know: profile read over HTTP, {name}"), seen.rate, "reads/s", Bar::AtLeast(10_000.0), &method));
    report.add(Row::new(&format!("know: profile read p99, {name}"), seen.milliseconds(0.99), "ms", Bar::AtMost(10.0), &method));
}

/// Transaction to posted points over HTTP, the plugin `member-day` included, then quotes: each connection reports purchases at a
/// mall for the demo's members in turn, each under a key of its own; 2xx after the commit. First from a few connections, then from as
/// many as the bar for single events names, since the membership's own bar names none. Quotes run alone, from four connections.
async fn pay(report: &mut Report, size: Size, tenant: &Tenant, connection: &DatabaseConnection, group: &str) {
    let name = tenant.database().name();
    let members: Vec<String> =
        inside::column(connection, &format!("SELECT id FROM membership_member WHERE anchor IS NOT NULL ORDER BY id LIMIT {PEOPLE_MAX}"))
            .await;
    if members.is_empty() {
        return report.add(Row::missing(&format!("membership: transaction to points, {name}"), "the demo group left no member"));
    }
    let (asked, key) = (members.len(), tenant.caller("app").key().to_owned());
    let count = "SELECT COUNT(*) FROM membership_transaction";
    let request = |path: &'static str, prefix: &str| {
        let (members, key, prefix) = (members.clone(), key.clone(), prefix.to_owned());
        move |number: u64, bytes: &mut Vec<u8>| {
            let member = &members[number as usize % members.len()];
            let body = format!(
                "{{\"id\":\"{prefix}-{number}\",\"unit\":\"mall-hz\",\"kind\":\"purchase\",\"occurred_at\":\"2026-11-18T12:00:00+08:00\",\
                 \"amount\":{{\"amount\":68000,\"currency\":\"CNY\"}},\"member\":\"{member}\"}}"
            );
            let head = post_head(path, &key, body.len());
            bytes.extend_from_slice(head.trim_end().as_bytes());
            bytes.extend_from_slice(format!("\r\nIdempotency-Key: {prefix}-{number}\r\n\r\n{body}").as_bytes());
        }
    };
    for (payers, bar) in PAYERS {
        let units = Units::watch(tenant).await;
        let before = inside::number(connection, count).await;
        let mut seen = closed_loop(tenant, payers, size.time(), request("/v1/transactions", &format!("bench-{payers}"))).await;
        let row = format!("membership: transaction to points, {payers} connections, {name}");
        units.add_rows(report, tenant, &row).await;
        let stored = inside::number(connection, count).await - before;
        let method = format!(
            "{} s, {asked} members in turn, {stored} transactions in the book for {} answers; {group}; {}",
            size.time().as_secs(),
            seen.durations.len(),
            seen.words()
        );
        report.add(Row::new(&row, seen.rate, "1/s", bar, &method));
        report.add(Row::new(&format!("{row}: p99"), seen.milliseconds(0.99), "ms", Bar::None, &method));
    }
    let mut seen = closed_loop(tenant, QUOTERS, size.time() / 2, request("/v1/transactions:quote", "bench-quote")).await;
    let method = format!("{} s, {QUOTERS} connections, {:.0} quotes/s; {group}; {}", size.time().as_secs() / 2, seen.rate, seen.words());
    report.add(Row::new(&format!("membership: quote p99, {name}"), seen.milliseconds(0.99), "ms", Bar::AtMost(20.0), &method));
}

/// Start to ready and resident memory after 60 s without a request (SQLite); connections and commits of an idle tenant (PostgreSQL).
async fn start_and_idle(report: &mut Report, size: Size, tenant: &mut Tenant, connection: &DatabaseConnection, group: &str) {
    let mut durations = Vec::new();
    for _ in 0..size.pick(STARTS, 3) {
        tenant.stop().await;
        let start = Instant::now();
        tenant.restart().await;
        durations.push(start.elapsed());
    }
    let idle = Duration::from_secs(size.pick(60, 10));
    let embedded = !tenant.database().is_postgres();
    let milliseconds = percentile(&mut durations, 0.5).as_secs_f64() * 1e3;
    let method = format!("p50 of {} starts, {group}, from exec to /readyz 200, asked every 20 ms", durations.len());
    let name = format!("tenant: start to ready, demo loaded, {}", tenant.database().name());
    report.add(Row::new(&name, milliseconds, "ms", if embedded { Bar::AtMost(300.0) } else { Bar::None }, &method));
    rest(idle).await;
    let commits = "SELECT CAST(xact_commit + xact_rollback AS BIGINT) FROM pg_stat_database WHERE datname = current_database()";
    if embedded {
        let method = format!("VmRSS {} s after the last of these starts, no request since, {group}", idle.as_secs());
        report.add(Row::new(
            "tenant: resident memory, demo loaded, idle",
            resident_mib(tenant.process_id()),
            "MiB",
            Bar::AtMost(64.0),
            &method,
        ));
        let before = processor_time(tenant.process_id());
        rest(idle / 2).await;
        let used = (processor_time(tenant.process_id()) - before).as_secs_f64() / (idle / 2).as_secs_f64();
        report.add(Row::new("tenant: processor time, idle", used * 1e3, "ms/s", Bar::None, &format!("over {} s", (idle / 2).as_secs())));
        return;
    }
    let others = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let connections = inside::number(connection, others).await;
    let method = format!("pg_stat_activity without the bench's own, {} s after the last request", idle.as_secs());
    report.add(Row::new("tenant: idle connections, PostgreSQL", connections as f64, "", Bar::AtMost(1.0), &method));
    let before = inside::number(connection, commits).await;
    rest(idle / 2).await;
    let after = inside::number(connection, commits).await;
    let in_five = (after - before - 1) as f64 * 5.0 / (idle / 2).as_secs_f64();
    let method =
        format!("transactions of pg_stat_database over {} s, less the bench's own; a statement alone is one", (idle / 2).as_secs());
    report.add(Row::new("tenant: idle transactions in 5 s, PostgreSQL", in_five, "", Bar::AtMost(1.0), &method));
}

/// The measure is what happens while nothing is asked for, so the time itself is the point.
async fn rest(time: Duration) {
    sleep_until(Deadline::now() + time).await;
}
