//! From an ad click to a customer in a segment.

use super::talk::{Key, words};
use super::{Tour, items, must, text};
use crate::demo::client::Call;
use crate::demo::keys::APP_UNIT;
use reqwest::Method;
use serde_json::{Value, json};

/// The type that the visitor looks at, twice, for more than the ten minutes that the plugin calls hot.
const UNIT_TYPE: &str = "4br";
const DWELL_SECONDS: i64 = 380;

impl Tour {
    pub(super) async fn click_an_ad(&mut self) -> anyhow::Result<()> {
        self.talk
            .title(words("Somebody clicks an ad on a phone and looks at homes, nameless", "有人在手机上点开广告看房，还没有留下姓名"))?;
        let body = json!({ "batch": [self.session_started(), self.unit_viewed(1, 560), self.unit_viewed(2, 170)] });
        let answer = self.ask(Key::Ingest, Call::json(Method::POST, "/v1/batch", "", &body)).await?;
        must(answer["success"] == true, "the batch is durable")?;
        self.talk.meaning(words(
            "This is the Segment protocol: existing SDKs work unchanged. 200 means the three events are on disk, each counted once however often it is sent.",
            "这是 Segment 协议，现有 SDK 无需改动。200 表示三个事件已落盘，重发多少次都只算一次。",
        ))
    }

    fn session_started(&self) -> Value {
        let fresh = &self.fresh;
        json!({
            "type": "track",
            "event": "Session Started",
            "messageId": format!("tour-{}-0", fresh.mark),
            "anonymousId": fresh.device,
            "timestamp": fresh.ago(600),
            "properties": { "landing": "/hz/riverside" },
            "context": {
                "app": { "name": "wx-home" },
                "campaign": {
                    "source": "oceanengine", "medium": "cpc", "name": fresh.plan, "content": fresh.creative, "clickid": fresh.click_id,
                },
            },
        })
    }

    fn unit_viewed(&self, number: u32, seconds_ago: i64) -> Value {
        json!({
            "type": "track",
            "event": "Unit Viewed",
            "messageId": format!("tour-{}-{number}", self.fresh.mark),
            "anonymousId": self.fresh.device,
            "timestamp": self.fresh.ago(seconds_ago),
            "properties": { "project_id": APP_UNIT, "unit_type": UNIT_TYPE, "dwell_seconds": DWELL_SECONDS, "price_fen": 437_850_000 },
            "context": { "app": { "name": "wx-home" } },
        })
    }

    pub(super) async fn identify(&mut self) -> anyhow::Result<()> {
        self.talk.title(words("The visitor logs in with a phone number", "访客用手机号登录"))?;
        let body = json!({
            "messageId": format!("tour-{}-3", self.fresh.mark),
            "anonymousId": self.fresh.device,
            "timestamp": self.fresh.ago(120),
            "traits": { "phone": self.fresh.phone, "city": "杭州", "age": 38, "household_size": 4, "annual_income": 480_000 },
            "context": { "app": { "name": "wx-home" } },
        });
        self.ask(Key::Ingest, Call::json(Method::POST, "/v1/identify", "", &body)).await?;
        let search = Call::json(Method::POST, "/v1/customers:search", "", &json!({ "type": "phone", "value": self.fresh.phone }));
        let both = |found: &Value| {
            let kinds: Vec<&Value> = found["identifiers"].as_array()?.iter().map(|one| &one["type"]).collect();
            let whole = ["phone", "device"].iter().all(|kind| kinds.iter().any(|found| *found == kind));
            whole.then(|| json!({ "id": found["id"], "identifiers": found["identifiers"], "units": found["units"] }))
        };
        let found = self.ask_until(Key::App, search, both, "phone and device are one customer").await?;
        must(!found["identifiers"].to_string().contains(&self.fresh.phone), "the number is masked")?;
        self.customer = text(&found, "id")?;
        self.talk.meaning(words(
            "One customer stands behind the phone and the device now, and what was looked at before the log-in belongs to it. Values are masked; seeing them takes the scope reveal and is audited.",
            "手机号与设备从此是同一位客户，登录前的浏览也归到其名下。值均已脱敏，查看明文需要 reveal 权限，并留下审计。",
        ))
    }

    pub(super) async fn look_at_profile(&mut self) -> anyhow::Result<()> {
        self.talk.title(words("What is known: features, and a tag that a plugin decided", "画像：特征，以及由插件判定的标签"))?;
        let profile = Call::get(format!("/v1/customers/{}/profile", self.customer), "");
        let hot = |profile: &Value| {
            let tags = profile["tags"].as_array()?;
            tags.iter().find(|tag| tag["name"] == "home_upgrader" && tag["value"] == "hot")?;
            let shown = ["annual_income", "household_size", "dwell_4br_30d", "unit_views_7d"];
            let features = profile["features"].as_array()?.iter().filter(|one| shown.iter().any(|name| one["name"] == *name));
            let features: serde_json::Map<String, Value> =
                features.filter_map(|one| Some((one["name"].as_str()?.to_owned(), one["value"].clone()))).collect();
            Some(json!({ "customer": profile["customer"], "features": features, "tags": tags, "as_of": profile["as_of"] }))
        };
        self.ask_until(Key::App, profile, hot, "the plugin home-upgrader tags this customer hot").await?;
        self.talk.meaning(words(
            "home-upgrader is a sandboxed WebAssembly program that the group uploaded: over ten minutes on larger homes, a household of four and the income for it make `hot`. The tag names the plugin's version, since when it holds, and why it turned.",
            "home-upgrader 是集团上传的沙箱 WebAssembly 程序：看大户型超过十分钟、四口之家、收入相当，即判为 hot。标签写明插件版本、起始时间与原因。",
        ))
    }

    pub(super) async fn look_at_segment(&mut self) -> anyhow::Result<()> {
        self.talk.title(words("The segment of home upgraders", "人群：置换意向客户"))?;
        let predicate = json!({ "tag": "home_upgrader", "is": "hot" });
        let definition = json!({ "name": "置换意向客户", "predicate": predicate });
        self.ask(Key::Admin, Call::json(Method::PUT, "/v1/segments/home-upgraders", "", &definition)).await?;
        let profile = Call::get(format!("/v1/customers/{}/profile", self.customer), "");
        let belongs = |profile: &Value| {
            let segments = profile["segments"].as_array()?;
            segments.iter().find(|segment| segment["id"] == "home-upgraders")?;
            Some(json!({ "customer": profile["customer"], "segments": segments }))
        };
        self.ask_until(Key::App, profile, belongs, "the customer is in the segment").await?;
        let both = json!({ "predicate": { "all": [predicate, { "feature": "city", "is": "杭州" }] } });
        let counted = Call::json(Method::POST, "/v1/audiences:count", "", &both);
        let some = |count: &Value| (count["count"].as_i64()? > 0).then(|| count.clone());
        self.ask_until(Key::Admin, counted, some, "the audience is not empty").await?;
        let members = self.look(Key::Admin, "/v1/segments/home-upgraders/members?limit=200").await?;
        must(!items(&members).is_empty(), "the segment lists its members")?;
        self.talk.meaning(words(
            "Segments are set algebra over tags and features on bitmaps: they follow each event, and any audience is counted at once.",
            "人群是标签与特征在位图上的集合运算：随事件实时变化，任何组合都能即时计数。",
        ))
    }
}
