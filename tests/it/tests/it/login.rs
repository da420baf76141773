//! Logging in over HTTP: mini-programs and phones against the simulator as a process, sessions that refresh, and what ends them.

use std::fs;
use std::time::Duration;

use heyuan_harness::{Answer, Gateway, Tenant, TenantOptions, TestDatabase, for_both_databases, until};
use reqwest::{Client, Method};
use serde_json::{Value, json};

const PHONE: &str = "13912345678";
/// Longer than an event takes to be matched, on a busy machine.
const MATCHED_LIMIT: Duration = Duration::from_secs(30);
/// Longer than a session that has ended may still be taken, on a busy machine.
const REFUSED_LIMIT: Duration = Duration::from_secs(30);

/// A tenant whose apps log in at a simulator.
struct Ground {
    tenant: Tenant,
    options: TenantOptions,
    gateway: Option<Gateway>,
    simulator: String,
    http: Client,
}

async fn ground(database: &TestDatabase) -> Ground {
    let mut gateway = Gateway::somewhere();
    let environment = gateway.environment();
    let of = |name: &str| environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).expect("it is set");
    let (simulator, secret) = (of("HEYUAN_MALL__GATEWAY_URL"), of("HEYUAN_MALL__PAYMENT_SECRET"));
    let settings = settings(&simulator, &secret);
    let file = database.data_dir().join("login.toml");
    fs::write(&file, settings).expect("the data folder is writable");
    let options = TenantOptions { arguments: vec!["--config".into(), file.into()], environment, ..TenantOptions::default() };
    let tenant = Tenant::start_with(database, options.clone()).await;
    gateway.open(&tenant).await;
    tenant.caller("admin").put("/v1/org-units", &units()).await.expect_status(204);
    let http = Client::builder().no_proxy().build().expect("the client needs nothing from outside");
    Ground { tenant, options, gateway: Some(gateway), simulator, http }
}

/// The simulator as both providers, and two apps whose members join at a mall and at a hotel.
pub(crate) fn settings(simulator: &str, secret: &str) -> String {
    let app = |name: &str| format!("[login.apps.{name}]\nkind = 'wechat'\nappid = 'wx{name}'\nsecret = '{secret}'\nunit = '{name}-1'\n");
    format!(
        "[login]\nwechat_url = '{simulator}'\nsms_url = '{simulator}/sms/messages'\nsms_secret = '{secret}'\n{}{}",
        app("mall"),
        app("hotel")
    )
}

/// The units at which they join.
pub(crate) fn units() -> Value {
    let unit =
        |id: &str, parent: Value, kind: &str, line: Value| json!({ "id": id, "parent": parent, "name": id, "kind": kind, "line": line });
    let units = [
        unit("group", Value::Null, "group", Value::Null),
        unit("mall-1", json!("group"), "mall", json!("mall")),
        unit("hotel-1", json!("group"), "hotel", json!("hotel")),
    ];
    json!({ "units": units })
}

impl Ground {
    /// What `wx.login` gives on this person's phone.
    async fn login_code(&self, app: &str, person: &str) -> String {
        let body = json!({ "appid": format!("wx{app}"), "person": person });
        let given = Answer::of(self.http.post(format!("{}/wechat/login-codes", self.simulator)).json(&body)).await.expect(200);
        text(&given, "code")
    }

    async fn by_wechat(&self, app: &str, person: &str, join: bool) -> Answer {
        let key = self.tenant.caller_in("ingest", Some(if app == "mall" { "mall-1" } else { "hotel-1" }));
        let code = self.login_code(app, person).await;
        key.post("/v1/sessions", &json!({ "app": app, "wechat": { "code": code }, "join": join })).await
    }

    /// What the phone shows last.
    async fn shown(&self, number: &str) -> String {
        let shown = Answer::of(self.http.get(format!("{}/sms/messages/{number}", self.simulator))).await.expect(200);
        text(&shown, "code")
    }

    async fn misbehaves(&self, how: Value) {
        let request = self.http.request(Method::PUT, format!("{}/login/misbehaviour", self.simulator)).json(&how);
        Answer::of(request).await.expect_status(200);
    }
}

fn text(answer: &Value, name: &str) -> String {
    answer[name].as_str().unwrap_or_else(|| panic!("no {name} in {answer}")).to_owned()
}

#[tokio::test]
async fn one_member_logs_in_to_two_apps_and_out_again() {
    for_both_databases(async |database| {
        let ground = ground(&database).await;
        let tenant = &ground.tenant;
        assert_eq!(ground.by_wechat("mall", "li", false).await.problem(404), "unknown_member");
        let joined = ground.by_wechat("mall", "li", true).await;
        assert_eq!(joined.header("cache-control"), Some("no-store"));
        let joined = joined.expect(201);
        let hotel = ground.by_wechat("hotel", "li", false).await.expect(200);
        assert_eq!(joined["member"], hotel["member"], "one person with one unionid");
        let path = format!("/v1/members/{}", text(&joined, "member"));
        let sessions = tenant.caller("admin").get(&format!("{path}/sessions")).await.expect(200);
        assert_eq!(sessions["items"].as_array().map(Vec::len), Some(2), "{sessions}");
        assert!(!sessions.to_string().contains(&text(&joined, "refresh_token")), "{sessions}");

        let own = tenant.caller_with(&text(&joined, "token"));
        assert_eq!(own.get(&path).await.expect(200)["unit"], "mall-1");
        let key = tenant.caller_in("ingest", Some("mall-1"));
        let spent = json!({ "refresh_token": joined["refresh_token"] });
        let next = key.post("/v1/sessions:refresh", &spent).await.expect(200);
        assert_eq!(next["session"], joined["session"]);
        // The same once more is a lost answer; after another refresh it is theft.
        let again = key.post("/v1/sessions:refresh", &spent).await.expect(200);
        assert_eq!(again["refresh_token"], next["refresh_token"]);
        key.post("/v1/sessions:refresh", &json!({ "refresh_token": next["refresh_token"] })).await.expect(200);
        assert_eq!(key.post("/v1/sessions:refresh", &spent).await.problem(400), "refresh_refused");
        assert_eq!(own.get(&path).await.problem(401), "unauthenticated", "the whole session is over");

        let own = tenant.caller_with(&text(&hotel, "token"));
        let listed = own.get(&format!("{path}/sessions")).await.expect(200);
        assert_eq!(listed["items"][0]["app"], "hotel", "{listed}");
        let key = tenant.caller_in("app", Some("hotel-1"));
        key.post("/v1/sessions:revoke", &json!({ "refresh_token": hotel["refresh_token"] })).await.expect_status(204);
        assert_eq!(own.get(&path).await.problem(401), "unauthenticated");
    })
    .await;
}

#[tokio::test]
async fn a_phone_logs_in_by_the_code_that_it_shows() {
    for_both_databases(async |database| {
        let ground = ground(&database).await;
        let key = ground.tenant.caller_in("ingest", Some("mall-1"));
        let asked = json!({ "app": "mall", "phone": PHONE });
        key.post("/v1/phone-codes", &asked).await.expect(202);
        let second = key.post("/v1/phone-codes", &asked).await;
        assert!(second.header("retry-after").is_some());
        assert_eq!(second.problem(429), "limited");
        let proof = |code: &str, join: bool| json!({ "app": "mall", "phone": { "number": PHONE, "code": code }, "join": join });
        let code = ground.shown(PHONE).await;
        assert_eq!(key.post("/v1/sessions", &proof("12345", true)).await.problem(400), "phone_code_refused");
        let joined = key.post("/v1/sessions", &proof(&code, true)).await.expect(201);
        assert_eq!(key.post("/v1/sessions", &proof(&code, true)).await.problem(400), "phone_code_refused");
        // The number is the identifier that a till knows the member by.
        let app = ground.tenant.caller("app");
        let by_till = json!({ "unit": "hotel-1", "identifiers": [{ "type": "phone", "value": PHONE, "verified": true }] });
        assert_eq!(app.post("/v1/members", &by_till).await.expect(200)["id"], joined["member"]);
        let both = json!({ "app": "mall", "phone": { "number": PHONE, "code": code }, "wechat": { "code": "x" } });
        assert_eq!(key.post("/v1/sessions", &both).await.problem(400), "invalid_request");
    })
    .await;
}

#[tokio::test]
async fn an_event_that_anybody_can_send_lets_nobody_in_as_somebody_else_and_erases_nobody_else() {
    for_both_databases(async |database| {
        let ground = ground(&database).await;
        let (app, admin) = (ground.tenant.caller("app"), ground.tenant.caller("admin"));
        let public = ground.tenant.caller_in("ingest", Some("mall-1"));
        let (victim, attacker) = (PHONE, "13812345678");
        let phone = |number: &str| json!({ "type": "phone", "value": number });
        let joins = json!({ "unit": "mall-1", "identifiers": [{ "type": "phone", "value": victim, "verified": true }] });
        let theirs = text(&app.post("/v1/members", &joins).await.expect(201), "id");

        let both = json!({ "message_id": "both", "name": "visit", "identifiers": [phone(attacker), phone(victim)] });
        public.post("/v1/events", &json!({ "events": [both] })).await.expect(200);
        until("both numbers are one customer", MATCHED_LIMIT, || async {
            let found = admin.post("/v1/customers:search", &phone(attacker)).await;
            let phones =
                |found: Value| found["identifiers"].as_array().map_or(0, |list| list.iter().filter(|one| one["type"] == "phone").count());
            (found.status == 200 && phones(found.json()) == 2).then_some(())
        })
        .await;

        public.post("/v1/phone-codes", &json!({ "app": "mall", "phone": attacker })).await.expect(202);
        let code = ground.shown(attacker).await;
        let proof = |join: bool| json!({ "app": "mall", "phone": { "number": attacker, "code": code }, "join": join });
        assert_eq!(public.post("/v1/sessions", &proof(false)).await.problem(404), "unknown_member");
        let entered = public.post("/v1/sessions", &proof(true)).await.expect(201);
        assert_ne!(text(&entered, "member"), theirs);
        let own = ground.tenant.caller_with(&text(&entered, "token"));
        assert_eq!(own.get(&format!("/v1/members/{theirs}")).await.problem(403), "forbidden");

        let leave = format!("/v1/members/{}:leave", text(&entered, "member"));
        own.post_once(&leave, "leave", &json!({ "erase": true })).await.expect(200);
        admin.post("/v1/customers:search", &phone(attacker)).await.expect_status(404);
        admin.post("/v1/customers:search", &phone(victim)).await.expect_status(200);
        let known = app.post("/v1/members", &joins).await.expect(200);
        assert_eq!(text(&known, "id"), theirs);
        assert_eq!(app.get(&format!("/v1/members/{theirs}")).await.expect(200)["state"], "open");
    })
    .await;
}

#[tokio::test]
async fn a_block_ends_sessions_in_every_process() {
    for_both_databases(async |database| {
        let ground = ground(&database).await;
        let joined = ground.by_wechat("mall", "li", true).await.expect(201);
        let (path, token) = (format!("/v1/members/{}", text(&joined, "member")), text(&joined, "token"));
        // On SQLite a tenant is one process.
        let beside = match database.database_url() {
            Some(_) => Some(Tenant::start_with(&database, ground.options.clone()).await),
            None => None,
        };
        let processes: Vec<&Tenant> = [Some(&ground.tenant), beside.as_ref()].into_iter().flatten().collect();
        for process in &processes {
            process.caller_with(&token).get(&path).await.expect(200);
        }
        // Who may block need not be who may read: one shape is answered to both.
        let admin = ground.tenant.caller("admin");
        let why = json!({ "reason": "resells vouchers" });
        let state = |state: &str| json!({ "member": joined["member"], "state": state });
        let both = ground.tenant.caller("admin,app");
        assert_eq!(both.post(&format!("{path}:unblock"), &why).await.expect(200), state("open"));
        assert_eq!(admin.post(&format!("{path}:block"), &why).await.expect(200), state("blocked"));
        assert_eq!(admin.get(&path).await.problem(403), "forbidden");
        assert_eq!(ground.tenant.caller_with(&token).get(&path).await.problem(401), "unauthenticated");
        for process in &processes {
            until("the session is refused", REFUSED_LIMIT, || async {
                (process.caller_with(&token).get(&path).await.status == 401).then_some(())
            })
            .await;
        }
        assert_eq!(ground.by_wechat("mall", "li", true).await.problem(409), "member_blocked");
    })
    .await;
}

#[tokio::test]
async fn a_platform_that_is_busy_or_away_is_said_to_be_and_nothing_secret_is_told() {
    for_both_databases(async |database| {
        let mut ground = ground(&database).await;
        let key = ground.tenant.caller_in("ingest", Some("mall-1"));
        let mut secrets = vec![PHONE.to_owned(), "SESSIONKEY".to_owned(), "a secret of one test".to_owned()];
        let mut said = String::new();
        let code = ground.login_code("mall", "li").await;
        secrets.push(code.clone());
        let body = json!({ "app": "mall", "wechat": { "code": code }, "join": true });
        for how in [json!({ "busy": 1000 }), json!({ "failures": 1000 })] {
            ground.misbehaves(how).await;
            for (path, body) in [("/v1/sessions", &body), ("/v1/phone-codes", &json!({ "app": "mall", "phone": PHONE }))] {
                let answer = key.post(path, body).await;
                assert!(answer.header("retry-after").is_some(), "{path}");
                assert_eq!(answer.problem(503), "unavailable", "{path}");
                said.push_str(&answer.text());
            }
        }
        ground.misbehaves(json!({})).await;
        let joined = key.post("/v1/sessions", &body).await.expect(201);
        secrets.extend([text(&joined, "token"), text(&joined, "refresh_token")]);
        let used = key.post("/v1/sessions", &body).await;
        assert_eq!(used.problem(400), "login_code_refused");
        said.push_str(&used.text());
        ground.gateway = None;
        let away = key.post("/v1/sessions", &body).await;
        assert!(away.header("retry-after").is_some());
        assert_eq!(away.problem(503), "unavailable");
        said.push_str(&away.text());
        let audited = ground.tenant.caller("admin").get("/v1/audit?limit=200").await.expect(200).to_string();
        for (place, held) in [("an answer", &said), ("the log", &ground.tenant.log()), ("the audit record", &audited)] {
            assert!(secrets.iter().all(|secret| !held.contains(secret.as_str())), "{place} holds a secret");
        }
    })
    .await;
}
