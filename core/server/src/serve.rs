//! `heyuan serve`: the process of a tenant, from its start to its stop.

use crate::admin::{self, Pumps};
use crate::books;
use crate::copies::Copies;
use crate::follow;
use crate::health::{self, Health};
use crate::metrics::{self, Metrics};
use crate::operator::{self, OperatorKey, Process};
use crate::page;
use crate::place::{Place, Schema};
use crate::plugins;
use crate::rooms::Rooms;
use crate::settings::Settings;
use actix_web::body::MessageBody;
use actix_web::dev::{Server, ServerHandle, ServiceRequest, ServiceResponse};
use actix_web::error::{PathError, QueryPayloadError};
use actix_web::http::header;
use actix_web::middleware::{Next, NormalizePath, from_fn};
use actix_web::{App, FromRequest, HttpMessage, HttpRequest, HttpServer, web};
use anyhow::Context;
use futures::future::join_all;
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
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::Instrument;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_actix_web::AppExt;
use utoipa_actix_web::service_config::ServiceConfig;

/// Serves until it is told to stop; the operator on a listener of its own, where one is named here or in the settings.
///
/// # Errors
/// What keeps it from starting, in words.
pub(crate) async fn serve(place: &Place, listen: &str, operator_listen: Option<&str>) -> anyhow::Result<()> {
    let settings = place.settings()?;
    let running = web::Data::new(telemetry::start(&settings.telemetry)?);
    let set = Some(settings.http.operator_listen.as_str()).filter(|address| !address.is_empty());
    let operator = match operator_listen.or(set) {
        Some(address) => Some((address.to_owned(), web::Data::new(OperatorKey::open(&settings.operator.key_file)?))),
        None => None,
    };
    let _lock = place.lock(&settings)?;
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
    let (db, stop_following) = (kernel.db.clone(), stopped.clone());
    tokio::spawn(async move { db.follow_others(stop_following).await });
    if kernel.db.backend() == DbBackend::Postgres {
        tokio::spawn(follow::units(kernel.org.clone(), kernel.db.rest().clone(), stopped.clone()));
        let (db, drain, stopped) = (kernel.db.clone(), settings.database.drain(), stopped.clone());
        tokio::spawn(async move { db.follow_login(drain, stopped).await });
    }
    let processor = Processor::new(kernel.db.clone(), kernel.clock.clone(), holder, tasks);
    let process = web::Data::new(Process { is_processor: processor.holds() });
    let processor = tokio::spawn(processor.run(stopped));
    let copies = web::Data::new(Copies::of(&place.data));
    let edge = Edge::new(&settings, kernel, rooms, web::Data::new(Pumps(pumps)), running.clone(), (process, copies))?;
    let result = edge.serve(&settings, listen, operator).await;
    let _ = stop.send(true);
    processor.await.context("the processor broke off")?;
    running.stop();
    result
}

fn uuid_text() -> String {
    Kernel::new_id::<heyuan_contract::KeyId>("process").to_string()
}

/// What every listener's handlers are given.
#[derive(Clone)]
struct Edge {
    document: web::Data<String>,
    kernel: web::Data<Kernel>,
    rooms: Rooms,
    pumps: web::Data<Pumps>,
    running: web::Data<telemetry::Running>,
    metrics: web::Data<Metrics>,
    bodies: web::Data<Bodies>,
    health: web::Data<Health>,
    process: web::Data<Process>,
    copies: web::Data<Copies>,
    /// Requests are still served, elsewhere better than here.
    leaving: watch::Sender<bool>,
    /// No request is taken any more.
    stopping: watch::Sender<bool>,
}

impl Edge {
    fn new(
        settings: &Settings,
        kernel: Kernel,
        rooms: Rooms,
        pumps: web::Data<Pumps>,
        running: web::Data<telemetry::Running>,
        (process, copies): (web::Data<Process>, web::Data<Copies>),
    ) -> anyhow::Result<Edge> {
        let (leaving, stopping) = (watch::Sender::new(false), watch::Sender::new(false));
        let health = Health::new(kernel.clone(), rooms.cdp(), leaving.subscribe());
        Ok(Edge {
            document: web::Data::new(openapi().to_json()?),
            kernel: web::Data::new(kernel),
            rooms,
            pumps,
            running,
            metrics: web::Data::new(Metrics::new()),
            bodies: web::Data::new(Bodies::new(settings.http.bounds()?)),
            health: web::Data::new(health),
            process,
            copies,
            leaving,
            stopping,
        })
    }

    async fn serve(self, settings: &Settings, listen: &str, operator: Option<(String, web::Data<OperatorKey>)>) -> anyhow::Result<()> {
        // Bound first, so that whoever waits for the tenant's address finds this one as well.
        let operator = operator.map(|(address, key)| self.operator_server(settings, &address, key)).transpose()?;
        let public = self.public_server(settings, listen, operator.is_some())?;
        let handles = [Some(public.handle()), operator.as_ref().map(Server::handle)].into_iter().flatten().collect();
        let delay = Duration::from_secs(settings.http.stop_delay_seconds);
        tokio::spawn(stop_when_told(handles, delay, self.leaving.clone(), self.stopping.clone()));
        let operator = async {
            match operator {
                Some(server) => server.await,
                None => Ok(()),
            }
        };
        let (public, operator) = futures::join!(public, operator);
        public.and(operator).context("the server broke off")
    }

    fn public_server(&self, settings: &Settings, listen: &str, has_operator: bool) -> anyhow::Result<Server> {
        let edge = self.clone();
        let stopping = web::Data::new(Stopping::new(self.stopping.subscribe()));
        let server = HttpServer::new(move || {
            let (app, _) = App::new()
                .app_data(edge.document.clone())
                .app_data(stopping.clone())
                .into_utoipa_app()
                .configure(|config| edge.provide(config))
                .configure(|config| {
                    routes(config);
                    if !has_operator {
                        config.service(metrics::metrics);
                    }
                })
                .split_for_parts();
            let app =
                app.wrap(from_fn(bodies_bounded)).wrap(from_fn(strangers_first)).wrap(from_fn(observed)).wrap(from_fn(health::parting));
            // Outermost, for the others look at the path: some clients end theirs with a slash.
            let app = app.wrap(NormalizePath::trim());
            app.service(page::docs).service(page::document).default_service(web::to(admin::no_such_path))
        });
        // Actix counts by worker.
        let connections_max = (settings.http.connections_max / settings.http.workers).max(1);
        let server = server.workers(settings.http.workers).max_connections(connections_max);
        let server = server.keep_alive(KEEP_ALIVE).client_disconnect_timeout(LINGER).shutdown_timeout(settings.http.stop_seconds_max);
        let server = server.bind(listen).with_context(|| format!("could not listen on {listen}"))?;
        for address in server.addrs() {
            announce(&format!("listening on http://{address}"));
        }
        Ok(server.disable_signals().run())
    }

    fn operator_server(&self, settings: &Settings, listen: &str, key: web::Data<OperatorKey>) -> anyhow::Result<Server> {
        let (edge, workshop) = (self.clone(), web::Data::new(self.rooms.workshop(settings)));
        let server = HttpServer::new(move || {
            let (app, _) = App::new()
                .app_data(key.clone())
                .app_data(workshop.clone())
                .app_data(edge.copies.clone())
                .into_utoipa_app()
                .configure(|config| edge.provide(config))
                .configure(operator::listener)
                .split_for_parts();
            let app = app.wrap(from_fn(bodies_bounded)).wrap(from_fn(operator::operator_alone)).wrap(from_fn(health::parting));
            app.wrap(NormalizePath::trim()).default_service(web::to(admin::no_such_path))
        });
        let server = server.workers(1).keep_alive(KEEP_ALIVE).shutdown_timeout(settings.http.stop_seconds_max);
        let server = server.bind(listen).with_context(|| format!("could not listen on {listen} for the operator"))?;
        for address in server.addrs() {
            announce(&format!("operator on http://{address}"));
        }
        Ok(server.disable_signals().run())
    }

    /// What handlers of both listeners are given.
    fn provide(&self, config: &mut ServiceConfig) {
        config
            .app_data(self.kernel.clone())
            .app_data(self.pumps.clone())
            .app_data(self.running.clone())
            .app_data(self.metrics.clone())
            .app_data(self.bodies.clone())
            .app_data(self.health.clone())
            .app_data(self.process.clone())
            .app_data(web::PathConfig::default().error_handler(path_problem))
            .app_data(web::QueryConfig::default().error_handler(query_problem));
        self.rooms.provide(config);
    }
}

/// Ctrl-C and SIGTERM end alike: for a while requests are still taken, though the process says that it is not ready; then no new
/// connections, running requests to their end, and an end for what has none. A second signal ends the while.
async fn stop_when_told(servers: Vec<ServerHandle>, delay: Duration, leaving: watch::Sender<bool>, stopping: watch::Sender<bool>) {
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(error) => return tracing::error!(%error, "signals can't be received: stop the process by killing it"),
    };
    told(&mut terminate).await;
    leaving.send_replace(true);
    if !delay.is_zero() {
        tracing::info!(seconds = delay.as_secs(), "leaving: requests are still taken, and better sent elsewhere");
        // Whichever comes first.
        let _ = tokio::time::timeout(delay, told(&mut terminate)).await;
    }
    tracing::info!("stopping: running requests are answered first");
    stopping.send_replace(true);
    join_all(servers.iter().map(|server| server.stop(true))).await;
}

async fn told(terminate: &mut Signal) {
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
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

/// Every route of the public listener but for `/metrics`, which is served where the operator is.
fn routes(config: &mut ServiceConfig) {
    health::routes(config);
    admin::routes(config);
    books::routes(config);
    plugins::routes(config);
    Rooms::routes(config);
}

/// The OpenAPI document of everything that is served, by whichever listener.
pub(crate) fn openapi() -> OpenApi {
    let every = |config: &mut ServiceConfig| {
        routes(config);
        config.service(metrics::metrics);
        operator::routes(config);
    };
    let (_, mut document) = App::new().into_utoipa_app().configure(every).split_for_parts();
    document.info.title = "Heyuan".into();
    document.info.version = env!("CARGO_PKG_VERSION").into();
    document.info.description = Some(
        "The customer platform of a property group: events, customers, members, mall, attribution. \
         Send `Authorization: Bearer KEY`, or the key as the user of Basic auth. Errors are RFC 9457 problems with a stable `code`."
            .into(),
    );
    document.info.license = Some(utoipa::openapi::LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build());
    let components = document.components.get_or_insert_default();
    let scheme =
        HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An API key, or the token of a member or of staff")).build();
    components.security_schemes.insert("key".into(), SecurityScheme::Http(scheme).into());
    let words = "The operator's key, on the operator's listener alone: elsewhere there is nothing at these paths";
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(words)).build();
    components.security_schemes.insert("operator".into(), SecurityScheme::Http(scheme).into());
    document
}

/// Paths under `/v1` that find the caller out by themselves: by a key in the body, by a signature, by what the log-in provider says, or by a
/// refresh token.
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
    "/v1/staff/log-ins",
    "/v1/staff/log-ins:finish",
    "/v1/staff/log-outs",
    "/v1/staff/sessions:refresh",
    "/v1/staff/sessions:revoke",
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
