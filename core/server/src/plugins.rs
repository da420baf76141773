//! Routes of plugins: upload, approval of what they read, activation, retirement.

use crate::wiring::check_activation;
use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, HttpResponse, get, post, put, web};
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use heyuan_cdp::know::Know;
use heyuan_kernel::error::ProblemBody;
use heyuan_kernel::http::{Authenticated, Body, Page, PageQuery, read_body};
use heyuan_kernel::plugin::{Approval, MODULE_BYTES_MAX, Plugins, Version};
use heyuan_kernel::problems::{Conflicting, Invalid, Missing, TooLarge, Unwelcome};
use heyuan_kernel::{Problem, Scope};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

/// Registers the routes.
pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(upload_plugin)
        .service(list_plugins)
        .service(get_approval)
        .service(put_approval)
        .service(activate_plugin)
        .service(retire_plugin);
}

/// A module's bytes, read only after the key was found good: a stranger uploads nothing.
struct Module(Vec<u8>);

impl FromRequest for Module {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let authenticated = Authenticated::from_request(request, &mut Payload::None);
        let payload = payload.take();
        async move {
            authenticated.await?.0.require(Scope::Admin)?;
            read_body(payload, MODULE_BYTES_MAX).await.map(Module)
        }
        .boxed_local()
    }
}

#[utoipa::path(tag = "Plugins", summary = "Upload a version of a plugin", security(("key" = [])),
    params(("name" = String, Path, description = "The plugin's name: 1 to 63 characters of a-z 0-9 -")),
    request_body(content = Vec<u8>, content_type = "application/wasm", description = "A WebAssembly component of the world tagger or benefit-rule"),
    responses((status = 200, body = Version), Invalid, Unwelcome, Conflicting, TooLarge))]
#[put("/v1/plugins/{name}/versions")]
async fn upload_plugin(
    Authenticated(actor): Authenticated,
    plugins: web::Data<Plugins>,
    name: web::Path<String>,
    module: Module,
) -> Result<web::Json<Version>, Problem> {
    plugins.upload(&actor, &name, module.0).await.map(web::Json)
}

#[utoipa::path(tag = "Plugins", summary = "List versions of plugins", security(("key" = [])), params(PageQuery),
    responses((status = 200, body = Page<Version>), Invalid, Unwelcome))]
#[get("/v1/plugins")]
async fn list_plugins(
    Authenticated(actor): Authenticated,
    plugins: web::Data<Plugins>,
    page: web::Query<PageQuery>,
) -> Result<web::Json<Page<Version>>, Problem> {
    let limit = page.limit()?;
    let items = plugins.list(&actor, page.after()?, limit + 1).await?;
    Ok(web::Json(Page::of(items, limit, |version| format!("{}@{}", version.name, version.digest))))
}

/// Everything that a plugin may read.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PutApproval {
    /// The whole list: features as the tenant spells them, and `input.member` and `input.order_lines` for parts of a benefit rule's input.
    #[schema(max_items = 512)]
    approved: Vec<String>,
}

#[utoipa::path(tag = "Plugins", summary = "What a plugin may read", security(("key" = [])),
    params(("name" = String, Path, description = "The plugin's name")),
    responses((status = 200, body = Approval), Invalid, Unwelcome))]
#[get("/v1/plugins/{name}/approval")]
async fn get_approval(
    Authenticated(actor): Authenticated,
    plugins: web::Data<Plugins>,
    name: web::Path<String>,
) -> Result<web::Json<Approval>, Problem> {
    plugins.approval(&actor, &name).await.map(web::Json)
}

#[utoipa::path(tag = "Plugins", summary = "Approve what a plugin may read, as a whole list", security(("key" = [])),
    params(("name" = String, Path, description = "The plugin's name; its versions need not be there yet")), request_body = PutApproval,
    responses((status = 200, body = Approval),
        (status = 409, body = ProblemBody, content_type = "application/problem+json",
            description = "The active version reads what the list leaves out"),
        Invalid, Unwelcome))]
#[put("/v1/plugins/{name}/approval")]
async fn put_approval(
    Authenticated(actor): Authenticated,
    plugins: web::Data<Plugins>,
    name: web::Path<String>,
    body: Body<PutApproval>,
) -> Result<web::Json<Approval>, Problem> {
    actor.require(Scope::Admin)?;
    plugins.approve(&actor, &name, &body.0.approved).await.map(web::Json)
}

/// Which version counts from now on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Activate {
    /// SHA-256 of an uploaded version, in hex.
    digest: String,
    /// Lower runs first; 100 when left out.
    priority: Option<i64>,
    /// What of the version's `reads` to approve along with it; added to what is approved already.
    #[serde(default)]
    #[schema(max_items = 512)]
    approve: Vec<String>,
    /// Goes back to this version of a plugin that its Plugin object rules, whatever that says, until its generation changes.
    #[serde(default)]
    emergency: bool,
}

#[utoipa::path(tag = "Plugins", summary = "Make a version the one that counts, or go back to an earlier one", security(("key" = [])),
    params(("name" = String, Path, description = "The plugin's name")), request_body = Activate,
    responses((status = 200, body = Version),
        (status = 409, body = ProblemBody, content_type = "application/problem+json",
            description = "`approval_needed`: the version reads what is not approved; `managed_by_operator`: its Plugin object rules it"),
        Invalid, Unwelcome, Missing))]
#[post("/v1/plugins/{name}/activate")]
async fn activate_plugin(
    Authenticated(actor): Authenticated,
    plugins: web::Data<Plugins>,
    know: web::Data<Know>,
    name: web::Path<String>,
    body: Body<Activate>,
) -> Result<web::Json<Version>, Problem> {
    actor.require(Scope::Admin)?;
    let Activate { digest, priority, approve, emergency } = body.0;
    let priority = priority.unwrap_or(100);
    check_activation(&plugins, &know, &name, &digest).await?;
    if emergency {
        return plugins.roll_back(&actor, &name, &digest, priority).await.map(web::Json);
    }
    plugins.activate(&actor, &name, &digest, priority, &approve).await.map(web::Json)
}

#[utoipa::path(tag = "Plugins", summary = "Take a plugin out of service", security(("key" = [])),
    params(("name" = String, Path, description = "The plugin's name")),
    responses((status = 204), Unwelcome, Missing))]
#[post("/v1/plugins/{name}/retire")]
async fn retire_plugin(
    Authenticated(actor): Authenticated,
    plugins: web::Data<Plugins>,
    name: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    plugins.retire(&actor, &name).await?;
    Ok(HttpResponse::NoContent().finish())
}
