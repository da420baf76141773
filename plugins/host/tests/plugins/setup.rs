//! Builds the example plugins once and makes hosts.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use heyuan_plugin_host::{CompilerCommand, Digest, Host, HostConfig};
use tempfile::TempDir;

static BUILT: LazyLock<PathBuf> = LazyLock::new(|| {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../build.sh");
    let status = Command::new(&script).status().expect("run plugins/build.sh");
    assert!(status.success(), "plugins/build.sh failed");
    let cache = env::var_os("HEYUAN_CACHE")
        .map_or_else(|| PathBuf::from(env::var_os("HOME").expect("HOME is set")).join(".cache/heyuan"), PathBuf::from);
    cache.join("plugins")
});

pub(crate) fn component(name: &str) -> Vec<u8> {
    fs::read(BUILT.join(format!("{name}.wasm"))).expect("build.sh made the component")
}

pub(crate) fn fixture(plugin: &str, file: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(plugin).join("fixtures").join(file);
    fs::read(path).expect("the fixture exists")
}

pub(crate) fn config(cache: &Path) -> HostConfig {
    HostConfig::new(cache, [7; 32], CompilerCommand::new(env!("CARGO_BIN_EXE_heyuan-plugin-compiler"), &[]))
}

/// A host with a store of its own, and one plugin in it.
pub(crate) fn host_with(plugin: &str) -> (TempDir, Host, Digest) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let host = Host::new(config(dir.path())).expect("the host starts");
    let digest = host.install(&component(plugin)).expect("the example is installed");
    (dir, host, digest)
}
