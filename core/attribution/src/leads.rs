//! Leads and the stages that they reach; a phone number passes through to the vault and only the anchor stays.

use crate::error::{Error, corrupt};
use crate::wing::Attribution;
use futures::FutureExt;
use heyuan_contract::{AnchorId, DomainEvent, Fen, LeadId, LeadStage, OrgUnitId, Timestamp, Touch};
use heyuan_kernel::filter::Filter;
use heyuan_kernel::idempotency::IdempotencyKey;
use heyuan_kernel::text::is_line;
use heyuan_kernel::{Actor, Problem, Scope, Tx, sql};
use sea_orm::Value;

/// Identifiers of one lead.
const IDENTIFIERS_MAX: usize = 20;
/// Longest text of a touch, click id, adviser or contract, in bytes.
const TEXT_BYTES_MAX: usize = 200;
/// Most a contract can be worth, ten billion yuan.
const AMOUNT_FEN_MAX: i64 = 1_000_000_000_000;

/// A lead as a form, a call or the sales system brings it.
#[derive(Debug, Clone)]
pub struct SubmitLead {
    /// The sender's own id.
    pub id: LeadId,
    /// The project.
    pub unit: OrgUnitId,
    /// Kind and value, such as `phone`; handed on and not kept here.
    pub identifiers: Vec<(String, String)>,
    /// When it came in.
    pub submitted_at: Timestamp,
    /// The click id that the form carried.
    pub click_id: Option<String>,
    /// What brought the visitor, if the sender knows.
    pub touch: Option<Touch>,
    /// The adviser's id in the sales system; no name.
    pub adviser: Option<String>,
}

/// A lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lead {
    /// The sender's own id.
    pub id: LeadId,
    /// The project.
    pub unit: OrgUnitId,
    /// The identifier that it hangs on; none after erasure.
    pub anchor: Option<AnchorId>,
    /// The adviser's id.
    pub adviser: Option<String>,
    /// When it came in.
    pub submitted_at: Timestamp,
    /// The furthest stage.
    pub stage: LeadStage,
    /// What it reached, as reported.
    pub reached: Vec<LeadReached>,
    digest: String,
}

/// A stage that a lead reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeadReached {
    /// Which.
    pub stage: LeadStage,
    /// When.
    pub occurred_at: Timestamp,
    /// The subscription's or the contract's worth.
    pub amount: Option<Fen>,
    /// The contract's number, when the lead has several.
    pub contract: Option<String>,
}

/// A stage to report.
#[derive(Debug, Clone)]
pub struct Advance {
    /// Which; a lead is made by submitting it.
    pub stage: LeadStage,
    /// When, not before the lead came in.
    pub occurred_at: Timestamp,
    /// The subscription's or the contract's worth.
    pub amount: Option<Fen>,
    /// The contract's number, needed when one lead signs several; a cancellation names the contract that it takes back.
    pub contract: Option<String>,
}

/// Which leads a list holds.
#[derive(Debug, Clone, Default)]
pub struct LeadList {
    /// Of this unit alone.
    pub unit: Option<OrgUnitId>,
    /// Whose furthest stage is this one.
    pub stage: Option<LeadStage>,
}

const LEAD: &str = "SELECT id, unit, anchor, adviser, submitted_at, stage, digest FROM attribution_lead";

impl Attribution {
    /// Takes a lead in. The same id with the same figures is answered again.
    ///
    /// # Errors
    /// `lead_exists` for other figures, `invalid_request`, `forbidden`, the ones of idempotency keys.
    pub async fn submit_lead(&self, actor: &Actor, header: Option<&str>, lead: SubmitLead) -> Result<Lead, Error> {
        actor.require_any(&[Scope::App, Scope::Import])?;
        check_lead(&lead)?;
        self.kernel.org.require("unit", &lead.unit).await?;
        actor.require_unit(&lead.unit)?;
        let anchor = self.customers.anchor_for(actor, &lead.unit, &lead.identifiers).await?;
        // The digest is over the anchor: one over a phone number could be turned back into it.
        let figures = (&lead.id, &lead.unit, &anchor, lead.submitted_at, &lead.click_id, &lead.touch, &lead.adviser);
        let key = IdempotencyKey::new(actor, "attribution.lead", header, &figures)?;
        if let Some(submitted) = self.submitted(&key, &lead.id).await? {
            return Ok(submitted);
        }
        let id = lead.id.clone();
        match self.write_lead(&key, lead, anchor).await {
            Err(Error::Kernel(error)) if error.is_duplicate() => {
                self.submitted(&key, &id).await?.ok_or_else(|| corrupt("lead", "it vanished"))
            }
            Ok(()) => read_lead(self.kernel.db.near(), "id", id.as_str(), "").await?.ok_or_else(|| corrupt("lead", "it vanished")),
            Err(error) => Err(error),
        }
    }

    async fn submitted(&self, key: &IdempotencyKey, id: &LeadId) -> Result<Option<Lead>, Error> {
        let conn = self.kernel.db.near();
        if let Some(lead) = read_lead(conn, "idempotency", &key.stored, "").await? {
            key.check(&lead.digest)?;
            return Ok(Some(lead));
        }
        match read_lead(conn, "id", id.as_str(), "").await? {
            Some(lead) if lead.digest != key.digest => Err(Error::LeadExists(lead.id)),
            found => Ok(found),
        }
    }

    async fn write_lead(&self, key: &IdempotencyKey, lead: SubmitLead, anchor: AnchorId) -> Result<(), Error> {
        let (key, now) = (key.clone(), self.kernel.clock.now());
        let touch = lead.touch.as_ref().map(serde_json::to_string).transpose().map_err(|e| corrupt("touch", e))?;
        self.kernel
            .db
            .write("submit lead", move |tx| {
                let (key, lead, anchor, touch) = (key.clone(), lead.clone(), anchor.clone(), touch.clone());
                async move {
                    sql::execute(
                        tx.conn(),
                        "INSERT INTO attribution_lead (id, unit, anchor, adviser, submitted_at, recorded_at, click_id, touch, stage, idempotency, digest)
                         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'lead', $9, $10)",
                        [
                            lead.id.as_str().into(),
                            lead.unit.as_str().into(),
                            anchor.as_str().into(),
                            lead.adviser.into(),
                            lead.submitted_at.ms().into(),
                            now.ms().into(),
                            lead.click_id.into(),
                            touch.into(),
                            key.stored.into(),
                            key.digest.into(),
                        ],
                    )
                    .await?;
                    let stage = LeadStage::Lead;
                    let event =
                        DomainEvent::LeadAdvanced { lead: lead.id.clone(), anchor, unit: lead.unit, stage, amount: None, occurred_at: lead.submitted_at };
                    tx.emit(lead.id.as_str(), &event).await?;
                    Ok(())
                }
                .boxed()
            })
            .await
    }

    /// Records a stage that a lead reached. Stages may be skipped and may be told late; the furthest one stands. The same report
    /// again is answered again.
    ///
    /// # Errors
    /// `stage_recorded` for other figures, `nothing_to_cancel`, `invalid_request`, `not_found`, `forbidden`.
    pub async fn advance_lead(&self, actor: &Actor, id: &LeadId, advance: Advance) -> Result<Lead, Error> {
        actor.require_any(&[Scope::App, Scope::Import])?;
        check_advance(&advance)?;
        self.lead(actor, id).await?;
        let (lead_id, now) = (id.clone(), self.kernel.clock.now());
        self.kernel
            .db
            .write("advance lead", move |tx| {
                let (id, advance) = (lead_id.clone(), advance.clone());
                async move { advance_in(tx, &id, &advance, now).await }.boxed()
            })
            .await
    }

    /// A lead within reach.
    ///
    /// # Errors
    /// `not_found`, `forbidden`.
    pub async fn lead(&self, actor: &Actor, id: &LeadId) -> Result<Lead, Error> {
        actor.require_any(&[Scope::App, Scope::Admin, Scope::Import])?;
        let lead = read_lead(self.kernel.db.near(), "id", id.as_str(), "").await?;
        lead.filter(|lead| actor.reach().covers(&lead.unit)).ok_or_else(|| Problem::not_found("lead", id).into())
    }

    /// Leads within reach, by id; up to one more than `limit`.
    ///
    /// # Errors
    /// `forbidden`.
    pub async fn leads(&self, actor: &Actor, list: LeadList, after: Option<String>, limit: u64) -> Result<Vec<Lead>, Error> {
        actor.require_any(&[Scope::App, Scope::Admin, Scope::Import])?;
        let filter =
            Filter::everything().and_if("unit", "=", list.unit.map(String::from)).and_if("stage", "=", list.stage.map(LeadStage::as_str));
        let (text, values) = filter.and_if("id", ">", after).within("unit", actor.reach()).page(LEAD, "id", limit);
        let conn = self.kernel.db.near();
        let mut leads = Vec::new();
        for row in sql::all(conn, &text, values).await? {
            leads.push(from_row(conn, &row).await?);
        }
        Ok(leads)
    }
}

async fn advance_in(tx: &Tx, id: &LeadId, advance: &Advance, now: Timestamp) -> Result<Lead, Error> {
    let lock = sql::for_update(tx.conn());
    let vanished = || corrupt("lead", "it vanished");
    let lead = read_lead(tx.conn(), "id", id.as_str(), lock).await?.ok_or_else(vanished)?;
    if let Some(known) = lead.reached.iter().find(|reached| reached.stage == advance.stage && reached.contract == advance.contract) {
        let same = known.occurred_at == advance.occurred_at && known.amount == advance.amount;
        return if same { Ok(lead) } else { Err(Error::StageRecorded { lead: lead.id, stage: advance.stage.as_str() }) };
    }
    if advance.occurred_at < lead.submitted_at {
        return Err(Problem::invalid("occurred_at", "expected a time not before the lead was submitted").into());
    }
    let takes_back = match advance.stage {
        LeadStage::Cancelled => Some(taken_back(&lead, advance)?.as_str()),
        _ => None,
    };
    sql::execute(
        tx.conn(),
        "INSERT INTO attribution_stage (lead_id, stage, contract, occurred_at, recorded_at, amount, takes_back) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        [
            id.as_str().into(),
            advance.stage.as_str().into(),
            advance.contract.clone().unwrap_or_default().into(),
            advance.occurred_at.ms().into(),
            now.ms().into(),
            advance.amount.map(|amount| amount.0).into(),
            takes_back.into(),
        ],
    )
    .await?;
    let furthest = lead.stage.max(advance.stage);
    sql::execute(tx.conn(), "UPDATE attribution_lead SET stage = $1 WHERE id = $2", [furthest.as_str().into(), id.as_str().into()]).await?;
    if let Some(anchor) = lead.anchor {
        let (unit, stage, amount) = (lead.unit, advance.stage, advance.amount);
        let event = DomainEvent::LeadAdvanced { lead: id.clone(), anchor, unit, stage, amount, occurred_at: advance.occurred_at };
        tx.emit(id.as_str(), &event).await?;
    }
    read_lead(tx.conn(), "id", id.as_str(), "").await?.ok_or_else(vanished)
}

/// What a cancellation takes back: the contract of its number, else the subscription of a lead that has not signed it.
fn taken_back(lead: &Lead, advance: &Advance) -> Result<LeadStage, Error> {
    let has = |stage: LeadStage, contract: &Option<String>| {
        lead.reached.iter().any(|reached| reached.stage == stage && &reached.contract == contract)
    };
    if has(LeadStage::Contracted, &advance.contract) {
        return Ok(LeadStage::Contracted);
    }
    if has(LeadStage::Subscribed, &advance.contract) || (advance.contract.is_none() && lead.stage == LeadStage::Subscribed) {
        return Ok(LeadStage::Subscribed);
    }
    Err(Error::NothingToCancel { lead: lead.id.clone(), contract: advance.contract.clone().unwrap_or_default() })
}

async fn read_lead<C: sql::Connection>(conn: &C, column: &str, value: &str, lock: &str) -> Result<Option<Lead>, Error> {
    match sql::one(conn, &format!("{LEAD} WHERE {column} = $1{lock}"), [value.into()]).await? {
        Some(row) => from_row(conn, &row).await.map(Some),
        None => Ok(None),
    }
}

async fn from_row<C: sql::Connection>(conn: &C, row: &sql::Row) -> Result<Lead, Error> {
    let (id, unit, anchor): (String, String, Option<String>) = (sql::get(row, "id")?, sql::get(row, "unit")?, sql::get(row, "anchor")?);
    let text =
        "SELECT stage, contract, occurred_at, amount FROM attribution_stage WHERE lead_id = $1 ORDER BY occurred_at, stage, contract";
    let mut reached = Vec::new();
    for row in sql::all(conn, text, [Value::from(id.as_str())]).await? {
        let contract: String = sql::get(&row, "contract")?;
        reached.push(LeadReached {
            stage: stage(&row)?,
            occurred_at: Timestamp::clamped(sql::get(&row, "occurred_at")?),
            amount: sql::get::<Option<i64>>(&row, "amount")?.map(Fen),
            contract: (!contract.is_empty()).then_some(contract),
        });
    }
    Ok(Lead {
        id: LeadId::new(id).map_err(|e| corrupt("lead id", e))?,
        unit: OrgUnitId::new(unit).map_err(|e| corrupt("unit id", e))?,
        anchor: anchor.map(AnchorId::new).transpose().map_err(|e| corrupt("anchor", e))?,
        adviser: sql::get(row, "adviser")?,
        submitted_at: Timestamp::clamped(sql::get(row, "submitted_at")?),
        stage: stage(row)?,
        reached,
        digest: sql::get(row, "digest")?,
    })
}

pub(crate) fn stage(row: &sql::Row) -> Result<LeadStage, Error> {
    let text: String = sql::get(row, "stage")?;
    LeadStage::parse(&text).ok_or_else(|| corrupt("stage", text))
}

fn check_text(field: &str, text: Option<&str>) -> Result<(), Problem> {
    if text.is_none_or(|text| is_line(text, TEXT_BYTES_MAX)) {
        return Ok(());
    }
    Err(Problem::invalid(field, format!("expected 1 to {TEXT_BYTES_MAX} bytes without control characters")))
}

fn check_lead(lead: &SubmitLead) -> Result<(), Problem> {
    if lead.identifiers.is_empty() || lead.identifiers.len() > IDENTIFIERS_MAX {
        return Err(Problem::invalid("identifiers", format!("expected 1 to {IDENTIFIERS_MAX} identifiers, such as a phone number")));
    }
    check_text("click_id", lead.click_id.as_deref())?;
    check_text("adviser", lead.adviser.as_deref())?;
    let Some(touch) = &lead.touch else { return Ok(()) };
    let texts = [&touch.source, &touch.medium, &touch.campaign, &touch.content, &touch.term, &touch.platform, &touch.click_id];
    texts.into_iter().try_for_each(|text| check_text("touch", text.as_deref()))
}

fn check_advance(advance: &Advance) -> Result<(), Problem> {
    if advance.stage == LeadStage::Lead {
        return Err(Problem::invalid(
            "stage",
            "expected invited, visited, subscribed, contracted or cancelled; a lead is submitted at /v1/leads",
        ));
    }
    check_text("contract", advance.contract.as_deref())?;
    if advance.contract.is_some() && advance.stage < LeadStage::Subscribed {
        return Err(Problem::invalid("contract", "only subscribed, contracted and cancelled have one"));
    }
    if advance.amount.is_some_and(|amount| !(0..=AMOUNT_FEN_MAX).contains(&amount.0)) {
        return Err(Problem::invalid("amount", format!("expected 0 to {AMOUNT_FEN_MAX} fen")));
    }
    Ok(())
}
