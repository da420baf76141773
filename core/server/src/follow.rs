//! What every process of a tenant keeps in memory and another one may change: the tree of units, read again every second
//! while anybody works.

use heyuan_kernel::org::Org;
use heyuan_kernel::rest::Rest;
use std::time::Duration;
use tokio::sync::watch;

/// Others are at most this far behind.
const EVERY: Duration = Duration::from_secs(1);

/// Follows until it is told to stop. On SQLite there is no other process, and nothing to follow.
pub(crate) async fn units(org: Org, rest: Rest, mut stopped: watch::Receiver<bool>) {
    let mut resting = rest.follow();
    loop {
        let rests = resting.borrow_and_update().is_some();
        let mut every = if rests { rest.look_every() } else { EVERY };
        if let Err(error) = org.refresh().await {
            tracing::warn!(%error, "the tree of units could not be read again; the last one holds");
            every = EVERY;
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            _ = resting.changed() => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
    }
}
