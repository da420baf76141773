//! A NUL in every text of every operation: refused as the request's own fault, before any database has to.

use heyuan_harness::{Answer, Caller, Tenant, for_both_databases};
use serde_json::{Value, json};

use crate::contract::{Operation, SCOPES, document, none_wrong, smallest};

/// What no text here has, in JSON and in an address.
const TEXT: &str = "a\0b";
const ESCAPED: &str = "a%00b";
/// A cursor of one NUL, as a list would have written it.
const CURSOR: &str = "AA";

/// Answers without end, and a body that is no text.
const LEFT_OUT: &[&str] = &["/v1/plugins/{name}/versions"];

/// Values of a schema with one spoilt text each, wherever a text can stand; the rest is as small as can be. A schema that contains
/// itself is entered once on every way.
fn spoilt<'a>(document: &'a Value, schema: &'a Value, on_the_way: &mut Vec<&'a str>) -> Vec<Value> {
    if let Some(reference) = schema["$ref"].as_str() {
        if on_the_way.contains(&reference) {
            return Vec::new();
        }
        let target = document.pointer(reference.trim_start_matches('#')).unwrap_or_else(|| panic!("{reference} leads nowhere"));
        on_the_way.push(reference);
        let found = spoilt(document, target, on_the_way);
        on_the_way.pop();
        return found;
    }
    for alternatives in ["oneOf", "anyOf"] {
        if let Some(all) = schema[alternatives].as_array() {
            return all.iter().flat_map(|one| spoilt(document, one, on_the_way)).collect();
        }
    }
    if let Some(parts) = schema["allOf"].as_array() {
        let whole = smallest(document, schema, 0);
        return parts.iter().flat_map(|part| spoilt(document, part, on_the_way)).map(|part| merged(&whole, part)).collect();
    }
    let is = |kind: &str| schema["type"] == kind || schema["type"].as_array().is_some_and(|kinds| kinds.contains(&json!(kind)));
    if is("string") {
        return vec![json!(TEXT)];
    }
    if is("array") {
        return spoilt(document, &schema["items"], on_the_way).into_iter().map(|item| json!([item])).collect();
    }
    if let Some(properties) = schema["properties"].as_object() {
        let whole = smallest(document, schema, 0);
        let members = properties.iter().flat_map(|(name, property)| {
            let values = spoilt(document, property, on_the_way);
            values.into_iter().map(move |value| json!({ name.as_str(): value }))
        });
        return members.map(|member| merged(&whole, member)).collect();
    }
    if is("object") {
        return vec![json!({ "name": TEXT }), json!({ TEXT: "text" })];
    }
    if schema["type"].is_null() { vec![json!(TEXT), json!({ "name": [TEXT] })] } else { Vec::new() }
}

fn merged(whole: &Value, part: Value) -> Value {
    let mut members = whole.as_object().cloned().unwrap_or_default();
    members.extend(part.as_object().cloned().unwrap_or_default());
    Value::Object(members)
}

/// Sends an operation with a NUL in one place after the other; answers in how many, and adds what went wrong.
async fn tried(document: &Value, operation: &Operation<'_>, caller: &Caller, wrong: &mut Vec<String>) -> usize {
    let mut requests = Vec::new();
    let smallest_body = || operation.body.filter(|(kind, _)| kind.contains("json")).map(|(_, schema)| smallest(document, schema, 0));
    for name in
        operation.parameters.iter().filter(|parameter| parameter["in"] != "header").filter_map(|parameter| parameter["name"].as_str())
    {
        let text = if name == "cursor" { CURSOR } else { ESCAPED };
        requests.push((format!("{name}={text}"), operation.request_with(caller, Some((name, text)), smallest_body()), true));
    }
    if let Some((_, schema)) = operation.body.filter(|(kind, _)| kind.contains("json")) {
        // A sender of events hears of each event apart; a notice is judged by its signature first.
        let refused = !operation.is_collecting() && !operation.is_public();
        for body in spoilt(document, schema, &mut Vec::new()) {
            requests.push((body.to_string(), operation.request_with(caller, None, Some(body)), refused));
        }
    }
    let count = requests.len();
    for (what, request, refused) in requests {
        let answer = Answer::of(request).await;
        let right = if refused { answer.status == 400 && answer.problem(400) == "invalid_request" } else { answer.status < 500 };
        if !right {
            wrong.push(format!("{} with {what}: {} {}", operation.name(), answer.status, answer.text()));
        }
    }
    count
}

#[tokio::test]
async fn a_nul_in_any_text_is_refused_and_meets_no_server_error() {
    for_both_databases(async |database| {
        let tenant = Tenant::start(&database).await;
        let caller = tenant.caller(&SCOPES.join(","));
        let document = document(&tenant).await;
        let (mut wrong, mut places) = (Vec::new(), 0);
        for operation in Operation::all(&document).iter().filter(|operation| !LEFT_OUT.contains(&operation.path)) {
            places += tried(&document, operation, &caller, &mut wrong).await;
        }
        none_wrong(&wrong);
        assert!(places > 100, "texts are found in the document: {places}");
        let log = tenant.log();
        assert!(!log.contains("panicked at") && !log.contains("the database holds no such value"), "{log}");
    })
    .await;
}
