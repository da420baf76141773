//! The check list of a close: what blocks, what warns, and what is kept with the month.

use crate::world::{World, at, code, purchase, refund, unit, world};
use futures::FutureExt;
use heyuan_contract::{Line, UnitKind};
use heyuan_harness::for_both_databases;
use heyuan_kernel::org::OrgUnit;
use heyuan_kernel::{Actor, Problem, Reach, Scope};
use heyuan_ledger::Hold;
use heyuan_membership::{Answer, CheckState, Checklist, ClearingState, Closing, Error, Say};
use std::sync::Arc;

impl World {
    async fn checks(&self, period: &str) -> Checklist {
        self.membership.checklist(&self.admin, period).await.expect("it is read")
    }
}

/// Sets points aside, as an order does.
async fn hold(world: &World, hold: Hold) {
    let ledger = world.ledger.clone();
    world
        .kernel
        .db
        .write("hold", move |tx| {
            let (ledger, hold) = (ledger.clone(), hold.clone());
            async move { ledger.hold(tx, &hold).await }.boxed()
        })
        .await
        .expect("it is set aside");
}

/// The entries that are not fine, with their counts.
fn told(list: &Checklist) -> Vec<(&str, CheckState, i64)> {
    let open = list.checks.iter().filter(|check| check.state != CheckState::Ok);
    open.map(|check| (check.code.as_str(), check.state, check.count)).collect()
}

/// The codes of a refused close's own list, beside the problem's code.
fn refused(error: Error) -> (&'static str, Vec<String>) {
    let Error::NotReady(not_ready) = error else { panic!("{error:?} has no list") };
    let against = not_ready.checks.iter().filter(|check| check.state == Blocking).map(|check| check.code.clone());
    let against = against.collect();
    (Problem::from(Error::NotReady(not_ready)).code().code, against)
}

use CheckState::{Blocking, Warning};

#[tokio::test(flavor = "multi_thread")]
async fn a_list_tells_what_blocks_and_what_warns_and_the_close_answers_the_same() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.report(&purchase("t1", "mall-1", 10_000, &member)).await.expect("it is posted");
        let list = world.checks("2026-11").await;
        assert_eq!((list.state, list.closed.as_ref()), (ClearingState::Open, None));
        let of_it = told(&list);
        assert_eq!(of_it, [("month_over", Blocking, 1), ("reconciliation_missing", Warning, 1), ("seals_behind", Warning, 1)]);
        assert!(list.checks.iter().all(|check| !check.words.is_empty() && !check.words_zh.is_ascii()), "{list:?}");
        let words = &list.checks.iter().find(|check| check.code == "reconciliation_missing").expect("it is there").words;
        assert_eq!(words, "no books of the month came from: mall");
        let close = |period: &'static str| world.membership.close(&world.admin, period);
        assert_eq!(refused(close("2026-11").await.expect_err("it is not over")), ("period_not_over", vec!["month_over".to_owned()]));
        world.kernel.clock.set(at(60));
        let early = refused(close("2026-12").await.expect_err("November is open"));
        assert_eq!(early, ("period_not_over", vec!["earlier_months_closed".to_owned()]));
        let before = refused(close("2001-01").await.expect_err("it lies before the book"));
        assert_eq!(before, ("period_not_over", vec!["within_book".to_owned()]));
        assert_eq!(world.membership.checklist(&world.app, "2026-11").await.map_err(code).err(), Some("forbidden"));
        for month in ["2026-00", "9999-12"] {
            let answers = [
                world.membership.checklist(&world.admin, month).await.map_err(code).err(),
                world.membership.close(&world.admin, month).await.map_err(code).err(),
                world.membership.clearing(&world.admin, month).await.map_err(code).err(),
                world.membership.statements(&world.admin, month).await.map_err(code).err(),
                world.membership.reconcile(&world.admin, month, Line::Mall, b"", None).await.map_err(code).err(),
            ];
            assert_eq!(answers, [Some("invalid_request"); 5], "{month}");
        }
        let last = world.checks("9998-12").await;
        assert!(told(&last).iter().any(|(code, state, _)| (*code, *state) == ("month_over", Blocking)), "{last:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn warnings_are_kept_with_the_month_and_refuse_only_when_asked() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.report(&purchase("t1", "mall-1", 10_000, &member)).await.expect("it is posted");
        world.report(&refund("r2", "unheard-of", "hotel-1", 500)).await.expect("it waits");
        let order = Hold {
            key: "hold/1".into(),
            unit: "points".into(),
            debit: format!("member/{member}/points"),
            credit: "line/hotel/points_spent".into(),
            amount: 10,
            kind: "spend".into(),
            reference: "test".into(),
            at: at(0),
            expires_at: at(1),
        };
        hold(&world, order).await;
        let books = "transaction,unit,kind,amount_fen\nt1,mall-1,purchase,9000\n";
        world.membership.reconcile(&world.admin, "2026-11", Line::Mall, books.as_bytes(), None).await.expect("it is compared");
        world.kernel.clock.set(at(30));
        let list = world.checks("2026-11").await;
        let expected = [
            ("refunds_waiting", Warning, 1),
            ("holds_run_out", Warning, 1),
            ("reconciliation_missing", Warning, 1),
            ("reconciliation_differs", Warning, 1),
            ("seals_behind", Warning, 1),
        ];
        assert_eq!(told(&list).iter().map(|told| (told.0, told.1)).collect::<Vec<_>>(), expected.map(|told| (told.0, told.1)));
        assert_eq!(told(&list)[..4], expected[..4]);

        let strict = Closing { strict: true, reason: None };
        let error = world.membership.close_with(&world.admin, "2026-11", &strict).await.expect_err("there are warnings");
        assert_eq!(refused(error), ("period_not_ready", vec![]));
        for reason in ["", " ", "a\nb"] {
            let closing = Closing { strict: false, reason: Some(reason.into()) };
            let wrong = world.membership.close_with(&world.admin, "2026-11", &closing).await.map_err(code).err();
            assert_eq!(wrong, Some("invalid_request"), "{reason:?}");
        }
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM membership_clearing").await, 0, "what is refused closes nothing");
        let closing = Closing { strict: false, reason: Some("the hotel's books come next week".into()) };
        world.membership.close_with(&world.admin, "2026-11", &closing).await.expect("warnings are somebody's decision");

        // What is mended later leaves the list as the month was closed with.
        let books = "transaction,unit,kind,amount_fen\nt1,mall-1,purchase,10000\n";
        world.membership.reconcile(&world.admin, "2026-11", Line::Mall, books.as_bytes(), None).await.expect("it is compared");
        let kept = world.checks("2026-11").await;
        assert_eq!((kept.state, &kept.checks), (ClearingState::Closed, &list.checks));
        let closed = kept.closed.expect("somebody closed it");
        assert_eq!((closed.actor.as_str(), closed.at), ("key:admin", at(30)));
        assert_eq!(closed.reason.as_deref(), Some("the hotel's books come next week"));
        let audited = "SELECT COUNT(*) AS n FROM kernel_audit WHERE action = 'close period' AND detail LIKE '%refunds_waiting%'
                       AND detail LIKE '%next week%'";
        assert_eq!(world.count(audited).await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expired_is_moved_out_before_the_close_and_counts_in_its_month() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.report(&purchase("t1", "mall-1", 10_000, &member)).await.expect("it is posted");
        // Nobody looks for a year and two months, then every month is closed.
        world.kernel.clock.set(at(430));
        assert_eq!(told(&world.checks("2027-10").await)[0], ("earlier_months_closed", Blocking, 11));
        let list = world.checks("2027-11").await;
        assert_eq!(told(&list)[..2], [("earlier_months_closed", Blocking, 12), ("points_past_expiry", Blocking, 100)]);
        let mut month = heyuan_ledger::Period::parse("2026-11").expect("a month");
        while month.number() <= 202_711 {
            let closed = world.membership.close(&world.admin, &month.to_string()).await.expect("it is the next");
            let expired: i64 = closed.lines.iter().map(|line| line.expired_points).sum();
            assert_eq!(expired, if month.number() == 202_711 { 100 } else { 0 }, "{month}");
            month = month.next();
        }
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_book_that_does_not_agree_is_not_closed() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.report(&purchase("t1", "mall-1", 10_000, &member)).await.expect("it is posted");
        world.kernel.clock.set(at(30));
        world.run("UPDATE ledger_stripe SET debits = debits + 1 WHERE debits = 100").await;
        assert_eq!(told(&world.checks("2026-11").await)[0], ("books_agree", Blocking, 1));
        let error = world.membership.close(&world.admin, "2026-11").await.expect_err("an account differs");
        assert_eq!(refused(error), ("period_not_ready", vec!["books_agree".to_owned()]));
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM ledger_book WHERE closed_through > 0").await, 0, "the month is still open");
        world.run("UPDATE ledger_stripe SET debits = debits - 1 WHERE debits = 101").await;
        world.membership.close(&world.admin, "2026-11").await.expect("it agrees again");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_disputes_of_earlier_months_are_told() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.report(&purchase("t1", "mall-1", 10_000, &member)).await.expect("it is posted");
        world.kernel.clock.set(at(60));
        world.membership.close(&world.admin, "2026-11").await.expect("it is over");
        let reach = Reach::Units(Arc::new([unit("mall-1")].into_iter().collect()));
        let mall = Actor::key("key:mall".into(), vec![Scope::Admin], Some(unit("mall-1")), reach);
        world.membership.say(&mall, "2026-11", Line::Mall, Say::Dispute("not ours".into())).await.expect("it is its own");
        assert_eq!(told(&world.checks("2026-12").await), [("disputes_open", Warning, 1)]);
        let answer = Answer { words: "it is".into(), correction_fen: 0, dispute: None };
        world.membership.answer(&world.admin, "2026-11", Line::Mall, &answer, Some("a1")).await.expect("it is disputed");
        assert!(told(&world.checks("2026-12").await).is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_books_of_one_unit_are_not_those_of_its_line_and_overlapping_ones_count_once() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        let (id, parent) = (unit("mall-2"), Some(unit("group")));
        let second = OrgUnit { id, parent, name: "mall-2".into(), kind: UnitKind::Mall, line: Some(Line::Mall) };
        world.kernel.org.add(vec![second]).await.expect("it is added");
        world.report(&purchase("t1", "mall-1", 10_000, &member)).await.expect("it is posted");
        world.report(&purchase("t2", "mall-2", 10_000, &member)).await.expect("it is posted");
        let counted = async || {
            let list = world.checks("2026-11").await;
            let of = |code: &str| list.checks.iter().find(|check| check.code == code).expect("it is there").count;
            (of("reconciliation_missing"), of("reconciliation_differs"))
        };
        let send = async |actor: &Actor, rows: &str| {
            let books = format!("transaction,unit,kind,amount_fen\n{rows}");
            world.membership.reconcile(actor, "2026-11", Line::Mall, books.as_bytes(), None).await.expect("it is compared");
        };
        let key = |place: &str| {
            let reach = Reach::Units(Arc::new([unit(place)].into_iter().collect()));
            Actor::key(format!("key:{place}"), vec![Scope::Admin], Some(unit(place)), reach)
        };
        assert_eq!(counted().await, (1, 0));
        send(&key("mall-1"), "t1,mall-1,purchase,9000\n").await;
        assert_eq!(counted().await, (1, 1), "the second mall sent nothing");
        send(&key("mall-2"), "t2,mall-2,purchase,9000\n").await;
        assert_eq!(counted().await, (0, 2));
        send(&world.admin, "t1,mall-1,purchase,9000\nt2,mall-2,purchase,9000\n").await;
        assert_eq!(counted().await, (0, 2), "the whole group's books are the same two");
        world.kernel.clock.set(at(1));
        send(&world.admin, "t1,mall-1,purchase,10000\nt2,mall-2,purchase,10000\n").await;
        assert_eq!(counted().await, (0, 0), "what both malls sent before is older");
        world.kernel.clock.set(at(2));
        send(&key("mall-2"), "t2,mall-2,purchase,9000\n").await;
        assert_eq!(counted().await, (0, 1), "a newer comparison is not forgotten");
    })
    .await;
}
