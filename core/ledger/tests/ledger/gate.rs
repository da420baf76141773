//! Periods of a book on both databases: closed in order, never posted to again, and closed while postings run.

use crate::ground::{self, NOW_MS, open};
use futures::FutureExt;
use futures::future::join_all;
use heyuan_contract::Timestamp;
use heyuan_harness::{TestDatabase, for_both_databases};
use heyuan_kernel::sql;
use heyuan_ledger::{Account, Book, Error, Ledger, Lots, Parcel, Period, Poster, Transfer, Turnover};
use sea_orm::DbBackend;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

fn month(text: &str) -> Period {
    Period::parse(text).expect("a month")
}

/// A book with a hot account and one with a floor, in two units.
async fn ledger(database: &TestDatabase) -> Ledger {
    let ledger = ground::ledger(database).await;
    let accounts = ["points", "growth"]
        .into_iter()
        .flat_map(|unit| [Account::striped(format!("{unit}/hot"), "x", unit), Account::plain(format!("{unit}/a"), "x", unit, Some(0))]);
    open(&ledger, accounts.collect()).await;
    ledger
}

fn transfer(key: &str, unit: &str, period: &str, amount: i64) -> Transfer {
    Transfer {
        key: key.into(),
        unit: unit.into(),
        debit: format!("{unit}/hot"),
        credit: format!("{unit}/a"),
        amount,
        occurred_at: Timestamp::clamped(NOW_MS),
        period: month(period),
        kind: "move".into(),
        reference: "test".into(),
        lots: Lots::None,
    }
}

async fn post(ledger: &Ledger, transfer: Transfer) -> Result<bool, Error> {
    let inner = ledger.clone();
    ledger
        .database()
        .write("post", move |tx| {
            let (ledger, transfer) = (inner.clone(), transfer.clone());
            async move { ledger.post(tx, &[transfer]).await.map(|posted| posted[0].repeated) }.boxed()
        })
        .await
}

async fn open_book(ledger: &Ledger, opens_at: &'static str, closed: Option<&'static str>) -> Book {
    let inner = ledger.clone();
    ledger
        .database()
        .write("open a book", move |tx| {
            let ledger = inner.clone();
            async move { ledger.open_book(tx, "points", month(opens_at), closed.map(month)).await }.boxed()
        })
        .await
        .expect("the book opens")
}

async fn close(ledger: &Ledger, period: &'static str) -> Result<Book, Error> {
    let inner = ledger.clone();
    ledger
        .database()
        .write("close", move |tx| {
            let ledger = inner.clone();
            async move { ledger.close_book(tx, "points", month(period)).await }.boxed()
        })
        .await
}

async fn moved(ledger: &Ledger, account: &str, period: &str) -> Turnover {
    ledger.turnover(ledger.database().reader(), account, month(period)).await.expect("it is read")
}

#[tokio::test(flavor = "multi_thread")]
async fn periods_close_in_order_and_take_nothing_afterwards() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        let closed = |answer: Result<bool, Error>| matches!(answer, Err(Error::PeriodClosed { .. }));
        open_book(&ledger, "2026-11", None).await;
        assert!(closed(post(&ledger, transfer("early", "points", "2026-10", 1)).await), "nothing lies before the book");
        post(&ledger, transfer("first", "points", "2026-11", 10)).await.expect("it is open");
        post(&ledger, transfer("next", "points", "2026-12", 20)).await.expect("a later one is open, too");
        assert!(matches!(close(&ledger, "2026-12").await, Err(Error::NotNext { next, .. }) if next == month("2026-11")));
        for _ in 0..2 {
            let book = close(&ledger, "2026-11").await.expect("it is the first open one");
            assert_eq!((book.closed_through(), book.first_open()), (Some(month("2026-11")), month("2026-12")));
        }
        assert!(closed(post(&ledger, transfer("late", "points", "2026-11", 1)).await));
        assert!(post(&ledger, transfer("first", "points", "2026-11", 10)).await.expect("what is there is answered"));
        post(&ledger, transfer("free", "growth", "2026-10", 3)).await.expect("a unit without a book has no closed period");

        let inner = ledger.clone();
        let new = ledger.database().write("post new", move |tx| {
            let ledger = inner.clone();
            let parcel = Parcel { transfers: vec![transfer("new", "points", "2026-11", 1)], relied_on: Vec::new() };
            async move { ledger.post_new(tx, vec![parcel]).await }.boxed()
        });
        assert!(matches!(new.await, Err(Error::PeriodClosed { .. })));
        let poster = Poster::start(&ledger, 1);
        let together =
            join_all(["2026-11", "2026-12", "2026-11", "2027-01"].map(|period| poster.post(transfer(period, "points", period, 1)))).await;
        assert_eq!(together.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true, false, true], "each is refused by itself");

        for (account, period, debits, credits) in [
            ("points/a", "2026-11", 0, 10),
            ("points/a", "2026-12", 0, 21),
            ("points/hot", "2026-11", 10, 0),
            ("growth/a", "2026-10", 0, 3),
        ] {
            assert_eq!(moved(&ledger, account, period).await, Turnover { debits, credits }, "{account} {period}");
        }
        assert!(ledger.verify().await.expect("the book can be read").is_sound());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_book_opens_with_what_is_there_and_once() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        post(&ledger, transfer("old", "points", "2026-09", 1)).await.expect("no book is open yet");
        let book = open_book(&ledger, "2026-11", Some("2026-10")).await;
        assert_eq!((book.opens_at(), book.closed_through()), (month("2026-09"), Some(month("2026-10"))));
        assert_eq!(open_book(&ledger, "2026-01", None).await, book, "it stays as it is");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_book_begins_with_the_period_that_closes_first() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        open_book(&ledger, "2021-11", None).await;
        for period in ["2026-11", "2026-09"] {
            post(&ledger, transfer(period, "points", period, 1)).await.expect("it is open");
        }
        assert!(matches!(close(&ledger, "2026-11").await, Err(Error::NotNext { next, .. }) if next == month("2026-09")));
        let book = close(&ledger, "2026-08").await.expect("nothing was posted before it");
        assert_eq!((book.opens_at(), book.closed_through()), (month("2026-08"), Some(month("2026-08"))));
        assert!(matches!(close(&ledger, "2026-10").await, Err(Error::NotNext { next, .. }) if next == month("2026-09")));
        let early = post(&ledger, transfer("early", "points", "2026-07", 1)).await;
        assert!(matches!(early, Err(Error::PeriodClosed { .. })), "nothing lies before it any more");
    })
    .await;
}

/// Has more to do in the unit of work, so that postings overlap at every moment.
async fn work_on(tx: &heyuan_kernel::Tx) -> Result<(), Error> {
    if tx.conn().backend() == DbBackend::Postgres {
        sql::one(tx.conn(), "SELECT COUNT(*) AS n FROM generate_series(1, 100000)", []).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_gets_its_turn_among_postings_and_misses_none() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        open_book(&ledger, "2026-11", None).await;
        let (done, posted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        // Half of them enter the book; the others forget to, and hear of it.
        let post_on = |worker: i64| {
            let (ledger, done, posted) = (ledger.clone(), done.clone(), posted.clone());
            tokio::spawn(async move {
                let mut period = month("2026-11");
                while !done.load(Ordering::Relaxed) {
                    let key = format!("{worker}/{}", posted.load(Ordering::Relaxed));
                    let (inner, own) = (ledger.clone(), Transfer { period, ..transfer(&key, "points", "2026-11", 1) });
                    let one = ledger.database().write("post", move |tx| {
                        let (ledger, mut own) = (inner.clone(), own.clone());
                        async move {
                            if worker % 2 == 0 {
                                own.period = ledger.enter(tx, "points").await?.period(own.period);
                            }
                            ledger.post(tx, &[own]).await?;
                            work_on(tx).await
                        }
                        .boxed()
                    });
                    match one.await {
                        Ok(()) => drop(posted.fetch_add(1, Ordering::Relaxed)),
                        Err(Error::PeriodClosed { .. }) if worker % 2 == 1 => period = month("2026-12"),
                        Err(error) => panic!("{error:?}"),
                    }
                }
            })
        };
        let workers: Vec<_> = (0..8).map(post_on).collect();
        let enough = async |more: i64| {
            let wanted = posted.load(Ordering::Relaxed) + more;
            while posted.load(Ordering::Relaxed) < wanted {
                tokio::task::yield_now().await;
            }
        };
        let limit = Duration::from_secs(30);
        tokio::time::timeout(limit, enough(20)).await.expect("they post");
        tokio::time::timeout(limit, close(&ledger, "2026-11")).await.expect("the close gets its turn").expect("it closes");
        let closed = moved(&ledger, "points/hot", "2026-11").await;
        tokio::time::timeout(limit, enough(20)).await.expect("they go on");
        done.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.await.expect("nobody panics");
        }
        assert_eq!(moved(&ledger, "points/hot", "2026-11").await, closed, "nothing came after the close");
        let later = moved(&ledger, "points/hot", "2026-12").await;
        assert_eq!(closed.debits + later.debits, posted.load(Ordering::Relaxed));
        assert!(closed.debits >= 20 && later.debits >= 20 - 8, "{closed:?} {later:?}");
        assert!(ledger.verify().await.expect("the book can be read").is_sound());
    })
    .await;
}
