//! Routes that belong to no wing: units, parked events, health.

use crate::access;
use actix_web::{HttpRequest, HttpResponse, get, post, put, web};
use futures::future;
use heyuan_contract::{Line, OrgUnitId, UnitKind};
use heyuan_kernel::error::codes;
use heyuan_kernel::http::{Authenticated, Body, Page, PageQuery};
use heyuan_kernel::org::OrgUnit;
use heyuan_kernel::problems::{Conflicting, Invalid, Missing, Stranger, Unwelcome};
use heyuan_kernel::pump::Pump;
use heyuan_kernel::{Kernel, Problem, Rfc3339, Scope, sql};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

/// Registers the routes.
pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(me).service(put_units).service(list_units).service(list_parked).service(retry_parked);
    access::routes(config);
}

/// Who the key belongs to.
#[derive(Debug, Serialize, ToSchema)]
struct Me {
    /// The key's or member's name in audit and logs.
    actor: String,
    /// What it may do.
    scopes: Vec<String>,
    /// Its unit; absent for the whole group.
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
}

#[utoipa::path(tag = "Tenant", summary = "Who am I", security(("key" = [])),
    responses((status = 200, body = Me), Stranger))]
#[get("/v1/me")]
async fn me(Authenticated(actor): Authenticated) -> web::Json<Me> {
    let scopes = Scope::ALL.into_iter().filter(|scope| actor.has(*scope)).map(|scope| scope.to_string()).collect();
    web::Json(Me { actor: actor.name().to_owned(), scopes, unit: actor.unit().map(ToString::to_string) })
}

/// A node of the group's tree.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UnitView {
    /// The group's own code, 1 to 64 characters of A-Z a-z 0-9 . _ : @ -
    #[schema(value_type = String)]
    id: OrgUnitId,
    /// The unit above; absent for the group itself.
    #[schema(value_type = Option<String>)]
    parent: Option<OrgUnitId>,
    /// The name that people know.
    name: String,
    /// group, city, project, mall, hotel, office or community
    #[schema(value_type = String)]
    kind: UnitKind,
    /// residential, mall, office, hotel or community; absent for group and city.
    #[schema(value_type = Option<String>)]
    line: Option<Line>,
}

/// Units to add or rename, parents before their children.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PutUnits {
    units: Vec<UnitView>,
}

#[utoipa::path(tag = "Tenant", summary = "Add or rename org units", security(("key" = [])), request_body = PutUnits,
    responses((status = 204), Invalid, Unwelcome, Conflicting))]
#[put("/v1/org-units")]
async fn put_units(Authenticated(actor): Authenticated, kernel: web::Data<Kernel>, body: Body<PutUnits>) -> Result<HttpResponse, Problem> {
    actor.require(Scope::Admin)?;
    if actor.unit().is_some() {
        return Err(Problem::new(codes::FORBIDDEN, "the tree is changed with a key of the whole group"));
    }
    let units = body.0.units.into_iter().map(|unit| OrgUnit {
        id: unit.id,
        parent: unit.parent,
        name: unit.name,
        kind: unit.kind,
        line: unit.line,
    });
    kernel.org.put(units.collect()).await?;
    Ok(HttpResponse::NoContent().finish())
}

#[utoipa::path(tag = "Tenant", summary = "List org units", security(("key" = [])), params(PageQuery),
    responses((status = 200, body = Page<UnitView>), Invalid, Unwelcome))]
#[get("/v1/org-units")]
async fn list_units(
    Authenticated(actor): Authenticated,
    kernel: web::Data<Kernel>,
    page: web::Query<PageQuery>,
) -> Result<web::Json<Page<UnitView>>, Problem> {
    actor.require_any(&[Scope::App, Scope::Admin])?;
    let (after, limit) = (page.after()?.unwrap_or_default(), page.limit()?);
    let tree = kernel.org.tree();
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1);
    let seen = tree.units().filter(|unit| actor.reach().covers(&unit.id) && unit.id.as_str() > after.as_str()).take(wanted);
    let items = seen.cloned().map(|unit| UnitView { id: unit.id, parent: unit.parent, name: unit.name, kind: unit.kind, line: unit.line });
    Ok(web::Json(Page::of(items.collect(), limit, |unit| unit.id.to_string())))
}

/// A domain event that a consumer could not apply.
#[derive(Debug, Serialize, ToSchema)]
struct Parked {
    /// Its number in this list.
    id: i64,
    /// Who could not apply it.
    consumer: String,
    /// Its place in the outbox.
    position: i64,
    /// Its key; later events of the same key wait behind it.
    key: String,
    /// Its name and version.
    name: String,
    /// What went wrong.
    error: String,
    /// When it was parked.
    parked_at: Rfc3339,
}

#[utoipa::path(tag = "Tenant", summary = "List domain events that a consumer could not apply", security(("key" = [])), params(PageQuery),
    responses((status = 200, body = Page<Parked>), Invalid, Unwelcome))]
#[get("/v1/parked-events")]
async fn list_parked(
    Authenticated(actor): Authenticated,
    kernel: web::Data<Kernel>,
    page: web::Query<PageQuery>,
) -> Result<web::Json<Page<Parked>>, Problem> {
    require_group_admin(&actor)?;
    let (after, limit) = (page.after_number()?.unwrap_or(0), page.limit()?);
    let text = "SELECT id, consumer, position, event_key, name, error, parked_at FROM kernel_parked WHERE id > $1 ORDER BY id LIMIT $2";
    let rows = sql::all(kernel.db.reader(), text, [after.into(), (limit + 1).into()]).await?;
    let mut items = Vec::with_capacity(rows.len());
    for row in &rows {
        items.push(Parked {
            id: sql::get(row, "id")?,
            consumer: sql::get(row, "consumer")?,
            position: sql::get(row, "position")?,
            key: sql::get(row, "event_key")?,
            name: sql::get(row, "name")?,
            error: sql::get(row, "error")?,
            parked_at: Rfc3339(heyuan_contract::Timestamp::clamped(sql::get(row, "parked_at")?)),
        });
    }
    Ok(web::Json(Page::of(items, limit, |parked| parked.id.to_string())))
}

pub(crate) fn require_group_admin(actor: &heyuan_kernel::Actor) -> Result<(), Problem> {
    actor.require(Scope::Admin)?;
    match actor.unit() {
        None => Ok(()),
        Some(_) => Err(Problem::new(codes::FORBIDDEN, "this needs a key of the whole group")),
    }
}

/// The pumps by consumer, for trying parked events again.
pub(crate) struct Pumps(pub(crate) Vec<(&'static str, Arc<Pump>)>);

/// How many parked events were applied.
#[derive(Debug, Serialize, ToSchema)]
struct Retried {
    applied: u64,
}

#[utoipa::path(tag = "Tenant", summary = "Try parked events of a consumer again", security(("key" = [])),
    params(("consumer" = String, Path, description = "As listed")),
    responses((status = 200, body = Retried), Unwelcome, Missing))]
#[post("/v1/parked-events/{consumer}/retry")]
async fn retry_parked(
    Authenticated(actor): Authenticated,
    pumps: web::Data<Pumps>,
    consumer: web::Path<String>,
) -> Result<web::Json<Retried>, Problem> {
    require_group_admin(&actor)?;
    let found = pumps.0.iter().find(|(name, _)| *name == consumer.as_str());
    let (_, pump) = found.ok_or_else(|| Problem::not_found("consumer", consumer.as_str()))?;
    Ok(web::Json(Retried { applied: pump.retry_parked().await? }))
}

/// What a path without a route answers.
pub(crate) fn no_such_path(request: HttpRequest) -> future::Ready<Result<HttpResponse, Problem>> {
    let known = request.resource_map().has_resource(request.path());
    let problem = if known {
        Problem::new(codes::METHOD_NOT_ALLOWED, format!("{} does not take {}; /docs lists what it takes", request.path(), request.method()))
    } else {
        Problem::new(codes::NO_SUCH_PATH, "there is nothing at this path; /docs lists every path")
    };
    future::ready(Err(problem))
}
