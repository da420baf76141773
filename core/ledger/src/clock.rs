//! What turns because time passes: holds run out.

use crate::book::Ledger;
use crate::error::Error;
use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_contract::Timestamp;
use heyuan_kernel::Problem;
use heyuan_kernel::lease::Fence;
use heyuan_kernel::processor::{Progress, Task, Waits};
use std::time::Duration;

/// Holds of one transaction: bounds how long their accounts are locked.
const BATCH_MAX: u64 = 200;

/// The processor's task that sets free what holds that ran out set aside.
pub struct HoldClock {
    ledger: Ledger,
}

impl HoldClock {
    /// The clock of a ledger's holds.
    pub fn new(ledger: Ledger) -> HoldClock {
        HoldClock { ledger }
    }

    async fn turn(&self, fence: &Fence) -> Result<Progress, Error> {
        let now = self.ledger.kernel.clock.now();
        if !self.ledger.has_due_holds(now).await? {
            return Ok(Progress::Idle);
        }
        let (ledger, fence) = (self.ledger.clone(), fence.clone());
        let expired = self
            .ledger
            .database()
            .write("expire holds", move |tx| {
                let (ledger, fence) = (ledger.clone(), fence.clone());
                async move {
                    fence.check(tx).await?;
                    ledger.expire_holds(tx, now, BATCH_MAX).await
                }
                .boxed()
            })
            .await?;
        Ok(if expired.is_empty() { Progress::Idle } else { Progress::Busy })
    }
}

impl Task for HoldClock {
    fn name(&self) -> &'static str {
        "ledger holds"
    }

    fn waits(&self) -> Waits {
        Waits::time(Duration::from_secs(1))
    }

    fn due(&self) -> BoxFuture<'_, Result<Option<Timestamp>, Problem>> {
        async move { Ok(self.ledger.next_hold_due().await?) }.boxed()
    }

    fn step<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<Progress, Problem>> {
        async move { Ok(self.turn(fence).await?) }.boxed()
    }
}
