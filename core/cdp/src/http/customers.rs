//! Customers: found, shown, split, revealed, erased; and the rules by which they are matched.

#![expect(unused_qualifications, reason = "the macro that documents query parameters writes paths in full")]

use crate::cdp::Cdp;
use crate::customer::{Consent, CustomerView, EvidenceName, IdentityReport, TimelineEvent};
use crate::identity::Rules;
use actix_web::{get, post, put, web};
use heyuan_contract::{CustomerId, PersonalRef};
use heyuan_kernel::error::ProblemBody;
use heyuan_kernel::http::{Authenticated, Body, Page, PageQuery};
use heyuan_kernel::problems::{Erased, Invalid, Missing, Stranger, Unwelcome};
use heyuan_kernel::{Actor, Problem, Rfc3339, Scope};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;

/// An identifier to look a customer up by.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SearchRequest {
    /// Its type: `phone`, `unionid`, `openid`, `member`, `user`, `device`, `email`, `crm` or `plate`.
    r#type: String,
    /// Its value.
    value: String,
    /// The app of an openid.
    app: Option<String>,
}

/// Which customer.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct IdentifierQuery {
    /// `type:value`, such as `member:mbr_1`. For phone numbers and other personal values use `POST /v1/customers:search`: addresses end in logs.
    identifier: String,
}

/// Evidence that was a mistake.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SplitRequest {
    /// Pairs from the customer's `evidence`.
    evidence: Vec<EvidenceName>,
}

/// The customers that there are after a split.
#[derive(Debug, Serialize, ToSchema)]
struct SplitAnswer {
    /// Their ids.
    #[schema(value_type = Vec<String>)]
    customers: Vec<CustomerId>,
}

/// Which value, and why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RevealRequest {
    /// The reference of an identifier or of a personal property.
    #[schema(value_type = String)]
    r#ref: PersonalRef,
    /// Why it is needed: stands in the audit.
    reason: String,
}

/// A value unmasked.
#[derive(Debug, Serialize, ToSchema)]
struct RevealAnswer {
    /// The value.
    value: String,
}

/// What became of a customer.
#[derive(Debug, Serialize, ToSchema)]
struct EraseAnswer {
    /// The id that was erased.
    #[schema(value_type = String)]
    customer: CustomerId,
    /// Always true.
    erased: bool,
}

/// What a person said.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ConsentRequest {
    /// Yes or no.
    granted: bool,
    /// To whom.
    legal_entity: String,
    /// When; now when left out.
    at: Option<Rfc3339>,
}

/// Consent as it stands.
#[derive(Debug, Serialize, ToSchema)]
struct ConsentAnswer {
    /// By purpose and legal entity.
    consents: Vec<Consent>,
}

fn customer_id(text: &str) -> Result<CustomerId, Problem> {
    CustomerId::new(text).map_err(|_| Problem::not_found("customer", "with such an id"))
}

#[utoipa::path(
    tag = "customers",
    summary = "Find a customer by an identifier in the address",
    params(IdentifierQuery),
    responses(
        (status = 200, description = "The customer, masked", body = CustomerView),
        (status = 400, description = "No identifier of the form type:value", body = ProblemBody, content_type = "application/problem+json"),
        Unwelcome, Missing, Erased,
    ),
    security(("key" = []))
)]
#[get("/v1/customers")]
async fn find_customer(
    Authenticated(actor): Authenticated,
    cdp: web::Data<Cdp>,
    query: Result<web::Query<IdentifierQuery>, actix_web::Error>,
) -> Result<web::Json<CustomerView>, Problem> {
    actor.require_any(&[Scope::App, Scope::Admin])?;
    let wrong = || Problem::invalid("identifier", "write type:value, such as member:mbr_1");
    let query = query.map_err(|_| wrong())?;
    let (kind, value) = query.identifier.split_once(':').ok_or_else(wrong)?;
    Ok(web::Json(cdp.find(&actor, kind, value, None).await?))
}

#[utoipa::path(
    tag = "customers",
    summary = "Find a customer by an identifier",
    request_body = SearchRequest,
    responses(
        (status = 200, description = "The customer, masked", body = CustomerView),
        (status = 400, description = "An unknown type", body = ProblemBody, content_type = "application/problem+json"),
        Unwelcome, Missing, Erased,
    ),
    security(("key" = []))
)]
#[post("/v1/customers:search")]
async fn search_customer(
    Authenticated(actor): Authenticated,
    cdp: web::Data<Cdp>,
    body: Body<SearchRequest>,
) -> Result<web::Json<CustomerView>, Problem> {
    let Body(request) = body;
    Ok(web::Json(cdp.find(&actor, &request.r#type, &request.value, request.app.as_deref()).await?))
}

#[utoipa::path(
    tag = "customers",
    summary = "A customer, masked",
    params(("id" = String, Path, description = "Any id that was ever handed out")),
    responses(
        (status = 200, description = "The customer", body = CustomerView),
        Unwelcome, Missing, Erased,
    ),
    security(("key" = []))
)]
#[get("/v1/customers/{id}")]
async fn get_customer(
    Authenticated(actor): Authenticated,
    cdp: web::Data<Cdp>,
    path: web::Path<String>,
) -> Result<web::Json<CustomerView>, Problem> {
    actor.require_any(&[Scope::App, Scope::Admin])?;
    Ok(web::Json(cdp.customer(&actor, &customer_id(&path)?).await?))
}

#[utoipa::path(
    tag = "customers",
    summary = "A customer's events, newest first, masked",
    description = "A key of a unit sees that unit's events; a page of them may be short, or empty, and still have a `next`.",
    params(("id" = String, Path, description = "Any id that was ever handed out"), PageQuery),
    responses(
        (status = 200, description = "A page", body = Page<TimelineEvent>),
        Invalid, Unwelcome, Missing, Erased,
    ),
    security(("key" = []))
)]
#[get("/v1/customers/{id}/timeline")]
async fn get_timeline(
    Authenticated(actor): Authenticated,
    cdp: web::Data<Cdp>,
    path: web::Path<String>,
    page: Result<web::Query<PageQuery>, actix_web::Error>,
) -> Result<web::Json<Page<TimelineEvent>>, Problem> {
    actor.require_any(&[Scope::App, Scope::Admin])?;
    let page = page.map_err(|_| Problem::invalid("limit", "expected 1 to 200"))?;
    let (limit, before) = (page.limit()?, page.after_number()?);
    Ok(web::Json(cdp.timeline(&actor, &customer_id(&path)?, before, limit).await?))
}

#[utoipa::path(
    tag = "customers",
    summary = "See a personal value unmasked; audited",
    params(("id" = String, Path, description = "The customer")),
    request_body = RevealRequest,
    responses(
        (status = 200, description = "The value", body = RevealAnswer),
        (status = 400, description = "No reason", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "The key lacks the scope reveal", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "Not a value of this customer", body = ProblemBody, content_type = "application/problem+json"),
        Stranger, Erased,
    ),
    security(("key" = []))
)]
#[post("/v1/customers/{id}/reveal")]
async fn reveal_value(
    Authenticated(actor): Authenticated,
    cdp: web::Data<Cdp>,
    path: web::Path<String>,
    body: Body<RevealRequest>,
) -> Result<web::Json<RevealAnswer>, Problem> {
    actor.require(Scope::Reveal)?;
    let Body(request) = body;
    let value = cdp.reveal(&actor, &customer_id(&path)?, &request.r#ref, &request.reason).await?;
    Ok(web::Json(RevealAnswer { value }))
}

#[utoipa::path(
    tag = "customers",
    summary = "Erase a person",
    description = "Destroys the keys, values and hashes of all identifiers for good; what arrives late of the time before is dropped.",
    params(("id" = String, Path, description = "The customer")),
    responses(
        (status = 200, description = "Erased", body = EraseAnswer),
        (status = 403, description = "The key lacks the scope admin", body = ProblemBody, content_type = "application/problem+json"),
        (status = 410, description = "Erased before", body = ProblemBody, content_type = "application/problem+json"),
        Stranger, Missing,
    ),
    security(("key" = []))
)]
#[post("/v1/customers/{id}/erase")]
async fn erase_customer(
    Authenticated(actor): Authenticated,
    cdp: web::Data<Cdp>,
    path: web::Path<String>,
) -> Result<web::Json<EraseAnswer>, Problem> {
    actor.require(Scope::Admin)?;
    let customer = cdp.erase(&actor, &customer_id(&path)?).await?;
    Ok(web::Json(EraseAnswer { customer, erased: true }))
}

#[utoipa::path(
    tag = "customers",
    summary = "Take evidence back: un-merge",
    params(("id" = String, Path, description = "The customer")),
    request_body = SplitRequest,
    responses(
        (status = 200, description = "The customers that there are now", body = SplitAnswer),
        (status = 400, description = "Not this customer's evidence", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "The key lacks the scope admin", body = ProblemBody, content_type = "application/problem+json"),
        Stranger, Missing, Erased,
    ),
    security(("key" = []))
)]
#[post("/v1/customers/{id}/split")]
async fn split_customer(
    Authenticated(actor): Authenticated,
    cdp: web::Data<Cdp>,
    path: web::Path<String>,
    body: Body<SplitRequest>,
) -> Result<web::Json<SplitAnswer>, Problem> {
    actor.require(Scope::Admin)?;
    let Body(request) = body;
    let customers = cdp.split(&actor, &customer_id(&path)?, &request.evidence).await?;
    Ok(web::Json(SplitAnswer { customers }))
}

#[utoipa::path(
    tag = "customers",
    summary = "Record consent for a purpose",
    params(("id" = String, Path, description = "The customer"), ("purpose" = String, Path, description = "Such as marketing")),
    request_body = ConsentRequest,
    responses(
        (status = 200, description = "Consent as it stands", body = ConsentAnswer),
        (status = 400, description = "A purpose or entity that can't be", body = ProblemBody, content_type = "application/problem+json"),
        Unwelcome, Missing, Erased,
    ),
    security(("key" = []))
)]
#[put("/v1/customers/{id}/consents/{purpose}")]
async fn put_consent(
    Authenticated(actor): Authenticated,
    cdp: web::Data<Cdp>,
    path: web::Path<(String, String)>,
    body: Body<ConsentRequest>,
) -> Result<web::Json<ConsentAnswer>, Problem> {
    let (id, purpose) = path.into_inner();
    let Body(request) = body;
    let at = request.at.map_or_else(|| cdp.kernel().clock.now(), |at| at.0);
    let consents = cdp.consent(&actor, &customer_id(&id)?, &purpose, &request.legal_entity, request.granted, at).await?;
    Ok(web::Json(ConsentAnswer { consents }))
}

#[utoipa::path(
    tag = "customers",
    summary = "The rules by which identifiers are matched",
    responses(
        (status = 200, description = "In force", body = Rules),
        Unwelcome,
    ),
    security(("key" = []))
)]
#[get("/v1/identity/rules")]
async fn get_rules(Authenticated(actor): Authenticated, cdp: web::Data<Cdp>) -> Result<web::Json<Rules>, Problem> {
    allowed(&actor)?;
    Ok(web::Json(cdp.rules().clone()))
}

fn allowed(actor: &Actor) -> Result<(), Problem> {
    actor.require_any(&[Scope::App, Scope::Admin])
}

#[utoipa::path(
    tag = "customers",
    summary = "Identifiers that matching took out: shared ones, and components too large to be one person",
    responses(
        (status = 200, description = "The report", body = IdentityReport),
        (status = 403, description = "The key lacks the scope admin, or is of one unit", body = ProblemBody, content_type = "application/problem+json"),
        Stranger,
    ),
    security(("key" = []))
)]
#[get("/v1/identity/report")]
async fn get_report(Authenticated(actor): Authenticated, cdp: web::Data<Cdp>) -> Result<web::Json<IdentityReport>, Problem> {
    Ok(web::Json(cdp.identity_report(&actor).await?))
}

/// Adds the routes.
pub(super) fn routes(config: &mut ServiceConfig<'_>) {
    config.service(find_customer).service(search_customer).service(get_timeline).service(reveal_value).service(erase_customer);
    config.service(split_customer).service(put_consent).service(get_customer).service(get_rules).service(get_report);
}
