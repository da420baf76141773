//! Generated histories of several members at once, beside a model in plain code: what each has, what the lines owe, what budgets gave.

use crate::world::{World, at, code, purchase, refund, unit, world};
use futures::future::join_all;
use heyuan_contract::{Line, MemberId};
use heyuan_harness::for_both_databases;
use heyuan_membership::{Budget, HoldPoints, PointsPolicy, Report, TransferAudience, TransferPoints};
use std::collections::BTreeMap;

const MEMBERS: usize = 4;
/// Steps of each member.
const STEPS: usize = 60;
/// Points that the rule adds to a purchase while its budgets last.
const BONUS: i64 = 30;
/// Less than the members ask for together.
const BUDGET: i64 = 900;
const PLACES: [(&str, Line, i64); 3] =
    [("mall-1", Line::Mall, 100), ("hotel-1", Line::Hotel, 100), ("community-1", Line::Community, 1_000)];

/// A small generator of its own: the same histories on every run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % sides as u64).expect("small")
    }

    pub(crate) fn amount(&mut self, max: usize) -> i64 {
        i64::try_from(1 + self.roll(max)).expect("small")
    }
}

/// A purchase as the model keeps it.
#[derive(Debug, Clone)]
struct Bought {
    id: String,
    place: usize,
    fen: i64,
    growth: i64,
    points: i64,
    refunded: i64,
}

/// What is left of a figure when so much of an amount went back, written anew from the document's words.
fn kept(figure: i64, bought: &Bought, refunded: i64) -> i64 {
    figure * (bought.fen - refunded) / bought.fen
}

/// A member as plain code knows it. Debts and holds are part of what it has: `has` is spendable plus held less owed.
#[derive(Debug, Default, Clone)]
struct Model {
    has: i64,
    growth: i64,
    bonus: i64,
    bought: Vec<Bought>,
    /// Spends with what of each was not given back.
    spends: Vec<(String, i64)>,
    holds: Vec<(String, i64)>,
    /// Points issued and taken back by line, spent and given back at the hotel.
    issued: BTreeMap<Line, i64>,
    taken_back: BTreeMap<Line, i64>,
    spent: i64,
    /// Given to each of the others.
    given: BTreeMap<usize, i64>,
}

impl Model {
    fn held(&self) -> i64 {
        self.holds.iter().map(|(_, amount)| amount).sum()
    }
}

/// One member that lives alone with its model, while the others do so beside it.
struct Life<'a> {
    world: &'a World,
    members: &'a [MemberId],
    me: usize,
    dice: Dice,
    model: Model,
}

impl Life<'_> {
    fn id(&self) -> &MemberId {
        &self.members[self.me]
    }

    async fn step(&mut self, number: usize) {
        let name = format!("m{}-{number}", self.me);
        match self.dice.roll(10) {
            0..=2 => self.buy(&name).await,
            3 | 4 => self.send_back(&name).await,
            5 => self.spend(&name).await,
            6 => self.give_back(&name).await,
            7 => self.hold(&name).await,
            8 => self.end_hold(&name).await,
            _ => self.give(&name).await,
        }
    }

    async fn buy(&mut self, name: &str) {
        let (place, fen) = (self.dice.roll(PLACES.len()), self.dice.amount(20_000));
        let (at_unit, line, for_one) = PLACES[place];
        let posted = self.world.report(&purchase(name, at_unit, fen, self.id())).await.expect("it is posted");
        let bonus = posted.points - fen / for_one;
        assert!((0..=BONUS).contains(&bonus), "{name}: {posted:?}");
        assert_eq!(posted.growth, fen / for_one, "{name}");
        *self.model.issued.entry(line).or_default() += posted.points;
        self.model.has += posted.points;
        self.model.growth += posted.growth;
        self.model.bonus += bonus;
        let (growth, points) = (posted.growth, posted.points);
        self.model.bought.push(Bought { id: name.to_owned(), place, fen, growth, points, refunded: 0 });
    }

    async fn send_back(&mut self, name: &str) {
        if self.model.bought.is_empty() {
            return;
        }
        let chosen = self.dice.roll(self.model.bought.len());
        let bought = &mut self.model.bought[chosen];
        let fen = self.dice.amount(12_000);
        let posted = self.world.report(&refund(name, &bought.id, PLACES[bought.place].0, fen)).await;
        let after = bought.refunded + fen;
        if after > bought.fen {
            assert_eq!(posted.map_err(code).err(), Some("refund_too_large"), "{name}");
            return;
        }
        let lost = |figure: i64| kept(figure, bought, bought.refunded) - kept(figure, bought, after);
        let (growth, points) = (lost(bought.growth), lost(bought.points));
        let posted = posted.expect("it fits");
        assert_eq!((posted.growth, posted.points), (-growth, -points), "{name}");
        self.model.has -= points;
        self.model.growth -= growth;
        *self.model.taken_back.entry(PLACES[bought.place].1).or_default() += points;
        bought.refunded = after;
    }

    /// What can be spent now; nobody else takes from this member.
    async fn spendable(&self) -> i64 {
        self.world.holds(self.id()).await.1
    }

    async fn spend(&mut self, name: &str) {
        let (amount, before) = (self.dice.amount(150), self.spendable().await);
        let answer = self.world.spend(self.id(), amount, name).await;
        // What others give meanwhile may make it enough.
        let Ok(spent) = answer else {
            assert!(before < amount && answer.map_err(code).err() == Some("not_enough_points"), "{name}: {amount} of {before}");
            return;
        };
        self.model.has -= amount;
        self.model.spent += amount;
        self.model.spends.push((spent.id, amount));
    }

    async fn give_back(&mut self, name: &str) {
        if self.model.spends.is_empty() {
            return;
        }
        let chosen = self.dice.roll(self.model.spends.len());
        let amount = self.dice.amount(60);
        let (spend, left) = self.model.spends[chosen].clone();
        let given = self.world.membership.give_back(&self.world.app, self.id(), &spend, amount, Some(name)).await;
        assert_eq!(given.is_ok(), amount <= left, "{name}: {amount} of {left}: {given:?}");
        if given.is_ok() {
            self.model.spends[chosen].1 -= amount;
            self.model.has += amount;
            self.model.spent -= amount;
        }
    }

    async fn hold(&mut self, name: &str) {
        let amount = self.dice.amount(80);
        let wanted = HoldPoints { amount, unit: unit("hotel-1"), reference: name.into(), expires_at: None, minutes: Some(600) };
        let before = self.spendable().await;
        match self.world.membership.hold_points(&self.world.app, self.id(), &wanted, Some(name)).await {
            Ok(held) => self.model.holds.push((held.id, amount)),
            Err(error) => assert!(before < amount && code(error) == "not_enough_points", "{name}: {amount} of {before}"),
        }
    }

    async fn end_hold(&mut self, name: &str) {
        if self.model.holds.is_empty() {
            return;
        }
        let (hold, amount) = self.model.holds.swap_remove(self.dice.roll(self.model.holds.len()));
        let (membership, app) = (&self.world.membership, &self.world.app);
        if self.dice.roll(2) == 0 {
            membership.release_hold(app, self.id(), &hold, Some(name)).await.expect("it is open");
            return;
        }
        let captured = 1 + i64::try_from(self.dice.roll(usize::try_from(amount).expect("small"))).expect("small");
        let ended = membership.capture_hold(app, self.id(), &hold, Some(captured), Some(name)).await.expect("it is open");
        self.model.has -= captured;
        self.model.spent += captured;
        self.model.spends.push((ended.spend.expect("it became a spend"), captured));
    }

    async fn give(&mut self, name: &str) {
        let to = (self.me + 1 + self.dice.roll(MEMBERS - 1)) % MEMBERS;
        let amount = self.dice.amount(40);
        let request = TransferPoints { to: self.members[to].clone(), amount, note: None };
        if let Ok(given) = self.world.membership.transfer_points(&self.world.app, self.id(), &request, Some(name)).await {
            assert_eq!(given.amount, amount);
            self.model.has -= amount;
            *self.model.given.entry(to).or_default() += amount;
        }
    }
}

/// Lives all members at once, and answers their models.
async fn live(world: &World, members: &[MemberId], seed: u64) -> Vec<Model> {
    let lives = (0..MEMBERS).map(|me| async move {
        let dice = Dice(seed.wrapping_add(u64::try_from(me).expect("small") * 7_919));
        let mut life = Life { world, members, me, dice, model: Model::default() };
        for number in 0..STEPS {
            life.step(number).await;
        }
        life.model
    });
    join_all(lives).await
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_live_at_once_have_what_a_plain_model_says() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        world.activate("bonus", &format!("points {BONUS}")).await;
        let everybody = PointsPolicy { transfers: TransferAudience::Everybody, ..PointsPolicy::default() };
        world.membership.put_points_policy(&world.admin, &everybody).await.expect("it is written");
        let budget = Budget {
            name: "autumn".into(),
            rules: ["bonus".to_owned()].into(),
            lines: [].into(),
            from: at(-5),
            until: at(5),
            points_max: BUDGET,
        };
        world.membership.put_budget(&world.admin, &budget).await.expect("it is set");
        let mut members = Vec::new();
        for number in 0..MEMBERS {
            members.push(world.join(&format!("m{number}")).await);
        }
        let models = live(&world, &members, 20_261_110).await;

        for (me, (member, model)) in members.iter().zip(&models).enumerate() {
            let got: i64 = models.iter().filter_map(|other| other.given.get(&me)).sum();
            let (growth, points, owed) = world.holds(member).await;
            assert_eq!((growth, points + model.held() - owed), (model.growth, model.has + got), "member {me}");
            for bought in &model.bought {
                let id = heyuan_contract::TransactionId::new(bought.id.clone()).expect("an id");
                let seen = world.membership.transaction(&world.app, &id, None).await.expect("it is there");
                assert_eq!(seen.refunded.0, bought.refunded, "{}", bought.id);
            }
        }
        let bonus: i64 = models.iter().map(|model| model.bonus).sum();
        let drawn = world.membership.list_budgets(&world.admin, None, 5).await.expect("they are read")[0].points_spent;
        assert_eq!((bonus, drawn), (BUDGET, BUDGET), "to the last point and no further");
        clears_as_modelled(&world, &models).await;
        world.sound().await;
    })
    .await;
}

/// The open month is what the models say; closed, it is the same, and what comes later counts in the next one.
async fn clears_as_modelled(world: &World, models: &[Model]) {
    let sum = |of: fn(&Model) -> &BTreeMap<Line, i64>, line| models.iter().filter_map(|model| of(model).get(&line)).sum::<i64>();
    let open = world.membership.clearing(&world.admin, "2026-11").await.expect("it is read");
    for row in &open.lines {
        let expected = (sum(|model| &model.issued, row.line), sum(|model| &model.taken_back, row.line));
        assert_eq!((row.issued_points, row.refunded_points), expected, "{}", row.line);
        let spent = if row.line == Line::Hotel { models.iter().map(|model| model.spent).sum() } else { 0 };
        assert_eq!(row.spent_points, spent, "{}", row.line);
    }
    assert_eq!(open.lines.iter().map(|row| row.net_fen).sum::<i64>() + open.centre.net_fen, 0, "lines and centre come to nothing together");
    world.kernel.clock.set(at(25));
    let closed = world.membership.close(&world.admin, "2026-11").await.expect("it is the first");
    assert_eq!((&closed.lines, &closed.matrix, closed.centre), (&open.lines, &open.matrix, open.centre));
    // Everything that is left goes back in the next month; together the two months issued what nobody sent back.
    let mut expected: BTreeMap<Line, i64> = BTreeMap::new();
    for bought in models.iter().flat_map(|model| &model.bought) {
        let (place, line, _) = PLACES[bought.place];
        let left = bought.fen - bought.refunded;
        if left > 0 {
            let back = Report { occurred_at: at(25), ..refund(&format!("{}-rest", bought.id), &bought.id, place, left) };
            let posted = world.report(&back).await.expect("it fits");
            *expected.entry(line).or_default() -= posted.points;
        }
    }
    let next = world.membership.clearing(&world.admin, "2026-12").await.expect("it is read");
    for (then, now) in closed.lines.iter().zip(&next.lines) {
        assert_eq!(now.refunded_points, expected.get(&now.line).copied().unwrap_or(0), "{}", now.line);
        assert_eq!(then.issued_points - then.refunded_points - now.refunded_points, 0, "{}: every purchase went back", now.line);
    }
}

/// Every order of a few things.
fn permutations(things: &[usize]) -> Vec<Vec<usize>> {
    if things.len() <= 1 {
        return vec![things.to_vec()];
    }
    let with_first = |place: usize| {
        let mut rest = things.to_vec();
        let first = rest.remove(place);
        permutations(&rest).into_iter().map(move |tail| [vec![first], tail].concat())
    };
    (0..things.len()).flat_map(with_first).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn refunds_around_a_spend_and_a_tier_change_end_alike() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        world.activate("bonus", "points 7").await;
        // Two purchases, of which the first makes gold; then in any order: three refunds, one of them of all of the first, and a spend.
        let orders = permutations(&[0, 1, 2, 3]);
        let mut ends = Vec::new();
        for (round, order) in orders.iter().enumerate() {
            let member = world.join(&format!("m{round}")).await;
            let (large, small) = (format!("large-{round}"), format!("small-{round}"));
            world.report(&purchase(&large, "mall-1", 600_000, &member)).await.expect("it is posted");
            world.report(&purchase(&small, "hotel-1", 12_345, &member)).await.expect("it is posted");
            for step in order {
                let name = format!("s{round}-{step}");
                match step {
                    0 => drop(world.report(&refund(&name, &large, "mall-1", 600_000)).await.expect("it fits")),
                    1 => drop(world.report(&refund(&name, &small, "hotel-1", 1_001)).await.expect("it fits")),
                    2 => drop(world.report(&refund(&name, &small, "hotel-1", 3_337)).await.expect("it fits")),
                    _ => drop(world.spend(&member, 50, &name).await.expect("it is enough whatever went back before")),
                }
            }
            let tier = world.membership.member(&world.app, &member).await.expect("it is a member").tier;
            let (growth, points, owed) = world.holds(&member).await;
            ends.push((tier, growth, points - owed));
        }
        // 8,007 of 12,345 fen are kept, of 123 growth and 130 points; 50 are spent.
        assert!(ends.iter().all(|end| *end == ("silver".to_owned(), 79, 84 - 50)), "{ends:?}");
        world.sound().await;
    })
    .await;
}
