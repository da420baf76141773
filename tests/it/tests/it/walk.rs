//! The walk through the house: the demo group is loaded through the public API, then the tour tells the story against it.

use std::process::Command;
use std::time::Duration;

use heyuan_harness::{Tenant, TenantOptions, TestDatabase, cache_dir, for_both_databases, heyuan_binary, until};

/// Generous: a small group loads in seconds on an idle machine.
const LOAD_LIMIT: Duration = Duration::from_secs(240);

/// What a release to come may do to every table while this one serves.
const WIDEN: &str = "DO $$
    DECLARE t regclass;
    BEGIN
        FOR t IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace LOOP
            EXECUTE format('ALTER TABLE %s ADD COLUMN of_a_release_to_come TEXT', t);
        END LOOP;
    END $$";

/// Serves the demo group as `make run` does, a smaller one, and waits until it is loaded.
pub(crate) async fn demo_tenant(database: &TestDatabase) -> Tenant {
    let plugins = cache_dir().join("plugins");
    let arguments = ["--plugins".into(), plugins.into_os_string(), "--customers".into(), "300".into(), "--days".into(), "40".into()];
    let options = TenantOptions { command: vec!["demo".into(), "run".into()], arguments: arguments.to_vec(), ..TenantOptions::default() };
    let tenant = Tenant::start_with(database, options).await;
    let loaded = database.data_dir().join("demo/loaded.json");
    until("the demo group is loaded", LOAD_LIMIT, || async { loaded.exists().then_some(()) }).await;
    tenant
}

/// Runs the tour as its reader types it; answers what it printed.
fn tour(tenant: &Tenant, language: &str) -> String {
    let data = tenant.database().data_dir().as_os_str().to_owned();
    let mut command = Command::new(heyuan_binary());
    command.args(["tour", "--url", &tenant.url(), "--lang", language, "--data"]).arg(data);
    let output = command.output().expect("heyuan runs");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "the tour failed: {}\n{told}", String::from_utf8_lossy(&output.stderr));
    told
}

#[tokio::test]
async fn the_tour_tells_the_story_from_the_click_to_the_contract() {
    for_both_databases(async |database| {
        let mut tenant = demo_tenant(&database).await;
        let english = tour(&tenant, "en");
        assert!(english.contains("curl"), "the tour shows its requests:\n{english}");
        if database.is_postgres() {
            database.execute(WIDEN).await;
        }
        let chinese = tour(&tenant, "zh");
        assert!(chinese.contains("积分"), "the tour speaks Chinese:\n{chinese}");
        let book = tenant.heyuan(&["ledger", "verify"]);
        assert!(book.contains("the book is sound"), "{book}");
        // PostgreSQL refuses a prepared statement whose answer would have got another column.
        let log = tenant.log();
        assert!(!log.contains("cached plan") && !log.contains("ERROR"), "{log}");
        // A second start keeps what is there.
        tenant.stop().await;
        tenant.restart().await;
        let book_again = tenant.heyuan(&["ledger", "verify"]);
        assert!(book_again.contains("the book is sound"), "{book_again}");
        tour(&tenant, "en");
    })
    .await;
}
