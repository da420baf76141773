//! The bounds of the lake, each with its reason.

use serde::Deserialize;
use std::path::PathBuf;

/// Settings of the `lake` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LakeConfig {
    /// The folder of the files; `lake` in the data folder when the server starts without a value.
    pub dir: PathBuf,
    /// Most rows of an answer; more is cut off and said to be.
    pub query_rows_max: usize,
    /// Most bytes of an answer as JSON, about; more is cut off and said to be.
    pub query_bytes_max: usize,
    /// Longest SQL text: nested expressions are walked on the stack, which is sized for this.
    pub query_text_bytes_max: usize,
    /// Memory of one query's sorts, joins and groups, and of the tail that it reads; it is refused beyond.
    pub query_memory_bytes_max: usize,
    /// A query is stopped after this long.
    pub query_timeout_ms: u64,
    /// Queries that run at once.
    pub query_slots: usize,
    /// How long a query waits for a slot before it is refused.
    pub query_wait_ms: u64,
    /// Threads, and so cores, of one query.
    pub query_threads: usize,
    /// Most events that are not in files yet and are read by one query; the flush keeps the tail far below.
    pub tail_rows_max: usize,
    /// Memory of one ordered scan's sort; beyond, it is sorted on disk inside `dir`.
    pub scan_memory_bytes_max: usize,
    /// Ordered scans that run at once; others wait.
    pub scan_slots: usize,
    /// A scan's files are kept this long; a longer scan fails.
    pub scan_ms_max: u64,
    /// Flushed files of like size that are merged together.
    pub compaction_flushed_files: usize,
    /// Compacted files of like size of one month and bucket that are merged together.
    pub compaction_files: usize,
    /// Below this, flushed files are merged into one flushed file; from it on, into files by month and bucket.
    pub compaction_rows_min: i64,
    /// A file of this many rows is left as it is.
    pub file_rows_max: i64,
    /// A replaced file is kept this long: more than any query runs.
    pub replaced_grace_ms: u64,
    /// An unregistered file is kept this long: more than any flush or compaction takes.
    pub orphan_grace_ms: u64,
    /// How often replaced and unregistered files are looked for.
    pub sweep_every_ms: u64,
}

impl Default for LakeConfig {
    fn default() -> Self {
        LakeConfig {
            dir: PathBuf::new(),
            query_rows_max: 10_000,
            query_bytes_max: 16 << 20,
            query_text_bytes_max: 16 << 10,
            query_memory_bytes_max: 256 << 20,
            query_timeout_ms: 30_000,
            query_slots: 2,
            query_wait_ms: 5_000,
            query_threads: 2,
            tail_rows_max: 200_000,
            scan_memory_bytes_max: 128 << 20,
            scan_slots: 2,
            scan_ms_max: 6 * 3_600_000,
            compaction_flushed_files: 8,
            compaction_files: 4,
            compaction_rows_min: 50_000,
            file_rows_max: 1_000_000,
            replaced_grace_ms: 300_000,
            orphan_grace_ms: 3_600_000,
            sweep_every_ms: 60_000,
        }
    }
}

impl LakeConfig {
    /// Refuses settings that would break a promise.
    ///
    /// # Errors
    /// `Setting` with the key.
    pub(crate) fn check(&self) -> Result<(), heyuan_kernel::Error> {
        let refuse = |key: &str, why: &str| Err(heyuan_kernel::Error::Setting { key: format!("lake.{key}"), why: why.to_owned() });
        if self.dir.as_os_str().is_empty() {
            return refuse("dir", "expected a folder");
        }
        for (key, value) in [
            ("query_rows_max", self.query_rows_max),
            ("query_slots", self.query_slots),
            ("query_threads", self.query_threads),
            ("scan_slots", self.scan_slots),
        ] {
            if value == 0 {
                return refuse(key, "expected at least 1");
            }
        }
        for (key, value) in [("compaction_files", self.compaction_files), ("compaction_flushed_files", self.compaction_flushed_files)] {
            if !(2..=32).contains(&value) {
                return refuse(key, "expected 2 to 32");
            }
        }
        if self.query_text_bytes_max > 64 << 10 {
            return refuse("query_text_bytes_max", "expected at most 65536");
        }
        if self.file_rows_max < 1 {
            return refuse("file_rows_max", "expected at least 1");
        }
        if self.replaced_grace_ms <= self.query_timeout_ms {
            return refuse("replaced_grace_ms", "expected more than query_timeout_ms");
        }
        Ok(())
    }
}
