//! What the provider's tokens say: those of log-ins, and what they share with those of log-outs.

use crate::refusal::Refusal;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// How far the provider's clock and ours may be apart, in seconds.
pub(crate) const LEEWAY_S: i64 = 60;
/// Longest token that is looked at, in bytes; people with hundreds of groups have long ones.
const TOKEN_BYTES_MAX: usize = 32 * 1024;
/// Longest name that a provider may have for a person, and for a session or a token, in bytes (OpenID Connect Core 1.0, section 2).
const NAME_BYTES_MAX: usize = 255;
/// Roles of a person that are looked at.
const ROLES_MAX: usize = 1000;

/// One name or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn names(&self) -> &[String] {
        match self {
            OneOrMany::One(name) => std::slice::from_ref(name),
            OneOrMany::Many(names) => names,
        }
    }
}

/// What every token of a provider has: by whom, for whom and when.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Issued {
    iss: String,
    aud: OneOrMany,
    exp: i64,
    iat: i64,
    nbf: Option<i64>,
    azp: Option<String>,
}

/// By whom and for whom a token has to be, and what time it is.
pub(crate) struct Expected<'a> {
    pub(crate) issuer: &'a str,
    pub(crate) client_id: &'a str,
    pub(crate) now_s: i64,
}

impl Issued {
    /// When it was issued, in seconds by the provider's clock.
    pub(crate) fn at_s(&self) -> i64 {
        self.iat
    }

    pub(crate) fn check(&self, expected: &Expected<'_>) -> Result<(), Refusal> {
        if self.iss != expected.issuer {
            return Err(Refusal::Issuer);
        }
        let audience = self.aud.names();
        let is_ours = audience.iter().any(|name| name == expected.client_id);
        let party = self.azp.as_deref();
        if !is_ours || party.is_some_and(|party| party != expected.client_id) || audience.len() > 1 && party.is_none() {
            return Err(Refusal::Audience);
        }
        if self.exp.saturating_add(LEEWAY_S) <= expected.now_s {
            return Err(Refusal::Expired);
        }
        let begins = self.nbf.unwrap_or(self.iat).max(self.iat);
        if begins > expected.now_s.saturating_add(LEEWAY_S) {
            return Err(Refusal::NotYet);
        }
        Ok(())
    }
}

/// The claims of an ID token whose signature holds.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Claims {
    #[serde(flatten)]
    pub(crate) issued: Issued,
    sub: String,
    nonce: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Claims {
    /// What the provider calls the person.
    pub(crate) fn subject(&self) -> &str {
        &self.sub
    }

    /// What the provider calls the person's session there, where it names one.
    pub(crate) fn session(&self) -> Option<&str> {
        self.rest.get("sid").and_then(Value::as_str).filter(|sid| is_name(sid))
    }

    /// Checks everything that a signature does not show (OpenID Connect Core 1.0, section 3.1.3.7).
    pub(crate) fn check(&self, expected: &Expected<'_>, nonce: &str) -> Result<(), Refusal> {
        self.issued.check(expected)?;
        if self.nonce.as_deref() != Some(nonce) {
            return Err(Refusal::Nonce);
        }
        if is_name(&self.sub) { Ok(()) } else { Err(Refusal::Subject) }
    }

    /// The person's roles, as far as the token says them.
    pub(crate) fn roles(&self, claim: &str) -> Vec<String> {
        roles_in(&self.rest, claim)
    }
}

pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_BYTES_MAX
}

/// The roles among claims: a text or a list of texts in the claim of this name, or inside others along a path with dots.
pub(crate) fn roles_in(claims: &Map<String, Value>, claim: &str) -> Vec<String> {
    let along = || {
        let mut names = claim.split('.');
        let first = claims.get(names.next()?)?;
        names.try_fold(first, |value, name| value.get(name))
    };
    match claims.get(claim).or_else(along) {
        Some(Value::String(role)) => vec![role.clone()],
        Some(Value::Array(roles)) => roles.iter().take(ROLES_MAX).filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// The key and the algorithm that a token says it is signed with.
pub(crate) fn signed_by(token: &str) -> Result<(Option<String>, Algorithm), Refusal> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Refusal::Unsigned);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| Refusal::Unsigned)?;
    match header.alg {
        Algorithm::RS256 | Algorithm::ES256 => Ok((header.kid, header.alg)),
        _ => Err(Refusal::Unsigned),
    }
}

/// The published key for it: by its name or, where a token names none, the only one that fits.
pub(crate) fn pick<'a>(keys: &'a [Jwk], kid: Option<&str>, algorithm: Algorithm) -> Option<&'a Jwk> {
    let mut fitting = keys.iter().filter(|key| fits(key, algorithm));
    match kid {
        Some(kid) => fitting.find(|key| key.common.key_id.as_deref() == Some(kid)),
        None => fitting.next().filter(|_| fitting.next().is_none()),
    }
}

fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    let is_of_kind = match &key.algorithm {
        AlgorithmParameters::RSA(_) => algorithm == Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(point) => algorithm == Algorithm::ES256 && point.curve == EllipticCurve::P256,
        _ => false,
    };
    let signs = key.common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
    is_of_kind && signs && key.common.key_algorithm.is_none_or(|named| named == KeyAlgorithm::from(algorithm))
}

/// The claims of a token that is signed with this key by this algorithm.
pub(crate) fn read<T: DeserializeOwned + Clone>(token: &str, key: &Jwk, algorithm: Algorithm) -> Result<T, Refusal> {
    let key = DecodingKey::from_jwk(key).map_err(|_| Refusal::Signature)?;
    // The library would compare with the machine's clock; `Issued::check` does so with the tenant's.
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let decoded = jsonwebtoken::decode::<T>(token, &key, &validation);
    decoded.map(|token| token.claims).map_err(|error| match error.kind() {
        ErrorKind::Json(_) => Refusal::Claims,
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidToken => Refusal::Unsigned,
        _ => Refusal::Signature,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW_S: i64 = 1_800_000_000;

    fn claims(changes: Value) -> Result<Claims, Refusal> {
        let mut all = json!({
            "iss": "https://login", "sub": "p1", "aud": "heyuan", "exp": NOW_S + 300, "iat": NOW_S, "nonce": "n",
            "groups": ["admins", 7, "desk"], "role": "care", "realm": { "roles": ["deep"] }, "https://a.b/roles": ["dotted"],
        });
        for (name, value) in changes.as_object().expect("an object") {
            match value {
                Value::Null => all.as_object_mut().expect("an object").remove(name),
                value => all.as_object_mut().expect("an object").insert(name.clone(), value.clone()),
            };
        }
        serde_json::from_value(all).map_err(|_| Refusal::Claims)
    }

    #[test]
    fn each_claim_that_is_not_ours_is_refused() {
        for (changes, expected) in [
            (json!({}), Ok(())),
            (json!({ "aud": ["heyuan"] }), Ok(())),
            (json!({ "aud": ["other", "heyuan"], "azp": "heyuan" }), Ok(())),
            (json!({ "exp": NOW_S - LEEWAY_S + 1 }), Ok(())),
            (json!({ "iat": NOW_S + LEEWAY_S, "nbf": NOW_S + LEEWAY_S }), Ok(())),
            (json!({ "iss": "https://login/" }), Err(Refusal::Issuer)),
            (json!({ "aud": "other" }), Err(Refusal::Audience)),
            (json!({ "aud": [] }), Err(Refusal::Audience)),
            (json!({ "aud": ["other", "heyuan"] }), Err(Refusal::Audience)),
            (json!({ "azp": "other" }), Err(Refusal::Audience)),
            (json!({ "exp": NOW_S - LEEWAY_S }), Err(Refusal::Expired)),
            (json!({ "nbf": NOW_S + LEEWAY_S + 1 }), Err(Refusal::NotYet)),
            (json!({ "iat": NOW_S + LEEWAY_S + 1 }), Err(Refusal::NotYet)),
            (json!({ "nonce": "m" }), Err(Refusal::Nonce)),
            (json!({ "nonce": null }), Err(Refusal::Nonce)),
            (json!({ "sub": "" }), Err(Refusal::Subject)),
            (json!({ "sub": "x".repeat(256) }), Err(Refusal::Subject)),
            (json!({ "sub": null }), Err(Refusal::Claims)),
            (json!({ "exp": null }), Err(Refusal::Claims)),
            (json!({ "exp": "tomorrow" }), Err(Refusal::Claims)),
            (json!({ "iat": null }), Err(Refusal::Claims)),
        ] {
            let expect = Expected { issuer: "https://login", client_id: "heyuan", now_s: NOW_S };
            assert_eq!(claims(changes.clone()).and_then(|claims| claims.check(&expect, "n")), expected, "{changes}");
        }
    }

    #[test]
    fn a_session_is_named_where_the_provider_names_one() {
        for (sid, expected) in
            [(Value::Null, None), (json!("s1"), Some("s1")), (json!(""), None), (json!(7), None), (json!("x".repeat(256)), None)]
        {
            assert_eq!(claims(json!({ "sid": sid.clone() })).expect("they are whole").session(), expected, "{sid}");
        }
    }

    #[test]
    fn roles_are_found_by_name_and_along_a_path() {
        let claims = claims(json!({})).expect("they are whole");
        for (claim, expected) in [
            ("groups", &["admins", "desk"][..]),
            ("role", &["care"]),
            ("realm.roles", &["deep"]),
            ("https://a.b/roles", &["dotted"]),
            ("realm", &[]),
            ("realm.none", &[]),
            ("none.roles", &[]),
        ] {
            assert_eq!(claims.roles(claim), expected, "{claim}");
        }
    }

    #[test]
    fn a_key_is_picked_for_what_it_is_published_for() {
        let key = |changes: Value| {
            let mut key = json!({ "kty": "EC", "crv": "P-256", "x": "eA", "y": "eQ", "kid": "k" });
            for (name, value) in changes.as_object().expect("an object") {
                key[name] = value.clone();
            }
            serde_json::from_value::<Jwk>(key).expect("a key")
        };
        for (changes, kid, algorithm, expected) in [
            (json!({}), Some("k"), Algorithm::ES256, true),
            (json!({ "use": "sig", "alg": "ES256" }), None, Algorithm::ES256, true),
            (json!({}), Some("other"), Algorithm::ES256, false),
            (json!({}), Some("k"), Algorithm::RS256, false),
            (json!({ "use": "enc" }), Some("k"), Algorithm::ES256, false),
            (json!({ "alg": "ES384" }), Some("k"), Algorithm::ES256, false),
            (json!({ "crv": "P-384" }), Some("k"), Algorithm::ES256, false),
        ] {
            assert_eq!(pick(&[key(changes.clone())], kid, algorithm).is_some(), expected, "{changes} {kid:?}");
        }
        assert!(pick(&[key(json!({})), key(json!({ "kid": "l" }))], None, Algorithm::ES256).is_none(), "which of the two is not said");
    }
}
