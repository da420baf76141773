//! Transactions and decisions over HTTP.

#![expect(unused_qualifications, reason = "utoipa's macro writes them around query parameters")]

use super::members::MemberIdentifier;
use super::path_id;
use crate::budget::Drawn;
use crate::decision::{Call, Decision, RerunReport};
use crate::explain::explain;
use crate::facade::Membership;
use crate::missed::Missed;
use crate::rule::{Change, Effect};
use crate::transaction::{Kind, Report, State, TransactionView, Who};
use actix_web::{HttpRequest, get, post, web};
use heyuan_contract::{Fen, MemberId, OrderLine, OrgUnitId, TransactionId};
use heyuan_kernel::error::{ProblemBody, codes as kernel_codes};
use heyuan_kernel::http::{Authenticated, Body, idempotency_header};
use heyuan_kernel::problems::{Conflicting, Erased, Invalid, Missing, Unwelcome};
use heyuan_kernel::{Problem, Rfc3339};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// An amount of money in a transaction.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TransactionMoney {
    /// Integer fen, a hundredth of a yuan; of a refund, too, above zero.
    #[schema(examples(12800))]
    amount: i64,
    /// `CNY`
    #[schema(examples("CNY"))]
    currency: String,
}

impl From<Fen> for TransactionMoney {
    fn from(fen: Fen) -> TransactionMoney {
        TransactionMoney { amount: fen.0, currency: "CNY".into() }
    }
}

/// What was bought, or what went back.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum TransactionKindBody {
    /// Money came in.
    Purchase,
    /// Money of a purchase went back.
    Refund,
}

/// A line of a transaction.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TransactionLineBody {
    /// The seller's code of the article.
    #[schema(examples("tea-01"))]
    sku: String,
    /// The category by which rules speak of it.
    #[serde(default)]
    #[schema(examples("food"))]
    category: String,
    /// Pieces, at least 1.
    #[schema(examples(1))]
    quantity: i64,
    /// What was paid for the whole line, in fen.
    #[schema(examples(12800))]
    amount: i64,
}

/// A transaction as a line reports it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TransactionRequest {
    /// The line's own id, unique within the unit.
    #[schema(value_type = String, examples("pos-7-000123"))]
    id: TransactionId,
    /// Where.
    #[schema(value_type = String, examples("mall-1"))]
    unit: OrgUnitId,
    /// What.
    kind: TransactionKindBody,
    /// The purchase that a refund takes back, of the same unit.
    #[schema(value_type = Option<String>)]
    refund_of: Option<TransactionId>,
    /// Its own time.
    occurred_at: Rfc3339,
    /// What was paid or went back.
    amount: TransactionMoney,
    /// Whose it is, by id.
    #[schema(value_type = Option<String>)]
    member: Option<MemberId>,
    /// Whose it is, by verified identifiers; not together with `member`. A refund is its purchase's member's, whoever that is known as by
    /// now: identifiers of a refund that lead to nobody are no obstacle, and those of somebody else entirely are refused.
    identifiers: Option<Vec<MemberIdentifier>>,
    /// The lines of the order.
    #[serde(default)]
    lines: Vec<TransactionLineBody>,
}

impl TransactionRequest {
    fn parsed(self) -> Result<Report, Problem> {
        let who = match (self.member, self.identifiers) {
            (Some(_), Some(_)) => return Err(Problem::invalid("identifiers", "send either member or identifiers")),
            (Some(member), None) => Some(Who::Member(member)),
            (None, Some(list)) => Some(Who::Identifiers(list.into_iter().map(MemberIdentifier::parsed).collect())),
            (None, None) => None,
        };
        let line = |line: TransactionLineBody| OrderLine {
            sku: line.sku,
            category: line.category,
            quantity: line.quantity,
            amount: Fen(line.amount),
        };
        Ok(Report {
            id: self.id,
            unit: self.unit,
            kind: match self.kind {
                TransactionKindBody::Purchase => Kind::Purchase,
                TransactionKindBody::Refund => Kind::Refund,
            },
            refund_of: self.refund_of,
            occurred_at: self.occurred_at.0,
            amount: Fen(self.amount.amount),
            currency: self.amount.currency,
            who,
            lines: self.lines.into_iter().map(line).collect(),
        })
    }
}

/// What a rule added.
#[derive(Serialize, ToSchema)]
struct EffectBody {
    /// The rule's name.
    rule: String,
    /// `growth`, `points`, `benefit`, `voucher` or `discount`.
    kind: &'static str,
    /// Growth, points, or fen off.
    amount: Option<i64>,
    /// The benefit's or voucher's code.
    code: Option<String>,
    /// Why, in the rule's words.
    reason: String,
    /// Absent for what was given; else why it was not: `not_active`, `out_of_stock`, `over` for a purchase reported too late for it,
    /// `no_voucher` where the mall has none. A quote says what it would be as things stand.
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<&'static str>,
}

impl EffectBody {
    fn of(rule: &str, effect: &Effect, missed: Option<Missed>) -> EffectBody {
        let (kind, amount, code) = match &effect.change {
            Change::Growth(growth) => ("growth", Some(*growth), None),
            Change::Points(points) => ("points", Some(*points), None),
            Change::Benefit(code) => ("benefit", None, Some(code.clone())),
            Change::Voucher(code) => ("voucher", None, Some(code.clone())),
            Change::Discount(fen) => ("discount", Some(*fen), None),
        };
        EffectBody { rule: rule.to_owned(), kind, amount, code, reason: effect.reason.clone(), missed: missed.map(Missed::as_str) }
    }
}

/// A transaction, and what it earned or took back.
#[derive(Serialize, ToSchema)]
struct TransactionBody {
    /// The line's own id.
    id: String,
    /// Where.
    unit: String,
    /// The business line.
    line: String,
    /// `purchase` or `refund`.
    kind: &'static str,
    /// The purchase that a refund takes back.
    refund_of: Option<String>,
    /// `posted`; `waiting` for a refund that came before its purchase; `refused` for one that waited and did not fit; `quoted`.
    state: &'static str,
    /// Why it was refused.
    why: Option<String>,
    /// Whose it is.
    member: Option<String>,
    /// What was paid or went back.
    amount: TransactionMoney,
    /// Its own time.
    occurred_at: Rfc3339,
    /// The month that it counts in.
    #[schema(examples("2026-11"))]
    accounting_period: Option<String>,
    /// The version of the earn rules.
    earn_rules_version: i64,
    /// Growth before any rule.
    base_growth: i64,
    /// Points before any rule.
    base_points: i64,
    /// Growth earned, or with a minus taken back.
    growth: i64,
    /// Points earned, or with a minus taken back.
    points: i64,
    /// Of the points taken back: those that had been spent, and are owed now.
    points_owed: i64,
    /// What can be spent after it; of a quote, with what it would earn and without what that would pay of the member's debts.
    points_balance: i64,
    /// The tier after it; of a quote, the one that it would give.
    tier: String,
    /// Of a purchase: what went back so far.
    refunded: TransactionMoney,
    /// What rules added, and what of it could not be given.
    effects: Vec<EffectBody>,
    /// The decision behind it.
    decision: Option<String>,
}

impl From<&TransactionView> for TransactionBody {
    fn from(view: &TransactionView) -> TransactionBody {
        TransactionBody {
            id: view.id.to_string(),
            unit: view.unit.to_string(),
            line: view.line.to_string(),
            kind: view.kind.as_str(),
            refund_of: view.refund_of.as_ref().map(ToString::to_string),
            state: view.state.as_str(),
            why: view.why.clone(),
            member: view.member.as_ref().map(ToString::to_string),
            amount: view.amount.into(),
            occurred_at: Rfc3339(view.occurred_at),
            accounting_period: view.period.map(|period| period.to_string()),
            earn_rules_version: view.earn_version,
            base_growth: view.base_growth,
            base_points: view.base_points,
            growth: view.growth,
            points: view.points,
            points_owed: view.points_owed,
            points_balance: view.points_balance,
            tier: view.tier.clone(),
            refunded: view.refunded.into(),
            effects: view.effects.iter().map(|effect| EffectBody::of(&effect.rule, &effect.effect, effect.missed)).collect(),
            decision: view.decision.clone(),
        }
    }
}

/// One rule's part in a decision.
#[derive(Serialize, ToSchema)]
struct DecisionCallBody {
    /// The rule's name.
    rule: String,
    /// The version, for ever.
    digest: String,
    /// SHA-256 of the exact input bytes.
    input_sha256: String,
    /// What it cost then.
    fuel: i64,
    /// What it wanted.
    effects_raw: Vec<EffectBody>,
    /// What it got, after limits and budget.
    effects: Vec<EffectBody>,
    /// The rule's points budget of the month.
    budget_limit: i64,
    /// What was spent of it before.
    budget_spent: i64,
    /// The budgets with a name that held for it.
    budgets: Vec<DrawnBody>,
}

/// A budget with a name, as a rule's call saw it.
#[derive(Serialize, ToSchema)]
struct DrawnBody {
    /// The budget.
    name: String,
    /// What may be granted from it in all.
    limit: i64,
    /// What had been granted before.
    spent: i64,
    /// What the call granted.
    points: i64,
}

impl From<&Drawn> for DrawnBody {
    fn from(drawn: &Drawn) -> DrawnBody {
        DrawnBody { name: drawn.name.clone(), limit: drawn.limit, spent: drawn.spent, points: drawn.points }
    }
}

/// A transaction, explained.
#[derive(Serialize, ToSchema)]
struct ExplainedTransactionBody {
    /// The transaction.
    #[serde(flatten)]
    transaction: TransactionBody,
    /// The rules that decided, in their order.
    calls: Vec<DecisionCallBody>,
    /// Why it came out as it did, sentence by sentence.
    explanation: Vec<String>,
    /// The same in Chinese.
    explanation_zh: Vec<String>,
}

fn calls(decision: &Decision) -> Vec<DecisionCallBody> {
    let got = |call: &Call| {
        let of = |(place, effect): (usize, &Effect)| EffectBody::of(&call.rule, effect, call.missed.get(&place).copied());
        call.effects.iter().enumerate().map(of).collect()
    };
    decision
        .calls
        .iter()
        .map(|call| DecisionCallBody {
            rule: call.rule.clone(),
            digest: call.digest.clone(),
            input_sha256: heyuan_kernel::secret::sha256_hex(&call.input),
            fuel: call.fuel,
            effects_raw: call.effects_raw.iter().map(|effect| EffectBody::of(&call.rule, effect, None)).collect(),
            effects: got(call),
            budget_limit: call.budget_limit,
            budget_spent: call.budget_spent,
            budgets: call.drawn.iter().map(DrawnBody::from).collect(),
        })
        .collect()
}

/// Reports a transaction of a line. It earns by the line's rules and the active benefit rules, or, a refund, takes back what is no
/// longer kept. A refund that comes before its purchase waits for it.
#[utoipa::path(
    tag = "membership", summary = "Report a transaction", request_body = TransactionRequest, security(("key" = [])),
    params(("Idempotency-Key" = String, Header, description = "Fresh for each transaction, the same for its retries")),
    responses(
        (status = 200, body = TransactionBody),
        Invalid, Unwelcome, Missing, Conflicting,
        (status = 503, description = "A rule gave no answer: nothing was posted, try again", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
#[post("/v1/transactions")]
pub(super) async fn report_transaction(
    request: HttpRequest,
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    body: Body<TransactionRequest>,
) -> Result<web::Json<TransactionBody>, Problem> {
    let Body(body) = body;
    let view = membership.report(&actor, &body.parsed()?, idempotency_header(&request)).await?;
    Ok(web::Json(TransactionBody::from(&view)))
}

/// Answers what a purchase would earn now, and posts nothing.
#[utoipa::path(
    tag = "membership", summary = "Quote a transaction", request_body = TransactionRequest, security(("key" = [])),
    responses(
        (status = 200, body = TransactionBody),
        Invalid, Unwelcome, Missing, Conflicting,
        (status = 503, description = "A rule gave no answer: try again", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
#[post("/v1/transactions:quote")]
pub(super) async fn quote_transaction(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    body: Body<TransactionRequest>,
) -> Result<web::Json<TransactionBody>, Problem> {
    let Body(body) = body;
    let view = membership.quote(&actor, &body.parsed()?).await?;
    Ok(web::Json(TransactionBody::from(&view)))
}

/// The unit of a transaction.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct TransactionQuery {
    /// Needed where several units have a transaction with this id.
    unit: Option<String>,
}

/// Reads a transaction with the decision behind it, explained in words.
#[utoipa::path(
    tag = "membership", summary = "Explain a transaction", security(("key" = [])),
    params(("id" = String, Path, description = "The line's own id"), TransactionQuery),
    responses(
        (status = 200, body = ExplainedTransactionBody),
        Invalid, Unwelcome, Missing, Conflicting, Erased,
    )
)]
#[get("/v1/transactions/{id}")]
pub(super) async fn get_transaction(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
    query: web::Query<TransactionQuery>,
) -> Result<web::Json<ExplainedTransactionBody>, Problem> {
    let unit: Option<OrgUnitId> = query.unit.as_deref().map(|unit| path_id("unit", unit)).transpose()?;
    let view = membership.transaction(&actor, &path_id("transaction", &id)?, unit.as_ref()).await?;
    let decision = match &view.decision {
        Some(id) if view.state == State::Posted => Some(membership.decision(&actor, id).await?),
        _ => None,
    };
    let words = explain(&view, decision.as_ref());
    Ok(web::Json(ExplainedTransactionBody {
        transaction: TransactionBody::from(&view),
        calls: decision.as_ref().map(calls).unwrap_or_default(),
        explanation: words.en,
        explanation_zh: words.zh,
    }))
}

/// A decision, run again.
#[derive(Serialize, ToSchema)]
struct RerunBody {
    /// The decision.
    id: String,
    /// Whether the earn rules gave the same as then, and every rule answered the same bytes and got the same effects.
    same: bool,
    /// Growth that the earn rules of then gave.
    base_growth: i64,
    /// Points that the earn rules of then gave.
    base_points: i64,
    /// Growth that they give now.
    base_growth_again: i64,
    /// Points that they give now.
    base_points_again: i64,
    /// Each rule.
    calls: Vec<RerunCallBody>,
}

/// One rule, run again.
#[derive(Serialize, ToSchema)]
struct RerunCallBody {
    /// The rule's name.
    rule: String,
    /// The version that was run: the one of then.
    digest: String,
    /// Whether it answered the same bytes, and the limits and budgets of then leave the same effects of it.
    same: bool,
    /// SHA-256 of the input bytes.
    input_sha256: String,
    /// SHA-256 of what it answered then.
    stored_sha256: String,
    /// SHA-256 of what it answers now.
    output_sha256: Option<String>,
    /// Why it did not answer.
    why: Option<String>,
}

impl From<RerunReport> for RerunBody {
    fn from(report: RerunReport) -> RerunBody {
        let call = |call: crate::decision::RerunCall| RerunCallBody {
            rule: call.rule,
            digest: call.digest,
            same: call.same,
            input_sha256: call.input_sha256,
            stored_sha256: call.stored_sha256,
            output_sha256: call.output_sha256,
            why: call.why,
        };
        let (then, again) = report.base;
        RerunBody {
            id: report.id,
            same: report.same,
            base_growth: then.growth,
            base_points: then.points,
            base_growth_again: again.growth,
            base_points_again: again.points,
            calls: report.calls.into_iter().map(call).collect(),
        }
    }
}

/// Lets the earn rules of a decision decide again, runs its benefit rules again on the very bytes that they were shown, and compares.
#[utoipa::path(
    tag = "membership", summary = "Run a decision again", security(("key" = [])),
    params(("id" = String, Path, description = "The decision")),
    responses(
        (status = 200, body = RerunBody),
        Unwelcome, Missing, Erased,
    )
)]
#[post("/v1/decisions/{id}:rerun")]
pub(super) async fn rerun_decision(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
) -> Result<web::Json<RerunBody>, Problem> {
    if id.contains('\0') {
        return Err(Problem::new(kernel_codes::NOT_FOUND, "there is no such decision"));
    }
    Ok(web::Json(membership.rerun(&actor, &id).await?.into()))
}
