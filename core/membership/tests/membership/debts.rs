//! What members owe and get back: debts paid by what comes in, spends given back, refunds that wait in vain.

use crate::world::{World, at, code, purchase, refund, world};
use futures::future::join_all;
use heyuan_contract::MemberId;
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Actor, Reach, Scope};
use heyuan_ledger::Hold;
use heyuan_membership::{GivenBack, TransactionState};

impl World {
    async fn give_back(&self, member: &MemberId, spend: &str, amount: i64, key: &str) -> Result<GivenBack, heyuan_membership::Error> {
        self.membership.give_back(&self.app, member, spend, amount, Some(key)).await
    }

    /// The amounts of a member's statement by kind, oldest first.
    async fn kinds(&self, member: &MemberId) -> Vec<(String, i64)> {
        let mut lines = self.membership.statement(&self.app, member, None, 100).await.expect("it is read");
        lines.reverse();
        lines.into_iter().map(|line| (line.kind, line.amount)).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_owed_is_paid_by_what_comes_in() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.report(&purchase("t1", "mall-1", 10_000, &member)).await.expect("it is posted");
        world.spend(&member, 80, "s").await.expect("it is enough");
        world.report(&refund("r1", "t1", "mall-1", 10_000)).await.expect("it is taken back");
        assert_eq!(world.holds(&member).await, (0, 0, 80));
        // First less than the debt, then more.
        let part = world.report(&purchase("t2", "mall-1", 3_000, &member)).await.expect("it is posted");
        assert_eq!((part.points, part.points_balance), (30, 0));
        assert_eq!(world.holds(&member).await, (30, 0, 50));
        let rest = world.report(&purchase("t3", "hotel-1", 10_000, &member)).await.expect("it is posted");
        assert_eq!((rest.points, rest.points_balance), (100, 50));
        assert_eq!(world.holds(&member).await, (130, 50, 0));
        let expected = [("earn", 100), ("spend", -80), ("refund", -20), ("earn", 30), ("recover", -30), ("earn", 100), ("recover", -50)];
        assert_eq!(world.kinds(&member).await, expected.map(|(kind, amount)| (kind.to_owned(), amount)));
        // A purchase whose points paid a debt is refunded: they are owed again, whatever came first.
        world.report(&refund("r3", "t3", "hotel-1", 10_000)).await.expect("it is taken back");
        assert_eq!(world.holds(&member).await, (30, 0, 50));

        world.kernel.clock.set(at(30));
        let clearing = world.membership.close(&world.admin, "2026-11").await.expect("it is over");
        assert_eq!((clearing.centre.recovered_points, clearing.centre.recovered_fen), (80, 90), "30 at a fen, 50 at 1.2 fen");
        let lines: i64 = clearing.lines.iter().map(|line| line.net_fen).sum();
        assert_eq!(lines + clearing.centre.net_fen, 0);
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hold_has_set_aside_is_owed_when_its_purchase_is_refunded() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.report(&purchase("t1", "mall-1", 10_000, &member)).await.expect("it is posted");
        let hold = Hold {
            key: "hold-1".into(),
            unit: "points".into(),
            debit: format!("member/{member}/points"),
            credit: "line/hotel/points_spent".into(),
            amount: 70,
            kind: "spend".into(),
            reference: "order".into(),
            at: at(0),
            expires_at: at(1),
        };
        let ledger = world.ledger.clone();
        world
            .kernel
            .db
            .write("hold", move |tx| {
                let (ledger, hold) = (ledger.clone(), hold.clone());
                Box::pin(async move { ledger.hold(tx, &hold).await })
            })
            .await
            .expect("it is held");
        let back = world.report(&refund("r1", "t1", "mall-1", 10_000)).await.expect("it is taken back");
        assert_eq!((back.points, back.points_owed), (-100, 70));
        let ledger = world.ledger.clone();
        world
            .kernel
            .db
            .write("void", move |tx| {
                let ledger = ledger.clone();
                Box::pin(async move { ledger.void_hold(tx, "hold-1").await })
            })
            .await
            .expect("it is set free");
        // The points are there again and the debt beside them: the next purchase settles it.
        assert_eq!(world.holds(&member).await, (0, 70, 70));
        world.report(&purchase("t2", "mall-1", 100, &member)).await.expect("it is posted");
        assert_eq!(world.holds(&member).await, (1, 1, 0));
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spend_is_given_back_once_and_into_its_lots() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (member, other) = (world.join("138").await, world.join("139").await);
        world.report(&purchase("t1", "mall-1", 10_000, &member)).await.expect("it is posted");
        let spent = world.spend(&member, 80, "s").await.expect("it is enough");
        let first = world.give_back(&member, &spent.id, 30, "b1").await.expect("it fits");
        assert_eq!((first.amount, first.expired, first.recovered, first.points_balance), (30, 0, 0, 50));
        assert_eq!(world.give_back(&member, &spent.id, 30, "b1").await.expect("it is answered again"), first);
        let reused = world.give_back(&member, &spent.id, 31, "b1").await.map_err(code).err();
        assert_eq!(reused, Some("idempotency_key_reused"));
        for (amount, key, refused) in [(51, "b2", "return_too_large"), (0, "b3", "amount_out_of_range"), (-1, "b4", "amount_out_of_range")]
        {
            assert_eq!(world.give_back(&member, &spent.id, amount, key).await.map_err(code).err(), Some(refused), "{amount}");
        }
        assert_eq!(world.give_back(&other, &spent.id, 1, "b5").await.map_err(code).err(), Some("not_found"));
        let token = Actor::member(member.clone());
        let refused = world.membership.give_back(&token, &member, &spent.id, 1, Some("b6")).await.map_err(code).err();
        assert_eq!(refused, Some("forbidden"), "a member gives itself nothing back");
        let sibling =
            Actor::key("key:mall".into(), vec![Scope::App], None, Reach::Units(std::sync::Arc::new([crate::world::unit("mall-1")].into())));
        let refused = world.membership.give_back(&sibling, &member, &spent.id, 1, Some("b7")).await.map_err(code).err();
        assert_eq!(refused, Some("forbidden"), "the hotel's spend is the hotel's");
        // Of many that want the rest, it goes to whoever is first.
        let racing = (0..4).map(|n| format!("race-{n}"));
        let keys: Vec<String> = racing.collect();
        let won =
            join_all(keys.iter().map(|key| world.give_back(&member, &spent.id, 50, key))).await.into_iter().filter(Result::is_ok).count();
        assert_eq!((won, world.holds(&member).await), (1, (100, 100, 0)));

        // After the lot's own expiry it comes back and expires at once, visibly.
        let late = world.spend(&member, 60, "s2").await.expect("it is enough");
        world.kernel.clock.set(at(400));
        let gone = world.give_back(&member, &late.id, 60, "b8").await.expect("it fits");
        assert_eq!((gone.amount, gone.expired, gone.points_balance), (60, 60, 0));
        let last = world.kinds(&member).await.into_iter().rev().take(2).collect::<Vec<_>>();
        assert_eq!(last[1], ("return".to_owned(), 60));
        assert_eq!(last[0].0, "expire");
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_waits_ninety_days_for_its_purchase() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        let early = refund("r1", "t1", "mall-1", 500);
        assert_eq!(world.report(&early).await.expect("it waits").state, TransactionState::Waiting);
        world.kernel.clock.set(at(89));
        assert_eq!(world.membership.give_up_waiting(None).await.expect("it looks"), 0);
        world.kernel.clock.set(at(91));
        assert_eq!(world.membership.give_up_waiting(None).await.expect("it looks"), 1);
        let refused = world.report(&early).await.expect("it is answered");
        assert_eq!(refused.state, TransactionState::Refused);
        assert!(refused.why.as_deref().is_some_and(|why| why.contains("90 days")), "{:?}", refused.why);
        assert_eq!(world.membership.give_up_waiting(None).await.expect("it looks"), 0);
        // The purchase that comes after all keeps its points; the till reports its refund again.
        world.report(&purchase("t1", "mall-1", 1_000, &member)).await.expect("it is posted");
        assert_eq!(world.holds(&member).await, (10, 10, 0));
        world.report(&refund("r2", "t1", "mall-1", 500)).await.expect("it is taken back");
        assert_eq!(world.holds(&member).await, (5, 5, 0));
        world.sound().await;
    })
    .await;
}
