//! Pins: whoever reads files for longer than a query, a scan or a backup, keeps them from the sweep.

use crate::{Error, Lake, catalog};
use futures::FutureExt;
use heyuan_kernel::sql;

/// Keeps every file that counted when it was made; dropped, it is released soon after, and at the latest when its time is over.
pub struct Pin {
    lake: Lake,
    id: String,
    released: bool,
}

impl Lake {
    /// Keeps the files that count now, replaced or not, for at most `lifetime_ms`. `reason` stands in the table for an operator.
    ///
    /// # Errors
    /// [`Error::Kernel`].
    pub async fn pin(&self, reason: &'static str, lifetime_ms: u64) -> Result<Pin, Error> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let expires = self.inner.kernel.clock.now().plus_ms(i64::try_from(lifetime_ms).unwrap_or(i64::MAX)).ms();
        let name = id.clone();
        self.inner
            .kernel
            .db
            .write("pin files of the lake", move |tx| {
                let id = name.clone();
                async move {
                    let generation = catalog::generation(tx.conn()).await?;
                    sql::execute(
                        tx.conn(),
                        "INSERT INTO lake_pin (id, reason, generation, expires_at) VALUES ($1, $2, $3, $4)",
                        [id.into(), reason.into(), generation.into(), expires.into()],
                    )
                    .await
                }
                .boxed()
            })
            .await?;
        Ok(Pin { lake: self.clone(), id, released: false })
    }
}

impl Pin {
    /// Lets the files go.
    ///
    /// # Errors
    /// [`Error::Kernel`]; the pin then runs out.
    pub async fn release(mut self) -> Result<(), Error> {
        self.released = true;
        Ok(remove(self.lake.clone(), std::mem::take(&mut self.id)).await?)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let removed = remove(self.lake.clone(), std::mem::take(&mut self.id));
            runtime.spawn(async move {
                if let Err(error) = removed.await {
                    tracing::warn!(%error, "a pin on the lake's files could not be released; it will run out");
                }
            });
        }
    }
}

async fn remove(lake: Lake, id: String) -> Result<(), heyuan_kernel::Error> {
    lake.inner
        .kernel
        .db
        .write("release files of the lake", move |tx| {
            let id = id.clone();
            async move { sql::execute(tx.conn(), "DELETE FROM lake_pin WHERE id = $1", [id.into()]).await.map(|_| ()) }.boxed()
        })
        .await
}
