//! What became of events: fate, refusals, replays.

use crate::cdp::Cdp;
use crate::collect::rejected::{self, Rejected, within};
use crate::collect::{ID_BYTES_MAX, Outcome};
use crate::error::codes;
use crate::history;
use futures::FutureExt;
use heyuan_contract::{AnchorId, CustomerId};
use heyuan_kernel::{Actor, Error, Problem, Scope, audit};
use heyuan_lake::QueryOptions;
use serde::Serialize;
use utoipa::ToSchema;

/// What became of an event.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EventFate {
    /// The sender's id of the message.
    pub message_id: String,
    /// `accepted` (it waits in the inbox, or belonged to an erased person), `known` (it is part of a customer's history) or `rejected`.
    pub status: &'static str,
    /// Its place in the order, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<i64>,
    /// The anchor that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub anchor: Option<AnchorId>,
    /// The anchor's customer now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub customer: Option<CustomerId>,
    /// Why it was rejected, and its number for a replay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Rejected>,
}

impl Cdp {
    /// What became of an event.
    ///
    /// # Errors
    /// `forbidden`; `not_found` for an id that was not seen within the days that are remembered.
    pub async fn fate(&self, actor: &Actor, message_id: &str) -> Result<EventFate, Problem> {
        actor.require(Scope::Admin)?;
        if message_id.is_empty() || message_id.len() > ID_BYTES_MAX {
            return Err(Problem::invalid("message_id", format!("a message id has 1 to {ID_BYTES_MAX} bytes")));
        }
        let reader = self.inner.kernel.db.reader();
        let fate =
            |status| EventFate { message_id: message_id.to_owned(), status, position: None, anchor: None, customer: None, rejected: None };
        let missing = || Problem::not_found("event", "with this message id");
        let found = match history::find_known(reader, message_id).await? {
            Some(event) => Some((event.position, event.anchor, event.unit)),
            None => self.in_lake(actor, message_id).await?,
        };
        if let Some((position, anchor, unit)) = found {
            if !within(actor.reach(), unit.as_ref().map(|unit| unit.as_str())) {
                return Err(missing());
            }
            let customer = self.customer_of(&anchor).await?;
            return Ok(EventFate { position: Some(position), anchor: Some(anchor), customer, ..fate("known") });
        }
        if self.inner.collector.ids().knows(message_id).await? {
            return Ok(fate("accepted"));
        }
        let refused = rejected::of_message(reader, message_id).await?;
        let refused = refused.filter(|refused| within(actor.reach(), refused.unit.as_deref())).ok_or_else(missing)?;
        Ok(EventFate { rejected: Some(refused), ..fate("rejected") })
    }

    async fn in_lake(
        &self,
        actor: &Actor,
        message_id: &str,
    ) -> Result<Option<(i64, AnchorId, Option<heyuan_contract::OrgUnitId>)>, Problem> {
        let Some(lake) = self.inner.lake.get() else { return Ok(None) };
        let text = "SELECT position, anchor, unit FROM events WHERE message_id = $1";
        let options = QueryOptions { params: vec![message_id.into()], limit: Some(1) };
        let table = lake.query(actor, text, options).await.map_err(Problem::from)?;
        let Some(row) = table.rows.first() else { return Ok(None) };
        let position = row.first().and_then(serde_json::Value::as_i64);
        let anchor = row.get(1).and_then(serde_json::Value::as_str).and_then(|text| AnchorId::new(text).ok());
        let unit = row.get(2).and_then(serde_json::Value::as_str).and_then(|text| heyuan_contract::OrgUnitId::new(text).ok());
        Ok(position.zip(anchor).map(|(position, anchor)| (position, anchor, unit)))
    }

    /// Refused events within reach, newest first, up to `limit + 1`.
    ///
    /// # Errors
    /// `forbidden`.
    pub async fn rejected(&self, actor: &Actor, before: Option<i64>, limit: u64) -> Result<Vec<Rejected>, Problem> {
        actor.require(Scope::Admin)?;
        Ok(rejected::list(self.inner.kernel.db.reader(), actor.reach(), before, limit).await?)
    }

    /// Takes a refused event in, with its own arrival and message id.
    ///
    /// # Errors
    /// `forbidden`; `not_found`; `still_rejected`; `already_replayed`.
    pub async fn replay(&self, actor: &Actor, id: i64) -> Result<Outcome, Problem> {
        actor.require(Scope::Admin)?;
        let missing = || Problem::not_found("rejected event", id);
        let kernel = &self.inner.kernel;
        let (view, kept) = rejected::kept(kernel.db.reader(), kernel.keys.inbox(), id).await?.ok_or_else(missing)?;
        if !within(actor.reach(), view.unit.as_deref()) {
            return Err(missing());
        }
        if view.replayed_at.is_some() {
            return Err(Problem::new(codes::ALREADY_REPLAYED, format!("rejected event {id} was replayed before")));
        }
        if kept.cut {
            return Err(Problem::new(codes::STILL_REJECTED, "too_large: only the beginning of the event was kept"));
        }
        self.inner.types.refresh().await?;
        if let Some((reason, detail)) = self.inner.collector.would_reject(&kept.sender, kept.path_kind, &kept.raw) {
            return Err(Problem::new(codes::STILL_REJECTED, format!("{}: {detail}", reason.as_str())));
        }
        let outcome = self.inner.collector.submit_as(kept.sender, kept.path_kind, kept.message_id, kept.raw).await?;
        let (actor, now) = (actor.clone(), kernel.clock.now());
        kernel
            .db
            .write("mark a replay", move |tx| {
                let actor = actor.clone();
                async move {
                    rejected::mark_replayed(tx, id, now.ms()).await?;
                    audit::record(tx, &audit::Entry::new(&actor, "replay event", &id.to_string())).await
                }
                .boxed()
            })
            .await
            .map_err(|error: Error| Problem::from(error))?;
        Ok(outcome)
    }
}
