//! Membership's first tables: members, transactions, decisions, growth, spends, budgets, clearing.

use heyuan_kernel::migration::SqlMigration;

/// Retention: members stay, closed ones without their anchor; transactions, spends, growth and clearing stay, since the books name
/// them; decisions stay as long as their transaction, without input and output once the person is erased; rule counters and budgets
/// stay (one row a rule, month and member).
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261122_000001_membership",
    up: "
CREATE TABLE membership_member (
  id TEXT PRIMARY KEY, anchor TEXT, unit TEXT NOT NULL, line TEXT NOT NULL, state TEXT NOT NULL, joined_at BIGINT NOT NULL,
  tier TEXT NOT NULL, tier_due BIGINT NOT NULL
);
CREATE UNIQUE INDEX membership_member_anchor ON membership_member (anchor) WHERE anchor IS NOT NULL;
CREATE INDEX membership_member_due ON membership_member (tier_due);
CREATE TABLE membership_transaction (
  no {serial}, id TEXT NOT NULL, unit TEXT NOT NULL, line TEXT NOT NULL, kind TEXT NOT NULL, refund_of TEXT, member TEXT,
  amount BIGINT NOT NULL, occurred_at BIGINT NOT NULL, arrived_at BIGINT NOT NULL, period BIGINT NOT NULL,
  state TEXT NOT NULL, why TEXT NOT NULL, lines TEXT NOT NULL, digest TEXT NOT NULL,
  idempotency TEXT UNIQUE, idempotency_digest TEXT NOT NULL, earn_version BIGINT NOT NULL,
  base_growth BIGINT NOT NULL, base_points BIGINT NOT NULL, growth BIGINT NOT NULL, points BIGINT NOT NULL, receivable BIGINT NOT NULL,
  points_balance BIGINT NOT NULL, tier TEXT NOT NULL, cost_numerator BIGINT NOT NULL, cost_denominator BIGINT NOT NULL,
  refunded BIGINT NOT NULL, growth_kept BIGINT NOT NULL, points_kept BIGINT NOT NULL, decision TEXT, UNIQUE (unit, id)
);
CREATE INDEX membership_transaction_id ON membership_transaction (id);
CREATE INDEX membership_transaction_member ON membership_transaction (member, no);
CREATE INDEX membership_transaction_refund_of ON membership_transaction (unit, refund_of) WHERE refund_of IS NOT NULL;
CREATE INDEX membership_transaction_refunds ON membership_transaction (period) WHERE kind = 'refund' AND state = 'posted';
CREATE TABLE membership_decision (
  id TEXT PRIMARY KEY, member TEXT NOT NULL, transaction_unit TEXT NOT NULL, transaction_id TEXT NOT NULL, at BIGINT NOT NULL,
  earn_version BIGINT NOT NULL, pointers TEXT NOT NULL, position BIGINT, erased BIGINT NOT NULL
);
CREATE INDEX membership_decision_member ON membership_decision (member);
CREATE TABLE membership_decision_call (
  decision TEXT NOT NULL, place BIGINT NOT NULL, rule TEXT NOT NULL, digest TEXT NOT NULL, generation BIGINT NOT NULL,
  input {bytes} NOT NULL, output {bytes} NOT NULL, fuel BIGINT NOT NULL, effects_raw TEXT NOT NULL, effects TEXT NOT NULL,
  budget_limit BIGINT NOT NULL, budget_spent BIGINT NOT NULL, points BIGINT NOT NULL, PRIMARY KEY (decision, place)
);
CREATE TABLE membership_growth (
  no {serial}, member TEXT NOT NULL, transaction_no BIGINT NOT NULL, amount BIGINT NOT NULL, occurred_at BIGINT NOT NULL
);
CREATE INDEX membership_growth_member ON membership_growth (member, occurred_at, amount);
CREATE TABLE membership_counter (
  member TEXT NOT NULL, rule TEXT NOT NULL, period BIGINT NOT NULL, points BIGINT NOT NULL, PRIMARY KEY (member, rule, period)
);
CREATE TABLE membership_budget (
  rule TEXT NOT NULL, period BIGINT NOT NULL, points_max BIGINT NOT NULL, points_spent BIGINT NOT NULL, PRIMARY KEY (rule, period)
);
CREATE TABLE membership_spend (
  id TEXT PRIMARY KEY, member TEXT NOT NULL, unit TEXT NOT NULL, line TEXT NOT NULL, amount BIGINT NOT NULL, reference TEXT NOT NULL,
  occurred_at BIGINT NOT NULL, period BIGINT NOT NULL, points_balance BIGINT NOT NULL,
  idempotency TEXT NOT NULL UNIQUE, idempotency_digest TEXT NOT NULL
);
CREATE TABLE membership_earn_rules (version BIGINT PRIMARY KEY, body TEXT NOT NULL, created_at BIGINT NOT NULL);
CREATE TABLE membership_tier_policy (version BIGINT PRIMARY KEY, body TEXT NOT NULL, created_at BIGINT NOT NULL);
CREATE TABLE membership_book (name TEXT PRIMARY KEY, closed_through BIGINT NOT NULL);
CREATE TABLE membership_clearing (period BIGINT PRIMARY KEY, closed_at BIGINT NOT NULL, closed_by TEXT NOT NULL, statement TEXT NOT NULL);
INSERT INTO membership_book (name, closed_through) VALUES ('points', 0);
",
};
