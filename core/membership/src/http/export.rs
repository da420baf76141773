//! The clearing as files, and what its points will cost, over HTTP.

#![expect(unused_qualifications, reason = "utoipa's macro writes them around query parameters")]

use super::cells::ExactBody;
use crate::breakage::{Breakage, METHOD, METHOD_ZH, Outstanding};
use crate::export::{Format, Table};
use crate::facade::Membership;
use crate::sheet::Language;
use actix_web::{HttpResponse, get, web};
use heyuan_kernel::http::Authenticated;
use heyuan_kernel::problems::{Invalid, Missing, Unwelcome};
use heyuan_kernel::{Problem, Scope};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

const XLSX: &str = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";

/// How a file is written.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ExportQuery {
    /// `csv` or `xlsx`.
    #[param(value_type = String, example = "csv")]
    format: String,
    /// `summary`, `matrix` or `statements`, with `csv`; `summary` when left out. An `xlsx` has them all.
    table: Option<String>,
    /// `en` or `zh`; `en` when left out.
    lang: Option<String>,
}

/// Which month.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct BreakageQuery {
    /// A closed month; the last one when left out.
    #[param(value_type = Option<String>, example = "2026-11")]
    as_of_period: Option<String>,
}

/// What is out at the end of a closed month, and how much of it is likely to expire.
#[derive(Serialize, ToSchema)]
struct BreakageBody {
    /// The closed month.
    #[schema(examples("2026-11"))]
    as_of_period: String,
    /// How the estimate is made.
    method: &'static str,
    /// The same in Chinese.
    method_zh: &'static str,
    /// Points that are out.
    points: i64,
    /// Their cost: the sum of the rows.
    fen: i64,
    /// By line and month of expiry.
    items: Vec<OutstandingBody>,
}

/// Points of one line that expire in one month.
#[derive(Serialize, ToSchema)]
struct OutstandingBody {
    /// The line that stands for them.
    issuer: String,
    /// The month in which they expire.
    expires_in: String,
    /// Months from the closed month to there; 0 and less is past.
    months_to_expiry: i64,
    /// Points that are out.
    points: i64,
    /// Their cost.
    fen: i64,
    /// Of them, those that are likely to expire; absent without enough history.
    estimate_points: Option<i64>,
    /// Their cost, which the line gets back.
    estimate_fen: Option<i64>,
    /// The share that was applied: points that expired, of points that were out as far from their expiry.
    share: Option<ExactBody>,
    /// Months of expiry that the share comes from.
    history_months: Option<i64>,
    /// Why there is no estimate: `too_little_history`.
    reason: Option<&'static str>,
}

impl From<Outstanding> for OutstandingBody {
    fn from(row: Outstanding) -> OutstandingBody {
        let expiring = row.expiring.ok();
        OutstandingBody {
            issuer: row.issuer.to_string(),
            expires_in: row.expires_in.to_string(),
            months_to_expiry: row.months_to_expiry,
            points: row.points,
            fen: row.fen,
            estimate_points: expiring.map(|expiring| expiring.points),
            estimate_fen: expiring.map(|expiring| expiring.fen),
            share: expiring.map(|expiring| ExactBody::of(expiring.share.expired.into(), expiring.share.out.into())),
            history_months: expiring.map(|expiring| expiring.share.months),
            reason: row.expiring.err().map(crate::breakage::NoEstimate::as_str),
        }
    }
}

impl From<Breakage> for BreakageBody {
    fn from(breakage: Breakage) -> BreakageBody {
        BreakageBody {
            as_of_period: breakage.as_of.to_string(),
            method: METHOD,
            method_zh: METHOD_ZH,
            points: breakage.rows.iter().map(|row| row.points).sum(),
            fen: breakage.rows.iter().map(|row| row.fen).sum(),
            items: breakage.rows.into_iter().map(OutstandingBody::from).collect(),
        }
    }
}

/// The language of a file, English when none is named.
pub(super) fn language(text: Option<&str>) -> Result<Language, Problem> {
    text.map_or(Ok(Language::default()), |text| Language::parse(text).ok_or_else(|| Problem::invalid("lang", "expected en or zh")))
}

impl ExportQuery {
    fn format(&self) -> Result<Format, Problem> {
        let table = match self.table.as_deref() {
            None => Table::default(),
            Some(text) => Table::parse(text).ok_or_else(|| Problem::invalid("table", "expected summary, matrix or statements"))?,
        };
        match self.format.as_str() {
            "csv" => Ok(Format::Csv(table)),
            "xlsx" if self.table.is_some() => Err(Problem::invalid("table", "an xlsx has all tables; expected none with it")),
            "xlsx" => Ok(Format::Xlsx),
            _ => Err(Problem::invalid("format", "expected csv or xlsx")),
        }
    }
}

/// The clearing of a month as a file: CSV in UTF-8 with the mark that Excel needs, or XLSX with the sheets Summary, Matrix and
/// Statements. Money stands as raw fen and as yuan. The file of a closed month is the same bytes as long as no line speaks.
#[utoipa::path(
    tag = "membership", summary = "Export a clearing", security(("key" = [])),
    params(("period" = String, Path, description = "A month such as 2026-11"), ExportQuery),
    responses(
        (status = 200, content((String = "text/csv"), (Vec<u8> = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"))),
        Invalid, Unwelcome,
    )
)]
#[get("/v1/clearing/{period}/export")]
pub(super) async fn export_clearing(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    period: web::Path<String>,
    query: web::Query<ExportQuery>,
) -> Result<HttpResponse, Problem> {
    actor.require(Scope::Admin)?;
    let (format, language) = (query.format()?, language(query.lang.as_deref())?);
    let bytes = membership.export_clearing(&actor, &period, format, language).await?;
    let (content_type, name) = match format {
        Format::Csv(table) => ("text/csv; charset=utf-8", format!("{}-{}.csv", period.as_str(), table.as_str())),
        Format::Xlsx => (XLSX, format!("{}.xlsx", period.as_str())),
    };
    let name = format!("attachment; filename=\"clearing-{name}\"");
    Ok(HttpResponse::Ok().content_type(content_type).insert_header(("Content-Disposition", name)).body(bytes))
}

/// Reads what points are out at the end of a closed month, by line and month of expiry at their unit cost, and an estimate of how many of
/// them will expire, from what became of earlier ones. The same month is always answered alike.
#[utoipa::path(
    tag = "membership", summary = "Estimate breakage", security(("key" = [])), params(BreakageQuery),
    responses(
        (status = 200, body = BreakageBody),
        Invalid, Unwelcome, Missing,
    )
)]
#[get("/v1/clearing/breakage")]
pub(super) async fn get_breakage(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    query: web::Query<BreakageQuery>,
) -> Result<web::Json<BreakageBody>, Problem> {
    Ok(web::Json(membership.breakage(&actor, query.as_of_period.as_deref()).await?.into()))
}
