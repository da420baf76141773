//! Event types: declared, listed, with counts of what did not fit.

use crate::cdp::Cdp;
use crate::event_type::{EventType, FaultCount, Mode, Property};
use actix_web::{get, put, web};
use heyuan_kernel::error::ProblemBody;
use heyuan_kernel::http::{Authenticated, Body, Page, PageQuery};
use heyuan_kernel::problems::{Invalid, Missing, Stranger, TooLarge, Unwelcome};
use heyuan_kernel::{Problem, Scope};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

/// What an event type is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EventTypeRequest {
    /// `open` when left out.
    #[serde(default = "open")]
    mode: Mode,
    /// Its properties by name.
    properties: BTreeMap<String, Property>,
}

const fn open() -> Mode {
    Mode::Open
}

/// An event type in force.
#[derive(Debug, Serialize, ToSchema)]
struct EventTypeView {
    /// `snake_case`; `profile` holds the traits of an identify.
    name: String,
    /// Counts up with every change.
    version: i64,
    /// `strict`, `warn` or `open`.
    mode: Mode,
    /// Its properties by name.
    properties: BTreeMap<String, Property>,
    /// How often properties were absent because they did not fit; only in the answer for one type.
    #[serde(skip_serializing_if = "Option::is_none")]
    faults: Option<Vec<FaultCount>>,
}

fn view(one: &EventType, faults: Option<Vec<FaultCount>>) -> EventTypeView {
    EventTypeView { name: one.name.clone(), version: one.version, mode: one.mode, properties: one.properties.clone(), faults }
}

#[utoipa::path(
    tag = "event types",
    summary = "Declare an event type, or change it",
    description = "A change is a new version and holds for events from then on, and for reading what earlier events carried undeclared.",
    params(("name" = String, Path, description = "Words in lower case, parted by underscores")),
    request_body = EventTypeRequest,
    responses(
        (status = 200, description = "In force", body = EventTypeView),
        (status = 400, description = "A property that can't be", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "The key lacks the scope admin", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "Another declaration came first", body = ProblemBody, content_type = "application/problem+json"),
        Stranger, TooLarge,
    ),
    security(("key" = []))
)]
#[put("/v1/event-types/{name}")]
async fn put_event_type(
    Authenticated(actor): Authenticated,
    cdp: web::Data<Cdp>,
    path: web::Path<String>,
    body: Body<EventTypeRequest>,
) -> Result<web::Json<EventTypeView>, Problem> {
    let Body(request) = body;
    let one = cdp.event_types().put(&actor, &path, request.mode, request.properties).await?;
    Ok(web::Json(view(&one, None)))
}

#[utoipa::path(
    tag = "event types",
    summary = "All event types in force, by name",
    params(PageQuery),
    responses(
        (status = 200, description = "A page", body = Page<EventTypeView>),
        Invalid, Unwelcome,
    ),
    security(("key" = []))
)]
#[get("/v1/event-types")]
async fn list_event_types(
    Authenticated(actor): Authenticated,
    cdp: web::Data<Cdp>,
    page: Result<web::Query<PageQuery>, actix_web::Error>,
) -> Result<web::Json<Page<EventTypeView>>, Problem> {
    actor.require_any(&[Scope::Admin, Scope::App])?;
    let page = page.map_err(|_| Problem::invalid("limit", "expected 1 to 200"))?;
    let (limit, after) = (page.limit()?, page.after()?);
    cdp.event_types().refresh().await?;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1);
    let list = cdp.event_types().list();
    let items =
        list.iter().filter(|one| after.as_ref().is_none_or(|after| one.name > *after)).take(wanted).map(|one| view(one, None)).collect();
    Ok(web::Json(Page::of(items, limit, |item: &EventTypeView| item.name.clone())))
}

#[utoipa::path(
    tag = "event types",
    summary = "One event type, with counts of what did not fit",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "In force", body = EventTypeView),
        Unwelcome, Missing,
    ),
    security(("key" = []))
)]
#[get("/v1/event-types/{name}")]
async fn get_event_type(
    Authenticated(actor): Authenticated,
    cdp: web::Data<Cdp>,
    path: web::Path<String>,
) -> Result<web::Json<EventTypeView>, Problem> {
    actor.require_any(&[Scope::Admin, Scope::App])?;
    cdp.event_types().refresh().await?;
    let one = cdp.event_types().get(&path).ok_or_else(|| Problem::not_found("event type", path.as_str()))?;
    let faults = crate::event_type::faults::of(cdp.kernel().db.reader(), &one.name).await?;
    Ok(web::Json(view(&one, Some(faults))))
}

/// Adds the routes.
pub(super) fn routes(config: &mut ServiceConfig<'_>) {
    config.service(put_event_type).service(list_event_types).service(get_event_type);
}
