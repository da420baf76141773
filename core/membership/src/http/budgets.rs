//! Budgets of rules over HTTP.

use crate::budget::{Budget, BudgetView, RuleBudget};
use crate::facade::Membership;
use actix_web::{get, put, web};
use heyuan_contract::Line;
use heyuan_kernel::http::{Authenticated, Body, Page, PageQuery};
use heyuan_kernel::problems::{Conflicting, Invalid, Unwelcome};
use heyuan_kernel::{Problem, Rfc3339};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// A rule's budget.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RuleBudgetBody {
    /// Points that the rule may grant to all members together in the month.
    #[schema(examples(10_000_000))]
    points_max: i64,
}

/// Sets what a benefit rule may grant in a month. What it granted already stays.
#[utoipa::path(
    tag = "membership", summary = "Set a rule's budget", request_body = RuleBudgetBody, security(("key" = [])),
    params(("rule" = String, Path, description = "The plugin's name"), ("period" = String, Path, description = "A month such as 2026-11")),
    responses(
        (status = 200, body = RuleBudgetBody),
        Invalid, Unwelcome,
    )
)]
#[put("/v1/rule-budgets/{rule}/{period}")]
pub(super) async fn put_rule_budget(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    path: web::Path<(String, String)>,
    body: Body<RuleBudgetBody>,
) -> Result<web::Json<RuleBudgetBody>, Problem> {
    let Body(body) = body;
    membership.set_budget(&actor, &path.0, &path.1, body.points_max).await?;
    Ok(web::Json(body))
}

/// A rule's budget of a month, and what was granted from it.
#[derive(Serialize, ToSchema)]
struct RuleBudgetStandingBody {
    /// Points that the rule may grant to all members together in the month; ten million where nobody set a budget.
    points_max: i64,
    /// Points that it granted; a refund gives none back.
    points_spent: i64,
}

/// Reads what a benefit rule may grant in a month, and what it granted.
#[utoipa::path(
    tag = "membership", summary = "Read a rule's budget", security(("key" = [])),
    params(("rule" = String, Path, description = "The plugin's name"), ("period" = String, Path, description = "A month such as 2026-11")),
    responses(
        (status = 200, body = RuleBudgetStandingBody),
        Invalid, Unwelcome,
    )
)]
#[get("/v1/rule-budgets/{rule}/{period}")]
pub(super) async fn get_rule_budget(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    path: web::Path<(String, String)>,
) -> Result<web::Json<RuleBudgetStandingBody>, Problem> {
    let RuleBudget { points_max, points_spent } = membership.rule_budget(&actor, &path.0, &path.1).await?;
    Ok(web::Json(RuleBudgetStandingBody { points_max, points_spent }))
}

/// A budget with a name: a campaign's, say.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PutBudgetBody {
    /// The rules that draw on it; every rule when empty.
    #[serde(default)]
    rules: BTreeSet<String>,
    /// The lines at whose transactions they draw on it; every line when empty.
    #[serde(default)]
    lines: BTreeSet<String>,
    /// From which own time of transactions on it holds.
    #[schema(value_type = String, format = DateTime)]
    from: Rfc3339,
    /// Before which own time it holds.
    #[schema(value_type = String, format = DateTime)]
    until: Rfc3339,
    /// Points that may be granted from it to all members together.
    #[schema(examples(1_000_000))]
    points_max: i64,
}

/// A budget, and what was granted from it.
#[derive(Serialize, ToSchema)]
struct BudgetBody {
    /// Its name.
    name: String,
    /// The rules that draw on it; every rule when empty.
    rules: BTreeSet<String>,
    /// The lines at whose transactions they draw on it; every line when empty.
    lines: Vec<&'static str>,
    /// From which own time of transactions on it holds.
    #[schema(value_type = String, format = DateTime)]
    from: Rfc3339,
    /// Before which own time it holds.
    #[schema(value_type = String, format = DateTime)]
    until: Rfc3339,
    /// Points that may be granted from it.
    points_max: i64,
    /// Points that were granted from it; a refund gives none back.
    points_spent: i64,
}

impl From<BudgetView> for BudgetBody {
    fn from(view: BudgetView) -> BudgetBody {
        let BudgetView { budget, points_spent } = view;
        BudgetBody {
            name: budget.name,
            rules: budget.rules,
            lines: budget.lines.into_iter().map(Line::as_str).collect(),
            from: Rfc3339(budget.from),
            until: Rfc3339(budget.until),
            points_max: budget.points_max,
            points_spent,
        }
    }
}

/// Sets a budget with a name over rules, lines and a stretch of time. A rule that grants points at a transaction draws on every budget that
/// holds for it, and grants no more than each of them has left.
#[utoipa::path(
    tag = "membership", summary = "Set a budget", request_body = PutBudgetBody, security(("key" = [])),
    params(("name" = String, Path, description = "1 to 63 characters of a-z 0-9 -")),
    responses(
        (status = 200, body = BudgetBody),
        Invalid, Unwelcome, Conflicting,
    )
)]
#[put("/v1/budgets/{name}")]
pub(super) async fn put_budget(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    name: web::Path<String>,
    body: Body<PutBudgetBody>,
) -> Result<web::Json<BudgetBody>, Problem> {
    let Body(body) = body;
    let line = |name: String| {
        Line::parse(&name).ok_or_else(|| Problem::invalid("lines", "expected residential, mall, office, hotel or community"))
    };
    let budget = Budget {
        name: name.into_inner(),
        rules: body.rules,
        lines: body.lines.into_iter().map(line).collect::<Result<_, Problem>>()?,
        from: body.from.0,
        until: body.until.0,
        points_max: body.points_max,
    };
    Ok(web::Json(membership.put_budget(&actor, &budget).await?.into()))
}

/// Lists the budgets with a name, with what was granted from each.
#[utoipa::path(
    tag = "membership", summary = "List budgets", security(("key" = [])), params(PageQuery),
    responses(
        (status = 200, body = Page<BudgetBody>),
        Invalid, Unwelcome,
    )
)]
#[get("/v1/budgets")]
pub(super) async fn list_budgets(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    page: web::Query<PageQuery>,
) -> Result<web::Json<Page<BudgetBody>>, Problem> {
    let limit = page.limit()?;
    let budgets = membership.list_budgets(&actor, page.after()?.as_deref(), limit + 1).await?;
    let items = budgets.into_iter().map(BudgetBody::from).collect();
    Ok(web::Json(Page::of(items, limit, |budget: &BudgetBody| budget.name.clone())))
}
