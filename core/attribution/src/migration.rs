//! Attribution's tables, by migrations under their own migration table.

use sea_orm_migration::prelude::*;

#[path = "migration/m20261122_000001_attribution.rs"]
mod m20261122_000001_attribution;

/// Attribution's migrations.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(m20261122_000001_attribution::MIGRATION)]
    }

    fn migration_table_name() -> DynIden {
        "attribution_migration".into_iden()
    }
}

impl heyuan_kernel::migration::Steps for Migrator {}
