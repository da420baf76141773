//! `TenantClass`: where and how the tenants of a class run; what a platform team decides once, as with a `StorageClass`.

#![expect(unreachable_pub, reason = "the derive copies each struct, with its `pub`, into a function of its own")]

use kube::core::Rule;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where and how the tenants of a class run: releases, sizes, database servers, storage, network and limits.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "heyuan.dev",
    version = "v1alpha1",
    kind = "TenantClass",
    plural = "tenantclasses",
    shortname = "tntclass",
    category = "heyuan",
    derive = "PartialEq",
    doc = "Where and how the tenants of a class run: releases, sizes, database servers, storage, network and limits.",
    printcolumn(json_path = ".spec.release", name = "Release", type_ = "string", description = "What tenants without a release of their own run"),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date"),
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name must have at most 63 characters")
)]
#[x_kube(
    validation = Rule::new("self.releases.exists(r, r.name == self.release)").message("release must be the name of one of releases"),
    validation = Rule::new("self.defaults.replicas <= self.limits.replicasMax").message("defaults.replicas must not be more than limits.replicasMax"),
    validation = Rule::new("self.sizes.exists(s, s.name == self.defaults.size)").message("defaults.size must be the name of one of sizes"),
)]
#[serde(rename_all = "camelCase")]
pub struct TenantClassSpec {
    /// The releases that tenants of this class may run.
    #[schemars(length(min = 1, max = 50))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub releases: Vec<Release>,
    /// The release of every tenant that names none.
    #[schemars(length(min = 1, max = 63))]
    pub release: String,
    /// What tenants may ask for.
    #[schemars(length(min = 1, max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub sizes: Vec<Size>,
    /// What a tenant gets that leaves something out.
    #[x_kube(validation = Rule::new("self.volumeSize.matches(r'^[1-9][0-9]*(Mi|Gi|Ti)$')").message("volumeSize must be a whole number with Mi, Gi or Ti, as 10Gi"))]
    #[serde(default)]
    pub defaults: ClassDefaults,
    /// How far a tenant may go.
    #[x_kube(
        validation = Rule::new("self.volumeSizeMax.matches(r'^[1-9][0-9]*(Mi|Gi|Ti)$')").message("volumeSizeMax must be a whole number with Mi, Gi or Ti, as 200Gi"),
        validation = Rule::new("!has(self.hostSuffixes) || self.hostSuffixes.all(end, end.matches(r'^(\\*?\\.)?([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\\.)*[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$'))").message("hostSuffixes must be ends of host names in small letters, as example.com")
    )]
    #[serde(default)]
    pub limits: ClassLimits,
    /// PostgreSQL for tenants with a managed database.
    #[serde(default)]
    pub database: ClassDatabase,
    /// Volumes.
    #[x_kube(
        validation = Rule::new("!has(self.className) || self.className.matches(r'^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$')").message("className must be the name of a StorageClass: small letters, digits, hyphens and dots"),
        validation = Rule::new("!has(self.sharedClassName) || self.sharedClassName.matches(r'^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$')").message("sharedClassName must be the name of a StorageClass: small letters, digits, hyphens and dots")
    )]
    #[serde(default)]
    pub storage: ClassStorage,
    /// How end apps come in; tenants have no Ingress where this is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<ClassIngress>,
    /// Whom tenants talk to.
    #[x_kube(
        validation = Rule::new("!has(self.databaseCidrs) || self.databaseCidrs.all(cidr, isCIDR(cidr))").message("databaseCidrs must be networks, as 10.0.0.0/8 or fd00::/8"),
        validation = Rule::new("!has(self.egressCidrs) || self.egressCidrs.all(cidr, isCIDR(cidr))").message("egressCidrs must be networks, as 203.0.113.0/24 or 2001:db8::/32"),
        validation = are_labels("ingressNamespaceLabels", "ingress-nginx"),
        validation = are_labels("monitoringNamespaceLabels", "monitoring")
    )]
    #[serde(default)]
    pub network: ClassNetwork,
    /// How a new release is let in.
    #[serde(default)]
    pub rollout: ClassRollout,
    /// What `Plugin` objects of this class may do.
    #[x_kube(validation = Rule::new("!has(self.urlHosts) || self.urlHosts.all(host, host.matches(r'^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$'))").message("urlHosts must be host names in small letters, without https:// and path, as plugins.example.com"))]
    #[serde(default)]
    pub plugins: ClassPlugins,
}

/// A release and its image.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// Its name, as `0.1.0`.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches(r'^[A-Za-z0-9]([-+._A-Za-z0-9]*[A-Za-z0-9])?$')").message("name must be letters, digits and - + . _, as 0.1.0"))]
    pub name: String,
    /// Its image; by digest in production.
    #[schemars(length(min = 1, max = 500))]
    #[x_kube(validation = Rule::new("self.matches(r'^\\S+$')").message("image must be the name of an image without a space"))]
    pub image: String,
}

/// A size that tenants may ask for; it holds for each of a tenant's processes.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Size {
    /// Its name.
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(validation = Rule::new("self.matches(r'^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("name must be small letters, digits and hyphens"))]
    pub name: String,
    /// CPU that is kept free for a process, as `100m`.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(validation = Rule::new("self.matches(r'^[1-9][0-9]*m?$')").message("cpu must be a number of cores or thousandths, as 1 or 100m"))]
    pub cpu: String,
    /// Memory of a process, requested and at most, as `256Mi`.
    #[schemars(length(min = 2, max = 16))]
    #[x_kube(validation = Rule::new("self.matches(r'^[1-9][0-9]*(Mi|Gi)$')").message("memory must be a whole number with Mi or Gi, as 256Mi"))]
    pub memory: String,
    /// Memory of the container that compiles plugins.
    #[schemars(length(min = 2, max = 16))]
    #[x_kube(validation = Rule::new("self.matches(r'^[1-9][0-9]*(Mi|Gi)$')").message("compilerMemory must be a whole number with Mi or Gi, as 512Mi"))]
    #[serde(default = "default_compiler_memory")]
    pub compiler_memory: String,
    /// Database connections of a process.
    #[schemars(range(min = 3, max = 200))]
    #[serde(default = "default_connections")]
    pub connections: i32,
}

/// What a tenant gets that leaves something out.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ClassDefaults {
    /// One of the sizes.
    #[schemars(length(min = 1, max = 40))]
    pub size: String,
    /// How large a tenant's volume is.
    #[schemars(length(min = 2, max = 16))]
    pub volume_size: String,
    /// How many processes serve.
    #[schemars(range(min = 1, max = 20))]
    pub replicas: i32,
}

impl Default for ClassDefaults {
    fn default() -> ClassDefaults {
        ClassDefaults { size: "small".to_owned(), volume_size: "10Gi".to_owned(), replicas: 1 }
    }
}

/// How far a tenant may go.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ClassLimits {
    /// Most processes of a tenant, autoscaled or not.
    #[schemars(range(min = 1, max = 20))]
    pub replicas_max: i32,
    /// Largest volume.
    #[schemars(length(min = 2, max = 16))]
    pub volume_size_max: String,
    /// Ends of host names that tenants may claim, as `example.com`; any where left out.
    #[schemars(length(max = 50), inner(length(min = 1, max = 253)))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub host_suffixes: Vec<String>,
}

impl Default for ClassLimits {
    fn default() -> ClassLimits {
        ClassLimits { replicas_max: 4, volume_size_max: "200Gi".to_owned(), host_suffixes: Vec::new() }
    }
}

/// PostgreSQL for tenants with a managed database.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ClassDatabase {
    /// The servers, by name.
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<DatabaseServer>,
}

/// A PostgreSQL server, 16 or newer in production.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[x_kube(validation = Rule::new("!has(self.caBundle) || self.sslMode == 'verify-full'").message("caBundle is for sslMode: verify-full, which alone looks at the server's certificate"))]
#[serde(rename_all = "camelCase")]
pub struct DatabaseServer {
    /// Its name in the class.
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(validation = Rule::new("self.matches(r'^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("name must be small letters, digits and hyphens"))]
    pub name: String,
    /// Host name or address, as operator and tenants reach it.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches(r'^[A-Za-z0-9]([-.:A-Za-z0-9]*[A-Za-z0-9])?$')").message("host must be a host name or an address"))]
    pub host: String,
    /// Port.
    #[schemars(range(min = 1, max = 65535))]
    #[serde(default = "default_port")]
    pub port: i32,
    /// How connections are encrypted.
    #[serde(default)]
    pub ssl_mode: SslMode,
    /// Certificates (PEM) of the authority that signs the server's; those of the public web where left out.
    #[schemars(length(min = 1, max = 65_536))]
    #[x_kube(validation = Rule::new("self.startsWith('-----BEGIN CERTIFICATE-----')").message("caBundle must begin with -----BEGIN CERTIFICATE-----, as certificates in PEM do"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<String>,
    /// A secret in the operator's namespace with `username` and `password` of a role with the rights of `docs/operator.sql`.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches(r'^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$')").message("adminSecretName must be the name of a secret: small letters, digits, hyphens and dots"))]
    pub admin_secret_name: String,
    /// Connections that tenants of this cluster may open in all; no tenant is placed that would go beyond.
    #[schemars(range(min = 1, max = 100_000))]
    #[serde(default = "default_connections_max")]
    pub connections_max: i32,
}

/// How connections to a server are encrypted, in PostgreSQL's words.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Not at all.
    Disable,
    /// Where the server offers it.
    #[default]
    Prefer,
    /// Always, whoever the server is.
    Require,
    /// Always, by a certificate of a known authority for this host.
    VerifyFull,
}

impl SslMode {
    /// The spelling in a connection URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            SslMode::Disable => "disable",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyFull => "verify-full",
        }
    }
}

/// Volumes of tenants.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ClassStorage {
    /// Storage class of volumes that one process uses; the cluster's default where left out.
    #[schemars(length(min = 1, max = 253))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// Storage class of volumes that several processes share (`ReadWriteMany`); tenants can't have several without it.
    #[schemars(length(min = 1, max = 253))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_class_name: Option<String>,
}

/// How end apps come in.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClassIngress {
    /// Name of the `IngressClass`.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches(r'^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$')").message("className must be the name of an IngressClass: small letters, digits, hyphens and dots"))]
    pub class_name: String,
    /// Annotations of every Ingress.
    #[schemars(extend("maxProperties" = 30, "additionalProperties" = { "type": "string", "maxLength": 4096 }))]
    #[x_kube(validation = Rule::new("self.all(name, name.size() <= 317 && name.matches(r'^([a-z0-9]([-.a-z0-9]*[a-z0-9])?/)?[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?$'))").message("annotations must have names of annotations, as cert-manager.io/cluster-issuer"))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Whether each tenant's Ingress asks for TLS with the secret `heyuan-tls` of its namespace, which a certificate manager fills.
    #[serde(default)]
    pub tls: bool,
}

/// A field of namespace labels holds names and values of labels.
fn are_labels(field: &str, example: &str) -> Rule {
    let name = "^([a-z0-9]([-.a-z0-9]*[a-z0-9])?/)?[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?$";
    let value = "^([A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?)?$";
    let each = format!("label.size() <= 317 && label.matches(r'{name}') && self.{field}[label].matches(r'{value}')");
    Rule::new(format!("!has(self.{field}) || self.{field}.all(label, {each})"))
        .message(format!("{field} must be labels, as kubernetes.io/metadata.name: {example}").as_str())
}

/// Whom tenants talk to. What is not written here is denied by the rendered NetworkPolicies.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ClassNetwork {
    /// Labels of the namespaces from which requests come: the ingress controller's. Nobody where left out.
    #[schemars(extend("maxProperties" = 10, "additionalProperties" = { "type": "string", "maxLength": 63 }))]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ingress_namespace_labels: BTreeMap<String, String>,
    /// Labels of the namespaces from which metrics are read. Nobody but the operator where left out.
    #[schemars(extend("maxProperties" = 10, "additionalProperties" = { "type": "string", "maxLength": 63 }))]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub monitoring_namespace_labels: BTreeMap<String, String>,
    /// Addresses of databases, as CIDR, reached on the server's port; every address where left out.
    #[schemars(length(max = 20), inner(length(min = 3, max = 43)))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub database_cidrs: Vec<String>,
    /// Addresses beyond database and DNS that tenants may reach on port 443, as CIDR: payment, media platforms, plugins.
    #[schemars(length(max = 50), inner(length(min = 3, max = 43)))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress_cidrs: Vec<String>,
}

/// How a new release is let in.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ClassRollout {
    /// How long a new pod has to be ready, and answer, before an old one goes.
    #[schemars(range(min = 1, max = 3600))]
    pub gate_seconds: i32,
    /// Answers with a status of 500 and more, per 1,000 of the new pods' answers within the gate's time, that stop the rollout.
    #[schemars(range(min = 0, max = 1000))]
    pub errors_per_thousand_max: i32,
    /// How long a new pod may take to become ready.
    #[schemars(range(min = 10, max = 7200))]
    pub ready_seconds_max: i32,
    /// How long a migration job may take.
    #[schemars(range(min = 10, max = 86400))]
    pub migration_seconds_max: i32,
}

impl Default for ClassRollout {
    fn default() -> ClassRollout {
        ClassRollout { gate_seconds: 30, errors_per_thousand_max: 20, ready_seconds_max: 300, migration_seconds_max: 3600 }
    }
}

/// What `Plugin` objects of this class may do.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ClassPlugins {
    /// Hosts from which plugins may be fetched; none where left out.
    #[schemars(length(max = 50), inner(length(min = 1, max = 253)))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub url_hosts: Vec<String>,
    /// The most that any tenant of the class may approve: names of features, or names that end in `.*`; everything where left out.
    #[schemars(length(max = 100), inner(length(min = 1, max = 200)))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub features_max: Vec<String>,
}

fn default_compiler_memory() -> String {
    "512Mi".to_owned()
}

fn default_connections() -> i32 {
    10
}

fn default_port() -> i32 {
    5432
}

fn default_connections_max() -> i32 {
    500
}
