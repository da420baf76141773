//! Import of opening balances over HTTP.

#![expect(unused_qualifications, reason = "utoipa's macro writes them around query parameters")]

use crate::facade::Membership;
use crate::import::{ImportOpenings, ImportedOpenings};
use actix_web::{HttpRequest, HttpResponse, get, post, web};
use heyuan_contract::OrgUnitId;
use heyuan_kernel::Problem;
use heyuan_kernel::http::{Authenticated, charset, idempotency_header, read_body};
use heyuan_kernel::problems::{Conflicting, Invalid, Missing, TooLarge, Unwelcome};
use heyuan_kernel::table::RowErrorBody;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A file of opening balances: two hundred thousand rows fit.
const FILE_BYTES_MAX: usize = 32 << 20;

/// How the file is read.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ImportQuery {
    /// Whose file it is: a unit with a line issues every lot; with one without a line each row names its own, for keys of the whole group.
    #[param(value_type = String, example = "hotel-1")]
    unit: OrgUnitId,
    /// What the file calls its columns, where that is not their own name: `points:剩余积分,phone:手机号码`.
    mapping: Option<String>,
    /// Checks the file and posts nothing.
    dry_run: Option<bool>,
}

/// What of a file is in the books of a line, or with a dry run would be.
#[derive(Debug, Serialize, ToSchema)]
struct LineSumBody {
    /// The issuing line.
    line: String,
    /// Rows.
    rows: u64,
    /// Points.
    points: i64,
    /// Growth.
    growth: i64,
}

/// What became of a file.
#[derive(Debug, Serialize, ToSchema)]
struct ImportedOpeningsBody {
    /// Its id; the same for every retry.
    id: String,
    /// Whether it was only checked.
    dry_run: bool,
    /// Rows that were posted now, or with a dry run would be.
    rows_posted: u64,
    /// Rows that were in the books before.
    rows_known: u64,
    /// Rows left out.
    rows_refused: u64,
    /// Sums of what is in the books now, to compare with the program before.
    lines: Vec<LineSumBody>,
    /// The first thousand of the rows left out; the error file has ten times as many.
    errors: Vec<RowErrorBody>,
}

impl From<ImportedOpenings> for ImportedOpeningsBody {
    fn from(done: ImportedOpenings) -> ImportedOpeningsBody {
        let lines = done.lines.into_iter();
        ImportedOpeningsBody {
            id: done.id,
            dry_run: done.dry_run,
            rows_posted: done.posted,
            rows_known: done.known,
            rows_refused: done.refused,
            lines: lines
                .map(|(line, sum)| LineSumBody { line: line.to_string(), rows: sum.rows, points: sum.points, growth: sum.growth })
                .collect(),
            errors: done.errors.into_iter().map(RowErrorBody::from).collect(),
        }
    }
}

/// Takes opening balances over: CSV, UTF-8 or GBK, at most 200,000 rows, with the columns `member` (会员) or `phone` (手机号) or `openid` with
/// `app`, `points` (积分), `cost_fen` (单位成本(分): `0.5`, `1/3`), `expires_on` (到期日, the last day), and where wanted `line` (业态), `growth`
/// (成长值), `earned_on` (获得日), `external_id` (流水号). Each row becomes a lot of its line. A row that can't be read or has expired is told by
/// number and field, the others count. Sent again with the same key nothing is posted twice; a corrected file has its own key, and rows whose
/// `external_id` is in the books are known.
#[utoipa::path(
    tag = "membership", summary = "Import opening balances", security(("key" = [])),
    params(ImportQuery, ("Idempotency-Key" = String, Header, description = "Fresh for each file, the same for its retries")),
    request_body(content = String, content_type = "text/csv", description = "The balances"),
    responses(
        (status = 200, body = ImportedOpeningsBody),
        Invalid, Unwelcome, Conflicting, TooLarge,
    )
)]
#[post("/v1/points-imports")]
pub(super) async fn import_points(
    Authenticated(actor): Authenticated,
    request: HttpRequest,
    membership: web::Data<Membership>,
    query: web::Query<ImportQuery>,
    payload: web::Payload,
) -> Result<web::Json<ImportedOpeningsBody>, Problem> {
    let ImportQuery { unit, mapping, dry_run } = query.into_inner();
    let charset = charset(request.headers());
    let bytes = read_body(payload.into_inner(), FILE_BYTES_MAX).await?;
    let import = ImportOpenings { unit, mapping: mapping.unwrap_or_default(), dry_run: dry_run.unwrap_or_default(), bytes, charset };
    Ok(web::Json(membership.import_openings(&actor, &import, idempotency_header(&request)).await?.into()))
}

/// The rows that an import left out, as CSV: row, field, and what would be right. Holds nothing of the rows themselves.
#[utoipa::path(
    tag = "membership", summary = "Read an import's errors", security(("key" = [])),
    params(("id" = String, Path, description = "The import")),
    responses(
        (status = 200, body = String, content_type = "text/csv"),
        Unwelcome, Missing,
    )
)]
#[get("/v1/points-imports/{id}/errors.csv")]
pub(super) async fn get_import_errors(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let text = membership.import_errors(&actor, &id).await?;
    Ok(HttpResponse::Ok().content_type("text/csv; charset=utf-8").body(text))
}
