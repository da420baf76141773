//! Keys and tokens become actors; nothing else does.

use crate::tenant::{NOW_MS, open};
use futures::FutureExt;
use heyuan_contract::{Line, MemberId, OrgUnitId, Timestamp, UnitKind};
use heyuan_harness::for_both_databases;
use heyuan_kernel::keys::{self, ACCESS_TIME_MS, CACHE_TIME_MS, Credentials, LAST_USE_STEP_MS};
use heyuan_kernel::org::OrgUnit;
use heyuan_kernel::{Actor, Kernel, Scope, sql};

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

/// Who asks for a key, with which scopes and unit, and what refuses it: a code, and its field.
type Asked<'a> = (&'a Actor, &'a [Scope], Option<&'a str>, Option<(&'a str, Option<&'a str>)>);

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

/// A key made beside the data, and the actor that it is.
async fn keyed(kernel: &Kernel, scopes: &[Scope], unit: Option<&str>) -> (String, Actor) {
    let unit = unit.map(id);
    let key = keys::create(&kernel.db, &kernel.org, scopes, unit.as_ref()).await.expect("a key");
    let actor = credentials(kernel).authenticate(Some(&format!("Bearer {key}"))).await.expect("it is known");
    (key, actor)
}

fn key_id(actor: &Actor) -> String {
    actor.name().trim_start_matches("key:").to_owned()
}

async fn audited(kernel: &Kernel, action: &str) -> Vec<(String, String)> {
    let text = "SELECT actor, object FROM kernel_audit WHERE action = $1 ORDER BY id";
    let rows = sql::all(kernel.db.reader(), text, [action.into()]).await.expect("the records are read");
    rows.iter().map(|row| (sql::get(row, "actor").expect("an actor"), sql::get(row, "object").expect("an object"))).collect()
}

#[tokio::test]
async fn a_key_gives_no_more_than_it_has() {
    for_both_databases(async |database| {
        let kernel = open(&database).await;
        with_units(&kernel).await;
        let (_, city) = keyed(&kernel, &[Scope::Admin, Scope::App], Some("city")).await;
        let (_, app) = keyed(&kernel, &[Scope::App], None).await;
        let (_, admin) = keyed(&kernel, &[Scope::Admin], None).await;
        // Who asks, for which scopes and unit, and the code and field of the refusal.
        let cases: [Asked<'_>; 8] = [
            (&city, &[Scope::App], Some("mall"), None),
            (&city, &[Scope::App, Scope::Admin], Some("city"), None),
            (&city, &[Scope::App], None, Some(("forbidden", Some("unit")))),
            (&city, &[Scope::App], Some("hotel"), Some(("forbidden", None))),
            (&city, &[Scope::Reveal], Some("mall"), Some(("forbidden", Some("scopes")))),
            (&app, &[Scope::App], None, Some(("forbidden", None))),
            (&admin, &[Scope::Admin], Some("nowhere"), Some(("invalid_request", Some("unit")))),
            (&admin, &[], None, Some(("invalid_request", Some("scopes")))),
        ];
        for (actor, scopes, unit, refusal) in cases {
            let unit = unit.map(id);
            let answer = credentials(&kernel).create(actor, scopes, unit.as_ref()).await;
            let found = answer.as_ref().err().map(heyuan_kernel::Problem::body);
            let found = found.as_ref().map(|body| (body.code.as_str(), body.field.as_deref()));
            assert_eq!(found, refusal, "{scopes:?} for {unit:?} by {}", actor.name());
            if let Ok(key) = answer {
                let made = credentials(&kernel).authenticate(Some(&format!("Bearer {}", key.secret))).await.expect("it is known");
                assert_eq!((made.unit(), made.has(Scope::Reveal)), (unit.as_ref(), false));
                assert!(audited(&kernel, "create key").await.contains(&(actor.name().to_owned(), key.record.id)));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_revoked_key_is_refused_at_once_here_and_soon_everywhere() {
    for_both_databases(async |database| {
        let kernel = open(&database).await;
        let (_, admin) = keyed(&kernel, &[Scope::Admin], None).await;
        let (key, actor) = keyed(&kernel, &[Scope::App], None).await;
        let header = format!("Bearer {key}");
        let (here, elsewhere) = (credentials(&kernel), credentials(&kernel));
        for process in [&here, &elsewhere] {
            process.authenticate(Some(&header)).await.expect("it is known");
        }
        let revoked = here.revoke(&admin, &key_id(&actor)).await.expect("it is revoked");
        assert_eq!(revoked.revoked_at, Some(Timestamp::clamped(NOW_MS)));
        let refused = here.authenticate(Some(&header)).await.map_err(|p| p.code().code);
        assert_eq!(refused.map(|actor| actor.name().to_owned()), Err("unauthenticated"));
        kernel.clock.set(Timestamp::clamped(NOW_MS + CACHE_TIME_MS));
        let refused = elsewhere.authenticate(Some(&header)).await.map_err(|p| p.code().code);
        assert_eq!(refused.map(|actor| actor.name().to_owned()), Err("unauthenticated"));
        let again = here.revoke(&admin, &key_id(&actor)).await.expect("a revoked key stays as it is");
        assert_eq!(again.revoked_at, Some(Timestamp::clamped(NOW_MS)));
        assert_eq!(audited(&kernel, "revoke key").await, [(admin.name().to_owned(), key_id(&actor))]);
    })
    .await;
}

#[tokio::test]
async fn keys_are_seen_and_revoked_within_reach_alone() {
    for_both_databases(async |database| {
        let kernel = open(&database).await;
        with_units(&kernel).await;
        let (_, group) = keyed(&kernel, &[Scope::Admin], None).await;
        let (_, city) = keyed(&kernel, &[Scope::Admin], Some("city")).await;
        let (_, mall) = keyed(&kernel, &[Scope::App], Some("mall")).await;
        let (_, hotel) = keyed(&kernel, &[Scope::App], Some("hotel")).await;
        let all = credentials(&kernel);
        let ids = async |actor: &Actor, limit| {
            let mut ids: Vec<String> = all.list(actor, "", limit).await.expect("a list").into_iter().map(|key| key.id).collect();
            ids.sort();
            ids
        };
        let mut below = [key_id(&city), key_id(&mall)];
        below.sort();
        assert_eq!(ids(&city, 50).await, below);
        assert_eq!(ids(&city, 1).await, below[..1]);
        assert_eq!(ids(&group, 50).await.len(), 4);
        assert_eq!(all.list(&mall, "", 50).await.map_err(|p| p.code().code), Err("forbidden"));
        for unseen in [key_id(&hotel), key_id(&group), "key_unknown".to_owned()] {
            assert_eq!(all.revoke(&city, &unseen).await.map_err(|p| p.code().code), Err("not_found"), "{unseen}");
        }
        assert_eq!(all.revoke(&mall, &key_id(&mall)).await.map_err(|p| p.code().code), Err("forbidden"));
        assert!(all.revoke(&city, &key_id(&mall)).await.is_ok());
        assert_eq!(ids(&city, 50).await, below, "a revoked key stays in the list");
    })
    .await;
}

#[tokio::test]
async fn the_last_key_of_the_group_is_not_revoked_over_http() {
    for_both_databases(async |database| {
        let kernel = open(&database).await;
        with_units(&kernel).await;
        let (_, one) = keyed(&kernel, &[Scope::Admin], None).await;
        let (_, other) = keyed(&kernel, &[Scope::Admin, Scope::App], None).await;
        keyed(&kernel, &[Scope::Admin], Some("city")).await;
        let all = credentials(&kernel);
        let (one_id, other_id) = (key_id(&one), key_id(&other));
        // Two that revoke each other do not leave none.
        let (first, second) = futures::join!(all.revoke(&one, &other_id), all.revoke(&other, &one_id));
        let mut codes = [first.map_err(|p| p.code().code).err(), second.map_err(|p| p.code().code).err()];
        codes.sort_unstable();
        assert_eq!(codes, [None, Some("last_admin_key")]);
        let left = all.list(&one, "", 50).await.expect("a list");
        let left = left.into_iter().find(|key| key.unit.is_none() && key.revoked_at.is_none()).expect("one is left");
        // Whoever holds the data can make another at any time.
        assert!(all.revoke(&Actor::system("keys"), &left.id).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn the_last_use_of_a_key_is_kept_to_the_hour() {
    for_both_databases(async |database| {
        let kernel = open(&database).await;
        let admin = Actor::system("keys");
        let key = keys::create(&kernel.db, &kernel.org, &[Scope::App], None).await.expect("a key");
        let header = format!("Bearer {key}");
        let all = credentials(&kernel);
        let last_use = async || all.list(&admin, "", 1).await.expect("a list")[0].last_used_at.map(Timestamp::ms);
        assert_eq!(last_use().await, None);
        for (at, kept) in [(0, 0), (60_000, 0), (LAST_USE_STEP_MS, LAST_USE_STEP_MS), (LAST_USE_STEP_MS + 60_000, LAST_USE_STEP_MS)] {
            kernel.clock.set(Timestamp::clamped(NOW_MS + at));
            all.authenticate(Some(&header)).await.expect("it is known");
            assert_eq!(last_use().await, Some(NOW_MS + kept));
        }
    })
    .await;
}

#[tokio::test]
async fn a_members_token_speaks_for_that_member_until_it_ends() {
    for_both_databases(async |database| {
        let kernel = open(&database).await;
        let member = MemberId::new("mbr_1").expect("a valid id");
        let opened = credentials(&kernel);
        let (opener, of) = (opened.clone(), member.clone());
        let tokens = kernel.db.write("open a session", move |tx| {
            let (opener, of) = (opener.clone(), of.clone());
            async move { opener.open_session(tx, &of, "mall", &id("mall")).await }.boxed()
        });
        let tokens = tokens.await.expect("it is opened");
        let header = format!("Bearer {}", tokens.access);
        let actor = opened.authenticate(Some(&header)).await.expect("it is ours");
        assert!(actor.require_for_member(Scope::App, &member).is_ok());
        assert!(actor.require_for_member(Scope::App, &MemberId::new("mbr_2").expect("valid")).is_err());
        assert!(actor.require(Scope::App).is_err());
        for wrong in [format!("{header}x"), format!("Bearer {}", tokens.refresh), header.replacen("hym_", "hys_", 1)] {
            assert!(opened.authenticate(Some(&wrong)).await.is_err(), "it is not ours");
        }
        assert_eq!(tokens.access_expires_at.ms(), NOW_MS + ACCESS_TIME_MS);
        kernel.clock.set(tokens.access_expires_at);
        assert!(opened.authenticate(Some(&header)).await.is_err());
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
