//! `Plugin`: a tagger or benefit rule that a tenant should run; the object states a wish, the tenant's process decides.

#![expect(unreachable_pub, reason = "the derive copies each struct, with its `pub`, into a function of its own")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A tagger or benefit rule that the tenant of this namespace should run. It states a wish: the tenant checks the component and decides.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "heyuan.dev",
    version = "v1alpha1",
    kind = "Plugin",
    shortname = "hyp",
    category = "heyuan",
    namespaced,
    status = "PluginStatus",
    derive = "PartialEq",
    doc = "A tagger or benefit rule that the tenant of this namespace should run. It states a wish: the tenant checks the component and decides.",
    printcolumn(json_path = ".spec.kind", name = "Kind", type_ = "string"),
    printcolumn(json_path = ".status.state", name = "State", type_ = "string"),
    printcolumn(json_path = ".status.digest", name = "Digest", type_ = "string", priority = 1),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date"),
    printcolumn(json_path = ".status.why", name = "Why", type_ = "string", description = "Why it does not run as wished, in words"),
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name must have at most 63 characters: it is the plugin's name in the tenant")
)]
#[serde(rename_all = "camelCase")]
pub struct PluginSpec {
    /// What it is; fixed.
    #[x_kube(validation = Rule::new("self == oldSelf").message("kind can't be changed; make another Plugin"))]
    pub kind: PluginKind,
    /// Where its component comes from.
    pub source: PluginSource,
    /// The features that it may read: at most what the tenant's `plugins.features` allow.
    #[schemars(length(max = 100), inner(length(min = 1, max = 200)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// `Active` lets it decide, `Shadow` runs it beside without effect, `Disabled` takes it out of service.
    #[serde(default)]
    pub mode: PluginMode,
}

/// What a plugin is.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum PluginKind {
    /// Writes tags.
    Tagger,
    /// Decides about benefits of a transaction.
    Benefit,
}

/// Where a component comes from: exactly one of the two.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[x_kube(validation = Rule::new("has(self.configMap) != has(self.url)").message("write exactly one of configMap and url"))]
#[serde(rename_all = "camelCase")]
pub struct PluginSource {
    /// A config map of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapSource>,
    /// An address from which the tenant's process fetches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<UrlSource>,
}

/// A component in a config map; up to a million bytes fit there.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapSource {
    /// Name of the config map.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches(r'^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$')").message("name must be the name of a config map: small letters, digits, hyphens and dots"))]
    pub name: String,
    /// Key in its `binaryData`.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches(r'^[-._A-Za-z0-9]+$')").message("key must be letters, digits and - . _"))]
    pub key: String,
}

/// A component at an address.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct UrlSource {
    /// `https://…` on a host that the class allows.
    #[schemars(length(min = 9, max = 2000))]
    #[x_kube(validation = Rule::new("self.matches(r'^https://[^\\s/]+/\\S*$')").message("address must begin with https:// and name a host and a path"))]
    pub address: String,
    /// What is fetched must have this digest.
    #[schemars(length(max = 71))]
    #[x_kube(validation = Rule::new("self.matches(r'^sha256:[0-9a-f]{64}$')").message("digest must be sha256: and 64 hex digits"))]
    pub digest: String,
}

/// What a plugin should do.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PluginMode {
    /// Decide.
    #[default]
    Active,
    /// Run beside, without effect.
    Shadow,
    /// Nothing.
    Disabled,
}

/// What the tenant answered.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct PluginStatus {
    /// active, shadow, checked, quarantined, retired, or refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Why it does not run as wished, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The component that is in place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Who the name belongs to: `operator` or `api`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<String>,
    /// Fuel of a call at the 99th per cent; comparable only within one release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel_p99: Option<i64>,
    /// Calls that failed since the process started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<i64>,
    /// The generation that all of this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, with its reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
