//! `POST /v1/query`.

use crate::{Lake, QueryOptions};
use actix_web::{post, web};
use heyuan_kernel::Problem;
use heyuan_kernel::error::ProblemBody;
use heyuan_kernel::http::{Authenticated, Body};
use heyuan_kernel::problems::{Stranger, TooLarge};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

/// Adds the lake's routes.
pub fn routes(config: &mut ServiceConfig) {
    config.service(query);
}

/// A question to the event history.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct QueryRequest {
    /// One SELECT, WITH, EXPLAIN or DESCRIBE over the view `events`.
    #[schema(example = "SELECT name, count(*) AS events FROM events WHERE day >= '2026-11-01' GROUP BY name ORDER BY events DESC")]
    sql: String,
    /// Values of `$1`, `$2`, …: text, whole numbers, booleans or null.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    params: Vec<Value>,
    /// Most rows of the answer.
    limit: Option<u64>,
}

/// An answer as columns and rows.
#[derive(Debug, Serialize, ToSchema)]
struct QueryAnswer {
    /// Names and types, in order.
    columns: Vec<QueryColumn>,
    /// Rows, each with a value a column. Times are RFC 3339 in UTC, decimals are text.
    #[schema(value_type = Vec<Vec<Object>>)]
    rows: Vec<Vec<Value>>,
    /// Whether there is more than was asked for or may be answered at once.
    truncated: bool,
}

/// A column of an answer.
#[derive(Debug, Serialize, ToSchema)]
struct QueryColumn {
    /// Its name.
    name: String,
    /// `bigint`, `double`, `boolean`, `text`, `timestamp`, `date`, `decimal`, `list`, `struct`, …
    r#type: String,
}

#[utoipa::path(
    tag = "lake",
    summary = "Ask the event history by SQL",
    description = "Read-only SQL over one view, `events`: every event accepted so far, in files or not, in one snapshot, cut to the units that the key reaches. Its columns are `position`, `message_id`, `kind`, `name`, `anchor`, `identifiers`, `unit`, `app`, `occurred_at` and `arrived_at` (times in UTC), `day` (the calendar day of `occurred_at` in the tenant's time zone) and `properties` (JSON text). `property(properties, 'name')` reads a property as text, `property_int(properties, 'name')` as an exact whole number. Rows, bytes, memory and time of a query are bounded; so is the number of queries that run at once.",
    request_body = QueryRequest,
    responses(
        (status = 200, description = "The rows", body = QueryAnswer),
        (status = 400, description = "The request or the SQL is not valid (`invalid_query`, in the planner's words)", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "The key lacks the scope admin", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "Too many queries at once, or this one needs too much time or memory", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "Database or files are away", body = ProblemBody, content_type = "application/problem+json"),
        Stranger, TooLarge,
    ),
    security(("key" = []))
)]
#[post("/v1/query")]
async fn query(
    Authenticated(actor): Authenticated,
    lake: web::Data<Lake>,
    body: Body<QueryRequest>,
) -> Result<web::Json<QueryAnswer>, Problem> {
    // A caller without the scope hears of that before its SQL is looked at.
    let QueryRequest { sql, params, limit } = body.0;
    let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let table = lake.query(&actor, &sql, QueryOptions { params, limit }).await?;
    let columns = table.columns.into_iter().map(|column| QueryColumn { name: column.name, r#type: column.r#type }).collect();
    Ok(web::Json(QueryAnswer { columns, rows: table.rows, truncated: table.truncated }))
}
