//! The steps behind a figure of the clearing, and the story of a lot, over HTTP.

#![expect(unused_qualifications, reason = "utoipa's macro writes them around query parameters")]

use super::export::language;
use crate::books;
use crate::cells::{Cell, CellStep, Column, LotStory, MadeBy, spent_with};
use crate::export::StepRows;
use crate::facade::Membership;
use actix_web::{HttpResponse, get, web};
use futures::stream;
use heyuan_contract::{Line, Ratio};
use heyuan_kernel::http::{Authenticated, Page, PageQuery};
use heyuan_kernel::problems::{Invalid, Missing, Unwelcome};
use heyuan_kernel::{Problem, Rfc3339, Scope};
use heyuan_ledger::LotStep;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which figure.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct CellQuery {
    /// `issued`, `opened`, `refunded`, `expired`, `forfeited`, `spent`, `recovered` or `adjusted`.
    #[param(value_type = String, example = "spent")]
    movement: String,
    /// The line that stands for the points; every line when left out.
    #[param(value_type = Option<String>, example = "mall")]
    issuer: Option<String>,
    /// The line where they were spent, with `spent` alone; every line when left out.
    #[param(value_type = Option<String>, example = "hotel")]
    spender: Option<String>,
}

/// The language of a file.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct LanguageQuery {
    /// `en` or `zh`; `en` when left out.
    lang: Option<String>,
}

/// Which lot.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct LotQuery {
    /// The key of the transfer that opened it.
    #[param(value_type = String, example = "transaction/mall-1/tea/points")]
    source: String,
}

/// An exact ratio.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(super) struct ExactBody {
    /// The part above the line; of a large cost it may be beyond 64 bits.
    #[schema(value_type = i64)]
    numerator: i128,
    /// The part below the line; never zero.
    #[schema(value_type = i64)]
    denominator: i128,
}

impl From<Ratio> for ExactBody {
    fn from(ratio: Ratio) -> ExactBody {
        ExactBody { numerator: ratio.numerator().into(), denominator: ratio.denominator().into() }
    }
}

impl ExactBody {
    pub(super) const fn of(numerator: i128, denominator: i128) -> ExactBody {
        ExactBody { numerator, denominator }
    }
}

/// One step of a lot, as a figure sums it.
#[derive(Debug, Serialize, ToSchema)]
struct CellStepBody {
    /// The lot: the key of the transfer that opened it; told to a line of its own lots alone.
    lot: Option<String>,
    /// The line that stands for it.
    issuer: String,
    /// The line where its points were spent.
    spender: Option<String>,
    /// `earn`, `open`, `spend`, `return`, `refund`, `expire`, `forfeit`, `recover` or `adjust`.
    movement: String,
    /// Points, with the figure's sign: a spend that was given back has a minus.
    points: i64,
    /// Of them, those that were spent already and are owed by the member; a refund's alone.
    owed: i64,
    /// Fen a point.
    unit_cost: ExactBody,
    /// Points times unit cost, in fen. A figure's fen are the sum of these, rounded once.
    cost: ExactBody,
    /// When.
    occurred_at: Rfc3339,
    /// What it belongs to: unit and transaction or spend, or the lot.
    reference: String,
}

impl From<CellStep> for CellStepBody {
    fn from(step: CellStep) -> CellStepBody {
        CellStepBody {
            lot: step.lot,
            issuer: step.issuer.to_string(),
            spender: step.spender.map(|line| line.to_string()),
            movement: step.movement,
            points: step.points,
            owed: step.owed,
            unit_cost: step.unit_cost.into(),
            cost: ExactBody::of(step.cost_numerator, step.cost_denominator),
            occurred_at: Rfc3339(step.occurred_at),
            reference: step.reference,
        }
    }
}

/// The transaction that earned a lot.
#[derive(Debug, Serialize, ToSchema)]
struct MadeByBody {
    /// Where it was reported.
    unit: String,
    /// The line's own id.
    transaction: String,
    /// Who bought.
    member: Option<String>,
    /// For how much.
    amount_fen: i64,
    /// When.
    occurred_at: Rfc3339,
}

impl From<MadeBy> for MadeByBody {
    fn from(made: MadeBy) -> MadeByBody {
        MadeByBody {
            unit: made.unit.into(),
            transaction: made.transaction.to_string(),
            member: made.member.map(|member| member.to_string()),
            amount_fen: made.amount.0,
            occurred_at: Rfc3339(made.occurred_at),
        }
    }
}

/// Something that happened to a lot.
#[derive(Debug, Serialize, ToSchema)]
struct LotStepBody {
    /// Its number: later ones are greater.
    number: i64,
    /// `spend`, `return`, `refund`, `expire`, `forfeit`, `recover`, `adjust` or `transfer`.
    movement: String,
    /// Positive into the lot, negative out of it.
    points: i64,
    /// The line where they were spent or came back from.
    spender: Option<String>,
    /// When.
    occurred_at: Rfc3339,
    /// The month that it counts in.
    accounting_period: String,
    /// What it belongs to.
    reference: String,
}

impl From<LotStep> for LotStepBody {
    fn from(step: LotStep) -> LotStepBody {
        LotStepBody {
            number: step.number,
            movement: step.kind,
            points: step.amount,
            spender: spent_with(&step.other).map(|line| line.to_string()),
            occurred_at: Rfc3339(step.occurred_at),
            accounting_period: step.period.to_string(),
            reference: step.reference,
        }
    }
}

/// A lot, what made it, and a page of what happened to it.
#[derive(Debug, Serialize, ToSchema)]
struct LotBody {
    /// The key of the transfer that opened it.
    source: String,
    /// `earn`, `open`, `adjust` or `transfer`.
    movement: String,
    /// The line that stands for it.
    issuer: String,
    /// Whose it is.
    member: Option<String>,
    /// Points that it opened with.
    points: i64,
    /// Points that are left and free.
    remaining: i64,
    /// Points that open holds have set aside.
    held: i64,
    /// Fen a point.
    unit_cost: ExactBody,
    /// When it was opened.
    occurred_at: Rfc3339,
    /// The month that this counts in.
    accounting_period: String,
    /// From this instant on it can't be spent.
    expires_at: Rfc3339,
    /// The transaction that earned it; absent for one that no transaction did.
    made_by: Option<MadeByBody>,
    /// What happened to it since then, the first first.
    steps: Page<LotStepBody>,
}

impl LotBody {
    fn of(story: LotStory, limit: u64) -> LotBody {
        let LotStory { lot, made_by, steps } = story;
        LotBody {
            member: books::owner(&lot.account).map(str::to_owned),
            source: lot.opened.source,
            movement: lot.opened.kind,
            issuer: lot.opened.issuer,
            points: lot.opened.amount,
            remaining: lot.remaining,
            held: lot.held,
            unit_cost: lot.opened.cost.into(),
            occurred_at: Rfc3339(lot.opened.occurred_at),
            accounting_period: lot.opened.period.to_string(),
            expires_at: Rfc3339(lot.opened.expires_at),
            made_by: made_by.map(MadeByBody::from),
            steps: Page::of(steps.into_iter().map(LotStepBody::from).collect(), limit, |step: &LotStepBody| step.number.to_string()),
        }
    }
}

impl CellQuery {
    fn cell(&self) -> Result<Cell, Problem> {
        let column = Column::parse(&self.movement);
        let words = || format!("expected one of {}", Column::ALL.map(Column::as_str).join(", "));
        Ok(Cell {
            column: column.ok_or_else(|| Problem::invalid("movement", words()))?,
            issuer: line_of("issuer", self.issuer.as_deref())?,
            spender: line_of("spender", self.spender.as_deref())?,
        })
    }
}

/// A line in a query, if one is named.
pub(super) fn line_of(field: &str, text: Option<&str>) -> Result<Option<Line>, Problem> {
    let words = || format!("expected one of {}", Line::ALL.map(Line::as_str).join(", "));
    text.map(|text| Line::parse(text).ok_or_else(|| Problem::invalid(field, words()))).transpose()
}

/// Lists the steps of lots that a figure of a month's clearing sums. All pages together come to the figure exactly. A key that covers all of
/// a line's units sees the figures of the line's own statement.
#[utoipa::path(
    tag = "membership", summary = "List the steps behind a figure", security(("key" = [])),
    params(("period" = String, Path, description = "A month such as 2026-11"), CellQuery, PageQuery),
    responses(
        (status = 200, body = Page<CellStepBody>),
        Invalid, Unwelcome,
    )
)]
#[get("/v1/clearing/{period}/lots")]
pub(super) async fn list_steps(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    period: web::Path<String>,
    query: web::Query<CellQuery>,
    page: web::Query<PageQuery>,
) -> Result<web::Json<Page<CellStepBody>>, Problem> {
    actor.require(Scope::Admin)?;
    let found = membership.cell(&actor, &period, query.cell()?, page.after()?.as_deref(), page.limit()?).await?;
    Ok(web::Json(Page::before(found.steps.into_iter().map(CellStepBody::from).collect(), found.next)))
}

/// The same steps as CSV, however many they are: UTF-8 with the mark that Excel needs.
#[utoipa::path(
    tag = "membership", summary = "Export the steps behind a figure", security(("key" = [])),
    params(("period" = String, Path, description = "A month such as 2026-11"), CellQuery, LanguageQuery),
    responses(
        (status = 200, body = String, content_type = "text/csv"),
        Invalid, Unwelcome,
    )
)]
#[get("/v1/clearing/{period}/lots.csv")]
pub(super) async fn export_steps(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    period: web::Path<String>,
    query: web::Query<CellQuery>,
    lang: web::Query<LanguageQuery>,
) -> Result<HttpResponse, Problem> {
    actor.require(Scope::Admin)?;
    let (cell, language) = (query.cell()?, language(lang.lang.as_deref())?);
    let name = format!("attachment; filename=\"clearing-{}-{}.csv\"", period.as_str(), cell.column.as_str());
    // The first page before the answer begins, so that what is wrong is answered as a problem.
    let first = membership.export_steps(&actor, &period, cell, None, language).await?;
    let rows = stream::try_unfold((Some(first.bytes), first.next), move |(ready, next)| {
        let (membership, actor, period) = (membership.clone(), actor.clone(), period.clone());
        async move {
            let page = match (ready, next) {
                (Some(bytes), next) => StepRows { bytes, next },
                (None, Some(after)) => membership.export_steps(&actor, &period, cell, Some(&after), language).await?,
                (None, None) => return Ok::<_, Problem>(None),
            };
            Ok(Some((web::Bytes::from(page.bytes), (None, page.next))))
        }
    });
    Ok(HttpResponse::Ok().content_type("text/csv; charset=utf-8").insert_header(("Content-Disposition", name)).streaming(rows))
}

/// Reads a lot by the key of the transfer that opened it: what made it, and everything that happened to it.
#[utoipa::path(
    tag = "membership", summary = "Read a lot of points", security(("key" = [])), params(LotQuery, PageQuery),
    responses(
        (status = 200, body = LotBody),
        Invalid, Unwelcome, Missing,
    )
)]
#[get("/v1/points-lots")]
pub(super) async fn get_lot(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    query: web::Query<LotQuery>,
    page: web::Query<PageQuery>,
) -> Result<web::Json<LotBody>, Problem> {
    let limit = page.limit()?;
    let story = membership.lot(&actor, &query.source, page.after_number()?.unwrap_or(0), limit + 1).await?;
    Ok(web::Json(LotBody::of(story, limit)))
}
