//! The tokens of the simulated provider, right ones and wrong ones.

use super::keys::{KeyKind, SigningKey};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How long a token is good, in seconds.
const TOKEN_S: i64 = 300;

/// What is wrong with a token, of a log-in or of a log-out.
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

/// What is wrong with a token that tells of a log-out, beside what may be wrong with any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogOutFault {
    /// Nothing.
    #[default]
    None,
    /// It tells of no event.
    NoEvents,
    /// It tells of another event.
    OtherEvent,
    /// It has a nonce, as tokens of log-ins have.
    Nonce,
    /// It has no name of its own.
    NoTokenId,
    /// It names neither a person nor a session.
    Nobody,
    /// It was issued ten minutes ago.
    Old,
}

/// Whom a token tells of that tells of a log-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogOutOf {
    /// A session at the provider (`sid`).
    Session,
    /// A person with every session (`sub`).
    Person,
    /// A session of a person.
    Both,
}

/// By whom and for whom a token is, and when.
pub(super) struct TokenOf<'a> {
    pub(super) issuer: &'a str,
    pub(super) client_id: &'a str,
    pub(super) now_s: i64,
}

/// Of whom a token of a log-in is, and what it says of them.
pub(super) struct Person<'a> {
    pub(super) name: &'a str,
    pub(super) subject: String,
    pub(super) session: Option<&'a str>,
    pub(super) groups: Option<Vec<String>>,
    pub(super) nonce: Option<&'a str>,
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

impl TokenOf<'_> {
    fn issued(&self) -> Value {
        let now_s = self.now_s;
        json!({ "iss": self.issuer, "aud": self.client_id, "iat": now_s, "exp": now_s + TOKEN_S })
    }

    /// The claims of a log-in.
    pub(super) fn log_in(&self, person: Person<'_>) -> Value {
        let mut claims = self.issued();
        let email = format!("{}@example.com", person.name);
        let said = json!({ "sub": person.subject, "auth_time": self.now_s, "name": person.name, "email": email });
        for (name, value) in said.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        let more = [
            ("groups", person.groups.map(Value::from)),
            ("nonce", person.nonce.map(Value::from)),
            ("sid", person.session.map(Value::from)),
        ];
        for (name, value) in more {
            if let Some(value) = value {
                claims[name] = value;
            }
        }
        claims
    }

    /// The claims of a log-out.
    pub(super) fn log_out(&self, subject: Option<String>, session: Option<String>, fault: LogOutFault) -> Value {
        let random: [u8; 16] = rand::random();
        let mut claims = self.issued();
        claims["jti"] = json!(URL_SAFE_NO_PAD.encode(random));
        claims["events"] = json!({ "http://schemas.openid.net/event/backchannel-logout": {} });
        for (name, value) in [("sub", subject), ("sid", session)] {
            if let Some(value) = value.filter(|_| fault != LogOutFault::Nobody) {
                claims[name] = json!(value);
            }
        }
        let (name, value) = match fault {
            LogOutFault::NoEvents => ("events", json!({})),
            LogOutFault::OtherEvent => ("events", json!({ "https://login.example.com/event/password-changed": {} })),
            LogOutFault::Nonce => ("nonce", json!("of a log-in")),
            LogOutFault::NoTokenId => ("jti", json!("")),
            LogOutFault::Old => ("iat", json!(self.now_s - 600)),
            LogOutFault::None | LogOutFault::Nobody => return claims,
        };
        claims[name] = value;
        claims
    }

    fn spoil(&self, claims: &mut Value, fault: TokenFault) {
        let now_s = self.now_s;
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
            _ => return,
        };
        claims[name] = value;
    }

    /// Claims as a token of this type, signed or what it was told to do instead.
    pub(super) fn signed(&self, kind: &str, mut claims: Value, key: &SigningKey, fault: TokenFault, secret: &str) -> String {
        self.spoil(&mut claims, fault);
        let with = |algorithm: &str, name: &str| {
            let header = json!({ "typ": kind, "alg": algorithm, "kid": name });
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
