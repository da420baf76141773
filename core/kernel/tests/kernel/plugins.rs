//! What a plugin reads is approved value by value, before it is active and for as long as it is.

use crate::tenant::open;
use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_contract::OrgUnitId;
use heyuan_harness::{TestDatabase, for_both_databases};
use heyuan_kernel::plugin::{Installed, PluginKind, Plugins, Runtime};
use heyuan_kernel::secret::sha256_hex;
use heyuan_kernel::{Actor, Database, Location, Problem, Reach, Scope, sql};
use sea_orm_migration::MigratorTrait;
use serde_json::json;
use std::sync::Arc;

/// Takes what a test writes as a module, features parted by commas, as a rule that reads them and the member.
struct Reading;

impl Runtime for Reading {
    fn install(&self, module: Vec<u8>) -> BoxFuture<'_, Result<Installed, Problem>> {
        let digest = sha256_hex(&module);
        let features = String::from_utf8(module).expect("tests write text");
        let reads: Vec<_> = features.split(',').map(|name| json!({ "name": name, "kind": "integer" })).collect();
        let description = json!({ "kind": "benefit_rule", "reads": reads, "parts": ["member"] });
        async move { Ok(Installed { digest, kind: PluginKind::BenefitRule, description }) }.boxed()
    }
}

fn admin() -> Actor {
    Actor::key("key_admin".into(), vec![Scope::Admin], None, Reach::Everything)
}

async fn register(database: &TestDatabase) -> (Plugins, Database) {
    let kernel = open(database).await;
    (Plugins::new(kernel.db.clone(), Arc::new(Reading)), kernel.db)
}

async fn upload(plugins: &Plugins, reads: &str) -> String {
    plugins.upload(&admin(), "bonus", reads.as_bytes().to_vec()).await.expect("it is taken").digest
}

async fn activate(plugins: &Plugins, digest: &str, approve: &[&str]) -> Result<Vec<String>, Problem> {
    let approve: Vec<String> = approve.iter().map(|value| (*value).to_owned()).collect();
    plugins.activate(&admin(), "bonus", digest, 100, &approve).await.map(|version| version.approved)
}

async fn approve(plugins: &Plugins, values: &[&str]) -> Result<Vec<String>, Problem> {
    let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
    plugins.approve(&admin(), "bonus", &values).await.map(|approval| approval.approved)
}

fn refused(answer: Result<Vec<String>, Problem>, code: &str, words: &[&str]) {
    let problem = answer.expect_err("it is refused");
    assert_eq!(problem.code().code, code, "{problem}");
    for words in words {
        assert!(problem.detail().contains(words), "{problem}");
    }
}

#[tokio::test]
async fn a_version_is_activated_once_all_that_it_reads_is_approved() {
    for_both_databases(async |database| {
        let (plugins, db) = register(&database).await;
        let first = upload(&plugins, "visits").await;
        let listed = plugins.list(&admin(), None, 10).await.expect("they are listed");
        assert_eq!((&listed[0].reads[..], &listed[0].approved[..]), (&["visits".to_owned(), "input.member".to_owned()][..], &[][..]));

        refused(activate(&plugins, &first, &[]).await, "approval_needed", &[r#"["visits","input.member"]"#, "/v1/plugins/bonus/approval"]);
        refused(activate(&plugins, &first, &["visits"]).await, "approval_needed", &[r#"["input.member"]"#]);
        assert_eq!(plugins.approval(&admin(), "bonus").await.expect("it is read").approved, [""; 0], "a refusal approves nothing");
        refused(activate(&plugins, &first, &["visitz"]).await, "invalid_request", &["does not read visitz"]);
        assert!(plugins.active(PluginKind::BenefitRule).await.expect("it is read").is_empty());

        assert_eq!(activate(&plugins, &first, &["visits", "input.member"]).await.expect("it counts"), ["visits", "input.member"]);
        assert_eq!(plugins.unapproved("bonus", &first).await.expect("it is known"), [""; 0]);

        // A version that reads more needs what is new, and only that; going back needs nothing.
        let second = upload(&plugins, "visits,income").await;
        refused(activate(&plugins, &second, &[]).await, "approval_needed", &[r#"["income"]"#]);
        activate(&plugins, &second, &["income"]).await.expect("it counts");
        activate(&plugins, &first, &[]).await.expect("it is rolled back");
        let text = "SELECT COUNT(*) AS n FROM kernel_audit WHERE action = 'approve plugin reads'";
        let row = sql::one(db.reader(), text, []).await.expect("it is counted").expect("a row");
        assert_eq!(sql::get::<i64>(&row, "n").expect("a number"), 2, "what changed is audited, and nothing else");
    })
    .await;
}

#[tokio::test]
async fn a_list_is_replaced_as_a_whole_and_never_below_what_is_active() {
    for_both_databases(async |database| {
        let (plugins, db) = register(&database).await;
        // Before there is any version, as a repository of definitions applies it.
        for _ in 0..2 {
            assert_eq!(approve(&plugins, &["visits", "input.member", "visits"]).await.expect("it is kept"), ["input.member", "visits"]);
        }
        let row = sql::one(db.reader(), "SELECT COUNT(*) AS n FROM kernel_audit", []).await.expect("it is counted").expect("a row");
        assert_eq!(sql::get::<i64>(&row, "n").expect("a number"), 1, "the same list again changes nothing");
        let digest = upload(&plugins, "visits").await;
        activate(&plugins, &digest, &[]).await.expect("it counts");

        refused(approve(&plugins, &["visits"]).await, "conflict", &[r#"["input.member"]"#, "/v1/plugins/bonus/retire"]);
        approve(&plugins, &["visits", "input.member", "income"]).await.expect("more is no harm");
        plugins.retire(&admin(), "bonus").await.expect("it is retired");
        assert_eq!(approve(&plugins, &[]).await.expect("nothing is active"), [""; 0]);
        assert_eq!(plugins.unapproved("bonus", &digest).await.expect("it is known"), ["visits", "input.member"]);
        refused(activate(&plugins, &digest, &[]).await, "approval_needed", &["visits"]);

        refused(approve(&plugins, &[""]).await, "invalid_request", &["1 to 256 bytes"]);
        refused(approve(&plugins, &vec!["x"; 513]).await, "invalid_request", &["at most 512"]);
        let unit = OrgUnitId::new("mall").expect("an id");
        let of_unit = Actor::key("key_mall".into(), vec![Scope::Admin], Some(unit.clone()), Reach::Units(Arc::new([unit].into())));
        let answer = plugins.approve(&of_unit, "bonus", &[]).await.map(|approval| approval.approved);
        refused(answer, "forbidden", &["whole group"]);
    })
    .await;
}

#[tokio::test]
async fn what_is_taken_away_below_the_register_is_seen_at_the_call() {
    for_both_databases(async |database| {
        let (plugins, db) = register(&database).await;
        let digest = upload(&plugins, "visits").await;
        activate(&plugins, &digest, &["visits", "input.member"]).await.expect("it counts");
        sql::execute(db.reader(), "UPDATE kernel_plugin_approval SET approved = '[\"visits\"]'", []).await.expect("it is changed");
        let active = plugins.active(PluginKind::BenefitRule).await.expect("it is read");
        assert_eq!(active[0].unapproved, ["input.member"]);
        assert_eq!(plugins.unapproved("bonus", &digest).await.expect("it is known"), ["input.member"]);
    })
    .await;
}

#[tokio::test]
async fn what_was_active_before_there_was_approval_stays_approved() {
    for_both_databases(async |database| {
        let db = Database::open(&Location::new(database.data_dir(), database.database_url())).await.expect("the database opens");
        let before = heyuan_kernel::migration::Migrator::migrations()
            .iter()
            .position(|migration| migration.name() == "m20261125_000003_plugin_approval")
            .expect("it is registered");
        let steps = Some(u32::try_from(before).expect("a small number"));
        heyuan_kernel::migration::Migrator::up(db.reader(), steps).await.expect("the older tables are made");
        let tagger = r#"{"kind":"tagger","reads":[{"name":"last(v.type)","kind":"text"},{"name":"visits","kind":"number"}]}"#;
        let rule = r#"{"kind":"benefit_rule","reads":[{"name":"points","kind":"integer"}],"parts":["member","order_lines"]}"#;
        for (name, digest, state, description) in [
            ("tags", "aa", "active", tagger),
            ("rule", "bb", "active", rule),
            ("rule", "cc", "retired", r#"{"reads":[{"name":"income"}]}"#),
            ("idle", "dd", "checked", tagger),
            ("blind", "ee", "active", r#"{"kind":"tagger","reads":[]}"#),
        ] {
            let text = "INSERT INTO kernel_plugin_version (name, digest, kind, state, description, uploaded_at, uploaded_by)
                        VALUES ($1, $2, 'tagger', $3, $4, 0, 'key_old')";
            sql::execute(db.reader(), text, [name.into(), digest.into(), state.into(), description.into()]).await.expect("a version");
            if state == "active" {
                let text = "INSERT INTO kernel_plugin_pointer (name, kind, digest, priority, generation, activated_at) VALUES ($1, 'tagger', $2, 1, 1, 7)";
                sql::execute(db.reader(), text, [name.into(), digest.into()]).await.expect("a pointer");
            }
        }
        heyuan_kernel::migration::Migrator::up(db.reader(), None).await.expect("the newer tables are made");
        let plugins = Plugins::new(db, Arc::new(Reading));
        for (name, approved) in [
            ("tags", vec!["last(v.type)", "visits"]),
            ("rule", vec!["input.member", "input.order_lines", "points"]),
            ("idle", vec![]),
            ("blind", vec![]),
        ] {
            assert_eq!(plugins.approval(&admin(), name).await.expect("it is read").approved, approved, "{name}");
        }
        assert!(plugins.active(PluginKind::Tagger).await.expect("they are read").iter().all(|active| active.unapproved.is_empty()));
    })
    .await;
}
