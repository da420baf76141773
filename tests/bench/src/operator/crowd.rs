//! Many tenants at once, in stages that show what grows how; then a new operator that looks at all of them, once and again.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use heyuan_harness::{Access, ApiClient, ControlPlane, OPERATOR_NAMESPACE, Operator, Watch, until};
use serde_json::{Value, json};
use tokio::time::{Instant as Deadline, sleep_until};

use super::spent::Spent;
use super::{LIMIT, is_ready, tenant, whole};
use crate::report::{Bar, Report, Row};
use crate::run::{Size, peak_mib, resident_mib};

/// Tenants of one `kubectl apply`.
const APPLIED: usize = 100;
/// How often the second operator looks at a tenant in which nothing has changed, in seconds; ten minutes where nobody sets it.
const RESYNC_SECONDS: &str = "60";
/// How often the second operator is asked how far it has come.
const ASKED: Duration = Duration::from_millis(200);
/// A MiB.
const MIB: f64 = 1_048_576.0;
/// The machine is at rest when its processes use less of a second than this.
const REST: Duration = Duration::from_millis(300);
/// What is bounded by a thousand tenants.
const CONVERGED: Bar = Bar::AtMost(300.0);
const MEMORY: Bar = Bar::AtMost(128.0);

const WRITES: [&str; 5] = ["apply", "create", "patch", "update", "delete"];
const READS: [&str; 2] = ["get", "list"];

/// Where the crowd lives.
pub(super) struct Ground<'a> {
    pub(super) plane: &'a ControlPlane,
    pub(super) admin: &'a Access,
    pub(super) account: &'a Access,
}

impl Ground<'_> {
    /// Makes the crowd and measures it; `before` tenants are there.
    pub(super) async fn many(&self, report: &mut Report, operator: Operator, before: usize, size: Size) {
        let mut crowd = Crowd::new(self.admin.client());
        let managed = size.pick(whole("DATABASES", 100), 3);
        let began = Instant::now();
        self.apply("database", 0..managed, "managed").await;
        crowd.wait(before + managed).await;
        let method = format!("{managed} tenants with a database each in one kubectl apply; PostgreSQL and etcd sync what they write");
        let seconds = began.elapsed().as_secs_f64();
        report.add(Row::new("operator: tenants with a database at once, until all are ready", seconds, "s", Bar::None, &method));
        let before = before + managed;
        let (mut there, mut took) = (0, Duration::ZERO);
        let tenants = size.pick(whole("TENANTS", 1_000), 10);
        for count in [tenants / 10, tenants * 3 / 10, tenants] {
            took += self.stage(report, &operator, &mut crowd, before, there..count).await;
            there = count;
        }
        let method =
            format!("{there} embedded tenants in three stages, each applied {APPLIED} at a time and waited for; the sum of their times");
        report.add(Row::new("operator: tenants until all are ready", took.as_secs_f64(), "s", CONVERGED, &method));
        let peak = peak_mib(operator.id()).expect("the operator runs");
        let method = format!("VmHWM of the process that has made them, with {before} tenants with a database beside");
        report.add(Row::new("operator: memory, at most so far", peak, "MiB", MEMORY, &method));
        drop(operator);
        self.look(report, before + there).await;
    }

    /// More embedded tenants, until all are ready.
    async fn stage(
        &self,
        report: &mut Report,
        operator: &Operator,
        crowd: &mut Crowd,
        before: usize,
        numbers: std::ops::Range<usize>,
    ) -> Duration {
        let (count, new) = (numbers.end, numbers.len());
        let processes = self.processes(operator);
        let counted = async || {
            let calls = operator.metric("heyuan_operator_api_calls_total", "").await;
            (calls, operator.metric("heyuan_operator_reconcile_seconds_count", "").await)
        };
        let (calls, looks) = counted().await;
        let (spent, began) = (Spent::by_now(&processes), Instant::now());
        self.apply("many", numbers, "embedded").await;
        let applied = began.elapsed();
        crowd.wait(before + count).await;
        let (took, spent) = (began.elapsed(), Spent::by_now(&processes).since(&spent));
        let (calls_then, looks_then) = counted().await;
        let each = |more: f64| more / new as f64;
        let method = format!(
            "{new} embedded tenants, applied within {:.1} s; a tenant: {:.1} calls, {:.1} looks, milliseconds of processor time: {}",
            applied.as_secs_f64(),
            each(calls_then - calls),
            each(looks_then - looks),
            spent.words(new)
        );
        report.add(Row::new(&format!("operator: from {} to {count} tenants", count - new), took.as_secs_f64(), "s", Bar::None, &method));
        quiet(90).await;
        let objects = operator.metric("heyuan_operator_objects", "").await;
        let bytes = operator.metric("heyuan_operator_object_bytes", "").await;
        let listing = Instant::now();
        let listed = self.admin.kubectl(&["get", "tenants"]).await;
        let [file, used] = ["total_size_in_bytes", "total_size_in_use_in_bytes"]
            .map(|what| async move { self.plane.etcd_metric(&format!("etcd_mvcc_db_{what}")).await / MIB });
        let memory = |name: &str| self.plane.processes().iter().find(|(one, _)| *one == name).map_or(0.0, |(_, id)| resident_mib(*id));
        let method = format!(
            "VmRSS at rest, with {before} tenants with a database beside; {objects} objects held in {:.1} MiB; API server {:.0} MiB, \
             controllers {:.0}, etcd {:.0} and {:.1} in its file, {:.1} of it in use; kubectl get tenants {:.2} s, {} KiB",
            bytes / MIB,
            memory("API server"),
            memory("controllers"),
            memory("etcd"),
            file.await,
            used.await,
            listing.elapsed().as_secs_f64(),
            listed.len() / 1024
        );
        report.add(Row::new(&format!("operator: memory with {count} tenants"), resident_mib(operator.id()), "MiB", MEMORY, &method));
        took
    }

    /// A new operator looks at every converged tenant: at its start, and when it has not heard of one for a while.
    async fn look(&self, report: &mut Report, tenants: usize) {
        // The dead leader's lease would only be waited for.
        self.admin.kubectl(&["delete", "lease", "--all", "-n", OPERATOR_NAMESPACE]).await;
        let began = Instant::now();
        let operator = Operator::start_as_installed(self.account, &["--resync-seconds", RESYNC_SECONDS]);
        let processes = self.processes(&operator);
        let mut before = (0.0, 0.0, Spent::by_now(&processes));
        for (round, what) in [(1, "first look"), (2, "resync")] {
            until("the operator has looked at every tenant", LIMIT, || async {
                // Whoever asks more often is what is measured.
                sleep_until(Deadline::now() + ASKED).await;
                (operator.metric("heyuan_operator_unchanged_total", "").await >= (round * tenants) as f64).then_some(())
            })
            .await;
            let seconds = began.elapsed().as_secs_f64();
            if round == 1 {
                // What comes with a start beside the looks; it ends before the next look.
                quiet(30).await;
            }
            let now = (calls(&operator, &WRITES).await, calls(&operator, &READS).await, Spent::by_now(&processes));
            let spent = now.2.since(&before.2);
            let method = match round {
                1 => format!("a new operator, from its start; a tenant's milliseconds of processor time: {}", spent.words(tenants)),
                _ => format!(
                    "{RESYNC_SECONDS} s and up to a tenth later; a tenant's milliseconds of processor time: {}",
                    spent.words(tenants)
                ),
            };
            let seconds = if round == 1 { seconds } else { spent.of("operator").as_secs_f64() };
            let measure = if round == 1 { "time" } else { "processor time of the operator" };
            report.add(Row::new(&format!("operator: {what} at {tenants} tenants, {measure}"), seconds, "s", Bar::None, &method));
            let method = "counted by verb, whoever answers; lists, watches and the lease are not among them";
            report.add(Row::new(&format!("operator: writes of a {what}"), now.0 - before.0, "requests", Bar::AtMost(0.0), method));
            let each = (now.1 - before.1) / tenants as f64;
            let bar = if round == 1 { Bar::None } else { Bar::AtMost(1.0) };
            report.add(Row::new(&format!("operator: reads of a {what}, a tenant"), each, "requests", bar, method));
            before = now;
        }
        let peak = peak_mib(operator.id()).expect("the operator runs");
        let method = format!("VmHWM of the new process; VmRSS at the end {:.1} MiB", resident_mib(operator.id()));
        report.add(Row::new("operator: memory of a new process, at most", peak, "MiB", MEMORY, &method));
    }

    fn processes(&self, operator: &Operator) -> Vec<(&'static str, u32)> {
        [vec![("operator", operator.id())], self.plane.processes()].concat()
    }

    async fn apply(&self, prefix: &str, numbers: std::ops::Range<usize>, database: &str) {
        let numbers: Vec<usize> = numbers.collect();
        for part in numbers.chunks(APPLIED) {
            let object = |number: &usize| tenant(&format!("{prefix}-{number}"), &json!({ (database): {} })).to_string();
            let objects: Vec<String> = part.iter().map(object).collect();
            self.admin.apply(&objects.join("\n---\n")).await.expect("the tenants are taken");
        }
    }
}

/// Calls to the API server so far, with one of these verbs.
async fn calls(operator: &Operator, verbs: &[&str]) -> f64 {
    let mut calls = 0.0;
    for verb in verbs {
        calls += operator.metric("heyuan_operator_api_calls_total", &format!("verb=\"{verb}\"")).await;
    }
    calls
}

/// Waits until nobody has much to do any more, so that what is resident is what is needed; for so many seconds at most.
async fn quiet(seconds_max: u32) {
    for _ in 0..seconds_max {
        let before = Spent::by_now(&[]);
        sleep_until(Deadline::now() + Duration::from_secs(1)).await;
        if Spent::by_now(&[]).since(&before).all() < REST {
            return;
        }
    }
}

/// Which tenants are ready, as a watch tells.
struct Crowd {
    api: ApiClient,
    watch: Option<Watch>,
    ready: HashSet<String>,
}

impl Crowd {
    fn new(api: ApiClient) -> Self {
        Self { api, watch: None, ready: HashSet::new() }
    }

    /// Waits until so many are.
    async fn wait(&mut self, count: usize) {
        let deadline = Instant::now() + LIMIT;
        while self.ready.len() < count {
            assert!(Instant::now() < deadline, "{} of {count} tenants are ready", self.ready.len());
            let Some(event) = self.next().await else { continue };
            let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
            if event["type"] != "DELETED" && is_ready(&event["object"]) {
                self.ready.insert(name.to_owned());
            } else {
                self.ready.remove(name);
            }
        }
    }

    /// The next event; a watch that has ended is begun anew, with all that is there.
    async fn next(&mut self) -> Option<Value> {
        if self.watch.is_none() {
            self.watch = self.api.watch("/apis/heyuan.dev/v1alpha1/tenants?timeoutSeconds=1800").await;
            self.ready.clear();
        }
        let event = self.watch.as_mut()?.next().await.filter(|event| event["type"] != "ERROR");
        if event.is_none() {
            self.watch = None;
        }
        event
    }
}
