//! A transaction's decision in words, English and Chinese.

use crate::decision::Decision;
use crate::rule::Change;
use crate::transaction::{Kind, State, TransactionView};
use heyuan_contract::Fen;

/// The sentences, in order.
pub(crate) struct Explanation {
    pub(crate) en: Vec<String>,
    pub(crate) zh: Vec<String>,
}

impl Explanation {
    fn say(&mut self, en: String, zh: String) {
        self.en.push(en);
        self.zh.push(zh);
    }
}

/// Explains what a transaction did and why.
pub(crate) fn explain(view: &TransactionView, decision: Option<&Decision>) -> Explanation {
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
