//! Members and their points over HTTP.

use super::path_id;
use super::tiers::TierStandingBody;
use crate::customers::Identifier;
use crate::facade::Membership;
use crate::join::{Join, Joined, SessionFor};
use crate::member::MemberView;
use crate::points::{Spend, SpendView, StatementLine};
use actix_web::{HttpRequest, HttpResponse, get, post, web};
use heyuan_contract::OrgUnitId;
use heyuan_kernel::http::{Authenticated, Body, Page, PageQuery, idempotency_header};
use heyuan_kernel::problems::{Conflicting, Invalid, Missing, Unwelcome};
use heyuan_kernel::{Problem, Rfc3339};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An identifier of a person.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MemberIdentifier {
    /// `phone`, `openid` or `unionid`.
    #[schema(examples("phone"))]
    pub(super) r#type: String,
    /// The value; it goes to the vault and nowhere else.
    #[schema(examples("13800138000"))]
    pub(super) value: String,
    /// The app that an openid belongs to.
    pub(super) app: Option<String>,
    /// Whether the app has verified it, by a code or by the platform's login.
    #[serde(default)]
    pub(super) verified: bool,
}

impl MemberIdentifier {
    pub(super) fn parsed(self) -> (Identifier, bool) {
        (Identifier { kind: self.r#type, value: self.value, app: self.app }, self.verified)
    }
}

/// A request to join.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JoinBody {
    /// Where: a mall, hotel, project, office tower or community.
    #[schema(value_type = String, examples("mall-1"))]
    unit: OrgUnitId,
    /// Verified identifiers, the strongest of which the membership hangs on.
    identifiers: Vec<MemberIdentifier>,
    /// Whether a session is opened: `true` also for who is a member already, `false` for nobody; left out, for who joins now. An app keeps ten
    /// sessions of a member, so that looking people up with `true` ends those that they are in.
    session: Option<bool>,
}

impl JoinBody {
    fn parsed(self) -> Join {
        let session = match self.session {
            None => SessionFor::NewMembers,
            Some(true) => SessionFor::Everybody,
            Some(false) => SessionFor::Nobody,
        };
        Join { unit: self.unit, identifiers: self.identifiers.into_iter().map(MemberIdentifier::parsed).collect(), session }
    }
}

/// A member with the tokens of the session that its app acts in.
#[derive(Serialize, ToSchema)]
pub(super) struct JoinedBody {
    /// The member.
    id: String,
    /// The tier's code.
    #[schema(examples("silver"))]
    tier: String,
    /// When it joined first.
    joined_at: Rfc3339,
    /// The session's name in lists; it opens nothing. It and its tokens are absent where none was asked for, and for a member that is blocked,
    /// joined at a unit out of the key's reach, or is known only by what apps told of who is who.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    /// Sent as `Authorization: Bearer`, it speaks for this member alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// When the token runs out: after about an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_expires_at: Option<Rfc3339>,
    /// Gives the next pair, once (`POST /v1/sessions:refresh`): keep it where nobody else reads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    /// When the session ends unless it is refreshed.
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token_expires_at: Option<Rfc3339>,
}

impl From<Joined> for JoinedBody {
    fn from(joined: Joined) -> JoinedBody {
        let Joined { id, tier, joined_at, tokens, .. } = joined;
        JoinedBody {
            id: id.to_string(),
            tier,
            joined_at: Rfc3339(joined_at),
            session: tokens.as_ref().map(|tokens| tokens.session.clone()),
            token: tokens.as_ref().map(|tokens| tokens.access.clone()),
            token_expires_at: tokens.as_ref().map(|tokens| Rfc3339(tokens.access_expires_at)),
            refresh_token: tokens.as_ref().map(|tokens| tokens.refresh.clone()),
            refresh_token_expires_at: tokens.map(|tokens| Rfc3339(tokens.refresh_expires_at)),
        }
    }
}

/// A member.
#[derive(Serialize, ToSchema)]
pub(super) struct MemberBody {
    /// The member.
    id: String,
    /// Where it joined.
    unit: String,
    /// The line that it joined from.
    line: String,
    /// `open`, `blocked` or `closed`.
    state: &'static str,
    /// When it joined.
    joined_at: Rfc3339,
    /// The tier at this moment.
    tier: String,
    /// Why it has that tier and what changes it; absent for one that has left.
    tier_standing: Option<TierStandingBody>,
    /// Growth value of the whole history.
    growth: i64,
    /// Points that can be spent at this moment.
    points: i64,
    /// Points that were spent before they were taken back.
    points_owed: i64,
    /// When the first of the points expire.
    nearest_expiry: Option<Rfc3339>,
    /// Other members of the same customer, since customers with a member each became one: each has its own books, and the one that joined
    /// first earns by their identifiers.
    linked: Vec<String>,
}

impl From<MemberView> for MemberBody {
    fn from(member: MemberView) -> MemberBody {
        MemberBody {
            id: member.id.to_string(),
            unit: member.unit.to_string(),
            line: member.line.to_string(),
            state: member.state.as_str(),
            joined_at: Rfc3339(member.joined_at),
            tier: member.tier,
            tier_standing: member.standing.map(TierStandingBody::from),
            growth: member.growth,
            points: member.points,
            points_owed: member.points_owed,
            nearest_expiry: member.nearest_expiry.map(Rfc3339),
            linked: member.linked.iter().map(ToString::to_string).collect(),
        }
    }
}

/// An entry of a member's points.
#[derive(Serialize, ToSchema)]
pub(super) struct PointsEntryBody {
    /// Counted from 1 without gaps.
    number: i64,
    /// `earn`, `spend`, `return`, `refund`, `expire`, `forfeit`, `recover`, `open`, `transfer` or `adjust`.
    kind: String,
    /// What it belongs to.
    reference: String,
    /// Positive when points came in.
    amount: i64,
    /// Everything that the account held after it.
    balance: i64,
    /// Its own time.
    occurred_at: Rfc3339,
    /// The month that it counts in.
    #[schema(examples("2026-11"))]
    accounting_period: String,
}

impl From<StatementLine> for PointsEntryBody {
    fn from(line: StatementLine) -> PointsEntryBody {
        PointsEntryBody {
            number: line.number,
            kind: line.kind,
            reference: line.reference,
            amount: line.amount,
            balance: line.balance,
            occurred_at: Rfc3339(line.occurred_at),
            accounting_period: line.period.to_string(),
        }
    }
}

/// A page of a member's points, and what of them expires next.
#[derive(Serialize, ToSchema)]
pub(super) struct MemberPointsBody {
    /// The entries, newest first.
    items: Vec<PointsEntryBody>,
    /// The cursor of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// What expires next; none when nothing does.
    next_expiry: Option<PointsExpiryBody>,
}

/// Points that expire next.
#[derive(Serialize, ToSchema)]
pub(super) struct PointsExpiryBody {
    /// How many go on the first day on which any do.
    amount: i64,
    /// When the first of them do.
    expires_at: Rfc3339,
}

/// Points to spend.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SpendBody {
    /// Above zero.
    #[schema(examples(100))]
    amount: i64,
    /// Where.
    #[schema(value_type = String, examples("mall-1"))]
    unit: OrgUnitId,
    /// What for, in the unit's own words; no personal data.
    #[schema(examples("parking 2 hours"))]
    reference: String,
}

/// Points that were spent.
#[derive(Serialize, ToSchema)]
pub(super) struct SpentBody {
    /// Its id.
    id: String,
    /// Who spent.
    member: String,
    /// Where.
    unit: String,
    /// How many.
    amount: i64,
    /// What for.
    reference: String,
    /// When.
    occurred_at: Rfc3339,
    /// The month that it counts in.
    accounting_period: Option<String>,
    /// What could be spent after it.
    points_balance: i64,
}

impl From<SpendView> for SpentBody {
    fn from(spent: SpendView) -> SpentBody {
        SpentBody {
            id: spent.id,
            member: spent.member.to_string(),
            unit: spent.unit.to_string(),
            amount: spent.amount,
            reference: spent.reference,
            occurred_at: Rfc3339(spent.occurred_at),
            accounting_period: spent.period.map(|period| period.to_string()),
            points_balance: spent.points_balance,
        }
    }
}

/// Makes the customer behind verified identifiers a member, from any line. One that is a member already is answered as it is, with a session
/// only where `session` is true, the key reaches the unit where it joined, and one of the identifiers is proven for it: by a log-in, or by an
/// earlier request like this one. Identifiers that are nobody's yet are then proven for it, too.
#[utoipa::path(
    tag = "membership", summary = "Join", request_body = JoinBody, security(("key" = [])),
    responses(
        (status = 200, description = "Was a member already", body = JoinedBody),
        (status = 201, description = "Is a member now", body = JoinedBody),
        Invalid, Unwelcome, Conflicting,
    )
)]
#[post("/v1/members")]
pub(super) async fn join(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    body: Body<JoinBody>,
) -> Result<HttpResponse, Problem> {
    let joined = membership.join(&actor, &body.0.parsed()).await?;
    let mut answer = if joined.new { HttpResponse::Created() } else { HttpResponse::Ok() };
    Ok(answer.insert_header(("Cache-Control", "no-store")).json(JoinedBody::from(joined)))
}

/// Reads a member: with a key that reaches the unit where it joined, or with the member's own token.
#[utoipa::path(
    tag = "membership", summary = "Read a member", security(("key" = [])),
    params(("id" = String, Path, description = "The member")),
    responses(
        (status = 200, body = MemberBody),
        Unwelcome, Missing,
    )
)]
#[get("/v1/members/{id}")]
pub(super) async fn get_member(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
) -> Result<web::Json<MemberBody>, Problem> {
    Ok(web::Json(membership.member(&actor, &path_id("member", &id)?).await?.into()))
}

/// Lists the entries of a member's points, newest first, and tells what of them expires next.
#[utoipa::path(
    tag = "membership", summary = "Read a member's points", security(("key" = [])),
    params(("id" = String, Path, description = "The member"), PageQuery),
    responses(
        (status = 200, body = MemberPointsBody),
        Invalid, Unwelcome, Missing,
    )
)]
#[get("/v1/members/{id}/points")]
pub(super) async fn get_points(
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
    page: web::Query<PageQuery>,
) -> Result<web::Json<MemberPointsBody>, Problem> {
    let limit = page.limit()?;
    let id = path_id("member", &id)?;
    let lines = membership.statement(&actor, &id, page.after_number()?, limit + 1).await?;
    let entries = lines.into_iter().map(PointsEntryBody::from).collect();
    let Page { items, next } = Page::of(entries, limit, |entry: &PointsEntryBody| entry.number.to_string());
    let expiry = membership.next_expiry(&actor, &id).await?;
    let next_expiry = expiry.map(|next| PointsExpiryBody { amount: next.amount, expires_at: Rfc3339(next.expires_at) });
    Ok(web::Json(MemberPointsBody { items, next, next_expiry }))
}

/// Spends points, those that expire first first; refused whole when there are fewer.
#[utoipa::path(
    tag = "membership", summary = "Spend points", request_body = SpendBody, security(("key" = [])),
    params(
        ("id" = String, Path, description = "The member"),
        ("Idempotency-Key" = String, Header, description = "Fresh for each spend, the same for its retries"),
    ),
    responses(
        (status = 200, body = SpentBody),
        Invalid, Unwelcome, Missing, Conflicting,
    )
)]
#[post("/v1/members/{id}/points:spend")]
pub(super) async fn spend_points(
    request: HttpRequest,
    Authenticated(actor): Authenticated,
    membership: web::Data<Membership>,
    id: web::Path<String>,
    body: Body<SpendBody>,
) -> Result<web::Json<SpentBody>, Problem> {
    let Body(body) = body;
    let spend = Spend { amount: body.amount, unit: body.unit, reference: body.reference };
    let spent = membership.spend(&actor, &path_id("member", &id)?, &spend, idempotency_header(&request)).await?;
    Ok(web::Json(spent.into()))
}
