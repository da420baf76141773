//! Un-merge: named evidence is taken back for good, and what it held together parts.

use crate::cdp::Cdp;
use crate::error::codes;
use crate::identity::plan::Plan;
use crate::identity::store;
use futures::FutureExt;
use heyuan_contract::{AnchorId, CustomerId};
use heyuan_kernel::{Actor, Error, Problem, Scope, audit, sql};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// Most pairs of one request.
const PAIRS_MAX: usize = 100;

/// Two anchors that were seen together by mistake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EvidenceName {
    /// One anchor.
    #[schema(value_type = String)]
    pub a: AnchorId,
    /// The other.
    #[schema(value_type = String)]
    pub b: AnchorId,
}

impl Cdp {
    /// Takes evidence back and keeps its ends apart for ever; answers the customers that there are now. The state equals a replay
    /// of all observations without the evidence.
    ///
    /// # Errors
    /// `forbidden`, also when a unit out of reach knows the customer; `not_found`; `no_such_evidence` for a pair that is not part of this customer.
    pub async fn split(&self, actor: &Actor, customer: &CustomerId, evidence: &[EvidenceName]) -> Result<Vec<CustomerId>, Problem> {
        actor.require(Scope::Admin)?;
        if evidence.is_empty() || evidence.len() > PAIRS_MAX {
            return Err(Problem::invalid("evidence", format!("name 1 to {PAIRS_MAX} pairs of anchors")));
        }
        let pairs: BTreeSet<(AnchorId, AnchorId)> = evidence
            .iter()
            .map(|pair| if pair.a < pair.b { (pair.a.clone(), pair.b.clone()) } else { (pair.b.clone(), pair.a.clone()) })
            .collect();
        let anchors = self.inner.kernel.db.settle(|| self.split_once(actor, customer, &pairs)).await?;
        let mut customers: Vec<CustomerId> = self.customers_of(&anchors).await?.into_values().collect();
        customers.sort();
        customers.dedup();
        Ok(customers)
    }

    async fn split_once(
        &self,
        actor: &Actor,
        customer: &CustomerId,
        pairs: &BTreeSet<(AnchorId, AnchorId)>,
    ) -> Result<Vec<AnchorId>, Error> {
        let reader = self.inner.kernel.db.reader();
        let found = self.found_to_change(actor, customer).await.map_err(Error::Problem)?;
        let anchors = found.anchors();
        let list: Vec<(AnchorId, AnchorId)> = pairs.iter().cloned().collect();
        let stored = store::edges_between(reader, &list).await?;
        for (a, b) in pairs {
            let known = stored.iter().any(|edge| edge.a == *a && edge.b == *b && !edge.retracted);
            if !known || !(anchors.contains(a) || anchors.contains(b)) {
                let problem = Problem::new(codes::NO_SUCH_EVIDENCE, format!("{a} and {b} were not seen together, or not of this customer"));
                return Err(Error::Problem(problem.field("evidence")));
            }
        }
        let mut ends = anchors.clone();
        ends.extend(pairs.iter().flat_map(|(a, b)| [a.clone(), b.clone()]));
        let plan = Plan::remake(reader, &self.inner.rules, &ends, &list).await?;
        let (actor, now, id) = (actor.clone(), self.inner.kernel.clock.now(), found.customer.clone());
        self.write_plan("split a customer", plan, move |tx| {
            let (list, actor, id) = (list.clone(), actor.clone(), id.clone());
            async move {
                for (a, b) in &list {
                    sql::execute(
                        tx.conn(),
                        "UPDATE cdp_edge SET retracted_at = $1, retracted_by = $2 WHERE a = $3 AND b = $4",
                        [now.ms().into(), actor.name().into(), a.as_str().into(), b.as_str().into()],
                    )
                    .await?;
                    for (one, other) in [(a, b), (b, a)] {
                        sql::execute(
                            tx.conn(),
                            "INSERT INTO cdp_cannot_link (a, b, at, actor) VALUES ($1, $2, $3, $4) ON CONFLICT (a, b) DO NOTHING",
                            [one.as_str().into(), other.as_str().into(), now.ms().into(), actor.name().into()],
                        )
                        .await?;
                    }
                }
                let entry = audit::Entry::new(&actor, "split customer", id.as_str()).detail("evidence", list.len());
                audit::record(tx, &entry).await
            }
            .boxed()
        })
        .await?;
        Ok(anchors)
    }
}
