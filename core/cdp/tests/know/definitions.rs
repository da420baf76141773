//! Definitions that are refused, with the code and the field.

use super::place::{Place, admin, case};
use heyuan_cdp::know::SegmentDefinition;
use heyuan_contract::SegmentId;
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Actor, Problem, Reach, Scope};
use serde_json::json;

fn refused(what: &str, answer: Result<(), Problem>, code: &str, field: Option<&str>) {
    let problem = answer.expect_err(what);
    assert_eq!((problem.code().code, problem.body().field.as_deref()), (code, field), "{what}: {problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_right_is_refused_by_name() {
    for_both_databases(|database| async move {
        let place = Place::new(&database).await;
        place.feature("views", "count(unit_viewed) over 7d").await;
        place.tag("first", vec![case("x", json!({"feature": "views", "at_least": 1}))]).await;
        place.tag("second", vec![case("x", json!({"tag": "first", "is": "x"}))]).await;
        for (name, expression, code, field) in [
            ("Views", "count(a)", "invalid_request", Some("name")),
            ("", "count(a)", "invalid_request", Some("name")),
            ("points", "count(a)", "invalid_request", Some("name")),
            ("v", "count(a", "bad_expression", Some("expression")),
            ("v", "", "bad_expression", Some("expression")),
        ] {
            let answer = place.know.put_feature(&admin(), name, expression).await.map(drop);
            refused(expression, answer, code, field);
        }
        let cases = |when| vec![case("x", when)];
        for (name, cases, code, field) in [
            ("t", Vec::new(), "invalid_request", Some("cases")),
            ("t", vec![case("", json!({"all": []}))], "invalid_request", Some("cases[0].value")),
            ("t", cases(json!({"feature": "nothing", "is": 1})), "bad_predicate", Some("cases[0].when")),
            ("t", cases(json!({"feature": "views"})), "bad_predicate", Some("cases[0].when")),
            ("first", cases(json!({"tag": "second", "is": "x"})), "tag_circle", Some("cases")),
            ("t", cases(json!({"tag": "t", "is": "x"})), "tag_circle", Some("cases")),
            ("T T", cases(json!({"all": []})), "invalid_request", Some("name")),
        ] {
            refused(name, place.know.put_tag(&admin(), name, cases).await.map(drop), code, field);
        }
        let segment = SegmentId::new("s").expect("valid");
        for (name, predicate, purpose, code, field) in [
            ("", json!({"all": []}), None, "invalid_request", Some("name")),
            ("s", json!([]), None, "bad_predicate", Some("predicate")),
            ("s", json!({"all": []}), Some("Mar keting"), "invalid_request", Some("purpose")),
        ] {
            let definition = SegmentDefinition { name: name.into(), predicate, purpose: purpose.map(str::to_owned) };
            refused(name, place.know.put_segment(&admin(), &segment, definition).await.map(drop), code, field);
        }
        refused("a tagger", place.know.check_features(&["profile.age".into()]).await, "feature_missing", None);
        refused("a tagger", place.know.check_tagger("p", &[], &["first".into()]).await, "tag_taken", None);
        refused("a tagger", place.know.check_tagger("p", &["tag.third".into()], &["third".into()]).await, "tag_circle", None);
        let app = Actor::key("key_app".into(), vec![Scope::App], None, Reach::Everything);
        refused("an app", place.know.put_feature(&app, "x", "points").await.map(drop), "forbidden", None);
        let stranger = Actor::key("key_ingest".into(), vec![Scope::Ingest], None, Reach::Everything);
        refused("an ingest key", place.know.features(&stranger).await.map(drop), "forbidden", None);
    })
    .await;
}
