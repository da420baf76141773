//! Erasure through the whole house: a person who left something in every room is found in none of them, as before only sealed.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use heyuan_harness::{Caller, Gateway, Tenant, TenantOptions, TestDatabase, for_both_databases, until};
use serde_json::{Value, json};

use crate::history::settled;
use crate::shop::Shop;

const FLUSHED_LIMIT: Duration = Duration::from_secs(90);

/// What only this person has, by what it is.
const VALUES: &[(&str, &str)] = &[
    ("phone", "13912345678"),
    ("openid", "openid-of-zhang-sanfeng"),
    ("unionid", "unionid-of-zhang-sanfeng"),
    ("name", "张三丰"),
    ("e-mail address", "zhang.sanfeng@example.com"),
    ("identity card", "330106196811110035"),
    ("address", "西湖区灵隐路一号"),
    ("plate", "浙A12345"),
    ("device", "zhangs-telephone-77"),
    ("undeclared property", "he likes his tea cold"),
];

/// Not personal, and in every event: a search that does not find it in the history can't see.
const WITNESS: &str = "erasure-witness-1";

/// The beginning of every Zstandard frame: blocks of events and pages of Parquet files are such frames.
const FRAME: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Bytes as they lie there, and each frame in them unpacked.
fn unpacked(bytes: &[u8]) -> Vec<Vec<u8>> {
    let frames = bytes.windows(FRAME.len()).enumerate().filter(|(_, window)| *window == FRAME).map(|(at, _)| at);
    let open = |at: usize| {
        let mut plain = Vec::new();
        let mut decoder = zstd::stream::read::Decoder::new(&bytes[at..]).ok()?.single_frame();
        // What is cut off or only looks like a frame still shows how far it went.
        let _ = decoder.read_to_end(&mut plain);
        Some(plain)
    };
    frames.filter_map(open).chain([bytes.to_vec()]).collect()
}

fn holds(bytes: &[u8], value: &str) -> bool {
    let value = value.as_bytes();
    let hex = hex::encode(value).into_bytes();
    [value, &hex].iter().any(|wanted| bytes.windows(wanted.len()).any(|window| window == *wanted))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Everything that the tenant keeps or tells of itself, by where it lies: tables, files, the history as a query shows it, the log.
async fn everything(tenant: &Tenant, admin: &Caller) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for value in tenant.database().stored().await {
        found.push((format!("{}.{}", value.table, value.column), value.bytes));
    }
    for path in files(tenant.database().data_dir()) {
        // A file may go away while the folder is read.
        let Ok(bytes) = fs::read(&path) else { continue };
        found.push((path.display().to_string(), bytes));
    }
    let history = admin.post("/v1/query", &json!({ "sql": "SELECT * FROM events", "limit": 1000 })).await;
    found.push(("POST /v1/query".into(), history.expect(200).to_string().into_bytes()));
    found.push(("the log".into(), tenant.log().into_bytes()));
    found.into_iter().flat_map(|(place, bytes)| unpacked(&bytes).into_iter().map(move |plain| (place.clone(), plain))).collect()
}

/// Holds that nothing of the person lies anywhere in the open, and that the search sees what is there: the witness lies where the
/// history is at the moment, in blocks of a table or in Parquet files.
async fn nothing_in_the_open(tenant: &Tenant, admin: &Caller, history: &str, when: &str) {
    let everything = everything(tenant, admin).await;
    for place in [history, "POST /v1/query"] {
        let seen = everything.iter().any(|(lies, bytes)| lies.ends_with(place) && holds(bytes, WITNESS));
        assert!(seen, "{when}: the search is blind in {place}");
    }
    let mut open = Vec::new();
    for (place, bytes) in &everything {
        open.extend(VALUES.iter().filter(|(_, value)| holds(bytes, value)).map(|(what, _)| format!("the {what} in {place}")));
    }
    assert!(open.is_empty(), "{when} in the open:\n{}", open.join("\n"));
}

/// Where the history lies before it is flushed, and afterwards.
const BLOCKS: &str = "cdp_known_block.payload";
const FILES: &str = ".parquet";

/// What every room keeps of the person.
const KEPT: &[&str] = &[
    "cdp_node",
    "cdp_edge",
    "cdp_consent",
    "cdp_rejected",
    "membership_member",
    "membership_transaction",
    "membership_decision",
    "ledger_lot",
    "mall_order",
    "mall_voucher",
    "attribution_touch",
    "attribution_lead",
    "attribution_stage",
    "kernel_audit",
];

/// A tenant that writes all of its thoughts to the log, and flushes events of this age.
async fn talkative(database: &TestDatabase, gateway: &Gateway, flush_age_ms: &str) -> Tenant {
    let mut environment = gateway.environment();
    environment.push(("HEYUAN_COLLECT__FLUSH_AGE_MS".into(), flush_age_ms.into()));
    environment.push(("HEYUAN_TELEMETRY__LOG_FILTER".into(), "debug".into()));
    Tenant::start_with(database, TenantOptions { environment, ..TenantOptions::default() }).await
}

/// Waits until nothing waits to be processed and every event lies in a file.
async fn flushed(tenant: &Tenant) {
    settled(tenant).await;
    until("everything is flushed", FLUSHED_LIMIT, || async {
        (tenant.database().count("SELECT count(*) FROM cdp_known_block").await == 0).then_some(())
    })
    .await;
}

/// Leaves something of the person in every room; answers the customer.
async fn lives(tenant: &Tenant) -> String {
    let (app, ingest) = (tenant.caller("app"), tenant.caller("ingest"));
    let value = |what: &str| VALUES.iter().find(|(name, _)| *name == what).expect("it is in the list").1;
    // A member who buys a voucher and hands it in, and whose purchase at the till is reported.
    let mut shop = Shop::open(tenant).await;
    let codes = shop.buy_vouchers(1).await;
    let mut rest = [shop.sale("sale-of-zhang".into()), shop.order("order-of-zhang".into()), shop.redemption(&codes[0])];
    shop.all_again(&mut rest).await;
    // An app that knows everything of him, an ad that he came by, and his family.
    let context = json!({ "app": { "name": "wx-mall" }, "campaign": { "source": "oceanengine", "medium": "cpc", "name": "spring" } });
    let traits = json!({
        "phone": value("phone"), "openid": value("openid"), "unionid": value("unionid"), "name": value("name"), "email": value("e-mail address"),
        "id_card": value("identity card"), "address": value("address"), "plate": value("plate"), "household_size": 4,
        "undeclared": value("undeclared property"),
    });
    let device = value("device");
    let batch = json!({ "batch": [
        { "type": "track", "event": "Unit Viewed", "messageId": WITNESS, "anonymousId": device, "context": context,
          "properties": { "unit_type": "4br", "note": value("undeclared property") } },
        { "type": "identify", "messageId": "erasure-2", "anonymousId": device, "context": context, "traits": traits },
        { "type": "group", "messageId": "erasure-3", "anonymousId": device, "groupId": "household-1", "context": context, "traits": { "size": 4 } },
        // Refused, and kept with its reason.
        { "type": "track", "event": "", "messageId": "erasure-4", "anonymousId": device, "context": context, "properties": { "phone": value("phone") } },
    ] });
    ingest.post("/v1/batch", &batch).await.expect(200);
    let lead = json!({
        "id": "lead-of-zhang", "unit": "mall-1", "identifiers": [{ "kind": "phone", "value": value("phone") }],
        "submitted_at": "2026-11-20T10:00:00+08:00",
    });
    app.post_once("/v1/leads", "lead-of-zhang", &lead).await.expect(200);
    let stage = json!({ "stage": "visited", "occurred_at": "2026-11-21T10:00:00+08:00" });
    app.post("/v1/leads/lead-of-zhang/stages", &stage).await.expect(200);
    settled(tenant).await;
    let customer = app.post("/v1/customers:search", &json!({ "type": "phone", "value": value("phone") })).await.expect(200);
    let id = customer["id"].as_str().expect("a customer has an id").to_owned();
    let kinds: Vec<_> = customer["identifiers"].as_array().into_iter().flatten().filter_map(|one| one["type"].as_str()).collect();
    for kind in ["phone", "openid", "unionid", "email", "device"] {
        assert!(kinds.contains(&kind), "the app and the member are one customer with a {kind}: {customer}");
    }
    let consent = json!({ "granted": true, "legal_entity": "mall-co", "at": "2026-11-20T10:00:00+08:00" });
    app.put(&format!("/v1/customers/{id}/consents/marketing"), &consent).await.expect(200);
    id
}

#[tokio::test]
async fn a_person_who_was_in_every_room_is_found_in_none_after_erasure() {
    for_both_databases(async |database| {
        let mut gateway = Gateway::somewhere();
        let mut tenant = talkative(&database, &gateway, "3600000").await;
        gateway.open(&tenant).await;
        let admin = tenant.caller("admin,app,reveal");
        let id = lives(&tenant).await;
        let shown = admin.get(&format!("/v1/customers/{id}")).await.expect(200);
        let refs = shown["identifiers"].as_array().cloned().unwrap_or_default();
        let phone = refs.iter().find(|one| one["type"] == "phone").expect("the customer has a phone number");
        let ask = json!({ "ref": phone["ref"], "reason": "the customer called back" });
        let revealed = admin.post(&format!("/v1/customers/{id}/reveal"), &ask).await.expect(200);
        assert_eq!(revealed["value"], VALUES[0].1, "the vault has it, sealed");
        settled(&tenant).await;
        for table in KEPT {
            assert!(database.count(&format!("SELECT count(*) FROM {table}")).await > 0, "{table} has nothing to forget");
        }
        nothing_in_the_open(&tenant, &admin, BLOCKS, "before the flush").await;
        tenant.stop().await;
        drop(tenant);
        let tenant = talkative(&database, &gateway, "500").await;
        let admin = tenant.caller_with(admin.key());
        flushed(&tenant).await;
        nothing_in_the_open(&tenant, &admin, FILES, "before the erasure").await;
        let sealed = database.count("SELECT count(*) FROM kernel_vault_value").await;
        assert!(sealed >= i64::try_from(VALUES.len()).expect("few") - 1, "{sealed} values in the vault");

        admin.post(&format!("/v1/customers/{id}/erase"), &Value::Null).await.expect(200);
        flushed(&tenant).await;
        nothing_in_the_open(&tenant, &admin, FILES, "after the erasure").await;
        for table in ["kernel_vault_value", "kernel_vault_key"] {
            assert_eq!(database.count(&format!("SELECT count(*) FROM {table}")).await, 0, "{table} after the erasure");
        }
        let keys = "SELECT count(*) FROM cdp_node WHERE hash IS NOT NULL OR ref IS NOT NULL";
        assert_eq!(database.count(keys).await, 0, "look-up hashes and references after the erasure");
        assert_eq!(admin.get(&format!("/v1/customers/{id}")).await.problem(410), "erased");
        for (kind, value) in [("phone", VALUES[0].1), ("device", "zhangs-telephone-77")] {
            admin.post("/v1/customers:search", &json!({ "type": kind, "value": value })).await.expect_status(404);
        }
        let told = admin.get("/v1/transactions/sale-of-zhang?unit=mall-1").await;
        assert!(VALUES.iter().all(|(_, value)| !holds(&told.body, value)), "{}", told.text());
        let (book, acts) = (tenant.heyuan(&["ledger", "verify"]), tenant.heyuan(&["audit", "verify"]));
        assert!(book.contains("is sound") && acts.contains("is sound"), "{book}{acts}");
    })
    .await;
}
