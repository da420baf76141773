//! The book's promises on both databases: floors, keys, lots, holds, chains, under concurrent writers beside a plain model.

use crate::ground::{DAY_MS, NOW_MS, at, db, ledger, month, open, post, run, sealed_and_sound, transfer};
use futures::FutureExt;
use futures::future::join_all;
use heyuan_contract::Ratio;
use heyuan_harness::for_both_databases;
use heyuan_kernel::secret::{Key, TenantKeys};
use heyuan_kernel::sql;
use heyuan_ledger::{Account, Error, Hold, Ledger, Lots, NewLot, Parcel, Poster, TakeBack, TakenBack, Transfer};
use std::collections::HashMap;

fn lot(days: i64) -> Lots {
    let cost = Ratio::new(6, 5).expect("a ratio");
    Lots::New(NewLot { issuer: "mall".into(), cost, expires_at: at(days) })
}

async fn holds(ledger: &Ledger, account: &str) -> i64 {
    ledger.balance(account).await.expect("the account is open").balance
}

fn member_accounts() -> Vec<Account> {
    vec![
        Account::striped("line/mall/issued", "mall", "points"),
        Account::striped("line/mall/spent", "mall", "points"),
        Account::lots("member/1/points", "1", "points"),
        Account::plain("member/1/receivable", "1", "points", None),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_posted_once_and_floors_hold() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        open(&ledger, vec![Account::plain("a", "a", "points", Some(0)), Account::striped("b", "b", "points")]).await;
        let first = post(&ledger, vec![transfer("in", "b", "a", 100, Lots::None)]).await.expect("it is posted");
        let again = post(&ledger, vec![transfer("in", "b", "a", 100, Lots::None)]).await.expect("it is answered");
        assert_eq!((first[0].number, first[0].credit_balance, first[0].repeated), (again[0].number, Some(100), false));
        assert!(again[0].repeated);
        let other = post(&ledger, vec![transfer("in", "b", "a", 99, Lots::None)]).await;
        assert!(matches!(other, Err(Error::KeyReused(_))), "{other:?}");
        let poor = post(&ledger, vec![transfer("t1", "a", "b", 60, Lots::None), transfer("t2", "a", "b", 60, Lots::None)]).await;
        assert!(matches!(poor, Err(Error::NotEnough { .. })), "{poor:?}");
        assert_eq!(holds(&ledger, "a").await, 100, "all or none");
        for amount in [0, -1, i64::MAX] {
            let bad = post(&ledger, vec![transfer("bad", "b", "a", amount, Lots::None)]).await;
            assert!(matches!(bad, Err(Error::Amount(_))), "{bad:?}");
        }
        let same = join_all((0..8).map(|_| post(&ledger, vec![transfer("once", "a", "b", 70, Lots::None)]))).await;
        assert!(same.iter().all(Result::is_ok), "{same:?}");
        assert_eq!((holds(&ledger, "a").await, holds(&ledger, "b").await), (30, -30));
        sealed_and_sound(&ledger).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_can_not_be_in_the_book_and_is_opens_no_second_lot() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        open(&ledger, member_accounts()).await;
        let earn = transfer("earn", "line/mall/issued", "member/1/points", 50, lot(300));
        let post_new = async || {
            let (inner, earn) = (ledger.clone(), earn.clone());
            db(&ledger)
                .write("post new", move |tx| {
                    let (ledger, earn) = (inner.clone(), earn.clone());
                    async move { ledger.post_new(tx, vec![Parcel { transfers: vec![earn], relied_on: Vec::new() }]).await }.boxed()
                })
                .await
        };
        post_new().await.expect("it is new");
        let again = post_new().await;
        assert!(matches!(again, Err(Error::Kernel(heyuan_kernel::Error::Stale(_)))), "{again:?}");
        let same =
            join_all((0..4).map(|_| post(&ledger, vec![transfer("once", "line/mall/issued", "member/1/points", 7, lot(300))]))).await;
        assert!(same.iter().all(Result::is_ok), "{same:?}");
        assert_eq!((holds(&ledger, "member/1/points").await, ledger.open_lots("member/1/points", 9).await.expect("listed").len()), (57, 2));
        sealed_and_sound(&ledger).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lots_go_first_expiring_first_and_come_back_with_their_own_expiry() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        open(&ledger, member_accounts()).await;
        let earn = |key: &str, amount, days| transfer(key, "line/mall/issued", "member/1/points", amount, lot(days));
        post(&ledger, vec![earn("late", 50, 300), earn("soon", 30, 10), earn("gone", 5, -1)]).await.expect("lots open");
        let spend = |key: &str, amount| transfer(key, "member/1/points", "line/mall/spent", amount, Lots::FirstExpiring);
        let used = post(&ledger, vec![spend("spend", 40)]).await.expect("it is enough").remove(0).lots;
        assert_eq!(used.iter().map(|part| (part.source.as_str(), part.amount)).collect::<Vec<_>>(), [("soon", 30), ("late", 10)]);
        assert!(matches!(post(&ledger, vec![spend("more", 41)]).await, Err(Error::NotEnough { .. })), "what expired can't be spent");
        let back = |key: &str, amount| {
            let lots = Lots::RestoredFrom("spend".into());
            transfer(key, "line/mall/spent", "member/1/points", amount, lots)
        };
        post(&ledger, vec![back("back", 15)]).await.expect("it was spent");
        let open_lots = ledger.open_lots("member/1/points", 10).await.expect("lots are listed");
        let left: Vec<_> = open_lots.iter().map(|lot| (lot.source.as_str(), lot.remaining)).collect();
        assert_eq!(left, [("gone", 5), ("soon", 5), ("late", 50)]);
        assert!(matches!(post(&ledger, vec![back("too much", 26)]).await, Err(Error::Lots { .. })));

        let taking = TakeBack {
            key: "refund".into(),
            unit: "points".into(),
            lot: "soon".into(),
            account: "member/1/points".into(),
            receivable: "member/1/receivable".into(),
            credit: "line/mall/issued".into(),
            amount: 30,
            owed_max: 25,
            occurred_at: at(0),
            period: month(),
            kind: "refund".into(),
            reference: "test".into(),
        };
        for _ in 0..2 {
            let (inner, taking) = (ledger.clone(), taking.clone());
            let taken = db(&ledger)
                .write("take back", move |tx| {
                    let (ledger, taking) = (inner.clone(), taking.clone());
                    async move { ledger.take_back(tx, &taking).await }.boxed()
                })
                .await
                .expect("it is taken back");
            assert_eq!(taken, TakenBack { lot: 5, receivable: 25 });
        }
        assert_eq!(holds(&ledger, "member/1/receivable").await, -25);
        let expired = async |days: i64| {
            let lots = ledger.expired_lots("points", at(days), 9).await.expect("lots are listed");
            lots.into_iter().map(|expired| (expired.lot.source, (expired.since.ms() - NOW_MS) / DAY_MS)).collect::<Vec<_>>()
        };
        assert_eq!(expired(0).await, [("gone".to_owned(), -1)]);
        // What comes back into a lot after its expiry is past it since then.
        let lots = Lots::RestoredFrom("spend".into());
        let occurred_at = at(20);
        let late = Transfer { occurred_at, ..transfer("late back", "line/mall/spent", "member/1/points", 7, lots) };
        post(&ledger, vec![late]).await.expect("it was spent");
        assert_eq!(expired(30).await, [("gone".to_owned(), -1), ("soon".to_owned(), 20)]);
        sealed_and_sound(&ledger).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_ends_once() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        open(&ledger, member_accounts()).await;
        post(&ledger, vec![transfer("in", "line/mall/issued", "member/1/points", 100, lot(30))]).await.expect("a lot opens");
        let hold = |key: &str, amount| Hold {
            key: key.into(),
            unit: "points".into(),
            debit: "member/1/points".into(),
            credit: "line/mall/spent".into(),
            amount,
            kind: "spend".into(),
            reference: "order".into(),
            at: at(0),
            expires_at: at(1),
        };
        let set_aside = async |hold: Hold| {
            let inner = ledger.clone();
            db(&ledger)
                .write("hold", move |tx| {
                    let (ledger, hold) = (inner.clone(), hold.clone());
                    async move { ledger.hold(tx, &hold).await }.boxed()
                })
                .await
        };
        let settle = async |key: &'static str, amount: i64| {
            let inner = ledger.clone();
            db(&ledger)
                .write("settle", move |tx| {
                    let ledger = inner.clone();
                    async move {
                        let period = month();
                        if amount == 0 {
                            ledger.void_hold(tx, key).await
                        } else {
                            ledger.post_hold(tx, key, amount, period).await.map(drop)
                        }
                    }
                    .boxed()
                })
                .await
        };
        set_aside(hold("one", 60)).await.expect("there is enough");
        assert!(matches!(set_aside(hold("two", 41)).await, Err(Error::NotEnough { .. })));
        set_aside(hold("two", 40)).await.expect("there is enough");
        let spend = transfer("spend", "member/1/points", "line/mall/spent", 1, Lots::FirstExpiring);
        assert!(matches!(post(&ledger, vec![spend]).await, Err(Error::NotEnough { .. })), "held points can't be spent");
        settle("one", 25).await.expect("a part is posted");
        settle("one", 25).await.expect("the same again is the same");
        assert!(matches!(settle("one", 24).await, Err(Error::HoldSettled(_))));
        assert!(matches!(settle("one", 0).await, Err(Error::HoldSettled(_))));
        settle("two", 0).await.expect("it is voided");
        settle("two", 0).await.expect("again it is the same");
        assert!(matches!(settle("two", 1).await, Err(Error::HoldSettled(_))));
        assert_eq!(ledger.spendable("member/1/points", at(0)).await.expect("it is read").0, 75);
        sealed_and_sound(&ledger).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_end_of_a_hold_at_once_is_one_end() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        open(&ledger, member_accounts()).await;
        post(&ledger, vec![transfer("in", "line/mall/issued", "member/1/points", 1_000, lot(30))]).await.expect("a lot opens");
        for round in 0..10 {
            let hold = Hold {
                key: format!("hold/{round}"),
                unit: "points".into(),
                debit: "member/1/points".into(),
                credit: "line/mall/spent".into(),
                amount: 10,
                kind: "spend".into(),
                reference: "order".into(),
                at: at(0),
                expires_at: at(1),
            };
            let (inner, set_aside) = (ledger.clone(), hold.clone());
            db(&ledger)
                .write("hold", move |tx| {
                    let (ledger, hold) = (inner.clone(), set_aside.clone());
                    async move { ledger.hold(tx, &hold).await }.boxed()
                })
                .await
                .expect("there is enough");
            let end = || async {
                let db = db(&ledger);
                db.settle(|| {
                    let (ledger, key) = (ledger.clone(), hold.key.clone());
                    db.write("end", move |tx| {
                        let (ledger, key) = (ledger.clone(), key.clone());
                        async move {
                            let period = month();
                            if round % 2 == 0 {
                                ledger.post_hold(tx, &key, 7, period).await.map(drop)
                            } else {
                                ledger.void_hold(tx, &key).await
                            }
                        }
                        .boxed()
                    })
                })
                .await
            };
            let ends = join_all((0..6).map(|_| end())).await;
            assert!(ends.iter().all(Result::is_ok), "{ends:?}");
        }
        assert_eq!(holds(&ledger, "member/1/points").await, 1_000 - 5 * 7);
        sealed_and_sound(&ledger).await;
    })
    .await;
}

/// A small generator of its own: the same histories on every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_transfers_equal_a_plain_model() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        let mut accounts: Vec<Account> = (0..6).map(|n| Account::plain(format!("floor/{n}"), "x", "points", Some(0))).collect();
        accounts.push(Account::striped("hot", "x", "points"));
        open(&ledger, accounts).await;
        let seed: Vec<Transfer> = (0..6).map(|n| transfer(&format!("seed/{n}"), "hot", &format!("floor/{n}"), 500, Lots::None)).collect();
        post(&ledger, seed).await.expect("accounts are filled");
        let poster = Poster::start(&ledger, 2);
        let mut dice = Dice(42);
        let wanted: Vec<Transfer> = (0..600)
            .map(|n| {
                let (debit, credit) = (dice.roll(6), dice.roll(7));
                let credit = if credit == 6 || credit == debit { "hot".to_owned() } else { format!("floor/{credit}") };
                // One key in ten is sent twice.
                let key = if n % 10 == 9 { n - 1 } else { n };
                let amount = i64::try_from(1 + dice.roll(200)).expect("small");
                transfer(&format!("t/{key}"), &format!("floor/{debit}"), &credit, amount, Lots::None)
            })
            .collect();
        let half = wanted.len() / 2;
        let together = join_all(wanted[..half].iter().map(|transfer| poster.post(transfer.clone())));
        let alone =
            join_all(wanted[half..].iter().map(|transfer| async { post(&ledger, vec![transfer.clone()]).await.map(|mut p| p.remove(0)) }));
        let (together, alone) = tokio::join!(together, alone);
        let mut model: HashMap<String, i64> = (0..6).map(|n| (format!("floor/{n}"), 500)).chain([("hot".to_owned(), -3000)]).collect();
        let mut posted = 0;
        for (transfer, answer) in wanted.iter().zip(together.into_iter().chain(alone)) {
            match answer {
                Ok(answer) if !answer.repeated => {
                    posted += 1;
                    *model.entry(transfer.debit.clone()).or_default() -= transfer.amount;
                    *model.entry(transfer.credit.clone()).or_default() += transfer.amount;
                }
                Ok(_) | Err(Error::NotEnough { .. } | Error::KeyReused(_)) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        assert!(posted > 100, "only {posted} transfers fitted");
        for (account, balance) in model {
            assert_eq!(holds(&ledger, &account).await, balance, "{account}");
        }
        sealed_and_sound(&ledger).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_spends_never_take_a_point_twice() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        open(&ledger, member_accounts()).await;
        let lots = (0..10).map(|n| transfer(&format!("lot/{n}"), "line/mall/issued", "member/1/points", 10, lot(n + 1))).collect();
        post(&ledger, lots).await.expect("lots open");
        let spends = (0..30).map(|n| {
            let one = transfer(&format!("spend/{n}"), "member/1/points", "line/mall/spent", 7, Lots::FirstExpiring);
            post(&ledger, vec![one])
        });
        let won = join_all(spends).await.into_iter().filter(Result::is_ok).count();
        assert_eq!((won, holds(&ledger, "member/1/points").await), (14, 2));
        sealed_and_sound(&ledger).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_names_what_was_changed() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        open(&ledger, member_accounts()).await;
        let earn = |n: i64| transfer(&format!("earn/{n}"), "line/mall/issued", "member/1/points", 10, lot(n));
        post(&ledger, (1..6).map(earn).collect()).await.expect("lots open");
        sealed_and_sound(&ledger).await;
        let head = ledger.head().await.expect("it is read").expect("there is a head");
        for (change, check, place) in [
            ("UPDATE ledger_transfer SET reference = 'forged' WHERE key = 'earn/3'", "chain", "earn/3"),
            ("UPDATE ledger_account SET balance = balance + 1 WHERE id = 'member/1/points'", "balance", "member/1/points"),
            ("UPDATE ledger_lot SET remaining = remaining - 1 WHERE source = 'earn/2'", "lot", "earn/2"),
        ] {
            let undo = change.replace("'forged'", "'test'").replace("+ 1", "- 2 + 1").replace("remaining - 1", "remaining + 1");
            run(&ledger, change).await;
            let report = ledger.verify().await.expect("the book can be read");
            let found = report.findings.iter().any(|finding| finding.check == check && finding.place.contains(place));
            assert!(found, "{change}: {:?}", report.findings);
            run(&ledger, &undo).await;
        }
        sealed_and_sound(&ledger).await;
        run(&ledger, "DELETE FROM ledger_seal WHERE number > 3").await;
        run(&ledger, "DELETE FROM ledger_head").await;
        let report = ledger.verify_against(&[head]).await.expect("the book can be read");
        assert!(report.findings.iter().any(|finding| finding.check == "head"), "{:?}", report.findings);
    })
    .await;
}

/// What a transfer's hash sees in the second format never changes, or books written by this release would not hold any more.
#[tokio::test]
async fn books_written_before_still_hold() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        open(&ledger, member_accounts()).await;
        post(&ledger, vec![transfer("earn/1", "line/mall/issued", "member/1/points", 10, lot(1))]).await.expect("a lot opens");
        sealed_and_sound(&ledger).await;
        let reader = ledger.database().reader();
        let text = "SELECT t.no, t.debit, t.credit, t.credit_version, t.credit_balance, t.posted_at, s.hash
                    FROM ledger_transfer t JOIN ledger_seal s ON s.transfer = t.no WHERE s.number = 1";
        let row = sql::one(reader, text, []).await.expect("it is read").expect("it is sealed");
        let number = |column: &str| sql::get::<i64>(&row, column).expect("a number");
        let transfer = format!(
            "{{\"no\":{},\"key\":\"earn/1\",\"unit\":\"points\",\"debit\":{},\"credit\":{},\"amount\":10,\
             \"debit_version\":null,\"debit_balance\":null,\"credit_version\":{},\"credit_balance\":{},\
             \"occurred_at\":{NOW_MS},\"period\":{},\"kind\":\"move\",\"reference\":\"test\",\"posted_at\":{}}}",
            number("no"),
            number("debit"),
            number("credit"),
            number("credit_version"),
            number("credit_balance"),
            month().number(),
            number("posted_at"),
        );
        let (debit, credit, expires_at) = (number("debit"), number("credit"), NOW_MS + DAY_MS);
        let accounts = format!(
            "\"debit_account\":\"{debit} striped - 6 4 points mall line/mall/issued\",\
             \"credit_account\":\"{credit} lots 0 6 1 points 1 member/1/points\""
        );
        let lots = format!("\"opened_lot\":\"1 {credit} 6 5 10 {expires_at} 202611 mall\",\"lot_moves\":null");
        let seen = format!("{{\"transfer\":{transfer},{accounts},{lots}}}");
        let expected = heyuan_kernel::secret::sha256_hex(format!("heyuan ledger{seen}").as_bytes());
        assert_eq!(sql::get::<String>(&row, "hash").expect("a hash"), expected);
        let signature = ledger.head().await.expect("it is read").expect("there is a head").signature;
        let keys = TenantKeys::new(&Key::from_bytes([7; 32]));
        assert_eq!(signature, hex::encode(keys.head().mac(&[b"ledger", &1i64.to_be_bytes(), expected.as_bytes()])));
    })
    .await;
}
