//! Behind the figures: the steps that a figure sums come to it exactly, and a lot tells its whole story.

use crate::world::{World, at, code, purchase, refund, unit, world};
use futures::future::join_all;
use heyuan_contract::{Line, MemberId, Ratio};
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Actor, Reach, Scope};
use heyuan_ledger::Period;
use heyuan_membership::{Cell, CellStep, Clearing, Column, ImportOpenings, Spend};
use std::collections::BTreeMap;
use std::sync::Arc;

const HEADER: &str = "phone,points,cost_fen,expires_on,growth,earned_on,external_id\n";

/// A sum of exact costs.
#[derive(Clone, Copy)]
struct Sum {
    points: i64,
    above: i128,
    below: i128,
}

impl Sum {
    fn of(steps: &[CellStep]) -> Sum {
        steps.iter().fold(Sum { points: 0, above: 0, below: 1 }, |sum, step| {
            let (above, below) = (step.cost_numerator, step.cost_denominator);
            let exact = i128::from(step.points) * i128::from(step.unit_cost.numerator()) * below;
            assert_eq!(exact, above * i128::from(step.unit_cost.denominator()), "{step:?}");
            let (above, below) = (sum.above * below + above * sum.below, sum.below * below);
            let common = (1..=below.min(1_000)).rev().find(|n| above % n == 0 && below % n == 0).unwrap_or(1);
            Sum { points: sum.points + step.points, above: above / common, below: below / common }
        })
    }

    /// Points, and fen to the nearest, half a fen up.
    fn told(self) -> (i64, i64) {
        (self.points, i64::try_from((2 * self.above + self.below).div_euclid(2 * self.below)).expect("it fits"))
    }
}

impl World {
    /// Every step of a figure, in pages of two.
    async fn steps(&self, period: &str, column: Column, issuer: Option<Line>, spender: Option<Line>) -> Vec<CellStep> {
        let (cell, mut steps, mut after) = (Cell { column, issuer, spender }, Vec::new(), None);
        loop {
            let page = self.membership.cell(&self.admin, period, cell, after.as_deref(), 2).await.expect("it is read");
            assert!(page.steps.len() == 2 || page.next.is_none(), "a page is full or the last one: {page:?}");
            steps.extend(page.steps);
            after = page.next;
            if after.is_none() {
                return steps;
            }
        }
    }

    /// Every figure of a clearing beside its steps.
    pub(crate) async fn cells_come_to(&self, clearing: &Clearing) {
        let period = clearing.period.as_str();
        for row in &clearing.lines {
            for (column, points, fen) in [
                (Column::Issued, row.issued_points, row.issued_fen),
                (Column::Opened, row.opened_points, row.opened_fen),
                (Column::Refunded, row.refunded_points, row.refunded_fen),
                (Column::Expired, row.expired_points, row.expired_fen),
                (Column::Forfeited, row.forfeited_points, row.forfeited_fen),
                (Column::Adjusted, row.adjusted_points, row.adjusted_fen),
            ] {
                let steps = self.steps(period, column, Some(row.line), None).await;
                assert_eq!(Sum::of(&steps).told(), (points, fen), "{period} {} {column:?}", row.line);
            }
            let spent = self.steps(period, Column::Spent, None, Some(row.line)).await;
            assert_eq!(Sum::of(&spent).points, row.spent_points, "{period} {} spent", row.line);
        }
        let mut cells = 0;
        for issuer in Line::ALL {
            for spender in Line::ALL {
                let steps = self.steps(period, Column::Spent, Some(issuer), Some(spender)).await;
                let cell = clearing.matrix.iter().find(|cell| cell.issuer == issuer && cell.spender == spender);
                assert_eq!(Sum::of(&steps).told(), cell.map_or((0, 0), |cell| (cell.points, cell.fen)), "{period} {issuer} {spender}");
                cells += usize::from(cell.is_some());
            }
        }
        assert_eq!(cells, clearing.matrix.len());
        let recovered = self.steps(period, Column::Recovered, None, None).await;
        assert_eq!(Sum::of(&recovered).told(), (clearing.centre.recovered_points, clearing.centre.recovered_fen), "{period} recovered");
    }

    /// A month in which points are earned, taken over, spent, given back, refunded, recovered, forfeited and expire.
    pub(crate) async fn month_of_everything(&self) -> (MemberId, MemberId) {
        let (lin, chen) = (self.join("138").await, self.join("139").await);
        for (id, place, fen, member) in [
            ("tea", "mall-1", 10_000, &lin),
            ("stay", "hotel-1", 103_700, &lin),
            ("shoes", "mall-1", 5_000, &chen),
            ("fee", "community-1", 301_000, &lin),
        ] {
            self.report(&purchase(id, place, fen, member)).await.expect("it is posted");
        }
        let rows = "138,7,1/3,2026-11-15,,,a\n138,100,0.5,2027-12-31,,,b\n139,11,1/3,2026-11-15,,,c\n";
        let file = ImportOpenings {
            unit: unit("hotel-1"),
            mapping: String::new(),
            dry_run: false,
            bytes: format!("{HEADER}{rows}").into_bytes(),
            charset: None,
        };
        let importer = Actor::key("key:import".into(), vec![Scope::Import], None, Reach::Everything);
        assert_eq!(self.membership.import_openings(&importer, &file, Some("openings")).await.expect("it is imported").posted, 3);
        let spent = self.spend(&lin, 500, "late-check-out").await.expect("it is enough");
        let tea = Spend { amount: 21, unit: unit("mall-1"), reference: "tea".into() };
        self.membership.spend(&self.app, &lin, &tea, Some("tea-for-points")).await.expect("it is enough");
        self.membership.give_back(&self.app, &lin, &spent.id, 30, Some("back")).await.expect("it is given back");
        self.report(&refund("tea-back", "tea", "mall-1", 10_000)).await.expect("it is taken back");
        self.kernel.clock.set(at(10));
        self.membership.expire_points(None).await.expect("they are moved out");
        self.membership.close_member(&self.admin, &chen, "asked", Some("left")).await.expect("it ends");
        (lin, chen)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_steps_behind_every_figure_come_to_it() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (lin, _) = world.month_of_everything().await;
        let open = world.membership.clearing(&world.admin, "2026-11").await.expect("it is read");
        let sum = |of: fn(&heyuan_membership::ClearingLine) -> i64| open.lines.iter().map(of).sum::<i64>();
        let moved = [sum(|row| row.issued_points), sum(|row| row.opened_points), sum(|row| row.refunded_points)];
        assert!(moved.iter().all(|points| *points > 0), "{open:?}");
        let left = [sum(|row| row.expired_points), sum(|row| row.forfeited_points), sum(|row| row.spent_points)];
        assert!(left.iter().all(|points| *points > 0) && open.centre.recovered_points > 0, "{open:?}");
        world.cells_come_to(&open).await;

        world.kernel.clock.set(at(30));
        let closed = world.membership.close(&world.admin, "2026-11").await.expect("it is over");
        // What comes later counts in December and leaves November's steps as they are.
        world.report(&purchase("late", "mall-1", 5_000, &lin)).await.expect("it is posted");
        world.report(&refund("stay-back", "stay", "hotel-1", 50_000)).await.expect("it is taken back");
        assert_eq!(closed.lines, open.lines);
        world.cells_come_to(&closed).await;
        let december = world.membership.clearing(&world.admin, "2026-12").await.expect("it is read");
        assert!(december.lines.iter().any(|row| row.refunded_points > 0));
        world.cells_come_to(&december).await;
        world.cells_come_to(&world.membership.clearing(&world.admin, "2026-08").await.expect("it is read")).await;
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_tells_where_it_comes_from_and_a_lot_its_story() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.report(&purchase("stay", "hotel-1", 3_700, &member)).await.expect("it is posted");
        let spent = world.spend(&member, 30, "s").await.expect("it is enough");
        world.membership.give_back(&world.app, &member, &spent.id, 10, Some("back")).await.expect("it is given back");
        world.report(&refund("stay-back", "stay", "hotel-1", 3_700)).await.expect("it is taken back");
        let steps = world.steps("2026-11", Column::Spent, Some(Line::Hotel), Some(Line::Hotel)).await;
        let told: Vec<_> =
            steps.iter().map(|step| (step.movement.as_str(), step.points, step.cost_numerator, step.cost_denominator)).collect();
        assert_eq!(told, [("spend", 30, 36, 1), ("return", -10, -12, 1)]);
        assert_eq!(steps[0].reference, format!("hotel-1/{}", spent.id));
        assert_eq!(steps[0].unit_cost, Ratio::new(6, 5).expect("a ratio"));
        let taken = world.steps("2026-11", Column::Refunded, None, None).await;
        let source = steps[0].lot.as_deref().expect("the group sees it");
        let told: Vec<_> =
            taken.iter().map(|step| (step.points, step.owed, step.reference.as_str(), step.lot.as_deref() == Some(source))).collect();
        assert_eq!(told, [(37, 20, "hotel-1/stay-back", true)], "17 were still in the lot");

        let story = world.membership.lot(&world.admin, source, 0, 100).await.expect("it is there");
        assert_eq!((story.lot.opened.amount, story.lot.remaining, story.lot.held), (37, 0, 0));
        let made = story.made_by.expect("a transaction made it");
        assert_eq!((made.transaction.as_str(), made.member.as_ref(), made.amount.0), ("stay", Some(&member), 3_700));
        let told: Vec<_> = story.steps.iter().map(|step| (step.kind.as_str(), step.amount)).collect();
        assert_eq!(told, [("spend", -30), ("return", 10), ("refund", -17)]);
        let after = story.steps[0].number;
        let rest = world.membership.lot(&world.admin, source, after, 1).await.expect("it is there");
        assert_eq!(rest.steps, story.steps[1..2]);
        assert_eq!(
            world.membership.lot(&world.admin, "transaction/hotel-1/none/points", 0, 1).await.map_err(code).err(),
            Some("not_found")
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_sees_the_figures_of_its_statement_and_no_record_of_another() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        world.month_of_everything().await;
        let reach = Reach::Units(Arc::new([unit("hotel-1")].into_iter().collect()));
        let hotel = Actor::key("key:hotel".into(), vec![Scope::Admin], Some(unit("hotel-1")), reach);
        let (own, mall) = (Some(Line::Hotel), Some(Line::Mall));
        for (column, issuer, spender, seen) in [
            (Column::Issued, own, None, true),
            (Column::Refunded, own, None, true),
            (Column::Expired, own, None, true),
            (Column::Spent, None, own, true),
            (Column::Spent, mall, own, true),
            (Column::Issued, None, None, false),
            (Column::Issued, mall, None, false),
            (Column::Spent, own, None, false),
            (Column::Spent, own, mall, false),
            (Column::Recovered, own, None, false),
        ] {
            let found = world.membership.cell(&hotel, "2026-11", Cell { column, issuer, spender }, None, 100).await.map_err(code);
            assert_eq!(found.as_ref().err(), if seen { None } else { Some(&"forbidden") }, "{column:?} {issuer:?} {spender:?}");
            let steps = found.map(|page| page.steps).unwrap_or_default();
            let foreign = steps.iter().filter(|step| step.issuer != Line::Hotel);
            assert!(foreign.clone().all(|step| step.lot.is_none() && step.reference.starts_with("hotel-1/")), "{steps:?}");
            assert!(steps.iter().filter(|step| step.issuer == Line::Hotel).all(|step| step.lot.is_some()), "{steps:?}");
            assert_eq!(foreign.count() > 0, seen && column == Column::Spent, "{steps:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_questions_are_told_their_field() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let spent = Cell { column: Column::Spent, issuer: None, spender: None };
        assert_eq!(world.membership.cell(&world.app, "2026-11", spent, None, 9).await.map_err(code).err(), Some("forbidden"));
        assert_eq!(world.membership.lot(&world.app, "x", 0, 9).await.map_err(code).err(), Some("forbidden"));
        let issued = Cell { column: Column::Issued, spender: Some(Line::Mall), ..spent };
        for (period, cell, after) in [("2026-13", spent, None), ("2026-11", issued, None), ("2026-11", spent, Some("x"))] {
            let refused = world.membership.cell(&world.admin, period, cell, after, 9).await.map_err(code).err();
            assert_eq!(refused, Some("invalid_request"), "{period} {cell:?} {after:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_among_all_kinds_of_postings_counts_each_once() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let members = [world.join("136").await, world.join("137").await, world.join("138").await, world.join("139").await];
        for (member, n) in members.iter().zip(0..) {
            for place in ["mall-1", "hotel-1", "community-1"] {
                world.report(&purchase(&format!("before-{n}"), place, 200_000, member)).await.expect("it is posted");
            }
        }
        let spends = join_all(members.iter().zip(0..).map(|(member, n)| {
            let (world, key) = (world.clone(), format!("before-{n}"));
            async move { world.spend(member, 333, &key).await.expect("it is enough").id }
        }))
        .await;
        world.kernel.clock.set(at(30));
        let posting = join_all(members.iter().zip(&spends).zip(0..).map(|((member, spend), n)| {
            let world = world.clone();
            async move {
                for round in 0..6 {
                    let (id, place) = (format!("t{n}-{round}"), ["mall-1", "hotel-1"][round % 2]);
                    world.report(&purchase(&id, place, 3_700, member)).await.expect("it is posted");
                    world.spend(member, 7, &id).await.expect("it is enough");
                    world.membership.give_back(&world.app, member, spend, 5, Some(&id)).await.expect("it is left");
                    world.report(&refund(&format!("r{n}-{round}"), &id, place, 1_850)).await.expect("it is taken back");
                }
            }
        }));
        let closing = async {
            while world.count("SELECT COUNT(*) AS n FROM membership_transaction").await < 20 {
                tokio::task::yield_now().await;
            }
            world.membership.close(&world.admin, "2026-11").await.expect("it is over")
        };
        let (_, closed) = tokio::join!(posting, closing);
        let december = world.membership.clearing(&world.admin, "2026-12").await.expect("it is read");
        world.cells_come_to(&closed).await;
        world.cells_come_to(&december).await;
        let total = |of: fn(&heyuan_membership::ClearingLine) -> i64| {
            [&closed, &december].iter().flat_map(|clearing| &clearing.lines).map(of).sum::<i64>()
        };
        // 2,000 points at mall and hotel and 200 for the fees each; then 24 times 37, refunded by half.
        assert_eq!(total(|row| row.issued_points), 4 * 4_200 + 24 * 37);
        assert_eq!(total(|row| row.spent_points), 4 * 333 + 24 * 7 - 24 * 5);
        entries_agree(&world, &closed).await;
        entries_agree(&world, &december).await;
        let settled = world.ledger.turnover(world.kernel.db.reader(), "line/hotel/settlement", month("2026-11")).await.expect("it is read");
        let hotel = closed.lines.iter().find(|row| row.line == Line::Hotel).expect("every line");
        assert_eq!(settled.credits - settled.debits, hotel.net_fen);
        world.sound().await;
    })
    .await;
}

fn month(text: &str) -> Period {
    Period::parse(text).expect("a month")
}

/// Every entry of the lines' accounts of points in a month, summed by account, is what the clearing says.
async fn entries_agree(world: &World, clearing: &Clearing) {
    let period = month(&clearing.period);
    let (mut sums, mut after) = (BTreeMap::<String, i64>::new(), Some(0));
    while let Some(from) = after {
        let page = world.ledger.entry_rows(world.kernel.db.reader(), Some(period), from).await.expect("it is read");
        for row in &page.rows {
            *sums.entry(row[6].clone()).or_default() += row[7].parse::<i64>().expect("an amount");
        }
        after = page.next;
    }
    for row in &clearing.lines {
        for (account, expected) in [
            ("points_issued", -row.issued_points),
            ("points_refunded", row.refunded_points),
            ("points_expired", row.expired_points),
            ("points_spent", row.spent_points),
        ] {
            let id = format!("line/{}/{account}", row.line);
            assert_eq!(sums.get(&id).copied().unwrap_or(0), expected, "{} {id}", clearing.period);
        }
    }
}
