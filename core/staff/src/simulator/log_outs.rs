//! How the simulated provider tells that somebody has logged out of it.

use super::tokens::{LogOutOf, TokenOf};
use super::{OidcSimulator, Session, issuer_of};
use actix_web::{HttpRequest, HttpResponse, post, web};
use heyuan_kernel::outbound;
use serde::Deserialize;
use serde_json::json;
use url::form_urlencoded;

/// Whoever is told has this long.
const TIMEOUT_MS: u64 = 5_000;

impl OidcSimulator {
    /// Logs a person out here, and signs what tells of it to the client that they were last sent back to; `None` for whoever is logged in nowhere.
    pub fn log_out_token(&self, issuer: &str, person: &str, of: LogOutOf) -> Option<String> {
        self.logged_out(issuer, person, of).map(|(token, _)| token)
    }

    fn logged_out(&self, issuer: &str, person: &str, of: LogOutOf) -> Option<(String, Session)> {
        let mut state = self.state();
        let misbehaviour = state.misbehaviour;
        let session = state.sessions.remove(person)?;
        let key = state.keys.last()?;
        let token = TokenOf { issuer, client_id: &session.client_id, now_s: self.now_s(misbehaviour) };
        let subject = Some(OidcSimulator::subject(person)).filter(|_| of != LogOutOf::Session);
        let name = Some(session.name.clone()).filter(|_| of != LogOutOf::Person);
        let claims = token.log_out(subject, name, misbehaviour.log_out);
        let signed = token.signed("logout+jwt", claims, key, misbehaviour.token, self.secret.text());
        Some((signed, session))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogOut {
    /// Where it is told.
    url: String,
    of: LogOutOf,
}

/// Logs a person out and tells the client so; answers what the client said, or 502 when it said nothing. Who it did not take it of stays logged
/// in, so that it can be told again.
#[post("/oidc/people/{person}:log-out")]
pub(super) async fn log_out(
    request: HttpRequest,
    simulator: web::Data<OidcSimulator>,
    person: web::Path<String>,
    body: web::Json<LogOut>,
) -> HttpResponse {
    let Some((token, session)) = simulator.logged_out(&issuer_of(&request), &person, body.of) else {
        return HttpResponse::NotFound().json(json!({ "message": "nobody of this name is logged in" }));
    };
    let form = form_urlencoded::Serializer::new(String::new()).append_pair("logout_token", &token).finish();
    let told = outbound::client(TIMEOUT_MS).post(&body.url).header("Content-Type", "application/x-www-form-urlencoded").body(form);
    let answer = outbound::send("the client", told).await;
    if !answer.as_ref().is_ok_and(|answer| answer.status == 200) {
        simulator.state().sessions.entry(person.into_inner()).or_insert(session);
    }
    match answer {
        Ok(answer) => HttpResponse::Ok().json(json!({ "status": answer.status, "body": String::from_utf8_lossy(&answer.body) })),
        Err(_) => HttpResponse::BadGateway().json(json!({ "message": "the client could not be told" })),
    }
}
