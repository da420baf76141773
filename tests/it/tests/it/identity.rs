//! Who is who on the demo group: a tenant that is told nothing but what apps and tills deliver finds the people behind it.

use std::path::Path;

use heyuan_harness::{Tenant, TestDatabase, Truth, cache_dir, for_both_databases};

use crate::group::{generate, run};

/// Enough people that sales offices, families and relay numbers get in each other's way.
const CUSTOMERS: &str = "1000";
const SEED: &str = "7";
/// Look-ups on the wire at once.
const AT_ONCE: usize = 16;

async fn loaded(database: &TestDatabase, folder: &Path) -> Tenant {
    let tenant = Tenant::start(database).await;
    let mut load = tenant.command(&["demo", "load", "--url", &tenant.url()]);
    load.arg("--from").arg(folder).arg("--plugins").arg(cache_dir().join("plugins"));
    // Apart, so that the client meanwhile sees which of its connections the server closes.
    tokio::task::spawn_blocking(move || run(&mut load)).await.expect("the load ends");
    tenant
}

#[tokio::test]
async fn the_people_of_the_demo_group_are_found() {
    // A folder that no tenant has: it must not find the truth beside its data.
    let apart = TestDatabase::sqlite();
    let folder = apart.data_dir().join("group");
    generate(&folder, &["--customers", CUSTOMERS, "--seed", SEED]);
    let truth = Truth::read(&folder);
    let plain = truth.judge(&truth.union_find());
    eprintln!("{CUSTOMERS} people, seed {SEED}, plain union-find: {plain:?}");
    for_both_databases(async |database| {
        let tenant = loaded(&database, &folder).await;
        let found = truth.judge(&truth.met(&tenant.caller("app"), AT_ONCE).await);
        eprintln!("{CUSTOMERS} people, seed {SEED}, {}: {found:?}", database.name());
        // A tenant that took in half of the group could be right about it.
        assert!(found.identifiers >= plain.identifiers, "the tenant knows fewer identifiers than the events carry: {found:?}");
        assert!(found.precision >= 0.99, "{found:?}");
        assert!(found.recall >= 0.90, "{found:?}");
        assert_eq!(found.beyond_household, 0, "{found:?}");
    })
    .await;
    // The group is no easy one: whoever merges all that was seen together fails on it.
    assert!(plain.precision < 0.5 && plain.beyond_household > 0, "{plain:?}");
}
