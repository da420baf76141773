//! Points held for open orders: nobody else spends them, and each hold ends once.

use crate::world::{World, at, code, purchase, refund, unit, world};
use futures::future::join_all;
use heyuan_contract::{AnchorId, CustomerId, DomainEvent, Fen, Line, MemberId, MerchantId, OrderId, OrderPoints, Points, Timestamp};
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Actor, Problem, Reach, Scope};
use heyuan_membership::{Error, HoldPoints, HoldState, HoldView};
use std::sync::Arc;

const MINUTE_MS: i64 = 60_000;

fn wanted(amount: i64) -> HoldPoints {
    HoldPoints { amount, unit: unit("hotel-1"), reference: "order 7".into(), expires_at: None, minutes: Some(30) }
}

fn minutes(count: i64) -> Timestamp {
    at(0).plus_ms(count * MINUTE_MS)
}

fn key_of(place: &str) -> Actor {
    Actor::key(format!("key:{place}"), vec![Scope::App], Some(unit(place)), Reach::Units(Arc::new([unit(place)].into())))
}

async fn hold(world: &World, member: &MemberId, amount: i64, key: &str) -> Result<HoldView, Error> {
    world.membership.hold_points(&world.app, member, &wanted(amount), Some(key)).await
}

async fn capture(world: &World, hold: &HoldView, amount: Option<i64>, key: &str) -> Result<HoldView, Error> {
    world.membership.capture_hold(&world.app, &hold.member, &hold.id, amount, Some(key)).await
}

async fn release(world: &World, hold: &HoldView, key: &str) -> Result<HoldView, Error> {
    world.membership.release_hold(&world.app, &hold.member, &hold.id, Some(key)).await
}

async fn read(world: &World, hold: &HoldView) -> HoldView {
    world.membership.hold(&world.app, &hold.member, &hold.id).await.expect("it is read")
}

/// A member with a hundred points of the mall.
async fn member_with_points(world: &World, phone: &str) -> MemberId {
    let member = world.join(phone).await;
    world.report(&purchase(&format!("t-{phone}"), "mall-1", 10_000, &member)).await.expect("it is posted");
    member
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> Option<&'static str> {
    result.map_err(code).err()
}

#[tokio::test(flavor = "multi_thread")]
async fn held_points_are_captured_in_part_as_a_spend_like_any_other() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = member_with_points(&world, "138").await;
        let held = hold(&world, &member, 60, "h1").await.expect("it is enough");
        assert_eq!((held.state, held.amount, held.captured, held.spend.clone()), (HoldState::Open, 60, 0, None));
        assert_eq!(held.expires_at, minutes(30));
        assert_eq!(hold(&world, &member, 60, "h1").await.expect("the same again"), held);
        assert_eq!(refusal(hold(&world, &member, 61, "h1").await), Some("idempotency_key_reused"));
        assert_eq!(world.holds(&member).await, (100, 40, 0));
        assert_eq!(refusal(world.spend(&member, 41, "s1").await), Some("not_enough_points"));
        assert_eq!(refusal(hold(&world, &member, 41, "h2").await), Some("not_enough_points"));

        assert_eq!(refusal(capture(&world, &held, Some(61), "c0").await), Some("amount_out_of_range"));
        let taken = capture(&world, &held, Some(45), "c1").await.expect("it is open");
        assert_eq!((taken.state, taken.captured), (HoldState::Captured, 45));
        assert_eq!(capture(&world, &held, Some(45), "c1").await.expect("the same again"), taken);
        assert_eq!(refusal(capture(&world, &held, Some(44), "c1").await), Some("idempotency_key_reused"));
        assert_eq!(refusal(capture(&world, &held, Some(45), "c2").await), Some("hold_settled"));
        assert_eq!(refusal(release(&world, &held, "r1").await), Some("hold_settled"));
        assert_eq!((read(&world, &held).await, world.holds(&member).await), (taken.clone(), (100, 55, 0)));

        // The clearing and a return see it as any spend.
        let spend = taken.spend.expect("it became one");
        let given = world.membership.give_back(&world.app, &member, &spend, 20, Some("b1")).await.expect("it fits");
        assert_eq!((given.amount, given.points_balance), (20, 75));
        let too_much = world.membership.give_back(&world.app, &member, &spend, 26, Some("b2")).await;
        assert_eq!(refusal(too_much), Some("return_too_large"));
        let statement = world.membership.statement(&world.app, &member, None, 9).await.expect("it is read");
        let told: Vec<_> = statement.iter().map(|line| (line.kind.as_str(), line.amount)).collect();
        assert_eq!(told, [("return", 20), ("spend", -45), ("earn", 100)]);
        assert_eq!(statement[1].reference, format!("hotel-1/{spend}"));
        let clearing = world.membership.clearing(&world.admin, "2026-11").await.expect("it is read");
        let hotel = clearing.lines.iter().find(|line| line.line == Line::Hotel).expect("every line");
        assert_eq!((hotel.spent_points, hotel.spent_fen), (25, 25));

        let whole = hold(&world, &member, 75, "h3").await.expect("it is enough");
        assert_eq!(capture(&world, &whole, None, "c3").await.expect("it is open").captured, 75);
        assert_eq!(world.holds(&member).await, (100, 0, 0));
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_is_released_or_runs_out_by_itself_once() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = member_with_points(&world, "138").await;
        let first = hold(&world, &member, 60, "h1").await.expect("it is enough");
        let freed = release(&world, &first, "r1").await.expect("it is open");
        assert_eq!((freed.state, freed.captured, world.holds(&member).await), (HoldState::Released, 0, (100, 100, 0)));
        assert_eq!(release(&world, &first, "r1").await.expect("the same again"), freed);
        assert_eq!(refusal(capture(&world, &first, None, "c1").await), Some("hold_settled"));

        let (second, third) =
            (hold(&world, &member, 30, "h2").await.expect("enough"), hold(&world, &member, 70, "h3").await.expect("enough"));
        world.kernel.clock.set(minutes(30));
        assert_eq!(world.membership.expire_point_holds(None).await.expect("it looks"), 0);
        assert_eq!(capture(&world, &third, Some(10), "c2").await.expect("to the last instant").captured, 10);
        world.kernel.clock.set(minutes(30).plus_ms(1));
        assert_eq!(read(&world, &second).await.state, HoldState::Expired, "whether or not the clockwork has been there");
        assert_eq!(refusal(capture(&world, &second, None, "c3").await), Some("hold_settled"));
        assert_eq!(refusal(release(&world, &second, "r2").await), Some("hold_settled"));
        assert_eq!(world.membership.expire_point_holds(None).await.expect("it ends"), 1);
        assert_eq!(world.membership.expire_point_holds(None).await.expect("once"), 0);
        let ended = read(&world, &second).await;
        assert_eq!((ended.state, ended.ended_at, world.holds(&member).await), (HoldState::Expired, Some(minutes(30)), (100, 90, 0)));

        let fourth = hold(&world, &member, 90, "h4").await.expect("it is enough");
        world.kernel.clock.set(minutes(90));
        assert_eq!(refusal(capture(&world, &fourth, None, "c4").await), Some("hold_settled"));
        assert_eq!(world.membership.expire_point_holds(None).await.expect("it writes it down"), 1);
        assert_eq!((read(&world, &fourth).await.state, world.holds(&member).await), (HoldState::Expired, (100, 90, 0)));
        let listed = world.membership.holds(&world.app, &member, None, 2).await.expect("they are listed");
        assert_eq!(listed.iter().map(|hold| hold.id.clone()).collect::<Vec<_>>(), [fourth.id.clone(), third.id.clone()]);
        let rest = world.membership.holds(&world.app, &member, Some(third.id), 9).await.expect("they are listed");
        assert_eq!(rest.iter().map(|hold| hold.id.clone()).collect::<Vec<_>>(), [second.id, first.id]);
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_set_free_pays_what_is_owed() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        for (phone, how) in [("1", "release"), ("2", "expire"), ("3", "capture")] {
            let member = member_with_points(&world, phone).await;
            let held = hold(&world, &member, 70, &format!("h{phone}")).await.expect("it is enough");
            let back =
                world.report(&refund(&format!("r-{phone}"), &format!("t-{phone}"), "mall-1", 10_000)).await.expect("it is taken back");
            assert_eq!((back.points, back.points_owed), (-100, 70), "held points are as good as spent");
            let expected = match how {
                "release" => {
                    release(&world, &held, &format!("r{phone}")).await.expect("it is open");
                    (0, 0, 0)
                }
                "expire" => {
                    world.kernel.clock.set(minutes(31));
                    assert_eq!(world.membership.expire_point_holds(None).await.expect("it ends"), 1);
                    (0, 0, 0)
                }
                _ => {
                    capture(&world, &held, Some(50), &format!("c{phone}")).await.expect("it is open");
                    (0, 0, 50)
                }
            };
            assert_eq!(world.holds(&member).await, expected, "{how}");
        }
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_captured_hold_pays_with_what_had_not_expired_when_it_was_made() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = member_with_points(&world, "138").await;
        let expiry = world.membership.member(&world.app, &member).await.expect("it is read").nearest_expiry.expect("points expire");
        world.kernel.clock.set(expiry.plus_ms(-MINUTE_MS));
        let (paid, freed) =
            (hold(&world, &member, 40, "h1").await.expect("enough"), hold(&world, &member, 60, "h2").await.expect("enough"));
        world.kernel.clock.set(expiry);
        assert_eq!(capture(&world, &paid, None, "c1").await.expect("it is open").captured, 40);
        release(&world, &freed, "r1").await.expect("it is open");
        assert_eq!(world.holds(&member).await.1, 0, "what is past its expiry is not there again");
        assert_eq!(world.membership.expire_points(None).await.expect("it moves it out"), 1);
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_holds_captures_and_releases() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (member, other) = (member_with_points(&world, "138").await, world.join("139").await);
        let (own, stranger) = (Actor::member(member.clone()), Actor::member(other.clone()));
        let (hotel, community) = (key_of("hotel-1"), key_of("community-1"));
        let m = &world.membership;
        let until = |expires_at, minutes| HoldPoints { expires_at, minutes, ..wanted(1) };
        for (request, expected) in [
            (wanted(0), "amount_out_of_range"),
            (wanted(-5), "amount_out_of_range"),
            (HoldPoints { unit: unit("group"), ..wanted(1) }, "invalid_request"),
            (HoldPoints { unit: unit("nowhere"), ..wanted(1) }, "invalid_request"),
            (HoldPoints { reference: String::new(), ..wanted(1) }, "invalid_request"),
            (HoldPoints { reference: "a\u{7}b".into(), ..wanted(1) }, "invalid_request"),
            (until(None, Some(0)), "invalid_request"),
            (until(None, Some(30 * 24 * 60 + 1)), "invalid_request"),
            (until(Some(at(1)), Some(5)), "invalid_request"),
            (until(Some(at(0)), None), "time_out_of_range"),
            (until(Some(at(31)), None), "time_out_of_range"),
        ] {
            assert_eq!(refusal(m.hold_points(&world.app, &member, &request, Some("w")).await), Some(expected), "{request:?}");
        }
        assert_eq!(refusal(m.hold_points(&world.app, &member, &wanted(1), None).await), Some("idempotency_key_missing"));
        assert_eq!(refusal(m.hold_points(&stranger, &member, &wanted(1), Some("w")).await), Some("forbidden"));
        assert_eq!(refusal(m.hold_points(&community, &member, &wanted(1), Some("w")).await), Some("forbidden"));
        let nobody = MemberId::new("mbr_nobody").expect("an id");
        assert_eq!(refusal(m.hold_points(&world.app, &nobody, &wanted(1), Some("w")).await), Some("unknown_member"));

        let held = m.hold_points(&own, &member, &until(Some(at(1)), None), Some("h1")).await.expect("its own points");
        assert_eq!(held.expires_at, at(1));
        for actor in [&own, &community] {
            assert_eq!(refusal(m.capture_hold(actor, &member, &held.id, None, Some("c")).await), Some("forbidden"));
            assert_eq!(refusal(m.release_hold(actor, &member, &held.id, Some("r")).await), Some("forbidden"));
        }
        assert_eq!(refusal(m.capture_hold(&world.app, &other, &held.id, None, Some("c")).await), Some("not_found"));
        assert_eq!(refusal(m.release_hold(&world.app, &member, "hld_none", Some("r")).await), Some("not_found"));
        assert_eq!(m.hold(&hotel, &member, &held.id).await.expect("its unit's"), held);
        assert_eq!(m.hold(&own, &member, &held.id).await.expect("its own"), held);
        assert_eq!(refusal(m.hold(&community, &member, &held.id).await), Some("unknown_member"));
        assert_eq!(refusal(m.hold(&world.app, &other, &held.id).await), Some("not_found"));
        assert_eq!(m.holds(&hotel, &member, None, 9).await.expect("its unit's"), vec![held.clone()]);
        assert_eq!(refusal(m.holds(&community, &member, None, 9).await), Some("unknown_member"));
        assert_eq!(m.holds(&world.app, &other, None, 9).await.expect("none"), vec![]);

        m.block(&world.admin, &member, "resells vouchers").await.expect("it is blocked");
        assert_eq!(refusal(hold(&world, &member, 1, "h2").await), Some("member_blocked"));
        assert_eq!(refusal(capture(&world, &held, None, "c1").await), Some("member_blocked"));
        assert_eq!(m.release_hold(&hotel, &member, &held.id, Some("r1")).await.expect("it is freed").state, HoldState::Released);
        m.unblock(&world.admin, &member, "was a mistake").await.expect("it is unblocked");
        for place in 0..100 {
            hold(&world, &member, 1, &format!("many-{place}")).await.expect("it is enough");
        }
        world.report(&purchase("more", "mall-1", 10_000, &member)).await.expect("it is posted");
        assert_eq!(refusal(hold(&world, &member, 1, "one-more").await), Some("limited"));
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_or_is_erased_takes_no_held_point_along() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = member_with_points(&world, "138").await;
        let held = hold(&world, &member, 60, "h1").await.expect("it is enough");
        let gone = world.membership.close_member(&world.admin, &member, "asked at the desk", Some("c1")).await.expect("it ends");
        assert_eq!((gone.points_forfeited, read(&world, &held).await.state), (100, HoldState::Released));
        assert_eq!(refusal(capture(&world, &held, None, "c2").await), Some("hold_settled"));
        assert_eq!(refusal(hold(&world, &member, 1, "h2").await), Some("member_closed"));
        assert_eq!(world.holds(&member).await, (100, 0, 0));

        let erased = member_with_points(&world, "139").await;
        let held = hold(&world, &erased, 60, "h3").await.expect("it is enough");
        let (customer, anchor) = (CustomerId::new("cus_139").expect("an id"), AnchorId::new("anc_139").expect("an id"));
        world.tell(DomainEvent::CustomerErased { customer, anchors: vec![anchor], occurred_at: at(0) }).await;
        let left = world.membership.hold(&world.app, &erased, &held.id).await.expect("it is read");
        assert_eq!((left.state, left.reference.as_str(), world.holds(&erased).await.1), (HoldState::Released, "erased", 0));
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_those_who_end_a_hold_at_once_one_wins() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        for round in 0..4 {
            let member = member_with_points(&world, &format!("13{round}")).await;
            let held = hold(&world, &member, 60, &format!("h{round}")).await.expect("it is enough");
            let ends = join_all((0..9).map(|place| {
                let (world, held, member) = (world.clone(), held.clone(), member.clone());
                tokio::spawn(async move {
                    let key = format!("e{round}-{}", place / 2);
                    match place % 3 {
                        0 => capture(&world, &held, Some(50), &format!("c{key}")).await.map(|hold| hold.state).map_err(code),
                        1 => release(&world, &held, &format!("r{key}")).await.map(|hold| hold.state).map_err(code),
                        _ => world.spend(&member, 40, &format!("s{key}")).await.map(|_| HoldState::Open).map_err(code),
                    }
                })
            }))
            .await;
            let ends: Vec<_> = ends.into_iter().map(|end| end.expect("nobody panics")).collect();
            let ended = read(&world, &held).await;
            let won = ends.iter().filter_map(|end| end.as_ref().ok()).filter(|state| **state != HoldState::Open).collect::<Vec<_>>();
            assert!(!won.is_empty() && won.iter().all(|state| **state == ended.state), "round {round}: {ends:?}");
            let refused = |code: &&str| ["hold_settled", "not_enough_points"].contains(code);
            assert!(ends.iter().filter_map(|end| end.as_ref().err()).all(refused), "{ends:?}");
            let spends =
                world.count(&format!("SELECT COUNT(*) AS n FROM membership_spend WHERE member = '{member}' AND hold IS NULL")).await;
            assert_eq!(world.holds(&member).await.1, 100 - 40 * spends - ended.captured, "round {round}: {ends:?}");
        }
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_holds_set_no_point_aside_twice() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = member_with_points(&world, "138").await;
        let held = join_all((0..8).map(|place| {
            let (world, member) = (world.clone(), member.clone());
            // Two of each key: a retry that is under way with its first.
            tokio::spawn(async move { hold(&world, &member, 30, &format!("h{}", place / 2)).await.map(|hold| hold.id).map_err(code) })
        }))
        .await;
        let held: Vec<_> = held.into_iter().map(|one| one.expect("nobody panics")).collect();
        let mut ids: Vec<_> = held.iter().filter_map(|one| one.clone().ok()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((ids.len(), world.holds(&member).await.1), (3, 10), "{held:?}");
        assert!(held.iter().filter_map(|one| one.as_ref().err()).all(|code| *code == "not_enough_points"), "{held:?}");
        world.sound().await;
    })
    .await;
}

/// What the mall tells of an order of the hotel that points pay alone.
fn paid(order: &str, member: &MemberId, hold: &str, points: i64) -> DomainEvent {
    DomainEvent::OrderPaid {
        order: OrderId::new(order).expect("an id"),
        member: member.clone(),
        merchant: MerchantId::new("mer_tea").expect("an id"),
        unit: unit("hotel-1"),
        line: Line::Hotel,
        amount: Fen(0),
        lines: Vec::new(),
        points: Some(OrderPoints { hold: hold.to_owned(), points: Points(points) }),
        occurred_at: at(0),
    }
}

fn refunded(order: &str, refund: &str, member: &MemberId, points: i64) -> DomainEvent {
    DomainEvent::OrderRefunded {
        order: OrderId::new(order).expect("an id"),
        refund: refund.to_owned(),
        member: member.clone(),
        merchant: MerchantId::new("mer_tea").expect("an id"),
        unit: unit("hotel-1"),
        line: Line::Hotel,
        amount: Fen(0),
        lines: Vec::new(),
        points: Some(Points(points)),
        occurred_at: at(0),
    }
}

fn not_paid(order: &str, member: &MemberId, hold: &str, points: i64) -> DomainEvent {
    DomainEvent::OrderExpired {
        order: OrderId::new(order).expect("an id"),
        member: member.clone(),
        unit: unit("hotel-1"),
        points: Some(OrderPoints { hold: hold.to_owned(), points: Points(points) }),
        occurred_at: at(0),
    }
}

async fn set_aside(world: &World, member: &MemberId, amount: i64, order: &str) -> Result<String, Error> {
    let order = OrderId::new(order).expect("an id");
    world.membership.set_aside(&world.app, member, &wanted(amount), order.as_str(), &order).await
}

fn words<T: std::fmt::Debug>(result: Result<T, Error>) -> (&'static str, String) {
    let problem = result.map_err(Problem::from).expect_err("it is refused");
    (problem.code().code, problem.detail().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_orders_points_do_the_order_alone_does() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = member_with_points(&world, "138").await;
        let held = set_aside(&world, &member, 60, "ord_1").await.expect("it is enough");
        assert_eq!(set_aside(&world, &member, 60, "ord_1").await.expect("the same again"), held);
        let held = world.membership.hold(&world.app, &member, &held).await.expect("it is read");
        assert_eq!(held.order.as_deref(), Some("ord_1"));
        for refused in [words(capture(&world, &held, None, "c").await), words(release(&world, &held, "r").await)] {
            assert!(refused.0 == "points_of_order" && refused.1.contains("ord_1"), "{refused:?}");
        }
        for _ in 0..2 {
            world.tell(paid("ord_1", &member, &held.id, 60)).await;
        }
        assert_eq!(world.holds(&member).await, (100, 40, 0), "it was charged once");
        let spend = read(&world, &held).await.spend.expect("it became one");
        let back = words(world.membership.give_back(&world.app, &member, &spend, 60, Some("b")).await);
        assert!(back.0 == "points_of_order" && back.1.contains("ord_1"), "{back:?}");
        for _ in 0..2 {
            world.tell(refunded("ord_1", "ref_1", &member, 60)).await;
        }
        assert_eq!(world.holds(&member).await, (100, 100, 0));
        // What an earlier release let a key give back is not given twice, and the order's own word of it is no failure.
        world.tell(refunded("ord_1", "ref_2", &member, 1)).await;
        assert_eq!(world.holds(&member).await, (100, 100, 0));
        // A hold of a line's own is ended as ever.
        let own = hold(&world, &member, 10, "h").await.expect("it is enough");
        assert_eq!((own.order.clone(), release(&world, &own, "r2").await.expect("it is open").state), (None, HoldState::Released));
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_points_in_an_unpaid_order_leaves_after_it() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (paying, failing) = (member_with_points(&world, "138").await, member_with_points(&world, "139").await);
        let mut holds = Vec::new();
        for (member, order) in [(&paying, "ord_1"), (&failing, "ord_2")] {
            holds.push(set_aside(&world, member, 60, order).await.expect("it is enough"));
            let refused = words(world.membership.close_member(&world.admin, member, "asked", Some("c")).await);
            assert!(refused.0 == "member_has_holds" && refused.1.contains(order), "{refused:?}");
        }
        world.tell(paid("ord_1", &paying, &holds[0], 60)).await;
        world.tell(not_paid("ord_2", &failing, &holds[1], 60)).await;
        for (member, forfeited) in [(&paying, 40), (&failing, 100)] {
            let gone = world.membership.close_member(&world.admin, member, "asked", Some(member.as_str())).await.expect("it ends");
            assert_eq!(gone.points_forfeited, forfeited);
        }

        // Erasure does not wait: what pays the order stays with it, and what is free after it is forfeited.
        for (phone, order, is_paid) in [("1", "ord_3", true), ("2", "ord_4", false), ("3", "ord_5", false)] {
            let member = member_with_points(&world, phone).await;
            let held = set_aside(&world, &member, 60, order).await.expect("it is enough");
            let customer = CustomerId::new(format!("cus_{phone}")).expect("an id");
            let anchors = vec![AnchorId::new(format!("anc_{phone}")).expect("an id")];
            world.tell(DomainEvent::CustomerErased { customer, anchors, occurred_at: at(0) }).await;
            match order {
                "ord_5" => {
                    world.kernel.clock.set(minutes(31));
                    assert_eq!(world.membership.expire_point_holds(None).await.expect("it ends"), 1);
                }
                _ if is_paid => world.tell(paid(order, &member, &held, 60)).await,
                _ => world.tell(not_paid(order, &member, &held, 60)).await,
            }
            let spent = world.count(&format!("SELECT COUNT(*) AS n FROM membership_spend WHERE member = '{member}'")).await;
            assert_eq!((spent == 1, world.holds(&member).await.1), (is_paid, 0), "{order}");
        }
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_on_two_holds_at_once_ends_one() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = member_with_points(&world, "138").await;
        for round in 0..4 {
            let mut two = Vec::new();
            for place in 0..2 {
                two.push(hold(&world, &member, 10, &format!("h{round}-{place}")).await.expect("it is enough"));
            }
            let ends = join_all(two.iter().map(|held| {
                let (world, held) = (world.clone(), held.clone());
                tokio::spawn(async move { release(&world, &held, &format!("r{round}")).await.map(|hold| hold.state).map_err(code) })
            }))
            .await;
            let mut ends: Vec<_> = ends.into_iter().map(|end| end.expect("nobody panics")).collect();
            ends.sort_by_key(Result::is_err);
            assert_eq!(ends, [Ok(HoldState::Released), Err("idempotency_key_reused")], "round {round}");
        }
        world.sound().await;
    })
    .await;
}
