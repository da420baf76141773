//! Months are closed in order, whole, and whatever happens meanwhile.

use crate::world::{World, at, code, purchase, refund, world};
use futures::FutureExt;
use futures::future::join_all;
use heyuan_contract::{Ratio, Timestamp};
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Actor, Reach, Scope};
use heyuan_ledger::{Book, Lots, NewLot, Period, Transfer};
use heyuan_membership::{Clearing, ClearingState};

fn month(text: &str) -> Period {
    Period::parse(text).expect("a month")
}

async fn close(world: &World, period: &str) -> Result<Clearing, &'static str> {
    world.membership.close(&world.admin, period).await.map_err(code)
}

async fn book(world: &World) -> Book {
    world.ledger.book(world.kernel.db.reader(), "points").await.expect("it is open")
}

/// Closes a period in the book, as a close does that is killed before it writes the statement.
async fn shut(world: &World, period: &'static str) {
    let ledger = world.ledger.clone();
    world
        .kernel
        .db
        .write("shut", move |tx| {
            let ledger = ledger.clone();
            async move { ledger.close_book(tx, "points", month(period)).await }.boxed()
        })
        .await
        .expect("it is the first open one");
}

fn points(clearing: &Clearing) -> (i64, i64, i64) {
    let sum = |of: fn(&heyuan_membership::ClearingLine) -> i64| clearing.lines.iter().map(of).sum();
    (sum(|line| line.issued_points), sum(|line| line.refunded_points), sum(|line| line.expired_points))
}

fn import() -> Actor {
    Actor::key("key:import".into(), vec![Scope::App, Scope::Import], None, Reach::Everything)
}

#[tokio::test(flavor = "multi_thread")]
async fn months_close_one_after_the_other_and_add_up() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        // History from before the first start counts in its own months.
        for (id, day, period) in [("old", -60, "2026-09"), ("t1", 0, "2026-11")] {
            let mut report = purchase(id, "mall-1", 700, &member);
            report.occurred_at = at(day);
            assert_eq!(world.report(&report).await.expect("it is posted").period, Some(month(period)), "{id}");
        }
        world.kernel.clock.set(at(60));
        for (id, day, period) in [("t2", 0, "2026-11"), ("t3", 30, "2026-12"), ("t4", 60, "2027-01")] {
            let mut report = purchase(id, "mall-1", 10_000, &member);
            report.occurred_at = at(day);
            assert_eq!(world.report(&report).await.expect("it is posted").period, Some(month(period)), "{id}");
        }
        for (period, why) in
            [("2026-11", "an earlier one has points"), ("2027-01", "it is not over"), ("2001-01", "it lies before the book")]
        {
            assert_eq!(close(&world, period).await.err(), Some("period_not_over"), "{why}");
        }
        assert_eq!(book(&world).await.closed_through(), None, "what is refused closes nothing");
        assert_eq!(points(&close(&world, "2026-09").await.expect("it is the first with points")), (7, 0, 0));
        assert_eq!(close(&world, "2026-11").await.err(), Some("period_not_over"), "from now on each has its turn");
        for (period, issued) in [("2026-10", 0), ("2026-11", 107), ("2026-12", 100)] {
            assert_eq!(points(&close(&world, period).await.expect("it is the next")), (issued, 0, 0), "{period}");
        }
        let before = world.membership.clearing(&world.admin, "2026-08").await.expect("it is read");
        assert_eq!((before.state, points(&before)), (ClearingState::Closed, (0, 0, 0)));
        let mut late = purchase("late", "mall-1", 10_000, &member);
        late.occurred_at = at(-90);
        assert_eq!(world.report(&late).await.expect("it is posted").period, Some(month("2027-01")), "the book begins with its first close");
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM membership_clearing").await, 4, "no month before it got a statement");
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_without_points_may_be_the_first_to_close() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        assert_eq!(points(&close(&world, "2026-10").await.expect("nothing was before it")), (0, 0, 0));
        let member = world.join("138").await;
        let mut report = purchase("t1", "mall-1", 10_000, &member);
        report.occurred_at = at(-60);
        assert_eq!(world.report(&report).await.expect("it is posted").period, Some(month("2026-11")));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_of_1970_count_in_the_first_month_of_the_book() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        let mut old = purchase("old", "mall-1", 700, &member);
        old.occurred_at = Timestamp::clamped(0);
        let old = world.membership.report(&import(), &old, Some("old")).await.expect("it is posted");
        assert_eq!(old.period, Some(month("2021-11")));
        assert_eq!(book(&world).await.opens_at(), month("2021-11"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_that_was_killed_is_finished_by_whoever_comes() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.report(&purchase("t1", "mall-1", 10_000, &member)).await.expect("it is posted");
        world.spend(&member, 30, "s1").await.expect("it is enough");
        world.kernel.clock.set(at(60));
        let open = world.membership.clearing(&world.admin, "2026-11").await.expect("it is read");
        shut(&world, "2026-11").await;
        assert_eq!(world.membership.clearing(&world.admin, "2026-11").await.expect("it is read").state, ClearingState::Closing);
        let late = world.report(&purchase("t2", "mall-1", 5_000, &member)).await.expect("it is posted");
        assert_eq!(late.period, Some(month("2026-12")));

        // The next month's close writes the lost statement first.
        close(&world, "2026-12").await.expect("it is the next");
        let finished = close(&world, "2026-11").await.expect("it is answered");
        assert_eq!((finished.state, &finished.lines, &finished.matrix), (ClearingState::Closed, &open.lines, &open.matrix));
        for line in &finished.lines {
            let account = format!("line/{}/settlement", line.line);
            let turnover = world.ledger.turnover(world.kernel.db.reader(), &account, month("2026-11")).await.expect("it is read");
            assert_eq!(turnover.credits - turnover.debits, line.net_fen, "{line:?}");
        }
        // And the same month's close, also when several come at once.
        world.kernel.clock.set(at(90));
        shut(&world, "2027-01").await;
        let all = join_all((0..4).map(|_| close(&world, "2027-01"))).await;
        assert!(all.iter().all(|one| one.is_ok() && *one == all[0]), "{all:?}");
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM membership_clearing").await, 3);
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM kernel_audit WHERE action = 'close period'").await, 3);
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_among_reports_counts_each_in_one_month() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.kernel.clock.set(at(30));
        let reports: Vec<_> = (0..40).map(|n| purchase(&format!("t{n}"), "mall-1", 1_000, &member)).collect();
        let posting = join_all(reports.iter().map(|report| world.report(report)));
        let closing = async {
            while world.count("SELECT COUNT(*) AS n FROM membership_transaction").await < 3 {
                tokio::task::yield_now().await;
            }
            close(&world, "2026-11").await.expect("it is over")
        };
        let (posted, closed) = tokio::join!(posting, closing);
        let in_november =
            posted.into_iter().map(|view| view.expect("it is posted").period).filter(|period| *period == Some(month("2026-11")));
        let december = world.membership.clearing(&world.admin, "2026-12").await.expect("it is read");
        assert_eq!(points(&closed).0, 10 * i64::try_from(in_november.count()).expect("few"));
        assert_eq!(points(&closed).0 + points(&december).0, 400);
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_release_closed_is_taken_over_once() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.report(&purchase("t1", "mall-1", 10_000, &member)).await.expect("it is posted");
        // That release closed November and December at once and kept it in a table of membership's; only December has a statement.
        world.run("DELETE FROM ledger_book").await;
        world.run("UPDATE membership_book SET closed_through = 202612").await;
        world.kernel.clock.set(at(90));
        world.membership.prepare().await.expect("it takes it over");
        assert_eq!((book(&world).await.opens_at(), book(&world).await.closed_through()), (month("2026-11"), Some(month("2026-12"))));
        let late = world.report(&purchase("t2", "mall-1", 10_000, &member)).await.expect("it is posted");
        assert_eq!(late.period, Some(month("2027-01")));
        assert_eq!(points(&close(&world, "2026-12").await.expect("it is closed")), (0, 0, 0));
        assert_eq!(points(&close(&world, "2026-11").await.expect("it is closed")), (100, 0, 0), "no month stays without its statement");
        world.run("UPDATE membership_book SET closed_through = 202701").await;
        world.membership.prepare().await.expect("it stays open");
        assert_eq!(book(&world).await.closed_through(), Some(month("2026-12")));
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_movement_that_the_clearing_does_not_know_is_never_left_out() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        let lot = NewLot { issuer: "mall".into(), cost: Ratio::new(1, 1).expect("a ratio"), expires_at: at(100) };
        let gift = Transfer {
            key: "gift".into(),
            unit: "points".into(),
            debit: "line/mall/points_issued".into(),
            credit: format!("member/{member}/points"),
            amount: 50,
            occurred_at: at(0),
            period: month("2026-11"),
            kind: "gift".into(),
            reference: "test".into(),
            lots: Lots::New(lot),
        };
        let ledger = world.ledger.clone();
        world
            .kernel
            .db
            .write("post", move |tx| {
                let (ledger, gift) = (ledger.clone(), gift.clone());
                async move { ledger.post(tx, &[gift]).await }.boxed()
            })
            .await
            .expect("the ledger takes any kind");
        assert_eq!(world.membership.clearing(&world.admin, "2026-11").await.map_err(code).err(), Some("internal"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn points_expire_in_their_own_month_whenever_it_is_looked() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (swept, unswept) = (world.join("138").await, world.join("139").await);
        world.report(&purchase("t1", "mall-1", 10_000, &swept)).await.expect("it is posted");
        world.report(&purchase("t2", "mall-1", 10_000, &unswept)).await.expect("it is posted");
        let expiry = world.membership.member(&world.app, &swept).await.expect("it is read").nearest_expiry.expect("points expire");
        // Nobody looks for two months.
        world.kernel.clock.set(at(430));
        // A refund comes before whoever sweeps: the points had expired by then, and it takes nothing back.
        let mut report = refund("r2", "t2", "mall-1", 10_000);
        report.occurred_at = at(430);
        let back = world.report(&report).await.expect("it is taken back");
        assert_eq!((back.points, back.points_owed), (0, 0));
        assert_eq!(world.membership.expire_points(None).await.expect("it moves them out"), 1);
        for member in [&swept, &unswept] {
            let statement = world.membership.statement(&world.app, member, None, 9).await.expect("it is listed");
            let last = &statement[0];
            assert_eq!((last.kind.as_str(), last.amount, last.occurred_at), ("expire", -100, expiry));
            assert_eq!(last.period, month("2027-11"));
        }
        let clearing = world.membership.clearing(&world.admin, "2027-11").await.expect("it is read");
        assert_eq!(points(&clearing), (0, 0, 200));
        world.sound().await;
    })
    .await;
}
