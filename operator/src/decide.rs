//! What to do next for a tenant, and what to say of it: a pure function of what was seen.
//!
//! The walk goes through the parts in the order in which they stand on each other. A part that is not as it should be either wants steps, or
//! waits, or is blocked; the parts after it then only say what can be seen of them. Whoever performs the steps looks again and asks again,
//! until there is nothing left to do; broken off anywhere, the next walk finds the same way on.

mod deletion;
mod ground;
mod resolve;
mod rotation;
mod serving;
mod summary;
#[cfg(test)]
mod tests;

pub(crate) use ground::is_ours;
pub(crate) use resolve::{Resolved, resolve};

use crate::agree::agrees;
use crate::crd::{StoppedRelease, TenantStatus};
use crate::kind::Kind;
use crate::master::{Home, Master};
use crate::name;
use crate::reason::{Part, Reason};
use crate::render::Shape;
use crate::world::{Config, World};
use kube::ResourceExt;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// One thing to do; each may be done twice.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Keep the Tenant until what belongs to it is dealt with.
    AddFinalizer,
    /// Let it go.
    RemoveFinalizer,
    /// Make a data id's keys.
    MakeMaster {
        /// The data's name.
        data_id: String,
        /// Where it will lie.
        home: Home,
    },
    /// Write a changed record, on the version that was read.
    WriteMaster(Box<Master>),
    /// Give retained data a new holder, with a new administrator's key.
    TakeOver,
    /// Forget the keys of data that is gone.
    RemoveMaster,
    /// Claim a host name.
    ClaimHost(String),
    /// Give one back.
    ReleaseHost(String),
    /// Make an object where there must not be one yet.
    Create(Value),
    /// Write an object by server-side apply.
    Apply(Value),
    /// Write the copy of the secret.
    CopySecret(Box<Shape>),
    /// Make the administrator's secret unless it is there.
    DeliverAdminSecret(Box<Shape>),
    /// Remove an object.
    Remove(Kind, String),
    /// Make database and roles, or make them whole.
    ProvisionDatabase(Box<Resolved>),
    /// Let the logins have as many sessions as size and number of processes want.
    LimitConnections(Box<Resolved>),
    /// Let the other login in.
    OpenLogin(Box<Resolved>),
    /// End the old login.
    CloseLogin(Box<Resolved>),
    /// Take every login away and keep the data.
    RetainDatabase,
    /// Remove database and roles.
    RemoveDatabase,
    /// Tell the tenant its units.
    DeliverUnits,
    /// Tell the tenant its administrator's key.
    DeliverAdminKey,
    /// Tell an embedded tenant that the copy of its file from before the upgrade can go.
    DropCopy,
    /// Look at the pods that are being let in.
    LookAtPods(String),
    /// Look at the secrets of the tenant's namespace, however lately they were read.
    LookAtSecrets,
    /// Look how far a rotation has come.
    LookAtTurn(Box<Resolved>),
    /// Read what the migration job reported.
    ReadReport(String),
    /// Write down what is retained, so that it can be found and adopted.
    RecordRetained,
    /// Write down what could not be removed; it is tried again.
    RecordLeftover(String),
}

impl Step {
    /// What it does, in a few words for a log; never a value.
    pub(crate) fn words(&self) -> String {
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        let of = |object: &Value| format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]));
        match self {
            Step::Create(object) => format!("make {}", of(object)),
            Step::Apply(object) => format!("write {}", of(object)),
            Step::Remove(kind, object) => format!("remove {} {object}", kind.as_str()),
            Step::ClaimHost(host) => format!("claim {host}"),
            Step::ReleaseHost(host) => format!("give back {host}"),
            other => format!("{other:?}").split(['(', ' ']).next().unwrap_or_default().to_owned(),
        }
    }
}

/// A part and what is to say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Why it is as it is.
    pub(crate) reason: Reason,
    /// In words, for people.
    pub(crate) message: String,
}

/// What came out.
#[derive(Debug)]
pub(crate) struct Decision {
    /// What to do now, in this order; then look again.
    pub(crate) steps: Vec<(Part, Step)>,
    /// The status to write.
    pub(crate) status: TenantStatus,
    /// When to look again although nothing has changed.
    pub(crate) again_in: Option<Duration>,
}

/// Decides.
pub(crate) fn decide(world: &World, config: &Config) -> Decision {
    let mut walk = Walk::new(world, config);
    if world.tenant.metadata.deletion_timestamp.is_some() {
        walk.delete();
    } else if world.tenant.spec.paused {
        walk.find(Part::Paused, Reason::PausedBySpec, "spec.paused is true: the tenant is left as it is");
    } else {
        walk.go();
    }
    walk.end()
}

/// A walk through the parts.
struct Walk<'a> {
    world: &'a World,
    config: &'a Config,
    steps: Vec<(Part, Step)>,
    findings: BTreeMap<Part, Finding>,
    status: TenantStatus,
    again_in: Option<Duration>,
}

/// Whether the walk may go on to parts that stand on this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Go {
    On,
    Stop,
}

impl<'a> Walk<'a> {
    fn new(world: &'a World, config: &'a Config) -> Walk<'a> {
        let status = world.tenant.status.clone().unwrap_or_default();
        Walk { world, config, steps: Vec::new(), findings: BTreeMap::new(), status, again_in: None }
    }

    /// The walk of a tenant that should serve.
    fn go(&mut self) {
        if !self.world.tenant.finalizers().iter().any(|one| one == name::FINALIZER) {
            self.steps.push((Part::Progressing, Step::AddFinalizer));
            return;
        }
        self.note_deletion_policy();
        let resolved = self.class();
        let Some(resolved) = resolved else { return self.look_on() };
        if self.data(&resolved) == Go::Stop || self.hosts() == Go::Stop {
            return self.look_on();
        }
        let Some(master) = self.world.master() else { return self.look_on() };
        let shape = resolved.shape(self.world, self.config, &master.record.home);
        if self.ground(&shape, master) == Go::Stop || self.database(&resolved, &shape, master) == Go::Stop {
            return self.look_on();
        }
        if self.serving(&resolved, &shape) == Go::Stop {
            return;
        }
        if self.configured(&shape, master) == Go::Stop {
            return;
        }
        if self.fewer_connections(&resolved, master) == Go::Stop {
            return;
        }
        self.rotation(&resolved, master);
    }

    /// Says of a part how it is. What an effect ran into speaks louder than what the walk would say.
    fn find(&mut self, part: Part, reason: Reason, message: impl Into<String>) {
        let finding = match self.world.failures.get(&part) {
            Some(failure) => Finding { reason: failure.reason, message: failure.message.clone() },
            None => Finding { reason, message: message.into() },
        };
        self.findings.insert(part, finding);
    }

    /// Wants a step of a part, unless a step of that part has just failed: then it waits for the next reconciliation.
    fn want(&mut self, part: Part, step: Step) -> Go {
        if !self.world.failures.contains_key(&part) {
            self.steps.push((part, step));
        }
        Go::Stop
    }

    /// Wants an object to be as it is written here. Says whether it is.
    fn ensure(&mut self, part: Part, mut object: Value) -> Go {
        let (Some(kind), Some(object_name)) = (Kind::of(&object), object["metadata"]["name"].as_str()) else { return Go::Stop };
        let live = self.world.live(kind, object_name);
        object = intended(object);
        match live {
            Some(live) if agrees(&object, live) => Go::On,
            _ => self.want(part, Step::Apply(object)),
        }
    }

    /// Wants an object gone. Says whether it is.
    fn ensure_gone(&mut self, part: Part, kind: Kind, object_name: &str) -> Go {
        match self.world.live(kind, object_name) {
            None => Go::On,
            Some(live) if live["metadata"]["deletionTimestamp"].is_string() => Go::Stop,
            Some(_) => self.want(part, Step::Remove(kind, object_name.to_owned())),
        }
    }

    /// Looks again after a while.
    fn again(&mut self, after: Duration) {
        self.again_in = Some(self.again_in.map_or(after, |before| before.min(after)));
    }

    fn poll(&mut self) {
        self.again(Duration::from_millis(self.config.poll_ms));
    }

    /// Remembers since when the data is meant to go with the tenant.
    fn note_deletion_policy(&mut self) {
        use crate::crd::DeletionPolicy;
        use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
        match self.world.tenant.spec.deletion.policy {
            DeletionPolicy::Retain => self.status.delete_seen_at = None,
            DeletionPolicy::Delete => {
                self.status.delete_seen_at.get_or_insert(Time(self.world.now));
            }
        }
    }

    /// The value of the annotation that asks for another try.
    fn retry(&self) -> Option<String> {
        self.world.tenant.annotations().get(name::RETRY).cloned()
    }

    /// Whether a release was stopped and nobody has asked to try it again.
    fn stopped(&self, release: &str, image: &str) -> Option<&StoppedRelease> {
        let stopped = self.status.stopped.as_ref()?;
        (stopped.release == release && stopped.image == image && stopped.retry == self.retry()).then_some(stopped)
    }

    /// Writes down that a release is not to be tried again.
    fn stop_release(&mut self, release: &str, image: &str, reason: Reason, message: &str) {
        self.status.stopped = Some(StoppedRelease {
            release: release.to_owned(),
            image: image.to_owned(),
            reason: reason.to_string(),
            message: message.to_owned(),
            retry: self.retry(),
        });
        self.status.target = None;
        // The old release's Deployment is written in the next walk, which begins at once.
        self.again(Duration::ZERO);
    }

    /// Whether the last status says that a part was as it should be.
    fn was_well(&self, part: Part) -> bool {
        self.status.conditions.iter().any(|one| one.type_ == part.to_string() && one.status == "True")
    }

    /// Whether a part has been found to be as it should.
    fn good(&self, part: Part) -> bool {
        self.findings.get(&part).is_some_and(|finding| finding.reason.is_well())
    }
}

/// An object with the digest of what is wanted on it, so that a field that is no longer wanted is seen as well.
fn intended(mut object: Value) -> Value {
    let intent = name::digest(object.to_string().as_bytes())[..16].to_owned();
    if object["metadata"]["annotations"].is_null() {
        object["metadata"]["annotations"] = Value::Object(serde_json::Map::new());
    }
    object["metadata"]["annotations"][name::INTENT] = intent.into();
    object
}

/// The reason with this name.
pub(crate) fn reason_named(text: &str) -> Option<Reason> {
    Reason::ALL.iter().copied().find(|reason| reason.to_string() == text)
}
