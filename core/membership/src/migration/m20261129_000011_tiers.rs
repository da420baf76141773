//! Tiers by versions of the policy: which one a member was looked at under, and grants of tiers by hand.

use heyuan_kernel::migration::SqlMigration;

/// Retention: grants stay, since they explain tiers that were had; erasure empties their words.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261129_000011_tiers",
    up: "
ALTER TABLE membership_member ADD COLUMN tier_policy BIGINT NOT NULL DEFAULT 1;
CREATE INDEX membership_member_tier_policy ON membership_member (tier_policy, id) WHERE state <> 'closed';
CREATE TABLE membership_tier_grant (
  id TEXT PRIMARY KEY, member TEXT NOT NULL, tier TEXT NOT NULL, reason TEXT NOT NULL, granted_at BIGINT NOT NULL, until_at BIGINT NOT NULL,
  ends_at BIGINT NOT NULL, revoked_at BIGINT, idempotency TEXT NOT NULL UNIQUE, idempotency_digest TEXT NOT NULL
);
CREATE INDEX membership_tier_grant_member ON membership_tier_grant (member, ends_at);
",
};
