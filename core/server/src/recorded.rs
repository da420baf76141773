//! Recorded decisions are decided again, for ever: each case of `tests/decisions` is told to today's code, which must come to the recorded bytes.
//!
//! A case is a short history in words and, once it is recorded, everything that was decided in it. What is recorded is listed with its digest
//! and never recorded again, so that a decision of today can be explained and run again by every later release.

mod case;
mod ground;

use case::{Case, Decided, Told};
use ground::Ground;
use heyuan_harness::{TestDatabase, for_both_databases, workspace_root};
use heyuan_kernel::secret::sha256_hex;
use heyuan_membership::BenefitRules;
use heyuan_plugin_host::Host;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Set by `scripts/record-decisions.sh`: cases that nobody has recorded yet are recorded.
const RECORDING: &str = "HEYUAN_RECORD_DECISIONS";

fn corpus() -> PathBuf {
    workspace_root().join("core/server/tests/decisions")
}

/// The files of a folder of the corpus, by their path below it.
fn files(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(corpus().join(folder)).expect("the corpus is there").flatten();
    entries.map(|entry| format!("{folder}/{}", entry.file_name().to_string_lossy())).collect()
}

/// The digest of every recorded file, by its path below the corpus.
fn locked() -> BTreeMap<String, String> {
    let list = fs::read_to_string(corpus().join("recorded.lock")).expect("the list of digests is there");
    list.lines().filter_map(|line| line.split_once("  ")).map(|(digest, path)| (path.to_owned(), digest.to_owned())).collect()
}

fn read(path: &Path) -> Case {
    let text = fs::read_to_string(path).expect("a case is readable");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn write(path: &Path, case: &Case) {
    let mut text = serde_json::to_string_pretty(case).expect("a case has a JSON form");
    text.push('\n');
    fs::write(path, text).expect("the case is writable");
}

/// Tells a case to a fresh tenant.
async fn told_again(case: &Case, host: &Host, database: &TestDatabase) -> Vec<Told> {
    let ground = Ground::open(database, host, case).await;
    let mut told = Vec::new();
    for step in &case.steps {
        told.extend(ground.take(step).await);
    }
    for decision in ground.decisions().await {
        let again = ground.membership.rerun(&ground.admin, &decision).await.expect("it is run again");
        assert!(again.same, "{}: {again:?}", case.about);
    }
    let book = ground.ledger.verify().await.expect("the book can be read");
    assert!(book.is_sound(), "{}: {:?}", case.about, book.findings);
    told
}

/// Runs the components on the very bytes of the file, whatever today's code would show them.
async fn run_again(decided: &Decided, ground: &Ground, about: &str) {
    for call in &decided.calls {
        let input = hex::decode(&call.input).expect("an input is hex");
        let answer = ground.hooks.decide(&call.digest, &input).await.unwrap_or_else(|error| panic!("{about}: {error:?}"));
        assert_eq!((hex::encode(&answer.output), &answer.effects), (call.output.clone(), &call.effects_raw), "{about}: rule {}", call.rule);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_decisions_are_decided_alike_for_ever() {
    let recording = std::env::var_os(RECORDING).is_some();
    let compiled = tempfile::tempdir().expect("a temporary folder");
    let host = ground::host(compiled.path());
    let locked = locked();
    let recorded_now = files("cases").into_iter().filter(|name| recording && !locked.contains_key(name));
    for name in recorded_now {
        let (path, database) = (corpus().join(name), TestDatabase::sqlite());
        let case = read(&path);
        let recorded = told_again(&case, &host, &database).await;
        write(&path, &Case { recorded, ..case });
    }
    for_both_databases(async |database| {
        for name in files("cases") {
            let case = read(&corpus().join(&name));
            // A tenant of its own for each, on the same kind of database.
            let fresh = if database.is_postgres() { TestDatabase::postgres().await } else { TestDatabase::sqlite() };
            let told = told_again(&case, &host, &fresh).await;
            assert_eq!(told.len(), case.recorded.len(), "{name}: as many transactions as were recorded");
            for (now, then) in told.iter().zip(&case.recorded) {
                assert_eq!(now, then, "{name}: left: today, right: as it was recorded");
            }
        }
        let ground = Ground::open(&database, &host, &Case::default()).await;
        ground.install_all().await;
        for name in files("cases") {
            for told in read(&corpus().join(&name)).recorded {
                if let Some(decided) = &told.decided {
                    run_again(decided, &ground, &format!("{name}: {}", told.transaction)).await;
                }
            }
        }
    })
    .await;
}

/// What somebody changes in the database, and whether it is a rule's part in which running it again shows it.
const ALTERED: [(&str, bool); 5] = [
    ("UPDATE membership_decision_call SET output = input", true),
    ("UPDATE membership_decision_call SET effects = effects_raw", true),
    ("UPDATE membership_decision_call SET effects_raw = effects", true),
    ("UPDATE membership_decision_call SET budget_spent = 0", true),
    ("UPDATE membership_transaction SET base_points = base_points + 1", false),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_was_altered_shows_when_it_is_run_again() {
    let compiled = tempfile::tempdir().expect("a temporary folder");
    let host = ground::host(compiled.path());
    let case = read(&corpus().join("cases/budgets-run-out.json"));
    for (altered, in_a_rule) in ALTERED {
        for_both_databases(async |database| {
            let ground = Ground::open(&database, &host, &case).await;
            for step in &case.steps {
                ground.take(step).await;
            }
            ground.alter(altered).await;
            let mut differing = Vec::new();
            for decision in ground.decisions().await {
                let again = ground.membership.rerun(&ground.admin, &decision).await.expect("it is run again");
                differing.extend((!again.same).then_some(again));
            }
            assert!(!differing.is_empty(), "{altered} is not seen");
            for again in &differing {
                assert_eq!(again.calls.iter().any(|call| !call.same), in_a_rule, "{altered}: {again:?}");
            }
        })
        .await;
    }
}

#[test]
fn what_is_recorded_is_never_recorded_again() {
    let locked = locked();
    let present: BTreeSet<String> = files("cases").into_iter().chain(files("components")).collect();
    let mut wrong = Vec::new();
    for (name, digest) in &locked {
        match fs::read(corpus().join(name)) {
            Err(_) => wrong.push(format!("{name} has vanished")),
            Ok(bytes) if sha256_hex(&bytes) != *digest => wrong.push(format!("{name} was changed: record another case instead")),
            Ok(_) => {}
        }
    }
    for name in present.iter().filter(|name| !locked.contains_key(*name)) {
        wrong.push(format!("{name} is new: run scripts/record-decisions.sh"));
    }
    for name in files("components").iter().filter(|name| name.ends_with(".wasm")) {
        let digest = sha256_hex(&fs::read(corpus().join(name)).expect("a component is readable"));
        let named = name.trim_end_matches(".wasm").rsplit_once('-').is_some_and(|(_, start)| digest.starts_with(start));
        let source = name.replace(".wasm", ".rs");
        if !named || !present.contains(&source) {
            wrong.push(format!("{name} is named by its plugin and digest, beside its source"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
