//! The full-chain report over HTTP.

#![expect(unused_qualifications, reason = "utoipa's macro writes them around query parameters")]

use super::MoneyBody;
use crate::credit::{MILLION, Model};
use crate::report::{Basis, Cost, FullChain, GroupBy, ReportQuery, ReportRow, rate};
use crate::wing::Attribution;
use actix_web::{get, web};
use heyuan_contract::Fen;
use heyuan_kernel::Problem;
use heyuan_kernel::http::Authenticated;
use heyuan_kernel::problems::{Invalid, Unwelcome};
use heyuan_kernel::time::parse_day;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The version of the conventions; it changes when the same data would give other figures.
const VERSION: &str = "1";
/// Days before a lead in which a touch counts, when the caller names none.
const WINDOW_DAYS: i64 = 30;
/// A cost over fewer results than this says more about luck than about the plan.
const MIN_SAMPLE: i64 = 5;

/// What to report.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct FullChainQuery {
    /// First day, in the tenant's time zone.
    #[param(example = "2026-11-01")]
    from: String,
    /// Last day.
    #[param(example = "2026-11-30")]
    to: String,
    /// `platform` (when left out), `plan`, `unit` or `day`.
    group_by: Option<String>,
    /// `event` (when left out): what happened within the days; `cohort`: all that the leads of the days ever reached.
    basis: Option<String>,
    /// `first`, `last` (when left out), `last_non_direct` or `linear`.
    model: Option<String>,
    /// Days before a lead in which a touch counts, 1 to 365; 30 when left out.
    window_days: Option<i64>,
    /// A cost over fewer results is withheld, 1 to 1000; 5 when left out.
    min_sample: Option<i64>,
}

/// An exact ratio in lowest terms.
#[derive(Debug, Serialize, ToSchema)]
struct RateBody {
    /// Above the line.
    numerator: i64,
    /// Below the line; never 0.
    denominator: i64,
}

/// A cost per result.
#[derive(Debug, Serialize, ToSchema)]
struct CostBody {
    /// Rounded half up to the fen; null where it is withheld.
    cost: Option<MoneyBody>,
    /// Why there is none: `no_result` or `small_sample`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl From<Cost> for CostBody {
    fn from(cost: Cost) -> CostBody {
        match cost {
            Cost::Known(fen) => CostBody { cost: Some(fen.into()), reason: None },
            Cost::Withheld(reason) => CostBody { cost: None, reason: Some(reason.to_owned()) },
        }
    }
}

/// A row of the report. Counts have up to six places: a linear model parts a result among rows.
#[derive(Debug, Serialize, ToSchema)]
struct RowBody {
    /// The platform or source, `platform/plan`, unit or day; `direct` for what nothing brought.
    key: String,
    /// The plan's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    /// What was charged.
    spend: MoneyBody,
    /// 线索
    leads: f64,
    /// 邀约
    invited: f64,
    /// 到访
    visited: f64,
    /// 认筹
    subscribed: f64,
    /// 签约, cancelled ones too
    contracted: f64,
    /// Cancelled subscriptions and contracts.
    cancelled: f64,
    /// Contracts less cancelled contracts; by event date it may fall below zero.
    net_contracts: f64,
    /// Invited of leads; null where there are none.
    invitation_rate: Option<RateBody>,
    /// Visited of leads.
    visit_rate: Option<RateBody>,
    /// Subscribed of visited.
    subscription_rate: Option<RateBody>,
    /// Contracted of leads.
    contract_rate: Option<RateBody>,
    /// Spend a lead.
    cost_per_lead: CostBody,
    /// Spend a visit.
    cost_per_visit: CostBody,
    /// Spend a contract that was not cancelled.
    cost_per_net_contract: CostBody,
}

impl RowBody {
    fn new(row: ReportRow, min_sample: i64) -> RowBody {
        let counts = row.counts;
        let body = |part, whole| rate(part, whole).map(|(numerator, denominator)| RateBody { numerator, denominator });
        RowBody {
            cost_per_lead: row.cost_per_lead(min_sample).into(),
            cost_per_visit: row.cost_per_visit(min_sample).into(),
            cost_per_net_contract: row.cost_per_net_contract(min_sample).into(),
            invitation_rate: body(counts.invited, counts.leads),
            visit_rate: body(counts.visited, counts.leads),
            subscription_rate: body(counts.subscribed, counts.visited),
            contract_rate: body(counts.contracted, counts.leads),
            key: row.key,
            label: row.label,
            spend: Fen(row.spend.0).into(),
            leads: places(counts.leads),
            invited: places(counts.invited),
            visited: places(counts.visited),
            subscribed: places(counts.subscribed),
            contracted: places(counts.contracted),
            cancelled: places(counts.cancelled),
            net_contracts: places(counts.net_contracts),
        }
    }
}

/// What the figures mean.
#[derive(Debug, Serialize, ToSchema)]
struct ConventionsBody {
    /// Changes when the same data would give other figures.
    version: String,
    /// First day.
    from: String,
    /// Last day.
    to: String,
    /// Where days begin and end.
    time_zone: String,
    /// How the rows are cut.
    group_by: String,
    /// Which results count.
    basis: String,
    /// Who gets the credit.
    model: String,
    /// Days before its lead in which a touch counts.
    window_days: i64,
    /// A cost over fewer results is withheld.
    min_sample: i64,
    /// Which touches make a path, and where it ends.
    path: String,
    /// What decides between touches of one instant.
    ties: String,
    /// How a result is parted exactly.
    parts: String,
    /// What is null, and why.
    nulls: String,
}

/// The report.
#[derive(Debug, Serialize, ToSchema)]
struct FullChainBody {
    /// Rows by key: spend without results and results without spend both stand here.
    rows: Vec<RowBody>,
    /// The sum of the rows.
    totals: RowBody,
    /// What the figures mean.
    conventions: ConventionsBody,
}

impl From<FullChain> for FullChainBody {
    fn from(report: FullChain) -> FullChainBody {
        let FullChain { query, time_zone, rows, totals } = report;
        FullChainBody {
            rows: rows.into_iter().map(|row| RowBody::new(row, query.min_sample)).collect(),
            totals: RowBody::new(totals, query.min_sample),
            conventions: ConventionsBody {
                version: VERSION.into(),
                from: query.from.to_string(),
                to: query.to.to_string(),
                time_zone,
                group_by: query.group_by.as_str().into(),
                basis: query.basis.as_str().into(),
                model: query.model.as_str().into(),
                window_days: query.window_days,
                min_sample: query.min_sample,
                path: "touches of all identifiers of the lead's customer, as known now, within the window up to the lead; every \
                       result of a lead is credited along the lead's path; the touch of a click id that the lead names counts once, \
                       as the last; an empty path is direct"
                    .into(),
                ties: "touches of one instant stand in the order of their message ids".into(),
                parts: "credit is given in whole millionths; what a million does not divide into goes to the earliest touches, so that \
                        each result adds up to one"
                    .into(),
                nulls: "a rate over nothing is null; a cost is null over no result or fewer than min_sample".into(),
            },
        }
    }
}

/// Reports spend, leads, visits, subscriptions, contracts and what each cost, with the conventions of its figures.
#[utoipa::path(
    tag = "attribution", summary = "Report the full chain from spend to contract", params(FullChainQuery), security(("key" = [])),
    responses(
        (status = 200, body = FullChainBody),
        Invalid, Unwelcome,
    )
)]
#[get("/v1/reports/full-chain")]
pub(super) async fn full_chain(
    Authenticated(actor): Authenticated,
    attribution: web::Data<Attribution>,
    query: web::Query<FullChainQuery>,
) -> Result<web::Json<FullChainBody>, Problem> {
    let query = read_query(&query)?;
    Ok(web::Json(attribution.full_chain(&actor, query).await?.into()))
}

fn read_query(query: &FullChainQuery) -> Result<ReportQuery, Problem> {
    let group_by = query.group_by.as_deref().unwrap_or("platform");
    let basis = query.basis.as_deref().unwrap_or("event");
    let model = query.model.as_deref().unwrap_or("last");
    Ok(ReportQuery {
        from: parse_day("from", &query.from)?,
        to: parse_day("to", &query.to)?,
        group_by: GroupBy::parse(group_by).ok_or_else(|| Problem::invalid("group_by", "expected platform, plan, unit or day"))?,
        basis: Basis::parse(basis).ok_or_else(|| Problem::invalid("basis", "expected event or cohort"))?,
        model: Model::parse(model).ok_or_else(|| Problem::invalid("model", "expected first, last, last_non_direct or linear"))?,
        window_days: query.window_days.unwrap_or(WINDOW_DAYS),
        min_sample: query.min_sample.unwrap_or(MIN_SAMPLE),
    })
}

/// Millionths as a number with at most six places; it is a count, and no money is figured from it.
fn places(millionths: i64) -> f64 {
    millionths as f64 / MILLION as f64
}
