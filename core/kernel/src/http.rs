//! What every route shares: the actor behind a request, bodies with errors that name the field, pages.

use crate::actor::Actor;
use crate::bodies::unreadable;
use crate::error::{Problem, codes};
use crate::keys::Credentials;
use crate::text::{check_json, has_control_characters};
use actix_web::dev::Payload;
use actix_web::http::header::{self, HeaderMap};
use actix_web::{FromRequest, HttpMessage, HttpRequest, web};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::LocalBoxFuture;
use futures::{FutureExt, StreamExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Largest JSON body of an ordinary route, in bytes; collecting and uploads state their own.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Most items of one page.
pub const PAGE_ITEMS_MAX: u64 = 200;
/// Items of a page when the caller names no limit.
const PAGE_ITEMS_DEFAULT: u64 = 50;

/// The actor behind a request; a stranger gets 401 before anything else is looked at.
#[derive(Debug, Clone)]
pub struct Authenticated(pub Actor);

impl FromRequest for Authenticated {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let known = request.extensions().get::<Actor>().cloned();
        let credentials = request.app_data::<web::Data<Credentials>>().cloned();
        let header = header_text(request.headers(), header::AUTHORIZATION.as_str()).map(str::to_owned);
        async move {
            if let Some(actor) = known {
                return Ok(Authenticated(actor));
            }
            let credentials = credentials.ok_or_else(|| Problem::new(codes::INTERNAL, "the server was built without credentials"))?;
            credentials.authenticate(header.as_deref()).await.map(Authenticated)
        }
        .boxed_local()
    }
}

/// A header's value, when it is there and is text.
pub fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The charset that a body is declared in, if it is.
pub fn charset(headers: &HeaderMap) -> Option<String> {
    let mut parts = header_text(headers, "Content-Type")?.split(';').skip(1).filter_map(|part| part.split_once('='));
    let (_, value) = parts.find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))?;
    Some(value.trim().trim_matches('"').to_owned())
}

/// The caller's `Idempotency-Key`, if it sent one.
pub fn idempotency_header(request: &HttpRequest) -> Option<&str> {
    header_text(request.headers(), "Idempotency-Key")
}

/// A JSON body of at most [`BODY_BYTES_MAX`]; what does not fit, and control characters in texts, are refused with the field's path.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(_: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let payload = payload.take();
        async move {
            let bytes = read_body(payload, BODY_BYTES_MAX).await?;
            parse_json(&bytes).map(Body)
        }
        .boxed_local()
    }
}

/// Reads a body up to a limit.
///
/// # Errors
/// `body_too_large`; `invalid_request` when the connection broke off; what [`crate::bodies`] breaks it off with.
pub async fn read_body(mut payload: Payload, bytes_max: usize) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| unreadable(&error))?;
        if bytes.len() + chunk.len() > bytes_max {
            return Err(Problem::new(codes::BODY_TOO_LARGE, format!("a body here has at most {bytes_max} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Parses JSON and names the field that does not fit, or has a text that is not kept. Depth is bounded by the parser (128).
///
/// # Errors
/// `invalid_request`.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let problem = Problem::new(codes::INVALID_REQUEST, error.into_inner().to_string());
        if path == "." { problem } else { problem.field(path) }
    })?;
    deserializer.end().map_err(|error| Problem::new(codes::INVALID_REQUEST, error.to_string()))?;
    check_json(bytes)?;
    Ok(value)
}

/// The cursor and size of a page, as query parameters.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// The `next` of the page before.
    pub cursor: Option<String>,
    /// 1 to 200 items; 50 when left out.
    pub limit: Option<u64>,
}

impl PageQuery {
    /// The number of items wanted.
    ///
    /// # Errors
    /// `invalid_request` outside 1 to 200.
    pub fn limit(&self) -> Result<u64, Problem> {
        match self.limit {
            None => Ok(PAGE_ITEMS_DEFAULT),
            Some(limit) if (1..=PAGE_ITEMS_MAX).contains(&limit) => Ok(limit),
            Some(_) => Err(Problem::invalid("limit", format!("expected 1 to {PAGE_ITEMS_MAX}"))),
        }
    }

    /// The key after which the page starts.
    ///
    /// # Errors
    /// `invalid_request` for a cursor that we did not hand out.
    pub fn after(&self) -> Result<Option<String>, Problem> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let text = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        text.filter(|text| !has_control_characters(text))
            .map(Some)
            .ok_or_else(|| Problem::invalid("cursor", "expected the `next` of an earlier page"))
    }

    /// The numeric key after which the page starts.
    ///
    /// # Errors
    /// `invalid_request` for a cursor that we did not hand out.
    pub fn after_number(&self) -> Result<Option<i64>, Problem> {
        let after = self.after()?;
        after.map(|text| text.parse().map_err(|_| Problem::invalid("cursor", "expected the `next` of an earlier page"))).transpose()
    }
}

/// A page of a list.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// The cursor of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// A page from up to `limit + 1` items: one more than asked for tells that there is a next page. `key` names an item's place.
    pub fn of(mut items: Vec<T>, limit: u64, key: impl Fn(&T) -> String) -> Page<T> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        let next = if more { items.last().map(key) } else { None };
        Page::before(items, next)
    }

    /// A page before the next one's key, which need not be that of an item.
    pub fn before(items: Vec<T>, next: Option<String>) -> Page<T> {
        Page { items, next: next.map(|key| URL_SAFE_NO_PAD.encode(key)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_one_that_a_page_gave() {
        let after =
            |cursor: &str| PageQuery { cursor: Some(cursor.to_owned()), limit: None }.after().map_err(|problem| problem.body().field);
        let given = Page::of(vec!["a|合院".to_owned(), String::new()], 1, Clone::clone).next.expect("there is more");
        assert_eq!(after(&given), Ok(Some("a|合院".to_owned())));
        for cursor in ["AA", "GxtbMG0", "_w", "!"] {
            assert_eq!(after(cursor), Err(Some("cursor".to_owned())), "{cursor}");
        }
    }
}
