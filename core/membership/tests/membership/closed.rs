//! What was closed is proved: a statement, a correction or a book that somebody changed is named.

use crate::world::{World, at, purchase, unit, world};
use heyuan_contract::Line;
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Actor, Reach, Scope};
use heyuan_membership::{Amount, Answer, Correction, Say, Verdict, verify_clearing};
use std::sync::Arc;

/// The checks and places that a proof finds.
async fn found(world: &World) -> Vec<(&'static str, String)> {
    let proof = verify_clearing(&world.kernel, &world.ledger).await.expect("it can be read");
    proof.findings.into_iter().map(|finding| (finding.check, finding.place)).collect()
}

/// Two closed months with a dispute that was answered and a correction that somebody else approved.
async fn closed(world: &World) {
    let member = world.join("138").await;
    world.report(&purchase("t1", "mall-1", 10_000, &member)).await.expect("it is posted");
    world.report(&purchase("t2", "hotel-1", 10_000, &member)).await.expect("it is posted");
    world.spend(&member, 70, "s1").await.expect("it is enough");
    world.kernel.clock.set(at(30));
    world.membership.close(&world.admin, "2026-11").await.expect("it is over");
    let reach = Reach::Units(Arc::new([unit("hotel-1")].into_iter().collect()));
    let hotel = Actor::key("key:hotel".into(), vec![Scope::Admin], Some(unit("hotel-1")), reach);
    world.membership.say(&hotel, "2026-11", Line::Hotel, Say::Dispute("too little".into())).await.expect("it is its own");
    let answer = Answer { words: "take it".into(), correction_fen: 60, dispute: None };
    world.membership.answer(&world.admin, "2026-11", Line::Hotel, &answer, Some("a1")).await.expect("it is disputed");
    let correction = Correction {
        of_period: "2026-11".into(),
        line: Line::Mall,
        counter: Some(Line::Hotel),
        amount: Amount::Fen(25),
        reason: "a lost receipt".into(),
        dispute: None,
    };
    let proposed = world.membership.propose_correction(&world.admin, &correction, Some("c1")).await.expect("it is proposed");
    let second = Actor::key("key:second".into(), vec![Scope::Admin], None, Reach::Everything);
    world.membership.decide_correction(&second, &proposed.id, Verdict::Approve).await.expect("somebody else");
    world.kernel.clock.set(at(60));
    world.membership.close(&world.admin, "2026-12").await.expect("it is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_changes_of_a_closed_month_is_named() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        closed(&world).await;
        assert_eq!(found(&world).await, vec![], "nobody changed anything");
        let tables = ["membership_clearing", "membership_closing", "membership_correction", "ledger_book", "ledger_stripe"];
        for table in tables {
            world.run(&format!("CREATE TABLE kept_{table} AS SELECT * FROM {table}")).await;
        }
        for (change, check, place) in [
            (r#"UPDATE membership_clearing SET statement = REPLACE(statement, '"issued_fen":100', '"issued_fen":90')"#, "statement", "2026-11"),
            (r#"UPDATE membership_clearing SET statement = REPLACE(statement, '"fen":', '"fen": ')"#, "statement", "2026-11"),
            ("UPDATE membership_clearing SET statement = '{}' WHERE period = 202612", "statement", "2026-12"),
            ("DELETE FROM membership_clearing WHERE period = 202612", "statement", "2026-12"),
            ("UPDATE membership_correction SET fen = 61 WHERE fen = 60", "correction", "2026-11 hotel"),
            ("DELETE FROM membership_correction WHERE fen = 60", "correction", "2026-11 hotel"),
            (
                "INSERT INTO membership_correction (id, of_period, line, fen, period, at) VALUES ('cor_x', 202612, 'office', 9, 202701, 0)",
                "correction",
                "2026-12 office",
            ),
            ("UPDATE ledger_book SET closed_through = 202611 WHERE name = 'points'", "book", "2026-12"),
            ("UPDATE ledger_book SET closed_through = 202701 WHERE name = 'points'", "book", "2027-01"),
            ("UPDATE ledger_book SET opens_at = 202612 WHERE name = 'points'", "book", "2026-11"),
            (
                "UPDATE ledger_stripe SET credits = credits + 5 WHERE account = (SELECT no FROM ledger_account WHERE id = 'centre/settlement')",
                "settlement",
                "centre/settlement",
            ),
        ] {
            world.run(change).await;
            let found = found(&world).await;
            assert!(found.iter().any(|(code, named)| *code == check && named.contains(place)), "{change}: {found:?}");
            for table in tables {
                world.run(&format!("DELETE FROM {table}")).await;
                world.run(&format!("INSERT INTO {table} SELECT * FROM kept_{table}")).await;
            }
        }
        assert_eq!(found(&world).await, vec![]);
    })
    .await;
}
