//! Attribution's first tables: spend and its imports, touchpoints, leads and their stages.

use heyuan_kernel::migration::SqlMigration;

/// Retention: spend, leads and stages stay, since reports compare years; imports stay with the spend that they brought;
/// touchpoints go after 800 days, more than the longest window and two years of leads need (the lake keeps the events).
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261122_000001_attribution",
    up: "
CREATE TABLE attribution_import (
  id TEXT PRIMARY KEY, platform TEXT NOT NULL, unit TEXT NOT NULL, actor TEXT NOT NULL, imported_at BIGINT NOT NULL,
  rows_accepted BIGINT NOT NULL, rows_replaced BIGINT NOT NULL, rows_refused BIGINT NOT NULL
);
CREATE TABLE attribution_plan (platform TEXT NOT NULL, plan TEXT NOT NULL, unit TEXT NOT NULL, PRIMARY KEY (platform, plan));
CREATE TABLE attribution_spend (
  day TEXT NOT NULL, platform TEXT NOT NULL, account TEXT NOT NULL, plan TEXT NOT NULL, creative TEXT NOT NULL,
  plan_name TEXT NOT NULL, unit TEXT NOT NULL, impressions BIGINT NOT NULL, clicks BIGINT NOT NULL, amount BIGINT NOT NULL,
  import TEXT NOT NULL, PRIMARY KEY (day, platform, account, plan, creative)
);
CREATE INDEX attribution_spend_plan ON attribution_spend (platform, plan);
CREATE TABLE attribution_touch (
  message_id TEXT PRIMARY KEY, anchor TEXT, unit TEXT, platform TEXT, source TEXT, medium TEXT, campaign TEXT, content TEXT,
  click_id TEXT, occurred_at BIGINT NOT NULL
);
CREATE INDEX attribution_touch_time ON attribution_touch (occurred_at);
CREATE INDEX attribution_touch_anchor ON attribution_touch (anchor);
CREATE INDEX attribution_touch_click ON attribution_touch (click_id);
CREATE TABLE attribution_lead (
  id TEXT PRIMARY KEY, unit TEXT NOT NULL, anchor TEXT, adviser TEXT, submitted_at BIGINT NOT NULL, recorded_at BIGINT NOT NULL,
  click_id TEXT, touch TEXT, stage TEXT NOT NULL, idempotency TEXT NOT NULL UNIQUE, digest TEXT NOT NULL
);
CREATE INDEX attribution_lead_time ON attribution_lead (submitted_at);
CREATE INDEX attribution_lead_anchor ON attribution_lead (anchor);
CREATE TABLE attribution_stage (
  lead_id TEXT NOT NULL REFERENCES attribution_lead (id), stage TEXT NOT NULL, contract TEXT NOT NULL, occurred_at BIGINT NOT NULL,
  recorded_at BIGINT NOT NULL, amount BIGINT, takes_back TEXT, PRIMARY KEY (lead_id, stage, contract)
);
CREATE INDEX attribution_stage_time ON attribution_stage (occurred_at);
",
};
