//! Segments, audiences and portraits, cut to units and to consent.

use super::place::{DAY_MS, Place, admin, customer, event, key_of, text, whole};
use futures::FutureExt;
use heyuan_cdp::know::{Know, PortraitRequest, SegmentDefinition};
use heyuan_contract::{Cause, DomainEvent, OrgUnitId, SegmentId};
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Scope, sql};
use serde_json::{Value, json};

fn id(text: &str) -> SegmentId {
    SegmentId::new(text).expect("valid")
}

fn definition(predicate: Value, purpose: Option<&str>) -> SegmentDefinition {
    SegmentDefinition { name: "测试".into(), predicate, purpose: purpose.map(str::to_owned) }
}

async fn segment(place: &Place, name: &str, predicate: Value) {
    place.know.put_segment(&admin(), &id(name), definition(predicate, None)).await.expect("the segment is defined");
    place.settle().await;
}

async fn members(place: &Place, name: &str) -> Vec<String> {
    let members = place.know.members(&admin(), &id(name), None, 100).await.expect("members are listed");
    members.into_iter().map(|member| member.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn customers_enter_and_leave_one_by_one_and_a_redefinition_is_one_event() {
    for_both_databases(|database| async move {
        let place = Place::new(&database).await;
        place.feature("views", "count(unit_viewed) over 7d").await;
        segment(&place, "lookers", json!({"feature": "views", "at_least": 2})).await;
        place.emitted().await;
        let views = |number: usize| (0..number % 4).map(move |_| event("unit_viewed", &format!("c{number}"), 0, &[]));
        place.deliver((0..20).flat_map(views).collect()).await;
        let entered = place
            .emitted()
            .await
            .into_iter()
            .filter(|event| matches!(event, DomainEvent::SegmentChanged { entered: true, cause: Cause::Event, .. }));
        assert_eq!(entered.count(), 10);
        let view = place.know.segment(&admin(), &id("lookers")).await.expect("it is there");
        assert_eq!((view.count, view.version, view.rebuilding), (10, 1, false));

        segment(&place, "lookers", json!({"not": {"feature": "views", "at_least": 2}})).await;
        let events = place.emitted().await;
        assert!(matches!(&events[..], [DomainEvent::SegmentRedefined { entered: 5, left: 10, .. }]), "{events:?}");
        assert_eq!(place.know.segment(&admin(), &id("lookers")).await.expect("it is there").count, 5);

        // Pages have a fixed order and no overlap.
        let first = place.know.members(&admin(), &id("lookers"), None, 2).await.expect("a page");
        let rest = place.know.members(&admin(), &id("lookers"), Some(first[1].to_string()), 10).await.expect("a page");
        assert_eq!(
            [&first[..2], &rest[..]].concat().iter().map(|member| member.to_string()).collect::<Vec<_>>(),
            members(&place, "lookers").await
        );

        // What turns by time turns segments too.
        place.pass(8 * DAY_MS);
        place.settle().await;
        assert_eq!(place.know.segment(&admin(), &id("lookers")).await.expect("it is there").count, 15);
        assert!(
            place
                .emitted()
                .await
                .iter()
                .all(|event| matches!(event, DomainEvent::SegmentChanged { entered: true, cause: Cause::Time, .. }))
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_a_unit_sees_the_customers_of_that_unit() {
    for_both_databases(|database| async move {
        let place = Place::new(&database).await;
        place.feature("views", "count(unit_viewed) over 7d").await;
        segment(&place, "lookers", json!({"feature": "views", "at_least": 1})).await;
        let in_unit = |who: &str, unit: &str| {
            let mut event = event("unit_viewed", who, 0, &[]);
            event.unit = Some(OrgUnitId::new(unit).expect("valid"));
            event
        };
        place.deliver(vec![in_unit("a", "mall-a"), in_unit("both", "mall-a"), in_unit("both", "mall-b"), in_unit("b", "mall-b")]).await;
        let mall_a = key_of("mall-a", Scope::Admin);
        assert_eq!(place.know.segment(&mall_a, &id("lookers")).await.expect("it is everybody's").count, 2);
        let members = place.know.members(&mall_a, &id("lookers"), None, 10).await.expect("members are listed");
        assert_eq!(members, [customer("a"), customer("both")]);
        let count = place.know.count_audience(&mall_a, &json!({"feature": "views", "at_least": 1}), None).await.expect("it counts");
        assert_eq!((count.count, count.of), (2, 2));
        assert!(place.know.profile(&mall_a, &customer("both")).await.is_ok());
        assert!(place.know.profile(&mall_a, &customer("b")).await.is_err());
        // A unit's segment is its own; the group's definitions are not its to change.
        place.know.put_segment(&mall_a, &id("own"), definition(json!({"all": []}), None)).await.expect("its own segment");
        assert!(place.know.segment(&key_of("mall-b", Scope::Admin), &id("own")).await.is_err());
        assert!(place.know.put_segment(&mall_a, &id("lookers"), definition(json!({"all": []}), None)).await.is_err());
        assert!(place.know.put_feature(&mall_a, "x", "profile.age").await.is_err());
        assert!(place.know.put_tag(&mall_a, "x", Vec::new()).await.is_err());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purpose_leaves_out_whoever_gave_no_consent() {
    for_both_databases(|database| async move {
        let place = Place::new(&database).await;
        place.feature("views", "count(unit_viewed) over 7d").await;
        place
            .know
            .put_segment(&admin(), &id("mailable"), definition(json!({"feature": "views", "at_least": 1}), Some("marketing")))
            .await
            .expect("the segment is defined");
        place.settle().await;
        place.deliver(vec![event("unit_viewed", "yes", 0, &[]), event("unit_viewed", "no", 0, &[])]).await;
        assert_eq!(members(&place, "mailable").await, Vec::<String>::new());
        for (at, granted, expected) in [(1i64, 1i64, 1u64), (2, 0, 0)] {
            place
                .db
                .write("consent", move |tx| {
                    async move {
                        sql::execute(
                            tx.conn(),
                            "INSERT INTO cdp_consent (anchor, purpose, legal_entity, granted, at, recorded_at, recorded_by)
                             VALUES ('anc_yes', 'marketing', 'group', $1, $2, 0, 'test')
                             ON CONFLICT (anchor, purpose, legal_entity) DO UPDATE SET granted = excluded.granted, at = excluded.at",
                            [granted.into(), at.into()],
                        )
                        .await?;
                        Know::look_again(tx, &[customer("yes")]).await
                    }
                    .boxed()
                })
                .await
                .expect("it is written");
            place.settle().await;
            assert_eq!(members(&place, "mailable").await.len() as u64, expected);
            let count = place.know.count_audience(&admin(), &json!({"all": []}), Some("marketing")).await.expect("it counts");
            assert_eq!(count.count, expected);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audience_counts_whom_the_same_segment_holds() {
    for_both_databases(|database| async move {
        let place = Place::new(&database).await;
        place.feature("views", "count(unit_viewed) over 7d").await;
        place.feature("spent", "sum(order_paid.amount) over 90d").await;
        place.feature("city", "profile.city").await;
        place.feature("since_order", "seconds_since(order_paid)").await;
        let cities = ["深圳", "广州", "杭州"];
        let of = |number: usize| {
            let who = format!("c{number}");
            let mut events = vec![event("profile", &who, 0, &[("city", text(cities[number % 3]))])];
            events.extend((0..number % 5).map(|_| event("unit_viewed", &who, 0, &[])));
            if number.is_multiple_of(2) {
                events.push(event("order_paid", &who, number as i64 * 3_000_000, &[("amount", whole(number as i64 * 700 - 9_000))]));
            }
            events
        };
        place.deliver((0..40).flat_map(of).collect()).await;
        let predicates = [
            json!({"feature": "views", "at_least": 2, "below": 4}),
            json!({"feature": "spent", "at_most": -1}),
            json!({"all": [{"feature": "city", "is": "深圳"}, {"not": {"feature": "spent", "above": 1000}}]}),
            json!({"any": [{"feature": "city", "one_of": ["广州", "x"]}, {"feature": "views", "is": 0}]}),
            json!({"feature": "since_order", "at_least": 36_000, "below": 90_000}),
            json!({"feature": "since_order", "at_most": 86_399}),
            json!({"not": {"feature": "since_order", "exists": true}}),
            json!({"feature": "city", "is_not": "杭州"}),
        ];
        for (number, predicate) in predicates.iter().enumerate() {
            let name = format!("s{number}");
            segment(&place, &name, predicate.clone()).await;
            let counted = place.know.count_audience(&admin(), predicate, None).await.expect("it counts");
            let held = place.know.segment(&admin(), &id(&name)).await.expect("it is there").count;
            assert_eq!(counted.count, held, "{predicate}");
            assert!(held > 0 && held < 40, "{predicate} tells nobody from anybody: {held}");
        }
        // Columns follow what is committed.
        place.deliver(vec![event("profile", "new", 0, &[("city", text("深圳"))])]).await;
        let counted = place.know.count_audience(&admin(), &json!({"feature": "city", "is": "深圳"}), None).await.expect("it counts");
        assert_eq!((counted.count, counted.of), (15, 41));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portrait_shows_shares_and_tgi() {
    for_both_databases(|database| async move {
        let place = Place::new(&database).await;
        place.feature("city", "profile.city").await;
        place.feature("age", "profile.age").await;
        place.feature("views", "count(unit_viewed) over 7d").await;
        segment(&place, "lookers", json!({"feature": "views", "at_least": 1})).await;
        // 200 customers, 100 in each city; 60 of the first city and 40 of the second look at units.
        let of = |number: i64| {
            let (city, looks) = if number < 100 { ("深圳", number < 60) } else { ("广州", number < 140) };
            let who = format!("c{number}");
            let mut events = vec![event("profile", &who, 0, &[("city", text(city)), ("age", whole(20 + number % 40))])];
            events.extend(looks.then(|| event("unit_viewed", &who, 0, &[])));
            events
        };
        place.deliver((0..200).flat_map(of).collect()).await;
        place.deliver(vec![event("page_viewed", "nobody", 0, &[])]).await;
        let ten = |value: i64| heyuan_cdp::know::Number::whole(value);
        let request = PortraitRequest {
            segment: id("lookers"),
            against: None,
            features: vec![("city".into(), Vec::new()), ("age".into(), vec![ten(30), ten(50)])],
        };
        let portrait = place.know.portrait(&admin(), &request).await.expect("it is drawn");
        assert_eq!((portrait.segment_count, portrait.base_count), (100, 201));
        let rows = |feature: usize| -> Vec<(String, u64, u64, String, Option<String>)> {
            let buckets = portrait.features[feature].buckets.iter();
            buckets
                .map(|b| (b.label.clone(), b.segment_count, b.base_count, b.segment_share.clone(), b.tgi.map(|tgi| tgi.to_string())))
                .collect()
        };
        let row = |label: &str, segment, base, share: &str, tgi: Option<&str>| {
            (label.to_owned(), segment, base, share.to_owned(), tgi.map(str::to_owned))
        };
        assert_eq!(
            rows(0),
            [row("广州", 40, 100, "40.0", Some("80.4")), row("深圳", 60, 100, "60.0", Some("120.6")), row("unknown", 0, 1, "0.0", None),]
        );
        let ages = rows(1);
        assert_eq!(
            ages.iter().map(|row| (row.0.as_str(), row.2)).collect::<Vec<_>>(),
            [("below 30", 50), ("30 to 50", 100), ("50 and more", 50), ("unknown", 1)]
        );
        assert_eq!(ages.iter().map(|row| row.1).sum::<u64>(), 100);
    })
    .await;
}
