//! Sessions of members.

use super::SqlMigration;

/// Retention: a session stays until it is logged out of, called back or refreshed no more; what has ended goes by membership's clockwork.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261129_000004_sessions",
    up: "
CREATE TABLE kernel_session (
  id TEXT PRIMARY KEY, member TEXT NOT NULL, app TEXT NOT NULL, unit TEXT NOT NULL, created_at BIGINT NOT NULL, used_at BIGINT NOT NULL,
  ends_at BIGINT NOT NULL, refresh_hash TEXT, spent_hash TEXT, successor {bytes}, refreshed_by TEXT
);
CREATE INDEX kernel_session_member ON kernel_session (member, app, used_at);
CREATE INDEX kernel_session_ends ON kernel_session (ends_at);
",
};
