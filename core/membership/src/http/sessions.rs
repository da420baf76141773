//! Logging in and out over HTTP: sessions, and the codes that phones get.

use super::path_id;
use crate::facade::Membership;
use crate::join::Joined;
use crate::login::{LogIn, Login, Proof};
use actix_web::{HttpResponse, delete, get, post, web};
use heyuan_kernel::error::codes;
use heyuan_kernel::http::{Authenticated, Body};
use heyuan_kernel::keys::{Session, Tokens};
use heyuan_kernel::problems::{Away, Conflicting, Invalid, Limited, Missing, Unwelcome};
use heyuan_kernel::{Problem, Rfc3339};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a WeChat mini-program has.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WeChatBody {
    /// What `wx.login` gave. WeChat takes it once.
    #[schema(examples("0a1b2c3d4e"))]
    code: String,
    /// What the phone button (`getPhoneNumber`) gave: the number is an identifier of the person as well.
    phone_code: Option<String>,
}

/// What somebody with a phone has.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PhoneBody {
    /// The number that the code was sent to.
    #[schema(examples("13800138000"))]
    number: String,
    /// Six digits.
    #[schema(examples("123456"))]
    code: String,
}

/// A request to log in, with either of the two proofs.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogInBody {
    /// The app, as the settings name it (`login.apps`).
    #[schema(examples("mall"))]
    app: String,
    /// Logs in by WeChat.
    wechat: Option<WeChatBody>,
    /// Logs in by phone.
    phone: Option<PhoneBody>,
    /// Whether somebody who is no member yet becomes one, at the app's unit.
    #[serde(default)]
    join: bool,
}

impl LogInBody {
    fn parsed(self) -> Result<LogIn, Problem> {
        let proof = match (self.wechat, self.phone) {
            (Some(wechat), None) => Proof::WeChat { code: wechat.code, phone_code: wechat.phone_code },
            (None, Some(phone)) => Proof::Phone { number: phone.number, code: phone.code },
            _ => return Err(Problem::new(codes::INVALID_REQUEST, "expected one proof: wechat or phone")),
        };
        Ok(LogIn { app: self.app, proof, join: self.join })
    }
}

/// A member that has logged in, with the tokens of its session.
#[derive(Serialize, ToSchema)]
pub(super) struct LoggedInBody {
    /// The member.
    member: String,
    /// Whether it has joined just now.
    joined: bool,
    /// The tier's code.
    #[schema(examples("silver"))]
    tier: String,
    /// When it joined first.
    joined_at: Rfc3339,
    #[serde(flatten)]
    tokens: TokensBody,
}

/// The tokens of a session.
#[derive(Serialize, ToSchema)]
pub(super) struct TokensBody {
    /// The session's name in lists; it opens nothing.
    session: String,
    /// Sent as `Authorization: Bearer`, it speaks for this member alone.
    token: String,
    /// When the token runs out: after about an hour.
    token_expires_at: Rfc3339,
    /// Gives the next pair, once: keep it where nobody else reads it.
    refresh_token: String,
    /// When the session ends unless it is refreshed.
    refresh_token_expires_at: Rfc3339,
}

impl From<Tokens> for TokensBody {
    fn from(tokens: Tokens) -> TokensBody {
        TokensBody {
            session: tokens.session,
            token: tokens.access,
            token_expires_at: Rfc3339(tokens.access_expires_at),
            refresh_token: tokens.refresh,
            refresh_token_expires_at: Rfc3339(tokens.refresh_expires_at),
        }
    }
}

/// The next tokens of a session.
#[derive(Serialize, ToSchema)]
pub(super) struct RefreshedBody {
    /// The member.
    member: String,
    #[serde(flatten)]
    tokens: TokensBody,
}

/// A refresh token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RefreshBody {
    /// The one that was given last.
    #[schema(examples("hyr_token"))]
    refresh_token: String,
}

/// A request for a code.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PhoneCodeBody {
    /// The app that the code lets into.
    #[schema(examples("mall"))]
    app: String,
    /// A mobile number of mainland China.
    #[schema(examples("13800138000"))]
    phone: String,
}

/// A code that was sent.
#[derive(Serialize, ToSchema)]
pub(super) struct SentBody {
    /// Until when it is good.
    expires_at: Rfc3339,
}

/// A session of a member, without its tokens, which are kept nowhere.
#[derive(Serialize, ToSchema)]
struct SessionBody {
    /// Its name.
    id: String,
    /// The app that was logged in to, or the key by which the member joined.
    #[schema(examples("mall"))]
    app: String,
    /// When it was logged in.
    created_at: Rfc3339,
    /// When it was last refreshed: its last use, to an hour.
    last_used_at: Rfc3339,
    /// When it ends unless it is refreshed.
    ends_at: Rfc3339,
}

/// A member's sessions: ten an app at most.
#[derive(Serialize, ToSchema)]
struct SessionsBody {
    /// The one used last first.
    items: Vec<SessionBody>,
}

impl From<Session> for SessionBody {
    fn from(session: Session) -> SessionBody {
        SessionBody {
            id: session.id,
            app: session.app,
            created_at: Rfc3339(session.created_at),
            last_used_at: Rfc3339(session.used_at),
            ends_at: Rfc3339(session.ends_at),
        }
    }
}

/// Logs a member in, by the code of a WeChat mini-program or by the code that was sent to a phone. The proof counts whoever brings it, so
/// that the key that an app carries (`ingest`) is enough, as is a server's (`app`); it must reach the app's unit. Somebody who is no member is
/// answered `unknown_member`, and with `join: true` becomes one. A member is who has proven one of these identifiers before, by a log-in or to a
/// server that let it join; what apps merely tell of who is who lets nobody in. In two apps of one WeChat account the same person is one
/// member with two sessions.
#[utoipa::path(
    tag = "membership", summary = "Log in", request_body = LogInBody, security(("key" = [])),
    responses(
        (status = 200, description = "Logged in", body = LoggedInBody),
        (status = 201, description = "Has joined and is logged in", body = LoggedInBody),
        Invalid, Unwelcome, Missing, Conflicting, Limited, Away,
    )
)]
#[post("/v1/sessions")]
pub(super) async fn log_in(
    Authenticated(actor): Authenticated,
    login: web::Data<Login>,
    body: Body<LogInBody>,
) -> Result<HttpResponse, Problem> {
    login.check_may(&actor)?;
    let Joined { id, new, tier, joined_at, tokens } = login.log_in(&actor, &body.0.parsed()?).await?;
    let tokens = tokens.ok_or_else(|| Problem::new(codes::INTERNAL, "a session was opened without tokens"))?;
    let mut answer = if new { HttpResponse::Created() } else { HttpResponse::Ok() };
    let body = LoggedInBody { member: id.to_string(), joined: new, tier, joined_at: Rfc3339(joined_at), tokens: tokens.into() };
    Ok(unstored(&mut answer).json(body))
}

/// Gives the next tokens of a session, once, by a key that an app or a server carries. The refresh token that was used last, again within a
/// minute and by the same key, is answered with the same next refresh token, for its answer was lost; any other that was used before ends
/// the session. Every refusal is `refresh_refused`: log in again.
#[utoipa::path(
    tag = "membership", summary = "Refresh a session", request_body = RefreshBody, security(("key" = [])),
    responses(
        (status = 200, body = RefreshedBody),
        Invalid, Unwelcome,
    )
)]
#[post("/v1/sessions:refresh")]
pub(super) async fn refresh_session(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    body: Body<RefreshBody>,
) -> Result<HttpResponse, Problem> {
    let tokens = membership.refresh(&actor, &body.0.refresh_token).await?;
    let body = RefreshedBody { member: tokens.holder.to_string(), tokens: tokens.into() };
    Ok(unstored(&mut HttpResponse::Ok()).json(body))
}

/// Logs out: ends the session of a refresh token. Its tokens are refused here at once and everywhere within five seconds. A session that is
/// over stays over.
#[utoipa::path(
    tag = "membership", summary = "Log out", request_body = RefreshBody, security(("key" = [])),
    responses(
        (status = 204),
        Invalid, Unwelcome,
    )
)]
#[post("/v1/sessions:revoke")]
pub(super) async fn revoke_session(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    body: Body<RefreshBody>,
) -> Result<HttpResponse, Problem> {
    membership.log_out(&actor, &body.0.refresh_token).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Sends a code of six digits to a phone, good for five minutes, five tries and one log-in. The answer is the same whether the number is
/// known or not. A number gets one a minute and ten a day at most; a key and the whole group have a number a day as well.
#[utoipa::path(
    tag = "membership", summary = "Send a code to a phone", request_body = PhoneCodeBody, security(("key" = [])),
    responses(
        (status = 202, body = SentBody),
        Invalid, Unwelcome, Conflicting, Limited, Away,
    )
)]
#[post("/v1/phone-codes")]
pub(super) async fn send_code(
    Authenticated(actor): Authenticated,
    login: web::Data<Login>,
    body: Body<PhoneCodeBody>,
) -> Result<HttpResponse, Problem> {
    let sent = login.send_code(&actor, &body.0.app, &body.0.phone).await?;
    Ok(HttpResponse::Accepted().json(SentBody { expires_at: Rfc3339(sent.expires_at) }))
}

/// Lists where a member is logged in, for the member itself or for staff.
#[utoipa::path(
    tag = "membership", summary = "List a member's sessions", security(("key" = [])),
    params(("id" = String, Path, description = "The member")),
    responses(
        (status = 200, body = SessionsBody),
        Unwelcome, Missing,
    )
)]
#[get("/v1/members/{id}/sessions")]
pub(super) async fn list_sessions(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
) -> Result<web::Json<SessionsBody>, Problem> {
    let sessions = membership.sessions(&actor, &path_id("member", &id)?).await?;
    Ok(web::Json(SessionsBody { items: sessions.into_iter().map(SessionBody::from).collect() }))
}

/// Logs a member out everywhere: by the member itself or by staff. Every token is refused within five seconds.
#[utoipa::path(
    tag = "membership", summary = "End a member's sessions", security(("key" = [])),
    params(("id" = String, Path, description = "The member")),
    responses(
        (status = 204),
        Unwelcome, Missing,
    )
)]
#[delete("/v1/members/{id}/sessions")]
pub(super) async fn end_sessions(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    membership.end_sessions(&actor, &path_id("member", &id)?, None).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Ends one session of a member: by the member itself or by staff.
#[utoipa::path(
    tag = "membership", summary = "End a session of a member", security(("key" = [])),
    params(("id" = String, Path, description = "The member"), ("session" = String, Path, description = "As listed")),
    responses(
        (status = 204),
        Unwelcome, Missing,
    )
)]
#[delete("/v1/members/{id}/sessions/{session}")]
pub(super) async fn end_session(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let (id, session) = path.into_inner();
    membership.end_sessions(&actor, &path_id("member", &id)?, Some(&session)).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Tokens are nothing for anybody's cache.
fn unstored(answer: &mut actix_web::HttpResponseBuilder) -> &mut actix_web::HttpResponseBuilder {
    answer.insert_header(("Cache-Control", "no-store"))
}
