//! Who may talk to a tenant and whom it may talk to.

use super::Shape;
use crate::master::Home;
use crate::name::{APP, OPERATOR_PORT, PORT};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Port of HTTPS.
const HTTPS: u16 = 443;
/// Port of a database whose URL the operator does not read.
const POSTGRES: i32 = 5432;

/// Deny everything in the namespace, then what is needed.
pub(crate) fn network_policies(shape: &Shape) -> [Value; 2] {
    let deny = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": shape.metadata("deny-all"),
        "spec": { "podSelector": {}, "policyTypes": ["Ingress", "Egress"] },
    });
    let from = |labels: &BTreeMap<String, String>, port: u16| json!({ "from": [{ "namespaceSelector": { "matchLabels": labels } }], "ports": [{ "port": port, "protocol": "TCP" }] });
    let operator = BTreeMap::from([("kubernetes.io/metadata.name".to_owned(), shape.operator_namespace.clone())]);
    let mut ingress = vec![from(&operator, OPERATOR_PORT)];
    for (labels, port) in [(&shape.network.ingress_namespace_labels, PORT), (&shape.network.monitoring_namespace_labels, OPERATOR_PORT)] {
        // No label at all would be every namespace.
        if !labels.is_empty() {
            ingress.push(from(labels, port));
        }
    }
    let dns = [json!({ "port": 53, "protocol": "UDP" }), json!({ "port": 53, "protocol": "TCP" })];
    let mut egress = vec![json!({
        "to": [{ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "kube-system" } } }],
        "ports": dns,
    })];
    egress.extend(database_rule(shape));
    if !shape.network.egress_cidrs.is_empty() {
        egress.push(json!({ "to": blocks(&shape.network.egress_cidrs), "ports": [{ "port": HTTPS, "protocol": "TCP" }] }));
    }
    let allow = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": shape.metadata(APP),
        "spec": {
            "podSelector": {},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    });
    [deny, allow]
}

fn database_rule(shape: &Shape) -> Option<Value> {
    if shape.home == Home::Embedded {
        return None;
    }
    let port = shape.server.as_ref().map_or(POSTGRES, |server| server.port);
    if shape.network.database_cidrs.is_empty() {
        return Some(json!({ "ports": [{ "port": port, "protocol": "TCP" }] }));
    }
    Some(json!({ "to": blocks(&shape.network.database_cidrs), "ports": [{ "port": port, "protocol": "TCP" }] }))
}

fn blocks(cidrs: &[String]) -> Vec<Value> {
    cidrs.iter().map(|cidr| json!({ "ipBlock": { "cidr": cidr } })).collect()
}

/// The way in for end apps, where class and tenant have one.
pub(crate) fn ingress(shape: &Shape) -> Option<Value> {
    let class = shape.ingress.as_ref().filter(|_| !shape.hosts.is_empty())?;
    let rules: Vec<Value> = shape
        .hosts
        .iter()
        .map(|host| {
            json!({ "host": host, "http": { "paths": [{
                "path": "/", "pathType": "Prefix",
                "backend": { "service": { "name": APP, "port": { "name": "http" } } },
            }] } })
        })
        .collect();
    let mut metadata = shape.metadata(APP);
    metadata["annotations"] = json!(class.annotations);
    let mut spec = json!({ "ingressClassName": class.class_name, "rules": rules });
    if class.tls {
        spec["tls"] = json!([{ "hosts": shape.hosts, "secretName": "heyuan-tls" }]);
    }
    Some(json!({ "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec }))
}
