//! Retention: touchpoints older than any window and any lead's patience are let go, in small steps.

use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_contract::Timestamp;
use heyuan_kernel::lease::Fence;
use heyuan_kernel::processor::{Progress, Task, Waits};
use heyuan_kernel::{Kernel, Problem, sql};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// How long a touchpoint is kept.
pub(crate) const TOUCH_DAYS: i64 = 800;
/// Touchpoints of one step.
const STEP_MAX: i64 = 2_000;
/// Looking once an hour is often enough.
const LOOK_EVERY_MS: i64 = 3_600_000;
const DAY_MS: i64 = 86_400_000;

/// The processor's task that lets old touchpoints go.
pub(crate) struct Retention {
    kernel: Kernel,
    looked_at: AtomicI64,
}

impl Retention {
    pub(crate) fn new(kernel: Kernel) -> Retention {
        Retention { kernel, looked_at: AtomicI64::new(i64::MIN) }
    }

    async fn run(&self, fence: &Fence, now: Timestamp) -> Result<Progress, Problem> {
        let before = now.plus_ms(-TOUCH_DAYS * DAY_MS).ms();
        let text = "SELECT message_id FROM attribution_touch WHERE occurred_at < $1 LIMIT 1";
        if sql::one(self.kernel.db.reader(), text, [before.into()]).await?.is_none() {
            self.looked_at.store(now.ms(), Ordering::Relaxed);
            return Ok(Progress::Idle);
        }
        let fence = fence.clone();
        self.kernel
            .db
            .write("let touchpoints go", move |tx| {
                let fence = fence.clone();
                async move {
                    fence.check(tx).await?;
                    let text = "DELETE FROM attribution_touch WHERE message_id IN
                                (SELECT message_id FROM attribution_touch WHERE occurred_at < $1 LIMIT $2)";
                    sql::execute(tx.conn(), text, [before.into(), STEP_MAX.into()]).await
                }
                .boxed()
            })
            .await?;
        Ok(Progress::Busy)
    }
}

impl Task for Retention {
    fn name(&self) -> &'static str {
        "attribution retention"
    }

    fn waits(&self) -> Waits {
        // At rest about once an hour, which is as often as it looks anyway.
        Waits::time(Duration::from_secs(60))
    }

    fn begin_term(&self) {
        self.looked_at.store(i64::MIN, Ordering::Relaxed);
    }

    fn step<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<Progress, Problem>> {
        let now = self.kernel.clock.now();
        let last = self.looked_at.load(Ordering::Relaxed);
        if last != i64::MIN && now.ms() < last.saturating_add(LOOK_EVERY_MS) {
            return async { Ok(Progress::Idle) }.boxed();
        }
        self.run(fence, now).boxed()
    }
}
