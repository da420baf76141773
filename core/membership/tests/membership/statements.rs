//! Statements: each line confirms its own or disputes it, and a correction counts in the open month.

use crate::world::{World, at, code, purchase, unit, world};
use futures::future::join_all;
use heyuan_contract::Line;
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Actor, Reach, Scope};
use heyuan_membership::{Error, LineStatement, Say, StatementState};
use std::sync::Arc;

fn key_of(name: &str, units: &[&str]) -> Actor {
    let reach = units.iter().map(|id| unit(id)).collect();
    Actor::key(format!("key:{name}"), vec![Scope::Admin], Some(unit(units[0])), Reach::Units(Arc::new(reach)))
}

impl World {
    async fn say(&self, actor: &Actor, line: Line, say: Say) -> Result<LineStatement, Error> {
        self.membership.say(actor, "2026-11", line, say).await
    }
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
            (&hotel, Line::Hotel, Say::Answer("ours".into(), 100), "forbidden"),
            (&world.admin, Line::Hotel, Say::Answer("nobody asked".into(), 100), "statement_state"),
            (&hotel, Line::Hotel, dispute(" "), "invalid_request"),
            (&world.app, Line::Hotel, Say::Confirm, "forbidden"),
        ] {
            assert_eq!(world.say(actor, line, say.clone()).await.map_err(code).err(), Some(refused), "{line} {say:?}");
        }

        world.say(&hotel, Line::Hotel, dispute("a stay was imported twice")).await.expect("it is its own");
        assert_eq!(
            world.say(&world.admin, Line::Hotel, Say::Answer("x".into(), i64::MIN)).await.map_err(code).err(),
            Some("invalid_request")
        );
        // Four who answer alike make one correction.
        let answer = || Say::Answer("it is taken back".into(), 60);
        for answered in join_all((0..4).map(|_| world.say(&world.admin, Line::Hotel, answer()))).await {
            let answered = answered.expect("it is disputed");
            assert_eq!((answered.state, answered.corrected_fen), (StatementState::Answered, 60));
        }
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
