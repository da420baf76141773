//! Who is who: live matching equals the pure function, in whatever order observations come.

use crate::ground::{Ground, NOW};
use heyuan_cdp::{Edge, EvidenceName, Kind, Node, Rules, resolve};
use heyuan_contract::{AnchorId, Timestamp};
use heyuan_harness::{TestDatabase, for_both_databases};
use heyuan_kernel::{Actor, Scope, sql};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::json;
use std::collections::BTreeMap;

/// Reads everything that was observed, as a replay would.
async fn replay(ground: &Ground) -> (BTreeMap<AnchorId, AnchorId>, BTreeMap<AnchorId, AnchorId>) {
    let reader = ground.kernel.db.reader();
    let id = |text: String| AnchorId::new(text).expect("a stored id");
    let (mut nodes, mut stored) = (Vec::new(), BTreeMap::new());
    for row in sql::all(reader, "SELECT id, kind, app, blocked, first_seen, cluster FROM cdp_node", []).await.expect("nodes") {
        let node = Node {
            id: id(sql::get(&row, "id").expect("id")),
            kind: Kind::parse(&sql::get::<String>(&row, "kind").expect("kind")).expect("a known type"),
            app: sql::get(&row, "app").expect("app"),
            blocked: sql::get::<i64>(&row, "blocked").expect("blocked") != 0,
            shared: false,
            first_seen: sql::get(&row, "first_seen").expect("first seen"),
        };
        stored.insert(node.id.clone(), id(sql::get(&row, "cluster").expect("cluster")));
        nodes.push(node);
    }
    let text = "SELECT a, b, first_seen FROM cdp_edge WHERE retracted_at IS NULL";
    let edges: Vec<Edge> = sql::all(reader, text, [])
        .await
        .expect("edges")
        .iter()
        .map(|row| Edge {
            a: id(sql::get(row, "a").expect("a")),
            b: id(sql::get(row, "b").expect("b")),
            first_seen: sql::get(row, "first_seen").expect("first seen"),
        })
        .collect();
    let apart: Vec<(AnchorId, AnchorId)> = sql::all(reader, "SELECT a, b FROM cdp_cannot_link", [])
        .await
        .expect("cannot-links")
        .iter()
        .map(|row| (id(sql::get(row, "a").expect("a")), id(sql::get(row, "b").expect("b"))))
        .collect();
    (resolve(&nodes, &edges, &apart, &Rules::built_in()).root, stored)
}

fn value(kind: Kind, number: u8) -> String {
    match kind {
        Kind::Phone => format!("138000{number:05}"),
        Kind::Email => format!("p{number}@example.com"),
        _ => format!("{kind} {number}"),
    }
}

/// Sightings among few identifiers, so that they collide: tablets, family phones, several members at one device.
fn sightings() -> impl Strategy<Value = Vec<(Vec<(Kind, u8)>, i64)>> {
    let kind = prop::sample::select(vec![Kind::Device, Kind::Device, Kind::Phone, Kind::Unionid, Kind::Member, Kind::Email, Kind::User]);
    let identifiers = prop::collection::vec((kind, 0_u8..9), 1..4);
    prop::collection::vec((identifiers, 0_i64..40), 1..60)
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new_with_rng(
        Config { cases, failure_persistence: None, ..Config::default() },
        TestRng::from_seed(RngAlgorithm::ChaCha, &[42; 32]),
    )
}

/// Customers that are split after each case's observations.
const SPLITS: i64 = 4;

/// Takes one piece of evidence back, wherever it lies: within a customer, between two, or beside a shared identifier.
async fn split_somewhere(ground: &Ground, place: i64) {
    let text = "SELECT a, b FROM cdp_edge WHERE retracted_at IS NULL ORDER BY a, b LIMIT 1 OFFSET $1";
    let Some(row) = sql::one(ground.kernel.db.reader(), text, [(place * 5).into()]).await.expect("edges") else { return };
    let end = |name: &str| AnchorId::new(sql::get::<String>(&row, name).expect("an end")).expect("a stored id");
    let evidence = EvidenceName { a: end("a"), b: end("b") };
    let customer = ground.cdp.customer_of(&evidence.a).await.expect("an answer").expect("a customer");
    ground.cdp.split(&Actor::system("test"), &customer, &[evidence]).await.expect("evidence of this customer");
}

#[test]
fn live_matching_equals_a_replay() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let outcome = runner(25).run(&sightings(), |list| {
        runtime.block_on(async {
            let database = TestDatabase::sqlite();
            let ground = Ground::open(&database).await;
            let actor = Actor::system("test");
            for (place, (identifiers, at)) in list.iter().enumerate() {
                ground.kernel.clock.set(Timestamp::clamped(NOW + at * 1000));
                let texts: Vec<(String, String)> =
                    identifiers.iter().map(|(kind, n)| (kind.as_str().to_owned(), value(*kind, *n))).collect();
                let pairs: Vec<(&str, &str)> = texts.iter().map(|(kind, value)| (kind.as_str(), value.as_str())).collect();
                ground.cdp.observe(&actor, None, &pairs).await.expect("an observation");
                if place % 16 == 15 || place + 1 == list.len() {
                    let (pure, live) = replay(&ground).await;
                    prop_assert_eq!(&pure, &live, "after {} observations", place + 1);
                }
            }
            for place in 0..SPLITS {
                split_somewhere(&ground, place).await;
                let (pure, live) = replay(&ground).await;
                prop_assert_eq!(&pure, &live, "after {} splits", place + 1);
            }
            Ok(())
        })
    });
    outcome.expect("live matching and replay agree");
}

#[test]
fn the_order_of_observations_does_not_matter() {
    let outcome = runner(200).run(&(sightings(), any::<u64>()), |(list, seed)| {
        let mut nodes: BTreeMap<(Kind, u8), i64> = BTreeMap::new();
        type Person = (Kind, u8);
        let mut edges: BTreeMap<(Person, Person), i64> = BTreeMap::new();
        for (identifiers, at) in &list {
            for one in identifiers {
                let first = nodes.entry(*one).or_insert(*at);
                *first = (*first).min(*at);
                for other in identifiers.iter().filter(|other| *other > one) {
                    let first = edges.entry((*one, *other)).or_insert(*at);
                    *first = (*first).min(*at);
                }
            }
        }
        let id = |(kind, n): &(Kind, u8)| AnchorId::new(format!("anc_{kind}{n}")).expect("a valid id");
        let mut nodes: Vec<Node> = nodes
            .iter()
            .map(|(one, at)| Node { id: id(one), kind: one.0, app: None, blocked: one.1 == 8, shared: false, first_seen: *at })
            .collect();
        let mut edges: Vec<Edge> = edges.iter().map(|((a, b), at)| Edge { a: id(a), b: id(b), first_seen: *at }).collect();
        let rules = Rules::built_in();
        let before = resolve(&nodes, &edges, &[], &rules);
        let turn = usize::try_from(seed % 1000).unwrap_or(0);
        nodes.reverse();
        let (count, links) = (nodes.len(), edges.len().max(1));
        nodes.rotate_left(turn % count);
        if !edges.is_empty() {
            edges.rotate_left(turn % links);
        }
        edges.iter_mut().step_by(2).for_each(|edge| std::mem::swap(&mut edge.a, &mut edge.b));
        prop_assert_eq!(&before, &resolve(&nodes, &edges, &[], &rules));
        let mut members: BTreeMap<&AnchorId, Vec<&Node>> = BTreeMap::new();
        nodes.iter().for_each(|node| members.entry(&before.root[&node.id]).or_default().push(node));
        for list in members.values() {
            for kind in [Kind::Member, Kind::Unionid, Kind::User] {
                prop_assert!(list.iter().filter(|node| node.kind == kind).count() <= 1, "a customer with two of {}", kind);
            }
        }
        Ok(())
    });
    outcome.expect("order does not matter");
}

/// Customers of two or more, from pairs such as `phone1 device1` in the order in which they were seen.
fn matched(pairs: &[&str]) -> Vec<String> {
    let node = |text: &str, at: i64| {
        let kind = text.trim_end_matches(|c: char| c.is_ascii_digit());
        let id = AnchorId::new(format!("anc_{text}")).expect("a valid id");
        Node { id, kind: Kind::parse(kind).expect("a type"), app: None, blocked: false, shared: false, first_seen: at }
    };
    let (mut nodes, mut edges) = (BTreeMap::new(), Vec::new());
    for (at, pair) in (0..).zip(pairs) {
        let (a, b) = pair.split_once(' ').expect("two identifiers");
        let ends = [a, b].map(|text| nodes.entry(text.to_owned()).or_insert_with(|| node(text, at)).id.clone());
        let [a, b] = ends;
        edges.push(Edge { a, b, first_seen: at });
    }
    let nodes: Vec<Node> = nodes.into_values().collect();
    let resolution = resolve(&nodes, &edges, &[], &Rules::built_in());
    let mut customers: BTreeMap<&AnchorId, Vec<&str>> = BTreeMap::new();
    for (id, root) in &resolution.root {
        customers.entry(root).or_default().push(id.as_str().trim_start_matches("anc_"));
    }
    let mut customers: Vec<String> = customers.into_values().filter(|list| list.len() > 1).map(|list| list.join(" ")).collect();
    customers.sort();
    customers
}

#[test]
fn what_is_shared_or_contested_joins_nobody() {
    for (case, pairs, customers) in [
        ("a device of one person", &["device1 phone1", "device1 user1", "phone1 user1"][..], &["device1 phone1 user1"][..]),
        (
            "a new number, told by its owner",
            &["user1 phone1", "device1 phone1", "user1 phone2", "device1 phone2"],
            &["device1 phone1 phone2 user1"],
        ),
        (
            "a third number costs nobody the device",
            &["user1 phone1", "user1 phone2", "user1 phone3", "device1 phone1", "device1 phone3"],
            &["device1 phone1 phone2 user1"],
        ),
        ("a tablet that met two visitors", &["device9 phone1", "device9 phone2"], &[]),
        ("and one of them at home", &["device9 phone1", "device9 phone2", "phone1 user1", "device1 user1"], &["device1 phone1 user1"]),
        (
            "a tablet between two members",
            &["device9 user1", "device9 user2", "user1 phone1", "user2 phone2"],
            &["phone1 user1", "phone2 user2"],
        ),
        (
            "a contested device beside an own one",
            &["device1 device9", "device9 user1", "device9 user2", "device1 user1"],
            &["device1 user1"],
        ),
        ("a family's phone", &["phone1 user1", "phone1 user2", "user1 device1", "user2 device2"], &["device1 user1", "device2 user2"]),
    ] {
        assert_eq!(matched(pairs), customers, "{case}");
    }
}

#[actix_web::test]
async fn a_split_lasts_and_old_ids_resolve() {
    for_both_databases(|database| async move {
        let ground = Ground::open(&database).await;
        let admin = ground.key(&[Scope::Admin], None).await;
        let actor = Actor::system("test");
        let see = |pairs: Vec<(&'static str, &'static str)>, at: i64| {
            ground.kernel.clock.set(Timestamp::clamped(NOW + at));
            let (cdp, actor) = (ground.cdp.clone(), actor.clone());
            async move { cdp.observe(&actor, None, &pairs).await.expect("an observation") }
        };
        let phone = see(vec![("phone", "13800000001")], 0).await;
        let device = see(vec![("device", "d1")], 1).await;
        let early = ground.cdp.customer_of(&device).await.expect("an answer").expect("a customer");
        see(vec![("phone", "13800000001"), ("device", "d1")], 2).await;
        see(vec![("device", "d1"), ("email", "a@example.com")], 3).await;
        let merged = ground.cdp.customer_of(&device).await.expect("an answer").expect("a customer");
        assert_ne!(early, merged);
        let (_, view) = ground.get(&admin, &format!("/v1/customers/{early}")).await;
        assert_eq!(view["id"], merged.as_str());
        assert_eq!(view["identifiers"].as_array().map(Vec::len), Some(3));
        let evidence = json!({ "evidence": [{ "a": phone, "b": device }] });
        let (status, answer) = ground.post(&admin, &format!("/v1/customers/{merged}/split"), &evidence).await;
        assert_eq!((status.as_u16(), answer["customers"].as_array().map(Vec::len)), (200, Some(2)));
        assert_eq!(ground.cdp.customer_of(&device).await.expect("an answer"), Some(early.clone()));
        see(vec![("phone", "13800000001"), ("device", "d1")], 4).await;
        assert_eq!(ground.cdp.customer_of(&device).await.expect("an answer"), Some(early.clone()));
        let (pure, live) = replay(&ground).await;
        assert_eq!(pure, live);
        assert_eq!(ground.post(&admin, &format!("/v1/customers/{merged}/split"), &evidence).await.0, 400);
        assert!(ground.count("SELECT COUNT(*) AS n FROM kernel_outbox WHERE name = 'identity.changed.v1'").await >= 2);
        assert!(ground.count("SELECT COUNT(*) AS n FROM cdp_identity_pending").await > 0);
        ground.settle().await;
        assert_eq!(ground.count("SELECT COUNT(*) AS n FROM cdp_identity_pending").await, 0);
    })
    .await;
}

#[actix_web::test]
async fn looking_somebody_up_records_nothing() {
    for_both_databases(|database| async move {
        let ground = Ground::open(&database).await;
        let actor = Actor::system("test");
        let observe = async |pairs: &[(&str, &str)]| ground.cdp.observe(&actor, None, pairs).await.expect("an observation");
        let (phone, device) = (observe(&[("phone", "13800000001")]).await, observe(&[("device", "d1")]).await);
        let nobody = observe(&[("openid@mall", "null")]).await;
        let text = "SELECT (SELECT COUNT(*) FROM cdp_node) + (SELECT COUNT(*) FROM cdp_edge) + (SELECT COUNT(*) FROM kernel_outbox) AS n";
        let before = ground.count(text).await;
        for (pairs, expected) in [
            (vec![("device", "d1"), ("email", "nobody@example.com"), ("phone", "+86 138 0000 0001")], vec![phone.clone(), device]),
            (vec![("email", "nobody@example.com")], vec![]),
            // What means nobody leads to nobody where anything else is named.
            (vec![("openid@mall", "null"), ("phone", "13800000001")], vec![phone]),
            (vec![("openid@mall", "null"), ("phone", "13800000002")], vec![]),
            (vec![("openid@mall", "null")], vec![nobody]),
        ] {
            assert_eq!(ground.cdp.find_anchors(&pairs).await.expect("an answer"), expected, "{pairs:?}");
        }
        for wrong in [vec![], vec![("shoe", "42")], vec![("phone", "call me")]] {
            assert!(ground.cdp.find_anchors(&wrong).await.is_err(), "{wrong:?}");
        }
        assert_eq!(ground.count(text).await, before);
    })
    .await;
}
