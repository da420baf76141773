//! Giving back a spend of points: into the lots that it took them from, each with its own expiry.

use crate::books::{self, LineAccount, Movement};
use crate::error::{Error, codes};
use crate::facade::Membership;
use crate::member;
use crate::points::{self, SpendView};
use crate::standing::MemberState;
use futures::FutureExt;
use heyuan_contract::{EntryId, MemberId, Timestamp};
use heyuan_kernel::idempotency::IdempotencyKey;
use heyuan_kernel::{Actor, Kernel, Problem, Scope, Tx, sql};
use heyuan_ledger::{Lots, Period, Transfer};

/// What is read of a row of `membership_spend_return`.
const COLUMNS: &str = "id, spend, member, amount, expired, recovered, occurred_at, period, points_balance, idempotency_digest";

/// Points of a spend that were given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenBack {
    /// Its id.
    pub id: String,
    /// The spend.
    pub spend: String,
    /// Whose.
    pub member: MemberId,
    /// How many.
    pub amount: i64,
    /// Of these: those that had expired meanwhile, and did so at once.
    pub expired: i64,
    /// Of these: those that paid what the member owed.
    pub recovered: i64,
    /// When.
    pub occurred_at: Timestamp,
    /// The month that it counts in.
    pub period: Option<Period>,
    /// What could be spent after it.
    pub points_balance: i64,
}

impl Membership {
    /// Gives back points of a spend, at most what is left of it; of an exchange all of it, and what it was exchanged for is withdrawn. The same
    /// key again is answered from what it did.
    ///
    /// # Errors
    /// `forbidden`, also for a member's token; `amount_out_of_range`, `unknown_member`, `not_found`, `return_too_large`, `benefit_used` for an
    /// exchange of which something was used, `points_of_order` for what paid an order of the mall; `idempotency_key_reused`.
    pub async fn give_back(
        &self,
        actor: &Actor,
        id: &MemberId,
        spend: &str,
        amount: i64,
        header: Option<&str>,
    ) -> Result<GivenBack, Error> {
        actor.require(Scope::App)?;
        let key = IdempotencyKey::new(actor, "give back points", header, &(id, spend, amount))?;
        points::check_amount(amount)?;
        let found = points::find_spend(self.kernel().db.near(), spend).await?.filter(|found| found.member == *id);
        let found = found.ok_or_else(|| Problem::not_found("spend", spend))?;
        // Who may take points for a unit may give them back for it.
        self.line_of(actor, &found.unit).await?;
        self.kernel()
            .db
            .settle(|| async {
                if let Some((known, digest)) = find(self.kernel().db.near(), &key.stored).await? {
                    key.check(&digest)?;
                    return Ok(known);
                }
                if let Some(order) = &found.order {
                    let words = format!("spend {} paid the order {order} of the mall; refund the order, which gives it back", found.id);
                    return Err(Error::refused(codes::POINTS_OF_ORDER, words));
                }
                let (membership, key, found) = (self.clone(), key.clone(), found.clone());
                self.kernel()
                    .db
                    .write("give back points", move |tx| {
                        let (membership, key, found) = (membership.clone(), key.clone(), found.clone());
                        async move { membership.write_return(tx, &key, &found, amount).await }.boxed()
                    })
                    .await
            })
            .await
    }

    /// Gives points of a spend back under a key.
    pub(crate) async fn write_return(&self, tx: &Tx, key: &IdempotencyKey, spend: &SpendView, amount: i64) -> Result<GivenBack, Error> {
        let book = self.ledger().enter(tx, books::POINTS).await?;
        // Also to a member that is blocked or has left: what was taken for nothing is not kept.
        let row = member::lock_any(tx, &spend.member).await?;
        let left = left(tx, spend).await?;
        if amount > left {
            let words = format!("{left} points of spend {} are left; {amount} were asked for", spend.id);
            return Err(Problem::new(codes::RETURN_TOO_LARGE, words).field("amount").into());
        }
        self.withdraw_exchanged(tx, spend, amount, left).await?;
        let tree = self.kernel().org.tree();
        let unit = tree.get(&spend.unit).ok_or(heyuan_kernel::Error::Stale("the tree of units"))?;
        let line = unit.line.ok_or_else(|| member::corrupt("spend", "its unit has no line"))?;
        let now = self.kernel().clock.now();
        let period = book.period(Period::of(&self.kernel().zone, now));
        let (id, account) = (Kernel::new_id::<EntryId>("rtn").to_string(), books::points_account(&spend.member));
        let transfer = Transfer {
            key: format!("return/{id}"),
            unit: books::POINTS.to_owned(),
            debit: books::line_account(line, LineAccount::Spent),
            credit: account.clone(),
            amount,
            occurred_at: now,
            period,
            kind: Movement::Return.as_str().to_owned(),
            reference: format!("{}/{}", spend.unit, spend.id),
            lots: Lots::RestoredFrom(spend.transfer_key()),
        };
        let posted = self.ledger().post(tx, &[transfer]).await?;
        let restored: Vec<_> = posted.iter().flat_map(|posted| &posted.lots).collect();
        let past: Vec<String> = restored.iter().filter(|lot| lot.expires_at <= now).map(|lot| lot.source.clone()).collect();
        let expired: i64 = restored.iter().filter(|lot| lot.expires_at <= now).map(|lot| lot.amount).sum();
        self.move_out(tx, &past, book).await?;
        let recovered = if row.state == MemberState::Closed {
            // Whoever has left has no use for them: they go where the others went.
            self.forfeit_free(tx, book, &spend.member).await?;
            0
        } else {
            self.recover_owed(tx, &spend.member, book).await?
        };
        let given = GivenBack {
            id,
            spend: spend.id.clone(),
            member: spend.member.clone(),
            amount,
            expired,
            recovered,
            occurred_at: now,
            period: Some(period),
            points_balance: 0,
        };
        self.record_return(tx, key, given).await
    }

    async fn record_return(&self, tx: &Tx, key: &IdempotencyKey, given: GivenBack) -> Result<GivenBack, Error> {
        let (balance, _) = self.ledger().spendable_in(tx, &books::points_account(&given.member), given.occurred_at).await?;
        let given = GivenBack { points_balance: balance, ..given };
        let inserted = sql::execute(
            tx.conn(),
            "INSERT INTO membership_spend_return (id, spend, member, amount, expired, recovered, occurred_at, period, points_balance,
               idempotency, idempotency_digest) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (idempotency) DO NOTHING",
            [
                given.id.clone().into(),
                given.spend.clone().into(),
                given.member.as_str().into(),
                given.amount.into(),
                given.expired.into(),
                given.recovered.into(),
                given.occurred_at.ms().into(),
                given.period.map_or(0, Period::number).into(),
                given.points_balance.into(),
                key.stored.clone().into(),
                key.digest.clone().into(),
            ],
        )
        .await?;
        if inserted == 0 {
            return Err(heyuan_kernel::Error::Stale("a return with the same key").into());
        }
        Ok(given)
    }
}

/// What of a spend has not been given back yet, as the unit of work sees it.
pub(crate) async fn left(tx: &Tx, spend: &SpendView) -> Result<i64, Error> {
    let text = "SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) AS amount FROM membership_spend_return WHERE spend = $1";
    let before: i64 = sql::one(tx.conn(), text, [spend.id.clone().into()]).await?.map_or(Ok(0), |row| sql::get(&row, "amount"))?;
    Ok(spend.amount - before)
}

/// A return by the key that it was made under, with the digest of its request.
pub(crate) async fn find<C: sql::Connection>(conn: &C, stored: &str) -> Result<Option<(GivenBack, String)>, Error> {
    let text = format!("SELECT {COLUMNS} FROM membership_spend_return WHERE idempotency = $1");
    let Some(row) = sql::one(conn, &text, [stored.into()]).await? else { return Ok(None) };
    let given = GivenBack {
        id: sql::get(&row, "id")?,
        spend: sql::get(&row, "spend")?,
        member: MemberId::new(sql::get::<String>(&row, "member")?).map_err(|e| member::corrupt("return", e))?,
        amount: sql::get(&row, "amount")?,
        expired: sql::get(&row, "expired")?,
        recovered: sql::get(&row, "recovered")?,
        occurred_at: Timestamp::clamped(sql::get(&row, "occurred_at")?),
        period: Period::from_number(sql::get(&row, "period")?),
        points_balance: sql::get(&row, "points_balance")?,
    };
    Ok(Some((given, sql::get(&row, "idempotency_digest")?)))
}
