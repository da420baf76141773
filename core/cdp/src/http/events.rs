//! Events in our own spelling, their fate, and those that were refused.

#![expect(unused_qualifications, reason = "the macro that documents query parameters writes paths in full")]

use super::collect::{Sent, invalid, sent_time};
use crate::cdp::Cdp;
use crate::collect::Status;
use crate::collect::rejected::Rejected;
use crate::collect::sender::{Sender, Spelling};
use crate::events::EventFate;
use actix_web::{HttpResponse, get, post, web};
use futures::StreamExt;
use heyuan_contract::Timestamp;
use heyuan_kernel::error::ProblemBody;
use heyuan_kernel::http::{Authenticated, Page, PageQuery};
use heyuan_kernel::problems::{Away, Invalid, Missing, Stranger};
use heyuan_kernel::stopping::Stopping;
use heyuan_kernel::time::now_ms;
use heyuan_kernel::{Problem, Scope};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::broadcast::error::RecvError;
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;

/// Events of one request.
const EVENTS_MAX: usize = 5_000;

/// Events in our own spelling, or in that of the Segment protocol.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "the shape for the API document; the real reading is event by event")]
struct EventsRequest {
    /// At most 5,000, and 4 MiB in all.
    events: Vec<NativeEvent>,
    /// When the sender's clock says that it sent them; `sentAt` is read as well.
    sent_at: Option<String>,
}

/// An event. One without `identifiers` that has `event`, `messageId`, `anonymousId` or `userId` is read as the Segment protocol spells it.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "the shape for the API document; the real reading is event by event")]
struct NativeEvent {
    /// By which a retry is known; made by us when left out.
    message_id: Option<String>,
    /// `track` (the default), `identify`, `page`, `screen`, `group` or `alias`.
    r#type: Option<String>,
    /// The event type of a track: `unit_viewed`.
    name: Option<String>,
    /// RFC 3339; the arrival when left out.
    occurred_at: Option<String>,
    /// Who it was: 1 to 12.
    identifiers: Vec<NativeIdentifier>,
    /// What happened.
    #[schema(value_type = Option<Object>)]
    properties: Option<serde_json::Value>,
    /// What is known of the person.
    #[schema(value_type = Option<Object>)]
    traits: Option<serde_json::Value>,
    /// What brought the visitor: source, medium, campaign, content, term, platform, click_id.
    #[schema(value_type = Option<Object>)]
    touch: Option<serde_json::Value>,
    /// The app.
    app: Option<String>,
}

/// An identifier with its type.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "the shape for the API document; the real reading is event by event")]
struct NativeIdentifier {
    /// `phone`, `unionid`, `openid`, `member`, `user`, `device`, `email`, `crm` or `plate`.
    r#type: String,
    /// Its value.
    value: String,
    /// The app of an openid.
    app: Option<String>,
}

#[derive(Deserialize)]
struct RawEvents<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    sent_at: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "sentAt")]
    segment_sent_at: Option<&'a RawValue>,
}

/// What became of each event, in order.
#[derive(Debug, Serialize, ToSchema)]
struct EventsAnswer {
    /// One for each event.
    results: Vec<EventResult>,
}

/// What became of an event.
#[derive(Debug, Serialize, ToSchema)]
struct EventResult {
    /// The sender's id, or the one that we gave it.
    message_id: String,
    /// `ok`, `duplicate` or `rejected`.
    status: &'static str,
    /// Why it was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The same in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

#[utoipa::path(
    tag = "collect",
    summary = "Send events and learn what became of each",
    description = "200 means that every event of status ok is durable. A rejected event harms no other; it is answered under the message id that it was sent with, kept, and can be replayed. Members that are not listed are ignored.",
    request_body = EventsRequest,
    responses(
        (status = 200, description = "One result for each event, in order", body = EventsAnswer),
        (status = 400, description = "No JSON of this shape", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "The key lacks the scope ingest", body = ProblemBody, content_type = "application/problem+json"),
        (status = 408, description = "The body came too slowly", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "More than 4 MiB, or 512 KiB without an Authorization header", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "Backlog or disk is full, or too many bodies are on their way; see Retry-After", body = ProblemBody, content_type = "application/problem+json"),
        Stranger, Away,
    ),
    security(("key" = []))
)]
#[post("/v1/events")]
async fn send_events(cdp: web::Data<Cdp>, sent: Sent) -> Result<web::Json<EventsAnswer>, Problem> {
    let (sent_at, events): (_, Vec<_>) = {
        let body: RawEvents<'_> = serde_json::from_str(&sent.text).map_err(|e| invalid(&e))?;
        if body.events.len() > EVENTS_MAX {
            return Err(Problem::invalid("events", format!("at most {EVENTS_MAX} events are sent at once")));
        }
        let sent_at = sent_time(body.sent_at.or(body.segment_sent_at));
        (sent_at, body.events.into_iter().map(|raw| (None, raw.get().to_owned())).collect())
    };
    let sender = Sender::new(&sent.actor, Spelling::Native, Timestamp::clamped(now_ms()), sent_at);
    // The events are copies: while they wait, the text is not held beside them.
    drop(sent.text);
    let outcomes = cdp.inner.collector.submit(sender, events, sent.share).await?;
    let results = outcomes
        .into_iter()
        .map(|outcome| {
            let (status, reason, detail) = match outcome.status {
                Status::Ok => ("ok", None, None),
                Status::Duplicate => ("duplicate", None, None),
                Status::Rejected(reason, detail) => ("rejected", Some(reason.as_str().to_owned()), Some(detail)),
            };
            EventResult { message_id: outcome.message_id, status, reason, detail }
        })
        .collect();
    Ok(web::Json(EventsAnswer { results }))
}

/// Which event.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct FateQuery {
    /// The sender's id of the message.
    message_id: String,
}

#[utoipa::path(
    tag = "collect",
    summary = "What became of an event",
    params(FateQuery),
    responses(
        (status = 200, description = "Its fate", body = EventFate),
        (status = 400, description = "No message id", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "The key lacks the scope admin", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such event within the days that ids are remembered", body = ProblemBody, content_type = "application/problem+json"),
        Stranger,
    ),
    security(("key" = []))
)]
#[get("/v1/events")]
async fn event_fate(
    Authenticated(actor): Authenticated,
    cdp: web::Data<Cdp>,
    query: Result<web::Query<FateQuery>, actix_web::Error>,
) -> Result<web::Json<EventFate>, Problem> {
    actor.require(Scope::Admin)?;
    let query = query.map_err(|_| Problem::invalid("message_id", "name the event: ?message_id=…"))?;
    Ok(web::Json(cdp.fate(&actor, &query.message_id).await?))
}

#[utoipa::path(
    tag = "collect",
    summary = "Events that were refused, newest first",
    params(PageQuery),
    responses(
        (status = 200, description = "A page", body = Page<Rejected>),
        (status = 403, description = "The key lacks the scope admin", body = ProblemBody, content_type = "application/problem+json"),
        Invalid, Stranger,
    ),
    security(("key" = []))
)]
#[get("/v1/events/rejected")]
async fn rejected_events(
    Authenticated(actor): Authenticated,
    cdp: web::Data<Cdp>,
    page: Result<web::Query<PageQuery>, actix_web::Error>,
) -> Result<web::Json<Page<Rejected>>, Problem> {
    let page = page.map_err(|_| Problem::invalid("limit", "expected 1 to 200"))?;
    let (limit, before) = (page.limit()?, page.after_number()?);
    let items = cdp.rejected(&actor, before, limit).await?;
    Ok(web::Json(Page::of(items, limit, |item| item.id.to_string())))
}

/// A replay that went through.
#[derive(Debug, Serialize, ToSchema)]
struct Replayed {
    /// The event's message id.
    message_id: String,
    /// `ok`, or `duplicate` when the sender had sent it again meanwhile.
    status: &'static str,
}

#[utoipa::path(
    tag = "collect",
    summary = "Take a refused event in after all",
    description = "For when what was wrong is mended: a strict schema was widened, say. It keeps its arrival and its message id.",
    params(("id" = i64, Path, description = "Its number in the list")),
    responses(
        (status = 200, description = "It is durable", body = Replayed),
        (status = 403, description = "The key lacks the scope admin", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "It would be refused again, or was replayed", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "Backlog or disk is full; see Retry-After", body = ProblemBody, content_type = "application/problem+json"),
        Stranger, Missing,
    ),
    security(("key" = []))
)]
#[post("/v1/events/rejected/{id}/replay")]
async fn replay_event(
    Authenticated(actor): Authenticated,
    cdp: web::Data<Cdp>,
    path: web::Path<String>,
) -> Result<web::Json<Replayed>, Problem> {
    actor.require(Scope::Admin)?;
    let id = path.parse().map_err(|_| Problem::not_found("rejected event", path.as_str()))?;
    let outcome = cdp.replay(&actor, id).await?;
    let status = if outcome.status == Status::Duplicate { "duplicate" } else { "ok" };
    Ok(web::Json(Replayed { message_id: outcome.message_id, status }))
}

#[utoipa::path(
    tag = "collect",
    summary = "What arrives, as it arrives, with its fate",
    description = "A line of JSON an event, until the caller hangs up or the server stops. No personal values: message id, event type, key, unit, fate. A key of a unit sees its own unit's. A slow reader misses some, and is told how many: {\"missed\": 12}.",
    responses(
        (status = 200, description = "Lines of JSON without end", content_type = "application/x-ndjson", body = String),
        (status = 403, description = "The key lacks the scope admin", body = ProblemBody, content_type = "application/problem+json"),
        Stranger,
    ),
    security(("key" = []))
)]
#[get("/v1/events/tail")]
async fn tail_events(
    Authenticated(actor): Authenticated,
    cdp: web::Data<Cdp>,
    stopping: web::Data<Stopping>,
) -> Result<HttpResponse, Problem> {
    actor.require(Scope::Admin)?;
    let arrivals = futures::stream::unfold((cdp.subscribe(), actor), |(mut receiver, actor)| async move {
        loop {
            let line = match receiver.recv().await {
                Ok(arrival) => {
                    let within = crate::collect::rejected::within(actor.reach(), arrival.unit.as_ref().map(|unit| unit.as_str()));
                    if !within {
                        continue;
                    }
                    serde_json::to_string(&arrival).unwrap_or_default()
                }
                Err(RecvError::Lagged(missed)) => format!("{{\"missed\":{missed}}}"),
                Err(RecvError::Closed) => return None,
            };
            return Some((Ok::<_, actix_web::Error>(bytes::Bytes::from(line + "\n")), (receiver, actor)));
        }
    });
    // An empty line first, so that a caller knows that it is connected before anything arrives.
    let opening = futures::stream::once(async { Ok(bytes::Bytes::from_static(b"\n")) });
    let lines = opening.chain(arrivals).take_until(stopping.as_ref().clone().begun());
    Ok(HttpResponse::Ok().content_type("application/x-ndjson").streaming(lines))
}

/// Adds the routes.
pub(super) fn routes(config: &mut ServiceConfig<'_>) {
    config.service(send_events).service(event_fate).service(rejected_events).service(replay_event).service(tail_events);
}
