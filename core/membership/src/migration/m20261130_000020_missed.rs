//! What rules and tiers wanted and could not give, and the words that a decision is explained in.

use heyuan_kernel::migration::SqlMigration;

/// Retention: stays with the decision or the grant.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261130_000020_missed",
    up: "
ALTER TABLE membership_decision ADD COLUMN wording BIGINT;
ALTER TABLE membership_decision_call ADD COLUMN missed TEXT;
ALTER TABLE membership_benefit_grant ADD COLUMN missed TEXT;
",
};
