//! Adjustments under four eyes: nothing moves on one key's word, and what moves is in the clearing.

use crate::world::{World, at, code, purchase, refund, unit, world};
use futures::future::join_all;
use heyuan_contract::{AnchorId, CustomerId, DomainEvent, Line, MemberId, StaffId};
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Actor, Reach, Scope};
use heyuan_membership::{Adjust, AdjustmentState, AdjustmentView, AdjustmentsOf, ClearingLine, Error};
use std::sync::Arc;

fn staff(name: &str) -> Actor {
    Actor::key(format!("key:{name}"), vec![Scope::Admin], None, Reach::Everything)
}

fn staff_of(place: &str) -> Actor {
    Actor::key(format!("key:{place}"), vec![Scope::Admin], Some(unit(place)), Reach::Units(Arc::new([unit(place)].into())))
}

fn wanted(member: &MemberId, amount: i64, place: &str) -> Adjust {
    Adjust { member: member.clone(), amount, unit: unit(place), reason: "the till was offline".into(), expires_at: None }
}

async fn propose(world: &World, request: &Adjust, key: &str) -> Result<AdjustmentView, Error> {
    world.membership.propose_adjustment(&staff("anna"), request, Some(key)).await
}

async fn approve(world: &World, id: &str, key: &str) -> Result<AdjustmentView, Error> {
    world.membership.approve_adjustment(&staff("bert"), id, Some(key)).await
}

async fn reject(world: &World, id: &str) -> Result<AdjustmentView, Error> {
    world.membership.reject_adjustment(&staff("bert"), id, "was granted already").await
}

/// Proposed by one and approved by the other.
async fn adjusted(world: &World, member: &MemberId, amount: i64, place: &str, key: &str) -> AdjustmentView {
    let proposed = propose(world, &wanted(member, amount, place), key).await.expect("it is taken");
    approve(world, &proposed.id, key).await.expect("it is posted")
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> Option<&'static str> {
    result.map_err(code).err()
}

async fn line(world: &World, period: &str, wanted: Line) -> ClearingLine {
    let clearing = world.membership.clearing(&world.admin, period).await.expect("it is read");
    assert_eq!(clearing.lines.iter().map(|line| line.net_fen).sum::<i64>() + clearing.centre.net_fen, 0);
    clearing.lines.into_iter().find(|line| line.line == wanted).expect("every line")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_granted_and_taken_counts_for_the_lines_that_issue() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.report(&purchase("t1", "mall-1", 10_000, &member)).await.expect("it is posted");
        let proposed = propose(&world, &wanted(&member, 55, "hotel-1"), "p1").await.expect("it is taken");
        assert_eq!((proposed.state, proposed.line, proposed.proposed_by.as_str()), (AdjustmentState::Proposed, Line::Hotel, "key:anna"));
        assert_eq!(propose(&world, &wanted(&member, 55, "hotel-1"), "p1").await.expect("the same again"), proposed);
        assert_eq!(refusal(propose(&world, &wanted(&member, 56, "hotel-1"), "p1").await), Some("idempotency_key_reused"));
        assert_eq!(world.holds(&member).await, (100, 100, 0), "nothing moves on one key's word");
        let own = world.membership.approve_adjustment(&staff("anna"), &proposed.id, Some("a0")).await;
        assert_eq!(refusal(own), Some("four_eyes"));
        let own = world.membership.reject_adjustment(&staff("anna"), &proposed.id, "changed my mind").await;
        assert_eq!(refusal(own), Some("four_eyes"));
        let approved = approve(&world, &proposed.id, "a1").await.expect("it is posted");
        assert_eq!((approved.state, approved.decided_by.as_deref(), approved.recovered), (AdjustmentState::Approved, Some("key:bert"), 0));
        assert_eq!(approve(&world, &proposed.id, "a1").await.expect("the same again"), approved);
        assert_eq!(refusal(approve(&world, &proposed.id, "a2").await), Some("adjustment_decided"));
        assert_eq!(refusal(reject(&world, &proposed.id).await), Some("adjustment_decided"));
        assert_eq!(world.holds(&member).await, (100, 155, 0), "growth is not points");
        let lots = world.ledger.open_lots(&format!("member/{member}/points"), 9).await.expect("they are listed");
        assert_eq!(lots.iter().map(|lot| lot.expires_at).max(), lots.iter().map(|lot| lot.expires_at).min(), "as earned today");

        // 120 are taken: all of the mall's, which came first, and 20 of the hotel's.
        let taken = adjusted(&world, &member, -120, "mall-1", "p2").await;
        assert_eq!((taken.state, world.holds(&member).await), (AdjustmentState::Approved, (100, 35, 0)));
        let statement = world.membership.statement(&world.app, &member, None, 3).await.expect("it is read");
        let told: Vec<_> = statement.iter().map(|line| (line.kind.as_str(), line.amount)).collect();
        assert_eq!(told, [("adjust", -20), ("adjust", -100), ("adjust", 55)]);
        let (mall, hotel) = (line(&world, "2026-11", Line::Mall).await, line(&world, "2026-11", Line::Hotel).await);
        assert_eq!((mall.issued_points, mall.adjusted_points, mall.adjusted_fen, mall.net_fen), (100, -100, -100, 0));
        assert_eq!((hotel.adjusted_points, hotel.adjusted_fen, hotel.net_fen), (35, 42, -42), "35 at 1.2 fen");

        world.kernel.clock.set(at(30));
        let closed = world.membership.close(&world.admin, "2026-11").await.expect("it is over");
        for row in [&mall, &hotel] {
            assert!(closed.lines.contains(row), "{row:?}");
            let reader = world.kernel.db.reader();
            let period = heyuan_ledger::Period::parse("2026-11").expect("a month");
            for (what, expected) in [("points_adjusted", -row.adjusted_points), ("settlement", row.net_fen)] {
                let turnover = world.ledger.turnover(reader, &format!("line/{}/{what}", row.line), period).await.expect("it is read");
                assert_eq!(turnover.credits - turnover.debits, expected, "{what} of {row:?}");
            }
        }
        // What is approved later counts later.
        let late = adjusted(&world, &member, 10, "mall-1", "p3").await;
        assert_eq!(late.period.map(|period| period.to_string()).as_deref(), Some("2026-12"));
        assert_eq!(line(&world, "2026-12", Line::Mall).await.adjusted_points, 10);
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM kernel_audit WHERE action = 'propose adjustment'").await, 3);
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM kernel_audit WHERE action = 'approve adjustment'").await, 3);
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balance_never_falls_below_zero_and_a_debt_is_paid_first() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.report(&purchase("t1", "mall-1", 10_000, &member)).await.expect("it is posted");
        let most = propose(&world, &wanted(&member, -101, "mall-1"), "p1").await.expect("it is taken");
        assert_eq!(refusal(approve(&world, &most.id, "a1").await), Some("not_enough_points"));
        assert_eq!(world.membership.adjustment(&world.admin, &most.id).await.expect("it is read").state, AdjustmentState::Proposed);
        world.report(&purchase("t2", "mall-1", 100, &member)).await.expect("it is posted");
        approve(&world, &most.id, "a1").await.expect("now there is enough, with the key that was refused");
        assert_eq!(world.holds(&member).await, (101, 0, 0));
        // What was taken is owed by nobody when its purchase is refunded: the issuer has its cost back already.
        let back = world.report(&refund("r1", "t1", "mall-1", 10_000)).await.expect("it is taken back");
        assert_eq!((back.points, back.points_owed, world.holds(&member).await), (0, 0, (1, 0, 0)));
        assert_eq!(line(&world, "2026-11", Line::Mall).await.net_fen, 0);

        world.report(&purchase("t3", "mall-1", 5_000, &member)).await.expect("it is posted");
        world.spend(&member, 50, "s1").await.expect("it is enough");
        world.report(&refund("r3", "t3", "mall-1", 5_000)).await.expect("it is taken back");
        assert_eq!(world.holds(&member).await, (1, 0, 50));
        assert_eq!(adjusted(&world, &member, 70, "mall-1", "p2").await.recovered, 50);
        assert_eq!(world.holds(&member).await, (1, 20, 0));
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proposals_are_checked_listed_rejected_and_lapse() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (member, other) = (world.join("138").await, world.join("139").await);
        let m = &world.membership;
        let nobody = MemberId::new("mbr_nobody").expect("an id");
        let expiring = |amount, days| Adjust { expires_at: Some(at(days)), ..wanted(&member, amount, "mall-1") };
        for (request, expected) in [
            (wanted(&member, 0, "mall-1"), "amount_out_of_range"),
            (wanted(&member, 1_000_000_001, "mall-1"), "amount_out_of_range"),
            (wanted(&member, i64::MIN, "mall-1"), "amount_out_of_range"),
            (wanted(&member, 1, "group"), "invalid_request"),
            (wanted(&nobody, 1, "mall-1"), "unknown_member"),
            (Adjust { reason: " ".into(), ..wanted(&member, 1, "mall-1") }, "invalid_request"),
            (expiring(-1, 9), "invalid_request"),
            (expiring(1, 0), "time_out_of_range"),
            (expiring(1, 366 * 60), "time_out_of_range"),
        ] {
            assert_eq!(refusal(propose(&world, &request, "w").await), Some(expected), "{request:?}");
        }
        let grant = wanted(&member, 5, "mall-1");
        assert_eq!(refusal(m.propose_adjustment(&world.app, &grant, Some("w")).await), Some("forbidden"));
        assert_eq!(refusal(m.propose_adjustment(&staff_of("hotel-1"), &grant, Some("w")).await), Some("forbidden"));
        let elsewhere = wanted(&member, 5, "hotel-1");
        assert_eq!(refusal(m.propose_adjustment(&staff_of("hotel-1"), &elsewhere, Some("w")).await), Some("unknown_member"));
        assert_eq!(refusal(m.propose_adjustment(&staff("anna"), &grant, None).await), Some("idempotency_key_missing"));

        let first = propose(&world, &grant, "p1").await.expect("it is taken");
        let second = propose(&world, &wanted(&other, 7, "hotel-1"), "p2").await.expect("it is taken");
        let third = propose(&world, &expiring(3, 40), "p3").await.expect("it is taken");
        assert_eq!(refusal(m.reject_adjustment(&staff("bert"), &first.id, "").await), Some("invalid_request"));
        let rejected = reject(&world, &first.id).await.expect("it is rejected");
        assert_eq!((rejected.state, rejected.words.as_deref()), (AdjustmentState::Rejected, Some("was granted already")));
        assert_eq!(reject(&world, &first.id).await.expect("the same again"), rejected);
        assert_eq!(refusal(approve(&world, &first.id, "a1").await), Some("adjustment_decided"));
        assert_eq!(refusal(approve(&world, "adj_none", "a1").await), Some("not_found"));
        let hotel = staff_of("hotel-1");
        assert_eq!(refusal(m.approve_adjustment(&hotel, &third.id, Some("a1")).await), Some("not_found"));
        assert_eq!(refusal(m.reject_adjustment(&hotel, &third.id, "no").await), Some("not_found"));
        assert_eq!(refusal(m.adjustments(&world.app, &AdjustmentsOf::default(), None, 9).await), Some("forbidden"));
        let listed = async |actor: &Actor, of: AdjustmentsOf, before: Option<&str>| {
            let found = m.adjustments(actor, &of, before.map(str::to_owned), 2).await.expect("they are listed");
            found.into_iter().map(|adjustment| adjustment.id).collect::<Vec<_>>()
        };
        let of = |state| AdjustmentsOf { state: Some(state), member: None };
        let all = AdjustmentsOf::default;
        assert_eq!(listed(&world.admin, all(), None).await, [third.id.clone(), second.id.clone()]);
        assert_eq!(listed(&world.admin, all(), Some(&second.id)).await, std::slice::from_ref(&first.id));
        assert_eq!(listed(&world.admin, of(AdjustmentState::Proposed), None).await, [third.id.clone(), second.id.clone()]);
        assert_eq!(listed(&world.admin, of(AdjustmentState::Rejected), None).await, std::slice::from_ref(&first.id));
        assert_eq!(listed(&hotel, all(), None).await, std::slice::from_ref(&second.id));
        let of_member = AdjustmentsOf { state: None, member: Some(member.clone()) };
        assert_eq!(listed(&world.admin, of_member, None).await, [third.id.clone(), first.id.clone()]);

        world.kernel.clock.set(at(30).plus_ms(-1));
        assert_eq!(m.lapse_adjustments(None).await.expect("it looks"), 0);
        assert_eq!(approve(&world, &third.id, "a3").await.expect("to the last instant").state, AdjustmentState::Approved);
        world.kernel.clock.set(at(30));
        assert_eq!(
            listed(&world.admin, of(AdjustmentState::Lapsed), None).await,
            std::slice::from_ref(&second.id),
            "before the clockwork comes"
        );
        assert_eq!(refusal(approve(&world, &second.id, "a2").await), Some("adjustment_decided"));
        assert_eq!(m.lapse_adjustments(None).await.expect("it ends"), 1);
        assert_eq!(m.lapse_adjustments(None).await.expect("once"), 0);
        let lapsed = m.adjustment(&world.admin, &second.id).await.expect("it is read");
        assert_eq!((lapsed.state, lapsed.decided_at), (AdjustmentState::Lapsed, Some(at(30))));
        assert_eq!(refusal(reject(&world, &second.id).await), Some("adjustment_decided"));

        let soon = Adjust { expires_at: Some(at(31)), ..wanted(&member, 3, "mall-1") };
        let soon = propose(&world, &soon, "p4").await.expect("it is taken");
        world.kernel.clock.set(at(31));
        assert_eq!(refusal(approve(&world, &soon.id, "a4").await), Some("time_out_of_range"), "it would have expired");
        assert_eq!(world.holds(&member).await.1, 3);
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_blocked_is_granted_nothing_and_who_leaves_waits_for_nothing() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.report(&purchase("t1", "mall-1", 10_000, &member)).await.expect("it is posted");
        let grant = propose(&world, &wanted(&member, 5, "mall-1"), "p1").await.expect("it is taken");
        world.membership.block(&world.admin, &member, "resells vouchers").await.expect("it is blocked");
        assert_eq!(refusal(approve(&world, &grant.id, "a1").await), Some("member_blocked"));
        assert_eq!(refusal(propose(&world, &wanted(&member, 6, "mall-1"), "p2").await), Some("member_blocked"));
        assert_eq!(
            adjusted(&world, &member, -30, "mall-1", "p3").await.state,
            AdjustmentState::Approved,
            "what it should not have is taken"
        );
        let gone = world.membership.close_member(&world.admin, &member, "asked at the desk", Some("c1")).await.expect("it ends");
        assert_eq!(gone.points_forfeited, 70);
        let left = world.membership.adjustment(&world.admin, &grant.id).await.expect("it is read");
        assert_eq!((left.state, left.words.as_deref()), (AdjustmentState::Rejected, Some("the member left")));
        assert_eq!(refusal(approve(&world, &grant.id, "a1").await), Some("adjustment_decided"));
        assert_eq!(refusal(propose(&world, &wanted(&member, 6, "mall-1"), "p4").await), Some("member_closed"));

        let erased = world.join("139").await;
        let grant = propose(&world, &wanted(&erased, 5, "mall-1"), "p5").await.expect("it is taken");
        let (customer, anchor) = (CustomerId::new("cus_139").expect("an id"), AnchorId::new("anc_139").expect("an id"));
        world.tell(DomainEvent::CustomerErased { customer, anchors: vec![anchor], occurred_at: at(0) }).await;
        let left = world.membership.adjustment(&world.admin, &grant.id).await.expect("it is read");
        assert_eq!((left.state, left.reason.as_str(), left.words), (AdjustmentState::Rejected, "erased", None));
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_those_who_decide_at_once_one_wins_and_points_move_once() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        for round in 0..4 {
            let member = world.join(&format!("13{round}")).await;
            let proposed = propose(&world, &wanted(&member, 10, "mall-1"), &format!("p{round}")).await.expect("it is taken");
            let decided = join_all((0..8).map(|place| {
                let (world, id) = (world.clone(), proposed.id.clone());
                tokio::spawn(async move {
                    let decided = match place % 4 {
                        0 => reject(&world, &id).await,
                        // Two of them are one and its retry.
                        1 | 2 => approve(&world, &id, &format!("a{round}")).await,
                        _ => approve(&world, &id, &format!("b{round}-{place}")).await,
                    };
                    decided.map(|adjustment| adjustment.state).map_err(code)
                })
            }))
            .await;
            let decided: Vec<_> = decided.into_iter().map(|one| one.expect("nobody panics")).collect();
            let state = world.membership.adjustment(&world.admin, &proposed.id).await.expect("it is read").state;
            let won: Vec<_> = decided.iter().filter_map(|one| one.ok()).collect();
            assert!(!won.is_empty() && won.iter().all(|one| *one == state), "round {round}: {decided:?}");
            assert!(decided.iter().filter_map(|one| one.err()).all(|code| code == "adjustment_decided"), "{decided:?}");
            let expected = if state == AdjustmentState::Approved { 10 } else { 0 };
            assert_eq!(world.holds(&member).await.1, expected, "round {round}: {decided:?}");
        }
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_person_with_two_keys_is_one_pair_of_eyes() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        let anna = world.made_by(&Actor::system("keys")).await;
        let bert = world.made_by(&Actor::system("keys")).await;
        let second = world.made_by(&anna).await;
        let third = world.made_by(&second).await;
        let other = world.made_by(&anna).await;
        let clerk = world.made_by(&Actor::staff(StaffId::new("stf_1").expect("an id"), vec![Scope::Admin], None, Reach::Everything)).await;
        let m = &world.membership;
        for (place, (proposer, decider, allowed)) in [
            (&anna, &second, false),
            (&second, &anna, false),
            (&anna, &third, false),
            (&third, &anna, false),
            (&third, &other, false),
            (&other, &second, false),
            (&anna, &bert, true),
            (&third, &bert, true),
            (&bert, &other, true),
            (&clerk, &bert, true),
            (&clerk, &clerk, false),
        ]
        .into_iter()
        .enumerate()
        {
            let key = format!("k{place}");
            let proposed = m.propose_adjustment(proposer, &wanted(&member, 10, "mall-1"), Some(&key)).await.expect("it is taken");
            let expected = (!allowed).then_some("four_eyes");
            assert_eq!(refusal(m.approve_adjustment(decider, &proposed.id, Some(&key)).await), expected, "the {place}th");
            if !allowed {
                assert_eq!(refusal(m.reject_adjustment(decider, &proposed.id, "no").await), expected, "the {place}th");
            }
        }
        let staff = Actor::staff(StaffId::new("stf_1").expect("an id"), vec![Scope::Admin], None, Reach::Everything);
        let proposed = m.propose_adjustment(&staff, &wanted(&member, 10, "mall-1"), Some("s")).await.expect("it is taken");
        assert_eq!(refusal(m.approve_adjustment(&clerk, &proposed.id, Some("s")).await), Some("four_eyes"), "a key of their own");
        assert_eq!(world.holds(&member).await.1, 40);
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_on_two_adjustments_at_once_approves_one() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        for round in 0..4 {
            let mut two = Vec::new();
            for place in 0..2 {
                let member = world.join(&format!("{round}-{place}")).await;
                let proposed = propose(&world, &wanted(&member, 10, "mall-1"), &format!("p{round}-{place}")).await;
                two.push(proposed.expect("it is taken").id);
            }
            let ends = join_all(two.into_iter().map(|id| {
                let world = world.clone();
                tokio::spawn(async move { approve(&world, &id, &format!("a{round}")).await.map(|view| view.state).map_err(code) })
            }))
            .await;
            let mut ends: Vec<_> = ends.into_iter().map(|end| end.expect("nobody panics")).collect();
            ends.sort_by_key(Result::is_err);
            assert_eq!(ends, [Ok(AdjustmentState::Approved), Err("idempotency_key_reused")], "round {round}");
        }
        world.sound().await;
    })
    .await;
}
