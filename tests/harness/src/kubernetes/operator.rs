//! The operator as a process under its own ServiceAccount.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;

use crate::kubernetes::Access;
use crate::postgres::free_port;
use crate::process::{operator_binary, signal, spawn_bound, workspace_root};

/// Where the operator lives, and under which account.
pub const OPERATOR_NAMESPACE: &str = "heyuan-system";
/// Its account.
pub const OPERATOR_ACCOUNT: &str = "heyuan-operator";

/// Installs what the chart installs, but for the operator's process: definitions, rights, admission policies, and its namespace.
pub async fn install_operator(admin: &Access) {
    let printed = Command::new(operator_binary()).arg("crds").output().expect("the operator prints its definitions");
    admin.apply(&String::from_utf8_lossy(&printed.stdout)).await.expect("the API server takes the definitions");
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": OPERATOR_NAMESPACE } });
    admin.apply(&namespace.to_string()).await.expect("the namespace is taken");
    admin.apply(&of_chart()).await.expect("the API server takes what the chart installs");
    for definition in ["tenants", "tenantclasses", "plugins"] {
        admin.kubectl(&["wait", "--for=condition=Established", &format!("crd/{definition}.heyuan.dev"), "--timeout=60s"]).await;
    }
}

/// What `helm uninstall` does: takes everything of the chart away but the definitions. The namespace was not made by the chart.
pub async fn uninstall_operator(admin: &Access) {
    admin.delete(&of_chart()).await.expect("the API server takes it away");
}

/// The chart's objects, but for the definitions and the operator's process.
fn of_chart() -> String {
    let file = workspace_root().join("deploy/kustomize/operator.yaml");
    let installed = fs::read_to_string(&file).expect("it is made from the chart");
    let runs = |object: &str| ["\nkind: Deployment\n", "\nkind: PodDisruptionBudget\n"].iter().any(|kind| object.contains(kind));
    let objects: Vec<&str> = installed.split("\n---").filter(|object| !runs(object)).collect();
    objects.join("\n---")
}

/// A running operator; dropped, it is killed.
#[derive(Debug)]
pub struct Operator {
    process: Mutex<Child>,
    id: u32,
    port: u16,
    log: PathBuf,
}

impl Operator {
    /// Starts it as somebody, so that it looks soon at what is underway, with further arguments.
    pub fn start(access: &Access, arguments: &[&str]) -> Self {
        Self::start_as_installed(access, &[&["--poll-ms", "100"], arguments].concat())
    }

    /// Starts it with the times that it has where nobody sets them.
    pub fn start_as_installed(access: &Access, arguments: &[&str]) -> Self {
        let log = tempfile::Builder::new().prefix("heyuan-operator-").suffix(".log").tempfile().expect("the temporary folder is writable");
        let (file, path) = log.keep().expect("the log's file stays");
        let port = free_port();
        let listen = format!("127.0.0.1:{port}");
        let process = spawn_bound(&operator_binary(), |command| {
            command
                .args(["run", "--namespace", OPERATOR_NAMESPACE, "--service-account", OPERATOR_ACCOUNT, "--listen", &listen])
                .args(arguments)
                .env_clear()
                .env("KUBECONFIG", access.kubeconfig())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(as_stdio(&file));
        })
        .expect("the operator starts");
        let id = process.id();
        Self { process: Mutex::new(process), id, port, log: path }
    }

    /// For `kill` and for a proxy's `Trouble`.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Whether the process has ended by itself or was killed.
    pub fn has_ended(&self) -> bool {
        self.process.lock().expect("nothing panics while it is held").try_wait().is_ok_and(|status| status.is_some())
    }

    /// Stops it where it is, as a machine does that is out of breath; it can be woken.
    pub fn pause(&self) {
        signal(self.id, "STOP");
    }

    /// Lets it go on.
    pub fn wake(&self) {
        signal(self.id, "CONT");
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&self) {
        let mut process = self.process.lock().expect("nothing panics while it is held");
        // One that has ended already needs no signal.
        let _ = process.kill();
        let _ = process.wait();
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The value of a metric, summed over its labels that contain a text.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        let address = format!("http://127.0.0.1:{}/metrics", self.port);
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().expect("the client needs nothing");
        let text = match client.get(address).send().await {
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        };
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(labels));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.kill();
        if !std::thread::panicking() {
            let _ = fs::remove_file(&self.log);
        }
    }
}

fn as_stdio(file: &File) -> Stdio {
    Stdio::from(file.try_clone().expect("a file can be shared"))
}
