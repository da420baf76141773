//! Requests to those who know the person: in bounded time, with a bounded answer, outside any unit of work.

use crate::error::{Problem, codes};
use crate::guard;
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder};
use std::time::Duration;

/// The other side has this long to be there at all.
const CONNECT_TIME: Duration = Duration::from_secs(2);
/// Largest answer that is read, in bytes; the real ones have a few thousand.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// When to try again with somebody who is away or busy.
const AGAIN_S: u32 = 2;

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no answer. Words hold neither address nor body, for both may hold secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It may have taken the request all the same.
    TimedOut,
    /// It was not reached, or broke off.
    Away,
    /// The answer is longer than any real one.
    TooLong,
}

impl Failure {
    fn words(self) -> &'static str {
        match self {
            Failure::TimedOut => "it did not answer in time",
            Failure::Away => "it could not be reached",
            Failure::TooLong => "its answer is too long",
        }
    }
}

/// A client for such requests.
pub fn client(timeout_ms: u64) -> Client {
    let builder =
        Client::builder().timeout(Duration::from_millis(timeout_ms)).connect_timeout(CONNECT_TIME).redirect(Policy::none()).no_proxy();
    builder.build().unwrap_or_default()
}

/// Sends a request and reads its answer.
///
/// # Errors
/// [`Failure`].
pub async fn send(who: &'static str, request: RequestBuilder) -> Result<Answer, Failure> {
    guard::outside_unit(who);
    let failure = |error: reqwest::Error| if error.is_timeout() { Failure::TimedOut } else { Failure::Away };
    let mut answer = request.send().await.map_err(failure)?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(failure)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(Failure::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status: answer.status().as_u16(), body })
}

/// What the caller hears of somebody who did not answer.
pub fn away(who: &'static str, failure: Failure) -> Problem {
    tracing::warn!(who, why = failure.words(), "a log-in could not be checked");
    busy(who, failure.words())
}

/// What the caller hears of somebody who can't answer now.
pub fn busy(who: &'static str, why: &str) -> Problem {
    Problem::new(codes::UNAVAILABLE, format!("{who} can't be asked now: {why}; try again")).retry_after_s(AGAIN_S)
}
