//! Spends of points that were given back, wholly or in parts.

use heyuan_kernel::migration::SqlMigration;

/// Retention: for ever, as the spends that they belong to.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261127_000006_returns",
    up: "
CREATE TABLE membership_spend_return (
  id TEXT PRIMARY KEY, spend TEXT NOT NULL, member TEXT NOT NULL, amount BIGINT NOT NULL, expired BIGINT NOT NULL,
  recovered BIGINT NOT NULL, occurred_at BIGINT NOT NULL, period BIGINT NOT NULL, points_balance BIGINT NOT NULL,
  idempotency TEXT NOT NULL UNIQUE, idempotency_digest TEXT NOT NULL
);
CREATE INDEX membership_spend_return_spend ON membership_spend_return (spend);
",
};
