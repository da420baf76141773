//! What lets a repeated answer to a dispute, and a row of a file that comes again in another file, be known.

use heyuan_kernel::migration::SqlMigration;

/// No new table.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261129_000018_repeats",
    up: "
ALTER TABLE membership_statement_word ADD COLUMN idempotency TEXT;
ALTER TABLE membership_statement_word ADD COLUMN idempotency_digest TEXT;
ALTER TABLE membership_statement_word ADD COLUMN dispute TEXT;
ALTER TABLE membership_statement_word ADD COLUMN corrected_fen BIGINT;
CREATE UNIQUE INDEX membership_statement_word_key ON membership_statement_word (idempotency) WHERE idempotency IS NOT NULL;
CREATE INDEX membership_opening_member ON membership_opening (member, digest);
",
};
