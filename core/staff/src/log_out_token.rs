//! What a log-out token says, and why it may not be believed (OpenID Connect Back-Channel Logout 1.0, sections 2.4 and 2.6).

use crate::claims::{Expected, Issued, LEEWAY_S, is_name};
use crate::refusal::Refusal;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The event that makes a token one of a log-out.
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
/// A token that was issued longer ago than this, in seconds, tells nothing any more: so long a provider may try, and so long we remember
/// those that we have seen.
const AGE_S_MAX: i64 = 300;

/// The claims of a log-out token whose signature holds.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct LogOutClaims {
    #[serde(flatten)]
    pub(crate) issued: Issued,
    jti: String,
    events: Map<String, Value>,
    sub: Option<String>,
    sid: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl LogOutClaims {
    /// The token's own name.
    pub(crate) fn id(&self) -> &str {
        &self.jti
    }

    /// What the provider calls the person.
    pub(crate) fn subject(&self) -> Option<&str> {
        self.sub.as_deref()
    }

    /// What the provider calls the person's session there; without one all of them are meant.
    pub(crate) fn session(&self) -> Option<&str> {
        self.sid.as_deref()
    }

    /// From when on, in seconds, it would be too old to be believed.
    pub(crate) fn old_at_s(&self) -> i64 {
        self.issued.at_s().saturating_add(AGE_S_MAX + LEEWAY_S)
    }

    /// Checks everything that a signature does not show, but for whether it came before.
    pub(crate) fn check(&self, expected: &Expected<'_>) -> Result<(), Refusal> {
        self.issued.check(expected)?;
        if !self.events.get(EVENT).is_some_and(Value::is_object) {
            return Err(Refusal::Event);
        }
        if self.rest.contains_key("nonce") {
            return Err(Refusal::NonceThere);
        }
        if !is_name(&self.jti) {
            return Err(Refusal::TokenId);
        }
        if self.old_at_s() <= expected.now_s {
            return Err(Refusal::Old);
        }
        let named: Vec<&String> = [&self.sub, &self.sid].into_iter().flatten().collect();
        if named.is_empty() || !named.into_iter().all(|name| is_name(name)) { Err(Refusal::Nobody) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW_S: i64 = 1_800_000_000;

    fn claims(changes: &Value) -> Result<LogOutClaims, Refusal> {
        let mut all = json!({
            "iss": "https://login", "aud": "heyuan", "exp": NOW_S + 120, "iat": NOW_S, "jti": "t1", "sub": "p1", "sid": "s1",
            "events": { EVENT: {} },
        });
        for (name, value) in changes.as_object().expect("an object") {
            match value.as_str() {
                Some("absent") => all.as_object_mut().expect("an object").remove(name),
                _ => all.as_object_mut().expect("an object").insert(name.clone(), value.clone()),
            };
        }
        serde_json::from_value(all).map_err(|_| Refusal::Claims)
    }

    #[test]
    fn each_claim_that_tells_of_no_log_out_of_ours_is_refused() {
        let long = "x".repeat(256);
        for (changes, expected) in [
            (json!({}), Ok(())),
            (json!({ "sub": "absent" }), Ok(())),
            (json!({ "sid": "absent" }), Ok(())),
            (json!({ "sid": null }), Ok(())),
            (json!({ "events": { EVENT: {}, "https://other": 1 } }), Ok(())),
            (json!({ "iat": NOW_S - AGE_S_MAX - LEEWAY_S + 1 }), Ok(())),
            (json!({ "iat": NOW_S + LEEWAY_S }), Ok(())),
            (json!({ "iss": "https://elsewhere" }), Err(Refusal::Issuer)),
            (json!({ "aud": "other" }), Err(Refusal::Audience)),
            (json!({ "exp": NOW_S - LEEWAY_S }), Err(Refusal::Expired)),
            (json!({ "exp": "absent" }), Err(Refusal::Claims)),
            (json!({ "iat": NOW_S + LEEWAY_S + 1 }), Err(Refusal::NotYet)),
            (json!({ "iat": NOW_S - AGE_S_MAX - LEEWAY_S }), Err(Refusal::Old)),
            (json!({ "iat": "absent" }), Err(Refusal::Claims)),
            (json!({ "events": "absent" }), Err(Refusal::Claims)),
            (json!({ "events": EVENT }), Err(Refusal::Claims)),
            (json!({ "events": {} }), Err(Refusal::Event)),
            (json!({ "events": { "https://other": {} } }), Err(Refusal::Event)),
            (json!({ "events": { EVENT: true } }), Err(Refusal::Event)),
            (json!({ "nonce": "n" }), Err(Refusal::NonceThere)),
            (json!({ "nonce": null }), Err(Refusal::NonceThere)),
            (json!({ "jti": "absent" }), Err(Refusal::Claims)),
            (json!({ "jti": "" }), Err(Refusal::TokenId)),
            (json!({ "jti": long }), Err(Refusal::TokenId)),
            (json!({ "sub": "absent", "sid": "absent" }), Err(Refusal::Nobody)),
            (json!({ "sub": "" }), Err(Refusal::Nobody)),
            (json!({ "sid": long }), Err(Refusal::Nobody)),
            (json!({ "sid": 7 }), Err(Refusal::Claims)),
        ] {
            let expect = Expected { issuer: "https://login", client_id: "heyuan", now_s: NOW_S };
            assert_eq!(claims(&changes).and_then(|claims| claims.check(&expect)), expected, "{changes}");
        }
    }
}
