//! Reading several things as they stood at one moment, while postings run.

use crate::error::Error;
use crate::facade::Membership;
use sea_orm::{AccessMode, DatabaseTransaction, DbBackend, IsolationLevel, TransactionTrait};

impl Membership {
    /// A transaction in which every statement sees the same state. On SQLite a deferred one is: its first read fixes it.
    pub(crate) async fn begin_reading(&self) -> Result<DatabaseTransaction, Error> {
        let reader = self.kernel().db.reader();
        let begun = match self.kernel().db.backend() {
            DbBackend::Postgres => reader.begin_with_config(Some(IsolationLevel::RepeatableRead), Some(AccessMode::ReadOnly)).await,
            _ => reader.begin().await,
        };
        Ok(begun.map_err(heyuan_kernel::Error::from)?)
    }
}
