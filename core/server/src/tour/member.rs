//! One member for all lines: joining, a purchase on a member day, the decision behind it.

use super::talk::{Key, words};
use super::{Tour, must, number, text};
use crate::demo::client::Call;
use crate::demo::keys::APP_UNIT;
use reqwest::Method;
use serde_json::{Value, json};

/// The mall whose till reports the purchase.
const MALL: &str = "mall-hz";
/// 680 yuan: 680 points, and 680 more on a member day, below the monthly cap.
const PAID_FEN: i64 = 68_000;
const POINTS: i64 = 680;

impl Tour {
    pub(super) async fn join(&mut self) -> anyhow::Result<()> {
        self.talk.title(words("The customer becomes a member", "客户入会"))?;
        let body = json!({ "unit": APP_UNIT, "identifiers": [{ "type": "phone", "value": self.fresh.phone, "verified": true }] });
        let joined = self.ask(Key::App, Call::json(Method::POST, "/v1/members", "", &body)).await?;
        self.member = text(&joined, "id")?;
        self.token = text(&joined, "token")?;
        must(self.member.starts_with("mbr_"), "a member's id begins with mbr_")?;
        let again = self.look(Key::Member, format!("/v1/members/{}", self.member)).await?;
        must(again["points"] == 0, "a fresh member has no points")?;
        self.talk.meaning(words(
            "From any line, with a verified phone or openid: the same person who joins again at the hotel is answered as the same member. The token lets the member's app act for this member alone ($MEMBER_TOKEN below).",
            "任何业态都可用已验证的手机号或 openid 入会；在酒店再次入会，得到的仍是同一会员。令牌只能代表本人操作（下文的 $MEMBER_TOKEN）。",
        ))
    }

    pub(super) async fn buy_on_member_day(&mut self) -> anyhow::Result<Value> {
        self.talk
            .title(words("A purchase at the mall on a member day: first a quote, then for good", "会员日在商场消费：先试算，再入账"))?;
        let body = json!({
            "id": format!("tour-pos-{}", self.fresh.mark),
            "unit": MALL,
            "kind": "purchase",
            "occurred_at": self.fresh.member_day_noon(),
            "amount": { "amount": PAID_FEN, "currency": "CNY" },
            "member": self.member,
            "lines": [{ "sku": "tea-01", "category": "dining", "quantity": 1, "amount": PAID_FEN }],
        });
        let quote = self.ask(Key::App, Call::json(Method::POST, "/v1/transactions:quote", "", &body)).await?;
        must(quote["state"] == "quoted" && quote["points"] == 2 * POINTS, "the quote doubles the points")?;
        let call = Call::json(Method::POST, "/v1/transactions", "", &body).once(format!("tour-pos-{}", self.fresh.mark));
        let posted = self.ask(Key::App, call).await?;
        must(posted["growth"] == POINTS && posted["base_points"] == POINTS, "retail gives 1 growth and 1 point a yuan")?;
        must(posted["points"] == 2 * POINTS, "the member day doubles the points")?;
        let by_rule = posted["effects"].as_array().is_some_and(|effects| effects.iter().any(|effect| effect["rule"] == "member-day"));
        must(by_rule, "the extra points are member-day's")?;
        let member = self.look(Key::Member, format!("/v1/members/{}", self.member)).await?;
        must(number(&member, "points")? == 2 * POINTS, "the balance holds them")?;
        self.period = text(&posted, "accounting_period")?;
        self.talk.meaning(words(
            "The line's own rule gives 680 growth and 680 points; the plugin member-day adds as much again. Quote and posting agree, and a retry with the same Idempotency-Key is answered the same.",
            "业态规则给 680 成长值和 680 积分，插件 member-day 再加一倍。试算与入账一致；同一 Idempotency-Key 重试得到同样的回答。",
        ))?;
        Ok(posted)
    }

    pub(super) async fn explain(&mut self, posted: &Value) -> anyhow::Result<()> {
        self.talk.title(words("The decision, explained and run again", "这笔决定：说明理由，并原样重算"))?;
        let explained = Call::get(format!("/v1/transactions/{}?unit={MALL}", text(posted, "id")?), "");
        let with_calls = |answer: &Value| {
            let calls = answer["calls"].as_array().filter(|calls| !calls.is_empty())?;
            let words = json!({ "explanation": answer["explanation"], "explanation_zh": answer["explanation_zh"], "calls": calls });
            Some(words)
        };
        self.ask_until(Key::App, explained, with_calls, "the rules that decided are named").await?;
        let rerun = Call { method: Method::POST, ..Call::get(format!("/v1/decisions/{}:rerun", text(posted, "decision")?), "") };
        let answer = self.ask(Key::Admin, rerun).await?;
        must(answer["same"] == true, "the rules answer the same bytes")?;
        self.talk.meaning(words(
            "Every decision keeps the rule's digest and the exact bytes that it was shown. Run again, today or in five years, it answers the same, bit for bit.",
            "每个决定都保存规则摘要与当时的输入字节。今天或五年后重算，结果逐位相同。",
        ))
    }
}
