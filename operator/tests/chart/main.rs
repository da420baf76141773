//! What a platform team installs: definitions, chart, roles, admission policies and manual, held against the operator's own code.

mod chart;
mod manual;
mod rights;
mod written;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The oldest Kubernetes that the chart is for; Helm takes it for the cluster's.
const KUBERNETES: &str = "v1.30.0";

/// A file of the tree.
fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies below the root").join(file)
}

/// The text of a file of the tree.
fn text(file: &str) -> String {
    std::fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The objects of a YAML text.
fn objects(yaml: &str) -> Vec<Value> {
    let parts = yaml.split("\n---").map(|part| part.trim_start_matches("---"));
    let with_content = parts.filter(|part| part.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')));
    with_content.map(|part| serde_saphyr::from_str(part).unwrap_or_else(|error| panic!("{error}\n{part}"))).collect()
}

/// Helm, where this machine has one: in the cache of the doors, or on the path.
fn helm() -> Option<PathBuf> {
    let cache = std::env::var_os("HEYUAN_CACHE").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/heyuan")));
    let of_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).map(|folder| folder.join("helm")).collect::<Vec<_>>());
    let all = cache.map(|cache| cache.join("tools/bin/helm")).into_iter().chain(of_path.into_iter().flatten());
    all.into_iter().find(|helm| helm.is_file())
}

/// What `helm template` makes of the chart.
fn template(helm: &Path, arguments: &[&str]) -> Output {
    let chart = path("charts/heyuan");
    let mut command = Command::new(helm);
    command.args(["template", "heyuan"]).arg(chart).args(["--namespace", "heyuan-system", "--kube-version", KUBERNETES]);
    command.args(arguments).output().expect("Helm can be started")
}

/// What `helm template` makes of the chart, where it must make something.
fn rendered(helm: &Path, arguments: &[&str]) -> String {
    let output = template(helm, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("Helm writes UTF-8")
}

/// Arguments that turn on everything that the chart can make.
const EVERYTHING: &[&str] = &[
    "--api-versions=heyuan.dev/v1alpha1/TenantClass",
    "--set=metrics.serviceMonitor.enabled=true,metrics.alerts.enabled=true,metrics.dashboard.enabled=true,networkPolicy.enabled=true",
    "--set=admission.except.users[0]=system:serviceaccount:backup:backup,admission.except.groups[0]=somebody",
    "--set=operator.otlpEndpoint=http://collector:4318,operator.log.filter=debug,tenantClass.create=true",
    "--set-json=tenantClass.spec={\"release\":\"0.1.0\",\"releases\":[{\"name\":\"0.1.0\",\"image\":\"heyuan:0.1.0\"}],\
     \"sizes\":[{\"name\":\"small\",\"cpu\":\"100m\",\"memory\":\"256Mi\"}]}",
];
