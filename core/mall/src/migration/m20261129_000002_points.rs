//! What of payments, orders and their lines is paid with points.

use heyuan_kernel::migration::SqlMigration;

/// Retention: as the rows that these columns are of.
pub(super) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261129_000002_points",
    up: "
ALTER TABLE mall_payment ADD COLUMN points BIGINT NOT NULL DEFAULT 0;
ALTER TABLE mall_payment ADD COLUMN points_fen BIGINT NOT NULL DEFAULT 0;
ALTER TABLE mall_payment ADD COLUMN points_refunded BIGINT NOT NULL DEFAULT 0;
ALTER TABLE mall_order ADD COLUMN points BIGINT NOT NULL DEFAULT 0;
ALTER TABLE mall_order ADD COLUMN points_fen BIGINT NOT NULL DEFAULT 0;
ALTER TABLE mall_order ADD COLUMN hold TEXT;
CREATE INDEX mall_order_hold ON mall_order (hold) WHERE hold IS NOT NULL;
ALTER TABLE mall_order_line ADD COLUMN points BIGINT NOT NULL DEFAULT 0;
ALTER TABLE mall_order_line ADD COLUMN points_fen BIGINT NOT NULL DEFAULT 0;
ALTER TABLE mall_refund ADD COLUMN points BIGINT NOT NULL DEFAULT 0;
ALTER TABLE mall_refund ADD COLUMN points_fen BIGINT NOT NULL DEFAULT 0;
ALTER TABLE mall_refund_line ADD COLUMN points BIGINT NOT NULL DEFAULT 0;
ALTER TABLE mall_refund_line ADD COLUMN points_fen BIGINT NOT NULL DEFAULT 0;
",
};
