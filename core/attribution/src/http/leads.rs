//! Leads and their stages over HTTP.

#![expect(unused_qualifications, reason = "utoipa's macro writes them around query parameters")]

use super::MoneyBody;
use crate::leads::{Advance, Lead, LeadList, LeadReached, SubmitLead};
use crate::wing::Attribution;
use actix_web::{HttpRequest, get, post, web};
use heyuan_contract::{Fen, LeadId, LeadStage, OrgUnitId, Touch};
use heyuan_kernel::http::{Authenticated, Body, Page, PageQuery, idempotency_header};
use heyuan_kernel::problems::{Conflicting, Invalid, Missing, Unwelcome};
use heyuan_kernel::{Problem, Rfc3339};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// By what a customer is known.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct IdentifierBody {
    /// `phone`, `openid`, `unionid`, `email`, …
    #[schema(examples("phone"))]
    kind: String,
    /// The value; it goes to the vault.
    #[schema(examples("13800001234"))]
    value: String,
}

/// What brought the visitor.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TouchBody {
    /// `utm_source`
    source: Option<String>,
    /// `utm_medium`
    medium: Option<String>,
    /// `utm_campaign`; by the house rule the platform's plan id.
    campaign: Option<String>,
    /// `utm_content`; by the house rule the creative.
    content: Option<String>,
    /// `ocean_engine`, `tencent_ads` or `baidu`
    platform: Option<String>,
}

/// A lead to submit.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SubmitLeadBody {
    /// The sender's own id.
    #[schema(value_type = String, examples("lead-000812"))]
    id: LeadId,
    /// The project.
    #[schema(value_type = String)]
    unit: OrgUnitId,
    /// By what the customer is known, such as a phone number.
    identifiers: Vec<IdentifierBody>,
    /// When it came in.
    submitted_at: Rfc3339,
    /// The click id that the form carried.
    click_id: Option<String>,
    /// What brought the visitor, if the sender knows.
    touch: Option<TouchBody>,
    /// The adviser's id in the sales system; no name.
    adviser: Option<String>,
}

/// The stages of a lead.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum StageBody {
    /// 线索
    Lead,
    /// 邀约
    Invited,
    /// 到访
    Visited,
    /// 认筹
    Subscribed,
    /// 签约
    Contracted,
    /// 退房 or 退筹
    Cancelled,
}

impl From<StageBody> for LeadStage {
    fn from(stage: StageBody) -> LeadStage {
        match stage {
            StageBody::Lead => LeadStage::Lead,
            StageBody::Invited => LeadStage::Invited,
            StageBody::Visited => LeadStage::Visited,
            StageBody::Subscribed => LeadStage::Subscribed,
            StageBody::Contracted => LeadStage::Contracted,
            StageBody::Cancelled => LeadStage::Cancelled,
        }
    }
}

impl From<LeadStage> for StageBody {
    fn from(stage: LeadStage) -> StageBody {
        match stage {
            LeadStage::Lead => StageBody::Lead,
            LeadStage::Invited => StageBody::Invited,
            LeadStage::Visited => StageBody::Visited,
            LeadStage::Subscribed => StageBody::Subscribed,
            LeadStage::Contracted => StageBody::Contracted,
            LeadStage::Cancelled => StageBody::Cancelled,
        }
    }
}

/// A stage to report.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AdvanceBody {
    /// Any but `lead`.
    stage: StageBody,
    /// When, not before the lead came in.
    occurred_at: Rfc3339,
    /// The subscription's or the contract's worth.
    amount: Option<MoneyBody>,
    /// The contract's number, needed when one lead signs several; a cancellation names the contract that it takes back.
    contract: Option<String>,
}

/// A stage that a lead reached.
#[derive(Debug, Serialize, ToSchema)]
struct ReachedBody {
    /// Which.
    stage: StageBody,
    /// When.
    occurred_at: Rfc3339,
    /// The subscription's or the contract's worth.
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<MoneyBody>,
    /// The contract's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    contract: Option<String>,
}

impl From<LeadReached> for ReachedBody {
    fn from(reached: LeadReached) -> ReachedBody {
        ReachedBody {
            stage: reached.stage.into(),
            occurred_at: Rfc3339(reached.occurred_at),
            amount: reached.amount.map(MoneyBody::from),
            contract: reached.contract,
        }
    }
}

/// A lead (线索).
#[derive(Debug, Serialize, ToSchema)]
struct LeadBody {
    /// The sender's own id.
    id: String,
    /// The project.
    unit: String,
    /// The adviser's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    adviser: Option<String>,
    /// When it came in.
    submitted_at: Rfc3339,
    /// The furthest stage.
    stage: StageBody,
    /// What it reached, as reported.
    reached: Vec<ReachedBody>,
}

impl From<Lead> for LeadBody {
    fn from(lead: Lead) -> LeadBody {
        LeadBody {
            id: lead.id.into(),
            unit: lead.unit.into(),
            adviser: lead.adviser,
            submitted_at: Rfc3339(lead.submitted_at),
            stage: lead.stage.into(),
            reached: lead.reached.into_iter().map(ReachedBody::from).collect(),
        }
    }
}

/// Which leads.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct LeadQuery {
    /// Of this unit alone.
    #[param(value_type = Option<String>)]
    unit: Option<OrgUnitId>,
    /// Whose furthest stage is this one.
    #[param(value_type = Option<String>)]
    stage: Option<StageBody>,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// 1 to 200 items; 50 when left out.
    limit: Option<u64>,
}

/// Takes a lead in. The same id with the same figures is answered again.
#[utoipa::path(
    tag = "attribution", summary = "Submit a lead", request_body = SubmitLeadBody, security(("key" = [])),
    params(("Idempotency-Key" = String, Header, description = "Fresh per lead; the same one on a retry")),
    responses(
        (status = 200, body = LeadBody),
        Invalid, Unwelcome, Conflicting,
    )
)]
#[post("/v1/leads")]
pub(super) async fn submit_lead(
    Authenticated(actor): Authenticated,
    request: HttpRequest,
    attribution: web::Data<Attribution>,
    body: Body<SubmitLeadBody>,
) -> Result<web::Json<LeadBody>, Problem> {
    let Body(body) = body;
    let touch = |touch: TouchBody, click_id: Option<String>| Touch {
        source: touch.source,
        medium: touch.medium,
        campaign: touch.campaign,
        content: touch.content,
        term: None,
        platform: touch.platform,
        click_id,
    };
    let lead = SubmitLead {
        id: body.id,
        unit: body.unit,
        identifiers: body.identifiers.into_iter().map(|identifier| (identifier.kind, identifier.value)).collect(),
        submitted_at: body.submitted_at.0,
        touch: body.touch.map(|told| touch(told, body.click_id.clone())),
        click_id: body.click_id,
        adviser: body.adviser,
    };
    Ok(web::Json(attribution.submit_lead(&actor, idempotency_header(&request), lead).await?.into()))
}

/// Lists leads by id.
#[utoipa::path(
    tag = "attribution", summary = "List leads", params(LeadQuery), security(("key" = [])),
    responses(
        (status = 200, body = Page<LeadBody>),
        Invalid, Unwelcome,
    )
)]
#[get("/v1/leads")]
pub(super) async fn list_leads(
    Authenticated(actor): Authenticated,
    attribution: web::Data<Attribution>,
    query: web::Query<LeadQuery>,
) -> Result<web::Json<Page<LeadBody>>, Problem> {
    let LeadQuery { unit, stage, cursor, limit } = query.into_inner();
    let page = PageQuery { cursor, limit };
    let limit = page.limit()?;
    let leads = attribution.leads(&actor, LeadList { unit, stage: stage.map(LeadStage::from) }, page.after()?, limit).await?;
    Ok(web::Json(Page::of(leads.into_iter().map(LeadBody::from).collect(), limit, |lead| lead.id.clone())))
}

/// Reads a lead with what it reached.
#[utoipa::path(
    tag = "attribution", summary = "Read a lead", params(("id" = String, Path, description = "The lead")), security(("key" = [])),
    responses(
        (status = 200, body = LeadBody),
        Invalid, Unwelcome, Missing,
    )
)]
#[get("/v1/leads/{id}")]
pub(super) async fn get_lead(
    Authenticated(actor): Authenticated,
    attribution: web::Data<Attribution>,
    id: web::Path<String>,
) -> Result<web::Json<LeadBody>, Problem> {
    Ok(web::Json(attribution.lead(&actor, &lead_id(id)?).await?.into()))
}

/// Records a stage that a lead reached. Stages may be skipped and told late; the same report again is answered again.
#[utoipa::path(
    tag = "attribution", summary = "Report a stage of a lead", request_body = AdvanceBody, security(("key" = [])),
    params(("id" = String, Path, description = "The lead")),
    responses(
        (status = 200, body = LeadBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/leads/{id}/stages")]
pub(super) async fn advance_lead(
    Authenticated(actor): Authenticated,
    attribution: web::Data<Attribution>,
    id: web::Path<String>,
    body: Body<AdvanceBody>,
) -> Result<web::Json<LeadBody>, Problem> {
    let Body(body) = body;
    let amount = match body.amount {
        Some(money) if money.currency != "CNY" => {
            return Err(Problem::invalid("amount.currency", "expected CNY, the only currency settled"));
        }
        money => money.map(|money| Fen(money.amount)),
    };
    let advance = Advance { stage: body.stage.into(), occurred_at: body.occurred_at.0, amount, contract: body.contract };
    Ok(web::Json(attribution.advance_lead(&actor, &lead_id(id)?, advance).await?.into()))
}

fn lead_id(id: web::Path<String>) -> Result<LeadId, Problem> {
    id.into_inner().parse().map_err(|e: heyuan_contract::InvalidId| Problem::invalid("id", e.to_string()))
}
