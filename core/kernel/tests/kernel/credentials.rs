//! Keys and tokens become actors; nothing else does.

use crate::tenant::{NOW_MS, open};
use heyuan_contract::{Line, MemberId, OrgUnitId, Timestamp, UnitKind};
use heyuan_harness::for_both_databases;
use heyuan_kernel::keys::{self, Credentials, TOKEN_TIME_MS};
use heyuan_kernel::org::OrgUnit;
use heyuan_kernel::{Kernel, Scope};

fn id(text: &str) -> OrgUnitId {
    OrgUnitId::new(text).expect("a valid id")
}

fn unit(own: &str, parent: Option<&str>, kind: UnitKind, line: Option<Line>) -> OrgUnit {
    OrgUnit { id: id(own), parent: parent.map(id), name: "单元".into(), kind, line }
}

async fn with_units(kernel: &Kernel) {
    let units = vec![
        unit("group", None, UnitKind::Group, None),
        unit("city", Some("group"), UnitKind::City, None),
        unit("mall", Some("city"), UnitKind::Mall, Some(Line::Mall)),
        unit("hotel", Some("group"), UnitKind::Hotel, Some(Line::Hotel)),
    ];
    kernel.org.put(units).await.expect("the tree is made");
}

fn credentials(kernel: &Kernel) -> Credentials {
    Credentials::new(kernel.db.clone(), kernel.org.clone(), kernel.keys.clone(), kernel.clock.clone())
}

#[tokio::test]
async fn a_keys_scopes_and_units_are_its_own() {
    for_both_databases(async |database| {
        let kernel = open(&database).await;
        with_units(&kernel).await;
        let key = keys::create(&kernel.db, &kernel.org, &[Scope::App], Some(&id("city"))).await.expect("a key");
        let actor = credentials(&kernel).authenticate(Some(&format!("Bearer {key}"))).await.expect("it is known");
        assert!(actor.has(Scope::App) && !actor.has(Scope::Admin));
        assert!(actor.require_unit(&id("mall")).is_ok());
        assert_eq!(actor.require_unit(&id("hotel")).map_err(|p| p.code().code), Err("forbidden"));
        for stranger in [None, Some("Bearer hyk_unknown"), Some("Basic Og=="), Some(key.as_str())] {
            let refused = credentials(&kernel).authenticate(stranger).await.map_err(|p| p.code().code);
            assert_eq!(refused.map(|actor| actor.name().to_owned()), Err("unauthenticated"), "{stranger:?}");
        }
        assert!(keys::create(&kernel.db, &kernel.org, &[Scope::App], Some(&id("nowhere"))).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn a_members_token_speaks_for_that_member_until_it_ends() {
    for_both_databases(async |database| {
        let kernel = open(&database).await;
        let member = MemberId::new("mbr_1").expect("a valid id");
        let (token, expires) = credentials(&kernel).member_token(&member);
        let actor = credentials(&kernel).authenticate(Some(&format!("Bearer {token}"))).await.expect("it is ours");
        assert!(actor.require_for_member(Scope::App, &member).is_ok());
        assert!(actor.require_for_member(Scope::App, &MemberId::new("mbr_2").expect("valid")).is_err());
        assert!(actor.require(Scope::App).is_err());
        assert!(credentials(&kernel).authenticate(Some(&format!("Bearer {token}x"))).await.is_err());
        assert_eq!(expires.ms(), NOW_MS + TOKEN_TIME_MS);
        kernel.clock.set(Timestamp::clamped(NOW_MS + TOKEN_TIME_MS));
        assert!(credentials(&kernel).authenticate(Some(&format!("Bearer {token}"))).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn the_tree_is_checked_before_it_is_changed() {
    for_both_databases(async |database| {
        let kernel = open(&database).await;
        with_units(&kernel).await;
        for (bad, field) in [
            (unit("other", None, UnitKind::Group, None), "units[0].parent"),
            (unit("shop", Some("nowhere"), UnitKind::Mall, Some(Line::Mall)), "units[0].parent"),
            (unit("mall", Some("group"), UnitKind::Mall, Some(Line::Mall)), "units[0].id"),
        ] {
            let problem = heyuan_kernel::Problem::from(kernel.org.put(vec![bad]).await.expect_err("it is refused"));
            assert_eq!(problem.body().field.as_deref(), Some(field));
        }
        assert_eq!(kernel.org.tree().units().count(), 4);
    })
    .await;
}
