//! A disk that can be counted and filled: a library between a tenant and its files.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use tempfile::NamedTempFile;

use crate::process::{cache_dir, workspace_root};

/// Where in the shared file the two numbers lie, in bytes.
const SYNCS_AT: u64 = 0;
const FULL_AT: u64 = 8;

/// The library, built once a process; its name carries no version, since building takes a tenth of a second.
static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = cache_dir().join("shim");
    fs::create_dir_all(&folder).expect("the cache is writable");
    // Built under a name of its own and then moved: a process that runs beside this one never loads half a library.
    let (fresh, library) = (folder.join(format!("disk.{}.so", std::process::id())), folder.join("disk.so"));
    let source = workspace_root().join("tests/harness/shim/disk.c");
    let status = Command::new("cc").args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"]).arg(&fresh).arg(source).status();
    assert!(status.is_ok_and(|status| status.success()), "cc builds the disk shim");
    fs::rename(&fresh, &library).expect("the cache is writable");
    library
});

/// What a tenant started with [`TenantOptions::watch_disk`](crate::TenantOptions) writes through.
#[derive(Debug)]
pub(crate) struct WatchedDisk {
    shared: NamedTempFile,
}

impl WatchedDisk {
    pub(crate) fn new() -> Self {
        let shared = tempfile::Builder::new().prefix("heyuan-disk-").tempfile().expect("the temporary folder is writable");
        shared.as_file().set_len(16).expect("the temporary folder is writable");
        Self { shared }
    }

    /// The environment that puts the library between a process and its files.
    pub(crate) fn environment(&self) -> [(&'static str, &Path); 2] {
        [("LD_PRELOAD", &LIBRARY), ("HEYUAN_DISK_SHIM", self.shared.path())]
    }

    /// fsync and fdatasync calls that have returned, over all processes so far.
    pub(crate) fn syncs(&self) -> u64 {
        let mut bytes = [0; 8];
        self.shared.as_file().read_exact_at(&mut bytes, SYNCS_AT).expect("the shared file has both numbers");
        u64::from_ne_bytes(bytes)
    }

    /// Whether writes fail from now on.
    pub(crate) fn set_full(&self, full: bool) {
        let file = OpenOptions::new().write(true).open(self.shared.path()).expect("the shared file is there");
        file.write_all_at(&u64::from(full).to_ne_bytes(), FULL_AT).expect("the shared file has both numbers");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_are_counted_and_a_full_disk_refuses_writes() {
        let disk = WatchedDisk::new();
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let store = |name: &str| {
            let program = "use IO::Handle; open(my $f, '>', $ARGV[0]) or die $!; syswrite($f, 'abc') or die $!; $f->sync or die $!";
            let mut perl = Command::new("perl");
            perl.args(["-e", program]).arg(folder.path().join(name)).env("LC_ALL", "C");
            perl.envs(disk.environment()).output().expect("perl runs")
        };
        assert!(store("first").status.success());
        assert_eq!(disk.syncs(), 1);

        disk.set_full(true);
        let refused = store("second");
        assert!(!refused.status.success());
        assert!(String::from_utf8_lossy(&refused.stderr).contains("No space left on device"), "{refused:?}");

        disk.set_full(false);
        assert!(store("third").status.success());
        assert_eq!(disk.syncs(), 2);
    }
}
