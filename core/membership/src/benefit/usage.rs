//! Use: units are reserved under a code, used at a counter, or given back; each unit once.

use super::grant::{self, BenefitGrant};
use crate::error::{Error, codes};
use crate::facade::Membership;
use crate::member::{self, corrupt};
use futures::FutureExt;
use heyuan_contract::{EntryId, Line, MemberId, OrgUnitId, Timestamp};
use heyuan_kernel::idempotency::IdempotencyKey;
use heyuan_kernel::secret::{Key, sha256_hex};
use heyuan_kernel::{Actor, Kernel, Problem, Scope, Tx, sql};
use heyuan_ledger::Period;
use serde::Serialize;

/// What is read of a row of `membership_benefit_use`.
const COLUMNS: &str = "id, code, grant_id, member, benefit, line, unit, quantity, cost_fen, state, deadline, ended_at, idempotency, \
     idempotency_digest, ended_by, ended_digest";

/// Hex digits of a code: 80 bits, so that codes can't be guessed.
const CODE_LENGTH: usize = 20;
/// How long a reservation stands that names no time.
const RESERVED_MINUTES_DEFAULT: i64 = 24 * 60;
/// The longest reservation: thirty days.
const RESERVED_MINUTES_MAX: i64 = 30 * 24 * 60;
const MINUTE_MS: i64 = 60_000;

/// Units to reserve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reserve {
    /// How many.
    pub quantity: i64,
    /// Where they will be used.
    pub unit: OrgUnitId,
    /// How long the reservation stands; a day when left out, and never longer than the grant.
    pub minutes: Option<i64>,
}

/// Units to use at a counter without a reservation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UseBenefit {
    /// How many.
    pub quantity: i64,
    /// The counter's unit.
    pub unit: OrgUnitId,
}

/// Units that were reserved, and what became of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenefitUse {
    /// Its id.
    pub id: String,
    /// The code to show at the counter; none when they were used at once.
    pub code: Option<String>,
    /// The grant that they are from.
    pub grant: String,
    /// Whose.
    pub member: MemberId,
    /// The benefit's code.
    pub benefit: String,
    /// The line that carries the cost.
    pub line: Line,
    /// Where they are to be used, or were.
    pub unit: OrgUnitId,
    /// How many.
    pub quantity: i64,
    /// What they cost the line when used, in fen.
    pub cost_fen: i64,
    /// `reserved`, `used`, `returned`, `lapsed`.
    pub state: String,
    /// Until when a reservation stands.
    pub deadline: Option<Timestamp>,
    /// When they were used or given back.
    pub ended_at: Option<Timestamp>,
}

/// A new row of uses.
struct Taken<'a> {
    code: Option<String>,
    unit: &'a OrgUnitId,
    quantity: i64,
    state: &'static str,
    deadline: Option<Timestamp>,
    idempotency: &'a str,
    digest: &'a str,
}

impl Membership {
    /// Reserves units of a grant under a code.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `unknown_benefit_grant`, `member_closed`, `benefit_expired`, `benefit_elsewhere`, `benefit_too_few`.
    pub async fn reserve_benefit(
        &self,
        actor: &Actor,
        id: &MemberId,
        grant: &str,
        request: &Reserve,
        header: Option<&str>,
    ) -> Result<BenefitUse, Error> {
        actor.require_for_member(Scope::App, id)?;
        let key = IdempotencyKey::new(actor, "reserve benefit", header, &(id, grant, request))?;
        let minutes = request.minutes.unwrap_or(RESERVED_MINUTES_DEFAULT);
        if !(1..=RESERVED_MINUTES_MAX).contains(&minutes) {
            return Err(Problem::invalid("minutes", format!("expected 1 to {RESERVED_MINUTES_MAX} minutes")).into());
        }
        let taking = Taking { quantity: request.quantity, unit: request.unit.clone(), reserved_ms: Some(minutes * MINUTE_MS) };
        self.take(actor, id, grant, taking, key).await
    }

    /// Uses units of a grant at a counter, at once.
    ///
    /// # Errors
    /// As [`Membership::reserve_benefit`].
    pub async fn use_benefit(
        &self,
        actor: &Actor,
        id: &MemberId,
        grant: &str,
        request: &UseBenefit,
        header: Option<&str>,
    ) -> Result<BenefitUse, Error> {
        actor.require(Scope::App)?;
        let key = IdempotencyKey::new(actor, "use benefit", header, &(id, grant, request))?;
        let taking = Taking { quantity: request.quantity, unit: request.unit.clone(), reserved_ms: None };
        self.take(actor, id, grant, taking, key).await
    }

    async fn take(&self, actor: &Actor, id: &MemberId, grant: &str, taking: Taking, key: IdempotencyKey) -> Result<BenefitUse, Error> {
        let max = super::catalogue::QUANTITY_MAX;
        if !(1..=max).contains(&taking.quantity) {
            return Err(Problem::invalid("quantity", format!("expected 1 to {max}")).into());
        }
        let line = self.line_of(actor, &taking.unit).await?;
        if actor.as_member().is_some() {
            self.visible_member(actor, id).await?;
        }
        self.kernel()
            .db
            .settle(|| async {
                if let Some((known, digest)) = by_key(self.kernel().db.near(), "idempotency", &key.stored).await? {
                    key.check(&digest.unwrap_or_default())?;
                    return Ok(known);
                }
                let (membership, id, grant, taking, key) = (self.clone(), id.clone(), grant.to_owned(), taking.clone(), key.clone());
                self.kernel()
                    .db
                    .write("take of a benefit", move |tx| {
                        let (membership, id, grant, taking, key) =
                            (membership.clone(), id.clone(), grant.clone(), taking.clone(), key.clone());
                        async move { membership.write_taking(tx, &id, &grant, &taking, line, &key).await }.boxed()
                    })
                    .await
            })
            .await
    }

    async fn write_taking(
        &self,
        tx: &Tx,
        id: &MemberId,
        grant: &str,
        taking: &Taking,
        line: Line,
        key: &IdempotencyKey,
    ) -> Result<BenefitUse, Error> {
        member::lock(tx, id).await?;
        let grant = grant::find(tx, id, grant).await?;
        let now = self.kernel().clock.now();
        if grant.expires_at <= now || matches!(grant.state.as_str(), "expired" | "withdrawn") {
            return Err(Error::refused(codes::BENEFIT_EXPIRED, format!("the grant {} has ended", grant.id)));
        }
        check_line(grant.line, line, grant.anywhere, &grant.benefit)?;
        let (column, state) = if taking.reserved_ms.is_some() { ("reserved", "reserved") } else { ("used", "used") };
        let text = format!(
            "UPDATE membership_benefit_grant SET available = available - $2, {column} = {column} + $2,
               state = CASE WHEN '{column}' = 'used' AND used + lapsed + $2 = quantity THEN 'spent' ELSE state END
             WHERE id = $1 AND state = 'live' AND available >= $2 AND expires_at > $3"
        );
        if sql::execute(tx.conn(), &text, [grant.id.clone().into(), taking.quantity.into(), now.ms().into()]).await? == 0 {
            let words = format!("{} units of the grant {} are left; {} were asked for", grant.available, grant.id, taking.quantity);
            return Err(Problem::new(codes::BENEFIT_TOO_FEW, words).field("quantity").into());
        }
        let taken = Taken {
            code: taking.reserved_ms.map(|_| new_code()),
            unit: &taking.unit,
            quantity: taking.quantity,
            state,
            deadline: taking.reserved_ms.map(|ms| now.plus_ms(ms).min(grant.expires_at)),
            idempotency: &key.stored,
            digest: &key.digest,
        };
        self.insert_use(tx, &grant, taken).await
    }

    /// A voucher's units count as used where it was contributed, since the mall redeems them.
    pub(super) async fn hand_over_units(&self, tx: &Tx, grant: &BenefitGrant) -> Result<(), Error> {
        let text = "UPDATE membership_benefit_grant SET used = available, available = 0, state = 'spent' WHERE id = $1";
        sql::execute(tx.conn(), text, [grant.id.clone().into()]).await?;
        let idempotency = format!("grant/{}", grant.id);
        let taken = Taken {
            code: None,
            unit: &grant.unit,
            quantity: grant.quantity,
            state: "used",
            deadline: None,
            idempotency: &idempotency,
            digest: "",
        };
        self.insert_use(tx, grant, taken).await.map(drop)
    }

    async fn insert_use(&self, tx: &Tx, grant: &BenefitGrant, taken: Taken<'_>) -> Result<BenefitUse, Error> {
        let now = self.kernel().clock.now();
        let month = Period::of(&self.kernel().zone, now).number();
        let reserved = taken.code.is_some();
        let view = BenefitUse {
            id: Kernel::new_id::<EntryId>("bnu").to_string(),
            code: taken.code,
            grant: grant.id.clone(),
            member: grant.member.clone(),
            benefit: grant.benefit.clone(),
            line: grant.line,
            unit: taken.unit.clone(),
            quantity: taken.quantity,
            cost_fen: grant.cost_fen * taken.quantity,
            state: taken.state.to_owned(),
            deadline: taken.deadline,
            ended_at: (!reserved).then_some(now),
        };
        let inserted = sql::execute(
            tx.conn(),
            "INSERT INTO membership_benefit_use (id, code, grant_id, member, benefit, line, unit, contributor, quantity, cost_fen, state, deadline,
               reserved_at, reserved_period, ended_at, used_period, idempotency, idempotency_digest)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18) ON CONFLICT (idempotency) DO NOTHING",
            [
                view.id.clone().into(),
                view.code.clone().into(),
                view.grant.clone().into(),
                view.member.as_str().into(),
                view.benefit.clone().into(),
                view.line.as_str().into(),
                view.unit.as_str().into(),
                grant.unit.as_str().into(),
                view.quantity.into(),
                view.cost_fen.into(),
                view.state.clone().into(),
                view.deadline.map(Timestamp::ms).into(),
                reserved.then(|| now.ms()).into(),
                reserved.then_some(month).into(),
                view.ended_at.map(Timestamp::ms).into(),
                (!reserved).then_some(month).into(),
                taken.idempotency.into(),
                taken.digest.into(),
            ],
        )
        .await?;
        if inserted == 0 {
            return Err(heyuan_kernel::Error::Stale("a use with the same key").into());
        }
        Ok(view)
    }

    /// Uses a reservation at a counter, by its code. The same key again is answered from what it did.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `unknown_benefit_reservation`, `member_closed`, `benefit_used`, `benefit_expired`,
    /// `benefit_elsewhere`.
    pub async fn use_reservation(&self, actor: &Actor, code: &str, unit: &OrgUnitId, header: Option<&str>) -> Result<BenefitUse, Error> {
        actor.require(Scope::App)?;
        let key = IdempotencyKey::new(actor, "use benefit reservation", header, &(code, unit))?;
        let line = self.line_of(actor, unit).await?;
        self.end_reservation(code, Ending { state: "used", at: Some((unit.clone(), line)), member: None }, key).await
    }

    /// Gives reserved units back to their grant.
    ///
    /// # Errors
    /// `forbidden`, `unknown_benefit_reservation`, `member_closed`, `benefit_used`, `benefit_expired`.
    pub async fn return_benefit(
        &self,
        actor: &Actor,
        id: &MemberId,
        grant: &str,
        code: &str,
        header: Option<&str>,
    ) -> Result<BenefitUse, Error> {
        actor.require_for_member(Scope::App, id)?;
        let key = IdempotencyKey::new(actor, "return benefit", header, &(id, grant, code))?;
        if actor.as_member().is_some() {
            self.visible_member(actor, id).await?;
        }
        let found = by_key(self.kernel().db.near(), "code", code).await?.map(|(found, _)| found);
        let own = found.filter(|found| found.member == *id && found.grant == grant && actor.reach().covers(&found.unit));
        own.ok_or_else(|| unknown_reservation(code))?;
        self.end_reservation(code, Ending { state: "returned", at: None, member: Some(id.clone()) }, key).await
    }

    /// What a member has reserved, whatever became of it, newest first.
    ///
    /// # Errors
    /// `forbidden`, `unknown_member`.
    pub async fn reservations(&self, actor: &Actor, id: &MemberId, before: Option<String>, limit: u64) -> Result<Vec<BenefitUse>, Error> {
        self.visible_member(actor, id).await?;
        let text = format!(
            "SELECT {COLUMNS} FROM membership_benefit_use WHERE member = $1 AND code IS NOT NULL AND ($2 = '' OR id < $2) ORDER BY id DESC LIMIT $3"
        );
        let values = [id.as_str().into(), before.unwrap_or_default().into(), limit.into()];
        let now = self.kernel().clock.now();
        // Past its deadline it has lapsed, whether or not the clockwork has been there.
        let as_of_now = |taken: BenefitUse| match taken.deadline.filter(|deadline| taken.state == "reserved" && *deadline <= now) {
            Some(deadline) => BenefitUse { state: "lapsed".to_owned(), ended_at: Some(deadline), ..taken },
            None => taken,
        };
        sql::all(self.kernel().db.near(), &text, values).await?.iter().map(|row| read(row).map(as_of_now)).collect()
    }

    async fn end_reservation(&self, code: &str, ending: Ending, key: IdempotencyKey) -> Result<BenefitUse, Error> {
        self.kernel()
            .db
            .settle(|| async {
                if let Some((known, digest)) = by_key(self.kernel().db.near(), "ended_by", &key.stored).await? {
                    key.check(&digest.unwrap_or_default())?;
                    return Ok(known);
                }
                let (membership, code, ending, key) = (self.clone(), code.to_owned(), ending.clone(), key.clone());
                self.kernel()
                    .db
                    .write("end a benefit's reservation", move |tx| {
                        let (membership, code, ending, key) = (membership.clone(), code.clone(), ending.clone(), key.clone());
                        async move { membership.write_end(tx, &code, &ending, &key).await }.boxed()
                    })
                    .await
            })
            .await
    }

    async fn write_end(&self, tx: &Tx, code: &str, ending: &Ending, key: &IdempotencyKey) -> Result<BenefitUse, Error> {
        let found = by_key(tx.conn(), "code", code).await?.map(|(found, _)| found);
        let owner = found.filter(|found| ending.member.as_ref().is_none_or(|member| *member == found.member));
        let owner = owner.ok_or_else(|| unknown_reservation(code))?.member;
        member::lock(tx, &owner).await?;
        // Read again: now nobody else changes it.
        let found = by_key(tx.conn(), "code", code).await?.map(|(found, _)| found).ok_or_else(|| unknown_reservation(code))?;
        let grant = grant::find(tx, &owner, &found.grant).await?;
        if let Some((_, line)) = &ending.at {
            check_line(grant.line, *line, grant.anywhere, &grant.benefit)?;
        }
        let now = self.kernel().clock.now();
        let used_period = ending.at.as_ref().map(|_| Period::of(&self.kernel().zone, now).number());
        let unit = ending.at.as_ref().map_or(&found.unit, |(unit, _)| unit);
        let row = sql::one(
            tx.conn(),
            &format!(
                "UPDATE membership_benefit_use SET state = $2, unit = $3, ended_at = $4, used_period = $5, ended_by = $6, ended_digest = $7
             WHERE code = $1 AND state = 'reserved' AND deadline > $4 RETURNING {COLUMNS}"
            ),
            [
                code.into(),
                ending.state.into(),
                unit.as_str().into(),
                now.ms().into(),
                used_period.into(),
                key.stored.clone().into(),
                key.digest.clone().into(),
            ],
        )
        .await;
        let row = match row {
            // The key ended another reservation meanwhile: that one's record tells whether it was the same request.
            Err(error) if error.is_duplicate() => return Err(heyuan_kernel::Error::Stale("a reservation ended with the same key").into()),
            other => other?,
        };
        let Some(row) = row else { return self.refuse_end(tx, &found, key).await };
        let counted = if ending.at.is_some() { "used = used + $2" } else { "available = available + $2" };
        let spent = if ending.at.is_some() { "used + lapsed + $2 = quantity" } else { "1 = 0" };
        let text = format!(
            "UPDATE membership_benefit_grant SET reserved = reserved - $2, {counted},
               state = CASE WHEN {spent} THEN 'spent' ELSE state END WHERE id = $1 AND state = 'live' AND reserved >= $2"
        );
        if sql::execute(tx.conn(), &text, [found.grant.clone().into(), found.quantity.into()]).await? == 0 {
            return Err(corrupt("benefit grant", "it holds fewer units than are reserved").into());
        }
        read(&row)
    }

    /// Why a reservation can't be ended any more; the same request that was carried out meanwhile is answered from what it did.
    async fn refuse_end(&self, tx: &Tx, found: &BenefitUse, key: &IdempotencyKey) -> Result<BenefitUse, Error> {
        if by_key(tx.conn(), "ended_by", &key.stored).await?.is_some() {
            return Err(heyuan_kernel::Error::Stale("the reservation").into());
        }
        let of = &found.id;
        Err(match found.state.as_str() {
            "used" => Error::refused(codes::BENEFIT_USED, format!("the reservation {of} was used already")),
            "returned" => Error::refused(codes::BENEFIT_EXPIRED, format!("the reservation {of} was given back")),
            _ => Error::refused(codes::BENEFIT_EXPIRED, format!("the reservation {of} is past its deadline")),
        })
    }

    /// Gives units whose reservation is past its deadline back to the grant. The member is locked.
    pub(super) async fn lapse_reservation(&self, tx: &Tx, id: &str, now: Timestamp) -> Result<(), Error> {
        let row = sql::one(
            tx.conn(),
            "UPDATE membership_benefit_use SET state = 'lapsed', ended_at = deadline WHERE id = $1 AND state = 'reserved' AND deadline <= $2
             RETURNING grant_id, quantity",
            [id.into(), now.ms().into()],
        )
        .await?;
        let Some(row) = row else { return Ok(()) };
        let (grant, quantity): (String, i64) = (sql::get(&row, "grant_id")?, sql::get(&row, "quantity")?);
        let text = "UPDATE membership_benefit_grant SET reserved = reserved - $2, available = available + $2 WHERE id = $1";
        sql::execute(tx.conn(), text, [grant.into(), quantity.into()]).await?;
        Ok(())
    }
}

/// What is to be taken of a grant; without a time it is used at once.
#[derive(Clone)]
struct Taking {
    quantity: i64,
    unit: OrgUnitId,
    reserved_ms: Option<i64>,
}

/// How a reservation ends: used at a counter of a line, or given back by its member.
#[derive(Clone)]
struct Ending {
    state: &'static str,
    at: Option<(OrgUnitId, Line)>,
    member: Option<MemberId>,
}

fn check_line(contributed: Line, at: Line, anywhere: bool, benefit: &str) -> Result<(), Error> {
    if anywhere || contributed == at {
        return Ok(());
    }
    let words = format!("the benefit {benefit} is used at the units of the line {contributed}, not of {at}");
    Err(Problem::new(codes::BENEFIT_ELSEWHERE, words).field("unit").into())
}

fn unknown_reservation(code: &str) -> Error {
    Error::refused(codes::UNKNOWN_BENEFIT_RESERVATION, format!("there is no reservation {code} that this key may see"))
}

fn new_code() -> String {
    sha256_hex(Key::random().bytes()).chars().take(CODE_LENGTH).collect()
}

/// A use by one of its unique columns, with the digest of the request that this column's key came with.
async fn by_key<C: sql::Connection>(conn: &C, column: &'static str, value: &str) -> Result<Option<(BenefitUse, Option<String>)>, Error> {
    let row = sql::one(conn, &format!("SELECT {COLUMNS} FROM membership_benefit_use WHERE {column} = $1"), [value.into()]).await?;
    let Some(row) = row else { return Ok(None) };
    let digest = sql::get(&row, if column == "ended_by" { "ended_digest" } else { "idempotency_digest" })?;
    Ok(Some((read(&row)?, digest)))
}

fn read(row: &sql::Row) -> Result<BenefitUse, Error> {
    let line: String = sql::get(row, "line")?;
    let deadline: Option<i64> = sql::get(row, "deadline")?;
    let ended_at: Option<i64> = sql::get(row, "ended_at")?;
    Ok(BenefitUse {
        id: sql::get(row, "id")?,
        code: sql::get(row, "code")?,
        grant: sql::get(row, "grant_id")?,
        member: MemberId::new(sql::get::<String>(row, "member")?).map_err(|e| corrupt("benefit use", e))?,
        benefit: sql::get(row, "benefit")?,
        line: Line::parse(&line).ok_or_else(|| corrupt("benefit use's line", line))?,
        unit: OrgUnitId::new(sql::get::<String>(row, "unit")?).map_err(|e| corrupt("benefit use", e))?,
        quantity: sql::get(row, "quantity")?,
        cost_fen: sql::get(row, "cost_fen")?,
        state: sql::get(row, "state")?,
        deadline: deadline.map(Timestamp::clamped),
        ended_at: ended_at.map(Timestamp::clamped),
    })
}
