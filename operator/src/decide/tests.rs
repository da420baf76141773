//! A tenant's whole life in memory: every step is performed on a model of cluster and server, and broken off wherever it can be.

use super::{Decision, Step, decide};
use crate::crd::{DeletionPolicy, SslMode, Tenant, TenantClass};
use crate::kind::Kind;
use crate::leftovers;
use crate::master::{Home, Master, Turning};
use crate::name;
use crate::reason::{Part, Reason};
use crate::render;
use crate::world::{Answers, Claim, Config, Failure, MasterSeen, PodSeen, SchemaReport, SecretSeen, TurnSeen, World};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// More rounds than any life here takes.
const ROUNDS_MAX: usize = 200;

fn class() -> TenantClass {
    serde_json::from_value(json!({
        "apiVersion": "heyuan.dev/v1alpha1", "kind": "TenantClass", "metadata": { "name": "default" },
        "spec": {
            "releases": [{ "name": "1", "image": "heyuan:1" }, { "name": "2", "image": "heyuan:2" }],
            "release": "1",
            "sizes": [{ "name": "small", "cpu": "100m", "memory": "256Mi" }],
            "database": { "servers": [{ "name": "main", "host": "db", "adminSecretName": "main-admin" }] },
            "storage": { "sharedClassName": "shared" },
            "ingress": { "className": "nginx" },
        },
    }))
    .expect("a class")
}

fn tenant(database: Value) -> Tenant {
    serde_json::from_value(json!({
        "apiVersion": "heyuan.dev/v1alpha1", "kind": "Tenant",
        "metadata": { "name": "jade", "uid": "5d0c2c5a-0000-4000-8000-000000000001", "generation": 1, "finalizers": [] },
        "spec": { "displayName": "Jade", "hosts": ["jade.example.com"], "database": database },
    }))
    .expect("a tenant")
}

/// What is there, and how the rest of the world behaves.
struct Model {
    world: World,
    config: Config,
    /// Whether jobs end well, and what they report.
    job: Result<SchemaReport, String>,
    /// Answers of a new release's pods.
    answers: Answers,
    /// Pods become available.
    available: bool,
    /// The copy of the secret.
    copy: SecretSeen,
    /// Databases that exist on the server.
    database: Option<&'static str>,
    /// The limits of connections that the server was told, each with the processes that were wanted then.
    limited: Vec<(u32, i64)>,
    /// How often the tenant was told that the copy of its file can go.
    copies_dropped: usize,
    gone: bool,
    admin_secret: bool,
    recorded: bool,
}

impl Model {
    fn new(database: Value) -> Model {
        let world = World {
            tenant: Arc::new(tenant(database)),
            class: Some(Arc::new(class())),
            now: "2026-01-01T00:00:00Z".parse().expect("a time"),
            master: MasterSeen::Missing,
            claims: BTreeMap::new(),
            live: BTreeMap::new(),
            secret: SecretSeen::NotRead,
            external: SecretSeen::NotRead,
            report: None,
            pods: None,
            turn: None,
            failures: BTreeMap::new(),
        };
        let config = Config {
            namespace: "heyuan-system".into(),
            service_account: "heyuan-operator".into(),
            poll_ms: 1_000,
            resync: std::time::Duration::from_secs(600),
            rotation_seconds_max: 600,
            leftover_seconds: 600,
        };
        let job = Ok(SchemaReport { level: 7, may_serve: true, words: String::new() });
        Model {
            world,
            config,
            job,
            answers: Answers::default(),
            available: true,
            copy: SecretSeen::Missing,
            database: None,
            limited: Vec::new(),
            copies_dropped: 0,
            gone: false,
            admin_secret: false,
            recorded: false,
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Tenant)) {
        let mut tenant = Tenant::clone(&self.world.tenant);
        change(&mut tenant);
        self.world.tenant = Arc::new(tenant);
    }

    fn edit(&mut self, change: impl FnOnce(&mut Tenant)) {
        self.change(|tenant| {
            tenant.metadata.generation = tenant.metadata.generation.map(|generation| generation + 1);
            change(tenant);
        });
    }

    fn pass(&mut self, seconds: i64) {
        self.world.now = self.world.now.checked_add(SignedDuration::from_secs(seconds)).expect("a time");
    }

    fn master(&mut self, change: impl FnOnce(&mut Master)) {
        if let MasterSeen::There(master) = &mut self.world.master {
            change(master);
        }
    }

    /// Looks, decides and does until nothing is left to do; after each `breaks`-th step everything that was only seen is forgotten.
    fn settle(&mut self, breaks: usize) -> Decision {
        let mut done = 0;
        for _ in 0..ROUNDS_MAX {
            self.play();
            let decision = decide(&self.world, &self.config);
            self.change(|tenant| tenant.status = Some(decision.status.clone()));
            if decision.steps.is_empty() || self.gone {
                if decision.again_in == Some(std::time::Duration::ZERO) {
                    continue;
                }
                return decision;
            }
            let mut looked_only = true;
            for (_, step) in decision.steps {
                // A process that dies after a mere look has done nothing that another would not do again; nor has one that finds done what
                // it wanted to do.
                let looks = match &step {
                    Step::LookAtPods(_) | Step::LookAtTurn(_) | Step::ReadReport(_) | Step::LookAtSecrets => true,
                    Step::DeliverAdminSecret(_) => std::mem::replace(&mut self.admin_secret, true),
                    Step::RecordRetained => std::mem::replace(&mut self.recorded, true),
                    _ => false,
                };
                self.perform(step);
                done += usize::from(!looks);
                looked_only &= looks;
                if breaks > 0 && !looks && done % breaks == 0 {
                    (self.world.report, self.world.pods, self.world.turn) = (None, None, None);
                    (self.world.secret, self.world.external) = (SecretSeen::NotRead, SecretSeen::NotRead);
                    break;
                }
            }
            if !looked_only {
                // After a step everything is looked at again.
                (self.world.report, self.world.pods, self.world.turn) = (None, None, None);
            }
        }
        panic!("it did not settle: {:#?}", self.world.tenant.status);
    }

    /// What controllers and kubelet would do.
    fn play(&mut self) {
        let job_ends_well = self.job.as_ref().is_ok_and(|report| report.may_serve);
        let available = self.available;
        for ((kind, _), object) in &mut self.world.live {
            match kind {
                Kind::Job => {
                    let end = if job_ends_well { "Complete" } else { "Failed" };
                    object["status"] = json!({ "conditions": [{ "type": end, "status": "True", "message": "it broke" }] });
                }
                Kind::Deployment => {
                    let count = object["spec"]["replicas"].as_i64().unwrap_or(1);
                    let ready = if available { count } else { 0 };
                    object["status"] = json!({ "replicas": count, "updatedReplicas": count, "availableReplicas": ready });
                    if !available {
                        object["status"]["conditions"] = json!([
                            { "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "too slow" },
                        ]);
                    }
                }
                _ => {}
            }
        }
    }

    fn keep(&mut self, object: Value) {
        let kind = Kind::of(&object).expect("a known kind");
        let embedded = self.world.tenant.spec.database.embedded.is_some();
        if kind == Kind::Job && embedded {
            let live = self.world.live(Kind::Deployment, "heyuan").expect("a Deployment");
            assert_eq!(live["spec"]["replicas"], 0, "nobody serves on a file that is being changed");
            assert!(self.world.pods.as_ref().is_some_and(Vec::is_empty), "and that was seen");
        }
        let object_name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        self.world.live.insert((kind, object_name), object);
    }

    fn perform(&mut self, step: Step) {
        let now = self.world.now;
        match step {
            Step::AddFinalizer => self.change(|tenant| tenant.metadata.finalizers = Some(vec![name::FINALIZER.into()])),
            Step::RemoveFinalizer => self.gone = true,
            Step::MakeMaster { data_id, home } => {
                let uid = self.world.uid();
                self.world.master = MasterSeen::There(Box::new(Master::make(&data_id, "jade", &uid, home, now)));
            }
            Step::WriteMaster(master) => self.world.master = MasterSeen::There(master),
            Step::TakeOver => {
                let uid = self.world.uid();
                self.master(|master| {
                    master.record.holder = Some(uid);
                    master.record.database_made = false;
                });
            }
            Step::RemoveMaster => self.world.master = MasterSeen::Missing,
            Step::ClaimHost(host) => {
                let claim = Claim { tenant: "jade".into(), holder: self.world.uid() };
                self.world.claims.insert(host, claim);
            }
            Step::ReleaseHost(host) => {
                self.world.claims.remove(&host);
            }
            Step::Create(object) | Step::Apply(object) => self.keep(object),
            Step::CopySecret(shape) => {
                let master = self.world.master().expect("a master");
                let mark = self.world.mark(&render::secret(&shape, master)["data"]);
                self.copy = SecretSeen::Holds { mark, has_url: false };
                self.world.secret = self.copy.clone();
            }
            Step::DeliverAdminSecret(_) => {}
            Step::Remove(Kind::Namespace, _) => {
                self.world.live.clear();
                (self.copy, self.world.secret) = (SecretSeen::Missing, SecretSeen::NotRead);
            }
            Step::Remove(kind, object) => {
                self.world.live.remove(&(kind, object));
            }
            Step::ProvisionDatabase(resolved) => {
                self.database = Some("open");
                self.master(|master| {
                    (master.record.database_made, master.record.server_version) = (true, 180_000);
                    master.record.connections = resolved.connections();
                });
            }
            Step::LimitConnections(resolved) => {
                let deployed = self.world.live(Kind::Deployment, "heyuan").map(|live| live["spec"]["replicas"].clone());
                self.limited.push((resolved.connections(), deployed.and_then(|count| count.as_i64()).unwrap_or_default()));
                self.master(|master| master.record.connections = resolved.connections());
            }
            Step::OpenLogin(_) => self.master(|master| {
                let turning = master.record.turning.clone().expect("a rotation");
                master.record.turning = Some(Turning { opened: true, ..turning });
            }),
            Step::CloseLogin(_) => self.master(|master| {
                let turning = master.record.turning.take().expect("a rotation");
                (master.record.active, master.record.password_at) = (turning.to, now);
            }),
            Step::RetainDatabase => {
                self.database = Some("closed");
                self.master(|master| master.record.database_made = false);
            }
            Step::RemoveDatabase => {
                self.database = None;
                self.master(|master| master.record.database_made = false);
            }
            Step::DeliverUnits => {
                let units = name::digest(render::units(&self.world.tenant).to_string().as_bytes());
                self.master(|master| master.record.units_delivered = Some(units));
            }
            Step::DropCopy => {
                self.copies_dropped += 1;
                self.master(|master| master.record.copy = None);
            }
            Step::DeliverAdminKey => self.master(|master| master.record.admin_delivered = true),
            Step::LookAtPods(image) => {
                let answers = Some(self.answers);
                let at_rest = self.world.live(Kind::Deployment, "heyuan").is_some_and(|live| live["spec"]["replicas"] == 0);
                let pods = if at_rest { 0 } else { 1 };
                self.world.pods =
                    Some(vec![PodSeen { name: "jade-1".into(), image, ready_seconds: Some(60), trouble: None, answers }; pods]);
            }
            Step::LookAtSecrets => {
                self.world.secret = self.copy.clone();
                self.world.external = SecretSeen::Holds { mark: String::new(), has_url: true };
            }
            Step::LookAtTurn(_) => self.world.turn = Some(TurnSeen { old_sessions: 0, behind: Vec::new() }),
            Step::ReadReport(_) => self.world.report = Some(self.job.clone()),
            Step::RecordRetained => {}
            Step::RecordLeftover(_) => self.master(|master| {
                (master.record.database_made, master.record.leftover) = (false, true);
            }),
        }
    }

    fn reason(&self, part: Part) -> String {
        let status = self.world.tenant.status.as_ref().expect("a status");
        let condition = status.conditions.iter().find(|one| one.type_ == part.to_string());
        condition.map(|one| format!("{} {}", one.status, one.reason)).unwrap_or_default()
    }

    fn state(&self) -> &str {
        self.world.tenant.status.as_ref().and_then(|status| status.state.as_deref()).unwrap_or_default()
    }

    fn release(&self) -> &str {
        self.world.tenant.status.as_ref().and_then(|status| status.release.as_deref()).unwrap_or_default()
    }

    fn image_of_deployment(&self) -> &str {
        let deployment = self.world.live(Kind::Deployment, "heyuan").expect("a Deployment");
        deployment["spec"]["template"]["spec"]["containers"][0]["image"].as_str().expect("an image")
    }
}

fn homes() -> [Value; 3] {
    [json!({ "managed": {} }), json!({ "external": { "secretName": "url" } }), json!({ "embedded": {} })]
}

#[test]
fn a_tenant_becomes_ready_wherever_it_is_broken_off() {
    for database in homes() {
        for breaks in 0..6 {
            let mut model = Model::new(database.clone());
            model.settle(breaks);
            assert_eq!(model.state(), "Ready", "{database} {breaks}: {:#?}", model.world.tenant.status);
            assert_eq!(model.release(), "1");
            let again = decide(&model.world, &model.config);
            assert!(again.steps.is_empty(), "a settled tenant wants nothing: {:?}", again.steps);
            assert_eq!(Some(&again.status), model.world.tenant.status.as_ref(), "and its status does not change");
            (model.world.secret, model.world.external) = (SecretSeen::NotRead, SecretSeen::NotRead);
            let fresh = decide(&model.world, &model.config);
            assert!(fresh.steps.is_empty(), "what stood when it was last read is not read again: {:?}", fresh.steps);
        }
    }
}

#[test]
fn certificates_of_a_databases_authority_lie_beside_its_url() {
    let mut model = Model::new(json!({ "managed": {} }));
    let mut class = class();
    let server = class.spec.database.servers.first_mut().expect("a server");
    (server.ssl_mode, server.ca_bundle) = (SslMode::VerifyFull, Some("-----BEGIN CERTIFICATE-----".into()));
    let server = server.clone();
    model.world.class = Some(Arc::new(class));
    model.settle(0);
    let url = render::database_url(&server, model.world.master().expect("a master")).expect("a URL");
    assert!(url.ends_with("?sslmode=verify-full&sslrootcert=%2Fetc%2Fheyuan%2Fdatabase%2Fca.crt"), "{url}");
    let volume = |model: &Model| {
        let live = model.world.live(Kind::Deployment, "heyuan").expect("a Deployment");
        let volumes = live["spec"]["template"]["spec"]["volumes"].as_array().cloned().unwrap_or_default();
        volumes.into_iter().find(|volume| volume["name"] == "database").expect("a volume")
    };
    let items = json!([{ "key": "database-url", "path": "url" }, { "key": "database-ca", "path": "ca.crt" }]);
    assert_eq!(volume(&model)["secret"]["items"], items);

    let mut external = Model::new(json!({ "external": { "secretName": "url" } }));
    external.settle(0);
    let sources = &volume(&external)["projected"]["sources"];
    assert_eq!((&sources[0]["secret"]["optional"], &sources[1]["secret"]["optional"]), (&json!(false), &json!(true)));
    assert_eq!(sources[1]["secret"]["items"], json!([{ "key": "ca.crt", "path": "ca.crt" }]));
}

#[test]
fn an_upgrade_goes_through_the_gate_or_back() {
    struct Case {
        what: &'static str,
        job: Result<bool, &'static str>,
        errors: u64,
        available: bool,
        release: &'static str,
        image: &'static str,
        state: &'static str,
        part: Part,
        says: &'static str,
    }
    let well = Case {
        what: "well",
        job: Ok(true),
        errors: 0,
        available: true,
        release: "2",
        image: "heyuan:2",
        state: "Ready",
        part: Part::Serving,
        says: "True RolledOut",
    };
    let cases = [
        Case { what: "few errors", errors: 2, ..Case { ..well } },
        Case { what: "errors", errors: 50, release: "1", image: "heyuan:1", state: "Degraded", says: "False GateFailed", ..well },
        Case { what: "slow", available: false, release: "1", image: "heyuan:1", state: "Degraded", says: "False RolloutTimedOut", ..well },
        Case {
            what: "migration",
            job: Err("it broke"),
            release: "1",
            image: "heyuan:1",
            state: "Degraded",
            part: Part::SchemaReady,
            says: "False MigrationFailed",
            ..well
        },
        Case {
            what: "rollback",
            job: Ok(false),
            release: "1",
            image: "heyuan:1",
            state: "Degraded",
            part: Part::SchemaReady,
            says: "False RollbackRefused",
            ..well
        },
    ];
    for case in cases {
        for breaks in 0..4 {
            let mut model = Model::new(json!({ "managed": {} }));
            model.settle(0);
            model.job = case.job.map_or_else(
                |words| Err(words.to_owned()),
                |may_serve| Ok(SchemaReport { level: 8, may_serve, words: "it is older".into() }),
            );
            model.answers = Answers { all: 1_000, errors: case.errors };
            model.available = case.available;
            (model.world.report, model.world.pods) = (None, None);
            model.edit(|tenant| tenant.spec.release = Some("2".into()));
            model.settle(breaks);
            model.available = true;
            model.settle(breaks);
            assert_eq!(model.reason(case.part), case.says, "{} {breaks}", case.what);
            assert_eq!((model.state(), model.release()), (case.state, case.release), "{} {breaks}", case.what);
            assert_eq!(model.image_of_deployment(), case.image, "{} {breaks}", case.what);
            assert_eq!(model.reason(Part::Ready).starts_with("True"), case.state == "Ready", "{}", case.what);
        }
    }
}

#[test]
fn an_embedded_tenants_file_is_changed_at_rest_and_its_copy_kept_until_the_gate() {
    for (what, job, errors, release, copy, says) in [
        ("well", Ok(true), 0, "2", None, "Ready"),
        ("errors", Ok(true), 50, "1", Some("2"), "False GateFailed"),
        ("migration", Err("it broke"), 0, "1", Some("2"), "False MigrationFailed"),
        ("rollback", Ok(false), 0, "1", Some("2"), "False RollbackRefused"),
    ] {
        for breaks in 0..5 {
            let mut model = Model::new(json!({ "embedded": {} }));
            model.settle(0);
            assert!(model.world.live.keys().all(|(kind, _)| *kind != Kind::Job), "a new tenant has nothing to migrate");
            model.job = job.map_or_else(
                |words: &str| Err(words.to_owned()),
                |may_serve| Ok(SchemaReport { level: 8, may_serve, words: "it is older".into() }),
            );
            model.answers = Answers { all: 1_000, errors };
            model.edit(|tenant| tenant.spec.release = Some("2".into()));
            model.settle(breaks);
            model.settle(breaks);
            assert_eq!(model.release(), release, "{what} {breaks}");
            let deployment = model.world.live(Kind::Deployment, "heyuan").expect("a Deployment");
            assert_eq!(deployment["spec"]["replicas"], 1, "{what} {breaks}: it serves");
            assert_eq!(model.image_of_deployment(), format!("heyuan:{release}"), "{what} {breaks}");
            assert_eq!(model.world.master().expect("a master").record.copy.as_deref(), copy, "{what} {breaks}");
            assert_eq!(model.copies_dropped, usize::from(copy.is_none()), "{what} {breaks}");
            let status = model.world.tenant.status.as_ref().expect("a status");
            let reasons: Vec<String> = status.conditions.iter().map(|one| format!("{} {}", one.status, one.reason)).collect();
            assert!(model.state() == says || reasons.iter().any(|reason| reason == says), "{what} {breaks}: {reasons:?}");
            model.edit(|tenant| tenant.spec.release = Some(release.into()));
            model.settle(breaks);
            assert_eq!(
                (model.state(), model.copies_dropped),
                ("Ready", 1),
                "{what} {breaks}: who names the release that serves wants no copy"
            );
        }
    }
}

#[test]
fn a_stopped_release_is_tried_again_when_asked() {
    let mut model = Model::new(json!({ "managed": {} }));
    model.settle(0);
    model.job = Err("it broke".into());
    model.edit(|tenant| tenant.spec.release = Some("2".into()));
    model.settle(0);
    assert_eq!(model.release(), "1");
    model.job = Ok(SchemaReport { level: 8, may_serve: true, words: String::new() });
    (model.world.report, model.world.pods) = (None, None);
    model.settle(0);
    assert_eq!(model.release(), "1", "nobody has asked");
    model.change(|tenant| tenant.metadata.annotations = Some(BTreeMap::from([(name::RETRY.to_owned(), "1".to_owned())])));
    model.settle(0);
    assert_eq!((model.release(), model.state()), ("2", "Ready"));
}

#[test]
fn connections_follow_size_and_number_before_there_are_more_and_after_there_are_fewer() {
    let settled = || {
        let mut model = Model::new(json!({ "managed": {} }));
        model.edit(|tenant| tenant.spec.replicas = Some(2));
        model.settle(0);
        assert!(model.limited.is_empty(), "what was made needs no change");
        model
    };
    for breaks in 0..4 {
        let mut model = settled();
        model.edit(|tenant| tenant.spec.replicas = Some(4));
        model.settle(breaks);
        assert_eq!(model.limited, [(52, 2)], "{breaks}: told before the processes come");
        model.edit(|tenant| tenant.spec.replicas = Some(1));
        model.settle(breaks);
        assert_eq!(model.limited, [(52, 2), (22, 1)], "{breaks}: told when the processes are gone");
        assert_eq!(model.state(), "Ready");

        let mut model = settled();
        let mut class = class();
        class.spec.sizes[0].connections = 25;
        model.world.class = Some(Arc::new(class));
        model.settle(breaks);
        assert_eq!(model.limited, [(77, 2)], "{breaks}: the class's change reaches a tenant that is there");
        // A master from before the limit was remembered: asked once, and the server is not written to where it is so.
        model.master(|master| master.record.connections = 0);
        model.settle(breaks);
        assert_eq!(model.limited, [(77, 2), (77, 2)]);
    }
    let mut model = settled();
    model.edit(|tenant| tenant.spec.replicas = Some(4));
    model.world.failures.insert(Part::DatabaseReady, Failure { reason: Reason::ServerBudgetSpent, message: "no more".into() });
    model.settle(0);
    assert_eq!(model.reason(Part::DatabaseReady), "False ServerBudgetSpent");
    let deployment = model.world.live(Kind::Deployment, "heyuan").expect("a Deployment");
    assert_eq!(deployment["spec"]["replicas"], 2, "what serves goes on as it is");
}

#[test]
fn a_rotation_turns_to_the_other_login_and_ends() {
    for breaks in 0..5 {
        let mut model = Model::new(json!({ "managed": {} }));
        model.settle(0);
        let before = model.world.master().expect("a master").clone();
        model.pass(31 * 24 * 3_600);
        model.settle(breaks);
        let after = model.world.master().expect("a master");
        assert_eq!(after.record.active, before.record.active.other(), "{breaks}");
        assert!(after.record.turning.is_none());
        assert_ne!(after.password(after.record.active), before.password(before.record.active));
        assert_eq!(model.state(), "Ready", "{breaks}");
    }
}

#[test]
fn data_outlives_its_tenant_unless_told_otherwise_for_long_enough() {
    for (database, policy, waits, end) in [
        (json!({ "managed": {} }), DeletionPolicy::Retain, 0, Some("closed")),
        (json!({ "managed": {} }), DeletionPolicy::Delete, 4_000, None),
        (json!({ "managed": {} }), DeletionPolicy::Delete, 0, Some("open")),
    ] {
        for breaks in 0..5 {
            let mut model = Model::new(database.clone());
            model.settle(0);
            model.edit(|tenant| tenant.spec.deletion.policy = policy);
            model.settle(0);
            model.pass(waits);
            let now = model.world.now;
            model.change(|tenant| tenant.metadata.deletion_timestamp = Some(Time(now)));
            model.settle(breaks);
            assert_eq!(model.database, end, "{policy:?} after {waits} s, {breaks}");
            let waiting = policy == DeletionPolicy::Delete && waits == 0;
            assert_eq!(model.gone, !waiting);
            assert!(model.world.live(Kind::Deployment, "heyuan").is_none(), "nothing serves");
            if waiting {
                assert_eq!(model.reason(Part::Deleting), "True DeletionWaits");
                model.edit(|tenant| tenant.spec.deletion.policy = DeletionPolicy::Retain);
                model.settle(breaks);
                assert_eq!(model.database, Some("closed"), "a change of mind saves the data");
                assert!(model.gone);
            }
        }
    }
}

#[test]
fn an_embedded_volume_is_kept_with_its_namespace() {
    let mut model = Model::new(json!({ "embedded": {} }));
    model.settle(0);
    let now = model.world.now;
    model.change(|tenant| tenant.metadata.deletion_timestamp = Some(Time(now)));
    model.settle(0);
    assert!(model.gone);
    assert!(model.world.namespace().is_some());
    assert!(model.world.live(Kind::PersistentVolumeClaim, "heyuan").is_some());
    assert_eq!(model.world.master().expect("the keys are kept").record.holder, None);
}

#[test]
fn retained_data_is_adopted_where_it_fits() {
    let mut model = Model::new(json!({ "managed": {} }));
    model.settle(0);
    let data_id = model.world.tenant.status.as_ref().and_then(|status| status.data_id.clone()).expect("a data id");
    let now = model.world.now;
    model.change(|tenant| tenant.metadata.deletion_timestamp = Some(Time(now)));
    model.settle(0);
    let keys = model.world.master().expect("the keys are kept").clone();

    let mut heir = Model::new(json!({ "managed": {} }));
    heir.world.master = MasterSeen::There(Box::new(keys.clone()));
    heir.change(|tenant| {
        tenant.metadata.uid = Some("another".into());
        tenant.spec.adopt = Some(data_id.clone());
    });
    heir.settle(0);
    assert_eq!(heir.state(), "Ready");
    assert_eq!(heir.world.master().expect("a master").tenant_key, keys.tenant_key);

    let mut misfit = Model::new(json!({ "embedded": {} }));
    misfit.world.master = MasterSeen::There(Box::new(keys.clone()));
    misfit.change(|tenant| tenant.spec.adopt = Some(data_id.clone()));
    misfit.settle(0);
    assert_eq!(misfit.reason(Part::DataHeld), "False AdoptKindDiffers");

    // Nobody gets what is being taken away at the moment.
    let mut early = Model::new(json!({ "managed": {} }));
    early.world.master = MasterSeen::There(Box::new(keys.clone()));
    early.master(|master| master.record.holder = Some(leftovers::HOLDER.into()));
    early.change(|tenant| tenant.spec.adopt = Some(data_id.clone()));
    assert!(early.settle(0).again_in.is_some(), "it looks again by itself");
    assert_eq!(early.reason(Part::DataHeld), "False AdoptHeld");

    let mut stranger = Model::new(json!({ "managed": {} }));
    stranger.change(|tenant| tenant.spec.adopt = Some("0000000000000000".into()));
    stranger.settle(0);
    assert_eq!(stranger.reason(Part::DataHeld), "False AdoptUnknown");
}

#[test]
fn what_is_foreign_is_left_alone() {
    let mut model = Model::new(json!({ "managed": {} }));
    let uid = "somebody".to_owned();
    model.world.claims.insert("jade.example.com".into(), Claim { tenant: "ruby".into(), holder: uid });
    model.settle(0);
    assert_eq!(model.reason(Part::HostsClaimed), "False HostTaken");

    let mut model = Model::new(json!({ "managed": {} }));
    model.keep(
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "tenant-jade", "labels": { name::TENANT: "jade" } } }),
    );
    model.settle(0);
    assert_eq!(model.reason(Part::NamespaceReady), "False NamespaceTaken");
    assert_eq!(model.database, None);
    let now = model.world.now;
    model.change(|tenant| tenant.metadata.deletion_timestamp = Some(Time(now)));
    model.settle(0);
    assert!(model.gone);
    assert!(model.world.namespace().is_some(), "a namespace that is not ours outlives the tenant");
}

#[test]
fn drift_is_corrected_and_foreign_fields_are_not() {
    let mut model = Model::new(json!({ "managed": {} }));
    model.settle(0);
    let objects: Vec<(Kind, String)> = model.world.live.keys().filter(|(kind, _)| *kind != Kind::Job).cloned().collect();
    for (kind, object) in objects {
        let before = model.world.live[&(kind, object.clone())].clone();
        model.world.live.get_mut(&(kind, object.clone())).expect("it is there")["metadata"]["labels"][name::DATA] = "changed".into();
        model.settle(0);
        assert_eq!(model.world.live[&(kind, object.clone())]["metadata"]["labels"], before["metadata"]["labels"], "{kind:?} {object}");
        if kind != Kind::Namespace {
            model.world.live.remove(&(kind, object.clone()));
            model.settle(0);
            assert!(model.world.live.contains_key(&(kind, object.clone())), "{kind:?} {object} is made again");
        }
        model.world.live.get_mut(&(kind, object.clone())).expect("it is there")["metadata"]["annotations"]["somebody/else"] = "x".into();
        assert!(decide(&model.world, &model.config).steps.is_empty(), "{kind:?}: what others write beside is theirs");
    }
}

#[test]
fn trouble_is_said_in_its_part() {
    type Change = fn(&mut Model);
    let table: [(&str, Change, Part, Reason); 7] = [
        ("class", |model| model.world.class = None, Part::ClassResolved, Reason::ClassMissing),
        ("release", |model| model.edit(|t| t.spec.release = Some("9".into())), Part::ClassResolved, Reason::ReleaseUnknown),
        ("size", |model| model.edit(|t| t.spec.size = Some("huge".into())), Part::ClassResolved, Reason::SizeUnknown),
        ("replicas", |model| model.edit(|t| t.spec.replicas = Some(9)), Part::ClassResolved, Reason::BeyondLimits),
        ("volume", |model| model.edit(|t| t.spec.storage.volume_size = Some("9Ti".into())), Part::ClassResolved, Reason::BeyondLimits),
        ("keys", |model| model.world.master = MasterSeen::Damaged("no".into()), Part::DataHeld, Reason::MasterDamaged),
        (
            "server",
            |model| {
                let failure = Failure { reason: Reason::DatabaseUnreachable, message: "away".into() };
                model.world.failures.insert(Part::DatabaseReady, failure);
            },
            Part::DatabaseReady,
            Reason::DatabaseUnreachable,
        ),
    ];
    for (what, change, part, reason) in table {
        let mut model = Model::new(json!({ "managed": {} }));
        change(&mut model);
        model.settle(0);
        assert_eq!(model.reason(part), format!("False {reason}"), "{what}");
        assert_eq!(model.state(), "Degraded", "{what}");
        assert!(model.reason(Part::Ready).starts_with("False"), "{what}");
        let status = model.world.tenant.status.as_ref().expect("a status");
        assert!(status.why.as_ref().is_some_and(|why| !why.is_empty()), "{what}");
    }
}

#[test]
fn a_class_that_goes_stops_nothing_that_serves() {
    let mut model = Model::new(json!({ "managed": {} }));
    model.settle(0);
    model.world.class = None;
    model.settle(0);
    assert_eq!(model.state(), "Degraded");
    assert_eq!(model.reason(Part::Serving), "True RolledOut");
    assert_eq!(model.image_of_deployment(), "heyuan:1");
}

#[test]
fn paused_means_untouched() {
    let mut model = Model::new(json!({ "managed": {} }));
    model.settle(0);
    model.world.live.remove(&(Kind::Service, "heyuan".into()));
    model.edit(|tenant| tenant.spec.paused = true);
    model.settle(0);
    assert_eq!(model.state(), "Paused");
    assert!(!model.world.live.contains_key(&(Kind::Service, "heyuan".into())));
    let now = model.world.now;
    model.change(|tenant| tenant.metadata.deletion_timestamp = Some(Time(now)));
    model.settle(0);
    assert!(!model.gone, "not even taken down");
}

#[test]
fn a_server_that_is_gone_for_good_holds_a_tenant_up_for_so_long() {
    let mut model = Model::new(json!({ "managed": {} }));
    model.settle(0);
    let now = model.world.now;
    model.change(|tenant| tenant.metadata.deletion_timestamp = Some(Time(now)));
    let failure = Failure { reason: Reason::DatabaseUnreachable, message: "away".into() };
    model.world.failures.insert(Part::Deleting, failure.clone());
    // Workloads are stopped in walks of their own, in which the server is not asked.
    model.world.failures.clear();
    while model.world.live(Kind::Deployment, "heyuan").is_some() || model.world.live(Kind::Service, "heyuan").is_some() {
        for (_, step) in decide(&model.world, &model.config).steps {
            model.perform(step);
        }
    }
    model.world.failures.insert(Part::Deleting, failure.clone());
    model.settle(0);
    assert!(!model.gone);
    model.pass(601);
    let decision = decide(&model.world, &model.config);
    assert!(matches!(decision.steps.as_slice(), [(_, Step::RecordLeftover(words))] if words == "away"), "{:?}", decision.steps);
    for (_, step) in decision.steps {
        model.perform(step);
    }
    model.world.failures.clear();
    model.settle(0);
    assert!(model.gone);
    assert!(model.world.master().is_some(), "the proof is kept for what is left");
    assert!(matches!(model.world.master().expect("kept").record.home, Home::Managed { .. }));
    let _: Timestamp = model.world.now;
}
