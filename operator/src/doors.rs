//! What the operator's own probes and Prometheus ask.

use crate::live::Live;
use crate::metrics::Metrics;
use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::Context;
use std::sync::Arc;

/// Opens the port; the future serves it.
///
/// # Errors
/// Where the address can't be listened on.
pub(crate) fn open(
    listen: &str,
    metrics: Arc<Metrics>,
    live: Arc<Live>,
) -> anyhow::Result<impl Future<Output = std::io::Result<()>> + use<>> {
    let (metrics, live) = (web::Data::from(metrics), web::Data::from(live));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(metrics.clone())
            .app_data(live.clone())
            .route("/livez", web::get().to(|| async { "ok" }))
            .route("/readyz", web::get().to(ready))
            .route("/metrics", web::get().to(tell))
    })
    .workers(1)
    .disable_signals()
    .bind(listen)
    .with_context(|| format!("could not listen on {listen}"))?;
    Ok(server.run())
}

async fn tell(metrics: web::Data<Metrics>, live: web::Data<Live>) -> String {
    let (count, bytes) = live.size();
    metrics.objects.set(i64::try_from(count).unwrap_or(i64::MAX));
    metrics.object_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    metrics.render()
}

/// A process that waits for the lease is ready to take over; one that leads is ready when it has seen everything once.
async fn ready(metrics: web::Data<Metrics>, live: web::Data<Live>) -> HttpResponse {
    if metrics.leading.get() == 0 || live.is_ready() {
        HttpResponse::Ok().body("ok")
    } else {
        HttpResponse::ServiceUnavailable().body("listing")
    }
}
