//! Where sessions of staff come from.

use super::SqlMigration;

/// A keyed hash of what the provider calls its own session, of which one of staff came; none for members, and where the provider names none.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261129_000007_session_origins",
    up: "
ALTER TABLE kernel_session ADD COLUMN origin TEXT;
",
};
