//! An identity's connections to an API server, kept from one request to the next; and watches on them.

use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value;

/// Speaks to one API server as somebody.
#[derive(Clone, Debug)]
pub struct ApiClient {
    client: Client,
    url: String,
    token: Option<String>,
}

impl ApiClient {
    pub(super) fn new(client: Client, url: String, token: Option<String>) -> Self {
        Self { client, url, token }
    }

    /// A request of a path.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// What is at a path; `None` where that is refused or nobody answers.
    pub async fn get(&self, path: &str) -> Option<Value> {
        self.request(Method::GET, path).send().await.ok()?.error_for_status().ok()?.json().await.ok()
    }

    /// Watches a path, which has a query: what is there first, or what comes after the version that it names.
    pub async fn watch(&self, path: &str) -> Option<Watch> {
        let answer = self.request(Method::GET, &format!("{path}&watch=1")).send().await.ok()?.error_for_status().ok()?;
        Some(Watch { answer, told: Vec::new(), read: 0 })
    }
}

/// Events of a watch, one after the other.
#[derive(Debug)]
pub struct Watch {
    answer: Response,
    told: Vec<u8>,
    /// Bytes of `told` that have been given out.
    read: usize,
}

impl Watch {
    /// The next event with its `type` and `object`; `None` at the end of the watch, however it ends. Nothing is lost where this is not
    /// waited for to its end.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.told[self.read..].iter().position(|byte| *byte == b'\n') {
                let line = self.read..self.read + end;
                self.read = line.end + 1;
                return serde_json::from_slice(&self.told[line]).ok();
            }
            self.told.drain(..self.read);
            self.read = 0;
            let chunk = self.answer.chunk().await.ok()??;
            self.told.extend_from_slice(&chunk);
        }
    }
}
