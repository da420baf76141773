//! A member over HTTP from its opening balance to its leave: imported, blocked, unblocked, gone with everything that tells of the person.

use heyuan_harness::{Answer, Caller, Tenant, for_both_databases};
use reqwest::Method;
use serde_json::{Value, json};

const PHONE: &str = "13912345678";

async fn import(caller: &Caller, key: &str, csv: &str) -> Value {
    let request = caller.request(Method::POST, "/v1/points-imports?unit=mall-1&mapping=phone:手机,points:余额");
    Answer::of(request.header("Idempotency-Key", key).header("Content-Type", "text/csv").body(csv.to_owned())).await.expect(200)
}

async fn act(caller: &Caller, member: &str, verb: &str, key: &str, body: Value) -> Answer {
    caller.post_once(&format!("/v1/members/{member}:{verb}"), key, &body).await
}

#[tokio::test]
async fn a_member_comes_with_its_balance_and_leaves_without_a_trace() {
    for_both_databases(async |database| {
        let tenant = Tenant::start(&database).await;
        let group = tenant.caller("admin,app,import");
        let unit = |id: &str, parent: Value, kind: &str, line: Value| json!({ "id": id, "parent": parent, "name": id, "kind": kind, "line": line });
        let units = [unit("group", Value::Null, "group", Value::Null), unit("mall-1", json!("group"), "mall", json!("mall"))];
        group.put("/v1/org-units", &json!({ "units": units })).await.expect_status(204);
        let join = json!({ "unit": "mall-1", "identifiers": [{ "type": "phone", "value": PHONE, "verified": true }] });
        let joined = group.post("/v1/members", &join).await.expect(201);
        let (member, token) = (joined["id"].as_str().expect("an id"), joined["token"].as_str().expect("a token"));
        let own = tenant.caller_with(token);
        let path = format!("/v1/members/{member}");

        let rows = format!("手机,余额,cost_fen,expires_on\n{PHONE},100,0.5,2030-12-31\n13800000000,5,1,2030-12-31\n");
        let done = import(&group, "opening", &rows).await;
        assert_eq!((&done["rows_posted"], &done["rows_refused"]), (&json!(1), &json!(1)), "{done}");
        assert_eq!(import(&group, "opening", &rows).await["rows_known"], json!(1));
        let errors = group.get(&format!("/v1/points-imports/{}/errors.csv", done["id"].as_str().expect("an id"))).await;
        assert!(errors.status == 200 && errors.text().contains("\n3,phone,"), "{}", errors.text());
        assert_eq!(own.get(&path).await.expect(200)["points"], json!(100));

        let why = json!({ "reason": "asked at the desk" });
        assert_eq!(act(&group, member, "block", "b", why.clone()).await.expect(200)["state"], "blocked");
        let spend = json!({ "amount": 1, "unit": "mall-1", "reference": "parking" });
        assert_eq!(group.post_once(&format!("{path}/points:spend"), "s", &spend).await.problem(409), "member_blocked");
        assert_eq!(own.get(&path).await.problem(401), "unauthenticated", "its session has ended");
        assert!(group.post("/v1/members", &join).await.expect(200)["token"].is_null());
        assert_eq!(act(&group, member, "unblock", "u", why).await.expect(200)["state"], "open");
        assert!(group.post("/v1/members", &join).await.expect(200)["token"].is_null(), "looking somebody up opens no session");
        let mut again = join.clone();
        again["session"] = json!(true);
        let again = group.post("/v1/members", &again).await.expect(200);
        let own = tenant.caller_with(again["token"].as_str().expect("a token"));
        let account = json!({ "account": "MC-20018873", "unit": "mall-1" });
        assert_eq!(group.put(&format!("{path}/accounts/mall"), &account).await.expect(200)["account"], "MC-****73");

        let gone = act(&own, member, "leave", "l", json!({ "erase": true })).await.expect(200);
        assert_eq!((&gone["points_forfeited"], &gone["state"]), (&json!(100), &json!("closed")));
        assert_eq!(act(&own, member, "leave", "l", json!({ "erase": true })).await.expect(200), gone);
        assert_eq!(own.get(&path).await.problem(403), "forbidden");
        let search = json!({ "type": "phone", "value": PHONE });
        group.post("/v1/customers:search", &search).await.expect_status(404);
        let again = group.post("/v1/members", &join).await.expect(201);
        assert_ne!(again["id"], joined["id"]);
        assert_eq!(group.get(&path).await.expect(200)["state"], "closed");
    })
    .await;
}
