//! Carrying from one account with lots to another, on both databases.

use crate::ground::{DAY_MS, NOW_MS, at, ledger, month, open, sealed_and_sound, write};
use futures::FutureExt;
use futures::future::join_all;
use heyuan_contract::Ratio;
use heyuan_harness::for_both_databases;
use heyuan_ledger::{Account, Carry, Error, Ledger, LotUse, Lots, NewLot, Transfer};

fn earn(key: &str, issuer: &str, cost: (i64, i64), amount: i64, days: i64) -> Transfer {
    let cost = Ratio::new(cost.0, cost.1).expect("a ratio");
    Transfer {
        key: key.into(),
        unit: "points".into(),
        debit: "issued".into(),
        credit: "anna".into(),
        amount,
        occurred_at: at(-9),
        period: month(),
        kind: "issue".into(),
        reference: "test".into(),
        lots: Lots::New(NewLot { issuer: issuer.into(), cost, expires_at: at(days) }),
    }
}

fn carry(key: &str, from: &str, to: &str, amount: i64) -> Carry {
    Carry {
        key: key.into(),
        unit: "points".into(),
        from: from.into(),
        to: to.into(),
        amount,
        occurred_at: at(0),
        period: month(),
        kind: "transfer".into(),
        reference: "gift".into(),
    }
}

async fn carry_over(ledger: &Ledger, carry: Carry) -> Result<Vec<LotUse>, Error> {
    write(ledger, move |ledger, tx| {
        let carry = carry.clone();
        async move { ledger.carry(tx, &carry).await }.boxed()
    })
    .await
}

/// Anna has three lots, the first of them expired; Bert has nothing.
async fn two_members(ledger: &Ledger) {
    let accounts = vec![
        Account::striped("issued", "mall", "points"),
        Account::lots("anna", "1", "points"),
        Account::lots("bert", "2", "points"),
        Account::plain("plain", "3", "points", Some(0)),
    ];
    open(ledger, accounts).await;
    let lots = vec![earn("gone", "mall", (1, 1), 5, -1), earn("late", "hotel", (6, 5), 50, 300), earn("soon", "mall", (1, 3), 30, 10)];
    write(ledger, move |ledger, tx| {
        let lots = lots.clone();
        async move { ledger.post(tx, &lots).await.map(drop) }.boxed()
    })
    .await
    .expect("lots open");
}

type Seen = (String, String, (i64, i64), i64, i64);

async fn lots_of(ledger: &Ledger, account: &str) -> Vec<Seen> {
    let lots = ledger.open_lots(account, 99).await.expect("lots are listed");
    let seen = lots.into_iter().map(|lot| {
        let cost = (lot.cost.numerator(), lot.cost.denominator());
        (lot.source, lot.issuer, cost, lot.remaining, (lot.expires_at.ms() - NOW_MS) / DAY_MS)
    });
    seen.collect()
}

fn seen(source: &str, issuer: &str, cost: (i64, i64), remaining: i64, days: i64) -> Seen {
    (source.to_owned(), issuer.to_owned(), cost, remaining, days)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lot_is_goes_with_it() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        two_members(&ledger).await;
        for _ in 0..2 {
            let parts = carry_over(&ledger, carry("gift", "anna", "bert", 40)).await.expect("it is enough");
            assert_eq!(parts.iter().map(|part| (part.source.as_str(), part.amount)).collect::<Vec<_>>(), [("soon", 30), ("late", 10)]);
        }
        assert_eq!(lots_of(&ledger, "anna").await, [seen("gone", "mall", (1, 1), 5, -1), seen("late", "hotel", (6, 5), 40, 300)]);
        let got = [seen("gift/1", "mall", (1, 3), 30, 10), seen("gift/2", "hotel", (6, 5), 10, 300)];
        assert_eq!(lots_of(&ledger, "bert").await, got);
        // What was carried can be carried on, and back.
        carry_over(&ledger, carry("back", "bert", "anna", 35)).await.expect("it is enough");
        assert_eq!(lots_of(&ledger, "bert").await, [seen("gift/2", "hotel", (6, 5), 5, 300)]);
        let returned = lots_of(&ledger, "anna").await;
        assert!(returned.contains(&seen("back/1", "mall", (1, 3), 30, 10)), "{returned:?}");
        let movements = ledger.lot_movements(ledger.database().reader(), "points", month()).await.expect("they are read");
        let mut sides: Vec<_> = movements
            .iter()
            .filter(|movement| movement.kind == "transfer")
            .map(|movement| (movement.issuer.as_str(), movement.other.as_str(), movement.amount))
            .collect();
        sides.sort_unstable();
        // Each account is the other side of what left the one and what came to the other.
        assert_eq!(sides, [("hotel", "anna", 5), ("hotel", "bert", -5), ("mall", "anna", 0), ("mall", "bert", 0)]);
        assert_eq!(sides.iter().map(|(_, _, amount)| amount).sum::<i64>(), 0, "what leaves the one comes to the other");
        sealed_and_sound(&ledger).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_refused_whole() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        two_members(&ledger).await;
        let more = carry_over(&ledger, carry("more", "anna", "bert", 81)).await;
        assert!(matches!(more, Err(Error::NotEnough { .. })), "what expired is not carried: {more:?}");
        for amount in [0, -1] {
            let bad = carry_over(&ledger, carry("bad", "anna", "bert", amount)).await;
            assert!(matches!(bad, Err(Error::Amount(_))), "{bad:?}");
        }
        let nobody = carry_over(&ledger, carry("nobody", "anna", "carl", 1)).await;
        assert!(matches!(nobody, Err(Error::UnknownAccount(_))), "{nobody:?}");
        let same = carry_over(&ledger, carry("same", "anna", "anna", 1)).await;
        assert!(matches!(same, Err(Error::UnitMismatch(_))), "{same:?}");
        let plain = carry_over(&ledger, carry("plain", "anna", "plain", 1)).await;
        assert!(matches!(plain, Err(Error::Lots { .. })), "{plain:?}");
        assert_eq!(ledger.balance("anna").await.expect("it is open").balance, 85, "nothing moved");
        carry_over(&ledger, carry("gift", "anna", "bert", 40)).await.expect("it is enough");
        for other in [
            carry("gift", "anna", "bert", 39),
            carry("gift", "bert", "anna", 40),
            Carry { reference: "other".into(), ..carry("gift", "anna", "bert", 40) },
        ] {
            let reused = carry_over(&ledger, other).await;
            assert!(matches!(reused, Err(Error::KeyReused(_))), "{reused:?}");
        }
        sealed_and_sound(&ledger).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn carried_at_once_and_against_one_another_no_point_goes_twice() {
    for_both_databases(|database| async move {
        let ledger = ledger(&database).await;
        two_members(&ledger).await;
        // The same one four times, others beside it, some of them in the other direction.
        let wanted = (0..16).map(|n| match n % 4 {
            0 => carry("gift", "anna", "bert", 30),
            1 | 2 => carry(&format!("to/{n}"), "anna", "bert", 9),
            _ => carry(&format!("fro/{n}"), "bert", "anna", 7),
        });
        let answers = join_all(wanted.map(|one| async { (one.clone(), carry_over(&ledger, one).await) })).await;
        let (mut anna, mut gifts) = (85, 0);
        for (one, answer) in answers {
            match answer {
                Ok(parts) => {
                    assert_eq!(parts.iter().map(|part| part.amount).sum::<i64>(), one.amount);
                    let first = one.key != "gift" || gifts == 0;
                    gifts += i64::from(one.key == "gift");
                    if first {
                        anna += if one.from == "anna" { -one.amount } else { one.amount };
                    }
                }
                Err(Error::NotEnough { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        let held = (ledger.balance("anna").await.expect("open").balance, ledger.balance("bert").await.expect("open").balance);
        assert_eq!(held, (anna, 85 - anna));
        assert!(anna < 85, "none of them fitted");
        sealed_and_sound(&ledger).await;
    })
    .await;
}
