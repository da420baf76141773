//! The walk: joining, earning, a decision explained, spending, bad input, erasure.

use crate::world::{at, code, phone, purchase, refund, unit, world};
use futures::future::join_all;
use heyuan_contract::{AnchorId, CustomerId, DomainEvent, Fen, Line, MerchantId, OrderId, Points, TransactionId};
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Actor, Reach, Scope, sql};
use heyuan_membership::{Change, HoldPoints, Join, MemberState, Report, SessionFor, Spend, TransactionState, Who};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_joins_once_from_any_line() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        world.people.link(&["138", "o1"], "cus_1");
        let join = |place: &str, value: &str| Join { unit: unit(place), identifiers: vec![phone(value)], session: SessionFor::NewMembers };
        let first = world.membership.join(&world.app, &join("mall-1", "138")).await.expect("it joins");
        let second = world.membership.join(&world.app, &join("hotel-1", "o1")).await.expect("it is known");
        assert_eq!((first.new, second.new, &second.id), (true, false, &first.id));
        assert_eq!(first.tier, "silver");
        let same =
            join_all((0..6).map(|_| async { world.membership.join(&world.app, &join("mall-1", "139")).await.expect("it joins").id }));
        assert_eq!(same.await.into_iter().collect::<HashSet<_>>().len(), 1);
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM kernel_outbox WHERE name = 'member.joined.v1'").await, 2);

        let mut unverified = join("mall-1", "137");
        unverified.identifiers[0].1 = false;
        for (join, expected) in
            [(unverified, "unverified_identifier"), (join("group", "137"), "invalid_request"), (join("nowhere", "137"), "invalid_request")]
        {
            assert_eq!(world.membership.join(&world.app, &join).await.map_err(code).err(), Some(expected));
        }
        let own = Actor::member(first.id.clone());
        assert!(world.membership.member(&own, &first.id).await.is_ok());
        let other = Actor::member(world.join("136").await);
        assert_eq!(world.membership.member(&other, &first.id).await.map_err(code).err(), Some("forbidden"));
        let hotel = Actor::key("key:h".into(), vec![Scope::App], Some(unit("hotel-1")), Reach::Units(Arc::new([unit("hotel-1")].into())));
        assert_eq!(world.membership.member(&hotel, &first.id).await.map_err(code).err(), Some("unknown_member"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_earns_once_and_is_explained() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.activate("member-day", "double").await;
        let report = purchase("t1", "mall-1", 12_399, &member);
        let quoted = world.membership.quote(&world.app, &report).await.expect("it is quoted");
        assert_eq!(world.holds(&member).await, (0, 0, 0), "a quote posts nothing");
        let posted = world.report(&report).await.expect("it is posted");
        assert_eq!((posted.growth, posted.points, posted.points_balance), (123, 246, 246));
        assert_eq!((quoted.growth, quoted.points, &quoted.effects), (posted.growth, posted.points, &posted.effects));
        assert_eq!(posted.effects[0].effect.change, Change::Points(123));
        assert_eq!(world.report(&report).await.expect("it is answered"), posted);
        assert_eq!(world.membership.report(&world.app, &report, Some("another-key")).await.expect("same content"), posted);
        let mut other = report.clone();
        other.amount = Fen(1);
        assert_eq!(world.report(&other).await.map_err(code).err(), Some("idempotency_key_reused"));
        let reused = world.membership.report(&world.app, &other, Some("third-key")).await;
        assert_eq!(reused.map_err(code).err(), Some("transaction_id_reused"));
        assert_eq!(world.membership.report(&world.app, &report, None).await.map_err(code).err(), Some("idempotency_key_missing"));

        let community = world.report(&purchase("fee", "community-1", 12_399, &member)).await.expect("it is posted");
        assert_eq!((community.growth, community.points), (12, 24), "property services give a tenth");

        let id = posted.decision.expect("there is a decision");
        let decision = world.membership.decision(&world.admin, &id).await.expect("it is kept");
        assert_eq!((decision.calls.len(), decision.calls[0].points), (1, 123));
        assert!(String::from_utf8_lossy(&decision.calls[0].input).contains("\"visits\",{\"integer\":7}"));
        assert!(world.membership.rerun(&world.admin, &id).await.expect("it runs").same);
        world.run("UPDATE membership_decision_call SET output = input").await;
        let rerun = world.membership.rerun(&world.admin, &id).await.expect("it runs");
        assert!(!rerun.same && rerun.calls[0].why.is_none());
        let seen = world.membership.transaction(&world.app, &TransactionId::new("t1").expect("an id"), None).await.expect("it is seen");
        assert_eq!(seen.points, 246);
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quote_looks_a_member_up_and_records_nothing() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        let seen = || world.people.seen.load(Ordering::Relaxed);
        let before = seen();
        let mut report = purchase("t1", "mall-1", 10_000, &member);
        // The first one is known to nobody here; the second one is the member's.
        report.who = Some(Who::Identifiers(vec![phone("137"), phone("138")]));
        assert_eq!(world.membership.quote(&world.app, &report).await.expect("it is quoted").member, Some(member.clone()));
        report.who = Some(Who::Identifiers(vec![phone("137")]));
        assert_eq!(world.membership.quote(&world.app, &report).await.map_err(code).err(), Some("unknown_member"));
        report.who = Some(Who::Identifiers(vec![(phone("138").0, false)]));
        assert_eq!(world.membership.quote(&world.app, &report).await.map_err(code).err(), Some("unverified_identifier"));
        assert_eq!(world.report(&report).await.map_err(code).err(), Some("unverified_identifier"));
        report.who = Some(Who::Identifiers(vec![phone("137")]));
        assert_eq!(world.report(&report).await.map_err(code).err(), Some("unknown_member"));
        assert_eq!(seen(), before, "neither a quote nor what is refused says who was seen with whom, or keeps a stranger's number");
        report.who = Some(Who::Identifiers(vec![phone("138")]));
        assert_eq!(world.report(&report).await.expect("it is posted").member, Some(member));
        assert_eq!(seen(), before + 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_reports_and_spends_win_once() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        let report = purchase("t1", "mall-1", 10_000, &member);
        let keys: Vec<String> = (0..8).map(|n| format!("k{}", n / 2)).collect();
        let all = join_all(keys.iter().map(|key| world.membership.report(&world.app, &report, Some(key)))).await;
        assert!(all.iter().all(Result::is_ok), "{all:?}");
        assert_eq!(world.holds(&member).await, (100, 100, 0));
        let keys: Vec<String> = (0..12).map(|n| format!("s{n}")).collect();
        let won = join_all(keys.iter().map(|key| world.spend(&member, 30, key))).await;
        let refused = won.into_iter().filter_map(Result::err).map(code).collect::<Vec<_>>();
        assert_eq!(refused, ["not_enough_points"; 9]);
        let again = join_all((0..4).map(|_| world.spend(&member, 5, "same"))).await;
        let ids: HashSet<String> = again.into_iter().map(|spent| spent.expect("it is enough").id).collect();
        assert_eq!((ids.len(), world.holds(&member).await.1), (1, 5));
        assert_eq!(world.spend(&member, 4, "same").await.map_err(code).err(), Some("idempotency_key_reused"));
        let statement = world.membership.statement(&world.app, &member, None, 10).await.expect("it is listed");
        assert_eq!(statement.iter().map(|line| line.amount).collect::<Vec<_>>(), [-5, -30, -30, -30, 100]);
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_has_its_answer_and_no_trace() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        let good = purchase("t1", "mall-1", 10_000, &member);
        let stranger = Who::Identifiers(vec![phone("999")]);
        let unverified = Who::Identifiers(vec![phone("138"), (phone("139").0, false)]);
        let nobody = Who::Member("mbr_none".parse().expect("an id"));
        let mut cases = Vec::new();
        for fen in [0, -1, i64::MAX, i64::MIN] {
            let mut report = good.clone();
            report.amount = Fen(fen);
            cases.push((report, "amount_out_of_range"));
        }
        let mut with = |change: &dyn Fn(&mut Report), expected| {
            let mut report = good.clone();
            change(&mut report);
            cases.push((report, expected));
        };
        with(&|report| report.currency = "USD".into(), "unknown_currency");
        with(&|report| report.occurred_at = at(1), "time_out_of_range");
        with(&|report| report.occurred_at = heyuan_contract::Timestamp::clamped(0), "time_out_of_range");
        with(&|report| report.unit = unit("nowhere"), "invalid_request");
        with(&|report| report.unit = unit("group"), "invalid_request");
        with(&|report| report.who = Some(stranger.clone()), "unknown_member");
        with(&|report| report.who = Some(nobody.clone()), "unknown_member");
        with(&|report| report.who = Some(unverified.clone()), "unverified_identifier");
        with(&|report| report.who = None, "invalid_request");
        with(&|report| report.refund_of = Some(report.id.clone()), "invalid_request");
        with(&|report| report.lines[0].quantity = 0, "invalid_request");
        for (report, expected) in cases {
            assert_eq!(world.report(&report).await.map_err(code).err(), Some(expected), "{report:?}");
        }
        for amount in [0, -1, i64::MAX] {
            assert_eq!(world.spend(&member, amount, "s").await.map_err(code).err(), Some("amount_out_of_range"));
        }
        let ingest = Actor::key("key:i".into(), vec![Scope::Ingest], None, Reach::Everything);
        assert_eq!(world.membership.report(&ingest, &good, Some("k")).await.map_err(code).err(), Some("forbidden"));
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM membership_transaction").await, 0);
        let fen = world.report(&purchase("one", "mall-1", 1, &member)).await.expect("a fen is an amount");
        assert_eq!((fen.growth, fen.points), (0, 0));
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_earn_and_an_erased_person_leaves() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.activate("member-day", "double").await;
        let paid = DomainEvent::OrderPaid {
            order: OrderId::new("ord_1").expect("an id"),
            member: member.clone(),
            merchant: MerchantId::new("tea").expect("an id"),
            unit: unit("mall-1"),
            line: Line::Mall,
            amount: Fen(10_000),
            lines: Vec::new(),
            points: None,
            occurred_at: at(0),
        };
        let back = DomainEvent::OrderRefunded {
            order: OrderId::new("ord_1").expect("an id"),
            refund: "ref_1".into(),
            member: member.clone(),
            merchant: MerchantId::new("tea").expect("an id"),
            unit: unit("mall-1"),
            line: Line::Mall,
            amount: Fen(5_000),
            lines: Vec::new(),
            points: None,
            occurred_at: at(0),
        };
        for event in [paid.clone(), paid, back.clone(), back] {
            world.tell(event).await;
        }
        assert_eq!(world.holds(&member).await, (50, 100, 0));
        let own = Actor::member(member.clone());
        let spend = Spend { amount: 1, unit: unit("mall-1"), reference: "parking".into() };
        world.membership.spend(&own, &member, &spend, Some("own")).await.expect("it is enough");
        world.membership.member(&own, &member).await.expect("it reads its own");
        let id = TransactionId::new("ord_1").expect("an id");
        let decision = world.membership.transaction(&world.app, &id, None).await.expect("it is seen").decision.expect("it was decided");
        let anchors = vec![AnchorId::new("anc_138").expect("an id")];
        let customer = CustomerId::new("cus_138").expect("an id");
        world.tell(DomainEvent::CustomerErased { customer, anchors, occurred_at: at(0) }).await;
        assert_eq!(world.membership.decision(&world.admin, &decision).await.map_err(code).err(), Some("erased"));
        let seen = world.membership.transaction(&world.app, &id, None).await.expect("the books name it");
        assert_eq!(
            seen.effects.iter().map(|one| (&one.effect.change, one.effect.reason.as_str())).collect::<Vec<_>>(),
            [(&Change::Points(100), "")]
        );
        let words = "SELECT COUNT(*) AS n FROM membership_decision_call WHERE effects LIKE '%because%' OR effects_raw LIKE '%because%'";
        assert_eq!(world.count(words).await, 0, "a rule's words go with the person");
        assert_eq!(world.membership.member(&own, &member).await.map_err(code).err(), Some("forbidden"), "its token opens nothing");
        assert_eq!(world.membership.statement(&own, &member, None, 9).await.map_err(code).err(), Some("forbidden"));
        let again = world.membership.spend(&own, &member, &spend, Some("own")).await;
        assert_eq!(again.map_err(code).err(), Some("forbidden"));
        let seen = world.membership.member(&world.app, &member).await.expect("the counter still sees the account");
        assert_eq!((seen.state, seen.points), (MemberState::Closed, 0), "what was left is forfeited");
        assert_eq!(world.report(&purchase("t2", "mall-1", 100, &member)).await.map_err(code).err(), Some("member_closed"));
        assert_eq!(world.spend(&member, 1, "s").await.map_err(code).err(), Some("member_closed"));
        let late = world.report(&refund("r2", "ord_1", "mall-1", 5_000)).await.expect("money still goes back");
        assert_eq!((late.state, late.points), (TransactionState::Posted, -1), "of the hundred, the one that was spent is owed");
        assert_ne!(world.join("138").await, member, "the same phone is a new member");
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quote_tells_the_tier_and_the_points_that_the_report_will() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        // Eighty points are owed, and nothing is there.
        world.report(&purchase("t0", "mall-1", 10_000, &member)).await.expect("it is posted");
        world.spend(&member, 80, "s").await.expect("it is enough");
        world.report(&refund("r0", "t0", "mall-1", 10_000)).await.expect("it is taken back");
        let late = |report: Report| Report { occurred_at: at(-400), ..report };
        for (report, expected) in [
            (purchase("t1", "mall-1", 5_000, &member), ("silver", 0)),
            (purchase("t2", "mall-1", 600_000, &member), ("gold", 6_000 - 30)),
            // Its points have expired before they come, and its growth no longer counts.
            (late(purchase("t3", "mall-1", 5_000_000, &member)), ("gold", 5_970)),
        ] {
            let quoted = world.membership.quote(&world.app, &report).await.expect("it is quoted");
            let posted = world.report(&report).await.expect("it is posted");
            for view in [&quoted, &posted] {
                assert_eq!((view.tier.as_str(), view.points_balance), expected, "{} {:?}", report.id, view.state);
            }
        }
        // What is held is not there to be spent.
        let held = HoldPoints { amount: 70, unit: unit("hotel-1"), reference: "order 7".into(), expires_at: None, minutes: None };
        world.membership.hold_points(&world.app, &member, &held, Some("h")).await.expect("it is enough");
        let report = purchase("t4", "mall-1", 10_000, &member);
        let quoted = world.membership.quote(&world.app, &report).await.expect("it is quoted");
        let posted = world.report(&report).await.expect("it is posted");
        assert_eq!((quoted.points_balance, posted.points_balance, world.holds(&member).await.1), (6_000, 6_000, 6_000));
        let back = world.report(&refund("r4", "t4", "mall-1", 10_000)).await.expect("it is taken back");
        assert_eq!((back.points_balance, world.holds(&member).await.1), (5_900, 5_900));
        let text = "SELECT body AS n FROM kernel_outbox WHERE name = 'transaction.posted.v1' ORDER BY id DESC LIMIT 1";
        let row = sql::one(world.kernel.db.reader(), text, []).await.expect("it is read").expect("it was told");
        let event: DomainEvent = serde_json::from_str(&sql::get::<String>(&row, "n").expect("its body")).expect("an event");
        assert!(matches!(event, DomainEvent::TransactionPosted { points_balance: Points(5_900), .. }), "{event:?}");
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_found_by_its_unit_among_many_with_its_id() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.report(&purchase("0001", "mall-1", 10_000, &member)).await.expect("it is posted");
        // Tills of a thousand other units, which come before it by name, count from one as well.
        world
            .run(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1100)
                 INSERT INTO membership_transaction (id, unit, line, kind, member, amount, occurred_at, arrived_at, period, state, why, lines,
                   digest, idempotency_digest, earn_version, base_growth, base_points, growth, points, receivable, points_balance, tier,
                   cost_numerator, cost_denominator, refunded, growth_kept, points_kept)
                 SELECT t.id, 'a-' || n.i, t.line, t.kind, t.member, t.amount, t.occurred_at, t.arrived_at, t.period, t.state, t.why, t.lines,
                   t.digest, t.idempotency_digest, t.earn_version, 0, 0, 0, 0, 0, 0, t.tier, t.cost_numerator, t.cost_denominator, 0, 0, 0
                 FROM membership_transaction t, n",
            )
            .await;
        let id = TransactionId::new("0001").expect("an id");
        let place = unit("mall-1");
        let found = world.membership.transaction(&world.app, &id, Some(&place)).await.expect("it is there");
        assert_eq!((found.unit, found.points), (place.clone(), 100));
        assert_eq!(world.membership.transaction(&world.app, &id, None).await.map_err(code).err(), Some("conflict"));
        let mall = Actor::key("key:mall".into(), vec![Scope::App], Some(place.clone()), Reach::Units(Arc::new([place].into())));
        assert_eq!(world.membership.transaction(&mall, &id, None).await.expect("the one within reach").points, 100);
        assert_eq!(world.membership.transaction(&mall, &id, Some(&unit("hotel-1"))).await.map_err(code).err(), Some("not_found"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_refund_of_an_order_that_earned_nothing_waits_for_nothing() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (blocked, closed) = (world.join("138").await, world.join("139").await);
        world.membership.block(&world.admin, &blocked, "resells vouchers").await.expect("it is blocked");
        world.membership.close_member(&world.admin, &closed, "gone", Some("c")).await.expect("it is closed");
        for (order, member) in [("ord_1", &blocked), ("ord_2", &closed)] {
            let merchant = MerchantId::new("tea").expect("an id");
            let (order, unit, amount, points) = (OrderId::new(order).expect("an id"), unit("mall-1"), Fen(10_000), None);
            world
                .tell(DomainEvent::OrderPaid {
                    order: order.clone(),
                    member: member.clone(),
                    merchant: merchant.clone(),
                    unit: unit.clone(),
                    line: Line::Mall,
                    amount,
                    lines: Vec::new(),
                    points: points.clone(),
                    occurred_at: at(0),
                })
                .await;
            let refund = format!("ref_{order}");
            let (member, line, lines) = (member.clone(), Line::Mall, Vec::new());
            world
                .tell(DomainEvent::OrderRefunded {
                    order,
                    refund,
                    member,
                    merchant,
                    unit,
                    line,
                    amount,
                    lines,
                    points: None,
                    occurred_at: at(0),
                })
                .await;
        }
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM membership_transaction").await, 0, "neither earned, and no refund waits");
    })
    .await;
}
