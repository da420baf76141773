//! `heyuan-operator run`: the operator's process, from its start to its stop.

use crate::context::Context;
use crate::crd::{Tenant, TenantClass};
use crate::kubernetes::{self, Kubernetes};
use crate::leader::Reign;
use crate::live::{self, Live};
use crate::metrics::Metrics;
use crate::name;
use crate::tenant_api::TenantApi;
use crate::world::Config;
use crate::{doors, leader, leftovers, plugins, reconcile, telemetry};
use clap::Args;
use futures::{Stream, StreamExt};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// First and longest pause before a failed reconciliation is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// As how many failures in a row it counts when a reconciliation failed that had got something done.
const PROGRESSED: u32 = 1;
/// How often gauges are counted anew.
const COUNTED: Duration = Duration::from_secs(15);

/// Everything that can be set.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunOptions {
    /// The operator's own namespace, where the master copies of all keys are
    #[arg(long, env = "HEYUAN_OPERATOR_NAMESPACE", default_value = "heyuan-system")]
    namespace: String,
    /// The service account that the operator runs under
    #[arg(long, env = "HEYUAN_OPERATOR_SERVICE_ACCOUNT", default_value = "heyuan-operator")]
    service_account: String,
    /// Address and port of /livez, /readyz and /metrics
    #[arg(long, env = "HEYUAN_OPERATOR_LISTEN", default_value = "0.0.0.0:8090")]
    listen: String,
    /// Tenants that are reconciled at once
    #[arg(long, env = "HEYUAN_OPERATOR_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// How long the lease of the leader lasts, in seconds
    #[arg(long, env = "HEYUAN_OPERATOR_LEASE_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(3..=300))]
    lease_seconds: u64,
    /// How often something that is underway is looked at, in milliseconds
    #[arg(long, env = "HEYUAN_OPERATOR_POLL_MS", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    poll_ms: u64,
    /// How often a tenant that is as it should be is looked at, in seconds; up to a tenth more by chance
    #[arg(long, env = "HEYUAN_OPERATOR_RESYNC_SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    resync_seconds: u64,
    /// How long the API server may take to answer a call, in seconds
    #[arg(long, env = "HEYUAN_OPERATOR_CALL_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=60))]
    call_seconds: u64,
    /// How long a watch lasts until it is begun anew, in seconds: where nothing comes any more and nobody says so, it is noticed then
    #[arg(long, env = "HEYUAN_OPERATOR_WATCH_SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(5..=290))]
    watch_seconds: u32,
    /// How long processes may take to go over to a new password until a person is called, in seconds
    #[arg(long, env = "HEYUAN_OPERATOR_ROTATION_SECONDS_MAX", default_value_t = 600)]
    rotation_seconds_max: u32,
    /// How long a database that does not answer may hold up a tenant's end until what is left is written down, in seconds
    #[arg(long, env = "HEYUAN_OPERATOR_LEFTOVER_SECONDS", default_value_t = 600)]
    leftover_seconds: u32,
    /// How logs look
    #[arg(long, env = "HEYUAN_OPERATOR_LOG_FORMAT", value_enum, default_value_t = telemetry::LogFormat::Text)]
    log_format: telemetry::LogFormat,
    /// What is logged, in the syntax of RUST_LOG
    #[arg(long, env = "HEYUAN_OPERATOR_LOG_FILTER", default_value = "info,kube=warn,sqlx=warn,actix_server=warn")]
    log_filter: String,
    /// Where traces go (OTLP over HTTP); nowhere when left out
    #[arg(long, env = "HEYUAN_OPERATOR_OTLP_ENDPOINT")]
    otlp_endpoint: Option<String>,
}

impl RunOptions {
    fn config(&self) -> Config {
        Config {
            namespace: self.namespace.clone(),
            service_account: self.service_account.clone(),
            poll_ms: self.poll_ms,
            resync: Duration::from_secs(self.resync_seconds),
            rotation_seconds_max: i64::from(self.rotation_seconds_max),
            leftover_seconds: i64::from(self.leftover_seconds),
        }
    }
}

/// Runs until it is told to stop or loses the lease.
///
/// # Errors
/// What keeps it from starting, or the lost lease.
pub(crate) async fn run(options: RunOptions) -> anyhow::Result<()> {
    let traces = telemetry::start(&options.log_filter, options.log_format, options.otlp_endpoint.as_deref())?;
    let client = kubernetes::connect(options.watch_seconds).await?;
    let metrics = Arc::new(Metrics::new());
    let live = Arc::new(Live::default());
    let doors = doors::open(&options.listen, metrics.clone(), live.clone())?;
    tokio::spawn(doors);
    let mut lease = leader::lead(&options.namespace, options.lease_seconds).await?;
    metrics.leading.set(1);
    tracing::info!("this process leads");
    let (reign, of_work) = (lease.reign(), metrics.clone());
    let working = tokio::spawn(reign.clone().bound(async move { work(&options, client, of_work, live, &reign).await }));
    let result = tokio::select! {
        biased;
        lost = lease.lost() => {
            metrics.leading.set(0);
            Err(lost)
        }
        ended = working => Ok(ended?),
        () = told_to_stop() => {
            tracing::info!("stopping");
            lease.release().await;
            Ok(())
        }
    };
    telemetry::stop(traces);
    result
}

/// Everything that only the leader does.
async fn work(options: &RunOptions, client: Client, metrics: Arc<Metrics>, live: Arc<Live>, reign: &Reign) {
    let call_max = Duration::from_secs(options.call_seconds);
    let kubernetes = Kubernetes { client: client.clone(), live: live.clone(), metrics, call_max };
    let Ok(tenant_api) = TenantApi::new() else { return tracing::error!("TLS can't be set up") };
    let reporter = Reporter { controller: name::FIELD_MANAGER.to_owned(), instance: None };
    let (classes, class_writer) = reflector::store();
    let context =
        Arc::new(Context::new(kubernetes, tenant_api, options.config(), classes.clone(), Recorder::new(client.clone(), reporter)));
    let watched = kubernetes::watched(options.watch_seconds);
    let changed = live::follow(&client, &live, &options.namespace, &watched).map(|tenant| ObjectRef::<Tenant>::new(&tenant));
    let (tenants, tenant_writer) = reflector::store();
    // Who wrote which field is most of what a Tenant takes in memory, and nobody asks.
    let told = watcher(Api::<Tenant>::all(client.clone()), watched.clone()).modify(|tenant| tenant.metadata.managed_fields = None);
    let controller = Controller::for_stream(told.reflect(tenant_writer).applied_objects(), tenants.clone());
    let of_classes = follow_classes(&client, &watched, class_writer, tenants.clone());
    let failures = Arc::new(Failures::default());
    let settings = kube::runtime::controller::Config::default().concurrency(options.concurrency);
    tokio::spawn(count(context.clone(), tenants.clone()));
    tokio::spawn(reign.clone().bound(leftovers::run(context.clone())));
    tokio::spawn(reign.clone().bound(plugins::run(context.clone(), tenants.clone(), watched)));
    let policy_failures = failures.clone();
    controller
        .with_config(settings)
        .reconcile_on(changed)
        .reconcile_on(of_classes)
        .run(
            move |tenant, context| {
                let failures = failures.clone();
                async move {
                    let tenant_name = tenant.name_any();
                    let result = reconcile::reconcile(tenant, context).await;
                    if result.is_ok() {
                        failures.forget(&tenant_name);
                    }
                    result
                }
            },
            move |tenant: Arc<Tenant>, error, _| {
                let pause = policy_failures.pause(&tenant.name_any(), error.progressed());
                tracing::debug!(tenant.name = tenant.name_any(), %error, "tried again in {} ms", pause.as_millis());
                Action::requeue(pause)
            },
            context,
        )
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!(%error, "a reconciliation ended with an error");
            }
        })
        .await;
}

/// Tenants of a class are looked at when the class has changed; the class is known by then.
fn follow_classes(
    client: &Client,
    watched: &watcher::Config,
    writer: reflector::store::Writer<TenantClass>,
    tenants: Store<Tenant>,
) -> impl Stream<Item = ObjectRef<Tenant>> + Send + 'static + use<> {
    let events = watcher(Api::<TenantClass>::all(client.clone()), watched.clone()).default_backoff();
    reflector::reflector(writer, events).touched_objects().flat_map(move |class| {
        let touched: Vec<ObjectRef<Tenant>> = match class {
            Ok(class) => {
                let class = class.name_any();
                tenants.state().iter().filter(|tenant| tenant.spec.class == class).map(|tenant| ObjectRef::from_obj(&**tenant)).collect()
            }
            Err(error) => {
                tracing::warn!(%error, "the watch of classes broke off and is begun again");
                Vec::new()
            }
        };
        futures::stream::iter(touched)
    })
}

/// Gauges that are counted from what is held.
async fn count(context: Arc<Context>, tenants: Store<Tenant>) {
    loop {
        let mut states: HashMap<String, i64> = HashMap::new();
        for tenant in tenants.state() {
            let state = tenant.status.as_ref().and_then(|status| status.state.clone()).unwrap_or_else(|| "New".to_owned());
            *states.entry(state).or_default() += 1;
        }
        let metrics = &context.kubernetes.metrics;
        for state in ["New", "Ready", "Progressing", "Degraded", "Paused", "Deleting"] {
            metrics.tenants.with_label_values(&[state]).set(states.get(state).copied().unwrap_or_default());
        }
        tokio::time::sleep(COUNTED).await;
    }
}

async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(error) => {
            tracing::error!(%error, "signals can't be received: stop the process by killing it");
            std::future::pending::<()>().await;
        }
    }
}

/// How often each tenant has failed in a row.
#[derive(Default)]
struct Failures(Mutex<HashMap<String, u32>>);

impl Failures {
    /// The pause before the next try: twice as long each time, and up to a half more by chance, so that tenants don't come all at once.
    /// Who got somewhere is tried again soon, or one refusal after the other would make a tenant wait for minutes.
    fn pause(&self, tenant: &str, progressed: bool) -> Duration {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(tenant.to_owned()).or_default();
        if progressed {
            *count = (*count).min(PROGRESSED);
        }
        let (first, longest) = BACKOFF;
        let pause = first.saturating_mul(1 << (*count).min(10)).min(longest);
        *count += 1;
        pause + pause.mul_f64(rand::random::<f64>() / 2.0)
    }

    fn forget(&self, tenant: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(tenant);
    }
}
