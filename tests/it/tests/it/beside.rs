//! Commands beside a running server: they find its tenant without its settings, never leave a second key, and reading waits for nobody.

use std::fs;
use std::process::{Command, Output};

use heyuan_harness::{Tenant, TenantOptions, TestDatabase, for_both_databases, heyuan_binary, python_tool};

const ZONE: &str = "HEYUAN_TENANT__TIME_ZONE";
const KEY_FILE: &str = "HEYUAN_TENANT__KEY_FILE";

/// What only reads.
const READING: &[&str] = &[
    "keys list",
    "ledger verify",
    "ledger trial-balance --period 2026-11",
    "ledger statement --account centre/settlement --period 2026-11",
    "ledger export",
    "audit verify",
    "heads export",
];

/// Holds SQLite's one place for writing while it runs commands; fails with what the first of them complained of.
const HOLDING: &str = r#"
import sqlite3, subprocess, sys
data, heyuan, *commands = sys.argv[1:]
writer = sqlite3.connect(data + "/heyuan.db", isolation_level=None, timeout=60)
writer.execute("BEGIN IMMEDIATE")
for command in commands:
    done = subprocess.run([heyuan, *command.split(), "--data", data], capture_output=True, text=True)
    if done.returncode:
        sys.exit(command + ": " + done.stderr)
writer.execute("ROLLBACK")
"#;

fn with(name: &str, value: &str) -> TenantOptions {
    TenantOptions { environment: vec![(name.into(), value.into())], ..TenantOptions::default() }
}

fn complaint(output: &Output) -> String {
    assert!(!output.status.success(), "it was done: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const CREATE: &[&str] = &["keys", "create", "--scopes", "admin"];

#[tokio::test]
async fn the_time_zone_is_named_once_and_never_changed() {
    for_both_databases(async |database| {
        let tenant = Tenant::start_with(&database, with(ZONE, "America/Sao_Paulo")).await;
        let unnamed = tenant.command(CREATE).env_remove(ZONE).output().expect("heyuan runs");
        assert!(unnamed.status.success(), "{}", String::from_utf8_lossy(&unnamed.stderr));
        let key = String::from_utf8(unnamed.stdout).expect("a key is text");
        tenant.caller_with(key.trim()).get("/v1/me").await.expect_status(200);
        let other = tenant.command(CREATE).env(ZONE, "Asia/Shanghai").output().expect("heyuan runs");
        assert!(complaint(&other).contains("America/Sao_Paulo"), "{}", complaint(&other));
    })
    .await;
}

#[tokio::test]
async fn a_tenant_whose_key_lies_elsewhere_gets_no_second_one() {
    for_both_databases(async |database| {
        let elsewhere = TestDatabase::sqlite();
        let key = elsewhere.data_dir().join("key");
        fs::write(&key, "5a".repeat(32)).expect("the folder is writable");
        let key = key.to_str().expect("a path is text");
        let tenant = Tenant::start_with(&database, with(KEY_FILE, key)).await;
        let beside = database.data_dir().join("tenant.key");
        for arguments in [CREATE, &["keys", "list"], &["heads", "export"]] {
            let output = tenant.command(arguments).env_remove(KEY_FILE).output().expect("heyuan runs");
            assert!(complaint(&output).contains("tenant.key_file"), "{}", complaint(&output));
            assert!(!beside.exists(), "{arguments:?} made a key that opens nothing");
        }
        tenant.caller("admin").get("/v1/me").await.expect_status(200);
    })
    .await;
}

#[tokio::test]
async fn reading_takes_no_lock_of_a_busy_writer() {
    let database = TestDatabase::sqlite();
    let tenant = Tenant::start(&database).await;
    tenant.caller("admin");
    let (data, heyuan) = (database.data_dir().to_str().expect("a path is text"), heyuan_binary());
    let mut arguments = vec!["-c", HOLDING, data, heyuan.to_str().expect("a path is text")];
    arguments.extend(READING);
    let (done, output) = python_tool("python", &arguments).await;
    assert!(done, "{output}");
}

#[tokio::test]
async fn reading_makes_no_tenant_where_there_is_none() {
    let nothing = TestDatabase::sqlite();
    for command in READING {
        let output =
            Command::new(heyuan_binary()).args(command.split(' ')).arg("--data").arg(nothing.data_dir()).output().expect("heyuan runs");
        assert!(complaint(&output).contains("there is no tenant"), "{command}: {}", complaint(&output));
        let left: Vec<_> = fs::read_dir(nothing.data_dir()).expect("the folder is there").collect();
        assert!(left.is_empty(), "{command} left {left:?}");
    }
}
