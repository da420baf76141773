//! Plays the kubelet for tenants' pods: gives each an address of 127.0.0.0/8, makes it ready, ends jobs, and answers on the operator port as
//! a tenant's process would, or as one that misbehaves.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::stream::{self, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::kubernetes::{Access, ApiClient, Watch};

/// Where a tenant's process answers its operator.
const OPERATOR_PORT: u16 = 8081;
/// Pods of tenants.
const PODS: &str = "/api/v1/pods?labelSelector=heyuan.dev/tenant";
/// How often what is due is done.
const LOOK: Duration = Duration::from_millis(30);
/// Statuses that are written at once.
const WRITES: usize = 8;

/// How the pods of an image behave.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// What the migration job reports, or the words with which it fails.
    pub migration: Result<Value, String>,
    /// Whether serving pods become ready.
    pub ready: bool,
    /// Answers with a status of 200, and of 500, that they count.
    pub answers: (u64, u64),
    /// Whether they follow a new password.
    pub follows_password: bool,
    /// A status with which the operator's orders are refused.
    pub refuses: Option<u16>,
}

impl Default for Behaviour {
    fn default() -> Self {
        let report = json!({ "release": "test", "schema": { "level": 1, "serves_from": "0" }, "verdict": "current", "may_serve": true, "words": "" });
        Self { migration: Ok(report), ready: true, answers: (100, 0), follows_password: true, refuses: None }
    }
}

/// What a process was told: method, path and body, by namespace.
pub type Orders = Vec<(String, String, Value)>;

#[derive(Debug)]
struct Shared {
    api: ApiClient,
    /// How often behaviours have changed.
    changes: AtomicU64,
    behaviours: Mutex<HashMap<String, Behaviour>>,
    orders: Mutex<HashMap<String, Orders>>,
    /// The content of the credentials file that a pod read first, for one that does not follow.
    first: Mutex<HashMap<String, String>>,
}

/// The kubelet that is played; dropped, pods get no answers any more.
#[derive(Debug)]
pub struct Pods {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Pods {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pods {
    /// Plays for every tenant of the cluster.
    pub fn play(access: &Access) -> Self {
        let shared = Arc::new(Shared {
            api: access.client(),
            changes: AtomicU64::new(0),
            behaviours: Mutex::default(),
            orders: Mutex::default(),
            first: Mutex::default(),
        });
        let task = tokio::spawn(play(shared.clone()));
        Self { shared, task }
    }

    /// From now on pods of this image behave so.
    pub fn behave(&self, image: &str, behaviour: Behaviour) {
        self.shared.behaviours.lock().expect("nothing panics while it is held").insert(image.to_owned(), behaviour);
        self.shared.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// What the processes of a namespace were told so far.
    pub fn orders(&self, namespace: &str) -> Orders {
        self.shared.orders.lock().expect("nothing panics while it is held").get(namespace).cloned().unwrap_or_default()
    }
}

impl Shared {
    fn behaviour(&self, image: &str) -> Behaviour {
        self.behaviours.lock().expect("nothing panics while it is held").get(image).cloned().unwrap_or_default()
    }
}

/// Plays for ever: lists the pods, follows them, and begins anew where that breaks off.
async fn play(shared: Arc<Shared>) {
    let mut stage = Stage { shared, pods: HashMap::new(), due: HashSet::new(), servers: HashMap::new(), behaviours: 0 };
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let Some(mut watch) = stage.list().await else { continue };
        loop {
            let event = tokio::select! {
                event = watch.next() => event,
                _ = looks.tick() => {
                    stage.act().await;
                    continue;
                }
            };
            match event {
                Some(event) if event["type"] != "ERROR" => stage.take(event),
                _ => break,
            }
        }
    }
}

/// A process that is played; dropped, it answers no more.
struct Server {
    address: Ipv4Addr,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Every pod as the API server told of it last, and what is played for it.
struct Stage {
    shared: Arc<Shared>,
    pods: HashMap<String, Value>,
    /// Pods of which something is new, or whose status could not be written.
    due: HashSet<String>,
    servers: HashMap<String, Server>,
    /// How often behaviours had changed when every pod was looked at.
    behaviours: u64,
}

fn uid(pod: &Value) -> String {
    pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}

fn version(pod: &Value) -> u64 {
    pod["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

impl Stage {
    /// Lists all pods of tenants, and watches from there on.
    async fn list(&mut self) -> Option<Watch> {
        let mut list = self.shared.api.get(PODS).await?;
        let version = list["metadata"]["resourceVersion"].as_str()?.to_owned();
        let Value::Array(pods) = list["items"].take() else { return None };
        let listed: HashMap<String, Value> = pods.into_iter().map(|pod| (uid(&pod), pod)).collect();
        self.servers.retain(|uid, _| listed.contains_key(uid));
        self.due = listed.keys().cloned().collect();
        self.pods = listed;
        self.shared.api.watch(&format!("{PODS}&resourceVersion={version}")).await
    }

    /// Takes an event in.
    fn take(&mut self, mut event: Value) {
        let pod = event["object"].take();
        let uid = uid(&pod);
        if event["type"] == "DELETED" {
            self.servers.remove(&uid);
            self.pods.remove(&uid);
        } else {
            self.keep(uid, pod);
        }
    }

    fn keep(&mut self, uid: String, pod: Value) {
        if self.pods.get(&uid).is_none_or(|known| version(known) < version(&pod)) {
            self.due.insert(uid.clone());
            self.pods.insert(uid, pod);
        }
    }

    /// Writes the statuses that a kubelet would write by now.
    async fn act(&mut self) {
        let behaviours = self.shared.changes.load(Ordering::SeqCst);
        if behaviours != self.behaviours {
            self.behaviours = behaviours;
            self.due = self.pods.keys().cloned().collect();
        }
        let due: Vec<String> = self.due.drain().collect();
        let mut writes = Vec::new();
        for uid in due {
            let Some(pod) = self.pods.get(&uid) else { continue };
            let status = if pod["metadata"]["labels"]["app.kubernetes.io/component"] == "migration" {
                ended_migration(&self.shared, pod)
            } else {
                let shared = &self.shared;
                let server = self.servers.entry(uid.clone()).or_insert_with(|| {
                    let address = fresh_address();
                    Server { address, task: tokio::spawn(serve(shared.clone(), pod.clone(), address)) }
                });
                made_ready(&self.shared, pod, server.address)
            };
            writes.extend(status.map(|status| (uid, path(pod), status)));
        }
        let shared = &self.shared;
        let answers: Vec<(String, Option<Value>)> = stream::iter(writes)
            .map(|(uid, path, status)| async move { (uid, patch(shared, &path, &status).await) })
            .buffer_unordered(WRITES)
            .collect()
            .await;
        for (uid, answer) in answers {
            match answer {
                Some(pod) if self.pods.contains_key(&uid) => self.keep(uid, pod),
                Some(_) => {}
                None => drop(self.due.insert(uid)),
            }
        }
    }
}

/// An address that no other pod of this process has, and hardly one of another.
fn fresh_address() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [middle, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let process = u8::try_from(std::process::id() % 200).expect("less than 200");
    Ipv4Addr::new(127, 20 + process, middle, low)
}

fn image(pod: &Value) -> String {
    pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned()
}

fn path(pod: &Value) -> String {
    let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
    format!("/api/v1/namespaces/{}/pods/{}/status", text("namespace"), text("name"))
}

/// What a kubelet writes at the end of a migration, unless that is written.
fn ended_migration(shared: &Shared, pod: &Value) -> Option<Value> {
    if pod["status"]["phase"] != "Pending" {
        return None;
    }
    let (phase, code, message) = match shared.behaviour(&image(pod)).migration {
        Ok(report) => ("Succeeded", 0, report.to_string()),
        Err(words) => ("Failed", 1, words),
    };
    Some(json!({ "status": { "phase": phase, "containerStatuses": [{
        "name": "migrate", "image": image(pod), "imageID": "played", "ready": false, "restartCount": 0,
        "state": { "terminated": { "exitCode": code, "message": message, "reason": if code == 0 { "Completed" } else { "Error" } } },
    }] } }))
}

/// What a kubelet writes of a serving pod, unless that is written.
fn made_ready(shared: &Shared, pod: &Value, address: Ipv4Addr) -> Option<Value> {
    let wanted = if shared.behaviour(&image(pod)).ready { "True" } else { "False" };
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let is = conditions.find(|one| one["type"] == "Ready").map(|one| one["status"] == wanted);
    if pod["status"]["podIP"].is_string() && is == Some(true) {
        return None;
    }
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).expect("a second of today").to_string();
    Some(json!({ "status": {
        "phase": "Running", "podIP": address.to_string(), "podIPs": [{ "ip": address.to_string() }],
        "conditions": [
            { "type": "Ready", "status": wanted, "lastTransitionTime": now },
            { "type": "ContainersReady", "status": wanted, "lastTransitionTime": now },
        ],
    } }))
}

/// Writes a status; `None` where that was refused or nobody answered.
async fn patch(shared: &Shared, path: &str, status: &Value) -> Option<Value> {
    let request = shared.api.request(Method::PATCH, path).header("Content-Type", "application/strategic-merge-patch+json");
    request.body(status.to_string()).send().await.ok()?.error_for_status().ok()?.json().await.ok()
}

async fn serve(shared: Arc<Shared>, pod: Value, address: Ipv4Addr) {
    let Ok(listener) = TcpListener::bind((address, OPERATOR_PORT)).await else { return };
    while let Ok((stream, _)) = listener.accept().await {
        let (shared, pod) = (shared.clone(), pod.clone());
        tokio::spawn(async move {
            let answering = service_fn(move |request| {
                let (shared, pod) = (shared.clone(), pod.clone());
                async move { Ok::<_, Infallible>(answer(&shared, &pod, request).await) }
            });
            // A connection that breaks is the caller's to notice.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answering).await;
        });
    }
}

async fn answer(shared: &Shared, pod: &Value, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let behaviour = shared.behaviour(&image(pod));
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let bearer = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
    if path == "/metrics" {
        let (good, bad) = behaviour.answers;
        let line = |status: u16, count: u64| {
            format!(
                "http_server_request_duration_seconds_count{{http_response_status_code=\"{status}\",http_route=\"/v1/batch\"}} {count}\n"
            )
        };
        return reply(200, line(200, good) + &line(500, bad));
    }
    let secret = secret(&shared.api, &namespace).await;
    if bearer != format!("Bearer {}", secret.get("operator-key").map(String::as_str).unwrap_or_default()) {
        return reply(401, json!({ "code": "unauthorized", "detail": "not the operator's key" }).to_string());
    }
    if path == "/v1/operator/status" {
        let mut url = secret.get("database-url").cloned().unwrap_or_default();
        if !behaviour.follows_password {
            let uid = pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
            url = shared.first.lock().expect("nothing panics while it is held").entry(uid).or_insert(url).clone();
        }
        let digest: String = Sha256::digest(url.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let status = json!({ "ready": true, "database": { "generation": digest, "connections_draining": 0 }, "plugins": [] });
        return reply(200, status.to_string());
    }
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    if let Some(status) = behaviour.refuses {
        return reply(status, json!({ "code": "refused", "detail": "as the test says" }).to_string());
    }
    shared.orders.lock().expect("nothing panics while it is held").entry(namespace).or_default().push((method, path, body.clone()));
    reply(200, json!({ "state": body["mode"], "managed_by": "operator", "digest": "sha256:played", "message": "" }).to_string())
}

/// What a pod would find mounted.
async fn secret(api: &ApiClient, namespace: &str) -> HashMap<String, String> {
    let secret = api.get(&format!("/api/v1/namespaces/{namespace}/secrets/heyuan")).await.unwrap_or_default();
    let data = secret["data"].as_object().cloned().unwrap_or_default();
    let text = |value: &Value| {
        let bytes = STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_default()
    };
    data.iter().map(|(key, value)| (key.clone(), text(value))).collect()
}

fn reply(status: u16, body: String) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(Bytes::from(body))).expect("a status and a body")
}
