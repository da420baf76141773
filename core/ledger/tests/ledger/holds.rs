//! Holds on both databases: what they hold pays, what they free expires, and they run out once.

use crate::ground::{at, ledger, month, open, sealed_and_sound, write};
use futures::FutureExt;
use futures::future::join_all;
use heyuan_contract::{Ratio, Timestamp};
use heyuan_harness::for_both_databases;
use heyuan_ledger::{Account, Error, Hold, Ledger, Lots, NewLot, Outcome, Transfer};

async fn accounts(ledger: &Ledger) {
    let accounts = vec![
        Account::striped("issued", "mall", "points"),
        Account::striped("spent", "mall", "points"),
        Account::lots("anna", "1", "points"),
        Account::lots("bert", "2", "points"),
    ];
    open(ledger, accounts).await;
}

async fn earn(ledger: &Ledger, account: &'static str, key: &'static str, amount: i64, days: i64) {
    let lot = NewLot { issuer: "mall".into(), cost: Ratio::new(6, 5).expect("a ratio"), expires_at: at(days) };
    let transfer = Transfer {
        key: key.into(),
        unit: "points".into(),
        debit: "issued".into(),
        credit: account.into(),
        amount,
        occurred_at: at(-9),
        period: month(),
        kind: "issue".into(),
        reference: "test".into(),
        lots: Lots::New(lot),
    };
    write(ledger, move |ledger, tx| {
        let transfer = transfer.clone();
        async move { ledger.post(tx, &[transfer]).await.map(drop) }.boxed()
    })
    .await
    .expect("a lot opens");
}

fn hold(key: &str, account: &str, amount: i64, held_at: Timestamp, expires_at: Timestamp) -> Hold {
    Hold {
        key: key.into(),
        unit: "points".into(),
        debit: account.into(),
        credit: "spent".into(),
        amount,
        kind: "spend".into(),
        reference: "order".into(),
        at: held_at,
        expires_at,
    }
}

async fn set_aside(ledger: &Ledger, hold: Hold) {
    write(ledger, move |ledger, tx| {
        let hold = hold.clone();
        async move { ledger.hold(tx, &hold).await }.boxed()
    })
    .await
    .expect("there is enough");
}

async fn post(ledger: &Ledger, key: &'static str, amount: i64) -> Result<Vec<(String, i64)>, Error> {
    write(ledger, move |ledger, tx| {
        async move {
            let posted = ledger.post_hold(tx, key, amount, month()).await?;
            Ok(posted.lots.into_iter().map(|part| (part.source, part.amount)).collect())
        }
        .boxed()
    })
    .await
}

/// Whether it had run out and ended now.
async fn expire(ledger: &Ledger, key: String) -> bool {
    let ended = write(ledger, move |ledger, tx| {
        let key = key.clone();
        async move { ledger.expire_hold(tx, &key).await }.boxed()
    });
    ended.await.expect("it is looked at")
}

async fn lots_of(ledger: &Ledger, account: &str) -> Vec<(String, i64)> {
    let lots = ledger.open_lots(account, 99).await.expect("lots are listed");
    lots.into_iter().map(|lot| (lot.source, lot.remaining)).collect()
}

async fn lot_held(ledger: &Ledger, source: &'static str) -> i64 {
    write(ledger, move |ledger, tx| async move { ledger.lot_held(tx, source).await }.boxed()).await.expect("it is read")
}

async fn outcome(ledger: &Ledger, key: &str) -> Option<(i64, Option<Outcome>)> {
    let found = ledger.hold_outcome(ledger.database().reader(), key).await.expect("it is read");
    found.map(|(hold, outcome)| (hold.amount, outcome))
}

fn lot(source: &str, amount: i64) -> (String, i64) {
    (source.to_owned(), amount)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_pays_from_the_very_lots_that_it_holds() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        accounts(&ledger).await;
        earn(&ledger, "anna", "soon", 30, 10).await;
        earn(&ledger, "anna", "late", 50, 300).await;
        set_aside(&ledger, hold("order", "anna", 40, at(0), at(1))).await;
        assert_eq!((lot_held(&ledger, "soon").await, lot_held(&ledger, "late").await), (30, 10));
        assert_eq!(outcome(&ledger, "order").await, Some((40, None)));
        // A lot that would go first if points were taken anew.
        earn(&ledger, "anna", "sooner", 20, 5).await;
        for _ in 0..2 {
            assert_eq!(post(&ledger, "order", 35).await.expect("it is held"), [lot("soon", 30), lot("late", 5)]);
        }
        assert_eq!(lots_of(&ledger, "anna").await, [lot("sooner", 20), lot("late", 45)]);
        assert_eq!((lot_held(&ledger, "soon").await, lot_held(&ledger, "late").await), (0, 0));
        assert_eq!(outcome(&ledger, "order").await, Some((40, Some(Outcome::Posted(35)))));
        assert_eq!(outcome(&ledger, "other").await, None);
        sealed_and_sound(&ledger).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expired_while_it_was_held_pays_and_what_is_freed_expires_then() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        accounts(&ledger).await;
        // Past its expiry by now; it was not when the hold was made.
        earn(&ledger, "anna", "old", 30, -1).await;
        set_aside(&ledger, hold("order", "anna", 30, at(-2), at(1))).await;
        let expired = async || {
            let lots = ledger.expired_lots("points", at(0), 9).await.expect("they are listed");
            lots.into_iter().map(|expired| (expired.lot.source, expired.lot.remaining, expired.since)).collect::<Vec<_>>()
        };
        assert_eq!(expired().await, [], "what is held does not expire");
        assert_eq!(post(&ledger, "order", 20).await.expect("it is held"), [lot("old", 20)]);
        assert_eq!(expired().await, [("old".to_owned(), 10, at(0))], "it was set free now, not at its expiry");
        // Of a hold that is posted whole nothing is freed.
        earn(&ledger, "bert", "bert's", 30, -1).await;
        set_aside(&ledger, hold("whole", "bert", 20, at(-2), at(1))).await;
        post(&ledger, "whole", 20).await.expect("it is held");
        assert!(expired().await.contains(&("bert's".to_owned(), 10, at(-1))), "{:?}", expired().await);
        sealed_and_sound(&ledger).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn holds_run_out_once_whoever_comes() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        accounts(&ledger).await;
        earn(&ledger, "anna", "annas", 100, 30).await;
        earn(&ledger, "bert", "berts", 100, 30).await;
        for n in 0..20i64 {
            let account = if n % 2 == 0 { "anna" } else { "bert" };
            // All but the last four have run out.
            let until = if n < 16 { at(-1) } else { at(1) };
            set_aside(&ledger, hold(&format!("hold/{n}"), account, 5, at(-2), until)).await;
        }
        let late = post(&ledger, "hold/0", 5).await;
        assert!(matches!(late, Err(Error::HoldSettled(_))), "{late:?}");
        // Each is asked to end by two at once; those that have not run out are left alone.
        let expired = join_all((0..40).map(|n| expire(&ledger, format!("hold/{}", n / 2)))).await;
        for (n, both) in expired.chunks(2).enumerate() {
            assert_eq!(both.iter().filter(|ended| **ended).count(), usize::from(n < 16), "hold/{n}");
        }
        assert!(!expire(&ledger, "hold/0".into()).await, "it has ended");
        for n in 0..20 {
            let ended = (n < 16).then_some(Outcome::Expired);
            assert_eq!(outcome(&ledger, &format!("hold/{n}")).await, Some((5, ended)), "hold/{n}");
        }
        for account in ["anna", "bert"] {
            let balance = ledger.balance(account).await.expect("it is open");
            assert_eq!((balance.balance, balance.reserved), (100, 10), "{account}");
        }
        sealed_and_sound(&ledger).await;
    })
    .await;
}
