//! Retention: message ids and rejected events go when their days are over, and the oldest rejected ones when they are too many.

use crate::batch_sql::position;
use crate::collect::message_ids::MessageIds;
use crate::collect::rejected::{self, Going};
use crate::settings::Collect;
use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_kernel::lease::Fence;
use heyuan_kernel::processor::{Progress, Task, Waits};
use heyuan_kernel::{Error, Kernel, Problem, sql};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// How often it is looked for what is too old.
const LOOK_EVERY_MS: i64 = 10 * 60_000;
/// A day.
const DAY_MS: i64 = 86_400_000;

/// The processor's task that removes what is too old.
pub(crate) struct Retention {
    pub kernel: Kernel,
    pub ids: MessageIds,
    pub settings: Arc<Collect>,
    pub looked_at: AtomicI64,
}

impl Task for Retention {
    fn name(&self) -> &'static str {
        "inbox retention"
    }

    fn waits(&self) -> Waits {
        // At rest about once an hour: days are over late by that, and only commits add bytes.
        Waits::time(Duration::from_secs(10))
    }

    fn step<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<Progress, Problem>> {
        async move {
            let now = self.kernel.clock.now().ms();
            let bytes_max = self.settings.rejected_bytes_max;
            if position(self.kernel.db.near(), rejected::BYTES).await? > bytes_max {
                self.remove_rejected(fence, Going::Many { bytes_max }).await?;
                return Ok(Progress::Busy);
            }
            if now - self.looked_at.load(Ordering::Relaxed) < LOOK_EVERY_MS {
                return Ok(Progress::Idle);
            }
            let more_ids = self.ids.forget(now - self.settings.message_id_days * DAY_MS).await?;
            let more_rejected = self.forget_rejected(fence, now - self.settings.rejected_days * DAY_MS).await?;
            if more_ids || more_rejected {
                return Ok(Progress::Busy);
            }
            self.looked_at.store(now, Ordering::Relaxed);
            Ok(Progress::Idle)
        }
        .boxed()
    }

    fn begin_term(&self) {
        self.looked_at.store(0, Ordering::Relaxed);
    }
}

impl Retention {
    async fn forget_rejected(&self, fence: &Fence, before: i64) -> Result<bool, Problem> {
        let old = sql::one(self.kernel.db.reader(), "SELECT id FROM cdp_rejected WHERE arrived_at < $1 LIMIT 1", [before.into()]).await?;
        if old.is_none() {
            return Ok(false);
        }
        Ok(self.remove_rejected(fence, Going::Old { before }).await? > 0)
    }

    async fn remove_rejected(&self, fence: &Fence, going: Going) -> Result<usize, Error> {
        let fence = fence.clone();
        self.kernel
            .db
            .write("remove rejected events", move |tx| {
                let fence = fence.clone();
                async move {
                    fence.check(tx).await?;
                    rejected::remove(tx, going).await
                }
                .boxed()
            })
            .await
    }
}
