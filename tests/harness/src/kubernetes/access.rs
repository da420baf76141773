//! Who speaks to an API server and where: a kubeconfig file, and kubectl with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use reqwest::{Certificate, Client, Identity, Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::kubernetes::{ApiClient, ApiProxy};
use crate::process::cache_dir;

/// Tokens outlive the longest soak.
const TOKEN_LIFE: &str = "24h";

/// For the head of an answer; a watch may go on as long as it likes.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

static FILES: AtomicU32 = AtomicU32::new(0);

/// An identity at the address of one API server; its files live as long as their control plane.
#[derive(Clone, Debug)]
pub struct Access {
    url: String,
    /// The folder that `tests/kubernetes/certificates.sh` filled.
    certificates: PathBuf,
    kubeconfig: PathBuf,
    /// `None` for the administrator, who shows a certificate.
    token: Option<String>,
}

impl Access {
    pub(super) fn admin(url: String, certificates: PathBuf) -> Self {
        Self { url, kubeconfig: certificates.join("admin.kubeconfig"), certificates, token: None }
    }

    /// For `KUBECONFIG` of a process under test.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The same identity through a proxy. A client certificate ends at the proxy's TLS, so only tokens pass.
    pub fn through(&self, proxy: &ApiProxy) -> Self {
        let token = self.token.as_deref().expect("only who has a token passes a proxy");
        Self::with_token(proxy.url(), self.certificates.clone(), token)
    }

    /// A ServiceAccount that exists already, by a token that the API server gives out for it.
    pub(super) async fn service_account(&self, namespace: &str, name: &str) -> Self {
        let token = self.kubectl(&["create", "token", name, "--namespace", namespace, "--duration", TOKEN_LIFE]).await;
        Self::with_token(self.url.clone(), self.certificates.clone(), token.trim())
    }

    fn with_token(url: String, certificates: PathBuf, token: &str) -> Self {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "heyuan",
            "contexts": [{"name": "heyuan", "context": {"cluster": "heyuan", "user": "heyuan"}}],
            "clusters": [{"name": "heyuan", "cluster": {"server": url, "certificate-authority": certificates.join("ca.crt")}}],
            "users": [{"name": "heyuan", "user": {"token": token}}],
        });
        let kubeconfig = certificates.join(format!("token-{}.kubeconfig", FILES.fetch_add(1, Ordering::Relaxed)));
        fs::write(&kubeconfig, config.to_string()).expect("the folder of the control plane is writable");
        Self { url, certificates, kubeconfig, token: Some(token.to_owned()) }
    }

    /// A request of its own, for what kubectl doesn't do: on a new connection, which trusts this control plane alone.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client().request(method, path)
    }

    /// Connections that are kept from one request to the next, for who has many.
    pub fn client(&self) -> ApiClient {
        let read = |name: &str| fs::read(self.certificates.join(name)).expect("certificates.sh made it");
        let authority = Certificate::from_pem(&read("ca.crt")).expect("openssl writes PEM");
        let mut client = Client::builder().no_proxy().connect_timeout(CONNECT_LIMIT).tls_certs_only([authority]);
        if self.token.is_none() {
            let identity = Identity::from_pem(&[read("admin.crt"), read("admin.key")].concat()).expect("openssl writes PEM");
            client = client.identity(identity);
        }
        let client = client.build().expect("the client needs nothing from outside");
        ApiClient::new(client, self.url.clone(), self.token.clone())
    }

    /// Runs kubectl; answers what it printed, panics when it fails.
    pub async fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments).await.unwrap_or_else(|complaint| panic!("kubectl {arguments:?} failed:\n{complaint}"))
    }

    /// Runs kubectl; answers what it printed, or what it complained about.
    pub async fn try_kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        self.kubectl_with_input(arguments, "").await
    }

    /// What `kubectl get … --output json` says, for arguments such as `["tenant", "yuexiu"]`.
    pub async fn get(&self, arguments: &[&str]) -> Value {
        let printed = self.kubectl(&[&["get", "--output", "json"], arguments].concat()).await;
        serde_json::from_str(&printed).expect("kubectl prints JSON")
    }

    /// Applies YAML (one or several documents) on the server's side, as the field manager `tests`.
    pub async fn apply(&self, yaml: &str) -> Result<String, String> {
        self.kubectl_with_input(&["apply", "--server-side", "--field-manager", "tests", "--filename", "-"], yaml).await
    }

    /// Asks what `apply` would say, and changes nothing.
    pub async fn apply_dry(&self, yaml: &str) -> Result<String, String> {
        self.kubectl_with_input(&["apply", "--server-side", "--dry-run=server", "--field-manager", "tests", "--filename", "-"], yaml).await
    }

    /// Deletes the objects of YAML (one or several documents) that are there, and waits until they are gone.
    pub async fn delete(&self, yaml: &str) -> Result<String, String> {
        self.kubectl_with_input(&["delete", "--ignore-not-found", "--filename", "-"], yaml).await
    }

    async fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut child = Command::new(kubernetes_binary())
            .arg("kubectl")
            .args(arguments)
            .env_clear()
            // The home folder holds its cache of what the server knows; no proxy of the machine's settings, every address is local.
            .envs([("KUBECONFIG", self.kubeconfig.as_path()), ("HOME", &self.certificates), ("NO_PROXY", Path::new("*"))])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("kubectl starts");
        let mut stdin = child.stdin.take().expect("standard input is a pipe");
        // A kubectl that refuses its arguments reads nothing; its complaint says more than the broken pipe.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = child.wait_with_output().await.expect("kubectl ends");
        let (printed, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(printed.into_owned()) } else { Err(complaint.into_owned()) }
    }
}

/// Every program of Kubernetes in one file.
pub(super) fn kubernetes_binary() -> PathBuf {
    let path = cache_dir().join("tools/kubernetes");
    assert!(path.is_file(), "{} is not there: run `scripts/setup.sh test` first", path.display());
    path
}
