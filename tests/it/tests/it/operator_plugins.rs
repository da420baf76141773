//! Plugins that the operator manages: what its objects wish, who may overrule them, where modules come from and where they are compiled.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use heyuan_harness::{Answer, Beside, Caller, Tenant, TestDatabase, for_both_databases};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use crate::operator::{KEY, options};
use crate::plugins::{component, upload};

const PLUGIN: &str = "/v1/operator/plugins/bonus";

async fn start(database: &TestDatabase, settings: &[(&str, &str)]) -> Tenant {
    let mut options = options(database.data_dir());
    options.environment.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    Tenant::start_with(database, options).await
}

fn wish(source: Value, mode: &str, generation: i64, approved: &Value) -> Value {
    json!({ "kind": "benefit", "source": source, "approved": approved, "mode": mode, "generation": generation, "url_hosts": ["127.0.0.1"] })
}

fn bytes(module: &[u8]) -> Value {
    json!({ "bytes": STANDARD.encode(module) })
}

fn digest(module: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(module)))
}

/// What a module reads, as its upload under another name tells.
async fn reads(admin: &Caller, module: Vec<u8>) -> Value {
    upload(admin, "asked", module).await.expect(200)["reads"].clone()
}

async fn listed(operator: &Caller, name: &str) -> Value {
    let status = operator.get("/v1/operator/status").await.expect(200);
    let plugins = status["plugins"].as_array().expect("plugins are listed");
    plugins.iter().find(|plugin| plugin["name"] == name).cloned().unwrap_or_default()
}

#[tokio::test]
async fn an_objects_wish_is_carried_out_and_the_tenant_may_overrule_it() {
    for_both_databases(async |database| {
        let tenant = start(&database, &[]).await;
        let (operator, admin) = (tenant.operator(Some(KEY)), tenant.caller("admin"));
        let module = component("member-day");
        let approved = reads(&admin, module.clone()).await;
        let put = async |mode: &str, generation: i64, approved: &Value| {
            operator.put(PLUGIN, &wish(bytes(&module), mode, generation, approved)).await
        };
        let state = |answer: Answer| answer.expect(200)["state"].clone();

        let shadow = put("shadow", 1, &approved).await.expect(200);
        assert_eq!(
            (&shadow["state"], &shadow["digest"], &shadow["managed_by"]),
            (&json!("shadow"), &json!(digest(&module)), &json!("operator"))
        );
        assert_eq!(state(put("active", 2, &approved).await), "active");
        assert_eq!(listed(&operator, "bonus").await["state"], "active");
        assert_eq!(put("disabled", 1, &approved).await.problem(409), "conflict", "an older generation");

        // The name is the operator's: a key may not change it, only stop it.
        assert_eq!(upload(&admin, "bonus", module.clone()).await.problem(409), "managed_by_operator");
        let hex = digest(&module).replace("sha256:", "");
        let activate = json!({ "digest": hex });
        assert_eq!(admin.post("/v1/plugins/bonus/activate", &activate).await.problem(409), "managed_by_operator");
        assert_eq!(admin.put("/v1/plugins/bonus/approval", &json!({ "approved": [] })).await.problem(409), "managed_by_operator");
        admin.post("/v1/plugins/bonus/retire", &json!({})).await.expect_status(204);
        let stopped = put("active", 2, &approved).await.expect(200);
        assert_eq!(stopped["state"], "quarantined");
        assert!(stopped["message"].as_str().is_some_and(|message| message.contains("key:")), "{stopped}");
        assert_eq!(state(put("active", 3, &approved).await), "active", "a higher generation is heard again");
        let emergency = json!({ "digest": hex, "emergency": true });
        admin.post("/v1/plugins/bonus/activate", &emergency).await.expect(200);
        assert_eq!(state(put("disabled", 3, &approved).await), "quarantined");
        assert_eq!(state(put("disabled", 4, &approved).await), "retired");

        // Freed, it is the API's again; and what the API manages is not the operator's.
        operator.delete(PLUGIN).await.expect_status(204);
        upload(&admin, "bonus", module.clone()).await.expect(200);
        admin.post("/v1/plugins/bonus/activate", &json!({ "digest": hex, "approve": approved })).await.expect(200);
        assert_eq!(put("active", 9, &approved).await.problem(409), "managed_by_api");
        assert_eq!(listed(&operator, "bonus").await["managed_by"], "api");
        admin.post("/v1/plugins/bonus/retire", &json!({})).await.expect_status(204);
        assert_eq!(state(put("active", 9, &approved).await), "active");
    })
    .await;
}

#[tokio::test]
async fn a_wish_that_can_not_be_met_says_why() {
    for_both_databases(async |database| {
        let tenant = start(&database, &[]).await;
        let (operator, admin) = (tenant.operator(Some(KEY)), tenant.caller("admin"));
        let module = component("member-day");
        let approved = reads(&admin, module.clone()).await;
        if approved != json!([]) {
            let refused = operator.put(PLUGIN, &wish(bytes(&module), "active", 1, &json!([]))).await;
            assert_eq!(refused.problem(409), "approval_needed");
            let told = listed(&operator, "bonus").await;
            assert_eq!(told["state"], "checked");
            assert!(told["message"].as_str().is_some_and(|message| message.starts_with("approval_needed")), "{told}");
        }
        let mut other_kind = wish(bytes(&module), "active", 2, &approved);
        other_kind["kind"] = json!("tagger");
        assert_eq!(operator.put(PLUGIN, &other_kind).await.problem(400), "invalid_request");
        assert_eq!(operator.put(PLUGIN, &wish(bytes(b"no module"), "active", 3, &approved)).await.problem(400), "invalid_plugin");
        assert_eq!(operator.put(PLUGIN, &wish(json!({}), "active", 3, &approved)).await.problem(400), "invalid_request");
        assert_eq!(
            operator.put("/v1/operator/plugins/Bonus!", &wish(bytes(&module), "active", 3, &approved)).await.problem(400),
            "invalid_request"
        );
        assert_eq!(operator.put(PLUGIN, &wish(bytes(&module), "active", 3, &approved)).await.expect(200)["message"], "");
    })
    .await;
}

/// Answers requests by their path until the test ends: a module, a redirection, or nothing.
async fn host(module: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("a bound socket has an address");
    let module = Arc::new(module);
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let module = module.clone();
            tokio::spawn(async move {
                let mut request = vec![0; 4096];
                let read = connection.read(&mut request).await.unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                let (status, location, body) = match path.as_str() {
                    "/module" => ("200 OK", "", module.as_slice()),
                    "/away" => ("302 Found", "Location: http://localhost/module\r\n", &b""[..]),
                    "/metadata" => ("302 Found", "Location: http://169.254.169.254/latest\r\n", &b""[..]),
                    "/circle" => ("302 Found", "Location: /circle\r\n", &b""[..]),
                    "/once" => ("302 Found", "Location: /module\r\n", &b""[..]),
                    _ => ("404 Not Found", "", &b""[..]),
                };
                let head = format!("HTTP/1.1 {status}\r\n{location}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = connection.write_all(head.as_bytes()).await;
                let _ = connection.write_all(body).await;
            });
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn a_module_comes_from_listed_hosts_on_the_open_network_alone() {
    let database = TestDatabase::sqlite();
    let module = component("member-day");
    let (wanted, host) = (digest(&module), host(module.clone()).await);
    let source = |url: String| json!({ "url": url, "digest": wanted });

    // As it is in production: this machine's own addresses are refused.
    let tenant = start(&database, &[]).await;
    let (operator, admin) = (tenant.operator(Some(KEY)), tenant.caller("admin"));
    let port = host.rsplit(':').next().expect("a port").to_owned();
    for url in [format!("{host}/module"), format!("https://127.0.0.1:{port}/module"), "https://elsewhere.example/module".into(), "x".into()]
    {
        let answer = operator.put(PLUGIN, &wish(source(url.clone()), "shadow", 1, &json!([]))).await;
        assert_eq!(answer.problem(400), "plugin_source_refused", "{url}");
    }
    drop(tenant);

    let tenant = start(&database, &[("HEYUAN_PLUGINS__SOURCE_LOOPBACK", "true")]).await;
    let operator = tenant.operator(Some(KEY));
    let put = async |path: &str, generation: i64| {
        operator.put(PLUGIN, &wish(source(format!("{host}{path}")), "shadow", generation, &json!([]))).await
    };
    for path in ["/away", "/metadata", "/circle"] {
        assert_eq!(put(path, 2).await.problem(400), "plugin_source_refused", "{path}");
    }
    assert_eq!(put("/nothing", 2).await.problem(503), "plugin_source_unreachable");
    let other = json!({ "url": format!("{host}/module"), "digest": format!("sha256:{}", "0".repeat(64)) });
    assert_eq!(operator.put(PLUGIN, &wish(other, "shadow", 2, &json!([]))).await.problem(400), "plugin_digest_mismatch");
    assert_eq!(put("/once", 2).await.expect(200)["state"], "shadow");
    // What is here is not asked for again, wherever it is said to be.
    assert_eq!(put("/nothing", 3).await.expect(200)["state"], "shadow");
    drop(admin);
}

#[tokio::test]
async fn plugins_are_compiled_in_a_process_beside_the_server() {
    let database = TestDatabase::sqlite();
    let socket = database.data_dir().join("compiler.sock");
    let path = socket.to_str().expect("the path is text").to_owned();
    let tenant = start(&database, &[("HEYUAN_PLUGINS__COMPILER_SOCKET", &path)]).await;
    let admin = tenant.caller("admin");

    // A compiler that dies in the middle, as one that is out of memory does, costs that compilation alone.
    let dying = UnixListener::bind(&socket).expect("a socket can be made");
    let (answer, ()) = tokio::join!(upload(&admin, "bonus", component("member-day")), async {
        drop(dying.accept().await.expect("the server asks"));
    });
    assert_eq!(answer.problem(503), "plugin_unavailable");
    assert!(answer.text().contains("compiler"), "{}", answer.text());
    tenant.stranger().get("/readyz").await.expect_status(200);
    drop(dying);

    // One that starts again is waited for.
    let (answer, beside) =
        tokio::join!(upload(&admin, "bonus", component("member-day")), async { Beside::start(&["compile-plugins", "--socket", &path]) });
    answer.expect(200);
    assert_eq!(upload(&admin, "broken", b"\0asm\x0d\0\x01\0\xff\xff\xff".to_vec()).await.problem(400), "invalid_plugin");
    upload(&admin, "upgrader", component("home-upgrader")).await.expect(200);
    drop(beside);
    // What is compiled needs no compiler any more.
    upload(&admin, "bonus-again", component("member-day")).await.expect(200);
}
