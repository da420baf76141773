//! What the Kubernetes operator asks of a tenant's process: a listener of its own, a key from a file, and the routes behind it.

mod copy;
mod org;
mod plugins;
mod source;

pub(crate) use plugins::Workshop;

use crate::health::Health;
use crate::metrics;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::middleware::Next;
use actix_web::{HttpMessage, get, put, web};
use anyhow::Context;
use heyuan_kernel::error::{ProblemBody, codes};
use heyuan_kernel::http::{Authenticated, Body, header_text};
use heyuan_kernel::keys::{Credentials, same};
use heyuan_kernel::problems::{Invalid, Stranger};
use heyuan_kernel::schema::Level;
use heyuan_kernel::secret::sha256_hex;
use heyuan_kernel::{Actor, Connections, Kernel, Problem, Scope};
use plugins::PluginStatus;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

/// Shorter keys could be guessed.
const KEY_CHARACTERS_MIN: usize = 32;

/// Everything that the operator's listener serves.
pub(crate) fn listener(config: &mut ServiceConfig) {
    crate::health::routes(config);
    config.service(metrics::metrics);
    routes(config);
}

/// The routes that need the operator's key.
pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(status).service(put_admin_key).service(org::put_org).service(plugins::put_plugin).service(plugins::delete_plugin);
    config.service(copy::delete_database_copy);
}

/// The operator's key, in a file that may change.
pub(crate) struct OperatorKey(PathBuf);

impl OperatorKey {
    /// A key that can be read now.
    ///
    /// # Errors
    /// The setting `operator.key_file` where it is missing or names no key.
    pub(crate) fn open(file: &Path) -> anyhow::Result<OperatorKey> {
        if file.as_os_str().is_empty() {
            anyhow::bail!("setting operator.key_file: the operator's listener needs the file with its key");
        }
        let key = OperatorKey(file.to_owned());
        key.read().context("setting operator.key_file")?;
        Ok(key)
    }

    fn read(&self) -> anyhow::Result<String> {
        let text = std::fs::read_to_string(&self.0).with_context(|| format!("could not read {}", self.0.display()))?;
        let key = text.trim();
        if key.chars().count() < KEY_CHARACTERS_MIN || key.contains(char::is_whitespace) {
            anyhow::bail!("{} holds no key of one line and at least {KEY_CHARACTERS_MIN} characters", self.0.display());
        }
        Ok(key.to_owned())
    }

    /// Whether a header carries the key that the file holds now.
    fn is_carried_by(&self, authorization: Option<&str>) -> Result<bool, Problem> {
        let key = self.read().map_err(|error| {
            tracing::error!(error = %format!("{error:#}"), "the operator's key can't be read, so that it is refused");
            Problem::new(codes::UNAVAILABLE, "the operator's key can't be read")
        })?;
        let Some((scheme, sent)) = authorization.and_then(|text| text.split_once(' ')) else { return Ok(false) };
        // Hashes are alike in length, so that the time of comparing tells nothing.
        let (key, sent) = (sha256_hex(key.as_bytes()), sha256_hex(sent.trim().as_bytes()));
        Ok(scheme.eq_ignore_ascii_case("bearer") && same(key.as_bytes(), sent.as_bytes()))
    }
}

/// Lets the operator alone reach what lies below `/v1`, and says who acts.
pub(crate) async fn operator_alone(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    if request.path().starts_with("/v1/") {
        let key = request.app_data::<web::Data<OperatorKey>>().cloned();
        let key = key.ok_or_else(|| Problem::new(codes::INTERNAL, "the operator's listener was built without its key"))?;
        if !key.is_carried_by(header_text(request.headers(), header::AUTHORIZATION.as_str()))? {
            return Err(Problem::new(codes::UNAUTHENTICATED, "send Authorization: Bearer with the operator's key").into());
        }
        request.extensions_mut().insert(Actor::operator());
    }
    next.call(request).await
}

/// What of this process the operator can't ask the database.
pub(crate) struct Process {
    /// Whether it is the processor.
    pub(crate) is_processor: Arc<AtomicBool>,
}

/// How a tenant's process stands.
#[derive(Debug, Serialize, ToSchema)]
struct Status {
    /// The release that runs.
    release: &'static str,
    /// The build that runs; empty where the build had no name.
    revision: &'static str,
    /// As `/readyz`.
    ready: bool,
    /// As `/readyz`.
    why: String,
    /// Whether this process does the background work.
    processor: bool,
    schema: SchemaStatus,
    database: DatabaseStatus,
    /// The tree's units, by id.
    org_units: Vec<String>,
    /// Every plugin, by name; none while the database is away.
    plugins: Vec<PluginStatus>,
}

/// How far the schema is.
#[derive(Debug, Default, Serialize, ToSchema)]
struct SchemaStatus {
    /// How many steps were made; null while the database is away.
    level: Option<usize>,
    /// The oldest release that may serve on it; null while the database is away.
    serves_from: Option<String>,
}

impl From<Level> for SchemaStatus {
    fn from(level: Level) -> Self {
        SchemaStatus { level: level.level, serves_from: level.serves_from.map(|release| release.to_string()) }
    }
}

/// How the database is reached.
#[derive(Debug, Serialize, ToSchema)]
struct DatabaseStatus {
    /// `postgres` or `sqlite`.
    backend: &'static str,
    /// The role that new connections log in as; empty on SQLite.
    role: String,
    /// The first 16 digits of the SHA-256 of the bytes of the file that the URL was read from; empty on SQLite.
    generation: String,
    /// Open connections under that content.
    connections_current: i64,
    /// Open connections under earlier content.
    connections_draining: i64,
    /// Why the file's newest content is not in use; absent where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    credentials_problem: Option<String>,
}

#[utoipa::path(tag = "Operator", summary = "How this process stands", security(("operator" = [])),
    responses((status = 200, body = Status), Stranger))]
#[get("/v1/operator/status")]
async fn status(
    Authenticated(actor): Authenticated,
    kernel: web::Data<Kernel>,
    health: web::Data<Health>,
    process: web::Data<Process>,
    workshop: web::Data<Workshop>,
) -> Result<web::Json<Status>, Problem> {
    actor.require(Scope::Operator)?;
    let readiness = health.look().await;
    // A status without the database is better than none, and comes at once.
    let away = readiness.is_without_database();
    let plugins = if away { Vec::new() } else { workshop.statuses(&actor).await.unwrap_or_default() };
    let schema = if away { None } else { health.blueprint().plan(&kernel.db).await.ok() };
    let connections = if away { None } else { kernel.db.connections().await.ok().flatten() };
    Ok(web::Json(Status {
        release: env!("CARGO_PKG_VERSION"),
        revision: option_env!("HEYUAN_REVISION").unwrap_or_default(),
        ready: readiness.ready,
        why: readiness.why,
        processor: process.is_processor.load(Ordering::Relaxed),
        schema: schema.map(|plan| plan.schema.into()).unwrap_or_default(),
        database: connections.or_else(|| kernel.db.login()).into(),
        org_units: kernel.org.tree().units().map(|unit| unit.id.to_string()).collect(),
        plugins,
    }))
}

impl From<Option<Connections>> for DatabaseStatus {
    fn from(connections: Option<Connections>) -> Self {
        let backend = if connections.is_some() { "postgres" } else { "sqlite" };
        let counted = connections.unwrap_or_default();
        DatabaseStatus {
            backend,
            role: counted.role,
            generation: counted.generation,
            connections_current: counted.current,
            connections_draining: counted.draining,
            credentials_problem: counted.problem,
        }
    }
}

/// A key that the operator made and keeps.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PutAdminKey {
    /// `hyk_` and at least 32 characters of A-Z a-z 0-9 _ -.
    #[schema(min_length = 36, max_length = 128)]
    key: String,
    /// Where it comes from, for the audit record.
    #[schema(min_length = 1, max_length = 64)]
    name: String,
}

/// A key that is in force.
#[derive(Debug, Serialize, ToSchema)]
struct AdminKey {
    /// Its name in lists, audit and logs.
    id: String,
    /// What it may do.
    scopes: Vec<String>,
}

#[utoipa::path(tag = "Operator", summary = "Take over the key with which the group is administered; the same again changes nothing",
    security(("operator" = [])), request_body = PutAdminKey,
    responses((status = 200, body = AdminKey),
        (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "`key_revoked`: it was revoked and stays so"),
        Invalid, Stranger))]
#[put("/v1/operator/admin-key")]
async fn put_admin_key(
    Authenticated(actor): Authenticated,
    credentials: web::Data<Credentials>,
    body: Body<PutAdminKey>,
) -> Result<web::Json<AdminKey>, Problem> {
    actor.require(Scope::Operator)?;
    let record = credentials.deliver(&actor, &body.0.key, &body.0.name).await?;
    Ok(web::Json(AdminKey { id: record.id, scopes: record.scopes.iter().map(ToString::to_string).collect() }))
}
