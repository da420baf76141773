//! A transaction's decision in words, English and Chinese.

use crate::caps::{CapSpan, Figure};
use crate::decide::{Basis, CALL_EFFECTS_MAX};
use crate::decision::{Call, Decision, Wording};
use crate::missed::Missed;
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
    let Some(decision) = decision else { return };
    for call in &decision.calls {
        let (rule, digest) = (&call.rule, call.digest.get(..12).unwrap_or(&call.digest));
        if call.effects_raw.is_empty() {
            words.say(format!("Rule {rule} ({digest}) added nothing."), format!("规则 {rule}（{digest}）无附加。"));
        }
        for (place, effect) in call.effects.iter().enumerate() {
            let ((en, zh), reason) = (change(&effect.change), &effect.reason);
            match call.missed.get(&place).filter(|_| decision.wording == Wording::Second) {
                None => words
                    .say(format!("Rule {rule} ({digest}) adds {en}: {reason}."), format!("规则 {rule}（{digest}）附加{zh}：{reason}。")),
                Some(missed) => {
                    let (why, why_zh) = because(*missed);
                    words.say(
                        format!("Rule {rule} ({digest}) would have added {en} ({reason}), but {why}."),
                        format!("规则 {rule}（{digest}）本应附加{zh}（{reason}），但{why_zh}。"),
                    );
                }
            }
        }
        match decision.wording {
            Wording::First if call.effects != call.effects_raw => spent_before(call, words),
            Wording::First => {}
            Wording::Second => cut(call, words),
        }
    }
}

/// What of a rule's answer its limits and budgets took, each by itself.
fn cut(call: &Call, words: &mut Explanation) {
    let rule = &call.rule;
    let counted = || call.effects_raw.iter().take(CALL_EFFECTS_MAX).map(|effect| &effect.change);
    let points: i128 = counted().map(|change| if let Change::Points(points) = change { i128::from((*points).max(0)) } else { 0 }).sum();
    if points > i128::from(call.points) {
        spent_before(call, words);
    }
    let growth = |change: &Change| if let Change::Growth(growth) = change { Some(*growth).filter(|growth| *growth != 0) } else { None };
    let got = call.effects.iter().filter_map(|effect| growth(&effect.change));
    if counted().filter_map(growth).ne(got) {
        words.say(
            format!("Rule {rule} asked for more growth, up or down, than its limits allow."),
            format!("规则 {rule} 请求的成长值超出限额。"),
        );
    }
    let other = |change: &&Change| matches!(change, Change::Benefit(_) | Change::Voucher(_) | Change::Discount(_));
    let nothing = |change: &&Change| matches!(change, Change::Points(i64::MIN..=0) | Change::Growth(0));
    let kept = call.effects.iter().map(|effect| &effect.change).filter(other).count();
    let void = counted().filter(other).count().saturating_sub(kept) + counted().filter(nothing).count();
    if void > 0 {
        words.say(
            format!("{void} of what rule {rule} asked for can't be: its code names nothing, or it comes to nothing."),
            format!("规则 {rule} 的 {void} 项请求无效：编码无效或数额为零。"),
        );
    }
    let all = call.effects_raw.len();
    if all > CALL_EFFECTS_MAX {
        words.say(
            format!("Rule {rule} asked for {all} effects, of which the first {CALL_EFFECTS_MAX} count."),
            format!("规则 {rule} 请求了 {all} 项，仅前 {CALL_EFFECTS_MAX} 项有效。"),
        );
    }
}

/// What had been spent of a rule's budgets before it asked for more than they allow.
fn spent_before(call: &Call, words: &mut Explanation) {
    let rule = &call.rule;
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

/// Why something was not given, to follow "but".
const fn because(missed: Missed) -> (&'static str, &'static str) {
    match missed {
        Missed::NotActive => ("there is no such benefit to grant now", "该权益当前不可发放"),
        Missed::OutOfStock => ("its stock has fewer units left", "该权益库存不足"),
        Missed::Over => ("it came too late for it", "上报过晚，该权益已过期"),
        Missed::NoVoucher => ("the mall has no such voucher", "商城没有该券"),
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
