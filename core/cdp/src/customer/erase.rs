//! Erasure (PIPL art. 47): keys, values and hashes of a customer's identifiers go; a mark stays against late retries.

use crate::cdp::Cdp;
use crate::customer::find::Found;
use crate::identity::plan::suppression_mark;
use crate::identity::store;
use crate::pipeline::task::ERASURES;
use futures::FutureExt;
use heyuan_contract::{AnchorId, CustomerId, DomainEvent, Timestamp};
use heyuan_kernel::{Actor, Error, Kernel, Problem, Scope, Tx, audit, sql};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Cdp {
    /// Erases a customer. Events that arrive later but happened before are dropped; books and history keep references that open nothing.
    ///
    /// # Errors
    /// `forbidden`, also when a unit out of reach knows the customer; `not_found`; `erased` when it was done before.
    pub async fn erase(&self, actor: &Actor, customer: &CustomerId) -> Result<CustomerId, Problem> {
        actor.require(Scope::Admin)?;
        self.inner
            .kernel
            .db
            .settle(|| async {
                let found = self.found_to_change(actor, customer).await.map_err(Error::Problem)?;
                let (id, kernel, actor) = (found.customer.clone(), self.inner.kernel.clone(), actor.clone());
                let found = Arc::new(found);
                let now = kernel.clock.now();
                self.inner
                    .kernel
                    .db
                    .write("erase a customer", move |tx| {
                        let (found, kernel, actor) = (found.clone(), kernel.clone(), actor.clone());
                        async move { write(tx, &kernel, &actor, &found, now).await }.boxed()
                    })
                    .await?;
                Ok::<_, Error>(id)
            })
            .await
            .map_err(Problem::from)
    }
}

async fn write(tx: &Tx, kernel: &Kernel, actor: &Actor, found: &Found, now: Timestamp) -> Result<(), Error> {
    let expected: BTreeMap<AnchorId, i64> = found.rows.iter().map(|row| (row.node.id.clone(), row.revision)).collect();
    store::check_revisions(tx, &expected).await?;
    // A batch of the pipeline that was prepared with one of these identifiers starts again.
    sql::execute(tx.conn(), "UPDATE cdp_position SET position = position + 1 WHERE name = $1", [ERASURES.into()]).await?;
    for row in &found.rows {
        if let Some(hash) = &row.hash {
            sql::execute(
                tx.conn(),
                "INSERT INTO cdp_suppression (mark, at) VALUES ($1, $2) ON CONFLICT (mark) DO UPDATE SET at = excluded.at",
                [suppression_mark(kernel, hash).to_vec().into(), now.ms().into()],
            )
            .await?;
        }
        sql::execute(
            tx.conn(),
            "UPDATE cdp_node SET hash = NULL, ref = NULL, erased_at = $1, revision = revision + 1 WHERE id = $2",
            [now.ms().into(), row.node.id.as_str().into()],
        )
        .await?;
        sql::execute(tx.conn(), "DELETE FROM cdp_consent WHERE anchor = $1", [row.node.id.as_str().into()]).await?;
    }
    let subjects: Vec<String> = found.rows.iter().map(|row| row.node.id.as_str().to_owned()).collect();
    kernel.vault.erase(tx, &subjects).await?;
    let event = DomainEvent::CustomerErased { customer: found.customer.clone(), anchors: found.anchors(), occurred_at: now };
    tx.emit(found.customer.as_str(), &event).await?;
    let entry = audit::Entry::new(actor, "erase customer", found.customer.as_str()).detail("identifiers", found.rows.len());
    audit::record(tx, &entry).await
}
