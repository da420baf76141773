//! How wings write migrations: one SQL text for both databases, each wing under its own migration table.

use sea_orm_migration::prelude::*;

#[path = "migration/m20261122_000001_kernel.rs"]
mod m20261122_000001_kernel;
#[path = "migration/m20261125_000002_audit_chain.rs"]
mod m20261125_000002_audit_chain;
#[path = "migration/m20261125_000003_plugin_approval.rs"]
mod m20261125_000003_plugin_approval;
#[path = "migration/m20261129_000004_sessions.rs"]
mod m20261129_000004_sessions;
#[path = "migration/m20261129_000005_staff_sessions.rs"]
mod m20261129_000005_staff_sessions;
#[path = "migration/m20261129_000006_plugin_wishes.rs"]
mod m20261129_000006_plugin_wishes;
#[path = "migration/m20261129_000007_session_origins.rs"]
mod m20261129_000007_session_origins;
#[path = "migration/m20261130_000007_key_makers.rs"]
mod m20261130_000007_key_makers;

/// A migration as SQL. `{bytes}` stands for the binary type, `{serial}` for a key that counts up.
#[derive(Debug, Clone, Copy)]
pub struct SqlMigration {
    /// The name under which it is recorded; never changed.
    pub name: &'static str,
    /// Statements, parted by semicolons.
    pub up: &'static str,
}

impl MigrationName for SqlMigration {
    fn name(&self) -> &str {
        self.name
    }
}

#[async_trait::async_trait]
impl MigrationTrait for SqlMigration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let (bytes, serial) = match manager.get_database_backend() {
            sea_orm::DbBackend::Postgres => ("BYTEA", "BIGSERIAL PRIMARY KEY"),
            _ => ("BLOB", "INTEGER PRIMARY KEY AUTOINCREMENT"),
        };
        let text = self.up.replace("{bytes}", bytes).replace("{serial}", serial);
        manager.get_connection().execute_unprepared(&text).await?;
        Ok(())
    }
}

/// A room's migrations, and what they mean for the releases before. All expand, so that the release before serves on what they make,
/// but for those that are named here.
pub trait Steps: MigratorTrait {
    /// The steps after which only a release from the one beside it on may serve.
    fn contracting() -> &'static [(&'static str, &'static str)] {
        &[]
    }
}

/// The kernel's migrations.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261122_000001_kernel::MIGRATION),
            Box::new(m20261125_000002_audit_chain::MIGRATION),
            Box::new(m20261125_000003_plugin_approval::PluginApproval),
            Box::new(m20261129_000004_sessions::MIGRATION),
            Box::new(m20261129_000005_staff_sessions::MIGRATION),
            Box::new(m20261129_000006_plugin_wishes::MIGRATION),
            Box::new(m20261129_000007_session_origins::MIGRATION),
            Box::new(m20261130_000007_key_makers::MIGRATION),
        ]
    }

    fn migration_table_name() -> DynIden {
        "kernel_migration".into_iden()
    }
}

impl Steps for Migrator {}
