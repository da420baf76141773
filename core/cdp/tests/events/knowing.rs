//! The pipeline: typed, identified, exactly once, with whatever later rooms add.

use crate::ground::Ground;
use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_cdp::{Batch, Cdp, Collect, Knowing, PropertyValue};
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Actor, Error, Problem, Scope, Tx, sql};
use serde_json::{Value, json};
use std::any::Any;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// A room that counts in a table, and fails when it is told to.
#[derive(Default)]
struct Counting {
    fail: AtomicI64,
    seen: Mutex<Vec<Batch>>,
}

impl Knowing for Counting {
    fn prepare<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Box<dyn Any + Send + Sync>, Problem>> {
        async move {
            if let Ok(mut seen) = self.seen.lock() {
                seen.push(batch.clone());
            }
            Ok(Box::new(batch.events.len()) as Box<dyn Any + Send + Sync>)
        }
        .boxed()
    }

    fn apply<'a>(&'a self, tx: &'a Tx, batch: &'a Batch, prepared: &'a (dyn Any + Send + Sync)) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            assert_eq!(prepared.downcast_ref::<usize>(), Some(&batch.events.len()));
            let count = i64::try_from(batch.events.len()).unwrap_or(0);
            let text = "INSERT INTO cdp_position (name, position) VALUES ('counted', $1)
              ON CONFLICT (name) DO UPDATE SET position = cdp_position.position + excluded.position";
            sql::execute(tx.conn(), text, [count.into()]).await?;
            if self.fail.fetch_sub(1, Ordering::SeqCst) > 0 {
                return Err(Error::Corrupt { what: "test", why: "the room fails".into() });
            }
            Ok(())
        }
        .boxed()
    }
}

#[actix_web::test]
async fn position_identity_and_effects_commit_together() {
    for_both_databases(|database| async move {
        let room = Arc::new(Counting::default());
        let ground = Ground::with(&database, Collect::default(), vec![room.clone()]).await;
        let key = ground.key(&[Scope::Ingest], None).await;
        for from in [0, 40, 80] {
            let events: Vec<Value> = (from..from + 40).map(event).collect();
            ground.post(&key, "/v1/events", &json!({ "events": events })).await;
        }
        room.fail.store(1, Ordering::SeqCst);
        assert!(ground.step().await.is_err());
        assert_eq!(ground.cdp.position().await.ok(), Some(0));
        // Who is who is committed before what is known, and not taken in again.
        let sightings = "SELECT CAST(SUM(count) AS BIGINT) AS n FROM cdp_edge";
        assert_eq!(ground.count("SELECT COUNT(*) AS n FROM cdp_node").await, 14);
        assert_eq!(ground.count(sightings).await, 120);
        let anchor = ground.cdp.observe(&Actor::system("test"), None, &[("device", "d0"), ("phone", "13800000001")]).await;
        let customer = ground.cdp.customer_of(&anchor.expect("an observation")).await.expect("an answer").expect("a customer");
        drop(ground);
        room.fail.store(0, Ordering::SeqCst);
        let ground = Ground::with(&database, Collect::default(), vec![room.clone()]).await;
        ground.settle().await;
        ground.settle().await;
        assert_eq!(ground.cdp.position().await.ok(), Some(120));
        assert_eq!(ground.count("SELECT position AS n FROM cdp_position WHERE name = 'counted'").await, 120);
        assert_eq!(ground.count("SELECT COUNT(*) AS n FROM cdp_inbox_block").await, 0);
        assert_eq!(ground.count("SELECT COUNT(*) AS n FROM cdp_node").await, 15);
        assert_eq!(ground.count(sightings).await, 121);
        let last = room.seen.lock().ok().and_then(|seen| seen.iter().rfind(|batch| !batch.events.is_empty()).cloned()).expect("a batch");
        // The phone, the device and its user, as the other wing's observation left them.
        assert_eq!(last.identity.iter().filter(|change| change.after == customer).count(), 3);
    })
    .await;
}

fn event(n: i64) -> Value {
    let identifier = |kind: &str, value: String| json!({ "type": kind, "value": value });
    let identifiers = [identifier("device", format!("d{}", n % 7)), identifier("user", format!("u{}", n % 7))];
    json!({ "message_id": format!("m{n}"), "name": "a", "identifiers": identifiers })
}

/// A room that erases a customer while it prepares its first batch.
#[derive(Default)]
struct Erasing {
    cdp: OnceLock<Cdp>,
    done: AtomicI64,
    rest: Counting,
}

impl Knowing for Erasing {
    fn prepare<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Box<dyn Any + Send + Sync>, Problem>> {
        async move {
            let cdp = self.cdp.get().expect("the wing");
            if self.done.fetch_add(1, Ordering::SeqCst) == 0 {
                let customer = batch.customers.get(&batch.events[3].anchor).expect("a customer");
                cdp.erase(&Actor::system("test"), customer).await.expect("an erasure");
            }
            self.rest.prepare(batch).await
        }
        .boxed()
    }

    fn apply<'a>(&'a self, tx: &'a Tx, batch: &'a Batch, prepared: &'a (dyn Any + Send + Sync)) -> BoxFuture<'a, Result<(), Error>> {
        self.rest.apply(tx, batch, prepared)
    }
}

#[actix_web::test]
async fn an_erasure_meets_a_batch_on_its_way() {
    for_both_databases(|database| async move {
        let room = Arc::new(Erasing::default());
        let ground = Ground::with(&database, Collect::default(), vec![room.clone()]).await;
        assert!(room.cdp.set(ground.cdp.clone()).is_ok());
        let key = ground.key(&[Scope::Ingest], None).await;
        let events: Vec<Value> = (0..70).map(event).collect();
        ground.post(&key, "/v1/events", &json!({ "events": events })).await;
        ground.settle().await;
        assert_eq!(ground.cdp.position().await.ok(), Some(70));
        assert_eq!(ground.count("SELECT position AS n FROM cdp_position WHERE name = 'counted'").await, 60);
        assert_eq!(ground.count("SELECT CAST(SUM(events) AS BIGINT) AS n FROM cdp_known_block").await, 60);
    })
    .await;
}

#[actix_web::test]
async fn properties_are_typed_and_personal_values_leave() {
    for_both_databases(|database| async move {
        let room = Arc::new(Counting::default());
        let ground = Ground::with(&database, Collect::default(), vec![room.clone()]).await;
        let key = ground.key(&[Scope::Ingest], None).await;
        let admin = ground.key(&[Scope::Admin, Scope::App], None).await;
        let batch = json!({ "batch": [
            { "type": "identify", "messageId": "1", "userId": "u1", "traits": { "name": "张三丰", "phone": "13812345678", "age": 40, "annual_income": 90_000, "shoe": 42 } },
            { "type": "track", "event": "Order Paid", "messageId": "2", "userId": "u1", "properties": { "amount": "12.50", "order_id": 7, "gift": true },
              "context": { "page": { "url": "https://a.example/?utm_campaign=P1&gdt_vid=g" } } },
            { "type": "track", "event": "Order Paid", "messageId": "3", "userId": "u1", "properties": { "amount_fen": 1250 } },
        ]});
        ground.post(&key, "/v1/batch", &batch).await;
        ground.settle().await;
        let events = room.seen.lock().map(|seen| seen.iter().flat_map(|batch| batch.events.clone()).collect::<Vec<_>>()).unwrap_or_default();
        assert_eq!(events.len(), 3);
        assert_eq!(events[0].traits.get("age"), Some(&PropertyValue::Integer(40)));
        assert_eq!(events[0].traits.get("annual_income"), Some(&PropertyValue::Integer(90_000)));
        assert!(matches!(events[0].traits.get("name"), Some(PropertyValue::Personal(_))));
        assert_eq!(events[1].properties.get("amount"), Some(&PropertyValue::Fen(1250)));
        assert_eq!(events[1].properties.get("order_id"), None);
        assert_eq!(events[2].properties.get("amount"), Some(&PropertyValue::Fen(1250)));
        assert_eq!(events[1].touch.as_ref().and_then(|touch| touch.platform.as_deref()), Some("tencent_ads"));
        assert_eq!(ground.count("SELECT COUNT(*) AS n FROM kernel_outbox WHERE name = 'campaign.touched.v1'").await, 1);
        let (_, schema) = ground.get(&admin, "/v1/event-types/order_paid").await;
        assert_eq!(schema["faults"][0]["property"], "order_id");
        // Declaring makes the history readable.
        let (_, customer) = ground.post(&admin, "/v1/customers:search", &json!({ "type": "user", "value": "u1" })).await;
        let path = format!("/v1/customers/{}/timeline", customer["id"].as_str().unwrap_or_default());
        assert_eq!(ground.get(&admin, &path).await.1["items"][1]["properties"].get("gift"), None);
        let wider = json!({ "mode": "open", "properties": { "amount": { "type": "money" }, "gift": { "type": "boolean" } } });
        ground.put(&admin, "/v1/event-types/order_paid", &wider).await;
        for flushed in [false, true] {
            if flushed {
                assert_eq!(ground.cdp.flush(&ground.fence).await.ok(), Some(true));
                ground.settle().await;
                assert_eq!(ground.count("SELECT COUNT(*) AS n FROM cdp_known_block").await, 0);
            }
            let (_, timeline) = ground.get(&admin, &path).await;
            let items = timeline["items"].as_array().cloned().unwrap_or_default();
            let ids: Vec<&str> = items.iter().filter_map(|item| item["message_id"].as_str()).collect();
            assert_eq!(ids, ["3", "2", "1"], "flushed: {flushed}");
            assert_eq!(items[1]["properties"], json!({ "amount": 1250, "gift": true }));
            assert_eq!(items[2]["traits"]["name"]["masked"], "张*");
            assert_eq!(items[2]["traits"]["phone"]["masked"], "138****5678");
        }
    })
    .await;
}
