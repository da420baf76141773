//! Refunds end alike in whatever order and parts they come.

use crate::world::{at, code, phone, purchase, refund, world};
use futures::future::join_all;
use heyuan_contract::{AnchorId, CustomerId, DomainEvent};
use heyuan_harness::for_both_databases;
use heyuan_membership::{Report, TransactionState, Who};

/// Every order of a few things.
fn permutations(things: &[Report]) -> Vec<Vec<Report>> {
    if things.len() <= 1 {
        return vec![things.to_vec()];
    }
    let mut all = Vec::new();
    for index in 0..things.len() {
        let mut rest = things.to_vec();
        let first = rest.remove(index);
        for mut tail in permutations(&rest) {
            tail.insert(0, first.clone());
            all.push(tail);
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn permuted_refunds_end_alike() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        world.activate("member-day", "points 77").await;
        let mut ends = Vec::new();
        let count = permutations(&vec![refund("r", "t", "mall-1", 1); 4]).len();
        for round in 0..count {
            let member = world.join(&format!("m{round}")).await;
            let (t, r) = (format!("t{round}"), |n: i64| format!("r{round}-{n}"));
            let bought = purchase(&t, "mall-1", 12_345, &member);
            // The purchase itself may come anywhere among its refunds.
            let parts =
                [bought, refund(&r(1), &t, "mall-1", 1_001), refund(&r(2), &t, "mall-1", 3_337), refund(&r(3), &t, "mall-1", 4_000)];
            for report in &permutations(&parts)[round] {
                world.report(report).await.expect("each is taken");
            }
            ends.push(world.holds(&member).await);
        }
        // 4,007 of 12,345 fen are kept: of 123 growth and of 123 + 77 points.
        assert!(ends.iter().all(|end| *end == (39, 64, 0)), "{ends:?}");
        let counted = world.count("SELECT CAST(MAX(points) + MIN(points) AS BIGINT) AS n FROM membership_counter").await;
        assert_eq!(counted, 48, "the rule's counter follows, alike for all");
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_spent_is_owed() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.report(&purchase("t1", "mall-1", 10_000, &member)).await.expect("it is posted");
        world.spend(&member, 80, "s").await.expect("it is enough");
        let back = world.report(&refund("r1", "t1", "mall-1", 10_000)).await.expect("it is taken back");
        assert_eq!((back.growth, back.points, back.points_owed), (-100, -100, 80));
        assert_eq!(world.holds(&member).await, (0, 0, 80));
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refunds_that_do_not_fit_are_refused() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (member, other) = (world.join("138").await, world.join("139").await);
        world.report(&purchase("t1", "mall-1", 10_000, &member)).await.expect("it is posted");
        let mut foreign = refund("r9", "t1", "mall-1", 1);
        foreign.who = Some(Who::Member(other));
        assert_eq!(world.report(&foreign).await.map_err(code).err(), Some("refund_mismatch"));
        assert_eq!(world.report(&refund("r0", "t1", "mall-1", 10_001)).await.map_err(code).err(), Some("refund_too_large"));
        let racing: Vec<Report> = (0..4).map(|n| refund(&format!("r{n}"), "t1", "mall-1", 10_000)).collect();
        let won = join_all(racing.iter().map(|report| world.report(report))).await.into_iter().filter(Result::is_ok).count();
        assert_eq!((won, world.holds(&member).await), (1, (0, 0, 0)));
        let posted = world.count("SELECT COUNT(*) AS n FROM membership_transaction WHERE kind = 'refund'").await;
        assert_eq!(posted, 1, "what was refused left no trace");

        let early = world.report(&refund("early", "t2", "mall-1", 500)).await.expect("it waits");
        let large = world.report(&refund("large", "t2", "mall-1", 900)).await.expect("it waits");
        assert_eq!((early.state, large.state), (TransactionState::Waiting, TransactionState::Waiting));
        world.report(&purchase("t2", "mall-1", 1_000, &member)).await.expect("it is posted");
        let state = async |report: &Report| world.report(report).await.expect("it is answered").state;
        assert_eq!(state(&refund("early", "t2", "mall-1", 500)).await, TransactionState::Posted);
        assert_eq!(state(&refund("large", "t2", "mall-1", 900)).await, TransactionState::Refused);
        assert_eq!(world.holds(&member).await, (5, 5, 0));
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_and_its_purchase_never_pass_each_other() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        for round in 0..12 {
            let (t, r) = (format!("t{round}"), format!("r{round}"));
            let (bought, back) = (purchase(&t, "mall-1", 1_000, &member), refund(&r, &t, "mall-1", 1_000));
            let (first, second) = tokio::join!(world.report(&bought), world.report(&back));
            first.expect("it is posted");
            second.expect("it is posted or waits");
        }
        assert_eq!(world.holds(&member).await, (0, 0, 0));
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM membership_transaction WHERE state = 'posted'").await, 24);
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refunds_identifiers_are_a_hint() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let by = |report: Report, value: &str| Report { who: Some(Who::Identifiers(vec![phone(value)])), ..report };
        let mut tries = 0;
        let mut back = async |of: &str, value: &str| {
            tries += 1;
            let back = by(refund(&format!("r{tries}"), of, "mall-1", 100), value);
            world.report(&back).await.map(|view| (view.member, view.state)).map_err(code)
        };
        let first = world.join("138").await;
        world.kernel.clock.set(at(1));
        let second = world.join("139").await;
        let stranger = world.join("131").await;
        world.report(&purchase("of-second", "mall-1", 10_000, &second)).await.expect("it is posted");

        // A merge: the customer is answered as the first member, and what the second bought stays the second's.
        world.people.link(&["138", "139"], "cus_one");
        let seconds = Ok((Some(second.clone()), TransactionState::Posted));
        assert_eq!(back("of-second", "139").await, seconds);
        assert_eq!(back("of-second", "138").await, seconds, "one customer");
        assert_eq!(back("of-second", "131").await, Err("refund_mismatch"), "somebody else entirely");
        assert_eq!(back("of-second", "100").await, seconds, "nobody knows who that is");

        // A split: what the first was answered for by the other's phone is still refunded by that phone.
        world.report(&by(purchase("of-both", "mall-1", 10_000, &first), "139")).await.expect("it is posted");
        world.people.link(&["138"], "cus_a");
        world.people.link(&["139"], "cus_b");
        let firsts = Ok((Some(first.clone()), TransactionState::Posted));
        assert_eq!((back("of-both", "139").await, back("of-both", "138").await), (firsts.clone(), firsts));
        assert_eq!(back("of-both", "131").await, Err("refund_mismatch"));

        // A departure, then a re-join as a new member.
        world.membership.close_member(&world.admin, &second, "asked", Some("c")).await.expect("it ends");
        assert_eq!(back("of-second", "139").await, seconds);
        assert_ne!(world.join("139").await, second);
        assert_eq!(back("of-second", "139").await, seconds);
        assert_eq!(back("of-second", "131").await, Err("refund_mismatch"));

        // One that waits keeps what its identifiers said, until its purchase tells whose it is.
        let waiting = Ok((None, TransactionState::Waiting));
        assert_eq!((back("late", "139").await, back("late", "131").await), (waiting.clone(), waiting));
        world.report(&purchase("late", "mall-1", 1_000, &stranger)).await.expect("it is posted");
        let refused = world.count("SELECT COUNT(*) AS n FROM membership_transaction WHERE refund_of = 'late' AND state = 'refused'").await;
        let posted = world.count("SELECT COUNT(*) AS n FROM membership_transaction WHERE refund_of = 'late' AND state = 'posted'").await;
        assert_eq!((refused, posted), (1, 1));

        // Of an erased member nothing is known that identifiers could contradict.
        let erased = world.join("137").await;
        world.report(&purchase("of-erased", "mall-1", 10_000, &erased)).await.expect("it is posted");
        let (customer, anchor) = (CustomerId::new("cus_137").expect("an id"), AnchorId::new("anc_137").expect("an id"));
        world.tell(DomainEvent::CustomerErased { customer, anchors: vec![anchor], occurred_at: at(1) }).await;
        world.join("137").await;
        assert_eq!(back("of-erased", "137").await, Ok((Some(erased), TransactionState::Posted)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_refunds_wait_for_a_purchase_and_no_more() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        for n in 0..50 {
            world.report(&refund(&format!("r{n}"), "t1", "mall-1", 100)).await.expect("it waits");
        }
        assert_eq!(world.report(&refund("r50", "t1", "mall-1", 100)).await.map_err(code).err(), Some("too_many_waiting"));
        world.report(&refund("r0", "t1", "mall-1", 100)).await.expect("the same again is answered");
        world.report(&refund("other", "t2", "mall-1", 100)).await.expect("another purchase has its own");
        let bought = world.report(&purchase("t1", "mall-1", 10_000, &member)).await.expect("it is posted, and all that waited");
        assert_eq!((bought.points, world.holds(&member).await), (100, (50, 50, 0)));
        world.report(&refund("r50", "t1", "mall-1", 100)).await.expect("now it is posted");
        assert_eq!(world.holds(&member).await, (49, 49, 0));
        // What an earlier release let wait beyond that is applied when its time is up.
        world.run("UPDATE membership_transaction SET refund_of = 't1' WHERE id = 'other'").await;
        world.kernel.clock.set(at(91));
        assert_eq!(world.membership.give_up_waiting(None).await.expect("it looks"), 1);
        assert_eq!(world.holds(&member).await, (48, 48, 0));
        world.sound().await;
    })
    .await;
}
