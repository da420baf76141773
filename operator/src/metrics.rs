//! What the operator counts, as `/metrics` shows it.

use prometheus::{Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

/// Every instrument.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    calls: IntCounterVec,
    /// Tenants by state.
    pub(crate) tenants: IntGaugeVec,
    /// Time of a reconciliation.
    pub(crate) reconcile_seconds: Histogram,
    /// Reconciliations that ended with an error.
    pub(crate) reconcile_errors: IntCounter,
    /// Reconciliations that are running.
    pub(crate) reconciling: IntGauge,
    /// Reconciliations that found nothing to write.
    pub(crate) unchanged: IntCounter,
    /// Records of what could not be removed.
    pub(crate) leftovers: IntGauge,
    /// Connections that tenants may open, by server.
    pub(crate) database_budgeted: IntGaugeVec,
    /// Connections that the server allows in all, by server.
    pub(crate) database_connections_max: IntGaugeVec,
    /// Objects that are held in memory.
    pub(crate) objects: IntGauge,
    /// Their bytes as they are held.
    pub(crate) object_bytes: IntGauge,
    /// Whether this process leads.
    pub(crate) leading: IntGauge,
}

impl Metrics {
    /// Registers everything.
    pub(crate) fn new() -> Metrics {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels).expect("a constant name");
            registry.register(Box::new(counters.clone())).expect("registered once");
            counters
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), labels).expect("a constant name");
            registry.register(Box::new(gauges.clone())).expect("registered once");
            gauges
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help).expect("a constant name");
            registry.register(Box::new(gauge.clone())).expect("registered once");
            gauge
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help).expect("a constant name");
            registry.register(Box::new(counter.clone())).expect("registered once");
            counter
        };
        let buckets = vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        let reconcile_seconds =
            Histogram::with_opts(HistogramOpts::new("heyuan_operator_reconcile_seconds", "Time of a reconciliation").buckets(buckets))
                .expect("constant buckets");
        registry.register(Box::new(reconcile_seconds.clone())).expect("registered once");
        Metrics {
            calls: counters("heyuan_operator_api_calls_total", "Calls of the API server", &["verb", "kind"]),
            tenants: gauges("heyuan_operator_tenants", "Tenants by state", &["state"]),
            reconcile_seconds,
            reconcile_errors: counter("heyuan_operator_reconcile_errors_total", "Reconciliations that ended with an error"),
            reconciling: gauge("heyuan_operator_reconciling", "Reconciliations that are running"),
            unchanged: counter("heyuan_operator_unchanged_total", "Reconciliations that found nothing to write"),
            leftovers: gauge("heyuan_operator_leftovers", "Records of what could not be removed and is tried again"),
            database_budgeted: gauges(
                "heyuan_operator_database_connections_budgeted",
                "Connections that tenants may open on a server",
                &["class", "server"],
            ),
            database_connections_max: gauges(
                "heyuan_operator_database_connections_max",
                "Connections that a server allows in all",
                &["class", "server"],
            ),
            objects: gauge("heyuan_operator_objects", "Objects that are held in memory"),
            object_bytes: gauge("heyuan_operator_object_bytes", "Bytes of the objects that are held in memory"),
            leading: gauge("heyuan_operator_leading", "1 while this process leads"),
            registry,
        }
    }

    /// Counts a call of the API server.
    pub(crate) fn called(&self, verb: &str, kind: &str) {
        self.calls.with_label_values(&[verb, kind]).inc();
    }

    /// Everything in the Prometheus text format.
    pub(crate) fn render(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::warn!(%error, "the metrics could not be written out");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}
