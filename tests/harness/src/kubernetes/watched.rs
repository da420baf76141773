//! The open end of a watch: events that pass, wait, or end in the error of a client that has fallen behind.

use futures::stream::{Stream, unfold};
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame};
use tokio::sync::watch::Receiver;

/// How all watches of a proxy stand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watches {
    /// Events wait: what a client believes grows old.
    pub(super) held: bool,
    /// Grows each time when the watches that are open then are to end.
    pub(super) expired: u64,
}

/// The event by which an API server says that it no longer has what the client would need.
const EXPIRED: &str = concat!(
    r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","#,
    r#""message":"too old resource version","reason":"Expired","code":410}}"#,
    "\n"
);

struct Open<B> {
    body: B,
    watches: Receiver<Watches>,
    /// The expiry after which it was opened.
    since: u64,
    /// Whether what has passed ends with a whole event.
    whole: bool,
}

/// Passes the events of `body` on, as `watches` says.
pub(super) fn watched<B>(body: B, watches: Receiver<Watches>) -> impl Stream<Item = Result<Frame<Bytes>, B::Error>>
where
    B: Body<Data = Bytes> + Unpin,
{
    let since = watches.borrow().expired;
    let open = Open { body, watches, since, whole: true };
    unfold(Some(open), |open| async move {
        let mut open = open?;
        let expired = async {
            if !open.whole || open.watches.wait_for(|watches| watches.expired > open.since).await.is_err() {
                // In the middle of an event, or without a proxy to say so, nothing expires.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = expired => Some((Ok(Frame::data(Bytes::from_static(EXPIRED.as_bytes()))), None)),
            frame = open.body.frame() => {
                let frame = frame?;
                let mut watches = open.watches.clone();
                let turn = watches.wait_for(|watches| !watches.held || watches.expired > open.since).await.ok()?;
                if turn.held && open.whole {
                    return Some((Ok(Frame::data(Bytes::from_static(EXPIRED.as_bytes()))), None));
                }
                drop(turn);
                if let Some(data) = frame.as_ref().ok().and_then(|frame| frame.data_ref()) {
                    open.whole = data.ends_with(b"\n");
                }
                Some((frame, Some(open)))
            }
        }
    })
}
