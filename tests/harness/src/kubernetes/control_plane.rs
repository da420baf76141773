//! A control plane of one's own: etcd, API server and controllers on free ports of 127.0.0.1, gone with the process that asked for it.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use reqwest::Method;
use tokio::sync::OnceCell;

use crate::kubernetes::Access;
use crate::kubernetes::access::kubernetes_binary;
use crate::postgres::free_port;
use crate::process::{spawn_bound, workspace_root};
use crate::until;

/// How often a start is tried: another process may take a free port between finding it and binding it.
const STARTS_MAX: u32 = 3;

/// Two seconds on an idle machine; generous, since a start runs beside other tests.
const START_LIMIT: Duration = Duration::from_secs(180);
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// How many bytes of a log a failed start shows.
const LOG_SHOWN: usize = 4 * 1024;

/// Services get addresses from here; nothing listens on them, since nothing here runs pods.
const SERVICES: &str = "10.213.64.0/18";

/// An address that the API server tells of itself inside the cluster (from the range for documentation): without it, it wants a route to
/// the outside.
const ADVERTISED: &str = "192.0.2.1";

/// Its standard input closes when the test process ends, however it ends; the programs are gone by then or a moment later.
const KEEPER: &str = r#"
while read -r _; do :; done
for attempt in 1 2 3 4 5; do rm -rf "$1" && exit; sleep 1; done
"#;

/// Each of the controllers may call 20 times a second otherwise, and a thousand tenants would only measure that.
const LARGE: &[&str] = &["--kube-api-qps=200", "--kube-api-burst=400"];

static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();

/// A running control plane; dropped, or with the end of the process, its programs are killed and its files are removed.
#[derive(Debug)]
pub struct ControlPlane {
    folder: PathBuf,
    ports: Ports,
    purpose: Purpose,
    api_server: Mutex<Option<Program>>,
    controllers: Mutex<Program>,
    etcd: Program,
    _keeper: Keeper,
}

/// What a control plane is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// What is written may be lost with the machine.
    Test,
    /// etcd syncs what it writes, as in production, and controllers may call as often as those of a large cluster.
    Measure,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    api_server: u16,
    etcd: u16,
    etcd_peers: u16,
}

impl ControlPlane {
    /// The one that all tests of this process share, started by the first that asks. A test takes names of its own in it.
    pub async fn shared() -> &'static Self {
        SHARED.get_or_init(Self::start).await
    }

    /// One of one's own, for a test that stops its API server.
    pub async fn start() -> Self {
        Self::start_for(Purpose::Test).await
    }

    /// One of one's own for a purpose.
    pub async fn start_for(purpose: Purpose) -> Self {
        for _ in 1..STARTS_MAX {
            if let Ok(started) = Self::try_start(purpose).await {
                return started;
            }
        }
        Self::try_start(purpose).await.unwrap_or_else(|complaint| panic!("the control plane does not start: {complaint}"))
    }

    async fn try_start(purpose: Purpose) -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("heyuan-kubernetes-").tempdir().expect("the temporary folder is writable").keep();
        let keeper = Keeper::of(&folder);
        let ports = Ports { api_server: free_port(), etcd: free_port(), etcd_peers: free_port() };
        make_certificates(&folder, ports.api_server);
        let mut etcd = Program::start(&folder, "etcd", Path::new("etcd"), &etcd_arguments(ports, purpose))?;
        let mut api_server = start_api_server(&folder, ports)?;
        let admin = admin(&folder, ports);
        until("the API server is ready", START_LIMIT, || {
            let ended = etcd.ended().or_else(|| api_server.ended());
            let admin = &admin;
            async move {
                match ended {
                    Some(complaint) => Some(Err(complaint)),
                    None => is_ready(admin).await.then_some(Ok(())),
                }
            }
        })
        .await?;
        let controllers = start_controllers(&folder, purpose)?;
        let (api_server, controllers) = (Mutex::new(Some(api_server)), Mutex::new(controllers));
        Ok(Self { folder, ports, purpose, api_server, controllers, etcd, _keeper: keeper })
    }

    /// `https://127.0.0.1:PORT`, the same after [`ControlPlane::start_api_server_again`].
    pub fn url(&self) -> String {
        url(self.ports)
    }

    /// Its running programs by name, with their process ids.
    pub fn processes(&self) -> Vec<(&'static str, u32)> {
        let of_api_server = self.api_server.lock().expect("nothing panics while it is held").as_ref().map(|program| program.process.id());
        let of_controllers = self.controllers.lock().expect("nothing panics while it is held").process.id();
        let of_api_server = of_api_server.map(|id| ("API server", id));
        of_api_server.into_iter().chain([("etcd", self.etcd.process.id()), ("controllers", of_controllers)]).collect()
    }

    /// A metric of etcd's, without labels.
    pub async fn etcd_metric(&self, name: &str) -> f64 {
        let client = reqwest::Client::builder().no_proxy().build().expect("the client needs nothing");
        let answer = client.get(format!("http://127.0.0.1:{}/metrics", self.ports.etcd)).send().await.expect("etcd answers");
        let text = answer.text().await.expect("etcd answers to the end");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("etcd has no metric {name}"))
    }

    pub(super) fn port(&self) -> u16 {
        self.ports.api_server
    }

    /// The folder that `tests/kubernetes/certificates.sh` filled.
    pub(super) fn certificates(&self) -> PathBuf {
        self.folder.join("certificates")
    }

    /// The certificate by which clients know the API server, and its proxies.
    pub fn certificate_authority(&self) -> PathBuf {
        self.certificates().join("ca.crt")
    }

    /// May do everything: for the test, never for what it tests.
    pub fn admin(&self) -> Access {
        admin(&self.folder, self.ports)
    }

    /// A ServiceAccount that exists already, by a token of its own.
    pub async fn service_account(&self, namespace: &str, name: &str) -> Access {
        self.admin().service_account(namespace, name).await
    }

    /// Ends the API server as `kill -9` does.
    pub fn kill_api_server(&self) {
        self.api_server.lock().expect("nothing panics while it is held").take().expect("the API server is running");
    }

    /// Starts it again on the same data and the same port, and waits until it is ready.
    pub async fn start_api_server_again(&self) {
        let started = start_api_server(&self.folder, self.ports).expect("the API server starts again");
        let before = self.api_server.lock().expect("nothing panics while it is held").replace(started);
        assert!(before.is_none(), "the API server is still running");
        let admin = self.admin();
        until("the API server is ready again", START_LIMIT, || async { is_ready(&admin).await.then_some(()) }).await;
        // Controllers that had not begun when the API server went have ended with it: a node would start them again.
        let mut controllers = self.controllers.lock().expect("nothing panics while it is held");
        if controllers.ended().is_some() {
            *controllers = start_controllers(&self.folder, self.purpose).expect("the controllers start again");
        }
    }
}

/// A program with its log beside its data; dropped, it is killed.
#[derive(Debug)]
struct Program {
    name: String,
    process: Child,
    log: PathBuf,
}

impl Program {
    /// Starts `file` in the control plane's folder; for [`kubernetes_binary`], the name is also the first argument.
    fn start(folder: &Path, name: &str, file: &Path, arguments: &[String]) -> Result<Self, String> {
        let log = folder.join(format!("{name}.log"));
        let to_log = OpenOptions::new().create(true).append(true).open(&log).map_err(|error| error.to_string())?;
        let process = spawn_bound(file, |command| {
            if file == kubernetes_binary() {
                command.arg(name);
            }
            let errors: File = to_log.try_clone().expect("a file can be shared");
            command.args(arguments).current_dir(folder).env("NO_PROXY", "*").stdin(Stdio::null()).stdout(to_log).stderr(errors);
        });
        let process = process.map_err(|error| format!("{name} does not start: {error}"))?;
        Ok(Self { name: name.to_owned(), process, log })
    }

    /// Says how it ended and what it logged last, once it has ended by itself.
    fn ended(&mut self) -> Option<String> {
        let status = self.process.try_wait().expect("a child can be waited for")?;
        let log = fs::read(&self.log).unwrap_or_default();
        let shown = String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_SHOWN)..]).into_owned();
        Some(format!("{} ended with {status}:\n{shown}", self.name))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Removes the folder; dropped last, it is waited for.
#[derive(Debug)]
struct Keeper {
    process: Child,
    alive: Option<ChildStdin>,
}

impl Keeper {
    fn of(folder: &Path) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "keeper"]).arg(folder);
        // Its own process group: Ctrl-C ends the tests, and the keeper then cleans up after them.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = command.spawn().expect("sh runs");
        let alive = process.stdin.take();
        Self { process, alive }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.alive.take());
        let _ = self.process.wait();
    }
}

fn url(ports: Ports) -> String {
    format!("https://127.0.0.1:{}", ports.api_server)
}

fn admin(folder: &Path, ports: Ports) -> Access {
    Access::admin(url(ports), folder.join("certificates"))
}

fn make_certificates(folder: &Path, port: u16) {
    let output = Command::new(workspace_root().join("tests/kubernetes/certificates.sh"))
        .arg(folder.join("certificates"))
        .args([&format!("127.0.0.1:{port}"), "nowhere"])
        .output()
        .expect("bash runs");
    assert!(output.status.success(), "certificates.sh failed: {}", String::from_utf8_lossy(&output.stderr));
}

/// Everything that it has to do at a start is done.
async fn is_ready(admin: &Access) -> bool {
    let answer = admin.request(Method::GET, "/readyz").timeout(REQUEST_LIMIT).send().await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

fn start_api_server(folder: &Path, ports: Ports) -> Result<Program, String> {
    Program::start(folder, "kube-apiserver", &kubernetes_binary(), &api_server_arguments(ports))
}

fn start_controllers(folder: &Path, purpose: Purpose) -> Result<Program, String> {
    Program::start(folder, "kube-controller-manager", &kubernetes_binary(), &controllers_arguments(purpose))
}

fn etcd_arguments(ports: Ports, purpose: Purpose) -> Vec<String> {
    let (clients, peers) = (format!("http://127.0.0.1:{}", ports.etcd), format!("http://127.0.0.1:{}", ports.etcd_peers));
    let mut arguments = words(&[
        "--data-dir=etcd",
        "--logger=zap",
        &format!("--listen-client-urls={clients}"),
        &format!("--advertise-client-urls={clients}"),
        &format!("--listen-peer-urls={peers}"),
        &format!("--initial-advertise-peer-urls={peers}"),
        &format!("--initial-cluster=default={peers}"),
    ]);
    if purpose == Purpose::Test {
        arguments.push("--unsafe-no-fsync".to_owned());
    }
    arguments
}

fn api_server_arguments(ports: Ports) -> Vec<String> {
    words(&[
        &format!("--etcd-servers=http://127.0.0.1:{}", ports.etcd),
        "--bind-address=127.0.0.1",
        &format!("--secure-port={}", ports.api_server),
        &format!("--advertise-address={ADVERTISED}"),
        "--endpoint-reconciler-type=none",
        &format!("--service-cluster-ip-range={SERVICES}"),
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--tls-cert-file=certificates/server.crt",
        "--tls-private-key-file=certificates/server.key",
        "--client-ca-file=certificates/ca.crt",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        "--service-account-key-file=certificates/service-account.pub",
        "--service-account-signing-key-file=certificates/service-account.key",
        "--profiling=false",
    ])
}

fn controllers_arguments(purpose: Purpose) -> Vec<String> {
    let mut arguments = words(&[
        "--kubeconfig=certificates/controller-manager.kubeconfig",
        "--use-service-account-credentials",
        "--service-account-private-key-file=certificates/service-account.key",
        "--root-ca-file=certificates/ca.crt",
        "--leader-elect=false",
        // Nobody asks for its metrics.
        "--secure-port=0",
        "--profiling=false",
    ]);
    if purpose == Purpose::Measure {
        arguments.extend(words(LARGE));
    }
    arguments
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
