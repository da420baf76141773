//! What the processor does for the mall, in bounded steps that cost only reads when there is nothing to do.

use crate::error::Error;
use crate::gateway::RefundOrder;
use crate::mall::Mall;
use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_contract::Timestamp;
use heyuan_kernel::lease::Fence;
use heyuan_kernel::processor::{Progress, Task, Waits};
use heyuan_kernel::{Problem, sql};
use std::time::Duration;

/// How often an idle task looks for what is due.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Payments, notifications or requests of one step.
const STEP_MAX: i64 = 50;
/// A notification that its own request did not get to apply is picked up after this long.
const INBOX_PATIENCE_MS: i64 = 5_000;
/// Longest pause between two tries of one request to the gateway: money owed is never given up.
const PAUSE_MS_MAX: i64 = 3_600_000;

/// The earliest of what a statement answers as `due`.
async fn earliest(mall: &Mall, text: &str) -> Result<Option<Timestamp>, Error> {
    let row = sql::one(mall.kernel.db.reader(), text, []).await?;
    let due: Option<i64> = row.map_or(Ok(None), |row| sql::get(&row, "due"))?;
    Ok(due.map(Timestamp::clamped))
}

/// Frees the stock of orders that were not paid in time.
pub(crate) struct Expiry {
    mall: Mall,
}

impl Expiry {
    pub(crate) fn new(mall: Mall) -> Expiry {
        Expiry { mall }
    }

    async fn run(&self, fence: &Fence) -> Result<Progress, Error> {
        let text = "SELECT id FROM mall_payment WHERE state = 'created' AND expires_at <= $1 ORDER BY expires_at LIMIT $2";
        let db = &self.mall.kernel.db;
        let due = sql::all(db.reader(), text, [self.mall.kernel.clock.now().ms().into(), STEP_MAX.into()]).await?;
        for row in &due {
            let (payment, fence, now): (String, Fence, _) = (sql::get(row, "id")?, fence.clone(), self.mall.kernel.clock.now());
            db.write("expire order", move |tx| {
                let (payment, fence) = (payment.clone(), fence.clone());
                async move {
                    fence.check(tx).await?;
                    Mall::expire(tx, &payment, now).await
                }
                .boxed()
            })
            .await?;
        }
        Ok(if due.is_empty() { Progress::Idle } else { Progress::Busy })
    }
}

impl Task for Expiry {
    fn name(&self) -> &'static str {
        "mall order expiry"
    }

    fn waits(&self) -> Waits {
        Waits::time(LOOK_EVERY)
    }

    fn due(&self) -> BoxFuture<'_, Result<Option<Timestamp>, Problem>> {
        async move { Ok(earliest(&self.mall, "SELECT MIN(expires_at) AS due FROM mall_payment WHERE state = 'created'").await?) }.boxed()
    }

    fn step<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<Progress, Problem>> {
        self.run(fence).map(|result| result.map_err(Problem::from)).boxed()
    }
}

/// Applies notifications that were stored when their request broke off.
pub(crate) struct Inbox {
    mall: Mall,
}

impl Inbox {
    pub(crate) fn new(mall: Mall) -> Inbox {
        Inbox { mall }
    }

    async fn run(&self) -> Result<Progress, Error> {
        let text = "SELECT event_id FROM mall_notification WHERE outcome IS NULL AND received_at <= $1 ORDER BY received_at LIMIT $2";
        let before = self.mall.kernel.clock.now().plus_ms(-INBOX_PATIENCE_MS).ms();
        let open = sql::all(self.mall.kernel.db.reader(), text, [before.into(), STEP_MAX.into()]).await?;
        for row in &open {
            // Applying is idempotent and locks its row, so the request itself or another process may do the same at once.
            self.mall.apply_notice(&sql::get::<String>(row, "event_id")?).await?;
        }
        Ok(if open.is_empty() { Progress::Idle } else { Progress::Busy })
    }
}

impl Task for Inbox {
    fn name(&self) -> &'static str {
        "mall payment inbox"
    }

    fn waits(&self) -> Waits {
        Waits::time(LOOK_EVERY)
    }

    fn due(&self) -> BoxFuture<'_, Result<Option<Timestamp>, Problem>> {
        async move {
            let received = earliest(&self.mall, "SELECT MIN(received_at) AS due FROM mall_notification WHERE outcome IS NULL").await?;
            Ok(received.map(|received| received.plus_ms(INBOX_PATIENCE_MS)))
        }
        .boxed()
    }

    fn step<'a>(&'a self, _: &'a Fence) -> BoxFuture<'a, Result<Progress, Problem>> {
        self.run().map(|result| result.map_err(Problem::from)).boxed()
    }
}

/// Sends requests for refunds to the gateway until it has taken them; the gateway gives money back once per request.
pub(crate) struct Gateway {
    mall: Mall,
}

impl Gateway {
    pub(crate) fn new(mall: Mall) -> Gateway {
        Gateway { mall }
    }

    async fn run(&self, fence: &Fence) -> Result<Progress, Error> {
        if !self.mall.client.is_ready() {
            return Ok(Progress::Idle);
        }
        let text = "SELECT id, payment, gateway_transaction, amount, attempts FROM mall_gateway_request
                    WHERE state = 'pending' AND next_at <= $1 ORDER BY next_at LIMIT $2";
        let kernel = &self.mall.kernel;
        let due = sql::all(kernel.db.reader(), text, [kernel.clock.now().ms().into(), STEP_MAX.into()]).await?;
        for row in &due {
            let attempts: i64 = sql::get(row, "attempts")?;
            let order = RefundOrder {
                request: sql::get(row, "id")?,
                reference: sql::get(row, "payment")?,
                transaction: sql::get(row, "gateway_transaction")?,
                amount: sql::get(row, "amount")?,
                currency: "CNY".into(),
            };
            let error = self.mall.client.refund(&order).await.err();
            if let Some(error) = &error {
                tracing::warn!(request.id = order.request, attempts, error, "the payment gateway did not take a refund; it is asked again");
            }
            self.note(fence, order.request, attempts + 1, error).await?;
        }
        Ok(if due.is_empty() { Progress::Idle } else { Progress::Busy })
    }

    /// Keeps the outcome of a try. A confirmation that overtook our own note stands.
    async fn note(&self, fence: &Fence, id: String, attempts: i64, error: Option<String>) -> Result<(), Error> {
        let pause = (1_000i64 << attempts.min(20)).min(PAUSE_MS_MAX);
        let next_at = self.mall.kernel.clock.now().plus_ms(pause).ms();
        let fence = fence.clone();
        self.mall
            .kernel
            .db
            .write("note gateway request", move |tx| {
                let (fence, id, error) = (fence.clone(), id.clone(), error.clone());
                async move {
                    fence.check(tx).await?;
                    let state = if error.is_some() { "pending" } else { "sent" };
                    sql::execute(
                        tx.conn(),
                        "UPDATE mall_gateway_request SET state = $1, attempts = $2, next_at = $3, error = $4 WHERE id = $5 AND state = 'pending'",
                        [state.into(), attempts.into(), next_at.into(), error.into(), id.into()],
                    )
                    .await?;
                    Ok(())
                }
                .boxed()
            })
            .await
    }
}

impl Task for Gateway {
    fn name(&self) -> &'static str {
        "mall gateway requests"
    }

    fn waits(&self) -> Waits {
        Waits::time(LOOK_EVERY)
    }

    fn due(&self) -> BoxFuture<'_, Result<Option<Timestamp>, Problem>> {
        async move {
            if !self.mall.client.is_ready() {
                return Ok(None);
            }
            Ok(earliest(&self.mall, "SELECT MIN(next_at) AS due FROM mall_gateway_request WHERE state = 'pending'").await?)
        }
        .boxed()
    }

    fn step<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<Progress, Problem>> {
        self.run(fence).map(|result| result.map_err(Problem::from)).boxed()
    }
}
