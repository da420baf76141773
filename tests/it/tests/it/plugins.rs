//! Plugins over HTTP: what is refused and why, what they may read, and what a bad row costs.

use std::fs;
use std::time::{Duration, Instant};

use heyuan_harness::{Answer, Caller, Tenant, cache_dir, for_both_databases, until};
use reqwest::Method;
use serde_json::{Value, json};

use crate::hostile_components::{all, harmless};

/// No refusal takes longer, on a machine that does other work too.
const REFUSAL_LIMIT: Duration = Duration::from_secs(20);
const ARRIVAL_LIMIT: Duration = Duration::from_secs(60);
/// Customers of one batch.
const CUSTOMERS: usize = 20;
/// The mark before compiled code in the store.
const MARK_BYTES: usize = 40;

pub(crate) fn component(name: &str) -> Vec<u8> {
    let path = cache_dir().join("plugins").join(format!("{name}.wasm"));
    fs::read(&path).unwrap_or_else(|error| panic!("plugins/build.sh makes {}: {error}", path.display()))
}

pub(crate) async fn upload(admin: &Caller, name: &str, module: Vec<u8>) -> Answer {
    let path = format!("/v1/plugins/{name}/versions");
    Answer::of(admin.request(Method::PUT, &path).header("Content-Type", "application/wasm").body(module)).await
}

#[tokio::test]
async fn hostile_uploads_are_refused_one_by_one() {
    for_both_databases(async |database| {
        let tenant = Tenant::start(&database).await;
        let admin = tenant.caller("admin");
        upload(&admin, "harmless", harmless()).await.expect(200);
        let rule = upload(&admin, "member-day", component("member-day")).await.expect(200);
        let store = database.data_dir().join("plugins");
        let compiled = fs::read_dir(store).expect("the store is a folder").map(|entry| entry.expect("it can be listed").path());
        let compiled = compiled.filter(|path| path.to_string_lossy().contains(rule["digest"].as_str().expect("a digest")));
        let compiled = fs::read(compiled.into_iter().next().expect("it was compiled")).expect("it can be read");

        let mut hostile = all(&component("member-day"));
        hostile.push(("compiled code", compiled[MARK_BYTES..].to_vec(), "precompiled"));
        hostile.push(("compiled code with our mark", compiled, "it is not WebAssembly"));
        for (what, module, words) in hostile {
            let began = Instant::now();
            let answer = upload(&admin, "hostile", module).await;
            assert!(began.elapsed() < REFUSAL_LIMIT, "{what} took {:?}", began.elapsed());
            assert_eq!((answer.status, answer.problem(answer.status)), (400, "invalid_plugin".to_owned()), "{what}: {}", answer.text());
            let detail = answer.json()["detail"].as_str().expect("a problem has a detail").to_lowercase();
            assert!(detail.contains(&words.to_lowercase()), "{what}: {detail}");
        }
        assert_eq!(upload(&admin, "hostile", vec![0; (4 << 20) + 1]).await.problem(413), "body_too_large");
        assert_eq!(upload(&admin, "Hostile!", harmless()).await.problem(400), "invalid_request");
        assert_eq!(upload(&admin, "member-day", harmless()).await.problem(409), "conflict", "the name belongs to a rule");

        let names: Vec<Value> = admin.get("/v1/plugins").await.expect(200)["items"].as_array().expect("a page").clone();
        let names: Vec<&str> = names.iter().filter_map(|version| version["name"].as_str()).collect();
        assert_eq!(names, ["harmless", "member-day"], "what was refused left nothing behind");
        assert!(!tenant.log().contains("panicked at"));
    })
    .await;
}

/// Declares what `hostile-tagger` reads: a row misbehaves as its trait says.
async fn declare(admin: &Caller) {
    let mut profile = admin.get("/v1/event-types/profile").await.expect(200);
    profile["properties"]["behaviour"] = json!({ "type": "integer" });
    profile["properties"]["nickname"] = json!({ "type": "text" });
    let body = json!({ "mode": profile["mode"], "properties": profile["properties"] });
    admin.put("/v1/event-types/profile", &body).await.expect(200);
    for name in ["behaviour", "nickname"] {
        admin.put(&format!("/v1/features/{name}"), &json!({ "expression": format!("profile.{name}") })).await.expect(200);
    }
}

/// Tells of customers by number, each with a behaviour.
async fn tell(app: &Caller, batch: &str, behaviours: &[(usize, i64)]) {
    let events = behaviours.iter().map(|(number, behaviour)| {
        json!({ "type": "identify", "message_id": format!("{batch}-{number}"), "identifiers": [{ "type": "device", "value": format!("d-{number}") }],
            "traits": { "behaviour": behaviour, "nickname": format!("nick-{number}") } })
    });
    let answer = app.post("/v1/events", &json!({ "events": events.collect::<Vec<_>>() })).await.expect(200);
    assert!(answer["results"].as_array().expect("results").iter().all(|result| result["status"] == "ok"), "{answer}");
}

/// The tag of every one of the customers who is known by now, by nickname; absent where there is none.
async fn tags(admin: &Caller) -> Vec<(String, Option<String>)> {
    let mut found = Vec::new();
    for number in 0..CUSTOMERS {
        let answer = admin.post("/v1/customers:search", &json!({ "type": "device", "value": format!("d-{number}") })).await;
        if answer.status == 404 {
            continue;
        }
        let customer = answer.expect(200);
        let profile = admin.get(&format!("/v1/customers/{}/profile", customer["id"].as_str().expect("an id"))).await.expect(200);
        let value_of = |list: &str, name: &str| {
            let entry = profile[list].as_array()?.iter().find(|entry| entry["name"] == name)?;
            Some(entry["value"].as_str()?.to_owned())
        };
        found.extend(value_of("features", "nickname").map(|nickname| (nickname, value_of("tags", "hostile_text"))));
    }
    found
}

#[tokio::test]
async fn a_plugin_reads_what_is_approved_and_a_bad_row_costs_its_own_tag_alone() {
    for_both_databases(async |database| {
        let tenant = Tenant::start(&database).await;
        let (admin, app) = (tenant.caller("admin,app"), tenant.caller("ingest"));
        declare(&admin).await;
        let version = upload(&admin, "hostile-tagger", component("hostile-tagger")).await.expect(200);
        assert_eq!((&version["reads"], &version["approved"]), (&json!(["profile.behaviour", "profile.nickname"]), &json!([])));

        // Nothing is read before the tenant says so, value by value.
        let activate = "/v1/plugins/hostile-tagger/activate";
        let refused = admin.post(activate, &json!({ "digest": version["digest"], "approve": ["profile.behaviour"] })).await;
        assert_eq!(refused.problem(409), "approval_needed");
        let problem = refused.json();
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(r#"["profile.nickname"]"#)), "{problem}");
        assert_eq!(problem["title_zh"], "插件读取的内容尚未获得批准");
        let approval = "/v1/plugins/hostile-tagger/approval";
        assert_eq!(admin.get(approval).await.expect(200)["approved"], json!([]));
        let whole = json!({ "approved": ["profile.nickname", "profile.behaviour"] });
        for _ in 0..2 {
            assert_eq!(admin.put(approval, &whole).await.expect(200)["approved"], json!(["profile.behaviour", "profile.nickname"]));
        }
        admin.post(activate, &json!({ "digest": version["digest"] })).await.expect(200);
        assert_eq!(admin.get("/v1/plugins").await.expect(200)["items"][0]["approved"], version["reads"]);

        // Of twenty customers in one batch one makes the plugin trap: the others get their tags.
        tell(&app, "first", &(0..CUSTOMERS).map(|number| (number, if number == 7 { 5 } else { 0 })).collect::<Vec<_>>()).await;
        let tagged = until("nineteen customers have their tag", ARRIVAL_LIMIT, || async {
            let tags = tags(&admin).await;
            (tags.iter().filter(|(_, tag)| tag.is_some()).count() == 19).then_some(tags)
        })
        .await;
        for (nickname, tag) in &tagged {
            assert_eq!(tag.as_ref(), (nickname != "nick-7").then_some(nickname), "the tag is the nickname");
        }
        let metrics = tenant.stranger().get("/metrics").await.text();
        let counted = metrics.lines().find(|line| line.starts_with("heyuan_tagger_failed_rows")).unwrap_or_else(|| panic!("{metrics}"));
        assert!(counted.contains("hostile-tagger") && !counted.ends_with(" 0"), "{counted}");
        let log = tenant.log();
        assert_eq!(log.matches("a tagger failed on rows").count(), 1, "{log}");
        assert!(!log.contains("nick-") && !log.contains("asked for a panic"), "nothing that a guest says is logged: {log}");

        // Mended, the customer is asked about again.
        tell(&app, "second", &[(7, 0)]).await;
        until("the last customer has its tag", ARRIVAL_LIMIT, || async {
            tags(&admin).await.iter().all(|(nickname, tag)| tag.as_ref() == Some(nickname)).then_some(())
        })
        .await;

        // What an active version reads is not taken from it; retired, it is.
        let withdrawn = admin.put(approval, &json!({ "approved": ["profile.behaviour"] })).await;
        assert_eq!(withdrawn.problem(409), "conflict");
        assert!(withdrawn.text().contains("/v1/plugins/hostile-tagger/retire"), "{}", withdrawn.text());
        admin.post("/v1/plugins/hostile-tagger/retire", &json!({})).await.expect(204);
        assert_eq!(admin.put(approval, &json!({ "approved": [] })).await.expect(200)["approved"], json!([]));
        let again = admin.post(activate, &json!({ "digest": version["digest"] })).await;
        assert_eq!(again.problem(409), "approval_needed");
    })
    .await;
}
