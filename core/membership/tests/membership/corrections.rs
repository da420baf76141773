//! Corrections: two persons, once, in the open month, and the closed one stays.

use crate::world::{World, at, code, purchase, unit, world};
use futures::future::join_all;
use heyuan_contract::{Line, Ratio};
use heyuan_harness::{TestDatabase, for_both_databases};
use heyuan_kernel::{Actor, Problem, Reach, Scope};
use heyuan_membership::{
    Amount, Answer, Clearing, Correction, CorrectionFilter, CorrectionState, CorrectionView, Error, LineStatement, Say, StatementState,
    Verdict,
};
use std::sync::Arc;

fn group_key(name: &str) -> Actor {
    Actor::key(format!("key:{name}"), vec![Scope::Admin], None, Reach::Everything)
}

fn line_key(name: &str, place: &str) -> Actor {
    let reach = Reach::Units(Arc::new([unit(place)].into_iter().collect()));
    Actor::key(format!("key:{name}"), vec![Scope::Admin], Some(unit(place)), reach)
}

fn correction(fen: i64) -> Correction {
    Correction {
        of_period: "2026-11".into(),
        line: Line::Hotel,
        counter: None,
        amount: Amount::Fen(fen),
        reason: "a stay was imported twice".into(),
        dispute: None,
    }
}

/// A group whose November is closed.
async fn closed(database: &TestDatabase) -> (World, Clearing) {
    let world = world(database).await;
    let member = world.join("138").await;
    world.report(&purchase("t1", "mall-1", 10_000, &member)).await.expect("it is posted");
    world.report(&purchase("t2", "hotel-1", 10_000, &member)).await.expect("it is posted");
    world.kernel.clock.set(at(30));
    let closed = world.membership.close(&world.admin, "2026-11").await.expect("it is over");
    (world, closed)
}

impl World {
    async fn propose(&self, correction: &Correction, key: &str) -> Result<CorrectionView, Error> {
        self.membership.propose_correction(&group_key("first"), correction, Some(key)).await
    }

    async fn decide(&self, by: &str, id: &str, verdict: Verdict) -> Result<CorrectionView, Error> {
        self.membership.decide_correction(&group_key(by), id, verdict).await
    }

    async fn hotel(&self) -> LineStatement {
        let list = self.membership.statements(&self.admin, "2026-11").await.expect("it is closed");
        list.into_iter().find(|statement| statement.figures.line == Line::Hotel).expect("every line")
    }
}

fn of(clearing: &Clearing, line: Line) -> (i64, i64) {
    let row = clearing.lines.iter().find(|row| row.line == line).expect("every line");
    (row.corrected_fen, row.net_fen)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correction_counts_once_a_second_person_approves_it() {
    for_both_databases(|database| async move {
        let (world, november) = closed(&database).await;
        let all = join_all((0..4).map(|_| {
            let world = world.clone();
            async move { world.propose(&correction(60), "k1").await.expect("it is proposed") }
        }))
        .await;
        assert!(all.iter().all(|one| *one == all[0]), "one key makes one: {all:?}");
        let id = all[0].id.as_str();
        assert_eq!(world.propose(&correction(61), "k1").await.map_err(code).err(), Some("idempotency_key_reused"));
        assert_eq!(of(&world.membership.clearing(&world.admin, "2026-12").await.expect("it is read"), Line::Hotel), (0, 0));
        assert_eq!(world.hotel().await.corrected_fen, 0, "a proposal counts nowhere");
        assert_eq!(world.decide("first", id, Verdict::Approve).await.map_err(code).err(), Some("four_eyes"));

        // Whoever else comes: it counts once.
        let verdicts = join_all(["second", "third", "second", "fourth"].map(|by| {
            let (world, id) = (world.clone(), id.to_owned());
            async move { world.decide(by, &id, Verdict::Approve).await.expect("somebody else") }
        }))
        .await;
        assert!(verdicts.iter().all(|one| *one == verdicts[0] && one.state == CorrectionState::Approved), "{verdicts:?}");
        assert_eq!(verdicts[0].period.map(|period| period.to_string()).as_deref(), Some("2026-12"));
        assert_eq!(world.decide("second", id, Verdict::Reject("no".into())).await.map_err(code).err(), Some("correction_state"));
        assert_eq!(world.propose(&correction(60), "k1").await.expect("it is answered"), verdicts[0], "a retry is told how it stands");

        assert_eq!(world.membership.close(&world.admin, "2026-11").await.expect("it is answered"), november, "November stays");
        assert_eq!(world.hotel().await.corrected_fen, 60);
        world.kernel.clock.set(at(60));
        let december = world.membership.close(&world.admin, "2026-12").await.expect("it is over");
        assert_eq!((of(&december, Line::Hotel), december.centre.net_fen), ((60, 60), -60));
        let settled = world.ledger.balance("line/hotel/settlement").await.expect("it is read").balance;
        assert_eq!(settled, of(&november, Line::Hotel).1 + 60);
        world.sound().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correction_between_two_lines_leaves_the_centre_as_it_is() {
    for_both_databases(|database| async move {
        let (world, _) = closed(&database).await;
        let fifth = Ratio::new(6, 5).expect("a ratio");
        let between = Correction { counter: Some(Line::Mall), amount: Amount::Points(-50, fifth), ..correction(0) };
        let proposed = world.propose(&between, "k1").await.expect("it is proposed");
        assert_eq!((proposed.fen, proposed.points), (-60, Some((-50, fifth))));
        let approved = world.decide("second", &proposed.id, Verdict::Approve).await.expect("somebody else");
        let december = world.membership.clearing(&world.admin, "2026-12").await.expect("it is read");
        assert_eq!((of(&december, Line::Hotel), of(&december, Line::Mall)), ((-60, -60), (60, 60)));
        assert_eq!(december.centre.net_fen, 0);
        let list = async |actor: &Actor, filter| {
            let found = world.membership.corrections(actor, filter, 0, 10).await;
            found.map(|views| views.len()).map_err(code)
        };
        let all = CorrectionFilter::default();
        for (actor, filter, expected) in [
            (&world.admin, all, Ok(1)),
            (&line_key("mall", "mall-1"), all, Ok(1)),
            (&line_key("community", "community-1"), all, Ok(0)),
            (&world.admin, CorrectionFilter { line: Some(Line::Mall), ..all }, Ok(1)),
            (&world.admin, CorrectionFilter { line: Some(Line::Office), ..all }, Ok(0)),
            (&world.admin, CorrectionFilter { state: Some(CorrectionState::Proposed), ..all }, Ok(0)),
            (&world.admin, CorrectionFilter { period: approved.period, of_period: Some(approved.of_period), ..all }, Ok(1)),
            (&world.admin, CorrectionFilter { period: Some(approved.of_period), ..all }, Ok(0)),
            (&world.app, all, Err("forbidden")),
        ] {
            assert_eq!(list(actor, filter).await, expected, "{} {filter:?}", actor.name());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correction_answers_the_dispute_that_it_names_and_no_other() {
    for_both_databases(|database| async move {
        let (world, _) = closed(&database).await;
        let hotel = line_key("hotel", "hotel-1");
        let say = async |say: Say| world.membership.say(&hotel, "2026-11", Line::Hotel, say).await;
        let answering = |dispute: &str| Correction { dispute: Some(dispute.to_owned()), ..correction(60) };
        let early = world.propose(&answering("say_none"), "k0").await.expect_err("nobody disputed");
        assert_eq!(Problem::from(early).body().field.as_deref(), Some("dispute"));
        let disputed = say(Say::Dispute("a stay was imported twice".into())).await.expect("it is its own");
        let dispute = disputed.dispute.expect("it stands in one");
        let first = world.propose(&answering(&dispute), "k1").await.expect("it is proposed");
        let second = world.propose(&answering(&dispute), "k2").await.expect("it is proposed");
        assert_eq!(world.hotel().await.state, StatementState::Disputed, "a proposal answers nothing");
        world.decide("second", &first.id, Verdict::Approve).await.expect("somebody else");
        let answered = world.hotel().await;
        assert_eq!((answered.state, answered.corrected_fen, answered.dispute), (StatementState::Answered, 60, None));
        // What was proposed for the same dispute comes too late; it can be rejected by whoever proposed it.
        assert_eq!(world.decide("second", &second.id, Verdict::Approve).await.map_err(code).err(), Some("statement_state"));
        let rejected = world.decide("first", &second.id, Verdict::Reject("answered already".into())).await.expect("it is open");
        assert_eq!((rejected.state, rejected.decision.as_deref()), (CorrectionState::Rejected, Some("answered already")));
        say(Say::Confirm).await.expect("now it agrees");
        assert_eq!(say(Say::Dispute("too late".into())).await.map_err(code).err(), Some("statement_state"));
        assert_eq!(world.hotel().await.corrected_fen, 60);
        let said = "SELECT COUNT(*) AS n FROM membership_statement_word WHERE line = 'hotel'";
        assert_eq!(world.count(said).await, 3, "disputed, answered, confirmed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_corrections_are_refused_with_their_field() {
    for_both_databases(|database| async move {
        let (world, _) = closed(&database).await;
        let good = correction(60);
        for (bad, refused) in [
            (Correction { of_period: "2026-13".into(), ..good.clone() }, ("invalid_request", Some("of_period"))),
            (Correction { of_period: "2026-12".into(), ..good.clone() }, ("not_found", None)),
            (Correction { reason: "".into(), ..good.clone() }, ("invalid_request", Some("reason"))),
            (Correction { counter: Some(Line::Hotel), ..good.clone() }, ("invalid_request", Some("counter"))),
            (Correction { amount: Amount::Fen(0), ..good.clone() }, ("invalid_request", Some("fen"))),
        ] {
            let problem = Problem::from(world.propose(&bad, "k").await.expect_err("it is refused"));
            assert_eq!((problem.code().code, problem.body().field.as_deref()), refused, "{bad:?}");
        }
        for actor in [&line_key("hotel", "hotel-1"), &world.app] {
            assert_eq!(world.membership.propose_correction(actor, &good, Some("k")).await.map_err(code).err(), Some("forbidden"));
            assert_eq!(world.membership.decide_correction(actor, "cor_x", Verdict::Approve).await.map_err(code).err(), Some("forbidden"));
        }
        assert_eq!(
            world.membership.propose_correction(&world.admin, &good, None).await.map_err(code).err(),
            Some("idempotency_key_missing")
        );
        assert_eq!(world.decide("second", "cor_x", Verdict::Approve).await.map_err(code).err(), Some("not_found"));
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM membership_correction_entry").await, 0, "nothing is half-done");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_disputed_does_not_answer_with_a_correction() {
    for_both_databases(|database| async move {
        let (world, _) = closed(&database).await;
        let (first, second) = (group_key("first"), group_key("second"));
        let say = async |actor: &Actor, say: Say| world.membership.say(actor, "2026-11", Line::Hotel, say).await;
        let dispute = say(&first, Say::Dispute("ours".into())).await.expect("the group speaks for every line").dispute;
        let taken = Answer { words: "take it".into(), correction_fen: 100, dispute: dispute.clone() };
        let answer = async |actor: &Actor| world.membership.answer(actor, "2026-11", Line::Hotel, &taken, Some("a1")).await;
        assert_eq!(answer(&first).await.map_err(code).err(), Some("four_eyes"));
        answer(&second).await.expect("somebody else");
        let list = world.membership.corrections(&world.admin, CorrectionFilter::default(), 0, 10).await.expect("it is listed");
        let told: Vec<_> = list.iter().map(|view| (view.fen, view.state, view.proposed_by.as_str(), view.dispute.clone())).collect();
        assert_eq!(told, [(100, CorrectionState::Approved, "key:second", dispute)]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_key_is_no_second_person() {
    for_both_databases(|database| async move {
        let (world, _) = closed(&database).await;
        let anna = world.made_by(&Actor::system("keys")).await;
        let (annas, bert) = (world.made_by(&anna).await, world.made_by(&Actor::system("keys")).await);
        let proposed = world.membership.propose_correction(&anna, &correction(60), Some("k1")).await.expect("it is proposed");
        let approve = async |by: &Actor| world.membership.decide_correction(by, &proposed.id, Verdict::Approve).await.map_err(code).err();
        assert_eq!(approve(&annas).await, Some("four_eyes"));
        let say = async |by: &Actor, say: Say| world.membership.say(by, "2026-11", Line::Hotel, say).await.map_err(code).err();
        assert_eq!(say(&annas, Say::Dispute("ours".into())).await, None);
        let taken = Answer { words: "take it".into(), correction_fen: 100, dispute: None };
        let answer = async |by: &Actor| world.membership.answer(by, "2026-11", Line::Hotel, &taken, Some("a1")).await.map_err(code).err();
        assert_eq!(answer(&anna).await, Some("four_eyes"));
        assert_eq!((approve(&bert).await, answer(&bert).await), (None, None));
    })
    .await;
}
