//! Approving an adjustment: what is granted or taken is posted in the unit of work that writes the decision.

use super::{AdjustmentState, AdjustmentView, check_member, check_proposed, decide, entry};
use crate::books::{self, LineAccount, Movement};
use crate::error::{Error, codes};
use crate::facade::Membership;
use crate::member::{self, corrupt};
use crate::points;
use crate::policy::earn_in_force;
use heyuan_contract::{Line, Ratio, Timestamp};
use heyuan_kernel::idempotency::IdempotencyKey;
use heyuan_kernel::{Actor, Problem, Tx, audit};
use heyuan_ledger::{Book, Lots, NewLot, OpenLot, Period, Transfer};

/// How far ahead granted points may expire, in days.
const EXPIRES_DAYS_MAX: i32 = 50 * 366;
/// Lots of one adjustment that takes: each is a transfer of its own.
const LOTS_MAX: u64 = 1_000;

impl Membership {
    pub(super) async fn write_approval(&self, tx: &Tx, actor: &Actor, key: &IdempotencyKey, id: &str) -> Result<AdjustmentView, Error> {
        let book = self.ledger().enter(tx, books::POINTS).await?;
        let stored = self.find_adjustment(tx.conn(), "id", id).await?.ok_or_else(|| Problem::not_found("adjustment", id))?;
        let row = member::lock_any(tx, &stored.view.member).await?;
        // Again, now that nobody else decides about a proposal for this member.
        let stored = self.find_adjustment(tx.conn(), "id", id).await?.ok_or_else(|| Problem::not_found("adjustment", id))?;
        if stored.decided_key.as_ref() == Some(&key.stored) {
            return Err(heyuan_kernel::Error::Stale("an adjustment that the same key approved").into());
        }
        check_proposed(&stored.view)?;
        check_member(&row, stored.view.amount)?;
        let now = self.kernel().clock.now();
        let mut view = stored.view;
        let period = book.period(Period::of(&self.kernel().zone, now));
        if view.amount > 0 {
            view.recovered = self.grant_points(tx, &view, now, book).await?;
        } else {
            self.take_away(tx, &view, now, period).await?;
        }
        (view.state, view.period) = (AdjustmentState::Approved, Some(period));
        (view.decided_by, view.decided_at) = (Some(actor.name().to_owned()), Some(now));
        decide(tx, &view, Some(key)).await?;
        audit::record(tx, &entry(actor, "approve adjustment", &view)).await?;
        Ok(view)
    }

    /// What a point that the line issues now costs it, and when it expires.
    pub(super) async fn issue_terms(
        &self,
        tx: &Tx,
        line: Line,
        wanted: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(Ratio, Timestamp), Error> {
        let zone = &self.kernel().zone;
        let rules = self.earn_rules(tx.conn()).await?;
        let rules = earn_in_force(&rules, now)?;
        let words = format!("the earn rules in force say nothing of the line {line}, so that its points have no cost; put it there first");
        let cost = rules.lines.get(&line).map(|rule| rule.cost).ok_or_else(|| Problem::invalid("unit", words))?;
        let expires_at = wanted.unwrap_or_else(|| zone.day_start_after(now, rules.points_days + 1));
        if expires_at <= now || expires_at > zone.day_start_after(now, EXPIRES_DAYS_MAX) {
            let words =
                "expected an instant ahead, within fifty years; a proposal whose points would have expired is rejected and made anew";
            return Err(Problem::new(codes::TIME_OUT_OF_RANGE, words).field("expires_at").into());
        }
        Ok((cost, expires_at))
    }

    /// Opens a lot for a locked member; answers what of it paid what the member owed.
    async fn grant_points(&self, tx: &Tx, view: &AdjustmentView, now: Timestamp, book: Book) -> Result<i64, Error> {
        let (cost, expires_at) = self.issue_terms(tx, view.line, view.expires_at, now).await?;
        let lot = NewLot { issuer: view.line.as_str().to_owned(), cost, expires_at };
        let period = book.period(Period::of(&self.kernel().zone, now));
        let line = books::line_account(view.line, LineAccount::Adjusted);
        let transfer = transfer(view, 1, (line, books::points_account(&view.member)), view.amount, (now, period), Lots::New(lot));
        self.ledger().post(tx, &[transfer]).await?;
        self.recover_owed(tx, &view.member, book).await
    }

    /// Takes points of a locked member, those that expire first first; each issuer gets its own back.
    async fn take_away(&self, tx: &Tx, view: &AdjustmentView, now: Timestamp, period: Period) -> Result<(), Error> {
        let account = books::points_account(&view.member);
        let lots = self.ledger().open_lots_in(tx, &account, LOTS_MAX).await?;
        let all = u64::try_from(lots.len()) != Ok(LOTS_MAX);
        let wanted = view.amount.saturating_neg();
        let (parts, short) = first_expiring(lots, wanted, now);
        if short > 0 && all {
            return Err(points::not_enough(&view.member, wanted));
        }
        if short > 0 {
            let words = format!("the points of member {} stand in more than {LOTS_MAX} lots; propose to take fewer at once", view.member);
            return Err(Error::refused(heyuan_ledger::codes::TOO_MANY_LOTS, words));
        }
        let mut transfers = Vec::with_capacity(parts.len());
        for ((lot, amount), place) in parts.into_iter().zip(1..) {
            let line = Line::parse(&lot.issuer).ok_or_else(|| corrupt("issuer line", &lot.issuer))?;
            let sides = (account.clone(), books::line_account(line, LineAccount::Adjusted));
            transfers.push(transfer(view, place, sides, amount, (now, period), Lots::From(lot.source)));
        }
        match self.ledger().post(tx, &transfers).await {
            // A lot expired between two looks at the clock.
            Err(heyuan_ledger::Error::NotEnough { .. }) => Err(heyuan_kernel::Error::Stale("the lots of a member").into()),
            other => Ok(other.map(drop)?),
        }
    }
}

/// What to take of which lots, and how much is missing; the lots come in the order of their expiry, and what has expired is not taken.
fn first_expiring(lots: Vec<OpenLot>, wanted: i64, now: Timestamp) -> (Vec<(OpenLot, i64)>, i64) {
    let (mut parts, mut short) = (Vec::new(), wanted);
    for lot in lots.into_iter().filter(|lot| lot.expires_at > now) {
        let part = lot.remaining.min(short);
        if part == 0 {
            break;
        }
        short -= part;
        parts.push((lot, part));
    }
    (parts, short)
}

fn transfer(view: &AdjustmentView, place: usize, sides: (String, String), amount: i64, when: (Timestamp, Period), lots: Lots) -> Transfer {
    Transfer {
        key: format!("adjustment/{}/{place}", view.id),
        unit: books::POINTS.to_owned(),
        debit: sides.0,
        credit: sides.1,
        amount,
        occurred_at: when.0,
        period: when.1,
        kind: Movement::Adjust.as_str().to_owned(),
        reference: format!("{}/{}", view.unit, view.id),
        lots,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_expires_first_is_taken_first_and_what_has_expired_is_not() {
        let lot = |name: &str, remaining: i64, expires_ms: i64| OpenLot {
            source: name.to_owned(),
            issuer: "mall".to_owned(),
            cost: Ratio::new(1, 1).expect("a ratio"),
            amount: remaining,
            remaining,
            expires_at: Timestamp::clamped(expires_ms),
        };
        let lots = || vec![lot("gone", 9, 10), lot("soon", 3, 11), lot("late", 5, 20)];
        for (wanted, expected, missing) in [
            (1, vec![("soon", 1)], 0),
            (3, vec![("soon", 3)], 0),
            (4, vec![("soon", 3), ("late", 1)], 0),
            (8, vec![("soon", 3), ("late", 5)], 0),
            (9, vec![("soon", 3), ("late", 5)], 1),
        ] {
            let (parts, short) = first_expiring(lots(), wanted, Timestamp::clamped(10));
            let parts: Vec<_> = parts.iter().map(|(lot, amount)| (lot.source.as_str(), *amount)).collect();
            assert_eq!((parts, short), (expected, missing), "{wanted}");
        }
    }
}
