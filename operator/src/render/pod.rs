//! The pods of a tenant, by revision. A revision that has been released is never changed: an operator that wrote a running release's pods
//! differently would restart every tenant on the day of its own upgrade. A change is a new revision, which a tenant meets with its next release.

use super::{CA_FILE, CA_KEY, DATABASE_FOLDER, Running, Shape};
use crate::master::Home;
use crate::name::{APP, COMPONENT, OPERATOR_PORT, PORT, TENANT};
use serde_json::{Value, json};

/// How pods of the next release are written.
pub(crate) const RENDER_REVISION: u32 = 1;

/// Seconds that a pod goes on serving after it is told to stop, until nobody sends to it any more.
const STOP_DELAY_SECONDS: u32 = 5;
/// Seconds until a pod is killed that was told to stop.
const STOP_SECONDS_MAX: u32 = 40;
/// User and group of every process: nobody in particular.
const USER: i64 = 65_532;

/// Labels by which a tenant's serving pods are found.
pub(super) fn selector(shape: &Shape) -> Value {
    json!({ TENANT: shape.tenant, "app.kubernetes.io/name": APP, COMPONENT: "server" })
}

/// The template of the serving pods.
///
/// # Panics
/// On a revision that no operator ever wrote.
pub(super) fn server_template(shape: &Shape, running: &Running) -> Value {
    match running.revision {
        1 => server_template_1(shape, running),
        unknown => panic!("render revision {unknown} was never written by any operator"),
    }
}

fn server_template_1(shape: &Shape, running: &Running) -> Value {
    let mut labels = shape.labels();
    labels.insert(COMPONENT.to_owned(), "server".into());
    labels.insert("app.kubernetes.io/version".to_owned(), running.release.clone().into());
    let probe = |path: &str, period: u32, failures: u32| {
        json!({
            "httpGet": { "path": path, "port": "operator", "scheme": "HTTP" },
            "periodSeconds": period, "failureThreshold": failures, "successThreshold": 1, "timeoutSeconds": 2,
        })
    };
    let mut args: Vec<String> = ["serve", "--data", "/data", "--listen"].map(str::to_owned).to_vec();
    args.extend([format!("0.0.0.0:{PORT}"), "--operator-listen".to_owned(), format!("0.0.0.0:{OPERATOR_PORT}")]);
    args.extend(database_args(shape));
    let server = json!({
        "name": "heyuan",
        "image": running.image,
        "imagePullPolicy": "IfNotPresent",
        "args": args,
        "env": [
            { "name": "HEYUAN_TENANT__TIME_ZONE", "value": shape.time_zone },
            { "name": "HEYUAN_TENANT__KEY_FILE", "value": "/etc/heyuan/keys/tenant-key" },
            { "name": "HEYUAN_OPERATOR__KEY_FILE", "value": "/etc/heyuan/keys/operator-key" },
            { "name": "HEYUAN_HTTP__STOP_DELAY_SECONDS", "value": STOP_DELAY_SECONDS.to_string() },
            { "name": "HEYUAN_PLUGINS__COMPILER_SOCKET", "value": "/run/heyuan/compiler" },
            { "name": "HEYUAN_TELEMETRY__LOG_FORMAT", "value": "json" },
        ],
        "ports": [
            { "name": "http", "containerPort": PORT, "protocol": "TCP" },
            { "name": "operator", "containerPort": OPERATOR_PORT, "protocol": "TCP" },
        ],
        "startupProbe": probe("/livez", 1, 120),
        "readinessProbe": probe("/readyz", 2, 2),
        "livenessProbe": probe("/livez", 10, 6),
        "resources": process_resources(shape),
        "securityContext": container_security(),
        "volumeMounts": [
            { "name": "data", "mountPath": "/data" },
            { "name": "keys", "mountPath": "/etc/heyuan/keys", "readOnly": true },
            { "name": "database", "mountPath": DATABASE_FOLDER, "readOnly": true },
            { "name": "compiler", "mountPath": "/run/heyuan" },
        ],
    });
    // Compiles plugins: no secret, no data, and memory of its own to run out of.
    let compiler = json!({
        "name": "compiler",
        "image": running.image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["compile-plugins", "--socket", "/run/heyuan/compiler"],
        "resources": {
            "requests": { "cpu": "10m", "memory": "32Mi" },
            "limits": { "memory": shape.size.compiler_memory },
        },
        "securityContext": container_security(),
        "volumeMounts": [{ "name": "compiler", "mountPath": "/run/heyuan" }],
    });
    let mut containers = vec![server, compiler];
    let mut volumes = vec![
        json!({ "name": "data", "persistentVolumeClaim": { "claimName": APP } }),
        json!({ "name": "keys", "secret": { "secretName": APP, "defaultMode": 0o440, "items": [
            { "key": "tenant-key", "path": "tenant-key" }, { "key": "operator-key", "path": "operator-key" },
        ] } }),
        json!({ "name": "compiler", "emptyDir": {} }),
    ];
    match database_volume(shape) {
        Some(volume) => volumes.push(volume),
        None => without_mount(&mut containers[0], "database"),
    }
    let mut spec = pod_spec(containers, volumes);
    spec["terminationGracePeriodSeconds"] = STOP_SECONDS_MAX.into();
    if !shape.shared && !shape.embedded() {
        // Old and new pod share the volume during a rollout, so they must share the node that has it.
        spec["affinity"] = json!({ "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
            { "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": selector(shape) } },
        ] } });
    }
    if shape.replicas.most() > 1 {
        spec["topologySpreadConstraints"] = json!([{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": { "matchLabels": selector(shape) },
        }]);
    }
    json!({ "metadata": { "labels": labels }, "spec": spec })
}

fn without_mount(container: &mut Value, mount: &str) {
    if let Some(mounts) = container["volumeMounts"].as_array_mut() {
        mounts.retain(|one| one["name"] != mount);
    }
}

/// The template of the pod that migrates; jobs are new for each release, so it has no revisions.
pub(super) fn migration_template(shape: &Shape, running: &Running) -> Value {
    let mut labels = shape.labels();
    labels.insert(COMPONENT.to_owned(), "migration".into());
    let mut args: Vec<String> = ["migrate", "--data", "/data", "--report", "/dev/termination-log"].map(str::to_owned).to_vec();
    args.extend(database_args(shape));
    if shape.embedded() {
        args.extend(["--keep-copy".to_owned(), running.release.clone()]);
    }
    let mut container = json!({
        "name": "migrate",
        "image": running.image,
        "imagePullPolicy": "IfNotPresent",
        "args": args,
        "env": [{ "name": "HEYUAN_TELEMETRY__LOG_FORMAT", "value": "json" }],
        "resources": process_resources(shape),
        "securityContext": container_security(),
        "volumeMounts": [
            { "name": "data", "mountPath": "/data" },
            { "name": "database", "mountPath": DATABASE_FOLDER, "readOnly": true },
        ],
    });
    let mut volumes = Vec::new();
    match database_volume(shape) {
        Some(volume) => volumes.extend([json!({ "name": "data", "emptyDir": {} }), volume]),
        None => {
            volumes.push(json!({ "name": "data", "persistentVolumeClaim": { "claimName": APP } }));
            without_mount(&mut container, "database");
            // Indexes of the copy are sorted on the volume: the image has no folder for temporary files.
            if let Some(env) = container["env"].as_array_mut() {
                env.push(json!({ "name": "SQLITE_TMPDIR", "value": "/data" }));
            }
        }
    }
    let mut spec = pod_spec(vec![container], volumes);
    spec["restartPolicy"] = "Never".into();
    json!({ "metadata": { "labels": labels }, "spec": spec })
}

fn database_args(shape: &Shape) -> Vec<String> {
    match shape.home {
        Home::Embedded => Vec::new(),
        Home::Managed { .. } | Home::External => vec!["--database-url-file".to_owned(), format!("{DATABASE_FOLDER}/url")],
    }
}

/// The URL, and the certificates of the server's authority where it has one of its own.
fn database_volume(shape: &Shape) -> Option<Value> {
    let volume = match &shape.home {
        Home::Embedded => return None,
        Home::Managed { .. } => {
            let mut items = vec![json!({ "key": "database-url", "path": "url" })];
            if shape.server.as_ref().is_some_and(|server| server.ca_bundle.is_some()) {
                items.push(json!({ "key": CA_KEY, "path": CA_FILE }));
            }
            json!({ "name": "database", "secret": { "secretName": APP, "defaultMode": 0o440, "items": items } })
        }
        Home::External => {
            let secret = shape.external_secret.as_deref()?;
            let source = |key: &str, optional: bool| json!({ "secret": { "name": secret, "items": [{ "key": key, "path": key }], "optional": optional } });
            json!({ "name": "database", "projected": { "defaultMode": 0o440, "sources": [source("url", false), source(CA_FILE, true)] } })
        }
    };
    Some(volume)
}

fn pod_spec(containers: Vec<Value>, volumes: Vec<Value>) -> Value {
    json!({
        "serviceAccountName": APP,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER, "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": containers,
        "volumes": volumes,
    })
}

fn process_resources(shape: &Shape) -> Value {
    json!({
        "requests": { "cpu": shape.size.cpu, "memory": shape.size.memory },
        "limits": { "memory": shape.size.memory },
    })
}

fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "capabilities": { "drop": ["ALL"] },
    })
}
