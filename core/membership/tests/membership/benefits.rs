//! Benefits: granted once, used once, whoever races; what ends goes where its terms say.

use crate::world::{World, at, code, purchase, refund, unit, world};
use futures::future::join_all;
use heyuan_contract::{AnchorId, CustomerId, DomainEvent, MemberId, ProductId};
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Actor, Problem, Reach, Scope};
use heyuan_membership::{
    BenefitFigures, BenefitGrant, BenefitState, BenefitStock, BenefitTerms, BenefitUse, Decision, Error, Every, GrantBenefit, Missed,
    Reserve, TierBenefit, UseBenefit, Wording, explain,
};
use std::collections::HashSet;
use std::sync::Arc;

fn terms() -> BenefitTerms {
    BenefitTerms {
        name: "Parking".into(),
        name_zh: "停车".into(),
        unit: unit("mall-1"),
        measure: "hours".into(),
        quantity: 10,
        cost_fen: 333,
        stock: BenefitStock::default(),
        valid_days: 30,
        voucher: None,
        anywhere: false,
        points_price: None,
        state: BenefitState::Active,
        tiers: Vec::new(),
    }
}

fn monthly(tier: &str) -> Vec<TierBenefit> {
    vec![TierBenefit { tier: tier.into(), quantity: 2, every: Every::Month }]
}

fn of_unit(place: &str) -> Actor {
    let reach = Reach::Units(Arc::new(HashSet::from([unit(place)])));
    Actor::key(format!("key:{place}"), vec![Scope::App, Scope::Admin], Some(unit(place)), reach)
}

impl World {
    async fn benefit(&self, name: &str, terms: &BenefitTerms) {
        self.membership.put_benefit(&self.admin, name, terms).await.expect("it is taken");
    }

    async fn grant(&self, member: &MemberId, benefit: &str, quantity: Option<i64>, key: &str) -> Result<BenefitGrant, Error> {
        let request = GrantBenefit { benefit: benefit.into(), quantity, reason: "a late delivery".into() };
        self.membership.grant_benefit(&self.admin, member, &request, Some(key)).await
    }

    async fn reserve(&self, member: &MemberId, grant: &str, quantity: i64, key: &str) -> Result<BenefitUse, Error> {
        let request = Reserve { quantity, unit: unit("mall-1"), minutes: Some(60) };
        self.membership.reserve_benefit(&Actor::member(member.clone()), member, grant, &request, Some(key)).await
    }

    async fn take(&self, member: &MemberId, grant: &str, quantity: i64, place: &str, key: &str) -> Result<BenefitUse, Error> {
        let request = UseBenefit { quantity, unit: unit(place) };
        self.membership.use_benefit(&self.app, member, grant, &request, Some(key)).await
    }

    async fn at_counter(&self, reserved: &BenefitUse, key: &str) -> Result<BenefitUse, Error> {
        let shown = reserved.code.as_deref().expect("a reservation has a code");
        self.membership.use_reservation(&self.app, shown, &unit("mall-1"), Some(key)).await
    }

    /// State; available, reserved, used and lapsed units of the newest grant.
    async fn newest(&self, member: &MemberId) -> (String, [i64; 4]) {
        let grants = self.membership.member_benefits(&self.app, member, None, 9).await.expect("it is read");
        let newest = grants.first().expect("something was granted");
        assert_eq!(newest.available + newest.reserved + newest.used + newest.lapsed, newest.quantity, "units are kept");
        (newest.state.clone(), [newest.available, newest.reserved, newest.used, newest.lapsed])
    }

    async fn grants(&self, member: &MemberId) -> usize {
        self.membership.member_benefits(&self.app, member, None, 99).await.expect("it is read").len()
    }

    async fn month(&self, period: &str) -> Vec<BenefitFigures> {
        self.membership.benefit_report(&self.admin, period).await.expect("it is read")
    }

    async fn clockwork(&self) {
        while self.membership.expire_benefits(None).await.expect("it ends what is over") > 0 {}
        while self.membership.grant_tier_benefits(None).await.expect("it goes round") > 0 {}
    }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> Option<&'static str> {
    result.map_err(code).err()
}

#[tokio::test(flavor = "multi_thread")]
async fn units_are_reserved_used_and_returned() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (member, other) = (world.join("138").await, world.join("139").await);
        world.benefit("parking", &terms()).await;
        let grant = world.grant(&member, "parking", None, "g").await.expect("it is granted");
        assert_eq!(world.grant(&member, "parking", None, "g").await.expect("the same").id, grant.id);
        assert_eq!(refusal(world.grant(&member, "parking", Some(3), "g").await), Some("idempotency_key_reused"));
        assert_eq!(world.grants(&member).await, 1);

        let first = world.reserve(&member, &grant.id, 3, "r1").await.expect("it is enough");
        assert_eq!(world.reserve(&member, &grant.id, 3, "r1").await.expect("the same").code, first.code);
        let second = world.reserve(&member, &grant.id, 4, "r2").await.expect("it is enough");
        assert_eq!(world.newest(&member).await, ("live".into(), [3, 7, 0, 0]));
        assert_eq!(refusal(world.reserve(&member, &grant.id, 4, "r3").await), Some("benefit_too_few"));
        assert_eq!(refusal(world.take(&member, &grant.id, 4, "mall-1", "u0").await), Some("benefit_too_few"));

        let used = world.at_counter(&first, "u1").await.expect("it is used");
        assert_eq!((used.state.as_str(), used.quantity, used.cost_fen), ("used", 3, 999));
        assert_eq!(world.at_counter(&first, "u1").await.expect("the same").id, used.id);
        assert_eq!(refusal(world.at_counter(&first, "u2").await), Some("benefit_used"));
        let shown = second.code.as_deref().expect("a code");
        let back = |key| world.membership.return_benefit(&world.app, &member, &grant.id, shown, Some(key));
        assert_eq!(back("b").await.expect("it goes back").state, "returned");
        assert_eq!(back("b").await.expect("the same").state, "returned");
        assert_eq!(refusal(back("b2").await), Some("benefit_expired"));
        assert_eq!(refusal(world.at_counter(&second, "u3").await), Some("benefit_expired"));
        assert_eq!(world.newest(&member).await, ("live".into(), [7, 0, 3, 0]));

        assert_eq!(refusal(world.take(&other, &grant.id, 1, "mall-1", "o").await), Some("unknown_benefit_grant"));
        let token = Actor::member(other.clone());
        let wanted = Reserve { quantity: 1, unit: unit("mall-1"), minutes: None };
        let stranger = world.membership.reserve_benefit(&token, &member, &grant.id, &wanted, Some("o")).await;
        assert_eq!(refusal(stranger), Some("forbidden"));
        assert_eq!(refusal(world.membership.member_benefits(&token, &member, None, 9).await), Some("forbidden"));
        let own = UseBenefit { quantity: 1, unit: unit("mall-1") };
        let by_itself = world.membership.use_benefit(&Actor::member(member.clone()), &member, &grant.id, &own, Some("o")).await;
        assert_eq!(refusal(by_itself), Some("forbidden"));

        world.take(&member, &grant.id, 7, "mall-1", "u4").await.expect("the rest");
        assert_eq!(world.newest(&member).await, ("spent".into(), [0, 0, 10, 0]));
        let month = world.month("2026-11").await;
        let figures: Vec<_> = month.iter().map(|one| (one.granted, one.reserved, one.used, one.expired, one.cost_fen)).collect();
        assert_eq!(figures, [(10, 7, 10, 0, 3_330)]);
        assert_eq!(world.month("2026-10").await, []);
        let elsewhere = world.membership.benefit_report(&of_unit("hotel-1"), "2026-11").await.expect("it is read");
        assert_eq!(elsewhere, [], "another unit's figures stay its own");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_counters_use_one_reservation_once() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.benefit("parking", &terms()).await;
        let grant = world.grant(&member, "parking", None, "g").await.expect("it is granted");
        for round in 0..5 {
            let reserved = world.reserve(&member, &grant.id, 1, &format!("r{round}")).await.expect("it is enough");
            let tries = (0..6).map(|counter| {
                let (world, reserved) = (world.clone(), reserved.clone());
                tokio::spawn(async move { world.at_counter(&reserved, &format!("u{round}-{counter}")).await.map(drop).map_err(code) })
            });
            let ends: Vec<_> = join_all(tries).await.into_iter().map(|end| end.expect("nobody panics")).collect();
            assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 1, "{ends:?}");
            assert!(ends.iter().all(|end| end.is_ok() || *end == Err("benefit_used")), "{ends:?}");
        }
        assert_eq!(world.newest(&member).await, ("live".into(), [5, 0, 5, 0]));
        assert_eq!(world.month("2026-11").await[0].cost_fen, 5 * 333);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_of_the_stock_goes_to_one() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let stocks = [
            BenefitStock { month: Some(25), total: None, returns: false },
            BenefitStock { month: None, total: Some(25), returns: false },
            BenefitStock { month: Some(30), total: Some(25), returns: false },
        ];
        for (round, stock) in stocks.into_iter().enumerate() {
            let name = format!("seats-{round}");
            world.benefit(&name, &BenefitTerms { stock, ..terms() }).await;
            let mut members = Vec::new();
            for place in 0..6 {
                members.push(world.join(&format!("{round}-{place}")).await);
            }
            let tries = members.iter().map(|member| {
                let (world, member, name) = (world.clone(), member.clone(), name.clone());
                tokio::spawn(async move { world.grant(&member, &name, None, &format!("g-{name}-{member}")).await.map(drop).map_err(code) })
            });
            let ends: Vec<_> = join_all(tries).await.into_iter().map(|end| end.expect("nobody panics")).collect();
            assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 2, "{stock:?}: {ends:?}");
            assert!(ends.iter().all(|end| end.is_ok() || *end == Err("benefit_out_of_stock")), "{ends:?}");
            world.grant(&members[0], &name, Some(5), &format!("last-{round}")).await.expect("what was left is still there");
            assert_eq!(refusal(world.grant(&members[0], &name, Some(1), &format!("none-{round}")).await), Some("benefit_out_of_stock"));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_ends_by_the_clock() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        let stock = BenefitStock { month: None, total: Some(10), returns: true };
        world.benefit("parking", &BenefitTerms { stock, valid_days: 1, ..terms() }).await;
        let grant = world.grant(&member, "parking", None, "g").await.expect("it is granted");
        let reserved = world.reserve(&member, &grant.id, 4, "r").await.expect("it is enough");
        world.take(&member, &grant.id, 1, "mall-1", "u").await.expect("it is enough");

        world.kernel.clock.set(at(0).plus_ms(2 * 3_600_000));
        assert_eq!(refusal(world.at_counter(&reserved, "late").await), Some("benefit_expired"), "before the clockwork comes by");
        world.clockwork().await;
        assert_eq!(world.newest(&member).await, ("live".into(), [9, 0, 1, 0]));
        world.reserve(&member, &grant.id, 2, "r2").await.expect("they are there again");

        world.kernel.clock.set(at(2));
        assert_eq!(refusal(world.take(&member, &grant.id, 1, "mall-1", "late").await), Some("benefit_expired"));
        assert_eq!(refusal(world.grant(&member, "parking", Some(1), "g2").await), Some("benefit_out_of_stock"));
        world.clockwork().await;
        world.clockwork().await;
        assert_eq!(world.newest(&member).await, ("expired".into(), [0, 0, 1, 9]));
        assert_eq!(world.month("2026-11").await[0].expired, 9);
        world.grant(&member, "parking", Some(9), "g3").await.expect("what expired went back");
        assert_eq!(refusal(world.grant(&member, "parking", Some(1), "g4").await), Some("benefit_out_of_stock"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tier_gets_its_share_once_a_month() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let before = world.join("138").await;
        world.benefit("lounge", &BenefitTerms { tiers: monthly("silver"), ..terms() }).await;
        world.benefit("suite", &BenefitTerms { tiers: monthly("gold"), ..terms() }).await;
        assert_eq!(world.grants(&before).await, 0);
        let after = world.join("139").await;
        assert_eq!(world.grants(&after).await, 1, "who joins has it at once");
        let turns = (0..4).map(|_| {
            let world = world.clone();
            tokio::spawn(async move { world.clockwork().await })
        });
        join_all(turns).await.into_iter().for_each(|turn| turn.expect("nobody panics"));
        assert_eq!((world.grants(&before).await, world.grants(&after).await), (1, 1));

        world.report(&purchase("t1", "mall-1", 600_000, &before)).await.expect("it is posted");
        assert_eq!(world.grants(&before).await, 2, "the new tier's at once");
        world.clockwork().await;
        assert_eq!(world.newest(&before).await, ("live".into(), [2, 0, 0, 0]));

        world.kernel.clock.set(at(21));
        world.clockwork().await;
        world.clockwork().await;
        assert_eq!((world.grants(&before).await, world.grants(&after).await), (3, 2), "December's, of the tier that each has");

        world.membership.block(&world.admin, &after, "fraud").await.expect("it is blocked");
        world.kernel.clock.set(at(52));
        world.clockwork().await;
        assert_eq!((world.grants(&before).await, world.grants(&after).await), (4, 2), "who is blocked gets nothing");
        assert_eq!(refusal(world.grant(&after, "lounge", None, "g").await), Some("member_blocked"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_grant_and_a_whole_refund_withdraws_what_is_unused() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.benefit("parking", &BenefitTerms { stock: BenefitStock { total: Some(10), ..BenefitStock::default() }, ..terms() }).await;
        world.activate("park", "benefit parking").await;
        let bought = purchase("t1", "mall-1", 10_000, &member);
        world.report(&bought).await.expect("it is posted");
        world.report(&bought).await.expect("it is answered again");
        assert_eq!(world.grants(&member).await, 1);
        world.report(&purchase("t2", "mall-1", 10_000, &member)).await.expect("no purchase waits for a benefit");
        assert_eq!(world.grants(&member).await, 1, "the stock is empty");
        assert_eq!(world.month("2026-11").await[0].missed, 1);

        let grant = world.membership.member_benefits(&world.app, &member, None, 1).await.expect("it is read").remove(0);
        world.take(&member, &grant.id, 2, "mall-1", "u").await.expect("it is enough");
        let reserved = world.reserve(&member, &grant.id, 3, "r").await.expect("it is enough");
        world.report(&refund("r1", "t1", "mall-1", 4_000)).await.expect("a part");
        assert_eq!(world.newest(&member).await, ("live".into(), [5, 3, 2, 0]), "a part takes nothing away");
        world.report(&refund("r2", "t1", "mall-1", 6_000)).await.expect("the rest");
        assert_eq!(world.newest(&member).await, ("withdrawn".into(), [0, 0, 2, 8]), "what was used stays");
        assert_eq!(refusal(world.at_counter(&reserved, "late").await), Some("benefit_expired"));
        let month = world.month("2026-11").await.remove(0);
        assert_eq!((month.withdrawn, month.used, month.cost_fen), (8, 2, 666));

        let retired = BenefitTerms { state: BenefitState::Retired, stock: BenefitStock::default(), ..terms() };
        world.benefit("parking", &retired).await;
        world.report(&purchase("t3", "mall-1", 10_000, &member)).await.expect("it is posted");
        assert_eq!(world.grants(&member).await, 1, "a retired benefit is not granted");
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voucher_benefit_is_issued_by_the_mall() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        let voucher = ProductId::new("prd_tea").expect("an id");
        world.benefit("tea", &BenefitTerms { voucher: Some(voucher), quantity: 2, ..terms() }).await;
        world.grant(&member, "tea", None, "g").await.expect("it is granted");
        world.grant(&member, "tea", None, "g").await.expect("the same");
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM kernel_outbox WHERE name = 'voucher.granted.v1'").await, 2);
        assert_eq!(world.newest(&member).await, ("spent".into(), [0, 0, 2, 0]));
        assert_eq!(world.month("2026-11").await[0].cost_fen, 666);
        assert_eq!(refusal(world.grant(&member, "tea", Some(21), "many").await), Some("invalid_request"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_keeps_its_terms_and_lines_honour_their_own() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.benefit("parking", &terms()).await;
        let old = world.grant(&member, "parking", None, "g1").await.expect("it is granted");
        world.benefit("parking", &BenefitTerms { anywhere: true, cost_fen: 1, ..terms() }).await;
        world.benefit("parking", &BenefitTerms { anywhere: true, cost_fen: 1, ..terms() }).await;
        let new = world.grant(&member, "parking", None, "g2").await.expect("it is granted");
        assert_eq!((old.version, new.version), (1, 2), "the same terms again make no version");
        assert_eq!(refusal(world.take(&member, &old.id, 1, "hotel-1", "u1").await), Some("benefit_elsewhere"));
        assert_eq!(world.take(&member, &old.id, 1, "mall-1", "u2").await.expect("its own line").cost_fen, 333);
        assert_eq!(world.take(&member, &new.id, 1, "hotel-1", "u3").await.expect("anywhere").cost_fen, 1);

        let retired = BenefitTerms { state: BenefitState::Retired, ..terms() };
        world.benefit("parking", &retired).await;
        assert_eq!(refusal(world.grant(&member, "parking", None, "g3").await), Some("benefit_not_active"));
        world.take(&member, &old.id, 1, "mall-1", "u4").await.expect("what was granted can be used");
        let token = Actor::member(member.clone());
        assert_eq!(world.membership.benefits(&token, None, 9).await.expect("it is read"), [], "members see what is active");
        assert_eq!(refusal(world.membership.benefit(&token, "parking").await), Some("unknown_benefit"));
        assert_eq!(world.membership.benefits(&world.admin, None, 9).await.expect("it is read").len(), 1);

        let event = DomainEvent::CustomerErased {
            customer: CustomerId::new("cus_138").expect("an id"),
            anchors: vec![AnchorId::new("anc_138").expect("an id")],
            occurred_at: at(0),
        };
        world.tell(event).await;
        assert_eq!(refusal(world.take(&member, &old.id, 1, "mall-1", "u5").await), Some("member_closed"));
        assert_eq!(refusal(world.grant(&member, "parking", None, "g4").await), Some("member_closed"));
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM membership_benefit_grant WHERE reason <> ''").await, 0);
        assert_eq!(world.grants(&member).await, 2, "the numbers stay");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_is_refused() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        let group = BenefitTerms { unit: unit("group"), ..terms() };
        let nowhere = BenefitTerms { unit: unit("mall-9"), ..terms() };
        let stock = |month| BenefitTerms { stock: BenefitStock { month: Some(month), ..BenefitStock::default() }, ..terms() };
        let doubled = [monthly("gold"), monthly("gold")].concat();
        for (place, wrong) in [
            group,
            nowhere,
            stock(-1),
            stock(i64::MAX),
            BenefitTerms { name: String::new(), ..terms() },
            BenefitTerms { quantity: 0, ..terms() },
            BenefitTerms { quantity: i64::MAX, ..terms() },
            BenefitTerms { cost_fen: -1, ..terms() },
            BenefitTerms { cost_fen: i64::MAX, ..terms() },
            BenefitTerms { valid_days: -1, ..terms() },
            BenefitTerms { tiers: monthly("diamond"), ..terms() },
            BenefitTerms { tiers: doubled, ..terms() },
        ]
        .iter()
        .enumerate()
        {
            let put = world.membership.put_benefit(&world.admin, "parking", wrong).await;
            assert_eq!(refusal(put), Some("invalid_request"), "the {place}th");
        }
        for wrong in ["", "report", "Parking", "a b", &"a".repeat(64)] {
            assert_eq!(refusal(world.membership.put_benefit(&world.admin, wrong, &terms()).await), Some("invalid_request"), "{wrong}");
        }
        assert_eq!(refusal(world.membership.put_benefit(&world.app, "parking", &terms()).await), Some("forbidden"));
        let hotel = of_unit("hotel-1");
        assert_eq!(refusal(world.membership.put_benefit(&hotel, "parking", &terms()).await), Some("forbidden"));
        world.benefit("parking", &terms()).await;
        let taken_over = BenefitTerms { unit: unit("hotel-1"), ..terms() };
        assert_eq!(refusal(world.membership.put_benefit(&hotel, "parking", &taken_over).await), Some("conflict"));

        let wanted = |benefit: &str, reason: &str| GrantBenefit { benefit: benefit.into(), quantity: None, reason: reason.into() };
        let by = |actor: Actor, request: GrantBenefit, key: Option<&'static str>| {
            let (membership, member) = (world.membership.clone(), member.clone());
            async move { refusal(membership.grant_benefit(&actor, &member, &request, key).await) }
        };
        assert_eq!(by(world.app.clone(), wanted("parking", "x"), Some("k")).await, Some("forbidden"));
        assert_eq!(by(hotel.clone(), wanted("parking", "x"), Some("k")).await, Some("forbidden"));
        assert_eq!(by(world.admin.clone(), wanted("parking", "x"), None).await, Some("idempotency_key_missing"));
        assert_eq!(by(world.admin.clone(), wanted("parking", ""), Some("k")).await, Some("invalid_request"));
        assert_eq!(by(world.admin.clone(), wanted("none", "x"), Some("k")).await, Some("invalid_request"));
        let nobody = MemberId::new("mbr_none").expect("an id");
        assert_eq!(refusal(world.grant(&nobody, "parking", None, "k").await), Some("unknown_member"));

        let grant = world.grant(&member, "parking", None, "g").await.expect("it is granted");
        for quantity in [0, -1, i64::MAX] {
            assert_eq!(refusal(world.take(&member, &grant.id, quantity, "mall-1", "k").await), Some("invalid_request"), "{quantity}");
        }
        for minutes in [0, -1, i64::MAX] {
            let request = Reserve { quantity: 1, unit: unit("mall-1"), minutes: Some(minutes) };
            let reserved = world.membership.reserve_benefit(&world.app, &member, &grant.id, &request, Some("k")).await;
            assert_eq!(refusal(reserved), Some("invalid_request"), "{minutes}");
        }
        let reserved = world.reserve(&member, &grant.id, 1, "r").await.expect("it is enough");
        let shown = reserved.code.as_deref().expect("a code");
        let away = world.membership.use_reservation(&hotel, shown, &unit("mall-1"), Some("k")).await;
        assert_eq!(refusal(away), Some("forbidden"), "a counter that the key does not reach");
        let other_line = world.membership.use_reservation(&hotel, shown, &unit("hotel-1"), Some("k")).await;
        assert_eq!(refusal(other_line), Some("benefit_elsewhere"));
        let back = world.membership.return_benefit(&hotel, &member, &grant.id, shown, Some("k")).await;
        assert_eq!(refusal(back), Some("unknown_benefit_reservation"));
        let unknown = world.membership.use_reservation(&world.app, "0000", &unit("mall-1"), Some("k")).await;
        assert_eq!(refusal(unknown), Some("unknown_benefit_reservation"));
        assert_eq!(refusal(world.membership.benefit_report(&world.app, "2026-11").await), Some("forbidden"));
        assert_eq!(refusal(world.membership.benefit_report(&world.admin, "November").await), Some("invalid_request"));
        assert_eq!(world.newest(&member).await, ("live".into(), [9, 1, 0, 0]), "nothing was half-done");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_benefits_voucher_is_the_malls_and_within_reach() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        let voucher = |product: &str| Some(ProductId::new(product).expect("an id"));
        let hotels = BenefitTerms { unit: unit("hotel-1"), voucher: voucher("prd_tea"), quantity: 1, ..terms() };
        let hotel = of_unit("hotel-1");
        // The mall's tea is not the hotel's to give, and a code that names no voucher is nobody's.
        for (actor, product) in [(&hotel, "prd_tea"), (&hotel, "prd_nothing"), (&world.admin, "prd_nothing")] {
            let wrong = BenefitTerms { voucher: voucher(product), ..hotels.clone() };
            let refused = world.membership.put_benefit(actor, "tea", &wrong).await.map_err(Problem::from).expect_err("it is refused");
            assert_eq!((refused.code().code, refused.body().field.as_deref()), ("invalid_request", Some("voucher")), "{product}");
        }
        // The group may let the hotel's benefit be a cup of tea at the mall; only who reaches the mall grants it by hand.
        world.benefit("tea", &hotels).await;
        let request = GrantBenefit { benefit: "tea".into(), quantity: None, reason: "a late delivery".into() };
        assert_eq!(refusal(world.membership.grant_benefit(&hotel, &member, &request, Some("h")).await), Some("forbidden"));
        world.grant(&member, "tea", None, "g").await.expect("it is granted");

        // One that was written before anybody asked the mall is not granted, and can still be retired.
        world.shelf.0.lock().expect("nobody panics with it").clear();
        assert_eq!(refusal(world.grant(&member, "tea", None, "g2").await), Some("benefit_not_active"));
        let priced = world.membership.put_benefit(&world.admin, "tea", &BenefitTerms { cost_fen: 1, ..hotels.clone() }).await;
        assert_eq!(refusal(priced), Some("invalid_request"));
        world.benefit("tea", &BenefitTerms { state: BenefitState::Retired, ..hotels }).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rule_could_not_give_is_missed_with_its_reason() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        let voucher = ProductId::new("prd_tea").expect("an id");
        let none_left = BenefitStock { total: Some(0), ..BenefitStock::default() };
        world.benefit("given", &terms()).await;
        world.benefit("draft", &BenefitTerms { state: BenefitState::Draft, ..terms() }).await;
        world.benefit("empty", &BenefitTerms { stock: none_left, ..terms() }).await;
        world.benefit("short", &BenefitTerms { valid_days: 1, ..terms() }).await;
        world.benefit("tea", &BenefitTerms { voucher: Some(voucher), quantity: 1, ..terms() }).await;
        world.shelf.0.lock().expect("nobody panics with it").clear();
        let rows = [
            ("benefit given", None, "adds the benefit given"),
            ("benefit nowhere", Some("not_active"), "would have added the benefit nowhere"),
            ("benefit draft", Some("not_active"), "would have added the benefit draft"),
            ("benefit empty", Some("out_of_stock"), "its stock has fewer units left"),
            ("benefit short", Some("over"), "it came too late for it"),
            ("benefit tea", Some("no_voucher"), "the mall has no such voucher"),
            ("voucher prd_tea", Some("no_voucher"), "would have added a voucher for prd_tea"),
        ];
        for (place, (behaviour, expected, words)) in rows.into_iter().enumerate() {
            world.activate("gift", behaviour).await;
            let mut report = purchase(&format!("t{place}"), "mall-1", 10_000, &member);
            report.occurred_at = at(-5);
            let quoted = world.membership.quote(&world.app, &report).await.expect("it is quoted");
            let posted = world.report(&report).await.expect("no purchase fails for it");
            let again = world.report(&report).await.expect("it is answered again");
            for view in [&quoted, &posted, &again] {
                let missed: Vec<_> = view.effects.iter().map(|effect| effect.missed.map(Missed::as_str)).collect();
                assert_eq!(missed, [expected], "{behaviour}");
            }
            let decision = posted.decision.as_deref().expect("it is kept");
            let decision = world.membership.decision(&world.admin, decision).await.expect("it is read");
            let told = explain(&posted, Some(&decision));
            assert!(told.en.iter().any(|sentence| sentence.contains(words)), "{behaviour}: {:?}", told.en);
            let first = explain(&posted, Some(&Decision { wording: Wording::First, ..decision }));
            assert!(first.en.iter().any(|sentence| sentence.contains(" adds ")), "as releases before said it: {:?}", first.en);
        }
        assert_eq!(world.grants(&member).await, 1);
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM kernel_outbox WHERE name = 'voucher.granted.v1'").await, 0);
        let missed = world.month("2026-11").await.iter().map(|one| one.missed).sum::<i64>();
        assert_eq!(missed, 4, "of what there is");
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiers_share_without_stock_is_missed_and_had_when_there_is_some() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let stock = |total| BenefitStock { total: Some(total), ..BenefitStock::default() };
        world.benefit("lounge", &BenefitTerms { tiers: monthly("silver"), stock: stock(1), ..terms() }).await;
        let member = world.join("138").await;
        world.clockwork().await;
        assert_eq!(world.grants(&member).await, 0);
        assert_eq!((world.month("2026-11").await[0].missed, world.month("2026-11").await[0].granted), (1, 0), "once a period");
        world.benefit("lounge", &BenefitTerms { tiers: monthly("silver"), stock: stock(9), ..terms() }).await;
        world.clockwork().await;
        assert_eq!(world.newest(&member).await, ("live".into(), [2, 0, 0, 0]));
        assert_eq!(
            (world.month("2026-11").await[0].missed, world.month("2026-11").await[0].granted),
            (1, 2),
            "it was missed when it was due"
        );

        // Nobody gets a voucher that the mall does not have.
        let voucher = ProductId::new("prd_tea").expect("an id");
        world.benefit("tea", &BenefitTerms { tiers: monthly("silver"), voucher: Some(voucher), quantity: 1, ..terms() }).await;
        world.shelf.0.lock().expect("nobody panics with it").clear();
        world.clockwork().await;
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM membership_benefit_grant WHERE missed = 'no_voucher'").await, 1);
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM kernel_outbox WHERE name = 'voucher.granted.v1'").await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_takes_the_tier_takes_what_it_gave() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (member, user) = (world.join("138").await, world.join("139").await);
        world.benefit("lounge", &BenefitTerms { tiers: monthly("silver"), ..terms() }).await;
        world.benefit("suite", &BenefitTerms { tiers: monthly("gold"), ..terms() }).await;
        world.clockwork().await;
        for (place, of) in [&member, &user].into_iter().enumerate() {
            world.report(&purchase(&format!("t{place}"), "mall-1", 600_000, of)).await.expect("it is posted");
            assert_eq!(world.newest(of).await, ("live".into(), [2, 0, 0, 0]), "gold's suite");
        }
        let suite = world.membership.member_benefits(&world.app, &user, None, 1).await.expect("it is read").remove(0);
        world.take(&user, &suite.id, 1, "mall-1", "u").await.expect("it is enough");
        for (place, of, expected) in [(0, &member, [0, 0, 0, 2]), (1, &user, [0, 0, 1, 1])] {
            let back =
                world.report(&refund(&format!("r{place}"), &format!("t{place}"), "mall-1", 300_000)).await.expect("it is taken back");
            assert_eq!(back.tier, "silver");
            assert_eq!(world.newest(of).await, ("withdrawn".into(), expected), "what was used stays");
            let live = world.membership.member_benefits(&world.app, of, None, 9).await.expect("they are read");
            assert_eq!(live.iter().filter(|grant| grant.state == "live").count(), 1, "silver's lounge stays");
        }
        // Who comes to the tier again has its share, once a period, unless some of it was used.
        world.report(&purchase("again-0", "mall-1", 600_000, &member)).await.expect("it is posted");
        assert_eq!(world.newest(&member).await, ("live".into(), [2, 0, 0, 0]));
        world.report(&purchase("again-1", "mall-1", 600_000, &user)).await.expect("it is posted");
        assert_eq!(world.newest(&user).await, ("withdrawn".into(), [0, 0, 1, 1]));
        world.sound().await;
    })
    .await;
}
