//! Keys made, listed and revoked over HTTP and beside a running server, and the sealed record of who did it.

use std::fs;
use std::time::Duration;

use heyuan_harness::{Tenant, for_both_databases, until};
use serde_json::{Value, json};

/// Longer than a revoked key may still be taken, on a busy machine.
const REFUSED_LIMIT: Duration = Duration::from_secs(30);
const SEALED_LIMIT: Duration = Duration::from_secs(30);

async fn me(tenant: &Tenant, key: &str) -> Value {
    tenant.caller_with(key).get("/v1/me").await.expect(200)
}

fn id_of(me: &Value) -> String {
    me["actor"].as_str().expect("a key has a name").trim_start_matches("key:").to_owned()
}

#[tokio::test]
async fn keys_are_made_listed_and_revoked() {
    for_both_databases(async |database| {
        let tenant = Tenant::start(&database).await;
        let admin = tenant.caller("admin,app");
        let made = admin.post("/v1/keys", &json!({"scopes": ["app"]})).await.expect(201);
        let (id, key) = (made["id"].as_str().expect("an id"), made["key"].as_str().expect("the key"));
        assert_eq!(me(&tenant, key).await["scopes"], json!(["app"]));
        let listed = admin.get("/v1/keys").await.expect(200);
        assert!(!listed.to_string().contains(key), "a key is shown once");
        let shown = listed["items"].as_array().expect("a list").iter().find(|one| one["id"] == id).expect("it is listed");
        assert!(shown["last_used_at"].is_string() && shown["revoked_at"].is_null(), "{shown}");
        // More than the maker has, a scope that is none, a key that is none.
        assert_eq!(admin.post("/v1/keys", &json!({"scopes": ["reveal"]})).await.problem(403), "forbidden");
        assert_eq!(admin.post("/v1/keys", &json!({"scopes": ["root"]})).await.problem(400), "invalid_request");
        assert_eq!(admin.delete("/v1/keys/key_unknown").await.problem(404), "not_found");
        assert_eq!(tenant.caller_with(key).get("/v1/keys").await.problem(403), "forbidden");
        // This process refuses it at once.
        admin.delete(&format!("/v1/keys/{id}")).await.expect_status(204);
        assert_eq!(tenant.caller_with(key).get("/v1/me").await.problem(401), "unauthenticated");
        let own = id_of(&me(&tenant, admin.key()).await);
        assert_eq!(admin.delete(&format!("/v1/keys/{own}")).await.problem(409), "last_admin_key");
        let acts = admin.get(&format!("/v1/audit?object={id}")).await.expect(200);
        let acts: Vec<(&Value, &Value)> =
            acts["items"].as_array().expect("a list").iter().map(|act| (&act["action"], &act["actor"])).collect();
        let by = json!(format!("key:{own}"));
        assert_eq!(acts, [(&json!("create key"), &by), (&json!("revoke key"), &by)]);
        assert_eq!(admin.get("/v1/audit?action=reveal").await.expect(200)["items"], json!([]));
    })
    .await;
}

#[tokio::test]
async fn a_key_revoked_beside_the_server_is_soon_refused() {
    for_both_databases(async |database| {
        let tenant = Tenant::start(&database).await;
        let app = tenant.caller("app");
        let id = id_of(&me(&tenant, app.key()).await);
        assert!(tenant.heyuan(&["keys", "list"]).lines().any(|line| line.starts_with(&id) && line.ends_with('-')));
        tenant.heyuan(&["keys", "revoke", &id]);
        until("the revoked key is refused", REFUSED_LIMIT, || async { (app.get("/v1/me").await.status == 401).then_some(()) }).await;
        assert!(tenant.heyuan(&["keys", "list"]).lines().any(|line| line.starts_with(&id) && line.ends_with('Z')));
        let unknown = tenant.command(&["keys", "revoke", "key_unknown"]).output().expect("heyuan runs");
        assert!(!unknown.status.success() && String::from_utf8_lossy(&unknown.stderr).contains("not_found"));
    })
    .await;
}

#[tokio::test]
async fn the_audit_record_is_sealed_and_checked_against_exported_heads() {
    for_both_databases(async |database| {
        let tenant = Tenant::start(&database).await;
        tenant.caller("admin");
        let heads = until("the record is sealed", SEALED_LIMIT, || async {
            Some(tenant.heyuan(&["heads", "export"])).filter(|lines| lines.contains(r#""chain":"audit""#))
        })
        .await;
        let file = database.data_dir().join("heads.jsonl");
        fs::write(&file, &heads).expect("the heads are kept");
        let file = file.to_str().expect("a path is text");
        for book in ["audit", "ledger"] {
            assert!(tenant.heyuan(&[book, "verify", "--heads", file]).contains("is sound"), "{book}");
        }
        // A head that nobody with the tenant's key has signed.
        let mut head: Value = heads.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).next_back().expect("a head");
        assert_eq!(head["chain"], "audit");
        head["number"] = json!(head["number"].as_i64().expect("a number") + 7);
        fs::write(file, head.to_string()).expect("the heads are changed");
        let output = tenant.command(&["audit", "verify", "--heads", file]).output().expect("heyuan runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && said.contains("not signed with this tenant's key"), "{said}");
        assert!(said.contains("before a signed head"), "{said}");
    })
    .await;
}
