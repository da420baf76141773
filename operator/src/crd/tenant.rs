//! `Tenant`: a property group with a platform of its own.

#![expect(unreachable_pub, reason = "the derive copies each struct, with its `pub`, into a function of its own")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A property group with its own namespace, database, keys and processes. Apply it and wait for `Ready`.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "heyuan.dev",
    version = "v1alpha1",
    kind = "Tenant",
    shortname = "tnt",
    category = "heyuan",
    status = "TenantStatus",
    derive = "PartialEq",
    doc = "A property group with its own namespace, database, keys and processes. Apply it and wait for `Ready`.",
    printcolumn(json_path = ".status.state", name = "State", type_ = "string", description = "The first answer: Ready, Progressing, Degraded, Paused or Deleting"),
    printcolumn(json_path = ".status.url", name = "URL", type_ = "string"),
    printcolumn(json_path = ".status.release", name = "Release", type_ = "string", description = "The release that serves"),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date"),
    printcolumn(json_path = ".status.why", name = "Why", type_ = "string", description = "Why it is not ready, in words"),
    printcolumn(json_path = ".spec.class", name = "Class", type_ = "string", priority = 1),
    printcolumn(json_path = ".status.dataId", name = "Data", type_ = "string", priority = 1),
    validation = Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must have at most 40 characters: small letters, digits and hyphens, a letter first and no hyphen last")
)]
#[x_kube(
    validation = Rule::new("!(has(self.replicas) && has(self.autoscaling))").message("write either replicas or autoscaling, not both: with autoscaling the number of replicas belongs to it"),
    validation = Rule::new("!has(self.database.embedded) || (!has(self.autoscaling) && (!has(self.replicas) || self.replicas == 1))").message("an embedded database has one process: leave out autoscaling, and replicas or write replicas: 1"),
    validation = Rule::new("has(self.adopt) == has(oldSelf.adopt) && (!has(self.adopt) || self.adopt == oldSelf.adopt)").message("adopt is decided when the tenant is created; delete the tenant and create it again to take other data over"),
    validation = Rule::new("has(self.database.managed) == has(oldSelf.database.managed) && has(self.database.external) == has(oldSelf.database.external) && has(self.database.embedded) == has(oldSelf.database.embedded)").message("the kind of database can't be changed; create another tenant and move the data"),
    validation = Rule::new("!has(self.units) || self.units.all(unit, !has(unit.parent) || self.units.exists(other, other.id == unit.parent))").message("units: each parent must be the id of another unit in the list"),
)]
#[serde(rename_all = "camelCase")]
pub struct TenantSpec {
    /// The group's name as people know it.
    #[schemars(length(min = 1, max = 100))]
    pub display_name: String,
    /// The `TenantClass` that says where and how the tenant runs.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches(r'^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("class must be the name of a TenantClass: small letters, digits and hyphens"))]
    #[serde(default = "default_class")]
    pub class: String,
    /// A release that the class lists, to stay on it; leave it out to follow the class.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches(r'^[A-Za-z0-9]([-+._A-Za-z0-9]*[A-Za-z0-9])?$')").message("release must be letters, digits and - + . _, as 0.1.0"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Host names under which end apps reach the tenant; each belongs to one tenant of the cluster.
    #[schemars(length(max = 10), inner(length(min = 3, max = 253)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new("self.all(host, host.matches(r'^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\\.)+[a-z]([-a-z0-9]{0,61}[a-z0-9])?$'))").message("hosts must be host names in small letters, as shop.example.com")
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// IANA name of the zone in which the tenant's days are counted; fixed for ever.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches(r'^[A-Za-z][-+_A-Za-z0-9]*(/[A-Za-z][-+_A-Za-z0-9]*){0,2}$')").message("timeZone must be an IANA name, as Asia/Shanghai"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("timeZone can't be changed: days, windows and reports are counted in it"))]
    #[serde(default = "default_time_zone")]
    pub time_zone: String,
    /// The group's first org units. Those that are missing are made; those that are there are never changed or removed.
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<OrgUnit>,
    /// One of the sizes of the class; the class's default where left out.
    #[schemars(length(min = 1, max = 40))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// Where the tenant's data lives.
    pub database: Database,
    /// The volume for files: event history and compiled plugins.
    #[serde(default)]
    pub storage: Storage,
    /// How many processes serve; the class's default where neither this nor `autoscaling` is written.
    #[schemars(range(min = 1, max = 20))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Let the load decide how many processes serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// What plugins of this tenant may be given.
    #[serde(default)]
    pub plugins: PluginPolicy,
    /// Whom the group names as its administrator; shown, never written to.
    #[schemars(length(max = 254))]
    #[x_kube(validation = Rule::new("self.matches(r'^[^@\\s]+@[^@\\s]+\\.[^@\\s]+$')").message("adminEmail must be an e-mail address, as admin@example.com"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_email: Option<String>,
    /// What becomes of the data when the tenant is deleted.
    #[serde(default)]
    pub deletion: Deletion,
    /// The data id of a deleted tenant whose retained data this one takes over.
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.matches(r'^[a-z0-9]{16}$')").message("adopt must be a data id: 16 small letters and digits, as status.dataId of the tenant that had the data"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopt: Option<String>,
    /// Leave everything as it is: nothing is changed, corrected or deleted while this is true.
    #[serde(default)]
    pub paused: bool,
    /// How often the database password is changed.
    #[serde(default)]
    pub rotation: Rotation,
}

/// One unit of the group's tree.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[x_kube(validation = Rule::new("!has(self.parent) || self.parent != self.id").message("a unit can't be its own parent"))]
#[serde(rename_all = "camelCase")]
pub struct OrgUnit {
    /// Its id in keys, events and reports.
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(validation = Rule::new("self.matches(r'^[a-z0-9]([-_a-z0-9]*[a-z0-9])?$')").message("id must be small letters, digits, hyphens and underscores, as mall-1"))]
    pub id: String,
    /// Its name as people know it.
    #[schemars(length(min = 1, max = 100))]
    pub name: String,
    /// What it is.
    pub kind: UnitKind,
    /// The unit above it; the group itself where left out.
    #[schemars(length(min = 1, max = 40))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
}

/// What an org unit is; malls, offices, hotels, projects and communities are the business lines.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the field's words")]
pub enum UnitKind {
    City,
    Project,
    Mall,
    Office,
    Hotel,
    Community,
}

impl UnitKind {
    /// The business line of such a unit, in the tenant's spelling; a city company has none.
    pub const fn line(self) -> Option<&'static str> {
        match self {
            UnitKind::City => None,
            UnitKind::Project => Some("residential"),
            UnitKind::Mall => Some("mall"),
            UnitKind::Office => Some("office"),
            UnitKind::Hotel => Some("hotel"),
            UnitKind::Community => Some("community"),
        }
    }
}

/// Where the tenant's data lives: exactly one of the three.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[x_kube(validation = Rule::new("[has(self.managed), has(self.external), has(self.embedded)].filter(x, x).size() == 1").message("write exactly one of managed, external and embedded"))]
#[serde(rename_all = "camelCase")]
pub struct Database {
    /// A PostgreSQL database that the operator makes on a server of the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<Managed>,
    /// A PostgreSQL database that somebody else keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// SQLite on a volume: one process, stopped and started at an upgrade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedded: Option<Embedded>,
}

/// A database on a server of the class.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[x_kube(validation = Rule::new("has(self.server) == has(oldSelf.server) && (!has(self.server) || self.server == oldSelf.server)").message("server can't be changed; create another tenant and move the data"))]
#[serde(rename_all = "camelCase")]
pub struct Managed {
    /// The name of the server in the class; the class's first where left out.
    #[schemars(length(min = 1, max = 40))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
}

/// A database that somebody else keeps.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct External {
    /// A secret in the tenant's own namespace with the key `url` (`postgres://user:password@host:port/database`). Its password is never
    /// changed by the operator; when the secret changes, the processes follow without a restart. A key `ca.crt` is mounted beside it, for a
    /// URL that ends in `?sslmode=verify-full&sslrootcert=/etc/heyuan/database/ca.crt`.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches(r'^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$')").message("secretName must be the name of a secret: small letters, digits, hyphens and dots"))]
    pub secret_name: String,
}

/// SQLite on the tenant's volume.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Embedded {}

/// The tenant's volume.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[x_kube(validation = Rule::new("!has(oldSelf.volumeSize) || (has(self.volumeSize) && quantity(self.volumeSize).compareTo(quantity(oldSelf.volumeSize)) >= 0)").message("volumeSize can only grow"))]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// How large it is, as `10Gi`; the class's default where left out. It can grow where the storage class allows it.
    #[schemars(length(min = 2, max = 16))]
    #[x_kube(validation = Rule::new("self.matches(r'^[1-9][0-9]*(Mi|Gi|Ti)$')").message("volumeSize must be a whole number with Mi, Gi or Ti, as 10Gi"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_size: Option<String>,
}

/// Bounds of a horizontal autoscaler.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[x_kube(validation = Rule::new("self.minReplicas <= self.maxReplicas").message("minReplicas must not be larger than maxReplicas"))]
#[serde(rename_all = "camelCase")]
pub struct Autoscaling {
    /// Fewest processes.
    #[schemars(range(min = 1, max = 20))]
    pub min_replicas: i32,
    /// Most processes.
    #[schemars(range(min = 1, max = 20))]
    pub max_replicas: i32,
    /// Per cent of the requested CPU that it aims at.
    #[schemars(range(min = 10, max = 95))]
    #[serde(default = "default_cpu_percent")]
    pub cpu_percent: i32,
}

/// What plugins may be given.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct PluginPolicy {
    /// The features that a `Plugin` object may be approved to read: a name, or a name that ends in `.*`. Nothing where left out.
    #[schemars(length(max = 100), inner(length(min = 1, max = 200)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
}

/// What becomes of the data when the tenant is deleted.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Deletion {
    /// `Retain` keeps database, volume and encryption key under the tenant's data id; `Delete` removes them for good.
    #[serde(default)]
    pub policy: DeletionPolicy,
    /// Data is removed only after `Delete` has stood here for so many seconds; until then a change back to `Retain` saves it.
    #[schemars(range(min = 0, max = 2_592_000))]
    #[serde(default = "default_grace_seconds")]
    pub grace_seconds: i64,
}

impl Default for Deletion {
    fn default() -> Deletion {
        Deletion { policy: DeletionPolicy::Retain, grace_seconds: default_grace_seconds() }
    }
}

/// Whether data outlives its tenant.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeletionPolicy {
    /// It does, and another tenant may adopt it.
    #[default]
    Retain,
    /// It goes for good.
    Delete,
}

/// How often the database password is changed.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// Days between two changes; 0 for never. The annotation `heyuan.dev/rotate` with a new value asks for one at once.
    #[schemars(range(min = 0, max = 365))]
    #[serde(default = "default_rotation_days")]
    pub period_days: i32,
}

impl Default for Rotation {
    fn default() -> Rotation {
        Rotation { period_days: default_rotation_days() }
    }
}

fn default_class() -> String {
    "default".to_owned()
}

fn default_time_zone() -> String {
    "Asia/Shanghai".to_owned()
}

fn default_cpu_percent() -> i32 {
    70
}

fn default_grace_seconds() -> i64 {
    3_600
}

fn default_rotation_days() -> i32 {
    30
}

/// What the operator found and did.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct TenantStatus {
    /// Ready, Progressing, Degraded, Paused or Deleting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Why it is not ready, in words; absent when it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Where end apps reach it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The release that serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// The image of that release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// How that release's pods are written; kept until the next release, so that a new operator restarts nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub render_revision: Option<u32>,
    /// The release that is being rolled out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// A release that was tried and stopped; it is not tried again until the tenant or its class names another, or the annotation
    /// `heyuan.dev/retry` has a new value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<StoppedRelease>,
    /// The schema's level as the last migration job reported it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema_level: Option<i64>,
    /// The namespace that holds everything of the tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The name of the data, for `adopt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_id: Option<String>,
    /// A digest of the secret `heyuan` as it was last written or read; as long as it is the wanted one, the secret is read only now and then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_digest: Option<String>,
    /// When `deletion.policy: Delete` was first seen in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delete_seen_at: Option<Time>,
    /// The generation that all of this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Progressing`, `Degraded`, `Paused`, and one for each part.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A release that was tried and stopped.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StoppedRelease {
    /// Its name.
    pub release: String,
    /// Its image.
    pub image: String,
    /// The reason's name.
    pub reason: String,
    /// What happened, in words.
    pub message: String,
    /// The value of `heyuan.dev/retry` at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<String>,
}
