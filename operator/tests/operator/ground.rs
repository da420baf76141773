//! The ground that operator tests stand on: a control plane with the chart's objects, a server with the operator's role, and a class.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use heyuan_harness::{Access, Behaviour, ControlPlane, OPERATOR_ACCOUNT, OPERATOR_NAMESPACE, Operator, Pods, install_operator};
use heyuan_harness::{Postgres, until, workspace_root};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// How long anything may take that normally takes a second or two; runs beside all other tests.
pub(super) const LIMIT: Duration = Duration::from_secs(180);

/// The control plane that a test stands on.
pub(super) enum Plane {
    /// The one of all tests that start no operator.
    Shared(&'static ControlPlane),
    /// One of its own, gone with the test: a second operator's lease would be in the way.
    Own(Box<ControlPlane>),
}

impl Plane {
    pub(super) async fn own() -> Plane {
        Plane::Own(Box::new(ControlPlane::start().await))
    }

    pub(super) async fn shared() -> Plane {
        Plane::Shared(ControlPlane::shared().await)
    }
}

impl Deref for Plane {
    type Target = ControlPlane;

    fn deref(&self) -> &ControlPlane {
        match self {
            Plane::Shared(plane) => plane,
            Plane::Own(plane) => plane,
        }
    }
}

/// A cluster with the operator installed.
pub(super) struct Ground {
    pub(super) plane: Plane,
    pub(super) admin: Access,
    pub(super) server: &'static Postgres,
}

impl Ground {
    /// Installs on a control plane what the chart installs, but for the operator's Deployment.
    pub(super) async fn on(plane: Plane) -> Self {
        Self::with(plane, Postgres::shared()).await
    }

    /// The same, with a server of its own that goes with the process: to stop it, or to count all that is there.
    pub(super) async fn apart() -> Self {
        Self::with(Plane::own().await, Box::leak(Box::new(Postgres::start()))).await
    }

    async fn with(plane: Plane, server: &'static Postgres) -> Self {
        let admin = plane.admin();
        install_operator(&admin).await;
        give_rights(server);
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "main-admin", "namespace": OPERATOR_NAMESPACE },
            "stringData": { "username": "heyuan_operator", "password": "operator-password" },
        });
        admin.apply(&secret.to_string()).await.expect("the secret is taken");
        let ground = Self { plane, admin, server };
        ground.class("default", json!({})).await;
        ground
    }

    /// The operator's own identity.
    pub(super) async fn operator(&self) -> Access {
        self.plane.service_account(OPERATOR_NAMESPACE, OPERATOR_ACCOUNT).await
    }

    /// The class `default`, with its server at another port: a proxy's.
    pub(super) async fn server_at(&self, port: u16) {
        self.class("default", json!({ "database": { "servers": [server(port)] } })).await;
    }

    /// Writes a class; `more` is laid over its spec.
    pub(super) async fn class(&self, name: &str, more: Value) {
        let mut spec = json!({
            "releases": [{ "name": "1", "image": "heyuan:1" }, { "name": "2", "image": "heyuan:2" }, { "name": "3", "image": "heyuan:3" }],
            "release": "1",
            "sizes": [{ "name": "small", "cpu": "50m", "memory": "256Mi", "connections": 5 }],
            "database": { "servers": [server(self.server.port())] },
            "storage": { "sharedClassName": "shared" },
            "ingress": { "className": "nginx" },
            "network": { "ingressNamespaceLabels": { "team": "doors" }, "monitoringNamespaceLabels": { "team": "watch" } },
            "rollout": { "gateSeconds": 1 },
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        let class = json!({ "apiVersion": "heyuan.dev/v1alpha1", "kind": "TenantClass", "metadata": { "name": name }, "spec": spec });
        self.admin.apply(&class.to_string()).await.expect("the class is taken");
    }

    /// Writes a tenant.
    pub(super) async fn tenant(&self, name: &str, spec: &Value) {
        let tenant = tenant(name, spec);
        self.admin.apply(&tenant.to_string()).await.expect("the tenant is taken");
    }

    /// Changes a tenant's spec by a merge patch.
    pub(super) async fn change(&self, name: &str, spec: Value) {
        let patch = json!({ "spec": spec }).to_string();
        self.admin.kubectl(&["patch", "tenant", name, "--type=merge", "-p", &patch]).await;
    }

    /// The same without kubectl, for changes that come thick and fast.
    pub(super) async fn patch(&self, name: &str, patch: &Value) {
        let request = self.admin.request(Method::PATCH, &format!("/apis/heyuan.dev/v1alpha1/tenants/{name}"));
        let answer = request.header("Content-Type", "application/merge-patch+json").body(patch.to_string()).send().await;
        answer.and_then(|answer| answer.error_for_status()).expect("the change is taken");
    }

    /// Waits until a tenant is gone.
    pub(super) async fn gone(&self, name: &str) {
        until(&format!("tenant {name} is gone"), LIMIT, || async { self.is_gone(name).await.then_some(()) }).await;
    }

    /// Databases of some data on the server: `0` or `1`.
    pub(super) fn databases(&self, data_id: &str) -> String {
        self.sql(&format!("select count(*) from pg_database where datname = 'heyuan_{data_id}'"))
    }

    /// Waits until a condition of the current generation is so.
    pub(super) async fn wait(&self, name: &str, condition: &str, wanted: &str) -> Value {
        until(&format!("tenant {name}: {condition} is {wanted}"), LIMIT, || async {
            let tenant = self.get("tenant", name).await?;
            let generation = &tenant["metadata"]["generation"];
            let found = condition_of(&tenant, condition)?;
            let reason = format!("{} {}", found["status"].as_str()?, found["reason"].as_str()?);
            (reason == wanted && found["observedGeneration"] == *generation).then_some(tenant)
        })
        .await
    }

    /// Waits until a tenant is as its spec wishes.
    pub(super) async fn ready(&self, name: &str) -> Value {
        self.wait(name, "Ready", "True AsWished").await
    }

    /// What is at a path of the API server, if it is there; cheaper than kubectl, for what is asked again and again. Whoever answers
    /// anything else than what is there, or that it is not, is asked again.
    pub(super) async fn at(&self, path: &str) -> Option<Value> {
        until(&format!("{path} is answered"), LIMIT, || async {
            let answer = self.admin.request(Method::GET, path).send().await.ok()?;
            match answer.status() {
                StatusCode::NOT_FOUND => Some(None),
                _ => Some(Some(answer.error_for_status().ok()?.json().await.ok()?)),
            }
        })
        .await
    }

    /// A tenant, if it is there.
    pub(super) async fn look(&self, name: &str) -> Option<Value> {
        self.at(&format!("/apis/heyuan.dev/v1alpha1/tenants/{name}")).await
    }

    /// Whether the API server says that there is no such tenant.
    pub(super) async fn is_gone(&self, name: &str) -> bool {
        self.look(name).await.is_none()
    }

    /// Waits until a tenant's state is so and about its latest spec.
    pub(super) async fn settle(&self, name: &str, limit: Duration) -> Value {
        let last = Mutex::new(Value::Null);
        let settled = until("the tenant is Ready", 2 * limit, || async {
            let tenant = self.look(name).await?;
            let status = &tenant["status"];
            let is_settled = status["state"] == "Ready" && status["observedGeneration"] == tenant["metadata"]["generation"];
            *last.lock().expect("nothing panics while it is held") = status.clone();
            is_settled.then_some(tenant)
        });
        match tokio::time::timeout(limit, settled).await {
            Ok(tenant) => tenant,
            Err(_) => panic!("tenant {name} is not Ready in {limit:?}: {last:#?}"),
        }
    }

    /// A cluster-scoped object, if it is there.
    pub(super) async fn get(&self, kind: &str, name: &str) -> Option<Value> {
        let printed = self.admin.try_kubectl(&["get", kind, name, "-o", "json"]).await.ok()?;
        serde_json::from_str(&printed).ok()
    }

    /// An object of a tenant's namespace, if it is there.
    pub(super) async fn get_in(&self, tenant: &str, kind: &str, name: &str) -> Option<Value> {
        let printed = self.admin.try_kubectl(&["get", kind, name, "-n", &format!("tenant-{tenant}"), "-o", "json"]).await.ok()?;
        serde_json::from_str(&printed).ok()
    }

    /// Runs SQL as the server's superuser and answers what psql prints.
    pub(super) fn sql(&self, statement: &str) -> String {
        psql(&self.server.url("postgres"), statement).expect("the superuser may")
    }
}

/// A database server of a class.
fn server(port: u16) -> Value {
    json!({
        "name": "main", "host": "127.0.0.1", "port": port, "sslMode": "disable", "adminSecretName": "main-admin", "connectionsMax": 10_000,
    })
}

/// A text of a secret.
pub(super) fn text_of(secret: &Value, key: &str) -> String {
    let bytes = STANDARD.decode(secret["data"][key].as_str().unwrap_or_default()).expect("base64");
    String::from_utf8(bytes).expect("text")
}

/// The data id that a tenant's status names.
pub(super) fn data_id_of(tenant: &Value) -> String {
    tenant["status"]["dataId"].as_str().expect("a data id").to_owned()
}

/// A tenant's object.
pub(super) fn tenant(name: &str, spec: &Value) -> Value {
    let mut all = json!({ "displayName": name, "database": { "managed": {} } });
    for (key, value) in spec.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    json!({ "apiVersion": "heyuan.dev/v1alpha1", "kind": "Tenant", "metadata": { "name": name }, "spec": all })
}

/// A condition by its type.
pub(super) fn condition_of<'a>(object: &'a Value, condition: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|one| one["type"] == condition)
}

/// Runs a statement with psql.
pub(super) fn psql(url: &str, statement: &str) -> Result<String, String> {
    let output = Command::new("psql")
        .args([url, "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", statement])
        .stdin(Stdio::null())
        .output()
        .expect("psql runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// docs/operator.sql, once a server.
fn give_rights(server: &Postgres) {
    static DONE: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut done = DONE.lock().expect("a server that refuses fails every test");
    if done.insert(server.port()) {
        let file = workspace_root().join("docs/operator.sql");
        let output = Command::new("psql")
            .args([
                &server.url("postgres"),
                "-X",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "-v",
                "name=heyuan_operator",
                "-v",
                "password=operator-password",
            ])
            .args(["-v", "shared=1", "-f"])
            .arg(file)
            .output()
            .expect("psql runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A cluster of one's own in which the operator runs and pods are played.
pub(super) struct Running {
    pub(super) ground: Ground,
    pub(super) operator: Operator,
    pub(super) pods: Pods,
}

impl Running {
    /// Starts everything on a control plane of its own.
    pub(super) async fn start(arguments: &[&str]) -> Self {
        let ground = Ground::on(Plane::own().await).await;
        let pods = Pods::play(&ground.admin);
        let operator = Operator::start(&ground.operator().await, arguments);
        Self { ground, operator, pods }
    }

    /// How the pods of an image behave from now on.
    pub(super) fn behave(&self, image: &str, behaviour: Behaviour) {
        self.pods.behave(image, behaviour);
    }
}
