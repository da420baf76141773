//! Every setting of a tenant's process, by section; each has a default that serves a small tenant.

use heyuan_kernel::Error;
use heyuan_kernel::bodies::Bounds;
use heyuan_kernel::rest::RestTimes;
use heyuan_kernel::telemetry::Telemetry;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

/// The whole configuration: a TOML file, then the environment (`HEYUAN_<SECTION>__<KEY>`).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// What a tenant is born with.
    pub(crate) tenant: TenantSettings,
    /// Where its tables are, and how long what is at work there is waited for.
    pub(crate) database: DatabaseSettings,
    /// How it is reached.
    pub(crate) http: HttpSettings,
    /// Who runs it.
    pub(crate) operator: OperatorSettings,
    /// Logs, metrics, traces.
    pub(crate) telemetry: Telemetry,
    /// The sandbox of plugins.
    pub(crate) plugins: PluginSettings,
    /// Collecting events.
    pub(crate) collect: heyuan_cdp::Collect,
    /// Event history.
    pub(crate) lake: heyuan_lake::LakeConfig,
    /// The mall and its payment gateway.
    pub(crate) mall: heyuan_mall::Settings,
    /// How members log in.
    pub(crate) login: heyuan_membership::LoginSettings,
    /// How those who work for the group log in.
    pub(crate) staff: heyuan_staff::StaffSettings,
}

/// The `tenant` section.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TenantSettings {
    /// IANA name; fixed at the first start, `Asia/Shanghai` where none is named. Later starts need not name it.
    pub(crate) time_zone: Option<String>,
    /// A file with 64 hex digits. Empty: `tenant.key` in the data folder, made at the first start. In production the key
    /// comes from a secret and never lies beside the data.
    pub(crate) key_file: PathBuf,
}

/// The `database` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DatabaseSettings {
    /// A file with the URL, as `--database-url-file`; a server follows its content. Empty: the URL is given, or the database is embedded.
    pub(crate) url_file: PathBuf,
    /// How long connections of earlier content may finish what they do, in seconds; then they are ended.
    pub(crate) drain_seconds_max: u64,
    /// How long a step of the schema waits for locks of others, in seconds; then it fails and changes nothing.
    pub(crate) lock_seconds_max: u64,
    /// After how long without a commit of any process of the tenant a process rests, in milliseconds: it keeps one connection to PostgreSQL
    /// and asks nothing but for its lease, until somebody commits or something is due. 0: never. The same for all processes of a tenant, as
    /// the next one; neither needs to be changed.
    pub(crate) rest_after_ms: u64,
    /// How often a process that commits tells the others, in milliseconds; at most half of the one before.
    pub(crate) notice_every_ms: u64,
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        DatabaseSettings {
            url_file: PathBuf::new(),
            drain_seconds_max: 30,
            lock_seconds_max: 5,
            rest_after_ms: 45_000,
            notice_every_ms: 20_000,
        }
    }
}

impl DatabaseSettings {
    pub(crate) fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds_max)
    }

    /// When its processes rest.
    ///
    /// # Errors
    /// `Setting` where a process would rest while another one works.
    pub(crate) fn rest(&self) -> Result<RestTimes, Error> {
        RestTimes::new(Duration::from_millis(self.rest_after_ms), Duration::from_millis(self.notice_every_ms))
    }

    pub(crate) fn lock_wait(&self) -> Duration {
        Duration::from_secs(self.lock_seconds_max.max(1))
    }
}

/// The `operator` section.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct OperatorSettings {
    /// A file with the key that the operator sends, at least 32 characters; read again at each request.
    pub(crate) key_file: PathBuf,
}

/// The `http` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HttpSettings {
    /// Threads that serve requests.
    pub(crate) workers: usize,
    /// Connections that may be open at once; more wait in the kernel's queue.
    pub(crate) connections_max: usize,
    /// Bytes of all bodies that are in memory at once, as sent and as unpacked: a quarter of it for callers whose key is not known
    /// yet. Beyond it a body waits up to a second for room and is then answered 429. The largest body of all has 32 MiB.
    pub(crate) bodies_bytes_max: usize,
    /// Seconds that a body may take however small it is: a phone in a lift.
    pub(crate) body_seconds: u64,
    /// A second more for each so many bytes: slower senders would hold memory for nothing.
    pub(crate) body_bytes_per_second_min: usize,
    /// How long a stop waits for running requests, in seconds.
    pub(crate) stop_seconds_max: u64,
    /// How long requests are still taken after the process was told to stop, in seconds, while it says that it is not ready: whoever
    /// sends them here learns of it meanwhile.
    pub(crate) stop_delay_seconds: u64,
    /// Address and port for the operator, as `--operator-listen`. Empty: it is served nowhere.
    pub(crate) operator_listen: String,
}

impl Default for HttpSettings {
    fn default() -> Self {
        HttpSettings {
            workers: 2,
            connections_max: 4096,
            bodies_bytes_max: 128 << 20,
            body_seconds: 10,
            body_bytes_per_second_min: 16 << 10,
            stop_seconds_max: 10,
            stop_delay_seconds: 0,
            operator_listen: String::new(),
        }
    }
}

impl HttpSettings {
    /// The bounds of bodies.
    ///
    /// # Errors
    /// `Setting` with the name of one that makes no sense.
    pub(crate) fn bounds(&self) -> Result<Bounds, Error> {
        let refuse = |key: &str, why: &str| Err(Error::Setting { key: format!("http.{key}"), why: why.to_owned() });
        if self.workers == 0 || self.connections_max == 0 {
            return refuse("workers, http.connections_max", "each must be at least 1");
        }
        if !(BODIES_BYTES_MIN..=BODIES_BYTES_MAX).contains(&self.bodies_bytes_max) {
            return refuse("bodies_bytes_max", "it must lie between 64 MiB and 64 GiB");
        }
        if self.body_seconds == 0 || self.body_bytes_per_second_min == 0 {
            return refuse("body_seconds, http.body_bytes_per_second_min", "each must be at least 1");
        }
        let grace = Duration::from_secs(self.body_seconds);
        Ok(Bounds { bytes_max: self.bodies_bytes_max, grace, bytes_a_second_min: self.body_bytes_per_second_min })
    }
}

/// With less a spend file, the largest body, would never find room.
const BODIES_BYTES_MIN: usize = 64 << 20;
/// More is a mistake.
const BODIES_BYTES_MAX: usize = 64 << 30;

/// The `plugins` section.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PluginSettings {
    /// Where compiled plugins are kept. Empty: `plugins` in the data folder.
    pub(crate) cache_dir: PathBuf,
    /// The socket of a `heyuan compile-plugins` beside this process. Empty: each compilation is a child of this process.
    pub(crate) compiler_socket: PathBuf,
    /// For trials on one machine: the operator may name plugins by loopback addresses, also without encryption.
    pub(crate) source_loopback: bool,
}
