//! An index by age on PostgreSQL's message ids, small because rows lie in the order of their arrival.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{ConnectionTrait, DbBackend};

/// Retention: as the table that it serves. SQLite keeps ids in generations and needs none.
pub(super) struct MessageIdAge;

impl MigrationName for MessageIdAge {
    fn name(&self) -> &str {
        "m20261122_000003_message_id_age"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for MessageIdAge {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if manager.get_database_backend() == DbBackend::Postgres {
            let text = "CREATE INDEX cdp_message_id_age ON cdp_message_id USING brin (seen_at)";
            manager.get_connection().execute_unprepared(text).await?;
        }
        Ok(())
    }
}
