//! Spend files and the units of plans over HTTP.

#![expect(unused_qualifications, reason = "utoipa's macro writes them around query parameters")]

use crate::spend::{ImportSpend, Imported, PlanUnit};
use crate::spend_file::Platform;
use crate::wing::Attribution;
use actix_web::{HttpRequest, post, put, web};
use heyuan_contract::OrgUnitId;
use heyuan_kernel::Problem;
use heyuan_kernel::http::{Authenticated, Body, charset, read_body};
use heyuan_kernel::problems::{Invalid, TooLarge, Unwelcome};
use heyuan_kernel::table::RowErrorBody;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A spend file: two hundred thousand rows fit.
const FILE_BYTES_MAX: usize = 32 << 20;

/// Whose file, and who pays.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ImportQuery {
    /// `ocean_engine`, `tencent_ads` or `baidu`.
    platform: String,
    /// The unit that pays, for plans without a unit of their own.
    #[param(value_type = String)]
    unit: OrgUnitId,
}

/// What became of a file.
#[derive(Debug, Serialize, ToSchema)]
struct ImportedBody {
    /// The import.
    id: String,
    /// Rows that count now.
    rows_accepted: u64,
    /// Rows among them that took the place of earlier ones.
    rows_replaced: u64,
    /// Rows left out.
    rows_refused: u64,
    /// The first thousand rows left out.
    errors: Vec<RowErrorBody>,
}

impl From<Imported> for ImportedBody {
    fn from(imported: Imported) -> ImportedBody {
        ImportedBody {
            id: imported.id,
            rows_accepted: imported.rows_accepted,
            rows_replaced: imported.rows_replaced,
            rows_refused: imported.rows_refused,
            errors: imported.errors.into_iter().map(RowErrorBody::from).collect(),
        }
    }
}

/// A plan's unit.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PutPlanBody {
    /// The unit that the plan advertises.
    #[schema(value_type = String)]
    unit: OrgUnitId,
}

/// Which unit a plan advertises.
#[derive(Debug, Serialize, ToSchema)]
struct PlanBody {
    /// The platform.
    platform: String,
    /// The plan's id there.
    plan: String,
    /// The unit.
    unit: String,
}

/// Imports a spend file as the platform exports it: CSV with its own header, UTF-8 or GBK (declare it as `charset`, or leave it to
/// us). A row that can't be read is told by number and field, the others count; a creative's day imported again replaces itself.
#[utoipa::path(
    tag = "attribution", summary = "Import a spend file", params(ImportQuery), security(("key" = [])),
    request_body(content = String, content_type = "text/csv", description = "The platform's export"),
    responses(
        (status = 200, body = ImportedBody),
        Invalid, Unwelcome, TooLarge,
    )
)]
#[post("/v1/spend/imports")]
pub(super) async fn import_spend(
    Authenticated(actor): Authenticated,
    request: HttpRequest,
    attribution: web::Data<Attribution>,
    query: web::Query<ImportQuery>,
    payload: web::Payload,
) -> Result<web::Json<ImportedBody>, Problem> {
    let ImportQuery { platform, unit } = query.into_inner();
    let platform = platform_of(&platform)?;
    let charset = charset(request.headers());
    let bytes = read_body(payload.into_inner(), FILE_BYTES_MAX).await?;
    Ok(web::Json(attribution.import_spend(&actor, ImportSpend { platform, unit, bytes, charset }).await?.into()))
}

/// Says which unit a plan advertises, for the spend imported so far and from now on.
#[utoipa::path(
    tag = "attribution", summary = "Put a plan's unit", request_body = PutPlanBody, security(("key" = [])),
    params(
        ("platform" = String, Path, description = "`ocean_engine`, `tencent_ads` or `baidu`"),
        ("plan" = String, Path, description = "The plan's id there"),
    ),
    responses(
        (status = 200, body = PlanBody),
        Invalid, Unwelcome,
    )
)]
#[put("/v1/spend/plans/{platform}/{plan}")]
pub(super) async fn put_plan(
    Authenticated(actor): Authenticated,
    attribution: web::Data<Attribution>,
    path: web::Path<(String, String)>,
    body: Body<PutPlanBody>,
) -> Result<web::Json<PlanBody>, Problem> {
    let (platform, plan) = path.into_inner();
    let put = PlanUnit { platform: platform_of(&platform)?, plan, unit: body.0.unit };
    let put = attribution.put_plan(&actor, put).await?;
    Ok(web::Json(PlanBody { platform: put.platform.as_str().into(), plan: put.plan, unit: put.unit.into() }))
}

fn platform_of(text: &str) -> Result<Platform, Problem> {
    Platform::parse(text).ok_or_else(|| Problem::invalid("platform", "expected ocean_engine, tencent_ads or baidu"))
}
