//! Which crate may stand on which: the directions of the house, held against `cargo metadata`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use heyuan_harness::workspace_root;
use serde::Deserialize;

/// What `cargo metadata` says, as far as it matters here.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `dev`, `build`, or nothing for an ordinary one.
    kind: Option<String>,
}

/// Every wing there may be; those that are not built yet have their place already.
const WINGS: &[&str] = &[
    "cdp",
    "membership",
    "mall",
    "attribution",
    "staff",
    "engagement",
    "sales",
    "property",
    "operations",
    "enablement",
    "storefront",
    "console",
];

/// What only runs Heyuan; nothing of Heyuan may need it, except in its own tests.
const TESTS: &[&str] = &["harness", "it", "bench"];

/// Whether `room` may depend on `other`; `None` when the room has no place in the house.
fn may_use(room: &str, other: &str) -> Option<bool> {
    Some(match room {
        "contract" => false,
        "kernel" | "plugin-host" | "demo" | "operator" => other == "contract",
        "ledger" | "lake" => ["contract", "kernel"].contains(&other),
        wing if WINGS.contains(&wing) => ["contract", "kernel", "ledger", "lake"].contains(&other),
        "server" => other != "operator" && !TESTS.contains(&other),
        // What runs from outside must not know the inside; the truth behind the demo's events is for tests to read.
        "harness" => other == "contract",
        "it" => ["harness", "contract", "demo"].contains(&other),
        "bench" => other != "it",
        _ => return None,
    })
}

fn metadata() -> Metadata {
    let mut command = Command::new("cargo");
    command.args(["metadata", "--no-deps", "--format-version", "1", "--offline"]).current_dir(workspace_root());
    let output = command.output().expect("cargo runs");
    serde_json::from_slice(&output.stdout).expect("cargo metadata answers as documented")
}

fn room(package: &str) -> Option<&str> {
    package.strip_prefix("heyuan-")
}

/// Dependencies of all kinds; a test of a room may also use the harness.
fn rooms_used(package: &Package) -> impl Iterator<Item = &str> {
    let used = package.dependencies.iter();
    let used = used.filter_map(|dependency| Some((room(&dependency.name)?, dependency.kind.as_deref() == Some("dev"))));
    used.filter(|(other, for_tests)| !(*for_tests && *other == "harness")).map(|(other, _)| other)
}

#[test]
fn rooms_stand_only_on_rooms_below_them() {
    let mut broken = Vec::new();
    for package in &metadata().packages {
        let room = room(&package.name).unwrap_or_else(|| panic!("{} lacks the prefix heyuan-", package.name));
        for other in rooms_used(package) {
            match may_use(room, other) {
                Some(true) => {}
                Some(false) => broken.push(format!("{room} must not depend on {other}")),
                None => broken.push(format!("{room} is a new room: give it a place in may_use")),
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn only_the_plugin_host_names_the_engine() {
    let metadata = metadata();
    let names = |package: &&Package| package.dependencies.iter().any(|dependency| dependency.name.starts_with("wasmtime"));
    let rooms: BTreeSet<_> = metadata.packages.iter().filter(names).filter_map(|package| room(&package.name)).collect();
    assert!(rooms.iter().all(|room| *room == "plugin-host"), "wasmtime is named by {rooms:?}");
}

#[test]
fn a_package_is_named_for_its_folder() {
    let root = workspace_root();
    for package in &metadata().packages {
        let folder = package.manifest_path.parent().expect("a manifest lies in a folder");
        let path = folder.strip_prefix(&root).expect("a member lies in the workspace");
        // plugins/host is heyuan-plugin-host: the folder above says what is hosted.
        let name = if path.starts_with("plugins") { "plugin-host".into() } else { path.file_name().expect("a name").to_string_lossy() };
        assert_eq!(package.name.as_str(), format!("heyuan-{name}"), "{}", path.display());
    }
}

#[test]
fn lints_and_versions_are_inherited_from_the_workspace() {
    for package in &metadata().packages {
        let manifest = std::fs::read_to_string(&package.manifest_path).expect("a manifest is readable");
        assert!(manifest.contains("[lints]\nworkspace = true"), "{} does not inherit the lints", package.name);
        let mut depends = false;
        for line in manifest.lines() {
            if line.starts_with('[') {
                depends = line.ends_with("dependencies]");
            }
            let says_version = line.contains("version =") || line.split_once('=').is_some_and(|(_, value)| value.trim().starts_with('"'));
            assert!(!(depends && says_version), "{} names a version that belongs into the workspace: {line}", package.name);
        }
    }
}

#[test]
fn the_rules_refuse_what_the_design_forbids() {
    let forbidden = [
        ("contract", "kernel"),
        ("kernel", "ledger"),
        ("ledger", "lake"),
        ("lake", "ledger"),
        ("cdp", "membership"),
        ("mall", "membership"),
        ("membership", "server"),
        ("cdp", "plugin-host"),
        ("operator", "mall"),
        ("server", "operator"),
        ("demo", "kernel"),
    ];
    for (room, other) in forbidden {
        assert_eq!(may_use(room, other), Some(false), "{room} -> {other}");
    }
    assert_eq!(may_use("attic", "contract"), None);
}
