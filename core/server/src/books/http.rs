//! The book over HTTP, for those of the group who have no shell on its server: the statement of an account and the trial balance.

#![expect(unused_qualifications, reason = "utoipa's macro writes them around query parameters")]

use crate::admin::require_group_admin;
use actix_web::{get, web};
use heyuan_kernel::http::{Authenticated, Page, PageQuery};
use heyuan_kernel::problems::{Away, Invalid, Missing, Unwelcome};
use heyuan_kernel::{Problem, Rfc3339};
use heyuan_ledger::{Ledger, Period, StatementEntry, TrialLine};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;

/// Registers the routes.
pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(get_statement).service(get_trial_balance);
}

/// Which account, and which month of it.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct StatementQuery {
    /// The account's id.
    #[param(value_type = String, example = "line/mall/points_issued")]
    account: String,
    /// The month.
    #[param(value_type = String, example = "2026-11")]
    period: String,
}

/// Which month.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct MonthQuery {
    /// The month.
    #[param(value_type = String, example = "2026-11")]
    period: String,
}

fn month(text: &str) -> Result<Period, Problem> {
    Period::parse(text).ok_or_else(|| Problem::invalid("period", "expected a month such as 2026-11"))
}

/// An entry of an account.
#[derive(Serialize, ToSchema)]
struct StatementEntryBody {
    /// The transfer's number in the book.
    transfer: i64,
    /// The transfer's key.
    key: String,
    /// The account on the other side.
    other: String,
    /// Above zero into the account.
    amount: i64,
    /// The balance after it; absent where entries run side by side.
    #[serde(skip_serializing_if = "Option::is_none")]
    balance: Option<i64>,
    /// What it is: `earn`, `spend` and so on.
    kind: String,
    /// What it belongs to.
    reference: String,
    /// Its own time.
    occurred_at: Rfc3339,
}

impl From<StatementEntry> for StatementEntryBody {
    fn from(entry: StatementEntry) -> StatementEntryBody {
        StatementEntryBody {
            transfer: entry.transfer,
            key: entry.key,
            other: entry.other,
            amount: entry.amount,
            balance: entry.balance,
            kind: entry.kind,
            reference: entry.reference,
            occurred_at: Rfc3339(entry.occurred_at),
        }
    }
}

/// An account in a month, with a page of its entries in the order in which they were posted.
#[derive(Serialize, ToSchema)]
struct AccountStatementBody {
    /// The account.
    account: String,
    /// The month.
    period: String,
    /// What it held when the month began.
    opening: i64,
    /// What went out in the month.
    debits: i64,
    /// What came in in the month.
    credits: i64,
    /// What it held when the month ended.
    closing: i64,
    /// Its entries of the month.
    items: Vec<StatementEntryBody>,
    /// The cursor of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// States an account's month: what it held before, what moved in it entry by entry, and what it held then. Needs a key of the whole group.
#[utoipa::path(
    tag = "ledger", summary = "State an account's month", security(("key" = [])), params(StatementQuery, PageQuery),
    responses(
        (status = 200, body = AccountStatementBody),
        Invalid, Unwelcome, Missing,
    )
)]
#[get("/v1/ledger/statement")]
async fn get_statement(
    Authenticated(actor): Authenticated,
    ledger: web::Data<Ledger>,
    query: web::Query<StatementQuery>,
    page: web::Query<PageQuery>,
) -> Result<web::Json<AccountStatementBody>, Problem> {
    require_group_admin(&actor)?;
    if query.account.contains('\0') {
        return Err(Problem::not_found("account", "of this name"));
    }
    let (period, after, limit) = (month(&query.period)?, page.after_number()?, page.limit()?);
    let stated = ledger.account_statement(ledger.database().reader(), &query.account, period, after, limit + 1).await?;
    let entries = Page::of(stated.entries, limit, |entry| entry.place.to_string());
    Ok(web::Json(AccountStatementBody {
        account: stated.account,
        period: stated.period.to_string(),
        opening: stated.opening,
        debits: stated.debits,
        credits: stated.credits,
        closing: stated.closing,
        items: entries.items.into_iter().map(StatementEntryBody::from).collect(),
        next: entries.next,
    }))
}

/// A line of the trial balance.
#[derive(Serialize, ToSchema)]
struct TrialLineBody {
    /// What it counts: `points`, `growth`, `cny_fen`.
    unit: String,
    /// An account of a line or of the centre, or with a `*` all accounts of one kind of owner together.
    accounts: String,
    /// What they held when the month began.
    opening: i64,
    /// What went out in the month.
    debits: i64,
    /// What came in in the month.
    credits: i64,
    /// What they held when the month ended.
    closing: i64,
}

impl From<TrialLine> for TrialLineBody {
    fn from(line: TrialLine) -> TrialLineBody {
        TrialLineBody {
            unit: line.unit,
            accounts: line.group,
            opening: line.opening,
            debits: line.debits,
            credits: line.credits,
            closing: line.closing,
        }
    }
}

/// The trial balance of a month: of each unit, opening and closing sum to zero, and debits to credits.
#[derive(Serialize, ToSchema)]
struct TrialBalanceBody {
    /// The month.
    period: String,
    /// Every account or kind of accounts.
    items: Vec<TrialLineBody>,
}

/// States what all accounts held before a month, what moved in it, and what they held then. It reads the whole book up to the month once; where
/// that takes longer than a minute it answers 503, and `heyuan ledger trial-balance` on the server has all the time that it needs. Needs a
/// key of the whole group.
#[utoipa::path(
    tag = "ledger", summary = "Draw up the trial balance", security(("key" = [])), params(MonthQuery),
    responses(
        (status = 200, body = TrialBalanceBody),
        Invalid, Unwelcome,
        Away,
    )
)]
#[get("/v1/ledger/trial-balance")]
async fn get_trial_balance(
    Authenticated(actor): Authenticated,
    ledger: web::Data<Ledger>,
    query: web::Query<MonthQuery>,
) -> Result<web::Json<TrialBalanceBody>, Problem> {
    require_group_admin(&actor)?;
    let period = month(&query.period)?;
    let lines = ledger.trial_balance(ledger.database().reader(), period).await?;
    Ok(web::Json(TrialBalanceBody { period: period.to_string(), items: lines.into_iter().map(TrialLineBody::from).collect() }))
}
