//! Schema and pods: how a release is let in, and how the one before goes on serving when it can't be.

use super::{Go, Resolved, Step, Walk};
use crate::crd::ClassRollout;
use crate::kind::Kind;
use crate::master::Master;
use crate::name::{self, APP};
use crate::reason::{Part, Reason};
use crate::render::{self, Gate, RENDER_REVISION, Running, Shape};
use crate::world::PodSeen;
use serde_json::Value;

/// Fewer answers than this say nothing about a release.
const ANSWERS_MIN: u64 = 10;
/// Nor do fewer errors: one or two happen to anybody, and of few answers they would be many.
const ERRORS_MIN: u64 = 3;

/// How far a Deployment has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rollout {
    /// Every pod is of the template and available.
    Done,
    /// So many of so many are.
    Underway {
        /// Available pods of the template.
        available: i64,
        /// Wanted.
        wanted: i64,
    },
    /// It did not get there in time.
    TimedOut(String),
    /// Pods can't be made.
    Refused(String),
}

impl Rollout {
    /// Reads a Deployment.
    pub(crate) fn of(deployment: &Value) -> Rollout {
        let status = &deployment["status"];
        let number = |field: &str| status[field].as_i64().unwrap_or_default();
        let wanted = deployment["spec"]["replicas"].as_i64().unwrap_or(1);
        if wanted == 0 {
            return Rollout::Underway { available: 0, wanted };
        }
        if number("observedGeneration") < deployment["metadata"]["generation"].as_i64().unwrap_or_default() {
            return Rollout::Underway { available: 0, wanted };
        }
        let condition = |kind: &str, value: &str| {
            status["conditions"].as_array().into_iter().flatten().find(|one| one["type"] == kind && one["status"] == value)
        };
        let message = |condition: &Value| condition["message"].as_str().unwrap_or_default().to_owned();
        if let Some(failure) = condition("ReplicaFailure", "True") {
            return Rollout::Refused(message(failure));
        }
        if let Some(progress) = condition("Progressing", "False").filter(|one| one["reason"] == "ProgressDeadlineExceeded") {
            return Rollout::TimedOut(message(progress));
        }
        let (updated, available, all) = (number("updatedReplicas"), number("availableReplicas"), number("replicas"));
        if updated >= wanted && available >= wanted && all <= updated {
            return Rollout::Done;
        }
        Rollout::Underway { available: available.min(updated), wanted }
    }
}

/// What a job came to.
enum JobEnd {
    Running,
    Done,
    Failed(String),
}

impl Walk<'_> {
    /// Brings the wanted release to serve, or keeps the one that does.
    pub(super) fn serving(&mut self, resolved: &Resolved, shape: &Shape) -> Go {
        let wanted = Running { release: resolved.release.name.clone(), image: resolved.release.image.clone(), revision: RENDER_REVISION };
        let in_force = self.in_force();
        match in_force {
            Some(current) if current.release == wanted.release && current.image == wanted.image => {
                (self.status.target, self.status.stopped) = (None, None);
                self.find(Part::SchemaReady, Reason::SchemaCurrent, schema_words(self.status.schema_level));
                self.keep(shape, &current)
            }
            current => match self.stopped(&wanted.release, &wanted.image).cloned() {
                Some(stopped) => {
                    let reason = super::reason_named(&stopped.reason).unwrap_or(Reason::RolloutTimedOut);
                    let part =
                        if matches!(reason, Reason::MigrationFailed | Reason::RollbackRefused) { Part::SchemaReady } else { Part::Serving };
                    if let Some(current) = &current {
                        self.keep(shape, current);
                    }
                    self.find(part, reason, stopped.message);
                    Go::Stop
                }
                None => self.let_in(resolved, shape, &wanted, current.as_ref()),
            },
        }
    }

    /// The release that serves, as the status says.
    fn in_force(&self) -> Option<Running> {
        let status = &self.status;
        Some(Running { release: status.release.clone()?, image: status.image.clone()?, revision: status.render_revision? })
    }

    /// Keeps a release serving.
    fn keep(&mut self, shape: &Shape, current: &Running) -> Go {
        let mut go = self.doors(shape);
        if self.ensure(Part::Serving, render::deployment(shape, current, Gate::Open)) == Go::Stop {
            self.find(Part::Serving, Reason::RollingOut, "the Deployment is being written");
            return Go::Stop;
        }
        go = self.clear_jobs(current).min_with(go);
        let rollout = self.world.live(Kind::Deployment, APP).map(Rollout::of);
        match rollout {
            Some(Rollout::Done) => self.find(Part::Serving, Reason::RolledOut, format!("release {} serves", current.release)),
            Some(Rollout::Underway { available, wanted }) if available > 0 => {
                self.find(
                    Part::Serving,
                    Reason::RollingOut,
                    format!("{available} of {wanted} pods of release {} are available", current.release),
                );
            }
            Some(Rollout::Refused(words)) => self.find(Part::Serving, Reason::QuotaExceeded, words),
            Some(Rollout::Underway { wanted, .. }) => {
                self.find(Part::Serving, Reason::PodsFailing, format!("none of {wanted} pods of release {} is available", current.release));
            }
            Some(Rollout::TimedOut(words)) => self.find(Part::Serving, Reason::PodsFailing, words),
            None => self.find(Part::Serving, Reason::RollingOut, "the Deployment is being written"),
        }
        if self.good(Part::Serving) { go } else { Go::Stop }
    }

    /// Migrates, then rolls out, then looks through the gate.
    fn let_in(&mut self, resolved: &Resolved, shape: &Shape, wanted: &Running, current: Option<&Running>) -> Go {
        self.status.target = Some(wanted.release.clone());
        if let Some(current) = current {
            self.find(Part::Serving, Reason::RollingOut, format!("release {} serves until {} is let in", current.release, wanted.release));
        }
        let migrated = match (shape.embedded(), current) {
            (false, _) => self.migrated(shape, wanted),
            (true, Some(current)) => self.migrated_at_rest(shape, wanted, current),
            (true, None) => {
                self.find(Part::SchemaReady, Reason::SchemaCurrent, "the process makes SQLite's tables at its start");
                Go::On
            }
        };
        if migrated == Go::Stop {
            return Go::Stop;
        }
        self.doors(shape);
        let gate = if current.is_some() { Gate::Watched } else { Gate::Open };
        if self.ensure(Part::Serving, render::deployment(shape, wanted, gate)) == Go::Stop {
            self.find(Part::Serving, Reason::RollingOut, format!("the Deployment of release {} is being written", wanted.release));
            return Go::Stop;
        }
        let Some(rollout) = self.world.live(Kind::Deployment, APP).map(Rollout::of) else { return Go::Stop };
        self.pass_gate(resolved, wanted, &rollout)
    }

    /// Judges a rollout by what its pods do.
    fn pass_gate(&mut self, resolved: &Resolved, wanted: &Running, rollout: &Rollout) -> Go {
        let Some(pods) = &self.world.pods else {
            self.find(Part::Serving, Reason::RollingOut, format!("pods of release {} are being started", wanted.release));
            return self.want(Part::Serving, Step::LookAtPods(wanted.image.clone()));
        };
        let new: Vec<&PodSeen> = pods.iter().filter(|pod| pod.image == wanted.image).collect();
        if let Some(words) = too_many_errors(&new, &resolved.class.spec.rollout) {
            self.stop_release(&wanted.release, &wanted.image, Reason::GateFailed, &words);
            self.find(Part::Serving, Reason::GateFailed, words);
            return Go::Stop;
        }
        let trouble = new.iter().find_map(|pod| pod.trouble.as_ref().map(|words| format!("pod {}: {words}", pod.name)));
        match rollout {
            Rollout::Done => {
                self.status.release = Some(wanted.release.clone());
                self.status.image = Some(wanted.image.clone());
                self.status.render_revision = Some(wanted.revision);
                (self.status.target, self.status.stopped) = (None, None);
                self.find(Part::Serving, Reason::RolledOut, format!("release {} serves", wanted.release));
                return Go::On;
            }
            Rollout::TimedOut(words) => {
                let words = trouble.unwrap_or_else(|| words.clone());
                self.stop_release(&wanted.release, &wanted.image, Reason::RolloutTimedOut, &words);
                self.find(Part::Serving, Reason::RolloutTimedOut, words);
            }
            Rollout::Refused(words) => self.find(Part::Serving, Reason::QuotaExceeded, words.clone()),
            Rollout::Underway { available, wanted: count } => {
                let mut words = format!("{available} of {count} pods of release {} are available", wanted.release);
                if let Some(trouble) = trouble {
                    words = format!("{words}; {trouble}");
                }
                self.find(Part::Serving, Reason::RollingOut, words);
            }
        }
        self.poll();
        Go::Stop
    }

    /// Stops an embedded tenant, and has its file copied and migrated while nobody serves on it; the job puts it back where that fails.
    fn migrated_at_rest(&mut self, shape: &Shape, wanted: &Running, current: &Running) -> Go {
        let Some(master) = self.world.master() else { return Go::Stop };
        let job = self.world.live(Kind::Job, &render::migration_job_name(&wanted.image, self.retry().as_deref()));
        let words = format!("release {} is at rest while its file is copied and migrated for {}", current.release, wanted.release);
        if job.is_none_or(|job| matches!(job_end(job), JobEnd::Running)) {
            let go = self.ensure(Part::Serving, render::at_rest(shape, current));
            self.find(Part::Serving, Reason::RollingOut, words);
            if go == Go::Stop {
                return Go::Stop;
            }
        }
        if job.is_none() {
            let Some(pods) = &self.world.pods else {
                self.find(Part::SchemaReady, Reason::MigrationRunning, format!("release {} is being stopped", current.release));
                return self.want(Part::SchemaReady, Step::LookAtPods(current.image.clone()));
            };
            if !pods.is_empty() {
                let words = format!("{} pods of release {} are being stopped", pods.len(), current.release);
                self.find(Part::SchemaReady, Reason::MigrationRunning, words);
                self.poll();
                return Go::Stop;
            }
            if master.record.copy.as_deref() != Some(wanted.release.as_str()) {
                let mut copied = master.clone();
                copied.record.copy = Some(wanted.release.clone());
                self.find(Part::SchemaReady, Reason::MigrationRunning, "the copy of the file is being written down");
                return self.want(Part::SchemaReady, Step::WriteMaster(Box::new(copied)));
            }
        }
        self.migrated(shape, wanted)
    }

    /// Runs the migration job to its end and reads what it says.
    fn migrated(&mut self, shape: &Shape, wanted: &Running) -> Go {
        let retry = self.retry();
        let job_name = render::migration_job_name(&wanted.image, retry.as_deref());
        let Some(job) = self.world.live(Kind::Job, &job_name) else {
            self.find(Part::SchemaReady, Reason::MigrationRunning, format!("job {job_name} is being made"));
            return self.want(Part::SchemaReady, Step::Create(render::migration_job(shape, wanted, retry.as_deref())));
        };
        match job_end(job) {
            JobEnd::Running => {
                self.find(Part::SchemaReady, Reason::MigrationRunning, format!("job {job_name} migrates for release {}", wanted.release));
                return Go::Stop;
            }
            JobEnd::Failed(_) if self.world.report.is_none() => {
                self.find(Part::SchemaReady, Reason::MigrationRunning, format!("the report of job {job_name} is being read"));
                return self.want(Part::SchemaReady, Step::ReadReport(job_name));
            }
            // It did nothing, for this release may not serve here.
            JobEnd::Failed(_) if matches!(self.world.report, Some(Ok(_))) => {}
            JobEnd::Failed(words) => {
                let said = self.world.report.as_ref().and_then(|report| report.as_ref().err());
                let words = format!("job {job_name}: {}", said.unwrap_or(&words));
                self.stop_release(&wanted.release, &wanted.image, Reason::MigrationFailed, &words);
                self.find(Part::SchemaReady, Reason::MigrationFailed, words);
                return Go::Stop;
            }
            JobEnd::Done => {}
        }
        match &self.world.report {
            None => {
                self.find(Part::SchemaReady, Reason::MigrationRunning, format!("the report of job {job_name} is being read"));
                self.want(Part::SchemaReady, Step::ReadReport(job_name))
            }
            Some(Err(words)) => {
                let words = format!("job {job_name} ended, and its report can't be read: {words}");
                self.stop_release(&wanted.release, &wanted.image, Reason::MigrationFailed, &words);
                self.find(Part::SchemaReady, Reason::MigrationFailed, words);
                Go::Stop
            }
            Some(Ok(report)) if !report.may_serve => {
                let words = format!("release {} may not serve on schema level {}: {}", wanted.release, report.level, report.words);
                self.stop_release(&wanted.release, &wanted.image, Reason::RollbackRefused, &words);
                self.find(Part::SchemaReady, Reason::RollbackRefused, words);
                Go::Stop
            }
            Some(Ok(report)) => {
                self.status.schema_level = Some(report.level);
                self.find(Part::SchemaReady, Reason::SchemaCurrent, schema_words(Some(report.level)));
                Go::On
            }
        }
    }

    /// Services, Ingress, autoscaler and disruption budget: written where wanted, removed where not.
    fn doors(&mut self, shape: &Shape) -> Go {
        let mut go = Go::On;
        for service in render::services(shape) {
            go = self.ensure(Part::Serving, service).min_with(go);
        }
        let optional = [
            (Kind::Ingress, render::ingress(shape)),
            (Kind::HorizontalPodAutoscaler, render::autoscaler(shape)),
            (Kind::PodDisruptionBudget, render::disruption_budget(shape)),
        ];
        for (kind, object) in optional {
            go = match object {
                Some(object) => self.ensure(Part::Serving, object),
                None => self.ensure_gone(Part::Serving, kind, APP),
            }
            .min_with(go);
        }
        let world = self.world;
        self.status.url = Some(match (&shape.ingress, shape.hosts.first()) {
            (Some(ingress), Some(host)) if ingress.tls => format!("https://{host}"),
            (Some(_), Some(host)) => format!("http://{host}"),
            _ => format!("http://{APP}.{}.svc:{}", name::namespace(&world.name()), name::PORT),
        });
        go
    }

    /// Jobs of releases that no longer matter go.
    fn clear_jobs(&mut self, current: &Running) -> Go {
        let keep = render::migration_job_name(&current.image, self.retry().as_deref());
        let old: Vec<String> = self
            .world
            .live
            .keys()
            .filter(|(kind, object)| *kind == Kind::Job && *object != keep)
            .map(|(_, object)| object.clone())
            .collect();
        old.iter().fold(Go::On, |go, job| self.ensure_gone(Part::SchemaReady, Kind::Job, job).min_with(go))
    }

    /// Units and the administrator's key.
    pub(super) fn configured(&mut self, shape: &Shape, master: &Master) -> Go {
        let units = name::digest(render::units(&self.world.tenant).to_string().as_bytes());
        let step = if master.record.units_delivered.as_deref() != Some(units.as_str()) {
            Step::DeliverUnits
        } else if !master.record.admin_delivered {
            // First the secret, then the tenant: a key that works but that nobody has would be lost.
            self.steps.push((Part::Configured, Step::DeliverAdminSecret(Box::new(shape.clone()))));
            Step::DeliverAdminKey
        } else if master.record.copy.is_some() {
            // The gate was passed, or somebody has named the release again that serves.
            Step::DropCopy
        } else {
            let words = format!("the first administrator's key was delivered to secret {}", name::ADMIN_SECRET);
            self.find(Part::Configured, Reason::ConfigurationDelivered, words);
            return Go::On;
        };
        self.find(Part::Configured, Reason::TenantSilent, "the tenant's process is being told what it must know");
        if self.world.failures.contains_key(&Part::Configured) {
            self.poll();
        }
        self.want(Part::Configured, step)
    }
}

impl Go {
    /// `Stop` where either is.
    pub(super) fn min_with(self, other: Go) -> Go {
        if self == Go::Stop { Go::Stop } else { other }
    }
}

fn schema_words(level: Option<i64>) -> String {
    level.map_or_else(|| "the schema fits the release".to_owned(), |level| format!("schema level {level}"))
}

/// Whether the new pods together have answered too many of their requests with errors, within the gate's time. Where most are errors, that
/// is plain at once; anything less shows when a pod has served for half the time, so that what went wrong in its first moments weighs no
/// more than it should.
fn too_many_errors(pods: &[&PodSeen], rollout: &ClassRollout) -> Option<String> {
    let answers = || pods.iter().filter_map(|pod| pod.answers);
    let (all, errors) = (answers().map(|one| one.all).sum::<u64>(), answers().map(|one| one.errors).sum::<u64>());
    if all < ANSWERS_MIN || errors < ERRORS_MIN {
        return None;
    }
    let most = errors.saturating_mul(2) > all;
    let served = pods.iter().filter_map(|pod| pod.ready_seconds).max().unwrap_or_default();
    let allowed = u64::try_from(rollout.errors_per_thousand_max).unwrap_or_default();
    let beyond = errors.saturating_mul(1_000) > allowed.saturating_mul(all);
    if !beyond || !(most || served >= i64::from(rollout.gate_seconds / 2)) {
        return None;
    }
    let worst = pods.iter().max_by_key(|pod| pod.answers.map(|one| one.errors)).map_or("", |pod| pod.name.as_str());
    Some(format!("the new pods answered {errors} of {all} requests with a status of 500 or more, most of them pod {worst}"))
}

fn job_end(job: &Value) -> JobEnd {
    let condition = |kind: &str| {
        job["status"]["conditions"].as_array().into_iter().flatten().find(|one| one["type"] == kind && one["status"] == "True")
    };
    if let Some(failed) = condition("Failed") {
        return JobEnd::Failed(failed["message"].as_str().unwrap_or("it failed").to_owned());
    }
    if condition("Complete").is_some() { JobEnd::Done } else { JobEnd::Running }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Answers;

    #[test]
    fn the_gate_judges_by_the_rate_of_errors_over_time() {
        struct Case {
            what: &'static str,
            /// For how long each new pod has been ready, and its errors of its answers.
            pods: &'static [(Option<i64>, u64, u64)],
            allowed: i32,
            stops: bool,
        }
        let cases = [
            Case { what: "nobody has answered", pods: &[], allowed: 20, stops: false },
            Case { what: "a pod does not answer yet", pods: &[(None, 0, 0)], allowed: 20, stops: false },
            Case { what: "no error", pods: &[(Some(30), 0, 5_000)], allowed: 20, stops: false },
            Case { what: "the rate that is allowed", pods: &[(Some(30), 20, 1_000)], allowed: 20, stops: false },
            Case { what: "a little more", pods: &[(Some(30), 21, 1_000)], allowed: 20, stops: true },
            Case { what: "many errors of very many answers", pods: &[(Some(30), 500, 100_000)], allowed: 20, stops: false },
            Case { what: "few errors of few answers", pods: &[(Some(30), 3, 100)], allowed: 20, stops: true },
            Case { what: "two errors", pods: &[(Some(30), 2, 20)], allowed: 20, stops: false },
            Case { what: "fewer answers than say anything", pods: &[(Some(30), 9, 9)], allowed: 20, stops: false },
            Case { what: "as many as say something, all errors, at once", pods: &[(None, 10, 10)], allowed: 20, stops: true },
            Case { what: "half are errors, at first", pods: &[(Some(1), 10, 20)], allowed: 20, stops: false },
            Case { what: "half are errors, half of the time", pods: &[(Some(15), 10, 20)], allowed: 20, stops: true },
            Case { what: "errors of the first moments", pods: &[(Some(2), 5, 50)], allowed: 20, stops: false },
            Case { what: "and what they are among later", pods: &[(Some(20), 5, 800)], allowed: 20, stops: false },
            Case { what: "one bad pod of five", pods: &[(Some(20), 20, 100), (Some(20), 0, 400)], allowed: 20, stops: true },
            Case { what: "together not too many", pods: &[(Some(20), 20, 100), (Some(20), 0, 1_900)], allowed: 20, stops: false },
            Case { what: "the oldest pod's time counts", pods: &[(Some(20), 0, 10), (Some(1), 5, 90)], allowed: 20, stops: true },
            Case { what: "none is allowed", pods: &[(Some(30), 3, 100_000)], allowed: 0, stops: true },
            Case { what: "all are allowed", pods: &[(Some(30), 100, 100)], allowed: 1_000, stops: false },
        ];
        for case in cases {
            let rollout = ClassRollout { gate_seconds: 30, errors_per_thousand_max: case.allowed, ..ClassRollout::default() };
            let pods: Vec<PodSeen> = case
                .pods
                .iter()
                .enumerate()
                .map(|(number, (ready_seconds, errors, all))| PodSeen {
                    name: format!("pod-{number}"),
                    image: "heyuan:2".into(),
                    ready_seconds: *ready_seconds,
                    trouble: None,
                    answers: Some(Answers { all: *all, errors: *errors }),
                })
                .collect();
            let pods: Vec<&PodSeen> = pods.iter().collect();
            let words = too_many_errors(&pods, &rollout);
            assert_eq!(words.is_some(), case.stops, "{}: {words:?}", case.what);
        }
        let pod = |name: &str, errors| PodSeen {
            name: name.into(),
            image: String::new(),
            ready_seconds: Some(60),
            trouble: None,
            answers: Some(Answers { all: 500, errors }),
        };
        let words = too_many_errors(&[&pod("a", 10), &pod("b", 90)], &ClassRollout::default()).expect("they are too many");
        assert_eq!(words, "the new pods answered 100 of 1000 requests with a status of 500 or more, most of them pod b");
    }
}
