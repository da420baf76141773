//! Seasons of a group, step by step: everything that can happen to points does, months are closed in between, and no point comes from nowhere or
//! goes nowhere.

use crate::histories::Dice;
use crate::world::{World, at, purchase, refund, unit, world};
use heyuan_contract::MemberId;
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Actor, Reach, Scope};
use heyuan_ledger::Period;
use heyuan_membership::{
    Adjust, Clearing, ClearingState, ImportOpenings, PointsPolicy, Report, TransferAudience, TransferPoints, verify_clearing,
};

const STEPS: usize = 160;
/// Most members that live at once.
const MEMBERS: usize = 4;
const PLACES: [&str; 3] = ["mall-1", "hotel-1", "community-1"];

fn key(name: &str, scope: Scope) -> Actor {
    Actor::key(format!("key:{name}"), vec![scope], None, Reach::Everything)
}

/// A group whose time goes on.
struct Season<'a> {
    world: &'a World,
    dice: Dice,
    day: i64,
    /// Everybody who ever joined, with the phone by which files name them; the last ones live.
    members: Vec<(MemberId, String)>,
    living: Vec<usize>,
    bought: Vec<(String, &'static str)>,
    spends: Vec<(MemberId, String)>,
    closed: Vec<Clearing>,
}

impl Season<'_> {
    async fn join(&mut self) {
        let phone = format!("s{}", self.members.len());
        let member = self.world.join(&phone).await;
        self.living.push(self.members.len());
        self.members.push((member, phone));
    }

    fn somebody(&mut self) -> (MemberId, String) {
        let place = self.living[self.dice.roll(self.living.len())];
        self.members[place].clone()
    }

    /// One step; what the rules refuse, such as more points than there are, moves nothing.
    async fn step(&mut self, number: usize) {
        let name = format!("n{number}");
        let (member, phone) = self.somebody();
        let (world, membership) = (self.world, &self.world.membership);
        match self.dice.roll(14) {
            0..=3 => {
                let place = PLACES[self.dice.roll(PLACES.len())];
                let report = Report { occurred_at: at(self.day), ..purchase(&name, place, self.dice.amount(30_000), &member) };
                world.report(&report).await.expect("it is posted");
                self.bought.push((name, place));
            }
            4 | 5 if !self.bought.is_empty() => {
                let (of, place) = self.bought[self.dice.roll(self.bought.len())].clone();
                drop(world.report(&Report { occurred_at: at(self.day), ..refund(&name, &of, place, self.dice.amount(15_000)) }).await);
            }
            6 => {
                if let Ok(spent) = world.spend(&member, self.dice.amount(200), &name).await {
                    self.spends.push((member, spent.id));
                }
            }
            7 if !self.spends.is_empty() => {
                let (member, spend) = self.spends[self.dice.roll(self.spends.len())].clone();
                drop(membership.give_back(&world.app, &member, &spend, self.dice.amount(50), Some(&name)).await);
            }
            8 => self.adjust(&name, member).await,
            9 => self.import(&name, &phone).await,
            10 => {
                let to = self.somebody().0;
                let request = TransferPoints { to, amount: self.dice.amount(60), note: None };
                drop(membership.transfer_points(&world.app, &member, &request, Some(&name)).await);
            }
            11 => self.leave(&name).await,
            12 => {
                // Two people turn out to be one customer, or not to be: no point moves.
                let (other, customer) = (self.somebody().1, format!("cus_{}", self.dice.roll(3)));
                world.people.link(&[&phone, &other], &customer);
            }
            _ => self.time_goes_on().await,
        }
    }

    /// Two persons grant points, or take them.
    async fn adjust(&mut self, name: &str, member: MemberId) {
        let amount = self.dice.amount(90) - 40;
        let adjust =
            Adjust { member, amount: if amount == 0 { 1 } else { amount }, unit: unit("mall-1"), reason: name.into(), expires_at: None };
        let membership = &self.world.membership;
        if let Ok(proposed) = membership.propose_adjustment(&key("first", Scope::Admin), &adjust, Some(name)).await {
            drop(membership.approve_adjustment(&key("second", Scope::Admin), &proposed.id, Some(name)).await);
        }
    }

    /// A balance from before that lasts a few weeks, at a cost that divides evenly into nothing; sometimes the same file again.
    async fn import(&mut self, name: &str, phone: &str) {
        let last = self.world.kernel.zone.day(at(self.day + self.dice.amount(45)));
        let (points, below) = (self.dice.amount(300), 2 + self.dice.roll(997));
        let row = format!("{phone},{points},{}/{below},{last}\n", self.dice.amount(997));
        let file = ImportOpenings {
            unit: unit("hotel-1"),
            mapping: String::new(),
            dry_run: false,
            bytes: format!("phone,points,cost_fen,expires_on\n{row}").into_bytes(),
            charset: None,
        };
        for again in 0..=self.dice.roll(2) {
            let done = self.world.membership.import_openings(&key("import", Scope::Import), &file, Some(&format!("{name}-{again}"))).await;
            let done = done.expect("it is read");
            assert_eq!(done.posted + done.known + done.refused, 1, "{done:?}");
            assert!(again == 0 || done.posted == 0, "a row that comes again is known: {done:?}");
        }
    }

    async fn leave(&mut self, name: &str) {
        let place = self.dice.roll(self.living.len());
        let gone = self.living.swap_remove(place);
        let membership = &self.world.membership;
        membership.close_member(&self.world.admin, &self.members[gone].0, "moved away", Some(name)).await.expect("nothing is held");
        self.join().await;
    }

    /// Days pass; sometimes the clockwork looks, and a month that is over is closed.
    async fn time_goes_on(&mut self) {
        self.day += self.dice.amount(14);
        self.world.kernel.clock.set(at(self.day));
        if self.dice.roll(2) == 0 {
            while self.world.membership.expire_points(None).await.expect("they are moved out") > 0 {}
        }
        let current = Period::of(&self.world.kernel.zone, at(self.day));
        let next = self.world.ledger.next_to_close(self.world.kernel.db.reader(), "points").await.expect("it is read");
        if let Some(next) = next.filter(|next| *next < current) {
            let closed = self.world.membership.close(&self.world.admin, &next.to_string()).await.expect("nothing blocks");
            assert_eq!(closed.lines.iter().map(|line| line.net_fen).sum::<i64>() + closed.centre.net_fen, 0, "{closed:?}");
            self.closed.push(closed);
        }
    }

    /// The months from the first to the one that runs, as they are told now.
    async fn months(&self) -> Vec<Clearing> {
        let mut months = Vec::new();
        let mut month = Period::parse("2026-11").expect("a month");
        while month <= Period::of(&self.world.kernel.zone, at(self.day)) {
            months.push(self.world.membership.clearing(&self.world.admin, &month.to_string()).await.expect("it is read"));
            month = month.next();
        }
        months
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_in_a_season_no_point_comes_from_nowhere() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let everybody = PointsPolicy { transfers: TransferAudience::Everybody, ..PointsPolicy::default() };
        world.membership.put_points_policy(&world.admin, &everybody).await.expect("it is written");
        let (members, living, bought, spends, closed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut season = Season { world: &world, dice: Dice(20_261_129), day: 0, members, living, bought, spends, closed };
        for _ in 0..MEMBERS {
            season.join().await;
        }
        for number in 0..STEPS {
            season.step(number).await;
        }
        assert!(season.closed.len() > 1, "some months were closed in the middle");
        while world.membership.expire_points(None).await.expect("they are moved out") > 0 {}

        let months = season.months().await;
        for then in &season.closed {
            let now = months.iter().find(|month| month.period == then.period).expect("it is told");
            assert_eq!((now.state, now), (ClearingState::Closed, then), "a closed month never changes");
        }
        let mut have = 0;
        for (member, _) in &season.members {
            let (_, points, owed) = world.holds(member).await;
            have += points - owed;
        }
        let came = months.iter().flat_map(|month| &month.lines).map(|line| {
            line.issued_points + line.opened_points + line.adjusted_points
                - line.refunded_points
                - line.expired_points
                - line.forfeited_points
                - line.spent_points
        });
        assert_eq!(have, came.sum::<i64>(), "what members have is what came and did not go, owed points and all");
        world.sound().await;
        let proof = verify_clearing(&world.kernel, &world.ledger).await.expect("it can be read");
        assert_eq!((proof.statements, proof.findings), (u64::try_from(season.closed.len()).expect("few"), Vec::new()));
    })
    .await;
}
