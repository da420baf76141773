//! A transaction's decision in words, English and Chinese.

use crate::caps::{CapSpan, Figure};
use crate::decide::Basis;
use crate::decision::Decision;
use crate::rule::Change;
use crate::transaction::{Kind, State, TransactionView};
use heyuan_contract::Fen;

/// The sentences, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// In English.
    pub en: Vec<String>,
    /// In Chinese.
    pub zh: Vec<String>,
}

impl Explanation {
    fn say(&mut self, en: String, zh: String) {
        self.en.push(en);
        self.zh.push(zh);
    }
}

/// Explains what a transaction did and why.
pub fn explain(view: &TransactionView, decision: Option<&Decision>) -> Explanation {
    let mut words = Explanation { en: Vec::new(), zh: Vec::new() };
    let (line, yuan) = (view.line, view.amount.to_yuan());
    match (view.kind, view.state) {
        (_, State::Waiting) => {
            words.say(format!("A refund of {yuan} yuan waits for its purchase to arrive."), format!("退款 {yuan} 元正在等待原交易到达。"))
        }
        (_, State::Refused) => {
            let why = view.why.clone().unwrap_or_default();
            words.say(format!("The refund did not fit its purchase: {why}."), format!("退款与原交易不符：{why}。"));
        }
        (Kind::Refund, _) => refund(view, &mut words),
        (Kind::Purchase, _) => {
            words.say(
                format!(
                    "{yuan} yuan at line {line} earn {} growth and {} points under earn rules version {}.",
                    view.base_growth, view.base_points, view.earn_version
                ),
                format!(
                    "业态 {line} 消费 {yuan} 元，按第 {} 版规则获得成长值 {}、积分 {}。",
                    view.earn_version, view.base_growth, view.base_points
                ),
            );
            if let Some(basis) = decision.and_then(|decision| decision.basis.as_ref()) {
                earned(basis, &mut words);
            }
            rules(decision, &mut words);
            words.say(
                format!("In sum {} growth and {} points; the tier is {}.", view.growth, view.points, view.tier),
                format!("合计成长值 {}、积分 {}，等级为 {}。", view.growth, view.points, view.tier),
            );
            if view.refunded > Fen(0) {
                let back = view.refunded.to_yuan();
                words.say(format!("{back} yuan of it went back since."), format!("其后已退款 {back} 元。"));
            }
        }
    }
    words
}

/// Which multipliers counted, and which caps left less than would have been earned.
fn earned(basis: &Basis, words: &mut Explanation) {
    for (figure, figure_zh, by) in [("growth", "成长值", &basis.growth_by), ("points", "积分", &basis.points_by)] {
        if let Some(name) = by {
            let tier = &basis.tier;
            words.say(
                format!("The multiplier {name} counts for {figure}, for a member of tier {tier}."),
                format!("{figure_zh}按倍率“{name}”计算，会员等级为 {tier}。"),
            );
        }
    }
    for cap in &basis.caps {
        let (gross, figure_zh) = match cap.figure {
            Figure::Growth => (basis.gross.growth, "成长值"),
            Figure::Points => (basis.gross.points, "积分"),
        };
        if (cap.limit - cap.before).max(0) >= gross {
            continue;
        }
        let (at, at_zh) = match cap.line {
            Some(line) => (format!("at line {line}"), format!("业态 {line}")),
            None => ("at all lines".to_owned(), "全部业态".to_owned()),
        };
        let (span, span_zh) = match cap.span {
            CapSpan::Day => ("a day", "每日"),
            CapSpan::Month => ("a month", "每月"),
            CapSpan::Ever => ("in all", "累计"),
        };
        let (limit, before, figure) = (cap.limit, cap.before, cap.figure.as_str());
        words.say(
            format!("A member earns at most {limit} {figure} {span} {at}; {before} were earned before, and {gross} would have been added."),
            format!("{at_zh}{span_zh}最多获得{figure_zh} {limit}；此前已获 {before}，本次原可获 {gross}。"),
        );
    }
}

fn refund(view: &TransactionView, words: &mut Explanation) {
    let of = view.refund_of.as_ref().map(ToString::to_string).unwrap_or_default();
    let (yuan, growth, points) = (view.amount.to_yuan(), -view.growth, -view.points);
    words.say(
        format!("{yuan} yuan of {of} went back: {growth} growth and {points} points are no longer kept."),
        format!("交易 {of} 退款 {yuan} 元：收回成长值 {growth}、积分 {points}。"),
    );
    if view.points_owed > 0 {
        words.say(
            format!("{} of the points had been spent and are owed now.", view.points_owed),
            format!("其中 {} 积分已被使用，记为应收。", view.points_owed),
        );
    }
}

fn rules(decision: Option<&Decision>, words: &mut Explanation) {
    for call in decision.map_or(&[][..], |decision| &decision.calls) {
        let (rule, digest) = (&call.rule, call.digest.get(..12).unwrap_or(&call.digest));
        if call.effects_raw.is_empty() {
            words.say(format!("Rule {rule} ({digest}) added nothing."), format!("规则 {rule}（{digest}）无附加。"));
        }
        for effect in &call.effects {
            let (en, zh) = change(&effect.change);
            words.say(
                format!("Rule {rule} ({digest}) adds {en}: {}.", effect.reason),
                format!("规则 {rule}（{digest}）附加{zh}：{}。", effect.reason),
            );
        }
        if call.effects != call.effects_raw {
            words.say(
                format!(
                    "Rule {rule} asked for more than its limits allow; {} of its {} points of the month were spent before.",
                    call.budget_spent, call.budget_limit
                ),
                format!("规则 {rule} 的请求超出限额；此前本月已用 {}/{} 积分。", call.budget_spent, call.budget_limit),
            );
            for budget in &call.drawn {
                words.say(
                    format!("Of the budget {}, {} of {} points were spent before.", budget.name, budget.spent, budget.limit),
                    format!("预算 {} 此前已用 {}/{} 积分。", budget.name, budget.spent, budget.limit),
                );
            }
        }
    }
}

fn change(change: &Change) -> (String, String) {
    match change {
        Change::Growth(growth) => (format!("{growth} growth"), format!("成长值 {growth}")),
        Change::Points(points) => (format!("{points} points"), format!("积分 {points}")),
        Change::Benefit(code) => (format!("the benefit {code}"), format!("权益 {code}")),
        Change::Voucher(code) => (format!("a voucher for {code}"), format!("券 {code}")),
        Change::Discount(fen) => (format!("{} yuan off", Fen(*fen).to_yuan()), format!("优惠 {} 元", Fen(*fen).to_yuan())),
    }
}
