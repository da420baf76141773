//! Calls of the API server: each with a time-out, counted by verb and kind, and with its refusals put into words.

use crate::kind::Kind;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::name::FIELD_MANAGER;
use crate::reason::Reason;
use crate::world::Failure;
use anyhow::Context;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions, ValidationDirective};
use kube::discovery::ApiResource;
use kube::runtime::watcher;
use kube::{Client, Config, Error};
use serde_json::{Value, json};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// How much longer than a watch a connection may be silent: for what is on its way.
const SILENCE_MARGIN: Duration = Duration::from_secs(10);

/// Objects of a page of a list.
pub(crate) const PAGE: u32 = 100;

/// Holds a Deployment's replicas between us and an autoscaler.
const HANDOVER_MANAGER: &str = "heyuan-operator-handover";

/// A secret's address and kind.
fn secrets() -> ApiResource {
    ApiResource { group: String::new(), version: "v1".into(), api_version: "v1".into(), kind: "Secret".into(), plural: "secrets".into() }
}

/// The way to the API server: from within a pod, or by a kubeconfig. A connection on which an answer is awaited and nothing comes for longer
/// than a watch lasts is given up, or a list without an answer would be waited for to the end of days.
///
/// # Errors
/// There is neither.
pub(crate) async fn connect(watch_seconds: u32) -> anyhow::Result<Client> {
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("a provider of cryptography is installed already");
    }
    let mut config = Config::infer().await.context("no way to the API server was found: neither in a pod nor by a kubeconfig")?;
    config.read_timeout = Some(Duration::from_secs(u64::from(watch_seconds)) + SILENCE_MARGIN);
    // The time in which nothing was asked is nobody's silence.
    config.reset_reader_on_write = true;
    Client::try_from(config).context("the way to the API server can't be used")
}

/// How everything is watched. Lists come in pages: all kinds are listed at once, and each page is in memory several times over.
pub(crate) fn watched(seconds: u32) -> watcher::Config {
    watcher::Config::default().timeout(seconds).page_size(PAGE)
}

/// The API server.
#[derive(Clone)]
pub(crate) struct Kubernetes {
    pub(crate) client: Client,
    pub(crate) live: Arc<Live>,
    pub(crate) metrics: Arc<Metrics>,
    /// How long an answer may take.
    pub(crate) call_max: Duration,
}

impl Kubernetes {
    /// Makes a call within its time.
    async fn call<T>(&self, verb: &'static str, kind: &'static str, what: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.metrics.called(verb, kind);
        match tokio::time::timeout(self.call_max, what).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::Service(format!("no answer to {verb} {kind} within {} s", self.call_max.as_secs()).into())),
        }
    }

    fn api(&self, resource: &ApiResource, object: &Value) -> Api<DynamicObject> {
        match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        }
    }

    /// Writes an object by server-side apply. Where fields that others added still stand in its lists, they are replaced.
    pub(crate) async fn apply(&self, object: &Value) -> Result<(), Error> {
        let Some((kind, object_name)) = Kind::of(object).zip(object["metadata"]["name"].as_str()) else { return Ok(()) };
        let api = self.api(&kind.resource(), object);
        if kind == Kind::Deployment && object["spec"]["replicas"].is_null() {
            self.hand_over_replicas(&api, object).await?;
        }
        let mut how = PatchParams::apply(FIELD_MANAGER).force();
        how.field_validation = Some(ValidationDirective::Strict);
        let answer = self.call("apply", kind.as_str(), api.patch(object_name, &how, &Patch::Apply(object))).await?;
        let answer = kind.value_of(answer);
        self.live.keep_written(kind, &answer);
        if crate::agree::agrees(object, &answer) {
            return Ok(());
        }
        let how = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let answer = self.call("patch", kind.as_str(), api.patch(object_name, &how, &Patch::Merge(object))).await?;
        self.live.keep_written(kind, &kind.value_of(answer));
        Ok(())
    }

    /// What an autoscaler decides is not ours to write; but a number that was ours alone would fall back to 1 if we merely let go of it.
    async fn hand_over_replicas(&self, api: &Api<DynamicObject>, object: &Value) -> Result<(), Error> {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let (namespace, object_name) = (text("namespace"), text("name"));
        let live = self.live.get(&namespace, Kind::Deployment, &object_name);
        let Some(replicas) = live.and_then(|live| live["spec"]["replicas"].as_i64()) else {
            return Ok(());
        };
        let held = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": object_name, "namespace": namespace },
            "spec": { "replicas": replicas },
        });
        let how = PatchParams::apply(HANDOVER_MANAGER).force();
        self.call("apply", Kind::Deployment.as_str(), api.patch(&object_name, &how, &Patch::Apply(&held))).await?;
        Ok(())
    }

    /// Makes an object that must not exist yet.
    pub(crate) async fn create(&self, object: &Value) -> Result<(), Error> {
        let Some(kind) = Kind::of(object) else { return Ok(()) };
        let api = self.api(&kind.resource(), object);
        let how = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let object: DynamicObject = serde_json::from_value(object.clone()).map_err(Error::SerdeError)?;
        let answer = self.call("create", kind.as_str(), api.create(&how, &object)).await?;
        self.live.keep_written(kind, &kind.value_of(answer));
        Ok(())
    }

    /// Reads an object that is not watched under our label, as a namespace or job of somebody else.
    pub(crate) async fn read(&self, kind: Kind, namespace: Option<&str>, object_name: &str) -> Result<Option<Value>, Error> {
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &kind.resource()),
            None => Api::all_with(self.client.clone(), &kind.resource()),
        };
        let answer = self.call("get", kind.as_str(), api.get_opt(object_name)).await?;
        Ok(answer.map(|answer| kind.value_of(answer)))
    }

    /// Removes an object, with what it owns.
    pub(crate) async fn remove(&self, kind: Kind, namespace: Option<&str>, object_name: &str) -> Result<(), Error> {
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &kind.resource()),
            None => Api::all_with(self.client.clone(), &kind.resource()),
        };
        match self.call("delete", kind.as_str(), api.delete(object_name, &DeleteParams::background())).await {
            Ok(_) => Ok(()),
            Err(error) if is_status(&error, 404) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reads a secret by its name.
    pub(crate) async fn secret(&self, namespace: &str, object_name: &str) -> Result<Option<Value>, Error> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let answer = self.call("get", "Secret", api.get_opt(object_name)).await?;
        answer.map(|secret| serde_json::to_value(secret).map_err(Error::SerdeError)).transpose()
    }

    /// Makes a secret and answers it; `None` where there is one.
    pub(crate) async fn create_secret(&self, secret: &Value) -> Result<Option<Value>, Error> {
        let api = self.api(&secrets(), secret);
        let how = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let object: DynamicObject = serde_json::from_value(secret.clone()).map_err(Error::SerdeError)?;
        match self.call("create", "Secret", api.create(&how, &object)).await {
            Ok(made) => serde_json::to_value(made).map(Some).map_err(Error::SerdeError),
            Err(error) if is_status(&error, 409) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces a secret on the version that was read.
    pub(crate) async fn replace_secret(&self, secret: &Value) -> Result<Value, Error> {
        let api = self.api(&secrets(), secret);
        let how = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let object: DynamicObject = serde_json::from_value(secret.clone()).map_err(Error::SerdeError)?;
        let object_name = secret["metadata"]["name"].as_str().unwrap_or_default();
        let answer = self.call("update", "Secret", api.replace(object_name, &how, &object)).await?;
        serde_json::to_value(answer).map_err(Error::SerdeError)
    }

    /// Writes a secret by server-side apply.
    pub(crate) async fn apply_secret(&self, secret: &Value) -> Result<Value, Error> {
        let api = self.api(&secrets(), secret);
        let object_name = secret["metadata"]["name"].as_str().unwrap_or_default();
        let how = PatchParams::apply(FIELD_MANAGER).force();
        let answer = self.call("apply", "Secret", api.patch(object_name, &how, &Patch::Apply(secret))).await?;
        serde_json::to_value(answer).map_err(Error::SerdeError)
    }

    /// Removes a secret, if it still is the one that was read.
    pub(crate) async fn remove_secret(&self, namespace: &str, object_name: &str, version: Option<String>) -> Result<(), Error> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let how = DeleteParams { preconditions: Some(Preconditions { resource_version: version, uid: None }), ..DeleteParams::default() };
        match self.call("delete", "Secret", api.delete(object_name, &how)).await {
            Ok(_) => Ok(()),
            Err(error) if is_status(&error, 404) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Pods of a namespace with a component's label.
    pub(crate) async fn pods(&self, namespace: &str, selector: &str) -> Result<Vec<Pod>, Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let answer = self.call("list", "Pod", api.list(&ListParams::default().labels(selector))).await?;
        Ok(answer.items)
    }

    /// A page of the pods of all namespaces with a component's label, and where the next one begins.
    pub(crate) async fn pods_page(&self, selector: &str, begin: Option<String>) -> Result<(Vec<Pod>, Option<String>), Error> {
        let api: Api<Pod> = Api::all(self.client.clone());
        let mut how = ListParams::default().labels(selector).limit(PAGE);
        how.continue_token = begin;
        let answer = self.call("list", "Pod", api.list(&how)).await?;
        Ok((answer.items, answer.metadata.continue_.filter(|next| !next.is_empty())))
    }

    /// Any other call.
    pub(crate) async fn other<T>(
        &self,
        verb: &'static str,
        kind: &'static str,
        what: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.call(verb, kind, what).await
    }
}

/// Whether the API server refused with this status.
pub(crate) fn is_status(error: &Error, code: u16) -> bool {
    matches!(error, Error::Api(status) if status.code == code)
}

/// A refusal in words, with the reason that fits.
pub(crate) fn failure(what: &str, error: &Error) -> Failure {
    let (reason, words) = match error {
        Error::Api(status) if status.message.contains("exceeded quota") => (Reason::QuotaExceeded, status.message.clone()),
        Error::Api(status) => (Reason::KubernetesRefused, status.message.clone()),
        other => (Reason::KubernetesUnreachable, other.to_string()),
    };
    Failure { reason, message: format!("{what}: {words}") }
}
