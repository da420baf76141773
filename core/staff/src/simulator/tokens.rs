//! The tokens of the simulated provider, right ones and wrong ones.

use super::keys::{KeyKind, SigningKey};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How long a token is good, in seconds.
const TOKEN_S: i64 = 300;

/// What is wrong with a token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenFault {
    /// Nothing.
    #[default]
    None,
    /// Another log-in's nonce.
    WrongNonce,
    /// None at all.
    NoNonce,
    /// It expired ten minutes ago.
    Expired,
    /// It begins in ten minutes.
    NotYet,
    /// It is for another client.
    WrongAudience,
    /// It is for us and for others, and does not say which of them asked.
    ManyAudiences,
    /// Another client asked for it.
    WrongParty,
    /// Another provider issued it.
    WrongIssuer,
    /// It names nobody.
    NoSubject,
    /// It never expires.
    NoExpiry,
    /// `alg: none`, without a signature.
    AlgorithmNone,
    /// `alg: HS256`, with what is public or shared as the secret.
    AlgorithmHmac,
    /// It names the published key and is signed by another.
    Forged,
    /// It names a key that is not published.
    UnknownKey,
    /// Its claims were changed after they were signed.
    Changed,
    /// It is no token.
    Garbled,
}

/// Whose token it is.
pub(super) struct TokenOf<'a> {
    pub(super) issuer: &'a str,
    pub(super) client_id: &'a str,
    pub(super) nonce: Option<&'a str>,
    pub(super) subject: String,
    pub(super) groups: Vec<String>,
    pub(super) name: &'a str,
    pub(super) now_s: i64,
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

impl TokenOf<'_> {
    fn claims(&self, fault: TokenFault) -> Value {
        let now_s = self.now_s;
        let mut claims = json!({
            "iss": self.issuer, "sub": self.subject, "aud": self.client_id, "iat": now_s, "exp": now_s + TOKEN_S, "auth_time": now_s,
            "groups": self.groups, "name": self.name, "email": format!("{}@example.com", self.name),
        });
        if let Some(nonce) = self.nonce {
            claims["nonce"] = json!(nonce);
        }
        let (name, value) = match fault {
            TokenFault::WrongNonce => ("nonce", json!("of another log-in")),
            TokenFault::NoNonce => ("nonce", Value::Null),
            TokenFault::Expired => ("exp", json!(now_s - 600)),
            TokenFault::NotYet => ("nbf", json!(now_s + 600)),
            TokenFault::WrongAudience => ("aud", json!("another-client")),
            TokenFault::ManyAudiences => ("aud", json!([self.client_id, "another-client"])),
            TokenFault::WrongParty => ("azp", json!("another-client")),
            TokenFault::WrongIssuer => ("iss", json!("https://login.elsewhere.example")),
            TokenFault::NoSubject => ("sub", json!("")),
            TokenFault::NoExpiry => ("exp", Value::Null),
            _ => return claims,
        };
        claims[name] = value;
        claims
    }

    pub(super) fn signed(&self, key: &SigningKey, fault: TokenFault, secret: &str) -> String {
        let claims = self.claims(fault);
        let with = |algorithm: &str, name: &str| {
            let header = json!({ "typ": "JWT", "alg": algorithm, "kid": name });
            format!("{}.{}", part(&header), part(&claims))
        };
        let finish = |message: String, signature: &[u8]| format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
        let by = |signer: &SigningKey, name: &str| {
            let message = with(signer.algorithm(), name);
            let signature = signer.sign(message.as_bytes());
            finish(message, &signature)
        };
        match fault {
            TokenFault::AlgorithmNone => format!("{}.", with("none", &key.name)),
            TokenFault::AlgorithmHmac => {
                let message = with("HS256", &key.name);
                let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), message.as_bytes());
                finish(message, tag.as_ref())
            }
            TokenFault::Forged => {
                let kind = if key.algorithm() == "RS256" { KeyKind::Rs256 } else { KeyKind::Es256 };
                by(&SigningKey::fresh(kind), &key.name)
            }
            TokenFault::UnknownKey => by(key, "never-published"),
            TokenFault::Changed => {
                let token = by(key, &key.name);
                let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
                let mut claims = claims.clone();
                claims["groups"] = json!(["admins"]);
                claims["sub"] = json!("somebody-else");
                parts[1] = part(&claims);
                parts.join(".")
            }
            TokenFault::Garbled => "a.b".to_owned(),
            _ => by(key, &key.name),
        }
    }
}
