//! Staff logging in over HTTP: an OpenID provider as a process, sessions that refresh and end, and a client that others wrote.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use heyuan_harness::{Answer, Gateway, Tenant, TenantOptions, TestDatabase, for_both_databases, heyuan_binary, python, until};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Url};
use serde_json::{Value, json};

/// Longer than a session that has ended may still be taken, on a busy machine.
const REFUSED_LIMIT: Duration = Duration::from_secs(30);

/// A tenant whose staff log in at a simulator.
struct Ground {
    tenant: Tenant,
    options: TenantOptions,
    gateway: Option<Gateway>,
    simulator: String,
    secret: String,
    http: Client,
}

/// The section of the settings.
fn section(issuer: &str, secret: &str, grants: &str) -> String {
    format!(
        "[staff]\nissuer = '{issuer}'\nclient_id = 'heyuan'\nclient_secret = '{secret}'\nredirect_url = 'https://console.example.com/back'\n{grants}"
    )
}

fn grant(role: &str, scopes: &str, unit: &str) -> String {
    format!("[[staff.grants]]\nrole = '{role}'\nscopes = [{scopes}]\n{unit}\n")
}

async fn ground(database: &TestDatabase) -> Ground {
    let mut gateway = Gateway::somewhere();
    let environment = gateway.environment();
    let of = |name: &str| environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).expect("it is set");
    let (simulator, secret) = (of("HEYUAN_MALL__GATEWAY_URL"), of("HEYUAN_MALL__PAYMENT_SECRET"));
    let grants = grant("admins", "'admin', 'app'", "") + &grant("mall desk", "'app'", "unit = 'mall-1'");
    let file = database.data_dir().join("staff.toml");
    fs::write(&file, section(&format!("{simulator}/oidc"), &secret, &grants)).expect("the data folder is writable");
    let options = TenantOptions { arguments: vec!["--config".into(), file.into()], environment, ..TenantOptions::default() };
    let tenant = Tenant::start_with(database, options.clone()).await;
    gateway.open(&tenant).await;
    let unit =
        |id: &str, parent: Value, kind: &str, line: Value| json!({ "id": id, "parent": parent, "name": id, "kind": kind, "line": line });
    let units = [unit("group", Value::Null, "group", Value::Null), unit("mall-1", json!("group"), "mall", json!("mall"))];
    tenant.caller("admin").put("/v1/org-units", &json!({ "units": units })).await.expect_status(204);
    let http = Client::builder().no_proxy().redirect(Policy::none()).build().expect("the client needs nothing from outside");
    let ground = Ground { tenant, options, gateway: Some(gateway), simulator, secret, http };
    for (person, groups) in [("li", json!(["admins"])), ("wang", json!(["mall desk", "canteen"])), ("nobody", json!([]))] {
        ground.tells(Method::PUT, &format!("/oidc/people/{person}"), json!({ "groups": groups })).await;
    }
    ground
}

impl Ground {
    async fn tells(&self, method: Method, path: &str, body: Value) {
        let request = self.http.request(method, format!("{}{path}", self.simulator)).json(&body);
        let answer = Answer::of(request).await;
        assert!([200, 204].contains(&answer.status), "{path}: {}", answer.text());
    }

    /// Begins a log-in, and brings back what the provider sends this person's browser back with.
    async fn back(&self, begun_at: &Tenant, person: &str) -> Value {
        let begun = begun_at.stranger().post("/v1/staff/log-ins", &json!({})).await;
        assert_eq!(begun.header("cache-control"), Some("no-store"));
        let begun = begun.expect(201);
        let address = format!("{}&login_hint={person}", text(&begun, "address"));
        let answer = Answer::of(self.http.get(address)).await;
        let location = answer.header("location").unwrap_or_else(|| panic!("no way back: {}", answer.text()));
        let back = Url::parse(location).expect("an address");
        let of = |name: &str| back.query_pairs().find(|(known, _)| known == name).map(|(_, value)| value.into_owned());
        assert_eq!(of("state").as_deref(), begun["state"].as_str());
        json!({ "ticket": begun["ticket"], "state": of("state"), "code": of("code"), "iss": of("iss") })
    }

    /// The person logs out at the provider, which tells the tenant; answers what that said.
    async fn leaves(&self, person: &str, of: &str) -> Value {
        let body = json!({ "url": format!("{}/v1/staff/log-outs", self.tenant.url()), "of": of });
        Answer::of(self.http.post(format!("{}/oidc/people/{person}:log-out", self.simulator)).json(&body)).await.expect(200)
    }

    async fn logs_in(&self, person: &str) -> Answer {
        let body = self.back(&self.tenant, person).await;
        self.tenant.stranger().post("/v1/staff/log-ins:finish", &body).await
    }
}

fn text(answer: &Value, name: &str) -> String {
    answer[name].as_str().unwrap_or_else(|| panic!("no {name} in {answer}")).to_owned()
}

#[tokio::test]
async fn staff_log_in_act_and_are_logged_out() {
    for_both_databases(async |database| {
        let ground = ground(&database).await;
        let (tenant, stranger) = (&ground.tenant, ground.tenant.stranger());
        let li = ground.logs_in("li").await.expect(201);
        let own = tenant.caller_with(&text(&li, "token"));
        let me = own.get("/v1/me").await.expect(200);
        assert_eq!(me, json!({ "actor": format!("staff:{}", text(&li, "staff")), "scopes": ["app", "admin"] }));
        let made = own.post("/v1/keys", &json!({ "scopes": ["app"] })).await.expect(201);
        assert_eq!(own.post("/v1/keys", &json!({ "scopes": ["ingest"] })).await.problem(403), "forbidden");

        let wang = ground.logs_in("wang").await.expect(201);
        let desk = tenant.caller_with(&text(&wang, "token"));
        assert_eq!(desk.get("/v1/org-units").await.expect(200)["items"].as_array().map(Vec::len), Some(1), "a unit's own units alone");
        assert_eq!(desk.get("/v1/keys").await.problem(403), "forbidden");
        let listed = desk.get("/v1/staff/sessions").await.expect(200);
        assert_eq!((listed["items"].as_array().map(Vec::len), &listed["items"][0]["id"]), (Some(1), &wang["session"]));
        assert_eq!(own.get("/v1/staff/sessions").await.expect(200)["items"].as_array().map(Vec::len), Some(2));

        let spent = json!({ "refresh_token": wang["refresh_token"] });
        let next = stranger.post("/v1/staff/sessions:refresh", &spent).await.expect(200);
        assert_eq!((&next["session"], &next["unit"]), (&wang["session"], &json!("mall-1")));
        assert_eq!(stranger.post("/v1/staff/sessions:refresh", &spent).await.problem(400), "refresh_refused");
        assert_eq!(desk.get("/v1/me").await.problem(401), "unauthenticated", "the whole session is over");
        let next = json!({ "refresh_token": next["refresh_token"] });
        assert_eq!(stranger.post("/v1/staff/sessions:refresh", &next).await.problem(400), "refresh_refused");

        stranger.post("/v1/staff/sessions:revoke", &json!({ "refresh_token": li["refresh_token"] })).await.expect_status(204);
        assert_eq!(own.get("/v1/me").await.problem(401), "unauthenticated");
        let audited = tenant.caller("admin").get("/v1/audit?limit=200").await.expect(200);
        let acts = |action: &str| {
            let items = audited["items"].as_array().expect("a list").iter().filter(|item| item["action"] == action);
            items.map(|item| text(item, "actor")).collect::<Vec<_>>()
        };
        let (li_name, wang_name) = (text(&me, "actor"), format!("staff:{}", text(&wang, "staff")));
        assert_eq!(acts("log in"), [li_name.clone(), wang_name.clone()]);
        assert_eq!(acts("end session"), [wang_name, li_name.clone()]);
        let key = text(&made, "id");
        let by = audited["items"].as_array().expect("a list").iter().find(|item| item["object"] == key.as_str()).expect("it is audited");
        assert_eq!(by["actor"], li_name.as_str());
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_with_a_log_in_is_said_and_nothing_secret_is_told() {
    for_both_databases(async |database| {
        let mut ground = ground(&database).await;
        let stranger = ground.tenant.stranger();
        let mut said = String::new();
        let mut hears = |answer: Answer, status: u16, code: &str| {
            said.push_str(&answer.text());
            assert_eq!(answer.problem(status), code);
        };
        hears(ground.logs_in("nobody").await, 403, "no_staff_role");
        for (fault, words) in [
            ("algorithm_none", "not signed by"),
            ("algorithm_hmac", "not signed by"),
            ("forged", "signature"),
            ("wrong_audience", "(aud, azp)"),
            ("wrong_nonce", "(nonce)"),
            ("expired", "(exp)"),
        ] {
            ground.tells(Method::PUT, "/oidc/misbehaviour", json!({ "token": fault })).await;
            let answer = ground.logs_in("li").await;
            assert!(answer.text().contains(words), "{fault}: {}", answer.text());
            hears(answer, 403, "id_token_refused");
        }
        ground.tells(Method::PUT, "/oidc/misbehaviour", json!({})).await;
        let back = ground.back(&ground.tenant, "li").await;
        ground.tells(Method::PUT, "/oidc/misbehaviour", json!({ "failures": 1 })).await;
        let away = stranger.post("/v1/staff/log-ins:finish", &back).await;
        assert!(away.header("retry-after").is_some());
        hears(away, 503, "unavailable");
        let li = stranger.post("/v1/staff/log-ins:finish", &back).await.expect(201);
        hears(stranger.post("/v1/staff/log-ins:finish", &back).await, 400, "staff_state_refused");
        let late = ground.back(&ground.tenant, "wang").await;
        ground.gateway = None;
        hears(stranger.post("/v1/staff/log-ins:finish", &late).await, 503, "unavailable");

        let mut secrets = vec![ground.secret.clone(), "@example.com".to_owned(), text(&li, "token"), text(&li, "refresh_token")];
        for one in [&back, &late] {
            secrets.extend([text(one, "ticket"), text(one, "code"), text(one, "state")]);
        }
        let audited = ground.tenant.caller("admin").get("/v1/audit?limit=200").await.expect(200).to_string();
        assert!(audited.contains("no_role") && audited.contains("\"reason\":\"nonce\""), "{audited}");
        for (place, held) in [("an answer", &said), ("the log", &ground.tenant.log()), ("the audit record", &audited)] {
            assert!(secrets.iter().all(|secret| !held.contains(secret.as_str())), "{place} holds a secret");
        }
    })
    .await;
}

#[tokio::test]
async fn a_log_in_begun_here_is_finished_there_and_ended_everywhere() {
    for_both_databases(async |database| {
        let ground = ground(&database).await;
        // On SQLite a tenant is one process.
        let beside = match database.database_url() {
            Some(_) => Some(Tenant::start_with(&database, ground.options.clone()).await),
            None => None,
        };
        let there = beside.as_ref().unwrap_or(&ground.tenant);
        let back = ground.back(&ground.tenant, "wang").await;
        let wang = there.stranger().post("/v1/staff/log-ins:finish", &back).await.expect(201);
        let again = ground.tenant.stranger().post("/v1/staff/log-ins:finish", &back).await;
        assert_eq!(again.problem(400), "staff_state_refused", "once in all processes");
        let token = text(&wang, "token");
        let processes = [&ground.tenant, there];
        for process in processes {
            process.caller_with(&token).get("/v1/me").await.expect(200);
        }
        // An administrator knows what the provider calls the person, and nothing else.
        let admin = ground.tenant.caller("admin");
        let provider = Answer::of(ground.http.get(format!("{}/oidc/people/wang", ground.simulator))).await.expect(200);
        let found = admin.post("/v1/staff:find", &json!({ "subject": provider["sub"] })).await.expect(200);
        assert_eq!(found["staff"], wang["staff"]);
        assert_eq!(admin.post("/v1/staff:find", &json!({ "subject": "wang" })).await.problem(404), "not_found");
        admin.delete(&format!("/v1/staff/{}/sessions", text(&found, "staff"))).await.expect_status(204);
        assert_eq!(ground.tenant.caller_with(&token).get("/v1/me").await.problem(401), "unauthenticated");
        for process in processes {
            until("the session is refused", REFUSED_LIMIT, || async {
                (process.caller_with(&token).get("/v1/me").await.status == 401).then_some(())
            })
            .await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_log_out_at_the_provider_ends_sessions_in_every_process() {
    for_both_databases(async |database| {
        let ground = ground(&database).await;
        // On SQLite a tenant is one process.
        let beside = match database.database_url() {
            Some(_) => Some(Tenant::start_with(&database, ground.options.clone()).await),
            None => None,
        };
        let processes = [&ground.tenant, beside.as_ref().unwrap_or(&ground.tenant)];
        let (wang, li) = (ground.logs_in("wang").await.expect(201), ground.logs_in("li").await.expect(201));
        let takes = async |process: &Tenant, tokens: &Value| process.caller_with(&text(tokens, "token")).get("/v1/me").await.status == 200;
        for process in processes {
            assert!(takes(process, &wang).await && takes(process, &li).await);
        }
        // What is no token of the provider's logs nobody out.
        ground.tells(Method::PUT, "/oidc/misbehaviour", json!({ "log_out": "nonce" })).await;
        let refused = ground.leaves("wang", "both").await;
        assert_eq!(refused["status"], 400);
        assert!(refused["body"].as_str().is_some_and(|body| body.contains("log_out_token_refused") && body.contains("nonce")), "{refused}");
        let url = format!("{}/v1/staff/log-outs", ground.tenant.url());
        for body in ["", "logout_token=", "logout_token=a.b.c", "token=a.b.c", "{}"] {
            let answer = Answer::of(ground.http.post(&url).header("Content-Type", "application/x-www-form-urlencoded").body(body)).await;
            assert_eq!(answer.status, 400, "{body}: {}", answer.text());
        }
        assert!(takes(&ground.tenant, &wang).await);
        ground.tells(Method::PUT, "/oidc/misbehaviour", json!({})).await;
        assert_eq!(ground.leaves("wang", "both").await["status"], 200);
        assert!(!takes(&ground.tenant, &wang).await, "here at once");
        for process in processes {
            until("the session is refused", REFUSED_LIMIT, || async { (!takes(process, &wang).await).then_some(()) }).await;
            assert!(takes(process, &li).await, "nobody else");
        }
        let audited = ground.tenant.caller("admin").get("/v1/audit?limit=200").await.expect(200).to_string();
        assert!(audited.contains("the provider told of a log-out") && audited.contains("refuse log-out"), "{audited}");
    })
    .await;
}

#[tokio::test]
async fn a_setting_that_can_not_work_stops_the_start_and_is_named() {
    let database = TestDatabase::sqlite();
    let secret = "of the provider";
    for (grants, issuer, key) in [
        (grant("robots", "'operator'", ""), "https://login.example.com", "staff.grants[0].scopes"),
        (grant("apps", "'ingest'", ""), "https://login.example.com", "staff.grants[0].scopes"),
        (String::new(), "https://login.example.com", "staff.grants"),
        (grant("admins", "'admin'", ""), "http://login.example.com", "staff.issuer"),
        (grant("admins", "'admin'", "units = 'mall-1'"), "https://login.example.com", "staff.grants"),
        ("roles_from = 'both'\n".to_owned() + &grant("admins", "'admin'", ""), "https://login.example.com", "staff.roles_from"),
    ] {
        let file = database.data_dir().join("staff.toml");
        fs::write(&file, section(issuer, secret, &grants)).expect("the data folder is writable");
        let mut command = Command::new(heyuan_binary());
        command.arg("serve").arg("--data").arg(database.data_dir()).args(["--listen", "127.0.0.1:0", "--config"]).arg(&file);
        let output = command.stdin(Stdio::null()).output().expect("heyuan runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(&format!("setting {key}")), "{key}: {said}");
        assert!(!said.contains(secret), "{said}");
    }
}

#[tokio::test]
async fn a_client_that_others_wrote_takes_the_simulator_for_a_provider() {
    let ground = ground(&TestDatabase::sqlite()).await;
    let issuer = format!("{}/oidc", ground.simulator);
    for (alg, method) in [("ES256", "client_secret_basic"), ("RS256", "client_secret_post")] {
        ground.tells(Method::POST, "/oidc/keys:rotate", json!({ "alg": alg })).await;
        let said = python("oidc_client.py", &[&issuer, "another client", &ground.secret, method, "wang"]).await;
        let groups = json!(["mall desk", "canteen"]);
        assert_eq!(said, json!({ "alg": alg, "groups": groups, "userinfo": groups, "again": "invalid_grant" }));
    }
}
