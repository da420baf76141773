//! Every setting of a tenant's process, by section; each has a default that serves a small tenant.

use heyuan_kernel::telemetry::Telemetry;
use serde::Deserialize;
use std::path::PathBuf;

/// The whole configuration: a TOML file, then the environment (`HEYUAN_<SECTION>__<KEY>`).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What a tenant is born with.
    pub tenant: TenantSettings,
    /// How it is reached.
    pub http: HttpSettings,
    /// Logs, metrics, traces.
    pub telemetry: Telemetry,
    /// The sandbox of plugins.
    pub plugins: PluginSettings,
}

/// The `tenant` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TenantSettings {
    /// IANA name; fixed at the first start.
    pub time_zone: String,
    /// A file with 64 hex digits. Empty: `tenant.key` in the data folder, made at the first start. In production the key
    /// comes from a secret and never lies beside the data.
    pub key_file: PathBuf,
}

impl Default for TenantSettings {
    fn default() -> Self {
        TenantSettings { time_zone: "Asia/Shanghai".into(), key_file: PathBuf::new() }
    }
}

/// The `http` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSettings {
    /// Threads that serve requests.
    pub workers: usize,
    /// Connections that may be open at once; more wait in the kernel's queue.
    pub connections_max: usize,
    /// How long a stop waits for running requests, in seconds.
    pub stop_seconds_max: u64,
}

impl Default for HttpSettings {
    fn default() -> Self {
        HttpSettings { workers: 2, connections_max: 4096, stop_seconds_max: 10 }
    }
}

/// The `plugins` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PluginSettings {
    /// Where compiled plugins are kept. Empty: `plugins` in the data folder.
    pub cache_dir: PathBuf,
}

impl Default for PluginSettings {
    fn default() -> Self {
        PluginSettings { cache_dir: PathBuf::new() }
    }
}
