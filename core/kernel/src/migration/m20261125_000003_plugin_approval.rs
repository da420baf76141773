//! What plugins may read, as the tenant approved it.

use sea_orm_migration::prelude::*;

/// Retention: approvals stay; the audit says who gave and withdrew them. What a version that is active already reads counts as
/// approved: it was let in when there was no approval to give.
#[derive(Debug, Clone, Copy)]
pub(super) struct PluginApproval;

const TABLE: &str = "
CREATE TABLE kernel_plugin_approval (name TEXT PRIMARY KEY, approved TEXT NOT NULL, changed_at BIGINT NOT NULL, changed_by TEXT NOT NULL);
";

const CARRY_SQLITE: &str = "
INSERT INTO kernel_plugin_approval (name, approved, changed_at, changed_by)
SELECT p.name, json_group_array(r.value), p.activated_at, 'system:upgrade' FROM kernel_plugin_pointer p JOIN (
  SELECT v.name, v.digest, json_extract(e.value, '$.name') AS value FROM kernel_plugin_version v, json_each(v.description, '$.reads') e
  UNION SELECT v.name, v.digest, 'input.' || e.value FROM kernel_plugin_version v, json_each(v.description, '$.parts') e
) r ON r.name = p.name AND r.digest = p.digest GROUP BY p.name, p.activated_at;
";

const CARRY_POSTGRES: &str = "
INSERT INTO kernel_plugin_approval (name, approved, changed_at, changed_by)
SELECT p.name, json_agg(r.value)::text, p.activated_at, 'system:upgrade' FROM kernel_plugin_pointer p JOIN (
  SELECT v.name, v.digest, e.value ->> 'name' AS value
    FROM kernel_plugin_version v, json_array_elements(v.description::json -> 'reads') AS e(value)
  UNION SELECT v.name, v.digest, 'input.' || e.value
    FROM kernel_plugin_version v, json_array_elements_text(v.description::json -> 'parts') AS e(value)
) r ON r.name = p.name AND r.digest = p.digest GROUP BY p.name, p.activated_at;
";

impl MigrationName for PluginApproval {
    fn name(&self) -> &str {
        "m20261125_000003_plugin_approval"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for PluginApproval {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let carry = match manager.get_database_backend() {
            sea_orm::DbBackend::Postgres => CARRY_POSTGRES,
            _ => CARRY_SQLITE,
        };
        manager.get_connection().execute_unprepared(&format!("{TABLE}{carry}")).await?;
        Ok(())
    }
}
