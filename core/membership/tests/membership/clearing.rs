//! Months, expiry and tiers: what time does to the books.

use crate::world::{NOW_MS, at, code, purchase, refund, world};
use heyuan_contract::{Line, Timestamp};
use heyuan_harness::for_both_databases;
use heyuan_ledger::Period;
use heyuan_membership::{Clearing, ClearingState};

fn period(text: &str) -> Period {
    Period::parse(text).expect("a month")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_month_equals_the_accounts_and_never_changes() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        for (id, place, fen) in [("t1", "mall-1", 10_000), ("t2", "hotel-1", 3_700), ("t3", "community-1", 123_456)] {
            world.report(&purchase(id, place, fen, &member)).await.expect("it is posted");
        }
        world.spend(&member, 150, "s1").await.expect("it is enough");
        world.report(&refund("r1", "t1", "mall-1", 10_000)).await.expect("it is taken back");
        assert_eq!(world.membership.close(&world.admin, "2026-11").await.map_err(code).err(), Some("period_not_over"));
        assert_eq!(world.membership.clearing(&world.admin, "2026-13").await.map_err(code).err(), Some("invalid_request"));
        assert_eq!(world.membership.clearing(&world.app, "2026-11").await.map_err(code).err(), Some("forbidden"));
        world.kernel.clock.set(at(30));
        let open = world.membership.clearing(&world.admin, "2026-11").await.expect("it is read");
        assert_eq!(open.state, ClearingState::Open);
        let closed = world.membership.close(&world.admin, "2026-11").await.expect("it is over");
        assert_eq!((closed.state, &closed.lines, &closed.matrix), (ClearingState::Closed, &open.lines, &open.matrix));
        equals_accounts(&world, &closed, period("2026-11")).await;

        // A fact of November that comes now counts in December; a retry of the close changes nothing.
        let late = world.report(&purchase("t4", "mall-1", 5_000, &member)).await.expect("it is posted");
        assert_eq!(late.period, Some(period("2026-12")));
        let late = world.report(&refund("r2", "t2", "hotel-1", 3_700)).await.expect("it is taken back");
        assert_eq!(late.period, Some(period("2026-12")));
        assert_eq!(world.membership.close(&world.admin, "2026-11").await.expect("it is answered"), closed);
        assert_eq!(world.membership.clearing(&world.admin, "2026-11").await.expect("it is read"), closed);
        equals_accounts(&world, &closed, period("2026-11")).await;
        assert_eq!(world.membership.close(&world.admin, "2026-10").await.map_err(code).err(), Some("period_not_over"));
        world.sound().await;
    })
    .await;
}

async fn equals_accounts(world: &crate::world::World, clearing: &Clearing, period: Period) {
    let reader = world.kernel.db.reader();
    for line in &clearing.lines {
        let turnover = async |what: &str| {
            let account = format!("line/{}/{what}", line.line);
            let turnover = world.ledger.turnover(reader, &account, period).await.expect("it is read");
            turnover.credits - turnover.debits
        };
        assert_eq!(-turnover("points_issued").await, line.issued_points, "{line:?}");
        assert_eq!(turnover("points_refunded").await, line.refunded_points, "{line:?}");
        assert_eq!(turnover("points_expired").await, line.expired_points, "{line:?}");
        assert_eq!(turnover("points_spent").await, line.spent_points, "{line:?}");
        assert_eq!(turnover("settlement").await, line.net_fen, "{line:?}");
    }
    let line = |wanted: Line| clearing.lines.iter().find(|line| line.line == wanted).expect("every line is there");
    assert_eq!((line(Line::Mall).issued_points, line(Line::Mall).refunded_points), (100, 100));
    let hotel = line(Line::Hotel);
    // 37 points at 1.2 fen are 44.4 fen, rounded once.
    assert_eq!((hotel.issued_points, hotel.issued_fen, hotel.spent_points), (37, 44, 150));
    assert_eq!(clearing.matrix.iter().map(|cell| cell.points).sum::<i64>(), 150);
}

#[tokio::test(flavor = "multi_thread")]
async fn points_expire_visibly_and_tiers_are_lost_by_time() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        let gold = world.report(&purchase("t1", "mall-1", 600_000, &member)).await.expect("it is posted");
        assert_eq!(gold.tier, "gold");
        let expiry = world.membership.member(&world.app, &member).await.expect("it is read").nearest_expiry.expect("points expire");
        assert!(expiry.ms() > at(365).ms() && expiry.ms() <= at(366).ms());
        world.kernel.clock.set(Timestamp::clamped(expiry.ms() - 1));
        assert_eq!(world.membership.expire_points(None).await.expect("it looks"), 0);
        assert_eq!(world.holds(&member).await.1, 6_000);
        world.kernel.clock.set(expiry);
        assert_eq!(world.holds(&member).await.1, 0, "what is past can't be spent before it is moved out");
        assert_eq!(world.spend(&member, 1, "s").await.map_err(code).err(), Some("not_enough_points"));
        assert_eq!(world.membership.expire_points(None).await.expect("it moves them out"), 1);
        assert_eq!(world.membership.expire_points(None).await.expect("once"), 0);
        let statement = world.membership.statement(&world.app, &member, None, 1).await.expect("it is listed");
        assert_eq!((statement[0].kind.as_str(), statement[0].amount), ("expire", -6_000));
        assert_eq!(world.membership.settle_due_tiers(None).await.expect("it looks"), 1);
        assert_eq!(world.membership.settle_due_tiers(None).await.expect("it looks"), 0);
        assert_eq!(world.membership.member(&world.app, &member).await.expect("it is read").tier, "silver");
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM kernel_outbox WHERE name = 'tier.changed.v1'").await, 2);

        // A refund of what has expired unused is owed by nobody: its line has the points back already.
        let mut report = refund("r1", "t1", "mall-1", 600_000);
        report.occurred_at = Timestamp::clamped(NOW_MS);
        let back = world.report(&report).await.expect("it is taken back");
        assert_eq!((back.growth, back.points, back.points_owed), (-6_000, 0, 0));
        world.sound().await;
    })
    .await;
}
