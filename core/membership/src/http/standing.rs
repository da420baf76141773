//! What becomes of a member over HTTP: the blacklist, the end of a membership, and the lines' own accounts.

use super::path_id;
use crate::facade::Membership;
use crate::leave::Departure;
use crate::link::{Link, LinkView};
use crate::standing::MemberState;
use actix_web::{HttpRequest, HttpResponse, delete, get, post, put, web};
use heyuan_contract::{Line, MemberId, OrgUnitId};
use heyuan_kernel::http::{Authenticated, Body, idempotency_header};
use heyuan_kernel::problems::{Conflicting, Invalid, Missing, Unwelcome};
use heyuan_kernel::{Problem, Rfc3339};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why staff does it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReasonBody {
    /// It goes into the audit record; no personal data.
    #[schema(examples("resells vouchers"))]
    reason: String,
}

/// Whether a member may earn and spend. It tells nothing else of the member: who may block one need not be who may read it.
#[derive(Serialize, ToSchema)]
struct StateBody {
    /// Whose.
    member: String,
    /// `open` or `blocked`.
    state: &'static str,
}

impl StateBody {
    fn of(member: &MemberId, state: MemberState) -> StateBody {
        StateBody { member: member.to_string(), state: state.as_str() }
    }
}

/// How a member leaves.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LeaveBody {
    /// Whether the person is erased as well, in every part of the house: what is proven to be this member's, and what was seen beside that and
    /// beside nobody else's.
    #[serde(default)]
    erase: bool,
}

/// A membership that ended.
#[derive(Serialize, ToSchema)]
struct DepartureBody {
    /// Whose.
    member: String,
    /// `closed`.
    state: &'static str,
    /// When it ended.
    ended_at: Rfc3339,
    /// Points that were left; each goes back to the line that issued it.
    points_forfeited: i64,
    /// Whether erasure was asked for.
    erase: bool,
}

impl From<Departure> for DepartureBody {
    fn from(departure: Departure) -> DepartureBody {
        DepartureBody {
            member: departure.member.to_string(),
            state: "closed",
            ended_at: Rfc3339(departure.at),
            points_forfeited: departure.points_forfeited,
            erase: departure.erase,
        }
    }
}

/// A business line as a path names it.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum LineName {
    Hotel,
    Residential,
    Mall,
    Office,
    Community,
}

/// A line's account to link.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LinkBody {
    /// The line's own number of the person; it goes to the vault and nowhere else.
    #[schema(examples("HC-20018873"))]
    account: String,
    /// A unit of the line, which says so.
    #[schema(value_type = String, examples("hotel-1"))]
    unit: OrgUnitId,
}

/// A line's account of a member.
#[derive(Serialize, ToSchema)]
struct LinkedBody {
    /// The line.
    line: String,
    /// The number, its middle hidden unless it was revealed.
    account: String,
    /// The unit that linked it.
    unit: String,
    /// When.
    linked_at: Rfc3339,
}

impl From<LinkView> for LinkedBody {
    fn from(link: LinkView) -> LinkedBody {
        LinkedBody { line: link.line.to_string(), account: link.account, unit: link.unit.to_string(), linked_at: Rfc3339(link.linked_at) }
    }
}

/// The accounts of a member: one a line at most.
#[derive(Serialize, ToSchema)]
struct LinkedListBody {
    /// By line.
    items: Vec<LinkedBody>,
}

/// Why numbers are wanted whole.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RevealAccountsBody {
    /// It goes into the audit record; 1 to 500 bytes.
    #[schema(examples("the guest asks at the desk which card is linked"))]
    reason: String,
}

/// Puts a member on the blacklist: it neither earns nor spends until it is unblocked. Refunds of what it bought go through, and its customer
/// can't join past it.
#[utoipa::path(
    tag = "membership", summary = "Block a member", request_body = ReasonBody, security(("key" = [])),
    params(("id" = String, Path, description = "The member")),
    responses(
        (status = 200, body = StateBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/members/{id}:block")]
pub(super) async fn block(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
    body: Body<ReasonBody>,
) -> Result<web::Json<StateBody>, Problem> {
    let id = path_id("member", &id)?;
    let state = membership.block(&actor, &id, &body.0.reason).await?;
    Ok(web::Json(StateBody::of(&id, state)))
}

/// Takes a member off the blacklist.
#[utoipa::path(
    tag = "membership", summary = "Unblock a member", request_body = ReasonBody, security(("key" = [])),
    params(("id" = String, Path, description = "The member")),
    responses(
        (status = 200, body = StateBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/members/{id}:unblock")]
pub(super) async fn unblock(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
    body: Body<ReasonBody>,
) -> Result<web::Json<StateBody>, Problem> {
    let id = path_id("member", &id)?;
    let state = membership.unblock(&actor, &id, &body.0.reason).await?;
    Ok(web::Json(StateBody::of(&id, state)))
}

/// Ends a membership, also a blocked one. Points that are held for open orders are set free, adjustments that wait are rejected, and the
/// points that are left are forfeited to the lines that issued them; the books stay. The customer may join again, as a new member.
#[utoipa::path(
    tag = "membership", summary = "Close a member", request_body = ReasonBody, security(("key" = [])),
    params(
        ("id" = String, Path, description = "The member"),
        ("Idempotency-Key" = String, Header, description = "Fresh for each closing, the same for its retries"),
    ),
    responses(
        (status = 200, body = DepartureBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/members/{id}:close")]
pub(super) async fn close(
    request: HttpRequest,
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
    body: Body<ReasonBody>,
) -> Result<web::Json<DepartureBody>, Problem> {
    let header = idempotency_header(&request);
    Ok(web::Json(membership.close_member(&actor, &path_id("member", &id)?, &body.0.reason, header).await?.into()))
}

/// Ends a membership because the member wants it: with its own token, or with a key that reaches the unit where it joined. As closing, and
/// with `erase` the person is erased in every part of the house. A blocked member can't leave; staff closes it. While another member of the
/// person is blocked, nobody is erased by leaving.
#[utoipa::path(
    tag = "membership", summary = "Leave", request_body = LeaveBody, security(("key" = [])),
    params(
        ("id" = String, Path, description = "The member"),
        ("Idempotency-Key" = String, Header, description = "Fresh for each departure, the same for its retries"),
    ),
    responses(
        (status = 200, body = DepartureBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/members/{id}:leave")]
pub(super) async fn leave(
    request: HttpRequest,
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
    body: Body<LeaveBody>,
) -> Result<web::Json<DepartureBody>, Problem> {
    let header = idempotency_header(&request);
    Ok(web::Json(membership.leave(&actor, &path_id("member", &id)?, body.0.erase, header).await?.into()))
}

/// Links a line's own account to a member: one a line, of one open member at most. Another number takes the place of the one before, where
/// the key reaches the unit that linked that one.
#[utoipa::path(
    tag = "membership", summary = "Link a line's account", request_body = LinkBody, security(("key" = [])),
    params(
        ("id" = String, Path, description = "The member"),
        ("line" = inline(LineName), Path, description = "The business line"),
    ),
    responses(
        (status = 200, body = LinkedBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[put("/v1/members/{id}/accounts/{line}")]
pub(super) async fn link_account(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    path: web::Path<(String, String)>,
    body: Body<LinkBody>,
) -> Result<web::Json<LinkedBody>, Problem> {
    let (id, line) = path.into_inner();
    let link = Link { line: path_line(&line)?, account: body.0.account, unit: body.0.unit };
    Ok(web::Json(membership.link(&actor, &path_id("member", &id)?, &link).await?.into()))
}

/// Lists the lines' accounts of a member with their numbers masked, for its own token, a key that reaches it, or a unit's key as far as that
/// unit linked them.
#[utoipa::path(
    tag = "membership", summary = "List a member's accounts", security(("key" = [])),
    params(("id" = String, Path, description = "The member")),
    responses(
        (status = 200, body = LinkedListBody),
        Unwelcome, Missing,
    )
)]
#[get("/v1/members/{id}/accounts")]
pub(super) async fn list_accounts(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
) -> Result<web::Json<LinkedListBody>, Problem> {
    let links = membership.links(&actor, &path_id("member", &id)?).await?;
    Ok(web::Json(LinkedListBody { items: links.into_iter().map(LinkedBody::from).collect() }))
}

/// Lists the same accounts with their whole numbers, for a key of scope `reveal` that says why. Each look is audited.
#[utoipa::path(
    tag = "membership", summary = "See a member's account numbers unmasked; audited", request_body = RevealAccountsBody,
    security(("key" = [])), params(("id" = String, Path, description = "The member")),
    responses(
        (status = 200, body = LinkedListBody),
        Invalid, Unwelcome, Missing,
    )
)]
#[post("/v1/members/{id}/accounts:reveal")]
pub(super) async fn reveal_accounts(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
    body: Body<RevealAccountsBody>,
) -> Result<web::Json<LinkedListBody>, Problem> {
    let links = membership.reveal_links(&actor, &path_id("member", &id)?, &body.0.reason).await?;
    Ok(web::Json(LinkedListBody { items: links.into_iter().map(LinkedBody::from).collect() }))
}

/// Takes a line's account away from a member; what was kept of its number is destroyed.
#[utoipa::path(
    tag = "membership", summary = "Unlink a line's account", security(("key" = [])),
    params(
        ("id" = String, Path, description = "The member"),
        ("line" = inline(LineName), Path, description = "The business line"),
    ),
    responses(
        (status = 204),
        Unwelcome, Missing,
    )
)]
#[delete("/v1/members/{id}/accounts/{line}")]
pub(super) async fn unlink_account(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let (id, line) = path.into_inner();
    membership.unlink(&actor, &path_id("member", &id)?, path_line(&line)?).await?;
    Ok(HttpResponse::NoContent().finish())
}

fn path_line(text: &str) -> Result<Line, Problem> {
    Line::parse(text).ok_or_else(|| Problem::not_found("line", "of this name"))
}
