//! Routes of who may do what, and who did what: keys and the audit record.

use crate::admin::require_group_admin;
use actix_web::{HttpResponse, delete, get, post, web};
use heyuan_contract::{OrgUnitId, Timestamp};
use heyuan_kernel::http::{Authenticated, Body, Page, PageQuery};
use heyuan_kernel::keys::{Credentials, KeyRecord};
use heyuan_kernel::problems::{Conflicting, Invalid, Missing, Unwelcome};
use heyuan_kernel::{Kernel, Problem, Rfc3339, Scope, sql};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

/// Registers the routes.
pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(list_keys).service(create_key).service(revoke_key).service(list_audit);
}

/// A key without its secret, which is kept nowhere.
#[derive(Debug, Serialize, ToSchema)]
struct KeyView {
    /// Its name in lists, audit and logs.
    id: String,
    /// What it may do.
    scopes: Vec<String>,
    /// Its unit; absent for the whole group.
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    created_at: Rfc3339,
    /// Absent while it is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<Rfc3339>,
    /// To the hour; absent before its first use.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_at: Option<Rfc3339>,
    /// Whoever made it, as in audit; absent for a key that was made beside the data. Where four eyes are needed, two keys behind which the same
    /// maker may stand are one pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    maker: Option<String>,
}

impl From<KeyRecord> for KeyView {
    fn from(key: KeyRecord) -> Self {
        KeyView {
            id: key.id,
            scopes: key.scopes.iter().map(ToString::to_string).collect(),
            unit: key.unit.map(|unit| unit.to_string()),
            created_at: Rfc3339(key.created_at),
            revoked_at: key.revoked_at.map(Rfc3339),
            last_used_at: key.last_used_at.map(Rfc3339),
            maker: key.maker,
        }
    }
}

#[utoipa::path(tag = "Tenant", summary = "List keys, revoked ones too", security(("key" = [])), params(PageQuery),
    responses((status = 200, body = Page<KeyView>), Invalid, Unwelcome))]
#[get("/v1/keys")]
async fn list_keys(
    Authenticated(actor): Authenticated,
    credentials: web::Data<Credentials>,
    page: web::Query<PageQuery>,
) -> Result<web::Json<Page<KeyView>>, Problem> {
    actor.require(Scope::Admin)?;
    let (after, limit) = (page.after()?.unwrap_or_default(), page.limit()?);
    let keys = credentials.list(&actor, &after, limit + 1).await?;
    Ok(web::Json(Page::of(keys.into_iter().map(KeyView::from).collect(), limit, |key| key.id.clone())))
}

/// What a new key may do, and where: no more than the key that makes it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateKey {
    /// ingest, app, admin, reveal, import
    #[schema(min_items = 1, value_type = Vec<String>, example = json!(["admin"]))]
    scopes: Vec<String>,
    /// The org unit that it belongs to; the whole group when left out.
    #[schema(value_type = Option<String>)]
    unit: Option<OrgUnitId>,
}

/// A fresh key.
#[derive(Debug, Serialize, ToSchema)]
struct CreatedKey {
    /// The key itself: the only time that it can be seen.
    key: String,
    #[serde(flatten)]
    view: KeyView,
}

#[utoipa::path(tag = "Tenant", summary = "Make a key, which is shown this once", security(("key" = [])), request_body = CreateKey,
    responses((status = 201, body = CreatedKey), Invalid, Unwelcome))]
#[post("/v1/keys")]
async fn create_key(
    Authenticated(actor): Authenticated,
    credentials: web::Data<Credentials>,
    body: Body<CreateKey>,
) -> Result<HttpResponse, Problem> {
    actor.require(Scope::Admin)?;
    let scopes = body.0.scopes.iter().enumerate().map(|(index, text)| {
        let wrong = || Problem::invalid(&format!("scopes[{index}]"), "expected ingest, app, admin, reveal or import");
        Scope::parse(text).ok_or_else(wrong)
    });
    let scopes = scopes.collect::<Result<Vec<_>, _>>()?;
    let key = credentials.create(&actor, &scopes, body.0.unit.as_ref()).await?;
    Ok(HttpResponse::Created().json(CreatedKey { key: key.secret, view: key.record.into() }))
}

#[utoipa::path(tag = "Tenant", summary = "Revoke a key: it is refused everywhere within five seconds", security(("key" = [])),
    params(("id" = String, Path, description = "As listed")),
    responses((status = 204), Invalid, Unwelcome, Missing, Conflicting))]
#[delete("/v1/keys/{id}")]
async fn revoke_key(
    Authenticated(actor): Authenticated,
    credentials: web::Data<Credentials>,
    id: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    actor.require(Scope::Admin)?;
    credentials.revoke(&actor, &id).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// An audited act.
#[derive(Debug, Serialize, ToSchema)]
struct Audited {
    id: i64,
    at: Rfc3339,
    /// The key or member that acted.
    actor: String,
    /// What it did.
    action: String,
    /// On what.
    object: String,
    /// More facts; never personal data.
    detail: serde_json::Value,
}

/// Which acts are listed.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// Only this action, such as `reveal`.
    action: Option<String>,
    /// Only acts on this object.
    object: Option<String>,
}

#[utoipa::path(tag = "Tenant", summary = "List audited acts", security(("key" = [])), params(PageQuery, AuditQuery),
    responses((status = 200, body = Page<Audited>), Invalid, Unwelcome))]
#[get("/v1/audit")]
async fn list_audit(
    Authenticated(actor): Authenticated,
    kernel: web::Data<Kernel>,
    page: web::Query<PageQuery>,
    wanted: web::Query<AuditQuery>,
) -> Result<web::Json<Page<Audited>>, Problem> {
    require_group_admin(&actor)?;
    let (after, limit) = (page.after_number()?.unwrap_or(0), page.limit()?);
    let mut text = "SELECT id, at, actor, action, object, detail FROM kernel_audit WHERE id > $1".to_owned();
    let mut values: Vec<sea_orm::Value> = vec![after.into(), (limit + 1).into()];
    for (column, value) in [("action", &wanted.action), ("object", &wanted.object)] {
        if let Some(value) = value {
            values.push(value.as_str().into());
            text.push_str(&format!(" AND {column} = ${}", values.len()));
        }
    }
    text.push_str(" ORDER BY id LIMIT $2");
    let rows = sql::all(kernel.db.reader(), &text, values).await?;
    let mut items = Vec::with_capacity(rows.len());
    for row in &rows {
        let detail: String = sql::get(row, "detail")?;
        items.push(Audited {
            id: sql::get(row, "id")?,
            at: Rfc3339(Timestamp::clamped(sql::get(row, "at")?)),
            actor: sql::get(row, "actor")?,
            action: sql::get(row, "action")?,
            object: sql::get(row, "object")?,
            detail: serde_json::from_str(&detail).unwrap_or_default(),
        });
    }
    Ok(web::Json(Page::of(items, limit, |audited| audited.id.to_string())))
}
