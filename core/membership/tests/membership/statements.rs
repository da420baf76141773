//! Statements: each line confirms its own or disputes it, and a correction counts in the open month.

use crate::world::{World, at, code, purchase, unit, world};
use futures::future::join_all;
use heyuan_contract::Line;
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Actor, Reach, Scope};
use heyuan_membership::{Answer, Error, LineStatement, Say, StatementState};
use std::sync::Arc;

fn key_of(name: &str, units: &[&str]) -> Actor {
    let reach = units.iter().map(|id| unit(id)).collect();
    Actor::key(format!("key:{name}"), vec![Scope::Admin], Some(unit(units[0])), Reach::Units(Arc::new(reach)))
}

impl World {
    async fn say(&self, actor: &Actor, line: Line, say: Say) -> Result<LineStatement, Error> {
        self.membership.say(actor, "2026-11", line, say).await
    }

    /// Answers the hotel.
    async fn answer(&self, actor: &Actor, answer: Answer, key: Option<&str>) -> Result<LineStatement, Error> {
        self.membership.answer(actor, "2026-11", Line::Hotel, &answer, key).await
    }
}

fn answer(words: &str, correction_fen: i64) -> Answer {
    Answer { words: words.to_owned(), correction_fen, dispute: None }
}

fn dispute(why: &str) -> Say {
    Say::Dispute(why.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_confirms_or_disputes_and_a_correction_counts_in_the_open_month() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.report(&purchase("t1", "mall-1", 10_000, &member)).await.expect("it is posted");
        world.report(&purchase("t2", "hotel-1", 10_000, &member)).await.expect("it is posted");
        let (mall, hotel) = (key_of("mall", &["mall-1"]), key_of("hotel", &["hotel-1"]));
        assert_eq!(world.say(&mall, Line::Mall, Say::Confirm).await.map_err(code).err(), Some("not_found"), "it is open");
        world.kernel.clock.set(at(30));
        let closed = world.membership.close(&world.admin, "2026-11").await.expect("it is over");

        let own = world.membership.statements(&mall, "2026-11").await.expect("its own");
        assert_eq!(
            own.iter().map(|statement| (statement.figures.line, statement.state)).collect::<Vec<_>>(),
            [(Line::Mall, StatementState::Issued)]
        );
        assert_eq!(Some(&own[0].figures), closed.lines.iter().find(|row| row.line == Line::Mall));
        assert_eq!(world.membership.statements(&world.admin, "2026-11").await.expect("every line's").len(), Line::ALL.len());
        assert_eq!(world.membership.statements(&world.app, "2026-11").await.map_err(code).err(), Some("forbidden"));

        let confirmed = world.say(&mall, Line::Mall, Say::Confirm).await.expect("it is its own");
        assert_eq!((confirmed.state, confirmed.by.as_deref()), (StatementState::Confirmed, Some("key:mall")));
        assert_eq!(world.say(&mall, Line::Mall, Say::Confirm).await.expect("it is answered again"), confirmed);
        for (actor, line, say, refused) in [
            (&mall, Line::Mall, dispute("too late"), "statement_state"),
            (&mall, Line::Hotel, Say::Confirm, "forbidden"),
            (&hotel, Line::Hotel, dispute(" "), "invalid_request"),
            (&world.app, Line::Hotel, Say::Confirm, "forbidden"),
        ] {
            assert_eq!(world.say(actor, line, say.clone()).await.map_err(code).err(), Some(refused), "{line} {say:?}");
        }

        for (actor, key, fen, refused) in [
            (&hotel, Some("a0"), 100, "forbidden"),
            (&world.admin, None, 100, "idempotency_key_missing"),
            (&world.admin, Some("a0"), 100, "statement_state"),
            (&world.admin, Some("a0"), i64::MIN, "invalid_request"),
        ] {
            assert_eq!(world.answer(actor, answer("nobody asked", fen), key).await.map_err(code).err(), Some(refused), "{fen}");
        }
        world.say(&hotel, Line::Hotel, dispute("a stay was imported twice")).await.expect("it is its own");
        // Of four answers at once, each sent twice, one counts.
        let answers = join_all((0..8).map(|n| {
            let (world, key) = (&world, format!("a{}", n / 2));
            async move { world.answer(&world.admin, answer("it is taken back", 60), Some(&key)).await }
        }));
        let answers = answers.await;
        for pair in answers.chunks(2) {
            assert_eq!(pair[0].as_ref().map(|one| one.corrected_fen).ok(), pair[1].as_ref().map(|one| one.corrected_fen).ok());
        }
        let answered: Vec<_> = answers.into_iter().filter_map(Result::ok).collect();
        assert_eq!(answered.len(), 2);
        assert!(answered.iter().all(|one| (one.state, one.corrected_fen) == (StatementState::Answered, 60)), "{answered:?}");
        world.say(&hotel, Line::Hotel, Say::Confirm).await.expect("now it agrees");

        assert_eq!(world.membership.close(&world.admin, "2026-11").await.expect("it is answered"), closed, "a closed month never changes");
        let of_hotel = |clearing: &heyuan_membership::Clearing| {
            let row = clearing.lines.iter().find(|row| row.line == Line::Hotel).expect("every line").clone();
            (row.corrected_fen, row.net_fen)
        };
        let open = world.membership.clearing(&world.admin, "2026-12").await.expect("it is read");
        assert_eq!(of_hotel(&open), (60, 60));
        world.kernel.clock.set(at(60));
        let next = world.membership.close(&world.admin, "2026-12").await.expect("it is over");
        assert_eq!((of_hotel(&next), next.centre.net_fen), ((60, 60), -60));
        let settled = world.ledger.balance("line/hotel/settlement").await.expect("it is read").balance;
        assert_eq!(settled, of_hotel(&closed).1 + 60, "every fen of it was settled");
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_reply_was_lost_counts_once_also_after_the_next_dispute() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let member = world.join("138").await;
        world.report(&purchase("t1", "hotel-1", 10_000, &member)).await.expect("it is posted");
        let hotel = key_of("hotel", &["hotel-1"]);
        world.kernel.clock.set(at(30));
        world.membership.close(&world.admin, "2026-11").await.expect("it is over");
        let first = world.say(&hotel, Line::Hotel, dispute("too little")).await.expect("it is its own").dispute;
        let sixty = Answer { dispute: first.clone(), ..answer("take it", 60) };
        let heard = world.answer(&world.admin, sixty.clone(), Some("a1")).await.expect("it is disputed");
        assert_eq!((heard.state, heard.corrected_fen, heard.dispute.as_ref()), (StatementState::Answered, 60, None));
        let second = world.say(&hotel, Line::Hotel, dispute("still too little")).await.expect("it disagrees again").dispute;
        // The caller never heard the first answer and sends it again: it hears what it would have heard, and nothing is booked.
        assert_eq!(world.answer(&world.admin, sixty.clone(), Some("a1")).await.expect("it is known"), heard);
        let standing = world.membership.statements(&hotel, "2026-11").await.expect("its own").remove(0);
        assert_eq!((standing.state, standing.corrected_fen), (StatementState::Disputed, 60));
        for (answer, key, refused) in [
            (Answer { correction_fen: 70, ..sixty.clone() }, "a1", "idempotency_key_reused"),
            (Answer { dispute: second.clone(), ..sixty.clone() }, "a1", "idempotency_key_reused"),
            (sixty.clone(), "a2", "statement_state"),
        ] {
            assert_eq!(world.answer(&world.admin, answer, Some(key)).await.map_err(code).err(), Some(refused), "{key}");
        }
        let more = Answer { dispute: second, ..answer("take it", 10) };
        let answered = world.answer(&world.admin, more, Some("a3")).await.expect("it is the one that stands");
        assert_eq!(answered.corrected_fen, 70);
        assert_eq!(world.count("SELECT CAST(SUM(fen) AS BIGINT) AS n FROM membership_correction").await, 70);
        world.sound().await;
    })
    .await;
}
