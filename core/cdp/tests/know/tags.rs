//! Tags: by event, by time, late, merged, split, defined anew, and by a plugin.

use super::place::{DAY_MS, HOUR_MS, Place, anchor, case, customer, event, moved, text, whole};
use futures::FutureExt;
use heyuan_cdp::know::{ActiveTagger, ColumnValues, FeatureKind, TagColumn, TaggerAnswer, TaggerBatch, TaggerFeature};
use heyuan_contract::{Cause, DomainEvent, Timestamp};
use heyuan_harness::for_both_databases;
use heyuan_kernel::outbox::Envelope;
use heyuan_kernel::{Problem, sql};
use serde_json::json;

fn change(who: &str, tag: &str, value: Option<&str>, cause: Cause) -> (String, String, Option<String>, Cause) {
    (customer(who).to_string(), tag.to_owned(), value.map(str::to_owned), cause)
}

async fn with_interest(place: &Place) {
    place.feature("views", "count(unit_viewed) over 7d").await;
    place
        .tag(
            "interest",
            vec![case("high", json!({"feature": "views", "at_least": 3})), case("some", json!({"feature": "views", "at_least": 1}))],
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_turns_by_event_by_time_and_by_what_comes_late() {
    for_both_databases(|database| async move {
        let place = Place::new(&database).await;
        with_interest(&place).await;
        place.deliver(vec![event("unit_viewed", "li", 0, &[]), event("unit_viewed", "li", 1000, &[])]).await;
        assert_eq!(place.tag_of("li", "interest").await, Some(("some".into(), "event".into())));
        place.pass(DAY_MS);
        place.deliver(vec![event("unit_viewed", "li", 0, &[])]).await;
        assert_eq!(
            place.tag_changes().await,
            [change("li", "interest", Some("some"), Cause::Event), change("li", "interest", Some("high"), Cause::Event)]
        );

        // Nothing happens but time: two views leave the window, then the third.
        place.pass(6 * DAY_MS + HOUR_MS);
        place.settle().await;
        assert_eq!(place.tag_of("li", "interest").await, Some(("some".into(), "time".into())));
        assert_eq!(place.value_of("li", "views").await, Some(json!(1)));
        place.pass(DAY_MS);
        place.settle().await;
        assert_eq!(place.tag_of("li", "interest").await, None);
        assert_eq!(
            place.tag_changes().await,
            [change("li", "interest", Some("some"), Cause::Time), change("li", "interest", None, Cause::Time)]
        );

        place.deliver(vec![event("unit_viewed", "li", 3 * DAY_MS, &[])]).await;
        assert_eq!(place.tag_of("li", "interest").await, Some(("some".into(), "late".into())));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn time_since_an_event_turns_at_its_instant() {
    for_both_databases(|database| async move {
        let place = Place::new(&database).await;
        place.feature("since_visit", "seconds_since(visit_checked_in)").await;
        place.tag("recent_visitor", vec![case("yes", json!({"feature": "since_visit", "below": 3600}))]).await;
        place.deliver(vec![event("visit_checked_in", "wang", 0, &[])]).await;
        assert_eq!(place.tag_of("wang", "recent_visitor").await, Some(("yes".into(), "event".into())));
        place.pass(59 * 60_000);
        place.settle().await;
        assert_eq!(place.value_of("wang", "since_visit").await, Some(json!(59 * 60)));
        assert_eq!(place.tag_of("wang", "recent_visitor").await, Some(("yes".into(), "event".into())));
        place.pass(60_000);
        place.settle().await;
        assert_eq!(place.tag_of("wang", "recent_visitor").await, None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn merging_and_splitting_customers_folds_without_recomputation() {
    for_both_databases(|database| async move {
        let place = Place::new(&database).await;
        with_interest(&place).await;
        let view = |who| event("unit_viewed", who, 0, &[]);
        place.deliver(vec![view("a"), view("a"), view("b"), view("b")]).await;
        place.emitted().await;
        place.deliver_with(Vec::new(), vec![moved("b", "b", "a", Cause::Merge)]).await;
        assert_eq!(place.tag_of("a", "interest").await, Some(("high".into(), "merge".into())));
        assert_eq!(
            place.tag_changes().await,
            [change("a", "interest", Some("high"), Cause::Merge), change("b", "interest", None, Cause::Merge)]
        );
        // The old id resolves to who it is now.
        assert_eq!(place.profile("b").await.customer, customer("a"));

        place.deliver_with(vec![view("b")], vec![moved("b", "a", "b", Cause::Unmerge)]).await;
        assert_eq!(place.tag_of("a", "interest").await, Some(("some".into(), "unmerge".into())));
        assert_eq!(place.tag_of("b", "interest").await, Some(("high".into(), "unmerge".into())));
        assert_eq!(place.value_of("b", "views").await, Some(json!(3)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_written_anew_is_told_customer_by_customer() {
    for_both_databases(|database| async move {
        let place = Place::new(&database).await;
        with_interest(&place).await;
        place.deliver((0..7).map(|number| event("unit_viewed", &format!("c{number}"), 0, &[])).collect()).await;
        place.emitted().await;
        place.tag("interest", vec![case("looked", json!({"feature": "views", "at_least": 1}))]).await;
        let changes = place.tag_changes().await;
        assert_eq!(changes.len(), 7);
        assert!(changes.iter().all(|(_, _, value, cause)| value.as_deref() == Some("looked") && *cause == Cause::Redefined));
        let tags = place.profile("c3").await.tags;
        assert_eq!((tags[0].version.as_str(), tags[0].cause.as_str()), ("v2", "redefined"));
        // Tags may read tags, but not in a circle.
        place.tag("wooed", vec![case("yes", json!({"tag": "interest", "is": "looked"}))]).await;
        assert_eq!(place.tag_of("c3", "wooed").await, Some(("yes".into(), "redefined".into())));
    })
    .await;
}

fn tagger(generation: i64) -> ActiveTagger {
    let feature = |name: &str, kind| TaggerFeature { name: name.into(), kind };
    ActiveTagger {
        name: "sizer".into(),
        digest: format!("{generation}f2c"),
        generation,
        features: vec![
            feature("sum(unit_viewed.dwell where unit_type = '3br') over 30d", FeatureKind::Number),
            feature("last_type", FeatureKind::Text),
        ],
        tags: vec!["size".into()],
        refresh_s: Some(86_400),
    }
}

fn by_dwell(batch: &TaggerBatch) -> Result<TaggerAnswer, Problem> {
    let [dwell, last] = &batch.columns[..] else { return Err(Problem::not_found("column", 2)) };
    let (ColumnValues::Numbers(dwell, present), ColumnValues::Texts(codes, dictionary)) = (&dwell.values, &last.values) else {
        return Err(Problem::not_found("column", 0));
    };
    let value = |row: usize| {
        let last = codes[row].checked_sub(1).map(|code| dictionary[code as usize].clone());
        present[row].then(|| format!("{}:{}", dwell[row], last.unwrap_or_default()))
    };
    let columns = vec![TagColumn { tag: "size".into(), values: (0..batch.rows).map(value).collect() }];
    Ok(TaggerAnswer { columns, failed: Vec::new() })
}

/// Fails on whoever dwelt for 13 in all, and says nonsense there.
fn afraid_of_13(batch: &TaggerBatch) -> Result<TaggerAnswer, Problem> {
    let mut answer = by_dwell(batch)?;
    let ColumnValues::Numbers(dwell, _) = &batch.columns[0].values else { return Err(Problem::not_found("column", 0)) };
    answer.failed = (0..batch.rows).filter(|row| dwell[*row] == 13.0).collect();
    for row in &answer.failed {
        answer.columns[0].values[*row] = None;
    }
    Ok(answer)
}

fn broken(_: &TaggerBatch) -> Result<TaggerAnswer, Problem> {
    Err(Problem::new(heyuan_kernel::error::codes::UNAVAILABLE, "the guest ran out of fuel"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_tags_whom_the_batch_touched_and_keeps_tags_while_it_fails() {
    for_both_databases(|database| async move {
        let place = Place::new(&database).await;
        place.feature("dwell_3br", "sum(unit_viewed.dwell) over 30d where unit_type = '3br'").await;
        place.feature("last_type", "last(unit_viewed.unit_type)").await;
        let view = |who, kind: &str, dwell| event("unit_viewed", who, 0, &[("unit_type", text(kind)), ("dwell", whole(dwell))]);
        place.deliver(vec![view("a", "3br", 40), view("b", "2br", 9)]).await;

        // A plugin that comes into force looks at everybody there is.
        *place.fakes.answer.lock().expect("free") = Some(by_dwell);
        *place.fakes.active.lock().expect("free") = vec![tagger(1)];
        place.settle().await;
        assert_eq!(place.tag_of("a", "size").await, Some(("40:3br".into(), "redefined".into())));
        assert_eq!(place.tag_of("b", "size").await, None);
        let asked = *place.fakes.asked_rows.lock().expect("free");
        place.deliver(vec![view("a", "2br", 5), event("page_viewed", "b", 0, &[])]).await;
        assert_eq!(*place.fakes.asked_rows.lock().expect("free"), asked + 1, "b has nothing new for it");
        assert_eq!(place.tag_of("a", "size").await, Some(("40:2br".into(), "event".into())));

        *place.fakes.answer.lock().expect("free") = Some(broken);
        place.deliver(vec![view("a", "3br", 2)]).await;
        assert_eq!(place.tag_of("a", "size").await, Some(("40:2br".into(), "event".into())));
        *place.fakes.answer.lock().expect("free") = Some(by_dwell);
        place.pass(61_000);
        place.settle().await;
        assert_eq!(place.tag_of("a", "size").await.map(|(value, _)| value), Some("42:3br".into()));

        // Retired, it takes its tags with it.
        place.fakes.active.lock().expect("free").clear();
        place.emitted().await;
        place.settle().await;
        assert_eq!(place.tag_changes().await, [change("a", "size", None, Cause::Redefined)]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_on_which_a_plugin_fails_costs_its_own_answer_alone() {
    for_both_databases(|database| async move {
        let place = Place::new(&database).await;
        place.feature("dwell_3br", "sum(unit_viewed.dwell) over 30d where unit_type = '3br'").await;
        place.feature("last_type", "last(unit_viewed.unit_type)").await;
        let view = |who, dwell| event("unit_viewed", who, 0, &[("unit_type", text("3br")), ("dwell", whole(dwell))]);
        let tag = async |who: &str| place.tag_of(who, "size").await.map(|(value, _)| value);
        *place.fakes.answer.lock().expect("free") = Some(afraid_of_13);
        *place.fakes.active.lock().expect("free") = vec![tagger(1)];
        place.settle().await;
        place.deliver(vec![view("a", 4), view("b", 12), view("c", 6)]).await;
        assert_eq!(tag("b").await.as_deref(), Some("12:3br"));

        // The bad row keeps its tag of before; its neighbours get theirs.
        place.deliver(vec![view("a", 1), view("b", 1), view("c", 1)]).await;
        assert_eq!([tag("a").await, tag("b").await, tag("c").await], ["5:3br", "12:3br", "7:3br"].map(|tag| Some(tag.to_owned())));

        // A minute later it is asked again, and it alone.
        let asked = || *place.fakes.asked_rows.lock().expect("free");
        let before = asked();
        place.pass(59_000);
        place.settle().await;
        assert_eq!(asked(), before);
        place.pass(2_000);
        place.settle().await;
        assert_eq!(asked(), before + 1);
        assert_eq!(tag("b").await.as_deref(), Some("12:3br"));
        *place.fakes.answer.lock().expect("free") = Some(by_dwell);
        place.pass(61_000);
        place.settle().await;
        assert_eq!(tag("b").await.as_deref(), Some("13:3br"));
        let asked_of_all = asked();
        place.pass(61_000);
        place.settle().await;
        assert_eq!(asked(), asked_of_all, "nobody is left to be asked again");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_person_is_in_no_table() {
    for_both_databases(|database| async move {
        let place = Place::new(&database).await;
        with_interest(&place).await;
        place.deliver(vec![event("unit_viewed", "gone", 0, &[]), event("unit_viewed", "stays", 0, &[])]).await;
        let event = DomainEvent::CustomerErased {
            customer: customer("gone"),
            anchors: vec![anchor("gone")],
            occurred_at: Timestamp::clamped(place.now_ms()),
        };
        let envelope = Envelope { position: 1, key: customer("gone").to_string(), event, written_at: Timestamp::clamped(0) };
        let reaction = place.know.reactions().remove(0);
        let apply = std::sync::Arc::new(reaction.react(&envelope).await.expect("it decides"));
        place
            .db
            .write("erase", move |tx| {
                let apply = apply.clone();
                async move { apply(tx).await }.boxed()
            })
            .await
            .expect("it is written");
        for (table, column, id) in
            [("cdp_feature_state", "anchor", anchor("gone").to_string()), ("cdp_tag_change", "customer", customer("gone").to_string())]
        {
            let text = format!("SELECT 1 AS found FROM {table} WHERE {column} = $1");
            assert!(sql::one(place.db.reader(), &text, [id.into()]).await.expect("it is read").is_none(), "{table}");
        }
        assert!(place.know.profile(&super::place::admin(), &customer("gone")).await.is_err());
        let count = place.know.count_audience(&super::place::admin(), &json!({"all": []}), None).await.expect("it counts");
        assert_eq!((count.count, count.of), (1, 1));
        // Life goes on.
        place.deliver(vec![super::place::event("unit_viewed", "stays", 0, &[])]).await;
        assert_eq!(place.value_of("stays", "views").await, Some(json!(2)));
    })
    .await;
}
