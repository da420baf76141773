//! Every field of every definition at its limits and beyond, by a dry run on the API server. What a limit is comes from the definitions, so
//! that a field without a row here, or a row without a field, fails.

use std::collections::BTreeMap;

use heyuan_harness::Access;
use heyuan_operator::crd;
use reqwest::Method;
use serde_json::{Value, json};

use super::ground::{Ground, Plane};

/// What is written into a field: the value alone is the definition's to judge, the rest of the object stays good.
type With = fn(Value) -> Value;

/// What belongs to a field beyond its definition.
enum Row {
    /// A number, a yes or no, or one of a few words: the definition says everything.
    Plain(With),
    /// A text: values that are taken, the longest among them, and values that are refused in these words.
    Text(With, Vec<Value>, Vec<(&'static str, &'static str)>),
    /// A list: its item of a number.
    List(With, fn(usize) -> Value),
    /// A map: its name and value of a number, and maps that are refused in these words.
    Map(With, fn(usize) -> (String, String), Vec<(Value, &'static str)>),
    /// An object: one that is taken, and some that are refused in these words.
    Object(With, Value, Vec<(Value, &'static str)>),
}

fn long(count: usize) -> Value {
    "a".repeat(count).into()
}

fn ends(count: usize, end: &str) -> Value {
    format!("{}{end}", "a".repeat(count - end.len())).into()
}

/// A host name of 253 characters.
fn long_host() -> Value {
    let label = "a".repeat(63);
    format!("{label}.{label}.{label}.{}", "a".repeat(61)).into()
}

/// Labels of namespaces: what is no label is refused in these words, and what is too long with the field's name.
fn labels(with: With, [words, name]: [&'static str; 2]) -> Row {
    let refused =
        vec![(json!({ "not a name": "a" }), words), (json!({ "a": "not a value" }), words), (json!({ "a": "a".repeat(64) }), name)];
    Row::Map(with, |number| (format!("example.com/l{number}"), "a".repeat(63)), refused)
}

fn tenant_rows() -> BTreeMap<&'static str, Row> {
    use Row::{List, Object, Plain, Text};
    BTreeMap::from([
        (
            "adminEmail",
            Text(
                |value| json!({ "adminEmail": value }),
                vec![json!("a@b.co"), ends(254, "@example.com")],
                vec![("nobody", "adminEmail must be an e-mail address"), ("", "adminEmail must be an e-mail address")],
            ),
        ),
        (
            "adopt",
            Text(
                |value| json!({ "adopt": value }),
                vec![json!("0123456789abcdef")],
                vec![("short", "adopt must be a data id"), ("0123456789ABCDEF", "adopt must be a data id")],
            ),
        ),
        (
            "autoscaling",
            Object(
                |value| json!({ "autoscaling": value }),
                json!({ "minReplicas": 1, "maxReplicas": 1 }),
                vec![(json!({ "minReplicas": 3, "maxReplicas": 2 }), "minReplicas must not be larger")],
            ),
        ),
        ("autoscaling.cpuPercent", Plain(|value| json!({ "autoscaling": { "minReplicas": 1, "maxReplicas": 2, "cpuPercent": value } }))),
        ("autoscaling.maxReplicas", Plain(|value| json!({ "autoscaling": { "minReplicas": 1, "maxReplicas": value } }))),
        ("autoscaling.minReplicas", Plain(|value| json!({ "autoscaling": { "minReplicas": value, "maxReplicas": 20 } }))),
        (
            "class",
            Text(
                |value| json!({ "class": value }),
                vec![json!("default"), long(63)],
                vec![("Default", "class must be the name of a TenantClass"), ("-a", "class must be the name of a TenantClass")],
            ),
        ),
        (
            "database",
            Object(
                |value| json!({ "database": merged(json!({ "managed": null }), value) }),
                json!({ "managed": {} }),
                vec![
                    (json!({}), "exactly one of managed, external and embedded"),
                    (json!({ "managed": {}, "embedded": {} }), "exactly one of managed, external and embedded"),
                ],
            ),
        ),
        ("database.embedded", Object(|value| json!({ "database": { "managed": null, "embedded": value } }), json!({}), vec![])),
        (
            "database.external",
            Object(|value| json!({ "database": { "managed": null, "external": value } }), json!({ "secretName": "a" }), vec![]),
        ),
        (
            "database.external.secretName",
            Text(
                |value| json!({ "database": { "managed": null, "external": { "secretName": value } } }),
                vec![json!("a"), long(253)],
                vec![
                    ("tenant-other/heyuan", "secretName must be the name of a secret"),
                    ("../heyuan", "secretName must be the name of a secret"),
                    ("Not A Name", "secretName must be the name of a secret"),
                ],
            ),
        ),
        ("database.managed", Object(|value| json!({ "database": { "managed": value } }), json!({}), vec![])),
        (
            "database.managed.server",
            Text(|value| json!({ "database": { "managed": { "server": value } } }), vec![json!("a"), long(40)], vec![]),
        ),
        ("deletion", Object(|value| json!({ "deletion": value }), json!({}), vec![])),
        ("deletion.graceSeconds", Plain(|value| json!({ "deletion": { "graceSeconds": value } }))),
        ("deletion.policy", Plain(|value| json!({ "deletion": { "policy": value } }))),
        ("displayName", Text(|value| json!({ "displayName": value }), vec![json!("a"), "合".repeat(100).into()], vec![])),
        ("hosts", List(|value| json!({ "hosts": value }), |number| json!(format!("h{number}.example.com")))),
        (
            "hosts[]",
            Text(
                |value| json!({ "hosts": [value] }),
                vec![json!("a.b"), long_host()],
                vec![
                    ("Not A Host", "hosts must be host names in small letters"),
                    ("*.example.com", "hosts must be host names in small letters"),
                    ("https://example.com", "hosts must be host names in small letters"),
                    ("example.com:80", "hosts must be host names in small letters"),
                ],
            ),
        ),
        ("paused", Plain(|value| json!({ "paused": value }))),
        ("plugins", Object(|value| json!({ "plugins": value }), json!({}), vec![])),
        ("plugins.features", List(|value| json!({ "plugins": { "features": value } }), |number| json!(format!("profile.f{number}")))),
        ("plugins.features[]", Text(|value| json!({ "plugins": { "features": [value] } }), vec![json!("a"), long(200)], vec![])),
        (
            "release",
            Text(
                |value| json!({ "release": value }),
                vec![json!("0.1.0-rc.1+5"), long(63)],
                vec![("-1", "release must be letters"), ("a b", "release must be letters")],
            ),
        ),
        ("replicas", Plain(|value| json!({ "replicas": value }))),
        ("rotation", Object(|value| json!({ "rotation": value }), json!({}), vec![])),
        ("rotation.periodDays", Plain(|value| json!({ "rotation": { "periodDays": value } }))),
        ("size", Text(|value| json!({ "size": value }), vec![json!("small"), long(40)], vec![])),
        ("storage", Object(|value| json!({ "storage": value }), json!({}), vec![])),
        (
            "storage.volumeSize",
            Text(
                |value| json!({ "storage": { "volumeSize": value } }),
                vec![json!("1Mi"), json!("99999999999999Gi")],
                vec![
                    ("10", "volumeSize must be a whole number"),
                    ("0Gi", "volumeSize must be a whole number"),
                    ("1.5Gi", "volumeSize must be a whole number"),
                ],
            ),
        ),
        (
            "timeZone",
            Text(
                |value| json!({ "timeZone": value }),
                vec![json!("UTC"), json!("America/Argentina/Buenos_Aires"), long(64)],
                vec![("Asia/上海", "timeZone must be an IANA name"), ("+08:00", "timeZone must be an IANA name")],
            ),
        ),
        ("units", List(|value| json!({ "units": value }), |number| json!({ "id": format!("u{number}"), "name": "A", "kind": "mall" }))),
        (
            "units[]",
            Object(
                |value| json!({ "units": [value] }),
                json!({ "id": "a", "name": "A", "kind": "mall" }),
                vec![(json!({ "id": "a", "name": "A", "kind": "mall", "parent": "a" }), "can't be its own parent")],
            ),
        ),
        (
            "units[].id",
            Text(
                |value| json!({ "units": [{ "id": value, "name": "A", "kind": "mall" }] }),
                vec![json!("a"), long(40)],
                vec![("Mall 1", "id must be small letters"), ("-a", "id must be small letters")],
            ),
        ),
        ("units[].kind", Plain(|value| json!({ "units": [{ "id": "a", "name": "A", "kind": value }] }))),
        (
            "units[].name",
            Text(
                |value| json!({ "units": [{ "id": "a", "name": value, "kind": "mall" }] }),
                vec![json!("a"), "合".repeat(100).into()],
                vec![],
            ),
        ),
        (
            "units[].parent",
            Text(
                |value| json!({ "units": [{ "id": "city", "name": "A", "kind": "mall", "parent": value }, { "id": value, "name": "B", "kind": "mall" }] }),
                vec![json!("a"), long(40)],
                vec![],
            ),
        ),
    ])
}

fn class_rows() -> BTreeMap<&'static str, Row> {
    use Row::{List, Map, Object, Plain, Text};
    const SERVER: fn() -> Value = || json!({ "name": "a", "host": "a", "adminSecretName": "a" });
    const SIZE: fn() -> Value = || json!({ "name": "small", "cpu": "100m", "memory": "256Mi" });
    let name = "must be the name of";
    BTreeMap::from([
        ("database", Object(|value| json!({ "database": value }), json!({}), vec![])),
        (
            "database.servers",
            List(
                |value| json!({ "database": { "servers": value } }),
                |number| json!({ "name": format!("s{number}"), "host": "a", "adminSecretName": "a" }),
            ),
        ),
        (
            "database.servers[]",
            Object(
                |value| json!({ "database": { "servers": [value] } }),
                SERVER(),
                vec![(merged(SERVER(), json!({ "caBundle": "-----BEGIN CERTIFICATE-----" })), "caBundle is for sslMode: verify-full")],
            ),
        ),
        (
            "database.servers[].adminSecretName",
            Text(
                |value| json!({ "database": { "servers": [merged(SERVER(), json!({ "adminSecretName": value }))] } }),
                vec![json!("a"), long(253)],
                vec![("tenant-other/heyuan", "adminSecretName must be the name of a secret")],
            ),
        ),
        (
            "database.servers[].caBundle",
            Text(
                |value| json!({ "database": { "servers": [merged(SERVER(), json!({ "caBundle": value, "sslMode": "verify-full" }))] } }),
                vec![format!("-----BEGIN CERTIFICATE-----{}", "a".repeat(65_536 - 27)).into()],
                vec![("MIIB", "caBundle must begin with")],
            ),
        ),
        (
            "database.servers[].connectionsMax",
            Plain(|value| json!({ "database": { "servers": [merged(SERVER(), json!({ "connectionsMax": value }))] } })),
        ),
        (
            "database.servers[].host",
            Text(
                |value| json!({ "database": { "servers": [merged(SERVER(), json!({ "host": value }))] } }),
                vec![json!("a"), json!("fd00::1"), long(253)],
                vec![
                    ("postgres://a", "host must be a host name"),
                    ("a b", "host must be a host name"),
                    ("a/b", "host must be a host name"),
                ],
            ),
        ),
        (
            "database.servers[].name",
            Text(
                |value| json!({ "database": { "servers": [merged(SERVER(), json!({ "name": value }))] } }),
                vec![json!("a"), long(40)],
                vec![("A", "name must be small letters")],
            ),
        ),
        ("database.servers[].port", Plain(|value| json!({ "database": { "servers": [merged(SERVER(), json!({ "port": value }))] } }))),
        (
            "database.servers[].sslMode",
            Plain(|value| json!({ "database": { "servers": [merged(SERVER(), json!({ "sslMode": value }))] } })),
        ),
        (
            "defaults",
            Object(
                |value| json!({ "defaults": value }),
                json!({}),
                vec![(json!({ "size": "other" }), "defaults.size must be the name of one of sizes")],
            ),
        ),
        ("defaults.replicas", Plain(|value| json!({ "defaults": { "replicas": value }, "limits": { "replicasMax": 20 } }))),
        (
            "defaults.size",
            Text(
                |value| json!({ "defaults": { "size": value }, "sizes": [merged(SIZE(), json!({ "name": value }))] }),
                vec![json!("a"), long(40)],
                vec![],
            ),
        ),
        (
            "defaults.volumeSize",
            Text(
                |value| json!({ "defaults": { "volumeSize": value } }),
                vec![json!("1Mi"), json!("99999999999999Gi")],
                vec![("10", "volumeSize must be a whole number"), ("ten", "volumeSize must be a whole number")],
            ),
        ),
        ("ingress", Object(|value| json!({ "ingress": value }), json!({ "className": "a" }), vec![])),
        (
            "ingress.annotations",
            Map(
                |value| json!({ "ingress": { "className": "a", "annotations": value } }),
                |number| (format!("example.com/a{number}"), "any text".to_owned()),
                vec![(json!({ "not a name": "a" }), "annotations must have names of annotations")],
            ),
        ),
        (
            "ingress.className",
            Text(
                |value| json!({ "ingress": { "className": value } }),
                vec![json!("a"), long(253)],
                vec![("Not A Name", "className must be the name of an IngressClass")],
            ),
        ),
        ("ingress.tls", Plain(|value| json!({ "ingress": { "className": "a", "tls": value } }))),
        (
            "limits",
            Object(
                |value| json!({ "limits": value }),
                json!({}),
                vec![(json!({ "replicasMax": 1, "volumeSizeMax": "10" }), "volumeSizeMax must be a whole number")],
            ),
        ),
        (
            "limits.hostSuffixes",
            List(|value| json!({ "limits": { "hostSuffixes": value } }), |number| json!(format!("h{number}.example.com"))),
        ),
        (
            "limits.hostSuffixes[]",
            Text(
                |value| json!({ "limits": { "hostSuffixes": [value] } }),
                vec![json!("com"), json!(".example.com"), json!("*.example.com"), long_host()],
                vec![
                    ("https://example.com", "hostSuffixes must be ends of host names"),
                    ("Example.com", "hostSuffixes must be ends of host names"),
                ],
            ),
        ),
        ("limits.replicasMax", Plain(|value| json!({ "limits": { "replicasMax": value } }))),
        (
            "limits.volumeSizeMax",
            Text(
                |value| json!({ "limits": { "volumeSizeMax": value } }),
                vec![json!("1Mi"), json!("99999999999999Gi")],
                vec![("1.5Gi", "volumeSizeMax must be a whole number")],
            ),
        ),
        ("network", Object(|value| json!({ "network": value }), json!({}), vec![])),
        (
            "network.databaseCidrs",
            List(|value| json!({ "network": { "databaseCidrs": value } }), |number| json!(format!("10.0.{number}.0/24"))),
        ),
        (
            "network.databaseCidrs[]",
            Text(
                |value| json!({ "network": { "databaseCidrs": [value] } }),
                vec![json!("10.0.0.0/8"), json!("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128")],
                vec![
                    ("10.0.0.1", "databaseCidrs must be networks"),
                    ("300.0.0.0/8", "databaseCidrs must be networks"),
                    ("10.0.0.0/33", "databaseCidrs must be networks"),
                ],
            ),
        ),
        (
            "network.egressCidrs",
            List(|value| json!({ "network": { "egressCidrs": value } }), |number| json!(format!("10.0.{number}.0/24"))),
        ),
        (
            "network.egressCidrs[]",
            Text(
                |value| json!({ "network": { "egressCidrs": [value] } }),
                vec![json!("10.0.0.0/8"), json!("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128")],
                vec![("example.com", "egressCidrs must be networks"), ("fd00::/129", "egressCidrs must be networks")],
            ),
        ),
        (
            "network.ingressNamespaceLabels",
            labels(
                |value| json!({ "network": { "ingressNamespaceLabels": value } }),
                ["ingressNamespaceLabels must be labels", "ingressNamespaceLabels"],
            ),
        ),
        (
            "network.monitoringNamespaceLabels",
            labels(
                |value| json!({ "network": { "monitoringNamespaceLabels": value } }),
                ["monitoringNamespaceLabels must be labels", "monitoringNamespaceLabels"],
            ),
        ),
        ("plugins", Object(|value| json!({ "plugins": value }), json!({}), vec![])),
        ("plugins.featuresMax", List(|value| json!({ "plugins": { "featuresMax": value } }), |number| json!(format!("profile.f{number}")))),
        ("plugins.featuresMax[]", Text(|value| json!({ "plugins": { "featuresMax": [value] } }), vec![json!("a"), long(200)], vec![])),
        ("plugins.urlHosts", List(|value| json!({ "plugins": { "urlHosts": value } }), |number| json!(format!("h{number}.example.com")))),
        (
            "plugins.urlHosts[]",
            Text(
                |value| json!({ "plugins": { "urlHosts": [value] } }),
                vec![json!("a"), long_host()],
                vec![("https://example.com/", "urlHosts must be host names"), ("*", "urlHosts must be host names")],
            ),
        ),
        (
            "release",
            Text(|value| json!({ "release": value, "releases": [{ "name": value, "image": "a" }] }), vec![json!("1"), long(63)], vec![]),
        ),
        ("releases", List(|value| json!({ "releases": value }), |number| json!({ "name": format!("{}", number + 1), "image": "a" }))),
        (
            "releases[]",
            Object(
                |value| json!({ "releases": [value] }),
                json!({ "name": "1", "image": "a" }),
                vec![(json!({ "name": "2", "image": "a" }), "release must be the name of one of releases")],
            ),
        ),
        (
            "releases[].image",
            Text(
                |value| json!({ "releases": [{ "name": "1", "image": value }] }),
                vec![json!("a"), long(500)],
                vec![("a b", "image must be the name of an image")],
            ),
        ),
        (
            "releases[].name",
            Text(
                |value| json!({ "release": value, "releases": [{ "name": value, "image": "a" }] }),
                vec![json!("1"), long(63)],
                vec![("a b", "name must be letters"), ("-1", "name must be letters")],
            ),
        ),
        ("rollout", Object(|value| json!({ "rollout": value }), json!({}), vec![])),
        ("rollout.errorsPerThousandMax", Plain(|value| json!({ "rollout": { "errorsPerThousandMax": value } }))),
        ("rollout.gateSeconds", Plain(|value| json!({ "rollout": { "gateSeconds": value } }))),
        ("rollout.migrationSecondsMax", Plain(|value| json!({ "rollout": { "migrationSecondsMax": value } }))),
        ("rollout.readySecondsMax", Plain(|value| json!({ "rollout": { "readySecondsMax": value } }))),
        (
            "sizes",
            List(
                |value| json!({ "sizes": value }),
                |number| {
                    let name = if number == 0 { "small".to_owned() } else { format!("s{number}") };
                    json!({ "name": name, "cpu": "1", "memory": "1Gi" })
                },
            ),
        ),
        ("sizes[]", Object(|value| json!({ "sizes": [value] }), SIZE(), vec![])),
        (
            "sizes[].compilerMemory",
            Text(
                |value| json!({ "sizes": [merged(SIZE(), json!({ "compilerMemory": value }))] }),
                vec![json!("1Mi"), json!("99999999999999Mi")],
                vec![("1Ti", "compilerMemory must be a whole number"), ("12", "compilerMemory must be a whole number")],
            ),
        ),
        ("sizes[].connections", Plain(|value| json!({ "sizes": [merged(SIZE(), json!({ "connections": value }))] }))),
        (
            "sizes[].cpu",
            Text(
                |value| json!({ "sizes": [merged(SIZE(), json!({ "cpu": value }))] }),
                vec![json!("1"), json!("999999999999999m")],
                vec![
                    ("0.5", "cpu must be a number of cores"),
                    ("0", "cpu must be a number of cores"),
                    ("one", "cpu must be a number of cores"),
                ],
            ),
        ),
        (
            "sizes[].memory",
            Text(
                |value| json!({ "sizes": [merged(SIZE(), json!({ "memory": value }))] }),
                vec![json!("1Mi"), json!("99999999999999Mi")],
                vec![("256", "memory must be a whole number"), ("0Mi", "memory must be a whole number")],
            ),
        ),
        (
            "sizes[].name",
            Text(
                |value| json!({ "sizes": [merged(SIZE(), json!({ "name": value })), SIZE()] }),
                vec![json!("a"), long(40)],
                vec![("A", "name must be small letters")],
            ),
        ),
        ("storage", Object(|value| json!({ "storage": value }), json!({}), vec![])),
        (
            "storage.className",
            Text(|value| json!({ "storage": { "className": value } }), vec![json!("a"), long(253)], vec![("Not A Name", name)]),
        ),
        (
            "storage.sharedClassName",
            Text(|value| json!({ "storage": { "sharedClassName": value } }), vec![json!("a"), long(253)], vec![("Not A Name", name)]),
        ),
    ])
}

fn plugin_rows() -> BTreeMap<&'static str, Row> {
    use Row::{List, Object, Plain, Text};
    const DIGEST: fn() -> String = || format!("sha256:{}", "0".repeat(64));
    const URL: fn() -> Value = || json!({ "address": "https://a/b", "digest": DIGEST() });
    BTreeMap::from([
        ("features", List(|value| json!({ "features": value }), |number| json!(format!("profile.f{number}")))),
        ("features[]", Text(|value| json!({ "features": [value] }), vec![json!("a"), long(200)], vec![])),
        ("kind", Plain(|value| json!({ "kind": value }))),
        ("mode", Plain(|value| json!({ "mode": value }))),
        (
            "source",
            Object(
                |value| json!({ "source": merged(json!({ "configMap": null }), value) }),
                json!({ "configMap": { "name": "a", "key": "b" } }),
                vec![
                    (json!({}), "exactly one of configMap and url"),
                    (json!({ "configMap": { "name": "a", "key": "b" }, "url": URL() }), "exactly one of configMap and url"),
                ],
            ),
        ),
        ("source.configMap", Object(|value| json!({ "source": { "configMap": value } }), json!({ "name": "a", "key": "b" }), vec![])),
        (
            "source.configMap.key",
            Text(
                |value| json!({ "source": { "configMap": { "name": "a", "key": value } } }),
                vec![json!("a"), long(253)],
                vec![("a/b", "key must be letters"), ("a b", "key must be letters")],
            ),
        ),
        (
            "source.configMap.name",
            Text(
                |value| json!({ "source": { "configMap": { "name": value, "key": "b" } } }),
                vec![json!("a"), long(253)],
                vec![
                    ("tenant-other/plugins", "name must be the name of a config map"),
                    ("Not A Name", "name must be the name of a config map"),
                ],
            ),
        ),
        ("source.url", Object(|value| json!({ "source": { "configMap": null, "url": value } }), URL(), vec![])),
        (
            "source.url.address",
            Text(
                |value| json!({ "source": { "configMap": null, "url": merged(URL(), json!({ "address": value })) } }),
                vec![json!("https://a/"), format!("https://a/{}", "b".repeat(1990)).into()],
                vec![
                    ("http://example.com/a", "address must begin with https://"),
                    ("https:///only-a-path", "address must begin with https://"),
                ],
            ),
        ),
        (
            "source.url.digest",
            Text(
                |value| json!({ "source": { "configMap": null, "url": merged(URL(), json!({ "digest": value })) } }),
                vec![DIGEST().into()],
                vec![("sha256:0", "digest must be sha256"), ("", "digest must be sha256")],
            ),
        ),
    ])
}

/// A kind, what a good one says, and its rows.
struct Kind {
    kind: &'static str,
    path: &'static str,
    base: Value,
    rows: BTreeMap<&'static str, Row>,
}

fn kinds() -> Vec<Kind> {
    let class = json!({
        "releases": [{ "name": "1", "image": "a" }], "release": "1", "sizes": [{ "name": "small", "cpu": "100m", "memory": "256Mi" }],
    });
    let plugin = json!({ "kind": "tagger", "source": { "configMap": { "name": "a", "key": "b" } } });
    vec![
        Kind {
            kind: "Tenant",
            path: "/apis/heyuan.dev/v1alpha1/tenants",
            base: json!({ "displayName": "A", "database": { "managed": {} } }),
            rows: tenant_rows(),
        },
        Kind { kind: "TenantClass", path: "/apis/heyuan.dev/v1alpha1/tenantclasses", base: class, rows: class_rows() },
        Kind { kind: "Plugin", path: "/apis/heyuan.dev/v1alpha1/namespaces/default/plugins", base: plugin, rows: plugin_rows() },
    ]
}

/// One value laid over another; null takes a field away.
fn merged(mut under: Value, over: Value) -> Value {
    match (&mut under, over) {
        (Value::Object(fields), Value::Object(more)) => {
            for (name, value) in more {
                let before = fields.remove(&name).unwrap_or_default();
                if !value.is_null() {
                    fields.insert(name, merged(before, value));
                }
            }
            under
        }
        (_, over) => over,
    }
}

/// The fields of a schema by their paths: `a.b`, and `a[]` for the items of a list.
pub(super) fn fields(at: &str, schema: &Value, found: &mut BTreeMap<String, Value>) {
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        found.insert(path.clone(), inner.clone());
        fields(&path, inner, found);
        if inner["items"].is_object() {
            let path = format!("{path}[]");
            found.insert(path.clone(), inner["items"].clone());
            fields(&path, &inner["items"], found);
        }
    }
}

pub(super) fn schema_of(kind: &str) -> Value {
    let definition = crd::definitions().into_iter().find(|one| one.spec.names.kind == kind).expect("there is such a kind");
    let schema = serde_json::to_value(&definition.spec.versions[0].schema).expect("a schema is JSON");
    schema["openAPIV3Schema"]["properties"]["spec"].clone()
}

/// A value that is written, and what is expected: taken, or refused in words that contain this.
struct Case {
    spec: Value,
    refused: Option<String>,
}

/// Everything that is tried of a field.
fn cases(path: &str, schema: &Value, row: &Row, required: bool) -> Vec<Case> {
    let leaf = path.rsplit('.').next().unwrap_or(path).trim_end_matches("[]").to_owned();
    let (with, good, bad) = values(path, schema, row, &leaf);
    let mut cases: Vec<Case> = good.into_iter().map(|value| Case { spec: with(value), refused: None }).collect();
    cases.extend(bad.into_iter().map(|(value, words)| Case { spec: with(value), refused: Some(words) }));
    if required {
        cases.push(Case { spec: with(Value::Null), refused: Some(format!("{leaf}: Required value")) });
    }
    cases
}

/// Values that are taken, and values that are refused.
fn values(path: &str, schema: &Value, row: &Row, leaf: &str) -> (With, Vec<Value>, Vec<(Value, String)>) {
    let named = |value: Value| (value, leaf.to_owned());
    let bound = |name: &str| schema[name].as_u64().and_then(|number| usize::try_from(number).ok());
    match row {
        Row::Plain(with) => {
            if let Some(words) = schema["enum"].as_array() {
                return (*with, words.clone(), vec![named(json!("Nonsense")), named(json!(7))]);
            }
            if schema["type"] == "boolean" {
                return (*with, vec![json!(true), json!(false)], vec![named(json!("yes")), named(json!(1))]);
            }
            let limit = |name: &str| -> i64 {
                let number = schema[name].as_f64().unwrap_or_else(|| panic!("{path} has a {name}"));
                format!("{number:.0}").parse().expect("a limit is a whole number")
            };
            let (least, most) = (limit("minimum"), limit("maximum"));
            let bad = [json!(least - 1), json!(most + 1), json!("many"), json!(1.5), json!(i64::MAX)];
            (*with, vec![json!(least), json!(most)], bad.map(named).into())
        }
        Row::Text(with, good, bad) => {
            let longest = bound("maxLength").unwrap_or_else(|| panic!("{path} is a text without a bound"));
            let length = |value: &Value| value.as_str().map(|text| text.chars().count());
            let at_most = good
                .iter()
                .find(|value| length(value) == Some(longest))
                .unwrap_or_else(|| panic!("{path} is tried with {longest} characters"));
            let mut refused: Vec<(Value, String)> = bad.iter().map(|(text, words)| (json!(text), (*words).to_owned())).collect();
            let last = at_most.as_str().and_then(|text| text.chars().last()).unwrap_or('a');
            refused.push(named(format!("{}{last}", at_most.as_str().unwrap_or_default()).into()));
            refused.push(named(json!(7)));
            if let Some(shortest) = bound("minLength").filter(|shortest| *shortest > 0) {
                refused.push(named("a".repeat(shortest - 1).into()));
            }
            (*with, good.clone(), refused)
        }
        Row::List(with, item) => {
            let most = bound("maxItems").unwrap_or_else(|| panic!("{path} is a list without a bound"));
            let least = bound("minItems").unwrap_or_default();
            let of = |count: usize| Value::from((0..count).map(item).collect::<Vec<_>>());
            let mut refused = vec![named(of(most + 1)), named(json!("one"))];
            if least > 0 {
                refused.push(named(of(least - 1)));
            }
            if schema["x-kubernetes-list-type"] != "atomic" && schema["x-kubernetes-list-type"].is_string() {
                refused.push((json!([item(0), item(0)]), "Duplicate value".to_owned()));
            }
            (*with, vec![of(least), of(most)], refused)
        }
        Row::Map(with, entry, bad) => {
            let most = bound("maxProperties").unwrap_or_else(|| panic!("{path} is a map without a bound"));
            let of =
                |count: usize| (0..count).map(entry).map(|(name, value)| (name, Value::from(value))).collect::<serde_json::Map<_, _>>();
            let mut refused: Vec<(Value, String)> = bad.iter().map(|(value, words)| (value.clone(), (*words).to_owned())).collect();
            refused.extend([named(of(most + 1).into()), named(json!("one"))]);
            (*with, vec![json!({}), of(most).into()], refused)
        }
        Row::Object(with, good, bad) => {
            let mut refused: Vec<(Value, String)> = bad.iter().map(|(value, words)| (value.clone(), (*words).to_owned())).collect();
            refused.extend([named(json!("text")), (merged(good.clone(), json!({ "nonsense": 1 })), "unknown field".to_owned())]);
            (*with, vec![good.clone()], refused)
        }
    }
}

/// A value whose fields that are null are left out, wherever they stand.
pub(super) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let there = fields.into_iter().filter(|(_, value)| !value.is_null());
            there.map(|(name, value)| (name, without_nulls(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// Whether the object above a field requires it.
fn is_required(schema: &Value, path: &str) -> bool {
    let mut above = schema;
    let (parents, leaf) = path.rsplit_once('.').unwrap_or(("", path));
    for part in parents.split('.').filter(|part| !part.is_empty()) {
        above = match part.strip_suffix("[]") {
            Some(list) => &above["properties"][list]["items"],
            None => &above["properties"][part],
        };
    }
    above["required"].as_array().into_iter().flatten().any(|name| name == leaf)
}

/// What the API server says: nothing where it takes the object.
async fn refusal(admin: &Access, kind: &Kind, spec: &Value) -> Option<String> {
    let object = json!({ "apiVersion": "heyuan.dev/v1alpha1", "kind": kind.kind, "metadata": { "name": "tried" }, "spec": spec });
    let path = format!("{}?dryRun=All&fieldValidation=Strict", kind.path);
    let answer = admin.request(Method::POST, &path).json(&object).send().await.expect("the API server answers");
    if answer.status().is_success() {
        return None;
    }
    let status: Value = answer.json().await.expect("a refusal is a Status");
    Some(status["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_is_taken_at_its_limits_and_refused_beyond_in_words_that_name_it() {
    let ground = Ground::on(Plane::shared().await).await;
    let mut wrong = Vec::new();
    for kind in kinds() {
        let schema = schema_of(kind.kind);
        let mut found = BTreeMap::new();
        fields("", &schema, &mut found);
        let rows: Vec<&str> = kind.rows.keys().copied().collect();
        assert_eq!(rows, found.keys().map(String::as_str).collect::<Vec<_>>(), "{}: each field has a row, and each row a field", kind.kind);
        for (path, field) in &found {
            for case in cases(path, field, &kind.rows[path.as_str()], is_required(&schema, path)) {
                let spec = without_nulls(merged(kind.base.clone(), case.spec));
                let said = refusal(&ground.admin, &kind, &spec).await;
                let right = match (&said, &case.refused) {
                    (None, None) => true,
                    // A pattern is nothing that a person should have to read.
                    (Some(said), Some(words)) => said.contains(words.as_str()) && !said.contains("should match"),
                    _ => false,
                };
                if !right {
                    let spec: String = spec.to_string().chars().take(400).collect();
                    wrong.push(format!("{} {path}: {spec}\n  wanted: {:?}\n  was told: {said:?}", kind.kind, case.refused));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of the cases:\n{}", wrong.len(), wrong.join("\n"));
}
