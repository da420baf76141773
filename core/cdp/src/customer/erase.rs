//! Erasure (PIPL art. 47): keys, values and hashes of a customer's identifiers go; a mark stays against late retries.

use crate::batch_sql::{in_texts, list};
use crate::cdp::Cdp;
use crate::customer::find::Found;
use crate::identity::identifier::Kind;
use crate::identity::plan::{Plan, suppression_mark};
use crate::identity::store::{self, Row, StoredEdge};
use crate::pipeline::task::ERASURES;
use futures::FutureExt;
use heyuan_contract::{AnchorId, CustomerId, DomainEvent, Timestamp};
use heyuan_kernel::error::codes;
use heyuan_kernel::{Actor, Error, Kernel, Problem, Scope, Tx, audit, sql};
use std::collections::{BTreeMap, BTreeSet, HashMap};
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

    /// Erases, on the person's own word, what is proven to be its own and what hangs on that alone: an identifier that was seen beside its own
    /// ones, is among `unclaimed`, is no phone number that is not proven, and was not seen beside one that stays. What stays of the customer
    /// becomes a customer of its own. Anybody may send that two identifiers were seen together, so that this is no reason to erase both.
    ///
    /// # Errors
    /// `forbidden`; the database's. What was erased before is passed by.
    pub async fn erase_proven(&self, actor: &Actor, proven: &[AnchorId], unclaimed: &[AnchorId]) -> Result<(), Problem> {
        actor.require(Scope::Admin)?;
        for anchor in proven {
            let erased = self.inner.kernel.db.settle(|| self.erase_behind(actor, anchor, proven, unclaimed)).await;
            match erased.map_err(Problem::from) {
                Err(problem) if [codes::ERASED, codes::NOT_FOUND].contains(&problem.code()) => {}
                other => other?,
            }
        }
        Ok(())
    }

    async fn erase_behind(&self, actor: &Actor, anchor: &AnchorId, proven: &[AnchorId], unclaimed: &[AnchorId]) -> Result<(), Error> {
        let Some(customer) = self.customer_of(anchor).await? else { return Ok(()) };
        let found = self.found_to_change(actor, &customer).await.map_err(Error::Problem)?;
        let (kernel, now, by) = (self.inner.kernel.clone(), self.inner.kernel.clock.now(), actor.clone());
        let edges = store::edges_of(kernel.db.near(), &found.anchors()).await?;
        let own = own_of(&found.rows, &edges, proven, unclaimed);
        if own.len() == found.rows.len() {
            let found = Arc::new(found);
            return self
                .inner
                .kernel
                .db
                .write("erase a customer", move |tx| {
                    let (found, kernel, by) = (found.clone(), kernel.clone(), by.clone());
                    async move { write(tx, &kernel, &by, &found, now).await }.boxed()
                })
                .await;
        }
        // Nothing of what goes may hold on to what stays, or to what the rules have kept apart from it till now.
        let ends = edges.iter().filter(|edge| own.contains(&edge.a) || own.contains(&edge.b)).flat_map(|edge| [&edge.a, &edge.b]);
        let beside: BTreeSet<AnchorId> = ends.cloned().collect();
        let open = store::nodes_by_id(kernel.db.near(), &beside).await?.into_iter().filter(|row| !row.node.shared && !row.node.blocked);
        let known = found.rows.iter().map(|row| row.node.id.clone());
        let staying: BTreeSet<AnchorId> = known.chain(open.map(|row| row.node.id)).filter(|id| !own.contains(id)).collect();
        let pairs: Vec<(AnchorId, AnchorId)> = own.iter().flat_map(|one| staying.iter().map(move |other| pair(one, other))).collect();
        let ends: Vec<AnchorId> = own.iter().chain(&staying).cloned().collect();
        let plan = Plan::remake(kernel.db.near(), &self.inner.rules, &ends, &pairs).await?;
        let mut parts: BTreeMap<CustomerId, BTreeSet<AnchorId>> = BTreeMap::new();
        for (anchor, customer) in plan.customers().filter(|(anchor, _)| own.contains(anchor)) {
            parts.entry(customer).or_default().insert(anchor);
        }
        let rows: Vec<Row> = found.rows.iter().filter(|row| own.contains(&row.node.id)).cloned().collect();
        let stays = found.rows.len() - rows.len();
        let (rows, own, staying, parts) = (Arc::new(rows), Arc::new(own), Arc::new(staying), Arc::new(parts));
        self.write_plan("erase what is proven", plan, move |tx| {
            let (kernel, by, rows, own) = (kernel.clone(), by.clone(), rows.clone(), own.clone());
            let (staying, parts) = (staying.clone(), parts.clone());
            async move {
                retract(tx, &by, &own, &staying, now).await?;
                empty(tx, &kernel, &rows, now).await?;
                for (customer, anchors) in parts.iter() {
                    let entry = audit::Entry::new(&by, "erase customer", customer.as_str()).detail("identifiers", anchors.len());
                    let anchors = anchors.iter().cloned().collect();
                    let event = DomainEvent::CustomerErased { customer: customer.clone(), anchors, occurred_at: now };
                    tx.emit(customer.as_str(), &event).await?;
                    audit::record(tx, &entry.detail("identifiers_of_others", stays)).await?;
                }
                Ok(())
            }
            .boxed()
        })
        .await
    }
}

fn pair(one: &AnchorId, other: &AnchorId) -> (AnchorId, AnchorId) {
    if one < other { (one.clone(), other.clone()) } else { (other.clone(), one.clone()) }
}

/// What of a customer is proven to be one person's, and what hangs on that alone.
fn own_of(rows: &[Row], edges: &[StoredEdge], proven: &[AnchorId], unclaimed: &[AnchorId]) -> BTreeSet<AnchorId> {
    let inside: BTreeSet<&AnchorId> = rows.iter().map(|row| &row.node.id).collect();
    let mut beside: HashMap<&AnchorId, Vec<&AnchorId>> = HashMap::new();
    for edge in edges.iter().filter(|edge| inside.contains(&edge.a) && inside.contains(&edge.b)) {
        beside.entry(&edge.a).or_default().push(&edge.b);
        beside.entry(&edge.b).or_default().push(&edge.a);
    }
    // A phone number is what everybody knows of others; nobody has said that this one is the person's.
    let of_others: BTreeSet<&AnchorId> = rows
        .iter()
        .filter(|row| !proven.contains(&row.node.id) && (row.node.kind == Kind::Phone || !unclaimed.contains(&row.node.id)))
        .map(|row| &row.node.id)
        .collect();
    let stays = |id: &AnchorId| of_others.contains(id) || neighbours(&beside, id).iter().any(|other| of_others.contains(*other));
    let mut own: BTreeSet<AnchorId> = proven.iter().filter(|id| inside.contains(id)).cloned().collect();
    let mut next: Vec<AnchorId> = own.iter().cloned().collect();
    while let Some(id) = next.pop() {
        for other in neighbours(&beside, &id).iter().copied() {
            if !stays(other) && own.insert(other.clone()) {
                next.push(other.clone());
            }
        }
    }
    own
}

fn neighbours<'a>(beside: &'a HashMap<&'a AnchorId, Vec<&'a AnchorId>>, id: &AnchorId) -> &'a [&'a AnchorId] {
    beside.get(id).map_or(&[], Vec::as_slice)
}

/// Takes back what ties identifiers that go to identifiers that stay.
async fn retract(tx: &Tx, actor: &Actor, own: &BTreeSet<AnchorId>, staying: &BTreeSet<AnchorId>, now: Timestamp) -> Result<(), Error> {
    let backend = tx.conn().backend();
    for (left, right) in [(own, staying), (staying, own)] {
        let text = format!(
            "UPDATE cdp_edge SET retracted_at = $1, retracted_by = $2 WHERE retracted_at IS NULL AND a {} AND b {}",
            in_texts(backend, 3),
            in_texts(backend, 4)
        );
        let (left, right) = (list(backend, left.iter().map(AnchorId::as_str)), list(backend, right.iter().map(AnchorId::as_str)));
        sql::execute(tx.conn(), &text, [now.ms().into(), actor.name().into(), left, right]).await?;
    }
    Ok(())
}

async fn write(tx: &Tx, kernel: &Kernel, actor: &Actor, found: &Found, now: Timestamp) -> Result<(), Error> {
    let expected: BTreeMap<AnchorId, i64> = found.rows.iter().map(|row| (row.node.id.clone(), row.revision)).collect();
    store::check_revisions(tx, &expected).await?;
    empty(tx, kernel, &found.rows, now).await?;
    let event = DomainEvent::CustomerErased { customer: found.customer.clone(), anchors: found.anchors(), occurred_at: now };
    tx.emit(found.customer.as_str(), &event).await?;
    let entry = audit::Entry::new(actor, "erase customer", found.customer.as_str()).detail("identifiers", found.rows.len());
    audit::record(tx, &entry).await
}

/// Destroys what identifiers are found and read by.
async fn empty(tx: &Tx, kernel: &Kernel, rows: &[Row], now: Timestamp) -> Result<(), Error> {
    // A batch of the pipeline that was prepared with one of these identifiers starts again.
    sql::execute(tx.conn(), "UPDATE cdp_position SET position = position + 1 WHERE name = $1", [ERASURES.into()]).await?;
    for row in rows {
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
    let subjects: Vec<String> = rows.iter().map(|row| row.node.id.as_str().to_owned()).collect();
    kernel.vault.erase(tx, &subjects).await
}
