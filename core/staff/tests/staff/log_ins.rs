//! Log-ins from their beginning to their end, once each, in whatever process.

use crate::world::{SECRET, code, unit, world};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::join_all;
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Problem, Reach, Scope, sql};
use heyuan_staff::simulator::{KeyKind, LogOutOf, OidcMisbehaviour, OidcSimulator, TokenFault};
use heyuan_staff::{Finish, StaffLogin, StaffSettings};
use serde_json::{Value, json};

#[tokio::test]
async fn whoever_the_provider_vouches_for_gets_what_the_settings_give() {
    for_both_databases(async |database| {
        let world = world(&database).await;
        for kind in [KeyKind::Es256, KeyKind::Rs256] {
            world.simulator.rotate(kind);
            let li = world.logs_in("li").await.expect("li is let in");
            assert_eq!((li.holder.scopes.as_slice(), &li.holder.unit), (&[Scope::Admin][..], &None), "{kind:?}");
            let actor = world.elsewhere().actor(&li.access).await.expect("the token speaks");
            assert_eq!((actor.name(), actor.as_staff()), (format!("staff:{}", li.holder.id).as_str(), Some(&li.holder.id)));
            assert!(actor.has(Scope::Admin) && !actor.has(Scope::App) && *actor.reach() == Reach::Everything);
        }
        let wang = world.logs_in("wang").await.expect("wang is let in");
        assert_eq!(wang.holder.scopes, [Scope::App, Scope::Admin, Scope::Reveal]);
        let actor = world.here.actor(&wang.access).await.expect("the token speaks");
        assert!(actor.require_unit(&unit("mall-1")).is_ok() && actor.require_unit(&unit("hotel-1")).is_err());
        let again = world.logs_in("wang").await.expect("wang is let in again");
        assert_eq!((&again.holder, again.session == wang.session), (&wang.holder, false), "one person, another session");
        let audited = world.audited("log in").await;
        let expected = (
            format!("staff:{}", wang.holder.id),
            wang.holder.id.to_string(),
            json!({ "session": wang.session, "scopes": "app admin reveal", "unit": "mall-1" }),
        );
        assert_eq!((audited.len(), &audited[2]), (4, &expected));
        assert_eq!(world.count("staff_person").await, 2);
    })
    .await;
}

#[tokio::test]
async fn whoever_has_no_role_here_is_refused_with_the_reason() {
    for_both_databases(async |database| {
        let world = world(&database).await;
        assert_eq!(code(world.logs_in("nobody").await), "no_staff_role");
        assert_eq!(code(world.logs_in("sun").await), "no_staff_role");
        assert_eq!(world.reasons().await, ["no_role", "unknown_unit"]);
        assert_eq!((world.count("staff_person").await, world.count("kernel_session").await), (0, 0));
        // Somebody who was let in before is named.
        let li = world.logs_in("li").await.expect("li is let in");
        world.simulator.employ("li", &[]);
        assert_eq!(code(world.logs_in("li").await), "no_staff_role");
        assert_eq!(world.audited("refuse log-in").await[2].1, li.holder.id.to_string());
    })
    .await;
}

#[tokio::test]
async fn a_log_in_is_finished_once_by_whoever_began_it() {
    for_both_databases(async |database| {
        let world = world(&database).await;
        // The provider would take the code again: what counts once is ours.
        world.simulator.misbehave(OidcMisbehaviour { takes_codes_twice: true, ..OidcMisbehaviour::default() });
        let finish = world.begun("li").await;
        let processes = [world.elsewhere(), world.elsewhere(), world.elsewhere()];
        let answers = join_all(processes.iter().map(|process| process.login.finish(&finish))).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
        assert!(answers.into_iter().filter(Result::is_err).all(|answer| code(answer) == "staff_state_refused"));
        let asked = world.simulator.asked();
        assert_eq!(code(world.here.login.finish(&finish).await), "staff_state_refused");
        assert_eq!(world.simulator.asked(), asked, "the provider is not asked again");
        assert!(world.reasons().await.iter().all(|reason| reason == "state_used"));
        assert_eq!(world.count("kernel_session").await, 1);

        world.misbehaves(TokenFault::None);
        let (one, other) = (world.begun("li").await, world.begun("wang").await);
        let mixed = |ticket: &Finish, rest: &Finish| Finish { ticket: ticket.ticket.clone(), ..rest.clone() };
        // Somebody else's code and state, brought to one's own ticket; and a code alone.
        assert_eq!(code(world.here.login.finish(&mixed(&one, &other)).await), "staff_state_refused");
        let swapped = Finish { code: other.code.clone(), ..one.clone() };
        assert_eq!(code(world.here.login.finish(&swapped).await), "staff_code_refused", "the verifier is not that of the code");
        for code_text in ["", "with space", "日", &"x".repeat(4097)] {
            assert_eq!(code(world.here.login.finish(&Finish { code: code_text.to_owned(), ..one.clone() }).await), "invalid_request");
        }
        world.here.login.finish(&one).await.expect("what others tried does not use it up");
        world.passes(10 * 60_000);
        assert_eq!(code(world.here.login.finish(&other).await), "staff_state_refused");
        assert_eq!(world.here.login.sweep(None).await.expect("it is swept"), 2);
        assert_eq!(world.count("staff_used_state").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_code_that_the_provider_has_taken_lets_nobody_in() {
    for_both_databases(async |database| {
        let world = world(&database).await;
        let finish = world.begun("li").await;
        world.misbehaves(TokenFault::WrongNonce);
        assert_eq!(code(world.here.login.finish(&finish).await), "id_token_refused");
        world.misbehaves(TokenFault::None);
        assert_eq!(code(world.here.login.finish(&finish).await), "staff_code_refused");
        assert_eq!(world.reasons().await, ["nonce", "code"]);
        let of_another = Finish { issuer: Some("https://login.elsewhere.example".into()), ..world.begun("li").await };
        assert_eq!(code(world.here.login.finish(&of_another).await), "id_token_refused");
        let unnamed = Finish { issuer: None, ..world.begun("li").await };
        assert_eq!(code(world.here.login.finish(&unnamed).await), "id_token_refused", "this provider always says who it is");
    })
    .await;
}

fn after(problem: &Problem) -> bool {
    actix_web::ResponseError::error_response(problem).headers().contains_key("Retry-After")
}

#[tokio::test]
async fn a_provider_that_is_away_is_said_to_be_and_nobody_is_refused_for_it() {
    for_both_databases(async |database| {
        let world = world(&database).await;
        let fails = |failures| world.simulator.misbehave(OidcMisbehaviour { failures, ..OidcMisbehaviour::default() });
        fails(1);
        let away = world.here.login.begin().await.expect_err("it is away");
        assert_eq!((away.code().code, after(&away)), ("unavailable", true));
        let asked = world.simulator.asked();
        assert_eq!(code(world.here.login.begin().await), "unavailable", "it is left alone for a moment");
        assert_eq!(world.simulator.asked(), asked);
        world.passes(5_000);
        // The code's exchange fails, and the same log-in is finished once the provider is back.
        let finish = world.begun("li").await;
        fails(1);
        let away = world.here.login.finish(&finish).await.expect_err("it is away");
        assert_eq!((away.code().code, after(&away)), ("unavailable", true));
        world.here.login.finish(&finish).await.expect("the provider is back");
        assert!(world.reasons().await.is_empty(), "nobody was refused");

        let finish = world.begun("li").await;
        world.simulator.misbehave(OidcMisbehaviour { slow_ms: 5_000, ..OidcMisbehaviour::default() });
        assert_eq!(code(world.here.login.finish(&finish).await), "unavailable", "it is waited for a second");
    })
    .await;
}

#[tokio::test]
async fn keys_that_change_are_looked_for_and_made_up_ones_are_not_looked_for_for_ever() {
    for_both_databases(async |database| {
        let world = world(&database).await;
        world.logs_in("li").await.expect("li is let in");
        let finish = world.begun("li").await;
        world.simulator.rotate(KeyKind::Es256);
        world.here.login.finish(&finish).await.expect("the new key is found");
        world.misbehaves(TokenFault::UnknownKey);
        let mut looks = Vec::new();
        for _ in 0..8 {
            let finish = world.begun("li").await;
            let before = world.simulator.asked();
            assert_eq!(code(world.here.login.finish(&finish).await), "id_token_refused");
            looks.push(world.simulator.asked() - before);
        }
        // One request each for the token, and in a minute five for keys, of which one was taken above.
        assert_eq!(looks, [2, 2, 2, 2, 1, 1, 1, 1]);
        world.passes(60_000);
        world.misbehaves(TokenFault::None);
        world.simulator.rotate(KeyKind::Rs256);
        world.logs_in("li").await.expect("a minute later they are looked for again");
    })
    .await;
}

#[tokio::test]
async fn nothing_personal_and_nothing_secret_is_kept() {
    for_both_databases(async |database| {
        let world = world(&database).await;
        let finish = world.begun("wang").await;
        let wang = world.here.login.finish(&finish).await.expect("wang is let in");
        world.simulator.employ("wang", &[]);
        assert_eq!(code(world.logs_in("wang").await), "no_staff_role");
        let zhao = world.logs_in("zhao").await.expect("zhao is let in");
        let told = world.told("wang", LogOutOf::Both);
        assert_eq!(code(world.here.login.hear_log_out(&format!("{told}x")).await), "log_out_token_refused");
        world.here.login.hear_log_out(&told).await.expect("it is heard");
        let mut held = String::new();
        for text in [
            "SELECT id || subject AS t FROM staff_person",
            "SELECT state AS t FROM staff_used_state",
            "SELECT token AS t FROM staff_seen_log_out",
            "SELECT id || staff AS t FROM staff_provider_session",
            "SELECT id || member || app || unit || scopes || refresh_hash || origin AS t FROM kernel_session",
            "SELECT actor || action || object || detail AS t FROM kernel_audit",
        ] {
            for row in sql::all(world.kernel.db.reader(), text, []).await.expect("the table is read") {
                held.push_str(&sql::get::<String>(&row, "t").expect("a text"));
            }
        }
        assert!(held.contains("no_role"), "{held}");
        let subject = OidcSimulator::subject("wang");
        let body = told.split('.').nth(1).and_then(|body| URL_SAFE_NO_PAD.decode(body).ok()).expect("a token");
        let claims: Value = serde_json::from_slice(&body).expect("claims");
        let of = |name: &str| claims[name].as_str().expect("a text").to_owned();
        let told = [of("sub"), of("sid"), of("jti")];
        assert_eq!(told[0], subject);
        let others = ["wang", "example.com", &subject, SECRET, &finish.code, &finish.state, &wang.access, &wang.refresh, &zhao.refresh];
        for secret in others.into_iter().chain(told.iter().map(String::as_str)) {
            assert!(!held.contains(secret), "{secret} is kept: {held}");
        }
        assert_eq!(format!("{finish:?} {wang:?}"), format!("Finish(…) Tokens({}, …)", wang.session));
    })
    .await;
}

#[tokio::test]
async fn without_a_provider_nobody_logs_in() {
    for_both_databases(async |database| {
        let world = world(&database).await;
        let finish = world.begun("li").await;
        let credentials = world.here.credentials.clone();
        let login = StaffLogin::new(world.kernel.clone(), credentials, &StaffSettings::default()).expect("nothing is set up");
        assert_eq!(code(login.begin().await), "staff_login_not_set_up");
        assert_eq!(code(login.finish(&finish).await), "staff_login_not_set_up");
    })
    .await;
}
