//! A client of the public API: patient where the server asks for patience, and with failures in words.

use anyhow::{Context, bail};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long one request is tried again while the server is busy or away: a restart, or a backlog that is being worked off.
const PATIENCE: Duration = Duration::from_secs(300);
/// The longest pause that an answer may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A single try: uploading a plugin compiles it.
const TRY_TIME: Duration = Duration::from_secs(120);

/// A request that may be sent again without harm.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// With its query.
    pub(crate) path: String,
    /// An API key or a member's token; empty for none.
    pub(crate) key: String,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) content_type: &'static str,
    pub(crate) body: Vec<u8>,
}

impl Call {
    /// A request without a body.
    pub(crate) fn get(path: impl Into<String>, key: &str) -> Call {
        Call {
            method: Method::GET,
            path: path.into(),
            key: key.to_owned(),
            idempotency_key: None,
            content_type: "application/json",
            body: Vec::new(),
        }
    }

    /// A JSON body.
    pub(crate) fn json(method: Method, path: impl Into<String>, key: &str, body: &Value) -> Call {
        Call { method, body: body.to_string().into_bytes(), ..Call::get(path, key) }
    }

    /// Under a key by which a repetition is known.
    pub(crate) fn once(mut self, idempotency_key: impl Into<String>) -> Call {
        self.idempotency_key = Some(idempotency_key.into());
        self
    }
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// Null when there is none, or none in JSON.
    pub(crate) body: Value,
}

impl Answer {
    /// The problem's code and words, for a person.
    pub(crate) fn problem(&self) -> String {
        let text = |name: &str| self.body.get(name).and_then(Value::as_str).unwrap_or_default();
        let (code, detail) = (text("code"), text("detail"));
        if code.is_empty() { self.status.to_string() } else { format!("{} {code}: {detail}", self.status.as_u16()) }
    }
}

/// One server, many requests.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    pub(crate) url: String,
}

impl Client {
    /// A client of the server at this address, past any proxy: the demo runs beside it.
    ///
    /// # Errors
    /// When the TLS of this machine can't be set up.
    pub(crate) fn new(url: &str) -> anyhow::Result<Client> {
        let http = reqwest::Client::builder().no_proxy().timeout(TRY_TIME).build().context("could not set up an HTTP client")?;
        Ok(Client { http, url: url.trim_end_matches('/').to_owned() })
    }

    /// Sends a request until it is answered by something else than "later".
    ///
    /// # Errors
    /// No answer, or no other one, for five minutes.
    pub(crate) async fn send(&self, call: &Call) -> anyhow::Result<Answer> {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(100);
        loop {
            let (asked, why) = match self.try_once(call).await {
                Ok((answer, None)) => return Ok(answer),
                Ok((answer, Some(wait))) => (wait, answer.problem()),
                Err(error) => (Duration::ZERO, chain(&error)),
            };
            if begun.elapsed() > PATIENCE {
                bail!("{} {}{} was tried for {} s: {why}", call.method, self.url, call.path, PATIENCE.as_secs());
            }
            tokio::time::sleep(asked.max(pause).min(PAUSE_MAX)).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    /// Sends a request and takes only success for an answer.
    ///
    /// # Errors
    /// No answer, or a problem, in its words.
    pub(crate) async fn expect(&self, call: &Call) -> anyhow::Result<Value> {
        let answer = self.send(call).await?;
        if !answer.status.is_success() {
            bail!("{} {} was refused: {}", call.method, call.path, answer.problem());
        }
        Ok(answer.body)
    }

    /// A gauge without labels of its own, as the server's metrics tell it.
    ///
    /// # Errors
    /// No answer, or none with this gauge.
    pub(crate) async fn gauge(&self, name: &str) -> anyhow::Result<u64> {
        let url = format!("{}/metrics", self.url);
        let text = self.http.get(&url).send().await.with_context(|| format!("{url} gave no answer"))?.text().await?;
        let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        let value = line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok());
        value.with_context(|| format!("{url} has no {name}"))
    }

    /// One try; with an answer that asks to come back later, for how long.
    async fn try_once(&self, call: &Call) -> Result<(Answer, Option<Duration>), reqwest::Error> {
        let mut request = self.http.request(call.method.clone(), format!("{}{}", self.url, call.path));
        if !call.key.is_empty() {
            request = request.bearer_auth(&call.key);
        }
        if let Some(key) = &call.idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        if !call.body.is_empty() {
            request = request.header("Content-Type", call.content_type).body(call.body.clone());
        }
        let response = request.send().await?;
        let status = response.status();
        let seconds = response.headers().get("Retry-After").and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<u64>().ok());
        let bytes = response.bytes().await?;
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let in_progress = status == StatusCode::CONFLICT && body["code"] == "in_progress";
        let later =
            in_progress || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY);
        Ok((Answer { status, body }, later.then(|| Duration::from_secs(seconds.unwrap_or(0)))))
    }

    /// Opens an address that is not the server's own, as a phone does that follows a link.
    ///
    /// # Errors
    /// No answer, or none that says success.
    pub(crate) async fn open(&self, url: &str) -> anyhow::Result<Value> {
        let response =
            self.http.get(url).send().await.map_err(|error| anyhow::anyhow!("the payment page gave no answer: {}", chain(&error)))?;
        let status = response.status();
        let bytes = response.bytes().await.context("the payment page broke off")?;
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.is_success() { Ok(body) } else { bail!("the payment page answered {status}") }
    }
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words.push_str(": ");
        words.push_str(&cause.to_string());
        source = cause.source();
    }
    words
}
