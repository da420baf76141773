//! Codes sent to phones, and how many were sent.

use heyuan_kernel::migration::SqlMigration;

/// Retention: a code stays until it is used or, as the counts, for two days at most; neither a number nor a code can be read from them.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261129_000014_login",
    up: "
CREATE TABLE membership_phone_code (
  phone {bytes} NOT NULL, app TEXT NOT NULL, code {bytes} NOT NULL, tries BIGINT NOT NULL, expires_at BIGINT NOT NULL,
  PRIMARY KEY (phone, app)
);
CREATE INDEX membership_phone_code_expires ON membership_phone_code (expires_at);
CREATE TABLE membership_phone_count (
  subject TEXT NOT NULL, day BIGINT NOT NULL, count BIGINT NOT NULL, last_at BIGINT NOT NULL, PRIMARY KEY (subject, day)
);
CREATE INDEX membership_phone_count_day ON membership_phone_count (day);
",
};
