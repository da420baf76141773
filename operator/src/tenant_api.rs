//! The operator's side of a tenant's operator port: what it asks of a process, and what it makes of the answers.

use crate::master::Hidden;
use crate::name::OPERATOR_PORT;
use crate::world::Answers;
use serde::Deserialize;
use serde_json::Value;
use std::net::IpAddr;
use std::time::Duration;

/// How long a process may take to answer.
const CALL: Duration = Duration::from_secs(5);
/// How long it may take to check and compile a plugin.
const PLUGIN_CALL: Duration = Duration::from_secs(120);
/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// What a process says of its database connections.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct DatabaseStatus {
    /// Which content of the credentials file is in use.
    pub(crate) generation: String,
    /// Connections of older contents that are still open.
    pub(crate) connections_draining: i64,
}

/// What a process says of a plugin.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PluginSeen {
    /// Its name.
    pub(crate) name: String,
    /// Whom the name belongs to: `api` or `operator`.
    pub(crate) managed_by: String,
}

/// What a process says of itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ProcessStatus {
    /// Its database connections.
    pub(crate) database: DatabaseStatus,
    /// Its plugins.
    pub(crate) plugins: Vec<PluginSeen>,
}

/// A process did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TenantError {
    /// It does not answer.
    #[error("{address} does not answer: {cause}")]
    Silent {
        /// Who was asked.
        address: IpAddr,
        /// Why, in words.
        cause: String,
    },
    /// It answers that it can't or won't.
    #[error("{address} answered {status} {code}: {detail}")]
    Refused {
        /// Who was asked.
        address: IpAddr,
        /// The answer's status.
        status: u16,
        /// The problem's code.
        code: String,
        /// The problem's words.
        detail: String,
    },
}

impl TenantError {
    /// The status of a refusal.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            TenantError::Refused { status, .. } => Some(*status),
            TenantError::Silent { .. } => None,
        }
    }
}

/// Talks to tenants' processes.
#[derive(Debug, Clone)]
pub(crate) struct TenantApi {
    client: reqwest::Client,
}

impl TenantApi {
    /// A client that follows no redirect and uses no proxy: pods are asked at their own addresses.
    ///
    /// # Errors
    /// Where TLS can't be set up.
    pub(crate) fn new() -> Result<TenantApi, reqwest::Error> {
        let client = reqwest::Client::builder().timeout(CALL).redirect(reqwest::redirect::Policy::none()).no_proxy().build()?;
        Ok(TenantApi { client })
    }

    /// What a process says of itself.
    pub(crate) async fn status(&self, address: IpAddr, key: &Hidden) -> Result<ProcessStatus, TenantError> {
        let answer = self.ask(reqwest::Method::GET, address, key, "/v1/operator/status", None).await?;
        serde_json::from_value(answer).map_err(|error| TenantError::Silent { address, cause: error.to_string() })
    }

    /// Gives a process something to put in place.
    pub(crate) async fn put(&self, address: IpAddr, key: &Hidden, path: &str, body: &Value) -> Result<Value, TenantError> {
        self.ask(reqwest::Method::PUT, address, key, path, Some(body)).await
    }

    /// Tells a process to take something away.
    pub(crate) async fn delete(&self, address: IpAddr, key: &Hidden, path: &str) -> Result<Value, TenantError> {
        self.ask(reqwest::Method::DELETE, address, key, path, None).await
    }

    async fn ask(
        &self,
        method: reqwest::Method,
        address: IpAddr,
        key: &Hidden,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, TenantError> {
        let silent = |error: reqwest::Error| TenantError::Silent { address, cause: chain(&error) };
        let mut request = self.client.request(method, url(address, path)).bearer_auth(key.reveal());
        if let Some(body) = body {
            request = request.json(body).timeout(PLUGIN_CALL);
        }
        let mut answer = request.send().await.map_err(silent)?;
        let status = answer.status().as_u16();
        let text = read_bounded(&mut answer).await.map_err(silent)?;
        let value: Value = serde_json::from_slice(&text).unwrap_or_default();
        if (200..300).contains(&status) {
            return Ok(value);
        }
        let word = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        Err(TenantError::Refused { address, status, code: word("code"), detail: word("detail") })
    }

    /// How a process has answered since its start.
    pub(crate) async fn answers(&self, address: IpAddr) -> Result<Answers, TenantError> {
        let silent = |error: reqwest::Error| TenantError::Silent { address, cause: chain(&error) };
        let mut answer = self.client.get(url(address, "/metrics")).send().await.map_err(silent)?;
        let text = read_bounded(&mut answer).await.map_err(silent)?;
        Ok(count_answers(&String::from_utf8_lossy(&text)))
    }
}

fn url(address: IpAddr, path: &str) -> String {
    match address {
        IpAddr::V4(address) => format!("http://{address}:{OPERATOR_PORT}{path}"),
        IpAddr::V6(address) => format!("http://[{address}]:{OPERATOR_PORT}{path}"),
    }
}

async fn read_bounded(answer: &mut reqwest::Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut text = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if text.len() + chunk.len() > ANSWER_BYTES_MAX {
            break;
        }
        text.extend_from_slice(&chunk);
    }
    Ok(text)
}

/// An error with its causes, without the address of the request.
fn chain(error: &reqwest::Error) -> String {
    let mut words = Vec::new();
    let mut next: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(cause) = next {
        words.push(cause.to_string());
        next = cause.source();
    }
    if words.is_empty() {
        if error.is_timeout() { "it took too long".to_owned() } else { "the connection failed".to_owned() }
    } else {
        words.join(": ")
    }
}

/// Sums `http_server_request_duration_seconds_count` of the Prometheus text format by whether its status begins with a 5.
pub(crate) fn count_answers(text: &str) -> Answers {
    let mut answers = Answers::default();
    for line in text.lines().filter(|line| line.starts_with("http_server_request_duration_seconds_count{")) {
        // A probe of a process that is not ready yet is answered as it should be.
        if ["\"/readyz\"", "\"/livez\"", "\"/metrics\""].iter().any(|route| line.contains(route)) {
            continue;
        }
        let Some((labels, count)) = line.rsplit_once(' ') else { continue };
        let Ok(count) = count.parse::<u64>() else { continue };
        answers.all += count;
        if labels.contains("status_code=\"5") {
            answers.errors += count;
        }
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_status() {
        let text = "# HELP x y\n\
            http_server_request_duration_seconds_bucket{http_response_status_code=\"500\",le=\"1\"} 7\n\
            http_server_request_duration_seconds_count{http_request_method=\"GET\",http_response_status_code=\"200\"} 40\n\
            http_server_request_duration_seconds_count{http_request_method=\"GET\",http_response_status_code=\"503\"} 2\n\
            http_server_request_duration_seconds_count{http_response_status_code=\"503\",http_route=\"/readyz\"} 5\n\
            other{status_code=\"500\"} 9\n";
        assert_eq!(count_answers(text), Answers { all: 42, errors: 2 });
    }
}
