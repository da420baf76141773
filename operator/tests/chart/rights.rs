//! Roles and admission policies: what the operator's account may do, as the chart gives it.

use crate::{objects, text};
use serde_json::Value;
use std::collections::BTreeSet;

/// The chart's objects, as they are committed for Kustomize; another test holds them to be what Helm renders.
fn installed() -> Vec<Value> {
    objects(&text("deploy/kustomize/operator.yaml"))
}

fn named(kind: &str, name: &str) -> Value {
    let found = installed().into_iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

/// Every right of a role as group, resource and verb.
fn rights(role: &Value) -> BTreeSet<(String, String, String)> {
    let list =
        |value: &Value| -> Vec<String> { value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect() };
    let rules = role["rules"].as_array().into_iter().flatten();
    rules
        .flat_map(|rule| {
            let (groups, resources, verbs) = (list(&rule["apiGroups"]), list(&rule["resources"]), list(&rule["verbs"]));
            let pairs: Vec<_> = groups.iter().flat_map(|group| resources.iter().map(move |one| (group.clone(), one.clone()))).collect();
            pairs.into_iter().flat_map(move |(group, one)| verbs.clone().into_iter().map(move |verb| (group.clone(), one.clone(), verb)))
        })
        .collect()
}

fn may(rights: &BTreeSet<(String, String, String)>, group: &str, resource: &str, verb: &str) -> bool {
    rights.contains(&(group.to_owned(), resource.to_owned(), verb.to_owned()))
}

/// The kinds that the operator follows: group and plural, from the table of kind.rs.
fn followed() -> Vec<(String, String)> {
    let source = include_str!("../../src/kind.rs");
    let table = source.split_once("\nkinds! {\n").and_then(|(_, rest)| rest.split_once("\n}")).expect("kind.rs has the table").0;
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().map(|word| word.trim_matches('"')).collect();
        (words[1].to_owned(), words[3].to_owned())
    };
    table.lines().map(row).collect()
}

#[test]
fn no_right_is_a_star_and_secrets_are_never_listed() {
    for role in installed().iter().filter(|object| matches!(object["kind"].as_str(), Some("Role" | "ClusterRole"))) {
        let name = &role["metadata"]["name"];
        for (group, resource, verb) in rights(role) {
            assert!(![&group, &resource, &verb].iter().any(|word| word.contains('*')), "{name}: {group} {resource} {verb}");
            if resource.starts_with("secrets") {
                assert!(["get", "create", "update", "patch", "delete"].contains(&verb.as_str()), "{name}: {verb} secrets");
            }
            assert!(!["escalate", "impersonate", "deletecollection"].contains(&verb.as_str()), "{name}: {verb} {resource}");
        }
    }
}

#[test]
fn no_role_with_secrets_is_bound_across_the_cluster() {
    for role in installed().iter().filter(|object| object["kind"] == "ClusterRole") {
        let name = role["metadata"]["name"].as_str().unwrap_or_default();
        let secrets = rights(role).iter().any(|(_, resource, _)| resource.starts_with("secrets"));
        assert_eq!(secrets, name == "heyuan-operator-tenant", "{name}: secrets");
    }
    let bindings = installed().into_iter().filter(|object| object["kind"] == "ClusterRoleBinding");
    let bound: Vec<String> = bindings.map(|binding| binding["roleRef"]["name"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!(bound, ["heyuan-operator"], "ClusterRoles that are bound across the cluster");
}

#[test]
fn the_operator_may_bind_one_role_alone() {
    let role = named("ClusterRole", "heyuan-operator");
    let rules = role["rules"].as_array().expect("a role has rules");
    let binds: Vec<&Value> =
        rules.iter().filter(|rule| rule["verbs"].as_array().is_some_and(|verbs| verbs.contains(&"bind".into()))).collect();
    assert_eq!(binds.len(), 1);
    assert_eq!(binds[0]["resourceNames"], serde_json::json!(["heyuan-operator-tenant"]));
}

#[test]
fn every_kind_that_is_followed_may_be_listed_and_watched() {
    let (across, own) = (rights(&named("ClusterRole", "heyuan-operator")), rights(&named("Role", "heyuan-operator")));
    for (group, plural) in followed() {
        let where_followed = if plural == "configmaps" { &own } else { &across };
        for verb in ["list", "watch"] {
            assert!(may(where_followed, &group, &plural, verb), "{verb} {plural}");
        }
    }
    for plural in ["tenants", "tenantclasses", "plugins"] {
        assert!(may(&across, "heyuan.dev", plural, "list") && may(&across, "heyuan.dev", plural, "watch"), "{plural}");
    }
}

#[test]
fn every_kind_that_is_written_may_be_made_and_changed() {
    let (across, tenant) = (rights(&named("ClusterRole", "heyuan-operator")), rights(&named("ClusterRole", "heyuan-operator-tenant")));
    for (group, plural) in followed() {
        let role = match plural.as_str() {
            "configmaps" => continue,
            "namespaces" | "rolebindings" => &across,
            _ => &tenant,
        };
        assert!(may(role, &group, &plural, "create") && may(role, &group, &plural, "patch"), "{plural}");
    }
    // Spec and data of a tenant's author are never written.
    for verb in ["create", "update", "delete"] {
        assert!(!may(&across, "heyuan.dev", "tenants", verb), "{verb} tenants");
    }
}

#[test]
fn the_policies_know_the_operator_and_deny() {
    let user = "request.userInfo.username == 'system:serviceaccount:heyuan-system:heyuan-operator'";
    let policies = ["heyuan-operator-bindings", "heyuan-operator-namespaces", "heyuan-namespace-marks"];
    for name in policies {
        let policy = named("ValidatingAdmissionPolicy", name);
        assert_eq!(policy["spec"]["failurePolicy"], "Fail", "{name}");
        let condition = policy["spec"]["matchConditions"][0]["expression"].as_str().unwrap_or_default();
        let wanted = if name == "heyuan-namespace-marks" { user.replace("==", "!=") } else { user.to_owned() };
        assert_eq!(condition, wanted, "{name}");
        for validation in policy["spec"]["validations"].as_array().expect("a policy validates") {
            assert!(validation["message"].as_str().is_some_and(|words| !words.is_empty()), "{name}: a rule without words");
        }
        let binding = named("ValidatingAdmissionPolicyBinding", name);
        assert_eq!(binding["spec"], serde_json::json!({ "policyName": name, "validationActions": ["Deny"] }));
    }
}
