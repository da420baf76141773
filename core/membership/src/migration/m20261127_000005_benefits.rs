//! Benefits: the catalogue in versions, its stock, what members were granted, and what of it they reserved and used.

use heyuan_kernel::migration::SqlMigration;

/// Retention: versions of benefits and their stock stay as long as the definition; grants and uses stay, since a line's cost is counted
/// from them; erasure empties their words; a round is one row a benefit, tier and period.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261127_000005_benefits",
    up: "
CREATE TABLE membership_benefit (
  code TEXT NOT NULL, version BIGINT NOT NULL, unit TEXT NOT NULL, line TEXT NOT NULL, state TEXT NOT NULL, tiered BIGINT NOT NULL,
  body TEXT NOT NULL, created_at BIGINT NOT NULL, PRIMARY KEY (code, version)
);
CREATE TABLE membership_benefit_stock (benefit TEXT NOT NULL, period BIGINT NOT NULL, taken BIGINT NOT NULL, PRIMARY KEY (benefit, period));
CREATE TABLE membership_benefit_grant (
  id TEXT PRIMARY KEY, source TEXT NOT NULL UNIQUE, digest TEXT NOT NULL, member TEXT NOT NULL, benefit TEXT NOT NULL, version BIGINT NOT NULL,
  unit TEXT NOT NULL, line TEXT NOT NULL, quantity BIGINT NOT NULL, available BIGINT NOT NULL, reserved BIGINT NOT NULL, used BIGINT NOT NULL,
  lapsed BIGINT NOT NULL, state TEXT NOT NULL, cost_fen BIGINT NOT NULL, anywhere BIGINT NOT NULL, stock_returns BIGINT NOT NULL,
  period BIGINT NOT NULL, ended_period BIGINT, granted_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, reason TEXT NOT NULL,
  transaction_unit TEXT, transaction_id TEXT
);
CREATE INDEX membership_benefit_grant_member ON membership_benefit_grant (member, id);
CREATE INDEX membership_benefit_grant_live ON membership_benefit_grant (expires_at) WHERE state = 'live';
CREATE INDEX membership_benefit_grant_period ON membership_benefit_grant (period);
CREATE INDEX membership_benefit_grant_ended ON membership_benefit_grant (ended_period) WHERE ended_period IS NOT NULL;
CREATE INDEX membership_benefit_grant_transaction ON membership_benefit_grant (transaction_unit, transaction_id)
  WHERE transaction_id IS NOT NULL;
CREATE TABLE membership_benefit_use (
  id TEXT PRIMARY KEY, code TEXT UNIQUE, grant_id TEXT NOT NULL, member TEXT NOT NULL, benefit TEXT NOT NULL, line TEXT NOT NULL,
  unit TEXT NOT NULL, contributor TEXT NOT NULL, quantity BIGINT NOT NULL, cost_fen BIGINT NOT NULL, state TEXT NOT NULL,
  deadline BIGINT, reserved_at BIGINT, reserved_period BIGINT, ended_at BIGINT, used_period BIGINT,
  idempotency TEXT NOT NULL UNIQUE, idempotency_digest TEXT NOT NULL, ended_by TEXT UNIQUE, ended_digest TEXT
);
CREATE INDEX membership_benefit_use_grant ON membership_benefit_use (grant_id);
CREATE INDEX membership_benefit_use_deadline ON membership_benefit_use (deadline) WHERE state = 'reserved';
CREATE INDEX membership_benefit_use_used ON membership_benefit_use (used_period) WHERE used_period IS NOT NULL;
CREATE INDEX membership_benefit_use_reserved ON membership_benefit_use (reserved_period) WHERE reserved_period IS NOT NULL;
CREATE INDEX membership_member_tier ON membership_member (tier, id);
CREATE TABLE membership_benefit_round (
  benefit TEXT NOT NULL, tier TEXT NOT NULL, period TEXT NOT NULL, reached TEXT NOT NULL, due BIGINT NOT NULL,
  PRIMARY KEY (benefit, tier, period)
);
",
};
