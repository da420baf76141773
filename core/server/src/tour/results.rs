//! What the advertising bought, what history says, and whether the books are right.

use super::talk::{Key, words};
use super::{Tour, items, must, number, text};
use crate::demo::client::Call;
use crate::demo::keys::APP_UNIT;
use reqwest::Method;
use serde_json::{Value, json};

/// What the plan was charged today, and so what its one contract cost.
const SPEND_YUAN: &str = "1280.00";
const SPEND_FEN: i64 = 128_000;
/// The home's price.
const CONTRACT_FEN: i64 = 437_850_000;

impl Tour {
    pub(super) async fn sell_a_home(&mut self) -> anyhow::Result<()> {
        self.talk.title(words("Lead, visit, subscription, contract, and what they cost", "线索、到访、认筹、签约，以及每一步的成本"))?;
        let csv = format!(
            "时间-天,账户ID,广告计划ID,广告计划名称,创意ID,展示数,点击数,消耗\n{},tour,{},合院·江澜-导览,{},4200,61,{SPEND_YUAN}\n",
            self.fresh.today(),
            self.fresh.plan,
            self.fresh.creative
        );
        let path = format!("/v1/spend/imports?platform=ocean_engine&unit={APP_UNIT}");
        let call = Call { method: Method::POST, content_type: "text/csv", body: csv.into_bytes(), ..Call::get(path, "") };
        let imported = self.ask(Key::Admin, call).await?;
        must(imported["rows_accepted"] == 1 && imported["rows_refused"] == 0, "the row of spend counts")?;
        let lead = format!("tour-lead-{}", self.fresh.mark);
        let body = json!({
            "id": lead,
            "unit": APP_UNIT,
            "identifiers": [{ "kind": "phone", "value": self.fresh.phone }],
            "submitted_at": self.fresh.ago(100),
            "click_id": self.fresh.click_id,
        });
        self.ask(Key::App, Call::json(Method::POST, "/v1/leads", "", &body).once(&*lead)).await?;
        for (stage, seconds_ago) in [("invited", 80), ("visited", 60), ("subscribed", 40)] {
            let body = json!({ "stage": stage, "occurred_at": self.fresh.ago(seconds_ago) });
            let call = Call::json(Method::POST, format!("/v1/leads/{lead}/stages"), self.key(Key::App), &body);
            self.client.expect(&call).await?;
        }
        let body = json!({
            "stage": "contracted",
            "occurred_at": self.fresh.ago(20),
            "amount": { "amount": CONTRACT_FEN, "currency": "CNY" },
            "contract": format!("HT-{}", self.fresh.mark),
        });
        let signed = self.ask(Key::App, Call::json(Method::POST, format!("/v1/leads/{lead}/stages"), "", &body)).await?;
        must(signed["stage"] == "contracted", "the lead is contracted")?;
        self.report().await
    }

    async fn report(&self) -> anyhow::Result<()> {
        let (from, to) = (self.fresh.yesterday(), self.fresh.today());
        let call = Call::get(format!("/v1/reports/full-chain?from={from}&to={to}&group_by=plan&model=last&min_sample=1"), "");
        let key = format!("ocean_engine/{}", self.fresh.plan);
        let row = |report: &Value| {
            let row = report["rows"].as_array()?.iter().find(|row| row["key"] == key.as_str())?;
            let cost = row["cost_per_net_contract"]["cost"]["amount"].as_i64()?;
            (row["net_contracts"].as_f64() == Some(1.0) && cost == SPEND_FEN).then(|| json!({ "rows": [row] }))
        };
        let report = self.ask_until(Key::Admin, call, row, "the plan's contract cost what the plan was charged").await?;
        must(report["conventions"]["model"] == "last", "the report states its conventions")?;
        self.talk.meaning(words(
            "The click id ties the contract to the plan: 1,280 yuan bought one net contract. (The three stages before it were reported in the same way; the answer shows this plan's row of many.)",
            "点击 ID 把合同与广告计划连在一起：1,280 元换来一份净签约。（之前三个阶段以同样方式上报；此处只显示本计划一行。）",
        ))
    }

    pub(super) async fn look_back(&mut self) -> anyhow::Result<()> {
        self.talk.title(words(
            "The customer's timeline, masked, and a question to all of history",
            "客户时间线（脱敏），以及对全部历史的一次查询",
        ))?;
        let timeline = Call::get(format!("/v1/customers/{}/timeline?limit=50", self.customer), "");
        let whole = |page: &Value| {
            let names: Vec<&str> = items(page).iter().filter_map(|event| event["name"].as_str()).collect();
            let told = ["unit_viewed", "session_started", "transaction_posted"].iter().all(|name| names.contains(name));
            told.then(|| page.clone())
        };
        let page = self.ask_until(Key::App, timeline, whole, "the timeline holds the visit and the purchase").await?;
        must(!page.to_string().contains(&self.fresh.phone), "no phone number is in the clear")?;
        let sql =
            "SELECT name, count(*) AS events, count(DISTINCT anchor) AS people FROM events GROUP BY name ORDER BY events DESC LIMIT 5";
        let answer = self.ask(Key::Admin, Call::json(Method::POST, "/v1/query", "", &json!({ "sql": sql }))).await?;
        must(answer["rows"].as_array().is_some_and(|rows| !rows.is_empty()), "history answers")?;
        self.talk.meaning(words(
            "Events lie in Parquet files; the view spans the files and what has only just arrived, in one snapshot. Purchases and leads became events of the same customer.",
            "事件存于 Parquet 文件；视图在同一快照内覆盖文件与刚到达的数据。消费与线索也成为同一客户的事件。",
        ))
    }

    pub(super) async fn settle(&mut self) -> anyhow::Result<()> {
        self.talk.title(words("The lines settle with the points centre", "各业态与积分中心结算"))?;
        let clearing = self.ask(Key::Admin, Call::get(format!("/v1/clearing/{}", self.period), "")).await?;
        let lines = clearing["lines"].as_array().map_or(&[][..], Vec::as_slice);
        let mall = lines.iter().find(|line| line["line"] == "mall");
        let issued = mall.map_or(Ok(0), |line| number(line, "issued_points"))?;
        must(issued > 0, "the mall issued the points of the purchase")?;
        for line in lines {
            let net =
                number(line, "refunded_fen")? + number(line, "expired_fen")? + number(line, "spent_fen")? - number(line, "issued_fen")?;
            must(net == number(line, "net_fen")?, "a line's net is what it gets less what it issued")?;
        }
        let member = self.ask(Key::Member, Call::get(format!("/v1/members/{}", self.member), "")).await?;
        must(text(&member, "id")? == self.member, "the member reads its own balance")?;
        self.talk.meaning(words(
            "Each line owes the centre for the points that it issued and gets back what was spent, refunded or expired; every fen traces to a lot. `heyuan ledger verify --data DIR` checks the whole chained book.",
            "各业态为发放的积分向积分中心付款，消费、退回、过期的部分收回；每一分钱都可追溯到批次。`heyuan ledger verify --data DIR` 校验整本链式账簿。",
        ))
    }
}
