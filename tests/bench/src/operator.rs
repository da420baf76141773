//! The operator on a real API server: how soon a tenant's job is there, and what a thousand tenants cost. Pods' answers are played.

mod crowd;
mod spent;

use std::time::{Duration, Instant};

use heyuan_harness::{Access, ApiClient, ControlPlane, OPERATOR_ACCOUNT, OPERATOR_NAMESPACE, Operator, Pods, Postgres, Purpose};
use heyuan_harness::{install_operator, until};
use sea_orm::{ConnectionTrait, Database};
use serde_json::{Value, json};

use crate::report::{Bar, Report, Row, percentile};
use crate::run::Size;
use crowd::Ground;

/// How long a thousand tenants may take, and anything else.
const LIMIT: Duration = Duration::from_secs(1_800);
/// The superuser of the throwaway server plays the operator's role, which docs/operator.sql gives less.
const ROLE: &str = "heyuan";
/// Connections that the throwaway server allows; a tenant is promised eight.
const CONNECTIONS_MAX: usize = 3_000;

/// Measures.
pub(crate) async fn measure(report: &mut Report, size: Size) {
    let plane = ControlPlane::start_for(Purpose::Measure).await;
    let admin = plane.admin();
    install_operator(&admin).await;
    let server = Postgres::start();
    let_in(&server).await;
    prepare(&admin, &server).await;
    let _pods = Pods::play(&admin);
    let account = plane.service_account(OPERATOR_NAMESPACE, OPERATOR_ACCOUNT).await;
    let operator = Operator::start_as_installed(&account, &[]);
    let singles = size.pick(whole("SINGLES", 100), 3);
    one_by_one(report, &admin, singles).await;
    let ground = Ground { plane: &plane, admin: &admin, account: &account };
    ground.many(report, operator, singles, size).await;
}

/// A size that the environment may change.
fn whole(what: &str, default: u64) -> usize {
    usize::try_from(crate::setting(&format!("HEYUAN_BENCH_OPERATOR_{what}"), default)).expect("it fits the machine")
}

/// Lets so many tenants onto the server that the operator is what is measured.
async fn let_in(server: &Postgres) {
    let admin = Database::connect(server.url("postgres")).await.expect("the throwaway PostgreSQL accepts connections");
    admin.execute_unprepared(&format!("ALTER SYSTEM SET max_connections = {CONNECTIONS_MAX}")).await.expect("the superuser may");
    admin.close().await.expect("an idle connection closes");
    server.crash();
    server.start_again();
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
                "connectionsMax": CONNECTIONS_MAX,
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
    let api = admin.client();
    let (mut to_job, mut to_deployment, mut to_ready) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..count {
        let name = format!("single-{number}");
        let object = tenant(&name, &json!({ "managed": {} })).to_string();
        let of_namespace = |group: &str, kind: &str| format!("/apis/{group}/v1/namespaces/tenant-{name}/{kind}?timeoutSeconds=1800");
        let of_tenant = format!("/apis/heyuan.dev/v1alpha1/tenants?fieldSelector=metadata.name={name}");
        let watch = |path: String, is: fn(&Value) -> bool| tokio::spawn(seen(api.clone(), path, is));
        let made = watch(of_namespace("batch", "jobs"), |_| true);
        let done = watch(of_namespace("batch", "jobs"), |job| job["status"]["succeeded"] == 1);
        let deployed = watch(of_namespace("apps", "deployments"), |_| true);
        let ready = watch(of_tenant, is_ready);
        admin.apply(&object).await.expect("the tenant is taken");
        let applied = Instant::now();
        let [made, done, deployed, ready] = [made, done, deployed, ready].map(|watch| async { watch.await.expect("the watch goes on") });
        to_ready.push(ready.await.saturating_duration_since(applied));
        to_job.push(made.await.saturating_duration_since(applied));
        to_deployment.push(deployed.await.saturating_duration_since(done.await));
    }
    let rows = [
        (
            "operator: apply to migration job, database included, p99",
            to_job,
            Bar::AtMost(1_000.0),
            "from the end of kubectl apply until a watch tells",
        ),
        ("operator: job done to Deployment applied, p99", to_deployment, Bar::AtMost(250.0), "between what two watches tell"),
        ("operator: apply to Ready, pods played, p99", to_ready, Bar::None, "from the end of kubectl apply until a watch tells"),
    ];
    for (name, mut times, bar, how) in rows {
        let [half, most] = [0.5, 0.99].map(|share| percentile(&mut times, share).as_secs_f64() * 1e3);
        let method =
            format!("{count} managed tenants one after the other, {how}; etcd and PostgreSQL sync what they write; p50 {half:.0} ms");
        report.add(Row::new(name, most, "ms", bar, &method));
    }
}

/// When a watch first tells of such an object.
async fn seen(api: ApiClient, path: String, is: fn(&Value) -> bool) -> Instant {
    let mut watch = until("the watch begins", LIMIT, || api.watch(&path)).await;
    loop {
        let event = watch.next().await.expect("the watch goes on");
        if is(&event["object"]) {
            return Instant::now();
        }
    }
}

fn is_ready(tenant: &Value) -> bool {
    tenant["status"]["state"] == "Ready"
}
