//! Staff's log-in and sessions over HTTP.

#![expect(unused_qualifications, reason = "utoipa's macro writes them around query parameters")]

use crate::log_in::{Begun, Finish, LoggedIn, Person, StaffLogin};
use actix_web::{HttpResponse, HttpResponseBuilder, delete, get, post, web};
use heyuan_contract::StaffId;
use heyuan_kernel::http::{Authenticated, Body, Page, PageQuery, read_body};
use heyuan_kernel::keys::{Staff, StaffSession};
use heyuan_kernel::problems::{Away, Conflicting, Forbidden, Invalid, Limited, Missing, TooLarge, Unwelcome};
use heyuan_kernel::{Problem, Rfc3339};
use serde::{Deserialize, Serialize};
use url::form_urlencoded;
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;

/// Largest form that a provider sends, in bytes; the real ones have a few thousand.
const FORM_BYTES_MAX: usize = 64 * 1024;

/// Registers staff's routes.
pub fn routes(config: &mut ServiceConfig) {
    config
        .service(begin_log_in)
        .service(finish_log_in)
        .service(hear_log_out)
        .service(refresh_staff_session)
        .service(revoke_staff_session)
        .service(list_staff_sessions)
        .service(end_staff_session)
        .service(end_staff_sessions)
        .service(find_staff);
}

/// A log-in that was begun.
#[derive(Serialize, ToSchema)]
struct BegunBody {
    /// Where the person goes to log in.
    address: String,
    /// Comes back with the code. Compare it with what comes back.
    state: String,
    /// Stays where the log-in was begun, and in no address: with the code it shows that who finishes is who began.
    ticket: String,
    /// Until when it may be finished.
    expires_at: Rfc3339,
}

impl From<Begun> for BegunBody {
    fn from(begun: Begun) -> BegunBody {
        BegunBody { address: begun.address, state: begun.state, ticket: begun.ticket, expires_at: Rfc3339(begun.expires_at) }
    }
}

/// What came back from the provider.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct FinishBody {
    /// As it was given when the log-in was begun.
    ticket: String,
    /// As it came back.
    state: String,
    /// As it came back.
    code: String,
    /// As it came back, from providers that say who they are.
    iss: Option<String>,
}

impl From<FinishBody> for Finish {
    fn from(body: FinishBody) -> Finish {
        Finish { ticket: body.ticket, state: body.state, code: body.code, issuer: body.iss }
    }
}

/// What somebody may do, and where.
#[derive(Serialize, ToSchema)]
struct StaffBody {
    /// Who it is, as the audit record names them behind `staff:`.
    staff: String,
    /// `admin`, `app`, `reveal`, `import`.
    scopes: Vec<String>,
    /// The unit; absent for the whole group.
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
}

impl From<Staff> for StaffBody {
    fn from(staff: Staff) -> StaffBody {
        let scopes = staff.scopes.iter().map(ToString::to_string).collect();
        StaffBody { staff: staff.id.to_string(), scopes, unit: staff.unit.map(|unit| unit.to_string()) }
    }
}

/// Somebody who is logged in, with the tokens of the session.
#[derive(Serialize, ToSchema)]
struct StaffTokensBody {
    #[serde(flatten)]
    who: StaffBody,
    /// The session's name in lists; it opens nothing.
    session: String,
    /// Sent as `Authorization: Bearer`, it speaks for this person.
    token: String,
    /// When the token runs out: after a quarter of an hour.
    token_expires_at: Rfc3339,
    /// Gives the next pair, once.
    refresh_token: String,
    /// When the session ends unless it is refreshed; twelve hours after the log-in it ends in any case.
    refresh_token_expires_at: Rfc3339,
}

impl From<LoggedIn> for StaffTokensBody {
    fn from(tokens: LoggedIn) -> StaffTokensBody {
        StaffTokensBody {
            who: tokens.holder.into(),
            session: tokens.session,
            token: tokens.access,
            token_expires_at: Rfc3339(tokens.access_expires_at),
            refresh_token: tokens.refresh,
            refresh_token_expires_at: Rfc3339(tokens.refresh_expires_at),
        }
    }
}

/// What the provider tells.
#[derive(ToSchema)]
struct LogOutForm {
    /// A token that it has signed.
    logout_token: String,
}

impl LogOutForm {
    /// Reads the form; what else stands in it means nothing here.
    fn read(body: &[u8]) -> Result<LogOutForm, Problem> {
        let mut pairs = form_urlencoded::parse(body);
        let token = pairs.find(|(name, _)| name == "logout_token").map(|(_, token)| token.into_owned());
        let words = "expected the provider's token in a form (application/x-www-form-urlencoded)";
        let logout_token = token.filter(|token| !token.is_empty()).ok_or_else(|| Problem::invalid("logout_token", words))?;
        Ok(LogOutForm { logout_token })
    }
}

/// A refresh token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct StaffRefreshBody {
    /// The one that was given last.
    #[schema(examples("hyr_token"))]
    refresh_token: String,
}

/// A staff session, without its tokens, which are kept nowhere.
#[derive(Serialize, ToSchema)]
struct StaffSessionBody {
    /// Its name.
    id: String,
    #[serde(flatten)]
    who: StaffBody,
    /// When it was logged in.
    created_at: Rfc3339,
    /// When it was last refreshed: its last use, to a quarter of an hour.
    last_used_at: Rfc3339,
    /// When it ends unless it is refreshed.
    ends_at: Rfc3339,
}

impl From<StaffSession> for StaffSessionBody {
    fn from(session: StaffSession) -> StaffSessionBody {
        StaffSessionBody {
            id: session.id,
            who: session.staff.into(),
            created_at: Rfc3339(session.created_at),
            last_used_at: Rfc3339(session.used_at),
            ends_at: Rfc3339(session.ends_at),
        }
    }
}

/// Which sessions are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct StaffSessionsQuery {
    /// Only those of this person.
    staff: Option<String>,
}

/// Whom the provider calls so.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct FindStaffBody {
    /// The provider's own name for the person: the claim `sub` of its tokens.
    #[schema(examples("248289761001"))]
    subject: String,
}

/// Somebody who has logged in before.
#[derive(Serialize, ToSchema)]
struct FoundStaffBody {
    /// Who it is, as the audit record names them behind `staff:`.
    staff: String,
    /// When they first logged in.
    created_at: Rfc3339,
    /// When they last logged in.
    last_log_in_at: Rfc3339,
}

impl From<Person> for FoundStaffBody {
    fn from(person: Person) -> FoundStaffBody {
        FoundStaffBody {
            staff: person.id.to_string(),
            created_at: Rfc3339(person.created_at),
            last_log_in_at: Rfc3339(person.last_log_in_at),
        }
    }
}

/// Tokens are nothing for anybody's cache.
fn unstored(mut answer: HttpResponseBuilder) -> HttpResponseBuilder {
    answer.insert_header(("Cache-Control", "no-store"));
    answer
}

fn staff_id(text: &str) -> Result<StaffId, Problem> {
    text.parse().map_err(|_| Problem::not_found("member of staff", "of this id"))
}

/// Begins a log-in of somebody who works for the group. Send the person to `address`; the provider sends them back to the console's page with
/// `code` and `state`. Needs no key: whoever logs in has none yet. Nothing is kept before the log-in is finished.
#[utoipa::path(tag = "Staff", summary = "Begin a staff log-in", responses((status = 201, body = BegunBody), Conflicting, Away))]
#[post("/v1/staff/log-ins")]
async fn begin_log_in(login: web::Data<StaffLogin>) -> Result<HttpResponse, Problem> {
    Ok(unstored(HttpResponse::Created()).json(BegunBody::from(login.begin().await?)))
}

/// Finishes a log-in with what came back from the provider, once, within ten minutes, and opens a session. What the person may do comes from
/// the roles that the provider states, as the settings map them (`staff.grants`); it holds for the session. `id_token_refused` says what is wrong
/// with the provider's token; nobody is let in by half of one.
#[utoipa::path(tag = "Staff", summary = "Finish a staff log-in", request_body = FinishBody,
    responses((status = 201, body = StaffTokensBody), Invalid, Forbidden, Conflicting, Limited, Away))]
#[post("/v1/staff/log-ins:finish")]
async fn finish_log_in(login: web::Data<StaffLogin>, body: Body<FinishBody>) -> Result<HttpResponse, Problem> {
    Ok(unstored(HttpResponse::Created()).json(StaffTokensBody::from(login.finish(&body.0.into()).await?)))
}

/// Takes the word of the provider that somebody has logged out there (OpenID Connect Back-Channel Logout 1.0), and ends the sessions that came
/// of it: those of one session at the provider, where the token names one (`sid`), else all of the person (`sub`). Their tokens are refused here
/// at once and everywhere within five seconds. A token counts once. Register this address at the provider as `backchannel_logout_uri`.
#[utoipa::path(tag = "Staff", summary = "Hear from the provider of a log-out",
    request_body(content = LogOutForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200), Invalid, Conflicting, TooLarge, Away))]
#[post("/v1/staff/log-outs")]
async fn hear_log_out(login: web::Data<StaffLogin>, payload: web::Payload) -> Result<HttpResponse, Problem> {
    let form = LogOutForm::read(&read_body(payload.into_inner(), FORM_BYTES_MAX).await?)?;
    login.hear_log_out(&form.logout_token).await?;
    Ok(unstored(HttpResponse::Ok()).finish())
}

/// Gives the next tokens of a staff session, once: the refresh token itself is the credential. One that was used before ends the session, for
/// whoever stole it and for whoever lost it. Every refusal is `refresh_refused`: log in again.
#[utoipa::path(tag = "Staff", summary = "Refresh a staff session", request_body = StaffRefreshBody,
    responses((status = 200, body = StaffTokensBody), Invalid))]
#[post("/v1/staff/sessions:refresh")]
async fn refresh_staff_session(login: web::Data<StaffLogin>, body: Body<StaffRefreshBody>) -> Result<HttpResponse, Problem> {
    Ok(unstored(HttpResponse::Ok()).json(StaffTokensBody::from(login.refresh(&body.0.refresh_token).await?)))
}

/// Logs out: ends the session of a refresh token. Its tokens are refused here at once and everywhere within five seconds. A session that is
/// over stays over. The provider is not told: who is logged in there may log in here again.
#[utoipa::path(tag = "Staff", summary = "Log staff out", request_body = StaffRefreshBody, responses((status = 204), Invalid))]
#[post("/v1/staff/sessions:revoke")]
async fn revoke_staff_session(login: web::Data<StaffLogin>, body: Body<StaffRefreshBody>) -> Result<HttpResponse, Problem> {
    login.log_out(&body.0.refresh_token).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Lists staff sessions that last: with scope `admin` those within reach, else one's own.
#[utoipa::path(tag = "Staff", summary = "List staff sessions", security(("key" = [])), params(PageQuery, StaffSessionsQuery),
    responses((status = 200, body = Page<StaffSessionBody>), Invalid, Unwelcome, Missing))]
#[get("/v1/staff/sessions")]
async fn list_staff_sessions(
    Authenticated(actor): Authenticated,
    login: web::Data<StaffLogin>,
    page: web::Query<PageQuery>,
    wanted: web::Query<StaffSessionsQuery>,
) -> Result<web::Json<Page<StaffSessionBody>>, Problem> {
    let (after, limit) = (page.after()?.unwrap_or_default(), page.limit()?);
    let of = wanted.staff.as_deref().map(staff_id).transpose()?;
    let sessions = login.sessions(&actor, of.as_ref(), &after, limit + 1).await?;
    Ok(web::Json(Page::of(sessions.into_iter().map(StaffSessionBody::from).collect(), limit, |session| session.id.clone())))
}

/// Ends one staff session: one's own, or with scope `admin` any within reach. Every token is refused within five seconds.
#[utoipa::path(tag = "Staff", summary = "End a staff session", security(("key" = [])),
    params(("session" = String, Path, description = "As listed")), responses((status = 204), Unwelcome, Missing))]
#[delete("/v1/staff/sessions/{session}")]
async fn end_staff_session(
    Authenticated(actor): Authenticated,
    login: web::Data<StaffLogin>,
    session: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    login.end_session(&actor, &session).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Ends every session of a person: one's own, or with scope `admin` those within reach. Every token is refused within five seconds. Whoever
/// may not log in again has to lose the role at the provider.
#[utoipa::path(tag = "Staff", summary = "End every session of a person", security(("key" = [])),
    params(("staff" = String, Path, description = "As listed")), responses((status = 204), Unwelcome, Missing))]
#[delete("/v1/staff/{staff}/sessions")]
async fn end_staff_sessions(
    Authenticated(actor): Authenticated,
    login: web::Data<StaffLogin>,
    staff: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    login.end_sessions(&actor, &staff_id(&staff)?).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Tells which id somebody has whom the provider calls so, for a key or person with scope `admin` of the whole group. Names are not kept, so
/// that this is the way from a person to their sessions.
#[utoipa::path(tag = "Staff", summary = "Find a person by the provider's name", security(("key" = [])), request_body = FindStaffBody,
    responses((status = 200, body = FoundStaffBody), Invalid, Unwelcome, Missing, Conflicting))]
#[post("/v1/staff:find")]
async fn find_staff(
    Authenticated(actor): Authenticated,
    login: web::Data<StaffLogin>,
    body: Body<FindStaffBody>,
) -> Result<web::Json<FoundStaffBody>, Problem> {
    Ok(web::Json(login.find(&actor, &body.0.subject).await?.into()))
}
