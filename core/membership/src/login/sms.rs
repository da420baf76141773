//! Whoever sends codes to phones: one request a code, by a plain protocol that a group's own gateway speaks to its provider.

use super::settings::LoginSettings;
use heyuan_kernel::Problem;
use heyuan_kernel::config::Secret;
use heyuan_kernel::outbound::{self, Failure};
use heyuan_kernel::secret::sha256_hex;
use reqwest::Client;
use serde_json::json;

/// Who is asked, in words.
const WHO: &str = "the SMS provider";
const MINUTES: i64 = super::phone_code::CODE_TIME_MS / 60_000;

/// The way to the provider.
pub(super) struct Sms {
    http: Client,
    target: Option<(String, Option<Secret>)>,
}

/// Why a code may not have been sent.
#[derive(Debug)]
pub(super) enum NotSent {
    /// It was not taken.
    Refused(Problem),
    /// It may be on its way.
    Unknown(Problem),
}

impl Sms {
    pub(super) fn new(settings: &LoginSettings) -> Sms {
        Sms { http: outbound::client(settings.timeout_ms), target: settings.sms_url.clone().map(|url| (url, settings.sms_secret.clone())) }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.target.is_some()
    }

    /// Has a code sent. `request` names it for a provider that sends each request once.
    pub(super) async fn send(&self, app: &str, phone: &str, code: &str) -> Result<(), NotSent> {
        let Some((url, secret)) = &self.target else {
            return Err(NotSent::Refused(outbound::busy(WHO, "none is set up")));
        };
        let random: [u8; 16] = rand::random();
        let body = json!({ "request": sha256_hex(&random)[..32], "app": app, "phone": phone, "code": code, "minutes": MINUTES });
        let mut request = self.http.post(url).json(&body);
        if let Some(secret) = secret {
            request = request.bearer_auth(secret.text());
        }
        match outbound::send(WHO, request).await {
            Ok(answer) if (200..300).contains(&answer.status) => Ok(()),
            Ok(answer) => {
                tracing::warn!(status = answer.status, "the SMS provider does not send a code");
                Err(NotSent::Refused(outbound::busy(WHO, "it does not take the code")))
            }
            Err(Failure::TimedOut) => Err(NotSent::Unknown(outbound::away(WHO, Failure::TimedOut))),
            Err(failure) => Err(NotSent::Refused(outbound::away(WHO, failure))),
        }
    }
}
