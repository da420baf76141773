//! Breakage: what the points that are out will cost, and how many of them are likely to expire unused.
//!
//! The estimate learns from points whose expiry has passed. For a line and a number of months before the expiry, it takes the points that
//! were out then, sums what of just these lots expired in the end, and applies that share to the points that are as far from their expiry
//! now. Shares are exact ratios over closed months alone, so that the same month is answered alike for ever.

use crate::books::{self, Movement};
use crate::clearing::{self, Exact};
use crate::error::Error;
use crate::facade::Membership;
use crate::member::corrupt;
use heyuan_contract::Line;
use heyuan_kernel::{Actor, Problem, Zone, sql};
use heyuan_ledger::{Cohort, Period};
use std::collections::BTreeMap;

/// Months of expiry that the estimate learns from: the last two years.
const HISTORY_MONTHS_MAX: i64 = 24;
/// Months of expiry with points out that a share needs: fewer say more about their month than about the line.
const HISTORY_MONTHS_MIN: i64 = 3;

/// How the estimate is made, in English.
pub(crate) const METHOD: &str = "Per line and months to expiry: of the points that were out as many months before their expiry, in the last 24 months \
    of expiry up to the closed month, the share that expired unused; an exact ratio of at least 3 months of expiry, never above 1. It is \
    applied to the points that are out, rounded down to points and to the nearest fen.";
/// The same in Chinese.
pub(crate) const METHOD_ZH: &str = "按业态和距到期月数：取截至该关账月最近24个到期月中，距到期相同月数时的在外积分，其最终过期未用的比例；\
    为至少3个到期月的精确比值，不超过1。以该比例乘以当前在外积分，积分向下取整，金额四舍五入到分。";

/// Why there is no estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoEstimate {
    /// Fewer months of expiry with points out at this distance than the least.
    TooLittleHistory,
}

impl NoEstimate {
    /// The word in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            NoEstimate::TooLittleHistory => "too_little_history",
        }
    }
}

/// A share of points that expired, exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Points that expired.
    pub expired: i64,
    /// Of points that were out.
    pub out: i64,
    /// Over so many months of expiry.
    pub months: i64,
}

/// Points of one line that expire in one month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outstanding {
    /// Who stands for them.
    pub issuer: Line,
    /// When they expire.
    pub expires_in: Period,
    /// Months from the end of the closed month to there; 1 is the next month, 0 and less is past.
    pub months_to_expiry: i64,
    /// How many are out.
    pub points: i64,
    /// Their cost.
    pub fen: i64,
    /// How many of them are likely to expire.
    pub expiring: Result<Expiring, NoEstimate>,
}

/// An estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiring {
    /// The share that it applies.
    pub share: Share,
    /// Points.
    pub points: i64,
    /// Their cost, which their line gets back.
    pub fen: i64,
}

/// What is out at the end of a closed month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breakage {
    /// The closed month.
    pub as_of: Period,
    /// By line and month of expiry.
    pub rows: Vec<Outstanding>,
}

/// What became of the lots of one month of expiry.
#[derive(Debug, Default)]
struct Fate {
    /// Points by the month in which they were opened and the one in which they moved; with what expired apart.
    changes: Vec<Change>,
    cost: Exact,
}

#[derive(Debug, Clone, Copy)]
struct Change {
    /// `None` for points that came from another member's lot: they had been out before.
    opened: Option<Period>,
    moved: Period,
    expired: bool,
    amount: i64,
}

impl Fate {
    /// Points that were out at the end of a month.
    fn out_at(&self, month: Period) -> i64 {
        self.changes.iter().filter(|change| change.moved <= month).map(|change| change.amount).sum()
    }

    /// Points that were out by the end of a month and expired in the end.
    fn expired_of(&self, month: Period) -> i64 {
        self.changes
            .iter()
            .filter(|change| change.opened.is_none_or(|opened| opened <= month) && change.expired)
            .map(|change| -change.amount)
            .sum()
    }
}

type Fates = BTreeMap<(Line, Period), Fate>;

impl Membership {
    /// What is out at the end of a closed month, by line and month of expiry, and an estimate of what of it will expire. The last closed
    /// month when none is named. It reads every lot whose expiry is not more than two years past.
    ///
    /// # Errors
    /// `forbidden`; `invalid_request` for no month; `not_found` for one that is not closed.
    pub async fn breakage(&self, actor: &Actor, as_of: Option<&str>) -> Result<Breakage, Error> {
        clearing::of_the_group(actor)?;
        let reader = self.kernel().db.reader();
        let as_of = match as_of {
            Some(text) => Period::parse(text).ok_or_else(|| Problem::invalid("as_of_period", "expected a closed month such as 2026-11"))?,
            None => last_closed(reader).await?,
        };
        self.closed_clearing(reader, as_of).await?;
        let zone = &self.kernel().zone;
        let first = as_of.next().months_back(HISTORY_MONTHS_MAX);
        let rows = self.ledger().cohorts(reader, books::POINTS, as_of, first.start(zone), Movement::Expire.as_str()).await?;
        Ok(Breakage { as_of, rows: estimate(as_of, &fates(&rows, zone)?)? })
    }
}

async fn last_closed<C: sql::Connection>(conn: &C) -> Result<Period, Error> {
    let row = sql::one(conn, "SELECT MAX(period) AS period FROM membership_clearing", []).await?;
    let number: Option<i64> = row.map_or(Ok(None), |row| sql::get(&row, "period"))?;
    let last = number.and_then(Period::from_number);
    Ok(last.ok_or_else(|| Problem::not_found("closed month", "yet"))?)
}

fn fates(rows: &[Cohort], zone: &Zone) -> Result<Fates, Error> {
    let mut fates = Fates::new();
    for row in rows {
        let line = Line::parse(&row.issuer).ok_or_else(|| corrupt("issuer line", &row.issuer))?;
        let fate = fates.entry((line, Period::of(zone, row.expires_at))).or_default();
        fate.changes.push(Change { opened: row.opened, moved: row.moved, expired: row.of_kind, amount: row.amount });
        fate.cost.add(row.amount, row.cost)?;
    }
    Ok(fates)
}

fn estimate(as_of: Period, fates: &Fates) -> Result<Vec<Outstanding>, Error> {
    let mut rows = Vec::new();
    for ((issuer, expires_in), fate) in fates {
        let points = fate.out_at(as_of);
        if points == 0 {
            continue;
        }
        let months_to_expiry = as_of.months_until(*expires_in);
        let expiring = match share(as_of, *issuer, months_to_expiry, points, fates) {
            None => Err(NoEstimate::TooLittleHistory),
            Some(share) => Ok(Expiring { share, points: part(points, share)?, fen: fate.cost.fen_of(share.expired, share.out)? }),
        };
        rows.push(Outstanding { issuer: *issuer, expires_in: *expires_in, months_to_expiry, points, fen: fate.cost.fen()?, expiring });
    }
    Ok(rows)
}

/// Which share of a line's points expired that were as many months before their expiry. What is past its expiry expires.
fn share(as_of: Period, issuer: Line, months: i64, points: i64, fates: &Fates) -> Option<Share> {
    if months <= 0 {
        return Some(Share { expired: points, out: points, months: 0 });
    }
    let mut share = Share { expired: 0, out: 0, months: 0 };
    for ((line, expired_in), fate) in fates {
        if *line != issuer || *expired_in > as_of {
            continue;
        }
        let then = expired_in.months_back(months);
        let out = fate.out_at(then);
        if out > 0 {
            // What came back into a lot after that moment may have expired on top of what was out.
            share.expired += fate.expired_of(then).clamp(0, out);
            share.out += out;
            share.months += 1;
        }
    }
    (share.months >= HISTORY_MONTHS_MIN).then_some(share)
}

fn part(points: i64, share: Share) -> Result<i64, Error> {
    let product = i128::from(points) * i128::from(share.expired);
    Ok(i64::try_from(product.div_euclid(i128::from(share.out))).map_err(|e| corrupt("breakage", e))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use heyuan_contract::Ratio;

    fn month(number: i64) -> Period {
        Period::from_number(number).expect("a month")
    }

    /// Lots of one month of expiry: opened twelve months before it, a part spent in each of the next months, the rest expired if past.
    fn fate(expires_in: i64, opened: i64, spent: &[i64], expired: i64) -> ((Line, Period), Fate) {
        let expires = month(expires_in);
        let first = expires.months_back(12);
        let mut fate = Fate::default();
        let mut change = |moved: Period, expired: bool, amount: i64| {
            fate.changes.push(Change { opened: Some(first), moved, expired, amount });
            fate.cost.add(amount, Ratio::new(6, 5).expect("a ratio")).expect("it fits");
        };
        change(first, false, opened);
        let months = std::iter::successors(Some(first.next()), |month| Some(month.next()));
        for (moved, amount) in months.zip(spent) {
            change(moved, false, -amount);
        }
        if expired > 0 {
            change(expires, true, -expired);
        }
        ((Line::Hotel, expires), fate)
    }

    #[test]
    fn the_share_is_that_of_points_as_far_from_their_expiry() {
        // Three months of expiry are past. Of 100, 100 and 200 points 30, 20 and 100 expired.
        let past = [fate(202_609, 100, &[10, 60], 30), fate(202_610, 100, &[80], 20), fate(202_611, 200, &[100], 100)];
        let fates: Fates = past.into_iter().chain([fate(202_612, 100, &[50], 0), fate(202_711, 40, &[], 0)]).collect();
        let rows = estimate(month(202_611), &fates).expect("it is estimated");
        let told: Vec<_> = rows
            .iter()
            .map(|row| {
                let share = row.expiring.map(|expiring| (expiring.share.expired, expiring.share.out, expiring.points, expiring.fen));
                (row.expires_in.number(), row.months_to_expiry, row.points, row.fen, share)
            })
            .collect();
        let expected = vec![
            // A month before expiry all that was left expired: 150 of 150.
            (202_612, 1, 50, 60, Ok((150, 150, 50, 60))),
            // A year before it 400 were out: 150 of 400 of 40 points are 15, and of 48 fen 18.
            (202_711, 12, 40, 48, Ok((150, 400, 15, 18))),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn points_that_went_to_another_member_were_out_before() {
        let (key, mut fate) = fate(202_611, 100, &[], 0);
        let change = |opened, moved, expired, amount| Change { opened, moved: month(moved), expired, amount };
        // 40 of 100 went from one member to another in October, and all of them expired in November; ten more were earned in October.
        fate.changes.push(change(Some(month(202_511)), 202_610, false, -40));
        fate.changes.push(change(None, 202_610, false, 40));
        fate.changes.push(change(Some(month(202_610)), 202_610, false, 10));
        fate.changes.push(change(Some(month(202_511)), 202_611, true, -60));
        fate.changes.push(change(None, 202_611, true, -40));
        fate.changes.push(change(Some(month(202_610)), 202_611, true, -10));
        assert_eq!(key.1, month(202_611));
        assert_eq!((fate.out_at(month(202_609)), fate.expired_of(month(202_609))), (100, 100));
        assert_eq!((fate.out_at(month(202_610)), fate.expired_of(month(202_610))), (110, 110));
    }

    #[test]
    fn two_months_of_expiry_are_too_few() {
        let fates: Fates =
            [fate(202_610, 100, &[80], 20), fate(202_611, 200, &[100], 100), fate(202_612, 100, &[], 0)].into_iter().collect();
        let rows = estimate(month(202_611), &fates).expect("it is estimated");
        assert_eq!(rows.iter().map(|row| row.expiring).collect::<Vec<_>>(), [Err(NoEstimate::TooLittleHistory)]);
    }

    #[test]
    fn what_is_past_its_expiry_expires_and_other_lines_teach_nothing() {
        let mut fates: Fates =
            [fate(202_609, 100, &[], 100), fate(202_610, 100, &[], 100), fate(202_611, 100, &[], 90)].into_iter().collect();
        let (_, of_mall) = fate(202_612, 10, &[], 0);
        fates.insert((Line::Mall, month(202_612)), of_mall);
        let rows = estimate(month(202_611), &fates).expect("it is estimated");
        let told: Vec<_> = rows.iter().map(|row| (row.issuer, row.points, row.expiring.map(|expiring| expiring.points))).collect();
        assert_eq!(told, [(Line::Mall, 10, Err(NoEstimate::TooLittleHistory)), (Line::Hotel, 10, Ok(10))]);
    }
}
