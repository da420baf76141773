//! One process leads, by a lease. Whoever loses it ends: half a thought on old knowledge is worse than a start anew.

use anyhow::Context;
use kube::{Client, Config};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use std::time::{Duration, Instant};

/// The lease's name.
const LEASE: &str = "heyuan-operator";
/// Pause after a renewal that failed.
const PAUSE: Duration = Duration::from_millis(500);

/// The lease, held.
pub(crate) struct Lease {
    manager: LeaseManager,
    grace: Duration,
}

/// Waits until this process leads.
///
/// # Errors
/// Where the lease can't be read.
pub(crate) async fn lead(client: &Client, namespace: &str, seconds: u64) -> anyhow::Result<Lease> {
    let grace = (seconds / 3).max(1);
    let lease_client = quick_client(grace).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the lease is renewed without a time-out of its own");
        client.clone()
    });
    let manager = LeaseManagerBuilder::new(lease_client, LEASE)
        .with_namespace(namespace)
        .with_identity(identity())
        .with_duration(seconds)
        .with_grace(grace)
        .build()
        .await
        .context("the operator's lease can't be read")?;
    let mut lease = Lease { manager, grace: Duration::from_secs(grace) };
    tracing::info!("waiting for the lease {namespace}/{LEASE}");
    while !lease.next_change(None).await? {}
    Ok(lease)
}

/// Where nothing answers, a renewal has failed as surely as where it was refused.
async fn quick_client(grace: u64) -> anyhow::Result<Client> {
    let mut config = Config::infer().await?;
    let most = Duration::from_secs(grace.div_ceil(2));
    (config.connect_timeout, config.read_timeout, config.write_timeout) = (Some(most), Some(most), Some(most));
    Ok(Client::try_from(config)?)
}

/// The pod's name, or a name of chance.
fn identity() -> String {
    std::env::var("HOSTNAME").unwrap_or_else(|_| "operator".to_owned()) + "-" + &hex::encode(rand::random::<[u8; 4]>())
}

impl Lease {
    /// Waits until the lease has changed hands; with `grace`, also until renewing it has failed for so long.
    async fn next_change(&mut self, grace: Option<Duration>) -> anyhow::Result<bool> {
        let mut failing: Option<(Instant, Instant)> = None;
        loop {
            let error = match self.manager.changed().await {
                Ok(held) => return Ok(held),
                Err(error) => error,
            };
            tracing::warn!(%error, "the lease could not be renewed");
            let now = Instant::now();
            let since = match failing {
                // Renewals between two failures went well where these lie far apart.
                Some((since, last)) if now.duration_since(last) < 2 * self.grace + PAUSE => since,
                _ => now,
            };
            failing = Some((since, now));
            if grace.is_some_and(|grace| now.duration_since(since) >= grace) {
                return Ok(false);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Ends when the lease is lost.
    pub(crate) async fn lost(&mut self) -> anyhow::Error {
        loop {
            match self.next_change(Some(self.grace)).await {
                Ok(true) => {}
                Ok(false) => return anyhow::anyhow!("the lease was lost; the process ends, and starts anew without old knowledge"),
                Err(error) => return error,
            }
        }
    }

    /// Gives the lease up, so that the next one need not wait for it to run out.
    pub(crate) async fn release(&self) {
        if let Err(error) = self.manager.release().await {
            tracing::warn!(%error, "the lease could not be given up; it runs out by itself");
        }
    }
}
