//! The commands of both READMEs, run as their reader types them against a demo group, and their answers as they are shown.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use heyuan_harness::{Tenant, TestDatabase, cache_dir, heyuan_binary, workspace_root};
use serde_json::Value;

use crate::skeleton::{matches, read};
use crate::walk::demo_tenant;

/// Blocks that are not typed here, each with its reason.
const ELSEWHERE: &[&str] = &[
    // It serves the demo group that the rest runs against; tests/it/tests/it/walk.rs starts it the same way.
    "make run",
    // Each test on PostgreSQL serves so.
    "heyuan serve --data DIR --listen 127.0.0.1:8080 --database-url postgres://USER:PASSWORD@HOST/DATABASE",
    // It needs a cluster; tests/kubernetes/tenants.sh does the same on a real one.
    "helm install heyuan charts/heyuan --namespace heyuan-system --create-namespace
kubectl apply -f class.yaml -f tenant.yaml
kubectl wait tenant/jade --for=condition=Ready --timeout=120s
kubectl get tenants",
];

/// What a reader puts in, and what has to be waited for on a busy machine: text of a command, and what is run instead.
const INSTEAD: &[(&str, &str)] = &[
    ("URL=http://127.0.0.1:8080 ", ""),
    ("http://127.0.0.1:8080", "$URL"),
    ("sleep 1\n", "settled\n"),
    ("heyuan tour --data ./data", "heyuan tour --data ./data --url $URL"),
    (
        "target/release/heyuan keys create --data ./data --scopes ingest",
        "WRITE_KEY=$(target/release/heyuan keys create --data ./data --scopes ingest); echo $WRITE_KEY",
    ),
    ("Bearer WRITE_KEY", "Bearer $WRITE_KEY"),
    (
        "HEYUAN_KEY=ADMIN_KEY target/release/heyuan events tail",
        "HEYUAN_KEY=$ADMIN_KEY watched target/release/heyuan events tail --url $URL",
    ),
    (
        "heyuan keys create --data DIR --scopes app,reveal --unit mall-1",
        "KEY_ID=$(key_id $(heyuan keys create --data ./data --scopes app,reveal --unit mall-hz))",
    ),
    ("heyuan keys list --data DIR", "heyuan keys list --data ./data"),
    ("heyuan keys revoke KEY_ID --data DIR", "heyuan keys revoke $KEY_ID --data ./data"),
    (
        "curl -X PUT -H \"Authorization: Bearer $ADMIN_KEY\" -H \"Content-Type: application/wasm\"",
        "VERSION=$(curl -X PUT -H \"Authorization: Bearer $ADMIN_KEY\" -H \"Content-Type: application/wasm\"",
    ),
    ("plugins/home-upgrader/versions\n", "plugins/home-upgrader/versions)\n"),
    (
        "'{\"digest\": \"DIGEST\", \"approve\": [\"FEATURE\", \"…\"]}'",
        "\"{\\\"digest\\\": $(jq .digest <<<\"$VERSION\"), \\\"approve\\\": $(jq -c .reads <<<\"$VERSION\")}\"",
    ),
];

/// What stands for something of the reader's own; a command that still has one is not known here.
const STAND_INS: &[&str] = &["127.0.0.1:8080", " WRITE_KEY", "=ADMIN_KEY", " DIR", " KEY_ID", "DIGEST", "FEATURE", "PASSWORD", "HOST/"];

/// The functions that [`INSTEAD`] names. A command that fails, or a name that was never given, ends the whole.
const PRELUDE: &str = r#"
set -eu
trap 'echo "failed: $BASH_COMMAND"' ERR
PATH=$PWD/target/release:$PATH
on_the_way() { curl -sS "$URL/metrics" | grep -E '^heyuan_(inbox_events|consumer_behind_events|outbox_unnumbered_ms)'; }
waiting() { on_the_way | grep -vc ' 0$' || true; }
unpaid() { [ -n "${PAYMENT-}" ] && curl -sS "$URL/v1/payments/$PAYMENT" -H "Authorization: Bearer $MEMBER_TOKEN" | grep -q '"state":"created"'; }
settled() {
  local quiet=0
  for _ in $(seq 2400); do
    if [ "$(waiting)" = 0 ] && ! unpaid; then quiet=$((quiet + 1)); else quiet=0; fi
    [ $quiet -lt 3 ] || return 0
    sleep 0.05
  done
  echo 'it does not settle'
  on_the_way
  return 1
}
key_id() { curl -sS "$URL/v1/me" -H "Authorization: Bearer $1" | jq -r .actor | sed s/^key://; }
watched() {
  "$@" >watched &
  for _ in $(seq 600); do
    curl -sS "$URL/v1/events" -H "Authorization: Bearer $WRITE_KEY" -d '{"events": [{"message_id": "watched", "name": "unit_viewed", "identifiers": [{"type": "device", "value": "d"}]}]}' >/dev/null
    ! grep -q '"message_id":"watched"' watched || break
    sleep 0.05
  done
  kill $!
  grep -q '"message_id":"watched"' watched || { cat watched; return 1; }
}
"#;

/// A line between the answers of two blocks.
const NEXT: &str = "---- next block ----";

/// A block of commands, and the answers that the page shows below it.
struct Block {
    commands: String,
    shown: Vec<Value>,
}

fn blocks(page: &str) -> Vec<Block> {
    let text = fs::read_to_string(workspace_root().join(page)).expect("the page is there");
    let mut found: Vec<Block> = Vec::new();
    let mut pieces = text.split("\n```");
    pieces.next();
    while let (Some(block), _) = (pieces.next(), pieces.next()) {
        let (kind, body) = block.split_once('\n').expect("a fence ends its line");
        match kind {
            "sh" => found.push(Block { commands: format!("{body}\n"), shown: Vec::new() }),
            "text" | "json" => {
                let last = found.last_mut().expect("an answer stands below its command");
                assert!(last.shown.is_empty(), "{page}: two answers below one command");
                last.shown = read(body);
            }
            _ => {}
        }
    }
    found
}

/// The commands without what is said beside them, and in whatever language the tour speaks.
fn bare(commands: &str) -> String {
    let lines = commands.lines().map(|line| line.split_once(" # ").map_or(line, |(command, _)| command).trim_end());
    lines.collect::<Vec<_>>().join("\n").replace(" --lang zh", "")
}

/// The commands as they are run here.
fn typed(commands: &str) -> String {
    INSTEAD.iter().fold(commands.to_owned(), |text, (written, run)| text.replace(written, run))
}

/// All JSON objects of an output, in their order; what stands between them is no answer.
fn answers(output: &str) -> Vec<Value> {
    let (mut found, mut rest) = (Vec::new(), output);
    while let Some(start) = rest.find('{') {
        let mut stream = serde_json::Deserializer::from_str(&rest[start..]).into_iter::<Value>();
        match stream.next() {
            Some(Ok(value)) => {
                found.push(value);
                rest = &rest[start + stream.byte_offset()..];
            }
            _ => rest = &rest[start + 1..],
        }
    }
    found
}

/// Runs a script in a folder that looks like the reader's; answers what it printed, or panics with it.
fn run(tenant: &Tenant, script: &str) -> String {
    let folder = tenant.database().data_dir().join("reader");
    let place = |path: &Path, link: &str| symlink(path, folder.join(link)).expect("a fresh folder takes a link");
    fs::create_dir_all(folder.join("target/release")).expect("the data folder is writable");
    place(tenant.database().data_dir(), "data");
    place(&heyuan_binary(), "target/release/heyuan");
    place(&cache_dir().join("plugins/home-upgrader.wasm"), "home-upgrader.wasm");
    fs::write(folder.join("typed"), script).expect("the data folder is writable");
    let mut bash = Command::new("bash");
    // One pipe for both streams, so that they stay in order.
    bash.args(["-c", "exec bash ./typed 2>&1"]).current_dir(&folder).stdin(Stdio::null());
    let output = bash.env("URL", tenant.url()).env("NO_PROXY", "127.0.0.1").output().expect("bash runs");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    // The end first and in short lines: where a report is cut, that is what is needed.
    let short = |line: &str| line.chars().take(400).collect::<String>();
    let end: Vec<String> = printed.lines().rev().take(20).map(short).collect();
    assert!(
        output.status.success(),
        "a command of the README failed, last line first\n{}\n---- and all of it ----\n{printed}",
        end.join("\n")
    );
    printed
}

#[test]
fn both_languages_hold_the_same_commands_and_answers() {
    let (english, chinese) = (blocks("README.md"), blocks("README.zh.md"));
    let commands = |blocks: &[Block]| blocks.iter().map(|block| bare(&block.commands)).collect::<Vec<_>>();
    assert_eq!(commands(&english), commands(&chinese));
    for (one, other) in english.iter().zip(&chinese) {
        assert_eq!(one.shown, other.shown, "the answers to {}", one.commands);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_readme_runs_as_it_is_written() {
    let blocks: Vec<_> = blocks("README.md").into_iter().filter(|block| !ELSEWHERE.contains(&block.commands.trim())).collect();
    let mut unknown = BTreeSet::new();
    let mut script = PRELUDE.to_owned();
    for block in &blocks {
        let typed = typed(&block.commands);
        unknown.extend(STAND_INS.iter().filter(|word| typed.contains(**word)).map(|word| format!("{word} in {}", block.commands)));
        script.push_str(&format!("echo '{NEXT}'\nsettled\n{typed}\n"));
    }
    assert!(unknown.is_empty(), "commands that nobody here knows how to run:\n{unknown:#?}");
    let tenant = demo_tenant(&TestDatabase::sqlite()).await;
    let printed = tokio::task::block_in_place(|| run(&tenant, &script));
    let mut wrong = Vec::new();
    let outputs: Vec<_> = printed.split(NEXT).skip(1).collect();
    assert_eq!(outputs.len(), blocks.len(), "{printed}");
    for (block, output) in blocks.iter().zip(outputs) {
        let answers = answers(output);
        let mut rest = answers.iter();
        for shown in &block.shown {
            if !rest.any(|answer| matches(shown, answer)) {
                wrong.push(format!("{}shows\n{shown}\nbut answers\n{output}", block.commands));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{} blocks:\n{}", wrong.len(), wrong.join("\n"));
}
