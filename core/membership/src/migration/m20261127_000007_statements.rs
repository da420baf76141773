//! What lines say to their statements, and the corrections that came of it.

use heyuan_kernel::migration::SqlMigration;

/// Retention: for ever, as the clearings that they belong to; a row a line and month.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261127_000007_statements",
    up: "
CREATE TABLE membership_statement (
  period BIGINT NOT NULL, line TEXT NOT NULL, state TEXT NOT NULL, words TEXT NOT NULL, actor TEXT NOT NULL, at BIGINT NOT NULL,
  PRIMARY KEY (period, line)
);
CREATE TABLE membership_correction (
  id TEXT PRIMARY KEY, of_period BIGINT NOT NULL, line TEXT NOT NULL, fen BIGINT NOT NULL, period BIGINT NOT NULL, at BIGINT NOT NULL
);
CREATE INDEX membership_correction_period ON membership_correction (period);
CREATE INDEX membership_correction_of ON membership_correction (of_period, line);
",
};
