//! Credentials of the database that change under load: no request fails, and nothing of the login before stays.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use heyuan_harness::{Answer, Caller, Tenant, TenantOptions, TestDatabase, until};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::crash::batch;
use crate::history::holds_once;
use crate::operator::{KEY, options};

/// Generous: other tests run beside these.
const PATIENCE: Duration = Duration::from_secs(60);
/// Callers at work while the login changes.
const CALLERS: usize = 6;
/// Answers that come between two changes.
const ANSWERS_MIN: usize = 60;
/// How often the login changes.
const CHANGES: usize = 4;

/// A tenant's database with an owner that nobody logs in as, and two roles that begin as the owner.
struct Roles {
    database: TestDatabase,
    name: String,
    folder: PathBuf,
    version: usize,
}

impl Roles {
    async fn new() -> Roles {
        let database = TestDatabase::postgres().await;
        let name = database.database_url().and_then(|url| url.rsplit('/').next()).expect("a database has a name").to_owned();
        let owner = format!("{name}_owner");
        database
            .execute(&format!("CREATE ROLE {owner} NOLOGIN; ALTER DATABASE {name} OWNER TO {owner}; ALTER SCHEMA public OWNER TO {owner}"))
            .await;
        for role in ["a", "b"] {
            let role = format!("{name}_{role}");
            database.execute(&format!("CREATE ROLE {role} LOGIN IN ROLE {owner}; ALTER ROLE {role} SET role = {owner}")).await;
        }
        let folder = database.data_dir().join("credentials");
        fs::create_dir(&folder).expect("the data folder is writable");
        Roles { database, name, folder, version: 0 }
    }

    fn role(&self, letter: &str) -> String {
        format!("{}_{letter}", self.name)
    }

    fn url(&self, role: &str, database: &str) -> String {
        let url = self.database.database_url().expect("it is on PostgreSQL");
        let (_, address) = url.split_once('@').expect("a URL names who logs in");
        let (server, _) = address.rsplit_once('/').expect("a URL names a database");
        format!("postgres://{role}@{server}/{database}")
    }

    fn file(&self) -> PathBuf {
        self.folder.join("url")
    }

    /// Puts content in place as a mounted secret changes: a new folder, and a link that is swapped in one step.
    fn put(&mut self, url: &str) -> String {
        self.version += 1;
        let content = format!("{url}\n");
        let version = self.folder.join(format!("..{}", self.version));
        fs::create_dir(&version).and_then(|()| fs::write(version.join("url"), &content)).expect("the folder is writable");
        let swapped = self.folder.join("..new");
        symlink(version.file_name().expect("it has a name"), &swapped).expect("a link can be made");
        fs::rename(&swapped, self.folder.join("..data")).expect("a link can be swapped");
        if !self.file().exists() {
            symlink(Path::new("..data/url"), self.file()).expect("a link can be made");
        }
        hex::encode(Sha256::digest(content))[..16].to_owned()
    }

    async fn start(&mut self, settings: &[(&str, &str)]) -> Tenant {
        let url = self.url(&self.role("a"), &self.name.clone());
        self.put(&url);
        let TenantOptions { mut environment, .. } = options(self.database.data_dir());
        environment.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Tenant::start_with(&self.database.named_in(self.file()), TenantOptions { environment, ..TenantOptions::default() }).await
    }

    /// Connections of a role as the server counts them.
    async fn connections(&self, role: &str) -> i64 {
        self.database.count(&format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}'")).await
    }

    /// Until the tenant says that only this content is in use, and the server that nobody is logged in as the other role.
    async fn settled(&self, tenant: &Tenant, generation: &str, other: &str) {
        let operator = tenant.operator(Some(KEY));
        until("the new credentials are in use alone", PATIENCE, || async {
            let database = database(&operator).await;
            let uses_it = database["generation"] == generation && database["connections_draining"] == 0;
            (uses_it && self.connections(other).await == 0).then_some(())
        })
        .await;
    }
}

async fn database(operator: &Caller) -> Value {
    operator.get("/v1/operator/status").await.expect(200)["database"].clone()
}

/// Writes and reads until it is told to end; answers the ids that were acknowledged.
async fn work(app: Caller, number: usize, answers: Arc<AtomicUsize>, end: Arc<AtomicBool>) -> Vec<String> {
    let mut kept = Vec::new();
    for round in 0.. {
        if end.load(Ordering::Relaxed) {
            break;
        }
        let (ids, body) = batch(&format!("rotated-{number}-{round}"));
        app.post("/v1/events", &body).await.expect(200);
        kept.extend(ids);
        app.get("/v1/event-types").await.expect(200);
        let unit = json!({ "units": [{ "id": "group", "parent": null, "name": format!("合院 {number} {round}"), "kind": "group", "line": null }] });
        app.put("/v1/org-units", &unit).await.expect_status(204);
        answers.fetch_add(3, Ordering::Relaxed);
    }
    kept
}

#[tokio::test]
async fn a_login_that_changes_under_load_costs_no_request() {
    let mut roles = Roles::new().await;
    let tenant = roles.start(&[]).await;
    let (app, admin) = (tenant.caller("ingest,app,admin"), tenant.caller("admin"));
    let (answers, end) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let workers: Vec<_> = (0..CALLERS).map(|number| tokio::spawn(work(app.clone(), number, answers.clone(), end.clone()))).collect();
    for change in 0..CHANGES {
        let (next, before) = if change % 2 == 0 { ("b", "a") } else { ("a", "b") };
        let url = roles.url(&roles.role(next), &roles.name.clone());
        let generation = roles.put(&url);
        roles.settled(&tenant, &generation, &roles.role(before)).await;
        assert_eq!(database(&tenant.operator(Some(KEY))).await["role"], roles.role(next));
        let told = answers.load(Ordering::Relaxed);
        until("requests go on", PATIENCE, || async { (answers.load(Ordering::Relaxed) >= told + ANSWERS_MIN).then_some(()) }).await;
    }
    end.store(true, Ordering::Relaxed);
    let mut kept = Vec::new();
    for worker in workers {
        // A request that failed has ended its worker.
        kept.extend(worker.await.expect("no request failed"));
    }
    holds_once(&admin, "rotated-", &kept).await;
    // The role before can be taken away now.
    roles.database.execute(&format!("ALTER ROLE {} NOLOGIN", roles.role("b"))).await;
    app.get("/v1/event-types").await.expect(200);
}

#[tokio::test]
async fn credentials_that_lead_nowhere_or_elsewhere_leave_those_before_at_work() {
    let mut roles = Roles::new().await;
    let tenant = roles.start(&[]).await;
    let (app, operator) = (tenant.caller("ingest"), tenant.operator(Some(KEY)));
    let first = database(&operator).await["generation"].clone();
    let other = TestDatabase::postgres().await;
    let elsewhere = other.database_url().and_then(|url| url.rsplit('/').next()).expect("it has a name").to_owned();
    let nobody = format!("nobody_{}:a-secret-word", roles.name);
    let cases = [
        (roles.url(&nobody, &roles.name), "does not open"),
        (roles.url("heyuan", &elsewhere), "can't be read"),
        ("no url".to_owned(), "does not open"),
        (String::new(), "does not open"),
    ];
    for (number, (url, words)) in cases.into_iter().enumerate() {
        roles.put(&url);
        let told = until("the tenant tells what is wrong", PATIENCE, || async {
            let database = database(&operator).await;
            database["credentials_problem"].as_str().is_some_and(|problem| problem.contains(words)).then_some(database)
        })
        .await;
        assert_eq!(told["generation"], first, "{told}");
        app.post("/v1/events", &batch(&format!("wrong-{number}")).1).await.expect(200);
    }
    assert!(!tenant.log().contains("a-secret-word"), "the log names no password");
    // The server learns of a role after the file did: it is tried again without a change of the file.
    let late = roles.role("late");
    let url = roles.url(&late, &roles.name.clone());
    let generation = roles.put(&url);
    until("the role is missed", PATIENCE, || async { tenant.log().contains(&late).then_some(()) }).await;
    roles
        .database
        .execute(&format!("CREATE ROLE {late} LOGIN IN ROLE {0}_owner; ALTER ROLE {late} SET role = {0}_owner", roles.name))
        .await;
    roles.settled(&tenant, &generation, &roles.role("a")).await;
    assert_eq!(database(&operator).await["credentials_problem"], Value::Null);
}

#[tokio::test]
async fn what_goes_on_too_long_under_the_login_before_is_ended() {
    let mut roles = Roles::new().await;
    let tenant = roles.start(&[("HEYUAN_DATABASE__DRAIN_SECONDS_MAX", "1")]).await;
    let admin = tenant.caller("admin");
    let unit = json!({ "units": [{ "id": "group", "parent": null, "name": "合院", "kind": "group", "line": null }] });
    admin.put("/v1/org-units", &unit).await.expect_status(204);
    let lock = roles.database.hold("LOCK TABLE kernel_org_unit IN SHARE MODE").await;
    let waiting = admin.request(Method::PUT, "/v1/org-units").json(&unit);
    let waiting = tokio::spawn(Answer::of(waiting));
    let blocked = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND wait_event_type = 'Lock'", roles.role("a"));
    until("a request waits for the lock", PATIENCE, || async { (roles.database.count(&blocked).await > 0).then_some(()) }).await;
    let url = roles.url(&roles.role("b"), &roles.name.clone());
    let generation = roles.put(&url);
    roles.settled(&tenant, &generation, &roles.role("a")).await;
    assert_eq!(waiting.await.expect("it was answered").problem(503), "unavailable");
    lock.release().await;
    admin.put("/v1/org-units", &unit).await.expect_status(204);
}
