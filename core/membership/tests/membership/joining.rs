//! Joining: whichever of a customer's identifiers they come with, one customer is one member, and a key is given no more than it reaches.

use crate::world::{code, phone, unit, world};
use futures::future::join_all;
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Actor, Reach, Scope};
use heyuan_membership::{Join, SessionFor};
use std::collections::BTreeSet;
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread")]
async fn one_customer_joins_once_by_whatever_it_is_known() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        for round in 0..5 {
            let names: Vec<String> = (0..8).map(|place| format!("r{round}-{place}")).collect();
            let values: Vec<&str> = names.iter().map(String::as_str).collect();
            world.people.link(&values, &format!("cus_r{round}"));
            let joins: Vec<Join> = values
                .iter()
                .map(|value| Join { unit: unit("mall-1"), identifiers: vec![phone(value)], session: SessionFor::Everybody })
                .collect();
            let joined = join_all(joins.iter().map(|join| {
                let (world, join) = (world.clone(), join.clone());
                tokio::spawn(async move { world.membership.join(&world.app, &join).await })
            }))
            .await;
            let joined: Vec<_> = joined.into_iter().map(|one| one.expect("nobody panics").expect("it joins")).collect();
            let members: BTreeSet<&str> = joined.iter().map(|one| one.id.as_str()).collect();
            assert_eq!(members.len(), 1, "round {round}");
            assert_eq!(joined.iter().filter(|one| one.new).count(), 1, "round {round}");
        }
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM membership_member").await, 5);
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM kernel_outbox WHERE name = 'member.joined.v1'").await, 5);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_gets_a_session_of_members_that_it_reaches_where_it_asks_for_one() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        let reach = Reach::Units(Arc::new([unit("hotel-1")].into()));
        let hotel = Actor::key("key:hotel".into(), vec![Scope::App], Some(unit("hotel-1")), reach);
        let join = |place: &str, values: &[&str], session: SessionFor| Join {
            unit: unit(place),
            identifiers: values.iter().map(|value| phone(value)).collect(),
            session,
        };
        let member = world.join("138").await;
        // A member of the mall: the hotel hears who it is, and nothing that speaks for it.
        let told = world.membership.join(&hotel, &join("hotel-1", &["138", "own"], SessionFor::Everybody)).await.expect("it is known");
        assert_eq!((&told.id, told.tokens, told.tier.as_str()), (&member, None, "silver"));
        assert_eq!(world.membership.member(&hotel, &member).await.map_err(code).err(), Some("unknown_member"));
        let stays_out = world.membership.join(&hotel, &join("hotel-1", &["own"], SessionFor::Everybody)).await.expect("it joins");
        assert!(stays_out.new && stays_out.tokens.is_some(), "what a key out of reach showed beside was tied to nobody");

        // A look-up opens none; a session is asked for, and what else was verified is proven then.
        let sessions = world.count("SELECT COUNT(*) AS n FROM kernel_session").await;
        for wanted in [SessionFor::NewMembers, SessionFor::Nobody] {
            let known = world.membership.join(&world.app, &join("mall-1", &["138"], wanted)).await.expect("it is known");
            assert_eq!((known.id, known.tokens), (member.clone(), None));
        }
        assert_eq!(world.count("SELECT COUNT(*) AS n FROM kernel_session").await, sessions);
        let audited = "SELECT COUNT(*) AS n FROM kernel_audit WHERE action = 'readmit member'";
        assert_eq!(world.count(audited).await, 0);
        let known = world.membership.join(&world.app, &join("hotel-1", &["138", "o1"], SessionFor::Everybody)).await.expect("it is known");
        assert_eq!(known.tokens.expect("a session").holder, member);
        let known = world.membership.join(&world.app, &join("hotel-1", &["o1"], SessionFor::Everybody)).await.expect("it is proven");
        assert_eq!(known.tokens.expect("a session").holder, member);
        assert_eq!(world.count(audited).await, 2);
        let quiet = world.membership.join(&world.app, &join("mall-1", &["140"], SessionFor::Nobody)).await.expect("it joins");
        assert!(quiet.new && quiet.tokens.is_none());

        // What was only seen together tells who it is, and opens nothing.
        world.people.link(&["138", "141"], "cus_one");
        let seen = world.membership.join(&world.app, &join("mall-1", &["141"], SessionFor::Everybody)).await.expect("it is known");
        assert_eq!((seen.id, seen.new, seen.tokens), (member, false, None));
    })
    .await;
}
