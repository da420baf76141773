//! The demo group's files, read a line at a time: memory does not grow with them.

use anyhow::Context;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tokio::sync::mpsc;

/// Refusals told in full; the rest is counted.
const TOLD_MAX: usize = 5;

/// What the generator says of its files.
#[derive(Debug, Deserialize)]
pub(crate) struct Manifest {
    /// Rows by file.
    pub(crate) files: BTreeMap<String, u64>,
}

impl Manifest {
    /// The manifest of a whole folder.
    ///
    /// # Errors
    /// A folder without one: nothing was generated, or not to the end.
    pub(crate) fn read(from: &Path) -> anyhow::Result<Manifest> {
        let path = from.join("manifest.json");
        let words = || format!("{} is missing or broken; run heyuan demo generate --out {}", path.display(), from.display());
        let bytes = std::fs::read(&path).with_context(words)?;
        serde_json::from_slice(&bytes).with_context(words)
    }

    pub(crate) fn rows(&self, file: &str) -> u64 {
        self.files.get(file).copied().unwrap_or(0)
    }
}

/// A document of the folder, whole.
///
/// # Errors
/// A file that is missing or of another shape.
pub(crate) fn document<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let bytes = std::fs::read(path).with_context(|| format!("could not read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is no file of the demo group", path.display()))
}

/// Gives every line of a file until the taker has enough.
///
/// # Errors
/// A file that can't be read; what the taker says.
pub(crate) fn each_line(path: &Path, mut take: impl FnMut(&str) -> anyhow::Result<ControlFlow<()>>) -> anyhow::Result<()> {
    let file = File::open(path).with_context(|| format!("could not open {}", path.display()))?;
    let mut reader = BufReader::with_capacity(256 << 10, file);
    let (mut line, mut number) = (String::new(), 0_u64);
    loop {
        line.clear();
        number += 1;
        if reader.read_line(&mut line).with_context(|| format!("could not read {} at line {number}", path.display()))? == 0 {
            return Ok(());
        }
        let taken = take(line.trim_end()).with_context(|| format!("{} at line {number}", path.display()))?;
        if taken.is_break() {
            return Ok(());
        }
    }
}

/// Reads a file of JSON lines on a thread of its own, no further ahead than the channel holds.
pub(crate) fn stream<T: DeserializeOwned + Send + 'static>(
    path: PathBuf,
) -> (mpsc::Receiver<T>, tokio::task::JoinHandle<anyhow::Result<()>>) {
    let (sender, receiver) = mpsc::channel(256);
    let reader = tokio::task::spawn_blocking(move || {
        each_line(&path, |line| {
            let row = serde_json::from_str(line).context("the line is no record of the demo group")?;
            // Nobody takes them any more: the load broke off, and says why itself.
            Ok(if sender.blocking_send(row).is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
    });
    (receiver, reader)
}

/// What the server did not take, and why.
#[derive(Debug)]
pub(crate) struct Refusals {
    what: &'static str,
    seen: Mutex<(u64, Vec<String>)>,
}

impl Refusals {
    pub(crate) fn of(what: &'static str) -> Refusals {
        Refusals { what, seen: Mutex::default() }
    }

    pub(crate) fn add(&self, id: &str, why: &str) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.0 += 1;
        if seen.1.len() < TOLD_MAX {
            seen.1.push(format!("{id}: {why}"));
        }
    }

    /// Tells what was refused; so many that the load went wrong are a failure.
    ///
    /// # Errors
    /// More than one in a hundred.
    pub(crate) fn settle(&self, taken: u64) -> anyhow::Result<u64> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for line in &seen.1 {
            super::progress::say(&format!("  refused {} {line}", self.what));
        }
        if seen.0 > taken / 100 + 1 {
            anyhow::bail!("{} of {} {} were refused: {}", seen.0, seen.0 + taken, self.what, seen.1.first().map_or("", String::as_str));
        }
        Ok(seen.0)
    }
}

/// Money as requests spell it.
pub(crate) fn money(fen: i64) -> Value {
    serde_json::json!({ "amount": fen, "currency": "CNY" })
}
