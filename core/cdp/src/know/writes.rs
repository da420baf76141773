//! Writes what a step decided: states, standings, changes of tags, bitmaps and events, in the step's own transaction.

use super::bitmap;
use super::memory::{Writes, advance_revision, set_counter};
use super::standing::cause_text;
use crate::batch_sql;
use heyuan_kernel::{Error, Tx, sql};

impl Writes {
    /// Whether nothing is to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.states.is_empty() && self.standings.is_empty() && self.position == self.expected.position
    }

    /// Writes everything; may run again when the commit loses a race.
    pub(crate) async fn apply(&self, tx: &Tx) -> Result<(), Error> {
        if self.is_empty() {
            return Ok(());
        }
        advance_revision(tx, self.expected.revision).await?;
        if self.position != self.expected.position {
            set_counter(tx, "position", self.position).await?;
        }
        if self.number != self.expected.number {
            set_counter(tx, "number", self.number).await?;
        }
        self.write_states(tx).await?;
        self.write_standings(tx).await?;
        self.write_changes(tx).await?;
        bitmap::write(tx.conn(), &self.chunks).await?;
        for (segment, (entered, gone)) in &self.rebuilt {
            sql::execute(
                tx.conn(),
                "UPDATE cdp_segment SET entered = entered + $2, gone = gone + $3 WHERE id = $1",
                [segment.as_str().into(), (*entered).into(), (*gone).into()],
            )
            .await?;
        }
        for (key, event) in &self.events {
            tx.emit(key, event).await?;
        }
        Ok(())
    }

    async fn write_states(&self, tx: &Tx) -> Result<(), Error> {
        let rows = self.states.iter().map(|(anchor, state)| vec![anchor.as_str().into(), self.position.into(), state.encode().into()]);
        batch_sql::insert(
            tx.conn(),
            "INSERT INTO cdp_feature_state (anchor, position, state) VALUES",
            "ON CONFLICT (anchor) DO UPDATE SET position = excluded.position, state = excluded.state",
            3,
            rows.collect(),
        )
        .await?;
        Ok(())
    }

    async fn write_standings(&self, tx: &Tx) -> Result<(), Error> {
        let revision = self.expected.revision + 1;
        let rows = self.standings.iter().map(|(customer, standing)| {
            vec![
                customer.as_str().into(),
                i64::from(standing.number).into(),
                revision.into(),
                standing.position.into(),
                standing.as_of_ms.into(),
                standing.due_ms.into(),
                standing.encode().into(),
            ]
        });
        batch_sql::insert(
            tx.conn(),
            "INSERT INTO cdp_standing (customer, number, revision, position, as_of, due_at, standing) VALUES",
            "ON CONFLICT (customer) DO UPDATE SET number = excluded.number, revision = excluded.revision, position = excluded.position,
               as_of = excluded.as_of, due_at = excluded.due_at, standing = excluded.standing",
            7,
            rows.collect(),
        )
        .await?;
        Ok(())
    }

    async fn write_changes(&self, tx: &Tx) -> Result<(), Error> {
        let rows = self.changes.iter().map(|change| {
            vec![
                change.customer.as_str().into(),
                change.tag.as_str().into(),
                change.value.clone().into(),
                change.previous.clone().into(),
                change.version.as_str().into(),
                cause_text(change.cause).into(),
                self.position.into(),
                self.at_ms.into(),
            ]
        });
        batch_sql::insert(
            tx.conn(),
            "INSERT INTO cdp_tag_change (customer, tag, value, previous, version, cause, position, at) VALUES",
            "",
            8,
            rows.collect(),
        )
        .await?;
        Ok(())
    }
}
