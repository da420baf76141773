//! The lake's migrations, under their own table.

use sea_orm_migration::sea_query::{DynIden, IntoIden};
use sea_orm_migration::{MigrationTrait, MigratorTrait};

#[path = "migration/m20261122_000001_lake.rs"]
mod m20261122_000001_lake;

/// The lake's migrations.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(m20261122_000001_lake::MIGRATION)]
    }

    fn migration_table_name() -> DynIden {
        "lake_migration".into_iden()
    }
}

impl heyuan_kernel::migration::Steps for Migrator {}
