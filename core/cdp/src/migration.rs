//! The wing's migrations, under its own migration table.

use sea_orm_migration::prelude::*;

#[path = "migration/m20261122_000001_cdp.rs"]
mod m20261122_000001_cdp;
#[path = "migration/m20261122_000002_know.rs"]
mod m20261122_000002_know;
#[path = "migration/m20261122_000003_message_id_age.rs"]
mod m20261122_000003_message_id_age;
#[path = "migration/m20261125_000004_erasures.rs"]
mod m20261125_000004_erasures;
#[path = "migration/m20261125_000005_rejected_bytes.rs"]
mod m20261125_000005_rejected_bytes;

/// The migrations of collecting, identifying and knowing.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261122_000001_cdp::MIGRATION),
            Box::new(m20261122_000002_know::MIGRATION),
            Box::new(m20261122_000003_message_id_age::MessageIdAge),
            Box::new(m20261125_000004_erasures::Erasures),
            Box::new(m20261125_000005_rejected_bytes::RejectedBytes),
        ]
    }

    fn migration_table_name() -> DynIden {
        "cdp_migration".into_iden()
    }
}

impl heyuan_kernel::migration::Steps for Migrator {}
