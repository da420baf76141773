//! `Plugin` objects: each is a wish that is handed to the tenant's process, which checks, compiles and decides.

use crate::context::Context;
use crate::crd::{Plugin, PluginKind, PluginMode, PluginStatus, Tenant};
use crate::kind::Kind;
use crate::master::Master;
use crate::name::{self, TENANT};
use crate::observe::master;
use crate::tenant_api::TenantError;
use crate::world::MasterSeen;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Plugins that are handed over at once.
const CONCURRENCY: u16 = 4;
/// How often a plugin's state is asked for although nothing has changed.
const RESYNC: Duration = Duration::from_secs(300);
/// How often objects that are gone are looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// Tenants that are asked at once.
const ASKED_AT_ONCE: usize = 16;
/// Pods of so many tenants are listed one by one; of more, those of all tenants in pages.
const ALONE_MAX: usize = 8;
/// How long a tenant that did not answer is left alone at most.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How soon a wish that was not fulfilled is stated again.
const AGAIN: Duration = Duration::from_secs(10);

/// What became of a wish.
struct Outcome {
    ready: bool,
    reason: &'static str,
    words: String,
    answer: Value,
    again: Duration,
}

impl Outcome {
    fn refused(reason: &'static str, words: impl Into<String>) -> Outcome {
        Outcome { ready: false, reason, words: words.into(), answer: Value::Null, again: AGAIN }
    }
}

/// Hands plugins over for ever.
pub(crate) async fn run(context: Arc<Context>, tenants: Store<Tenant>, watched: watcher::Config) {
    let client = context.kubernetes.client.clone();
    let controller = Controller::new(Api::<Plugin>::all(client), watched);
    // Both in one future: whoever stops polling it has stopped both.
    let taking_back = take_back(context.clone(), tenants.clone(), controller.store());
    let handing_over = controller
        .with_config(Config::default().concurrency(CONCURRENCY))
        .run(
            move |plugin, context| {
                let tenants = tenants.clone();
                async move { reconcile(plugin, &context, &tenants).await }
            },
            |plugin: Arc<Plugin>, error, _| {
                tracing::warn!(plugin.name = plugin.name_any(), %error, "a plugin could not be handed over and is tried again");
                Action::requeue(AGAIN)
            },
            context,
        )
        .for_each(|_| async {});
    futures::join!(handing_over, taking_back);
}

async fn reconcile(plugin: Arc<Plugin>, context: &Context, tenants: &Store<Tenant>) -> Result<Action, kube::Error> {
    if !context.kubernetes.live.is_ready() {
        return Ok(Action::requeue(Duration::from_millis(200)));
    }
    let namespace = plugin.namespace().unwrap_or_default();
    let tenant = tenant_of(context, tenants, &namespace);
    if plugin.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let outcome = match &tenant {
        None => {
            Outcome::refused("NoTenant", format!("namespace {namespace} belongs to no tenant; make plugins in a tenant's own namespace"))
        }
        Some(tenant) if tenant.spec.paused => Outcome::refused("TenantPaused", "the tenant is paused"),
        Some(tenant) => wish(&plugin, context, tenant).await?,
    };
    write_status(&plugin, context, &outcome).await?;
    Ok(Action::requeue(outcome.again))
}

/// The tenant of a namespace: by the label that only the operator may write there, and the name that must fit it.
fn tenant_of(context: &Context, tenants: &Store<Tenant>, namespace: &str) -> Option<Arc<Tenant>> {
    let live = context.kubernetes.live.get(namespace, Kind::Namespace, namespace)?;
    let label = live["metadata"]["labels"][TENANT].as_str()?.to_owned();
    let tenant = tenants.get(&ObjectRef::new(&label))?;
    (name::namespace(&label) == namespace).then_some(tenant)
}

/// States the wish to a process of the tenant.
async fn wish(plugin: &Plugin, context: &Context, tenant: &Tenant) -> Result<Outcome, kube::Error> {
    let Some(class) = context.class(&tenant.spec.class) else {
        return Ok(Outcome::refused("ClassMissing", "the tenant's class is missing"));
    };
    for feature in &plugin.spec.features {
        if !covers(&tenant.spec.plugins.features, feature) {
            return Ok(Outcome::refused(
                "FeatureNotAllowed",
                format!("features: {feature} is not in plugins.features of tenant {}", tenant.name_any()),
            ));
        }
        if !class.spec.plugins.features_max.is_empty() && !covers(&class.spec.plugins.features_max, feature) {
            return Ok(Outcome::refused(
                "FeatureNotAllowed",
                format!("features: {feature} is beyond plugins.featuresMax of class {}", class.name_any()),
            ));
        }
    }
    let source = match source(plugin, context, &class.spec.plugins.url_hosts).await? {
        Ok(source) => source,
        Err(outcome) => return Ok(outcome),
    };
    let MasterSeen::There(master) = master(context, &name::data_id(tenant)).await? else {
        return Ok(Outcome::refused("TenantNotReady", "the tenant is still being made"));
    };
    let spec = &plugin.spec;
    let body = json!({
        "kind": match spec.kind { PluginKind::Tagger => "tagger", PluginKind::Benefit => "benefit" },
        "source": source,
        "approved": spec.features,
        "mode": match spec.mode { PluginMode::Active => "active", PluginMode::Shadow => "shadow", PluginMode::Disabled => "disabled" },
        "generation": plugin.metadata.generation.unwrap_or_default(),
        "url_hosts": class.spec.plugins.url_hosts,
    });
    hand_over(plugin, context, tenant, &master, &body).await
}

/// The component's bytes, or where the process fetches them.
async fn source(plugin: &Plugin, context: &Context, hosts: &[String]) -> Result<Result<Value, Outcome>, kube::Error> {
    if let Some(url) = &plugin.spec.source.url {
        let host = url::Url::parse(&url.address).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
        if !hosts.contains(&host) {
            let words = format!("source.url.address: host {host} is not in plugins.urlHosts of the tenant's class");
            return Ok(Err(Outcome::refused("SourceRefused", words)));
        }
        return Ok(Ok(json!({ "url": url.address, "digest": url.digest })));
    }
    let Some(wanted) = &plugin.spec.source.config_map else {
        return Ok(Err(Outcome::refused("SourceRefused", "source: write configMap or url")));
    };
    let api: Api<ConfigMap> = Api::namespaced(context.kubernetes.client.clone(), &plugin.namespace().unwrap_or_default());
    let found = context.kubernetes.other("get", "ConfigMap", api.get_opt(&wanted.name)).await?;
    let bytes = found.and_then(|map| map.binary_data.and_then(|mut data| data.remove(&wanted.key)));
    Ok(match bytes {
        Some(bytes) => {
            use base64::Engine;
            Ok(json!({ "bytes": base64::engine::general_purpose::STANDARD.encode(bytes.0) }))
        }
        None => Err(Outcome::refused("SourceMissing", format!("config map {} has no binaryData key {}", wanted.name, wanted.key))),
    })
}

async fn hand_over(plugin: &Plugin, context: &Context, tenant: &Tenant, master: &Master, body: &Value) -> Result<Outcome, kube::Error> {
    let tenant_name = tenant.name_any();
    let addresses = crate::pods::addresses(context, &name::namespace(&tenant_name), &tenant_name).await?;
    let Some((_, address)) = addresses.into_iter().next() else {
        return Ok(Outcome::refused("TenantSilent", "no pod of the tenant is ready"));
    };
    let path = format!("/v1/operator/plugins/{}", plugin.name_any());
    Ok(match context.tenant_api.put(address, &master.operator_key, &path, body).await {
        Ok(answer) => {
            let state = answer["state"].as_str().unwrap_or_default();
            let wished = match plugin.spec.mode {
                PluginMode::Active => state == "active",
                PluginMode::Shadow => state == "shadow",
                PluginMode::Disabled => state != "active" && state != "shadow",
            };
            let words = answer["message"]
                .as_str()
                .filter(|words| !words.is_empty())
                .map_or_else(|| format!("the plugin is {state}"), str::to_owned);
            Outcome { ready: wished, reason: if wished { "AsWished" } else { "NotAsWished" }, words, answer, again: RESYNC }
        }
        Err(TenantError::Refused { code, detail, status, .. }) if status < 500 => {
            Outcome { again: RESYNC, ..Outcome::refused("Refused", format!("{code}: {detail}")) }
        }
        Err(error) => Outcome::refused("TenantSilent", error.to_string()),
    })
}

/// Whether one of the patterns covers a feature: its name, or a beginning that ends in `.*`.
fn covers(patterns: &[String], feature: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(start) if start.ends_with('.') || start.is_empty() => feature.starts_with(start),
        _ => pattern == feature,
    })
}

/// Takes plugins out of service whose objects are gone. A Plugin has no finalizer, so what went while nobody looked is found by asking each
/// tenant once after the start, and each tenant whose objects have become fewer.
async fn take_back(context: Arc<Context>, tenants: Store<Tenant>, plugins: Store<Plugin>) {
    let mut known: Wished = BTreeSet::new();
    let mut asked_once: BTreeSet<String> = BTreeSet::new();
    let mut waiting: BTreeSet<String> = BTreeSet::new();
    let mut silent: HashMap<String, Silence> = HashMap::new();
    loop {
        tokio::time::sleep(SWEEP).await;
        let now: Wished = plugins.state().iter().map(|plugin| (plugin.namespace().unwrap_or_default(), plugin.name_any())).collect();
        for (namespace, _) in known.difference(&now) {
            silent.remove(namespace);
            waiting.insert(namespace.clone());
        }
        let mut due: Vec<(String, Arc<Tenant>)> = Vec::new();
        for tenant in tenants.state().into_iter().filter(|tenant| serves(tenant)) {
            let namespace = name::namespace(&tenant.name_any());
            let wanted = !asked_once.contains(&namespace) || waiting.contains(&namespace);
            if wanted && silent.get(&namespace).is_none_or(|silence| silence.until <= Instant::now()) {
                due.push((namespace, tenant));
            }
        }
        let now = Arc::new(now);
        for (namespace, answer) in take_back_of(&context, due, &now).await {
            match answer {
                Ok(()) => {
                    silent.remove(&namespace);
                    waiting.remove(&namespace);
                    asked_once.insert(namespace);
                }
                Err(words) => {
                    tracing::debug!("plugins in {namespace} are taken back later: {words}");
                    silent.entry(namespace).or_default().goes_on();
                }
            }
        }
        known = Arc::unwrap_or_clone(now);
    }
}

/// Plugins that there are objects of, by namespace and name.
type Wished = BTreeSet<(String, String)>;

/// How long a tenant that does not answer is left alone.
struct Silence {
    pause: Duration,
    until: Instant,
}

impl Default for Silence {
    fn default() -> Silence {
        Silence { pause: SWEEP, until: Instant::now() }
    }
}

impl Silence {
    /// It has not answered again.
    fn goes_on(&mut self) {
        self.until = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(SILENCE_MAX);
    }
}

fn serves(tenant: &Tenant) -> bool {
    let has_served = tenant.status.as_ref().is_some_and(|status| status.release.is_some());
    has_served && tenant.metadata.deletion_timestamp.is_none() && !tenant.spec.paused
}

/// Asks tenants and takes back what nobody wishes any more; answers how that went with each.
async fn take_back_of(context: &Arc<Context>, due: Vec<(String, Arc<Tenant>)>, wished: &Arc<Wished>) -> Vec<(String, Result<(), String>)> {
    let mut addresses = HashMap::new();
    if due.len() > ALONE_MAX {
        match crate::pods::of_all(&context.kubernetes).await {
            Ok(all) => addresses = all,
            Err(error) => return due.into_iter().map(|(namespace, _)| (namespace, Err(error.to_string()))).collect(),
        }
    } else {
        for (namespace, tenant) in &due {
            match crate::pods::addresses(context, namespace, &tenant.name_any()).await {
                Ok(pods) => addresses.extend(pods.into_iter().next().map(|(_, address)| (namespace.clone(), address))),
                Err(error) => tracing::debug!(%error, "the pods in {namespace} can't be listed"),
            }
        }
    }
    let asked = due.into_iter().map(|(namespace, tenant)| {
        let (context, wished, address) = (context.clone(), wished.clone(), addresses.get(&namespace).copied());
        async move {
            let answer = match address {
                Some(address) => take_back_at(&context, &tenant, &namespace, address, &wished).await,
                None => Err("no pod is ready".to_owned()),
            };
            (namespace, answer)
        }
    });
    futures::stream::iter(asked).buffer_unordered(ASKED_AT_ONCE).collect().await
}

async fn take_back_at(context: &Context, tenant: &Tenant, namespace: &str, address: IpAddr, wished: &Wished) -> Result<(), String> {
    let seen = master(context, &name::data_id(tenant)).await.map_err(|error| error.to_string())?;
    let MasterSeen::There(master) = seen else { return Err("it has no keys yet".to_owned()) };
    let status = context.tenant_api.status(address, &master.operator_key).await.map_err(|error| error.to_string())?;
    let orphans = status
        .plugins
        .into_iter()
        .filter(|plugin| plugin.managed_by == "operator" && !wished.contains(&(namespace.to_owned(), plugin.name.clone())));
    for orphan in orphans {
        let path = format!("/v1/operator/plugins/{}", orphan.name);
        context.tenant_api.delete(address, &master.operator_key, &path).await.map_err(|error| error.to_string())?;
        tracing::info!(
            tenant.name = tenant.name_any(),
            plugin.name = orphan.name,
            "a plugin was taken out of service, since its object is gone"
        );
    }
    Ok(())
}

async fn write_status(plugin: &Plugin, context: &Context, outcome: &Outcome) -> Result<(), kube::Error> {
    let text = |field: &str| outcome.answer[field].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let before = plugin.status.clone().unwrap_or_default();
    let status = if outcome.ready { "True" } else { "False" };
    let since = before
        .conditions
        .iter()
        .find(|one| one.status == status)
        .map_or_else(|| Time(whole_second()), |one| one.last_transition_time.clone());
    let condition = Condition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: outcome.reason.to_owned(),
        message: outcome.words.chars().take(1_000).collect(),
        observed_generation: plugin.metadata.generation,
        last_transition_time: since,
    };
    let after = PluginStatus {
        state: text("state").or_else(|| Some(if outcome.ready { "active" } else { "refused" }.to_owned())),
        why: (!outcome.ready).then(|| outcome.words.clone()),
        digest: text("digest"),
        managed_by: text("managed_by"),
        fuel_p99: outcome.answer["fuel_p99"].as_i64(),
        errors: outcome.answer["errors"].as_i64(),
        observed_generation: plugin.metadata.generation,
        conditions: vec![condition],
    };
    if after == before {
        return Ok(());
    }
    let api: Api<Plugin> = Api::namespaced(context.kubernetes.client.clone(), &plugin.namespace().unwrap_or_default());
    let mut status = json!(after);
    // A merge keeps what it is not told of: what holds no longer is told as null.
    for field in ["why", "digest", "managedBy", "fuelP99", "errors"] {
        let _ = status.as_object_mut().map(|fields| fields.entry(field).or_insert(Value::Null));
    }
    let patch = json!({ "status": status });
    let how = PatchParams { field_manager: Some(name::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    context.kubernetes.other("patch", "Plugin/status", api.patch_status(&plugin.name_any(), &how, &Patch::Merge(patch))).await?;
    Ok(())
}

fn whole_second() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_names() {
        let patterns = ["profile.*".to_owned(), "points".to_owned(), "bad*".to_owned()];
        for (feature, covered) in [("profile.age", true), ("profiles", false), ("points", true), ("points.x", false), ("badly", false)] {
            assert_eq!(covers(&patterns, feature), covered, "{feature}");
        }
    }
}
