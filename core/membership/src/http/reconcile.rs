//! A line's own books beside what it reported, over HTTP.

#![expect(unused_qualifications, reason = "utoipa's macro writes them around query parameters")]

use crate::facade::Membership;
use crate::reconcile::{Differing, Reconciliation};
use actix_web::{HttpRequest, post, web};
use heyuan_contract::Line;
use heyuan_kernel::Problem;
use heyuan_kernel::http::{Authenticated, charset, read_body};
use heyuan_kernel::problems::{Invalid, TooLarge, Unwelcome};
use heyuan_kernel::table::RowErrorBody;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A file of books: half a million rows fit.
const FILE_BYTES_MAX: usize = 48 << 20;

/// Whose books.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ReconcileQuery {
    /// The business line.
    #[param(value_type = String, example = "mall")]
    line: String,
}

/// A transaction on which the two sides differ.
#[derive(Debug, Serialize, ToSchema)]
struct DifferingBody {
    /// `not_reported`, `not_in_books` or `amount_differs`.
    difference: &'static str,
    /// Where.
    unit: String,
    /// The line's own id.
    transaction: String,
    /// `purchase` or `refund`.
    kind: String,
    /// What the line's books say; with a minus when they have it as the other kind.
    books_fen: Option<i64>,
    /// What was reported.
    reported_fen: Option<i64>,
    /// Points that the report gave, or with a minus took back.
    points: i64,
    /// The month that the report counts in.
    accounting_period: Option<String>,
    /// A transaction of the books with the same member, unit, moment and amount: this may be a second import of it.
    twin: Option<String>,
}

impl From<Differing> for DifferingBody {
    fn from(differing: Differing) -> DifferingBody {
        DifferingBody {
            difference: differing.difference.as_str(),
            unit: differing.unit.into(),
            transaction: differing.transaction.to_string(),
            kind: differing.kind,
            books_fen: differing.books_fen,
            reported_fen: differing.reported_fen,
            points: differing.points,
            accounting_period: differing.period.map(|period| period.to_string()),
            twin: differing.twin.map(|twin| twin.to_string()),
        }
    }
}

/// What the comparison came to.
#[derive(Debug, Serialize, ToSchema)]
struct ReconciliationBody {
    /// Rows of the file that could be read.
    rows: u64,
    /// Transactions that both sides have alike.
    alike: u64,
    /// All that differ.
    differing: u64,
    /// The first thousand of them.
    differences: Vec<DifferingBody>,
    /// Rows that could not be read.
    rows_refused: u64,
    /// The first thousand of them.
    errors: Vec<RowErrorBody>,
}

impl From<Reconciliation> for ReconciliationBody {
    fn from(found: Reconciliation) -> ReconciliationBody {
        ReconciliationBody {
            rows: found.rows,
            alike: found.alike,
            differing: found.differing,
            differences: found.differences.into_iter().map(DifferingBody::from).collect(),
            rows_refused: found.refused,
            errors: found.errors.into_iter().map(RowErrorBody::from).collect(),
        }
    }
}

/// Compares a line's own books of a month (对账) with what it reported with an own time in that month. The file is CSV, UTF-8 or GBK, with the
/// columns `transaction` (交易号), `unit` (项目), `kind` (`purchase`/消费, `refund`/退款) and `amount_fen` (金额(分)). Nothing is changed.
#[utoipa::path(
    tag = "membership", summary = "Reconcile a line's books", security(("key" = [])),
    params(("period" = String, Path, description = "A month such as 2026-11"), ReconcileQuery),
    request_body(content = String, content_type = "text/csv", description = "The line's own books of the month"),
    responses(
        (status = 200, body = ReconciliationBody),
        Invalid, Unwelcome, TooLarge,
    )
)]
#[post("/v1/clearing/{period}/reconciliation")]
pub(super) async fn reconcile(
    Authenticated(actor): Authenticated,
    request: HttpRequest,
    membership: web::Data<Membership>,
    period: web::Path<String>,
    query: web::Query<ReconcileQuery>,
    payload: web::Payload,
) -> Result<web::Json<ReconciliationBody>, Problem> {
    let line =
        Line::parse(&query.line).ok_or_else(|| Problem::invalid("line", "expected residential, mall, office, hotel or community"))?;
    let charset = charset(request.headers());
    let bytes = read_body(payload.into_inner(), FILE_BYTES_MAX).await?;
    Ok(web::Json(membership.reconcile(&actor, &period, line, &bytes, charset.as_deref()).await?.into()))
}
