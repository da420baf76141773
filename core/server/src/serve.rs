//! `heyuan serve`: the process of a tenant, from its start to its stop.

use crate::admin::{self, Pumps};
use crate::books;
use crate::follow;
use crate::metrics::Metrics;
use crate::page;
use crate::place::{Place, Schema};
use crate::plugins;
use crate::rooms::Rooms;
use crate::settings::Settings;
use actix_web::body::MessageBody;
use actix_web::dev::{ServerHandle, ServiceRequest, ServiceResponse};
use actix_web::error::{PathError, QueryPayloadError};
use actix_web::http::header;
use actix_web::middleware::{Next, NormalizePath, from_fn};
use actix_web::{App, FromRequest, HttpMessage, HttpRequest, HttpServer, web};
use anyhow::Context;
use heyuan_kernel::bodies::Bodies;
use heyuan_kernel::http::{Authenticated, header_text};
use heyuan_kernel::processor::{Processor, Task};
use heyuan_kernel::pump::{Pump, Sequencer};
use heyuan_kernel::stopping::Stopping;
use heyuan_kernel::text::check_address;
use heyuan_kernel::{Actor, Kernel, Problem, telemetry};
use sea_orm::DbBackend;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::Instrument;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_actix_web::AppExt;
use utoipa_actix_web::service_config::ServiceConfig;

/// Serves until it is told to stop.
///
/// # Errors
/// What keeps it from starting, in words.
pub(crate) async fn serve(place: &Place, listen: &str) -> anyhow::Result<()> {
    let settings = place.settings()?;
    let running = web::Data::new(telemetry::start(&settings.telemetry)?);
    let _lock = place.lock()?;
    let kernel = place.open(&settings, Schema::Prepare).await?;
    let rooms = Rooms::open(&kernel, place, &settings).await?;
    rooms.plugins.warm().await.map_err(|problem| anyhow::anyhow!("an active plugin can't be made ready: {problem}"))?;
    let pumps: Vec<(&'static str, Arc<Pump>)> =
        rooms.reactions().into_iter().map(|reaction| (reaction.consumer(), Arc::new(Pump::new(kernel.db.clone(), reaction)))).collect();
    let mut tasks: Vec<Arc<dyn Task>> = vec![Arc::new(Sequencer::new(kernel.db.clone(), pumps.iter().map(|(name, _)| *name).collect()))];
    tasks.extend(pumps.iter().map(|(_, pump)| pump.clone() as Arc<dyn Task>));
    tasks.extend(rooms.tasks());
    let (stop, stopped) = watch::channel(false);
    let holder = format!("{}-{}", std::process::id(), uuid_text());
    if kernel.db.backend() == DbBackend::Postgres {
        tokio::spawn(follow::units(kernel.org.clone(), stopped.clone()));
    }
    let processor = tokio::spawn(Processor::new(kernel.db.clone(), holder, tasks).run(stopped));
    let result = serve_http(&settings, listen, kernel, rooms, web::Data::new(Pumps(pumps)), running.clone()).await;
    let _ = stop.send(true);
    processor.await.context("the processor broke off")?;
    running.stop();
    result
}

fn uuid_text() -> String {
    Kernel::new_id::<heyuan_contract::KeyId>("process").to_string()
}

async fn serve_http(
    settings: &Settings,
    listen: &str,
    kernel: Kernel,
    rooms: Rooms,
    pumps: web::Data<Pumps>,
    running: web::Data<telemetry::Running>,
) -> anyhow::Result<()> {
    let document = web::Data::new(openapi().to_json()?);
    let kernel = web::Data::new(kernel);
    let metrics = web::Data::new(Metrics::new());
    let (stop, stopped) = watch::channel(false);
    let stopping = web::Data::new(Stopping::new(stopped));
    let bodies = web::Data::new(Bodies::new(settings.http.bounds()?));
    // Actix counts by worker.
    let connections_max = (settings.http.connections_max / settings.http.workers).max(1);
    let server = HttpServer::new(move || {
        let (app, _) = App::new()
            .app_data(kernel.clone())
            .app_data(pumps.clone())
            .app_data(running.clone())
            .app_data(metrics.clone())
            .app_data(bodies.clone())
            .app_data(document.clone())
            .app_data(stopping.clone())
            .app_data(web::PathConfig::default().error_handler(path_problem))
            .app_data(web::QueryConfig::default().error_handler(query_problem))
            .into_utoipa_app()
            .configure(|config| routes(config, Some(&rooms)))
            .split_for_parts();
        let app = app.wrap(from_fn(bodies_bounded)).wrap(from_fn(strangers_first)).wrap(from_fn(observed));
        // Outermost, for the others look at the path: some clients end theirs with a slash.
        let app = app.wrap(NormalizePath::trim());
        app.service(page::docs).service(page::document).default_service(web::to(admin::no_such_path))
    })
    .workers(settings.http.workers)
    .max_connections(connections_max)
    .keep_alive(KEEP_ALIVE)
    .client_disconnect_timeout(LINGER)
    .shutdown_timeout(settings.http.stop_seconds_max)
    .bind(listen)
    .with_context(|| format!("could not listen on {listen}"))?;
    for address in server.addrs() {
        announce(&format!("listening on http://{address}"));
    }
    let server = server.disable_signals().run();
    tokio::spawn(stop_when_told(server.handle(), stop));
    server.await.context("the server broke off")
}

/// Ctrl-C and SIGTERM end alike: no new connections, running requests to their end, and an end for what has none.
async fn stop_when_told(server: ServerHandle, stop: watch::Sender<bool>) {
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(error) => return tracing::error!(%error, "signals can't be received: stop the process by killing it"),
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping: running requests are answered first");
    stop.send_replace(true);
    server.stop(true).await;
}

/// Said on standard output and at once: whoever started the process waits for it.
fn announce(line: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
        tracing::warn!(%error, line, "standard output can't be written");
    }
}

/// How long an idle connection stays open: longer than clients and load balancers keep theirs, so that it is them who close it and no
/// request meets a closing connection.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long what a refused sender still sends is read and thrown away, so that it sees the answer and not a broken connection.
const LINGER: Duration = Duration::from_secs(5);

/// Every route, once: for serving with the rooms' data, and for the document without.
fn routes(config: &mut ServiceConfig, rooms: Option<&Rooms>) {
    admin::health_routes(config);
    admin::routes(config);
    books::routes(config);
    plugins::routes(config);
    Rooms::routes(config);
    if let Some(rooms) = rooms {
        rooms.provide(config);
    }
}

/// The OpenAPI document of everything that is served.
pub(crate) fn openapi() -> OpenApi {
    let (_, mut document) = App::new().into_utoipa_app().configure(|config| routes(config, None)).split_for_parts();
    document.info.title = "Heyuan".into();
    document.info.version = env!("CARGO_PKG_VERSION").into();
    document.info.description = Some(
        "The customer platform of a property group: events, customers, members, mall, attribution. \
         Send `Authorization: Bearer KEY`, or the key as the user of Basic auth. Errors are RFC 9457 problems with a stable `code`."
            .into(),
    );
    document.info.license = Some(utoipa::openapi::LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build());
    let components = document.components.get_or_insert_default();
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An API key, or a member's token")).build();
    components.security_schemes.insert("key".into(), SecurityScheme::Http(scheme).into());
    document
}

/// Paths under `/v1` that find the caller out by themselves: by a key in the body, or by a signature.
const OWN_DOORS: &[&str] = &[
    "/v1/track",
    "/v1/identify",
    "/v1/page",
    "/v1/screen",
    "/v1/group",
    "/v1/alias",
    "/v1/batch",
    "/v1/import",
    "/v1/t",
    "/v1/i",
    "/v1/p",
    "/v1/s",
    "/v1/g",
    "/v1/a",
    "/v1/b",
    "/v1/payments/notifications",
];

/// A span and a duration for every request, whatever became of it.
async fn observed(request: ServiceRequest, next: Next<impl MessageBody>) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let began = Instant::now();
    let route = request.match_pattern().unwrap_or_default();
    let method = request.method().clone();
    let metrics = request.app_data::<web::Data<Metrics>>().cloned();
    let span = tracing::debug_span!("request", http.method = %method, http.route = route);
    let result = next.call(request).instrument(span).await;
    if let Some(metrics) = metrics {
        let status = result.as_ref().map_or_else(|error| error.as_response_error().status_code(), ServiceResponse::status);
        metrics.answered(&method, &route, status.as_u16(), began.elapsed());
    }
    result
}

/// Refuses strangers before anything of their request is read, and finds each caller out once; then what no address may spell.
async fn strangers_first(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let known_path = request.resource_map().has_resource(request.path());
    if known_path && request.path().starts_with("/v1/") && !OWN_DOORS.contains(&request.path()) {
        let actor = Authenticated::extract(request.request()).await?;
        request.extensions_mut().insert(actor.0);
    }
    check_address(request.uri())?;
    next.call(request).await
}

/// Lets the body take from the budget as it arrives, and holds what it took until the request is answered.
async fn bodies_bounded(
    mut request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let Some(bodies) = request.app_data::<web::Data<Bodies>>() else { return next.call(request).await };
    let length = header_text(request.headers(), header::CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok());
    let share = bodies.share(length);
    if request.extensions().contains::<Actor>() {
        share.keyed();
    }
    let payload = share.metered(request.take_payload());
    request.set_payload(payload);
    request.extensions_mut().insert(share.clone());
    let answer = next.call(request).await;
    drop(share);
    answer
}

fn path_problem(error: PathError, _: &HttpRequest) -> actix_web::Error {
    Problem::invalid("path", error.to_string()).into()
}

fn query_problem(error: QueryPayloadError, _: &HttpRequest) -> actix_web::Error {
    Problem::invalid("query", error.to_string()).into()
}
