//! Transfers of points from one member to another, where the policy lets them: lots move with their issuer, cost and expiry, so that no
//! line's figures change.

use crate::books::{self, Movement};
use crate::error::{Error, codes};
use crate::facade::Membership;
use crate::member::{self, MemberRow};
use crate::points;
use crate::points_policy::{self, PointsPolicy, TransferAudience};
use futures::FutureExt;
use heyuan_contract::{EntryId, MemberId, Timestamp};
use heyuan_kernel::error::codes as kernel_codes;
use heyuan_kernel::idempotency::IdempotencyKey;
use heyuan_kernel::text::is_line;
use heyuan_kernel::{Actor, Kernel, Problem, Scope, Tx, sql};
use heyuan_ledger::{Carry, Period};
use serde::Serialize;

/// What is read of a row of `membership_points_transfer`.
const COLUMNS: &str = "id, sender, recipient, amount, note, occurred_at, period, points_balance, idempotency_digest";

/// Longest note, in bytes.
const NOTE_BYTES_MAX: usize = 200;

/// Points for another member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TransferPoints {
    /// Who gets them.
    pub to: MemberId,
    /// Above zero.
    pub amount: i64,
    /// A few words for it; never personal data.
    pub note: Option<String>,
}

/// Points that went from one member to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferView {
    /// Its id.
    pub id: String,
    /// Who gave.
    pub from: MemberId,
    /// Who got.
    pub to: MemberId,
    /// How many.
    pub amount: i64,
    /// The words for it.
    pub note: Option<String>,
    /// When.
    pub occurred_at: Timestamp,
    /// The month that it counts in.
    pub period: Option<Period>,
    /// What the giver could spend after it.
    pub points_balance: i64,
}

/// What a transfer was decided with; the unit of work that writes it looks whether it is still so.
#[derive(Debug, Clone)]
struct Decided {
    request: TransferPoints,
    from: MemberRow,
    to: MemberRow,
    policy: PointsPolicy,
}

impl Membership {
    /// Transfers points to another member, those that expire first first. The same key again is answered from what it did.
    ///
    /// # Errors
    /// `forbidden`, `invalid_request`, `amount_out_of_range`, `unknown_member`, with the field `to` for the recipient; `member_closed` and
    /// `member_blocked` likewise; `transfer_not_allowed`, `transfer_limit`, `not_enough_points`, `too_many_lots`, `idempotency_key_reused`.
    pub async fn transfer_points(
        &self,
        actor: &Actor,
        id: &MemberId,
        request: &TransferPoints,
        header: Option<&str>,
    ) -> Result<TransferView, Error> {
        actor.require_for_member(Scope::App, id)?;
        let key = IdempotencyKey::new(actor, "transfer points", header, &(id, request))?;
        points::check_amount(request.amount)?;
        check_note(request.note.as_deref())?;
        if request.to == *id {
            return Err(Problem::invalid("to", "expected another member than the one that gives").into());
        }
        self.visible_member(actor, id).await?;
        self.kernel()
            .db
            .settle(|| async {
                if let Some((known, digest)) = find(self.kernel().db.near(), &key.stored).await? {
                    key.check(&digest)?;
                    return Ok(known);
                }
                let decided = self.decide_transfer(actor, id, request).await?;
                let (membership, key) = (self.clone(), key.clone());
                self.kernel()
                    .db
                    .write("transfer points", move |tx| {
                        let (membership, key, decided) = (membership.clone(), key.clone(), decided.clone());
                        async move { membership.write_transfer(tx, &key, decided).await }.boxed()
                    })
                    .await
            })
            .await
    }

    /// Whether these two may, as far as it can be told before the unit of work.
    async fn decide_transfer(&self, actor: &Actor, id: &MemberId, request: &TransferPoints) -> Result<Decided, Error> {
        let conn = self.kernel().db.near();
        let unknown = || Problem::new(codes::UNKNOWN_MEMBER, "there is no such member that this key may see").field("to");
        let from = member::find(conn, id).await?.ok_or_else(|| member::unknown(id))?;
        let to = member::find(conn, &request.to).await?.filter(|to| actor.reach().covers(&to.unit)).ok_or_else(unknown)?;
        from.check_open()?;
        to.check_open().map_err(at_recipient)?;
        let policy = points_policy::read(conn).await?;
        match policy.transfers {
            TransferAudience::Everybody => {}
            TransferAudience::Linked if self.of_one_customer(&from, &to).await? => {}
            TransferAudience::Linked => {
                let words = "points are transferred only between members that are linked, since they are one person's";
                return Err(Problem::new(codes::TRANSFER_NOT_ALLOWED, words).field("to").into());
            }
            TransferAudience::Nobody => {
                return Err(Error::refused(codes::TRANSFER_NOT_ALLOWED, "the policy of points lets nobody transfer any"));
            }
        }
        if request.amount > policy.transfer_points_max {
            let words = format!("one transfer has at most {} points", policy.transfer_points_max);
            return Err(Problem::new(codes::TRANSFER_LIMIT, words).field("amount").into());
        }
        Ok(Decided { request: request.clone(), from, to, policy })
    }

    async fn of_one_customer(&self, from: &MemberRow, to: &MemberRow) -> Result<bool, Error> {
        let (Some(own), Some(other)) = (&from.anchor, &to.anchor) else { return Ok(false) };
        match self.anchors_behind(own).await {
            Err(Error::Refused(problem)) if problem.code() == kernel_codes::ERASED => Ok(false),
            anchors => Ok(anchors?.contains(other)),
        }
    }

    async fn write_transfer(&self, tx: &Tx, key: &IdempotencyKey, decided: Decided) -> Result<TransferView, Error> {
        let book = self.ledger().enter(tx, books::POINTS).await?;
        let (from, to) = lock_both(tx, &decided).await?;
        if points_policy::read(tx.conn()).await? != decided.policy || from.anchor != decided.from.anchor || to.anchor != decided.to.anchor {
            return Err(heyuan_kernel::Error::Stale("what a transfer was decided with").into());
        }
        from.check_open()?;
        to.check_open().map_err(at_recipient)?;
        let now = self.kernel().clock.now();
        let TransferPoints { amount, note, .. } = decided.request;
        self.check_limits(tx, &from.id, amount, &decided.policy, now).await?;
        // All at once, since what is recovered and what is carried are posted one after the other.
        let accounts = [&from.id, &to.id].map(|id| [books::points_account(id), books::receivable_account(id)]);
        self.ledger().lock_accounts(tx, accounts.as_flattened()).await?;
        // Nobody gives away what it owes.
        self.recover_owed(tx, &from.id, book).await?;
        let (id, period) = (Kernel::new_id::<EntryId>("ptr").to_string(), book.period(Period::of(&self.kernel().zone, now)));
        let carry = Carry {
            key: format!("transfer/{id}"),
            unit: books::POINTS.to_owned(),
            from: books::points_account(&from.id),
            to: books::points_account(&to.id),
            amount,
            occurred_at: now,
            period,
            kind: Movement::Transfer.as_str().to_owned(),
            reference: id.clone(),
        };
        match self.ledger().carry(tx, &carry).await {
            Err(heyuan_ledger::Error::NotEnough { .. }) => return Err(points::not_enough(&from.id, amount)),
            other => other?,
        };
        self.recover_owed(tx, &to.id, book).await?;
        let points_balance = self.ledger().spendable_in(tx, &carry.from, now).await?.0;
        let view = TransferView { id, from: from.id, to: to.id, amount, note, occurred_at: now, period: Some(period), points_balance };
        insert(tx, key, &view).await?;
        Ok(view)
    }

    /// Refuses what a day or a month of a locked giver no longer has room for.
    async fn check_limits(&self, tx: &Tx, from: &MemberId, amount: i64, policy: &PointsPolicy, now: Timestamp) -> Result<(), Error> {
        let zone = &self.kernel().zone;
        let (day, month) = (zone.day_start(zone.day(now)), Period::of(zone, now).start(zone));
        let text = "SELECT CAST(COALESCE(SUM(CASE WHEN occurred_at >= $2 THEN amount ELSE 0 END), 0) AS BIGINT) AS day,
                      CAST(COALESCE(SUM(amount), 0) AS BIGINT) AS month
                    FROM membership_points_transfer WHERE sender = $1 AND occurred_at >= $3";
        let row = sql::one(tx.conn(), text, [from.as_str().into(), day.ms().into(), month.ms().into()]).await?;
        let (today, this_month): (i64, i64) =
            row.map_or(Ok((0, 0)), |row| Ok::<_, Error>((sql::get(&row, "day")?, sql::get(&row, "month")?)))?;
        for (used, max, span) in [(today, policy.day_points_max, "day"), (this_month, policy.month_points_max, "month")] {
            if used + amount > max {
                let words = format!("a member transfers at most {max} points a {span}; {} of this {span} are left", (max - used).max(0));
                return Err(Problem::new(codes::TRANSFER_LIMIT, words).field("amount").into());
            }
        }
        Ok(())
    }
}

/// Locks both members, in the order that everybody takes, however often two give to each other at once.
async fn lock_both(tx: &Tx, decided: &Decided) -> Result<(MemberRow, MemberRow), Error> {
    let (from, to) = (&decided.from.id, &decided.to.id);
    if from < to {
        let first = member::lock_any(tx, from).await?;
        Ok((first, member::lock_any(tx, to).await?))
    } else {
        let first = member::lock_any(tx, to).await?;
        Ok((member::lock_any(tx, from).await?, first))
    }
}

/// A refusal that is about the one who would get the points.
fn at_recipient(error: Error) -> Error {
    match error {
        Error::Refused(problem) => Error::Refused(problem.field("to")),
        other => other,
    }
}

fn check_note(note: Option<&str>) -> Result<(), Problem> {
    if note.is_some_and(|note| !is_line(note, NOTE_BYTES_MAX)) {
        return Err(Problem::invalid("note", format!("expected 1 to {NOTE_BYTES_MAX} bytes of text without personal data, or none")));
    }
    Ok(())
}

async fn insert(tx: &Tx, key: &IdempotencyKey, view: &TransferView) -> Result<(), Error> {
    let inserted = sql::execute(
        tx.conn(),
        "INSERT INTO membership_points_transfer (id, sender, recipient, amount, note, occurred_at, period, points_balance,
           idempotency, idempotency_digest) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (idempotency) DO NOTHING",
        [
            view.id.clone().into(),
            view.from.as_str().into(),
            view.to.as_str().into(),
            view.amount.into(),
            view.note.clone().unwrap_or_default().into(),
            view.occurred_at.ms().into(),
            view.period.map_or(0, Period::number).into(),
            view.points_balance.into(),
            key.stored.clone().into(),
            key.digest.clone().into(),
        ],
    )
    .await?;
    if inserted == 0 { Err(heyuan_kernel::Error::Stale("a transfer with the same key").into()) } else { Ok(()) }
}

async fn find<C: sql::Connection>(conn: &C, stored: &str) -> Result<Option<(TransferView, String)>, Error> {
    let text = format!("SELECT {COLUMNS} FROM membership_points_transfer WHERE idempotency = $1");
    let Some(row) = sql::one(conn, &text, [stored.into()]).await? else { return Ok(None) };
    let id =
        |column: &str| MemberId::new(sql::get::<String>(&row, column)?).map_err(|e| Error::from(member::corrupt("transfer of points", e)));
    let view = TransferView {
        id: sql::get(&row, "id")?,
        from: id("sender")?,
        to: id("recipient")?,
        amount: sql::get(&row, "amount")?,
        note: Some(sql::get::<String>(&row, "note")?).filter(|note| !note.is_empty()),
        occurred_at: Timestamp::clamped(sql::get(&row, "occurred_at")?),
        period: Period::from_number(sql::get(&row, "period")?),
        points_balance: sql::get(&row, "points_balance")?,
    };
    Ok(Some((view, sql::get(&row, "idempotency_digest")?)))
}
