//! The ledger's first tables: accounts, transfers, lots, holds, seals.

use heyuan_kernel::migration::SqlMigration;

/// Retention: accounts, transfers, lots, their moves, stripes, seals and heads stay for ever, since they are the books; a row of
/// `ledger_unsealed` goes when its transfer is sealed; holds stay with their outcome, as transfers do.
///
/// A transfer holds both of its entries; `ledger_entry` shows them one by one. A striped account keeps its movement by period and
/// stripe, so that no row is hot and a period's turnover is a sum of few rows.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261122_000001_ledger",
    up: "
CREATE TABLE ledger_account (
  no {serial}, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, unit TEXT NOT NULL, shape TEXT NOT NULL, floor BIGINT,
  balance BIGINT NOT NULL, reserved BIGINT NOT NULL, version BIGINT NOT NULL
);
CREATE INDEX ledger_account_owner ON ledger_account (owner);
CREATE TABLE ledger_stripe (
  account BIGINT NOT NULL, period BIGINT NOT NULL, stripe BIGINT NOT NULL, debits BIGINT NOT NULL, credits BIGINT NOT NULL,
  PRIMARY KEY (account, period, stripe)
);
CREATE TABLE ledger_transfer (
  no {serial}, key TEXT NOT NULL UNIQUE, unit TEXT NOT NULL, debit BIGINT NOT NULL, credit BIGINT NOT NULL, amount BIGINT NOT NULL,
  debit_version BIGINT, debit_balance BIGINT, credit_version BIGINT, credit_balance BIGINT,
  occurred_at BIGINT NOT NULL, period BIGINT NOT NULL, kind TEXT NOT NULL, reference TEXT NOT NULL, posted_at BIGINT NOT NULL
);
CREATE INDEX ledger_transfer_debit ON ledger_transfer (debit, debit_version, no);
CREATE INDEX ledger_transfer_credit ON ledger_transfer (credit, credit_version, no);
CREATE VIEW ledger_entry AS
  SELECT no AS transfer, debit AS account, -amount AS amount, debit_version AS version, debit_balance AS balance_after, unit, period FROM ledger_transfer
  UNION ALL
  SELECT no, credit, amount, credit_version, credit_balance, unit, period FROM ledger_transfer;
CREATE TABLE ledger_lot (
  no {serial}, account BIGINT NOT NULL, source TEXT NOT NULL UNIQUE, issuer TEXT NOT NULL,
  cost_numerator BIGINT NOT NULL, cost_denominator BIGINT NOT NULL,
  amount BIGINT NOT NULL, remaining BIGINT NOT NULL, held BIGINT NOT NULL, expires_at BIGINT NOT NULL, period BIGINT NOT NULL
);
CREATE INDEX ledger_lot_open ON ledger_lot (account, expires_at, no) WHERE remaining > 0;
CREATE INDEX ledger_lot_account ON ledger_lot (account, no);
CREATE INDEX ledger_lot_expiry ON ledger_lot (expires_at, no) WHERE remaining > 0;
CREATE INDEX ledger_lot_period ON ledger_lot (period);
CREATE TABLE ledger_lot_move (
  no {serial}, lot BIGINT NOT NULL, transfer BIGINT NOT NULL, amount BIGINT NOT NULL, restores BIGINT, period BIGINT NOT NULL
);
CREATE INDEX ledger_lot_move_lot ON ledger_lot_move (lot);
CREATE INDEX ledger_lot_move_transfer ON ledger_lot_move (transfer);
CREATE INDEX ledger_lot_move_restores ON ledger_lot_move (restores) WHERE restores IS NOT NULL;
CREATE INDEX ledger_lot_move_period ON ledger_lot_move (period);
CREATE TABLE ledger_hold (
  key TEXT PRIMARY KEY, unit TEXT NOT NULL, debit BIGINT NOT NULL, credit BIGINT NOT NULL, amount BIGINT NOT NULL,
  kind TEXT NOT NULL, reference TEXT NOT NULL, held_at BIGINT NOT NULL, expires_at BIGINT NOT NULL,
  outcome TEXT NOT NULL, posted BIGINT NOT NULL
);
CREATE INDEX ledger_hold_open ON ledger_hold (expires_at) WHERE outcome = 'open';
CREATE TABLE ledger_hold_lot (hold TEXT NOT NULL, lot BIGINT NOT NULL, amount BIGINT NOT NULL, PRIMARY KEY (hold, lot));
CREATE TABLE ledger_unsealed (transfer BIGINT PRIMARY KEY);
CREATE TABLE ledger_seal (number BIGINT PRIMARY KEY, transfer BIGINT NOT NULL UNIQUE, hash TEXT NOT NULL);
CREATE TABLE ledger_head (number BIGINT PRIMARY KEY, hash TEXT NOT NULL, signature TEXT NOT NULL, at BIGINT NOT NULL);
",
};
