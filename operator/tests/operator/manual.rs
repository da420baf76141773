//! The commands of docs/operator.md, run as their reader types them, in the order of a tenant's life.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use heyuan_harness::{cache_dir, workspace_root};

use super::ground::{Ground, Running};

/// Blocks that are not typed here, each with its reason.
const ELSEWHERE: &[&str] = &[
    // It needs nodes that pull the image; tests/kubernetes/tenants.sh installs the chart on a cluster with real pods.
    "helm upgrade --install heyuan",
];

/// What a reader puts in, and what can't be here: text of a command, and what is run instead.
const INSTEAD: &[(&str, &str)] = &[
    (" NAME", " acme"),
    ("/usr/local/bin/kubectl-heyuan", "bin/kubectl-heyuan"),
    ("install heyuan-operator ", "install \"$OPERATOR\" "),
    // The operator runs as a process of the test, which has no logs of a pod.
    ("kubectl -n heyuan-system logs deployment/heyuan-operator --tail=200\n", ""),
    // docs/operator.sql is run by everything that stands on this ground.
    ("psql -h HOST -d postgres -v name=heyuan_operator -v password=PASSWORD -f docs/operator.sql\n", ""),
    ("password=PASSWORD", "password=operator-password"),
    ("postgres://USER:PASSWORD@HOST:5432/DATABASE", "postgres://somebody:something@127.0.0.1:5432/partner"),
];

/// What stands for something of the reader's own; a command that still has one is not known here.
const STAND_INS: &[&str] = &[" NAME", "PASSWORD", "HOST", "USER", "DATABASE", "REPOSITORY", "DIGEST"];

/// The blocks of a language.
fn blocks(language: &str) -> Vec<String> {
    let manual = fs::read_to_string(workspace_root().join("docs/operator.md")).expect("the manual is there");
    let begin = format!("```{language}\n");
    manual.split(&begin).skip(1).map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

/// The example whose object has this kind and name: the first of them.
fn example(kind: &str, name: &str) -> String {
    let found =
        blocks("yaml").into_iter().find(|block| block.contains(&format!("kind: {kind}\n")) && block.contains(&format!("  name: {name}\n")));
    found.unwrap_or_else(|| panic!("the manual has no example of {kind} {name}"))
}

/// Whoever reads the manual: a folder, kubectl on the path, and what was typed so far.
struct Reader {
    folder: tempfile::TempDir,
    blocks: Vec<String>,
    typed: BTreeSet<usize>,
    kubeconfig: String,
}

impl Reader {
    fn new(ground: &Ground) -> Reader {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).expect("a folder can be made");
        let kubectl = format!("#!/bin/sh\nexec '{}' kubectl \"$@\"\n", cache_dir().join("tools/kubernetes").display());
        fs::write(bin.join("kubectl"), kubectl).expect("a file can be written");
        fs::set_permissions(bin.join("kubectl"), fs::Permissions::from_mode(0o755)).expect("it may be run");
        let kubeconfig = ground.admin.kubeconfig().to_string_lossy().into_owned();
        Reader { folder, blocks: blocks("sh"), typed: BTreeSet::new(), kubeconfig }
    }

    fn write(&self, file: &str, content: impl AsRef<[u8]>) {
        fs::write(self.folder.path().join(file), content).expect("a file can be written");
    }

    /// Types the block in which this stands; answers what it printed.
    async fn types(&mut self, part: &str) -> String {
        let (number, block) =
            self.blocks.iter().enumerate().find(|(_, block)| block.contains(part)).unwrap_or_else(|| panic!("no block has {part}"));
        self.typed.insert(number);
        let block = INSTEAD.iter().fold(block.clone(), |block, (from, to)| block.replace(from, to));
        for stand_in in STAND_INS {
            assert!(!block.contains(stand_in), "{stand_in} stands for something that this test does not know:\n{block}");
        }
        self.runs(block).await
    }

    async fn runs(&self, script: String) -> String {
        let (folder, kubeconfig) = (self.folder.path().to_owned(), self.kubeconfig.clone());
        let running = move || run(&folder, &kubeconfig, &script);
        tokio::task::spawn_blocking(running).await.expect("it runs to its end")
    }
}

fn run(folder: &Path, kubeconfig: &str, script: &str) -> String {
    let path = format!("{}:{}", folder.join("bin").display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(folder)
        .envs([("PATH", path.as_str()), ("KUBECONFIG", kubeconfig), ("NO_PROXY", "*"), ("OPERATOR", env!("CARGO_BIN_EXE_heyuan-operator"))])
        .env("HOME", folder)
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{script}\n{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manuals_commands_do_what_it_says() {
    let running = Running::start(&[]).await;
    let ground = &running.ground;
    let mut reader = Reader::new(ground);

    // First class and first tenant.
    reader.types("create secret generic postgres-main").await;
    ground.admin.apply_dry(&example("TenantClass", "default")).await.expect("the class is taken");
    reader.write("acme.yaml", &example("Tenant", "acme"));
    reader.types("kubectl apply -f acme.yaml").await;
    let key = reader.types("get secret heyuan-admin").await;
    assert!(key.contains("hyk_"), "{key}");
    assert!(ground.get_in("acme", "secret", "heyuan-admin").await.is_none(), "it was handed over");
    for name in ["trial", "partner"] {
        ground.admin.apply(&example("Tenant", name)).await.expect("the tenant is taken");
    }
    reader.types("tenant/partner").await;
    ground.ready("trial").await;
    ground.ready("partner").await;

    // Woken up.
    let explained = reader.types("install heyuan-operator").await;
    assert!(explained.contains("Tenant acme (Acme Land)") && explained.contains("Parts"), "{explained}");
    let seen = reader.types("kubectl get tenants ").await;
    assert!(["STATE", "WHY", "acme", "Events"].iter().all(|word| seen.contains(word)), "{seen}");

    // Another try, and a new password.
    reader.types("heyuan.dev/retry").await;
    reader.types("heyuan.dev/rotate").await;
    ground.ready("acme").await;

    // A plugin.
    ground.change("acme", serde_json::json!({ "plugins": { "features": ["profile.*"] } })).await;
    // Not text, as no component is: kubectl would keep text as such.
    reader.write("high-intent.wasm", b"\0asm\xff");
    ground.admin.apply(&example("Plugin", "high-intent")).await.expect("the plugin is taken");
    reader.types("create configmap plugins").await;

    // Deleted, and kept after all.
    ground.change("acme", serde_json::json!({ "deletion": { "policy": "Delete" } })).await;
    let tenant = ground.ready("acme").await;
    ground.admin.kubectl(&["delete", "tenant", "acme", "--wait=false"]).await;
    reader.types(r#"{"policy":"Retain"}"#).await;
    ground.admin.kubectl(&["wait", "--for=delete", "tenant/acme", "--timeout=90s"]).await;
    let retained = reader.types("heyuan.dev/record=retained").await;
    let data_id = tenant["status"]["dataId"].as_str().expect("a data id");
    assert!(retained.contains("acme") && retained.contains(data_id), "{retained}");

    let untyped: Vec<&String> = reader
        .blocks
        .iter()
        .enumerate()
        .filter(|(number, block)| !reader.typed.contains(number) && !ELSEWHERE.iter().any(|part| block.starts_with(part)))
        .map(|(_, block)| block)
        .collect();
    assert!(untyped.is_empty(), "nobody types these: {untyped:#?}");
}
