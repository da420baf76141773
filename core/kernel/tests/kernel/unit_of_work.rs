//! A unit commits whole or not at all, beside others, and can't wait for the world.

use crate::tenant::{mark, marks, open};
use futures::FutureExt;
use heyuan_harness::{Fault, Postgres, Proxy, TestDatabase, concurrently, for_both_databases};
use heyuan_kernel::database::database_now;
use heyuan_kernel::guard::outside_unit;
use heyuan_kernel::lease::{self, LEASE_TIME};
use heyuan_kernel::{Error, Problem, sql};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

#[tokio::test]
async fn a_failing_unit_leaves_nothing_and_harms_no_other() {
    for_both_databases(async |database| {
        let kernel = open(&database).await;
        let outcomes = concurrently(60, 20, |number| {
            let db = kernel.db.clone();
            async move {
                db.write("mark", move |tx| {
                    async move {
                        mark(tx, &format!("{number:02}"), 1).await?;
                        if number % 3 == 0 { Err(Problem::invalid("number", "refused by the test").into()) } else { Ok::<(), Error>(()) }
                    }
                    .boxed()
                })
                .await
                .is_ok()
            }
        })
        .await;
        let kept: Vec<String> = (0..60).filter(|number| number % 3 != 0).map(|number| format!("{number:02}")).collect();
        assert_eq!(outcomes.iter().filter(|ok| **ok).count(), kept.len());
        assert_eq!(marks(&kernel.db).await.into_iter().map(|(name, _)| name).collect::<Vec<_>>(), kept);
    })
    .await;
}

#[tokio::test]
async fn a_panicking_unit_is_rolled_back_and_the_writer_goes_on() {
    for_both_databases(async |database| {
        let kernel = open(&database).await;
        let broken: Result<(), Error> = kernel
            .db
            .write("panic", |tx| {
                async move {
                    mark(tx, "panic", 1).await?;
                    panic!("a bug of the test");
                }
                .boxed()
            })
            .await;
        assert!(matches!(broken, Err(Error::Broken("panic"))), "{broken:?}");
        let after: Result<(), Error> = kernel.db.write("after", |tx| mark(tx, "after", 1).boxed()).await;
        assert!(after.is_ok(), "{after:?}");
        assert_eq!(marks(&kernel.db).await, [("after".to_owned(), 1)]);
    })
    .await;
}

#[tokio::test]
async fn nothing_slow_runs_inside_a_unit() {
    for_both_databases(async |database| {
        let kernel = open(&database).await;
        let slow: Result<(), Error> = kernel
            .db
            .write("slow", |_| {
                async move {
                    outside_unit("a plugin call");
                    Ok(())
                }
                .boxed()
            })
            .await;
        assert!(matches!(slow, Err(Error::Broken("slow"))), "{slow:?}");
    })
    .await;
}

#[tokio::test]
async fn what_was_decided_on_old_facts_is_decided_again() {
    for_both_databases(async |database| {
        let kernel = open(&database).await;
        let set: Result<(), Error> = kernel.db.write("set", |tx| mark(tx, "counter", 0).boxed()).await;
        set.expect("the counter is set");
        let attempts = Arc::new(AtomicU32::new(0));
        concurrently(12, 12, |_| {
            let (db, attempts) = (kernel.db.clone(), attempts.clone());
            async move {
                db.settle(|| async {
                    attempts.fetch_add(1, Ordering::SeqCst);
                    let (_, seen) = marks(&db).await.remove(0);
                    db.write("add one", move |tx| {
                        async move {
                            let text = "UPDATE test_mark SET value = $1 WHERE name = 'counter' AND value = $2";
                            let changed = sql::execute(tx.conn(), text, [(seen + 1).into(), seen.into()]).await?;
                            if changed == 1 { Ok(()) } else { Err(Error::Stale("the counter")) }
                        }
                        .boxed()
                    })
                    .await
                })
                .await
                .expect("it settles");
            }
        })
        .await;
        assert_eq!(marks(&kernel.db).await, [("counter".to_owned(), 12)]);
        assert!(attempts.load(Ordering::SeqCst) >= 12);
    })
    .await;
}

#[tokio::test]
async fn a_commit_that_fails_takes_nothing_of_the_next_one_with_it() {
    for_both_databases(async |database| {
        let kernel = open(&database).await;
        for text in [
            "CREATE TABLE test_parent (id BIGINT PRIMARY KEY)",
            "CREATE TABLE test_child (parent BIGINT REFERENCES test_parent (id) DEFERRABLE INITIALLY DEFERRED)",
        ] {
            sql::execute(kernel.db.reader(), text, []).await.expect("the tables are made");
        }
        let refused: Result<u64, Error> = kernel
            .db
            .write("orphan", |tx| async move { sql::execute(tx.conn(), "INSERT INTO test_child VALUES (7)", []).await }.boxed())
            .await;
        assert!(matches!(refused, Err(Error::Database(_))), "the commit can't hold: {refused:?}");
        let next: Result<(), Error> = kernel.db.write("next", |tx| mark(tx, "next", 1).boxed()).await;
        assert!(next.is_ok(), "{next:?}");
        assert_eq!(marks(&kernel.db).await, [("next".to_owned(), 1)], "what was acknowledged is seen by others");
        let orphans = sql::all(kernel.db.reader(), "SELECT parent FROM test_child", []).await.expect("read");
        assert!(orphans.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_commit_that_nobody_heard_of_is_called_unknown() {
    let proxy = Arc::new(Proxy::to(format!("127.0.0.1:{}", Postgres::shared().port())).await);
    let database = TestDatabase::postgres().await;
    let name = database.database_url().and_then(|url| url.rsplit('/').next()).expect("a database has a name").to_owned();
    let kernel = open(&database.reached_at(format!("postgres://heyuan@127.0.0.1:{}/{name}", proxy.port()))).await;
    let cut = |after: bool| {
        let (db, proxy) = (kernel.db.clone(), proxy.clone());
        async move {
            db.write("mark", move |tx| {
                let proxy = proxy.clone();
                async move {
                    if after {
                        mark(tx, "late", 1).await?;
                    }
                    proxy.set(Fault::Cut);
                    if after { Ok(()) } else { mark(tx, "early", 1).await }
                }
                .boxed()
            })
            .await
        }
    };
    let unknown = cut(true).await.expect_err("the answer to the commit is lost");
    assert!(matches!(unknown, Error::Unconfirmed(_)), "{unknown:?}");
    let problem = Problem::from(unknown);
    assert_eq!((problem.code().code, problem.body().status), ("outcome_unknown", 503));
    assert!(problem.detail().contains("Idempotency-Key"), "{problem}");
    proxy.set(Fault::None);
    let undone = cut(false).await.expect_err("the statement is lost");
    assert!(matches!(undone, Error::Database(_)), "a transaction that nobody committed is undone: {undone:?}");
    assert_eq!(Problem::from(undone).code().code, "unavailable");
}

#[tokio::test]
async fn what_the_database_never_takes_is_the_requests_own_fault() {
    for_both_databases(async |database| {
        let kernel = open(&database).await;
        let kept: Result<(), Error> = kernel.db.write("mark", |tx| mark(tx, "a\0b", 1).boxed()).await;
        match kept {
            // SQLite keeps it; requests with one are refused before they come here.
            Ok(()) => assert!(!database.is_postgres()),
            Err(error) => assert_eq!(Problem::from(error).code().code, "invalid_request"),
        }
        let unknown = sql::execute(kernel.db.reader(), "DELETE FROM no_such_table", []).await.expect_err("there is none");
        assert_eq!(Problem::from(unknown).code().code, "internal");
        let twice = || async { kernel.db.write("mark", |tx| mark(tx, "twice", 1).boxed()).await };
        twice().await.expect("the first");
        assert!(twice().await.expect_err("the second").is_duplicate());
    })
    .await;
}

#[tokio::test]
async fn another_process_gets_its_turn_beside_a_writer_that_never_rests() {
    let database = TestDatabase::sqlite();
    let (server, beside) = (open(&database).await, open(&database).await);
    let done = Arc::new(AtomicBool::new(false));
    let writing = (0..4).map(|writer| {
        let (db, done) = (server.db.clone(), done.clone());
        tokio::spawn(async move {
            let mut number = 0;
            while !done.load(Ordering::SeqCst) {
                number += 1;
                let name = format!("{writer}-{number}");
                db.write("mark", move |tx| {
                    let name = name.clone();
                    async move { mark(tx, &name, 1).await }.boxed()
                })
                .await
                .expect("the server writes");
            }
        })
    });
    let writing: Vec<_> = writing.collect();
    for number in 0..20 {
        let name = format!("beside-{number}");
        let written: Result<(), Error> = beside
            .db
            .write("mark", move |tx| {
                let name = name.clone();
                async move { mark(tx, &name, 1).await }.boxed()
            })
            .await;
        written.expect("it has its turn");
    }
    done.store(true, Ordering::SeqCst);
    for writer in writing {
        writer.await.expect("no writer fails");
    }
}

#[tokio::test]
async fn a_lease_is_kept_while_it_is_renewed_and_taken_when_it_has_run_out() {
    for_both_databases(async |database| {
        let kernel = open(&database).await;
        let take = |holder: &'static str| lease::acquire(&kernel.db, "test", holder);
        let first = take("first").await.expect("read").expect("it is free");
        assert_eq!(take("first").await.expect("read"), Some(first), "renewing keeps the number");
        assert_eq!(take("second").await.expect("read"), None);
        let row = sql::one(kernel.db.reader(), "SELECT expires_at FROM kernel_lease WHERE name = 'test'", []).await.expect("read");
        let left = sql::get::<i64>(&row.expect("a lease"), "expires_at").expect("a number")
            - database_now(kernel.db.reader()).await.expect("the clock is read").ms();
        assert!((1..=LEASE_TIME.as_millis()).contains(&u128::try_from(left).expect("it has not run out")), "{left} ms are left");
        let past = "UPDATE kernel_lease SET expires_at = expires_at - $1 WHERE name = 'test'";
        sql::execute(kernel.db.reader(), past, [left.into()]).await.expect("time passes");
        assert!(take("second").await.expect("read").is_some(), "it has run out");
    })
    .await;
}
