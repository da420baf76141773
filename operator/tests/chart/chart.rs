//! The chart: what it renders, what it refuses, and that it speaks of things that the operator has.

use crate::{EVERYTHING, helm, objects, path, rendered, template, text};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

/// Where Helm is missing, what it rendered before is looked at.
fn installed() -> Vec<Value> {
    objects(&text("deploy/kustomize/operator.yaml"))
}

/// The words of a text that begin like a metric of the operator.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("heyuan_operator_")).map(str::to_owned).collect()
}

#[test]
fn every_variable_and_argument_is_one_of_the_operator() {
    let help = Command::new(env!("CARGO_BIN_EXE_heyuan-operator")).args(["run", "--help"]).output().expect("the operator can be started");
    let help = String::from_utf8(help.stdout).expect("help is UTF-8");
    let chart = text("charts/heyuan/templates/deployment.yaml");
    let of_chart: BTreeSet<&str> = chart.lines().filter_map(|line| line.trim().strip_prefix("- name: HEYUAN_")).collect();
    let of_help: BTreeSet<&str> = help
        .match_indices("[env: HEYUAN_")
        .map(|(at, prefix)| {
            let rest = &help[at + prefix.len()..];
            &rest[..rest.find(['=', ']']).unwrap_or(rest.len())]
        })
        .collect();
    assert_eq!(of_chart, of_help, "the variables of charts/heyuan against those of `heyuan-operator run --help`");
}

#[test]
fn the_operator_runs_hardened() {
    let all = installed();
    let deployment = all.iter().find(|object| object["kind"] == "Deployment").expect("there is a Deployment");
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(deployment["spec"]["replicas"], 2);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    for container in pod["containers"].as_array().expect("a pod has containers") {
        let security = &container["securityContext"];
        assert_eq!(security["readOnlyRootFilesystem"], true);
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]));
        assert!(container["resources"]["limits"]["memory"].is_string());
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            assert!(container[probe]["httpGet"]["path"].is_string(), "{probe}");
        }
    }
}

#[test]
fn alerts_and_dashboard_show_what_is_counted_and_lead_to_a_runbook() {
    let source = include_str!("../../src/metrics.rs");
    let counted: BTreeSet<String> = metrics_in(source);
    let manual = text("docs/operator.md");
    for file in ["charts/heyuan/templates/monitoring.yaml", "charts/heyuan/dashboards/operator.json"] {
        for metric in metrics_in(&text(file)) {
            let base = ["_bucket", "_count", "_sum"].iter().find_map(|end| metric.strip_suffix(end)).unwrap_or(&metric);
            assert!(counted.contains(base), "{file}: {metric} is no metric of the operator");
        }
    }
    let rules = text("charts/heyuan/templates/monitoring.yaml");
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(!alerts.is_empty());
    for alert in alerts {
        let anchor = format!("alert-{}", alert.to_lowercase());
        assert!(rules.contains(&format!("runbookUrl }}}}#{anchor}\n")), "{alert} leads nowhere");
        assert!(manual.contains(&format!("<a id=\"{anchor}\"></a>")), "docs/operator.md has no {anchor}");
    }
    let dashboard: Value = serde_json::from_str(&text("charts/heyuan/dashboards/operator.json")).expect("the dashboard is JSON");
    assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() > 5));
}

#[test]
fn everything_renders_to_objects_with_kind_and_name() {
    let Some(helm) = helm() else { return };
    for arguments in [&[][..], EVERYTHING] {
        let all = objects(&rendered(&helm, arguments));
        let mut seen = BTreeSet::new();
        for object in &all {
            let (kind, name) = (object["kind"].as_str(), object["metadata"]["name"].as_str());
            assert!(object["apiVersion"].is_string() && kind.is_some() && name.is_some(), "{object}");
            assert!(seen.insert((kind, name, object["metadata"]["namespace"].as_str())), "{kind:?} {name:?} is there twice");
        }
        let kept = all.iter().filter(|object| object["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep");
        let kinds: Vec<_> = kept.map(|object| object["kind"].as_str().unwrap_or_default()).collect();
        let expected = if arguments.is_empty() { 3 } else { 4 };
        assert_eq!(kinds.len(), expected, "definitions, and the class where there is one, outlive an uninstall: {kinds:?}");
    }
    let without = rendered(&helm, &["--set=crds.install=false"]);
    assert!(!without.contains("CustomResourceDefinition"));
    let digest = format!("--set=image.repository=a/b,image.tag=v1,image.digest=sha256:{}", "0".repeat(64));
    assert!(rendered(&helm, &[&digest]).contains(&format!("image: \"a/b@sha256:{}\"", "0".repeat(64))), "a digest goes before a tag");
}

#[test]
fn wrong_values_are_refused_in_words() {
    let Some(helm) = helm() else { return };
    let table = [
        ("image.digets=x", "'digets' not allowed"),
        ("image.digest=sha256:1", "/image/digest"),
        ("replicas=two", "/replicas"),
        ("replicas=9", "/replicas"),
        ("operator.concurrency=0", "/operator/concurrency"),
        ("operator.log.format=xml", "/operator/log/format"),
        ("operator.otlpEndpoint=collector:4318", "/operator/otlpEndpoint"),
        ("operator.extraEnv[0].name=HEYUAN_OPERATOR_POLL_MS", "write it under `operator`"),
        ("image.repository=a/b:1", "image.repository: write it without a tag"),
        ("metrics.service=false,metrics.serviceMonitor.enabled=true", "metrics.service must be true"),
        ("serviceAccount.name=Bad Name", "/serviceAccount/name"),
        ("networkPolicy.databaseCidrs[0]=database", "/networkPolicy/databaseCidrs/0"),
        ("tenantClass.create=true", "missing properties"),
        ("crd.install=false", "'crd' not allowed"),
        ("admission.except.groups[0]=x' || true || 'x", "/admission/except/groups/0"),
    ];
    for (values, words) in table {
        let output = template(&helm, &["--set", values]);
        let answer = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{values} was taken");
        assert!(answer.contains(words), "{values}: {answer}");
    }
}

#[test]
fn the_chart_passes_its_lint() {
    let Some(helm) = helm() else { return };
    let lint = Command::new(helm).args(["lint", "--strict", "--kube-version", crate::KUBERNETES]).arg(path("charts/heyuan")).output();
    let lint = lint.expect("Helm can be started");
    assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
}

#[test]
fn argo_cd_knows_every_state() {
    let all = objects(&text("deploy/argocd/argocd-cm.yaml"));
    let script =
        |kind: &str| all[0]["data"][format!("resource.customizations.health.heyuan.dev_{kind}")].as_str().unwrap_or_default().to_owned();
    for state in ["Ready", "Progressing", "Deleting", "Degraded", "Paused"] {
        assert!(script("Tenant").contains(&format!("{state} = \"")), "{state}");
    }
    assert!(script("Plugin").contains("condition.type == \"Ready\""));
}
