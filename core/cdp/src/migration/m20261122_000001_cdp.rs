//! The tables of collecting and identifying.

use heyuan_kernel::migration::SqlMigration;

/// Retention: inbox blocks until they are processed; known blocks until they are in the lake; message ids for
/// `collect.message_id_days`; rejected events for `collect.rejected_days`; counts of faults, event types, identifiers, edges,
/// cannot-links, units and consents as long as the customer (erasure empties them); suppression marks for ever, since a retry may
/// come at any time; pending identity changes until the next batch.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261122_000001_cdp",
    up: "
CREATE TABLE cdp_position (name TEXT PRIMARY KEY, position BIGINT NOT NULL);
CREATE TABLE cdp_inbox_block (
  id {serial}, first_position BIGINT, events BIGINT NOT NULL, bytes BIGINT NOT NULL, arrived_at BIGINT NOT NULL,
  skipped {bytes} NOT NULL, payload {bytes} NOT NULL
);
CREATE INDEX cdp_inbox_block_unnumbered ON cdp_inbox_block (id) WHERE first_position IS NULL;
CREATE UNIQUE INDEX cdp_inbox_block_position ON cdp_inbox_block (first_position);
CREATE TABLE cdp_message_id (id {bytes} PRIMARY KEY, seen_at BIGINT NOT NULL);
CREATE TABLE cdp_message_open (id {serial}, generation BIGINT NOT NULL, seen_at BIGINT NOT NULL, ids {bytes} NOT NULL);
CREATE TABLE cdp_message_generation (
  generation BIGINT PRIMARY KEY, ids BIGINT NOT NULL, newest_at BIGINT NOT NULL, filter {bytes} NOT NULL
);
CREATE TABLE cdp_message_chunk (
  generation BIGINT NOT NULL, prefix BIGINT NOT NULL, ids {bytes} NOT NULL, PRIMARY KEY (generation, prefix)
);
CREATE TABLE cdp_rejected (
  id {serial}, message_hash {bytes} NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL, app TEXT NOT NULL, unit TEXT,
  arrived_at BIGINT NOT NULL, replayed_at BIGINT, sealed {bytes} NOT NULL
);
CREATE INDEX cdp_rejected_message ON cdp_rejected (message_hash);
CREATE INDEX cdp_rejected_arrived ON cdp_rejected (arrived_at);
CREATE TABLE cdp_known_block (
  first_position BIGINT PRIMARY KEY, last_position BIGINT NOT NULL, events BIGINT NOT NULL, written_at BIGINT NOT NULL, payload {bytes} NOT NULL
);
CREATE TABLE cdp_event_type (
  name TEXT NOT NULL, version BIGINT NOT NULL, mode TEXT NOT NULL, properties TEXT NOT NULL, created_at BIGINT NOT NULL, created_by TEXT NOT NULL,
  PRIMARY KEY (name, version)
);
CREATE TABLE cdp_property_fault (
  event_type TEXT NOT NULL, property TEXT NOT NULL, fault TEXT NOT NULL, count BIGINT NOT NULL, last_at BIGINT NOT NULL,
  PRIMARY KEY (event_type, property, fault)
);
CREATE TABLE cdp_node (
  id TEXT PRIMARY KEY, hash {bytes} UNIQUE, kind TEXT NOT NULL, app TEXT, ref TEXT, blocked BIGINT NOT NULL, shared BIGINT NOT NULL,
  oversized BIGINT NOT NULL, first_seen BIGINT NOT NULL, last_seen BIGINT NOT NULL, cluster TEXT NOT NULL, revision BIGINT NOT NULL, erased_at BIGINT
);
CREATE INDEX cdp_node_cluster ON cdp_node (cluster);
CREATE INDEX cdp_node_reported ON cdp_node (id) WHERE shared = 1 OR oversized = 1;
CREATE TABLE cdp_edge (
  a TEXT NOT NULL, b TEXT NOT NULL, first_seen BIGINT NOT NULL, last_seen BIGINT NOT NULL, count BIGINT NOT NULL, source TEXT NOT NULL,
  rule_version BIGINT NOT NULL, retracted_at BIGINT, retracted_by TEXT, PRIMARY KEY (a, b)
);
CREATE INDEX cdp_edge_b ON cdp_edge (b);
CREATE TABLE cdp_cannot_link (a TEXT NOT NULL, b TEXT NOT NULL, at BIGINT NOT NULL, actor TEXT NOT NULL, PRIMARY KEY (a, b));
CREATE INDEX cdp_cannot_link_b ON cdp_cannot_link (b);
CREATE TABLE cdp_identity_pending (id {serial}, anchor TEXT NOT NULL, before TEXT, after TEXT NOT NULL, cause TEXT NOT NULL);
CREATE TABLE cdp_customer_unit (anchor TEXT NOT NULL, unit TEXT NOT NULL, PRIMARY KEY (anchor, unit));
CREATE TABLE cdp_suppression (mark {bytes} PRIMARY KEY, at BIGINT NOT NULL);
CREATE TABLE cdp_consent (
  anchor TEXT NOT NULL, purpose TEXT NOT NULL, legal_entity TEXT NOT NULL, granted BIGINT NOT NULL, at BIGINT NOT NULL,
  recorded_at BIGINT NOT NULL, recorded_by TEXT NOT NULL, PRIMARY KEY (anchor, purpose, legal_entity)
);
",
};
