//! Two units side by side: with a key of the other one, no operation of the document gives a record of the first away or changes it.

use std::collections::BTreeSet;
use std::time::Duration;

use heyuan_harness::{Answer, Caller, Gateway, Tenant, TenantOptions, for_both_databases, until};
use reqwest::Method;
use serde_json::{Value, json};

use crate::contract::{Operation, document, none_wrong};
use crate::shop::Shop;

const SCOPES: &str = "ingest,app,admin,reveal,import";
const UNIT: &str = "mall-1";
const SIBLING: &str = "mall-2";
const PHONE: &str = "13912345678";
const KNOWN_LIMIT: Duration = Duration::from_secs(60);

/// Operations that are not tried, each with its reason.
const NOT_TRIED: &[(&str, &str)] = &[
    ("GET", "/livez"),                      // probes, without a key and without records
    ("GET", "/readyz"),                     // the same
    ("GET", "/metrics"),                    // figures without records
    ("GET", "/v1/me"),                      // tells a key what it is itself
    ("POST", "/v1/payments/notifications"), // signed by the gateway, answers nothing
    ("POST", "/v1/staff/log-ins"),          // without a key and without records
    ("POST", "/v1/staff/log-ins:finish"),   // the same
    ("POST", "/v1/staff/log-outs"),         // signed by the provider
    ("POST", "/v1/staff/sessions:refresh"), // the refresh token is the key
    ("POST", "/v1/staff/sessions:revoke"),  // the same
    ("GET", "/v1/events/tail"),             // endless: has a test of its own below
    ("PUT", "/v1/plugins/{name}/versions"), // a component as body; plugins are the group's, as activating them is
];

/// Operations that take events of the key's own unit, and tell nothing about anybody.
const COLLECTING: &[&str] = &[
    "/v1/a",
    "/v1/alias",
    "/v1/b",
    "/v1/batch",
    "/v1/events",
    "/v1/g",
    "/v1/group",
    "/v1/i",
    "/v1/import",
    "/v1/identify",
    "/v1/p",
    "/v1/page",
    "/v1/s",
    "/v1/screen",
    "/v1/t",
    "/v1/track",
];

/// One operation as it is tried.
struct Attempt {
    operation: (&'static str, &'static str),
    path: String,
    body: Body,
    /// It names a record of the first unit, so that only a refusal is right; else an answer must be without any.
    names_a_record: bool,
}

enum Body {
    None,
    Json(Value),
    Csv(&'static str),
}

impl Attempt {
    async fn by(&self, caller: &Caller, number: usize) -> Answer {
        let method: Method = self.operation.0.parse().expect("a method has a name");
        let request = caller.request(method, &self.path).header("Idempotency-Key", format!("attempt-{number}-{}", &caller.key()[..12]));
        Answer::of(match &self.body {
            Body::None => request,
            Body::Json(body) => request.json(body),
            Body::Csv(text) => request.header("Content-Type", "text/csv").body(*text),
        })
        .await
    }

    fn name(&self) -> String {
        format!("{} {}", self.operation.0, self.path)
    }
}

/// Records of the first unit.
struct Records {
    customer: String,
    member: String,
    order: String,
    payment: String,
    code: String,
    decision: String,
    phone_ref: String,
    rejected: i64,
    key: String,
    edge: Value,
    /// A benefit that was granted to the member, and the codes of two reservations of it.
    grant: String,
    spend: String,
    hold: String,
    adjustment: String,
    /// Another member of the first unit.
    other: String,
    reserved: [String; 2],
    /// A session of the member, and what refreshes it.
    session: String,
    refresh_token: String,
    /// What no answer to the sibling may hold.
    marks: Vec<String>,
}

async fn records(tenant: &Tenant) -> Records {
    let mut shop = Shop::open(tenant).await;
    let group = tenant.caller(SCOPES);
    let units = json!([{ "id": SIBLING, "parent": "group", "name": "二店", "kind": "mall", "line": "mall" }]);
    group.put("/v1/org-units", &json!({ "units": units })).await.expect_status(204);
    let own = tenant.caller_in(SCOPES, Some(UNIT));
    let codes = shop.buy_vouchers(2).await;
    let mut asked = [shop.sale("sale-of-first".into()), shop.order("order-of-first".into()), shop.redemption(&codes[0])];
    shop.all_again(&mut asked).await;
    let answered = |place: usize, pointer: &str| {
        let answer = asked[place].answer.as_ref().and_then(|answer| answer.pointer(pointer));
        answer.and_then(Value::as_str).expect("an answer has its ids").to_owned()
    };
    let (order, payment) = (answered(1, "/orders/0/id"), answered(1, "/payment/id"));
    let (device, search) = (json!({ "type": "device", "value": "device-of-first" }), json!({ "type": "phone", "value": PHONE }));
    let event =
        json!({ "type": "identify", "message_id": "event-of-first", "identifiers": [device, search], "traits": { "city": "杭州" } });
    own.post("/v1/events", &json!({ "events": [event, { "message_id": "rejected-of-first", "name": "", "identifiers": [device] }] }))
        .await
        .expect(200);
    let touch = json!({ "source": "oceanengine", "medium": "cpc", "campaign": "plan-of-first" });
    let visit = json!({ "message_id": "visit-of-first", "name": "unit_viewed", "identifiers": [device], "touch": touch });
    own.post("/v1/events", &json!({ "events": [visit] })).await.expect(200);
    let identifiers = json!([{ "kind": "phone", "value": PHONE }]);
    let lead = json!({ "id": "lead-of-first", "unit": UNIT, "identifiers": identifiers, "submitted_at": "2026-11-20T10:00:00+08:00" });
    own.post_once("/v1/leads", "lead-of-first", &lead).await.expect(200);
    let segment = json!({ "name": "first", "predicate": { "tag": "resident", "is": "yes" } });
    group.put("/v1/features/views", &json!({ "expression": "count(unit_viewed) over 7d" })).await.expect(200);
    let cases = json!([{ "value": "yes", "when": { "feature": "views", "at_least": 1 } }]);
    group.put("/v1/tags/resident", &json!({ "cases": cases })).await.expect(200);
    own.put("/v1/segments/segment-of-first", &segment).await.expect(200);
    let key = own.post("/v1/keys", &json!({ "scopes": ["app"], "unit": UNIT })).await.expect(201)["id"].as_str().expect("an id").to_owned();
    let customer = until("the first unit knows its customer", KNOWN_LIMIT, || async {
        let customer = own.post("/v1/customers:search", &search).await.expect(200);
        customer["identifiers"].as_array().is_some_and(|all| all.iter().any(|one| one["type"] == "device")).then_some(customer)
    })
    .await;
    let identifiers = customer["identifiers"].as_array().cloned().unwrap_or_default();
    let of_type = |kind: &str| identifiers.iter().find(|one| one["type"] == kind).cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().expect("it is text").to_owned();
    let rejected = own.get("/v1/events/rejected").await.expect(200)["items"][0]["id"].as_i64().expect("it was kept with its reason");
    let customer_id = text(&customer["id"]);
    until("the timeline has the visit", KNOWN_LIMIT, || async {
        own.get(&format!("/v1/customers/{customer_id}/timeline")).await.text().contains("visit-of-first").then_some(())
    })
    .await;
    let (member, decision) = (shop.member().to_owned(), answered(0, "/decision"));
    let mut marks: Vec<String> = [&customer_id, &member, &order, &payment, &decision, &key].into_iter().cloned().collect();
    marks.extend(
        ["sale-of-first", "event-of-first", "visit-of-first", "rejected-of-first", "lead-of-first", "segment-of-first"].map(String::from),
    );
    marks.extend(["plan-of-first", "139****5678", "\"books\"", "\"tea\"", "order-of-first"].map(String::from));
    let parking = json!({ "name": "Parking", "name_zh": "停车", "unit": UNIT, "measure": "hours", "quantity": 9, "cost_fen": 500,
                          "valid_days": 30, "state": "active" });
    own.put("/v1/benefits/parking", &parking).await.expect(200);
    let benefits = format!("/v1/members/{member}/benefits");
    let granted = own.post_once(&benefits, "grant-of-first", &json!({ "benefit": "parking", "reason": "late" })).await.expect(200);
    let grant = text(&granted["id"]);
    let mut reserved = [String::new(), String::new()];
    for (place, code) in reserved.iter_mut().enumerate() {
        let body = json!({ "quantity": 1, "unit": UNIT });
        let one = own.post_once(&format!("{benefits}/{grant}:reserve"), &format!("reserved-{place}"), &body).await.expect(200);
        *code = text(&one["code"]);
    }
    marks.extend([grant.clone(), reserved[0].clone(), reserved[1].clone()]);
    let points = format!("/v1/members/{member}/points:spend");
    let spent = own.post_once(&points, "spend-of-first", &json!({ "amount": 1, "unit": UNIT, "reference": "parking" })).await.expect(200);
    let spend = text(&spent["id"]);
    marks.push(spend.clone());
    let policy =
        json!({ "transfers": "everybody", "transfer_points_max": 100, "day_points_max": 100, "month_points_max": 100, "notice_days": 0 });
    group.put("/v1/points-policy", &policy).await.expect(200);
    let held = json!({ "amount": 1, "unit": UNIT, "reference": "order" });
    let held = own.post_once(&format!("/v1/members/{member}/points/holds"), "hold-of-first", &held).await.expect(200);
    let hold = text(&held["id"]);
    // Proposed by the group, so that the unit's own key is the second person.
    let adjustment = json!({ "member": member, "amount": 5, "unit": UNIT, "reason": "lost receipt" });
    let adjustment = text(&group.post_once("/v1/points-adjustments", "adjustment-of-first", &adjustment).await.expect(201)["id"]);
    let other = json!({ "unit": UNIT, "identifiers": [{ "type": "phone", "value": "13800000010", "verified": true }] });
    let other = text(&own.post("/v1/members", &other).await.expect(201)["id"]);
    marks.extend([hold.clone(), adjustment.clone()]);
    let joins = json!({ "unit": UNIT, "identifiers": [{ "type": "phone", "value": PHONE, "verified": true }], "session": true });
    let entered = own.post("/v1/members", &joins).await.expect(200);
    let (session, refresh_token) = (text(&entered["session"]), text(&entered["refresh_token"]));
    marks.extend([session.clone(), refresh_token.clone()]);
    let edge = json!({ "a": of_type("phone")["anchor"], "b": of_type("device")["anchor"] });
    let phone_ref = text(&of_type("phone")["ref"]);
    Records {
        customer: customer_id,
        member,
        order,
        payment,
        code: codes[1].clone(),
        decision,
        phone_ref,
        rejected,
        key,
        edge,
        grant,
        spend,
        hold,
        adjustment,
        other,
        reserved,
        session,
        refresh_token,
        marks,
    }
}

/// Every operation about the records of the first unit, reading ones first and the most thorough last.
fn attempts(records: &Records) -> Vec<Attempt> {
    let Records {
        customer,
        member,
        order,
        payment,
        code,
        decision,
        phone_ref,
        rejected,
        key,
        edge,
        grant,
        spend,
        hold,
        adjustment,
        other,
        reserved,
        session,
        refresh_token,
        ..
    } = records;
    let mut all = Vec::new();
    let mut add = |names_a_record, method, template, path: String, body| {
        all.push(Attempt { operation: (method, template), path, body, names_a_record });
    };
    let (list, record) = (false, true);
    for template in [
        "/v1/audit",
        "/v1/benefits",
        "/v1/event-types",
        "/v1/events/rejected",
        "/v1/features",
        "/v1/identity/report",
        "/v1/identity/rules",
        "/v1/keys",
        "/v1/leads",
        "/v1/merchants",
        "/v1/orders",
        "/v1/org-units",
        "/v1/parked-events",
        "/v1/plugins",
        "/v1/products",
        "/v1/segments",
        "/v1/tags",
    ] {
        add(list, "GET", template, template.to_owned(), Body::None);
    }
    let any_name: [(&str, &str); 4] = [
        ("/v1/event-types/{name}", "/v1/event-types/unit_viewed"),
        ("/v1/features/{name}", "/v1/features/views"),
        ("/v1/tags/{name}", "/v1/tags/resident"),
        ("/v1/plugins/{name}/approval", "/v1/plugins/any/approval"),
    ];
    any_name.into_iter().for_each(|(template, path)| add(list, "GET", template, path.into(), Body::None));
    add(list, "GET", "/v1/events", "/v1/events?message_id=visit-of-first".into(), Body::None);
    add(list, "GET", "/v1/customers", format!("/v1/customers?identifier=phone:{PHONE}"), Body::None);
    add(list, "GET", "/v1/benefits/{code}", "/v1/benefits/parking".into(), Body::None);
    add(list, "GET", "/v1/benefits/report", "/v1/benefits/report?period=2026-11".into(), Body::None);
    add(list, "GET", "/v1/earn-rules", "/v1/earn-rules".into(), Body::None);
    add(list, "GET", "/v1/clearing/{period}", "/v1/clearing/2026-11".into(), Body::None);
    let books = Body::Csv("transaction,unit,kind,amount_fen\n");
    add(list, "POST", "/v1/clearing/{period}/reconciliation", "/v1/clearing/2026-11/reconciliation?line=mall".into(), books);
    add(
        list,
        "GET",
        "/v1/reports/full-chain",
        "/v1/reports/full-chain?from=2026-11-01&to=2026-11-30&group_by=plan&min_sample=1".into(),
        Body::None,
    );
    add(list, "POST", "/v1/query", "/v1/query".into(), Body::Json(json!({ "sql": "SELECT * FROM events" })));
    let living = json!({ "predicate": { "tag": "resident", "is": "yes" } });
    add(list, "POST", "/v1/audiences:count", "/v1/audiences:count".into(), Body::Json(living));

    for (template, id) in [
        ("/v1/customers/{id}", customer),
        ("/v1/customers/{id}/profile", customer),
        ("/v1/customers/{id}/timeline", customer),
        ("/v1/members/{id}", member),
        ("/v1/members/{id}/points", member),
        ("/v1/members/{id}/accounts", member),
        ("/v1/members/{id}/benefits", member),
        ("/v1/orders/{id}", order),
        ("/v1/orders/{id}/refunds", order),
        ("/v1/payments/{id}", payment),
        ("/v1/leads/{id}", &"lead-of-first".to_owned()),
        ("/v1/merchants/{id}", &"books".to_owned()),
        ("/v1/products/{id}", &"tea".to_owned()),
        ("/v1/segments/{id}", &"segment-of-first".to_owned()),
        ("/v1/segments/{id}/members", &"segment-of-first".to_owned()),
    ] {
        add(record, "GET", template, template.replace("{id}", id), Body::None);
    }
    add(record, "GET", "/v1/customers/{id}/features", format!("/v1/customers/{customer}/features?names=views"), Body::None);
    add(record, "GET", "/v1/merchants/{id}/statement", "/v1/merchants/books/statement?period=2026-11".into(), Body::None);
    add(record, "GET", "/v1/transactions/{id}", format!("/v1/transactions/sale-of-first?unit={UNIT}"), Body::None);
    add(list, "GET", "/v1/vouchers", format!("/v1/vouchers?member={member}"), Body::None);
    let search = json!({ "type": "phone", "value": PHONE });
    add(record, "POST", "/v1/customers:search", "/v1/customers:search".into(), Body::Json(search));
    let portrait = json!({ "segment": "segment-of-first", "features": [{ "feature": "views" }] });
    add(record, "POST", "/v1/portraits", "/v1/portraits".into(), Body::Json(portrait));
    let reveal = json!({ "ref": phone_ref, "reason": "curiosity" });
    add(record, "POST", "/v1/customers/{id}/reveal", format!("/v1/customers/{customer}/reveal"), Body::Json(reveal));
    add(record, "POST", "/v1/decisions/{id}:rerun", format!("/v1/decisions/{decision}:rerun"), Body::None);

    let sale = |id: &str| {
        json!({ "id": id, "unit": UNIT, "kind": "purchase", "occurred_at": "2026-11-20T10:00:00+08:00", "member": member,
                "amount": { "amount": 1000, "currency": "CNY" } })
    };
    add(record, "POST", "/v1/transactions:quote", "/v1/transactions:quote".into(), Body::Json(sale("quoted")));
    add(record, "POST", "/v1/transactions", "/v1/transactions".into(), Body::Json(sale("sale-by-attempt")));
    let cart = json!({ "member": member, "lines": [{ "product": "tea", "quantity": 1 }] });
    add(record, "POST", "/v1/orders", "/v1/orders".into(), Body::Json(cart));
    add(record, "POST", "/v1/payments/{id}:start", format!("/v1/payments/{payment}:start"), Body::None);
    let at_counter = json!({ "code": code, "unit": UNIT, "counter_reference": "till-9/1" });
    add(record, "POST", "/v1/vouchers:redeem", "/v1/vouchers:redeem".into(), Body::Json(at_counter));
    let back = json!({ "whole": true, "reason": "none" });
    add(record, "POST", "/v1/orders/{id}/refunds", format!("/v1/orders/{order}/refunds"), Body::Json(back));
    let spending = json!({ "amount": 1, "unit": UNIT, "reference": "parking" });
    add(record, "POST", "/v1/members/{id}/points:spend", format!("/v1/members/{member}/points:spend"), Body::Json(spending));
    let given = format!("/v1/members/{member}/points/spends/{spend}:return");
    add(record, "POST", "/v1/members/{id}/points/spends/{spend}:return", given, Body::Json(json!({ "amount": 1 })));
    let points = format!("/v1/members/{member}/points");
    let aside = json!({ "amount": 1, "unit": UNIT, "reference": "cart" });
    add(record, "POST", "/v1/members/{id}/points/holds", format!("{points}/holds"), Body::Json(aside));
    add(record, "GET", "/v1/members/{id}/points/holds", format!("{points}/holds"), Body::None);
    add(record, "GET", "/v1/members/{id}/points/holds/{hold}", format!("{points}/holds/{hold}"), Body::None);
    let captured = format!("{points}/holds/{hold}:capture");
    add(record, "POST", "/v1/members/{id}/points/holds/{hold}:capture", captured, Body::Json(json!({})));
    let released = format!("{points}/holds/{hold}:release");
    add(record, "POST", "/v1/members/{id}/points/holds/{hold}:release", released, Body::None);
    let gift = Body::Json(json!({ "to": other, "amount": 1 }));
    add(record, "POST", "/v1/members/{id}/points/transfers", format!("{points}/transfers"), gift);
    let exchanged = Body::Json(json!({ "benefit": "parking" }));
    add(record, "POST", "/v1/members/{id}/points/exchanges", format!("{points}/exchanges"), exchanged);
    let proposed = json!({ "member": member, "amount": 5, "unit": UNIT, "reason": "lost receipt" });
    add(record, "POST", "/v1/points-adjustments", "/v1/points-adjustments".into(), Body::Json(proposed));
    add(list, "GET", "/v1/points-adjustments", "/v1/points-adjustments".into(), Body::None);
    let adjusted = format!("/v1/points-adjustments/{adjustment}");
    add(record, "GET", "/v1/points-adjustments/{id}", adjusted.clone(), Body::None);
    add(record, "POST", "/v1/points-adjustments/{id}:approve", format!("{adjusted}:approve"), Body::None);
    let rejected_with = Body::Json(json!({ "reason": "found it" }));
    add(record, "POST", "/v1/points-adjustments/{id}:reject", format!("{adjusted}:reject"), rejected_with);
    add(list, "GET", "/v1/points-policy", "/v1/points-policy".into(), Body::None);
    add(list, "GET", "/v1/budgets", "/v1/budgets".into(), Body::None);
    add(list, "GET", "/v1/tier-policies", "/v1/tier-policies".into(), Body::None);
    add(list, "GET", "/v1/tier-policies/{version}", "/v1/tier-policies/1".into(), Body::None);
    let tiers = format!("/v1/members/{member}/tier-grants");
    add(record, "GET", "/v1/members/{id}/tier-grants", tiers.clone(), Body::None);
    let platinum = json!({ "tier": "platinum", "until": "2029-01-01T00:00:00+08:00", "reason": "taken" });
    add(record, "POST", "/v1/members/{id}/tier-grants", tiers.clone(), Body::Json(platinum));
    let benefits = format!("/v1/members/{member}/benefits");
    let by_hand = json!({ "benefit": "parking", "reason": "taken" });
    add(record, "POST", "/v1/members/{id}/benefits", benefits.clone(), Body::Json(by_hand));
    let reservations = format!("/v1/members/{member}/benefit-reservations");
    add(record, "GET", "/v1/members/{id}/benefit-reservations", reservations, Body::None);
    let one = || Body::Json(json!({ "quantity": 1, "unit": UNIT }));
    add(record, "POST", "/v1/members/{id}/benefits/{grant}:reserve", format!("{benefits}/{grant}:reserve"), one());
    add(record, "POST", "/v1/members/{id}/benefits/{grant}:use", format!("{benefits}/{grant}:use"), one());
    let returned = Body::Json(json!({ "code": reserved[0] }));
    add(record, "POST", "/v1/members/{id}/benefits/{grant}:return", format!("{benefits}/{grant}:return"), returned);
    let at_unit = Body::Json(json!({ "unit": UNIT }));
    let shown = format!("/v1/benefit-reservations/{}:use", reserved[1]);
    add(record, "POST", "/v1/benefit-reservations/{code}:use", shown, at_unit);
    let free = json!({ "name": "taken over", "name_zh": "x", "unit": UNIT, "measure": "hours", "quantity": 1, "cost_fen": 0, "valid_days": 1, "state": "draft" });
    add(record, "PUT", "/v1/benefits/{code}", "/v1/benefits/parking".into(), Body::Json(free));
    let account = json!({ "account": "MC-20018873", "unit": UNIT });
    add(record, "PUT", "/v1/members/{id}/accounts/{line}", format!("/v1/members/{member}/accounts/mall"), Body::Json(account));
    let why = Body::Json(json!({ "reason": "curiosity" }));
    add(record, "POST", "/v1/members/{id}/accounts:reveal", format!("/v1/members/{member}/accounts:reveal"), why);
    add(record, "DELETE", "/v1/members/{id}/accounts/{line}", format!("/v1/members/{member}/accounts/mall"), Body::None);
    let opening = Body::Csv("phone,points,cost_fen,expires_on\n");
    add(record, "POST", "/v1/points-imports", format!("/v1/points-imports?unit={UNIT}"), opening);
    add(list, "GET", "/v1/points-imports/{id}/errors.csv", "/v1/points-imports/any/errors.csv".into(), Body::None);
    // The tenant has no apps to log in to; which units their keys reach is membership's own test.
    let login = json!({ "app": "mall", "wechat": { "code": "any" } });
    add(list, "POST", "/v1/sessions", "/v1/sessions".into(), Body::Json(login));
    add(list, "POST", "/v1/phone-codes", "/v1/phone-codes".into(), Body::Json(json!({ "app": "mall", "phone": PHONE })));
    let refresh = || Body::Json(json!({ "refresh_token": refresh_token }));
    add(list, "POST", "/v1/sessions:revoke", "/v1/sessions:revoke".into(), refresh());
    add(record, "POST", "/v1/sessions:refresh", "/v1/sessions:refresh".into(), refresh());
    let sessions = format!("/v1/members/{member}/sessions");
    add(record, "GET", "/v1/members/{id}/sessions", sessions.clone(), Body::None);
    add(record, "DELETE", "/v1/members/{id}/sessions/{session}", format!("{sessions}/{session}"), Body::None);
    add(record, "DELETE", "/v1/members/{id}/sessions", sessions, Body::None);
    let why = || Body::Json(json!({ "reason": "asked at the desk" }));
    add(list, "POST", "/v1/members/{id}/tier-grants/{grant}:revoke", format!("{tiers}/any:revoke"), why());
    add(record, "POST", "/v1/members/{id}:block", format!("/v1/members/{member}:block"), why());
    add(record, "POST", "/v1/members/{id}:unblock", format!("/v1/members/{member}:unblock"), why());
    let joins = json!({ "unit": UNIT, "identifiers": [{ "type": "phone", "value": "13800000009", "verified": true }] });
    add(record, "POST", "/v1/members", "/v1/members".into(), Body::Json(joins));
    add(record, "PUT", "/v1/merchants/{id}", "/v1/merchants/books".into(), Body::Json(json!({ "name": "taken over", "unit": UNIT })));
    let product = json!({ "merchant": "books", "name": "taken over", "category": "retail", "kind": "goods", "price": { "amount": 1, "currency": "CNY" } });
    add(record, "PUT", "/v1/products/{id}", "/v1/products/tea".into(), Body::Json(product));
    let stock = json!({ "change": -1, "reason": "taken" });
    add(record, "POST", "/v1/products/{id}/stock", "/v1/products/tea/stock".into(), Body::Json(stock));
    let stage = json!({ "stage": "visited", "occurred_at": "2026-11-21T10:00:00+08:00" });
    add(record, "POST", "/v1/leads/{id}/stages", "/v1/leads/lead-of-first/stages".into(), Body::Json(stage));
    let lead = json!({ "id": "lead-by-attempt", "unit": UNIT, "identifiers": [{ "kind": "phone", "value": PHONE }], "submitted_at": "2026-11-20T10:00:00+08:00" });
    add(record, "POST", "/v1/leads", "/v1/leads".into(), Body::Json(lead));
    let consent = json!({ "granted": true, "legal_entity": "mall-co" });
    add(
        record,
        "PUT",
        "/v1/customers/{id}/consents/{purpose}",
        format!("/v1/customers/{customer}/consents/marketing"),
        Body::Json(consent),
    );
    let rows = "时间-天,账户ID,广告计划ID,广告计划名称,创意ID,展示数,点击数,消耗\n2026-11-20,a,p,n,c,1,1,1.00\n";
    add(record, "POST", "/v1/spend/imports", format!("/v1/spend/imports?platform=ocean_engine&unit={UNIT}"), Body::Csv(rows));
    add(record, "PUT", "/v1/spend/plans/{platform}/{plan}", "/v1/spend/plans/ocean_engine/p".into(), Body::Json(json!({ "unit": UNIT })));
    let segment = json!({ "name": "taken over", "predicate": { "tag": "resident", "is": "yes" } });
    add(record, "PUT", "/v1/segments/{id}", "/v1/segments/segment-of-first".into(), Body::Json(segment));
    add(record, "POST", "/v1/keys", "/v1/keys".into(), Body::Json(json!({ "scopes": ["app"], "unit": UNIT })));
    add(record, "POST", "/v1/events/rejected/{id}/replay", format!("/v1/events/rejected/{rejected}/replay"), Body::None);
    add(record, "DELETE", "/v1/keys/{id}", format!("/v1/keys/{key}"), Body::None);
    add(record, "POST", "/v1/customers/{id}/split", format!("/v1/customers/{customer}/split"), Body::Json(json!({ "evidence": [edge] })));

    // What is the group's: no record of a unit, and no key of a unit may change it.
    add(record, "PUT", "/v1/event-types/{name}", "/v1/event-types/unit_viewed".into(), Body::Json(json!({ "properties": {} })));
    add(
        record,
        "PUT",
        "/v1/features/{name}",
        "/v1/features/views".into(),
        Body::Json(json!({ "expression": "count(unit_viewed) over 9d" })),
    );
    let cases = json!([{ "value": "no", "when": { "feature": "views", "at_least": 9 } }]);
    add(record, "PUT", "/v1/tags/{name}", "/v1/tags/resident".into(), Body::Json(json!({ "cases": cases })));
    let units = json!([{ "id": "mall-3", "parent": "group", "name": "三店", "kind": "mall", "line": "mall" }]);
    // The tenant has no provider that staff log in with; whose sessions a key sees is staff's own test.
    add(list, "GET", "/v1/staff/sessions", "/v1/staff/sessions".into(), Body::None);
    add(list, "DELETE", "/v1/staff/sessions/{session}", "/v1/staff/sessions/any".into(), Body::None);
    add(list, "DELETE", "/v1/staff/{staff}/sessions", "/v1/staff/any/sessions".into(), Body::None);
    add(record, "POST", "/v1/staff:find", "/v1/staff:find".into(), Body::Json(json!({ "subject": "any" })));
    add(record, "PUT", "/v1/org-units", "/v1/org-units".into(), Body::Json(json!({ "units": units })));
    let rules = json!({ "starts_at": "2029-01-01T00:00:00+08:00", "points_days": 365, "lines": {} });
    add(record, "PUT", "/v1/earn-rules/{version}", "/v1/earn-rules/2".into(), Body::Json(rules));
    add(record, "GET", "/v1/rule-budgets/{rule}/{period}", "/v1/rule-budgets/any/2026-11".into(), Body::None);
    add(record, "PUT", "/v1/rule-budgets/{rule}/{period}", "/v1/rule-budgets/any/2026-11".into(), Body::Json(json!({ "points_max": 1 })));
    let always = json!({ "from": "2026-11-01T00:00:00+08:00", "until": "2026-12-01T00:00:00+08:00", "points_max": 1 });
    add(record, "PUT", "/v1/budgets/{name}", "/v1/budgets/autumn".into(), Body::Json(always));
    let nobody = json!({ "transfers": "nobody", "transfer_points_max": 1, "day_points_max": 1, "month_points_max": 1, "notice_days": 0 });
    add(record, "PUT", "/v1/points-policy", "/v1/points-policy".into(), Body::Json(nobody));
    let ladder =
        || json!({ "starts_at": "2029-01-01T00:00:00+08:00", "measure": "lifetime", "steps": [{ "tier": "silver", "growth_min": 0 }] });
    add(record, "PUT", "/v1/tier-policies/{version}", "/v1/tier-policies/2".into(), Body::Json(ladder()));
    add(record, "POST", "/v1/tier-policies:preview", "/v1/tier-policies:preview".into(), Body::Json(json!({ "policy": ladder() })));
    let of_lots = "/v1/clearing/2026-11/lots";
    add(list, "GET", "/v1/clearing/{period}/lots", format!("{of_lots}?movement=issued"), Body::None);
    add(list, "GET", "/v1/clearing/{period}/lots.csv", format!("{of_lots}.csv?movement=issued"), Body::None);
    add(list, "GET", "/v1/points-lots", format!("/v1/points-lots?source=transaction/{UNIT}/sale-of-first"), Body::None);
    add(record, "GET", "/v1/clearing/{period}/checklist", "/v1/clearing/2026-11/checklist".into(), Body::None);
    add(record, "GET", "/v1/clearing/{period}/export", "/v1/clearing/2026-11/export?format=csv".into(), Body::None);
    add(record, "GET", "/v1/clearing/breakage", "/v1/clearing/breakage?as_of_period=2026-10".into(), Body::None);
    let stated = "/v1/ledger/statement?period=2026-11&account=line/mall/points_issued";
    add(record, "GET", "/v1/ledger/statement", stated.into(), Body::None);
    add(record, "GET", "/v1/ledger/trial-balance", "/v1/ledger/trial-balance?period=2026-11".into(), Body::None);
    let corrections = "/v1/clearing/corrections";
    add(list, "GET", "/v1/clearing/corrections", corrections.into(), Body::None);
    let correction = json!({ "of_period": "2026-10", "line": "mall", "fen": 1, "reason": "taken" });
    add(record, "POST", "/v1/clearing/corrections", corrections.into(), Body::Json(correction));
    add(record, "GET", "/v1/clearing/corrections/{id}", format!("{corrections}/any"), Body::None);
    add(record, "POST", "/v1/clearing/corrections/{id}:approve", format!("{corrections}/any:approve"), Body::None);
    add(record, "POST", "/v1/clearing/corrections/{id}:reject", format!("{corrections}/any:reject"), why());
    add(record, "POST", "/v1/clearing/{period}:close", "/v1/clearing/2026-10:close".into(), Body::None);
    let statement = "/v1/clearing/2026-10/statements";
    add(record, "GET", "/v1/clearing/{period}/statements", statement.into(), Body::None);
    add(record, "POST", "/v1/clearing/{period}/statements/{line}:confirm", format!("{statement}/mall:confirm"), Body::None);
    let disputed = || Body::Json(json!({ "reason": "ours" }));
    add(record, "POST", "/v1/clearing/{period}/statements/{line}:dispute", format!("{statement}/mall:dispute"), disputed());
    add(record, "POST", "/v1/clearing/{period}/statements/{line}:answer", format!("{statement}/mall:answer"), disputed());
    add(record, "POST", "/v1/parked-events/{consumer}/retry", "/v1/parked-events/cdp/retry".into(), Body::None);
    let (digest, approved) = (json!({ "digest": "00" }), json!({ "approved": [] }));
    add(record, "POST", "/v1/plugins/{name}/activate", "/v1/plugins/any/activate".into(), Body::Json(digest));
    add(record, "PUT", "/v1/plugins/{name}/approval", "/v1/plugins/any/approval".into(), Body::Json(approved));
    add(record, "POST", "/v1/plugins/{name}/retire", "/v1/plugins/any/retire".into(), Body::None);
    add(record, "POST", "/v1/members/{id}:leave", format!("/v1/members/{member}:leave"), Body::Json(json!({ "erase": false })));
    add(record, "POST", "/v1/members/{id}:close", format!("/v1/members/{member}:close"), Body::Json(json!({ "reason": "asked" })));
    add(record, "POST", "/v1/customers/{id}/erase", format!("/v1/customers/{customer}/erase"), Body::None);
    all
}

/// The group's own: refused to every key of a unit, also to that of the unit where it would be felt.
const OF_THE_GROUP: &[&str] = &[
    "/v1/event-types/{name}",
    "/v1/features/{name}",
    "/v1/tags/{name}",
    "/v1/org-units",
    "/v1/staff:find",
    "/v1/rule-budgets/{rule}/{period}",
    "/v1/budgets/{name}",
    "/v1/points-policy",
    "/v1/tier-policies/{version}",
    "/v1/tier-policies:preview",
    "/v1/clearing/{period}/checklist",
    "/v1/clearing/{period}/export",
    "/v1/clearing/breakage",
    "/v1/ledger/statement",
    "/v1/ledger/trial-balance",
    "/v1/clearing/corrections",
    "/v1/clearing/corrections/{id}",
    "/v1/clearing/corrections/{id}:approve",
    "/v1/clearing/corrections/{id}:reject",
    "/v1/clearing/{period}:close",
    "/v1/clearing/{period}/statements",
    "/v1/clearing/{period}/statements/{line}:answer",
    "/v1/clearing/{period}/statements/{line}:confirm",
    "/v1/clearing/{period}/statements/{line}:dispute",
    "/v1/earn-rules/{version}",
    "/v1/parked-events/{consumer}/retry",
    "/v1/plugins/{name}/activate",
    "/v1/plugins/{name}/approval",
    "/v1/plugins/{name}/retire",
];

/// Operations that name the record in their body: what a key does not reach is said of the field, as of what does not exist.
const NAMED_INSIDE: &[((&str, &str), &str)] = &[
    (("POST", "/v1/orders"), "lines"),
    (("PUT", "/v1/products/{id}"), "merchant"),
    (("POST", "/v1/sessions"), "app"),
    (("POST", "/v1/phone-codes"), "app"),
    (("POST", "/v1/sessions:refresh"), "refresh_token"),
];

/// The records as the group sees them.
async fn as_they_are(group: &Caller, records: &Records) -> Vec<Value> {
    let mut found = Vec::new();
    for path in [
        format!("/v1/customers/{}", records.customer),
        format!("/v1/members/{}", records.member),
        format!("/v1/members/{}/points", records.member),
        format!("/v1/members/{}/benefits", records.member),
        "/v1/benefits".into(),
        format!("/v1/orders?member={}", records.member),
        format!("/v1/payments/{}", records.payment),
        format!("/v1/vouchers?member={}", records.member),
        "/v1/leads".into(),
        "/v1/merchants".into(),
        "/v1/products".into(),
        "/v1/features/views".into(),
        "/v1/org-units".into(),
        format!("/v1/transactions/sale-of-first?unit={UNIT}"),
    ] {
        found.push(group.get(&path).await.expect(200));
    }
    found
}

#[tokio::test]
async fn no_operation_gives_a_sibling_a_record_or_lets_it_change_one() {
    for_both_databases(async |database| {
        let mut gateway = Gateway::somewhere();
        let options = TenantOptions { environment: gateway.environment(), ..TenantOptions::default() };
        let tenant = Tenant::start_with(&database, options).await;
        gateway.open(&tenant).await;
        let records = records(&tenant).await;
        let group = tenant.caller(SCOPES);
        let (own, sibling) = (tenant.caller_in(SCOPES, Some(UNIT)), tenant.caller_in(SCOPES, Some(SIBLING)));
        let attempts = attempts(&records);
        let tried: BTreeSet<_> = attempts.iter().map(|attempt| attempt.operation).collect();
        let document = document(&tenant).await;
        let mut wrong = Vec::new();
        for operation in Operation::all(&document) {
            let one = (operation.method.as_str(), operation.path);
            let is_collecting = operation.method == Method::POST && COLLECTING.contains(&operation.path);
            if !tried.contains(&one) && !NOT_TRIED.contains(&one) && !is_collecting {
                wrong.push(format!("{} is not tried with a sibling's key", operation.name()));
            }
        }
        let before = as_they_are(&group, &records).await;
        for (number, attempt) in attempts.iter().enumerate() {
            let answer = attempt.by(&sibling, number).await;
            let names_it_inside = NAMED_INSIDE
                .iter()
                .any(|(operation, field)| *operation == attempt.operation && answer.status == 400 && answer.json()["field"] == *field);
            let refused = [403, 404].contains(&answer.status) || names_it_inside;
            let told: Vec<_> = records.marks.iter().filter(|mark| !refused && answer.text().contains(mark.as_str())).collect();
            if !refused && (attempt.names_a_record || !(200..300).contains(&answer.status) || !told.is_empty()) {
                wrong.push(format!("{} answers a sibling {} {told:?}: {}", attempt.name(), answer.status, answer.text()));
            }
        }
        assert_eq!(as_they_are(&group, &records).await, before, "a sibling changed a record; {wrong:#?}");
        // The unit's own key is not refused, so that it was the unit that refused the sibling, and no mistake of this test.
        for (number, attempt) in attempts.iter().enumerate().filter(|(_, attempt)| attempt.names_a_record) {
            let answer = attempt.by(&own, number).await;
            let refused = [401, 403, 404].contains(&answer.status);
            if OF_THE_GROUP.contains(&attempt.operation.1) != refused {
                wrong.push(format!("{} answers its own unit {}: {}", attempt.name(), answer.status, answer.text()));
            }
        }
        none_wrong(&wrong);
    })
    .await;
}

#[tokio::test]
async fn a_siblings_tail_shows_its_own_events_alone() {
    for_both_databases(async |database| {
        let tenant = Tenant::start(&database).await;
        let unit = |id: &str, parent: Value, kind: &str, line: Value| json!({ "id": id, "parent": parent, "name": id, "kind": kind, "line": line });
        let units = [
            unit("group", Value::Null, "group", Value::Null),
            unit(UNIT, json!("group"), "mall", json!("mall")),
            unit(SIBLING, json!("group"), "mall", json!("mall")),
        ];
        tenant.caller("admin").put("/v1/org-units", &json!({ "units": units })).await.expect_status(204);
        let (own, sibling) = (tenant.caller_in("ingest", Some(UNIT)), tenant.caller_in("ingest,admin", Some(SIBLING)));
        let event = |id: &str| json!({ "events": [{ "message_id": id, "name": "unit_viewed", "identifiers": [{ "type": "device", "value": id }] }] });
        // An answer comes once the tail is open; what passes from then on is in it.
        let mut tail = sibling.request(Method::GET, "/v1/events/tail").send().await.expect("the server answers");
        if tail.status() == 403 {
            return;
        }
        assert_eq!(tail.status(), 200);
        own.post("/v1/events", &event("of-the-first")).await.expect(200);
        sibling.post("/v1/events", &event("of-the-sibling")).await.expect(200);
        let mut shown = String::new();
        while !shown.contains("of-the-sibling") {
            let piece = tail.chunk().await.expect("the tail stays open").expect("the tail is endless");
            shown.push_str(&String::from_utf8_lossy(&piece));
        }
        assert!(!shown.contains("of-the-first"), "{shown}");
    })
    .await;
}
