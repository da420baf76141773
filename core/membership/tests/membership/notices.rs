//! Notices of expiry: once a member and day, as many days ahead as the policy says.

use crate::world::{World, at, purchase, world};
use heyuan_contract::{AnchorId, DomainEvent, MemberId, Points, Timestamp};
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Actor, sql};
use heyuan_membership::{PointsPolicy, TransactionKind};

/// Takes steps until there is nothing to do; answers how many lots or old notices they looked at.
async fn turned(world: &World) -> usize {
    let mut looked = 0;
    loop {
        match world.membership.notify_expiry(None).await.expect("it looks") {
            0 => return looked,
            some => looked += some,
        }
    }
}

/// What was told, oldest first: to whom, how many, and the day counted from the first.
async fn told(world: &World) -> Vec<(MemberId, AnchorId, i64, Timestamp)> {
    let text = "SELECT body FROM kernel_outbox WHERE name = 'points.expiring.v1' ORDER BY id";
    let rows = sql::all(world.kernel.db.reader(), text, []).await.expect("they are read");
    let told = rows.iter().map(|row| {
        let body: String = sql::get(row, "body").expect("a text");
        match serde_json::from_str(&body).expect("an event") {
            DomainEvent::PointsExpiring { member, anchor, amount: Points(amount), expires_at, .. } => (member, anchor, amount, expires_at),
            other => panic!("{other:?}"),
        }
    });
    told.collect()
}

async fn earned(world: &World, id: &str, fen: i64, day: i64, member: &MemberId) {
    let mut report = purchase(id, "mall-1", fen, member);
    report.occurred_at = at(day);
    assert_eq!(report.kind, TransactionKind::Purchase);
    world.report(&report).await.expect("it is posted");
}

fn anchor(phone: &str) -> AnchorId {
    AnchorId::new(format!("anc_{phone}")).expect("an id")
}

async fn put_notice_days(world: &World, notice_days: i32) {
    let policy = PointsPolicy { notice_days, ..PointsPolicy::default() };
    world.membership.put_points_policy(&world.admin, &policy).await.expect("it is written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_told_once_of_a_day_on_which_points_expire() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (anna, bert) = (world.join("138").await, world.join("139").await);
        earned(&world, "t1", 10_000, 0, &anna).await;
        earned(&world, "t2", 5_000, 0, &anna).await;
        earned(&world, "t3", 7_000, 0, &bert).await;
        world.kernel.clock.set(at(1));
        earned(&world, "t4", 900, 1, &anna).await;
        world.spend(&anna, 20, "s1").await.expect("it is enough");
        let day = |days: i64| world.kernel.zone.day_start(world.kernel.zone.day(at(days)));
        world.kernel.clock.set(day(336).plus_ms(-1));
        assert_eq!((turned(&world).await, told(&world).await), (0, vec![]), "thirty-one days ahead");
        world.kernel.clock.set(day(336));
        assert_eq!(turned(&world).await, 3);
        let mut first = told(&world).await;
        first.sort_unstable_by_key(|notice| notice.2);
        assert_eq!(first, [(bert.clone(), anchor("139"), 70, day(366)), (anna.clone(), anchor("138"), 130, day(366))]);
        assert_eq!((turned(&world).await, told(&world).await.len()), (0, 2));
        // The points of the next day are told a day later; those that are spent by then never.
        world.spend(&bert, 70, "s2").await.expect("it is enough");
        world.kernel.clock.set(day(337));
        assert_eq!((turned(&world).await, told(&world).await.len()), (1, 3));
        assert_eq!(told(&world).await.pop(), Some((anna.clone(), anchor("138"), 9, day(367))));

        // Two steps at once, as of two processes, tell nobody twice.
        world.run("DELETE FROM membership_notice_cursor").await;
        let (one, two) = futures::join!(world.membership.notify_expiry(None), world.membership.notify_expiry(None));
        assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
        assert_eq!((turned(&world).await, told(&world).await.len()), (0, 3));

        // A notice is kept until its day is past.
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM membership_expiry_notice").await, 3);
        world.kernel.clock.set(day(368).plus_ms(-1));
        assert_eq!(turned(&world).await, 2);
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM membership_expiry_notice").await, 1);
        world.kernel.clock.set(day(368));
        assert_eq!(turned(&world).await, 1);
        assert_eq!(told(&world).await.len(), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_says_how_long_ahead_and_who_can_not_spend_is_not_told() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (anna, blocked, gone) = (world.join("138").await, world.join("139").await, world.join("140").await);
        for (id, member) in [("t1", &anna), ("t2", &blocked), ("t3", &gone)] {
            earned(&world, id, 10_000, 0, member).await;
        }
        world.membership.block(&world.admin, &blocked, "resells vouchers").await.expect("it is blocked");
        world.membership.close_member(&world.admin, &gone, "asked", Some("c1")).await.expect("it ends");
        put_notice_days(&world, 0).await;
        world.kernel.clock.set(at(350));
        assert_eq!((turned(&world).await, told(&world).await), (0, vec![]), "nobody is told");
        put_notice_days(&world, 15).await;
        assert_eq!(turned(&world).await, 0, "sixteen days ahead");
        put_notice_days(&world, 16).await;
        assert_eq!(turned(&world).await, 2);
        assert_eq!(told(&world).await.into_iter().map(|notice| notice.0).collect::<Vec<_>>(), std::slice::from_ref(&anna));
        put_notice_days(&world, 365).await;
        assert_eq!((turned(&world).await, told(&world).await.len()), (0, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_lots_are_told_of_in_steps_and_in_one_notice() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let anna = world.join("138").await;
        for place in 0..205 {
            earned(&world, &format!("t{place}"), 100, 0, &anna).await;
        }
        world.kernel.clock.set(at(340));
        assert_eq!(world.membership.notify_expiry(None).await.expect("it looks"), 200);
        assert_eq!(world.membership.notify_expiry(None).await.expect("it looks"), 5);
        assert_eq!(world.membership.notify_expiry(None).await.expect("it looks"), 0);
        let told = told(&world).await;
        assert_eq!(told.iter().map(|notice| notice.2).collect::<Vec<_>>(), [205]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_sees_what_expires_next() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let anna = world.join("138").await;
        let own = Actor::member(anna.clone());
        assert_eq!(world.membership.next_expiry(&own, &anna).await.expect("it is read"), None);
        earned(&world, "t1", 10_000, 0, &anna).await;
        earned(&world, "t2", 5_000, 0, &anna).await;
        world.kernel.clock.set(at(1));
        earned(&world, "t3", 900, 1, &anna).await;
        world.spend(&anna, 20, "s1").await.expect("it is enough");
        let next = world.membership.next_expiry(&own, &anna).await.expect("it is read").expect("there are points");
        let zone = &world.kernel.zone;
        assert_eq!((next.amount, next.expires_at), (130, zone.day_start(zone.day(at(366)))));
        world.kernel.clock.set(next.expires_at);
        let next = world.membership.next_expiry(&own, &anna).await.expect("it is read").expect("there are points");
        assert_eq!((next.amount, next.expires_at), (9, zone.day_start(zone.day(at(367)))));
        let other = Actor::member(world.join("139").await);
        assert!(world.membership.next_expiry(&other, &anna).await.is_err(), "nobody else's");
    })
    .await;
}
