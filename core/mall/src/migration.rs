//! The mall's tables, by migrations under their own migration table.

use sea_orm_migration::prelude::*;

#[path = "migration/m20261122_000001_mall.rs"]
mod m20261122_000001_mall;
#[path = "migration/m20261129_000002_points.rs"]
mod m20261129_000002_points;

/// The mall's migrations.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(m20261122_000001_mall::MIGRATION), Box::new(m20261129_000002_points::MIGRATION)]
    }

    fn migration_table_name() -> DynIden {
        "mall_migration".into_iden()
    }
}

impl heyuan_kernel::migration::Steps for Migrator {}
