//! Many requests at once.

use std::future::Future;

use futures::{StreamExt, stream};

/// Runs `count` calls of `work`, `width` at a time, and answers what they answered, in order of their number.
pub async fn concurrently<T, F, Fut>(count: usize, width: usize, work: F) -> Vec<T>
where
    F: FnMut(usize) -> Fut,
    Fut: Future<Output = T>,
{
    stream::iter(0..count).map(work).buffered(width).collect().await
}
