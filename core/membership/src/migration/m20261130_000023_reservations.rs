//! The reservations of a member, found by the member.

use heyuan_kernel::migration::SqlMigration;

/// Retention: an index.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261130_000023_reservations",
    up: "CREATE INDEX membership_benefit_use_member ON membership_benefit_use (member, id) WHERE code IS NOT NULL;",
};
