//! The indexes by which a line's transactions of a month are read in the order of their own time, and refunds that wait too long.

use heyuan_kernel::migration::SqlMigration;

/// No new table.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261127_000010_reconciliation",
    up: "
CREATE INDEX membership_transaction_line ON membership_transaction (line, occurred_at, no);
CREATE INDEX membership_transaction_waiting ON membership_transaction (arrived_at, no) WHERE state = 'waiting';
",
};
