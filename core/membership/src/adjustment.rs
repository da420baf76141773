//! Adjustments under four eyes: one person proposes to grant a member points or to take some, and another one approves or rejects it. A key
//! that one of them made for the other is not another person's.
//!
//! What is granted is a lot of the unit's line at the cost of its earn rules; what is taken leaves the lots that expire first, and each
//! line that issued them gets the cost. Nothing moves before the approval. A proposal that nobody decides about lapses.

mod approval;

use crate::error::{Error, codes};
use crate::facade::Membership;
use crate::member::{self, MemberRow, corrupt};
use crate::standing::{MemberState, check_reason};
use futures::FutureExt;
use heyuan_contract::{EntryId, Line, MemberId, OrgUnitId, Timestamp};
use heyuan_kernel::idempotency::IdempotencyKey;
use heyuan_kernel::keys::same_hand;
use heyuan_kernel::lease::Fence;
use heyuan_kernel::{Actor, Kernel, Problem, Reach, Scope, Tx, audit, bulk, sql};
use heyuan_ledger::Period;
use serde::Serialize;

/// What is read of a row of `membership_adjustment`.
const COLUMNS: &str = "id, member, unit, line, amount, reason, expires_at, state, proposed_by, proposed_at, lapses_at, decided_by, \
     decided_at, words, period, recovered, idempotency, idempotency_digest, decided_key, decided_digest";

/// Most points of one adjustment.
const AMOUNT_MAX: i64 = 1_000_000_000;
/// How long a proposal waits for another pair of eyes.
const LAPSES_MS: i64 = 30 * 86_400_000;
/// Proposals of one step of the clockwork.
const BATCH_MAX: u64 = 200;

/// An adjustment to propose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Adjust {
    /// Whose points.
    pub member: MemberId,
    /// Granted above zero, taken below.
    pub amount: i64,
    /// On whose account: its line issues what is granted.
    pub unit: OrgUnitId,
    /// Why, without personal data.
    pub reason: String,
    /// When granted points expire; as those that are earned today when left out.
    pub expires_at: Option<Timestamp>,
}

/// Where an adjustment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdjustmentState {
    /// It waits for another pair of eyes.
    Proposed,
    /// It was posted.
    Approved,
    /// It never will be.
    Rejected,
    /// Nobody decided in time.
    Lapsed,
}

impl AdjustmentState {
    const ALL: [AdjustmentState; 4] =
        [AdjustmentState::Proposed, AdjustmentState::Approved, AdjustmentState::Rejected, AdjustmentState::Lapsed];

    /// The spelling in tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            AdjustmentState::Proposed => "proposed",
            AdjustmentState::Approved => "approved",
            AdjustmentState::Rejected => "rejected",
            AdjustmentState::Lapsed => "lapsed",
        }
    }

    /// The state with this spelling, if there is one.
    pub fn parse(text: &str) -> Option<AdjustmentState> {
        AdjustmentState::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// An adjustment and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdjustmentView {
    /// Its id.
    pub id: String,
    /// Whose points.
    pub member: MemberId,
    /// On whose account.
    pub unit: OrgUnitId,
    /// The unit's line.
    pub line: Line,
    /// Granted above zero, taken below.
    pub amount: i64,
    /// Why.
    pub reason: String,
    /// When granted points expire, if the proposal says so.
    pub expires_at: Option<Timestamp>,
    /// Where it stands.
    pub state: AdjustmentState,
    /// Who proposed it.
    pub proposed_by: String,
    /// When.
    pub proposed_at: Timestamp,
    /// From when on nobody can approve it any more.
    pub lapses_at: Timestamp,
    /// Who approved or rejected it.
    pub decided_by: Option<String>,
    /// When it was decided, or lapsed.
    pub decided_at: Option<Timestamp>,
    /// Why it was rejected.
    pub words: Option<String>,
    /// The month that it counts in, once it is posted.
    pub period: Option<Period>,
    /// Granted points that paid what the member owed.
    pub recovered: i64,
}

/// Which adjustments a list holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdjustmentsOf {
    /// In this state alone.
    pub state: Option<AdjustmentState>,
    /// Of this member alone.
    pub member: Option<MemberId>,
}

/// An adjustment as stored.
#[derive(Debug, Clone)]
struct Stored {
    view: AdjustmentView,
    digest: String,
    decided_key: Option<String>,
    decided_digest: Option<String>,
}

impl Membership {
    /// Proposes an adjustment; nothing moves before somebody else approves it. The same key again is answered from what it did.
    ///
    /// # Errors
    /// `forbidden`, also for a key that does not reach the unit; `invalid_request`, `amount_out_of_range`, `time_out_of_range`,
    /// `unknown_member`, `member_closed`; `member_blocked` where points would be granted; `idempotency_key_reused`.
    pub async fn propose_adjustment(&self, actor: &Actor, request: &Adjust, header: Option<&str>) -> Result<AdjustmentView, Error> {
        actor.require(Scope::Admin)?;
        let key = IdempotencyKey::new(actor, "propose adjustment", header, request)?;
        check_reason(&request.reason)?;
        if request.amount == 0 || !(-AMOUNT_MAX..=AMOUNT_MAX).contains(&request.amount) {
            let words = format!("expected 1 to {AMOUNT_MAX} points to grant, or as many below zero to take");
            return Err(Problem::new(codes::AMOUNT_OUT_OF_RANGE, words).field("amount").into());
        }
        if request.amount < 0 && request.expires_at.is_some() {
            return Err(Problem::invalid("expires_at", "expected none where points are taken: those that expire first are").into());
        }
        let line = self.line_of(actor, &request.unit).await?;
        self.staffs_member(actor, &request.member).await?;
        self.kernel()
            .db
            .settle(|| async {
                if let Some(known) = self.find_adjustment(self.kernel().db.near(), "idempotency", &key.stored).await? {
                    key.check(&known.digest)?;
                    return Ok(known.view);
                }
                let (membership, actor, key, request) = (self.clone(), actor.clone(), key.clone(), request.clone());
                self.kernel()
                    .db
                    .write("propose an adjustment", move |tx| {
                        let (membership, actor, key, request) = (membership.clone(), actor.clone(), key.clone(), request.clone());
                        async move { membership.write_proposal(tx, &actor, &key, request, line).await }.boxed()
                    })
                    .await
            })
            .await
    }

    async fn write_proposal(
        &self,
        tx: &Tx,
        actor: &Actor,
        key: &IdempotencyKey,
        request: Adjust,
        line: Line,
    ) -> Result<AdjustmentView, Error> {
        let row = member::lock_any(tx, &request.member).await?;
        check_member(&row, request.amount)?;
        let now = self.kernel().clock.now();
        if request.amount > 0 {
            self.issue_terms(tx, line, request.expires_at, now).await?;
        }
        let view = AdjustmentView {
            id: Kernel::new_id::<EntryId>("adj").to_string(),
            member: request.member,
            unit: request.unit,
            line,
            amount: request.amount,
            reason: request.reason,
            expires_at: request.expires_at,
            state: AdjustmentState::Proposed,
            proposed_by: actor.name().to_owned(),
            proposed_at: now,
            lapses_at: now.plus_ms(LAPSES_MS),
            decided_by: None,
            decided_at: None,
            words: None,
            period: None,
            recovered: 0,
        };
        insert(tx, key, &view).await?;
        audit::record(tx, &entry(actor, "propose adjustment", &view)).await?;
        Ok(view)
    }

    /// Approves an adjustment that somebody else proposed, and posts it. The same key again is answered from what it did.
    ///
    /// # Errors
    /// `forbidden`, `four_eyes` for whoever proposed it, `not_found`, `adjustment_decided`; `not_enough_points` for more than the member
    /// has free, `time_out_of_range` for points that would have expired, `member_closed` and `member_blocked`: it stays proposed then;
    /// `too_many_lots`, `idempotency_key_reused`.
    pub async fn approve_adjustment(&self, actor: &Actor, id: &str, header: Option<&str>) -> Result<AdjustmentView, Error> {
        actor.require(Scope::Admin)?;
        let key = IdempotencyKey::new(actor, "approve adjustment", header, &id)?;
        let found = self.reached_adjustment(actor, id).await?;
        self.check_eyes(actor, &found).await?;
        self.kernel()
            .db
            .settle(|| async {
                if let Some(known) = self.find_adjustment(self.kernel().db.near(), "decided_key", &key.stored).await? {
                    key.check(known.decided_digest.as_deref().unwrap_or_default())?;
                    return Ok(known.view);
                }
                let (membership, actor, key, id) = (self.clone(), actor.clone(), key.clone(), id.to_owned());
                self.kernel()
                    .db
                    .write("approve an adjustment", move |tx| {
                        let (membership, actor, key, id) = (membership.clone(), actor.clone(), key.clone(), id.clone());
                        async move { membership.write_approval(tx, &actor, &key, &id).await }.boxed()
                    })
                    .await
            })
            .await
    }

    /// Rejects an adjustment that somebody else proposed. Saying the same again changes nothing.
    ///
    /// # Errors
    /// `forbidden`, `four_eyes` for whoever proposed it, `invalid_request`, `not_found`, `adjustment_decided`.
    pub async fn reject_adjustment(&self, actor: &Actor, id: &str, reason: &str) -> Result<AdjustmentView, Error> {
        actor.require(Scope::Admin)?;
        check_reason(reason)?;
        let found = self.reached_adjustment(actor, id).await?;
        self.check_eyes(actor, &found).await?;
        self.kernel()
            .db
            .settle(|| async {
                let found = self.find_adjustment(self.kernel().db.near(), "id", id).await?;
                let mut view = found.ok_or_else(|| Problem::not_found("adjustment", id))?.view;
                let said = view.state == AdjustmentState::Rejected && view.words.as_deref() == Some(reason);
                if said && view.decided_by.as_deref() == Some(actor.name()) {
                    return Ok(view);
                }
                check_proposed(&view)?;
                view.state = AdjustmentState::Rejected;
                (view.decided_by, view.words) = (Some(actor.name().to_owned()), Some(reason.to_owned()));
                view.decided_at = Some(self.kernel().clock.now());
                let (entry, written) = (entry(actor, "reject adjustment", &view), view.clone());
                self.kernel()
                    .db
                    .write("reject an adjustment", move |tx| {
                        let (entry, view) = (entry.clone(), written.clone());
                        async move {
                            decide(tx, &view, None).await?;
                            Ok::<(), Error>(audit::record(tx, &entry).await?)
                        }
                        .boxed()
                    })
                    .await?;
                Ok(view)
            })
            .await
    }

    /// Adjustments on account of units within reach, newest first.
    ///
    /// # Errors
    /// `forbidden`.
    pub async fn adjustments(
        &self,
        actor: &Actor,
        of: &AdjustmentsOf,
        before: Option<String>,
        limit: u64,
    ) -> Result<Vec<AdjustmentView>, Error> {
        actor.require(Scope::Admin)?;
        let conn = self.kernel().db.near();
        let (state, member) = (of.state.map_or("", AdjustmentState::as_str), of.member.as_ref().map_or("", MemberId::as_str));
        let mut values: Vec<sea_orm::Value> =
            vec![state.into(), member.into(), before.unwrap_or_default().into(), self.kernel().clock.now().ms().into(), limit.into()];
        let within = match actor.reach() {
            Reach::Everything => "1 = 1".to_owned(),
            Reach::Units(units) => {
                let (one_of, list) = bulk::one_of_texts(conn, 6, units.iter().map(ToString::to_string));
                values.extend(list);
                format!("unit {one_of}")
            }
        };
        // A proposal past its time has lapsed, whether or not the clockwork has been there.
        let text = format!(
            "SELECT {COLUMNS} FROM membership_adjustment
             WHERE ($1 = '' OR $1 = CASE WHEN state = 'proposed' AND lapses_at <= $4 THEN 'lapsed' ELSE state END)
               AND ($2 = '' OR member = $2) AND ($3 = '' OR id < $3) AND {within} ORDER BY id DESC LIMIT $5"
        );
        let rows = sql::all(conn, &text, values).await?;
        rows.iter().map(|row| Ok(self.read_adjustment(row)?.view)).collect()
    }

    /// An adjustment on account of a unit within reach.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub async fn adjustment(&self, actor: &Actor, id: &str) -> Result<AdjustmentView, Error> {
        actor.require(Scope::Admin)?;
        self.reached_adjustment(actor, id).await
    }

    async fn check_eyes(&self, actor: &Actor, view: &AdjustmentView) -> Result<(), Error> {
        if !same_hand(self.kernel().db.near(), actor.name(), &view.proposed_by).await? {
            return Ok(());
        }
        let words = format!("adjustment {} was proposed with this key or with one that has a maker in common with it", view.id);
        Err(Error::refused(codes::FOUR_EYES, format!("{words}; somebody else approves or rejects it")))
    }

    async fn reached_adjustment(&self, actor: &Actor, id: &str) -> Result<AdjustmentView, Error> {
        let found = self.find_adjustment(self.kernel().db.near(), "id", id).await?.map(|found| found.view);
        let found = found.filter(|view| actor.reach().covers(&view.unit));
        Ok(found.ok_or_else(|| Problem::not_found("adjustment", id))?)
    }

    /// Rejects what is proposed for a locked member, which leaves.
    pub(crate) async fn reject_adjustments_of(&self, tx: &Tx, member: &MemberId) -> Result<(), Error> {
        let text =
            "UPDATE membership_adjustment SET state = 'rejected', decided_by = 'system:leave', decided_at = $2, words = 'the member left'
                    WHERE member = $1 AND state = 'proposed'";
        sql::execute(tx.conn(), text, [member.as_str().into(), self.kernel().clock.now().ms().into()]).await?;
        Ok(())
    }

    /// Ends a batch of proposals that nobody decided about in time; answers how many.
    ///
    /// # Errors
    /// The database's.
    pub async fn lapse_adjustments(&self, fence: Option<&Fence>) -> Result<usize, Error> {
        let now = self.kernel().clock.now().ms();
        let text = "SELECT id FROM membership_adjustment WHERE state = 'proposed' AND lapses_at <= $1 LIMIT 1";
        if sql::one(self.kernel().db.reader(), text, [now.into()]).await?.is_none() {
            return Ok(0);
        }
        let fence = fence.cloned();
        self.kernel()
            .db
            .write("lapse adjustments", move |tx| {
                let fence = fence.clone();
                async move {
                    if let Some(fence) = &fence {
                        fence.check(tx).await?;
                    }
                    let text = "UPDATE membership_adjustment SET state = 'lapsed', decided_at = lapses_at
                                WHERE state = 'proposed' AND lapses_at <= $1 AND id IN (
                                  SELECT id FROM membership_adjustment WHERE state = 'proposed' AND lapses_at <= $1 ORDER BY lapses_at, id LIMIT $2)";
                    let lapsed = sql::execute(tx.conn(), text, [now.into(), BATCH_MAX.into()]).await?;
                    Ok::<usize, Error>(usize::try_from(lapsed).unwrap_or(usize::MAX))
                }
                .boxed()
            })
            .await
    }

    /// The adjustment whose column has this value; ids and keys are unique.
    async fn find_adjustment<C: sql::Connection>(&self, conn: &C, column: &str, value: &str) -> Result<Option<Stored>, Error> {
        let text = format!("SELECT {COLUMNS} FROM membership_adjustment WHERE {column} = $1");
        sql::one(conn, &text, [value.into()]).await?.as_ref().map(|row| self.read_adjustment(row)).transpose()
    }

    /// An adjustment as it stands now.
    fn read_adjustment(&self, row: &sql::Row) -> Result<Stored, Error> {
        let (state, line): (String, String) = (sql::get(row, "state")?, sql::get(row, "line")?);
        let state = AdjustmentState::parse(&state).ok_or_else(|| corrupt("state of an adjustment", state))?;
        let lapses_at = Timestamp::clamped(sql::get(row, "lapses_at")?);
        let lapsed = state == AdjustmentState::Proposed && lapses_at <= self.kernel().clock.now();
        let instant = |column: &str| Ok::<_, Error>(sql::get::<Option<i64>>(row, column)?.map(Timestamp::clamped));
        let view = AdjustmentView {
            id: sql::get(row, "id")?,
            member: MemberId::new(sql::get::<String>(row, "member")?).map_err(|e| corrupt("adjustment", e))?,
            unit: OrgUnitId::new(sql::get::<String>(row, "unit")?).map_err(|e| corrupt("adjustment", e))?,
            line: Line::parse(&line).ok_or_else(|| corrupt("adjustment's line", line))?,
            amount: sql::get(row, "amount")?,
            reason: sql::get(row, "reason")?,
            expires_at: instant("expires_at")?,
            state: if lapsed { AdjustmentState::Lapsed } else { state },
            proposed_by: sql::get(row, "proposed_by")?,
            proposed_at: Timestamp::clamped(sql::get(row, "proposed_at")?),
            lapses_at,
            decided_by: sql::get(row, "decided_by")?,
            decided_at: if lapsed { Some(lapses_at) } else { instant("decided_at")? },
            words: Some(sql::get::<String>(row, "words")?).filter(|words| !words.is_empty()),
            period: Period::from_number(sql::get(row, "period")?),
            recovered: sql::get(row, "recovered")?,
        };
        Ok(Stored {
            view,
            digest: sql::get(row, "idempotency_digest")?,
            decided_key: sql::get(row, "decided_key")?,
            decided_digest: sql::get(row, "decided_digest")?,
        })
    }
}

/// A member to whom this may happen: whoever is blocked is granted nothing, and what it should not have can be taken.
fn check_member(row: &MemberRow, amount: i64) -> Result<(), Error> {
    if row.state == MemberState::Blocked && amount < 0 { Ok(()) } else { row.check_open() }
}

fn check_proposed(view: &AdjustmentView) -> Result<(), Error> {
    if view.state == AdjustmentState::Proposed {
        return Ok(());
    }
    let words = match view.state {
        AdjustmentState::Lapsed => format!("adjustment {} has lapsed, since nobody decided about it in time; propose it anew", view.id),
        state => format!("adjustment {} was {} already", view.id, state.as_str()),
    };
    Err(Error::refused(codes::ADJUSTMENT_DECIDED, words))
}

fn entry(actor: &Actor, action: &'static str, view: &AdjustmentView) -> audit::Entry {
    let entry = audit::Entry::new(actor, action, &view.id).detail("member", view.member.as_str()).detail("unit", view.unit.as_str());
    let entry = entry.detail("amount", view.amount).detail("reason", view.reason.as_str());
    match &view.words {
        Some(words) => entry.detail("words", words.as_str()),
        None => entry,
    }
}

async fn insert(tx: &Tx, key: &IdempotencyKey, view: &AdjustmentView) -> Result<(), Error> {
    let inserted = sql::execute(
        tx.conn(),
        "INSERT INTO membership_adjustment (id, member, unit, line, amount, reason, expires_at, state, proposed_by, proposed_at, lapses_at,
           words, period, recovered, idempotency, idempotency_digest)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 'proposed', $8, $9, $10, '', 0, 0, $11, $12) ON CONFLICT (idempotency) DO NOTHING",
        [
            view.id.clone().into(),
            view.member.as_str().into(),
            view.unit.as_str().into(),
            view.line.as_str().into(),
            view.amount.into(),
            view.reason.clone().into(),
            view.expires_at.map(Timestamp::ms).into(),
            view.proposed_by.clone().into(),
            view.proposed_at.ms().into(),
            view.lapses_at.ms().into(),
            key.stored.clone().into(),
            key.digest.clone().into(),
        ],
    )
    .await?;
    if inserted == 0 { Err(heyuan_kernel::Error::Stale("an adjustment with the same key").into()) } else { Ok(()) }
}

/// Writes what was decided about a proposal that still is one.
async fn decide(tx: &Tx, view: &AdjustmentView, key: Option<&IdempotencyKey>) -> Result<(), Error> {
    let decided = sql::execute(
        tx.conn(),
        "UPDATE membership_adjustment SET state = $2, decided_by = $3, decided_at = $4, words = $5, period = $6, recovered = $7,
           decided_key = $8, decided_digest = $9 WHERE id = $1 AND state = 'proposed'",
        [
            view.id.clone().into(),
            view.state.as_str().into(),
            view.decided_by.clone().into(),
            view.decided_at.map(Timestamp::ms).into(),
            view.words.clone().unwrap_or_default().into(),
            view.period.map_or(0, Period::number).into(),
            view.recovered.into(),
            key.map(|key| key.stored.clone()).into(),
            key.map(|key| key.digest.clone()).into(),
        ],
    )
    .await;
    match decided {
        Ok(0) => Err(heyuan_kernel::Error::Stale("an adjustment that somebody else decided about").into()),
        // The key decided about another one meanwhile: that one's record tells whether it was the same request.
        Err(error) if error.is_duplicate() => Err(heyuan_kernel::Error::Stale("an adjustment decided with the same key").into()),
        other => Ok(other.map(drop)?),
    }
}
