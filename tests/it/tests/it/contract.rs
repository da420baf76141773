//! The OpenAPI document as a promise: whoever reads it is told the truth, strangers and wrong scopes are refused, nothing breaks it.

use std::collections::BTreeSet;

use heyuan_harness::{Answer, Caller, Tenant, for_both_databases, python_tool};
use reqwest::{Method, RequestBuilder, Url};
use serde_json::{Value, json};

/// Operations that need no key, each with its reason.
const PUBLIC: &[(&str, &str)] = &[
    ("GET", "/livez"),                      // probes carry no key
    ("GET", "/readyz"),                     // probes carry no key
    ("GET", "/metrics"),                    // figures without personal data, kept inside by the network
    ("POST", "/v1/payments/notifications"), // signed by the payment provider
    ("POST", "/v1/staff/log-ins"),          // whoever logs in has no key yet
    ("POST", "/v1/staff/log-ins:finish"),   // the provider vouches for who it is
    ("POST", "/v1/staff/log-outs"),         // the provider signs what it tells
    ("POST", "/v1/staff/sessions:refresh"), // the refresh token says who it is
    ("POST", "/v1/staff/sessions:revoke"),  // the same
];

/// Operations that any key may call.
const ANY_KEY: &[(&str, &str)] = &[("GET", "/v1/me")]; // tells a key what it is

/// What the operator's listener serves alone; its own tests are in `operator.rs`.
const OF_THE_OPERATOR: &str = "/v1/operator/";

/// The document itself and the page that reads it are no part of the document.
const ABOUT_THE_DOCUMENT: &[&str] = &["/openapi.json", "/docs"];

pub(crate) const SCOPES: &[&str] = &["ingest", "app", "admin", "reveal", "import"];

/// Deep enough for every body we have; a schema that contains itself ends there.
const SCHEMA_DEPTH_MAX: usize = 12;

/// One operation of the document.
pub(crate) struct Operation<'a> {
    document: &'a Value,
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    /// Whether the document says that it needs a key.
    secured: bool,
    pub(crate) parameters: Vec<&'a Value>,
    pub(crate) body: Option<(&'a str, &'a Value)>,
}

impl<'a> Operation<'a> {
    /// Those of the public listener.
    pub(crate) fn all(document: &'a Value) -> Vec<Self> {
        Self::every(document).into_iter().filter(|operation| !operation.path.starts_with(OF_THE_OPERATOR)).collect()
    }

    /// Those of the operator's listener.
    pub(crate) fn of_the_operator(document: &'a Value) -> Vec<Self> {
        Self::every(document).into_iter().filter(|operation| operation.path.starts_with(OF_THE_OPERATOR)).collect()
    }

    fn every(document: &'a Value) -> Vec<Self> {
        let paths = document["paths"].as_object().expect("a document has paths");
        let methods = ["get", "put", "post", "delete", "patch"];
        let operations = paths.iter().flat_map(|(path, item)| methods.map(|method| (path, item, method)));
        let found: Vec<_> = operations
            .filter_map(|(path, item, method)| {
                let operation = item.get(method)?;
                let parameters =
                    [&item["parameters"], &operation["parameters"]].into_iter().filter_map(Value::as_array).flatten().collect();
                let content = operation["requestBody"]["content"].as_object();
                let body = content.and_then(|content| content.iter().next()).map(|(kind, media)| (kind.as_str(), &media["schema"]));
                let method = method.to_uppercase().parse().expect("a method has a name");
                let secured = operation["security"].as_array().is_some_and(|schemes| !schemes.is_empty());
                Some(Operation { document, method, path, secured, parameters, body })
            })
            .collect();
        assert!(!found.is_empty(), "the document has operations");
        found
    }

    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Whether it takes events, which are judged one by one.
    pub(crate) fn is_collecting(&self) -> bool {
        self.document["paths"][self.path][self.method.as_str().to_lowercase()]["tags"] == json!(["collect"])
    }

    pub(crate) fn is_public(&self) -> bool {
        PUBLIC.contains(&(self.method.as_str(), self.path))
    }

    /// The smallest request that the document allows, as this caller sends it.
    fn request(&self, caller: &Caller) -> RequestBuilder {
        self.request_with(
            caller,
            None,
            self.body.filter(|(kind, _)| kind.contains("json")).map(|(_, schema)| smallest(self.document, schema, 0)),
        )
    }

    /// The smallest request with one parameter as given, already escaped, and with this JSON body.
    pub(crate) fn request_with(&self, caller: &Caller, given: Option<(&str, &str)>, body: Option<Value>) -> RequestBuilder {
        let mut path = self.path.to_owned();
        let (mut query, mut headers) = (Vec::new(), Vec::new());
        for parameter in &self.parameters {
            let name = parameter["name"].as_str().expect("a parameter has a name");
            let value = match smallest(self.document, &parameter["schema"], 0) {
                Value::String(text) => text,
                other => other.to_string(),
            };
            match parameter["in"].as_str() {
                Some("path") => {
                    let value = given.filter(|(wanted, _)| *wanted == name).map_or(value.as_str(), |(_, text)| text);
                    path = path.replace(&format!("{{{name}}}"), value);
                }
                Some("query") if given.is_some_and(|(wanted, _)| wanted == name) => {}
                Some("query") if parameter["required"] == true => query.push((name.to_owned(), value)),
                Some("header") if parameter["required"] == true => headers.push((name.to_owned(), value)),
                _ => {}
            }
        }
        if !query.is_empty() {
            let url = Url::parse_with_params("http://any.example", &query).expect("any text can be a parameter");
            path = format!("{path}?{}", url.query().unwrap_or_default());
        }
        if let Some((name, text)) = given.filter(|(name, _)| !self.path.contains(&format!("{{{name}}}"))) {
            path = format!("{path}{}{name}={text}", if path.contains('?') { '&' } else { '?' });
        }
        let request = caller.request(self.method.clone(), &path);
        let request = headers.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        match (self.body, body) {
            (None, _) => request,
            (Some((kind, _)), Some(body)) => request.header("Content-Type", kind).body(body.to_string()),
            (Some((kind, _)), None) => request.header("Content-Type", kind).body("x"),
        }
    }

    /// The status alone: the body of an endless answer is not waited for.
    async fn status_for(&self, caller: &Caller) -> u16 {
        self.request(caller).send().await.expect("the server answers").status().as_u16()
    }

    pub(crate) async fn sent_by(&self, caller: &Caller) -> Answer {
        Answer::of(self.request(caller)).await
    }
}

/// Operations whose smallest documented request is not valid (a cross-field rule, a date, a platform's file), so that it is refused
/// before the scope is looked at; the wings' own tests refuse wrong scopes there.
const UNGUESSABLE: &[(&str, &str)] = &[
    ("POST", "/v1/clearing/{period}/reconciliation"),
    ("POST", "/v1/orders/{id}/refunds"),
    ("GET", "/v1/reports/full-chain"),
    ("POST", "/v1/spend/imports"),
    ("PUT", "/v1/spend/plans/{platform}/{plan}"),
];

/// The smallest value that a schema allows.
pub(crate) fn smallest(document: &Value, schema: &Value, depth: usize) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#')).unwrap_or_else(|| panic!("{reference} leads nowhere"));
        return smallest(document, target, depth + 1);
    }
    for given in ["example", "const", "default"] {
        if let Some(value) = schema.get(given) {
            return value.clone();
        }
    }
    for list in ["examples", "enum"] {
        if let Some(first) = schema[list].as_array().and_then(|values| values.first()) {
            return first.clone();
        }
    }
    for alternatives in ["oneOf", "anyOf"] {
        if let Some(alternative) = schema[alternatives].as_array().and_then(|all| all.iter().find(|one| one["type"] != "null")) {
            return smallest(document, alternative, depth + 1);
        }
    }
    if let Some(parts) = schema["allOf"].as_array() {
        let parts = parts.iter().filter_map(|part| smallest(document, part, depth + 1).as_object().cloned());
        return Value::Object(parts.flatten().collect());
    }
    let kind =
        schema["type"].as_str().or_else(|| schema["type"].as_array()?.iter().find_map(|kind| kind.as_str().filter(|kind| *kind != "null")));
    match kind {
        Some("object") if depth < SCHEMA_DEPTH_MAX => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            Value::Object(required.map(|name| (name.to_owned(), smallest(document, &schema["properties"][name], depth + 1))).collect())
        }
        Some("array") if depth < SCHEMA_DEPTH_MAX && schema["minItems"].as_u64().unwrap_or(0) > 0 => {
            json!([smallest(document, &schema["items"], depth + 1)])
        }
        Some("array") => json!([]),
        Some("string") => Value::String(smallest_text(schema)),
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or(json!(1)),
        Some("boolean") => json!(false),
        _ => json!({}),
    }
}

fn smallest_text(schema: &Value) -> String {
    match schema["format"].as_str() {
        Some("date-time") => "2026-01-01T00:00:00Z".into(),
        Some("date") => "2026-01-01".into(),
        Some("uuid") => "00000000-0000-7000-8000-000000000000".into(),
        _ => "x".repeat(schema["minLength"].as_u64().unwrap_or(1).max(1) as usize),
    }
}

pub(crate) async fn document(tenant: &Tenant) -> Value {
    tenant.stranger().get("/openapi.json").await.expect(200)
}

pub(crate) fn none_wrong(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} operations:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn every_operation_refuses_strangers() {
    for_both_databases(async |database| {
        let tenant = Tenant::start(&database).await;
        let document = document(&tenant).await;
        let mut wrong = Vec::new();
        for operation in Operation::all(&document).iter().filter(|operation| !operation.is_public()) {
            for caller in [tenant.stranger(), tenant.caller_with("hyk_never_given_out")] {
                let answer = operation.sent_by(&caller).await;
                if answer.status != 401 || answer.problem(401) != "unauthenticated" {
                    wrong.push(format!("{} answers a stranger {}: {}", operation.name(), answer.status, answer.text()));
                }
            }
        }
        none_wrong(&wrong);
    })
    .await;
}

#[tokio::test]
async fn every_operation_refuses_wrong_scopes() {
    for_both_databases(async |database| {
        let tenant = Tenant::start(&database).await;
        let callers: Vec<_> = SCOPES.iter().map(|scope| (*scope, tenant.caller(scope))).collect();
        let document = document(&tenant).await;
        let mut wrong = Vec::new();
        for operation in Operation::all(&document).iter().filter(|operation| !operation.is_public()) {
            let mut answers = Vec::new();
            for (scope, caller) in &callers {
                answers.push((*scope, operation.status_for(caller).await));
            }
            if UNGUESSABLE.contains(&(operation.method.as_str(), operation.path)) {
                assert!(answers.iter().all(|(_, status)| *status == 400), "{} can be guessed now: {answers:?}", operation.name());
                continue;
            }
            let for_any_key = ANY_KEY.contains(&(operation.method.as_str(), operation.path));
            let refused = answers.iter().filter(|(_, status)| *status == 403).count();
            // Each operation is for some keys and not for all; which ones is said by its own tests.
            let right = if for_any_key { refused == 0 } else { (1..answers.len()).contains(&refused) };
            if !right || answers.iter().any(|(_, status)| *status >= 500 || *status == 401) {
                wrong.push(format!("{}: {answers:?}", operation.name()));
            }
        }
        none_wrong(&wrong);
    })
    .await;
}

#[tokio::test]
async fn every_public_operation_is_in_the_document_and_answers() {
    for_both_databases(async |database| {
        let tenant = Tenant::start(&database).await;
        let document = document(&tenant).await;
        let operations = Operation::all(&document);
        let documented: BTreeSet<_> = operations.iter().map(|operation| (operation.method.as_str(), operation.path)).collect();
        for public in PUBLIC {
            assert!(documented.contains(public), "{public:?} is not in the document");
        }
        let wrong: Vec<_> = operations.iter().filter(|operation| operation.secured == operation.is_public()).map(Operation::name).collect();
        assert!(wrong.is_empty(), "the document is wrong about whether these need a key: {wrong:?}");
        let pages = operations.iter().filter(|operation| operation.is_public() && operation.method == Method::GET);
        for path in pages.map(|operation| operation.path).chain(ABOUT_THE_DOCUMENT.iter().copied()) {
            tenant.stranger().get(path).await.expect_status(200);
        }
    })
    .await;
}

#[tokio::test]
async fn the_command_prints_the_document_that_the_server_serves() {
    let tenant = Tenant::start(&heyuan_harness::TestDatabase::sqlite()).await;
    let printed = std::process::Command::new(heyuan_harness::heyuan_binary()).arg("openapi").output().expect("heyuan runs");
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let printed: Value = serde_json::from_slice(&printed.stdout).expect("heyuan openapi prints JSON");
    assert_eq!(printed, document(&tenant).await);
    assert!(printed["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "{}", printed["openapi"]);
}

#[tokio::test]
async fn generated_bad_input_meets_no_server_error() {
    for_both_databases(async |database| {
        let tenant = Tenant::start(&database).await;
        let key = tenant.caller(&SCOPES.join(","));
        let address = tenant.url();
        let authorization = format!("Authorization: Bearer {}", key.key());
        let (found, output) = python_tool(
            "schemathesis",
            &[
                "run",
                &format!("{address}/openapi.json"),
                "--url",
                &address,
                "--header",
                &authorization,
                "--checks",
                "not_a_server_error",
                "--phases",
                "examples,coverage,fuzzing",
                "--max-examples",
                "10",
                "--seed",
                "20261122",
                "--workers",
                "2",
                "--request-timeout",
                "30",
                "--continue-on-failure",
                // An endless answer, and a body for which no generator is known.
                "--exclude-path",
                "/v1/events/tail",
                "--exclude-path",
                "/v1/plugins/{name}/versions",
                "--warnings",
                "off",
                "--no-color",
            ],
        )
        .await;
        assert!(found, "schemathesis found server errors:\n{output}");
        assert!(!tenant.log().contains("panicked at"), "the server panicked:\n{output}");
    })
    .await;
}
