//! The index by which the first period of a unit is found among transfers that no stripe tells of.

use heyuan_kernel::migration::SqlMigration;

/// No new table. Few transfers are in it: those between two accounts that keep versions.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261129_000004_kept",
    up: "
CREATE INDEX ledger_transfer_kept ON ledger_transfer (unit, period) WHERE debit_version IS NOT NULL AND credit_version IS NOT NULL;
",
};
