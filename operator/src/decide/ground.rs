//! The ground that a tenant stands on: its data's keys, its names, its namespace with all that guards it, and its database.

use super::{Go, Resolved, Step, Walk, intended};
use crate::database::ServerFacts;
use crate::kind::Kind;
use crate::leftovers;
use crate::master::{Home, Master};
use crate::name;
use crate::reason::{Part, Reason};
use crate::render::{self, Shape};
use crate::world::{MasterSeen, SecretSeen};
use serde_json::Value;

impl Walk<'_> {
    /// The data id and its keys.
    pub(super) fn data(&mut self, resolved: &Resolved) -> Go {
        let world = self.world;
        let data_id = name::data_id(&world.tenant);
        self.status.data_id = Some(data_id.clone());
        let adopting = world.tenant.spec.adopt.is_some();
        let master = match &world.master {
            MasterSeen::Damaged(words) => {
                let words = format!("secret {} in namespace {}: {words}", name::master_secret(&data_id), self.config.namespace);
                self.find(Part::DataHeld, Reason::MasterDamaged, words);
                return Go::Stop;
            }
            MasterSeen::Missing if adopting => {
                self.find(Part::DataHeld, Reason::AdoptUnknown, format!("there is no retained data {data_id}"));
                return Go::Stop;
            }
            MasterSeen::Missing if self.status.namespace.is_some() => {
                let words = format!("secret {} in namespace {} is gone", name::master_secret(&data_id), self.config.namespace);
                self.find(Part::DataHeld, Reason::MasterDamaged, words);
                return Go::Stop;
            }
            MasterSeen::Missing => {
                self.find(Part::DataHeld, Reason::WaitingForEarlier, "keys are being made");
                let home = resolved.home(&world.tenant);
                return self.want(Part::DataHeld, Step::MakeMaster { data_id, home });
            }
            MasterSeen::There(master) => master,
        };
        match &master.record.holder {
            Some(holder) if *holder == world.uid() => {}
            Some(holder) if holder == leftovers::HOLDER => {
                let words = format!("what was left of data {data_id} on its server is being dealt with at the moment");
                self.find(Part::DataHeld, Reason::AdoptHeld, words);
                self.poll();
                return Go::Stop;
            }
            Some(_) => {
                let words = format!("data {data_id} belongs to tenant {}, which still exists", master.record.tenant);
                self.find(Part::DataHeld, Reason::AdoptHeld, words);
                return Go::Stop;
            }
            None => return self.take_over(resolved, master),
        }
        self.find(Part::DataHeld, Reason::DataKnown, format!("data {data_id}"));
        Go::On
    }

    /// Retained data gets a new holder, where it lies as the spec asks.
    fn take_over(&mut self, resolved: &Resolved, master: &Master) -> Go {
        let wanted = resolved.home(&self.world.tenant);
        if master.record.home != wanted {
            let words = format!(
                "data {} lies in {}, and the spec asks for {}",
                master.record.data_id,
                home_words(&master.record.home),
                home_words(&wanted)
            );
            self.find(Part::DataHeld, Reason::AdoptKindDiffers, words);
            return Go::Stop;
        }
        if wanted == Home::Embedded && master.record.tenant != self.world.name() {
            let words = format!("data {} lies on a volume of tenant {}; name this tenant so", master.record.data_id, master.record.tenant);
            self.find(Part::DataHeld, Reason::AdoptKindDiffers, words);
            return Go::Stop;
        }
        self.find(Part::DataHeld, Reason::WaitingForEarlier, "retained data is being taken over");
        self.want(Part::DataHeld, Step::TakeOver)
    }

    /// Host names belong to one tenant of the cluster.
    pub(super) fn hosts(&mut self) -> Go {
        let world = self.world;
        let mut go = Go::On;
        for host in &world.tenant.spec.hosts {
            match world.claims.get(host) {
                Some(claim) if claim.holder == world.uid() => {}
                Some(claim) => {
                    self.find(Part::HostsClaimed, Reason::HostTaken, format!("host {host} belongs to tenant {}", claim.tenant));
                    return Go::Stop;
                }
                None => go = self.want(Part::HostsClaimed, Step::ClaimHost(host.clone())),
            }
        }
        for (host, claim) in &world.claims {
            if claim.holder == world.uid() && !world.tenant.spec.hosts.contains(host) {
                go = self.want(Part::HostsClaimed, Step::ReleaseHost(host.clone()));
            }
        }
        match go {
            Go::On => self.find(Part::HostsClaimed, Reason::HostsClaimed, claimed_words(&world.tenant.spec.hosts)),
            Go::Stop => self.find(Part::HostsClaimed, Reason::WaitingForEarlier, "host names are being claimed"),
        }
        go
    }

    /// The namespace and what guards it.
    pub(super) fn ground(&mut self, shape: &Shape, master: &Master) -> Go {
        let wanted = render::namespace(&shape.tenant, master);
        match self.world.namespace() {
            None => {
                self.find(Part::NamespaceReady, Reason::WaitingForEarlier, format!("namespace {} is being made", shape.namespace));
                return self.want(Part::NamespaceReady, Step::Create(intended(wanted)));
            }
            Some(live) if !is_ours(live, master) => {
                let words = format!("namespace {} was not made for this tenant", shape.namespace);
                self.find(Part::NamespaceReady, Reason::NamespaceTaken, words);
                return Go::Stop;
            }
            Some(live) if live["metadata"]["deletionTimestamp"].is_string() => {
                self.find(Part::NamespaceReady, Reason::NamespaceTerminating, format!("namespace {} is being deleted", shape.namespace));
                return Go::Stop;
            }
            Some(_) => {}
        }
        self.status.namespace = Some(shape.namespace.clone());
        let mut objects = vec![wanted, render::role_binding(shape, &self.config.service_account)];
        objects.extend([render::service_account(shape), render::quota(shape)]);
        objects.extend(render::network_policies(shape));
        objects.push(self.volume_claim(shape));
        let mut go = Go::On;
        for object in objects {
            if self.ensure(Part::NamespaceReady, object) == Go::Stop {
                go = Go::Stop;
            }
        }
        match go {
            Go::On => self.find(Part::NamespaceReady, Reason::NamespaceMade, format!("namespace {}", shape.namespace)),
            Go::Stop => self.find(Part::NamespaceReady, Reason::WaitingForEarlier, "objects of the namespace are being written"),
        }
        go
    }

    /// A claim's class and access can't be changed, so only its size follows.
    fn volume_claim(&self, shape: &Shape) -> Value {
        let mut wanted = render::volume_claim(shape);
        if let Some(live) = self.world.live(Kind::PersistentVolumeClaim, name::APP) {
            for field in ["accessModes", "storageClassName"].into_iter().filter(|field| !live["spec"][*field].is_null()) {
                wanted["spec"][field] = live["spec"][field].clone();
            }
        }
        wanted
    }

    /// The database and the secret that leads to it.
    pub(super) fn database(&mut self, resolved: &Resolved, shape: &Shape, master: &Master) -> Go {
        let go = match (&master.record.home, &self.world.external) {
            (Home::Embedded, _) => {
                self.find(Part::DatabaseReady, Reason::DatabaseEmbedded, "SQLite on the tenant's volume");
                Go::On
            }
            (Home::External, SecretSeen::NotRead) if !self.was_well(Part::DatabaseReady) => {
                self.find(Part::DatabaseReady, Reason::WaitingForEarlier, "the secret with the database's URL is being read");
                self.want(Part::DatabaseReady, Step::LookAtSecrets)
            }
            (Home::External, SecretSeen::NotRead | SecretSeen::Holds { has_url: true, .. }) => {
                self.find(Part::DatabaseReady, Reason::DatabaseExternal, "the URL comes from the tenant's secret");
                Go::On
            }
            (Home::External, seen) => {
                let secret = shape.external_secret.as_deref().unwrap_or_default();
                let lacks = if *seen == SecretSeen::Missing { "does not exist" } else { "has no key `url`" };
                let words = format!("secret {secret} in namespace {} {lacks}; write the database's URL there", shape.namespace);
                self.find(Part::DatabaseReady, Reason::ExternalSecretMissing, words);
                self.poll();
                Go::Stop
            }
            (Home::Managed { server }, _) if !master.record.database_made => {
                self.find(Part::DatabaseReady, Reason::WaitingForEarlier, format!("the database is being made on server {server}"));
                self.want(Part::DatabaseReady, Step::ProvisionDatabase(Box::new(resolved.clone())))
            }
            // Before more or larger processes come. Where the server has no more to give, those that serve stay as they are.
            (Home::Managed { server }, _) if master.record.connections < resolved.connections() => {
                let words = format!("server {server} is told that the tenant may open {} connections", resolved.connections());
                self.find(Part::DatabaseReady, Reason::WaitingForEarlier, words);
                self.want(Part::DatabaseReady, Step::LimitConnections(Box::new(resolved.clone())))
            }
            (Home::Managed { server }, _) => {
                let version = ServerFacts { version_num: master.record.server_version, is_database_new: false };
                let reason = if version.confines_creators() { Reason::DatabaseMade } else { Reason::ServerOld };
                let number = master.record.server_version / 10_000;
                let words = format!("database heyuan_{} on server {server}, PostgreSQL {number}", master.record.data_id);
                self.find(Part::DatabaseReady, reason, words);
                Go::On
            }
        };
        if go == Go::Stop {
            return Go::Stop;
        }
        let wanted = self.world.mark(&render::secret(shape, master)["data"]);
        match &self.world.secret {
            SecretSeen::NotRead if self.status.secret_digest.as_ref() == Some(&wanted) => Go::On,
            SecretSeen::NotRead => self.want(Part::DatabaseReady, Step::LookAtSecrets),
            SecretSeen::Holds { mark, .. } if *mark == wanted => {
                self.status.secret_digest = Some(wanted);
                Go::On
            }
            SecretSeen::Holds { .. } | SecretSeen::Missing => self.want(Part::DatabaseReady, Step::CopySecret(Box::new(shape.clone()))),
        }
    }
}

impl Walk<'_> {
    /// A tenant that has become smaller lets go of connections, once no process is left that could want them.
    pub(super) fn fewer_connections(&mut self, resolved: &Resolved, master: &Master) -> Go {
        let managed = matches!(master.record.home, Home::Managed { .. });
        if !managed || master.record.connections <= resolved.connections() {
            return Go::On;
        }
        self.want(Part::DatabaseReady, Step::LimitConnections(Box::new(resolved.clone())))
    }
}

/// Whether a namespace carries the proof that it was made for this data.
pub(crate) fn is_ours(namespace: &Value, master: &Master) -> bool {
    namespace["metadata"]["annotations"][name::PROOF].as_str() == Some(render::proof_mark(&master.proof).as_str())
}

fn home_words(home: &Home) -> String {
    match home {
        Home::Managed { server } => format!("a managed database on server {server}"),
        Home::External => "an external database".to_owned(),
        Home::Embedded => "an embedded database".to_owned(),
    }
}

fn claimed_words(hosts: &[String]) -> String {
    if hosts.is_empty() { "no host name is asked for".to_owned() } else { hosts.join(", ") }
}
