//! Granting: by people, and what every grant has: the stock is taken in the same unit of work.

use super::catalogue::{self, Benefit, BenefitState};
use crate::error::{Error, codes};
use crate::facade::Membership;
use crate::member::{self, corrupt};
use crate::missed::Missed;
use futures::FutureExt;
use heyuan_contract::{DomainEvent, EntryId, Line, MemberId, OrgUnitId, ProductId, Timestamp, TransactionId};
use heyuan_kernel::idempotency::IdempotencyKey;
use heyuan_kernel::text::is_line;
use heyuan_kernel::{Actor, Kernel, Problem, Scope, Tx, audit, sql};
use heyuan_ledger::Period;
use serde::Serialize;

/// What is read of a row of `membership_benefit_grant`.
const COLUMNS: &str = "id, digest, member, benefit, version, unit, line, quantity, available, reserved, used, lapsed, state, \
     cost_fen, anywhere, granted_at, expires_at, reason";

/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 500;
/// The stock in all stands beside those of months, which are numbers above it.
const IN_ALL: i64 = 0;

/// A grant by people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GrantBenefit {
    /// The benefit's code.
    pub benefit: String,
    /// Units; the benefit's own quantity when left out.
    pub quantity: Option<i64>,
    /// Why, without personal data.
    pub reason: String,
}

/// What a member was granted. Available, reserved, used and lapsed units add up to the quantity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenefitGrant {
    /// Its id.
    pub id: String,
    /// Whose.
    pub member: MemberId,
    /// The benefit's code.
    pub benefit: String,
    /// The version of the benefit whose terms it keeps.
    pub version: i64,
    /// The unit that contributed it.
    pub unit: OrgUnitId,
    /// Its line, which carries the cost.
    pub line: Line,
    /// Units granted.
    pub quantity: i64,
    /// Units that can be reserved or used.
    pub available: i64,
    /// Units that are reserved.
    pub reserved: i64,
    /// Units that were used.
    pub used: i64,
    /// Units that expired or were withdrawn.
    pub lapsed: i64,
    /// `live`, `spent`, `expired`, `withdrawn`; `missed` for what a rule or a tier would have granted and could not.
    pub state: String,
    /// When it was made.
    pub granted_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Why.
    pub reason: String,
    /// Cost of a used unit, in fen.
    pub(super) cost_fen: i64,
    /// Whether other lines honour it.
    pub(super) anywhere: bool,
}

/// A grant to be made; the member is locked.
pub(super) struct Granting<'a> {
    /// What makes it the same one again.
    pub(super) source: String,
    pub(super) digest: &'a str,
    pub(super) member: &'a MemberId,
    pub(super) quantity: i64,
    /// What its days count from.
    pub(super) from: Timestamp,
    pub(super) reason: &'a str,
    pub(super) transaction: Option<(&'a OrgUnitId, &'a TransactionId)>,
}

impl Membership {
    /// Grants a benefit by hand; audited. The same key again is answered from what it did.
    ///
    /// # Errors
    /// `forbidden`, also for a key that does not reach the benefit's unit or its voucher's; `invalid_request`, `unknown_member`,
    /// `member_closed`, `benefit_not_active`, also for one whose voucher the mall does not have; `benefit_out_of_stock`.
    pub async fn grant_benefit(
        &self,
        actor: &Actor,
        id: &MemberId,
        request: &GrantBenefit,
        header: Option<&str>,
    ) -> Result<BenefitGrant, Error> {
        actor.require(Scope::Admin)?;
        let key = IdempotencyKey::new(actor, "grant benefit", header, &(id, request))?;
        let reason = &request.reason;
        if !is_line(reason, REASON_BYTES_MAX) {
            return Err(Problem::invalid("reason", format!("expected 1 to {REASON_BYTES_MAX} bytes of text")).into());
        }
        let source = format!("staff/{}", key.stored);
        self.kernel()
            .db
            .settle(|| async {
                if let Some((known, digest)) = by_source(self.kernel().db.near(), &source).await? {
                    key.check(&digest)?;
                    return Ok(known);
                }
                let benefit = catalogue::find(self.kernel().db.near(), &request.benefit).await?;
                let benefit = benefit.ok_or_else(|| Problem::invalid("benefit", "there is no such benefit; list them at /v1/benefits"))?;
                actor.require_unit(&benefit.terms.unit)?;
                if let Some(product) = &benefit.terms.voucher {
                    actor.require_unit(&self.voucher_unit(&benefit.code, product).await?)?;
                }
                let quantity = benefit.terms.granted(request.quantity)?;
                let entry = audit::Entry::new(actor, "grant benefit", id.as_str())
                    .detail("benefit", benefit.code.as_str())
                    .detail("quantity", quantity)
                    .detail("reason", reason.as_str());
                let (membership, id, source, digest) = (self.clone(), id.clone(), source.clone(), key.digest.clone());
                let reason = reason.clone();
                self.kernel()
                    .db
                    .write("grant a benefit", move |tx| {
                        let (membership, code, id, entry) = (membership.clone(), benefit.code.clone(), id.clone(), entry.clone());
                        let (source, digest, reason) = (source.clone(), digest.clone(), reason.clone());
                        async move {
                            member::lock(tx, &id).await?;
                            let from = membership.kernel().clock.now();
                            let granting =
                                Granting { source, digest: &digest, member: &id, quantity, from, reason: &reason, transaction: None };
                            let made = membership.grant_active(tx, &code, &granting).await?;
                            audit::record(tx, &entry).await?;
                            Ok(made)
                        }
                        .boxed()
                    })
                    .await
            })
            .await
    }

    /// The unit that redeems a benefit's voucher.
    pub(super) async fn voucher_unit(&self, benefit: &str, product: &ProductId) -> Result<OrgUnitId, Error> {
        let words = || format!("the benefit {benefit} is a voucher of {product}, which is none of the mall's vouchers");
        let unit = self.vouchers().unit_of(product).await?;
        unit.ok_or_else(|| Error::refused(codes::BENEFIT_NOT_ACTIVE, words()))
    }

    /// Grants the newest version of a benefit, which must be active and have stock.
    pub(super) async fn grant_active(&self, tx: &Tx, code: &str, granting: &Granting<'_>) -> Result<BenefitGrant, Error> {
        let benefit = catalogue::find(tx.conn(), code).await?.ok_or_else(|| corrupt("benefit", "it is gone"))?;
        if benefit.terms.state != BenefitState::Active {
            let words = format!("the benefit {code} is {}", benefit.terms.state.as_str());
            return Err(Error::refused(codes::BENEFIT_NOT_ACTIVE, words));
        }
        let made = self.write_grant(tx, &benefit, granting).await?;
        made.ok_or_else(|| Error::refused(codes::BENEFIT_OUT_OF_STOCK, format!("the benefit {code} has fewer units left than that")))
    }

    pub(super) fn ends(&self, benefit: &Benefit, from: Timestamp) -> Timestamp {
        self.kernel().zone.day_start_after(from, benefit.terms.valid_days + 1)
    }

    /// Takes the stock and writes the grant; `None` when there is too little, and what is there already is answered again.
    pub(super) async fn write_grant(&self, tx: &Tx, benefit: &Benefit, granting: &Granting<'_>) -> Result<Option<BenefitGrant>, Error> {
        if let Some((known, _)) = by_source(tx.conn(), &granting.source).await? {
            return Ok(Some(known));
        }
        let month = Period::of(&self.kernel().zone, self.kernel().clock.now()).number();
        let (code, quantity, stock) = (benefit.code.as_str(), granting.quantity, benefit.terms.stock);
        if !take_stock(tx, code, month, quantity, stock.month).await? {
            return Ok(None);
        }
        if !take_stock(tx, code, IN_ALL, quantity, stock.total).await? {
            give_back(tx, code, month, quantity).await?;
            return Ok(None);
        }
        let grant = self.insert_grant(tx, benefit, granting, None).await?;
        if benefit.terms.voucher.is_some() {
            return self.hand_over(tx, benefit, grant).await.map(Some);
        }
        Ok(Some(grant))
    }

    /// Keeps that a grant was not made, and why; once a source. It is beside the grant that may be made later on.
    pub(super) async fn write_missed(&self, tx: &Tx, benefit: &Benefit, granting: &Granting<'_>, why: Missed) -> Result<(), Error> {
        self.insert_grant(tx, benefit, granting, Some(why)).await.map(drop)
    }

    async fn insert_grant(
        &self,
        tx: &Tx,
        benefit: &Benefit,
        granting: &Granting<'_>,
        missed: Option<Missed>,
    ) -> Result<BenefitGrant, Error> {
        let now = self.kernel().clock.now();
        let (state, quantity) = if missed.is_some() { ("missed", 0) } else { ("live", granting.quantity) };
        let source = if missed.is_some() { format!("{}/missed", granting.source) } else { granting.source.clone() };
        let grant = BenefitGrant {
            id: Kernel::new_id::<EntryId>("bng").to_string(),
            member: granting.member.clone(),
            benefit: benefit.code.clone(),
            version: benefit.version,
            unit: benefit.terms.unit.clone(),
            line: benefit.line,
            quantity,
            available: quantity,
            reserved: 0,
            used: 0,
            lapsed: 0,
            state: state.to_owned(),
            granted_at: now,
            expires_at: self.ends(benefit, granting.from),
            reason: granting.reason.to_owned(),
            cost_fen: benefit.terms.cost_fen,
            anywhere: benefit.terms.anywhere,
        };
        let inserted = sql::execute(
            tx.conn(),
            "INSERT INTO membership_benefit_grant (id, source, digest, member, benefit, version, unit, line, quantity, available, reserved, used,
               lapsed, state, cost_fen, anywhere, stock_returns, period, granted_at, expires_at, reason, transaction_unit, transaction_id,
               missed)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, 0, 0, 0, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
             ON CONFLICT (source) DO NOTHING",
            [
                grant.id.clone().into(),
                source.into(),
                granting.digest.into(),
                grant.member.as_str().into(),
                grant.benefit.clone().into(),
                grant.version.into(),
                grant.unit.as_str().into(),
                grant.line.as_str().into(),
                quantity.into(),
                state.into(),
                grant.cost_fen.into(),
                i64::from(grant.anywhere).into(),
                i64::from(benefit.terms.stock.returns).into(),
                Period::of(&self.kernel().zone, now).number().into(),
                now.ms().into(),
                grant.expires_at.ms().into(),
                grant.reason.clone().into(),
                granting.transaction.map(|(unit, _)| unit.as_str().to_owned()).into(),
                granting.transaction.map(|(_, id)| id.as_str().to_owned()).into(),
                missed.map(Missed::as_str).into(),
            ],
        )
        .await?;
        if inserted == 0 && missed.is_none() {
            return Err(heyuan_kernel::Error::Stale("a grant from the same source").into());
        }
        Ok(grant)
    }

    /// A voucher's units are the mall's from the grant on: one event each, and used here.
    async fn hand_over(&self, tx: &Tx, benefit: &Benefit, mut grant: BenefitGrant) -> Result<BenefitGrant, Error> {
        let Some(product) = &benefit.terms.voucher else { return Ok(grant) };
        for piece in 1..=grant.quantity {
            let event = DomainEvent::VoucherGranted {
                member: grant.member.clone(),
                product: product.clone(),
                grant: format!("benefit/{}/{piece}", grant.id),
                reason: grant.reason.clone(),
                occurred_at: grant.granted_at,
            };
            tx.emit(grant.member.as_str(), &event).await?;
        }
        self.hand_over_units(tx, &grant).await?;
        (grant.used, grant.available, grant.state) = (grant.quantity, 0, "spent".to_owned());
        Ok(grant)
    }

    /// What a member was granted, newest first.
    ///
    /// # Errors
    /// `forbidden`, `unknown_member`.
    pub async fn member_benefits(
        &self,
        actor: &Actor,
        id: &MemberId,
        before: Option<String>,
        limit: u64,
    ) -> Result<Vec<BenefitGrant>, Error> {
        self.visible_member(actor, id).await?;
        let text = format!(
            "SELECT {COLUMNS} FROM membership_benefit_grant WHERE member = $1 AND state <> 'missed' AND ($2 = '' OR id < $2)
                    ORDER BY id DESC LIMIT $3"
        );
        let before = before.unwrap_or_default();
        let rows = sql::all(self.kernel().db.near(), &text, [id.as_str().into(), before.into(), limit.into()]).await?;
        rows.iter().map(read).collect()
    }

    /// Withdraws what of a wholly refunded purchase's benefits was not used; what was used stays as it was. The member is locked.
    pub(crate) async fn withdraw_benefits(&self, tx: &Tx, unit: &OrgUnitId, id: &TransactionId) -> Result<(), Error> {
        let text = "SELECT id FROM membership_benefit_grant WHERE transaction_unit = $1 AND transaction_id = $2 AND state = 'live'
                    ORDER BY benefit, id";
        let month = Period::of(&self.kernel().zone, self.kernel().clock.now());
        for row in sql::all(tx.conn(), text, [unit.as_str().into(), id.as_str().into()]).await? {
            end(tx, &sql::get::<String>(&row, "id")?, "withdrawn", month).await?;
        }
        Ok(())
    }
}

/// Ends a live grant: what is available or reserved lapses. The member is locked.
pub(super) async fn end(tx: &Tx, id: &str, state: &str, month: Period) -> Result<(), Error> {
    let text = "UPDATE membership_benefit_use SET state = 'lapsed' WHERE grant_id = $1 AND state = 'reserved'";
    sql::execute(tx.conn(), text, [id.into()]).await?;
    let row = sql::one(
        tx.conn(),
        "UPDATE membership_benefit_grant SET lapsed = lapsed + available + reserved, available = 0, reserved = 0, state = $2, ended_period = $3
         WHERE id = $1 AND state = 'live' RETURNING benefit, period, lapsed, stock_returns",
        [id.into(), state.into(), month.number().into()],
    )
    .await?;
    let Some(row) = row else { return Ok(()) };
    if sql::get::<i64>(&row, "stock_returns")? == 0 {
        return Ok(());
    }
    let (benefit, lapsed): (String, i64) = (sql::get(&row, "benefit")?, sql::get(&row, "lapsed")?);
    give_back(tx, &benefit, sql::get(&row, "period")?, lapsed).await?;
    give_back(tx, &benefit, IN_ALL, lapsed).await
}

/// Takes units from a stock, all or none; without a limit they are only counted.
async fn take_stock(tx: &Tx, benefit: &str, period: i64, quantity: i64, limit: Option<i64>) -> Result<bool, Error> {
    let limit = limit.unwrap_or(i64::MAX);
    if quantity > limit {
        return Ok(false);
    }
    let taken = sql::execute(
        tx.conn(),
        "INSERT INTO membership_benefit_stock (benefit, period, taken) VALUES ($1, $2, $3)
         ON CONFLICT (benefit, period) DO UPDATE SET taken = membership_benefit_stock.taken + excluded.taken
         WHERE membership_benefit_stock.taken + excluded.taken <= $4",
        [benefit.into(), period.into(), quantity.into(), limit.into()],
    )
    .await?;
    Ok(taken > 0)
}

/// Whether both stocks have enough for a grant of the benefit's own quantity, as they stand.
pub(super) async fn has_stock<C: sql::Connection>(conn: &C, benefit: &Benefit, month: Period) -> Result<bool, Error> {
    let stock = benefit.terms.stock;
    for (period, limit) in [(month.number(), stock.month), (IN_ALL, stock.total)] {
        let text = "SELECT taken FROM membership_benefit_stock WHERE benefit = $1 AND period = $2";
        let row = sql::one(conn, text, [benefit.code.as_str().into(), period.into()]).await?;
        let taken: i64 = row.map_or(Ok(0), |row| sql::get(&row, "taken"))?;
        if limit.is_some_and(|limit| taken.saturating_add(benefit.terms.quantity) > limit) {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn give_back(tx: &Tx, benefit: &str, period: i64, quantity: i64) -> Result<(), Error> {
    let text = "UPDATE membership_benefit_stock SET taken = taken - $3 WHERE benefit = $1 AND period = $2";
    sql::execute(tx.conn(), text, [benefit.into(), period.into(), quantity.into()]).await?;
    Ok(())
}

pub(super) async fn by_source<C: sql::Connection>(conn: &C, source: &str) -> Result<Option<(BenefitGrant, String)>, Error> {
    let row = sql::one(conn, &format!("SELECT {COLUMNS} FROM membership_benefit_grant WHERE source = $1"), [source.into()]).await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some((read(&row)?, sql::get(&row, "digest")?)))
}

/// A member's own grant.
pub(super) async fn find(tx: &Tx, member: &MemberId, id: &str) -> Result<BenefitGrant, Error> {
    let text = format!("SELECT {COLUMNS} FROM membership_benefit_grant WHERE id = $1 AND member = $2 AND state <> 'missed'");
    let row = sql::one(tx.conn(), &text, [id.into(), member.as_str().into()]).await?;
    let unknown = || Error::refused(codes::UNKNOWN_BENEFIT_GRANT, format!("member {member} was not granted {id}"));
    read(&row.ok_or_else(unknown)?)
}

fn read(row: &sql::Row) -> Result<BenefitGrant, Error> {
    let line: String = sql::get(row, "line")?;
    Ok(BenefitGrant {
        id: sql::get(row, "id")?,
        member: MemberId::new(sql::get::<String>(row, "member")?).map_err(|e| corrupt("benefit grant", e))?,
        benefit: sql::get(row, "benefit")?,
        version: sql::get(row, "version")?,
        unit: OrgUnitId::new(sql::get::<String>(row, "unit")?).map_err(|e| corrupt("benefit grant", e))?,
        line: Line::parse(&line).ok_or_else(|| corrupt("benefit grant's line", line))?,
        quantity: sql::get(row, "quantity")?,
        available: sql::get(row, "available")?,
        reserved: sql::get(row, "reserved")?,
        used: sql::get(row, "used")?,
        lapsed: sql::get(row, "lapsed")?,
        state: sql::get(row, "state")?,
        granted_at: Timestamp::clamped(sql::get(row, "granted_at")?),
        expires_at: Timestamp::clamped(sql::get(row, "expires_at")?),
        reason: sql::get(row, "reason")?,
        cost_fen: sql::get(row, "cost_fen")?,
        anywhere: sql::get::<i64>(row, "anywhere")? != 0,
    })
}

/// Empties the words on an erased member's grants; the numbers stay.
pub(crate) async fn erase(tx: &Tx, member: &MemberId) -> Result<(), Error> {
    sql::execute(tx.conn(), "UPDATE membership_benefit_grant SET reason = '' WHERE member = $1", [member.as_str().into()]).await?;
    Ok(())
}
