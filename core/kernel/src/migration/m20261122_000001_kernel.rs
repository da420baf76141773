//! The kernel's first tables: settings, keys, units, vault, outbox, leases, audit, plugins.

use super::SqlMigration;

/// Retention: settings, keys, units and plugin versions stay; the vault until erasure; the outbox until every consumer has
/// passed; parked events until they are applied; tries until their event is applied or parked; audit for ever.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261122_000001_kernel",
    up: "
CREATE TABLE kernel_setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE kernel_counter (name TEXT PRIMARY KEY, value BIGINT NOT NULL);
CREATE TABLE kernel_key (
  id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, scopes TEXT NOT NULL, unit TEXT, created_at BIGINT NOT NULL, revoked_at BIGINT
);
CREATE TABLE kernel_org_unit (id TEXT PRIMARY KEY, parent TEXT, name TEXT NOT NULL, kind TEXT NOT NULL, line TEXT);
CREATE TABLE kernel_vault_key (subject TEXT PRIMARY KEY, wrapped {bytes} NOT NULL);
CREATE TABLE kernel_vault_value (ref TEXT PRIMARY KEY, subject TEXT NOT NULL, class TEXT NOT NULL, sealed {bytes} NOT NULL);
CREATE INDEX kernel_vault_value_subject ON kernel_vault_value (subject);
CREATE TABLE kernel_outbox (
  id {serial}, position BIGINT UNIQUE, event_key TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL, written_at BIGINT NOT NULL
);
CREATE INDEX kernel_outbox_unnumbered ON kernel_outbox (id) WHERE position IS NULL;
CREATE TABLE kernel_consumer (name TEXT PRIMARY KEY, position BIGINT NOT NULL);
CREATE TABLE kernel_try (consumer TEXT NOT NULL, position BIGINT NOT NULL, tries BIGINT NOT NULL, PRIMARY KEY (consumer, position));
CREATE TABLE kernel_parked (
  id {serial}, consumer TEXT NOT NULL, position BIGINT NOT NULL, event_key TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL,
  error TEXT NOT NULL, parked_at BIGINT NOT NULL
);
CREATE INDEX kernel_parked_key ON kernel_parked (consumer, event_key);
CREATE TABLE kernel_lease (name TEXT PRIMARY KEY, holder TEXT NOT NULL, fence BIGINT NOT NULL, expires_at BIGINT NOT NULL);
CREATE TABLE kernel_audit (
  id {serial}, at BIGINT NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL, object TEXT NOT NULL, detail TEXT NOT NULL
);
CREATE TABLE kernel_plugin_version (
  name TEXT NOT NULL, digest TEXT NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL, description TEXT NOT NULL,
  uploaded_at BIGINT NOT NULL, uploaded_by TEXT NOT NULL, PRIMARY KEY (name, digest)
);
CREATE TABLE kernel_plugin_module (digest TEXT PRIMARY KEY, module {bytes} NOT NULL);
CREATE TABLE kernel_plugin_pointer (
  name TEXT PRIMARY KEY, kind TEXT NOT NULL, digest TEXT NOT NULL, priority BIGINT NOT NULL, generation BIGINT NOT NULL, activated_at BIGINT NOT NULL
);
",
};
