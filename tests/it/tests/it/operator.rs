//! The tenant's side of the contract with the Kubernetes operator: its listener, its key, what it is told and what it may put.

use std::fs;
use std::path::Path;
use std::time::Duration;

use heyuan_harness::{Answer, Tenant, TenantOptions, TestDatabase, for_both_databases, until};
use reqwest::Method;
use serde_json::{Value, json};

use crate::contract::{Operation, document, none_wrong};

/// The operator's key in these tests.
pub(crate) const KEY: &str = "the-key-of-an-operator-in-a-test";
const OTHER_KEY: &str = "another-key-of-an-operator-in-tests";
const DELIVERED: &str = "hyk_abcdefghijklmnopqrstuvwxyz012345";
const PATIENCE: Duration = Duration::from_secs(60);

/// A tenant with a listener for the operator.
pub(crate) fn options(folder: &Path) -> TenantOptions {
    let file = folder.join("operator.key");
    fs::write(&file, format!("{KEY}\n")).expect("the data folder is writable");
    let environment = vec![
        ("HEYUAN_HTTP__OPERATOR_LISTEN".into(), "127.0.0.1:0".into()),
        ("HEYUAN_OPERATOR__KEY_FILE".into(), file.to_string_lossy().into_owned()),
    ];
    TenantOptions { environment, ..TenantOptions::default() }
}

async fn start(database: &TestDatabase) -> Tenant {
    Tenant::start_with(database, options(database.data_dir())).await
}

#[tokio::test]
async fn the_operator_has_a_listener_of_its_own() {
    for_both_databases(async |database| {
        let tenant = start(&database).await;
        let (operator, stranger) = (tenant.operator(Some(KEY)), tenant.operator(None));
        for path in ["/livez", "/readyz", "/metrics"] {
            stranger.get(path).await.expect_status(200);
        }
        assert_eq!(operator.get("/v1/me").await.problem(404), "no_such_path");
        tenant.stranger().get("/readyz").await.expect_status(200);
        assert_eq!(tenant.stranger().get("/metrics").await.problem(404), "no_such_path");
        let document = document(&tenant).await;
        let operations = Operation::of_the_operator(&document);
        assert!(operations.len() > 2, "the document has the operator's operations");
        let mut wrong = Vec::new();
        for operation in &operations {
            let public = operation.sent_by(&tenant.caller_with(KEY)).await;
            let refused = operation.sent_by(&stranger).await;
            let mistaken = operation.sent_by(&tenant.operator(Some(OTHER_KEY))).await;
            let known = operation.sent_by(&tenant.operator(Some(tenant.caller("admin,app").key()))).await;
            let statuses = [public.status, refused.status, mistaken.status, known.status];
            if statuses != [404, 401, 401, 401] {
                wrong.push(format!("{}: {statuses:?}", operation.name()));
            }
        }
        none_wrong(&wrong);
    })
    .await;
}

#[tokio::test]
async fn the_operators_key_changes_without_a_restart() {
    let database = TestDatabase::sqlite();
    let tenant = start(&database).await;
    let file = database.data_dir().join("operator.key");
    let status = async |key| tenant.operator(Some(key)).get("/v1/operator/status").await.status;
    assert_eq!((status(KEY).await, status(OTHER_KEY).await), (200, 401));
    fs::write(&file, OTHER_KEY).expect("the file can be written");
    assert_eq!((status(KEY).await, status(OTHER_KEY).await), (401, 200));
    // What is no key lets nobody in, not even who knows it.
    fs::write(&file, "short").expect("the file can be written");
    assert_eq!((status("short").await, status(OTHER_KEY).await), (503, 503));
}

#[tokio::test]
async fn a_listener_without_a_key_does_not_start() {
    let database = TestDatabase::sqlite();
    let file = database.data_dir().join("operator.key");
    for (content, words) in [(None, "operator.key_file"), (Some("short"), "at least 32 characters")] {
        let mut command = std::process::Command::new(heyuan_harness::heyuan_binary());
        command.arg("serve").arg("--data").arg(database.data_dir()).args(["--listen", "127.0.0.1:0", "--operator-listen", "127.0.0.1:0"]);
        if let Some(content) = content {
            fs::write(&file, content).expect("the data folder is writable");
            command.env("HEYUAN_OPERATOR__KEY_FILE", &file);
        }
        let output = command.output().expect("heyuan runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{said}");
    }
}

#[tokio::test]
async fn the_status_tells_how_a_process_stands() {
    for_both_databases(async |database| {
        let tenant = start(&database).await;
        let operator = tenant.operator(Some(KEY));
        let plan: Value = serde_json::from_str(&tenant.heyuan(&["migrate", "--plan"])).expect("a plan is JSON");
        let status = until("it is the processor", PATIENCE, || async {
            let status = operator.get("/v1/operator/status").await.expect(200);
            (status["processor"] == true).then_some(status)
        })
        .await;
        assert_eq!(
            (&status["release"], &status["ready"], &status["schema"]),
            (&plan["release"], &json!(true), &plan["schema"]),
            "{status}"
        );
        let backend = if database.is_postgres() { "postgres" } else { "sqlite" };
        assert_eq!(status["database"]["backend"], backend);
        assert_eq!(status["database"]["connections_draining"], 0);
        assert_eq!(status["database"]["role"], if database.is_postgres() { "heyuan" } else { "" });
        let current = status["database"]["connections_current"].as_i64().expect("a count");
        assert_eq!(current > 0, database.is_postgres());
    })
    .await;
}

#[tokio::test]
async fn a_delivered_key_administers_the_group_until_it_is_revoked() {
    for_both_databases(async |database| {
        let tenant = start(&database).await;
        let operator = tenant.operator(Some(KEY));
        let put = async |key: &str| operator.put("/v1/operator/admin-key", &json!({ "key": key, "name": "operator-delivered" })).await;
        let first = put(DELIVERED).await.expect(200);
        assert_eq!(first["scopes"], json!(["admin", "app", "import", "ingest", "reveal"]));
        assert_eq!(put(DELIVERED).await.expect(200), first, "the same key again changes nothing");
        let admin = tenant.caller_with(DELIVERED);
        assert_eq!(admin.get("/v1/me").await.expect(200)["scopes"], json!(["ingest", "app", "admin", "reveal", "import"]));
        let audit = admin.get("/v1/audit?action=deliver%20key").await.expect(200);
        let delivered = audit["items"].as_array().expect("a page");
        assert_eq!(delivered.len(), 1, "{audit}");
        assert_eq!((&delivered[0]["actor"], &delivered[0]["detail"]["name"]), (&json!("system:operator"), &json!("operator-delivered")));
        // Another one, so that it is not the last that administers the group.
        let other = tenant.caller("admin");
        let id = first["id"].as_str().expect("an id");
        other.delete(&format!("/v1/keys/{id}")).await.expect_status(204);
        assert_eq!(put(DELIVERED).await.problem(409), "key_revoked");
        assert_eq!(admin.get("/v1/me").await.problem(401), "unauthenticated");
        for wrong in ["hyk_short", "abc_abcdefghijklmnopqrstuvwxyz0123456789", "hyk_abcdefghijklmnopqrstuvwxyz01234 "] {
            assert_eq!(put(wrong).await.problem(400), "invalid_request", "{wrong}");
        }
    })
    .await;
}

#[tokio::test]
async fn units_are_made_once_and_never_changed() {
    for_both_databases(async |database| {
        let tenant = start(&database).await;
        let (operator, admin) = (tenant.operator(Some(KEY)), tenant.caller("admin"));
        let group = json!({ "id": "group", "name": "合院", "line": null, "parent": null });
        let mall = |name: &str| json!({ "id": "mall-1", "name": name, "line": "mall", "parent": "group" });
        let put = async |units: Value| operator.put("/v1/operator/org", &json!({ "units": units })).await;
        let made = put(json!([group, mall("一店")])).await.expect(200);
        assert_eq!(made, json!({ "made": ["group", "mall-1"], "present": [], "different": [] }));
        let units = admin.get("/v1/org-units").await.expect(200);
        assert_eq!((&units["items"][0]["kind"], &units["items"][1]["kind"]), (&json!("group"), &json!("mall")));
        let again = put(json!([group, mall("另一店")])).await.expect(200);
        assert_eq!(again, json!({ "made": [], "present": ["group"], "different": [{ "id": "mall-1", "field": "name" }] }));
        assert_eq!(admin.get("/v1/org-units").await.expect(200), units, "nothing was changed");
        assert_eq!(put(json!([{ "id": "x", "name": "x", "line": "mall", "parent": "nowhere" }])).await.problem(400), "invalid_request");
        let status = operator.get("/v1/operator/status").await.expect(200);
        assert_eq!(status["org_units"], json!(["group", "mall-1"]));
    })
    .await;
}

#[tokio::test]
async fn a_release_serves_on_a_schema_that_says_so_and_on_no_other() {
    for_both_databases(async |database| {
        let mut tenant = start(&database).await;
        let plan = |tenant: &Tenant| -> Value { serde_json::from_str(&tenant.heyuan(&["migrate", "--plan"])).expect("a plan is JSON") };
        let current = plan(&tenant);
        assert_eq!(
            (&current["verdict"], &current["may_serve"], &current["steps"]),
            (&json!("current"), &json!(true), &json!([])),
            "{current}"
        );
        assert_eq!(current["schema"], current["target"]);
        // What a later release would have left: a step that this one does not know, on which it may serve.
        database.execute("INSERT INTO kernel_migration (version, applied_at) VALUES ('m20990101_000001_later', 0)").await;
        tenant.stop().await;
        tenant.restart().await;
        let ahead = plan(&tenant);
        assert_eq!((&ahead["verdict"], &ahead["may_serve"]), (&json!("ahead"), &json!(true)), "{ahead}");
        let done: Value = serde_json::from_str(&tenant.heyuan(&["migrate"])).expect("migrate answers JSON");
        assert_eq!(done["made"], json!([]));
        // Then that release contracts, beside this process.
        database.execute("UPDATE kernel_setting SET value = '9.0.0' WHERE name = 'schema_serves_from'").await;
        let unready = tenant.operator(None).get("/readyz").await.expect(503);
        assert_eq!(unready["ready"], false);
        assert!(unready["why"].as_str().is_some_and(|why| why.contains("schema not servable") && why.contains("9.0.0")), "{unready}");
        assert_eq!(plan(&tenant)["may_serve"], false);
        let refused = tenant.command(&["migrate"]).output().expect("heyuan runs");
        assert!(!refused.status.success());
        let said: Value = serde_json::from_slice(&refused.stdout).expect("migrate answers one line of JSON");
        assert!(said["why"].as_str().is_some_and(|why| why.contains("9.0.0")), "{said}");
        assert_eq!(said["refused"]["may_serve"], false, "{said}");
        tenant.stop().await;
        let refused = tenant.command(&["serve", "--listen", "127.0.0.1:0"]).output().expect("heyuan runs");
        assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("9.0.0"), "{refused:?}");
    })
    .await;
}

#[tokio::test]
async fn a_plan_changes_nothing() {
    for_both_databases(async |database| {
        let mut command = std::process::Command::new(heyuan_harness::heyuan_binary());
        command.args(["migrate", "--plan", "--data"]).arg(database.data_dir());
        command.args(database.database_url().iter().flat_map(|url| ["--database-url", *url]));
        let output = command.output().expect("heyuan runs");
        let plan: Value = serde_json::from_slice(&output.stdout).expect("a plan is JSON");
        assert_eq!(
            (&plan["verdict"], &plan["schema"]["level"], &plan["may_serve"]),
            (&json!("empty"), &Value::Null, &json!(false)),
            "{plan}"
        );
        let steps = plan["steps"].as_array().expect("steps");
        assert_eq!(steps.len(), plan["target"]["level"].as_u64().expect("a level") as usize);
        assert!(steps.iter().all(|step| step["kind"] == "expand" && step["room"].is_string()), "{plan}");
        if database.is_postgres() {
            assert_eq!(database.count("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'").await, 0);
        } else {
            assert_eq!(fs::read_dir(database.data_dir()).expect("the folder is there").count(), 0);
        }
    })
    .await;
}

#[tokio::test]
async fn a_process_that_leaves_says_so_and_still_serves() {
    for_both_databases(async |database| {
        let mut options = options(database.data_dir());
        // So long that a test that waits for its end fails.
        options.environment.push(("HEYUAN_HTTP__STOP_DELAY_SECONDS".into(), "3600".into()));
        let mut tenant = Tenant::start_with(&database, options).await;
        let app = tenant.caller("app");
        let before = Answer::of(app.request(Method::GET, "/v1/me")).await;
        assert_eq!((before.status, before.header("connection")), (200, None));
        tenant.terminate();
        let unready = until("it is not ready any more", PATIENCE, || async {
            let answer = tenant.operator(None).get("/readyz").await;
            (answer.status == 503).then_some(answer)
        })
        .await;
        assert_eq!(unready.json(), json!({ "ready": false, "why": "stopping" }));
        let after = Answer::of(app.request(Method::GET, "/v1/me")).await;
        assert_eq!((after.status, after.header("connection")), (200, Some("close")));
        // Told twice, it does not wait any more.
        assert!(tenant.stop().await.success());
    })
    .await;
}
