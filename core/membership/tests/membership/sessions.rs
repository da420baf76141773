//! Sessions: tokens that run out, refresh and are called back, and what ends them.

use crate::world::{DAY_MS, World, at, code, phone, unit, world};
use futures::future::join_all;
use heyuan_contract::{AnchorId, CustomerId, DomainEvent, MemberId};
use heyuan_harness::for_both_databases;
use heyuan_kernel::keys::{ACCESS_TIME_MS, Credentials, REPEAT_TIME_MS, SESSION_TIME_MS, SESSIONS_AN_APP_MAX, Tokens};
use heyuan_kernel::{Actor, Reach, Scope, sql};
use heyuan_membership::{Join, SessionFor};
use std::sync::Arc;

impl World {
    /// Credentials as another process of the tenant has them.
    fn elsewhere(&self) -> Credentials {
        Credentials::new(self.kernel.db.clone(), self.kernel.org.clone(), self.kernel.keys.clone(), self.kernel.clock.clone())
    }

    async fn enters(&self, value: &str) -> Tokens {
        let join = Join { unit: unit("mall-1"), identifiers: vec![phone(value)], session: SessionFor::Everybody };
        self.membership.join(&self.app, &join).await.expect("it joins").tokens.expect("it is not blocked")
    }

    /// Another sign of life of the same key.
    async fn refresh(&self, token: &str) -> Result<Tokens, &'static str> {
        self.membership.refresh(&self.app, token).await.map_err(code)
    }

    fn passes(&self, ms: i64) {
        self.kernel.clock.set(self.kernel.clock.now().plus_ms(ms));
    }

    async fn sessions(&self, member: &MemberId) -> Vec<String> {
        self.membership.sessions(&self.admin, member).await.expect("they are listed").into_iter().map(|one| one.id).collect()
    }
}

/// Whom a token speaks for.
async fn speaks(credentials: &Credentials, token: &str) -> Option<MemberId> {
    credentials.authenticate(Some(&format!("Bearer {token}"))).await.ok().and_then(|actor| actor.as_member().cloned())
}

fn key(place: &str, scopes: &[Scope]) -> Actor {
    Actor::key(format!("key:{place}"), scopes.to_vec(), Some(unit(place)), Reach::Units(Arc::new([unit(place)].into())))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lasts_an_hour_and_is_refreshed_for_months() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let credentials = world.elsewhere();
        let mut tokens = world.enters("138").await;
        let member = tokens.holder.clone();
        assert_eq!(tokens.access_expires_at, at(0).plus_ms(ACCESS_TIME_MS));
        assert_eq!(speaks(&credentials, &tokens.access).await, Some(member.clone()));
        assert_eq!(speaks(&credentials, &tokens.refresh).await, None, "a refresh token speaks for nobody");
        let flipped = format!("{}A", &tokens.access[..tokens.access.len() - 1]);
        let flipped = if flipped == tokens.access { format!("{}B", &tokens.access[..tokens.access.len() - 1]) } else { flipped };
        assert_eq!(speaks(&credentials, &flipped).await, None);
        world.passes(ACCESS_TIME_MS);
        assert_eq!(speaks(&credentials, &tokens.access).await, None, "it has run out");

        let mut days = 0;
        while let Ok(next) = world.refresh(&tokens.refresh).await {
            assert_eq!((&next.holder, &next.session), (&member, &tokens.session));
            assert_eq!(speaks(&credentials, &next.access).await, Some(member.clone()));
            assert!(next.access_expires_at <= next.refresh_expires_at);
            tokens = next;
            days += 20;
            world.passes(20 * DAY_MS);
        }
        assert_eq!(days, 180, "a session ends however often it is refreshed");

        let idle = world.enters("138").await;
        world.passes(SESSION_TIME_MS);
        assert_eq!(world.refresh(&idle.refresh).await, Err("refresh_refused"), "nobody has used it");
        assert_eq!(world.membership.sweep_logins(None).await.expect("it sweeps"), 2);
        assert_eq!(world.membership.sweep_logins(None).await.expect("it sweeps"), 0);
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM kernel_session").await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spent_refresh_token_ends_the_session_unless_its_answer_was_lost() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        // Who repeats it, after how long, and whether it is answered.
        let another = Actor::key("key:another".into(), vec![Scope::App], None, Reach::Everything);
        let app = world.app.clone();
        for (case, (by, after, answered)) in
            [(&app, 0, true), (&app, REPEAT_TIME_MS, true), (&app, REPEAT_TIME_MS + 1, false), (&another, 0, false)].into_iter().enumerate()
        {
            let first = world.enters(&format!("case-{case}")).await;
            let second = world.refresh(&first.refresh).await.expect("it is refreshed");
            assert_ne!(second.refresh, first.refresh);
            world.passes(after);
            let again = world.membership.refresh(by, &first.refresh).await.map_err(code);
            let credentials = world.elsewhere();
            if answered {
                assert_eq!(again.expect("it is answered").refresh, second.refresh, "case {case}: with what was lost");
                assert!(world.refresh(&second.refresh).await.is_ok(), "case {case}");
                assert!(speaks(&credentials, &second.access).await.is_some(), "case {case}");
            } else {
                assert_eq!(again, Err("refresh_refused"), "case {case}");
                assert_eq!(world.refresh(&second.refresh).await, Err("refresh_refused"), "case {case}: also for who has it rightly");
                assert_eq!(speaks(&credentials, &second.access).await, None, "case {case}");
                assert_eq!(speaks(&credentials, &first.access).await, None, "case {case}");
            }
        }
        // A token from before the last one is no lost answer, however soon.
        let first = world.enters("139").await;
        let second = world.refresh(&first.refresh).await.expect("it is refreshed");
        let third = world.refresh(&second.refresh).await.expect("it is refreshed");
        assert_eq!(world.refresh(&first.refresh).await, Err("refresh_refused"));
        assert_eq!(world.refresh(&third.refresh).await, Err("refresh_refused"));
        let reused =
            "SELECT COUNT(*) AS n FROM kernel_audit WHERE action = 'end session' AND detail LIKE '%a spent refresh token came again%'";
        assert_eq!(world.count(reused).await, 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_refresh_token_refreshed_at_once_gives_one_next_token() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        for round in 0..5 {
            let tokens = world.enters(&format!("r{round}")).await;
            let refreshed = join_all((0..8).map(|_| {
                let (world, token) = (world.clone(), tokens.refresh.clone());
                tokio::spawn(async move { world.refresh(&token).await })
            }))
            .await;
            let next: Vec<Tokens> = refreshed.into_iter().map(|one| one.expect("nobody panics").expect("it is refreshed")).collect();
            assert!(next.iter().all(|one| one.refresh == next[0].refresh), "round {round}");
            assert!(world.refresh(&next[0].refresh).await.is_ok(), "round {round}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_refresh_token_within_reach_refreshes_and_ends_nothing() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let tokens = world.enters("138").await;
        let other = world.enters("139").await;
        let half = &tokens.refresh[..tokens.refresh.len() / 2];
        // A secret of another session under this one's name.
        let mixed =
            format!("{}.{}", tokens.refresh.split_once('.').expect("two parts").0, other.refresh.split_once('.').expect("two parts").1);
        for token in ["", "hyr_", "hyr_x.y", tokens.access.as_str(), half, mixed.as_str()] {
            assert_eq!(world.refresh(token).await, Err("refresh_refused"), "{token}");
            world.membership.log_out(&world.app, token).await.expect("nothing is there to end");
        }
        let hotel = key("hotel-1", &[Scope::App]);
        assert_eq!(world.membership.refresh(&hotel, &tokens.refresh).await.map_err(code), Err("refresh_refused"));
        world.membership.log_out(&hotel, &tokens.refresh).await.expect("it ends nothing");
        world.membership.log_out(&Actor::member(other.holder.clone()), &tokens.refresh).await.expect("it ends nothing");
        let admin = key("mall-1", &[Scope::Admin]);
        assert_eq!(world.membership.refresh(&admin, &tokens.refresh).await.map_err(code), Err("forbidden"));
        assert_eq!(world.membership.log_out(&admin, &tokens.refresh).await.map_err(code), Err("forbidden"));
        let own = Actor::member(tokens.holder.clone());
        assert_eq!(world.membership.refresh(&own, &tokens.refresh).await.map_err(code), Err("forbidden"));
        assert!(world.refresh(&tokens.refresh).await.is_ok(), "it stands after all that");
        let mall = key("mall-1", &[Scope::Ingest]);
        world.membership.log_out(&mall, &other.refresh).await.expect("it is logged out");
        world.membership.log_out(&mall, &other.refresh).await.expect("it stays so");
        assert_eq!(world.refresh(&other.refresh).await, Err("refresh_refused"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_listed_and_ended_by_the_member_and_by_staff() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (first, second) = (world.enters("138").await, world.enters("138").await);
        let (member, stranger) = (first.holder.clone(), world.enters("139").await);
        let own = Actor::member(member.clone());
        let listed = world.membership.sessions(&own, &member).await.expect("they are listed");
        assert_eq!(listed.len(), 2);
        assert!(listed.iter().all(|one| one.app == "key:app" && one.created_at == at(0) && one.used_at == at(0)));
        let shown = format!("{listed:?}");
        assert!(![&first, &second].iter().any(|one| shown.contains(&one.refresh) || shown.contains(&one.access)));
        for (actor, expected) in [
            (Actor::member(stranger.holder.clone()), "forbidden"),
            (world.app.clone(), "forbidden"),
            (key("hotel-1", &[Scope::Admin]), "unknown_member"),
        ] {
            assert_eq!(world.membership.sessions(&actor, &member).await.map_err(code).err(), Some(expected));
            assert_eq!(world.membership.end_sessions(&actor, &member, None).await.map_err(code).err(), Some(expected));
            assert_eq!(world.membership.end_sessions(&actor, &member, Some(&first.session)).await.map_err(code).err(), Some(expected));
        }
        // Somebody else's session is none of this member's.
        let none = world.membership.end_sessions(&own, &member, Some(&stranger.session)).await;
        assert_eq!(none.map_err(code).err(), Some("not_found"));
        let credentials = world.elsewhere();
        assert!(speaks(&credentials, &first.access).await.is_some(), "it is remembered there");
        world.membership.end_sessions(&own, &member, Some(&first.session)).await.expect("it is ended");
        assert_eq!(world.sessions(&member).await, std::slice::from_ref(&second.session));
        assert_eq!(world.refresh(&first.refresh).await, Err("refresh_refused"));
        world.passes(heyuan_kernel::keys::CACHE_TIME_MS);
        assert_eq!(speaks(&credentials, &first.access).await, None, "elsewhere it is refused within five seconds");
        assert_eq!(speaks(&credentials, &second.access).await, Some(member.clone()));
        world.membership.end_sessions(&key("mall-1", &[Scope::Admin]), &member, None).await.expect("they are ended");
        assert!(world.sessions(&member).await.is_empty());
        assert_eq!(speaks(&world.elsewhere(), &second.access).await, None);
        assert!(speaks(&world.elsewhere(), &stranger.access).await.is_some());
        let text = "SELECT COUNT(*) AS n FROM kernel_audit WHERE action IN ('end session', 'end sessions')";
        assert_eq!(world.count(text).await, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_what_it_speaks_for() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let (blocked, closed) = (world.enters("blocked").await, world.enters("closed").await);
        let (left, erased, sent_away) = (world.enters("left").await, world.enters("erased").await, world.enters("sent-away").await);
        world.membership.block(&world.admin, &blocked.holder, "resells vouchers").await.expect("it is blocked");
        world.membership.close_member(&world.admin, &closed.holder, "asked at the desk", Some("c")).await.expect("it is closed");
        let own = Actor::member(left.holder.clone());
        let departure = world.membership.leave(&own, &left.holder, true, Some("l")).await.expect("it leaves");
        world.membership.leave(&world.app, &sent_away.holder, false, Some("l")).await.expect("it leaves");
        let (customer, anchor) = (CustomerId::new("cus_erased").expect("an id"), AnchorId::new("anc_erased").expect("an id"));
        world.tell(DomainEvent::CustomerErased { customer, anchors: vec![anchor], occurred_at: at(0) }).await;
        for ended in [&blocked, &closed, &erased, &sent_away] {
            assert_eq!(speaks(&world.elsewhere(), &ended.access).await, None);
        }
        for ended in [&blocked, &closed, &left, &erased, &sent_away] {
            assert_eq!(world.refresh(&ended.refresh).await, Err("refresh_refused"));
        }
        // Who has left may say so once more, when the answer was lost, and nothing else.
        assert_eq!(speaks(&world.elsewhere(), &left.access).await, Some(left.holder.clone()));
        assert_eq!(world.membership.leave(&own, &left.holder, true, Some("l")).await.expect("it is answered"), departure);
        assert_eq!(world.membership.member(&own, &left.holder).await.map_err(code).err(), Some("forbidden"));
        world.passes(600_000);
        assert_eq!(speaks(&world.elsewhere(), &left.access).await, None);

        let join = Join { unit: unit("mall-1"), identifiers: vec![phone("blocked")], session: SessionFor::Everybody };
        let again = world.membership.join(&world.app, &join).await.expect("it is known");
        assert_eq!((again.id, again.tokens), (blocked.holder.clone(), None), "the blacklist gives no session");
        world.membership.unblock(&world.admin, &blocked.holder, "was a mistake").await.expect("it is unblocked");
        assert!(world.membership.join(&world.app, &join).await.expect("it is known").tokens.is_some());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_keeps_a_members_newest_sessions() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let other = Actor::key("key:other".into(), vec![Scope::App], None, Reach::Everything);
        let join = Join { unit: unit("mall-1"), identifiers: vec![phone("138")], session: SessionFor::Everybody };
        let elsewhere = world.membership.join(&other, &join).await.expect("it joins").tokens.expect("it is not blocked");
        let most = usize::try_from(SESSIONS_AN_APP_MAX).expect("few");
        let mut all = Vec::new();
        for _ in 0..=most {
            world.passes(1_000);
            all.push(world.enters("138").await);
        }
        assert_eq!(world.sessions(&elsewhere.holder).await.len(), most + 1);
        assert_eq!(world.refresh(&all[0].refresh).await, Err("refresh_refused"), "the oldest made room");
        assert!(world.refresh(&all[1].refresh).await.is_ok());
        assert!(world.membership.refresh(&other, &elsewhere.refresh).await.is_ok(), "another app's stays");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_stands_in_the_tables() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let first = world.enters("138").await;
        let second = world.refresh(&first.refresh).await.expect("it is refreshed");
        let rows = sql::all(world.kernel.db.reader(), "SELECT * FROM kernel_session", []).await.expect("they are read");
        let text = |column: &str| sql::get::<Option<String>>(&rows[0], column).expect("a text").unwrap_or_default();
        let sealed: Vec<u8> = sql::get(&rows[0], "successor").expect("it is there");
        let stored: String = ["id", "member", "app", "unit", "refresh_hash", "spent_hash", "refreshed_by"].map(text).concat();
        let stored = format!("{stored}{}", String::from_utf8_lossy(&sealed));
        for token in [&first.access, &first.refresh, &second.access, &second.refresh] {
            let secret = token.rsplit_once('.').expect("two parts").1;
            assert!(!stored.contains(token.as_str()) && !stored.contains(secret));
        }
        let audited = sql::all(world.kernel.db.reader(), "SELECT detail FROM kernel_audit", []).await.expect("they are read");
        assert!(audited.iter().all(|row| !sql::get::<String>(row, "detail").expect("a text").contains("hyr_")));
        assert_eq!(format!("{second:?}"), format!("Tokens({}, …)", second.session));
    })
    .await;
}
