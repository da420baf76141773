//! House style that a machine can hold: openings, sizes, names, promises, paths, and migrations that stay as they shipped.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use heyuan_harness::workspace_root;
use sha2::{Digest, Sha256};

const LINES_MAX: usize = 1000;
const FORBIDDEN_NAMES: &[&str] = &["utils", "util", "helpers", "helper", "common", "manager", "misc"];

/// Folders that hold no source: builds, data of a demo, packages of clients.
const SKIPPED: &[&str] = &[".git", "target", "data", "node_modules", "__pycache__", ".hypothesis"];

/// A lib.rs says what its crate owns and promises; less than this many characters is a name and no promise.
const PROMISE_MIN: usize = 80;

// Written in two pieces, so that this file does not contain what it looks for.
const UNFINISHED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("to", "do!("), concat!("unimple", "mented!(")];
const SWITCHED_OFF: &[&str] = &[concat!("#[ig", "nore"), concat!("#[al", "low("), concat!("#![al", "low(")];
const SLEEP: &str = concat!("sle", "ep(");
const READS_ALL: &[&str] = &[concat!("SELECT ", "*"), concat!("RETURNING ", "*"), concat!(".", "* FROM"), concat!(".", "*, ")];
const MACHINE_FOLDERS: &[&str] = &[concat!("/wo", "rk/"), concat!("/fa", "rm/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
const REGISTRY_HOSTS: &[&str] = &["registry", "index", "static", "proxy", "deb"];

/// A text file of the tree: its path below the root, and its lines.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    fn extension(&self) -> &str {
        self.path.extension().and_then(|extension| extension.to_str()).unwrap_or_default()
    }

    fn is_rust(&self) -> bool {
        self.extension() == "rs"
    }

    fn is_lock(&self) -> bool {
        self.path.to_string_lossy().contains("lock")
    }

    /// The lines that are tests: a file in a `tests` folder, or what follows the first `#[cfg(test)]`.
    fn test_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let whole = self.path.components().any(|part| part.as_os_str() == "tests");
        self.lines().skip_while(move |(_, line)| !whole && !line.contains("#[cfg(test)]"))
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

fn sources() -> Vec<Source> {
    let root = workspace_root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the tree is readable").flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let kind = entry.file_type().expect("an entry has a type");
            if SKIPPED.iter().any(|skipped| name == *skipped) || kind.is_symlink() {
                continue;
            }
            if kind.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                found.push(Source { path: path.strip_prefix(&root).expect("it lies below the root").to_path_buf(), text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.iter().any(Source::is_rust), "the tree has Rust files");
    found
}

/// Collects what is wrong in every source and fails with all of it at once.
fn check(rule: &str, wrong: impl Fn(&Source) -> Vec<String>) {
    let all: Vec<_> = sources()
        .iter()
        .flat_map(|source| wrong(source).into_iter().map(|what| format!("{}: {what}", source.path.display())).collect::<Vec<_>>())
        .collect();
    assert!(all.is_empty(), "{rule}:\n{}", all.join("\n"));
}

fn lines_with(source: &Source, words: &[&str]) -> Vec<String> {
    let hits = source.lines().filter(|(_, line)| words.iter().any(|word| line.contains(word)));
    hits.map(|(number, line)| format!("line {number}: {}", line.trim())).collect()
}

#[test]
fn a_rust_file_opens_with_a_sentence_and_is_not_too_long() {
    check("open with a //! line, stay below 1,000 lines", |source| {
        let mut wrong = Vec::new();
        if source.is_rust() && !source.text.starts_with("//! ") {
            wrong.push("does not open with a //! sentence".to_owned());
        }
        if source.is_rust() && source.text.lines().count() > LINES_MAX {
            wrong.push(format!("{} lines", source.text.lines().count()));
        }
        wrong
    });
}

#[test]
fn nothing_is_switched_off_or_unfinished() {
    check("use #[expect] with a reason, finish what is there", |source| {
        let words: Vec<_> = if source.is_rust() { UNFINISHED.iter().chain(SWITCHED_OFF).copied().collect() } else { UNFINISHED.to_vec() };
        if source.is_lock() { Vec::new() } else { lines_with(source, &words) }
    });
}

#[test]
fn tests_wait_for_conditions() {
    check("no sleeps in tests", |source| {
        let sleeps = source.test_lines().filter(|(_, line)| source.is_rust() && line.contains(SLEEP));
        sleeps.map(|(number, line)| format!("line {number}: {}", line.trim())).collect()
    });
}

#[test]
fn a_statement_names_what_it_reads() {
    check("the release before serves on tables with more columns: PostgreSQL then refuses prepared statements that read all", |source| {
        let is_served =
            source.is_rust() && source.path.starts_with("core") && !source.path.components().any(|part| part.as_os_str() == "tests");
        if is_served { lines_with(source, READS_ALL) } else { Vec::new() }
    });
}

#[test]
fn names_say_something() {
    check("no drawer for everything", |source| {
        let names = source.path.components().filter_map(|part| Path::new(part.as_os_str()).file_stem()?.to_str());
        names.filter(|name| FORBIDDEN_NAMES.contains(name)).map(|name| format!("is called {name}")).collect()
    });
}

#[test]
fn a_crate_promises_something() {
    check("open lib.rs with the paragraph of what it owns and promises", |source| {
        if !source.path.ends_with("src/lib.rs") || source.path.starts_with("plugins/examples") {
            return Vec::new();
        }
        let promise: usize = source.text.lines().map_while(|line| line.strip_prefix("//!")).map(|line| line.trim().len()).sum();
        if promise < PROMISE_MIN { vec![format!("{promise} characters of promise")] } else { Vec::new() }
    });
}

#[test]
fn handlers_and_entities_stay_inside_their_room() {
    check("http.rs and entity/ are private", |source| {
        let a_room = source.path.starts_with("core") && source.path.ends_with("src/lib.rs") && !source.path.starts_with("core/kernel");
        if a_room { lines_with(source, &["pub mod http", "pub mod entity", "pub use entity", "pub use http::*"]) } else { Vec::new() }
    });
}

#[test]
fn the_tree_knows_no_machine_and_no_registry() {
    let of_a_machine =
        |line: &str| MACHINE_FOLDERS.iter().any(|folder| line.match_indices(folder).any(|(at, _)| starts_a_path(&line[..at])));
    let of_a_registry = |line: &str| {
        let hosts = line.split("https://").chain(line.split("http://")).skip(1);
        hosts.into_iter().any(|rest| rest.split_once('.').is_some_and(|(first, _)| REGISTRY_HOSTS.contains(&first)))
    };
    check("no path of a machine, no host of a registry", |source| {
        let wrong = source.lines().filter(|(_, line)| of_a_machine(line) || of_a_registry(line));
        wrong.map(|(number, line)| format!("line {number}: {}", line.trim())).collect()
    });
}

/// Whether a slash after `before` begins an absolute path, and is not inside a longer one or a URL.
fn starts_a_path(before: &str) -> bool {
    !before.ends_with(|last: char| last.is_ascii_alphanumeric() || "._-}])$".contains(last))
}

#[test]
fn packages_come_from_the_public_registries() {
    let root = workspace_root();
    let cargo = fs::read_to_string(root.join("Cargo.lock")).expect("Cargo.lock is committed");
    let elsewhere: Vec<_> =
        cargo.lines().filter(|line| line.starts_with("source = ") && !line.contains("rust-lang/crates.io-index")).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    let npm = fs::read_to_string(root.join("tests/clients/node/package-lock.json")).expect("package-lock.json is committed");
    assert!(!npm.contains("\"resolved\""), "package-lock.json names the host that its packages came from");
}

#[test]
fn the_readme_names_doors_that_exist() {
    let root = workspace_root();
    let makefile = fs::read_to_string(root.join("Makefile")).expect("the Makefile is there");
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.extension() == "md") {
        for (number, line) in source.lines() {
            // Only what is written as a command: in a block or between back-ticks.
            let targets = line.split(['`', ';', '&']).map(str::trim).filter_map(|piece| piece.strip_prefix("make "));
            for target in targets.filter_map(|rest| rest.split_whitespace().next()) {
                let is_command = line.trim_start().starts_with("make ") || line.contains(&format!("`make {target}"));
                if is_command && target.chars().all(|letter| letter.is_ascii_lowercase()) && !makefile.contains(&format!("\n{target}:")) {
                    wrong.push(format!("{}: line {number}: make {target}", source.path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "no such door:\n{}", wrong.join("\n"));
}

#[test]
fn a_shipped_migration_is_never_edited() {
    let lock = workspace_root().join("tests/it/migrations.lock");
    let locked: BTreeMap<PathBuf, String> = fs::read_to_string(&lock)
        .expect("tests/it/migrations.lock is committed")
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(digest, path)| (PathBuf::from(path), digest.to_owned()))
        .collect();
    let present: BTreeMap<PathBuf, String> = sources()
        .into_iter()
        .filter(|source| is_migration(&source.path))
        .map(|source| (source.path, hex::encode(Sha256::digest(source.text.as_bytes()))))
        .collect();
    let mut wrong = Vec::new();
    for (path, digest) in &locked {
        match present.get(path) {
            None => wrong.push(format!("{} has vanished", path.display())),
            Some(now) if now != digest => wrong.push(format!("{} was edited: write a new migration instead", path.display())),
            Some(_) => {}
        }
    }
    for path in present.keys().filter(|path| !locked.contains_key(*path)) {
        wrong.push(format!("{} is new: run scripts/lock-migrations.sh when it ships", path.display()));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `migration/m….rs` in any crate.
fn is_migration(path: &Path) -> bool {
    let named = path
        .file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with('m') && name.ends_with(".rs") && name != "mod.rs");
    named && path.parent().is_some_and(|folder| folder.ends_with("migration"))
}
