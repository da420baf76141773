//! A benefit rule that breaks its promises as the amount asks: what the host refuses is tested with it.

use std::hint::black_box;

use heyuan_benefit_rule::{Counters, Effect, Input, benefit_rule};

#[derive(Counters)]
pub struct Nothing {}

/// Breaks promises on request.
#[benefit_rule(name = "hostile-rule", reads(member, order_lines), answers(points, growth))]
pub fn decide(input: &Input, _nothing: &Nothing) -> Result<Vec<Effect>, String> {
    Ok(match input.transaction.amount_fen {
        1 => loop {
            black_box(input);
        },
        2 => vec![Effect::voucher("FREE", "was never declared")],
        3 => vec![Effect::points(-5, "points never go down here")],
        4 => (0..10_000).map(|_| Effect::points(1, "one of many")).collect(),
        5 => vec![Effect::points(1, &"long ".repeat(1 << 20))],
        6 => panic!("the transaction asked for a panic"),
        7 => return Err("the transaction asked for an error".to_owned()),
        8 => vec![Effect::points(1, "no database keeps \0")],
        _ => {
            let lines = &input.transaction.order_lines;
            let seen = lines.amounts_fen.iter().sum::<i64>() + input.member.as_ref().map_or(0, |member| member.points);
            vec![Effect::growth(seen, lines.products.first().and_then(|&code| lines.text(code)).unwrap_or("no lines"))]
        }
    })
}
