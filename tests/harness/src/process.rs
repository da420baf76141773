//! Child processes that never outlive the test process, and where binaries and tools lie.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{LazyLock, Mutex};
use std::{env, io, thread};

type Order = (Command, Sender<io::Result<Child>>);

/// The kernel ends a child by `pdeathsig` when the *thread* that started it ends, so all are started by one that never does.
static STARTER: LazyLock<Mutex<Sender<Order>>> = LazyLock::new(|| {
    let (orders, inbox) = channel::<Order>();
    thread::spawn(move || {
        for (mut command, reply) in inbox {
            // A caller that has gone away drops the receiver; its child is ended with it.
            if let Err(returned) = reply.send(command.spawn())
                && let Ok(mut orphan) = returned.0
            {
                let _ = orphan.kill();
                let _ = orphan.wait();
            }
        }
    });
    Mutex::new(orders)
});

/// Starts `program` so that it is killed when the test process ends, even by `kill -9`. `prepare` adds arguments and streams.
pub(crate) fn spawn_bound(program: &Path, prepare: impl FnOnce(&mut Command)) -> io::Result<Child> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    prepare(&mut command);
    let (reply, answer) = channel();
    STARTER.lock().expect("the starter's lock is held only to send").send((command, reply)).expect("the starter thread runs for ever");
    answer.recv().expect("the starter thread answers every order")
}

/// A `heyuan` command that runs beside a tenant; dropped, it is killed.
#[derive(Debug)]
pub struct Beside(Child);

impl Beside {
    /// Starts it; it says what it has to say on the test's own standard error.
    pub fn start(arguments: &[&str]) -> Self {
        let started = spawn_bound(&heyuan_binary(), |command| {
            command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        });
        Self(started.expect("heyuan starts"))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends `signal` (as `kill` names it) to a process that this test started.
pub(crate) fn signal(process: u32, signal: &str) {
    let status = Command::new("sh").args(["-c", &format!("kill -{signal} {process}")]).status().expect("sh runs");
    assert!(status.success(), "signal {signal} to process {process}");
}

/// The root of the source tree.
pub fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the harness lies two folders below the root").to_path_buf()
}

/// Where set-up keeps what is not source: builds, plugins, SDK clients.
pub fn cache_dir() -> PathBuf {
    match env::var_os("HEYUAN_CACHE") {
        Some(path) => path.into(),
        None => PathBuf::from(env::var_os("HOME").expect("HOME is set")).join(".cache/heyuan"),
    }
}

/// The `heyuan` binary under test: `HEYUAN_BIN`, else the one beside the test binary that cargo has just built.
pub fn heyuan_binary() -> PathBuf {
    binary("heyuan", "HEYUAN_BIN")
}

/// The `heyuan-operator` binary under test: `HEYUAN_OPERATOR_BIN`, else the one beside the test binary.
pub(crate) fn operator_binary() -> PathBuf {
    binary("heyuan-operator", "HEYUAN_OPERATOR_BIN")
}

fn binary(name: &str, variable: &str) -> PathBuf {
    let path = env::var_os(variable).map(PathBuf::from).unwrap_or_else(|| {
        let this = env::current_exe().expect("a process knows its own file");
        let folder = this.parent().expect("a file lies in a folder");
        let profile = if folder.ends_with("deps") { folder.parent().expect("deps lies in the profile's folder") } else { folder };
        profile.join(name)
    });
    assert!(path.is_file(), "{} is not there: run `make build` first, or set {variable}", path.display());
    path
}
