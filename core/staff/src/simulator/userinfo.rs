//! The userinfo endpoint of the simulated provider.

use super::{OidcSimulator, failure};
use actix_web::{HttpRequest, HttpResponse, get, web};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Bytes of an answer that is longer than any real one.
const TOO_LONG_BYTES: usize = 1 << 20;

/// What is wrong at the userinfo endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserinfoFault {
    /// Nothing.
    #[default]
    None,
    /// It tells of somebody else.
    OtherSubject,
    /// It does not say of whom it tells.
    NoSubject,
    /// It answers a signed token, as some do that were told to.
    Signed,
    /// It answers more than anybody reads.
    TooLong,
    /// It does not take the token that was given.
    Refuses,
    /// It breaks off with a page.
    Fails,
}

/// Who somebody is, for whoever has an access token about them.
#[get("/oidc/userinfo")]
pub(super) async fn userinfo(request: HttpRequest, simulator: web::Data<OidcSimulator>) -> HttpResponse {
    if simulator.fails().await {
        return failure();
    }
    let header = request.headers().get("Authorization").and_then(|value| value.to_str().ok());
    let token = header.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let state = simulator.state();
    let fault = state.misbehaviour.userinfo;
    let Some(person) = state.opened.get(token).filter(|_| fault != UserinfoFault::Refuses) else {
        return HttpResponse::Unauthorized().insert_header(("WWW-Authenticate", "Bearer error=\"invalid_token\"")).finish();
    };
    let groups = state.people.get(person).cloned().unwrap_or_default();
    let of = if fault == UserinfoFault::OtherSubject { "somebody else" } else { person.as_str() };
    let mut claims =
        json!({ "sub": OidcSimulator::subject(of), "name": person, "email": format!("{person}@example.com"), "groups": groups });
    match fault {
        UserinfoFault::Fails => return failure(),
        UserinfoFault::Signed => return HttpResponse::Ok().content_type("application/jwt").body("eyJhbGciOiJFUzI1NiJ9.e30.c2ln"),
        UserinfoFault::NoSubject => drop(claims.as_object_mut().and_then(|claims| claims.remove("sub"))),
        UserinfoFault::TooLong => claims["groups"] = json!("x".repeat(TOO_LONG_BYTES)),
        UserinfoFault::None | UserinfoFault::OtherSubject | UserinfoFault::Refuses => {}
    }
    HttpResponse::Ok().json(claims)
}
