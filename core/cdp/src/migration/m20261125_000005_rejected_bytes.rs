//! The bytes of refused events that are kept, and the count of those that are not, as rows that are always there.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::ConnectionTrait;

/// Retention: two rows of `cdp_position`.
pub(super) struct RejectedBytes;

impl MigrationName for RejectedBytes {
    fn name(&self) -> &str {
        "m20261125_000005_rejected_bytes"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for RejectedBytes {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let text = "INSERT INTO cdp_position (name, position) VALUES ('rejected_unkept', 0);
            INSERT INTO cdp_position (name, position)
              SELECT 'rejected_bytes', CAST(COALESCE(SUM(LENGTH(sealed) + 600), 0) AS BIGINT) FROM cdp_rejected";
        manager.get_connection().execute_unprepared(text).await?;
        Ok(())
    }
}
