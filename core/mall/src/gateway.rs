//! How the mall and the payment gateway speak: a shared secret, signed bodies, and the client that asks for refunds.

use crate::Settings;
use heyuan_kernel::config::Secret;
use heyuan_kernel::guard;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::time::Duration;

/// The header that carries a body's signature.
pub(crate) const SIGNATURE: &str = "X-Signature";
/// The gateway has this long to answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// The signature of a body: HMAC-SHA-256 under the shared secret, in lower-case hex.
pub fn sign(secret: &Secret, body: &[u8]) -> String {
    hex::encode(mac(secret, body).finalize().into_bytes())
}

/// Whether a signature is a body's, compared in constant time.
pub(crate) fn is_signed(secret: &Secret, body: &[u8], signature: &str) -> bool {
    hex::decode(signature).is_ok_and(|bytes| mac(secret, body).verify_slice(&bytes).is_ok())
}

fn mac(secret: &Secret, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret.text().as_bytes()).expect("HMAC takes a key of any length");
    mac.update(body);
    mac
}

/// What the gateway tells about a payment or a refund. Fields that we don't know are the gateway's own business.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Notice {
    /// The gateway's own id of this fact.
    pub(crate) event_id: String,
    /// `payment.succeeded` or `refund.succeeded`.
    pub(crate) kind: String,
    /// The payment's id, or the refund request's.
    pub(crate) reference: String,
    /// The gateway's number of the charge.
    pub(crate) transaction: String,
    /// Fen.
    pub(crate) amount: i64,
    /// `CNY`
    pub(crate) currency: String,
    /// When it happened, RFC 3339.
    pub(crate) timestamp: heyuan_kernel::Rfc3339,
}

/// What the mall asks the gateway for; the gateway gives the money back once per `request`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RefundOrder {
    pub(crate) request: String,
    pub(crate) reference: String,
    pub(crate) transaction: String,
    pub(crate) amount: i64,
    pub(crate) currency: String,
}

/// The way to the gateway.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    target: Option<(String, Secret)>,
}

impl Client {
    pub(crate) fn new(settings: &Settings) -> Client {
        let http = reqwest::Client::builder().timeout(ANSWER_TIME).no_proxy().build().unwrap_or_default();
        let url = settings.gateway_url.as_ref().map(|url| url.trim_end_matches('/').to_owned());
        Client { http, target: url.zip(settings.payment_secret.clone()) }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.target.is_some()
    }

    /// Where the member pays: a signed address, so that nobody changes reference or amount on the way.
    pub(crate) fn pay_url(&self, reference: &str, amount: i64, expires_at_ms: i64) -> Option<String> {
        let (url, secret) = self.target.as_ref()?;
        let query = format!("reference={reference}&amount={amount}&currency=CNY&expires_at_ms={expires_at_ms}");
        let signature = sign(secret, query.as_bytes());
        Some(format!("{url}/pay?{query}&signature={signature}"))
    }

    /// Asks for a refund; words about the failure otherwise.
    pub(crate) async fn refund(&self, order: &RefundOrder) -> Result<(), String> {
        guard::outside_unit("a request to the payment gateway");
        let Some((url, secret)) = &self.target else { return Err("no payment gateway is set up".into()) };
        let body = serde_json::to_vec(order).map_err(|e| e.to_string())?;
        let request = self.http.post(format!("{url}/refunds")).header(SIGNATURE, sign(secret, &body));
        let answer = request.header("Content-Type", "application/json").body(body).send().await.map_err(|e| e.without_url().to_string())?;
        if answer.status().is_success() { Ok(()) } else { Err(format!("the gateway answered {}", answer.status())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_signs_and_only_that_body() {
        let secret = Secret::new("quiet");
        let signature = sign(&secret, b"{}");
        assert!(is_signed(&secret, b"{}", &signature));
        for (body, signature) in [(b"{ }".as_slice(), signature.as_str()), (b"{}", "00"), (b"{}", ""), (b"{}", "not hex")] {
            assert!(!is_signed(&secret, body, signature));
        }
        assert!(!is_signed(&Secret::new("other"), b"{}", &signature));
    }
}
