//! Deployment, job, services, autoscaler and disruption budget.

use super::pod::{migration_template, selector, server_template};
use super::{Replicas, Running, Shape};
use crate::name::{self, APP, COMPONENT, OPERATOR_PORT, PORT};
use serde_json::{Value, json};

/// Old replica sets that are kept: the release before.
const HISTORY: i32 = 2;

/// Whether a Deployment's pods are let in at once or through the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Nobody serves that could be harmed.
    Open,
    /// Old pods go one by one, each when a new one has been good for the gate's time.
    Watched,
}

/// The serving pods.
pub(crate) fn deployment(shape: &Shape, running: &Running, gate: Gate) -> Value {
    let strategy = if shape.embedded() {
        json!({ "type": "Recreate" })
    } else {
        json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } })
    };
    let gate_seconds = if gate == Gate::Watched { shape.gate_seconds } else { 0 };
    let mut metadata = shape.metadata(APP);
    metadata["labels"]["app.kubernetes.io/version"] = running.release.as_str().into();
    metadata["annotations"] = json!({
        "heyuan.dev/release": running.release,
        "heyuan.dev/image": running.image,
        "heyuan.dev/render-revision": running.revision.to_string(),
    });
    let mut spec = json!({
        "selector": { "matchLabels": selector(shape) },
        "strategy": strategy,
        "minReadySeconds": gate_seconds,
        "progressDeadlineSeconds": shape.ready_seconds_max + gate_seconds,
        "revisionHistoryLimit": HISTORY,
        "template": server_template(shape, running),
    });
    if let Replicas::Fixed(count) = shape.replicas {
        spec["replicas"] = count.into();
    }
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec })
}

/// The same without a pod: an embedded tenant whose file is being changed.
pub(crate) fn at_rest(shape: &Shape, running: &Running) -> Value {
    let mut deployment = deployment(shape, running, Gate::Open);
    deployment["spec"]["replicas"] = 0.into();
    deployment
}

/// The name of the job that migrates for an image; another try is another job.
pub(crate) fn migration_job_name(image: &str, retry: Option<&str>) -> String {
    format!("migrate-{}", &name::digest(format!("{image}\n{}", retry.unwrap_or_default()).as_bytes())[..10])
}

/// The job that brings the schema to the level of a release.
pub(crate) fn migration_job(shape: &Shape, running: &Running, retry: Option<&str>) -> Value {
    let mut metadata = shape.metadata(&migration_job_name(&running.image, retry));
    metadata["labels"][COMPONENT] = "migration".into();
    let mut spec = json!({
        // A pod that was evicted or whose node died is tried again; a migration that failed fails again, and soon.
        "backoffLimit": 2,
        "activeDeadlineSeconds": shape.migration_seconds_max,
        "template": migration_template(shape, running),
    });
    if shape.embedded() {
        // Nobody serves meanwhile, so that what failed is not tried a second time before the old release is back.
        spec["backoffLimit"] = 0.into();
        spec["podFailurePolicy"] =
            json!({ "rules": [{ "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] }] });
    }
    json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec })
}

/// Where end apps come, and where the operator and Prometheus come.
pub(crate) fn services(shape: &Shape) -> [Value; 2] {
    let service = |object: &str, component: &str, port: &str, number: u16| {
        let mut metadata = shape.metadata(object);
        metadata["labels"][COMPONENT] = component.into();
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {
                "type": "ClusterIP",
                "selector": selector(shape),
                "ports": [{ "name": port, "port": number, "targetPort": port, "protocol": "TCP" }],
            },
        })
    };
    [service(APP, "server", "http", PORT), service("heyuan-operator", "operator", "operator", OPERATOR_PORT)]
}

/// The autoscaler, where the load decides.
pub(crate) fn autoscaler(shape: &Shape) -> Option<Value> {
    let Replicas::Scaled { min, max, cpu_percent } = shape.replicas else { return None };
    Some(json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": shape.metadata(APP),
        "spec": {
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": APP },
            "minReplicas": min,
            "maxReplicas": max,
            "metrics": [{ "type": "Resource", "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": cpu_percent } } }],
        },
    }))
}

/// Keeps a drain from taking the last pod; with one pod it would only block drains.
pub(crate) fn disruption_budget(shape: &Shape) -> Option<Value> {
    (!shape.embedded() && shape.replicas.fewest() > 1).then(|| {
        json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": shape.metadata(APP),
            "spec": { "maxUnavailable": 1, "selector": { "matchLabels": selector(shape) } },
        })
    })
}
