//! Gives more than it may, in as many ways as the last digit of an amount has: what limits and budgets leave of it is recorded.

use heyuan_benefit_rule::{Counters, Effect, Input, benefit_rule};

#[derive(Counters)]
pub struct Known {
    /// Points that this rule granted this member in the month of the transaction, net of refunds.
    #[reads("rule.points_this_month")]
    points_this_month: Option<i64>,
    /// How often the customer came.
    #[reads("count(visit) over 30d")]
    visits: Option<i64>,
}

/// Forty points; by the last digit of the amount in fen something that has to be cut.
#[benefit_rule(name = "generous", reads(member, order_lines), answers(points, growth, benefit, voucher, discount))]
pub fn decide(input: &Input, known: &Known) -> Result<Vec<Effect>, String> {
    let transaction = &input.transaction;
    Ok(match transaction.amount_fen % 10 {
        1 => vec![Effect::points(250_000, "a flood"), Effect::points(7, "and a drop")],
        2 => vec![Effect::growth(-(transaction.base_growth + 500), "all of it and more"), Effect::growth(20, "and a little back")],
        3 => vec![
            Effect::voucher("prd_tea", "a cup of tea"),
            Effect::voucher("no such code", "nothing that there is"),
            Effect::benefit("late-checkout", "stay a little"),
            Effect::discount(500, "five yuan"),
        ],
        4 => (1..=40).map(|place| Effect::points(place, "one of forty")).collect(),
        5 => return Err("nothing on fives".to_owned()),
        6 => {
            let member = input.member.as_ref().ok_or("nobody is there")?;
            let lines = &transaction.order_lines;
            let dearest = lines.amounts_fen.iter().copied().max().unwrap_or(0);
            let sku = lines.products.first().and_then(|&code| lines.text(code)).unwrap_or("nothing");
            let reason = format!("{} of {}, seen {} times, granted {} before", sku, member.tier, known.visits.unwrap_or(-1), known.points_this_month.unwrap_or(-1));
            vec![Effect::points(1 + dearest / 1_000, &reason), Effect::growth(member.growth / 10, "a tenth of what there is")]
        }
        7 => Vec::new(),
        8 => vec![Effect::growth(400_000, "four times the most")],
        9 => loop {
            std::hint::black_box(input);
        },
        _ => vec![Effect::points(40, "forty")],
    })
}
