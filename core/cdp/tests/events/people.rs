//! Personal data: masked, revealed with a reason, kept to the unit, and gone after erasure.

use crate::ground::Ground;
use heyuan_harness::for_both_databases;
use heyuan_kernel::{Actor, Scope, sql};
use sea_orm::DbBackend;
use serde_json::{Value, json};

const VALUES: [&str; 5] = ["13812345678", "张三丰", "zhang.sf@example.com", "openid-of-zhang", "undeclared secret"];

fn identify(id: &str, at: &str) -> Value {
    json!({
        "type": "identify", "messageId": id, "anonymousId": "zhang's telephone", "timestamp": at,
        "traits": { "phone": VALUES[0], "name": VALUES[1], "email": VALUES[2], "openid": VALUES[3], "note": VALUES[4] },
        "context": { "app": { "name": "mall" } },
    })
}

/// Every column of every table as text, so that a value can't hide.
async fn everything(ground: &Ground) -> String {
    let reader = ground.kernel.db.reader();
    let postgres = ground.kernel.db.backend() == DbBackend::Postgres;
    let tables = if postgres {
        "SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'"
    } else {
        "SELECT name FROM sqlite_master WHERE type = 'table'"
    };
    let mut text = String::new();
    for row in sql::all(reader, tables, []).await.expect("tables") {
        let table: String = sql::get(&row, "name").expect("a name");
        if postgres {
            let rows = sql::all(reader, &format!("SELECT t::text AS line FROM \"{table}\" t"), []).await.expect("rows");
            rows.iter().for_each(|row| text.push_str(&sql::get::<String>(row, "line").unwrap_or_default()));
            continue;
        }
        let columns = sql::all(reader, &format!("SELECT name FROM pragma_table_info('{table}')"), []).await.expect("columns");
        for column in columns {
            let column: String = sql::get(&column, "name").expect("a name");
            let query = format!("SELECT hex(\"{column}\") AS line FROM \"{table}\"");
            for row in sql::all(reader, &query, []).await.expect("values") {
                text.push_str(&sql::get::<String>(&row, "line").unwrap_or_default());
                text.push('\n');
            }
        }
    }
    text
}

fn holds(everything: &str, value: &str) -> bool {
    let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
    everything.contains(value) || everything.contains(&hex) || everything.contains(&hex.to_uppercase())
}

#[actix_web::test]
async fn an_erased_person_is_found_nowhere() {
    for_both_databases(|database| async move {
        let ground = Ground::open(&database).await;
        let key = ground.key(&[Scope::Ingest, Scope::Import], None).await;
        let admin = ground.key(&[Scope::Admin], None).await;
        ground.post(&key, "/v1/batch", &json!({ "batch": [identify("1", "2026-11-20T00:00:00Z")] })).await;
        ground.settle().await;
        for value in VALUES {
            assert!(!holds(&everything(&ground).await, value), "{value} stands in the open");
        }
        let search = json!({ "type": "phone", "value": "+86 138 1234 5678" });
        let (_, customer) = ground.post(&admin, "/v1/customers:search", &search).await;
        let id = customer["id"].as_str().unwrap_or_default().to_owned();
        let masked: Vec<&str> = customer["identifiers"].as_array().into_iter().flatten().filter_map(|one| one["masked"].as_str()).collect();
        assert!(masked.contains(&"138****5678") && masked.contains(&"z***@example.com"), "{masked:?}");
        let hashes = ground.count("SELECT COUNT(*) AS n FROM cdp_node WHERE hash IS NOT NULL").await;
        assert_eq!(hashes, 4);
        assert_eq!(ground.post(&key, &format!("/v1/customers/{id}/erase"), &Value::Null).await.0, 403);
        assert_eq!(ground.post(&admin, &format!("/v1/customers/{id}/erase"), &Value::Null).await.0, 200);
        assert_eq!(ground.get(&admin, &format!("/v1/customers/{id}")).await.0, 410);
        assert_eq!(ground.post(&admin, "/v1/customers:search", &search).await.0, 404);
        for table in ["kernel_vault_value", "kernel_vault_key"] {
            assert_eq!(ground.count(&format!("SELECT COUNT(*) AS n FROM {table}")).await, 0);
        }
        assert_eq!(ground.count("SELECT COUNT(*) AS n FROM cdp_node WHERE hash IS NOT NULL OR ref IS NOT NULL").await, 0);
        assert_eq!(ground.count("SELECT COUNT(*) AS n FROM kernel_outbox WHERE name = 'customer.erased.v1'").await, 1);
        // A late retry of the time before is dropped; the person may come again.
        ground.post(&key, "/v1/batch", &json!({ "batch": [identify("2", "2026-11-21T00:00:00Z")] })).await;
        ground.settle().await;
        assert_eq!(ground.count("SELECT COUNT(*) AS n FROM kernel_vault_value").await, 0);
        assert_eq!(ground.post(&admin, "/v1/customers:search", &search).await.0, 404);
    })
    .await;
}

#[actix_web::test]
async fn a_reveal_needs_its_scope_and_a_reason_and_is_audited() {
    for_both_databases(|database| async move {
        let ground = Ground::open(&database).await;
        let key = ground.key(&[Scope::Ingest], None).await;
        let app = ground.key(&[Scope::App], None).await;
        let reveal = ground.key(&[Scope::App, Scope::Reveal], None).await;
        ground.post(&key, "/v1/batch", &json!({ "batch": [identify("1", "2026-11-20T00:00:00Z")] })).await;
        ground.settle().await;
        let (_, customer) = ground.post(&app, "/v1/customers:search", &json!({ "type": "phone", "value": VALUES[0] })).await;
        let phone =
            customer["identifiers"].as_array().into_iter().flatten().find(|one| one["type"] == "phone").cloned().unwrap_or_default();
        let path = format!("/v1/customers/{}/reveal", customer["id"].as_str().unwrap_or_default());
        let ask = json!({ "ref": phone["ref"], "reason": "the customer called back" });
        assert_eq!(ground.post(&app, &path, &ask).await.0, 403);
        assert_eq!(ground.post(&reveal, &path, &json!({ "ref": phone["ref"], "reason": " " })).await.0, 400);
        assert_eq!(ground.post(&reveal, &path, &json!({ "ref": "per_00", "reason": "why not" })).await.0, 404);
        assert_eq!(ground.post(&reveal, &path, &ask).await.1["value"], VALUES[0]);
        assert_eq!(ground.count("SELECT COUNT(*) AS n FROM kernel_audit WHERE action = 'reveal'").await, 1);
        let consent = json!({ "granted": true, "legal_entity": "mall-co", "at": "2026-11-20T00:00:00Z" });
        let path = format!("/v1/customers/{}/consents/marketing", customer["id"].as_str().unwrap_or_default());
        assert_eq!(ground.put(&app, &path, &consent).await.1["consents"][0]["granted"], true);
        let earlier = json!({ "granted": false, "legal_entity": "mall-co", "at": "2026-11-19T00:00:00Z" });
        assert_eq!(ground.put(&app, &path, &earlier).await.1["consents"][0]["granted"], true);
    })
    .await;
}

#[actix_web::test]
async fn a_key_of_a_unit_sees_the_customers_and_events_of_its_unit() {
    for_both_databases(|database| async move {
        let ground = Ground::open(&database).await;
        let (one, two) = ground.units().await;
        let at = |device: &str, id: &str| json!({ "events": [{ "message_id": id, "name": "a", "identifiers": [{ "type": "device", "value": device }] }] });
        let (send_one, send_two) = (ground.key(&[Scope::Ingest], Some(&one)).await, ground.key(&[Scope::Ingest], Some(&two)).await);
        ground.post(&send_one, "/v1/events", &at("both", "1")).await;
        ground.post(&send_two, "/v1/events", &at("both", "2")).await;
        ground.post(&send_two, "/v1/events", &at("second", "3")).await;
        ground.settle().await;
        let see_one = ground.key(&[Scope::Admin], Some(&one)).await;
        let find = |device: &str| json!({ "type": "device", "value": device });
        assert_eq!(ground.post(&see_one, "/v1/customers:search", &find("second")).await.0, 404);
        let (status, customer) = ground.post(&see_one, "/v1/customers:search", &find("both")).await;
        assert_eq!((status.as_u16(), &customer["units"]), (200, &json!(["mall-1"])));
        let path = format!("/v1/customers/{}/timeline", customer["id"].as_str().unwrap_or_default());
        let (_, timeline) = ground.get(&see_one, &path).await;
        let ids: Vec<&str> = timeline["items"].as_array().into_iter().flatten().filter_map(|item| item["message_id"].as_str()).collect();
        assert_eq!(ids, ["1"]);
        assert_eq!(ground.get(&see_one, "/v1/identity/report").await.0, 403);
    })
    .await;
}

#[actix_web::test]
async fn a_customer_of_two_units_is_not_changed_for_good_by_one_of_them() {
    for_both_databases(|database| async move {
        let ground = Ground::open(&database).await;
        let (one, two) = ground.units().await;
        let (send_one, send_two) = (ground.key(&[Scope::Ingest], Some(&one)).await, ground.key(&[Scope::Ingest], Some(&two)).await);
        let seen = |id: &str, device: &str| json!({ "events": [{ "message_id": id, "name": "a", "identifiers": [{ "type": "device", "value": device }] }] });
        ground.post(&send_one, "/v1/events", &seen("1", "both")).await;
        ground.post(&send_two, "/v1/events", &seen("2", "both")).await;
        ground.post(&send_one, "/v1/events", &seen("3", "own")).await;
        ground.settle().await;
        let admin_one = ground.key(&[Scope::Admin], Some(&one)).await;
        let admin = ground.key(&[Scope::Admin], None).await;
        let path = async |device: &str| {
            let (_, customer) = ground.post(&admin, "/v1/customers:search", &json!({ "type": "device", "value": device })).await;
            format!("/v1/customers/{}", customer["id"].as_str().expect("it is known"))
        };
        let (both, own) = (path("both").await, path("own").await);
        let (_, customer) = ground.get(&admin, &both).await;
        let anchor = &customer["identifiers"][0]["anchor"];
        let evidence = json!({ "evidence": [{ "a": anchor, "b": anchor }] });
        assert_eq!(ground.post(&admin_one, &format!("{both}/split"), &evidence).await.0, 403);
        assert_eq!(ground.post(&admin_one, &format!("{both}/erase"), &json!({})).await.0, 403);
        assert_eq!(ground.get(&admin, &both).await.0, 200, "it is still there");
        assert_eq!(ground.post(&admin_one, &format!("{own}/erase"), &json!({})).await.0, 200);
        assert_eq!(ground.post(&admin, &format!("{both}/erase"), &json!({})).await.0, 200);
    })
    .await;
}

#[actix_web::test]
async fn who_asks_to_be_erased_takes_nobody_along_by_what_anybody_may_have_sent() {
    for_both_databases(|database| async move {
        let ground = Ground::open(&database).await;
        let admin = ground.key(&[Scope::Admin], None).await;
        let actor = Actor::system("test");
        let see = async |pairs: &[(&str, &str)]| {
            ground.kernel.clock.set(ground.kernel.clock.now().plus_ms(1));
            ground.cdp.observe(&actor, None, pairs).await.expect("an observation");
        };
        let anchor = async |pair: (&str, &str)| ground.cdp.find_anchors(&[pair]).await.expect("a look-up").pop();
        let customer = async |pair: (&str, &str)| {
            let known = anchor(pair).await.expect("it is known");
            ground.cdp.customer_of(&known).await.expect("an answer").expect("a customer")
        };
        let (phone, openid, device) = (("phone", "13900139000"), ("openid@mall", "o-own"), ("device", "own telephone"));
        let (number, unionid, email) = (("phone", "13800138000"), ("unionid", "u-other"), ("email", "other@example.com"));
        for pairs in [[openid, phone], [openid, device], [unionid, number], [unionid, email], [phone, number]] {
            see(&pairs).await;
        }
        assert_eq!(customer(device).await, customer(email).await, "an event with both numbers made them one customer");
        let mut all = Vec::new();
        for pair in [phone, openid, device, number, unionid, email] {
            all.extend(anchor(pair).await);
        }
        let proven = all[..2].to_vec();
        for _ in 0..2 {
            ground.cdp.erase_proven(&actor, &proven, &all).await.expect("it is erased");
        }
        for pair in [phone, openid, device] {
            assert_eq!(anchor(pair).await, None, "{}", pair.0);
        }
        let stays = customer(number).await;
        assert_eq!((&customer(unionid).await, &customer(email).await), (&stays, &stays));
        let (status, view) = ground.get(&admin, &format!("/v1/customers/{stays}")).await;
        assert_eq!((status.as_u16(), view["identifiers"].as_array().map(Vec::len)), (200, Some(3)), "{view}");
        let told = sql::all(ground.kernel.db.reader(), "SELECT body FROM kernel_outbox WHERE name = 'customer.erased.v1'", []).await;
        let told: Vec<String> = told.expect("rows").iter().map(|row| sql::get(row, "body").expect("a text")).collect();
        assert!(told.len() == 1 && all.iter().enumerate().all(|(place, id)| told[0].contains(id.as_str()) == (place < 3)), "{told:?}");
        ground.settle().await;
        see(&[number, ("device", "another telephone")]).await;
        assert_eq!(customer(("device", "another telephone")).await, stays, "who stays goes on");

        // Where nothing of anybody else is in it, the whole customer goes; what another member has proven is named by nobody.
        see(&[("phone", "13700137000"), ("device", "third telephone"), ("email", "third@example.com")]).await;
        see(&[("email", "third@example.com"), ("openid@mall", "o-fourth")]).await;
        let third =
            [anchor(("phone", "13700137000")).await, anchor(("device", "third telephone")).await].map(|id| id.expect("it is known"));
        ground.cdp.erase_proven(&actor, &third[..1], &third).await.expect("it is erased");
        assert_eq!((anchor(("phone", "13700137000")).await, anchor(("device", "third telephone")).await.is_some()), (None, true));
        assert!(anchor(("openid@mall", "o-fourth")).await.is_some());
        see(&[("phone", "13600136000"), ("device", "fifth telephone")]).await;
        let fifth =
            [anchor(("phone", "13600136000")).await, anchor(("device", "fifth telephone")).await].map(|id| id.expect("it is known"));
        ground.cdp.erase_proven(&actor, &fifth[..1], &fifth).await.expect("it is erased");
        assert_eq!((anchor(("phone", "13600136000")).await, anchor(("device", "fifth telephone")).await), (None, None));
    })
    .await;
}

#[actix_web::test]
async fn a_key_of_a_unit_pages_on_past_what_other_units_sent() {
    for_both_databases(|database| async move {
        let ground = Ground::open(&database).await;
        let (one, two) = ground.units().await;
        let event = |id: &str| json!({ "message_id": id, "name": "a", "identifiers": [{ "type": "device", "value": "both" }] });
        let (send_one, send_two) = (ground.key(&[Scope::Ingest], Some(&one)).await, ground.key(&[Scope::Ingest], Some(&two)).await);
        ground.post(&send_one, "/v1/events", &json!({ "events": [event("own")] })).await;
        let others: Vec<_> = (0..30).map(|number| event(&format!("other-{number}"))).collect();
        ground.post(&send_two, "/v1/events", &json!({ "events": others })).await;
        ground.settle().await;
        let see_one = ground.key(&[Scope::Admin], Some(&one)).await;
        let (_, customer) = ground.post(&see_one, "/v1/customers:search", &json!({ "type": "device", "value": "both" })).await;
        let path = format!("/v1/customers/{}/timeline?limit=1", customer["id"].as_str().unwrap_or_default());
        let (mut seen, mut pages, mut cursor) = (Vec::new(), 0, String::new());
        loop {
            let (status, page) = ground.get(&see_one, &format!("{path}{cursor}")).await;
            assert_eq!(status.as_u16(), 200, "{page}");
            let ids = page["items"].as_array().into_iter().flatten().filter_map(|item| item["message_id"].as_str().map(str::to_owned));
            seen.extend(ids);
            pages += 1;
            let Some(next) = page["next"].as_str() else { break };
            assert!(pages < 31, "the pages come to an end: {page}");
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen, ["own"]);
        assert!(pages > 1, "a page that looked far enough ends with a next one");
    })
    .await;
}
