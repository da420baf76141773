//! Of whom a transaction's identifiers spoke, so that a refund is told from somebody else's whatever became of the customer.

use heyuan_kernel::migration::SqlMigration;

/// Retention: stays with the transaction. Members' ids alone.
pub(super) const MIGRATION: SqlMigration =
    SqlMigration { name: "m20261130_000021_refund_hints", up: "ALTER TABLE membership_transaction ADD COLUMN hinted TEXT;" };
