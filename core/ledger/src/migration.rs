//! The ledger's migrations, under their own table.

use sea_orm_migration::prelude::*;

#[path = "migration/m20261122_000001_ledger.rs"]
mod m20261122_000001_ledger;
#[path = "migration/m20261126_000002_books.rs"]
mod m20261126_000002_books;
#[path = "migration/m20261127_000003_sealed_lots.rs"]
mod m20261127_000003_sealed_lots;
#[path = "migration/m20261129_000004_kept.rs"]
mod m20261129_000004_kept;

/// The ledger's migrations.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261122_000001_ledger::MIGRATION),
            Box::new(m20261126_000002_books::MIGRATION),
            Box::new(m20261127_000003_sealed_lots::MIGRATION),
            Box::new(m20261129_000004_kept::MIGRATION),
        ]
    }

    fn migration_table_name() -> DynIden {
        "ledger_migration".into_iden()
    }
}

impl heyuan_kernel::migration::Steps for Migrator {}
