//! Which plugins the operator manages, and how it wants them.

use super::SqlMigration;

/// Retention: a wish stays until the operator gives the name up.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261129_000006_plugin_wishes",
    up: "
CREATE TABLE kernel_plugin_wish (
  name TEXT PRIMARY KEY, kind TEXT NOT NULL, digest TEXT, approved TEXT NOT NULL, mode TEXT NOT NULL, generation BIGINT NOT NULL,
  overruled BIGINT, overruled_by TEXT, message TEXT NOT NULL, put_at BIGINT NOT NULL
);
",
};
