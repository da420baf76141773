//! Staff's tables.

use heyuan_kernel::migration::SqlMigration;
use sea_orm_migration::prelude::*;

#[path = "migration/m20261129_000001_staff.rs"]
mod m20261129_000001_staff;
#[path = "migration/m20261129_000002_log_outs.rs"]
mod m20261129_000002_log_outs;

const MIGRATIONS: [SqlMigration; 2] = [m20261129_000001_staff::MIGRATION, m20261129_000002_log_outs::MIGRATION];

/// Staff's migrations.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        MIGRATIONS.into_iter().map(|migration| Box::new(migration) as Box<dyn MigrationTrait>).collect()
    }

    fn migration_table_name() -> DynIden {
        "staff_migration".into_iden()
    }
}

impl heyuan_kernel::migration::Steps for Migrator {}
