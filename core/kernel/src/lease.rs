//! Leases with a fencing number: at most one process is the processor, and a paused one can't write when it wakes.

use crate::database::{Database, Tx, database_clock};
use crate::error::Error;
use crate::notices::Question;
use crate::sql;
use crate::wake::Notice;
use futures::FutureExt;
use sea_orm::DbBackend;
use std::time::Duration;

/// How long a lease lasts without renewal; another process takes over within this and one poll.
pub const LEASE_TIME: Duration = Duration::from_secs(6);
/// How often a holder renews, and how often a waiter looks at least.
pub const LEASE_POLL: Duration = Duration::from_secs(2);

/// How long a lease lasts, and how often it is renewed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) lasts: Duration,
    pub(crate) every: Duration,
}

/// While the holder works.
pub(crate) const AWAKE: Pace = Pace { lasts: LEASE_TIME, every: LEASE_POLL };
/// While it rests: less than a statement in five seconds, and still another process takes over within ten.
pub(crate) const AT_REST: Pace = Pace { lasts: Duration::from_secs(9), every: Duration::from_millis(6_500) };

pub(crate) const fn pace(rests: bool) -> Pace {
    if rests { AT_REST } else { AWAKE }
}

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
            DbBackend::Postgres => "SELECT fence FROM kernel_lease WHERE name = $1 AND holder = $2 AND fence = $3 FOR SHARE",
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
            tx.notice(Notice::Still);
            // The clock is read where the row is held, so that waiting for the row takes nothing off the lease.
            let now = database_clock(tx.conn().backend());
            let text = format!(
                "INSERT INTO kernel_lease (name, holder, fence, expires_at) VALUES ($1, $2, 1, {now} + $3)
                 ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = {now} + $4,
                   fence = CASE WHEN kernel_lease.holder = excluded.holder THEN kernel_lease.fence ELSE kernel_lease.fence + 1 END
                 WHERE kernel_lease.holder = excluded.holder OR kernel_lease.expires_at <= {now} RETURNING fence"
            );
            let lasts_ms = milliseconds(LEASE_TIME);
            let values = [name.clone().into(), holder.clone().into(), lasts_ms.into(), lasts_ms.into()];
            let row = sql::one(tx.conn(), &text, values).await?;
            row.map(|row| Ok(Fence { name, holder, number: sql::get(&row, "fence")? })).transpose()
        }
        .boxed()
    })
    .await
}

/// Renews a held lease; `false` when another process has taken it. On PostgreSQL it is one statement without a transaction around it.
///
/// # Errors
/// [`Error::Database`].
pub(crate) async fn renew(db: &Database, fence: &Fence, lasts: Duration) -> Result<bool, Error> {
    let (name, holder, numbers) = (fence.name.clone(), fence.holder.clone(), vec![fence.number, milliseconds(lasts)]);
    let now = database_clock(db.backend());
    // As an insert that always meets its row, for an update would read the clock before it waits for the row.
    let text = format!(
        "INSERT INTO kernel_lease (name, holder, fence, expires_at) VALUES ($1, $2, $3, {now} + $4)
         ON CONFLICT (name) DO UPDATE SET expires_at = {now} + $4
         WHERE kernel_lease.holder = excluded.holder AND kernel_lease.fence = excluded.fence RETURNING fence AS number"
    );
    let renewed = match db.backend() {
        DbBackend::Postgres => db.ask(Question { text, name, holder, numbers }).await?.is_some(),
        _ => {
            let values: [sea_orm::Value; 4] = [name.into(), holder.into(), numbers[0].into(), numbers[1].into()];
            let renewing = db.write("renew lease", move |tx| {
                let (text, values) = (text.clone(), values.clone());
                async move {
                    tx.notice(Notice::Still);
                    sql::one(tx.conn(), &text, values).await
                }
                .boxed()
            });
            renewing.await?.is_some()
        }
    };
    db.rest().saw();
    Ok(renewed)
}

/// How long the lease of another holder lasts if it is not renewed; `None` when it may be taken.
///
/// # Errors
/// [`Error::Database`].
pub(crate) async fn left(db: &Database, name: &str, holder: &str) -> Result<Option<Duration>, Error> {
    let now = database_clock(db.backend());
    let text = format!("SELECT expires_at - {now} AS number FROM kernel_lease WHERE name = $1 AND holder <> $2 AND expires_at > {now}");
    let left_ms = match db.backend() {
        DbBackend::Postgres => db.ask(Question { text, name: name.to_owned(), holder: holder.to_owned(), numbers: Vec::new() }).await?,
        _ => {
            let row = sql::one(db.near(), &text, [name.into(), holder.into()]).await?;
            row.map(|row| sql::get(&row, "number")).transpose()?
        }
    };
    db.rest().saw();
    // The clock goes on between its two readings.
    Ok(left_ms.map(|left_ms: i64| Duration::from_millis(u64::try_from(left_ms).unwrap_or(0))))
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
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
            // Whoever waits for it takes it at once.
            tx.notice(Notice::AtOnce);
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
