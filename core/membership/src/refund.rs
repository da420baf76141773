//! Refunds: what of a purchase's growth and points is no longer kept goes back, under the version that it was earned with.

use crate::books::{self, LineAccount, Movement};
use crate::counter;
use crate::decision;
use crate::earn::kept;
use crate::error::{Error, codes};
use crate::facade::Membership;
use crate::member;
use crate::post::{self, Growth};
use crate::report::Accepted;
use crate::transaction::{self, Kind, Row, State};
use crate::waiting;
use heyuan_contract::Ratio;
use heyuan_kernel::{Problem, Tx, sql};
use heyuan_ledger::{Book, Lots, Period, TakeBack, TakenBack, Transfer};

/// Why a refund does not fit its purchase, if it does not.
pub(crate) async fn misfit(tx: &Tx, purchase: &Row, refund: &Row, refunded: i64) -> Result<Option<Problem>, Error> {
    if purchase.kind != Kind::Purchase {
        return Ok(Some(Problem::new(codes::REFUND_MISMATCH, format!("{} is itself a refund", purchase.id)).field("refund_of")));
    }
    let elses = || Problem::new(codes::REFUND_MISMATCH, format!("{} is another member's purchase", purchase.id));
    if refund.member.is_some() && refund.member != purchase.member {
        return Ok(Some(elses().field("member")));
    }
    if is_elses(tx, purchase, refund).await? {
        return Ok(Some(elses().field("identifiers")));
    }
    let left = purchase.amount - refunded;
    if refund.amount > left {
        let words = format!("{} fen are left of {}; {} were asked for", left, purchase.id, refund.amount);
        return Ok(Some(Problem::new(codes::REFUND_TOO_LARGE, words).field("amount.amount")));
    }
    Ok(None)
}

/// Whether a refund's identifiers lead to members none of whom is the purchase's, nor was one of its customer when it was reported. Of
/// somebody who was erased nothing is known that they could contradict.
async fn is_elses(tx: &Tx, purchase: &Row, refund: &Row) -> Result<bool, Error> {
    let Some(owner) = purchase.member.as_ref().filter(|_| !refund.hinted.is_empty()) else { return Ok(false) };
    if refund.hinted.iter().any(|hinted| hinted == owner || purchase.hinted.contains(hinted)) {
        return Ok(false);
    }
    let text = "SELECT COUNT(*) AS n FROM membership_member WHERE id = $1 AND (anchor IS NOT NULL OR former_anchor IS NOT NULL)";
    Ok(sql::count(tx.conn(), text, [owner.as_str().into()]).await? > 0)
}

impl Membership {
    /// Posts a refund, or keeps it waiting for a purchase that is not there yet.
    pub(crate) async fn post_refund(&self, tx: &Tx, accepted: &Accepted) -> Result<Row, Error> {
        let report = &accepted.report;
        let of = report.refund_of.clone().ok_or_else(|| member::corrupt("refund", "it names no purchase"))?;
        let book = books::enter_purchase(self.ledger(), tx, &report.unit, &of).await?;
        let purchase = transaction::find(tx.conn(), &report.unit, &of).await?;
        let now = self.kernel().clock.now();
        let month = Period::of(&self.kernel().zone, report.occurred_at);
        let mut row = Row {
            no: 0,
            id: report.id.clone(),
            unit: report.unit.clone(),
            line: accepted.line,
            kind: Kind::Refund,
            refund_of: Some(of.clone()),
            member: accepted.member.as_ref().map(|member| member.id.clone()),
            hinted: accepted.hinted.clone(),
            amount: report.amount.0,
            occurred_at: report.occurred_at,
            arrived_at: now,
            period: month.number(),
            state: State::Waiting,
            why: String::new(),
            lines: serde_json::to_string(&report.lines).map_err(|e| member::corrupt("transaction lines", e))?,
            digest: accepted.digest.clone(),
            idempotency: accepted.idempotency.clone(),
            earn_version: 0,
            base_growth: 0,
            base_points: 0,
            growth: 0,
            points: 0,
            receivable: 0,
            points_balance: 0,
            tier: String::new(),
            cost: Ratio::new(1, 1).map_err(|e| member::corrupt("unit cost", e))?,
            refunded: 0,
            growth_kept: 0,
            points_kept: 0,
            decision: None,
        };
        if let Some(purchase) = &purchase
            && let Some(problem) = misfit(tx, purchase, &row, purchase.refunded).await?
        {
            return Err(problem.into());
        }
        if purchase.is_none() {
            waiting::check_room(tx, &report.unit, &of).await?;
        }
        row.no = transaction::insert(tx, &[&row]).await?.into_iter().next().unwrap_or_default();
        if purchase.is_some() {
            self.apply_refund(tx, &mut row, book).await?;
        }
        Ok(row)
    }

    /// Takes back what a refund that fits leaves no longer kept; the book is entered and the purchase's name locked.
    pub(crate) async fn apply_refund(&self, tx: &Tx, refund: &mut Row, book: Book) -> Result<(), Error> {
        let lost = || member::corrupt("refund", "its purchase is gone");
        let of = refund.refund_of.clone().ok_or_else(lost)?;
        let mut purchase = transaction::find(tx.conn(), &refund.unit, &of).await?.ok_or_else(lost)?;
        let owner = purchase.member.clone().ok_or_else(lost)?;
        let locked = member::lock_any(tx, &owner).await?;
        let month = Period::of(&self.kernel().zone, refund.occurred_at);
        let period = book.period(month);
        let before = purchase.refunded;
        let after = before + refund.amount;
        let growth = kept(purchase.growth, purchase.amount, before) - kept(purchase.growth, purchase.amount, after);
        let points = kept(purchase.points, purchase.amount, before) - kept(purchase.points, purchase.amount, after);

        if points > 0 {
            // What is past its expiry expires first, whether or not the clockwork has been there: the figures never depend on it.
            self.move_out(tx, &[books::earn_key(&purchase.unit, &purchase.id)], book).await?;
        }
        let taken = self.take_points(tx, refund, &purchase, points, period).await?;
        if taken.receivable > 0 {
            self.recover_owed(tx, &owner, book).await?;
        }
        self.take_growth(tx, refund, &purchase, growth, period).await?;
        // Dated as the purchase's, so that the two leave the window of the tier together.
        post::add_growth(tx, &[Growth { member: &owner, transaction: refund.no, amount: -growth, at: purchase.growth_at() }]).await?;
        if let Some(decision) = &purchase.decision {
            let granted_in = Period::of(&self.kernel().zone, purchase.occurred_at).number();
            let granted = decision::granted(tx, decision).await?;
            let granted = granted.into_iter().map(|(rule, points)| ((owner.clone(), rule, granted_in), points));
            let capped = decision::capped(tx, decision).await?.into_iter().map(|cap| (cap.counter(&owner), cap.taken));
            let back = |counted| kept(counted, purchase.amount, after) - kept(counted, purchase.amount, before);
            let counts = granted.chain(capped).map(|(counter, counted)| (counter, back(counted))).collect();
            counter::add(tx, counts).await?;
        }
        purchase.refunded = after;
        purchase.growth_kept -= growth;
        purchase.points_kept -= points;
        transaction::update(tx, &purchase).await?;
        if after == purchase.amount {
            self.withdraw_benefits(tx, &purchase.unit, &purchase.id).await?;
        }

        refund.member = Some(owner.clone());
        refund.state = State::Posted;
        refund.period = period.number();
        refund.growth = -growth;
        refund.points = -(taken.lot + taken.receivable);
        refund.receivable = taken.receivable;
        refund.cost = purchase.cost;
        refund.earn_version = purchase.earn_version;
        refund.tier = self.settle_tier(tx, &locked).await?;
        if refund.tier != locked.tier {
            self.withdraw_above(tx, &owner, &refund.tier).await?;
        }
        refund.points_balance = self.ledger().spendable_in(tx, &books::points_account(&owner), self.kernel().clock.now()).await?.0;
        transaction::update(tx, refund).await?;
        let told: Vec<_> = post::told(refund, &locked).into_iter().collect();
        Ok(tx.emit_all(&told).await?)
    }

    async fn take_points(&self, tx: &Tx, refund: &Row, purchase: &Row, points: i64, period: Period) -> Result<TakenBack, Error> {
        let Some(owner) = purchase.member.as_ref().filter(|_| points > 0) else { return Ok(TakenBack::default()) };
        let lot = books::earn_key(&purchase.unit, &purchase.id);
        // What expired, was forfeited or was taken by people was not used and is owed by nobody; what was spent or given to another member
        // is owed once.
        let moves = self.ledger().lot_moves(tx, &lot).await?;
        let used: i64 = moves
            .iter()
            .filter(|(kind, _)| {
                let kind = Movement::parse(kind);
                !matches!(kind, Some(Movement::Expire | Movement::Forfeit | Movement::Adjust | Movement::Refund))
            })
            .map(|(_, amount)| -amount)
            .sum();
        // What a hold has set aside is as good as spent; set free again, it pays what is owed now.
        let held = self.ledger().lot_held(tx, &lot).await?;
        let owed_max = used + held - owed_so_far(tx, purchase).await?;
        let taking = TakeBack {
            key: books::earn_key(&refund.unit, &refund.id),
            unit: books::POINTS.to_owned(),
            lot,
            account: books::points_account(owner),
            receivable: books::receivable_account(owner),
            credit: books::line_account(purchase.line, LineAccount::Refunded),
            amount: points,
            owed_max,
            occurred_at: refund.occurred_at,
            period,
            kind: Movement::Refund.as_str().to_owned(),
            reference: format!("{}/{}", refund.unit, refund.id),
        };
        Ok(self.ledger().take_back(tx, &taking).await?)
    }

    async fn take_growth(&self, tx: &Tx, refund: &Row, purchase: &Row, growth: i64, period: Period) -> Result<(), Error> {
        let Some(owner) = purchase.member.as_ref().filter(|_| growth > 0) else { return Ok(()) };
        let reference = format!("{}/{}", refund.unit, refund.id);
        let transfer = Transfer {
            key: format!("transaction/{reference}/growth"),
            unit: books::GROWTH.to_owned(),
            debit: books::growth_account(owner),
            credit: books::line_account(purchase.line, LineAccount::Growth),
            amount: growth,
            occurred_at: refund.occurred_at,
            period,
            kind: Movement::Refund.as_str().to_owned(),
            reference,
            lots: Lots::None,
        };
        self.ledger().post(tx, &[transfer]).await?;
        Ok(())
    }
}

/// What earlier refunds of the purchase left owed.
async fn owed_so_far(tx: &Tx, purchase: &Row) -> Result<i64, Error> {
    let text = "SELECT CAST(COALESCE(SUM(receivable), 0) AS BIGINT) AS owed FROM membership_transaction
                WHERE unit = $1 AND refund_of = $2 AND state = 'posted'";
    let row = sql::one(tx.conn(), text, [purchase.unit.as_str().into(), purchase.id.as_str().into()]).await?;
    Ok(row.map_or(Ok(0), |row| sql::get(&row, "owed"))?)
}
