//! Plays the kubelet for tenants' pods: gives each an address of 127.0.0.0/8, makes it ready, ends jobs, and answers on the operator port as
//! a tenant's process would, or as one that misbehaves.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
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

use crate::kubernetes::Access;

/// Where a tenant's process answers its operator.
const OPERATOR_PORT: u16 = 8081;
/// How often pods are looked at.
const LOOK: Duration = Duration::from_millis(30);

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
    access: Access,
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
        let shared =
            Arc::new(Shared { access: access.clone(), behaviours: Mutex::default(), orders: Mutex::default(), first: Mutex::default() });
        let task = tokio::spawn(play(shared.clone()));
        Self { shared, task }
    }

    /// From now on pods of this image behave so.
    pub fn behave(&self, image: &str, behaviour: Behaviour) {
        self.shared.behaviours.lock().expect("nothing panics while it is held").insert(image.to_owned(), behaviour);
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

async fn play(shared: Arc<Shared>) {
    let mut servers: HashMap<String, (Ipv4Addr, JoinHandle<()>)> = HashMap::new();
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let pods = match ask(&shared.access, Method::GET, "/api/v1/pods?labelSelector=heyuan.dev/tenant", None).await {
            Some(list) => list["items"].as_array().cloned().unwrap_or_default(),
            None => Vec::new(),
        };
        let uid = |pod: &Value| pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let alive: Vec<String> = pods.iter().map(uid).collect();
        servers.retain(|one, (_, server)| {
            let stays = alive.contains(one);
            if !stays {
                server.abort();
            }
            stays
        });
        for pod in &pods {
            if pod["metadata"]["labels"]["app.kubernetes.io/component"] == "migration" {
                end_migration(&shared, pod).await;
                continue;
            }
            let address = match servers.get(&uid(pod)) {
                Some((address, _)) => *address,
                None => {
                    let address = fresh_address();
                    servers.insert(uid(pod), (address, tokio::spawn(serve(shared.clone(), pod.clone(), address))));
                    address
                }
            };
            make_ready(&shared, pod, address).await;
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

async fn end_migration(shared: &Shared, pod: &Value) {
    if pod["status"]["phase"] != "Pending" {
        return;
    }
    let (phase, code, message) = match shared.behaviour(&image(pod)).migration {
        Ok(report) => ("Succeeded", 0, report.to_string()),
        Err(words) => ("Failed", 1, words),
    };
    let status = json!({ "status": { "phase": phase, "containerStatuses": [{
        "name": "migrate", "image": image(pod), "imageID": "played", "ready": false, "restartCount": 0,
        "state": { "terminated": { "exitCode": code, "message": message, "reason": if code == 0 { "Completed" } else { "Error" } } },
    }] } });
    ask(&shared.access, Method::PATCH, &path(pod), Some(&status)).await;
}

async fn make_ready(shared: &Shared, pod: &Value, address: Ipv4Addr) {
    let wanted = if shared.behaviour(&image(pod)).ready { "True" } else { "False" };
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let is = conditions.iter().find(|one| one["type"] == "Ready").map(|one| one["status"] == wanted);
    if pod["status"]["podIP"].is_string() && is == Some(true) {
        return;
    }
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).expect("a second of today").to_string();
    let status = json!({ "status": {
        "phase": "Running", "podIP": address.to_string(), "podIPs": [{ "ip": address.to_string() }],
        "conditions": [
            { "type": "Ready", "status": wanted, "lastTransitionTime": now },
            { "type": "ContainersReady", "status": wanted, "lastTransitionTime": now },
        ],
    } });
    ask(&shared.access, Method::PATCH, &path(pod), Some(&status)).await;
}

async fn ask(access: &Access, method: Method, path: &str, body: Option<&Value>) -> Option<Value> {
    let mut request = access.request(method, path);
    if let Some(body) = body {
        request = request.header("Content-Type", "application/strategic-merge-patch+json").body(body.to_string());
    }
    request.send().await.ok()?.error_for_status().ok()?.json().await.ok()
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
    let secret = secret(&shared.access, &namespace).await;
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
async fn secret(access: &Access, namespace: &str) -> HashMap<String, String> {
    let secret = ask(access, Method::GET, &format!("/api/v1/namespaces/{namespace}/secrets/heyuan"), None).await.unwrap_or_default();
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
