//! A tenant as its users meet it: the built `heyuan serve`, a folder, a database and an HTTP address.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use reqwest::Client;
use tempfile::NamedTempFile;

use crate::disk::WatchedDisk;
use crate::process::{heyuan_binary, signal, spawn_bound};
use crate::{Answer, Caller, TestDatabase, until};

/// A start that takes longer has failed; generous, since migrations run beside other tests.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// The line by which the server says where it listens, followed by the address.
const LISTENING: &str = "listening on ";

/// The line by which it says where it listens for the operator, followed by the URL.
const OPERATOR: &str = "operator on ";

/// How many bytes of its log a failed test shows.
const LOG_SHOWN: usize = 8 * 1024;

/// What `heyuan serve` gets beyond its data and its address.
#[derive(Clone, Debug, Default)]
pub struct TenantOptions {
    /// The command that serves; `serve` when empty.
    pub command: Vec<OsString>,
    pub arguments: Vec<OsString>,
    pub environment: Vec<(String, String)>,
    /// Counts its syncs and lets [`Tenant::fill_disk`] work; costs a little on every write.
    pub watch_disk: bool,
}

/// A running tenant; dropped, it is killed. Its files stay as long as a clone of its [`TestDatabase`].
#[derive(Debug)]
pub struct Tenant {
    database: TestDatabase,
    options: TenantOptions,
    process: Option<Child>,
    address: String,
    log: NamedTempFile,
    disk: Option<WatchedDisk>,
    http: Client,
}

impl Tenant {
    /// Starts a tenant and waits until it is ready.
    pub async fn start(database: &TestDatabase) -> Self {
        Self::start_with(database, TenantOptions::default()).await
    }

    /// Starts a tenant with options; a second one on the same PostgreSQL is a second process of the same tenant.
    pub async fn start_with(database: &TestDatabase, options: TenantOptions) -> Self {
        // Outside the data folder: what a test finds in there is what the tenant keeps.
        let log = tempfile::Builder::new().prefix("heyuan-log-").tempfile().expect("the temporary folder is writable");
        // No proxy of the machine's settings: every address here is 127.0.0.1.
        let http = Client::builder().no_proxy().timeout(REQUEST_LIMIT).build().expect("the client needs nothing from outside");
        let disk = options.watch_disk.then(WatchedDisk::new);
        let mut tenant = Self { database: database.clone(), options, process: None, address: "127.0.0.1:0".into(), log, disk, http };
        tenant.restart().await;
        tenant
    }

    /// Starts it again on the same data and the same address, after [`Tenant::kill`] or [`Tenant::stop`].
    pub async fn restart(&mut self) {
        assert!(self.process.is_none(), "the tenant is still running");
        let before = self.log().len();
        self.process = Some(self.spawn().expect("heyuan serve starts"));
        self.address = until("heyuan serve says where it listens", START_LIMIT, || {
            let said = self.log()[before..].split(LISTENING).nth(1).and_then(|rest| rest.split_once('\n')).map(|(line, _)| line.to_owned());
            self.must_run();
            async move { said }
        })
        .await
        .trim()
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned();
        until("heyuan serve is ready", START_LIMIT, || async {
            self.must_run();
            Answer::try_of(self.http.get(format!("{}/readyz", self.url()))).await.ok().filter(|answer| answer.status == 200)
        })
        .await;
    }

    fn spawn(&self) -> std::io::Result<Child> {
        let log = OpenOptions::new().append(true).open(self.log.path())?;
        let errors = log.try_clone()?;
        spawn_bound(&heyuan_binary(), |command| {
            let serving = if self.options.command.is_empty() { vec!["serve".into()] } else { self.options.command.clone() };
            command.args(serving).args(self.place()).arg("--listen").arg(&self.address).args(&self.options.arguments);
            command.envs(self.options.environment.iter().cloned()).stdin(Stdio::null()).stdout(log).stderr(errors);
            command.envs(self.disk.iter().flat_map(WatchedDisk::environment));
        })
    }

    /// Panics with the log when the process has ended by itself.
    fn must_run(&self) {
        let Some(process) = &self.process else { panic!("the tenant is not running") };
        // Its state follows the name in parentheses; asking this way needs no exclusive access to the child.
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap_or_default();
        let ended = stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']));
        assert!(!ended, "heyuan serve ended by itself:\n{}", self.log_tail());
    }

    /// Ends it as `kill -9` does, and waits until it is gone.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("the tenant is running");
        process.kill().expect("a child can be killed");
        process.wait().expect("a child can be waited for");
    }

    /// Ends it as a service manager does (SIGTERM), and answers how it ended.
    pub async fn stop(&mut self) -> ExitStatus {
        signal(self.process_id(), "TERM");
        let mut process = self.process.take().expect("the tenant is running");
        until("heyuan serve stops", STOP_LIMIT, || {
            let ended = process.try_wait().expect("a child can be waited for");
            async move { ended }
        })
        .await
    }

    /// Freezes it (SIGSTOP): it holds its locks and leases, and does nothing.
    pub fn pause(&self) {
        signal(self.process_id(), "STOP");
    }

    /// Wakes it after [`Tenant::pause`].
    pub fn wake(&self) {
        signal(self.process_id(), "CONT");
    }

    /// How often its processes have synced a file so far; needs [`TenantOptions::watch_disk`]. PostgreSQL counts its own, in
    /// `pg_stat_wal`.
    pub fn syncs(&self) -> u64 {
        self.watched_disk().syncs()
    }

    /// Every write to a file fails with "no space left on device" until [`Tenant::free_disk`]; needs [`TenantOptions::watch_disk`].
    pub fn fill_disk(&self) {
        self.watched_disk().set_full(true);
    }

    /// Ends [`Tenant::fill_disk`].
    pub fn free_disk(&self) {
        self.watched_disk().set_full(false);
    }

    fn watched_disk(&self) -> &WatchedDisk {
        self.disk.as_ref().expect("the tenant was started with watch_disk")
    }

    pub fn process_id(&self) -> u32 {
        self.process.as_ref().expect("the tenant is running").id()
    }

    /// `http://127.0.0.1:PORT`, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn database(&self) -> &TestDatabase {
        &self.database
    }

    /// Everything that its processes have logged so far.
    pub fn log(&self) -> String {
        fs::read(self.log.path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let start = log.len().saturating_sub(LOG_SHOWN);
        log[log.ceil_char_boundary(start)..].to_owned()
    }

    /// A caller with a new key of these scopes (`ingest`, `app`, … separated by commas), of the whole group.
    pub fn caller(&self, scopes: &str) -> Caller {
        self.caller_in(scopes, None)
    }

    /// A caller whose key is of one unit.
    pub fn caller_in(&self, scopes: &str, unit: Option<&str>) -> Caller {
        let mut arguments = vec!["keys", "create", "--scopes", scopes];
        arguments.extend(unit.iter().flat_map(|unit| ["--unit", *unit]));
        let key = self.heyuan(&arguments).trim().to_owned();
        Caller::new(self.http.clone(), self.url(), Some(key))
    }

    /// A caller with a key that this tenant may never have given out.
    pub fn caller_with(&self, key: &str) -> Caller {
        Caller::new(self.http.clone(), self.url(), Some(key.to_owned()))
    }

    /// A caller without a key.
    pub fn stranger(&self) -> Caller {
        Caller::new(self.http.clone(), self.url(), None)
    }

    /// A caller of the listener that is the operator's, which the options must have asked for.
    pub fn operator(&self, key: Option<&str>) -> Caller {
        let log = self.log();
        let said = log.rsplit(OPERATOR).next().and_then(|rest| rest.split_once('\n')).map(|(line, _)| line.trim());
        let address = said.filter(|_| log.contains(OPERATOR)).expect("heyuan serve says where it listens for the operator");
        Caller::new(self.http.clone(), address.to_owned(), key.map(str::to_owned))
    }

    /// Asks it to end as [`Tenant::stop`] does, and does not wait for it.
    pub fn terminate(&self) {
        signal(self.process_id(), "TERM");
    }

    /// Runs a `heyuan` command beside the server on the same data; answers what it printed, panics when it fails.
    pub fn heyuan(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("heyuan runs");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "heyuan {arguments:?} failed with {}:\n{complaint}", output.status);
        String::from_utf8(output.stdout).expect("heyuan prints UTF-8")
    }

    /// A `heyuan` command on the same data and with the same environment, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(heyuan_binary());
        command.args(arguments).args(self.place()).envs(self.options.environment.iter().cloned()).stdin(Stdio::null());
        command
    }

    fn place(&self) -> Vec<OsString> {
        let mut place = vec!["--data".into(), self.database.data_dir().into()];
        if let Some(file) = self.database.url_file() {
            place.extend(["--database-url-file".into(), file.into()]);
        } else if let Some(url) = self.database.database_url() {
            place.extend(["--database-url".into(), url.into()]);
        }
        place
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Already gone is as good as killed.
            let _ = process.kill();
            let _ = process.wait();
        }
        if thread::panicking() {
            eprintln!("-- the end of the tenant's log --\n{}", self.log_tail());
        }
    }
}
