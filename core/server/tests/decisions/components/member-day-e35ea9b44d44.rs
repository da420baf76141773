//! Member days: on the 8th, 18th and 28th of a month retail earns twice the points, up to a monthly cap: a benefit rule.

use heyuan_benefit_rule::{Counters, Effect, Input, Ratio, benefit_rule};

const DAYS: [u8; 3] = [8, 18, 28];
const LINE: &str = "mall";
/// What a member day adds to the points of the earn rules: as much again.
const EXTRA: Ratio = Ratio { numerator: 1, denominator: 1 };
/// Points that this rule grants one member in one month of the tenant's calendar.
const MONTHLY_CAP: i64 = 2_000;

#[derive(Counters)]
pub struct Granted {
    /// Points that this rule granted this member in the month of the transaction, net of refunds.
    #[reads("rule.points_this_month")]
    points_this_month: Option<i64>,
}

/// Twice the retail points on the 8th, 18th and 28th, 2,000 extra points a member and month at most.
#[benefit_rule(name = "member-day", answers(points))]
pub fn decide(input: &Input, granted: &Granted) -> Result<Vec<Effect>, String> {
    let transaction = &input.transaction;
    if transaction.line != LINE || !DAYS.contains(&transaction.local_time.day) {
        return Ok(Vec::new());
    }
    let extra = EXTRA.of(transaction.base_points).ok_or_else(|| format!("{} base points are beyond this rule", transaction.base_points))?;
    let left = MONTHLY_CAP.saturating_sub(granted.points_this_month.unwrap_or(0)).max(0);
    let points = extra.min(left);
    if points <= 0 {
        return Ok(Vec::new());
    }
    let reason = if points < extra { "member day, up to this month's limit" } else { "member day" };
    Ok(vec![Effect::points(points, reason)])
}
