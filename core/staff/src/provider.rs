//! The way to the provider: what it says about itself, its keys, codes exchanged for tokens, and what it says of people and of log-outs, each
//! bounded in time, size and rate.

mod userinfo;

use crate::claims::{self, Claims, Expected};
use crate::log_out_token::LogOutClaims;
use crate::refusal::Refusal;
use crate::settings::{Checked, RolesFrom, is_guarded};
use crate::ticket::Ticket;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use heyuan_kernel::outbound::{self, Answer, away, busy};
use heyuan_kernel::{Clock, Problem};
use jsonwebtoken::Algorithm;
use jsonwebtoken::jwk::Jwk;
use reqwest::{Client, RequestBuilder, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::Mutex;
use url::form_urlencoded;

/// Who is asked, in words.
const WHO: &str = "the log-in provider";
/// What the provider says about itself and its keys is asked for anew after this long.
const FRESH_MS: i64 = 3_600_000;
/// While it is away, what it said before counts for this long.
const STALE_MS: i64 = 24 * 3_600_000;
/// A provider that did not answer is left alone for this long: others who wait hear so at once.
const PAUSE_MS: i64 = 5_000;
/// Looks at the keys for one that is not known, in a minute: whoever makes up names of keys makes us ask no more often.
const KEY_LOOKS_A_MINUTE_MAX: usize = 5;
/// Keys of a provider that are kept.
const KEYS_MAX: usize = 100;

/// Why a code leads to nobody, or a token means nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The provider can't be asked, or does not answer as one does. This says nothing about the person.
    Away(Problem),
    /// It does not take the code, or what it says is not believed.
    Disbelieved(Refusal),
}

/// What the provider says of somebody whom it sent back.
pub(crate) struct Vouched {
    /// What it calls the person.
    pub(crate) subject: String,
    /// What it calls the person's session there, where it names one.
    pub(crate) session: Option<String>,
    /// When it said so, in seconds by its own clock.
    pub(crate) at_s: i64,
    /// The roles, from where the settings say.
    pub(crate) roles: Vec<String>,
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Failure {
        Failure::Away(problem)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::Disbelieved(refusal)
    }
}

/// What a provider says about itself (OpenID Connect Discovery 1.0).
#[derive(Debug, Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

#[derive(Deserialize)]
struct PublishedKeys {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    id_token: Option<String>,
    access_token: Option<String>,
}

/// What a code is exchanged for.
struct Exchanged {
    id_token: String,
    /// Opens the userinfo endpoint; nothing else is asked with it.
    access_token: Option<String>,
}

#[derive(Deserialize)]
struct TokenError {
    error: String,
}

/// What was heard last, and when it was not.
struct Heard<T> {
    value: Option<(Arc<T>, i64)>,
    failed: Option<(Problem, i64)>,
}

impl<T> Default for Heard<T> {
    fn default() -> Heard<T> {
        Heard { value: None, failed: None }
    }
}

impl<T> Heard<T> {
    fn younger_than(&self, ms: i64, now: i64) -> Option<Arc<T>> {
        self.value.as_ref().filter(|(_, at)| now - at < ms).map(|(value, _)| value.clone())
    }

    /// What counts without asking again; `None` when it is time to ask.
    fn known(&self, now: i64) -> Option<Result<Arc<T>, Problem>> {
        if let Some(value) = self.younger_than(FRESH_MS, now) {
            return Some(Ok(value));
        }
        let (problem, _) = self.failed.as_ref().filter(|(_, at)| now - at < PAUSE_MS)?;
        Some(self.younger_than(STALE_MS, now).ok_or_else(|| problem.clone()))
    }

    fn hears(&mut self, now: i64, answer: Result<T, Problem>) -> Result<Arc<T>, Problem> {
        match answer {
            Ok(value) => {
                let value = Arc::new(value);
                *self = Heard { value: Some((value.clone(), now)), failed: None };
                Ok(value)
            }
            Err(problem) => {
                self.failed = Some((problem.clone(), now));
                self.younger_than(STALE_MS, now).ok_or(problem)
            }
        }
    }
}

#[derive(Default)]
struct Known {
    metadata: Heard<Metadata>,
    keys: Heard<Vec<Jwk>>,
    looks: VecDeque<i64>,
}

impl Known {
    /// Whether the keys may be looked at again for one that is not known.
    fn may_look(&mut self, now: i64) -> bool {
        self.looks.retain(|at| (0..60_000).contains(&(now - at)));
        let may = self.looks.len() < KEY_LOOKS_A_MINUTE_MAX;
        if may {
            self.looks.push_back(now);
        }
        may
    }
}

/// The provider of the settings. Nothing is asked before somebody logs in.
pub(crate) struct Provider {
    pub(crate) settings: Checked,
    http: Client,
    clock: Clock,
    /// Held while one asks, so that a crowd asks once.
    known: Mutex<Known>,
}

impl Provider {
    pub(crate) fn new(settings: Checked, clock: Clock) -> Provider {
        let http = outbound::client(settings.timeout_ms);
        Provider { settings, http, clock, known: Mutex::default() }
    }

    /// Where a person goes to log in.
    pub(crate) async fn address(&self, ticket: &Ticket) -> Result<Url, Problem> {
        let metadata = self.metadata(&mut *self.known.lock().await).await?;
        let settings = &self.settings;
        let challenge = ticket.challenge();
        let query = [
            ("response_type", "code"),
            ("client_id", settings.client_id.as_str()),
            ("redirect_uri", settings.redirect_url.as_str()),
            ("scope", settings.ask_for.as_str()),
            ("state", ticket.state.as_str()),
            ("nonce", ticket.nonce.as_str()),
            ("code_challenge", challenge.as_str()),
            ("code_challenge_method", "S256"),
        ];
        let mut address = Url::parse(&metadata.authorization_endpoint).map_err(|_| unreadable("its address to log in at is none"))?;
        address.query_pairs_mut().extend_pairs(query);
        Ok(address)
    }

    /// Exchanges a code, which the provider does once, and reads what it says of the person. `issuer` is what came back with the code (RFC
    /// 9207).
    pub(crate) async fn vouch(&self, ticket: &Ticket, code: &str, issuer: Option<&str>) -> Result<Vouched, Failure> {
        let metadata = self.metadata(&mut *self.known.lock().await).await?;
        let is_its_answer = match issuer {
            Some(issuer) => issuer == self.settings.issuer,
            None => !metadata.authorization_response_iss_parameter_supported,
        };
        if !is_its_answer {
            return Err(Refusal::Issuer.into());
        }
        let Exchanged { id_token, access_token } = self.exchange(&metadata, ticket, code).await?;
        let claims: Claims = self.signed(&id_token).await?;
        claims.check(&self.expected(), &ticket.nonce)?;
        let claim = &self.settings.roles_claim;
        let roles = match self.settings.roles_from {
            RolesFrom::IdToken => claims.roles(claim),
            RolesFrom::Userinfo => claims::roles_in(&self.userinfo(&metadata, access_token.as_deref(), claims.subject()).await?, claim),
        };
        let (subject, session) = (claims.subject().to_owned(), claims.session().map(str::to_owned));
        Ok(Vouched { subject, session, at_s: claims.issued.at_s(), roles })
    }

    /// Reads a log-out token, which anybody may have brought. Whether it came before is not known here.
    pub(crate) async fn told(&self, token: &str) -> Result<LogOutClaims, Failure> {
        let claims: LogOutClaims = self.signed(token).await?;
        claims.check(&self.expected())?;
        Ok(claims)
    }

    fn expected(&self) -> Expected<'_> {
        let now_s = self.clock.now().ms().div_euclid(1000);
        Expected { issuer: &self.settings.issuer, client_id: &self.settings.client_id, now_s }
    }

    /// The claims of a token that one of the provider's keys has signed.
    async fn signed<T: DeserializeOwned + Clone>(&self, token: &str) -> Result<T, Failure> {
        let (kid, algorithm) = claims::signed_by(token)?;
        let key = self.key(kid.as_deref(), algorithm).await?;
        Ok(claims::read(token, &key, algorithm)?)
    }

    async fn metadata(&self, known: &mut Known) -> Result<Arc<Metadata>, Problem> {
        if let Some(known) = known.metadata.known(self.clock.now().ms()) {
            return known;
        }
        let answer = self.ask_metadata().await;
        known.metadata.hears(self.clock.now().ms(), answer)
    }

    async fn ask_metadata(&self) -> Result<Metadata, Problem> {
        let address = format!("{}/.well-known/openid-configuration", self.settings.issuer.trim_end_matches('/'));
        let metadata: Metadata = self.ask(self.http.get(address)).await?;
        if metadata.issuer != self.settings.issuer {
            return Err(unreadable("it calls itself by another name than the setting staff.issuer"));
        }
        let scheme = self.settings.issuer.split(':').next();
        let is_safe = |text: &String| Url::parse(text).is_ok_and(|url| is_guarded(&url) && Some(url.scheme()) == scheme);
        let mut asked = vec![&metadata.authorization_endpoint, &metadata.token_endpoint, &metadata.jwks_uri];
        if self.settings.roles_from == RolesFrom::Userinfo {
            let words = "it names no userinfo endpoint, where the setting staff.roles_from has roles read";
            asked.push(metadata.userinfo_endpoint.as_ref().ok_or_else(|| unreadable(words))?);
        }
        if !asked.into_iter().all(is_safe) {
            return Err(unreadable("it names addresses that are not https"));
        }
        Ok(metadata)
    }

    /// The key of this name; an unknown one is looked for anew, since providers change their keys.
    async fn key(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Jwk, Failure> {
        let mut known = self.known.lock().await;
        let metadata = self.metadata(&mut known).await?;
        if let Some(keys) = known.keys.known(self.clock.now().ms()) {
            if let Some(key) = claims::pick(&keys?, kid, algorithm) {
                return Ok(key.clone());
            }
            if !known.may_look(self.clock.now().ms()) {
                return Err(Refusal::UnknownKey.into());
            }
        }
        let answer = self.ask_keys(&metadata).await;
        let keys = known.keys.hears(self.clock.now().ms(), answer)?;
        Ok(claims::pick(&keys, kid, algorithm).cloned().ok_or(Refusal::UnknownKey)?)
    }

    async fn ask_keys(&self, metadata: &Metadata) -> Result<Vec<Jwk>, Problem> {
        let published: PublishedKeys = self.ask(self.http.get(&metadata.jwks_uri)).await?;
        // Keys of kinds that we do not know stand beside those that we do.
        Ok(published.keys.into_iter().take(KEYS_MAX).filter_map(|key| serde_json::from_value(key).ok()).collect())
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Problem> {
        let answer = outbound::send(WHO, request).await.map_err(|failure| away(WHO, failure))?;
        if answer.status != 200 {
            return Err(unreadable("it answers with an error"));
        }
        serde_json::from_slice(&answer.body).map_err(|_| unreadable("its answer can't be read"))
    }

    async fn exchange(&self, metadata: &Metadata, ticket: &Ticket, code: &str) -> Result<Exchanged, Failure> {
        let request = self.asked_for_token(metadata, ticket, code);
        let answer = outbound::send(WHO, request).await.map_err(|failure| away(WHO, failure))?;
        exchanged(&answer)
    }

    fn asked_for_token(&self, metadata: &Metadata, ticket: &Ticket, code: &str) -> RequestBuilder {
        let settings = &self.settings;
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs([("grant_type", "authorization_code"), ("code", code), ("redirect_uri", settings.redirect_url.as_str())]);
        form.append_pair("code_verifier", &ticket.verifier);
        let mut request = self.http.post(&metadata.token_endpoint).header("Content-Type", "application/x-www-form-urlencoded");
        let methods = &metadata.token_endpoint_auth_methods_supported;
        let has = |name: &str| methods.iter().any(|method| method == name);
        if has("client_secret_post") && !has("client_secret_basic") {
            form.extend_pairs([("client_id", settings.client_id.as_str()), ("client_secret", settings.client_secret.text())]);
        } else {
            let escaped = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            let both = format!("{}:{}", escaped(&settings.client_id), escaped(settings.client_secret.text()));
            request = request.header("Authorization", format!("Basic {}", STANDARD.encode(both)));
        }
        request.body(form.finish())
    }
}

/// The tokens of an answer, or what the answer means.
fn exchanged(answer: &Answer) -> Result<Exchanged, Failure> {
    if answer.status == 200 {
        let answer: Result<TokenAnswer, _> = serde_json::from_slice(&answer.body);
        let TokenAnswer { id_token, access_token } = answer.map_err(|_| unreadable("its answer can't be read"))?;
        let words = "it answers no id_token; the setting staff.ask_for has to hold openid";
        return Ok(Exchanged { id_token: id_token.ok_or_else(|| unreadable(words))?, access_token });
    }
    if !(400..500).contains(&answer.status) || answer.status == 429 {
        return Err(unreadable("it answers with an error").into());
    }
    let error = serde_json::from_slice::<TokenError>(&answer.body).map(|answer| answer.error).unwrap_or_default();
    if error == "invalid_grant" {
        return Err(Refusal::Code.into());
    }
    tracing::error!(status = answer.status, "the log-in provider refuses us; look at staff.client_id, client_secret and redirect_url");
    Err(busy(WHO, "it refuses us, which somebody who reads the log has to mend").into())
}

fn unreadable(why: &str) -> Problem {
    tracing::warn!(why, "the log-in provider can't be used");
    busy(WHO, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_to_a_code_means_one_thing() {
        for (status, body, expected) in [
            (200, r#"{"id_token":"t","token_type":"Bearer"}"#, Ok("t")),
            (200, r#"{"access_token":"a"}"#, Err("unavailable")),
            (200, "<html>", Err("unavailable")),
            (302, "", Err("unavailable")),
            (400, r#"{"error":"invalid_grant"}"#, Err("code")),
            (400, r#"{"error":"invalid_request"}"#, Err("unavailable")),
            (401, r#"{"error":"invalid_client"}"#, Err("unavailable")),
            (403, "", Err("unavailable")),
            (429, r#"{"error":"invalid_grant"}"#, Err("unavailable")),
            (500, r#"{"id_token":"t"}"#, Err("unavailable")),
        ] {
            let read = exchanged(&Answer { status, body: body.as_bytes().to_vec() });
            let code = read.map(|exchanged| exchanged.id_token).map_err(|failure| match failure {
                Failure::Away(problem) => problem.code().code,
                Failure::Disbelieved(refusal) => refusal.reason(),
            });
            assert_eq!(code.as_deref().map_err(|code| *code), expected, "{status} {body}");
        }
    }

    #[test]
    fn what_was_heard_counts_for_its_time_and_longer_while_nobody_answers() {
        let mut heard = Heard::default();
        let failure = || busy(WHO, "test");
        assert!(heard.known(0).is_none());
        assert!(heard.hears(0, Err(failure())).is_err());
        assert!(heard.known(PAUSE_MS - 1).is_some_and(|known| known.is_err()), "it is left alone");
        assert!(heard.known(PAUSE_MS).is_none());
        assert_eq!(heard.hears(0, Ok(1)).map(|value| *value), Ok(1));
        assert!(heard.known(FRESH_MS - 1).is_some() && heard.known(FRESH_MS).is_none());
        assert_eq!(heard.hears(FRESH_MS, Err(failure())).map(|value| *value), Ok(1));
        assert!(heard.known(FRESH_MS).is_some_and(|known| known.is_ok_and(|value| *value == 1)));
        assert!(heard.hears(STALE_MS, Err(failure())).is_err());
    }
}
