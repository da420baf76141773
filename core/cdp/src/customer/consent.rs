//! Consent by purpose and legal entity: the latest word of the person counts.

use super::find::at;
use crate::batch_sql::{in_texts, list};
use crate::cdp::Cdp;
use futures::FutureExt;
use heyuan_contract::{AnchorId, CustomerId, Timestamp};
use heyuan_kernel::{Actor, Error, Problem, Rfc3339, Scope, audit, sql};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Longest purpose and legal entity, in bytes.
const TEXT_BYTES_MAX: usize = 64;

/// What a person has said about one use of the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Consent {
    /// What for, such as `marketing`.
    pub purpose: String,
    /// To whom.
    pub legal_entity: String,
    /// Yes or no.
    pub granted: bool,
    /// When it was said.
    pub at: Rfc3339,
}

impl Cdp {
    /// Records what a person said; an earlier word than the one known changes nothing.
    ///
    /// # Errors
    /// `forbidden`; `invalid_request`; `not_found`; `erased`.
    pub async fn consent(
        &self,
        actor: &Actor,
        customer: &CustomerId,
        purpose: &str,
        legal_entity: &str,
        granted: bool,
        said_at: Timestamp,
    ) -> Result<Vec<Consent>, Problem> {
        actor.require_any(&[Scope::App, Scope::Admin])?;
        for (field, text) in [("purpose", purpose), ("legal_entity", legal_entity)] {
            let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':'));
            if text.is_empty() || text.len() > TEXT_BYTES_MAX || !plain {
                return Err(Problem::invalid(field, format!("1 to {TEXT_BYTES_MAX} characters of A-Z a-z 0-9 _ - . :")));
            }
        }
        let now = self.inner.kernel.clock.now();
        if said_at > now.plus_ms(5 * 60_000) {
            return Err(Problem::invalid("at", "a consent can't be given in the future"));
        }
        let found = self.found(actor, customer).await?;
        let anchor = found.rows.first().map(|row| row.node.id.clone()).ok_or_else(|| Problem::not_found("customer", customer))?;
        let (actor, purpose, entity, stored) = (actor.clone(), purpose.to_owned(), legal_entity.to_owned(), found.customer.clone());
        self.inner
            .kernel
            .db
            .write("record consent", move |tx| {
                let (actor, anchor, purpose, entity, stored) = (actor.clone(), anchor.clone(), purpose.clone(), entity.clone(), stored.clone());
                async move {
                    sql::execute(
                        tx.conn(),
                        "INSERT INTO cdp_consent (anchor, purpose, legal_entity, granted, at, recorded_at, recorded_by) VALUES ($1, $2, $3, $4, $5, $6, $7)
                         ON CONFLICT (anchor, purpose, legal_entity) DO UPDATE SET granted = excluded.granted, at = excluded.at,
                           recorded_at = excluded.recorded_at, recorded_by = excluded.recorded_by WHERE excluded.at >= cdp_consent.at",
                        [
                            anchor.as_str().into(),
                            purpose.clone().into(),
                            entity.clone().into(),
                            i64::from(granted).into(),
                            said_at.ms().into(),
                            now.ms().into(),
                            actor.name().into(),
                        ],
                    )
                    .await?;
                    crate::know::Know::look_again(tx, std::slice::from_ref(&stored)).await?;
                    let entry = audit::Entry::new(&actor, "record consent", stored.as_str())
                        .detail("purpose", purpose)
                        .detail("legal_entity", entity)
                        .detail("granted", granted);
                    audit::record(tx, &entry).await
                }
                .boxed()
            })
            .await?;
        Ok(self.consents_of(&found.anchors()).await?)
    }

    /// The latest word for each purpose and legal entity, over all anchors of a customer.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn consents_of(&self, anchors: &[AnchorId]) -> Result<Vec<Consent>, Error> {
        let reader = self.inner.kernel.db.near();
        let backend = self.inner.kernel.db.backend();
        let text = format!(
            "SELECT purpose, legal_entity, granted, at FROM cdp_consent WHERE anchor {} ORDER BY at, granted DESC",
            in_texts(backend, 1)
        );
        let mut latest: BTreeMap<(String, String), Consent> = BTreeMap::new();
        // Of two words of the same instant the refusal counts: it comes last.
        for row in sql::all(reader, &text, [list(backend, anchors.iter().map(AnchorId::as_str))]).await? {
            let (purpose, legal_entity): (String, String) = (sql::get(&row, "purpose")?, sql::get(&row, "legal_entity")?);
            let granted = sql::get::<i64>(&row, "granted")? != 0;
            let consent = Consent { purpose: purpose.clone(), legal_entity: legal_entity.clone(), granted, at: at(sql::get(&row, "at")?) };
            latest.insert((purpose, legal_entity), consent);
        }
        Ok(latest.into_values().collect())
    }
}
