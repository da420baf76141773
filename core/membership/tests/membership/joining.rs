//! Joining at once: whichever of a customer's identifiers they come with, one customer is one member.

use crate::world::{phone, unit, world};
use futures::future::join_all;
use heyuan_harness::for_both_databases;
use heyuan_membership::Join;
use std::collections::BTreeSet;

#[tokio::test(flavor = "multi_thread")]
async fn one_customer_joins_once_by_whatever_it_is_known() {
    for_both_databases(|database| async move {
        let world = world(&database).await;
        for round in 0..5 {
            let names: Vec<String> = (0..8).map(|place| format!("r{round}-{place}")).collect();
            let values: Vec<&str> = names.iter().map(String::as_str).collect();
            world.people.link(&values, &format!("cus_r{round}"));
            let joins: Vec<Join> = values.iter().map(|value| Join { unit: unit("mall-1"), identifiers: vec![phone(value)] }).collect();
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
