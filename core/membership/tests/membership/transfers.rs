//! Points from member to member: where the policy lets them, within its limits, and as the lots that they are.

use crate::world::{DAY_MS, World, at, code, purchase, refund, unit, world};
use futures::future::join_all;
use heyuan_contract::{AnchorId, CustomerId, DomainEvent, Line, MemberId};
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Actor, Reach, Scope};
use heyuan_membership::{ClearingLine, Error, PointsPolicy, TransferAudience, TransferPoints, TransferView};
use std::sync::Arc;

fn policy(transfers: TransferAudience) -> PointsPolicy {
    PointsPolicy { transfers, transfer_points_max: 500, day_points_max: 800, month_points_max: 1_000, notice_days: 30 }
}

async fn put(world: &World, policy: &PointsPolicy) {
    world.membership.put_points_policy(&world.admin, policy).await.expect("it is written");
}

async fn give(world: &World, from: &MemberId, to: &MemberId, amount: i64, key: &str) -> Result<TransferView, Error> {
    let request = TransferPoints { to: to.clone(), amount, note: Some("for the picnic".into()) };
    world.membership.transfer_points(&world.app, from, &request, Some(key)).await
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> Option<&'static str> {
    result.map_err(code).err()
}

async fn lines(world: &World) -> Vec<ClearingLine> {
    world.membership.clearing(&world.admin, "2026-11").await.expect("it is read").lines
}

#[tokio::test(flavor = "multi_thread")]
async fn lots_go_over_with_issuer_cost_and_expiry_and_no_line_pays() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (anna, bert) = (world.join("138").await, world.join("139").await);
        world.report(&purchase("t1", "mall-1", 10_000, &anna)).await.expect("it is posted");
        world.report(&purchase("t2", "hotel-1", 10_000, &anna)).await.expect("it is posted");
        put(&world, &policy(TransferAudience::Everybody)).await;
        let before = lines(&world).await;
        let given = give(&world, &anna, &bert, 150, "k1").await.expect("it is allowed");
        assert_eq!((given.amount, given.points_balance, given.note.as_deref()), (150, 50, Some("for the picnic")));
        assert_eq!(give(&world, &anna, &bert, 150, "k1").await.expect("the same again"), given);
        assert_eq!(refusal(give(&world, &anna, &bert, 151, "k1").await), Some("idempotency_key_reused"));
        assert_eq!(lines(&world).await, before, "no line's figures change");
        assert_eq!((world.holds(&anna).await, world.holds(&bert).await), ((200, 50, 0), (0, 150, 0)), "growth stays");
        let seen = |account: String| {
            let world = world.clone();
            async move {
                let lots = world.ledger.open_lots(&account, 9).await.expect("they are listed");
                lots.into_iter().map(|lot| (lot.issuer, lot.cost, lot.remaining, lot.expires_at)).collect::<Vec<_>>()
            }
        };
        let (left, got) = (seen(format!("member/{anna}/points")).await, seen(format!("member/{bert}/points")).await);
        let got_sums: Vec<_> = got.iter().map(|(issuer, _, remaining, _)| (issuer.as_str(), *remaining)).collect();
        assert_eq!(got_sums, [("mall", 100), ("hotel", 50)]);
        assert_eq!((&left[0].0, left[0].1, left[0].3), (&got[1].0, got[1].1, got[1].3), "the same issuer, cost and expiry");
        for (member, amounts) in [(&anna, vec![-50, -100]), (&bert, vec![50, 100])] {
            let statement = world.membership.statement(&world.app, member, None, 2).await.expect("it is read");
            assert!(statement.iter().all(|line| line.kind == "transfer" && line.reference == given.id), "{statement:?}");
            assert_eq!(statement.iter().map(|line| line.amount).collect::<Vec<_>>(), amounts);
        }
        // What was given is spent with the hotel: the issuers' points, at their cost.
        world.spend(&bert, 150, "s1").await.expect("it is enough");
        world.kernel.clock.set(at(30));
        let closed = world.membership.close(&world.admin, "2026-11").await.expect("it is over");
        let hotel = closed.lines.iter().find(|line| line.line == Line::Hotel).expect("every line");
        assert_eq!((hotel.spent_points, hotel.spent_fen), (150, 160));
        assert_eq!(closed.lines.iter().map(|line| line.net_fen).sum::<i64>() + closed.centre.net_fen, 0);
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_says_between_whom_and_how_many() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (anna, bert) = (world.join("138").await, world.join("139").await);
        world.report(&purchase("t1", "mall-1", 1_000_000, &anna)).await.expect("it is posted");
        let m = &world.membership;
        assert_eq!(m.points_policy(&world.app).await.expect("it is read"), PointsPolicy::default());
        assert_eq!(refusal(give(&world, &anna, &bert, 1, "k0").await), Some("transfer_not_allowed"), "unless somebody lets them");
        let reach = Reach::Units(Arc::new([unit("mall-1")].into()));
        let mall = Actor::key("key:mall".into(), vec![Scope::App, Scope::Admin], Some(unit("mall-1")), reach);
        let everybody = policy(TransferAudience::Everybody);
        assert_eq!(refusal(m.put_points_policy(&mall, &everybody).await), Some("forbidden"));
        assert_eq!(refusal(m.put_points_policy(&world.app, &everybody).await), Some("forbidden"));
        let wrong = PointsPolicy { day_points_max: 499, ..everybody.clone() };
        assert_eq!(refusal(m.put_points_policy(&world.admin, &wrong).await), Some("invalid_request"));

        put(&world, &policy(TransferAudience::Linked)).await;
        assert_eq!(refusal(give(&world, &anna, &bert, 1, "k0").await), Some("transfer_not_allowed"));
        world.people.link(&["138", "139"], "cus_one");
        give(&world, &anna, &bert, 100, "k1").await.expect("they are one person's");
        world.people.link(&["139"], "cus_b");
        assert_eq!(refusal(give(&world, &anna, &bert, 1, "k2").await), Some("transfer_not_allowed"), "after a split");
        assert_eq!((world.holds(&anna).await.1, world.holds(&bert).await.1), (9_900, 100), "which moved no point");

        put(&world, &everybody).await;
        assert_eq!(m.points_policy(&world.admin).await.expect("it is read"), everybody);
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM kernel_audit WHERE action = 'put points policy'").await, 2);
        for (amount, key, expected) in [
            (501, "k3", Some("transfer_limit")),
            (500, "k4", None),
            (201, "k5", Some("transfer_limit")),
            (200, "k6", None),
            (1, "k7", Some("transfer_limit")),
        ] {
            assert_eq!(refusal(give(&world, &anna, &bert, amount, key).await), expected, "{amount}");
        }
        // The day of the tenant's zone is over at midnight there, which is eight hours before the one of UTC.
        world.kernel.clock.set(at(0).plus_ms(DAY_MS / 3 * 2 - 1));
        assert_eq!(refusal(give(&world, &anna, &bert, 1, "k8").await), Some("transfer_limit"));
        world.kernel.clock.set(at(0).plus_ms(DAY_MS / 3 * 2));
        assert_eq!(refusal(give(&world, &anna, &bert, 201, "k9").await), Some("transfer_limit"), "200 of the month are left");
        give(&world, &anna, &bert, 200, "k10").await.expect("it is the month's rest");
        world.kernel.clock.set(at(30));
        give(&world, &anna, &bert, 500, "k11").await.expect("a new month");
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_can_not_give_or_get_is_told_so() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (anna, bert) = (world.join("138").await, world.join("139").await);
        world.report(&purchase("t1", "mall-1", 10_000, &anna)).await.expect("it is posted");
        put(&world, &policy(TransferAudience::Everybody)).await;
        let m = &world.membership;
        let to = |to: &MemberId, amount| TransferPoints { to: to.clone(), amount, note: None };
        let (own, stranger) = (Actor::member(anna.clone()), Actor::member(bert.clone()));
        let reach = Reach::Units(Arc::new([unit("hotel-1")].into()));
        let hotel = Actor::key("key:hotel".into(), vec![Scope::App], Some(unit("hotel-1")), reach);
        let nobody = MemberId::new("mbr_nobody").expect("an id");
        for (actor, from, request, expected) in [
            (&own, &anna, to(&anna, 1), "invalid_request"),
            (&own, &anna, to(&bert, 0), "amount_out_of_range"),
            (&own, &anna, to(&bert, -1), "amount_out_of_range"),
            (&own, &anna, to(&bert, 101), "not_enough_points"),
            (&own, &anna, to(&nobody, 1), "unknown_member"),
            (&own, &anna, TransferPoints { note: Some(String::new()), ..to(&bert, 1) }, "invalid_request"),
            (&own, &anna, TransferPoints { note: Some("a\u{7}b".into()), ..to(&bert, 1) }, "invalid_request"),
            (&stranger, &anna, to(&bert, 1), "forbidden"),
            (&hotel, &anna, to(&bert, 1), "unknown_member"),
            (&world.app, &nobody, to(&bert, 1), "unknown_member"),
        ] {
            assert_eq!(refusal(m.transfer_points(actor, from, &request, Some("w")).await), Some(expected), "{actor:?} {request:?}");
        }
        assert_eq!(refusal(m.transfer_points(&own, &anna, &to(&bert, 1), None).await), Some("idempotency_key_missing"));
        let gift = TransferPoints { note: Some("thank you".into()), ..to(&bert, 40) };
        m.transfer_points(&own, &anna, &gift, Some("k1")).await.expect("its own points");

        m.block(&world.admin, &bert, "resells vouchers").await.expect("it is blocked");
        assert_eq!(refusal(give(&world, &anna, &bert, 1, "k2").await), Some("member_blocked"));
        assert_eq!(refusal(give(&world, &bert, &anna, 1, "k2").await), Some("member_blocked"));
        m.unblock(&world.admin, &bert, "was a mistake").await.expect("it is unblocked");
        m.close_member(&world.admin, &bert, "asked at the desk", Some("c1")).await.expect("it ends");
        assert_eq!(refusal(give(&world, &anna, &bert, 1, "k2").await), Some("member_closed"));
        assert_eq!(refusal(give(&world, &bert, &anna, 1, "k2").await), Some("member_closed"));
        assert_eq!(m.transfer_points(&own, &anna, &gift, Some("k1")).await.expect("a retry is answered").amount, 40);
        let (customer, anchor) = (CustomerId::new("cus_139").expect("an id"), AnchorId::new("anc_139").expect("an id"));
        give(&world, &anna, &world.join("140").await, 10, "k3").await.expect("it is allowed");
        world.tell(DomainEvent::CustomerErased { customer, anchors: vec![anchor], occurred_at: at(0) }).await;
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM membership_points_transfer WHERE note = ''").await, 1);
        let customer = CustomerId::new("cus_140").expect("an id");
        let anchors = vec![AnchorId::new("anc_140").expect("an id")];
        world.tell(DomainEvent::CustomerErased { customer, anchors, occurred_at: at(0) }).await;
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM membership_points_transfer WHERE note = ''").await, 2, "the words go");
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_owed_is_not_given_away_and_is_paid_by_what_is_got() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (anna, bert) = (world.join("138").await, world.join("139").await);
        put(&world, &policy(TransferAudience::Everybody)).await;
        world.report(&purchase("t1", "mall-1", 10_000, &anna)).await.expect("it is posted");
        world.report(&purchase("t2", "mall-1", 10_000, &bert)).await.expect("it is posted");
        world.spend(&bert, 80, "s1").await.expect("it is enough");
        world.report(&refund("r2", "t2", "mall-1", 10_000)).await.expect("it is taken back");
        assert_eq!(world.holds(&bert).await, (0, 0, 80));
        give(&world, &anna, &bert, 90, "k1").await.expect("it is allowed");
        assert_eq!(world.holds(&bert).await, (0, 10, 0));
        // Anna's purchase is refunded: what she gave away is as good as spent.
        let back = world.report(&refund("r1", "t1", "mall-1", 10_000)).await.expect("it is taken back");
        assert_eq!((back.points, back.points_owed, world.holds(&anna).await), (-100, 90, (0, 0, 90)));
        assert_eq!(refusal(give(&world, &anna, &bert, 1, "k2").await), Some("not_enough_points"));
        give(&world, &bert, &anna, 10, "k3").await.expect("it is allowed");
        assert_eq!((world.holds(&anna).await, world.holds(&bert).await), ((0, 0, 80), (0, 0, 0)));
        world.kernel.clock.set(at(30));
        let closed = world.membership.close(&world.admin, "2026-11").await.expect("it is over");
        assert_eq!(closed.lines.iter().map(|line| line.net_fen).sum::<i64>() + closed.centre.net_fen, 0);
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn opposite_transfers_at_once_lose_no_point_and_wait_for_nobody() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (anna, bert) = (world.join("138").await, world.join("139").await);
        put(&world, &policy(TransferAudience::Everybody)).await;
        for (id, member) in [("t1", &anna), ("t2", &bert)] {
            world.report(&purchase(id, "mall-1", 10_000, member)).await.expect("it is posted");
        }
        let given = join_all((0..16).map(|place| {
            let (world, anna, bert) = (world.clone(), anna.clone(), bert.clone());
            let (from, to) = if place % 2 == 0 { (anna, bert) } else { (bert, anna) };
            tokio::spawn(async move { give(&world, &from, &to, 70, &format!("k{place}")).await.map(|_| ()).map_err(code) })
        }))
        .await;
        let given: Vec<_> = given.into_iter().map(|one| one.expect("nobody panics")).collect();
        assert!(given.iter().filter_map(|one| one.err()).all(|code| code == "not_enough_points"), "{given:?}");
        assert!(given.iter().any(Result::is_ok), "{given:?}");
        let (anna, bert) = (world.holds(&anna).await.1, world.holds(&bert).await.1);
        assert!(anna >= 0 && bert >= 0 && anna + bert == 200, "{anna} {bert} {given:?}");
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_to_the_last_point_whoever_races() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let anna = world.join("138").await;
        let others = join_all(["139", "140", "141"].map(|phone| world.join(phone))).await;
        world.report(&purchase("t1", "mall-1", 1_000_000, &anna)).await.expect("it is posted");
        put(&world, &policy(TransferAudience::Everybody)).await;
        let given = join_all((0..12).map(|place| {
            let (world, anna, other) = (world.clone(), anna.clone(), others[place % 3].clone());
            tokio::spawn(async move { give(&world, &anna, &other, 150, &format!("k{place}")).await.map(|_| ()).map_err(code) })
        }))
        .await;
        let given: Vec<_> = given.into_iter().map(|one| one.expect("nobody panics")).collect();
        assert_eq!(given.iter().filter(|one| one.is_ok()).count(), 5, "five of 150 fit into a day's 800: {given:?}");
        assert!(given.iter().filter_map(|one| one.err()).all(|code| code == "transfer_limit"), "{given:?}");
        assert_eq!(world.holds(&anna).await.1, 10_000 - 750);
        world.sound().await;
    })
    .await;
}
