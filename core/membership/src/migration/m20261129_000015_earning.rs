//! How the earn rules came to what they gave, and budgets with a name.

use heyuan_kernel::migration::SqlMigration;

/// Retention: what is added to a decision stays with it; a budget with a name stays, since decisions name it.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261129_000015_earning",
    up: "
ALTER TABLE membership_decision ADD COLUMN basis TEXT;
ALTER TABLE membership_decision_call ADD COLUMN budgets TEXT;
CREATE TABLE membership_named_budget (
  name TEXT PRIMARY KEY, rules TEXT NOT NULL, lines TEXT NOT NULL, from_ms BIGINT NOT NULL, until_ms BIGINT NOT NULL,
  points_max BIGINT NOT NULL, points_spent BIGINT NOT NULL, created_at BIGINT NOT NULL
);
CREATE INDEX membership_named_budget_until ON membership_named_budget (until_ms);
",
};
