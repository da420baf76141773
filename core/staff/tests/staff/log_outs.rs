//! Log-outs that the provider tells of: whose sessions end, where and when, and whom nobody believes.

use crate::world::{Process, World, code, world};
use futures::future::join_all;
use heyuan_harness::for_both_databases;
use heyuan_kernel::keys::{CACHE_TIME_MS, STAFF_LIFE_MS};
use heyuan_staff::simulator::{LogOutFault, LogOutOf, OidcMisbehaviour, TokenFault};
use heyuan_staff::{LoggedIn, StaffLogin, StaffSettings};
use serde_json::json;

impl World {
    fn misbehaves_so(&self, change: impl FnOnce(&mut OidcMisbehaviour)) {
        let mut misbehaviour = OidcMisbehaviour::default();
        change(&mut misbehaviour);
        self.simulator.misbehave(misbehaviour);
    }

    /// Logs out at the provider, and tells this process.
    async fn leaves(&self, person: &str, of: LogOutOf) {
        self.here.login.hear_log_out(&self.told(person, of)).await.expect("it is heard");
    }
}

impl Process {
    async fn takes(&self, tokens: &LoggedIn) -> bool {
        self.actor(&tokens.access).await.is_ok()
    }
}

#[tokio::test]
async fn a_log_out_ends_what_came_of_it_here_at_once_and_everywhere_in_five_seconds() {
    for_both_databases(async |database| {
        let world = world(&database).await;
        let elsewhere = world.elsewhere();
        let first = world.logs_in("li").await.expect("li is let in");
        let same = world.logs_in("li").await.expect("li is let in by the same session there");
        let told = world.told("li", LogOutOf::Session);
        let other = world.logs_in("li").await.expect("li logs in there again");
        let wang = world.logs_in("wang").await.expect("wang is let in");
        for tokens in [&first, &same, &other, &wang] {
            assert!(world.here.takes(tokens).await && elsewhere.takes(tokens).await);
        }
        world.here.login.hear_log_out(&told).await.expect("it is heard");
        for ended in [&first, &same] {
            assert!(!world.here.takes(ended).await, "here at once");
            assert_eq!(code(elsewhere.credentials.refresh_staff(&ended.refresh).await), "refresh_refused");
        }
        world.passes(CACHE_TIME_MS);
        assert!(!elsewhere.takes(&first).await && !elsewhere.takes(&same).await, "elsewhere within five seconds");
        assert!(elsewhere.takes(&other).await && elsewhere.takes(&wang).await, "nobody else");
        let again = world.logs_in("li").await.expect("a fresh session there");
        world.leaves("li", LogOutOf::Person).await;
        assert!(!world.here.takes(&other).await && !world.here.takes(&again).await && world.here.takes(&wang).await);
        world.leaves("wang", LogOutOf::Both).await;
        assert!(!world.here.takes(&wang).await);
        let audited = world.audited("end session").await;
        let why = |tokens: &LoggedIn| json!({ "session": tokens.session, "why": "the provider told of a log-out" });
        let by = |tokens: &LoggedIn| ("system:staff".to_owned(), tokens.holder.id.to_string(), why(tokens));
        assert_eq!(audited, [&first, &same, &other, &again, &wang].map(by));
        assert!(world.reasons_of("refuse log-out").await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_session_of_which_nobody_knows_what_it_came_of_ends_with_its_person() {
    for_both_databases(async |database| {
        let world = world(&database).await;
        world.misbehaves_so(|how| how.names_no_session = true);
        let unnamed = world.logs_in("li").await.expect("li is let in");
        // The session alone tells us nothing: none of ours is known to have come of it.
        world.leaves("li", LogOutOf::Session).await;
        assert!(world.here.takes(&unnamed).await);
        let again = world.logs_in("li").await.expect("li is let in");
        world.leaves("li", LogOutOf::Both).await;
        assert!(!world.here.takes(&unnamed).await && !world.here.takes(&again).await);
        // Of somebody who was never here there is nothing to end.
        world.begun("nobody").await;
        world.leaves("nobody", LogOutOf::Person).await;
        assert_eq!(world.count("staff_person").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_log_in_that_a_log_out_overtakes_opens_nothing() {
    for_both_databases(async |database| {
        let world = world(&database).await;
        let finish = world.begun("li").await;
        world.leaves("li", LogOutOf::Session).await;
        assert_eq!(code(world.here.login.finish(&finish).await), "id_token_refused");
        world.logs_in("li").await.expect("a fresh session there is none that ended");
        // The same of a person as a whole, whom the provider vouched for before.
        world.leaves("li", LogOutOf::Person).await;
        let finish = world.begun("li").await;
        world.misbehaves_so(|how| how.clock_ahead_s = -1);
        assert_eq!(code(world.here.login.finish(&finish).await), "id_token_refused");
        world.misbehaves_so(|_| ());
        world.logs_in("li").await.expect("vouched for since");
        assert_eq!(world.reasons().await, ["logged_out", "logged_out"]);
        assert_eq!(world.count("kernel_session").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_log_out_token_counts_once_in_all_processes_and_not_for_ever() {
    for_both_databases(async |database| {
        let world = world(&database).await;
        world.logs_in("li").await.expect("li is let in");
        let told = world.told("li", LogOutOf::Person);
        let processes = [world.elsewhere(), world.elsewhere(), world.elsewhere()];
        let answers = join_all(processes.iter().map(|process| process.login.hear_log_out(&told))).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
        let li = world.logs_in("li").await.expect("li is let in again");
        assert_eq!(code(world.here.login.hear_log_out(&told).await), "log_out_token_refused");
        assert!(world.here.takes(&li).await, "what came before ends nothing that came since");
        assert_eq!(world.reasons_of("refuse log-out").await, ["seen"; 3]);
        // It is forgotten when it would be too old in any case.
        world.passes(359_999);
        assert_eq!(world.here.login.sweep(None).await.expect("it is swept"), 0);
        world.passes(1);
        assert_eq!(world.here.login.sweep(None).await.expect("it is swept"), 1);
        assert_eq!(code(world.here.login.hear_log_out(&told).await), "log_out_token_refused");
        world.passes(STAFF_LIFE_MS);
        assert_eq!(world.here.login.sweep(None).await.expect("it is swept"), 4, "two states and two sessions there");
        assert_eq!(world.count("staff_provider_session").await + world.count("staff_seen_log_out").await, 0);
    })
    .await;
}

#[tokio::test]
async fn each_wrong_log_out_token_is_refused_and_its_reason_audited() {
    for_both_databases(async |database| {
        let world = world(&database).await;
        let li = world.logs_in("li").await.expect("li is let in");
        let token = |fault: TokenFault| OidcMisbehaviour { token: fault, ..OidcMisbehaviour::default() };
        let log_out = |fault: LogOutFault| OidcMisbehaviour { log_out: fault, ..OidcMisbehaviour::default() };
        let clock = |ahead_s: i64| OidcMisbehaviour { clock_ahead_s: ahead_s, ..OidcMisbehaviour::default() };
        let cases = [
            (log_out(LogOutFault::NoEvents), "events"),
            (log_out(LogOutFault::OtherEvent), "events"),
            (log_out(LogOutFault::Nonce), "nonce"),
            (log_out(LogOutFault::NoTokenId), "token_id"),
            (log_out(LogOutFault::Nobody), "subject"),
            (log_out(LogOutFault::Old), "old"),
            (clock(61), "not_yet"),
            (token(TokenFault::WrongNonce), "nonce"),
            (token(TokenFault::Expired), "expired"),
            (token(TokenFault::NotYet), "not_yet"),
            (token(TokenFault::WrongAudience), "audience"),
            (token(TokenFault::ManyAudiences), "audience"),
            (token(TokenFault::WrongParty), "audience"),
            (token(TokenFault::WrongIssuer), "issuer"),
            (token(TokenFault::NoSubject), "subject"),
            (token(TokenFault::NoExpiry), "claims"),
            (token(TokenFault::AlgorithmNone), "unsigned"),
            (token(TokenFault::AlgorithmHmac), "unsigned"),
            (token(TokenFault::Forged), "signature"),
            (token(TokenFault::UnknownKey), "unknown_key"),
            (token(TokenFault::Changed), "signature"),
            (token(TokenFault::Garbled), "unsigned"),
        ];
        for (misbehaviour, reason) in cases {
            world.begun("li").await;
            world.simulator.misbehave(misbehaviour);
            let refused = world.here.login.hear_log_out(&world.told("li", LogOutOf::Both)).await.expect_err("it is refused");
            assert_eq!(refused.code().code, "log_out_token_refused", "{misbehaviour:?}");
            assert!(refused.detail().starts_with("the log-out token is refused: it"), "{reason}: {}", refused.detail());
        }
        assert_eq!(world.reasons_of("refuse log-out").await, cases.map(|(_, reason)| reason));
        assert!(world.here.takes(&li).await, "nobody is logged out by them");
        assert_eq!((world.count("staff_seen_log_out").await, world.reasons().await.len()), (0, 0));
        world.misbehaves_so(|_| ());
        world.begun("li").await;
        world.leaves("li", LogOutOf::Person).await;
        assert!(!world.here.takes(&li).await);
    })
    .await;
}

#[tokio::test]
async fn a_provider_whose_keys_can_not_be_asked_for_is_heard_when_it_is_back() {
    for_both_databases(async |database| {
        let world = world(&database).await;
        let li = world.logs_in("li").await.expect("li is let in");
        let told = world.told("li", LogOutOf::Session);
        let fresh = world.elsewhere();
        world.misbehaves_so(|how| how.failures = 1);
        assert_eq!(code(fresh.login.hear_log_out(&told).await), "unavailable");
        assert!(fresh.takes(&li).await);
        world.passes(5_000);
        fresh.login.hear_log_out(&told).await.expect("it was not used up");
        assert!(!fresh.takes(&li).await);
        let login = StaffLogin::new(world.kernel.clone(), fresh.credentials.clone(), &StaffSettings::default()).expect("nothing is set up");
        assert_eq!(code(login.hear_log_out(&told).await), "staff_login_not_set_up");
    })
    .await;
}
