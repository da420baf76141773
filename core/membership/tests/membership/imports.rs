//! Opening balances: each row once, exactly, whoever sends the file how often.

use crate::world::{World, at, code, purchase, refund, unit, world};
use futures::future::join_all;
use heyuan_contract::{Line, Ratio};
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Actor, Reach, Scope};
use heyuan_membership::{Cell, Column, Error, ImportOpenings, ImportedOpenings, LineSum};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const HEADER: &str = "phone,points,cost_fen,expires_on,growth,earned_on,external_id\n";

fn importer() -> Actor {
    Actor::key("key:import".into(), vec![Scope::Import], None, Reach::Everything)
}

fn file(place: &str, rows: &str) -> ImportOpenings {
    ImportOpenings {
        unit: unit(place),
        mapping: String::new(),
        dry_run: false,
        bytes: format!("{HEADER}{rows}").into_bytes(),
        charset: None,
    }
}

impl World {
    async fn import(&self, file: &ImportOpenings, key: &str) -> Result<ImportedOpenings, Error> {
        self.membership.import_openings(&importer(), file, Some(key)).await
    }

    async fn opened(&self, line: &str) -> i64 {
        -self.ledger.balance(&format!("line/{line}/points_opened")).await.expect("it is open").balance
    }
}

fn counts(done: &ImportedOpenings) -> (u64, u64, u64) {
    (done.posted, done.known, done.refused)
}

const ROWS: &str = "138,100,0.5,2027-12-31,6200,2026-05-01,a\n\
    139,50,1/3,2026-12-31,,,b\n\
    138,7,1,2026-11-30,,,c\n\
    137,1,1,2027-12-31,,,d\n\
    139,many,1,2027-12-31,,,e\n\
    139,5,1,2026-11-09,,,f\n";

#[tokio::test(flavor = "multi_thread")]
async fn rows_become_lots_with_their_own_cost_and_expiry_once() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (first, second) = (world.join("138").await, world.join("139").await);
        let import = file("hotel-1", ROWS);
        let dry = world.import(&ImportOpenings { dry_run: true, ..import.clone() }, "k1").await.expect("it is checked");
        assert_eq!((counts(&dry), world.opened("hotel").await), ((3, 0, 3), 0), "a dry run posts nothing");

        let done = world.import(&import, "k1").await.expect("it is imported");
        assert_eq!(counts(&done), (3, 0, 3));
        assert_eq!((&done.lines, &done.errors), (&dry.lines, &dry.errors), "and says what would become of the file");
        assert_eq!(done.lines, [(Line::Hotel, LineSum { rows: 3, points: 157, growth: 6200 })].into());
        let wrong: Vec<_> = done.errors.iter().map(|error| (error.row, error.field)).collect();
        assert_eq!(wrong, [(5, "phone"), (6, "points"), (7, "expires_on")]);
        assert_eq!((world.holds(&first).await, world.holds(&second).await), ((6200, 107, 0), (0, 50, 0)));
        assert_eq!(world.opened("hotel").await, 157);
        let lots = world.ledger.open_lots(&format!("member/{first}/points"), 10).await.expect("they are listed");
        let half = Ratio::new(1, 2).expect("a ratio");
        assert_eq!(lots.iter().map(|lot| (lot.remaining, lot.issuer.as_str())).collect::<Vec<_>>(), [(7, "hotel"), (100, "hotel")]);
        assert_eq!(lots[1].cost, half);
        let day_after = world.kernel.zone.day_start("2028-01-01".parse().expect("a day"));
        assert_eq!(lots[1].expires_at, day_after, "the last day counts whole");
        let tier = world.membership.member(&world.app, &first).await.expect("it is seen").tier;
        assert_eq!(tier, "gold", "growth of this year lifts the tier");

        let again = world.import(&import, "k1").await.expect("it is answered");
        assert_eq!((counts(&again), &again.id, &again.lines), ((0, 3, 3), &done.id, &done.lines));
        let corrected = file("hotel-1", &ROWS.replace("many", "9").replace("138,7,", "138,8,"));
        assert_eq!(world.import(&corrected, "k1").await.map_err(code).err(), Some("idempotency_key_reused"));
        let done = world.import(&corrected, "k2").await.expect("it is imported");
        assert_eq!(counts(&done), (1, 2, 3), "the mended row alone; a changed one is told");
        assert!(done.errors.iter().any(|error| (error.row, error.field) == (4, "external_id")), "{:?}", done.errors);
        assert_eq!((world.opened("hotel").await, world.holds(&second).await.1), (166, 59));
        world.kernel.clock.set(at(200));
        let tier = world.membership.member(&world.app, &first).await.expect("it is seen").tier;
        assert_eq!(tier, "silver", "a year after it was earned, not after it was imported");
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_without_a_name_is_known_again_in_whichever_file_it_comes() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        let same = "138,10,1,2027-12-31,,,\n";
        let import = file("mall-1", &same.repeat(3));
        assert_eq!(counts(&world.import(&import, "k1").await.expect("it is imported")), (3, 0, 0));
        assert_eq!(counts(&world.import(&import, "k1").await.expect("it is answered")), (0, 3, 0));
        assert_eq!(world.holds(&member).await.1, 30);
        // A corrected file under a new key: the good rows are known, the mended one is new, and one more that is alike counts once more.
        let corrected = file("mall-1", &format!("{same}138,7,1,2027-12-31,,,\n{same}139,5,1,2027-12-31,,,\n{}", same.repeat(2)));
        let dry = world.import(&ImportOpenings { dry_run: true, ..corrected.clone() }, "k2").await.expect("it is checked");
        assert_eq!(counts(&dry), (2, 3, 1), "a dry run tells what is known");
        assert_eq!(counts(&world.import(&corrected, "k2").await.expect("it is imported")), (2, 3, 1));
        assert_eq!(counts(&world.import(&corrected, "k3").await.expect("it is imported")), (0, 5, 1));
        assert_eq!(world.holds(&member).await.1, 47);
        assert_eq!(
            counts(&world.import(&file("hotel-1", same), "k4").await.expect("it is imported")),
            (1, 0, 0),
            "another unit's is its own"
        );
        world.run("DELETE FROM membership_opening").await;
        world.import(&import, "k1").await.expect("it is taken");
        assert_eq!(world.holds(&member).await.1, 57, "the book itself takes no key twice");
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_an_earlier_release_took_by_their_numbers_are_known() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        let same = "138,10,1,2027-12-31,,,\n";
        assert_eq!(counts(&world.import(&file("mall-1", &same.repeat(2)), "k1").await.expect("it is imported")), (2, 0, 0));
        // As that release kept them: by import and line of the file.
        world.run("UPDATE membership_opening SET opening = 'row/' || import || '/' || SUBSTR(opening, LENGTH(opening))").await;
        assert_eq!(counts(&world.import(&file("mall-1", &same.repeat(2)), "k1").await.expect("it is answered")), (0, 2, 0));
        assert_eq!(counts(&world.import(&file("mall-1", &same.repeat(2)), "k2").await.expect("it is imported")), (0, 2, 0));
        assert_eq!(world.holds(&member).await.1, 20);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opening_balance_pays_first_what_its_member_owes() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.report(&purchase("t1", "mall-1", 10_000, &member)).await.expect("it is posted");
        world.spend(&member, 100, "s1").await.expect("it spends");
        world.report(&refund("r1", "t1", "mall-1", 10_000)).await.expect("it is refunded");
        assert_eq!(world.holds(&member).await, (0, 0, 100));
        let import = file("mall-1", "138,60,1,2027-12-31,,,a\n138,90,1,2027-12-31,,,b\n");
        assert_eq!(counts(&world.import(&import, "k1").await.expect("it is imported")), (2, 0, 0));
        assert_eq!((world.holds(&member).await, world.opened("mall").await), ((0, 50, 0), 150));
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_rows_go_in_several_units_and_imports_at_once_post_each_row_once() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let members = join_all((0..5).map(|place| world.join(["a", "b", "c", "d", "e"][place]))).await;
        let rows: String = (0..450).map(|row| format!("{},2,1,2027-12-31,,,x{row}\n", ["a", "b", "c", "d", "e"][row % 5])).collect();
        let import = Arc::new(file("mall-1", &rows));
        let done = join_all((0..3).map(|place| {
            let (world, import) = (world.clone(), import.clone());
            tokio::spawn(async move { world.import(&import, &format!("k{}", place % 2)).await.expect("it is imported") })
        }))
        .await;
        let done: Vec<ImportedOpenings> = done.into_iter().map(|one| one.expect("nobody panics")).collect();
        assert_eq!(done.iter().map(|one| one.posted).sum::<u64>(), 450);
        assert!(done.iter().all(|one| one.posted + one.known == 450 && one.refused == 0), "{done:?}");
        assert_eq!(world.opened("mall").await, 900);
        for member in &members {
            assert_eq!(world.holds(member).await.1, 180);
        }
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocked_and_closed_members_get_nothing_and_the_error_file_says_so() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (blocked, closed) = (world.join("138").await, world.join("139").await);
        world.membership.block(&world.admin, &blocked, "resells vouchers").await.expect("it is blocked");
        world.membership.close_member(&world.admin, &closed, "gone", Some("c")).await.expect("it is closed");
        let mut import = file("mall-1", "");
        import.mapping = "member:账号,points:余额".into();
        import.bytes = format!("账号,余额,cost_fen,expires_on\n{blocked},1,1,2027-12-31\n{closed},1,1,2027-12-31\nmbr_x,1,1,2027-12-31\n").into();
        let done = world.import(&import, "k1").await.expect("it is imported");
        assert_eq!(counts(&done), (0, 0, 3));
        let csv = world.membership.import_errors(&world.admin, &done.id).await.expect("it is kept");
        let expected = "row,field,detail\n2,member,\"the member is blocked\"\n3,member,\"the member has left\"\n4,member,\"there is no such member\"\n";
        assert_eq!(csv, expected);
        let hotel = Actor::key("key:h".into(), vec![Scope::Admin], Some(unit("hotel-1")), Reach::Units(Arc::new([unit("hotel-1")].into())));
        assert_eq!(world.membership.import_errors(&hotel, &done.id).await.map_err(code).err(), Some("not_found"));
        assert_eq!(world.membership.import_errors(&world.app, &done.id).await.map_err(code).err(), Some("forbidden"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_no_rows_fault_and_an_erased_person_is_one_row() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (member, _) = (world.join("138").await, world.join("139").await);
        let import = file("mall-1", "138,10,1,2027-12-31,,,a\n139,10,1,2027-12-31,,,b\nno id,10,1,2027-12-31,,,c\n");
        world.people.away.store(true, Ordering::Relaxed);
        assert_eq!(world.import(&import, "k1").await.map_err(code).err(), Some("unavailable"), "nobody is told of bad phone numbers");
        world.people.away.store(false, Ordering::Relaxed);
        world.people.gone.lock().expect("nobody panics with it").insert("anc_139".into());
        let done = world.import(&import, "k1").await.expect("the same file again");
        assert_eq!(counts(&done), (1, 0, 2));
        let told: Vec<_> = done.errors.iter().map(|error| (error.row, error.field, error.detail.split(' ').next())).collect();
        assert_eq!(told, [(3, "phone", Some("nobody")), (4, "phone", Some("expected"))]);
        assert_eq!(world.holds(&member).await.1, 10);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_imports_for_its_own_units_and_lines() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        let lines =
            |rows: &str| ImportOpenings { bytes: format!("phone,points,cost_fen,expires_on,line\n{rows}").into(), ..file("group", "") };
        let import = lines("138,1,1,2027-12-31,hotel\n138,2,1,2027-12-31,mall\n138,4,1,2027-12-31,\n");
        let done = world.import(&import, "k1").await.expect("the whole group's key names lines");
        assert_eq!((counts(&done), world.opened("hotel").await, world.opened("mall").await), ((2, 0, 1), 1, 2));
        let reach = Reach::Units(Arc::new([unit("hotel-1"), unit("group")].into()));
        let of_unit = Actor::key("key:h".into(), vec![Scope::Import], Some(unit("hotel-1")), reach);
        let attempt = |actor: Actor, import: ImportOpenings| {
            let world = world.clone();
            async move { world.membership.import_openings(&actor, &import, Some("k9")).await.map_err(code).err() }
        };
        let row = "138,1,1,2027-12-31,,,\n";
        assert_eq!(attempt(of_unit.clone(), file("mall-1", row)).await, Some("forbidden"));
        assert_eq!(attempt(of_unit.clone(), file("group", row)).await, Some("invalid_request"));
        assert_eq!(attempt(world.app.clone(), file("mall-1", row)).await, Some("forbidden"));
        assert_eq!(attempt(importer(), file("nowhere", row)).await, Some("invalid_request"));
        assert_eq!(attempt(importer(), ImportOpenings { bytes: b"x\n".to_vec(), ..file("mall-1", "") }).await, Some("invalid_request"));
        let without_key = world.membership.import_openings(&importer(), &file("mall-1", row), None).await;
        assert_eq!(without_key.map_err(code).err(), Some("idempotency_key_missing"));
        assert_eq!(world.holds(&member).await.1, 3, "none of these posted anything");
        let unit_rows = lines("138,1,1,2027-12-31,mall\n138,1,1,2027-12-31,hotel\n");
        let done = world.membership.import_openings(&of_unit, &ImportOpenings { unit: unit("hotel-1"), ..unit_rows }, Some("k2")).await;
        assert_eq!(counts(&done.expect("it is imported")), (1, 0, 1), "a unit issues for its own line alone");
        world.kernel.clock.set(at(500));
        world.membership.expire_points(None).await.expect("they expire");
        assert_eq!(world.holds(&member).await.1, 0);
        world.sound().await;
    })
    .await;
}

/// The largest primes below a million: costs of these denominators have nothing in common.
const PRIMES: [i64; 12] = [999_983, 999_979, 999_961, 999_959, 999_953, 999_931, 999_917, 999_907, 999_883, 999_863, 999_853, 999_809];

#[tokio::test(flavor = "multi_thread")]
async fn a_month_with_costs_of_unrelated_denominators_is_summed_and_closed() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        let rows: String = PRIMES.iter().map(|prime| format!("138,1000,2000003/{prime},2027-12-31,,,p{prime}\n")).collect();
        assert_eq!(counts(&world.import(&file("hotel-1", &rows), "k1").await.expect("it is imported")), (12, 0, 0));
        world.spend(&member, 11_500, "s1").await.expect("it is enough");
        world.kernel.clock.set(at(30));
        let open = world.membership.clearing(&world.admin, "2026-11").await.expect("it is summed");
        let closed = world.membership.close(&world.admin, "2026-11").await.expect("it is closed");
        assert_eq!((&open.lines, &open.matrix), (&closed.lines, &closed.matrix));
        let hotel = closed.lines.iter().find(|line| line.line == Line::Hotel).expect("its line");
        // Each lot costs 1000 × 2000003 ÷ its prime, a little over 2000 fen; all of them come to 24002.04.
        assert_eq!((hotel.opened_points, hotel.opened_fen, hotel.spent_points), (12_000, 24_002, 11_500));
        assert_eq!(closed.centre.net_fen, -hotel.net_fen);
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_balances_that_are_taken_can_be_read_settled_and_closed() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        world.join("138").await;
        let rows = "138,1000000000,10000,2027-12-31,,,a\n138,1000000000,10000,2027-12-31,,,b\n138,999999999,9999.999999,2027-12-31,,,c\n";
        assert_eq!(counts(&world.import(&file("hotel-1", rows), "k1").await.expect("it is imported")), (3, 0, 0));
        let cell = Cell { column: Column::Opened, issuer: None, spender: None };
        let page = world.membership.cell(&world.admin, "2026-11", cell, None, 10).await.expect("it is read");
        let costs: Vec<_> = page.steps.iter().map(|step| (step.cost_numerator, step.cost_denominator)).collect();
        let most = 10_000_000_000_000;
        assert_eq!(costs, [(most, 1), (most, 1), (999_999_999 * 9_999_999_999, 1_000_000)]);
        world.kernel.clock.set(at(30));
        let closed = world.membership.close(&world.admin, "2026-11").await.expect("it is settled in several transfers");
        let hotel = closed.lines.iter().find(|line| line.line == Line::Hotel).expect("its line");
        assert_eq!((hotel.opened_points, hotel.opened_fen), (2_999_999_999, 29_999_999_989_000));
        for (account, fen) in [("line/hotel/settlement", hotel.net_fen), ("centre/settlement", -hotel.net_fen)] {
            assert_eq!(world.ledger.balance(account).await.expect("it is open").balance, fen, "{account}");
        }
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM ledger_transfer WHERE kind = 'clearing'").await, 3);
        world.sound().await;
    })
    .await;
}
