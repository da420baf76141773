//! What is proven to be a member's own.

use heyuan_kernel::migration::SqlMigration;

/// Retention: a proof stays until its member leaves, and where the member asked to be erased until that is done.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261130_000016_proofs",
    up: "
CREATE TABLE membership_proof (
  member TEXT NOT NULL, anchor TEXT NOT NULL, kind TEXT NOT NULL, proven_at BIGINT NOT NULL, proven_by TEXT NOT NULL,
  PRIMARY KEY (member, anchor)
);
CREATE INDEX membership_proof_anchor ON membership_proof (anchor);
",
};
