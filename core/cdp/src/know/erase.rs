//! A person who is forgotten: state, standing, tags and their history, and every bit in a bitmap.

use super::bitmap::{self, LIVING, chunk_of, of_segment, of_unit};
use super::memory::read_standings;
use super::standing::Standing;
use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_contract::{AnchorId, CustomerId, DomainEvent};
use heyuan_kernel::outbox::Envelope;
use heyuan_kernel::pump::{Apply, Reaction, nothing};
use heyuan_kernel::{Error, Problem, Tx, sql};

/// The consumer of erasures.
pub(crate) struct Erasure;

impl Reaction for Erasure {
    fn consumer(&self) -> &'static str {
        "cdp know erasure"
    }

    fn wants(&self, name: &str) -> bool {
        name == "customer.erased.v1"
    }

    fn react<'a>(&'a self, envelope: &'a Envelope) -> BoxFuture<'a, Result<Apply, Problem>> {
        async move {
            let DomainEvent::CustomerErased { customer, anchors, .. } = &envelope.event else { return Ok(nothing()) };
            let (customer, anchors) = (customer.clone(), anchors.clone());
            let apply: Apply = Box::new(move |tx| {
                let (customer, anchors) = (customer.clone(), anchors.clone());
                erase(tx, customer, anchors).boxed()
            });
            Ok(apply)
        }
        .boxed()
    }
}

async fn erase(tx: &Tx, customer: CustomerId, anchors: Vec<AnchorId>) -> Result<(), Error> {
    // Two steps at once: no other writer moves the revision so, so that nobody takes this for a commit of its own.
    sql::execute(tx.conn(), "UPDATE cdp_know_counter SET value = value + 2 WHERE name = 'revision'", []).await?;
    let revision = sql::one(tx.conn(), "SELECT value FROM cdp_know_counter WHERE name = 'revision'", []).await?;
    let revision: i64 = revision.map_or(Ok(0), |row| sql::get(&row, "value"))?;
    for some in anchors.chunks(500) {
        let text = format!("DELETE FROM cdp_feature_state WHERE anchor IN ({})", sql::placeholders(1, some.len()));
        sql::execute(tx.conn(), &text, some.iter().map(|anchor| anchor.as_str().into()).collect::<Vec<_>>()).await?;
    }
    sql::execute(tx.conn(), "DELETE FROM cdp_tag_change WHERE customer = $1", [customer.as_str().into()]).await?;
    let Some((_, before)) = read_standings(tx.conn(), &[&customer]).await?.pop() else { return Ok(()) };
    let mut names = vec![LIVING.to_owned()];
    names.extend(before.units.iter().map(|unit| of_unit(unit.as_str())));
    names.extend(before.segments.iter().map(|segment| of_segment(segment)));
    let keys: Vec<_> = names.into_iter().map(|name| (name, chunk_of(before.number))).collect();
    let mut chunks: Vec<_> = bitmap::chunks(tx.conn(), &keys).await?.into_iter().collect();
    chunks.iter_mut().for_each(|(_, bits)| {
        bits.remove(before.number);
    });
    bitmap::write(tx.conn(), &chunks).await?;
    let after = Standing { number: before.number, gone: true, ..Standing::default() };
    sql::execute(
        tx.conn(),
        "UPDATE cdp_standing SET revision = $2, due_at = NULL, standing = $3 WHERE customer = $1",
        [customer.as_str().into(), revision.into(), after.encode().into()],
    )
    .await?;
    Ok(())
}
