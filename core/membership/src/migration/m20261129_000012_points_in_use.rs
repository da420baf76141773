//! Points in use: holds, transfers between members, adjustments under four eyes, notices of expiry, and the policy of it all.

use heyuan_kernel::migration::SqlMigration;

/// Retention: holds, transfers and adjustments stay, since the books name them, and erasure empties their words; the policy and the place
/// that the notices got to are one row each; a notice stays until its day is past.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261129_000012_points_in_use",
    up: "
ALTER TABLE membership_spend ADD COLUMN hold TEXT;
CREATE TABLE membership_hold (
  id TEXT PRIMARY KEY, member TEXT NOT NULL, unit TEXT NOT NULL, line TEXT NOT NULL, amount BIGINT NOT NULL, reference TEXT NOT NULL,
  state TEXT NOT NULL, captured BIGINT NOT NULL, spend TEXT NOT NULL, held_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, ended_at BIGINT,
  idempotency TEXT NOT NULL UNIQUE, idempotency_digest TEXT NOT NULL, ended_by TEXT UNIQUE, ended_digest TEXT
);
CREATE INDEX membership_hold_member ON membership_hold (member, id);
CREATE INDEX membership_hold_open ON membership_hold (expires_at) WHERE state = 'open';
CREATE TABLE membership_points_policy (name TEXT PRIMARY KEY, body TEXT NOT NULL, written_at BIGINT NOT NULL);
CREATE TABLE membership_points_transfer (
  id TEXT PRIMARY KEY, sender TEXT NOT NULL, recipient TEXT NOT NULL, amount BIGINT NOT NULL, note TEXT NOT NULL,
  occurred_at BIGINT NOT NULL, period BIGINT NOT NULL, points_balance BIGINT NOT NULL,
  idempotency TEXT NOT NULL UNIQUE, idempotency_digest TEXT NOT NULL
);
CREATE INDEX membership_points_transfer_sender ON membership_points_transfer (sender, occurred_at);
CREATE INDEX membership_points_transfer_recipient ON membership_points_transfer (recipient);
CREATE TABLE membership_adjustment (
  id TEXT PRIMARY KEY, member TEXT NOT NULL, unit TEXT NOT NULL, line TEXT NOT NULL, amount BIGINT NOT NULL, reason TEXT NOT NULL,
  expires_at BIGINT, state TEXT NOT NULL, proposed_by TEXT NOT NULL, proposed_at BIGINT NOT NULL, lapses_at BIGINT NOT NULL,
  decided_by TEXT, decided_at BIGINT, words TEXT NOT NULL, period BIGINT NOT NULL, recovered BIGINT NOT NULL,
  idempotency TEXT NOT NULL UNIQUE, idempotency_digest TEXT NOT NULL, decided_key TEXT UNIQUE, decided_digest TEXT
);
CREATE INDEX membership_adjustment_member ON membership_adjustment (member);
CREATE INDEX membership_adjustment_proposed ON membership_adjustment (lapses_at) WHERE state = 'proposed';
CREATE TABLE membership_expiry_notice (
  member TEXT NOT NULL, day BIGINT NOT NULL, points BIGINT NOT NULL, written_at BIGINT NOT NULL, PRIMARY KEY (member, day)
);
CREATE INDEX membership_expiry_notice_day ON membership_expiry_notice (day);
CREATE TABLE membership_notice_cursor (name TEXT PRIMARY KEY, expires_at BIGINT NOT NULL, lot BIGINT NOT NULL);
",
};
