//! Transfers through the ledger's own door, single ones and batches, each acknowledged after its commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use heyuan_contract::Timestamp;
use heyuan_harness::TestDatabase;
use heyuan_ledger::{Account, Ledger, Lots, Period, Poster, Transfer};
use tokio::task::JoinSet;

use crate::inside;
use crate::report::{Bar, Report, Row};
use crate::run::Size;

const ACCOUNTS: u64 = 50;
const CALLERS_ALONE: u64 = 16;
const CALLERS_TOGETHER: u64 = 256;
const WORKERS: usize = 2;
/// Accounts without a floor that every batch moves.
const HOT_ACCOUNTS: u64 = 10;
const CALLERS_IN_BATCHES: u64 = 4;
/// Transfers of one commit.
const BATCH: u64 = 2_000;
const NOW_MS: i64 = 1_793_491_200_000;

/// One transfer a commit (`Ledger::post` in a unit of its own, 16 callers), and coalesced (`Poster`, 256 callers): random pairs
/// of 50 plain accounts without a floor, rows locked, versions kept; the caller hears after the commit. Afterwards the accounts
/// must sum to zero and the number of transfers must equal that of the answers, or the bench fails.
pub(crate) async fn measure(report: &mut Report, size: Size) {
    for database in [TestDatabase::postgres().await, TestDatabase::sqlite()] {
        let ledger = open(&database).await;
        let connection = inside::open(&database).await;
        let durability = inside::durability(&connection).await;
        let numbers = Arc::new(AtomicU64::new(0));
        let poster = Poster::start(&ledger, WORKERS);
        let bars = if database.is_postgres() { [Bar::AtLeast(2_000.0), Bar::AtLeast(10_000.0)] } else { [Bar::None, Bar::None] };
        let ways = [("one transfer a commit", None, CALLERS_ALONE), ("coalesced", Some(poster), CALLERS_TOGETHER)];
        for ((way, poster, callers), bar) in ways.into_iter().zip(bars) {
            let start = Instant::now();
            let mut running = JoinSet::new();
            for caller in 0..callers {
                let (ledger, poster, numbers) = (ledger.clone(), poster.clone(), numbers.clone());
                running.spawn(async move {
                    let mut posted = 0_u64;
                    while start.elapsed() < size.time() {
                        let transfer = transfer(caller, numbers.fetch_add(1, Ordering::Relaxed));
                        match &poster {
                            Some(poster) => drop(poster.post(transfer).await.expect("the transfer is posted")),
                            None => inside::post(&ledger, vec![transfer]).await,
                        }
                        posted += 1;
                    }
                    posted
                });
            }
            let posted: u64 = running.join_all().await.into_iter().sum();
            let rate = posted as f64 / start.elapsed().as_secs_f64();
            let method = format!(
                "{} s, {callers} callers in the process of the bench, {ACCOUNTS} accounts in random pairs, acknowledged after commit, {durability}",
                size.time().as_secs()
            );
            report.add(Row::new(&format!("ledger: {way}, {}", database.name()), rate, "transfers/s", bar, &method));
        }
        let stored = inside::number(&connection, "SELECT COUNT(*) FROM ledger_transfer").await;
        let sum = inside::number(&connection, "SELECT CAST(SUM(balance) AS BIGINT) FROM ledger_account").await;
        assert_eq!(
            (u64::try_from(stored).ok(), sum),
            (Some(numbers.load(Ordering::Relaxed)), 0),
            "every answer is in the book, which sums to zero"
        );
    }
    for database in [TestDatabase::postgres().await, TestDatabase::sqlite()] {
        hot(report, size, &database).await;
    }
}

/// Batches in a unit of work each, on ten striped accounts that all callers move at once. Afterwards every promise of the book is checked, and
/// the number of transfers must equal that of the answers, or the bench fails.
async fn hot(report: &mut Report, size: Size, database: &TestDatabase) {
    let ledger = inside::ledger(database).await;
    let names: Vec<String> = (0..HOT_ACCOUNTS).map(|n| format!("hot-{n}")).collect();
    let accounts: Vec<Account> = names.iter().map(|name| Account::striped(name.clone(), "bench", "points")).collect();
    inside::open_accounts(&ledger, &accounts).await;
    ledger.remember_striped(&names).await.expect("the accounts are there");
    let connection = inside::open(database).await;
    let durability = inside::durability(&connection).await;
    let numbers = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let mut running = JoinSet::new();
    for caller in 0..CALLERS_IN_BATCHES {
        let (ledger, numbers) = (ledger.clone(), numbers.clone());
        running.spawn(async move {
            while start.elapsed() < size.time() {
                let from = numbers.fetch_add(BATCH, Ordering::Relaxed);
                let batch = (from..from + BATCH).map(|number| between(caller, number, "hot", HOT_ACCOUNTS)).collect();
                inside::post(&ledger, batch).await;
            }
        });
    }
    running.join_all().await;
    let seconds = start.elapsed().as_secs_f64();
    let posted = numbers.load(Ordering::Relaxed);
    let stored = inside::number(&connection, "SELECT COUNT(*) FROM ledger_transfer").await;
    assert_eq!(u64::try_from(stored).ok(), Some(posted), "every answer is in the book");
    let start = Instant::now();
    let book = ledger.verify().await.expect("the book is read");
    assert!(book.is_sound(), "{:?}", book.findings);
    let method = format!(
        "{seconds:.0} s, {CALLERS_IN_BATCHES} callers in the process of the bench, {BATCH} transfers a commit, {HOT_ACCOUNTS} striped accounts \
         in random pairs, then every promise of the book checked in {:.1} s, {durability}",
        start.elapsed().as_secs_f64()
    );
    let name = format!("ledger: batches on {HOT_ACCOUNTS} hot accounts, {}", database.name());
    report.add(Row::new(&name, posted as f64 / seconds, "transfers/s", Bar::AtLeast(50_000.0), &method));
}

fn transfer(caller: u64, number: u64) -> Transfer {
    between(caller, number, "account", ACCOUNTS)
}

/// A transfer between two different ones of so many accounts.
fn between(caller: u64, number: u64, name: &str, accounts: u64) -> Transfer {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let (from, step) = (mixed % accounts, 1 + mixed / accounts % (accounts - 1));
    Transfer {
        key: format!("bench-{caller}-{number}"),
        unit: "points".into(),
        debit: format!("{name}-{from}"),
        credit: format!("{name}-{}", (from + step) % accounts),
        amount: 1,
        occurred_at: Timestamp::clamped(NOW_MS),
        period: Period::parse("2026-11").expect("a month"),
        kind: "move".into(),
        reference: "bench".into(),
        lots: Lots::None,
    }
}

async fn open(database: &TestDatabase) -> Ledger {
    let ledger = inside::ledger(database).await;
    let accounts: Vec<Account> = (0..ACCOUNTS).map(|n| Account::plain(format!("account-{n}"), "bench", "points", None)).collect();
    inside::open_accounts(&ledger, &accounts).await;
    ledger
}
