//! Log-outs that the provider told of.

use heyuan_kernel::migration::SqlMigration;

/// `logged_out_at` is in seconds, by the provider's clock.
///
/// Retention: a token that was seen until it would be too old to be believed; a session at the provider for as long as one of ours can last.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261129_000002_log_outs",
    up: "
ALTER TABLE staff_person ADD COLUMN logged_out_at BIGINT;
CREATE TABLE staff_seen_log_out (token TEXT PRIMARY KEY, expires_at BIGINT NOT NULL);
CREATE INDEX staff_seen_log_out_expires ON staff_seen_log_out (expires_at);
CREATE TABLE staff_provider_session (id TEXT PRIMARY KEY, staff TEXT, ended_at BIGINT, expires_at BIGINT NOT NULL);
CREATE INDEX staff_provider_session_expires ON staff_provider_session (expires_at);
",
};
