//! What every process of a tenant keeps in memory and another one may change: the tree of units, read again every second.

use heyuan_kernel::org::Org;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// Others are at most this far behind.
const EVERY: Duration = Duration::from_secs(1);

/// Follows until it is told to stop. On SQLite there is no other process, and nothing to follow.
pub(crate) async fn units(org: Org, mut stopped: watch::Receiver<bool>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
        if let Err(error) = org.refresh().await {
            tracing::warn!(%error, "the tree of units could not be read again; the last one holds");
        }
    }
}
