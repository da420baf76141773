//! The pipeline: typed, identified, exactly once, with whatever later rooms add.

use crate::ground::Ground;
use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_cdp::{Batch, Collect, Knowing, PropertyValue};
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Error, Problem, Scope, Tx, sql};
use serde_json::{Value, json};
use std::any::Any;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

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
        let event = |n: i64| json!({ "message_id": format!("m{n}"), "name": "a", "identifiers": [{ "type": "device", "value": format!("d{}", n % 7) }] });
        for from in [0, 40, 80] {
            let events: Vec<Value> = (from..from + 40).map(event).collect();
            ground.post(&key, "/v1/events", &json!({ "events": events })).await;
        }
        room.fail.store(1, Ordering::SeqCst);
        assert!(ground.step().await.is_err());
        assert_eq!(ground.cdp.position().await.ok(), Some(0));
        assert_eq!(ground.count("SELECT COUNT(*) AS n FROM cdp_node").await, 0);
        drop(ground);
        room.fail.store(0, Ordering::SeqCst);
        let ground = Ground::with(&database, Collect::default(), vec![room.clone()]).await;
        ground.settle().await;
        ground.settle().await;
        assert_eq!(ground.cdp.position().await.ok(), Some(120));
        assert_eq!(ground.count("SELECT position AS n FROM cdp_position WHERE name = 'counted'").await, 120);
        assert_eq!(ground.count("SELECT COUNT(*) AS n FROM cdp_inbox_block").await, 0);
        assert_eq!(ground.count("SELECT COUNT(*) AS n FROM cdp_node").await, 7);
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
