//! The lake's first tables: the catalogue of files, the watermark, pins.

use heyuan_kernel::migration::SqlMigration;

/// Retention: a file's row stays while the file counts, and after it was replaced for the configured grace, longer while a pin
/// needs it; the watermark is one row; a pin goes when it is released, or swept away after it has run out.
///
/// `generation` counts the changes of the catalogue: a pin keeps what was there at its own. A file without month and bucket is as
/// it was flushed.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261122_000001_lake",
    up: "
CREATE TABLE lake_file (
  id TEXT PRIMARY KEY, path TEXT NOT NULL UNIQUE, row_count BIGINT NOT NULL, byte_count BIGINT NOT NULL,
  position_min BIGINT NOT NULL, position_max BIGINT NOT NULL, occurred_min BIGINT NOT NULL, occurred_max BIGINT NOT NULL,
  month BIGINT, bucket BIGINT, created_at BIGINT NOT NULL, replaced_at BIGINT, replaced_generation BIGINT
);
CREATE INDEX lake_file_current ON lake_file (position_max) WHERE replaced_at IS NULL;
CREATE INDEX lake_file_replaced ON lake_file (replaced_at) WHERE replaced_at IS NOT NULL;
CREATE TABLE lake_watermark (id BIGINT PRIMARY KEY, position BIGINT NOT NULL, generation BIGINT NOT NULL);
INSERT INTO lake_watermark (id, position, generation) VALUES (1, 0, 0);
CREATE TABLE lake_pin (id TEXT PRIMARY KEY, reason TEXT NOT NULL, generation BIGINT NOT NULL, expires_at BIGINT NOT NULL);
",
};
