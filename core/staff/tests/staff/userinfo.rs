//! Roles that the provider states at its userinfo endpoint alone.

use crate::world::{code, world};
use heyuan_harness::for_both_databases;
use heyuan_kernel::Scope;
use heyuan_staff::simulator::{OidcMisbehaviour, UserinfoFault};
use heyuan_staff::{RolesFrom, StaffSettings};

fn alone(userinfo: UserinfoFault) -> OidcMisbehaviour {
    OidcMisbehaviour { groups_at_userinfo_alone: true, userinfo, ..OidcMisbehaviour::default() }
}

#[tokio::test]
async fn roles_are_read_where_the_setting_says() {
    for_both_databases(async |database| {
        let world = world(&database).await;
        let process = world.with(&StaffSettings { roles_from: RolesFrom::Userinfo, ..world.settings.clone() });
        world.simulator.misbehave(alone(UserinfoFault::None));
        assert_eq!(code(world.logs_in("wang").await), "no_staff_role", "its token holds none");
        let wang = process.login.finish(&world.begun("wang").await).await.expect("wang is let in");
        assert_eq!(
            (wang.holder.scopes.as_slice(), wang.holder.unit.as_ref().map(|unit| unit.as_str())),
            (&[Scope::App, Scope::Admin, Scope::Reveal][..], Some("mall-1"))
        );
        let sun = process.login.finish(&world.begun("nobody").await).await;
        assert_eq!(code(sun), "no_staff_role");
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_at_the_userinfo_endpoint_lets_nobody_in_and_is_said() {
    for_both_databases(async |database| {
        let world = world(&database).await;
        let process = world.with(&StaffSettings { roles_from: RolesFrom::Userinfo, ..world.settings.clone() });
        for (fault, expected, words) in [
            (UserinfoFault::OtherSubject, "id_token_refused", "(sub)"),
            (UserinfoFault::NoSubject, "id_token_refused", "(sub)"),
            (UserinfoFault::Signed, "unavailable", "plain JSON"),
            (UserinfoFault::TooLong, "unavailable", "too long"),
            (UserinfoFault::Refuses, "unavailable", "refuses the token"),
            (UserinfoFault::Fails, "unavailable", "with an error"),
        ] {
            world.simulator.misbehave(alone(fault));
            let refused = process.login.finish(&world.begun("li").await).await.expect_err("nobody is let in");
            assert_eq!(refused.code().code, expected, "{fault:?}");
            assert!(refused.detail().contains(words), "{fault:?}: {}", refused.detail());
        }
        assert_eq!(world.reasons().await, ["userinfo_subject", "userinfo_subject"], "what is away refuses nobody");
        assert_eq!((world.count("kernel_session").await, world.count("staff_person").await), (0, 0));
        world.simulator.misbehave(OidcMisbehaviour::default());
        process.login.finish(&world.begun("li").await).await.expect("li is let in");
    })
    .await;
}
