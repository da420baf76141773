//! The list that a month was closed with, uploads of lines' books, what was said to statements, and corrections with two persons.

use heyuan_kernel::migration::SqlMigration;

/// Retention: for ever, as the clearings that they belong to; a row a month, a row a month, line and unit, a row each time that somebody
/// speaks, a row a correction.
///
/// An approved correction also has its row in `membership_correction`, from which the clearing sums; an earlier release knows that one alone.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261129_000013_clearing",
    up: "
CREATE TABLE membership_closing (
  period BIGINT PRIMARY KEY, at BIGINT NOT NULL, actor TEXT NOT NULL, reason TEXT NOT NULL, checks TEXT NOT NULL
);
CREATE TABLE membership_reconciliation (
  period BIGINT NOT NULL, line TEXT NOT NULL, unit TEXT NOT NULL, at BIGINT NOT NULL, actor TEXT NOT NULL,
  read BIGINT NOT NULL, alike BIGINT NOT NULL, differing BIGINT NOT NULL, refused BIGINT NOT NULL, PRIMARY KEY (period, line, unit)
);
CREATE TABLE membership_statement_word (
  id TEXT PRIMARY KEY, period BIGINT NOT NULL, line TEXT NOT NULL, state TEXT NOT NULL, words TEXT NOT NULL, actor TEXT NOT NULL,
  at BIGINT NOT NULL
);
CREATE INDEX membership_statement_word_line ON membership_statement_word (period, line, id);
CREATE TABLE membership_correction_entry (
  no {serial}, id TEXT NOT NULL UNIQUE, of_period BIGINT NOT NULL, line TEXT NOT NULL, counter TEXT NOT NULL, fen BIGINT NOT NULL,
  points BIGINT, cost_numerator BIGINT, cost_denominator BIGINT, reason TEXT NOT NULL, dispute TEXT, state TEXT NOT NULL,
  proposed_by TEXT NOT NULL, proposed_at BIGINT NOT NULL, decided_by TEXT, decided_at BIGINT, decision TEXT, period BIGINT,
  idempotency TEXT UNIQUE, idempotency_digest TEXT NOT NULL
);
CREATE INDEX membership_correction_entry_of ON membership_correction_entry (of_period, no);
CREATE INDEX membership_correction_entry_proposed ON membership_correction_entry (no) WHERE state = 'proposed';
",
};
