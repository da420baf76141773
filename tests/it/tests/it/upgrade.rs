//! An embedded tenant's upgrade: the file is copied before the steps, put back where one fails, and the copy goes when it is told to.

use std::fs;
use std::process::Output;

use heyuan_harness::{Tenant, TestDatabase, heyuan_binary};
use serde_json::{Value, json};

use crate::operator::{KEY, options};

/// The last two steps of the kernel's room undone as far as their names go: the first can be made again, the second can't.
const LACKS_TWO: &str = "
    ALTER TABLE kernel_session DROP COLUMN scopes;
    DELETE FROM kernel_migration WHERE version IN ('m20261129_000005_staff_sessions', 'm20261129_000006_plugin_wishes')";
/// What keeps the second from being made.
const IN_THE_WAY: &str = "DROP TABLE kernel_plugin_wish";
const STEPS_MADE: &str = "SELECT count(*) FROM kernel_migration";

fn copies(database: &TestDatabase) -> Vec<String> {
    let entries = fs::read_dir(database.data_dir()).expect("the folder is there");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut copies: Vec<String> = names.filter(|name| name.starts_with("heyuan.db.")).collect();
    copies.sort();
    copies
}

fn migrate(database: &TestDatabase, arguments: &[&str]) -> (Output, Value) {
    let mut command = std::process::Command::new(heyuan_binary());
    command.arg("migrate").args(arguments).arg("--data").arg(database.data_dir());
    command.args(database.database_url().iter().flat_map(|url| ["--database-url", *url]));
    let output = command.output().expect("heyuan runs");
    let said = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output, said)
}

#[tokio::test]
async fn a_step_that_fails_leaves_the_file_as_it_was() {
    let database = TestDatabase::sqlite();
    let mut tenant = Tenant::start_with(&database, options(database.data_dir())).await;
    let (refused, _) = migrate(&database, &["--keep-copy", "0.2.0"]);
    let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && complaint.contains("another heyuan serve"), "{complaint}");
    tenant.stop().await;
    for statement in LACKS_TWO.split(';') {
        database.execute(statement).await;
    }
    let before = database.count(STEPS_MADE).await;

    let report = database.data_dir().join("report.json");
    let (failed, said) = migrate(&database, &["--keep-copy", "0.2.0", "--report", report.to_str().expect("text")]);
    assert!(!failed.status.success(), "{said}");
    assert_eq!(
        (&said["made"][0]["name"], &said["failed"]["name"]),
        (&json!("m20261129_000005_staff_sessions"), &json!("m20261129_000006_plugin_wishes")),
        "{said}"
    );
    let why = said["why"].as_str().expect("a reason");
    assert!(why.contains("already exists") && why.ends_with("the database was put back as it was before"), "{why}");
    let reported: Value = serde_json::from_slice(&fs::read(&report).expect("a report")).expect("JSON");
    assert_eq!(reported["why"], said["why"]);
    assert_eq!(copies(&database), Vec::<String>::new(), "the copy has become the file");
    assert_eq!(database.count(STEPS_MADE).await, before, "and the step that had been made is not in it");
    assert_eq!(database.count("SELECT count(*) FROM pragma_table_info('kernel_session') WHERE name = 'scopes'").await, 0);

    database.execute(IN_THE_WAY).await;
    fs::write(database.data_dir().join("heyuan.db.before-0.0.9"), "of an upgrade before").expect("the folder is writable");
    let (done, said) = migrate(&database, &["--keep-copy", "0.2.0", "--report", report.to_str().expect("text")]);
    assert!(done.status.success(), "{said}");
    let plan: Value = serde_json::from_slice(&fs::read(&report).expect("a report")).expect("JSON");
    assert_eq!((&plan["verdict"], &plan["may_serve"]), (&json!("current"), &json!(true)), "{plan}");
    assert_eq!(database.count(STEPS_MADE).await, before + 2);
    assert_eq!(copies(&database), ["heyuan.db.before-0.2.0"], "one copy, whatever was there");
    // Nothing is missing now, so that nothing is copied.
    let (done, _) = migrate(&database, &["--keep-copy", "0.3.0"]);
    assert!(done.status.success());
    assert_eq!(copies(&database), ["heyuan.db.before-0.2.0"]);

    // The release is let in, and when it is known to be good the copy goes.
    let tenant = Tenant::start_with(&database, options(database.data_dir())).await;
    assert_eq!(copies(&database), ["heyuan.db.before-0.2.0"]);
    let operator = tenant.operator(Some(KEY));
    let removed = async || operator.delete("/v1/operator/database-copy").await.expect(200);
    assert_eq!(removed().await, json!({ "removed": ["heyuan.db.before-0.2.0"] }));
    assert_eq!(removed().await, json!({ "removed": [] }));
    assert_eq!(copies(&database), Vec::<String>::new());
}

#[tokio::test]
async fn a_copy_is_named_by_a_release_and_made_of_an_embedded_database_alone() {
    let database = TestDatabase::sqlite();
    for release in ["../other", "", "a b"] {
        let (refused, _) = migrate(&database, &["--keep-copy", release]);
        let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && complaint.contains("a release is letters"), "{release}: {complaint}");
    }
    let (done, said) = migrate(&database, &["--keep-copy", "0.2.0"]);
    assert!(done.status.success(), "{said}");
    assert_eq!(copies(&database), Vec::<String>::new(), "there was nothing to copy");
    let database = TestDatabase::postgres().await;
    let (refused, _) = migrate(&database, &["--keep-copy", "0.2.0"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--keep-copy is for the embedded database"), "{refused:?}");
}
