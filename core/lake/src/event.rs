//! One event as the lake keeps it, and the door to those that are not in files yet.

use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_kernel::Error;
use sea_orm::DatabaseTransaction;

/// Rows that the default [`Tail::rows_of`] reads at a time.
const TAIL_PAGE_ROWS: usize = 5_000;

/// One event as the lake keeps it; personal values are references, undeclared properties sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// Our own number, in the order of acceptance.
    pub position: i64,
    /// The sender's id of the message.
    pub message_id: String,
    /// `track`, `page`, `identify`, `domain`, …
    pub kind: String,
    /// The event's name.
    pub name: String,
    /// The identifier node that the event belongs to.
    pub anchor: String,
    /// The identifier nodes that it carried.
    pub identifiers: Vec<String>,
    /// The org unit that it belongs to.
    pub unit: Option<String>,
    /// The id of the key that sent it.
    pub app: String,
    /// Own time, in milliseconds since 1970.
    pub occurred_at: i64,
    /// Arrival, in milliseconds since 1970.
    pub arrived_at: i64,
    /// A JSON object of declared properties; personal ones are references.
    pub properties: String,
    /// Undeclared properties, sealed by the anchor's key.
    pub sealed: Option<Vec<u8>>,
}

/// The events that are not in files yet, read inside the same snapshot as the catalogue. Implemented by whoever owns the inbox.
pub trait Tail: Send + Sync {
    /// Events with a position above `watermark`, in order of position, at most `rows_max`, and fewer when they are large.
    /// It answers none only at the end.
    fn rows_after<'a>(
        &'a self,
        snapshot: &'a DatabaseTransaction,
        watermark: i64,
        rows_max: usize,
    ) -> BoxFuture<'a, Result<Vec<EventRow>, Error>>;

    /// Events of these anchors above `watermark` and below `before`, newest first, at most `limit`. Worth an index of its own: the
    /// default reads the whole tail.
    fn rows_of<'a>(
        &'a self,
        snapshot: &'a DatabaseTransaction,
        watermark: i64,
        anchors: &'a [String],
        before: Option<i64>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<EventRow>, Error>> {
        async move {
            let mut found = Vec::new();
            let mut after = watermark;
            loop {
                let page = self.rows_after(snapshot, after, TAIL_PAGE_ROWS).await?;
                let ended = page.is_empty();
                after = page.last().map_or(after, |row| row.position);
                let wanted = |row: &EventRow| anchors.contains(&row.anchor) && before.is_none_or(|before| row.position < before);
                found.extend(page.into_iter().filter(wanted));
                found.drain(..found.len().saturating_sub(limit));
                if ended {
                    break;
                }
            }
            found.reverse();
            Ok(found)
        }
        .boxed()
    }
}
