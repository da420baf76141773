//! Points in use: spending first-expiring-first, and the statement.

use crate::books::{self, LineAccount, Movement};
use crate::error::{Error, codes};
use crate::facade::Membership;
use crate::hold;
use crate::member;
use futures::FutureExt;
use heyuan_contract::{EntryId, Line, MemberId, OrderId, OrgUnitId, Timestamp};
use heyuan_kernel::idempotency::IdempotencyKey;
use heyuan_kernel::text::is_line;
use heyuan_kernel::{Actor, Kernel, Problem, Scope, Tx, sql};
use heyuan_ledger::{Book, Lots, Period, Transfer};
use serde::Serialize;

/// What is read of a row of `membership_spend`.
const COLUMNS: &str = "id, member, unit, amount, reference, occurred_at, period, points_balance, idempotency, idempotency_digest, \
     hold";

/// Most points of one spend.
const AMOUNT_MAX: i64 = 1_000_000_000;
/// Longest reference, in bytes.
const REFERENCE_BYTES_MAX: usize = 200;

/// Points to spend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spend {
    /// Above zero.
    pub amount: i64,
    /// Where: its line gets the points' cost at the clearing.
    pub unit: OrgUnitId,
    /// What for, in the unit's own words; never personal data.
    pub reference: String,
}

/// Points that were spent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpendView {
    /// Its id.
    pub id: String,
    /// Who spent.
    pub member: MemberId,
    /// Where.
    pub unit: OrgUnitId,
    /// How many.
    pub amount: i64,
    /// What for.
    pub reference: String,
    /// When.
    pub occurred_at: Timestamp,
    /// The month that it counts in.
    pub period: Option<Period>,
    /// What could be spent after it.
    pub points_balance: i64,
    /// The hold that it was captured from, if it was.
    pub hold: Option<String>,
    /// The mall's order that it paid, whose refunds alone give it back.
    pub order: Option<String>,
}

impl SpendView {
    /// The key of the transfer that it is.
    pub(crate) fn transfer_key(&self) -> String {
        self.hold.as_deref().map_or_else(|| spend_key(&self.id), hold::transfer_key)
    }
}

/// One entry of a member's points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementLine {
    /// Counted from 1 without gaps.
    pub number: i64,
    /// `earn`, `spend`, `refund`, `expire`, `transfer`, …
    pub kind: String,
    /// What it belongs to.
    pub reference: String,
    /// Positive when points came in.
    pub amount: i64,
    /// Everything that the account held after it.
    pub balance: i64,
    /// Its own time.
    pub occurred_at: Timestamp,
    /// The month that it counts in.
    pub period: Period,
}

impl Membership {
    /// Spends points, those that expire first first. The same key again is answered from what it did.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `amount_out_of_range`, `unknown_member`, `member_closed`, `not_enough_points`.
    pub async fn spend(&self, actor: &Actor, id: &MemberId, spend: &Spend, header: Option<&str>) -> Result<SpendView, Error> {
        actor.require_for_member(Scope::App, id)?;
        let key = IdempotencyKey::new(actor, "spend points", header, &(id, spend))?;
        check_amount(spend.amount)?;
        check_reference(&spend.reference)?;
        let line = self.line_of(actor, &spend.unit).await?;
        if actor.as_member().is_some() {
            // Also a retry is no longer answered to a token whose membership has ended.
            self.visible_member(actor, id).await?;
        }
        self.kernel()
            .db
            .settle(|| async {
                if let Some((known, digest)) = find(self.kernel().db.near(), &key.stored).await? {
                    key.check(&digest)?;
                    return Ok(known);
                }
                let (membership, key, id, spend) = (self.clone(), key.clone(), id.clone(), spend.clone());
                self.kernel()
                    .db
                    .write("spend points", move |tx| {
                        let (membership, key, id, spend) = (membership.clone(), key.clone(), id.clone(), spend.clone());
                        async move { membership.write_spend(tx, &key, id, spend, line).await }.boxed()
                    })
                    .await
            })
            .await
    }

    async fn write_spend(&self, tx: &Tx, key: &IdempotencyKey, member: MemberId, spend: Spend, line: Line) -> Result<SpendView, Error> {
        let book = self.ledger().enter(tx, books::POINTS).await?;
        member::lock(tx, &member).await?;
        self.take_spend(tx, book, key, member, spend, line).await
    }

    /// Takes the points of a locked member and records the spend under the key. The book is entered.
    pub(crate) async fn take_spend(
        &self,
        tx: &Tx,
        book: Book,
        key: &IdempotencyKey,
        member: MemberId,
        spend: Spend,
        line: Line,
    ) -> Result<SpendView, Error> {
        let now = self.kernel().clock.now();
        let period = book.period(Period::of(&self.kernel().zone, now));
        let id = Kernel::new_id::<EntryId>("spd").to_string();
        let transfer = Transfer {
            key: spend_key(&id),
            unit: books::POINTS.to_owned(),
            debit: books::points_account(&member),
            credit: books::line_account(line, LineAccount::Spent),
            amount: spend.amount,
            occurred_at: now,
            period,
            kind: Movement::Spend.as_str().to_owned(),
            reference: format!("{}/{id}", spend.unit),
            lots: Lots::FirstExpiring,
        };
        match self.ledger().post(tx, &[transfer]).await {
            Err(heyuan_ledger::Error::NotEnough { .. }) => return Err(not_enough(&member, spend.amount)),
            other => other?,
        };
        let Spend { amount, unit, reference } = spend;
        let order = order_of(&key.stored);
        let taken =
            SpendView { id, member, unit, amount, reference, occurred_at: now, period: Some(period), points_balance: 0, hold: None, order };
        self.record_spend(tx, key, line, taken).await
    }

    /// Writes the record of a spend whose points are taken, under the key, and answers it with what can still be spent.
    pub(crate) async fn record_spend(&self, tx: &Tx, key: &IdempotencyKey, line: Line, taken: SpendView) -> Result<SpendView, Error> {
        let account = books::points_account(&taken.member);
        let points_balance = self.ledger().spendable_in(tx, &account, self.kernel().clock.now()).await?.0;
        let spend = SpendView { points_balance, ..taken };
        let inserted = sql::execute(
            tx.conn(),
            "INSERT INTO membership_spend (id, member, unit, line, amount, reference, occurred_at, period, points_balance, hold,
               idempotency, idempotency_digest) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (idempotency) DO NOTHING",
            [
                spend.id.clone().into(),
                spend.member.as_str().into(),
                spend.unit.as_str().into(),
                line.as_str().into(),
                spend.amount.into(),
                spend.reference.clone().into(),
                spend.occurred_at.ms().into(),
                spend.period.map_or(0, Period::number).into(),
                points_balance.into(),
                spend.hold.clone().into(),
                key.stored.clone().into(),
                key.digest.clone().into(),
            ],
        )
        .await?;
        if inserted == 0 {
            return Err(heyuan_kernel::Error::Stale("a spend with the same key").into());
        }
        Ok(spend)
    }

    /// The entries of a member's points, newest first.
    ///
    /// # Errors
    /// `forbidden`, `unknown_member`.
    pub async fn statement(&self, actor: &Actor, id: &MemberId, before: Option<i64>, limit: u64) -> Result<Vec<StatementLine>, Error> {
        self.visible_member(actor, id).await?;
        let legs = self.ledger().statement(&books::points_account(id), before, limit).await?;
        let line = |leg: heyuan_ledger::Leg| StatementLine {
            number: leg.version,
            kind: leg.kind,
            reference: leg.reference,
            amount: leg.amount,
            balance: leg.balance,
            occurred_at: leg.occurred_at,
            period: leg.period,
        };
        Ok(legs.into_iter().map(line).collect())
    }
}

/// Refuses what can't be an amount of points in use.
pub(crate) fn check_amount(amount: i64) -> Result<(), Problem> {
    if (1..=AMOUNT_MAX).contains(&amount) {
        return Ok(());
    }
    Err(Problem::new(codes::AMOUNT_OUT_OF_RANGE, format!("expected 1 to {AMOUNT_MAX} points")).field("amount"))
}

/// Refuses what can't be the words of a spend or a hold.
pub(crate) fn check_reference(reference: &str) -> Result<(), Problem> {
    if !is_line(reference, REFERENCE_BYTES_MAX) {
        return Err(Problem::invalid("reference", format!("expected 1 to {REFERENCE_BYTES_MAX} bytes of text")));
    }
    Ok(())
}

/// The refusal of a member that has fewer points than wanted.
pub(crate) fn not_enough(member: &MemberId, amount: i64) -> Error {
    let words = format!("member {member} has fewer than {amount} points that can be spent");
    Problem::new(codes::NOT_ENOUGH_POINTS, words).field("amount").into()
}

/// The key of the transfer that a spend is which no hold came before.
fn spend_key(id: &str) -> String {
    format!("spend/{id}")
}

/// The key under which an order of the mall spends: no caller's key looks like it, since those begin with who calls.
pub(crate) fn order_key(order: &OrderId) -> String {
    format!("order/{order}")
}

/// The order of the mall that a spend under this key paid, if it paid one.
pub(crate) fn order_of(stored: &str) -> Option<String> {
    stored.strip_prefix("order/").map(str::to_owned)
}

/// A spend by its id.
pub(crate) async fn find_spend<C: sql::Connection>(conn: &C, id: &str) -> Result<Option<SpendView>, Error> {
    let row = sql::one(conn, &format!("SELECT {COLUMNS} FROM membership_spend WHERE id = $1"), [id.into()]).await?;
    Ok(row.as_ref().map(read).transpose()?.map(|(spend, _)| spend))
}

/// A spend by the key that it was made under, with the digest of its request.
pub(crate) async fn find<C: sql::Connection>(conn: &C, stored: &str) -> Result<Option<(SpendView, String)>, Error> {
    let row = sql::one(conn, &format!("SELECT {COLUMNS} FROM membership_spend WHERE idempotency = $1"), [stored.into()]).await?;
    row.as_ref().map(read).transpose()
}

fn read(row: &sql::Row) -> Result<(SpendView, String), Error> {
    let view = SpendView {
        id: sql::get(row, "id")?,
        member: MemberId::new(sql::get::<String>(row, "member")?).map_err(|e| member::corrupt("spend", e))?,
        unit: OrgUnitId::new(sql::get::<String>(row, "unit")?).map_err(|e| member::corrupt("spend", e))?,
        amount: sql::get(row, "amount")?,
        reference: sql::get(row, "reference")?,
        occurred_at: Timestamp::clamped(sql::get(row, "occurred_at")?),
        period: Period::from_number(sql::get(row, "period")?),
        points_balance: sql::get(row, "points_balance")?,
        hold: sql::get(row, "hold")?,
        order: order_of(&sql::get::<String>(row, "idempotency")?),
    };
    Ok((view, sql::get(row, "idempotency_digest")?))
}

/// Empties the words about an erased member's points in use; the numbers stay.
pub(crate) async fn erase(tx: &Tx, member: &MemberId) -> Result<(), Error> {
    for text in [
        "UPDATE membership_spend SET reference = 'erased' WHERE member = $1",
        "UPDATE membership_hold SET reference = 'erased' WHERE member = $1",
        "UPDATE membership_points_transfer SET note = '' WHERE sender = $1 OR recipient = $1",
        "UPDATE membership_adjustment SET reason = 'erased', words = '' WHERE member = $1",
        "DELETE FROM membership_expiry_notice WHERE member = $1",
    ] {
        sql::execute(tx.conn(), text, [member.as_str().into()]).await?;
    }
    Ok(())
}
