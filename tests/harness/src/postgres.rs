//! A throwaway PostgreSQL server with production's durability settings, gone with the process that asked for it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex};

use sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend, Statement};

/// The role that owns everything on the server.
const ROLE: &str = "heyuan";

/// How often a start is tried: another process may take the free port between finding it and binding it.
const STARTS_MAX: u32 = 3;

/// Durability is what production has; memory and connections are for many small databases on a small machine.
const SETTINGS: &str = "
fsync = on
synchronous_commit = on
full_page_writes = on
listen_addresses = '127.0.0.1'
max_connections = 400
shared_buffers = 256MB
max_wal_size = 2GB
logging_collector = off
";

/// Obeys one command a line and answers one line each. Its standard input closes when the test process ends, however it ends;
/// then it stops the server and removes the folder.
const KEEPER: &str = r#"
bin=$1 dir=$2; shift 2
while read -r order argument; do
  case $order in
    start) "$@" "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w -t 60 -o "-p $argument -k $dir" start </dev/null >/dev/null 2>&1 ;;
    stop) "$@" "$bin/pg_ctl" -D "$dir/data" -w -t 60 -m "$argument" stop </dev/null >/dev/null 2>&1 ;;
  esac && echo done || echo failed
done
"$@" "$bin/pg_ctl" -D "$dir/data" -w -t 60 -m immediate stop </dev/null >/dev/null 2>&1
rm -rf "$dir"
"#;

static SHARED: LazyLock<Postgres> = LazyLock::new(Postgres::start);
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A running server; dropped, or with the end of the process, it is stopped and its files are removed.
#[derive(Debug)]
pub struct Postgres {
    folder: PathBuf,
    port: u16,
    keeper: Mutex<Keeper>,
}

#[derive(Debug)]
struct Keeper {
    process: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Postgres {
    /// The server that all tests of this process share, started by the first that asks.
    pub fn shared() -> &'static Self {
        &SHARED
    }

    /// A server of one's own, for a test that stops it.
    pub fn start() -> Self {
        let bin = newest_bin();
        let folder = tempfile::Builder::new().prefix("heyuan-postgres-").tempdir().expect("the temporary folder is writable").keep();
        let drop_root = drop_root(&folder);
        initialise(&bin, &folder, &drop_root);
        let mut keeper = Keeper::new(&bin, &folder, &drop_root);
        for _ in 0..STARTS_MAX {
            let port = free_port();
            if keeper.obeys(&format!("start {port}")) {
                return Self { folder, port, keeper: Mutex::new(keeper) };
            }
        }
        let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
        panic!("PostgreSQL in {} does not start:\n{log}", folder.display());
    }

    /// Creates an empty database under a name of its own and answers its URL.
    pub async fn fresh_database(&self) -> String {
        let name = format!("tenant_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let admin = self.admin().await;
        admin.execute_unprepared(&format!("CREATE DATABASE {name}")).await.expect("the role may create databases");
        admin.close().await.expect("an idle connection closes");
        self.url(&name)
    }

    /// How often the server has synced its log so far; reported up to a second late.
    pub async fn wal_syncs(&self) -> i64 {
        let admin = self.admin().await;
        let question = Statement::from_string(DbBackend::Postgres, "SELECT wal_sync FROM pg_stat_wal");
        let row = admin.query_one_raw(question).await.expect("the role may read statistics").expect("there is one row");
        admin.close().await.expect("an idle connection closes");
        row.try_get_by_index(0).expect("wal_sync is a whole number")
    }

    async fn admin(&self) -> DatabaseConnection {
        let mut options = ConnectOptions::new(self.url("postgres"));
        options.max_connections(1).sqlx_logging(false);
        Database::connect(options).await.expect("the throwaway PostgreSQL accepts connections")
    }

    /// The URL of one of its databases, over TCP.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{ROLE}@127.0.0.1:{}/{database}", self.port)
    }

    /// Where it listens on 127.0.0.1; the same after [`Postgres::start_again`].
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops it as a crash would: connections break, nothing is flushed.
    pub fn crash(&self) {
        self.must("stop immediate");
    }

    /// Starts it on the same files and the same port; crash recovery included.
    pub fn start_again(&self) {
        self.must(&format!("start {}", self.port));
    }

    fn must(&self, order: &str) {
        let done = self.keeper.lock().expect("no order panics while it is given").obeys(order);
        assert!(done, "PostgreSQL does not {order}:\n{}", fs::read_to_string(self.folder.join("log")).unwrap_or_default());
    }
}

impl Keeper {
    fn new(bin: &Path, folder: &Path, drop_root: &[String]) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(bin)
            .arg(folder)
            .args(drop_root)
            .current_dir(folder)
            // Its own process group: Ctrl-C ends the tests, and the keeper then cleans up after them.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh runs");
        let orders = child.stdin.take().expect("standard input is a pipe");
        let answers = BufReader::new(child.stdout.take().expect("standard output is a pipe"));
        Self { process: child, orders: Some(orders), answers }
    }

    fn obeys(&mut self, order: &str) -> bool {
        let mut answer = String::new();
        let orders = self.orders.as_mut().expect("orders end only when the keeper is dropped");
        writeln!(orders, "{order}").expect("the keeper of PostgreSQL runs as long as the tests");
        self.answers.read_line(&mut answer).expect("the keeper of PostgreSQL answers every order");
        answer.trim() == "done"
    }
}

impl Drop for Keeper {
    /// Waits until the server has stopped and its folder is gone.
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.process.wait();
    }
}

/// The newest server of the Debian packages; wrappers of the same names elsewhere in PATH are not servers.
fn newest_bin() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |path: &Path| path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u32>().ok());
    let newest = versions.map(|entry| entry.path()).filter(|path| path.join("bin/initdb").is_file()).max_by_key(|path| version(path));
    newest.expect("PostgreSQL is not installed: run `scripts/setup.sh test`").join("bin")
}

/// PostgreSQL refuses to run as root; root gives the folder to an unprivileged user and answers the command that becomes it.
pub fn drop_root(folder: &Path) -> Vec<String> {
    if fs::metadata(folder).expect("the folder was just made").uid() != 0 {
        return Vec::new();
    }
    let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd is readable");
    let ids = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2).map(|field| field.parse::<u32>().ok());
        Some((fields.next()??, fields.next()??))
    };
    let (user, group) = ids("postgres").or_else(|| ids("nobody")).expect("a user postgres or nobody exists");
    chown(folder, Some(user), Some(group)).expect("root may give its folder away");
    vec!["setpriv".into(), format!("--reuid={user}"), format!("--regid={group}"), "--clear-groups".into(), "--".into()]
}

fn initialise(bin: &Path, folder: &Path, drop_root: &[String]) {
    let mut words = drop_root.iter().map(PathBuf::from).chain([bin.join("initdb")]);
    let output = Command::new(words.next().expect("there is at least initdb"))
        .args(words)
        .arg("-D")
        .arg(folder.join("data"))
        .args(["-U", ROLE, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"])
        .current_dir(folder)
        .output()
        .expect("initdb runs");
    assert!(output.status.success(), "initdb failed: {}", String::from_utf8_lossy(&output.stderr));
    let file = fs::OpenOptions::new().append(true).open(folder.join("data/postgresql.conf"));
    file.and_then(|mut file| file.write_all(SETTINGS.as_bytes())).expect("the configuration is writable");
}

/// A port of this machine that nobody listened on a moment ago; another process may take it first.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("a bound socket has an address").port()
}
