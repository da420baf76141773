//! What the provider says of a person at its userinfo endpoint (OpenID Connect Core 1.0, section 5.3), for those that put no roles into tokens.

use super::{Failure, Metadata, Provider, WHO, unreadable};
use crate::refusal::Refusal;
use heyuan_kernel::Problem;
use heyuan_kernel::outbound::{self, Answer, away, busy};
use serde_json::{Map, Value};

/// Longest access token that is sent, in bytes: what fits a header with ease.
const ACCESS_TOKEN_BYTES_MAX: usize = 6 * 1024;

impl Provider {
    /// The claims about the person of this very log-in, and of nobody else: what an access token opens may have been exchanged for another.
    pub(super) async fn userinfo(
        &self,
        metadata: &Metadata,
        access_token: Option<&str>,
        subject: &str,
    ) -> Result<Map<String, Value>, Failure> {
        let fits = |token: &&str| token.len() <= ACCESS_TOKEN_BYTES_MAX && token.bytes().all(|b| b.is_ascii_graphic());
        let words = "it answers no access_token that its userinfo endpoint could be asked with";
        let token = access_token.filter(|token| !token.is_empty()).filter(fits).ok_or_else(|| unreadable(words))?;
        let endpoint = metadata.userinfo_endpoint.as_deref().ok_or_else(|| unreadable("it names no userinfo endpoint"))?;
        let request = self.http.get(endpoint).bearer_auth(token).header("Accept", "application/json");
        let answer = outbound::send(WHO, request).await.map_err(|failure| away(WHO, failure))?;
        let claims = claims_of(&answer)?;
        if claims.get("sub").and_then(Value::as_str) == Some(subject) { Ok(claims) } else { Err(Refusal::UserinfoSubject.into()) }
    }
}

/// The claims of an answer, or what the answer means.
fn claims_of(answer: &Answer) -> Result<Map<String, Value>, Problem> {
    match answer.status {
        200 => serde_json::from_slice(&answer.body)
            .map_err(|_| unreadable("its userinfo can't be read: it has to be plain JSON, and neither signed nor encrypted")),
        401 | 403 => {
            tracing::error!(
                status = answer.status,
                "the log-in provider lets us read no userinfo; look at staff.ask_for and our client there"
            );
            Err(busy(WHO, "its userinfo endpoint refuses the token that it gave, which somebody who reads the log has to mend"))
        }
        _ => Err(unreadable("its userinfo endpoint answers with an error")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_about_a_person_means_one_thing() {
        for (status, body, expected) in [
            (200, r#"{"sub":"p","groups":["a"]}"#, Ok(2)),
            (200, "{}", Ok(0)),
            (200, "eyJhbGciOiJSUzI1NiJ9.e30.c2ln", Err("plain JSON")),
            (200, r#"["sub"]"#, Err("plain JSON")),
            (204, "", Err("with an error")),
            (302, "", Err("with an error")),
            (401, r#"{"error":"invalid_token"}"#, Err("refuses the token")),
            (403, r#"{"error":"insufficient_scope"}"#, Err("refuses the token")),
            (500, r#"{"sub":"p"}"#, Err("with an error")),
        ] {
            let read = claims_of(&Answer { status, body: body.as_bytes().to_vec() }).map(|claims| claims.len());
            match (read, expected) {
                (Ok(read), Ok(expected)) => assert_eq!(read, expected, "{status} {body}"),
                (Err(problem), Err(words)) => {
                    assert!(
                        problem.code().code == "unavailable" && problem.detail().contains(words),
                        "{status} {body}: {}",
                        problem.detail()
                    );
                }
                (read, _) => panic!("{status} {body}: {read:?}"),
            }
        }
    }
}
