//! Leases with a fencing number: at most one process is the processor, and a paused one can't write when it wakes.

use crate::database::{Database, Tx, database_clock};
use crate::error::Error;
use crate::sql;
use futures::FutureExt;
use std::time::Duration;

/// How long a lease lasts without renewal; another process takes over within this and one poll.
pub const LEASE_TIME: Duration = Duration::from_secs(6);
/// How often a holder renews and a waiter looks.
pub const LEASE_POLL: Duration = Duration::from_secs(2);

/// Proof of holding a lease; every write of the processor checks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    name: String,
    holder: String,
    number: i64,
}

impl Fence {
    /// Fails the transaction when another process has taken the lease meanwhile, and keeps others from taking it until the commit.
    ///
    /// # Errors
    /// [`Error::LeaseLost`], [`Error::Database`].
    pub async fn check(&self, tx: &Tx) -> Result<(), Error> {
        let text = match tx.conn().backend() {
            sea_orm::DbBackend::Postgres => "SELECT fence FROM kernel_lease WHERE name = $1 AND holder = $2 AND fence = $3 FOR SHARE",
            _ => "SELECT fence FROM kernel_lease WHERE name = $1 AND holder = $2 AND fence = $3",
        };
        let row = sql::one(tx.conn(), text, [self.name.clone().into(), self.holder.clone().into(), self.number.into()]).await?;
        row.map(|_| ()).ok_or_else(|| Error::LeaseLost(self.name.clone()))
    }
}

/// Takes or renews a lease; `None` when another holder's has not run out.
///
/// # Errors
/// [`Error::Database`].
pub async fn acquire(db: &Database, name: &str, holder: &str) -> Result<Option<Fence>, Error> {
    let (name, holder) = (name.to_owned(), holder.to_owned());
    db.write("acquire lease", move |tx| {
        let (name, holder) = (name.clone(), holder.clone());
        async move {
            // The clock is read where the row is held, so that waiting for the row takes nothing off the lease.
            let now = database_clock(tx.conn().backend());
            let text = format!(
                "INSERT INTO kernel_lease (name, holder, fence, expires_at) VALUES ($1, $2, 1, {now} + $3)
                 ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = {now} + $4,
                   fence = CASE WHEN kernel_lease.holder = excluded.holder THEN kernel_lease.fence ELSE kernel_lease.fence + 1 END
                 WHERE kernel_lease.holder = excluded.holder OR kernel_lease.expires_at <= {now} RETURNING fence"
            );
            let lasts_ms = i64::try_from(LEASE_TIME.as_millis()).unwrap_or(i64::MAX);
            let values = [name.clone().into(), holder.clone().into(), lasts_ms.into(), lasts_ms.into()];
            let row = sql::one(tx.conn(), &text, values).await?;
            row.map(|row| Ok(Fence { name, holder, number: sql::get(&row, "fence")? })).transpose()
        }
        .boxed()
    })
    .await
}

/// Gives a lease up, so that another process need not wait for it to run out.
///
/// # Errors
/// [`Error::Database`].
pub async fn release(db: &Database, fence: &Fence) -> Result<(), Error> {
    let fence = fence.clone();
    db.write("release lease", move |tx| {
        let fence = fence.clone();
        async move {
            sql::execute(
                tx.conn(),
                "UPDATE kernel_lease SET expires_at = 0 WHERE name = $1 AND holder = $2 AND fence = $3",
                [fence.name.into(), fence.holder.into(), fence.number.into()],
            )
            .await?;
            Ok(())
        }
        .boxed()
    })
    .await
}
