//! A book of ten million entries and a month of a million transactions: how long it takes to check the one and to close the other.

use std::cell::Cell;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use heyuan_contract::{Ratio, Timestamp};
use heyuan_harness::{Tenant, TestDatabase, heyuan_binary, until};
use heyuan_kernel::{Clock, Zone};
use heyuan_ledger::{Account, Ledger, Lots, NewLot, Period, Transfer};

use crate::inside;
use crate::report::{Bar, Report, Row};
use crate::run::{Size, peak_mib};
use crate::units::Units;

/// Transfers of one commit while the book is filled.
const BATCH: u64 = 2_000;
/// Members among whom the transactions are spread.
const MEMBERS: u64 = 20_000;
/// Every fourth transaction is followed by a spend.
const SPEND_EVERY: u64 = 4;
/// How long the sealer may take.
const SEALED_LIMIT: Duration = Duration::from_secs(3_600);
/// How long checking the book may take.
const VERIFIED_LIMIT: Duration = Duration::from_secs(3_600);

/// Fills the book of a running tenant by the ledger's own door: transactions of the last month, each with points by lot and growth, a
/// spend for every fourth, and growth up to the number of entries. Then the month is closed over HTTP and the book verified by command.
pub(crate) async fn measure(report: &mut Report, size: Size) {
    let (entries, transactions) = (size.pick(10_000_000, 40_000), size.pick(1_000_000, 4_000));
    for database in [TestDatabase::postgres().await, TestDatabase::sqlite()] {
        let tenant = Tenant::start(&database).await;
        let ledger = inside::ledger(&database).await;
        let connection = inside::open(&database).await;
        let durability = inside::durability(&connection).await;
        let start = Instant::now();
        let month = fill(&ledger, transactions, entries / 2).await;
        let filled = start.elapsed();
        until("everything is sealed", SEALED_LIMIT, || async {
            (inside::number(&connection, "SELECT COUNT(*) FROM ledger_unsealed").await == 0).then_some(())
        })
        .await;
        let sealed = start.elapsed();
        let stored = inside::number(&connection, "SELECT COUNT(*) FROM ledger_transfer").await;
        let name = database.name();
        let method = format!("{stored} transfers by Ledger::post, {BATCH} a commit, in the bench's process, {durability}");
        let rate = stored as f64 / filled.as_secs_f64();
        report.add(Row::new(&format!("ledger: transfers in batches of {BATCH}, {name}"), rate, "transfers/s", Bar::None, &method));
        let method = format!("from the first transfer until the tenant's sealer has chained {stored} of them, beside their posting");
        report.add(Row::new(&format!("ledger: sealed, {name}"), stored as f64 / sealed.as_secs_f64(), "transfers/s", Bar::None, &method));

        let admin = tenant.caller("admin");
        let units = Units::watch(&tenant).await;
        let start = Instant::now();
        let closed = admin.post(&format!("/v1/clearing/{month}:close"), &serde_json::json!({})).await.expect(200);
        let seconds = start.elapsed().as_secs_f64();
        assert_eq!(closed["state"], "closed", "{closed}");
        let method = format!("one request that closes a month with {transactions} transactions and {} spends", transactions / SPEND_EVERY);
        report.add(Row::new(&format!("clearing: close of a month, {name}"), seconds, "s", Bar::None, &method));
        units.add_rows(report, &tenant, &format!("clearing: close of a month, {name}")).await;
        let (seconds, peak) = verify(&database).await;
        let method = format!("`heyuan ledger verify` on {} entries beside the idle tenant; sound, or the bench fails", stored * 2);
        report.add(Row::new(&format!("ledger: verify, {name}"), seconds, "s", Bar::None, &method));
        let method = "VmHWM of that command, asked while it runs";
        report.add(Row::new(&format!("ledger: memory of verify, {name}"), peak, "MiB", Bar::None, method));
    }
}

/// Fills the book and answers the month.
async fn fill(ledger: &Ledger, transactions: u64, transfers: u64) -> Period {
    let zone = Zone::named("Asia/Shanghai").expect("the zone is known");
    // An hour before this month began.
    let at = zone.day_start(zone.day(Clock::system().now()).first_of_month()).plus_ms(-3_600_000);
    let month = Period::of(&zone, at);
    let accounts = (0..MEMBERS).flat_map(|member| {
        let account = |what: &str| format!("member/bench-{member}/{what}");
        [Account::lots(account("points"), "bench", "points"), Account::plain(account("growth"), "bench", "growth", None)]
    });
    let accounts: Vec<Account> = accounts.collect();
    for some in accounts.chunks(1_000) {
        inside::open_accounts(ledger, some).await;
    }
    let mut batch = Vec::new();
    let mut posted = 0;
    for number in 0.. {
        if posted >= transfers {
            break;
        }
        let points = number < transactions;
        batch.extend(transaction(number, points, at, month));
        if u64::try_from(batch.len()).unwrap_or(u64::MAX) >= BATCH {
            posted += u64::try_from(batch.len()).unwrap_or(u64::MAX);
            inside::post(ledger, std::mem::take(&mut batch)).await;
        }
    }
    inside::post(ledger, batch).await;
    month
}

/// The transfers of one transaction: its growth, and as long as the month's transactions last its points and perhaps a spend.
fn transaction(number: u64, points: bool, at: Timestamp, period: Period) -> Vec<Transfer> {
    let member = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % MEMBERS;
    let transfer = |key: &str, unit: &str, debit: String, credit: String, amount, kind: &str, lots| Transfer {
        key: format!("bench/{number}/{key}"),
        unit: unit.into(),
        debit,
        credit,
        amount,
        occurred_at: at,
        period,
        kind: kind.into(),
        reference: format!("bench/{number}"),
        lots,
    };
    let account = |what: &str| format!("member/bench-{member}/{what}");
    let mut transfers = vec![transfer("growth", "growth", "line/mall/growth_issued".into(), account("growth"), 100, "earn", Lots::None)];
    if points {
        let cost = Ratio::new(1, 1).expect("a ratio written here is one");
        let lot = NewLot { issuer: "mall".into(), cost, expires_at: at.plus_ms(365 * 86_400_000) };
        let issued = "line/mall/points_issued".into();
        transfers.push(transfer("points", "points", issued, account("points"), 100, "earn", Lots::New(lot)));
        if number.is_multiple_of(SPEND_EVERY) {
            let spent = "line/hotel/points_spent".into();
            transfers.push(transfer("spend", "points", account("points"), spent, 50, "spend", Lots::FirstExpiring));
        }
    }
    transfers
}

/// Runs the command, and answers its seconds and the most memory that it had.
async fn verify(database: &TestDatabase) -> (f64, f64) {
    let mut command = Command::new(heyuan_binary());
    command.args(["ledger", "verify", "--data"]).arg(database.data_dir()).stdout(Stdio::null());
    if let Some(url) = database.database_url() {
        command.args(["--database-url", url]);
    }
    let start = Instant::now();
    let mut running = command.spawn().expect("heyuan ledger verify starts");
    let peak = Cell::new(0_f64);
    let seconds = until("the book is verified", VERIFIED_LIMIT, || {
        let ended = running.try_wait().expect("the command is a child of this process");
        peak.set(peak_mib(running.id()).unwrap_or(peak.get()));
        assert!(ended.is_none_or(|status| status.success()), "the book that the bench filled is sound");
        async move { ended.map(|_| start.elapsed().as_secs_f64()) }
    });
    (seconds.await, peak.get())
}
