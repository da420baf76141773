//! What becomes of members: blocked, closed, gone, linked to each other and to the lines' own accounts.

use crate::world::{World, at, code, phone, purchase, refund, unit, world};
use futures::future::join_all;
use heyuan_contract::{AnchorId, CustomerId, DomainEvent, Line, MemberId, UnitKind};
use heyuan_harness::for_both_databases;
use heyuan_kernel::org::OrgUnit;
use heyuan_kernel::{Actor, Reach, Scope};
use heyuan_membership::{Departure, Error, Join, Link, MemberState, SessionFor, Who};
use std::sync::Arc;

impl World {
    async fn earned(&self, id: &str, place: &str, fen: i64, member: &MemberId) {
        self.report(&purchase(id, place, fen, member)).await.expect("it is posted");
    }

    async fn close(&self, member: &MemberId, key: &str) -> Result<Departure, Error> {
        self.membership.close_member(&self.admin, member, "asked at the desk", Some(key)).await
    }

    async fn state(&self, member: &MemberId) -> MemberState {
        self.membership.member(&self.app, member).await.expect("it is seen").state
    }

    async fn forfeited(&self, line: &str) -> i64 {
        self.ledger.balance(&format!("line/{line}/points_forfeited")).await.expect("it is open").balance
    }

    async fn link(&self, member: &MemberId, account: &str) -> Result<String, Error> {
        let link = Link { line: Line::Hotel, account: account.into(), unit: unit("hotel-1") };
        self.membership.link(&self.app, member, &link).await.map(|link| link.account)
    }
}

fn key_of(place: &str, scopes: &[Scope]) -> Actor {
    Actor::key(format!("key:{place}"), scopes.to_vec(), Some(unit(place)), Reach::Units(Arc::new([unit(place)].into())))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_member_neither_earns_nor_spends_and_is_still_refunded() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.earned("t1", "mall-1", 10_000, &member).await;
        let blocked = world.membership.block(&world.admin, &member, "resells vouchers").await.expect("it is blocked");
        assert_eq!(blocked, MemberState::Blocked);
        world.membership.block(&world.admin, &member, "resells vouchers").await.expect("it stays blocked");
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM kernel_audit WHERE action = 'block member'").await, 1);

        let own = Actor::member(member.clone());
        assert!(world.membership.member(&own, &member).await.is_ok(), "its token reads");
        assert_eq!(world.report(&purchase("t2", "mall-1", 10_000, &member)).await.map_err(code).err(), Some("member_blocked"));
        assert_eq!(world.spend(&member, 1, "s1").await.map_err(code).err(), Some("member_blocked"));
        let leaves = world.membership.leave(&own, &member, false, Some("l1")).await;
        assert_eq!(leaves.map_err(code).err(), Some("member_blocked"), "nobody gets off the list by leaving");
        let join = Join { unit: unit("mall-1"), identifiers: vec![phone("138")], session: SessionFor::Everybody };
        assert_eq!(world.membership.join(&world.app, &join).await.expect("it is known").id, member, "or by joining again");
        world.report(&refund("r1", "t1", "mall-1", 4_000)).await.expect("it is refunded");
        assert_eq!(world.holds(&member).await, (60, 60, 0));

        world.membership.unblock(&world.admin, &member, "was a mistake").await.expect("it is unblocked");
        world.earned("t3", "mall-1", 1_000, &member).await;
        world.spend(&member, 70, "s2").await.expect("it spends");
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_staff_within_reach_blocks_and_closes() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        let hotel = key_of("hotel-1", &[Scope::App, Scope::Admin]);
        let (app, own) = (world.app.clone(), Actor::member(member.clone()));
        for (actor, expected) in [(&hotel, "unknown_member"), (&app, "forbidden"), (&own, "forbidden")] {
            let blocked = world.membership.block(actor, &member, "why not").await.map_err(code).err();
            let closed = world.membership.close_member(actor, &member, "why not", Some("k")).await.map_err(code).err();
            assert_eq!((blocked, closed), (Some(expected), Some(expected)), "{actor:?}");
        }
        assert_eq!(world.membership.leave(&hotel, &member, true, Some("k")).await.map_err(code).err(), Some("unknown_member"));
        let other = Actor::member(world.join("139").await);
        assert_eq!(world.membership.leave(&other, &member, true, Some("k")).await.map_err(code).err(), Some("forbidden"));
        for reason in ["", "  ", "a\nb", &"x".repeat(201)] {
            assert_eq!(world.membership.block(&world.admin, &member, reason).await.map_err(code).err(), Some("invalid_request"));
        }
        let without_key = world.membership.close_member(&world.admin, &member, "why not", None).await;
        assert_eq!(without_key.map_err(code).err(), Some("idempotency_key_missing"));
        assert_eq!(world.state(&member).await, MemberState::Open);
        assert!(world.people.erased.lock().expect("nobody panics with it").is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_is_forfeited_to_its_issuers_and_the_customer_joins_anew() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.earned("t1", "mall-1", 10_000, &member).await;
        world.earned("t2", "hotel-1", 5_000, &member).await;
        world.spend(&member, 30, "s1").await.expect("it spends");
        world.link(&member, "HC-20018873").await.expect("it is linked");
        let gone = world.close(&member, "c1").await.expect("it is closed");
        assert_eq!(gone.points_forfeited, 120);
        assert_eq!((world.forfeited("mall").await, world.forfeited("hotel").await), (70, 50));
        assert_eq!(world.holds(&member).await, (150, 0, 0));
        assert_eq!(world.close(&member, "c1").await.expect("it is answered"), gone);
        assert_eq!(world.close(&member, "c2").await.map_err(code).err(), Some("member_closed"));
        let reused = world.membership.close_member(&world.admin, &member, "another reason", Some("c1")).await;
        assert_eq!(reused.map_err(code).err(), Some("idempotency_key_reused"));
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM membership_account").await, 0);
        assert_eq!(world.membership.block(&world.admin, &member, "late").await.map_err(code).err(), Some("member_closed"));
        let own = Actor::member(member.clone());
        assert_eq!(world.membership.member(&own, &member).await.map_err(code).err(), Some("forbidden"));

        // What was forfeited was not spent: a refund takes the growth back and leaves no debt for it.
        world.report(&refund("r1", "t2", "hotel-1", 5_000)).await.expect("it is refunded");
        assert_eq!(world.holds(&member).await, (100, 0, 0));
        let again = world.join("138").await;
        assert_ne!(again, member);
        assert_eq!(world.holds(&again).await, (0, 0, 0));
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_expires_and_is_not_forfeited() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.earned("t1", "mall-1", 10_000, &member).await;
        world.kernel.clock.set(at(3_000));
        assert_eq!(world.close(&member, "c1").await.expect("it is closed").points_forfeited, 0);
        assert_eq!(world.ledger.balance("line/mall/points_expired").await.expect("it is open").balance, 100);
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_closings_at_once_one_counts_and_no_point_is_lost_between_spending_and_closing() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        for round in 0..4 {
            let member = world.join(&format!("r{round}")).await;
            world.earned(&format!("t{round}"), "mall-1", 10_000, &member).await;
            let before = world.forfeited("mall").await;
            let closings = join_all((0..3).map(|place| {
                let (world, member) = (world.clone(), member.clone());
                tokio::spawn(async move { world.close(&member, &format!("c{round}-{place}")).await.map_err(code) })
            }));
            let spends = join_all((0..3).map(|place| {
                let (world, member) = (world.clone(), member.clone());
                tokio::spawn(async move { world.spend(&member, 40, &format!("s{round}-{place}")).await.map_err(code) })
            }));
            let (closings, spends) = futures::join!(closings, spends);
            let closings: Vec<_> = closings.into_iter().map(|one| one.expect("nobody panics")).collect();
            let spends: Vec<_> = spends.into_iter().map(|one| one.expect("nobody panics")).collect();
            let gone: Vec<&Departure> = closings.iter().filter_map(|one| one.as_ref().ok()).collect();
            assert_eq!(gone.len(), 1, "round {round}: {closings:?}");
            assert!(closings.iter().filter_map(|one| one.as_ref().err()).all(|code| *code == "member_closed"), "{closings:?}");
            let refused = |code: &&str| ["member_closed", "not_enough_points"].contains(code);
            assert!(spends.iter().filter_map(|one| one.as_ref().err()).all(refused), "{spends:?}");
            let spent = 40 * i64::try_from(spends.iter().filter(|one| one.is_ok()).count()).expect("three at most");
            assert_eq!(gone[0].points_forfeited, 100 - spent, "round {round}");
            assert_eq!(world.forfeited("mall").await - before, 100 - spent);
            assert_eq!(world.holds(&member).await, (100, 0, 0));
        }
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_leaves_with_its_own_token_and_is_erased_on_its_wish() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.earned("t1", "mall-1", 10_000, &member).await;
        let own = Actor::member(member.clone());
        let gone = world.membership.leave(&own, &member, true, Some("l1")).await.expect("it leaves");
        assert_eq!((gone.points_forfeited, gone.erase), (100, true));
        let anchor = AnchorId::new("anc_138").expect("an id");
        assert_eq!(*world.people.erased.lock().expect("nobody panics with it"), vec![anchor.clone()]);
        let again = world.membership.leave(&own, &member, true, Some("l1")).await.expect("the retry is answered");
        assert_eq!(again, gone);
        assert_eq!(world.people.erased.lock().expect("nobody panics with it").len(), 2, "and asks again for what was not reached");

        let customer = CustomerId::new("cus_138").expect("an id");
        world.tell(DomainEvent::CustomerErased { customer, anchors: vec![anchor], occurred_at: at(0) }).await;
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM membership_member WHERE former_anchor IS NOT NULL").await, 0);
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM membership_transaction WHERE lines <> '[]'").await, 0, "after it left, too");
        assert_eq!(world.membership.leave(&own, &member, true, Some("l1")).await.expect("it is answered"), gone);
        assert_eq!(world.people.erased.lock().expect("nobody panics with it").len(), 2, "nothing is left to ask for");
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_has_erased_what_it_has_proven_and_nothing_of_another_member() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let shown = |values: &[&str]| Join {
            unit: unit("mall-1"),
            identifiers: values.iter().map(|value| phone(value)).collect(),
            session: SessionFor::NewMembers,
        };
        let joined = async |values: &[&str]| world.membership.join(&world.app, &shown(values)).await.expect("it joins").id;
        let member = joined(&["139", "o1"]).await;
        let other = joined(&["138", "o2"]).await;
        // Anybody may say that these are one person; the device is nobody's.
        world.people.link(&["139", "138", "o2", "device"], "cus_one");
        let own = Actor::member(member.clone());
        world.membership.block(&world.admin, &other, "resells vouchers").await.expect("it is blocked");
        let refused = world.membership.leave(&own, &member, true, Some("l1")).await;
        assert_eq!(refused.map_err(code).err(), Some("linked_member_blocked"), "nobody gets another member off the blacklist");
        assert!(world.people.erased.lock().expect("nobody panics with it").is_empty());
        assert_eq!(world.state(&member).await, MemberState::Open);
        world.membership.unblock(&world.admin, &other, "was a mistake").await.expect("it is unblocked");

        world.membership.leave(&own, &member, true, Some("l2")).await.expect("it leaves");
        let named: Vec<String> = world.people.erased.lock().expect("nobody panics with it").iter().map(ToString::to_string).collect();
        assert_eq!(named, ["anc_139", "anc_device", "anc_o1"], "nothing that is proven for the other one");
        let anchors = ["anc_139", "anc_device", "anc_o1"].map(|id| AnchorId::new(id).expect("an id")).to_vec();
        let customer = CustomerId::new("cus_one").expect("an id");
        world.tell(DomainEvent::CustomerErased { customer, anchors, occurred_at: at(0) }).await;
        assert_eq!((world.state(&member).await, world.state(&other).await), (MemberState::Closed, MemberState::Open));
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM membership_proof").await, 2, "the other one's");
        world.people.link(&["139"], "cus_fresh");
        let again = joined(&["139"]).await;
        assert!(again != member && again != other);
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_that_is_back_before_its_erasure_keeps_what_it_has_proven_anew() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        let own = Actor::member(member.clone());
        let left = world.membership.leave(&own, &member, true, Some("l1")).await.expect("it leaves");
        world.people.erased.lock().expect("nobody panics with it").clear();
        let back = world.join("138").await;
        assert_ne!(back, member);
        assert_eq!(world.membership.leave(&own, &member, true, Some("l1")).await.expect("it is answered"), left);
        assert!(world.people.erased.lock().expect("nobody panics with it").is_empty(), "what it asks for is another member's by now");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_person_forfeits_what_is_left() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.earned("t1", "mall-1", 10_000, &member).await;
        world.link(&member, "HC-20018873").await.expect("it is linked");
        let (customer, anchor) = (CustomerId::new("cus_138").expect("an id"), AnchorId::new("anc_138").expect("an id"));
        for _ in 0..2 {
            let anchors = vec![anchor.clone()];
            world.tell(DomainEvent::CustomerErased { customer: customer.clone(), anchors, occurred_at: at(0) }).await;
        }
        assert_eq!((world.state(&member).await, world.forfeited("mall").await), (MemberState::Closed, 100));
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM membership_account").await, 0);
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM kernel_vault_value").await, 0);
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn merge_and_split_of_customers_move_nothing() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let first = world.join("138").await;
        world.kernel.clock.set(at(1));
        let second = world.join("139").await;
        world.earned("t1", "mall-1", 10_000, &first).await;
        world.earned("t2", "mall-1", 20_000, &second).await;
        let by_phone = |id: &str, value: &str| {
            let mut report = purchase(id, "mall-1", 1_000, &first);
            report.who = Some(Who::Identifiers(vec![phone(value)]));
            report
        };
        let linked = |member: MemberId| {
            let world = world.clone();
            async move { world.membership.member(&world.app, &member).await.expect("it is seen").linked }
        };
        assert_eq!(linked(first.clone()).await, Vec::<MemberId>::new());

        world.people.link(&["138", "139"], "cus_one");
        assert_eq!((world.holds(&first).await, world.holds(&second).await), ((100, 100, 0), (200, 200, 0)), "a merge moves nothing");
        assert_eq!((linked(first.clone()).await, linked(second.clone()).await), (vec![second.clone()], vec![first.clone()]));
        assert_eq!(
            (world.join("138").await, world.join("139").await),
            (first.clone(), second.clone()),
            "each is let in by what it has proven"
        );
        world.report(&by_phone("t3", "139")).await.expect("it is posted");
        world.report(&by_phone("t4", "138")).await.expect("it is posted");
        world.earned("t5", "mall-1", 1_000, &second).await;
        assert_eq!((world.holds(&first).await, world.holds(&second).await), ((120, 120, 0), (210, 210, 0)));
        let hotel = key_of("hotel-1", &[Scope::App]);
        let join = Join { unit: unit("hotel-1"), identifiers: vec![phone("137")], session: SessionFor::NewMembers };
        let third = world.membership.join(&hotel, &join).await.expect("it joins").id;
        world.people.link(&["137"], "cus_one");
        let seen = world.membership.member(&hotel, &third).await.expect("its own").linked;
        assert_eq!(seen, Vec::<MemberId>::new(), "a unit is told of no member out of its reach");
        assert_eq!(linked(third).await, vec![first.clone(), second.clone()]);

        world.people.link(&["138"], "cus_a");
        world.people.link(&["139"], "cus_b");
        assert_eq!((world.holds(&first).await, world.holds(&second).await), ((120, 120, 0), (210, 210, 0)), "a split takes nothing along");
        world.report(&by_phone("t6", "139")).await.expect("it is posted");
        world.report(&refund("r3", "t3", "mall-1", 1_000)).await.expect("it is refunded");
        assert_eq!(
            (world.holds(&first).await, world.holds(&second).await),
            ((110, 110, 0), (220, 220, 0)),
            "a refund follows its purchase"
        );
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_first_member_keeps_its_customer_from_earning_by_another() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let first = world.join("138").await;
        world.kernel.clock.set(at(1));
        let second = world.join("139").await;
        world.membership.block(&world.admin, &first, "resells vouchers").await.expect("it is blocked");
        world.people.link(&["138", "139"], "cus_one");
        let mut report = purchase("t1", "mall-1", 1_000, &second);
        report.who = Some(Who::Identifiers(vec![phone("139")]));
        assert_eq!(world.report(&report).await.map_err(code).err(), Some("member_blocked"));
        assert_eq!(world.holds(&second).await, (0, 0, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lines_account_belongs_to_one_member() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (member, other) = (world.join("138").await, world.join("139").await);
        assert_eq!(world.link(&member, " HC-20018873 ").await.expect("it is linked"), "HC-****73");
        world.link(&member, "HC-20018873").await.expect("the same again");
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM kernel_audit WHERE action = 'link account'").await, 1);
        assert_eq!(world.link(&other, "HC-20018873").await.map_err(code).err(), Some("account_taken"));
        assert_eq!(world.link(&member, "HC-90000001").await.expect("another takes its place"), "HC-****01");
        assert_eq!(world.link(&other, "HC-20018873").await.expect("it is free"), "HC-****73");
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM kernel_vault_value").await, 2, "no number outlives its link");

        let shown = world.membership.links(&world.app, &member).await.expect("they are listed");
        assert_eq!(shown.iter().map(|link| (link.line, link.account.as_str())).collect::<Vec<_>>(), [(Line::Hotel, "HC-****01")]);
        assert_eq!(world.membership.reveal_links(&world.app, &member, "a call").await.map_err(code).err(), Some("forbidden"));
        let revealing = Actor::key("key:r".into(), vec![Scope::App, Scope::Reveal], None, Reach::Everything);
        for reason in ["", " \t", &"x".repeat(501)] {
            let refused = world.membership.reveal_links(&revealing, &member, reason).await;
            assert_eq!(refused.map_err(code).err(), Some("invalid_request"), "{reason:?}");
        }
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM kernel_audit WHERE action = 'reveal'").await, 0);
        let shown = world.membership.reveal_links(&revealing, &member, "a call").await.expect("they are revealed");
        assert_eq!(shown[0].account, "HC-90000001");
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM kernel_audit WHERE action = 'reveal'").await, 1);

        let (mall, community) = (key_of("mall-1", &[Scope::App]), key_of("community-1", &[Scope::App]));
        let hotel = key_of("hotel-1", &[Scope::App]);
        assert_eq!(world.membership.links(&hotel, &member).await.expect("what it linked").len(), 1);
        assert_eq!(world.membership.links(&community, &member).await.map_err(code).err(), Some("unknown_member"));
        let wrong = [
            (&mall, Line::Hotel, "hotel-1", "HC-1", "forbidden"),
            (&mall, Line::Hotel, "mall-1", "HC-1", "invalid_request"),
            (&hotel, Line::Hotel, "hotel-1", " ", "invalid_request"),
            (&hotel, Line::Hotel, "hotel-1", "a\u{7}b", "invalid_request"),
        ];
        for (actor, line, place, account, expected) in wrong {
            let link = Link { line, account: account.into(), unit: unit(place) };
            assert_eq!(world.membership.link(actor, &member, &link).await.map_err(code).err(), Some(expected), "{account:?}");
        }
        assert_eq!(world.membership.unlink(&mall, &member, Line::Hotel).await.map_err(code).err(), Some("not_found"));
        let stranger = Actor::member(other.clone());
        assert_eq!(world.membership.unlink(&stranger, &member, Line::Hotel).await.map_err(code).err(), Some("forbidden"));
        world.membership.unlink(&Actor::member(member.clone()), &member, Line::Hotel).await.expect("its own");
        assert_eq!(world.membership.unlink(&world.app, &member, Line::Hotel).await.map_err(code).err(), Some("not_found"));
        world.close(&other, "c1").await.expect("it is closed");
        assert_eq!(world.link(&member, "HC-20018873").await.expect("closing freed it"), "HC-****73");
        assert_eq!(world.link(&other, "HC-1").await.map_err(code).err(), Some("member_closed"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_replaces_no_account_of_another_unit() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (parent, kind, line) = (Some(unit("group")), UnitKind::Hotel, Some(Line::Hotel));
        let second = OrgUnit { id: unit("hotel-2"), parent, name: "hotel-2".into(), kind, line };
        world.kernel.org.put(vec![second]).await.expect("the tree grows");
        let member = world.join("138").await;
        world.link(&member, "HC-20018873").await.expect("hotel-1 links it");
        let stranger = key_of("hotel-2", &[Scope::App]);
        let link = |account: &str| Link { line: Line::Hotel, account: account.into(), unit: unit("hotel-2") };
        let refused = world.membership.link(&stranger, &member, &link("HC-90000001")).await;
        assert_eq!(refused.map_err(code).err(), Some("account_elsewhere"));
        let shown = world.membership.links(&world.app, &member).await.expect("they are listed");
        assert_eq!((shown[0].account.as_str(), &shown[0].unit), ("HC-****73", &unit("hotel-1")));
        world.membership.link(&world.app, &member, &link("HC-90000001")).await.expect("a key that reaches both");
        let text =
            "SELECT COUNT(*) AS n FROM kernel_audit WHERE action = 'link account' AND detail LIKE '%\"replaces_one_of\":\"hotel-1\"%'";
        assert_eq!(world.count(text).await, 1, "what was replaced is audited");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_members_that_link_an_account_at_once_one_gets_it() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let members = join_all((0..4).map(|place| world.join(["a", "b", "c", "d"][place]))).await;
        for round in 0..3 {
            let account = format!("HC-2001887{round}");
            let linked = join_all(members.iter().map(|member| {
                let (world, member, account) = (world.clone(), member.clone(), account.clone());
                tokio::spawn(async move { world.link(&member, &account).await.map_err(code) })
            }))
            .await;
            let linked: Vec<_> = linked.into_iter().map(|one| one.expect("nobody panics")).collect();
            assert_eq!(linked.iter().filter(|one| one.is_ok()).count(), 1, "{linked:?}");
            assert!(linked.iter().filter_map(|one| one.as_ref().err()).all(|code| *code == "account_taken"), "{linked:?}");
        }
    })
    .await;
}
