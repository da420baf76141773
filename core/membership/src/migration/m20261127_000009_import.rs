//! Opening balances taken over from the programs before.

use heyuan_kernel::migration::SqlMigration;

/// Retention: imports and the rows that they posted stay, since the books name them; what is kept of refused rows says what is wrong with
/// them and holds nothing of them.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261127_000009_import",
    up: "
CREATE TABLE membership_import (
  id TEXT PRIMARY KEY, unit TEXT NOT NULL, actor TEXT NOT NULL, started_at BIGINT NOT NULL, finished_at BIGINT, dry_run BIGINT NOT NULL,
  rows_posted BIGINT NOT NULL, rows_known BIGINT NOT NULL, rows_refused BIGINT NOT NULL, errors TEXT NOT NULL,
  idempotency TEXT NOT NULL UNIQUE, idempotency_digest TEXT NOT NULL
);
CREATE TABLE membership_opening (
  opening TEXT PRIMARY KEY, import TEXT NOT NULL, member TEXT NOT NULL, line TEXT NOT NULL, points BIGINT NOT NULL, growth BIGINT NOT NULL,
  digest TEXT NOT NULL, posted_at BIGINT NOT NULL
);
CREATE INDEX membership_opening_import ON membership_opening (import);
",
};
