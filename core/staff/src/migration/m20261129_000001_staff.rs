//! Who has logged in, and the log-ins that were used up.

use heyuan_kernel::migration::SqlMigration;

/// Retention: a person stays for ever, since the audit record names them; a used state until its log-in would have expired.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261129_000001_staff",
    up: "
CREATE TABLE staff_person (id TEXT PRIMARY KEY, subject TEXT NOT NULL UNIQUE, created_at BIGINT NOT NULL, last_log_in_at BIGINT NOT NULL);
CREATE TABLE staff_used_state (state TEXT PRIMARY KEY, expires_at BIGINT NOT NULL);
CREATE INDEX staff_used_state_expires ON staff_used_state (expires_at);
",
};
