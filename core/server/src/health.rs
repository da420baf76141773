//! Whether the process lives and can serve, for whoever sends requests to it.

use crate::place;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::ConnectionType;
use actix_web::middleware::Next;
use actix_web::{HttpResponse, get, web};
use heyuan_cdp::Cdp;
use heyuan_kernel::schema::Blueprint;
use heyuan_kernel::{Error, Kernel};
use serde::Serialize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::timeout;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

/// How long the database may take to answer a probe; whoever asks does not wait for ever either.
const ANSWER_TIME: Duration = Duration::from_secs(3);
/// How old the last sign of life of the database may be at rest, where it is seen every few seconds.
pub(crate) const SEEN_WITHIN: Duration = Duration::from_secs(15);
/// Why, when it did not.
const AWAY: &str = "database away";

/// Registers the probes.
pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(livez).service(readyz);
}

/// Whether requests should be sent here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// Whether they should.
    pub(crate) ready: bool,
    /// Why not; or what is refused although they should.
    pub(crate) why: String,
}

impl Readiness {
    fn not(why: impl Into<String>) -> Readiness {
        Readiness { ready: false, why: why.into() }
    }

    /// Whether the database gave no answer, so that there is no use in asking it more.
    pub(crate) fn is_without_database(&self) -> bool {
        self.why == AWAY
    }
}

/// What readiness is judged by.
pub(crate) struct Health {
    kernel: Kernel,
    cdp: Cdp,
    blueprint: Blueprint,
    leaving: watch::Receiver<bool>,
    /// When the schema was last found servable.
    servable_at: Mutex<Option<Instant>>,
}

impl Health {
    /// Health of a process that was told to stop once `leaving` is true.
    pub(crate) fn new(kernel: Kernel, cdp: Cdp, leaving: watch::Receiver<bool>) -> Health {
        Health { kernel, cdp, blueprint: place::blueprint(), leaving, servable_at: Mutex::default() }
    }

    /// The schema that this release knows.
    pub(crate) fn blueprint(&self) -> &Blueprint {
        &self.blueprint
    }

    /// Looks now: at the stop, the database and its schema, and the disk. A full disk refuses new events alone, so that whoever pays,
    /// redeems or is given something back is still sent here.
    ///
    /// At rest the database is not asked once more for each probe: what it said last still holds, since whoever makes a step of the schema
    /// wakes the process. One that breaks the connection wakes it at once as well, and one that is silent is found out when the lease is
    /// next renewed or looked at, at the latest after nine seconds; were that broken too, the database is asked again after fifteen.
    pub(crate) async fn look(&self) -> Readiness {
        if *self.leaving.borrow() {
            return Readiness::not("stopping");
        }
        match timeout(ANSWER_TIME, self.refusal()).await {
            Ok(Ok(None)) if self.cdp.disk_is_short() => {
                Readiness { ready: true, why: "disk full: events are refused, the rest is served".into() }
            }
            Ok(Ok(None)) => Readiness { ready: true, why: String::new() },
            Ok(Ok(Some(why))) => Readiness::not(format!("schema not servable: {why}")),
            Ok(Err(error)) => {
                tracing::debug!(%error, "the database does not answer a probe");
                Readiness::not(AWAY)
            }
            Err(_) => Readiness::not(AWAY),
        }
    }

    /// Why the schema may not be served on.
    async fn refusal(&self) -> Result<Option<String>, Error> {
        let known = *self.servable_at.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_some_and(|at| self.kernel.db.rest().holds_since(at, SEEN_WITHIN)) {
            return Ok(None);
        }
        let asked_at = Instant::now();
        let refusal = self.blueprint.refusal(&self.kernel.db).await?;
        *self.servable_at.lock().unwrap_or_else(PoisonError::into_inner) = refusal.is_none().then_some(asked_at);
        Ok(refusal)
    }
}

/// Whether the process serves.
#[utoipa::path(tag = "Health", summary = "The process lives", responses((status = 200, description = "It does")))]
#[get("/livez")]
async fn livez() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain").body("ok\n")
}

/// Whether requests can be served: the database answers, its schema may be served on, and the process is not stopping.
#[utoipa::path(tag = "Health", summary = "The process is ready to serve",
    responses((status = 200, body = Readiness), (status = 503, body = Readiness)))]
#[get("/readyz")]
async fn readyz(health: web::Data<Health>) -> HttpResponse {
    let readiness = health.look().await;
    let mut answer = if readiness.ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    answer.json(readiness)
}

/// Once the process leaves, each answer ends its connection, so that the next request goes elsewhere.
pub(crate) async fn parting(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let health = request.app_data::<web::Data<Health>>().cloned();
    let mut answer = next.call(request).await?;
    if health.is_some_and(|health| *health.leaving.borrow()) {
        answer.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
    Ok(answer)
}
