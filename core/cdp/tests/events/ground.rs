//! What these tests stand on: the wing with its kernel and lake on one database, driven step by step.

use actix_web::http::StatusCode;
use actix_web::test::TestRequest;
use actix_web::{App, web};
use heyuan_cdp::{Cdp, Collect, Knowing};
use heyuan_contract::{Line, OrgUnitId, Timestamp, UnitKind};
use heyuan_harness::TestDatabase;
use heyuan_kernel::keys::Credentials;
use heyuan_kernel::lease::{self, Fence};
use heyuan_kernel::org::OrgUnit;
use heyuan_kernel::processor::{Progress, Task};
use heyuan_kernel::secret::{Key, TenantKeys};
use heyuan_kernel::{Clock, Database, Kernel, Location, Scope, Zone, keys};
use heyuan_lake::{Lake, LakeConfig};
use sea_orm_migration::MigratorTrait;
use serde_json::Value;
use std::sync::Arc;
use utoipa_actix_web::AppExt;

/// 2026-11-22 in Shanghai; own times of the tests lie before it.
pub(crate) const NOW: i64 = 1_795_300_000_000;

/// The wing on a database.
pub(crate) struct Ground {
    pub(crate) kernel: Kernel,
    pub(crate) cdp: Cdp,
    pub(crate) credentials: Credentials,
    pub(crate) fence: Fence,
    pub(crate) lake: Lake,
    tasks: Vec<Arc<dyn Task>>,
}

impl Ground {
    pub(crate) async fn open(database: &TestDatabase) -> Ground {
        Ground::with(database, Collect::default(), Vec::new()).await
    }

    pub(crate) async fn with(database: &TestDatabase, settings: Collect, knowing: Vec<Arc<dyn Knowing>>) -> Ground {
        let db = Database::open(&Location::new(database.data_dir(), database.database_url())).await.expect("the database opens");
        let writer = match database.database_url() {
            Some(url) => sea_orm::Database::connect(url).await,
            None => sea_orm::Database::connect(format!("sqlite://{}/heyuan.db?mode=rwc", database.data_dir().display())).await,
        }
        .expect("the database opens for migrations");
        heyuan_kernel::migration::Migrator::up(&writer, None).await.expect("the kernel's tables");
        heyuan_lake::Migrator::up(&writer, None).await.expect("the lake's tables");
        heyuan_cdp::Migrator::up(&writer, None).await.expect("our tables");
        writer.close().await.expect("migrations are over");
        let keys = TenantKeys::new(&Key::from_bytes([7; 32]));
        let zone = Zone::named("Asia/Shanghai").expect("a zone of the library");
        let kernel = Kernel::open(db, keys.clone(), Clock::standing(Timestamp::clamped(NOW)), zone).await.expect("the kernel opens");
        let cdp = Cdp::open(kernel.clone(), settings, database.data_dir()).await.expect("the wing opens");
        let config = LakeConfig { dir: database.data_dir().join("lake"), ..LakeConfig::default() };
        let lake = Lake::open(kernel.clone(), config).await.expect("the lake opens").with_tail(cdp.tail());
        cdp.use_lake(lake.clone());
        let credentials = Credentials::new(kernel.db.clone(), kernel.org.clone(), keys, kernel.clock.clone());
        let fence = lease::acquire(&kernel.db, "processor", "test").await.expect("the database answers").expect("nobody else is here");
        let tasks = cdp.tasks(knowing);
        Ground { kernel, cdp, credentials, fence, lake, tasks }
    }

    /// The group with two malls.
    pub(crate) async fn units(&self) -> (OrgUnitId, OrgUnitId) {
        let id = |text: &str| OrgUnitId::new(text).expect("a valid id");
        let unit =
            |name: &str, parent: Option<&str>, kind, line| OrgUnit { id: id(name), parent: parent.map(id), name: name.into(), kind, line };
        let list = vec![
            unit("group", None, UnitKind::Group, None),
            unit("mall-1", Some("group"), UnitKind::Mall, Some(Line::Mall)),
            unit("mall-2", Some("group"), UnitKind::Mall, Some(Line::Mall)),
        ];
        self.kernel.org.put(list).await.expect("the units are new");
        (id("mall-1"), id("mall-2"))
    }

    pub(crate) async fn key(&self, scopes: &[Scope], unit: Option<&OrgUnitId>) -> String {
        keys::create(&self.kernel.db, &self.kernel.org, scopes, unit).await.expect("a key")
    }

    /// Runs every task until none finds work.
    pub(crate) async fn settle(&self) {
        let mut busy = true;
        while busy {
            busy = false;
            for task in &self.tasks {
                busy |= task.step(&self.fence).await.expect("a step works") == Progress::Busy;
            }
        }
    }

    /// One step of the pipeline, whatever it answers.
    pub(crate) async fn step(&self) -> Result<Progress, heyuan_kernel::Problem> {
        self.tasks[0].step(&self.fence).await
    }

    pub(crate) async fn call(&self, request: TestRequest) -> (StatusCode, Value) {
        let (status, body, _) = self.call_raw(request).await;
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    pub(crate) async fn call_raw(&self, request: TestRequest) -> (StatusCode, web::Bytes, actix_web::http::header::HeaderMap) {
        let app = App::new()
            .into_utoipa_app()
            .app_data(web::Data::new(self.credentials.clone()))
            .app_data(web::Data::new(self.cdp.clone()))
            .configure(heyuan_cdp::routes)
            .into_app();
        let service = actix_web::test::init_service(app).await;
        let response = actix_web::test::call_service(&service, request.to_request()).await;
        let (status, headers) = (response.status(), response.headers().clone());
        (status, actix_web::test::read_body(response).await, headers)
    }

    pub(crate) async fn post(&self, key: &str, path: &str, body: &Value) -> (StatusCode, Value) {
        let request = TestRequest::post().uri(path).insert_header(("Authorization", format!("Bearer {key}")));
        self.call(request.set_payload(body.to_string())).await
    }

    pub(crate) async fn get(&self, key: &str, path: &str) -> (StatusCode, Value) {
        self.call(TestRequest::get().uri(path).insert_header(("Authorization", format!("Bearer {key}")))).await
    }

    pub(crate) async fn put(&self, key: &str, path: &str, body: &Value) -> (StatusCode, Value) {
        let request = TestRequest::put().uri(path).insert_header(("Authorization", format!("Bearer {key}")));
        self.call(request.set_payload(body.to_string())).await
    }

    /// A number from the database.
    pub(crate) async fn count(&self, text: &str) -> i64 {
        let row = heyuan_kernel::sql::one(self.kernel.db.reader(), text, []).await.expect("the query works").expect("a row");
        heyuan_kernel::sql::get(&row, "n").expect("a column n")
    }
}
