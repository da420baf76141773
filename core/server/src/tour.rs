//! `heyuan tour`: the story from an ad click to points and cost per contract, told against a running server.

mod customer;
mod fresh;
mod mall;
mod member;
mod results;
mod talk;

use crate::demo::client::{Call, Client};
use crate::demo::keys::DemoKeys;
use anyhow::{Context, bail};
use clap::Args;
use fresh::Fresh;
use serde_json::Value;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use talk::{Key, Lang, Talk, words};

/// How long the server may take until what was sent shows up: the processor is at most a few seconds behind when nothing is loaded.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// `heyuan tour`
#[derive(Debug, Args)]
pub(crate) struct TourOptions {
    /// The language of the sentences: en or zh
    #[arg(long, value_enum, default_value_t = Lang::En)]
    lang: Lang,
    /// The running server
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The data folder of heyuan demo run, for its keys
    #[arg(long, env = "HEYUAN_DATA", default_value = "data")]
    data: PathBuf,
    /// One key with the scopes admin, app and ingest, instead of the demo's keys
    #[arg(long, env = "HEYUAN_KEY", hide_env_values = true)]
    key: Option<String>,
}

/// One walk through the house, and what was learnt on the way.
struct Tour {
    client: Client,
    keys: DemoKeys,
    talk: Talk,
    fresh: Fresh,
    /// The customer, once known.
    customer: String,
    /// The member, once joined.
    member: String,
    /// The member's token.
    token: String,
    /// The month of the member day's purchase.
    period: String,
}

/// Takes the tour; whatever is not as the story says ends it with a failure.
///
/// # Errors
/// In words: the step, and what was not as it should be.
pub(crate) async fn tour(options: TourOptions) -> anyhow::Result<()> {
    let file = options.data.join("demo/keys.json");
    let variables = match &options.key {
        Some(_) => "ADMIN_KEY=$HEYUAN_KEY APP_KEY=$HEYUAN_KEY INGEST_KEY=$HEYUAN_KEY".to_owned(),
        None => [("ADMIN_KEY", "admin"), ("APP_KEY", "app"), ("INGEST_KEY", "ingest")]
            .map(|(name, key)| format!("{name}=$(jq -r .{key} '{}')", file.display()))
            .join("\n"),
    };
    let keys = match options.key {
        Some(key) => DemoKeys { admin: key.clone(), app: key.clone(), ingest: key, ..DemoKeys::default() },
        None => DemoKeys::read(&options.data)?.with_context(|| {
            format!("there is no {}: start `heyuan demo run --data {}` first, or give --key", file.display(), options.data.display())
        })?,
    };
    let mut tour = Tour {
        client: Client::new(&options.url)?,
        keys,
        talk: Talk::new(options.lang),
        fresh: Fresh::new()?,
        customer: String::new(),
        member: String::new(),
        token: String::new(),
        period: String::new(),
    };
    tour.check_place(&variables).await?;
    let told = tour.tell().await;
    told.with_context(|| format!("step {} of the tour is not as the story says", tour.talk.step()))
}

impl Tour {
    async fn tell(&mut self) -> anyhow::Result<()> {
        self.click_an_ad().await?;
        self.identify().await?;
        self.look_at_profile().await?;
        self.look_at_segment().await?;
        self.join().await?;
        let transaction = self.buy_on_member_day().await?;
        self.explain(&transaction).await?;
        let bought = self.order_and_redeem().await?;
        self.refund(&bought).await?;
        self.sell_a_home().await?;
        self.look_back().await?;
        self.settle().await?;
        self.talk.say(words("\nThat was the whole walk, from a click to a contract.", "\n全程走完：从一次点击到一份合同。"))
    }

    /// The tour needs the demo's plugins; it says so before it begins.
    async fn check_place(&mut self, variables: &str) -> anyhow::Result<()> {
        let plugins = self.client.expect(&Call::get("/v1/plugins?limit=200", &self.keys.admin)).await?;
        let active = |name: &str| items(&plugins).iter().any(|version| version["name"] == name && version["state"] == "active");
        if !active("home-upgrader") || !active("member-day") {
            bail!("the plugins home-upgrader and member-day are not active at {}; is the demo group still being loaded?", self.client.url);
        }
        self.talk
            .say(words("Each request below can be typed once these variables are set:", "设置以下变量后，下面每个请求都可以照样输入："))?;
        crate::cli::print(&format!("URL={}\n{variables}", self.client.url))
    }

    fn key(&self, key: Key) -> &str {
        match key {
            Key::Admin => &self.keys.admin,
            Key::App => &self.keys.app,
            Key::Ingest => &self.keys.ingest,
            Key::Member => &self.token,
        }
    }

    /// Shows a request, sends it, shows the answer.
    async fn ask(&self, key: Key, call: Call) -> anyhow::Result<Value> {
        let call = Call { key: self.key(key).to_owned(), ..call };
        self.talk.request(&call, key)?;
        let body = self.client.expect(&call).await?;
        self.talk.answer(&body)?;
        Ok(body)
    }

    /// Sends a request without a word.
    async fn look(&self, key: Key, path: impl Into<String>) -> anyhow::Result<Value> {
        self.client.expect(&Call::get(path, self.key(key))).await
    }

    /// Sends a request until its answer is as the story says, then shows it. `part` picks what is shown and judged.
    async fn ask_until(&self, key: Key, call: Call, part: impl Fn(&Value) -> Option<Value>, story: &str) -> anyhow::Result<Value> {
        let call = Call { key: self.key(key).to_owned(), ..call };
        let begun = Instant::now();
        loop {
            let answer = self.client.send(&call).await?;
            // Nobody yet: the processor has not come to it.
            if !answer.status.is_success() && answer.status.as_u16() != 404 {
                bail!("{} {} was refused: {}", call.method, call.path, answer.problem());
            }
            if let Some(part) = part(&answer.body).filter(|_| answer.status.is_success()) {
                self.talk.request(&call, key)?;
                self.talk.answer(&part)?;
                return Ok(answer.body);
            }
            if begun.elapsed() > PATIENCE {
                let seen = if answer.status.is_success() { answer.body.to_string() } else { answer.problem() };
                let seen: String = seen.chars().take(2000).collect();
                bail!("{story}, but {} {} still answered after {} s: {seen}", call.method, call.path, PATIENCE.as_secs());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Sends a request that must be refused with this code, and shows the refusal.
    async fn ask_in_vain(&self, key: Key, call: Call, code: &str) -> anyhow::Result<()> {
        let call = Call { key: self.key(key).to_owned(), ..call };
        self.talk.request(&call, key)?;
        let answer = self.client.send(&call).await?;
        self.talk.answer(&answer.body)?;
        must(answer.body["code"] == code, &format!("the answer is {code}"))
    }
}

/// Holds an answer against the story.
fn must(holds: bool, story: &str) -> anyhow::Result<()> {
    if holds { Ok(()) } else { bail!("expected that {story}") }
}

/// The items of a page.
fn items(page: &Value) -> &[Value] {
    page["items"].as_array().map_or(&[], Vec::as_slice)
}

/// A text of an answer.
fn text(value: &Value, name: &str) -> anyhow::Result<String> {
    value[name].as_str().map(str::to_owned).with_context(|| format!("the answer has no {name}"))
}

/// A whole number of an answer.
fn number(value: &Value, name: &str) -> anyhow::Result<i64> {
    value[name].as_i64().with_context(|| format!("the answer has no number {name}"))
}
