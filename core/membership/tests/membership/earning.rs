//! Earn rules by version: the one in force at a transaction's own time counts, however late it is reported.

use crate::world::{at, code, purchase, refund, world};
use futures::future::join_all;
use heyuan_contract::{Fen, Line, OrderLine, Ratio};
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Actor, Reach, Scope};
use heyuan_membership::{CapSpan, EarnRules, Figure, Multiplier, Rates, Report, When};
use std::sync::Arc;

fn ratio(numerator: i64, denominator: i64) -> Ratio {
    Ratio::new(numerator, denominator).expect("a ratio written here is one")
}

/// Version 2, in force in ten days: the mall gives double, gold a third of that, gift cards nothing.
fn second() -> EarnRules {
    let mut rules = EarnRules { version: 2, starts_at_ms: at(10).ms(), ..EarnRules::first() };
    let mall = rules.lines.get_mut(&Line::Mall).expect("the mall gives something");
    mall.points = ratio(1, 50);
    mall.cost = ratio(3, 2);
    mall.categories.insert("gold".into(), Rates { growth: ratio(1, 300), points: ratio(1, 150) });
    mall.excluded.insert("gift_card".into());
    rules
}

fn bought(id: &str, day: i64, parts: &[(&str, i64)], member: &heyuan_contract::MemberId) -> Report {
    let lines =
        parts.iter().map(|(category, fen)| OrderLine { sku: "s".into(), category: (*category).into(), quantity: 1, amount: Fen(*fen) });
    let amount = parts.iter().map(|(_, fen)| fen).sum();
    Report { occurred_at: at(day), lines: lines.collect(), ..purchase(id, "mall-1", amount, member) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_earns_under_the_rules_of_its_own_time() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        let put = world.membership.put_earn_rules(&world.admin, &second()).await.expect("it is the next");
        assert_eq!(put, second());
        assert_eq!(world.membership.put_earn_rules(&world.admin, &second()).await.expect("it is there"), second());
        let before = world.report(&bought("t1", 0, &[("food", 10_000)], &member)).await.expect("it is posted");
        assert_eq!((before.earn_version, before.growth, before.points), (1, 100, 100), "it is not in force yet");

        world.kernel.clock.set(at(20));
        let quoted = world.membership.quote(&world.app, &bought("t2", 15, &[("food", 10_000)], &member)).await.expect("it is quoted");
        let after = world.report(&bought("t2", 15, &[("food", 10_000)], &member)).await.expect("it is posted");
        assert_eq!((after.earn_version, after.growth, after.points), (2, 100, 200));
        assert_eq!((quoted.earn_version, quoted.growth, quoted.points, quoted.points_balance), (2, 100, 200, after.points_balance));
        let mixed = [("food", 3_000), ("gold", 6_000), ("gift_card", 9_000)];
        let mixed = world.report(&bought("t3", 15, &mixed, &member)).await.expect("it is posted");
        assert_eq!((mixed.growth, mixed.points), (50, 100));
        // What comes late earns under the rules of its day, and is refunded under them.
        let late = world.report(&bought("t4", 5, &[("gold", 10_000)], &member)).await.expect("it is posted");
        assert_eq!((late.earn_version, late.growth, late.points), (1, 100, 100));
        let back = world.report(&refund("r4", "t4", "mall-1", 10_000)).await.expect("it is taken back");
        assert_eq!((back.earn_version, back.growth, back.points), (1, -100, -100));
        // Each lot has the cost of its version.
        let clearing = world.membership.clearing(&world.admin, "2026-11").await.expect("it is read");
        let mall = clearing.lines.iter().find(|row| row.line == Line::Mall).expect("every line");
        assert_eq!((mall.issued_points, mall.issued_fen), (500, 200 + 450));
        let listed = world.membership.list_earn_rules(&world.app).await.expect("they are read");
        assert_eq!(listed, [second(), EarnRules::first()]);
        world.sound().await;
    })
    .await;
}

/// Version 2, in force in ten days: gold members get half as much again at the mall, everybody double on Sundays; 300 points a day and
/// 500 growth a month at the mall, 700 points in all.
fn capped() -> EarnRules {
    let mut rules = EarnRules { version: 2, starts_at_ms: at(10).ms(), ..EarnRules::first() };
    rules.caps.ever.points = Some(700);
    let mall = rules.lines.get_mut(&Line::Mall).expect("the mall gives something");
    mall.caps.day.points = Some(300);
    mall.caps.month.growth = Some(500);
    let multiplier = |name: &str, tiers: &[&str], weekdays: &[u8], points| Multiplier {
        name: name.into(),
        tiers: tiers.iter().map(|tier| (*tier).to_owned()).collect(),
        when: When { weekdays: weekdays.iter().copied().collect(), ..When::default() },
        growth: ratio(1, 1),
        points,
    };
    mall.multipliers = vec![multiplier("gold", &["gold"], &[], ratio(3, 2)), multiplier("sunday", &[], &[7], ratio(2, 1))];
    rules
}

#[tokio::test(flavor = "multi_thread")]
async fn multipliers_and_caps_hold_and_are_explained() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.membership.put_earn_rules(&world.admin, &capped()).await.expect("it is the next");
        world.kernel.clock.set(at(40));
        let buy = async |id: &str, place: &str, day: i64, fen: i64| {
            let report = Report { occurred_at: at(day), ..purchase(id, place, fen, &member) };
            let quoted = world.membership.quote(&world.app, &report).await.expect("it is quoted");
            let posted = world.report(&report).await.expect("it is posted");
            assert_eq!((quoted.growth, quoted.points), (posted.growth, posted.points), "a quote answers the same");
            posted
        };
        let figures = |view: &heyuan_membership::TransactionView| (view.growth, view.points);
        // The 20th of November is a Friday, the 22nd a Sunday.
        assert_eq!(figures(&buy("t1", "mall-1", 10, 20_000).await), (200, 200));
        let capped = buy("t2", "mall-1", 10, 20_000).await;
        assert_eq!(figures(&capped), (200, 100), "300 points a day");
        assert_eq!(figures(&buy("t3", "hotel-1", 10, 10_000).await), (100, 100), "another line has no such cap");
        assert_eq!(figures(&buy("t4", "mall-1", 12, 10_000).await), (100, 200), "Sunday doubles points; 500 growth a month are full");
        assert_eq!(figures(&buy("t5", "mall-1", 13, 20_000).await), (0, 100), "700 points in all");
        let decision = world.membership.decision(&world.admin, &capped.decision.expect("it is kept")).await.expect("it is read");
        let basis = decision.basis.expect("caps had a say");
        let seen: Vec<_> = basis.caps.iter().map(|cap| (cap.span, cap.figure, cap.limit, cap.before, cap.taken)).collect();
        let expected = [
            (CapSpan::Day, Figure::Points, 300, 200, 100),
            (CapSpan::Month, Figure::Growth, 500, 200, 200),
            (CapSpan::Ever, Figure::Points, 700, 200, 100),
        ];
        assert_eq!((basis.gross.points, seen.as_slice()), (200, expected.as_slice()));
        let again = world.membership.rerun(&world.admin, &decision.id).await.expect("it is run again");
        assert!(again.same && again.base.0 == again.base.1, "{again:?}");
        // What goes back makes room of its own day, month and whole, in whatever parts.
        for (id, fen) in [("r1", 5_000), ("r2", 15_000)] {
            world.report(&Report { occurred_at: at(14), ..refund(id, "t2", "mall-1", fen) }).await.expect("it is taken back");
        }
        assert_eq!(figures(&buy("t6", "mall-1", 10, 50_000).await), (200, 100), "what t2 gave back of day, month and whole");
        // A gold member.
        let gold = world.join("139").await;
        let report = |id: &str, day: i64, fen| Report { occurred_at: at(day), ..purchase(id, "mall-1", fen, &gold) };
        world.report(&report("g0", 5, 600_000)).await.expect("it is posted under version 1");
        let posted = world.report(&report("g1", 13, 10_000)).await.expect("it is posted");
        assert_eq!((posted.tier.as_str(), figures(&posted)), ("gold", (100, 150)));
        let decision = world.membership.decision(&world.admin, &posted.decision.expect("it is kept")).await.expect("it is read");
        assert_eq!(decision.basis.and_then(|basis| basis.points_by), Some("gold".into()));
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cap_is_kept_to_the_point_under_concurrency() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.membership.put_earn_rules(&world.admin, &capped()).await.expect("it is the next");
        world.kernel.clock.set(at(40));
        let reports: Vec<Report> =
            (0..6).map(|n| Report { occurred_at: at(10), ..purchase(&format!("t{n}"), "mall-1", 8_000, &member) }).collect();
        let posted = join_all(reports.iter().map(|report| world.report(report))).await;
        let mut points: Vec<i64> = posted.into_iter().map(|view| view.expect("it is posted").points).collect();
        points.sort_unstable();
        assert_eq!(points, [0, 0, 60, 80, 80, 80]);
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_rules_is_refused_with_its_field() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let put = async |rules: &EarnRules| world.membership.put_earn_rules(&world.admin, rules).await;
        let field = |error: heyuan_membership::Error| {
            let problem = heyuan_kernel::Problem::from(error);
            (problem.code().code, problem.body().field.unwrap_or_default())
        };
        let wrong = |change: &dyn Fn(&mut EarnRules)| {
            let mut rules = second();
            change(&mut rules);
            rules
        };
        let with = |rules: &mut EarnRules, change: fn(&mut Multiplier)| {
            let mut multiplier = capped().lines[&Line::Mall].multipliers[0].clone();
            change(&mut multiplier);
            rules.lines.get_mut(&Line::Mall).expect("it is there").multipliers = vec![multiplier];
        };
        let mall = |rules: &mut EarnRules| rules.lines.remove(&Line::Mall).expect("the mall gives something");
        for (named, rules) in [
            ("starts_at", wrong(&|rules| rules.starts_at_ms = at(0).ms())),
            ("starts_at", wrong(&|rules| rules.starts_at_ms = at(4_000).ms())),
            ("points_days", wrong(&|rules| rules.points_days = 0)),
            ("lines.mall.cost", wrong(&|rules| rules.lines.get_mut(&Line::Mall).expect("it is there").cost = ratio(i64::MAX, 1))),
            (
                "lines.mall.categories",
                wrong(&|rules| {
                    let own = Rates { growth: ratio(1, 100), points: ratio(1, 999_983) };
                    rules.lines.get_mut(&Line::Mall).expect("it is there").categories.insert("prime".into(), own);
                }),
            ),
            ("caps.month.points", wrong(&|rules| rules.caps.month.points = Some(-1))),
            ("lines.mall.multipliers.0.tiers", wrong(&|rules| with(rules, |mall| mall.tiers = ["diamond".to_owned()].into()))),
            ("lines.mall.multipliers.0.points", wrong(&|rules| with(rules, |mall| mall.points = ratio(1, 2)))),
            ("lines.mall.multipliers.0.growth", wrong(&|rules| with(rules, |mall| mall.growth = ratio(101, 1)))),
            ("lines.mall.multipliers.0.weekdays", wrong(&|rules| with(rules, |mall| mall.when.weekdays = [0].into()))),
            ("lines.mall.multipliers.0.daily_until", wrong(&|rules| with(rules, |mall| mall.when.daily_from = Some(1_440)))),
            ("lines.mall.amount_min", wrong(&|rules| rules.lines.get_mut(&Line::Mall).expect("it is there").amount_min = -1)),
            (
                "lines.mall.excluded",
                wrong(&|rules| {
                    let mut own = mall(rules);
                    own.excluded.insert("gold".into());
                    rules.lines.insert(Line::Mall, own);
                }),
            ),
        ] {
            assert_eq!(put(&rules).await.map_err(field).err(), Some(("invalid_request", named.to_owned())));
        }
        let third = EarnRules { version: 3, ..second() };
        assert_eq!(put(&third).await.map_err(code).err(), Some("conflict"), "it is not the next");
        let mall_key =
            Actor::key("key:mall".into(), vec![Scope::Admin], None, Reach::Units(Arc::new([crate::world::unit("mall-1")].into())));
        for actor in [&world.app, &mall_key] {
            assert_eq!(world.membership.put_earn_rules(actor, &second()).await.map_err(code).err(), Some("forbidden"));
        }
        put(&second()).await.expect("it is the next");
        let other = EarnRules { points_days: 30, ..second() };
        assert_eq!(put(&other).await.map_err(code).err(), Some("conflict"), "a version never changes");
        assert_eq!(world.membership.list_earn_rules(&world.app).await.expect("they are read").len(), 2);
    })
    .await;
}
