//! A tenant's life: made, kept as it is, upgraded, given new passwords, deleted, taken over.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use heyuan_harness::{Behaviour, OPERATOR_NAMESPACE, Operator, until};
use serde_json::{Value, json};

use super::ground::{LIMIT, Running, condition_of, psql};

/// A value of a tenant's secret.
async fn secret(running: &Running, tenant: &str, name: &str, key: &str) -> String {
    let secret = running.ground.get_in(tenant, "secret", name).await.expect("the secret is there");
    let bytes = STANDARD.decode(secret["data"][key].as_str().expect("the key is there")).expect("base64");
    String::from_utf8(bytes).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_made_kept_and_left_alone() {
    let running = Running::start(&[]).await;
    let ground = &running.ground;
    let units =
        json!([{ "id": "city-1", "name": "上海", "kind": "city" }, { "id": "mall-1", "name": "广场", "kind": "mall", "parent": "city-1" }]);
    ground.tenant("jade", &json!({ "hosts": ["jade.example.com"], "units": units, "replicas": 2 })).await;
    let tenant = ground.ready("jade").await;
    assert_eq!(tenant["status"]["state"], "Ready");
    assert_eq!(tenant["status"]["url"], "http://jade.example.com");
    assert_eq!(tenant["status"]["release"], "1");

    let table = ground.admin.kubectl(&["get", "tnt", "jade"]).await;
    assert!(["STATE", "URL", "RELEASE", "AGE", "WHY"].iter().all(|column| table.contains(column)), "{table}");

    // The children, as a security review would look at them.
    let deployment = ground.get_in("jade", "deployment", "heyuan").await.expect("a Deployment");
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    for container in pod["containers"].as_array().expect("containers") {
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
    }
    let namespace = ground.get("namespace", "tenant-jade").await.expect("a namespace");
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
    for object in [&namespace, &deployment] {
        assert!(object["metadata"]["ownerReferences"].is_null(), "nothing goes because the Tenant's object goes");
    }
    for (kind, name) in [
        ("networkpolicy", "deny-all"),
        ("networkpolicy", "heyuan"),
        ("resourcequota", "heyuan"),
        ("poddisruptionbudget", "heyuan"),
        ("ingress", "heyuan"),
    ] {
        assert!(ground.get_in("jade", kind, name).await.is_some(), "{kind} {name}");
    }

    let policy = ground.get_in("jade", "networkpolicy", "heyuan").await.expect("it is there");
    let from = |labels: Value, port: u16| json!({ "from": [{ "namespaceSelector": { "matchLabels": labels } }], "ports": [{ "port": port, "protocol": "TCP" }] });
    let (doors, watch) = (from(json!({ "team": "doors" }), 8080), from(json!({ "team": "watch" }), 8081));
    assert_eq!(policy["spec"]["ingress"], json!([from(json!({ "kubernetes.io/metadata.name": OPERATOR_NAMESPACE }), 8081), doors, watch]));

    // The tenant's login reaches its database, and the process was told its units and a key that the secret has too.
    let url = secret(&running, "jade", "heyuan", "database-url").await;
    assert_eq!(psql(&url, "select 1"), Ok("1".into()));
    let orders = running.pods.orders("tenant-jade");
    let order = |path: &str| orders.iter().find(|(_, one, _)| one == path).map(|(_, _, body)| body.clone()).expect("it was told");
    let told: Vec<Value> = order("/v1/operator/org")["units"].as_array().expect("units").iter().map(|unit| unit["id"].clone()).collect();
    assert_eq!(told, ["group", "city-1", "mall-1"]);
    assert_eq!(order("/v1/operator/admin-key")["key"], Value::from(secret(&running, "jade", "heyuan-admin", "admin-key").await));

    // A converged tenant costs no write: another look, asked for by an annotation that means nothing, changes nothing.
    let writes = || async {
        let mut sum = 0.0;
        for verb in ["apply", "create", "patch", "update", "delete"] {
            sum += running.operator.metric("heyuan_operator_api_calls_total", &format!("verb=\"{verb}\"")).await;
        }
        sum
    };
    let settled = |name: &'static str| running.operator.metric(name, "");
    let (before, looks) = (writes().await, settled("heyuan_operator_unchanged_total").await);
    ground.admin.kubectl(&["annotate", "tenant", "jade", "example.com/note=1"]).await;
    until("the operator has looked again", LIMIT, || async { (settled("heyuan_operator_unchanged_total").await > looks).then_some(()) })
        .await;
    assert_eq!(writes().await, before, "{}", running.operator.log());

    // The administrator's secret is delivered once: who deletes it keeps it deleted.
    ground.admin.kubectl(&["delete", "secret", "heyuan-admin", "-n", "tenant-jade"]).await;
    drift(&running).await;
    assert!(ground.get_in("jade", "secret", "heyuan-admin").await.is_none());
}

/// Every child edited, then deleted: each is put right.
async fn drift(running: &Running) {
    let ground = &running.ground;
    let edits: [(&str, &str, Value); 8] = [
        ("deployment", "heyuan", json!({ "spec": { "template": { "spec": { "automountServiceAccountToken": true } } } })),
        ("deployment", "heyuan", json!({ "spec": { "replicas": 0 } })),
        ("service", "heyuan", json!({ "spec": { "selector": { "heyuan.dev/tenant": "somebody" } } })),
        ("networkpolicy", "heyuan", json!({ "spec": { "ingress": [{}] } })),
        ("networkpolicy", "deny-all", json!({ "spec": { "policyTypes": ["Egress"] } })),
        ("resourcequota", "heyuan", json!({ "spec": { "hard": { "pods": "1000" } } })),
        (
            "ingress",
            "heyuan",
            json!({ "spec": { "rules": [] , "defaultBackend": { "service": { "name": "x", "port": { "number": 1 } } } } }),
        ),
        ("poddisruptionbudget", "heyuan", json!({ "spec": { "maxUnavailable": 2 } })),
    ];
    for (kind, name, edit) in edits {
        let before = ground.get_in("jade", kind, name).await.expect("it is there")["spec"].clone();
        ground.admin.kubectl(&["patch", kind, name, "-n", "tenant-jade", "--type=merge", "-p", &edit.to_string()]).await;
        until(&format!("{kind} {name} is put right after {edit}"), LIMIT, || async {
            let now = ground.get_in("jade", kind, name).await?["spec"].clone();
            let right = if kind == "ingress" { now["rules"] == before["rules"] } else { now == before };
            right.then_some(())
        })
        .await;
    }
    for (kind, name) in [
        ("deployment", "heyuan"),
        ("service", "heyuan"),
        ("service", "heyuan-operator"),
        ("networkpolicy", "heyuan"),
        ("networkpolicy", "deny-all"),
        ("resourcequota", "heyuan"),
        ("serviceaccount", "heyuan"),
        ("ingress", "heyuan"),
        ("poddisruptionbudget", "heyuan"),
        ("secret", "heyuan"),
        ("rolebinding", "heyuan-operator"),
    ] {
        let uid = ground.get_in("jade", kind, name).await.expect("it is there")["metadata"]["uid"].clone();
        ground.admin.kubectl(&["delete", kind, name, "-n", "tenant-jade", "--wait=false"]).await;
        // Secrets are never watched: their loss is seen at the next look, which anything brings about.
        ground.admin.kubectl(&["annotate", "tenant", "jade", "--overwrite", &format!("example.com/note={kind}-{name}")]).await;
        until(&format!("{kind} {name} is made again"), LIMIT, || async {
            let now = ground.get_in("jade", kind, name).await?["metadata"]["uid"].clone();
            (now != uid).then_some(())
        })
        .await;
    }
    ground.ready("jade").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_let_in_or_stopped_where_the_old_one_serves() {
    let running = Running::start(&[]).await;
    let ground = &running.ground;
    running.behave("heyuan:2", Behaviour { answers: (900, 100), ..Behaviour::default() });
    ground.tenant("opal", &json!({})).await;
    ground.ready("opal").await;
    let image = || async {
        let deployment = ground.get_in("opal", "deployment", "heyuan").await.expect("a Deployment");
        deployment["spec"]["template"]["spec"]["containers"][0]["image"].clone()
    };

    // It is ready but answers errors.
    ground.change("opal", json!({ "release": "2" })).await;
    let tenant = ground.wait("opal", "Serving", "False GateFailed").await;
    assert_eq!(tenant["status"]["release"], "1");
    until("the old release's template is back", LIMIT, || async { (image().await == "heyuan:1").then_some(()) }).await;
    let why = tenant["status"]["why"].as_str().expect("a reason");
    assert!(why.contains("100 of 1000"), "{why}");
    assert_eq!(condition_of(&tenant, "Ready").expect("Ready")["status"], "False");

    // Asked again, with the fault mended, it is let in.
    running.behave("heyuan:2", Behaviour::default());
    ground.admin.kubectl(&["annotate", "tenant", "opal", "heyuan.dev/retry=1"]).await;
    let tenant = ground.ready("opal").await;
    assert_eq!(tenant["status"]["release"], "2");

    // A migration that fails stops before any pod.
    running.behave("heyuan:3", Behaviour { migration: Err("step 9: it broke".into()), ..Behaviour::default() });
    ground.change("opal", json!({ "release": "3" })).await;
    let tenant = ground.wait("opal", "SchemaReady", "False MigrationFailed").await;
    assert!(tenant["status"]["why"].as_str().is_some_and(|why| why.contains("step 9: it broke")), "{tenant}");
    assert_eq!(image().await, "heyuan:2");

    // Going back is refused where the schema is too new for it.
    let report = json!({ "schema": { "level": 9, "serves_from": "2" }, "may_serve": false, "words": "the schema serves from release 2" });
    running.behave("heyuan:1", Behaviour { migration: Ok(report), ..Behaviour::default() });
    ground.admin.kubectl(&["delete", "jobs", "--all", "-n", "tenant-opal"]).await;
    ground.change("opal", json!({ "release": "1" })).await;
    let tenant = ground.wait("opal", "SchemaReady", "False RollbackRefused").await;
    assert!(tenant["status"]["why"].as_str().is_some_and(|why| why.contains("serves from release 2")), "{tenant}");
    assert_eq!(image().await, "heyuan:2");
    ground.change("opal", json!({ "release": "2" })).await;
    ground.ready("opal").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_belong_to_the_autoscaler_where_there_is_one() {
    let running = Running::start(&[]).await;
    let ground = &running.ground;
    ground.tenant("onyx", &json!({ "replicas": 3 })).await;
    ground.ready("onyx").await;
    let replicas = async || ground.get_in("onyx", "deployment", "heyuan").await.expect("a Deployment")["spec"]["replicas"].clone();
    ground.change("onyx", json!({ "replicas": null, "autoscaling": { "minReplicas": 2, "maxReplicas": 4 } })).await;
    ground.ready("onyx").await;
    assert!(ground.get_in("onyx", "horizontalpodautoscaler", "heyuan").await.is_some());
    assert_eq!(replicas().await, 3, "nothing is scaled by the change itself");
    ground.admin.kubectl(&["scale", "deployment", "heyuan", "-n", "tenant-onyx", "--replicas=4"]).await;
    ground.change("onyx", json!({ "displayName": "Onyx" })).await;
    ground.ready("onyx").await;
    assert_eq!(replicas().await, 4, "what the autoscaler decided stays");
    ground.change("onyx", json!({ "replicas": 2, "autoscaling": null })).await;
    ground.ready("onyx").await;
    assert_eq!(replicas().await, 2);
    assert!(ground.get_in("onyx", "horizontalpodautoscaler", "heyuan").await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_changed_and_the_old_one_ends() {
    let running = Running::start(&[]).await;
    let ground = &running.ground;
    ground.tenant("pearl", &json!({})).await;
    ground.ready("pearl").await;
    let mut urls = vec![secret(&running, "pearl", "heyuan", "database-url").await];
    for turn in 1..=3 {
        ground.admin.kubectl(&["annotate", "tenant", "pearl", "--overwrite", &format!("heyuan.dev/rotate={turn}")]).await;
        let before = urls.last().expect("a URL").clone();
        let now = until("the old login is closed", LIMIT, || async {
            let now = secret(&running, "pearl", "heyuan", "database-url").await;
            (now != before && psql(&before, "select 1").is_err()).then_some(now)
        })
        .await;
        assert_eq!(psql(&now, "select 1"), Ok("1".into()));
        // What one login made, the other may change.
        psql(&now, "create table if not exists turns (n int); insert into turns values (1)").expect("objects belong to the owner");
        urls.push(now);
        ground.ready("pearl").await;
    }
    assert_eq!(psql(urls.last().expect("a URL"), "select count(*) from turns"), Ok("3".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn data_is_retained_adopted_and_removed_as_the_spec_says() {
    let running = Running::start(&[]).await;
    let ground = &running.ground;
    ground.tenant("ruby", &json!({})).await;
    let tenant = ground.ready("ruby").await;
    let data_id = tenant["status"]["dataId"].as_str().expect("a data id").to_owned();
    let url = secret(&running, "ruby", "heyuan", "database-url").await;
    let tenant_key = secret(&running, "ruby", "heyuan", "tenant-key").await;
    psql(&url, "create table kept (n int); insert into kept values (42)").expect("the tenant may");

    ground.admin.kubectl(&["delete", "tenant", "ruby", "--timeout=90s"]).await;
    assert!(ground.get("namespace", "tenant-ruby").await.is_none());
    let refused = psql(&url, "select 1").expect_err("nobody logs in any more");
    assert!(refused.contains("log in") || refused.contains("password"), "{refused}");
    assert_eq!(ground.sql(&format!("select count(*) from pg_database where datname = 'heyuan_{data_id}'")), "1");

    // A tenant of the same name does not find the data by accident; one that names it does, with its key.
    ground.tenant("ruby", &json!({})).await;
    let second = ground.ready("ruby").await;
    assert_ne!(second["status"]["dataId"], data_id.as_str());
    ground.change("ruby", json!({ "deletion": { "policy": "Delete", "graceSeconds": 0 } })).await;
    ground.ready("ruby").await;
    ground.admin.kubectl(&["delete", "tenant", "ruby", "--timeout=90s"]).await;
    let second_id = second["status"]["dataId"].as_str().expect("a data id");
    assert_eq!(ground.sql(&format!("select count(*) from pg_database where datname = 'heyuan_{second_id}'")), "0");
    assert_eq!(ground.sql(&format!("select count(*) from pg_roles where rolname like 'heyuan_{second_id}%'")), "0");

    ground.tenant("heir", &json!({ "adopt": data_id })).await;
    ground.ready("heir").await;
    let url = secret(&running, "heir", "heyuan", "database-url").await;
    assert_eq!(psql(&url, "select n from kept"), Ok("42".into()));
    assert_eq!(secret(&running, "heir", "heyuan", "tenant-key").await, tenant_key);
    ground.tenant("thief", &json!({ "adopt": data_id })).await;
    ground.wait("thief", "DataHeld", "False AdoptHeld").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_handed_to_the_tenant_within_what_it_allows() {
    let running = Running::start(&[]).await;
    let ground = &running.ground;
    ground.tenant("agate", &json!({ "plugins": { "features": ["profile.*"] } })).await;
    ground.ready("agate").await;
    let component = STANDARD.encode(b"a component");
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "hello", "namespace": "tenant-agate" }, "binaryData": { "hello.wasm": component } });
    ground.admin.apply(&map.to_string()).await.expect("the config map is taken");
    let plugin = |features: Value| {
        json!({
            "apiVersion": "heyuan.dev/v1alpha1", "kind": "Plugin", "metadata": { "name": "hello", "namespace": "tenant-agate" },
            "spec": { "kind": "tagger", "source": { "configMap": { "name": "hello", "key": "hello.wasm" } }, "features": features },
        })
        .to_string()
    };
    let reason = async || {
        let plugin = ground.get_in("agate", "plugin", "hello").await?;
        Some(condition_of(&plugin, "Ready")?["reason"].as_str()?.to_owned())
    };
    ground.admin.apply(&plugin(json!(["member.tier"]))).await.expect("the plugin is taken");
    until("a feature beyond the tenant's is refused", LIMIT, || async { (reason().await? == "FeatureNotAllowed").then_some(()) }).await;
    ground.admin.apply(&plugin(json!(["profile.age"]))).await.expect("the plugin is taken");
    until("the plugin is as wished", LIMIT, || async { (reason().await? == "AsWished").then_some(()) }).await;
    let plugin = ground.get_in("agate", "plugin", "hello").await.expect("a plugin");
    assert!(plugin["status"]["why"].is_null(), "why it was refused is over: {}", plugin["status"]);
    let orders = running.pods.orders("tenant-agate");
    let (method, _, body) = orders.iter().find(|(_, path, _)| path == "/v1/operator/plugins/hello").expect("it was handed over");
    assert_eq!((method.as_str(), &body["source"]["bytes"], &body["approved"]), ("PUT", &json!(component), &json!(["profile.age"])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_operator_reads_once_of_each_tenant_that_is_as_it_should_be() {
    let running = Running::start(&[]).await;
    let ground = &running.ground;
    let tenants = ["beryl", "garnet", "topaz"];
    for name in tenants {
        ground.tenant(name, &json!({})).await;
    }
    for name in tenants {
        ground.ready(name).await;
    }
    running.operator.kill();
    // The dead leader's lease would only be waited for.
    ground.admin.kubectl(&["delete", "lease", "--all", "-n", OPERATOR_NAMESPACE]).await;
    let operator = Operator::start(&ground.operator().await, &[]);
    let looks = || operator.metric("heyuan_operator_unchanged_total", "");
    let reads = || operator.metric("heyuan_operator_api_calls_total", "verb=\"get\"");
    let masters = tenants.len() as f64;
    until("the operator has looked at all", LIMIT, || async { (looks().await >= masters && reads().await >= masters).then_some(()) }).await;
    // An annotation asks for a look at one of them, which reads its copy of the secret.
    assert_eq!(reads().await, masters, "{}", operator.log());
    ground.admin.kubectl(&["annotate", "tenant", "beryl", "example.com/note=1"]).await;
    until("the operator has looked again", LIMIT, || async { (reads().await > masters).then_some(()) }).await;
    assert_eq!(reads().await, masters + 1.0, "{}", operator.log());
    assert_eq!(operator.metric("heyuan_operator_api_calls_total", "verb=\"apply\"").await, 0.0);
    // What was changed while nobody looked is put right when somebody asks.
    ground.admin.kubectl(&["delete", "secret", "heyuan", "-n", "tenant-garnet"]).await;
    ground.admin.kubectl(&["annotate", "tenant", "garnet", "example.com/note=1"]).await;
    until("the copy is back", LIMIT, || async { ground.get_in("garnet", "secret", "heyuan").await }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_follow_the_class() {
    let running = Running::start(&[]).await;
    let ground = &running.ground;
    ground.tenant("amethyst", &json!({ "size": "own" })).await;
    let size = |connections: u32| {
        json!({ "sizes": [
        { "name": "small", "cpu": "50m", "memory": "256Mi", "connections": 5 },
        { "name": "own", "cpu": "50m", "memory": "256Mi", "connections": connections },
    ] })
    };
    ground.class("default", size(4)).await;
    let tenant = ground.ready("amethyst").await;
    let data_id = tenant["status"]["dataId"].as_str().expect("a data id").to_owned();
    let limits =
        || ground.sql(&format!("select string_agg(rolconnlimit::text, ' ') from pg_roles where rolname ~ '^heyuan_{data_id}_[ab]$'"));
    assert_eq!(limits(), "10 10");
    for (connections, wanted) in [(20, "42 42"), (3, "8 8")] {
        ground.class("default", size(connections)).await;
        until(&format!("the limits are {wanted}"), LIMIT, || async { (limits() == wanted).then_some(()) }).await;
    }
    ground.change("amethyst", json!({ "replicas": 3 })).await;
    until("the limits are 14 14", LIMIT, || async { (limits() == "14 14").then_some(()) }).await;
    ground.ready("amethyst").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_tenants_file_is_migrated_while_nobody_serves() {
    let running = Running::start(&[]).await;
    let ground = &running.ground;
    ground.tenant("coral", &json!({ "database": { "embedded": {} } })).await;
    ground.ready("coral").await;
    ground.change("coral", json!({ "release": "2" })).await;
    let tenant = ground.ready("coral").await;
    assert_eq!(tenant["status"]["release"], "2");
    let jobs = ground.admin.get(&["jobs", "-n", "tenant-coral"]).await;
    let pod = &jobs["items"][0]["spec"]["template"]["spec"];
    assert_eq!(pod["volumes"], json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "heyuan" } }]), "{jobs}");
    let arguments: Vec<&str> = pod["containers"][0]["args"].as_array().expect("arguments").iter().filter_map(Value::as_str).collect();
    assert!(arguments.ends_with(&["--keep-copy", "2"]), "{arguments:?}");
    let told = |path: &str| running.pods.orders("tenant-coral").iter().filter(|(method, one, _)| method == "DELETE" && one == path).count();
    assert_eq!(told("/v1/operator/database-copy"), 1, "the copy goes when the gate was passed");

    running.behave("heyuan:3", Behaviour { migration: Err("step 9: it broke".into()), ..Behaviour::default() });
    ground.change("coral", json!({ "release": "3" })).await;
    ground.wait("coral", "SchemaReady", "False MigrationFailed").await;
    let tenant = ground.wait("coral", "Serving", "True RolledOut").await;
    assert_eq!(tenant["status"]["release"], "2");
    let deployment = ground.get_in("coral", "deployment", "heyuan").await.expect("a Deployment");
    let image = &deployment["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!((&deployment["spec"]["replicas"], image), (&json!(1), &json!("heyuan:2")));
    assert_eq!(told("/v1/operator/database-copy"), 1);
    ground.change("coral", json!({ "release": "2" })).await;
    ground.ready("coral").await;
    assert_eq!(told("/v1/operator/database-copy"), 2, "who goes back to what serves wants no copy");
}
