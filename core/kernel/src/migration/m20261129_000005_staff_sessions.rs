//! Sessions of those who work for the group, beside those of members.

use super::SqlMigration;

/// A session with scopes is of staff: `member` holds who it is, and an empty `unit` stands for the whole group.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261129_000005_staff_sessions",
    up: "
ALTER TABLE kernel_session ADD COLUMN scopes TEXT;
",
};
