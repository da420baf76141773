//! The end of a tenant: workloads stop, data is kept or removed as the spec says, names are given back.

use super::ground::is_ours;
use super::{Go, Step, Walk};
use crate::crd::DeletionPolicy;
use crate::kind::Kind;
use crate::master::{Home, Master};
use crate::name::{self, APP};
use crate::reason::{Part, Reason};
use jiff::SignedDuration;
use kube::ResourceExt;
use std::time::Duration;

impl Walk<'_> {
    /// Takes a tenant down, step by step.
    pub(super) fn delete(&mut self) {
        let world = self.world;
        if !world.tenant.finalizers().iter().any(|one| one == name::FINALIZER) {
            return;
        }
        if world.tenant.spec.paused {
            return self.find(Part::Paused, Reason::PausedBySpec, "spec.paused is true: the tenant is not taken down before it is false");
        }
        self.note_deletion_policy();
        self.find(Part::Deleting, Reason::DeletionRunning, "workloads are being stopped");
        let master = world.master().filter(|master| master.record.holder.as_deref() == Some(world.uid().as_str()));
        if self.stop_workloads(master) == Go::Stop {
            return;
        }
        let removing = world.tenant.spec.deletion.policy == DeletionPolicy::Delete;
        if removing && self.waits_for_grace() {
            return;
        }
        if let Some(master) = master
            && self.deal_with_data(master, removing) == Go::Stop
        {
            return;
        }
        for (host, claim) in &world.claims {
            if claim.holder == world.uid() {
                self.want(Part::Deleting, Step::ReleaseHost(host.clone()));
            }
        }
        if self.steps.is_empty() {
            self.want(Part::Deleting, Step::RemoveFinalizer);
        }
    }

    /// Nothing serves a tenant that goes.
    fn stop_workloads(&mut self, master: Option<&Master>) -> Go {
        let (Some(namespace), Some(master)) = (self.world.namespace(), master) else { return Go::On };
        if !is_ours(namespace, master) || namespace["metadata"]["deletionTimestamp"].is_string() {
            return Go::On;
        }
        let kinds = [Kind::Ingress, Kind::HorizontalPodAutoscaler, Kind::PodDisruptionBudget, Kind::Deployment, Kind::Job, Kind::Service];
        let all: Vec<(Kind, String)> = self.world.live.keys().filter(|(kind, _)| kinds.contains(kind)).cloned().collect();
        all.iter().fold(Go::On, |go, (kind, object)| self.ensure_gone(Part::Deleting, *kind, object).min_with(go))
    }

    /// Data goes only after `Delete` has stood for the grace.
    fn waits_for_grace(&mut self) -> bool {
        let world = self.world;
        let Some(seen) = &self.status.delete_seen_at else { return true };
        let until = seen.0.saturating_add(SignedDuration::from_secs(world.tenant.spec.deletion.grace_seconds));
        let Ok(until) = until else { return true };
        if until <= world.now {
            return false;
        }
        self.find(Part::Deleting, Reason::DeletionWaits, format!("data is removed at {until}; set deletion.policy to Retain to keep it"));
        self.again(Duration::try_from(until.duration_since(world.now)).unwrap_or_default());
        true
    }

    /// Database, namespace with volume, and keys.
    fn deal_with_data(&mut self, master: &Master, removing: bool) -> Go {
        let managed = matches!(master.record.home, Home::Managed { .. });
        if managed && master.record.database_made {
            let words = if removing { "the database is being removed" } else { "the database's logins are being closed" };
            self.find(Part::Deleting, Reason::DeletionRunning, words);
            return self.database_gone(removing);
        }
        // The volume is the data of an embedded tenant, so its namespace stays with it.
        let keeps_namespace = !removing && master.record.home == Home::Embedded;
        if !keeps_namespace && self.namespace_gone(master) == Go::Stop {
            return Go::Stop;
        }
        // What is left on a server is proved by these keys, so they stay until it is dealt with.
        if removing && !master.record.leftover {
            return self.want(Part::Deleting, Step::RemoveMaster);
        }
        if !removing {
            self.steps.push((Part::Deleting, Step::RecordRetained));
        }
        let mut freed = master.clone();
        freed.record.holder = None;
        freed.record.turning = None;
        self.want(Part::Deleting, Step::WriteMaster(Box::new(freed)))
    }

    /// A database that does not answer holds a tenant up for so long, then what is left is written down.
    fn database_gone(&mut self, removing: bool) -> Go {
        let step = if removing { Step::RemoveDatabase } else { Step::RetainDatabase };
        let Some(failure) = self.world.failures.get(&Part::Deleting) else {
            return self.want(Part::Deleting, step);
        };
        let since = self.world.tenant.metadata.deletion_timestamp.as_ref().map_or(self.world.now, |time| time.0);
        if self.world.now.duration_since(since).as_secs() < self.config.leftover_seconds {
            self.poll();
            return Go::Stop;
        }
        self.steps.push((Part::Deleting, Step::RecordLeftover(failure.message.clone())));
        Go::Stop
    }

    fn namespace_gone(&mut self, master: &Master) -> Go {
        let world = self.world;
        match world.namespace() {
            None => Go::On,
            Some(live) if !is_ours(live, master) => Go::On,
            Some(live) if live["metadata"]["deletionTimestamp"].is_string() => {
                self.find(
                    Part::Deleting,
                    Reason::DeletionRunning,
                    format!("namespace {} is being deleted", name::namespace(&world.name())),
                );
                self.poll();
                Go::Stop
            }
            Some(_) => self.want(Part::Deleting, Step::Remove(Kind::Namespace, name::namespace(&world.name()))),
        }
    }

    /// Where the walk is blocked, what serves is still told truly.
    pub(super) fn look_on(&mut self) {
        use super::serving::Rollout;
        let Some(deployment) = self.world.live(Kind::Deployment, APP) else { return };
        let release = self.status.release.clone().unwrap_or_default();
        match Rollout::of(deployment) {
            Rollout::Done => self.find(Part::Serving, Reason::RolledOut, format!("release {release} serves")),
            Rollout::Underway { available, wanted } => {
                self.find(Part::Serving, Reason::RollingOut, format!("{available} of {wanted} pods are available"));
            }
            Rollout::TimedOut(words) | Rollout::Refused(words) => self.find(Part::Serving, Reason::PodsFailing, words),
        }
    }
}
