//! What a link of the chain saw of its transfer, and when a hold last set something of a lot free.

use heyuan_kernel::migration::SqlMigration;

/// Retention: as the tables that the columns belong to, for ever.
///
/// Links of format 1 saw the transfer's row alone; an earlier release that seals beside this one still writes them. `freed_at` is empty
/// for lots of which no hold freed anything since; what an earlier release frees expires at the lot's own expiry.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261127_000003_sealed_lots",
    up: "
ALTER TABLE ledger_seal ADD COLUMN format BIGINT NOT NULL DEFAULT 1;
ALTER TABLE ledger_lot ADD COLUMN freed_at BIGINT;
",
};
