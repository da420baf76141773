//! The operator on a real API server: how soon a tenant's job is there, and what a thousand tenants cost. Pods' answers are played.

use std::time::{Duration, Instant};

use heyuan_harness::{Access, ControlPlane, OPERATOR_ACCOUNT, OPERATOR_NAMESPACE, Operator, Pods, Postgres, install_operator, until};
use serde_json::{Value, json};

use crate::report::{Bar, Report, Row, percentile};
use crate::run::{Size, resident_mib};

/// How long a thousand tenants may take, and anything else.
const LIMIT: Duration = Duration::from_secs(1_800);
/// Tenants of one `kubectl apply`.
const APPLIED: usize = 100;
/// The superuser of the throwaway server plays the operator's role, which docs/operator.sql gives less.
const ROLE: &str = "heyuan";

/// Measures.
pub(crate) async fn measure(report: &mut Report, size: Size) {
    let plane = ControlPlane::start().await;
    let admin = plane.admin();
    install_operator(&admin).await;
    let server = Postgres::start();
    prepare(&admin, &server).await;
    let _pods = Pods::play(&admin);
    let account = plane.service_account(OPERATOR_NAMESPACE, OPERATOR_ACCOUNT).await;
    let operator = Operator::start(&account, &[]);
    let singles = size.pick(20, 3);
    one_by_one(report, &admin, singles).await;
    many(report, &admin, &account, operator, (singles, size.pick(1_000, 10))).await;
}

async fn prepare(admin: &Access, server: &Postgres) {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "main-admin", "namespace": OPERATOR_NAMESPACE },
        "stringData": { "username": ROLE, "password": "unused-since-the-server-trusts" },
    });
    let class = json!({
        "apiVersion": "heyuan.dev/v1alpha1", "kind": "TenantClass", "metadata": { "name": "default" },
        "spec": {
            "releases": [{ "name": "1", "image": "heyuan:1" }],
            "release": "1",
            "sizes": [{ "name": "small", "cpu": "50m", "memory": "256Mi", "connections": 3 }],
            "database": { "servers": [{
                "name": "main", "host": "127.0.0.1", "port": server.port(), "sslMode": "disable", "adminSecretName": "main-admin",
            }] },
        },
    });
    for object in [secret, class] {
        admin.apply(&object.to_string()).await.expect("the API server takes it");
    }
}

fn tenant(name: &str, database: &Value) -> Value {
    json!({
        "apiVersion": "heyuan.dev/v1alpha1", "kind": "Tenant", "metadata": { "name": name },
        "spec": { "displayName": name, "database": database },
    })
}

/// Tenants with a database of their own, one after the other on an idle operator.
async fn one_by_one(report: &mut Report, admin: &Access, count: usize) {
    let (mut to_job, mut to_deployment, mut to_ready) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..count {
        let name = format!("single-{number}");
        let object = tenant(&name, &json!({ "managed": {} })).to_string();
        let watch = |group: &str, kind: &str, is: fn(&Value) -> bool| {
            let path = format!("/apis/{group}/v1/namespaces/tenant-{name}/{kind}?watch=1");
            tokio::spawn(seen(admin.clone(), path, is))
        };
        let made = watch("batch", "jobs", |_| true);
        let done = watch("batch", "jobs", |job| job["status"]["succeeded"] == 1);
        let deployed = watch("apps", "deployments", |_| true);
        admin.apply(&object).await.expect("the tenant is taken");
        let applied = Instant::now();
        until("the tenant is ready", LIMIT, || async { (ready_of(admin, &name).await).then_some(()) }).await;
        to_ready.push(applied.elapsed());
        let [made, done, deployed] = [made, done, deployed].map(|watch| async { watch.await.expect("the watch goes on") });
        to_job.push(made.await.saturating_duration_since(applied));
        to_deployment.push(deployed.await.saturating_duration_since(done.await));
    }
    let method = format!(
        "{count} tenants one after the other, from the end of kubectl apply until a watch tells; PostgreSQL's fsync on; the slowest, p50 {:.2} s",
        percentile(&mut to_job, 0.5).as_secs_f64()
    );
    let slowest = |times: &[Duration]| times.iter().max().map_or(0.0, Duration::as_secs_f64);
    report.add(Row::new("operator: apply to migration job, database included", slowest(&to_job), "s", Bar::AtMost(1.0), &method));
    let method = format!(
        "the same tenants, between what two watches tell; the slowest, p50 {:.0} ms",
        percentile(&mut to_deployment, 0.5).as_secs_f64() * 1e3
    );
    let milliseconds = slowest(&to_deployment) * 1e3;
    report.add(Row::new("operator: job done to Deployment applied", milliseconds, "ms", Bar::AtMost(250.0), &method));
    let method = "the same tenants, from the end of kubectl apply, asked every 20 ms; the slowest";
    report.add(Row::new("operator: apply to Ready, pods played", slowest(&to_ready), "s", Bar::None, method));
}

/// Many tenants at once; then a new operator looks at all of them, and at those that were there before.
async fn many(report: &mut Report, admin: &Access, account: &Access, operator: Operator, (before, count): (usize, usize)) {
    let start = Instant::now();
    let names: Vec<String> = (0..count).map(|number| format!("many-{number}")).collect();
    for part in names.chunks(APPLIED) {
        let objects: Vec<String> = part.iter().map(|name| tenant(name, &json!({ "embedded": {} })).to_string()).collect();
        admin.apply(&objects.join("\n---\n")).await.expect("the tenants are taken");
    }
    until("every tenant is ready", LIMIT, || async { (ready(admin).await >= count).then_some(()) }).await;
    let method = format!(
        "{count} embedded tenants applied {APPLIED} at a time; pods played; API server, etcd and controllers on the same two cores"
    );
    report.add(Row::new("operator: tenants until all are ready", start.elapsed().as_secs_f64(), "s", Bar::AtMost(300.0), &method));
    report.add(Row::new("operator: memory with them", resident_mib(operator.id()), "MiB", Bar::AtMost(128.0), "VmRSS of the process"));
    drop(operator);
    // The dead leader's lease would only be waited for.
    admin.kubectl(&["delete", "lease", "--all", "-n", OPERATOR_NAMESPACE]).await;
    let operator = Operator::start(account, &[]);
    let wanted = (before + count) as f64;
    until("a new operator has looked at every tenant", LIMIT, || async {
        (operator.metric("heyuan_operator_unchanged_total", "").await >= wanted).then_some(())
    })
    .await;
    let mut writes = 0.0;
    for verb in ["apply", "create", "patch", "update", "delete"] {
        writes += operator.metric("heyuan_operator_api_calls_total", &format!("verb=\"{verb}\"")).await;
    }
    let reads = operator.metric("heyuan_operator_api_calls_total", "verb=\"get\"").await;
    let method = "a fresh operator looks at every converged tenant; counted by verb; the lists of its first watches are not among them";
    report.add(Row::new("operator: writes of a look at all", writes, "requests", Bar::AtMost(0.0), method));
    report.add(Row::new("operator: reads of a look at all, a tenant", reads / wanted, "requests", Bar::AtMost(1.0), method));
}

async fn list(admin: &Access, path: &str) -> Vec<Value> {
    let answer = admin.request(reqwest::Method::GET, path).send().await;
    let Ok(answer) = answer else { return Vec::new() };
    let list: Value = answer.json().await.unwrap_or_default();
    list["items"].as_array().cloned().unwrap_or_default()
}

/// When a watch first tells of such an object.
async fn seen(admin: Access, path: String, is: fn(&Value) -> bool) -> Instant {
    let mut told = Vec::new();
    let mut answer = admin.request(reqwest::Method::GET, &path).send().await.expect("the watch begins");
    loop {
        let chunk = answer.chunk().await.expect("the watch goes on").expect("the watch lasts");
        told.extend_from_slice(&chunk);
        while let Some(end) = told.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = told.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).expect("an event is JSON");
            if event["type"] != "BOOKMARK" && is(&event["object"]) {
                return Instant::now();
            }
        }
    }
}

async fn ready(admin: &Access) -> usize {
    let tenants = list(admin, "/apis/heyuan.dev/v1alpha1/tenants").await;
    tenants
        .iter()
        .filter(|tenant| tenant["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("many-")))
        .filter(|tenant| is_ready(tenant))
        .count()
}

async fn ready_of(admin: &Access, name: &str) -> bool {
    list(admin, "/apis/heyuan.dev/v1alpha1/tenants").await.iter().any(|tenant| tenant["metadata"]["name"] == name && is_ready(tenant))
}

fn is_ready(tenant: &Value) -> bool {
    tenant["status"]["state"] == "Ready"
}
