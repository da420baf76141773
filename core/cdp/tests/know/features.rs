//! Features: folded by the stream, filled from history, and read as of the past.

use super::place::{BEGIN_MS, DAY_MS, Place, admin, customer, event, text, whole};
use heyuan_cdp::know::{FeatureState, Value, demo_definitions, parse};
use heyuan_contract::Timestamp;
use heyuan_harness::for_both_databases;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_a_feature_reads_as_it_should() {
    for_both_databases(|database| async move {
        let place = Place::new(&database).await;
        for (name, expression) in [
            ("age", "profile.age"),
            ("spent", "sum(order_paid.amount) over 90d"),
            ("cheapest", "min(order_paid.amount)"),
            ("dearest", "max(order_paid.amount where line = 'mall')"),
            ("last_type", "last(unit_viewed.unit_type)"),
            ("tier", "member.tier"),
            ("balance", "points"),
            ("orders", "count(order_paid) over 30d"),
        ] {
            place.feature(name, expression).await;
        }
        let order = |amount, line: &str, ago| event("order_paid", "li", ago, &[("amount", whole(amount)), ("line", text(line))]);
        place
            .deliver(vec![
                event("profile", "li", 10, &[("age", whole(33))]),
                // A trait that was said earlier does not come back by arriving later.
                event("profile", "li", 5_000, &[("age", whole(32))]),
                order(500, "mall", 0),
                order(-20, "hotel", 40 * DAY_MS),
                order(900, "hotel", 100 * DAY_MS),
                event("unit_viewed", "li", 100, &[("unit_type", text("3br"))]),
                event("unit_viewed", "li", 100, &[("unit_type", text("4br"))]),
                event("tier_changed", "li", 0, &[("tier", text("gold"))]),
                event("transaction_posted", "li", 0, &[("points_balance", whole(120))]),
            ])
            .await;
        for (feature, expected) in [
            ("age", json!(33)),
            ("spent", json!(480)),
            ("cheapest", json!(-20)),
            ("dearest", json!(500)),
            // Of two at one instant the later message id.
            ("last_type", json!("4br")),
            ("tier", json!("gold")),
            ("balance", json!(120)),
            ("orders", json!(1)),
        ] {
            assert_eq!(place.value_of("li", feature).await, Some(expected), "{feature}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feature_declared_under_load_is_filled_from_history_and_carried_on() {
    for_both_databases(|database| async move {
        let place = Place::new(&database).await;
        place.feature("early", "count(unit_viewed) over 30d").await;
        let view = |number: usize, ago| event("unit_viewed", &format!("c{}", number % 4), ago, &[]);
        place.deliver((0..30).map(|number| view(number, number as i64 * DAY_MS)).collect()).await;
        place.know.put_feature(&admin(), "late", "count(unit_viewed) over 30d").await.expect("it is declared");
        let late = place.know.feature(&admin(), "late").await.expect("it is listed");
        assert_eq!(late.state, FeatureState::Declared.as_str());
        // The stream goes on before the feature is taken up, and after.
        place.deliver((0..9).map(|number| view(number, 1000)).collect()).await;
        place.settle().await;
        place.deliver((0..5).map(|number| view(number, 2 * DAY_MS)).collect()).await;
        place.settle().await;
        for number in 0..4 {
            let who = format!("c{number}");
            let early = place.value_of(&who, "early").await;
            assert!(early.is_some());
            assert_eq!(place.value_of(&who, "late").await, early, "{who}");
        }
        place.pass(20 * DAY_MS);
        place.settle().await;
        for number in 0..4 {
            let who = format!("c{number}");
            assert_eq!(place.value_of(&who, "late").await, place.value_of(&who, "early").await, "{who}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reader_answers_as_of_an_instant_and_a_position() {
    for_both_databases(|database| async move {
        let place = Place::new(&database).await;
        place.feature("views", "count(unit_viewed) over 7d").await;
        place.tag("looked", vec![super::place::case("yes", json!({"feature": "views", "at_least": 2}))]).await;
        for _ in 0..4 {
            place.deliver(vec![event("unit_viewed", "li", 0, &[])]).await;
            place.pass(2 * DAY_MS);
        }
        place.settle().await;
        let names = ["views".to_owned(), "count(unit_viewed) over 168h".to_owned(), "tag.looked".to_owned()];
        let at = |days: i64| Some(Timestamp::clamped(BEGIN_MS + days * DAY_MS));
        for (at, position, views, looked) in [
            (None, None, 3, Some("yes")),
            (at(0), None, 1, None),
            (at(2), None, 2, Some("yes")),
            (at(6), Some(4), 4, Some("yes")),
            (at(6), Some(2), 2, Some("yes")),
            (None, Some(1), 0, None),
        ] {
            let found = place.know.features_at(&customer("li"), &names, at, position).await.expect("it is read");
            let tag = looked.map(Value::text);
            assert_eq!(found.values, [Some(Value::whole(views)), Some(Value::whole(views)), tag], "{at:?} {position:?}");
        }
        assert!(place.know.features_at(&customer("li"), &["count(other)".to_owned()], None, None).await.is_err());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_can_be_defined_twice() {
    for_both_databases(|database| async move {
        let place = Place::new(&database).await;
        for (name, expression) in demo_definitions().features {
            assert!(parse(&expression).is_ok(), "{name}");
        }
        place.know.put_demo(&admin()).await.expect("it is defined");
        place.settle().await;
        place.know.put_demo(&admin()).await.expect("it is there already");
        let reads = ["sum(unit_viewed.dwell_seconds where unit_type = '2br') over 30d", "profile.household_size", "profile.annual_income"];
        place.know.check_features(&reads.map(str::to_owned)).await.expect("what home-upgrader reads is declared");
        place.deliver((0..5).map(|_| event("unit_viewed", "li", 0, &[])).collect()).await;
        assert_eq!(place.tag_of("li", "high_intent").await.map(|(value, _)| value), Some("high".into()));
        assert!(place.profile("li").await.segments.iter().any(|segment| segment.id == "ready-to-buy"));
    })
    .await;
}
