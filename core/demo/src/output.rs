//! Files written line by line: plain ones, and ones put in order of arrival by an external merge sort in bounded memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Error;

/// So many runs are merged at once: far below the usual limit of 1,024 open files.
const FAN_IN: usize = 200;
const BUFFER_BYTES: usize = 128 * 1024;

/// A file of lines in the order in which they are written.
pub(crate) struct Lines {
    file: BufWriter<File>,
    path: PathBuf,
    pub(crate) rows: u64,
}

impl Lines {
    pub(crate) fn create(path: &Path) -> Result<Self, Error> {
        Ok(Self { file: create(path)?, path: path.to_owned(), rows: 0 })
    }

    pub(crate) fn write(&mut self, row: &impl Serialize) -> Result<(), Error> {
        serde_json::to_writer(&mut self.file, row).map_err(std::io::Error::from).map_err(Error::writing(&self.path))?;
        self.file.write_all(b"\n").map_err(Error::writing(&self.path))?;
        self.rows += 1;
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<u64, Error> {
        self.file.flush().map_err(Error::writing(&self.path))?;
        Ok(self.rows)
    }
}

#[derive(Clone, Copy)]
struct Entry {
    key: i64,
    offset: usize,
    length: usize,
}

/// Lines that come in any order and leave in the order of their key; equal keys keep the order in which they came.
pub(crate) struct Sorted {
    folder: PathBuf,
    name: &'static str,
    budget_bytes: usize,
    text: Vec<u8>,
    entries: Vec<Entry>,
    runs: Vec<PathBuf>,
    runs_made: u64,
    pub(crate) rows: u64,
}

impl Sorted {
    /// Runs are spilled to `folder` whenever `budget_bytes` of text are held.
    pub(crate) fn new(folder: &Path, name: &'static str, budget_bytes: usize) -> Self {
        let (text, entries) = (Vec::new(), Vec::new());
        Self { folder: folder.to_owned(), name, budget_bytes, text, entries, runs: Vec::new(), runs_made: 0, rows: 0 }
    }

    pub(crate) fn push(&mut self, key: i64, row: &impl Serialize) -> Result<(), Error> {
        let offset = self.text.len();
        serde_json::to_writer(&mut self.text, row).map_err(std::io::Error::from).map_err(Error::writing(&self.folder))?;
        self.text.push(b'\n');
        self.entries.push(Entry { key, offset, length: self.text.len() - offset });
        self.rows += 1;
        if self.text.len() >= self.budget_bytes {
            self.spill()?;
        }
        Ok(())
    }

    /// Repeats the line pushed last, as a client does that missed the answer; false where it was just spilled.
    pub(crate) fn repeat(&mut self, key: i64) -> bool {
        let Some(last) = self.entries.last().copied() else { return false };
        let offset = self.text.len();
        self.text.extend_from_within(last.offset..last.offset + last.length);
        self.entries.push(Entry { key, offset, length: last.length });
        self.rows += 1;
        true
    }

    fn spill(&mut self) -> Result<(), Error> {
        self.entries.sort_by_key(|entry| entry.key);
        let path = self.next_run();
        let mut file = create(&path)?;
        for entry in &self.entries {
            let line = &self.text[entry.offset..entry.offset + entry.length];
            write_entry(&mut file, entry.key, line).map_err(Error::writing(&path))?;
        }
        file.flush().map_err(Error::writing(&path))?;
        self.runs.push(path);
        self.text.clear();
        self.entries.clear();
        Ok(())
    }

    fn next_run(&mut self) -> PathBuf {
        self.runs_made += 1;
        self.folder.join(format!("{}-{}.run", self.name, self.runs_made))
    }

    /// Writes all lines to `path` and removes the runs.
    pub(crate) fn finish(mut self, path: &Path) -> Result<u64, Error> {
        if !self.runs.is_empty() {
            self.spill()?;
        }
        while self.runs.len() > FAN_IN {
            let first: Vec<PathBuf> = self.runs.drain(..FAN_IN.min(self.runs.len() - FAN_IN + 1)).collect();
            let merged = self.next_run();
            let mut file = create(&merged)?;
            merge(&first, |key, line| write_entry(&mut file, key, line).map_err(Error::writing(&merged)))?;
            file.flush().map_err(Error::writing(&merged))?;
            // In front, because its lines came first.
            self.runs.insert(0, merged);
        }
        let mut file = create(path)?;
        if self.runs.is_empty() {
            self.entries.sort_by_key(|entry| entry.key);
            for entry in &self.entries {
                file.write_all(&self.text[entry.offset..entry.offset + entry.length]).map_err(Error::writing(path))?;
            }
        } else {
            merge(&self.runs, |_, line| file.write_all(line).map_err(Error::writing(path)))?;
        }
        file.flush().map_err(Error::writing(path))?;
        Ok(self.rows)
    }
}

/// Gives the lines of sorted runs in order, then removes the runs.
fn merge(runs: &[PathBuf], mut give: impl FnMut(i64, &[u8]) -> Result<(), Error>) -> Result<(), Error> {
    let mut readers = Vec::with_capacity(runs.len());
    let mut heap = BinaryHeap::with_capacity(runs.len());
    for (index, path) in runs.iter().enumerate() {
        let file = File::open(path).map_err(Error::reading(path))?;
        let mut reader = Run { file: BufReader::with_capacity(BUFFER_BYTES, file), line: Vec::new() };
        if let Some(key) = reader.advance().map_err(Error::reading(path))? {
            heap.push(Reverse((key, index)));
        }
        readers.push(reader);
    }
    while let Some(Reverse((key, index))) = heap.pop() {
        give(key, &readers[index].line)?;
        if let Some(next) = readers[index].advance().map_err(Error::reading(&runs[index]))? {
            heap.push(Reverse((next, index)));
        }
    }
    drop(readers);
    runs.iter().try_for_each(|path| std::fs::remove_file(path).map_err(Error::writing(path)))
}

struct Run {
    file: BufReader<File>,
    line: Vec<u8>,
}

impl Run {
    fn advance(&mut self) -> std::io::Result<Option<i64>> {
        let mut head = [0_u8; 12];
        match self.file.read_exact(&mut head) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let (key, length) = head.split_at(8);
        let mut buffer = [0_u8; 8];
        buffer.copy_from_slice(key);
        let mut length_bytes = [0_u8; 4];
        length_bytes.copy_from_slice(length);
        self.line.resize(u32::from_le_bytes(length_bytes) as usize, 0);
        self.file.read_exact(&mut self.line)?;
        Ok(Some(i64::from_le_bytes(buffer)))
    }
}

fn write_entry(file: &mut impl Write, key: i64, line: &[u8]) -> std::io::Result<()> {
    file.write_all(&key.to_le_bytes())?;
    file.write_all(&(line.len() as u32).to_le_bytes())?;
    file.write_all(line)
}

fn create(path: &Path) -> Result<BufWriter<File>, Error> {
    Ok(BufWriter::with_capacity(BUFFER_BYTES, File::create(path).map_err(Error::writing(path))?))
}

/// Writes one JSON document, indented.
pub(crate) fn write_document(path: &Path, document: &impl Serialize) -> Result<(), Error> {
    let mut file = create(path)?;
    serde_json::to_writer_pretty(&mut file, document).map_err(std::io::Error::from).map_err(Error::writing(path))?;
    file.write_all(b"\n").and_then(|()| file.flush()).map_err(Error::writing(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More runs than are merged at once, with equal keys across runs.
    #[test]
    fn sorting_over_many_runs_equals_a_stable_sort() {
        let folder = tempfile::tempdir().unwrap();
        let mut sorted = Sorted::new(folder.path(), "numbers", 30);
        let rows: Vec<(i64, i64)> = (0..3_000).map(|index: i64| (index * 7919 % 101, index)).collect();
        for row in &rows {
            sorted.push(row.0, row).unwrap();
        }
        assert!(sorted.runs.len() > 2 * FAN_IN);
        let path = folder.path().join("numbers.ndjson");
        assert_eq!(sorted.finish(&path).unwrap(), 3_000);
        let mut expected = rows;
        expected.sort_by_key(|row| row.0);
        let text = std::fs::read_to_string(&path).unwrap();
        let got: Vec<(i64, i64)> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(got, expected);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "runs are removed");
    }
}
