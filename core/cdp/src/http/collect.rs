//! The Segment protocol: full paths for servers, short ones for browsers.

use crate::cdp::Cdp;
use crate::collect::sender::{Sender, Spelling};
use crate::collect::{BATCH_BYTES_MAX, KEYLESS_BYTES_MAX, Status};
use crate::error::codes;
use crate::event::EventKind;
use actix_web::dev::Payload;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{FromRequest, HttpMessage, HttpRequest, HttpResponse, ResponseError, options, post, web};
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use heyuan_contract::Timestamp;
use heyuan_kernel::bodies::Share;
use heyuan_kernel::error::{ProblemBody, codes as kernel_codes};
use heyuan_kernel::http::{header_text, read_body};
use heyuan_kernel::keys::Credentials;
use heyuan_kernel::problems::{Away, Stranger};
use heyuan_kernel::time::{now_ms, parse_rfc3339};
use heyuan_kernel::{Actor, Problem, Scope};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::io::Read;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

/// Bytes that are unpacked before the budget is asked for more.
const UNPACKED_STEP: usize = 64 << 10;
/// Events of one batch; a batch of the smallest events that the protocol allows stays below it.
const BATCH_EVENTS_MAX: usize = 5_000;
/// Longest list of headers that a browser asks for and is allowed, in bytes.
const ASKED_HEADERS_BYTES_MAX: usize = 1024;

/// The protocol's answer: success, and nothing else.
#[derive(Debug, Serialize, ToSchema)]
struct Success {
    /// Always true.
    success: bool,
}

/// A message as the Segment SDKs send it; fields beyond these are taken as well.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "the shape for the API document; the real reading is lenient and event by event")]
struct SegmentMessage {
    /// `track`, `identify`, `page`, `screen`, `group` or `alias`; the path says it where it names one.
    r#type: Option<String>,
    /// The sender's id of the message, by which retries are known.
    message_id: Option<String>,
    /// The event of a track.
    event: Option<String>,
    /// The app's id of the user.
    user_id: Option<String>,
    /// The id of the device or browser.
    anonymous_id: Option<String>,
    /// RFC 3339.
    timestamp: Option<String>,
    /// What the event says.
    #[schema(value_type = Option<Object>)]
    properties: Option<serde_json::Value>,
    /// What an identify says.
    #[schema(value_type = Option<Object>)]
    traits: Option<serde_json::Value>,
    /// App, page, campaign, device, external ids.
    #[schema(value_type = Option<Object>)]
    context: Option<serde_json::Value>,
}

/// Several messages.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "the shape for the API document; the real reading is lenient and event by event")]
struct SegmentBatch {
    /// The messages, of any kinds.
    batch: Vec<SegmentMessage>,
    /// Counts where a message's own context lacks a member: app, page, campaign, device, externalIds, traits; at most 2 KB of these.
    #[schema(value_type = Option<Object>)]
    context: Option<serde_json::Value>,
    /// When the sender's clock says that it sent them.
    sent_at: Option<String>,
}

/// The parts of a batch that we read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBatch<'a> {
    #[serde(borrow)]
    batch: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    sent_at: Option<&'a RawValue>,
    #[serde(borrow, default)]
    context: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WithKey {
    write_key: Option<String>,
}

/// A body with the actor who sent it: by header, or by `writeKey` in the body, as browsers do.
pub(crate) struct Sent {
    pub actor: Actor,
    pub text: String,
    /// What the text has taken of the budget of bodies, where there is one.
    pub share: Option<Share>,
}

impl FromRequest for Sent {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let credentials = request.app_data::<web::Data<Credentials>>().cloned();
        let authorization = header_text(request.headers(), header::AUTHORIZATION.as_str()).map(str::to_owned);
        let encoding = header_text(request.headers(), header::CONTENT_ENCODING.as_str()).unwrap_or("identity").trim().to_lowercase();
        let share = request.extensions().get::<Share>().cloned();
        let payload = payload.take();
        async move {
            let credentials =
                credentials.ok_or_else(|| Problem::new(kernel_codes::INTERNAL, "the server was built without credentials"))?;
            // With a header a stranger is refused before anything of the body is read.
            let by_header = match &authorization {
                Some(header) => Some(credentials.authenticate(Some(header)).await?),
                None => None,
            };
            let bytes_max = if by_header.is_some() { BATCH_BYTES_MAX } else { KEYLESS_BYTES_MAX };
            if let (Some(share), Some(_)) = (&share, &by_header) {
                share.keyed();
            }
            let bytes = read_body(payload, bytes_max).await?;
            let bytes = decode(&encoding, bytes, bytes_max, share.as_ref()).await?;
            let text = String::from_utf8(bytes).map_err(|_| Problem::new(kernel_codes::INVALID_REQUEST, "the body is not UTF-8"))?;
            let actor = match by_header {
                Some(actor) => actor,
                None => {
                    let key = serde_json::from_str::<WithKey>(&text).ok().and_then(|body| body.write_key);
                    credentials.authenticate(key.map(|key| format!("Bearer {key}")).as_deref()).await?
                }
            };
            actor.require_any(&[Scope::Ingest, Scope::App, Scope::Import])?;
            Ok(Sent { actor, text, share })
        }
        .boxed_local()
    }
}

/// Undoes the body's encoding, no further than a batch may be large, and takes from the budget before it unpacks.
async fn decode(encoding: &str, bytes: Vec<u8>, bytes_max: usize, share: Option<&Share>) -> Result<Vec<u8>, Problem> {
    match encoding {
        "" | "identity" => Ok(bytes),
        "gzip" | "x-gzip" => {
            let (mut plain, mut taken) = (Vec::new(), 0);
            let mut decoder = flate2::read::MultiGzDecoder::new(bytes.as_slice());
            loop {
                if let Some(share) = share {
                    share.take(UNPACKED_STEP).await?;
                    taken += UNPACKED_STEP;
                }
                let step = decoder.by_ref().take(UNPACKED_STEP as u64).read_to_end(&mut plain);
                let read = step.map_err(|_| Problem::new(codes::BAD_ENCODING, "the body is no complete gzip"))?;
                if plain.len() > bytes_max {
                    let detail = format!("a batch here has at most {bytes_max} bytes after decompression");
                    return Err(Problem::new(kernel_codes::BODY_TOO_LARGE, detail));
                }
                if read < UNPACKED_STEP {
                    break;
                }
            }
            if let Some(share) = share {
                share.give_back(bytes.len() + taken - plain.len());
            }
            Ok(plain)
        }
        _ => Err(Problem::new(codes::BAD_ENCODING, "a body is sent plain or with Content-Encoding gzip").field("Content-Encoding")),
    }
}

pub(crate) fn invalid(error: &serde_json::Error) -> Problem {
    Problem::new(
        kernel_codes::INVALID_REQUEST,
        format!("the body is no JSON of the expected shape, at line {} column {}", error.line(), error.column()),
    )
}

pub(crate) fn sent_time(raw: Option<&RawValue>) -> Option<Timestamp> {
    parse_rfc3339(&serde_json::from_str::<String>(raw?.get()).ok()?)
}

async fn collect_one(cdp: &Cdp, sent: Sent, kind: EventKind) -> Result<HttpResponse, Problem> {
    if !sent.text.trim_start().starts_with('{') || serde_json::from_str::<&RawValue>(&sent.text).is_err() {
        return Err(Problem::new(kernel_codes::INVALID_REQUEST, "the body is no JSON object"));
    }
    let sender = Sender::new(&sent.actor, Spelling::Segment, Timestamp::clamped(now_ms()), None);
    let outcomes = cdp.inner.collector.submit(sender, vec![(Some(kind), sent.text)], sent.share).await?;
    if let Some(Status::Rejected(reason, detail)) = outcomes.into_iter().next().map(|outcome| outcome.status) {
        return Err(Problem::new(codes::EVENT_REJECTED, format!("{}: {detail}", reason.as_str())));
    }
    Ok(HttpResponse::Ok().json(Success { success: true }))
}

async fn collect_batch(cdp: &Cdp, sent: Sent) -> Result<HttpResponse, Problem> {
    let (sender, events) = {
        let batch: RawBatch<'_> = serde_json::from_str(&sent.text).map_err(|e| invalid(&e))?;
        if batch.batch.len() > BATCH_EVENTS_MAX {
            return Err(Problem::invalid("batch", format!("a batch has at most {BATCH_EVENTS_MAX} messages")));
        }
        let sender =
            Sender::new(&sent.actor, Spelling::Segment, Timestamp::clamped(now_ms()), sent_time(batch.sent_at)).with_context(batch.context);
        (sender, batch.batch.into_iter().map(|raw| (None, raw.get().to_owned())).collect())
    };
    // The events are copies: while they wait, the text is not held beside them.
    drop(sent.text);
    cdp.inner.collector.submit(sender, events, sent.share).await?;
    Ok(HttpResponse::Ok().json(Success { success: true }))
}

/// Browsers send from pages of the tenant's own domains, with a key that may only send.
fn for_browsers(result: Result<HttpResponse, Problem>) -> HttpResponse {
    let mut response = result.unwrap_or_else(|problem| problem.error_response());
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response.headers_mut().insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
    response
}

/// A browser asks before it sends headers of its SDK: whichever they are, they are allowed, since none but the key's is read.
fn preflight(request: &HttpRequest) -> HttpResponse {
    let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS).filter(|names| names.len() <= ASKED_HEADERS_BYTES_MAX);
    let usual = HeaderValue::from_static("Authorization, Content-Type, Content-Encoding");
    HttpResponse::NoContent()
        .insert_header((header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"))
        .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, "POST, OPTIONS"))
        .insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, asked.cloned().unwrap_or(usual)))
        .insert_header((header::ACCESS_CONTROL_MAX_AGE, "86400"))
        .insert_header((header::VARY, "Access-Control-Request-Headers"))
        .finish()
}

macro_rules! endpoint {
    ($module:ident, $path:tt, $summary:tt, $shape:ty, |$cdp:ident, $sent:ident| $work:expr) => {
        mod $module {
            use super::*;

            #[utoipa::path(
                tag = "collect",
                summary = $summary,
                description = "As the Segment protocol spells it: plain or gzip, JSON or text, the key as user of Basic auth, as Bearer token or as writeKey in the body. 200 means durable; a message id that was seen before is taken once.",
                request_body(content = $shape, content_type = "application/json"),
                responses(
                    (status = 200, description = "Durable", body = Success),
                    (status = 400, description = "No JSON of this shape, broken gzip, or a single event that is refused", body = ProblemBody, content_type = "application/problem+json"),
                    (status = 403, description = "The key lacks the scope ingest", body = ProblemBody, content_type = "application/problem+json"),
                    (status = 408, description = "The body came too slowly", body = ProblemBody, content_type = "application/problem+json"),
                    (status = 413, description = "More than 4 MiB, or 512 KiB without an Authorization header, as sent or unpacked", body = ProblemBody, content_type = "application/problem+json"),
                    (status = 429, description = "Backlog or disk is full, or too many bodies are on their way; see Retry-After", body = ProblemBody, content_type = "application/problem+json"),
                    Stranger, Away,
                ),
                security(("key" = []))
            )]
            #[post($path)]
            pub(super) async fn send(cdp: web::Data<Cdp>, sent: Result<Sent, Problem>) -> HttpResponse {
                let $cdp = cdp.as_ref();
                for_browsers(match sent {
                    Ok($sent) => $work.await,
                    Err(problem) => Err(problem),
                })
            }

            #[options($path)]
            pub(super) async fn ask(request: HttpRequest) -> HttpResponse {
                preflight(&request)
            }
        }
    };
}

endpoint!(track, "/v1/track", "Something that somebody did", SegmentMessage, |cdp, sent| collect_one(cdp, sent, EventKind::Track));
endpoint!(identify, "/v1/identify", "Something that is known of somebody", SegmentMessage, |cdp, sent| collect_one(
    cdp,
    sent,
    EventKind::Identify
));
endpoint!(page, "/v1/page", "A page was looked at", SegmentMessage, |cdp, sent| collect_one(cdp, sent, EventKind::Page));
endpoint!(screen, "/v1/screen", "A screen was looked at", SegmentMessage, |cdp, sent| collect_one(cdp, sent, EventKind::Screen));
endpoint!(group, "/v1/group", "Somebody belongs to a group", SegmentMessage, |cdp, sent| collect_one(cdp, sent, EventKind::Group));
endpoint!(alias, "/v1/alias", "Two ids are one person", SegmentMessage, |cdp, sent| collect_one(cdp, sent, EventKind::Alias));
endpoint!(batch, "/v1/batch", "Several messages", SegmentBatch, |cdp, sent| collect_batch(cdp, sent));
endpoint!(import, "/v1/import", "Several messages of the past: the same as /v1/batch", SegmentBatch, |cdp, sent| collect_batch(cdp, sent));
endpoint!(t, "/v1/t", "Track, from a browser", SegmentMessage, |cdp, sent| collect_one(cdp, sent, EventKind::Track));
endpoint!(i, "/v1/i", "Identify, from a browser", SegmentMessage, |cdp, sent| collect_one(cdp, sent, EventKind::Identify));
endpoint!(p, "/v1/p", "Page, from a browser", SegmentMessage, |cdp, sent| collect_one(cdp, sent, EventKind::Page));
endpoint!(s, "/v1/s", "Screen, from a browser", SegmentMessage, |cdp, sent| collect_one(cdp, sent, EventKind::Screen));
endpoint!(g, "/v1/g", "Group, from a browser", SegmentMessage, |cdp, sent| collect_one(cdp, sent, EventKind::Group));
endpoint!(a, "/v1/a", "Alias, from a browser", SegmentMessage, |cdp, sent| collect_one(cdp, sent, EventKind::Alias));
endpoint!(b, "/v1/b", "Several messages, from a browser", SegmentBatch, |cdp, sent| collect_batch(cdp, sent));

/// Adds the protocol's routes.
pub(super) fn routes(config: &mut ServiceConfig<'_>) {
    config.service(track::send).service(identify::send).service(page::send).service(screen::send).service(group::send);
    config.service(alias::send).service(batch::send).service(t::send).service(i::send).service(p::send).service(s::send);
    config.service(g::send).service(a::send).service(b::send).service(import::send);
    // What a browser asks before it sends is no operation of the API, so it stands in no document.
    config.map(|config| {
        config.service(track::ask).service(identify::ask).service(page::ask).service(screen::ask).service(group::ask);
        config.service(alias::ask).service(batch::ask).service(t::ask).service(i::ask).service(p::ask).service(s::ask);
        config.service(g::ask).service(a::ask).service(b::ask).service(import::ask)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use heyuan_kernel::bodies::{Bodies, Bounds};
    use std::io::Write;
    use std::time::Duration;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(plain).and_then(|()| encoder.finish()).unwrap_or_default()
    }

    async fn decoded(encoding: &str, bytes: Vec<u8>) -> Result<Vec<u8>, &'static str> {
        decode(encoding, bytes, BATCH_BYTES_MAX, None).await.map_err(|problem| problem.code().code)
    }

    #[tokio::test]
    async fn bodies_are_decoded_within_bounds() {
        assert_eq!(decoded("gzip", gzip(b"{}")).await, Ok(b"{}".to_vec()));
        assert_eq!(decoded("identity", b"{}".to_vec()).await, Ok(b"{}".to_vec()));
        assert_eq!(decoded("gzip", gzip(&vec![0; 50 << 20])).await, Err("body_too_large"));
        assert_eq!(decoded("gzip", b"no gzip".to_vec()).await, Err("bad_encoding"));
        let whole = gzip(b"{\"batch\":[]}");
        assert_eq!(decoded("gzip", whole[..whole.len() - 6].to_vec()).await, Err("bad_encoding"));
        assert_eq!(decoded("br", b"{}".to_vec()).await, Err("bad_encoding"));
    }

    #[tokio::test]
    async fn what_is_unpacked_counts_against_the_budget_while_it_is_unpacked() {
        let bounds = Bounds { bytes_max: 2 << 20, grace: Duration::from_secs(10), bytes_a_second_min: 1 };
        let bodies = Bodies::new(bounds);
        let (share, plain) = (bodies.share(None), vec![0; 200_000]);
        let sent = gzip(&plain);
        share.take(sent.len()).await.expect("a stranger's part is 512 KiB");
        assert!(decode("gzip", sent, KEYLESS_BYTES_MAX, Some(&share)).await == Ok(plain), "it is unpacked");
        assert_eq!(bodies.taken(), 200_000, "what was sent has gone back");
        drop(share);
        let (share, bomb) = (bodies.share(None), gzip(&vec![0; 10 << 20]));
        share.take(bomb.len()).await.expect("it is small");
        let refused = decode("gzip", bomb, BATCH_BYTES_MAX, Some(&share)).await;
        assert_eq!(refused.map_err(|problem| problem.code().code), Err("body_too_large"));
        assert!(bodies.taken() <= 512 << 10);
    }
}
