//! What is foreign is left alone, and what is a tenant's is reached by nobody else.

use heyuan_harness::{OPERATOR_NAMESPACE, until};
use serde_json::json;

use super::ground::{LIMIT, Running, condition_of, psql, tenant};
use super::limits::{fields, schema_of, without_nulls};

#[tokio::test(flavor = "multi_thread")]
async fn foreign_things_with_a_tenants_name_are_left_alone() {
    let running = Running::start(&[]).await;
    let ground = &running.ground;
    // A namespace.
    ground.admin.kubectl(&["create", "namespace", "tenant-amber"]).await;
    ground.tenant("amber", &json!({})).await;
    ground.wait("amber", "NamespaceReady", "False NamespaceTaken").await;
    ground.admin.kubectl(&["delete", "tenant", "amber", "--timeout=90s"]).await;
    assert!(ground.get("namespace", "tenant-amber").await.is_some(), "it outlives the tenant");

    // A host name.
    ground.tenant("first", &json!({ "hosts": ["shop.example.com"] })).await;
    ground.ready("first").await;
    ground.tenant("second", &json!({ "hosts": ["shop.example.com"] })).await;
    let tenant = ground.wait("second", "HostsClaimed", "False HostTaken").await;
    assert!(tenant["status"]["why"].as_str().is_some_and(|why| why.contains("tenant first")), "{tenant}");
    ground.change("first", json!({ "hosts": null })).await;
    ground.ready("first").await;
    ground.admin.kubectl(&["annotate", "tenant", "second", "example.com/look=1"]).await;
    ground.ready("second").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_token_reaches_no_further_than_the_chart_says() {
    let running = Running::start(&[]).await;
    let ground = &running.ground;
    let operator = ground.operator().await;
    let refused = |words: Result<String, String>| words.expect_err("it is refused");
    for arguments in [
        &["get", "secrets", "-n", "kube-system"][..],
        &["get", "secrets", "-A"],
        &["get", "secrets", "-n", OPERATOR_NAMESPACE],
        &["label", "namespace", "kube-system", "heyuan.dev/tenant=x"],
        &["delete", "namespace", "kube-system", "--dry-run=server"],
        &[
            "create",
            "rolebinding",
            "x",
            "-n",
            "kube-system",
            "--clusterrole=heyuan-operator-tenant",
            "--serviceaccount=heyuan-system:heyuan-operator",
        ],
        &[
            "create",
            "rolebinding",
            "x",
            "-n",
            OPERATOR_NAMESPACE,
            "--clusterrole=cluster-admin",
            "--serviceaccount=heyuan-system:heyuan-operator",
        ],
        &["create", "clusterrolebinding", "x", "--clusterrole=cluster-admin", "--serviceaccount=heyuan-system:heyuan-operator"],
        &["create", "namespace", "anything"],
    ] {
        let words = refused(operator.try_kubectl(arguments).await);
        assert!(words.contains("forbidden") || words.contains("denied"), "{arguments:?}: {words}");
    }

    // One tenant's credentials open nothing of another's.
    ground.tenant("left", &json!({})).await;
    ground.tenant("right", &json!({})).await;
    ground.ready("left").await;
    let right = ground.ready("right").await;
    let url = {
        use base64::Engine;
        let secret = ground.get_in("left", "secret", "heyuan").await.expect("a secret");
        let bytes =
            base64::engine::general_purpose::STANDARD.decode(secret["data"]["database-url"].as_str().expect("a URL")).expect("base64");
        String::from_utf8(bytes).expect("text")
    };
    let data_id = right["status"]["dataId"].as_str().expect("a data id");
    let mut address = url::Url::parse(&url).expect("a URL");
    address.set_path(&format!("heyuan_{data_id}"));
    let words = refused(psql(address.as_str(), "select 1"));
    assert!(words.contains("permission denied"), "{words}");
}

/// Text fields of the definitions that name nothing beyond the object itself; every other one is in the manual's table of strangers.
const PLAIN: &[&str] = &[
    "Tenant adminEmail",
    "Tenant deletion.policy",
    "Tenant displayName",
    "Tenant plugins.features[]",
    "Tenant storage.volumeSize",
    "Tenant timeZone",
    "Tenant units[].id",
    "Tenant units[].kind",
    "Tenant units[].name",
    "TenantClass database.servers[].caBundle",
    "TenantClass database.servers[].host",
    "TenantClass database.servers[].name",
    "TenantClass database.servers[].sslMode",
    "TenantClass defaults.size",
    "TenantClass defaults.volumeSize",
    "TenantClass limits.hostSuffixes[]",
    "TenantClass limits.volumeSizeMax",
    "TenantClass network.databaseCidrs[]",
    "TenantClass network.egressCidrs[]",
    "TenantClass plugins.featuresMax[]",
    "TenantClass plugins.urlHosts[]",
    "TenantClass release",
    "TenantClass releases[].image",
    "TenantClass releases[].name",
    "TenantClass sizes[].compilerMemory",
    "TenantClass sizes[].cpu",
    "TenantClass sizes[].memory",
    "TenantClass sizes[].name",
    "Plugin features[]",
    "Plugin kind",
    "Plugin mode",
    "Plugin source.configMap.key",
    "Plugin source.url.digest",
];

/// A new field must be looked at: either it names nothing of anybody, or the manual says what becomes of who names what is another's.
#[test]
fn every_field_that_names_something_is_in_the_manuals_table() {
    let manual = std::fs::read_to_string(heyuan_harness::workspace_root().join("docs/operator.md")).expect("the manual is there");
    let table = manual.split("<!-- strangers -->").nth(1).and_then(|rest| rest.split("<!-- end of strangers -->").next()).expect("a table");
    let mut missing = Vec::new();
    for kind in ["Tenant", "TenantClass", "Plugin"] {
        let mut found = std::collections::BTreeMap::new();
        fields("", &schema_of(kind), &mut found);
        for (path, field) in found {
            let name = format!("{kind} {path}");
            let by_labels = ["network.ingressNamespaceLabels", "network.monitoringNamespaceLabels"].contains(&path.as_str());
            assert!(!path.to_lowercase().contains("namespace") || by_labels, "{name} holds a namespace");
            let told = table.lines().any(|line| line.starts_with(&format!("| {kind} ")) && line.contains(&format!("`{path}`")));
            if field["type"] == "string" && !told && !PLAIN.contains(&name.as_str()) {
                missing.push(name);
            }
        }
    }
    assert!(missing.is_empty(), "neither in the manual's table nor plain: {missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_author_reaches_no_other_tenant_through_any_field() {
    let running = Running::start(&[]).await;
    let ground = &running.ground;
    ground.class("strict", json!({ "plugins": { "urlHosts": ["plugins.example.com"] } })).await;
    ground.tenant("victim", &json!({ "class": "strict", "hosts": ["victim.example.com"] })).await;
    let victim = ground.ready("victim").await;
    let data_id = victim["status"]["dataId"].as_str().expect("a data id").to_owned();
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "plugins", "namespace": "tenant-victim" },
        "binaryData": { "hello.wasm": "AAAA" },
    });
    ground.admin.apply(&map.to_string()).await.expect("the config map is taken");
    ground
        .admin
        .kubectl(&["create", "secret", "generic", "database", "-n", "tenant-victim", "--from-literal=url=postgres://victim@nowhere/victim"])
        .await;
    let before = ground.admin.get(&["secret", "heyuan", "-n", "tenant-victim"]).await["data"].clone();

    // Each field of a Tenant, with what is the victim's: refused, or looked up where the author may be.
    let refused = [
        (json!({ "database": { "managed": null, "external": { "secretName": "tenant-victim/database" } } }), "secretName must be"),
        (json!({ "hosts": ["*.example.com"] }), "hosts must be host names"),
        (json!({ "units": [{ "id": "a", "name": "A", "kind": "mall", "parent": "victims-unit" }] }), "each parent must be the id"),
    ];
    for (spec, words) in refused {
        let object = without_nulls(tenant("thief", &spec)).to_string();
        let said = ground.admin.apply_dry(&object).await.expect_err(&object);
        assert!(said.contains(words), "{spec}: {said}");
    }
    let rows = [
        ("thief-adopt", json!({ "adopt": data_id }), "DataHeld", "False AdoptHeld"),
        ("thief-guess", json!({ "adopt": "0123456789abcdef" }), "DataHeld", "False AdoptUnknown"),
        (
            "thief-secret",
            json!({ "database": { "managed": null, "external": { "secretName": "database" } } }),
            "DatabaseReady",
            "False ExternalSecretMissing",
        ),
        (
            "thief-copy",
            json!({ "database": { "managed": null, "external": { "secretName": "heyuan" } } }),
            "DatabaseReady",
            "False ExternalSecretMissing",
        ),
        ("thief-server", json!({ "database": { "managed": { "server": "victims" } } }), "ClassResolved", "False ServerUnknown"),
        ("thief-host", json!({ "hosts": ["victim.example.com"] }), "HostsClaimed", "False HostTaken"),
        ("thief-release", json!({ "release": "of-somebody" }), "ClassResolved", "False ReleaseUnknown"),
        ("thief-size", json!({ "size": "of-somebody" }), "ClassResolved", "False SizeUnknown"),
        ("thief-class", json!({ "class": "of-nobody" }), "ClassResolved", "False ClassMissing"),
    ];
    for (name, spec, _, _) in &rows {
        ground.admin.apply(&without_nulls(tenant(name, spec)).to_string()).await.expect("the tenant is taken");
    }
    for (name, _, condition, wanted) in &rows {
        ground.wait(name, condition, wanted).await;
    }

    // A class that names the secret with the victim's keys learns nothing from it.
    let server = json!({ "name": "main", "host": "127.0.0.1", "port": ground.server.port(), "sslMode": "disable", "adminSecretName": format!("tenant-data-{data_id}") });
    ground.class("greedy", json!({ "database": { "servers": [server] } })).await;
    ground.tenant("thief-keys", &json!({ "class": "greedy" })).await;
    let found = ground.wait("thief-keys", "DatabaseReady", "False AdminSecretMissing").await;
    assert!(found["status"]["why"].as_str().is_some_and(|why| why.contains("has no key `username`")), "{found}");

    // A Plugin in a tenant of the author's own, and in no tenant's namespace.
    ground.tenant("thief", &json!({ "class": "strict" })).await;
    ground.ready("thief").await;
    ground.admin.kubectl(&["create", "namespace", "nobodys"]).await;
    let url = |address: &str| json!({ "url": { "address": address, "digest": format!("sha256:{}", "0".repeat(64)) } });
    let map = || json!({ "configMap": { "name": "plugins", "key": "hello.wasm" } });
    let rows = [
        ("map", "tenant-thief", map(), "SourceMissing"),
        ("nowhere", "nobodys", map(), "NoTenant"),
        ("elsewhere", "tenant-thief", url("https://127.0.0.1/hello.wasm"), "SourceRefused"),
        ("user", "tenant-thief", url("https://plugins.example.com@victim.example.com/hello.wasm"), "SourceRefused"),
        ("suffix", "tenant-thief", url("https://plugins.example.com.victim.example.com/hello.wasm"), "SourceRefused"),
    ];
    let plugin = |name: &str, namespace: &str, source: &serde_json::Value| {
        json!({
            "apiVersion": "heyuan.dev/v1alpha1", "kind": "Plugin", "metadata": { "name": name, "namespace": namespace },
            "spec": { "kind": "tagger", "source": source },
        })
        .to_string()
    };
    for (name, namespace, source, _) in &rows {
        ground.admin.apply(&plugin(name, namespace, source)).await.expect("the plugin is taken");
    }
    for (name, namespace, _, wanted) in &rows {
        until(&format!("plugin {name} is told {wanted}"), LIMIT, || async {
            let plugin = ground.admin.get(&["plugin", name, "-n", namespace]).await;
            (condition_of(&plugin, "Ready")?["reason"] == *wanted).then_some(())
        })
        .await;
    }
    let said = ground
        .admin
        .apply_dry(&plugin("path", "tenant-thief", &json!({ "configMap": { "name": "tenant-victim/plugins", "key": "a" } })))
        .await;
    assert!(said.is_err_and(|said| said.contains("name must be the name of a config map")));
    assert!(
        running.pods.orders("tenant-thief").iter().all(|(_, path, _)| !path.contains("/plugins/")),
        "no process was told of any of them"
    );

    // And nothing of the victim's has changed.
    let after = ground.ready("victim").await;
    assert_eq!(after["status"]["dataId"], data_id.as_str());
    assert_eq!(ground.admin.get(&["secret", "heyuan", "-n", "tenant-victim"]).await["data"], before);
}
