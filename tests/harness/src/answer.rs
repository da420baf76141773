//! Requests as one caller sends them, and what comes back.

use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;

/// A caller of a tenant's API: its address and one key, or none for a stranger.
#[derive(Clone, Debug)]
pub struct Caller {
    http: Client,
    url: String,
    key: Option<String>,
}

impl Caller {
    pub(crate) fn new(http: Client, url: String, key: Option<String>) -> Self {
        Self { http, url, key }
    }

    /// The key it sends; empty for a stranger.
    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap_or_default()
    }

    /// A request with the caller's key, for whatever the short forms below do not cover.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.request(Method::POST, path).json(body)).await
    }

    /// A POST that moves money, points or stock: repeated under the same key, it must be done once.
    pub async fn post_once(&self, path: &str, idempotency_key: &str, body: &Value) -> Answer {
        Answer::of(self.request(Method::POST, path).header("Idempotency-Key", idempotency_key).json(body)).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.request(Method::PUT, path).json(body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::DELETE, path)).await
    }
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The request it belongs to, for messages.
    pub request: String,
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    /// Sends a request; panics when no answer comes.
    pub async fn of(request: RequestBuilder) -> Self {
        Self::try_of(request).await.unwrap_or_else(|error| panic!("no answer: {error:?}"))
    }

    /// Sends a request that may get no answer, because its server is being killed.
    pub async fn try_of(request: RequestBuilder) -> Result<Self, reqwest::Error> {
        let (client, request) = request.build_split();
        let request = request?;
        let name = format!("{} {}", request.method(), request.url().path());
        let response = client.execute(request).await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Self { request: name, status, headers, body: response.bytes().await?.to_vec() })
    }

    /// The JSON body of an answer that must have this status; panics with the body when it has another.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        self.expect_status(status);
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// Panics with the body when the answer has another status.
    #[track_caller]
    pub fn expect_status(&self, status: u16) {
        assert_eq!(self.status, status, "{}: {}", self.request, self.text());
    }

    /// The stable code of a problem that must have this status.
    #[track_caller]
    pub fn problem(&self, status: u16) -> String {
        let problem = self.expect(status);
        let media_type = self.header("content-type").unwrap_or_default();
        assert!(media_type.starts_with("application/problem+json"), "{}: {media_type}: {problem}", self.request);
        problem["code"].as_str().unwrap_or_else(|| panic!("{}: a problem without a code: {problem}", self.request)).to_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{}: {error} in {}", self.request, self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}
