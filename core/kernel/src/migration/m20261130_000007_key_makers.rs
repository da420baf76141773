//! Who made each key, so that one person behind two keys is not taken for two.

use super::SqlMigration;

/// Retention: stays with the key. The makers of keys that there are already stand in the audit record.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261130_000007_key_makers",
    up: "
ALTER TABLE kernel_key ADD COLUMN maker TEXT;
UPDATE kernel_key SET maker = made.actor FROM (
  SELECT object, MIN(actor) AS actor FROM kernel_audit WHERE action = 'create key' AND actor NOT LIKE 'system:%' GROUP BY object
) AS made WHERE made.object = kernel_key.id;
",
};
