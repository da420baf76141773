//! SDKs that others wrote, as clients: scripts under `tests/clients`, run with the packages that set-up installed.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::process::{cache_dir, workspace_root};

/// No client works longer than this; one that does hangs.
const CLIENT_LIMIT: Duration = Duration::from_secs(600);

/// Runs `tests/clients/python/<script>` and answers the JSON that it printed.
pub async fn python(script: &str, arguments: &[&str]) -> Value {
    let interpreter = cache_dir().join("clients/python/bin/python");
    run(&interpreter, &workspace_root().join("tests/clients/python").join(script), arguments).await
}

/// Runs `tests/clients/node/<script>` and answers the JSON that it printed.
pub async fn node(script: &str, arguments: &[&str]) -> Value {
    run(Path::new("node"), &workspace_root().join("tests/clients/node").join(script), arguments).await
}

/// Runs a command-line tool of the Python clients in a folder of its own; answers whether it succeeded, and all that it printed.
pub async fn python_tool(tool: &str, arguments: &[&str]) -> (bool, String) {
    let folder = tempfile::Builder::new().prefix("heyuan-tool-").tempdir().expect("the temporary folder is writable");
    let mut command = client(&cache_dir().join("clients/python/bin").join(tool), arguments);
    let output = finished(command.current_dir(folder.path()), tool).await;
    let printed = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&printed).into_owned())
}

async fn run(interpreter: &Path, script: &Path, arguments: &[&str]) -> Value {
    let script = script.to_str().expect("the tree's paths are UTF-8");
    let arguments = [&[script], arguments].concat();
    let output = finished(&mut client(interpreter, &arguments), script).await;
    let (printed, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script} failed with {}:\n{printed}\n{complaint}", output.status);
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{script} printed no JSON ({error}):\n{printed}\n{complaint}"))
}

fn client(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("NODE_PATH", cache_dir().join("clients/node/node_modules"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn finished(command: &mut Command, name: &str) -> Output {
    let output = timeout(CLIENT_LIMIT, command.output()).await.unwrap_or_else(|_| panic!("{name} hangs"));
    output.unwrap_or_else(|error| panic!("{name} does not run ({error}): run `scripts/setup.sh test`"))
}
