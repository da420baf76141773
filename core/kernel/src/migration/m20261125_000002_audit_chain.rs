//! The chain of audit records, and when a key was last used.

use super::SqlMigration;

/// Retention: links and heads stay for ever, as the audit records that they seal; a row of `kernel_audit_unsealed` goes when its
/// record is sealed. What was audited before there was a chain is sealed by the first sealer.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261125_000002_audit_chain",
    up: "
CREATE TABLE kernel_audit_unsealed (entry BIGINT PRIMARY KEY);
INSERT INTO kernel_audit_unsealed (entry) SELECT id FROM kernel_audit;
CREATE TABLE kernel_audit_seal (number BIGINT PRIMARY KEY, entry BIGINT NOT NULL UNIQUE, hash TEXT NOT NULL);
CREATE TABLE kernel_audit_head (number BIGINT PRIMARY KEY, hash TEXT NOT NULL, signature TEXT NOT NULL, at BIGINT NOT NULL);
CREATE INDEX kernel_audit_action ON kernel_audit (action, id);
CREATE INDEX kernel_audit_object ON kernel_audit (object, id);
ALTER TABLE kernel_key ADD COLUMN last_used_at BIGINT;
",
};
