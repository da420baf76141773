//! The periods of books: with which each one opens, and up to which it is closed.

use heyuan_kernel::migration::SqlMigration;

/// Retention: a row a unit that is closed by periods; it stays.
///
/// A period is the number `YYYYMM`; `closed_through` is zero while none is closed.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261126_000002_books",
    up: "
CREATE TABLE ledger_book (name TEXT PRIMARY KEY, opens_at BIGINT NOT NULL, closed_through BIGINT NOT NULL);
",
};
