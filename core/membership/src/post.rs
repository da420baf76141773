//! Posting a purchase: everything that it earned, its decision and its events in one transaction.

use crate::books::{self, LineAccount, Movement};
use crate::budget;
use crate::caps;
use crate::decide::Decided;
use crate::decision;
use crate::error::Error;
use crate::facade::Membership;
use crate::member::{self, MemberRow, Poised, corrupt};
use crate::missed::Misses;
use crate::report::Accepted;
use crate::transaction::{self, Row, State};
use crate::waiting::WAITING_MAX;
use heyuan_contract::{DomainEvent, Fen, MemberId, Points, Timestamp};
use heyuan_kernel::plugin::{PluginKind, Plugins};
use heyuan_kernel::{Kernel, Tx, sql};
use heyuan_ledger::{Book, Lots, NewLot, Period, Transfer};

impl Membership {
    /// Posts a decided purchase, and the refunds that waited for it; tells what rules wanted and could not give.
    pub(crate) async fn post_purchase(&self, tx: &Tx, accepted: &Accepted, decided: &Decided) -> Result<(Row, Misses), Error> {
        let report = &accepted.report;
        let book = books::enter_purchase(self.ledger(), tx, &report.unit, &report.id).await?;
        let poised = member::lock_for_purchase(tx, &decided.snapshot.member.id, &report.unit, &report.id).await?;
        let locked = &poised.member;
        check_policy(tx, &poised, decided).await?;
        let period = book.period(decided.month);
        let mut row = self.purchase_row(accepted, decided, period)?;
        row.points_balance = self.post_transfers(tx, &row, decided, period, book).await?;
        row.no = transaction::insert(tx, &row).await?;
        caps::take(tx, &locked.id, &decided.basis.caps).await?;
        add_growth(tx, &locked.id, row.no, row.growth, row.growth_at()).await?;
        let tier = self.settle_tier_after(tx, locked, decided, &row).await?;
        if tier != row.tier {
            row.tier = tier;
            transaction::update(tx, &row).await?;
        }
        announce(tx, &row, locked).await?;
        let misses = self.grant_by_rules(tx, &row, decided).await?;
        if let Some(id) = &row.decision {
            decision::insert(tx, id, &row, decided, &misses).await?;
        }
        // Late, since on PostgreSQL everybody who grants from the same budget waits for its row until the commit.
        budget::spend(tx, decided).await?;
        if !poised.refunds_wait {
            return Ok((row, misses));
        }
        self.apply_waiting(tx, &row, book).await?;
        let whole = transaction::find(tx.conn(), &row.unit, &row.id).await?;
        Ok((whole.unwrap_or(row), misses))
    }

    /// Brings the tier up to date with what the purchase gave. Fails the unit of work when the tier that rules were shown is no longer the
    /// one before the purchase.
    async fn settle_tier_after(&self, tx: &Tx, locked: &MemberRow, decided: &Decided, row: &Row) -> Result<String, Error> {
        let (policies, zone, now) = (&decided.policy.tiers, &self.kernel().zone, self.kernel().clock.now());
        let facts = self.tier_facts(tx.conn(), &locked.id, policies, now).await?;
        if decided.reads_tier {
            let before = facts.without(row.growth_at().ms(), row.growth);
            if before.standing(policies, zone, locked)?.tier() != decided.snapshot.tier {
                return Err(heyuan_kernel::Error::Stale("the tier that rules were shown").into());
            }
        }
        self.settle_standing(tx, locked, &facts.standing(policies, zone, locked)?, now).await
    }

    /// Moves what was earned, pays what the member owes with it, and answers what can be spent after it. Fails the unit of work when the growth
    /// or points that rules were shown have moved: the accounts are locked, so that they stay so.
    async fn post_transfers(&self, tx: &Tx, row: &Row, decided: &Decided, period: Period, book: Book) -> Result<i64, Error> {
        let snapshot = &decided.snapshot;
        // Without a rule nothing was read that could have moved.
        let seen = |version: i64| (!decided.calls.is_empty()).then_some(version);
        let (growth, points) = (books::growth_account(&snapshot.member.id), books::points_account(&snapshot.member.id));
        let owed = books::receivable_account(&snapshot.member.id);
        let relied_on =
            [(points.as_str(), seen(snapshot.points.version)), (growth.as_str(), seen(snapshot.growth.version)), (owed.as_str(), None)];
        let after = self.ledger().post_new(tx, &purchase_transfers(row, decided, period)?, &relied_on).await?;
        let [_, _, owed] = after.as_slice() else { return Err(corrupt("member", "it has no accounts").into()) };
        if row.points > 0 {
            self.recover(tx, &snapshot.member.id, owed.balance, book).await?;
        }
        Ok(self.ledger().spendable_in(tx, &points, row.arrived_at).await?.0)
    }

    fn purchase_row(&self, accepted: &Accepted, decided: &Decided, period: Period) -> Result<Row, Error> {
        let report = &accepted.report;
        Ok(Row {
            no: 0,
            id: report.id.clone(),
            unit: report.unit.clone(),
            line: accepted.line,
            kind: report.kind,
            refund_of: None,
            member: Some(decided.snapshot.member.id.clone()),
            hinted: accepted.hinted.clone(),
            amount: report.amount.0,
            occurred_at: report.occurred_at,
            arrived_at: self.kernel().clock.now(),
            period: period.number(),
            state: State::Posted,
            why: String::new(),
            lines: serde_json::to_string(&report.lines).map_err(|e| corrupt("transaction lines", e))?,
            digest: accepted.digest.clone(),
            idempotency: accepted.idempotency.clone(),
            earn_version: decided.earn.version,
            base_growth: decided.base.growth,
            base_points: decided.base.points,
            growth: decided.growth,
            points: decided.points,
            receivable: 0,
            points_balance: 0,
            tier: decided.snapshot.tier.clone(),
            cost: decided.earn.cost(accepted.line).map_err(|e| corrupt("unit cost", e))?,
            refunded: 0,
            growth_kept: decided.growth,
            points_kept: decided.points,
            decision: Some(Kernel::new_id::<heyuan_contract::EntryId>("dec").to_string()),
        })
    }

    /// Applies the refunds that came before their purchase, in the order of their arrival; more than these were never let wait.
    async fn apply_waiting(&self, tx: &Tx, purchase: &Row, book: Book) -> Result<(), Error> {
        let text = "SELECT * FROM membership_transaction WHERE unit = $1 AND refund_of = $2 AND state = 'waiting' ORDER BY no LIMIT $3";
        let values = [purchase.unit.as_str().into(), purchase.id.as_str().into(), WAITING_MAX.into()];
        for row in sql::all(tx.conn(), text, values).await? {
            // As the one before left it.
            let purchase = transaction::find(tx.conn(), &purchase.unit, &purchase.id).await?;
            let purchase = purchase.ok_or_else(|| corrupt("refund", "its purchase is gone"))?;
            self.apply_waited(tx, &purchase, transaction::read(&row)?, book).await?;
        }
        Ok(())
    }
}

/// Fails the unit of work when another policy counts than the one that was decided with.
async fn check_policy(tx: &Tx, poised: &Poised, decided: &Decided) -> Result<(), Error> {
    let same = poised.earn_version == decided.policy.newest_earn() && poised.tier_version == decided.policy.newest_tiers();
    if !same {
        return Err(heyuan_kernel::Error::Stale("the earn rules or the tier policy").into());
    }
    Ok(Plugins::check_unmoved(tx, PluginKind::BenefitRule, &decided.pointers).await?)
}

fn purchase_transfers(row: &Row, decided: &Decided, period: Period) -> Result<Vec<Transfer>, Error> {
    let member = &decided.snapshot.member.id;
    let reference = format!("{}/{}", row.unit, row.id);
    let transfer = |key: String, unit: &str, debit: String, credit: String, amount: i64, lots: Lots| Transfer {
        key,
        unit: unit.to_owned(),
        debit,
        credit,
        amount,
        occurred_at: row.occurred_at,
        period,
        kind: Movement::Earn.as_str().to_owned(),
        reference: reference.clone(),
        lots,
    };
    let mut transfers = Vec::with_capacity(2);
    if row.points > 0 {
        let lot = NewLot { issuer: row.line.as_str().to_owned(), cost: row.cost, expires_at: decided.expires_at };
        let (debit, credit) = (books::line_account(row.line, LineAccount::Issued), books::points_account(member));
        transfers.push(transfer(books::earn_key(&row.unit, &row.id), books::POINTS, debit, credit, row.points, Lots::New(lot)));
    }
    if row.growth > 0 {
        let key = format!("transaction/{reference}/growth");
        let (debit, credit) = (books::line_account(row.line, LineAccount::Growth), books::growth_account(member));
        transfers.push(transfer(key, books::GROWTH, debit, credit, row.growth, Lots::None));
    }
    Ok(transfers)
}

/// Counts what a rule or a cap's line granted a member in a period, or with a minus took back.
pub(crate) async fn count(tx: &Tx, member: &MemberId, rule: &str, period: i64, points: i64) -> Result<(), Error> {
    sql::execute(
        tx.conn(),
        "INSERT INTO membership_counter (member, rule, period, points) VALUES ($1, $2, $3, $4)
         ON CONFLICT (member, rule, period) DO UPDATE SET points = membership_counter.points + excluded.points",
        [member.as_str().into(), rule.into(), period.into(), points.into()],
    )
    .await?;
    Ok(())
}

/// Adds to the growth history from which tiers are computed.
pub(crate) async fn add_growth(tx: &Tx, member: &MemberId, transaction: i64, growth: i64, at: Timestamp) -> Result<(), Error> {
    if growth == 0 {
        return Ok(());
    }
    let text = "INSERT INTO membership_growth (member, transaction_no, amount, occurred_at) VALUES ($1, $2, $3, $4)";
    sql::execute(tx.conn(), text, [member.as_str().into(), transaction.into(), growth.into(), at.ms().into()]).await?;
    Ok(())
}

/// Tells others; of a member that was erased there is nobody to tell about.
pub(crate) async fn announce(tx: &Tx, row: &Row, member: &MemberRow) -> Result<(), Error> {
    let Some(anchor) = member.anchor.clone() else { return Ok(()) };
    let event = DomainEvent::TransactionPosted {
        transaction: row.id.clone(),
        member: member.id.clone(),
        anchor,
        unit: row.unit.clone(),
        line: row.line,
        refund_of: row.refund_of.clone(),
        amount: Fen(row.amount),
        growth: Points(row.growth),
        points: Points(row.points),
        points_balance: Points(row.points_balance),
        occurred_at: row.occurred_at,
    };
    Ok(tx.emit(member.id.as_str(), &event).await?)
}
