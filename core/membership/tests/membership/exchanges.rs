//! Points for benefits: both or neither.

use crate::world::{World, code, purchase, unit, world};
use futures::future::join_all;
use heyuan_contract::{Line, MemberId, ProductId};
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Actor, Reach, Scope};
use heyuan_membership::{BenefitState, BenefitStock, BenefitTerms, Error, Exchange, ExchangeView, Reserve, UseBenefit};
use std::sync::Arc;

fn terms(points_price: Option<i64>) -> BenefitTerms {
    BenefitTerms {
        name: "Parking".into(),
        name_zh: "停车".into(),
        unit: unit("hotel-1"),
        measure: "hours".into(),
        quantity: 2,
        cost_fen: 333,
        stock: BenefitStock { month: None, total: Some(5), returns: false },
        valid_days: 30,
        voucher: None,
        anywhere: false,
        points_price,
        state: BenefitState::Active,
        tiers: Vec::new(),
    }
}

async fn exchange(world: &World, member: &MemberId, benefit: &str, quantity: Option<i64>, key: &str) -> Result<ExchangeView, Error> {
    let request = Exchange { benefit: benefit.into(), quantity, points: None };
    world.membership.exchange_points(&Actor::member(member.clone()), member, &request, Some(key)).await
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> Option<&'static str> {
    result.map_err(code).err()
}

#[tokio::test(flavor = "multi_thread")]
async fn points_are_spent_with_the_line_that_gives_the_benefit() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.report(&purchase("t1", "mall-1", 20_000, &member)).await.expect("it is posted");
        world.membership.put_benefit(&world.admin, "parking", &terms(Some(30))).await.expect("it is taken");
        let got = exchange(&world, &member, "parking", None, "k1").await.expect("it is enough");
        assert_eq!((got.spend.amount, got.spend.points_balance, got.grant.quantity, got.grant.line), (60, 140, 2, Line::Hotel));
        assert_eq!(exchange(&world, &member, "parking", None, "k1").await.expect("the same again"), got);
        assert_eq!(refusal(exchange(&world, &member, "parking", Some(1), "k1").await), Some("idempotency_key_reused"));
        assert_eq!(world.holds(&member).await, (200, 140, 0));
        let grants = world.membership.member_benefits(&world.app, &member, None, 9).await.expect("they are read");
        assert_eq!(grants, vec![got.grant.clone()]);
        let clearing = world.membership.clearing(&world.admin, "2026-11").await.expect("it is read");
        let hotel = clearing.lines.iter().find(|line| line.line == Line::Hotel).expect("every line");
        assert_eq!((hotel.spent_points, hotel.spent_fen), (60, 60));
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_stock_points_or_price_nothing_is_done() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.report(&purchase("t1", "mall-1", 20_000, &member)).await.expect("it is posted");
        let m = &world.membership;
        for (name, terms) in [
            ("parking", terms(Some(30))),
            ("free", terms(None)),
            ("draft", BenefitTerms { state: BenefitState::Draft, ..terms(Some(30)) }),
            ("dear", terms(Some(100_000))),
        ] {
            m.put_benefit(&world.admin, name, &terms).await.expect("it is taken");
        }
        for price in [0, -1, 100_001] {
            assert_eq!(refusal(m.put_benefit(&world.admin, "wrong", &terms(Some(price))).await), Some("invalid_request"), "{price}");
        }
        for (benefit, quantity, expected) in [
            ("parking", Some(6), "benefit_out_of_stock"),
            ("parking", Some(0), "invalid_request"),
            ("parking", Some(-1), "invalid_request"),
            ("parking", Some(7), "not_enough_points"),
            ("dear", Some(1), "not_enough_points"),
            ("dear", Some(10_000), "not_enough_points"),
            ("free", None, "benefit_without_price"),
            ("draft", None, "unknown_benefit"),
            ("none", None, "unknown_benefit"),
        ] {
            assert_eq!(refusal(exchange(&world, &member, benefit, quantity, "w").await), Some(expected), "{benefit} {quantity:?}");
        }
        let request = Exchange { benefit: "parking".into(), quantity: None, points: None };
        let other = world.join("139").await;
        let mall = Actor::key("key:mall".into(), vec![Scope::App], None, Reach::Units(Arc::new([unit("mall-1")].into())));
        for (actor, expected) in [(&Actor::member(other), "forbidden"), (&mall, "forbidden")] {
            assert_eq!(refusal(m.exchange_points(actor, &member, &request, Some("w")).await), Some(expected), "{actor:?}");
        }
        assert_eq!(refusal(m.exchange_points(&world.app, &member, &request, None).await), Some("idempotency_key_missing"));
        assert_eq!(world.holds(&member).await, (200, 200, 0), "no point was spent");
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM membership_benefit_grant").await, 0);
        m.block(&world.admin, &member, "resells vouchers").await.expect("it is blocked");
        assert_eq!(refusal(m.exchange_points(&world.app, &member, &request, Some("w")).await), Some("member_blocked"));
        m.close_member(&world.admin, &member, "asked", Some("c")).await.expect("it ends");
        assert_eq!(refusal(m.exchange_points(&world.app, &member, &request, Some("w")).await), Some("member_closed"));
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_units_go_to_as_many_as_there_are() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        world.membership.put_benefit(&world.admin, "parking", &terms(Some(30))).await.expect("it is taken");
        let mut members = Vec::new();
        for phone in ["1", "2", "3", "4"] {
            let member = world.join(phone).await;
            world.report(&purchase(&format!("t{phone}"), "mall-1", 7_000, &member)).await.expect("it is posted");
            members.push(member);
        }
        // Each has points for two exchanges of one unit; eight want the five that there are.
        let got = join_all((0..8).map(|place| {
            let (world, member) = (world.clone(), members[place % 4].clone());
            tokio::spawn(async move { exchange(&world, &member, "parking", Some(1), &format!("k{place}")).await.map(|_| ()).map_err(code) })
        }))
        .await;
        let got: Vec<_> = got.into_iter().map(|one| one.expect("nobody panics")).collect();
        assert_eq!(got.iter().filter(|one| one.is_ok()).count(), 5, "{got:?}");
        assert!(got.iter().filter_map(|one| one.err()).all(|code| code == "benefit_out_of_stock"), "{got:?}");
        let mut left = 0;
        for member in &members {
            left += world.holds(member).await.1;
        }
        assert_eq!(left, 4 * 70 - 5 * 30, "as many points were spent as units were got");
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_goes_back_whole_and_its_benefit_with_it() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (member, m) = (world.join("138").await, &world.membership);
        world.report(&purchase("t1", "mall-1", 40_000, &member)).await.expect("it is posted");
        let returning = BenefitStock { total: Some(5), returns: true, ..BenefitStock::default() };
        let voucher = ProductId::new("prd_tea").expect("an id");
        m.put_benefit(&world.admin, "parking", &BenefitTerms { stock: returning, ..terms(Some(30)) }).await.expect("it is taken");
        m.put_benefit(&world.admin, "tea", &BenefitTerms { voucher: Some(voucher), ..terms(Some(30)) }).await.expect("it is taken");
        let back = async |got: &ExchangeView, amount: i64, key: &str| {
            m.give_back(&world.app, &member, &got.spend.id, amount, Some(key)).await.map(|back| back.points_balance).map_err(code)
        };
        let newest = async || m.member_benefits(&world.app, &member, None, 1).await.expect("they are read").remove(0);

        let got = exchange(&world, &member, "parking", None, "k1").await.expect("it is enough");
        let reserve = Reserve { quantity: 1, unit: unit("hotel-1"), minutes: None };
        let reserved = m.reserve_benefit(&world.app, &member, &got.grant.id, &reserve, Some("r")).await.expect("it is enough");
        assert_eq!(back(&got, 30, "b0").await, Err("amount_out_of_range"), "not a part of it");
        assert_eq!(back(&got, 60, "b1").await, Ok(400));
        assert_eq!(back(&got, 60, "b1").await, Ok(400), "the same again");
        let grant = newest().await;
        assert_eq!((grant.state.as_str(), grant.available, grant.reserved, grant.lapsed), ("withdrawn", 0, 0, 2));
        let shown = reserved.code.expect("a code");
        let used = m.use_reservation(&world.app, &shown, &unit("hotel-1"), Some("u0")).await;
        assert_eq!(refusal(used), Some("benefit_expired"), "what was given back is not used as well");
        assert_eq!(back(&got, 60, "b2").await, Err("return_too_large"));

        let got = exchange(&world, &member, "parking", Some(5), "k2").await.expect("its units went back to the stock");
        let one = UseBenefit { quantity: 1, unit: unit("hotel-1") };
        m.use_benefit(&world.app, &member, &got.grant.id, &one, Some("u1")).await.expect("it is enough");
        assert_eq!(back(&got, 150, "b3").await, Err("benefit_used"));
        assert_eq!(newest().await.available, 4, "nothing was withdrawn");
        let got = exchange(&world, &member, "tea", None, "k3").await.expect("it is enough");
        assert_eq!(back(&got, 60, "b4").await, Err("benefit_used"), "they are vouchers of the mall");
        assert_eq!(world.holds(&member).await.1, 400 - 150 - 60);
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_at_another_price_than_was_told_is_refused() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (member, m) = (world.join("138").await, &world.membership);
        world.report(&purchase("t1", "mall-1", 20_000, &member)).await.expect("it is posted");
        m.put_benefit(&world.admin, "parking", &terms(Some(30))).await.expect("it is taken");
        let told = Exchange { benefit: "parking".into(), quantity: Some(2), points: Some(60) };
        m.put_benefit(&world.admin, "parking", &terms(Some(40))).await.expect("it is dearer now");
        assert_eq!(refusal(m.exchange_points(&world.app, &member, &told, Some("k1")).await), Some("price_changed"));
        assert_eq!(world.holds(&member).await.1, 200);
        let told = Exchange { points: Some(80), ..told };
        let got = m.exchange_points(&world.app, &member, &told, Some("k2")).await.expect("it is as it was told");
        assert_eq!((got.spend.amount, got.spend.points_balance), (80, 120));
    })
    .await;
}
