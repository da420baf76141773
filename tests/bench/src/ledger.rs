//! Single transfers through the ledger's own door, each acknowledged after its commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures::FutureExt;
use heyuan_contract::Timestamp;
use heyuan_harness::TestDatabase;
use heyuan_kernel::secret::{Key, TenantKeys};
use heyuan_kernel::{Clock, Database, Kernel, Location, Zone};
use heyuan_ledger::{Account, Ledger, Lots, Period, Poster, Transfer};
use sea_orm_migration::MigratorTrait;
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
                            None => post(&ledger, transfer).await,
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

async fn post(ledger: &Ledger, transfer: Transfer) {
    let db = ledger.database();
    let posted = db.settle(|| {
        let (ledger, transfer) = (ledger.clone(), transfer.clone());
        db.write("post", move |tx| {
            let (ledger, transfer) = (ledger.clone(), transfer.clone());
            async move { ledger.post(tx, &[transfer]).await }.boxed()
        })
    });
    posted.await.expect("the transfer is posted");
}

async fn open(database: &TestDatabase) -> Ledger {
    let db = Database::open(&Location::new(database.data_dir(), database.database_url())).await.expect("an empty database opens");
    heyuan_kernel::migration::Migrator::up(db.reader(), None).await.expect("the kernel migrates");
    heyuan_ledger::Migrator::up(db.reader(), None).await.expect("the ledger migrates");
    let zone = Zone::named("Asia/Shanghai").expect("the zone is known");
    let kernel = Kernel::open(db, TenantKeys::new(&Key::from_bytes([7; 32])), Clock::system(), zone).await.expect("the kernel opens");
    let ledger = Ledger::new(kernel);
    let accounts: Vec<Account> = (0..ACCOUNTS).map(|n| Account::plain(format!("account-{n}"), "bench", "points", None)).collect();
    let inner = ledger.clone();
    let opened = ledger.database().write("open accounts", move |tx| {
        let (ledger, accounts) = (inner.clone(), accounts.clone());
        async move { ledger.open(tx, &accounts).await }.boxed()
    });
    opened.await.expect("the accounts open");
    ledger
}
