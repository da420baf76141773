//! The number of erasures so far, as a row that is always there: what the pipeline prepared before one is prepared again.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::ConnectionTrait;

/// Retention: one row of `cdp_position`.
pub(super) struct Erasures;

impl MigrationName for Erasures {
    fn name(&self) -> &str {
        "m20261125_000004_erasures"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Erasures {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared("INSERT INTO cdp_position (name, position) VALUES ('erasures', 0)").await?;
        Ok(())
    }
}
