//! Tiers: by versions of the policy, by hand, previewed before they count, and the same however the facts come.

use crate::world::{DAY_MS, NOW_MS, World, at, code, purchase, refund, unit, world};
use futures::FutureExt;
use futures::future::join_all;
use heyuan_contract::{MemberId, Timestamp};
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Actor, Problem, Reach, Scope};
use heyuan_membership::{
    BenefitState, BenefitStock, BenefitTerms, Error, Every, GrantTier, TierBenefit, TierDowngrade, TierGrant, TierLook, TierMeasure,
    TierPolicy, TierStep,
};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Version 2, in force in ten days: steps at 0, 100, 400 and 1,000.
fn second() -> TierPolicy {
    let step = |tier: &str, growth_min| TierStep { tier: tier.into(), growth_min, lifetime_min: None };
    TierPolicy {
        version: 2,
        starts_at_ms: at(10).ms(),
        steps: vec![step("silver", 0), step("gold", 100), step("platinum", 400), step("black", 1_000)],
        ..TierPolicy::first()
    }
}

fn field(error: Error) -> (&'static str, String) {
    let problem = Problem::from(error);
    (problem.code().code, problem.body().field.unwrap_or_default())
}

fn mall_key() -> Actor {
    let reach = Reach::Units(Arc::new([unit("mall-1")].into()));
    Actor::key("key:mall".into(), vec![Scope::App, Scope::Admin], Some(unit("mall-1")), reach)
}

impl World {
    async fn put(&self, policy: &TierPolicy) {
        self.membership.put_tier_policy(&self.admin, policy).await.expect("it is the next");
    }

    /// Buys for this much growth on a day.
    async fn grow(&self, member: &MemberId, id: &str, growth: i64, day: i64) -> String {
        let mut report = purchase(id, "mall-1", growth * 100, member);
        report.occurred_at = at(day);
        self.report(&report).await.expect("it is posted").tier
    }

    async fn tier(&self, member: &MemberId) -> String {
        self.membership.member(&self.app, member).await.expect("it is read").tier
    }

    async fn stored(&self, member: &MemberId, tier: &str) -> bool {
        self.count(&format!("SELECT COUNT(*) AS n FROM membership_member WHERE id = '{member}' AND tier = '{tier}'")).await == 1
    }

    async fn look(&self) -> usize {
        let mut looked = 0;
        loop {
            match self.membership.settle_due_tiers(None).await.expect("it looks") {
                0 => return looked,
                some => looked += some,
            }
        }
    }

    async fn changes(&self) -> i64 {
        self.count("SELECT COUNT(*) AS n FROM kernel_outbox WHERE name = 'tier.changed.v1'").await
    }

    async fn give(&self, member: &MemberId, tier: &str, until: i64, key: &str) -> Result<TierGrant, Error> {
        let wanted = GrantTier { tier: tier.into(), until: at(until), reason: "status match".into() };
        self.membership.grant_tier(&self.admin, member, &wanted, Some(key)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_a_tier_policy_is_refused_with_its_field() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let put = async |policy: &TierPolicy| world.membership.put_tier_policy(&world.admin, policy).await;
        let wrong = |change: &dyn Fn(&mut TierPolicy)| {
            let mut policy = second();
            change(&mut policy);
            policy
        };
        for (named, policy) in [
            ("starts_at", wrong(&|policy| policy.starts_at_ms = at(0).ms())),
            ("starts_at", wrong(&|policy| policy.starts_at_ms = at(4_000).ms())),
            // Overlapping tiers: the same threshold, one below the tier before it, the same tier twice.
            ("steps[2].growth_min", wrong(&|policy| policy.steps[2].growth_min = 100)),
            ("steps[3].growth_min", wrong(&|policy| policy.steps[3].growth_min = 399)),
            ("steps[3].tier", wrong(&|policy| policy.steps[3].tier = "gold".into())),
            ("steps[0].growth_min", wrong(&|policy| policy.steps[0].growth_min = 5)),
            ("window_days", wrong(&|policy| policy.window_days = 0)),
            ("look", wrong(&|policy| policy.downgrade = TierDowngrade::OneStep)),
        ] {
            assert_eq!(put(&policy).await.map_err(field).err(), Some(("invalid_request", named.to_owned())));
            let previewed = world.membership.preview_tier_policy(&world.admin, &policy, None, None, 10).await;
            assert_eq!(previewed.map_err(field).err(), Some(("invalid_request", named.to_owned())), "a preview refuses the same");
        }
        for actor in [&world.app, &mall_key()] {
            assert_eq!(world.membership.put_tier_policy(actor, &second()).await.map_err(code).err(), Some("forbidden"));
            let previewed = world.membership.preview_tier_policy(actor, &second(), None, None, 10).await;
            assert_eq!(previewed.map_err(code).err(), Some("forbidden"));
        }
        let third = TierPolicy { version: 3, ..second() };
        assert_eq!(put(&third).await.map_err(code).err(), Some("conflict"), "it is not the next");
        let mut promising = second();
        promising.steps[1].lifetime_min = Some(5_000);
        assert_eq!(put(&promising).await.expect("it is the next"), promising);
        assert_eq!(put(&promising).await.expect("it is there"), promising);
        assert_eq!(put(&second()).await.map_err(code).err(), Some("conflict"), "a version never changes");
        let broken = TierPolicy { version: 3, starts_at_ms: at(20).ms(), ..second() };
        assert_eq!(put(&broken).await.map_err(field).err(), Some(("invalid_request", "steps[1].lifetime_min".to_owned())));
        put(&third).await.expect("what never comes into force promised nothing");

        let listed = world.membership.list_tier_policies(&world.app).await.expect("they are read");
        assert_eq!(listed, [third.clone(), promising, TierPolicy::first()]);
        assert_eq!(world.membership.get_tier_policy(&world.app, 3).await.expect("it is there"), third);
        assert_eq!(world.membership.get_tier_policy(&world.app, 4).await.map_err(code).err(), Some("not_found"));
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM kernel_audit WHERE action = 'put tier policy'").await, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_put_a_version_at_once_one_wins() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let puts = (0..6).map(|n| {
            let world = world.clone();
            let policy = TierPolicy { grace_days: n, ..second() };
            tokio::spawn(async move { world.membership.put_tier_policy(&world.admin, &policy).await.map_err(code) })
        });
        let ends: Vec<_> = join_all(puts).await.into_iter().map(|end| end.expect("nobody panics")).collect();
        assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 1, "{ends:?}");
        assert!(ends.iter().filter_map(|end| end.as_ref().err()).all(|code| *code == "conflict"), "{ends:?}");
        let kept = world.membership.get_tier_policy(&world.admin, 2).await.expect("it is there");
        assert_eq!(ends.into_iter().find_map(Result::ok), Some(kept));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_starts_moves_everybody_as_it_was_previewed() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let mut members = Vec::new();
        for (place, growth) in [50, 150, 450, 5_500, 0].into_iter().enumerate() {
            let member = world.join(&format!("13{place}")).await;
            if growth > 0 {
                world.grow(&member, &format!("t{place}"), growth, 0).await;
            }
            members.push(member);
        }
        // Of the past: it is not counted.
        let gone = world.join("gone").await;
        world.grow(&gone, "gone", 450, 0).await;
        world.membership.close_member(&world.admin, &gone, "asked", Some("c")).await.expect("it is closed");
        assert_eq!(world.look().await, 0);
        let (tables, before) = (world.count("SELECT COUNT(*) AS n FROM membership_tier_policy").await, world.changes().await);

        let preview = world.membership.preview_tier_policy(&world.admin, &second(), None, None, 10).await.expect("it is shown");
        let moves: BTreeMap<_, _> =
            preview.moves.expect("it is the first page").into_iter().map(|of| ((of.from, of.to), of.members)).collect();
        let expected = [("gold", "black", 1), ("silver", "gold", 1), ("silver", "platinum", 1), ("silver", "silver", 2)];
        assert_eq!(moves, expected.map(|(from, to, n)| ((from.to_owned(), to.to_owned()), n)).into());
        assert_eq!((preview.version, preview.at, preview.movers.len()), (2, at(10), 3));
        // By pages: each mover once, in order.
        let (mut paged, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = world.membership.preview_tier_policy(&world.admin, &second(), None, after.clone(), 1).await.expect("it is shown");
            assert_eq!(page.moves.is_some(), after.is_none());
            let Some(mover) = page.movers.into_iter().next() else { break };
            after = Some(mover.member.to_string());
            paged.push(mover);
        }
        assert_eq!(paged, preview.movers);
        let late = world.membership.preview_tier_policy(&world.admin, &second(), Some(at(366)), None, 10).await.expect("it is shown");
        assert!(late.movers.is_empty(), "the year is over then, under either");
        let early = world.membership.preview_tier_policy(&world.admin, &second(), Some(at(9)), None, 10).await;
        assert_eq!(early.map_err(field).err(), Some(("invalid_request", "at".to_owned())));
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM membership_tier_policy").await, tables, "nothing is written");

        world.put(&second()).await;
        assert_eq!(world.look().await, 0, "it has not started");
        world.kernel.clock.set(Timestamp::clamped(at(10).ms() - 1));
        assert_eq!((world.tier(&members[1]).await, world.look().await), ("silver".to_owned(), 0));
        world.kernel.clock.set(at(10));
        assert_eq!(world.tier(&members[1]).await, "gold", "it is read as it is, also before the clockwork comes by");
        // A purchase of somebody who was not looked at yet decides under the version in force; who joins now is one of it.
        assert_eq!(world.grow(&members[0], "t9", 1, 10).await, "silver");
        assert!(world.stored(&members[2], "silver").await);
        assert_eq!(world.grow(&members[2], "t8", 1, 10).await, "platinum");
        let new = world.join("139").await;
        assert_eq!(world.look().await, 3, "those who neither bought nor joined since");
        assert_eq!(world.look().await, 0);
        assert_eq!(world.changes().await, before + 3);
        for mover in &preview.movers {
            assert!(world.stored(&mover.member, &mover.to).await, "{mover:?}");
        }
        assert!(world.stored(&new, "silver").await);
        assert!(world.stored(&gone, "silver").await, "who has left is not moved");
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_is_shown_the_tier_of_the_version_in_force() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.grow(&member, "t0", 150, 0).await;
        world.activate("bonus", "points 10").await;
        world.put(&second()).await;
        let shown = async |id: &str, day: i64| {
            let mut report = purchase(id, "mall-1", 100, &member);
            report.occurred_at = at(day);
            let decision = world.report(&report).await.expect("it is posted").decision.expect("it was decided");
            let call = world.membership.decision(&world.admin, &decision).await.expect("it is kept").calls.remove(0);
            let input: serde_json::Value = serde_json::from_slice(&call.input).expect("it is JSON here");
            input["member"]["tier"].as_str().expect("a tier").to_owned()
        };
        assert_eq!(shown("t1", 0).await, "silver");
        // The version starts between the decision and its commit.
        let mover = world.clone();
        *world.sandbox.during.lock().expect("nobody panics with it") = Some(Box::new(move || {
            let world = mover.clone();
            async move { world.kernel.clock.set(at(10)) }.boxed()
        }));
        assert_eq!(shown("t2", 0).await, "gold");
        // So does a grant, and it counts for the next.
        world.give(&member, "black", 20, "g1").await.expect("it is granted");
        assert_eq!(shown("t3", 10).await, "black");
        world.kernel.clock.set(at(20));
        assert_eq!(shown("t4", 20).await, "gold", "it has ended, whether or not the clockwork has been there");
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tier_by_hand_counts_until_it_ends() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (member, other) = (world.join("138").await, world.join("139").await);
        let parking = BenefitTerms {
            points_price: None,
            name: "Parking".into(),
            name_zh: "停车".into(),
            unit: unit("mall-1"),
            measure: "hours".into(),
            quantity: 1,
            cost_fen: 100,
            stock: BenefitStock::default(),
            valid_days: 30,
            voucher: None,
            anywhere: false,
            state: BenefitState::Active,
            tiers: vec![TierBenefit { tier: "platinum".into(), quantity: 2, every: Every::Year }],
        };
        world.membership.put_benefit(&world.admin, "parking", &parking).await.expect("it is taken");
        let granted = world.give(&member, "platinum", 30, "g1").await.expect("it is granted");
        assert_eq!((granted.tier.as_str(), granted.until, granted.revoked_at), ("platinum", at(30), None));
        assert_eq!(world.give(&member, "platinum", 30, "g1").await.expect("it is answered"), granted);
        assert_eq!(world.give(&member, "gold", 30, "g1").await.map_err(code).err(), Some("idempotency_key_reused"));
        let seen = world.membership.member(&world.app, &member).await.expect("it is read");
        let standing = seen.standing.expect("it is open");
        assert_eq!((seen.tier.as_str(), standing.earned.as_str(), standing.growth), ("platinum", "silver", 0));
        assert_eq!((standing.granted_by.as_ref(), standing.next), (Some(&granted.id), None));
        assert_eq!((standing.holds_until, standing.then.as_deref()), (Some(at(30)), Some("silver")));
        let benefits = world.membership.member_benefits(&world.app, &member, None, 9).await.expect("they are read");
        assert_eq!(benefits.iter().map(|one| (one.benefit.as_str(), one.quantity)).collect::<Vec<_>>(), [("parking", 2)]);

        // What is earned meanwhile is what it falls to.
        assert_eq!(world.grow(&member, "t1", 6_000, 0).await, "platinum");
        world.kernel.clock.set(Timestamp::clamped(at(30).ms() - 1));
        assert_eq!((world.look().await, world.tier(&member).await.as_str()), (0, "platinum"));
        world.kernel.clock.set(at(30));
        assert_eq!((world.look().await, world.tier(&member).await.as_str()), (1, "gold"));
        assert!(world.stored(&member, "gold").await);
        assert_eq!(world.changes().await, 2);

        let second = world.give(&member, "platinum", 60, "g2").await.expect("it is granted");
        let revoked = world.membership.revoke_tier(&world.admin, &member, &second.id, "a mistake").await.expect("it is revoked");
        assert_eq!((revoked.revoked_at, revoked.ends_at, world.tier(&member).await.as_str()), (Some(at(30)), at(30), "gold"));
        assert_eq!(world.membership.revoke_tier(&world.admin, &member, &second.id, "again").await.expect("it stays"), revoked);
        let listed = world.membership.tier_grants(&world.admin, &member, None, 9).await.expect("they are listed");
        assert_eq!(listed.iter().map(|grant| grant.id.as_str()).collect::<Vec<_>>(), [second.id.as_str(), granted.id.as_str()]);
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM kernel_audit WHERE action IN ('grant tier', 'revoke tier')").await, 3);

        let hotel = Reach::Units(Arc::new([unit("hotel-1")].into()));
        let hotel = Actor::key("key:h".into(), vec![Scope::Admin], Some(unit("hotel-1")), hotel);
        let wanted = |tier: &str, until: i64, reason: &str| GrantTier { tier: tier.into(), until: at(until), reason: reason.into() };
        for (actor, wanted, expected) in [
            (&world.app, wanted("gold", 60, "why"), ("forbidden", "")),
            (&hotel, wanted("gold", 60, "why"), ("unknown_member", "")),
            (&world.admin, wanted("diamond", 60, "why"), ("invalid_request", "tier")),
            (&world.admin, wanted("gold", 30, "why"), ("invalid_request", "until")),
            (&world.admin, wanted("gold", 9_000, "why"), ("invalid_request", "until")),
            (&world.admin, wanted("gold", 60, " "), ("invalid_request", "reason")),
        ] {
            let refused = world.membership.grant_tier(actor, &other, &wanted, Some("bad")).await.map_err(field).err();
            assert_eq!(refused, Some((expected.0, expected.1.to_owned())), "{wanted:?}");
        }
        let strange = world.membership.revoke_tier(&world.admin, &other, &second.id, "why").await;
        assert_eq!(strange.map_err(code).err(), Some("not_found"), "it is another member's");
        assert_eq!(world.membership.tier_grants(&hotel, &member, None, 9).await.map_err(code).err(), Some("unknown_member"));
        for n in 0..20 {
            world.give(&other, "gold", 60, &format!("many-{n}")).await.expect("there is room");
        }
        assert_eq!(world.give(&other, "gold", 60, "many").await.map_err(code).err(), Some("conflict"));
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_at_once_with_one_key_make_one() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        let grants = (0..8).map(|n| {
            let (world, member) = (world.clone(), member.clone());
            tokio::spawn(async move { world.give(&member, "gold", 30, &format!("g{}", n / 4)).await.expect("it is granted").id })
        });
        let ids: HashSet<String> = join_all(grants).await.into_iter().map(|id| id.expect("nobody panics")).collect();
        assert_eq!((ids.len(), world.changes().await), (2, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_left_is_not_looked_at_any_more() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        assert_eq!(world.grow(&member, "t1", 6_000, 0).await, "gold");
        world.give(&member, "platinum", 30, "g1").await.expect("it is granted");
        world.membership.close_member(&world.admin, &member, "asked", Some("c")).await.expect("it is closed");
        let granted = world.membership.tier_grants(&world.admin, &member, None, 9).await.expect("they are listed").remove(0);
        assert_eq!((granted.ends_at, granted.revoked_at), (at(0), None), "it ends with the membership");
        let changes = world.changes().await;
        world.report(&refund("r1", "t1", "mall-1", 300_000)).await.expect("it is taken back");
        assert_eq!(world.count(&format!("SELECT COUNT(*) AS n FROM membership_member WHERE tier_due <> {}", i64::MAX)).await, 0);
        // As an earlier release may have left it.
        world.run("UPDATE membership_member SET tier_due = 1").await;
        assert_eq!((world.look().await, world.look().await), (1, 0));
        let seen = world.membership.member(&world.app, &member).await.expect("it is read");
        assert_eq!((seen.tier.as_str(), seen.standing), ("platinum", None));
        assert_eq!(world.give(&member, "gold", 60, "g2").await.map_err(code).err(), Some("member_closed"));
        assert_eq!(world.changes().await, changes);
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_reads_why_it_has_its_tier() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        let standing = async || world.membership.member(&world.app, &member).await.expect("it is read").standing.expect("it is open");
        let new = standing().await;
        assert_eq!((new.growth, new.next.as_deref(), new.next_missing), (0, Some("gold"), Some(5_000)));
        assert_eq!((new.holds_until, new.then, new.policy), (None, None, 1));
        world.grow(&member, "t1", 6_000, -100).await;
        world.grow(&member, "t2", 1_000, 0).await;
        let gold = standing().await;
        assert_eq!((gold.earned.as_str(), gold.growth, gold.next_missing), ("gold", 7_000, Some(13_000)));
        assert_eq!((gold.holds_until, gold.then.as_deref()), (Some(at(265)), Some("silver")));
        let mut soft = TierPolicy { measure: TierMeasure::CalendarYear, window_days: 0, grace_days: 31, ..second() };
        soft.steps[1].lifetime_min = Some(7_000);
        world.put(&soft).await;
        world.kernel.clock.set(at(11));
        let black = standing().await;
        assert_eq!((black.policy, black.earned.as_str(), black.growth, black.next), (2, "black", 7_000, None));
        // What the year came to holds through the next one; then the grace; then what is kept for good.
        let kept = (Timestamp::clamped(NOW_MS + 448 * DAY_MS - 8 * 3_600_000), "gold");
        assert_eq!((black.holds_until, black.then.as_deref()), (Some(kept.0), Some(kept.1)), "2028-02-01");
        world.kernel.clock.set(kept.0);
        let gold = standing().await;
        assert_eq!((gold.earned.as_str(), gold.for_good, gold.growth, gold.holds_until), ("gold", true, 0, None));
        assert_eq!((gold.next.as_deref(), gold.next_missing), (Some("platinum"), Some(400)));
        assert_eq!(world.look().await, 1);
        assert!(world.stored(&member, "gold").await);
    })
    .await;
}

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: i64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        i64::try_from(self.0 % u64::try_from(bound).expect("a bound")).expect("it is below the bound")
    }
}

/// What happens to a member: bought on a day for this growth, or taken back of what was bought.
#[derive(Debug, Clone)]
enum Fact {
    Bought { id: String, growth: i64, day: i64 },
    Back { id: String, of: String, growth: i64 },
}

fn facts(dice: &mut Dice, days: i64) -> Vec<Fact> {
    let mut facts = Vec::new();
    for n in 0..14 {
        let (id, growth, day) = (format!("t{n}"), 20 + dice.below(500), dice.below(days));
        if dice.below(3) == 0 {
            facts.push(Fact::Back { id: format!("r{n}"), of: id.clone(), growth: 1 + dice.below(growth) });
        }
        facts.push(Fact::Bought { id, growth, day });
    }
    facts
}

impl World {
    async fn tell_of(&self, member: &MemberId, prefix: &str, fact: &Fact) {
        let named = |id: &String| format!("{prefix}{id}");
        let report = match fact {
            Fact::Bought { id, growth, day } => {
                let mut report = purchase(&named(id), "mall-1", growth * 100, member);
                report.occurred_at = at(*day);
                report
            }
            Fact::Back { id, of, growth } => refund(&named(id), &named(of), "mall-1", growth * 100),
        };
        self.report(&report).await.expect("it is taken");
    }

    /// What is stored is what the whole history says; answers it.
    async fn agrees(&self, member: &MemberId, when: &str) -> String {
        let tier = self.tier(member).await;
        assert!(self.stored(member, &tier).await, "{when}: it should be {tier}");
        tier
    }
}

/// One member hears of its facts as they happen, with the clockwork always there; the other late, in another order, refunds before their
/// purchases, and the clockwork comes by now and then.
#[tokio::test(flavor = "multi_thread")]
async fn the_stored_tier_is_that_of_the_whole_history_however_it_came() {
    let policies = [
        TierPolicy { window_days: 90, ..second() },
        TierPolicy { window_days: 90, look: TierLook::Month, downgrade: TierDowngrade::OneStep, grace_days: 10, ..second() },
        TierPolicy { measure: TierMeasure::CalendarYear, window_days: 0, grace_days: 31, ..second() },
        TierPolicy { window_days: 60, grace_days: 20, ..second() },
    ];
    for (seed, policy) in (1u64..).zip(&policies) {
        for_both_databases(|database| async move {
            let world = world(&database).await;
            let (prompt, late) = (world.join("138").await, world.join("139").await);
            world.put(policy).await;
            let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let facts = facts(&mut dice, 700);
            let day_of = |fact: &Fact| match fact {
                Fact::Bought { day, .. } => *day,
                Fact::Back { .. } => 800,
            };
            let mut tiers = HashSet::new();
            let mut by_day = facts.clone();
            by_day.sort_by_key(day_of);
            for fact in &by_day {
                world.kernel.clock.set(at(day_of(fact)));
                world.look().await;
                world.tell_of(&prompt, "a", fact).await;
                tiers.insert(world.agrees(&prompt, "as it happens").await);
            }
            world.kernel.clock.set(at(800));
            let mut shuffled = facts;
            for place in (1..shuffled.len()).rev() {
                let other = dice.below(i64::try_from(place).expect("a place") + 1);
                shuffled.swap(place, usize::try_from(other).expect("a place"));
            }
            for fact in &shuffled {
                if dice.below(3) == 0 {
                    world.look().await;
                }
                world.tell_of(&late, "b", fact).await;
                world.agrees(&late, "late").await;
            }
            for day in [800, 810, 850, 900, 1_000, 1_100, 1_500, 2_000] {
                world.kernel.clock.set(at(day));
                world.look().await;
                let (prompt, late) = (world.agrees(&prompt, "as it happened").await, world.agrees(&late, "later").await);
                assert_eq!(prompt, late, "policy {seed} day {day}");
            }
            assert!(tiers.len() > 2, "the member goes up and down: {tiers:?}");
            world.sound().await;
        })
        .await;
    }
}
