//! The objects of a tenant as they should be: pure functions of what was resolved, each a JSON object for server-side apply.

mod network;
mod pod;
mod workload;

pub(crate) use network::{ingress, network_policies};
pub(crate) use pod::RENDER_REVISION;
pub(crate) use workload::{Gate, at_rest, autoscaler, deployment, disruption_budget, migration_job, migration_job_name, services};

use crate::crd::{ClassIngress, ClassNetwork, DatabaseServer, OrgUnit, Size, Tenant};
use crate::database::DataNames;
use crate::master::{Hidden, Home, Master};
use crate::name::{self, ADMIN_SECRET, APP, DATA, PROOF, TENANT};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use url::Url;

/// How many processes serve, and who decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replicas {
    /// So many.
    Fixed(i32),
    /// The autoscaler decides.
    Scaled {
        /// Fewest.
        min: i32,
        /// Most.
        max: i32,
        /// Per cent of the requested CPU that it aims at.
        cpu_percent: i32,
    },
}

impl Replicas {
    /// The most there may be.
    pub(crate) const fn most(self) -> i32 {
        match self {
            Replicas::Fixed(count) => count,
            Replicas::Scaled { max, .. } => max,
        }
    }

    /// The fewest there should be.
    pub(crate) const fn fewest(self) -> i32 {
        match self {
            Replicas::Fixed(count) => count,
            Replicas::Scaled { min, .. } => min,
        }
    }
}

/// A release to run: its name and image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Running {
    /// The release's name.
    pub(crate) release: String,
    /// Its image.
    pub(crate) image: String,
    /// How its pods are written.
    pub(crate) revision: u32,
}

/// What every object of a tenant is made from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shape {
    /// The tenant's name.
    pub(crate) tenant: String,
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its data.
    pub(crate) data_id: String,
    /// The operator's namespace.
    pub(crate) operator_namespace: String,
    /// Where the data lies.
    pub(crate) home: Home,
    /// The server, for a managed database.
    pub(crate) server: Option<DatabaseServer>,
    /// The secret with the URL, for an external one.
    pub(crate) external_secret: Option<String>,
    /// Resources of a process.
    pub(crate) size: Size,
    /// Processes.
    pub(crate) replicas: Replicas,
    /// Size of the volume.
    pub(crate) volume_size: String,
    /// Storage class of the volume.
    pub(crate) storage_class: Option<String>,
    /// Whether several pods mount it.
    pub(crate) shared: bool,
    /// Zone of the tenant's days.
    pub(crate) time_zone: String,
    /// Names under which end apps come.
    pub(crate) hosts: Vec<String>,
    /// How they come in.
    pub(crate) ingress: Option<ClassIngress>,
    /// Whom the tenant talks to.
    pub(crate) network: ClassNetwork,
    /// How long a new pod must be good before an old one goes.
    pub(crate) gate_seconds: i32,
    /// How long a new pod may take.
    pub(crate) ready_seconds_max: i32,
    /// How long a migration job may take.
    pub(crate) migration_seconds_max: i32,
}

impl Shape {
    /// Labels of everything in the namespace.
    fn labels(&self) -> Map<String, Value> {
        labels(&self.tenant, &self.data_id)
    }

    /// Metadata of an object of the tenant's namespace.
    fn metadata(&self, object: &str) -> Value {
        json!({ "name": object, "namespace": self.namespace, "labels": self.labels() })
    }

    /// Whether the data lies on the tenant's volume.
    pub(crate) fn embedded(&self) -> bool {
        self.home == Home::Embedded
    }
}

fn labels(tenant: &str, data_id: &str) -> Map<String, Value> {
    let pairs = [
        (TENANT, tenant),
        (DATA, data_id),
        ("app.kubernetes.io/name", APP),
        ("app.kubernetes.io/instance", tenant),
        ("app.kubernetes.io/managed-by", name::FIELD_MANAGER),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), Value::from(value))).collect()
}

/// The proof that stands on a namespace: a digest, so that who reads it can't make another, and not the one that stands in the database.
pub(crate) fn proof_mark(proof: &Hidden) -> String {
    name::digest(format!("namespace:{}", proof.reveal()).as_bytes())
}

/// The namespace, with Pod Security's strictest level.
pub(crate) fn namespace(tenant: &str, master: &Master) -> Value {
    let mut labels = labels(tenant, &master.record.data_id);
    for mode in ["enforce", "audit", "warn"] {
        labels.insert(format!("pod-security.kubernetes.io/{mode}"), "restricted".into());
    }
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name::namespace(tenant),
            "labels": labels,
            "annotations": { PROOF: proof_mark(&master.proof) },
        },
    })
}

/// The operator's own rights in the namespace: the one binding that it may make.
pub(crate) fn role_binding(shape: &Shape, service_account: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": shape.metadata("heyuan-operator"),
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "heyuan-operator-tenant" },
        "subjects": [{ "kind": "ServiceAccount", "name": service_account, "namespace": shape.operator_namespace }],
    })
}

/// Account of the tenant's pods, which ask the API server nothing.
pub(crate) fn service_account(shape: &Shape) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": shape.metadata(APP),
        "automountServiceAccountToken": false,
    })
}

/// A bound on what the namespace may hold: the tenant at its largest, twice, since a rollout runs old and new beside each other.
pub(crate) fn quota(shape: &Shape) -> Value {
    let pods = shape.replicas.most() * 2 + 4;
    json!({
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": shape.metadata(APP),
        "spec": { "hard": {
            "pods": pods.to_string(),
            "persistentvolumeclaims": "3",
            "services": "4",
            "services.loadbalancers": "0",
            "services.nodeports": "0",
        } },
    })
}

/// The tenant's volume; labelled, never owned, so that it goes only when it is meant to.
pub(crate) fn volume_claim(shape: &Shape) -> Value {
    let mode = if shape.shared { "ReadWriteMany" } else { "ReadWriteOnce" };
    let mut spec = json!({
        "accessModes": [mode],
        "resources": { "requests": { "storage": shape.volume_size } },
    });
    if let Some(class) = &shape.storage_class {
        spec["storageClassName"] = class.as_str().into();
    }
    json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": shape.metadata(APP), "spec": spec })
}

/// Keys of the secret that the pods mount.
pub(crate) const COPIED: [&str; 3] = ["tenant-key", "operator-key", "database-url"];

/// What the pods mount: a copy of what the master has.
pub(crate) fn secret(shape: &Shape, master: &Master) -> Value {
    let mut texts =
        BTreeMap::from([("tenant-key", master.tenant_key.reveal().to_owned()), ("operator-key", master.operator_key.reveal().to_owned())]);
    if let Some(url) = shape.server.as_ref().and_then(|server| database_url(server, master)) {
        texts.insert("database-url", url);
    }
    if let Some(bundle) = shape.server.as_ref().and_then(|server| server.ca_bundle.clone()) {
        texts.insert(CA_KEY, bundle);
    }
    opaque_secret(shape.metadata(APP), texts)
}

/// The first administrator's key, delivered once.
pub(crate) fn admin_secret(shape: &Shape, master: &Master) -> Value {
    opaque_secret(shape.metadata(ADMIN_SECRET), BTreeMap::from([("admin-key", master.admin_key.reveal().to_owned())]))
}

fn opaque_secret(metadata: Value, texts: BTreeMap<&str, String>) -> Value {
    let data: BTreeMap<&str, String> = texts.into_iter().map(|(key, text)| (key, STANDARD.encode(text))).collect();
    json!({ "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata, "data": data })
}

/// The key of the tenant's secret with the certificates of its database's authority.
pub(crate) const CA_KEY: &str = "database-ca";
/// Where a pod finds what it needs to reach its database.
pub(crate) const DATABASE_FOLDER: &str = "/etc/heyuan/database";
/// The certificates there; also the key of an external database's secret.
pub(crate) const CA_FILE: &str = "ca.crt";

/// The URL under which the tenant reaches its database; none for a host or data id that the CRD's patterns don't let through.
pub(crate) fn database_url(server: &DatabaseServer, master: &Master) -> Option<String> {
    let names = DataNames::of(&master.record.data_id).ok()?;
    let login = master.login();
    let mut url = Url::parse("postgres://host/").ok()?;
    url.set_host(Some(&server.host)).ok()?;
    url.set_port(u16::try_from(server.port).ok()).ok()?;
    url.set_username(names.login(login)).ok()?;
    url.set_password(Some(master.password(login).reveal())).ok()?;
    url.set_path(names.database());
    url.query_pairs_mut().append_pair("sslmode", server.ssl_mode.as_str());
    if server.ca_bundle.is_some() {
        url.query_pairs_mut().append_pair("sslrootcert", &format!("{DATABASE_FOLDER}/{CA_FILE}"));
    }
    Some(url.to_string())
}

/// The group's own unit, above all others.
const GROUP: &str = "group";

/// The units of a tenant as the tenant's process takes them: the group's own first, and each parent before its children.
pub(crate) fn units(tenant: &Tenant) -> Value {
    let mut units = vec![json!({ "id": GROUP, "name": tenant.spec.display_name, "line": null, "parent": null })];
    let mut placed: Vec<&str> = vec![GROUP];
    let mut waiting: Vec<&OrgUnit> = tenant.spec.units.iter().filter(|unit| unit.id != GROUP).collect();
    while !waiting.is_empty() {
        let (ready, later): (Vec<&OrgUnit>, Vec<&OrgUnit>) =
            waiting.into_iter().partition(|unit| placed.contains(&unit.parent.as_deref().unwrap_or(GROUP)));
        // Units in a circle have no place; the tenant's process says so.
        let ready = if ready.is_empty() { later.clone() } else { ready };
        waiting = later.into_iter().filter(|unit| !ready.contains(unit)).collect();
        for unit in ready {
            placed.push(&unit.id);
            let parent = unit.parent.as_deref().unwrap_or(GROUP);
            units.push(json!({ "id": unit.id, "name": unit.name, "line": unit.kind.line(), "parent": parent }));
        }
    }
    json!({ "units": units })
}
