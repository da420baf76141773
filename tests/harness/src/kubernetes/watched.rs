//! The open end of a watch: events that pass, wait, or end in the error of a client that has fallen behind.

use futures::stream::{Stream, unfold};
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame};
use tokio::sync::watch::Receiver;

use crate::kubernetes::proxy::AnyError;

/// How all watches of a proxy stand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watches {
    /// Events wait: what a client believes grows old.
    pub(super) held: bool,
    /// Grows each time when the watches that are open then are to end.
    pub(super) expired: u64,
    /// Grows each time when the connections of the watches that are open then break.
    pub(super) cut: u64,
    /// Grows each time when the watches that are open then fall silent.
    pub(super) silenced: u64,
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
    /// How all stood when it was opened.
    since: Watches,
    /// Whether what has passed ends with a whole event.
    whole: bool,
}

/// What ends a watch before its time.
enum End {
    Expired,
    Cut,
    Silenced,
}

impl<B> Open<B> {
    /// Waits until the watch is to end; in the middle of an event, or without a proxy to say so, nothing expires.
    async fn end(&self) -> End {
        let mut watches = self.watches.clone();
        let changed = watches.wait_for(|now| self.end_in(now).is_some()).await.ok().and_then(|now| self.end_in(&now));
        match changed {
            Some(end) => end,
            None => std::future::pending().await,
        }
    }

    fn end_in(&self, now: &Watches) -> Option<End> {
        if now.cut > self.since.cut {
            return Some(End::Cut);
        }
        if now.silenced > self.since.silenced {
            return Some(End::Silenced);
        }
        (self.whole && now.expired > self.since.expired).then_some(End::Expired)
    }
}

/// Passes the events of `body` on, as `watches` says.
pub(super) fn watched<B>(body: B, watches: Receiver<Watches>) -> impl Stream<Item = Result<Frame<Bytes>, AnyError>>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<AnyError>,
{
    let since = *watches.borrow();
    unfold(Some(Open { body, watches, since, whole: true }), |open| async move {
        let mut open = open?;
        let mut watches = open.watches.clone();
        let next = async {
            let frame = open.body.frame().await;
            let still = watches.wait_for(|watches| !watches.held).await.is_ok();
            frame.filter(|_| still)
        };
        // The end is looked for by what stood before this frame, which is whole or not at all the client's.
        let ended = Open { body: (), watches: open.watches.clone(), since: open.since, whole: open.whole };
        let frame = tokio::select! {
            biased;
            end = ended.end() => return match end {
                End::Expired => Some((Ok(Frame::data(Bytes::from_static(EXPIRED.as_bytes()))), None)),
                End::Cut => Some((Err("the connection breaks here".into()), None)),
                End::Silenced => std::future::pending().await,
            },
            frame = next => frame?,
        };
        if let Some(data) = frame.as_ref().ok().and_then(|frame| frame.data_ref()) {
            open.whole = data.ends_with(b"\n");
        }
        Some((frame.map_err(Into::into), Some(open)))
    })
}
