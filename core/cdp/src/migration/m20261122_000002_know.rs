//! The tables of features, tags and segments.

use heyuan_kernel::migration::SqlMigration;

/// Retention: definitions stay; an anchor's state and a customer's standing as long as the customer (erasure removes them); changes
/// of tags 730 days; bitmaps as long as their segment.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261122_000002_know",
    up: "
CREATE TABLE cdp_know_counter (name TEXT PRIMARY KEY, value BIGINT NOT NULL);
INSERT INTO cdp_know_counter (name, value) VALUES ('definitions', 0), ('revision', 0), ('feature', 0), ('number', 0);
CREATE TABLE cdp_feature (
  name TEXT PRIMARY KEY, id BIGINT NOT NULL UNIQUE, expression TEXT NOT NULL, state TEXT NOT NULL, history_until BIGINT NOT NULL,
  history_cursor BIGINT NOT NULL, cursor BIGINT, declared_at BIGINT NOT NULL, declared_by TEXT NOT NULL
);
CREATE TABLE cdp_tag_rule (
  name TEXT PRIMARY KEY, cases TEXT NOT NULL, version BIGINT NOT NULL, cursor BIGINT, defined_at BIGINT NOT NULL, defined_by TEXT NOT NULL
);
CREATE TABLE cdp_tagger (name TEXT PRIMARY KEY, generation BIGINT NOT NULL, cursor BIGINT);
CREATE TABLE cdp_segment (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, predicate TEXT NOT NULL, purpose TEXT, unit TEXT, version BIGINT NOT NULL, cursor BIGINT,
  entered BIGINT NOT NULL, gone BIGINT NOT NULL, defined_at BIGINT NOT NULL, defined_by TEXT NOT NULL
);
CREATE TABLE cdp_feature_state (anchor TEXT PRIMARY KEY, position BIGINT NOT NULL, state {bytes} NOT NULL);
CREATE TABLE cdp_standing (
  customer TEXT PRIMARY KEY, number BIGINT NOT NULL UNIQUE, revision BIGINT NOT NULL, position BIGINT NOT NULL, as_of BIGINT NOT NULL,
  due_at BIGINT, standing {bytes} NOT NULL
);
CREATE INDEX cdp_standing_revision ON cdp_standing (revision);
CREATE INDEX cdp_standing_due ON cdp_standing (due_at) WHERE due_at IS NOT NULL;
CREATE TABLE cdp_tag_change (
  id {serial}, customer TEXT NOT NULL, tag TEXT NOT NULL, value TEXT, previous TEXT, version TEXT NOT NULL, cause TEXT NOT NULL,
  position BIGINT NOT NULL, at BIGINT NOT NULL
);
CREATE INDEX cdp_tag_change_customer ON cdp_tag_change (customer, id);
CREATE INDEX cdp_tag_change_at ON cdp_tag_change (at);
CREATE TABLE cdp_bitmap (
  name TEXT NOT NULL, chunk BIGINT NOT NULL, count BIGINT NOT NULL, bits {bytes} NOT NULL, PRIMARY KEY (name, chunk)
);
",
};
