//! SDKs that others wrote, as clients: scripts under `tests/clients`, run with the packages that set-up installed.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::process::{cache_dir, workspace_root};

/// No client script works longer than this; one that does hangs.
const CLIENT_LIMIT: Duration = Duration::from_secs(300);

/// Runs `tests/clients/python/<script>` and answers the JSON that it printed.
pub async fn python(script: &str, arguments: &[&str]) -> Value {
    let interpreter = cache_dir().join("clients/python/bin/python");
    run(&interpreter, &workspace_root().join("tests/clients/python").join(script), arguments).await
}

/// Runs `tests/clients/node/<script>` and answers the JSON that it printed.
pub async fn node(script: &str, arguments: &[&str]) -> Value {
    run(Path::new("node"), &workspace_root().join("tests/clients/node").join(script), arguments).await
}

async fn run(interpreter: &Path, script: &Path, arguments: &[&str]) -> Value {
    let mut command = Command::new(interpreter);
    command
        .arg(script)
        .args(arguments)
        .env("NODE_PATH", cache_dir().join("clients/node/node_modules"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(CLIENT_LIMIT, command.output()).await.unwrap_or_else(|_| panic!("{} hangs", script.display()));
    let output = output.unwrap_or_else(|error| panic!("{} does not run ({error}): run `scripts/setup.sh test`", interpreter.display()));
    let (printed, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{} failed with {}:\n{printed}\n{complaint}", script.display(), output.status);
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{} printed no JSON ({error}):\n{printed}\n{complaint}", script.display()))
}
