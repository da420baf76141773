//! Members that left, and the lines' own accounts of members.

use heyuan_kernel::migration::SqlMigration;

/// Retention: a departure stays, as the member that it ends; a line's account stays until it is unlinked or its member leaves, and the
/// number behind it lies in the vault.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261127_000004_members",
    up: "
ALTER TABLE membership_member ADD COLUMN former_anchor TEXT;
CREATE INDEX membership_member_former_anchor ON membership_member (former_anchor) WHERE former_anchor IS NOT NULL;
CREATE TABLE membership_departure (
  member TEXT PRIMARY KEY, at BIGINT NOT NULL, actor TEXT NOT NULL, how TEXT NOT NULL, points BIGINT NOT NULL, erase BIGINT NOT NULL,
  idempotency TEXT UNIQUE, idempotency_digest TEXT NOT NULL
);
CREATE TABLE membership_account (
  member TEXT NOT NULL, line TEXT NOT NULL, unit TEXT NOT NULL, ref TEXT NOT NULL, hash {bytes} NOT NULL, linked_at BIGINT NOT NULL,
  PRIMARY KEY (member, line)
);
CREATE UNIQUE INDEX membership_account_hash ON membership_account (line, hash);
",
};
