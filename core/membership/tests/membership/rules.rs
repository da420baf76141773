//! Benefit rules: pointers, stops, budgets, vouchers.

use crate::world::{at, code, purchase, unit, world};
use futures::FutureExt;
use futures::future::join_all;
use heyuan_contract::{DomainEvent, Fen, Line, MerchantId, OrderId};
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Actor, Problem, Reach, Scope, sql};
use heyuan_membership::{Budget, explain};
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread")]
async fn a_pointer_that_moves_makes_it_decide_again() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.activate("bonus", "points 10").await;
        let mover = world.clone();
        *world.sandbox.during.lock().expect("nobody panics with it") = Some(Box::new(move || {
            let world = mover.clone();
            async move { drop(world.activate("bonus", "points 20").await) }.boxed()
        }));
        let posted = world.report(&purchase("t1", "mall-1", 10_000, &member)).await.expect("it is posted");
        assert_eq!(posted.points, 120, "only the version that counts at the commit counts");
        let decision = world.membership.decision(&world.admin, &posted.decision.expect("it is kept")).await.expect("it is read");
        assert_eq!((decision.calls[0].points, decision.calls[0].generation), (20, 2));
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_is_shown_the_tier_of_the_moment_that_posts() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        let gold = world.report(&purchase("t0", "mall-1", 600_000, &member)).await.expect("it is posted");
        assert_eq!(gold.tier, "gold");
        world.activate("bonus", "points 10").await;
        let shown = async |id: &str, day: i64| {
            let mut report = purchase(id, "mall-1", 10_000, &member);
            report.occurred_at = at(day);
            let decision = world.report(&report).await.expect("it is posted").decision.expect("it was decided");
            let call = world.membership.decision(&world.admin, &decision).await.expect("it is kept").calls.remove(0);
            let input: serde_json::Value = serde_json::from_slice(&call.input).expect("it is JSON here");
            input["member"]["tier"].as_str().expect("a tier").to_owned()
        };
        assert_eq!(shown("t1", 0).await, "gold");
        // Time takes the tier away between the decision and its commit.
        let mover = world.clone();
        *world.sandbox.during.lock().expect("nobody panics with it") = Some(Box::new(move || {
            let world = mover.clone();
            async move { world.kernel.clock.set(at(366)) }.boxed()
        }));
        assert_eq!(shown("t2", 0).await, "silver");
        // And the clockwork, which would write it down, has not been there.
        let other = world.join("139").await;
        world.kernel.clock.set(at(400));
        let mut report = purchase("t3", "mall-1", 600_000, &other);
        report.occurred_at = at(400);
        world.report(&report).await.expect("it is posted");
        world.kernel.clock.set(at(800));
        report = purchase("t4", "mall-1", 10_000, &other);
        report.occurred_at = at(800);
        let quoted = world.membership.quote(&world.app, &report).await.expect("it is quoted");
        assert_eq!(quoted.tier, "silver", "what is stored still says gold");
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_is_the_whole_groups() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let units = Reach::Units(Arc::new([unit("mall-1")].into()));
        let mall = Actor::key("key:mall".into(), vec![Scope::App, Scope::Admin], Some(unit("mall-1")), units);
        assert_eq!(world.membership.set_budget(&mall, "bonus", "2026-11", 1).await.map_err(code).err(), Some("forbidden"));
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM membership_budget").await, 0);
        world.membership.set_budget(&world.admin, "bonus", "2026-11", 1).await.expect("it is set");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_without_an_answer_posts_nothing() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        let report = purchase("t1", "mall-1", 10_000, &member);
        for (behaviour, expected) in [("stop", "rule_stopped"), ("fail", "rule_failed")] {
            world.activate("bonus", behaviour).await;
            assert_eq!(world.report(&report).await.map_err(code).err(), Some(expected));
            assert_eq!(world.membership.quote(&world.app, &report).await.map_err(code).err(), Some(expected));
        }
        assert_eq!(world.holds(&member).await, (0, 0, 0));
        world.activate("bonus", "points 1").await;
        assert_eq!(world.report(&report).await.expect("the same request again").points, 101);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_are_spent_to_the_last_point_and_no_further() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        world.activate("bonus", "points 40").await;
        world.membership.set_budget(&world.admin, "bonus", "2026-11", 150).await.expect("it is set");
        let mut members = Vec::new();
        for n in 0..6 {
            members.push(world.join(&format!("m{n}")).await);
        }
        let reports: Vec<_> = members.iter().enumerate().map(|(n, member)| purchase(&format!("t{n}"), "mall-1", 100, member)).collect();
        let posted = join_all(reports.iter().map(|report| world.report(report))).await;
        let mut extra: Vec<i64> = posted.into_iter().map(|view| view.expect("it is posted").points - 1).collect();
        extra.sort_unstable();
        assert_eq!(extra, [0, 0, 30, 40, 40, 40]);
        assert_eq!(world.count("SELECT points_spent AS n FROM membership_budget").await, 150);
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_budget_holds_over_rules_and_lines_to_the_last_point() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        world.activate("bonus", "points 40").await;
        world.activate("gift", "points 30").await;
        let budget = |name: &str, rules: &[&str], lines: &[Line], points_max| Budget {
            name: name.into(),
            rules: rules.iter().map(|rule| (*rule).to_owned()).collect(),
            lines: lines.iter().copied().collect(),
            from: at(-5),
            until: at(5),
            points_max,
        };
        let put = async |budget: &Budget| world.membership.put_budget(&world.admin, budget).await;
        put(&budget("autumn", &[], &[Line::Mall], 205)).await.expect("it is set");
        put(&budget("gifts", &["gift"], &[], 70)).await.expect("it is set");
        let mut members = Vec::new();
        for n in 0..6 {
            members.push(world.join(&format!("m{n}")).await);
        }
        // Each sale asks for 40 and 30 at the mall: 205 in all, of them at most 70 as gifts.
        let reports: Vec<_> = members.iter().enumerate().map(|(n, member)| purchase(&format!("t{n}"), "mall-1", 100, member)).collect();
        let posted = join_all(reports.iter().map(|report| world.report(report))).await;
        let posted: Vec<_> = posted.into_iter().map(|view| view.expect("it is posted")).collect();
        assert_eq!(posted.iter().map(|view| view.points - 1).sum::<i64>(), 205);
        let listed = world.membership.list_budgets(&world.admin, None, 10).await.expect("they are read");
        let spent: Vec<_> = listed.iter().map(|view| (view.budget.name.as_str(), view.points_spent)).collect();
        assert!(matches!(spent.as_slice(), [("autumn", 205), ("gifts", 60..=70)]), "{spent:?}");
        // Another line draws on the second alone, and time on neither.
        let hotel = world.report(&purchase("h1", "hotel-1", 100, &members[0])).await.expect("it is posted");
        assert_eq!(hotel.points - 1, 40 + 70 - spent[1].1);
        let mut later = purchase("t9", "mall-1", 100, &members[0]);
        world.kernel.clock.set(at(5));
        later.occurred_at = at(5);
        let later = world.report(&later).await.expect("it is posted");
        assert_eq!(later.points - 1, 70);
        let decision = world.membership.decision(&world.admin, &hotel.decision.expect("it is kept")).await.expect("it is read");
        let drawn: Vec<_> = decision.calls.iter().map(|call| call.drawn.iter().map(|one| one.name.as_str()).collect::<Vec<_>>()).collect();
        assert_eq!(drawn, [vec![], vec!["gifts"]], "what was seen is kept");
        // Points may change, nothing else once some are granted.
        put(&budget("autumn", &[], &[Line::Mall], 500)).await.expect("it is raised");
        assert_eq!(put(&budget("autumn", &[], &[], 500)).await.map_err(code).err(), Some("conflict"));
        for (field, wrong) in [
            ("name", budget("Autumn sale", &[], &[], 1)),
            ("points_max", budget("a", &[], &[], -1)),
            ("rules", budget("a", &["no rule"], &[], 1)),
            ("until", Budget { until: at(-5), ..budget("a", &[], &[], 1) }),
        ] {
            let problem = put(&wrong).await.map_err(Problem::from).expect_err("it is refused");
            assert_eq!((problem.code().code, problem.body().field.as_deref()), ("invalid_request", Some(field)));
        }
        assert_eq!(world.membership.put_budget(&world.app, &budget("a", &[], &[], 1)).await.map_err(code).err(), Some("forbidden"));
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_voucher_is_told_once() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.activate("gift", "voucher prd_tea").await;
        let report = purchase("t1", "mall-1", 10_000, &member);
        world.membership.quote(&world.app, &report).await.expect("it is quoted");
        for _ in 0..2 {
            world.report(&report).await.expect("it is posted");
        }
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM kernel_outbox WHERE name = 'voucher.granted.v1'").await, 1);
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM kernel_outbox WHERE name = 'transaction.posted.v1'").await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_purchases_voucher_has_its_days_from_the_grant() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.activate("gift", "voucher prd_tea").await;
        let mut report = purchase("t1", "mall-1", 10_000, &member);
        report.occurred_at = at(-400);
        world.report(&report).await.expect("it is posted");
        let text = "SELECT body AS n FROM kernel_outbox WHERE name = 'voucher.granted.v1'";
        let row = sql::one(world.kernel.db.reader(), text, []).await.expect("it is read").expect("it was told");
        let body: String = sql::get(&row, "n").expect("its body");
        let event: DomainEvent = serde_json::from_str(&body).expect("an event");
        assert_eq!(event.occurred_at(), at(0), "the mall counts the voucher's days from it");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_explained_by_what_they_cut() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.membership.set_budget(&world.admin, "rule", "2026-11", 30).await.expect("it is set");
        for (place, (behaviour, expected)) in [
            ("points 20", None),
            ("points 20", Some("20 of its 30 points of the month were spent before")),
            ("growth 400000", Some("more growth, up or down, than its limits allow")),
            ("voucher no such code", Some("1 of what rule rule asked for can't be")),
        ]
        .into_iter()
        .enumerate()
        {
            world.activate("rule", behaviour).await;
            let posted = world.report(&purchase(&format!("t{place}"), "mall-1", 10_000, &member)).await.expect("it is posted");
            let decision = posted.decision.as_deref().expect("it is kept");
            let decision = world.membership.decision(&world.admin, decision).await.expect("it is read");
            let told = explain(&posted, Some(&decision)).en;
            let limits = ["points of the month", "than its limits allow", "can't be"];
            let said: Vec<_> = told.iter().filter(|sentence| limits.iter().any(|limit| sentence.contains(limit))).collect();
            assert_eq!(said.len(), usize::from(expected.is_some()), "{behaviour}: {told:?}");
            assert!(said.iter().all(|sentence| expected.is_some_and(|expected| sentence.contains(expected))), "{behaviour}: {said:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_of_a_member_that_is_blocked_meanwhile_earns_nothing_and_is_no_failure() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        world.activate("bonus", "points 10").await;
        for how in ["block", "close"] {
            let member = world.join(how).await;
            let (mover, moved) = (world.clone(), member.clone());
            *world.sandbox.during.lock().expect("nobody panics with it") = Some(Box::new(move || {
                let (world, member) = (mover.clone(), moved.clone());
                async move {
                    match how {
                        "block" => drop(world.membership.block(&world.admin, &member, "resells").await.expect("it is blocked")),
                        _ => drop(world.membership.close_member(&world.admin, &member, "asked", Some("c")).await.expect("it ends")),
                    }
                }
                .boxed()
            }));
            let paid = DomainEvent::OrderPaid {
                order: OrderId::new(format!("ord_{how}")).expect("an id"),
                member: member.clone(),
                merchant: MerchantId::new("tea").expect("an id"),
                unit: unit("mall-1"),
                line: Line::Mall,
                amount: Fen(10_000),
                lines: Vec::new(),
                points: None,
                occurred_at: at(0),
            };
            world.tell(paid).await;
            assert_eq!(world.holds(&member).await, (0, 0, 0), "{how}");
        }
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM membership_transaction").await, 0);
        world.sound().await;
    })
    .await;
}
