//! The Kubernetes that tests run on is a real one: what the operator relies on is so here, and troubles meet the call that they are meant for.

use std::process::Command;
use std::time::Duration;

use heyuan_harness::{Access, ApiProxy, Call, ControlPlane, Trouble, until};
use reqwest::{Method, Response};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

/// A kind with rules, a default and a status.
const NOTES: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: notes.tests.heyuan.dev}
spec:
  group: tests.heyuan.dev
  scope: Namespaced
  names: {kind: Note, plural: notes, singular: note}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [zone]
            x-kubernetes-validations: [{rule: 'self.zone == oldSelf.zone', message: 'zone never changes: make another note'}]
            properties:
              zone: {type: string}
              size: {type: integer, maximum: 3, default: 1}
          status:
            type: object
            properties: {seen: {type: boolean}}
";

/// A namespace of the test's own, with its first account.
async fn namespace(name: &str) -> Access {
    let admin = ControlPlane::shared().await.admin();
    admin.kubectl(&["create", "namespace", name]).await;
    until("the namespace has its account", LIMIT, || async {
        admin.try_kubectl(&["get", "serviceaccount", "default", "-n", name]).await.ok()
    })
    .await;
    admin
}

/// The account `default` of a namespace of its own, which may do everything in there and nothing elsewhere.
async fn editor(name: &str) -> Access {
    let admin = namespace(name).await;
    let subject = format!("--serviceaccount={name}:default");
    admin.kubectl(&["create", "rolebinding", "editor", "-n", name, "--clusterrole=admin", &subject]).await;
    let account = ControlPlane::shared().await.service_account(name, "default").await;
    // A role and its binding hold a moment after they were written.
    let may = ["auth", "can-i", "create", "configmaps", "-n", name];
    until("the account may edit", LIMIT, || async { account.try_kubectl(&may).await.ok() }).await;
    account
}

fn note(namespace: &str, spec: &str) -> String {
    format!("{{apiVersion: tests.heyuan.dev/v1, kind: Note, metadata: {{name: first, namespace: {namespace}}}, spec: {spec}}}")
}

#[tokio::test]
async fn rules_status_and_field_managers_are_the_real_thing() {
    let admin = namespace("notes").await;
    admin.apply(NOTES).await.expect("the kind is valid");
    admin.kubectl(&["wait", "--for=condition=Established", "crd/notes.tests.heyuan.dev", "--timeout=30s"]).await;

    let complaint = admin.apply(&note("notes", "{zone: a, size: 4}")).await.expect_err("4 is more than 3");
    assert!(complaint.contains("should be less than or equal to 3"), "{complaint}");
    admin.apply(&note("notes", "{zone: a}")).await.expect("a valid note");
    let complaint = admin.apply(&note("notes", "{zone: b}")).await.expect_err("the zone is immutable");
    assert!(complaint.contains("zone never changes: make another note"), "{complaint}");

    let status = r#"{"spec": {"size": 2}, "status": {"seen": true}}"#;
    admin.kubectl(&["patch", "note", "first", "-n", "notes", "--subresource=status", "--type=merge", "-p", status]).await;
    let found = admin.get(&["note", "first", "-n", "notes"]).await;
    assert_eq!((&found["spec"], &found["status"]), (&json!({"zone": "a", "size": 1}), &json!({"seen": true})));

    let other = ["patch", "note", "first", "-n", "notes", "--type=merge", "--field-manager=other", "-p", r#"{"spec": {"size": 3}}"#];
    admin.kubectl(&other).await;
    let complaint = admin.apply(&note("notes", "{zone: a, size: 2}")).await.expect_err("the size is another manager's");
    assert!(complaint.contains("conflict with \"other\""), "{complaint}");
}

#[tokio::test]
async fn a_deleted_namespace_goes_with_what_is_in_it() {
    let admin = namespace("leaving").await;
    admin.kubectl(&["create", "configmap", "inside", "-n", "leaving"]).await;
    admin.kubectl(&["delete", "namespace", "leaving", "--timeout=30s"]).await;
    let complaint = admin.try_kubectl(&["get", "configmap", "inside", "-n", "leaving"]).await.expect_err("it is gone");
    assert!(complaint.contains("NotFound"), "{complaint}");
}

#[tokio::test]
async fn an_account_may_do_what_its_role_says_and_no_more() {
    let account = editor("own").await;
    account.kubectl(&["create", "secret", "generic", "mine", "-n", "own", "--from-literal=a=b"]).await;
    let complaint = account.try_kubectl(&["get", "secrets", "-n", "kube-system"]).await.expect_err("it is no administrator");
    assert!(complaint.contains("Forbidden") && complaint.contains("system:serviceaccount:own:default"), "{complaint}");
    let bind = ["create", "rolebinding", "more", "-n", "kube-system", "--clusterrole=admin", "--serviceaccount=own:default"];
    account.try_kubectl(&bind).await.expect_err("nor makes itself one");
}

#[tokio::test]
async fn an_admission_policy_refuses_what_it_says() {
    let account = editor("policed").await;
    let admin = ControlPlane::shared().await.admin();
    admin
        .apply(
            "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-secret-words}
spec:
  matchConstraints:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: policed}}
    resourceRules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
  validations: [{expression: \"!has(object.data) || !('password' in object.data)\", message: 'passwords belong in secrets'}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-secret-words}
spec: {policyName: no-secret-words, validationActions: [Deny]}
",
        )
        .await
        .expect("the policy is valid");
    // A policy holds a moment after it was written.
    let complaint = until("the policy holds", LIMIT, || async {
        let made =
            account.try_kubectl(&["create", "configmap", "c", "-n", "policed", "--from-literal=password=x", "--dry-run=server"]).await;
        made.err()
    })
    .await;
    assert!(complaint.contains("passwords belong in secrets"), "{complaint}");
}

#[tokio::test]
async fn an_api_server_that_was_killed_comes_back_with_what_it_had() {
    let control_plane = ControlPlane::start().await;
    let admin = control_plane.admin();
    until("the namespace is there", LIMIT, || async { admin.try_kubectl(&["create", "configmap", "kept"]).await.ok() }).await;
    control_plane.kill_api_server();
    admin.try_kubectl(&["get", "configmap", "kept", "--request-timeout=2s"]).await.expect_err("nobody answers");
    control_plane.start_api_server_again().await;
    admin.kubectl(&["get", "configmap", "kept"]).await;
}

fn makes_a_map(call: &Call) -> bool {
    call.is("create", "configmaps")
}

#[tokio::test]
async fn a_proxy_breaks_the_call_that_a_test_names() {
    let direct = editor("broken").await;
    let proxy = ApiProxy::to(ControlPlane::shared().await).await;
    let through = direct.through(&proxy);
    let create = |name: &'static str| ["create", "configmap", name, "-n", "broken"];
    let get = |name: &'static str| ["get", "configmap", name, "-n", "broken"];

    proxy.at(1, makes_a_map, Trouble::DropBefore);
    proxy.at(2, makes_a_map, Trouble::DropAfter);
    proxy.at(3, makes_a_map, Trouble::Answer(409));
    proxy.at(4, makes_a_map, Trouble::Delay(Duration::from_millis(50)));
    through.try_kubectl(&create("before")).await.expect_err("the connection broke");
    through.try_kubectl(&create("after")).await.expect_err("the connection broke");
    let complaint = through.try_kubectl(&create("refused")).await.expect_err("the proxy refused");
    assert!(complaint.contains("a test wants this call to fail"), "{complaint}");
    through.kubectl(&create("delayed")).await;
    assert_eq!(proxy.waiting(), 0);

    direct.try_kubectl(&get("before")).await.expect_err("the API server was not asked");
    direct.kubectl(&get("after")).await;
    direct.try_kubectl(&get("refused")).await.expect_err("the API server was not asked");
    direct.kubectl(&get("delayed")).await;
    assert_eq!(proxy.calls().iter().filter(|call| makes_a_map(call)).count(), 4);
}

#[tokio::test]
async fn a_proxy_kills_before_or_after_the_call() {
    let direct = editor("killed").await;
    let proxy = ApiProxy::to(ControlPlane::shared().await).await;
    let through = direct.through(&proxy);
    for (name, trouble) in [("before", Trouble::KillBefore as fn(u32) -> Trouble), ("after", Trouble::KillAfter)] {
        let mut victim = Command::new("cat").stdin(std::process::Stdio::piped()).spawn().expect("cat starts");
        proxy.at(1, makes_a_map, trouble(victim.id()));
        through.try_kubectl(&["create", "configmap", name, "-n", "killed"]).await.expect_err("the connection ends with the killed process");
        let ended = until("it is killed", LIMIT, || {
            let ended = victim.try_wait().expect("a child can be waited for");
            async move { ended }
        })
        .await;
        assert!(!ended.success());
    }
    direct.try_kubectl(&["get", "configmap", "before", "-n", "killed"]).await.expect_err("the API server was not asked");
    direct.kubectl(&["get", "configmap", "after", "-n", "killed"]).await;
}

/// The next event of a watch.
async fn event(watch: &mut Response) -> Option<Value> {
    let chunk = watch.chunk().await.expect("the watch ends in order")?;
    Some(serde_json::from_slice(&chunk).expect("an event comes whole"))
}

#[tokio::test]
async fn a_proxy_holds_and_expires_watches() {
    let direct = editor("watched").await;
    let proxy = ApiProxy::to(ControlPlane::shared().await).await;
    let through = direct.through(&proxy);
    let path = "/api/v1/namespaces/watched/configmaps?watch=true&fieldSelector=metadata.name%3Dseen&resourceVersion=0";
    let mut watch = through.request(Method::GET, path).send().await.expect("the watch begins");

    proxy.hold_watches(true);
    let mut early = Box::pin(event(&mut watch));
    assert!(futures::poll!(&mut early).is_pending());
    direct.kubectl(&["create", "configmap", "seen", "-n", "watched"]).await;
    // While the API server answers other calls through the same proxy, the event waits.
    through.kubectl(&["get", "configmap", "seen", "-n", "watched"]).await;
    assert!(futures::poll!(&mut early).is_pending());
    proxy.hold_watches(false);
    let added = early.await.expect("the event passes");
    assert_eq!((&added["type"], &added["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("seen")));

    proxy.expire_watches();
    let expired = event(&mut watch).await.expect("the watch says why it ends");
    assert_eq!((&expired["type"], &expired["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(event(&mut watch).await, None);
}
