//! A group with units, a simulated provider, and one or more processes that let people in.

use heyuan_contract::{Line, OrgUnitId, Timestamp, UnitKind};
use heyuan_harness::TestDatabase;
use heyuan_kernel::config::Secret;
use heyuan_kernel::keys::Credentials;
use heyuan_kernel::org::OrgUnit;
use heyuan_kernel::secret::{Key, TenantKeys};
use heyuan_kernel::{Actor, Clock, Database, Kernel, Location, Problem, Zone, sql};
use heyuan_staff::simulator::{LogOutOf, OidcMisbehaviour, OidcSimulator, TokenFault, serve};
use heyuan_staff::{Begun, Finish, Grant, LoggedIn, StaffLogin, StaffSettings};
use sea_orm_migration::MigratorTrait;
use serde_json::Value;
use std::net::TcpListener;

/// What the clock shows at first, to the provider as well: 2026-11-22T00:00:00Z.
const NOW_MS: i64 = 1_795_305_600_000;
pub(crate) const SECRET: &str = "shared with the provider";

pub(crate) fn unit(id: &str) -> OrgUnitId {
    OrgUnitId::new(id).expect("a valid id")
}

/// One process of the tenant.
pub(crate) struct Process {
    pub(crate) login: StaffLogin,
    pub(crate) credentials: Credentials,
}

pub(crate) struct World {
    pub(crate) kernel: Kernel,
    pub(crate) simulator: OidcSimulator,
    pub(crate) settings: StaffSettings,
    pub(crate) here: Process,
}

fn grant(role: &str, scopes: &[&str], at: Option<&str>) -> Grant {
    Grant { role: role.to_owned(), scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(), unit: at.map(unit) }
}

pub(crate) async fn world(database: &TestDatabase) -> World {
    let db = Database::open(&Location::new(database.data_dir(), database.database_url())).await.expect("the test database opens");
    heyuan_kernel::migration::Migrator::up(db.reader(), None).await.expect("the kernel's tables are made");
    heyuan_staff::Migrator::up(db.reader(), None).await.expect("staff's tables are made");
    let clock = Clock::standing(Timestamp::clamped(NOW_MS));
    let zone = Zone::named("Asia/Shanghai").expect("the zone is known");
    let kernel = Kernel::open(db, TenantKeys::new(&Key::from_bytes([7; 32])), clock, zone).await.expect("the kernel opens");
    let node =
        |own: &str, parent: Option<&str>, kind, line| OrgUnit { id: unit(own), parent: parent.map(unit), name: own.into(), kind, line };
    let units = vec![
        node("group", None, UnitKind::Group, None),
        node("mall-1", Some("group"), UnitKind::Mall, Some(Line::Mall)),
        node("hotel-1", Some("group"), UnitKind::Hotel, Some(Line::Hotel)),
    ];
    kernel.org.put(units).await.expect("the tree is made");
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let issuer = format!("http://{}/oidc", listener.local_addr().expect("an address"));
    let simulator = OidcSimulator::new(Secret::new(SECRET), kernel.clock.clone());
    tokio::spawn(serve(listener, simulator.clone()).expect("the simulator listens"));
    for (person, groups) in [("li", &["admins"][..]), ("wang", &["mall desk", "mall care"]), ("zhao", &["hotel"]), ("sun", &["elsewhere"])]
    {
        simulator.employ(person, groups);
    }
    let settings = StaffSettings {
        issuer: Some(issuer),
        client_id: Some("heyuan & co".into()),
        client_secret: Some(Secret::new(SECRET)),
        redirect_url: Some("https://console.example.com/back?from=provider".into()),
        timeout_ms: 1_000,
        grants: vec![
            grant("admins", &["admin"], None),
            grant("mall desk", &["app"], Some("mall-1")),
            grant("mall care", &["reveal", "admin"], Some("mall-1")),
            grant("hotel", &["admin"], Some("hotel-1")),
            grant("elsewhere", &["app"], Some("no-such-unit")),
        ],
        ..StaffSettings::default()
    };
    let here = process(&kernel, &settings);
    World { kernel, simulator, settings, here }
}

fn process(kernel: &Kernel, settings: &StaffSettings) -> Process {
    let credentials = Credentials::new(kernel.db.clone(), kernel.org.clone(), kernel.keys.clone(), kernel.clock.clone());
    let login = StaffLogin::new(kernel.clone(), credentials.clone(), settings).expect("the settings can work");
    Process { login, credentials }
}

/// The code of a refusal.
pub(crate) fn code<T: std::fmt::Debug>(answer: Result<T, Problem>) -> &'static str {
    answer.expect_err("it is refused").code().code
}

impl World {
    /// Another process of the same tenant.
    pub(crate) fn elsewhere(&self) -> Process {
        process(&self.kernel, &self.settings)
    }

    /// A process of the same tenant that was started with other settings.
    pub(crate) fn with(&self, settings: &StaffSettings) -> Process {
        process(&self.kernel, settings)
    }

    /// What the provider tells when this person, whom it has sent back before, logs out there.
    pub(crate) fn told(&self, person: &str, of: LogOutOf) -> String {
        let issuer = self.settings.issuer.as_deref().expect("it is set up");
        self.simulator.log_out_token(issuer, person, of).expect("the person is logged in there")
    }

    pub(crate) fn misbehaves(&self, token: TokenFault) {
        self.simulator.misbehave(OidcMisbehaviour { token, ..OidcMisbehaviour::default() });
    }

    /// What comes back when this person logs in at the provider.
    pub(crate) fn back(&self, begun: &Begun, person: &str) -> Finish {
        let pairs = self.simulator.visit(&begun.address, person);
        let of = |name: &str| pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        Finish {
            ticket: begun.ticket.clone(),
            state: of("state").expect("the provider sends the state back"),
            code: of("code").expect("the provider gives a code"),
            issuer: of("iss"),
        }
    }

    pub(crate) async fn begun(&self, person: &str) -> Finish {
        let begun = self.here.login.begin().await.expect("it is begun");
        self.back(&begun, person)
    }

    pub(crate) async fn logs_in(&self, person: &str) -> Result<LoggedIn, Problem> {
        let finish = self.begun(person).await;
        self.here.login.finish(&finish).await
    }

    pub(crate) fn passes(&self, ms: i64) {
        self.kernel.clock.set(self.kernel.clock.now().plus_ms(ms));
    }

    /// The audit record of an action, oldest first: who, on what, with which details.
    pub(crate) async fn audited(&self, action: &str) -> Vec<(String, String, Value)> {
        let text = "SELECT actor, object, detail FROM kernel_audit WHERE action = $1 ORDER BY id";
        let rows = sql::all(self.kernel.db.reader(), text, [action.into()]).await.expect("the records are read");
        let read = |row| {
            let detail: String = sql::get(row, "detail").expect("a detail");
            let of = |column: &str| sql::get::<String>(row, column).expect("a text");
            (of("actor"), of("object"), serde_json::from_str(&detail).expect("it is JSON"))
        };
        rows.iter().map(read).collect()
    }

    /// The reasons of refused log-ins, oldest first.
    pub(crate) async fn reasons(&self) -> Vec<String> {
        self.reasons_of("refuse log-in").await
    }

    pub(crate) async fn reasons_of(&self, action: &str) -> Vec<String> {
        let refused = self.audited(action).await;
        refused.into_iter().map(|(_, _, detail)| detail["reason"].as_str().expect("a reason").to_owned()).collect()
    }

    pub(crate) async fn count(&self, table: &str) -> i64 {
        sql::count(self.kernel.db.reader(), &format!("SELECT COUNT(*) AS n FROM {table}"), []).await.expect("it is counted")
    }
}

impl Process {
    pub(crate) async fn actor(&self, token: &str) -> Result<Actor, Problem> {
        self.credentials.authenticate(Some(&format!("Bearer {token}"))).await
    }
}
