//! Every setting of a tenant's process, by section; each has a default that serves a small tenant.

use heyuan_kernel::telemetry::Telemetry;
use serde::Deserialize;
use std::path::PathBuf;

/// The whole configuration: a TOML file, then the environment (`HEYUAN_<SECTION>__<KEY>`).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// What a tenant is born with.
    pub(crate) tenant: TenantSettings,
    /// How it is reached.
    pub(crate) http: HttpSettings,
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

/// The `http` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HttpSettings {
    /// Threads that serve requests.
    pub(crate) workers: usize,
    /// Connections that may be open at once; more wait in the kernel's queue.
    pub(crate) connections_max: usize,
    /// How long a stop waits for running requests, in seconds.
    pub(crate) stop_seconds_max: u64,
}

impl Default for HttpSettings {
    fn default() -> Self {
        HttpSettings { workers: 2, connections_max: 4096, stop_seconds_max: 10 }
    }
}

/// The `plugins` section.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PluginSettings {
    /// Where compiled plugins are kept. Empty: `plugins` in the data folder.
    pub(crate) cache_dir: PathBuf,
}
