//! Which order of the mall a hold of points pays, so that nothing but the order ends it.

use heyuan_kernel::migration::SqlMigration;

/// Retention: stays with the hold. An order's id, no personal data. Holds that the mall made before have the name of their cart.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261130_000022_holds_of_orders",
    up: "
ALTER TABLE membership_hold ADD COLUMN order_id TEXT;
UPDATE membership_hold SET order_id = reference
  WHERE state = 'open' AND reference LIKE 'cart %' AND idempotency LIKE '%|hold points|order/%';
",
};
