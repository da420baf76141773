//! Single transfers through the ledger's own door, each acknowledged after its commit.

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
}

fn transfer(caller: u64, number: u64) -> Transfer {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let (from, step) = (mixed % ACCOUNTS, 1 + mixed / ACCOUNTS % (ACCOUNTS - 1));
    Transfer {
        key: format!("bench-{caller}-{number}"),
        unit: "points".into(),
        debit: format!("account-{from}"),
        credit: format!("account-{}", (from + step) % ACCOUNTS),
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
