//! Bodies in flight: one budget of bytes for the whole process, and a deadline for each body.
//!
//! A request takes its share as its body arrives, and more for what it unpacks; the share goes back when nobody holds it any more:
//! once the request is answered, or its events are on disk. Who is known by a key and who is not draw from separate parts, so that
//! strangers can't keep senders with a key from being read. While bodies wait for room, no large one begins: otherwise so many would
//! be begun that none can be ended.

use crate::error::{Problem, codes};
use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use futures::{StreamExt, stream};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

/// How long a body waits for room before it is refused, and so makes room for others.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// A body up to this size may begin while others wait: one turn is enough for it.
const SMALL_BYTES_MAX: usize = 64 << 10;
/// When a refused sender may come back.
const RETRY_AFTER_S: u32 = 2;
/// Of four bytes, one is for bodies of callers without a key.
const PARTS: usize = 4;

/// The bounds of bodies.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of all bodies in memory at once, as sent and as unpacked.
    pub bytes_max: usize,
    /// How long a body may take however small it is.
    pub grace: Duration,
    /// How much longer: a second for each so many bytes that have arrived.
    pub bytes_a_second_min: usize,
}

#[derive(Debug)]
struct Part {
    free: Semaphore,
    bytes_max: usize,
    waiting: AtomicUsize,
}

impl Part {
    fn new(bytes_max: usize) -> Arc<Part> {
        Arc::new(Part { free: Semaphore::new(bytes_max), bytes_max, waiting: AtomicUsize::new(0) })
    }
}

/// Counted among those who wait, also when the request is given up.
struct Waiting<'a>(&'a Part);

impl<'a> Waiting<'a> {
    fn on(part: &'a Part) -> Waiting<'a> {
        part.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(part)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The budget of a process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bodies {
    bounds: Bounds,
    keyed: Arc<Part>,
    keyless: Arc<Part>,
}

impl Bodies {
    /// A budget of which nothing is taken.
    pub fn new(bounds: Bounds) -> Bodies {
        let keyless = bounds.bytes_max / PARTS;
        Bodies { bounds, keyed: Part::new(bounds.bytes_max - keyless), keyless: Part::new(keyless) }
    }

    /// The share of a request, still empty; `length` is its body's, where the request states it.
    pub fn share(&self, length: Option<usize>) -> Share {
        let small = length.is_some_and(|length| length <= SMALL_BYTES_MAX);
        Share(Arc::new(Held { bodies: self.clone(), part: OnceLock::new(), bytes: AtomicUsize::new(0), small }))
    }

    /// Bytes that are taken now.
    pub fn taken(&self) -> usize {
        [&self.keyed, &self.keyless].iter().map(|part| part.bytes_max - part.free.available_permits().min(part.bytes_max)).sum()
    }
}

#[derive(Debug)]
struct Held {
    bodies: Bodies,
    part: OnceLock<Arc<Part>>,
    bytes: AtomicUsize,
    small: bool,
}

impl Held {
    fn part(&self) -> &Part {
        self.part.get_or_init(|| self.bodies.keyless.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        if bytes > 0 {
            self.part().free.add_permits(bytes);
        }
    }
}

/// What one request has taken of the budget; it goes back when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Share(Arc<Held>);

impl Share {
    /// The caller is known by its key. Said before the first byte is taken; later it changes nothing.
    pub fn keyed(&self) {
        let _ = self.0.part.set(self.0.bodies.keyed.clone());
    }

    /// Takes more, and waits a little for it.
    ///
    /// # Errors
    /// `bodies_full` with `Retry-After`; `body_too_large` for what would never fit.
    pub async fn take(&self, bytes: usize) -> Result<(), Problem> {
        let part = self.0.part();
        let too_large = || Problem::new(codes::BODY_TOO_LARGE, "http.bodies_bytes_max has no room for a body of this size");
        let count = u32::try_from(bytes).map_err(|_| too_large())?;
        let held = self.0.bytes.load(Ordering::Relaxed);
        if held.saturating_add(bytes) > part.bytes_max {
            return Err(too_large());
        }
        let full = || {
            let detail = "as many bytes of bodies are in memory as http.bodies_bytes_max allows; send it again later";
            Problem::new(codes::BODIES_FULL, detail).retry_after_s(RETRY_AFTER_S)
        };
        if held == 0 && !self.0.small && part.waiting.load(Ordering::Relaxed) > 0 {
            return Err(full());
        }
        let permit = if let Ok(permit) = part.free.try_acquire_many(count) {
            permit
        } else {
            let _waiting = Waiting::on(part);
            let Ok(Ok(permit)) = timeout(WAIT_MAX, part.free.acquire_many(count)).await else { return Err(full()) };
            permit
        };
        permit.forget();
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Gives back what is not in memory any more.
    pub fn give_back(&self, bytes: usize) {
        let returned = self.0.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| Some(held.saturating_sub(bytes)));
        let held = returned.unwrap_or_else(|held| held);
        self.0.part().free.add_permits(bytes.min(held));
    }

    /// The body, taking from the budget as it arrives, and broken off when it comes too slowly. What breaks it off is a [`Problem`]
    /// inside the error, which [`crate::http::read_body`] answers.
    pub fn metered(&self, payload: Payload) -> Payload {
        let begun = Metered { payload, share: self.clone(), deadline: Instant::now() + self.0.bodies.bounds.grace };
        let chunks = stream::unfold(Some(begun), |state| async move {
            let mut metered = state?;
            match metered.next().await? {
                Ok(chunk) => Some((Ok(chunk), Some(metered))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Payload::Stream { payload: chunks.boxed_local() }
    }
}

struct Metered {
    payload: Payload,
    share: Share,
    deadline: Instant,
}

impl Metered {
    async fn next(&mut self) -> Option<Result<bytes::Bytes, PayloadError>> {
        let bounds = self.share.0.bodies.bounds;
        let chunk = match timeout_at(self.deadline, self.payload.next()).await {
            Ok(Some(Ok(chunk))) => chunk,
            Ok(other) => return other,
            Err(_) => {
                let (grace, rate) = (bounds.grace.as_secs(), bounds.bytes_a_second_min);
                let detail = format!("a body arrives within {grace} s and a second more for each {rate} bytes");
                return Some(Err(broken_off(Problem::new(codes::BODY_TOO_SLOW, detail))));
            }
        };
        let began = Instant::now();
        if let Err(problem) = self.share.take(chunk.len()).await {
            return Some(Err(broken_off(problem)));
        }
        // That we made it wait is not the sender's doing.
        let bytes = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        let rate = u64::try_from(bounds.bytes_a_second_min).unwrap_or(u64::MAX).max(1);
        self.deadline += began.elapsed() + Duration::from_micros(bytes.saturating_mul(1_000_000) / rate);
        Some(Ok(chunk))
    }
}

fn broken_off(problem: Problem) -> PayloadError {
    PayloadError::Io(io::Error::other(problem))
}

/// Why a body could not be read, as its sender hears it.
pub(crate) fn unreadable(error: &PayloadError) -> Problem {
    if let PayloadError::Io(error) = error
        && let Some(problem) = error.get_ref().and_then(|inner| inner.downcast_ref::<Problem>())
    {
        return problem.clone();
    }
    Problem::new(codes::INVALID_REQUEST, format!("the body could not be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::read_body;
    use bytes::Bytes;

    fn bodies(bytes_max: usize) -> Bodies {
        Bodies::new(Bounds { bytes_max, grace: Duration::from_millis(10), bytes_a_second_min: 1 << 20 })
    }

    fn body(chunks: &'static [&'static [u8]], then_silent: bool) -> Payload {
        let chunks = stream::iter(chunks).map(|chunk| Ok(Bytes::from_static(chunk)));
        let payload = if then_silent { chunks.chain(stream::pending()).boxed_local() } else { chunks.boxed_local() };
        Payload::Stream { payload }
    }

    #[tokio::test]
    async fn what_is_taken_goes_back_with_its_last_holder() {
        let bodies = bodies(400);
        let share = bodies.share(None);
        share.keyed();
        share.take(200).await.expect("300 are for the keyed");
        share.give_back(50);
        let holder = share.clone();
        drop(share);
        assert_eq!(bodies.taken(), 150);
        drop(holder);
        assert_eq!(bodies.taken(), 0);
    }

    #[tokio::test]
    async fn a_full_budget_refuses_and_strangers_leave_room_for_the_keyed() {
        let bodies = bodies(400);
        let stranger = bodies.share(None);
        stranger.take(100).await.expect("100 are for strangers");
        let next = bodies.share(None);
        let refused = next.take(1).await.expect_err("no more");
        assert_eq!((refused.code().code, refused.body().status), ("bodies_full", 429));
        let keyed = bodies.share(None);
        keyed.keyed();
        keyed.take(300).await.expect("they have their own part");
        let monstrous = bodies.share(None);
        assert_eq!(monstrous.take(101).await.expect_err("it never fits").code().code, "body_too_large");
        assert_eq!(bodies.taken(), 400);
    }

    #[tokio::test]
    async fn who_waits_goes_on_when_others_give_back() {
        let bodies = bodies(400);
        let (first, second) = (bodies.share(None), bodies.share(None));
        first.take(100).await.expect("it is free");
        let (taken, ()) = futures::join!(second.take(60), async { drop(first) });
        taken.expect("the first gave back");
        assert_eq!(bodies.taken(), 60);
    }

    #[tokio::test]
    async fn while_bodies_wait_no_large_one_begins() {
        let bodies = bodies(400);
        let (first, second, large, small) = (bodies.share(None), bodies.share(None), bodies.share(None), bodies.share(Some(5)));
        first.take(90).await.expect("it is free");
        second.take(10).await.expect("it is free");
        let others = async {
            assert_eq!(large.take(5).await.expect_err("the second waits").code().code, "bodies_full");
            let (taken, ()) = futures::join!(small.take(5), async { drop(first) });
            taken.expect("a small one has its turn");
        };
        let (taken, ()) = futures::join!(second.take(60), others);
        taken.expect("what began goes on");
        assert_eq!(bodies.taken(), 75);
        large.take(5).await.expect("nobody waits any more");
    }

    #[tokio::test]
    async fn a_body_is_counted_as_it_arrives_and_has_its_deadline() {
        let bodies = bodies(400);
        let share = bodies.share(None);
        let whole = read_body(share.metered(body(&[b"to", b"gether"], false)), 100).await;
        assert_eq!(whole, Ok(b"together".to_vec()));
        assert_eq!(bodies.taken(), 8);
        let slow = read_body(bodies.share(None).metered(body(&[b"half"], true)), 100).await.expect_err("the rest never comes");
        assert_eq!((slow.code().code, slow.body().status), ("body_too_slow", 408));
        assert_eq!(bodies.taken(), 8);
    }
}
