//! What attribution does with others' facts: keeps touchpoints, and forgets whose they were when a person is erased.

use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_contract::{AnchorId, DomainEvent};
use heyuan_kernel::outbox::Envelope;
use heyuan_kernel::pump::{Apply, Reaction, nothing};
use heyuan_kernel::{Error, Problem, Tx, sql};
use sea_orm::Value;
use std::sync::Arc;

/// Anchors of one statement.
const ANCHORS_A_STATEMENT: usize = 1_000;

/// Keeps a touchpoint of each visit that an ad or a campaign brought.
pub(crate) struct Touches;

impl Reaction for Touches {
    fn consumer(&self) -> &'static str {
        "attribution.touches"
    }

    fn wants(&self, name: &str) -> bool {
        name == "campaign.touched.v1"
    }

    fn react<'a>(&'a self, envelope: &'a Envelope) -> BoxFuture<'a, Result<Apply, Problem>> {
        let apply = keep(std::slice::from_ref(envelope));
        async move { Ok(apply) }.boxed()
    }

    fn react_together(&self, envelopes: &[Envelope]) -> Option<Apply> {
        Some(keep(envelopes))
    }
}

/// Writes the touchpoints among the events.
fn keep(envelopes: &[Envelope]) -> Apply {
    let touches: Arc<Vec<[Value; 10]>> = Arc::new(envelopes.iter().filter_map(|envelope| row(&envelope.event)).collect());
    if touches.is_empty() {
        return nothing();
    }
    Box::new(move |tx| {
        let touches = touches.clone();
        async move {
            let text = "INSERT INTO attribution_touch (message_id, anchor, unit, platform, source, medium, campaign, content, click_id, occurred_at)
                        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (message_id) DO NOTHING";
            for values in touches.iter() {
                sql::execute(tx.conn(), text, values.clone()).await?;
            }
            Ok(())
        }
        .boxed()
    })
}

fn row(event: &DomainEvent) -> Option<[Value; 10]> {
    let DomainEvent::CampaignTouched { anchor, message_id, unit, touch, occurred_at } = event else { return None };
    Some([
        message_id.as_str().into(),
        anchor.as_str().into(),
        unit.as_ref().map(|unit| unit.as_str().to_owned()).into(),
        touch.platform.clone().into(),
        touch.source.clone().into(),
        touch.medium.clone().into(),
        touch.campaign.clone().into(),
        touch.content.clone().into(),
        touch.click_id.clone().into(),
        occurred_at.ms().into(),
    ])
}

/// Takes the anchors and click ids of an erased person off touchpoints and leads; what remains are anonymous counts.
pub(crate) struct Erasure;

impl Reaction for Erasure {
    fn consumer(&self) -> &'static str {
        "attribution.erasure"
    }

    fn wants(&self, name: &str) -> bool {
        name == "customer.erased.v1"
    }

    fn react<'a>(&'a self, envelope: &'a Envelope) -> BoxFuture<'a, Result<Apply, Problem>> {
        async move {
            let DomainEvent::CustomerErased { anchors, .. } = &envelope.event else { return Ok(nothing()) };
            let anchors = anchors.clone();
            let apply: Apply = Box::new(move |tx| {
                let anchors = anchors.clone();
                async move { forget(tx, &anchors).await }.boxed()
            });
            Ok(apply)
        }
        .boxed()
    }
}

async fn forget(tx: &Tx, anchors: &[AnchorId]) -> Result<(), Error> {
    for chunk in anchors.chunks(ANCHORS_A_STATEMENT) {
        let list = sql::placeholders(1, chunk.len());
        let values = || chunk.iter().map(|anchor| Value::from(anchor.as_str())).collect::<Vec<_>>();
        let text = format!("UPDATE attribution_touch SET anchor = NULL, click_id = NULL WHERE anchor IN ({list})");
        sql::execute(tx.conn(), &text, values()).await?;
        let text = format!("UPDATE attribution_lead SET anchor = NULL, click_id = NULL, touch = NULL WHERE anchor IN ({list})");
        sql::execute(tx.conn(), &text, values()).await?;
    }
    Ok(())
}
