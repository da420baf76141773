//! `/metrics`: what an operator watches, read when it is asked for.

use crate::admin::Pumps;
use crate::health::SEEN_WITHIN;
use actix_web::http::{Method, header};
use actix_web::{HttpResponse, get, web};
use heyuan_cdp::Cdp;
use heyuan_kernel::bodies::Bodies;
use heyuan_kernel::lag::Lag;
use heyuan_kernel::{Kernel, Problem, telemetry, time};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Gauge, Histogram};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Upper bounds of a request's duration, in seconds.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Methods that have a label of their own.
const METHODS: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"];

/// The server's own instruments.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: Histogram<f64>,
    lag: Lag,
    waiting_events: Gauge<i64>,
    waiting_bytes: Gauge<i64>,
    waiting_ms: Gauge<i64>,
    tail_events: Gauge<i64>,
    tail_bytes: Gauge<i64>,
    rejected_bytes: Gauge<i64>,
    rejected_unkept: Gauge<i64>,
    body_bytes: Gauge<i64>,
    /// When the tables were last read.
    read_at: Mutex<Option<Instant>>,
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let meter = telemetry::meter();
        let gauge = |name: &'static str, what: &'static str| meter.i64_gauge(name).with_description(what).build();
        let requests = meter.f64_histogram("http.server.request.duration").with_unit("s").with_boundaries(SECONDS.to_vec());
        Metrics {
            requests: requests.with_description("How long requests took, by route and status").build(),
            lag: Lag::new(),
            waiting_events: gauge("heyuan_inbox_events", "Events that are acknowledged and not processed yet"),
            waiting_bytes: gauge("heyuan_inbox_bytes", "Compressed bytes of these events"),
            waiting_ms: gauge("heyuan_inbox_oldest_ms", "How long the oldest of them has waited"),
            tail_events: gauge("heyuan_tail_events", "Events that are processed and wait for the lake"),
            tail_bytes: gauge("heyuan_tail_bytes", "Compressed bytes of these events"),
            rejected_bytes: gauge("heyuan_rejected_bytes", "Bytes of the rejected events that are kept"),
            rejected_unkept: gauge(
                "heyuan_rejected_unkept_events",
                "Rejected events that were not kept, or not for their days, for want of room",
            ),
            body_bytes: gauge("heyuan_body_bytes", "Bytes of the bodies of requests that are in memory"),
            read_at: Mutex::default(),
        }
    }

    /// A request that was answered; `route` is the pattern, so that no id becomes a label.
    pub(crate) fn answered(&self, method: &Method, route: &str, status: u16, took: Duration) {
        // A stranger may invent methods; each would be a series for ever.
        let method = METHODS.into_iter().find(|known| method.as_str() == *known).unwrap_or("_OTHER");
        let labels = [
            KeyValue::new("http.request.method", method),
            KeyValue::new("http.route", route.to_owned()),
            KeyValue::new("http.response.status_code", i64::from(status)),
        ];
        self.requests.record(took.as_secs_f64(), &labels);
    }

    async fn observe(&self, kernel: &Kernel, cdp: &Cdp, pumps: &Pumps, bodies: &Bodies) -> Result<(), Problem> {
        self.body_bytes.record(whole(bodies.taken()), &[]);
        let read_at = *self.read_at.lock().unwrap_or_else(PoisonError::into_inner);
        // At rest nobody commits anything, so that the figures stand.
        if read_at.is_some_and(|at| kernel.db.rest().holds_since(at, SEEN_WITHIN)) {
            return Ok(());
        }
        let begun = Instant::now();
        let consumers: Vec<(&'static str, i64)> = pumps.0.iter().map(|(name, pump)| (*name, pump.looked_at())).collect();
        self.lag.observe(&kernel.db, &consumers).await?;
        let waiting = cdp.waiting().await?;
        self.waiting_events.record(waiting.events, &[]);
        self.waiting_bytes.record(waiting.bytes, &[]);
        self.waiting_ms.record(waiting.oldest.map_or(0, |oldest| (time::now_ms() - oldest).max(0)), &[]);
        let tail = cdp.waiting_for_lake().await?;
        self.tail_events.record(tail.events, &[]);
        self.tail_bytes.record(tail.bytes, &[]);
        let (bytes, unkept) = cdp.rejected_totals().await?;
        self.rejected_bytes.record(bytes, &[]);
        self.rejected_unkept.record(unkept, &[]);
        *self.read_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun);
        Ok(())
    }
}

fn whole(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[utoipa::path(tag = "Health", summary = "Metrics in the Prometheus text format", responses((status = 200, description = "Metrics")))]
#[get("/metrics")]
pub(crate) async fn metrics(
    kernel: web::Data<Kernel>,
    cdp: web::Data<Cdp>,
    pumps: web::Data<Pumps>,
    metrics: web::Data<Metrics>,
    bodies: web::Data<Bodies>,
    running: web::Data<telemetry::Running>,
) -> HttpResponse {
    // Without the database the last figures are better than none.
    if let Err(problem) = metrics.observe(&kernel, &cdp, &pumps, &bodies).await {
        tracing::warn!(%problem, "what waits could not be read for the metrics");
    }
    HttpResponse::Ok().insert_header((header::CONTENT_TYPE, "text/plain; version=0.0.4")).body(running.render())
}
