//! Staff sessions: refreshed, stolen, logged out of, listed, ended, over.

use crate::world::{World, code, unit, world};
use heyuan_contract::StaffId;
use heyuan_harness::for_both_databases;
use heyuan_kernel::keys::{self, CACHE_TIME_MS, STAFF_ACCESS_MS, STAFF_IDLE_MS, STAFF_LIFE_MS};
use heyuan_kernel::{Actor, Scope};

#[tokio::test]
async fn a_refresh_token_counts_once_and_a_spent_one_ends_the_session() {
    for_both_databases(async |database| {
        let world = world(&database).await;
        let first = world.logs_in("wang").await.expect("wang is let in");
        let second = world.here.credentials.refresh_staff(&first.refresh).await.expect("it is refreshed");
        assert_eq!((&second.session, &second.holder), (&first.session, &first.holder));
        let third = world.elsewhere().credentials.refresh_staff(&second.refresh).await.expect("it is refreshed in another process");
        // Even the one spent last, at once.
        assert_eq!(code(world.here.credentials.refresh_staff(&second.refresh).await), "refresh_refused");
        for token in [&first.access, &second.access, &third.access] {
            assert_eq!(code(world.here.actor(token).await), "unauthenticated");
        }
        assert_eq!(code(world.here.credentials.refresh_staff(&third.refresh).await), "refresh_refused");
        let ended = world.audited("end session").await;
        assert_eq!(ended[0].2["why"], "a spent refresh token came again");
        assert_eq!(ended[0].0, format!("staff:{}", first.holder.id));
        for strange in ["", "hyr_x.y", &first.access] {
            assert_eq!(code(world.here.credentials.refresh_staff(strange).await), "refresh_refused", "{strange}");
        }
        // At the members' door a staff token is none.
        let other = world.logs_in("wang").await.expect("wang is let in");
        let key = Actor::system("test");
        assert_eq!(code(world.here.credentials.refresh(&key, &other.refresh).await), "refresh_refused");
        world.here.credentials.log_out(&key, &other.refresh).await.expect("it ends nothing");
        assert!(world.here.actor(&other.access).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn a_session_lasts_a_working_day_at_most() {
    for_both_databases(async |database| {
        let world = world(&database).await;
        let mut tokens = world.logs_in("li").await.expect("li is let in");
        let began = world.kernel.clock.now();
        world.passes(STAFF_ACCESS_MS);
        assert_eq!(code(world.here.actor(&tokens.access).await), "unauthenticated");
        // Refreshed in time it goes on, until its end.
        world.passes(STAFF_IDLE_MS - STAFF_ACCESS_MS - 1);
        tokens = world.here.credentials.refresh_staff(&tokens.refresh).await.expect("it is refreshed");
        assert!(world.here.actor(&tokens.access).await.is_ok());
        assert_eq!(tokens.refresh_expires_at, began.plus_ms(STAFF_LIFE_MS));
        world.passes(STAFF_LIFE_MS - STAFF_IDLE_MS + 1);
        assert_eq!(code(world.here.credentials.refresh_staff(&tokens.refresh).await), "refresh_refused");
        // Left alone it is over sooner.
        let idle = world.logs_in("li").await.expect("li is let in");
        world.passes(STAFF_IDLE_MS);
        assert_eq!(code(world.here.credentials.refresh_staff(&idle.refresh).await), "refresh_refused");
        assert!(world.here.credentials.sessions_to_sweep().await.expect("it is looked at"));
    })
    .await;
}

/// A key made beside the data, as its actor.
async fn keyed(world: &World, scopes: &[Scope], at: Option<&str>) -> Actor {
    let at = at.map(unit);
    let key = keys::create(&world.kernel.db, &world.kernel.org, scopes, at.as_ref()).await.expect("a key");
    world.here.actor(&key).await.expect("it is known")
}

async fn seen(world: &World, actor: &Actor, of: Option<&StaffId>) -> Vec<String> {
    let listed = world.here.credentials.staff_sessions(actor, of, "", 50).await.expect("they are listed");
    listed.into_iter().map(|session| session.id).collect()
}

#[tokio::test]
async fn sessions_are_seen_and_ended_within_reach_or_by_oneself() {
    for_both_databases(async |database| {
        let world = world(&database).await;
        let mut people = Vec::new();
        for person in ["li", "wang", "wang", "zhao"] {
            people.push(world.logs_in(person).await.expect("everybody is let in"));
        }
        let [li, wang, wang_again, zhao] = <[_; 4]>::try_from(people).expect("four");
        let (group, mall) = (keyed(&world, &[Scope::Admin], None).await, keyed(&world, &[Scope::Admin], Some("mall-1")).await);
        let app = keyed(&world, &[Scope::App], None).await;
        let id = |tokens: &heyuan_staff::LoggedIn| tokens.session.clone();
        assert_eq!(seen(&world, &group, None).await, [id(&li), id(&wang), id(&wang_again), id(&zhao)]);
        assert_eq!(seen(&world, &mall, None).await, [id(&wang), id(&wang_again)]);
        assert_eq!(seen(&world, &group, Some(&zhao.holder.id)).await, [id(&zhao)]);
        let page = world.here.credentials.staff_sessions(&group, None, &li.session, 1).await.expect("a page");
        assert_eq!(page[0].id, wang.session);
        assert_eq!(code(world.here.credentials.staff_sessions(&app, None, "", 50).await), "forbidden");
        assert_eq!(code(world.here.credentials.end_staff_session(&app, &li.session).await), "forbidden");
        for beyond in [&li.session, &zhao.session, "ses_none"] {
            assert_eq!(code(world.here.credentials.end_staff_session(&mall, beyond).await), "not_found", "{beyond}");
        }
        assert_eq!(code(world.here.credentials.end_staff_sessions(&mall, &zhao.holder.id).await), "not_found");

        // One's own, without being asked for a scope.
        world.simulator.employ("chen", &["mall desk"]);
        let chen = world.logs_in("chen").await.expect("chen is let in");
        let own = world.here.actor(&chen.access).await.expect("it speaks");
        assert_eq!(seen(&world, &own, None).await, [id(&chen)]);
        assert_eq!(code(world.here.credentials.end_staff_session(&own, &wang.session).await), "not_found");
        world.here.credentials.end_staff_session(&own, &chen.session).await.expect("it is ended");
        assert_eq!(code(world.here.actor(&chen.access).await), "unauthenticated");

        // Every session of a person: here at once, elsewhere within five seconds.
        let elsewhere = world.elsewhere();
        for token in [&wang.access, &wang_again.access] {
            elsewhere.actor(token).await.expect("it speaks");
        }
        world.here.credentials.end_staff_sessions(&mall, &wang.holder.id).await.expect("they are ended");
        world.passes(CACHE_TIME_MS);
        for token in [&wang.access, &wang_again.access] {
            assert_eq!(code(world.here.actor(token).await), "unauthenticated");
            assert_eq!(code(elsewhere.actor(token).await), "unauthenticated");
        }
        let ended: Vec<_> = world.audited("end session").await.into_iter().map(|(actor, object, _)| (actor, object)).collect();
        let by = |actor: &Actor, of: &StaffId| (actor.name().to_owned(), of.to_string());
        assert_eq!(ended, [by(&own, &chen.holder.id), by(&mall, &wang.holder.id), by(&mall, &wang.holder.id)]);

        world.here.credentials.log_staff_out(&zhao.refresh).await.expect("zhao logs out");
        world.here.credentials.log_staff_out(&zhao.refresh).await.expect("and stays out");
        assert_eq!(code(world.here.actor(&zhao.access).await), "unauthenticated");
        assert_eq!(world.audited("end session").await.len(), 4);
        assert!(world.here.actor(&li.access).await.is_ok());
    })
    .await;
}
