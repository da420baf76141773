//! A unit commits whole or not at all, beside others, and can't wait for the world.

use crate::tenant::{mark, marks, open};
use futures::FutureExt;
use heyuan_harness::{concurrently, for_both_databases};
use heyuan_kernel::guard::outside_unit;
use heyuan_kernel::{Error, Problem, sql};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

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
